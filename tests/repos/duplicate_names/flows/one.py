from prefect import flow


@flow(name="etl")
def extract():
    pass

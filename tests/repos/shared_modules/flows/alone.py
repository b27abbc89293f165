from prefect import flow


@flow
def alone():
    pass

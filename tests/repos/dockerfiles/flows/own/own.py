from prefect import flow


@flow
def own():
    pass

from prefect import flow


@flow
def inherits():
    pass

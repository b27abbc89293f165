from prefect import flow


@flow
def good():
    pass

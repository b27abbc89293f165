from prefect import flow


@flow
def unfinished(:
    pass

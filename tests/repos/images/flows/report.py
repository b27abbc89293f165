from prefect import flow


@flow
def report() -> None:
    pass

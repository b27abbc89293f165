from prefect import flow


@flow
def load() -> None:
    pass

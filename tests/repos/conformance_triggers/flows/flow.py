from prefect import flow


@flow(name="conformance-triggers")
def triggered(name: str = "", day: str = "") -> None:
    """Runs when something happens."""

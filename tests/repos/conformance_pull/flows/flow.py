from prefect import flow


@flow(name="conformance-pull")
def pulled() -> None:
    """Its code comes from somewhere."""

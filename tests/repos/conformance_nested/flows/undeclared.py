from prefect import flow


@flow(name="conformance-undeclared")
def undeclared() -> None:
    """No prefect.yaml mentions it, and there are no templates: it is not deployed."""

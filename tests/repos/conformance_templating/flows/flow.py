from prefect import flow


@flow(name="conformance-templating")
def templated(text: str = "", number: int = 0, anything: object = None) -> None:
    """Gets values from everywhere."""

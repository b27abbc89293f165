from prefect import flow

from shop.sizes import Size


@flow(name="conformance-etl")
def etl(sizes: list[Size], note: str = "") -> None:
    """Load."""

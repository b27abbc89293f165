from prefect import flow

from shop.sizes import Size


@flow(name="conformance-report", description="Reports.")
def report(size: Size = Size.SMALL) -> None: ...

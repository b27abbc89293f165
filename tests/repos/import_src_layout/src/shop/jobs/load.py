"""A flow inside of the package: its imports start in `src`."""

from shop.decorators import PREFIX, make_report, shop_flow


@shop_flow(name=f"{PREFIX}-load")
def load(rows: int = 1):
    pass


loaded_report = make_report("loaded")

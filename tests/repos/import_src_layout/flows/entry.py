"""A flow outside of the package that uses it."""

from shop.decorators import make_report, shop_flow
from shop.jobs.load import load


@shop_flow
def entry(a):
    pass


daily_report = make_report("daily")
load_again = load.with_options(name="shop-load-again")

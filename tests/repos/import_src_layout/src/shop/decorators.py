from functools import partial

from prefect import flow

shop_flow = partial(flow, retries=1)
PREFIX = "shop"


def make_report(name):
    @flow(name=f"{PREFIX}-{name}")
    def report(day: str):
        pass

    return report

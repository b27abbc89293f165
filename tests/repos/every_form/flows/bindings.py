"""Flows that are made by calling `flow`."""

import prefect
from prefect import Flow, flow

make = prefect.flow
quiet = flow(log_prints=False, retries=1)


def work(x: int = 1):
    """Work."""


async def wait_for_it(seconds: float):
    pass


def unused():
    pass


by_call = flow(work)
by_call_with_arguments = flow(work, name="called-with-arguments")
by_two_calls = flow(name="two-calls")(wait_for_it)
by_class = Flow(work, name="by-class")
by_keyword = Flow(fn=work, name="by-keyword")
annotated: Flow = flow(work, name="annotated")
first = second = flow(work, name="two-names")
another_name = by_call
by_lambda = flow(lambda x: x)
renamed = by_call.with_options(name="renamed", description="Another one.")
renamed_again = renamed.with_options(retries=5)


@make
def through_alias():
    pass


@quiet
def through_arguments():
    pass


@quiet(name="more-arguments")
def through_more_arguments():
    pass

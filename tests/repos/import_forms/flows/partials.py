"""functools.partial of `flow`, in all spellings."""

import functools
import functools as ft
from functools import partial

import prefect
from prefect import flow
from prefect.flows import Flow

my_flow = partial(flow, retries=2)
our_flow = functools.partial(prefect.flow, log_prints=True)
nested = partial(my_flow, timeout_seconds=5)
named = ft.partial(flow, name="named-by-partial")
of_class = partial(Flow, retries=1)
stage = "x"
with_text = partial(flow, name=f"partial-{stage}")


def work(rows: int = 1):
    """Works."""


async def work_async(rows: int):
    pass


@my_flow
def bare():
    pass


@my_flow()
def with_brackets():
    pass


@our_flow(name="partial-and-name")
def with_name(a, b=2):
    pass


@nested
async def through_two():
    pass


@named
def name_comes_from_partial():
    pass


@named(name="overridden")
def name_is_overridden():
    pass


@with_text
def name_from_text():
    pass


called = my_flow(work)
called_with_name = my_flow(work_async, name="partial-called")
class_called = of_class(work, name="partial-of-class")
immediately = partial(flow, name="partial-at-once")(work)
function_first = partial(flow, work)
from_function_first = function_first(name="partial-function-first")
by_keyword = partial(Flow, fn=work)(name="partial-by-keyword")

"""Flows that functions make: they belong to the file that binds them."""

import mylib.factories
from mylib import factories as library
from mylib.factories import make_by_call, make_default_name, make_flow, make_from, make_late, make_outer, make_prefixed
from prefect import flow

REGION = "north"


def make_here(name, cron="0 0 * * *"):
    @flow(name=name, description=cron)
    def made_here(day: str):
        """Made here."""

    return made_here


def make_with_default(name="by-default-argument"):
    @flow(name=name)
    def inner(a, b=1):
        pass

    return inner


def make_from_three(table, *, prefix, suffix="daily"):
    label = f"{prefix}-{table}"

    @flow(name=f"{label}-{suffix}")
    async def load(rows: int):
        pass

    return load


def make_by_flow_call(name):
    def inner(x, *, y=None):
        pass

    return flow(inner, name=name)


def make_with_docstring(name):
    """A factory with a docstring, an assignment and a branch that never returns."""
    if not name:
        raise ValueError(name)

    @flow(name=name)
    def inner(z):
        pass

    result = inner
    return result


make_by_lambda = lambda name: flow(make_here.__call__ if False else _plain, name=name)  # noqa: E731


def _plain(q: int = 1):
    pass


daily = make_here("factory-daily", cron="0 6 * * *")
weekly = make_here(name="factory-weekly")
regional = make_here(f"factory-{REGION}")
by_default = make_with_default()
with_positional = make_with_default("by-positional-argument")
three = make_from_three("orders", prefix="load")
three_with_suffix = make_from_three(table="customers", prefix="load", suffix="hourly")
by_flow_call = make_by_flow_call("factory-by-flow-call")
with_docstring = make_with_docstring("factory-with-docstring")

from_library = make_flow("library-daily", schedule="0 6 * * *")
from_library_by_call = make_by_call("library-by-call")
from_library_prefixed = make_prefixed("orders")
from_library_keywords = make_prefixed(table="orders", stage="clean", prefix="move")
from_library_outer = make_outer("daily")
from_library_function = make_from(_plain, "library-from-function")
from_library_late = make_late("one")
from_library_default_name = make_default_name()
through_module = library.make_flow("library-through-module")
through_dotted = mylib.factories.make_flow(f"library-{REGION}")


class Jobs:
    nightly = make_here("factory-in-class")


if REGION == "north":
    conditional = make_here("factory-in-branch")
else:
    conditional = None

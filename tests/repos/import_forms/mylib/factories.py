"""Functions that make flows. Nothing here is bound to a name of the module, so nothing here is a flow of it."""

import prefect
from prefect import flow


def make_flow(name, schedule=None):
    @flow(name=name)
    def made(day: str, rows: int = 10):
        """Made in the library."""
        return day, rows, schedule

    return made


def make_by_call(name):
    def inner(source: str):
        return source

    return flow(name=name)(inner)


def make_prefixed(table, *, prefix="load", stage="raw"):
    @prefect.flow(name=f"{prefix}-{table}-{stage}", retries=1)
    async def load(limit: int = 0):
        return table, limit

    return load


def make_outer(name):
    """A factory that calls another one."""
    return make_flow(f"outer-{name}")


def make_from(fn, name):
    """Makes a flow of a function that it is given."""
    return flow(fn, name=name)


def make_late(name):
    """The name is changed on the way out."""

    @flow
    def late(x: int):
        return x

    return late.with_options(name=f"late-{name}")


def make_default_name():
    @flow
    def from_the_inner_function(a, b=2):
        return a, b

    return from_the_inner_function

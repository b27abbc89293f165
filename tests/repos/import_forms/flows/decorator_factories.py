"""Decorators of the repository that make flows."""

from mylib.chained import our_flow as chained_our_flow
from mylib.decorators import both, named_by_partial, our_flow, tagged, with_defaults, wrapped
from prefect import flow


def local_decorator(fn):
    return flow(fn)


def local_with_options(fn):
    """Sets what the team always sets."""
    made = flow(retries=2, log_prints=True)(fn)
    return made


def local_named(name):
    def decorate(fn):
        return flow(name=f"local-{name}")(fn)

    return decorate


def local_maker(name, retries=0):
    return flow(name=name, retries=retries)


@local_decorator
def by_local_decorator(a, b=1):
    """Decorated here."""


@local_with_options
async def by_local_options(a: int):
    pass


@local_named("inner")
def by_local_named(a):
    pass


@local_maker("by-local-maker", retries=1)
def by_local_maker(a, *, b):
    pass


@our_flow
def by_plain_wrapper(day: str):
    pass


@chained_our_flow
def by_chained_wrapper(day: str):
    pass


@tagged("report")
def by_decorator_factory(day: str):
    pass


@tagged("report", prefix="other")
async def by_decorator_factory_keyword(day: str):
    pass


@with_defaults("by-with-defaults")
def by_function_in_function(x):
    pass


@with_defaults(name="by-with-defaults-keyword", retries=1)
def by_function_in_function_keyword(x):
    pass


@named_by_partial
def by_partial_with_name(n: int = 0):
    pass


@both
def by_both(x):
    pass


@both(name="both-with-name")
def by_both_named(x):
    pass


@wrapped
def by_wrapped(a, b=1):
    pass


by_call = our_flow(lambda rows: rows)

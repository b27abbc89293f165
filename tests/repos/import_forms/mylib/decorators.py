"""The team's ways to make a flow. None of this is a flow itself."""

import functools
from functools import partial

import prefect
from prefect import flow
from prefect import flow as renamed_flow

__all__ = ["flow", "patient", "plain", "quiet", "renamed_flow", "retrying", "tagged", "with_defaults"]

plain = prefect.flow
quiet = flow(log_prints=False)
retrying = partial(flow, retries=2)
patient = functools.partial(retrying, retry_delay_seconds=5)
named_by_partial = functools.partial(prefect.flow, name="named-in-mylib")


def our_flow(fn):
    """A plain wrapper: `@our_flow`."""
    return flow(retries=2)(fn)


def tagged(name, prefix="team"):
    """A decorator factory: `@tagged("x")`."""
    return flow(name=f"{prefix}-{name}")


def with_defaults(name, *, retries=3):
    """A decorator factory that is written out as a function in a function."""

    def decorate(fn):
        return flow(name=name, retries=retries)(fn)

    return decorate


def wrapped(fn):
    """A wrapper whose inner function hides the signature of the flow from nobody: functools.wraps."""

    @functools.wraps(fn)
    def inner(*args, **kwargs):
        return fn(*args, **kwargs)

    return flow(inner)


def both(fn=None, *, name=None):
    """With and without brackets: `@both` and `@both(name="x")`."""
    if fn is None:
        return lambda function: both(function, name=name)
    return flow(fn, name=name)

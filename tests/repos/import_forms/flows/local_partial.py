"""Functions of this file that are called like those of the standard library."""

from prefect import flow


def partial(function, **ignored):
    return function


def wraps(function):
    return lambda other: other


my_flow = partial(flow, name="never this name")


@my_flow
def by_local_partial(a):
    pass


@flow
@wraps(by_local_partial)
def by_local_wraps(b):
    pass

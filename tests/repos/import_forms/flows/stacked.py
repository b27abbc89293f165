"""Several decorators on one function."""

import functools
from contextlib import contextmanager

from mylib.decorators import retrying
from prefect import flow, task


def note(fn):
    @functools.wraps(fn)
    def noted(*args, **kwargs):
        return fn(*args, **kwargs)

    return noted


def keep(fn):
    fn.kept = True
    return fn


def named(text):
    def decorate(fn):
        fn.label = text
        return fn

    return decorate


@flow
@note
def flow_outside(a, b=1):
    """Outside."""


@flow(name="stacked-with-name")
@named("x")
@keep
def flow_outside_of_two(a):
    pass


@keep
@flow(name="stacked-inside")
def flow_inside(a):
    pass


@named("y")
@retrying
def flow_inside_of_factory(a):
    pass


@flow
@functools.lru_cache
def cached(n: int):
    return n


@task
@note
def only_a_task():
    pass


@contextmanager
def only_a_manager():
    yield

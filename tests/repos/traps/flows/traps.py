"""Looks like flows, but none of it is one, except `real` at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import prefect
from prefect import task
from real_flows import elsewhere as imported_flow

if TYPE_CHECKING:
    from prefect import flow


class toolkit:
    @staticmethod
    def flow(function):
        return function


def flow(function):  # not Prefect's
    return function


@flow
def local_decorator():
    pass


@toolkit.flow
def foreign_attribute():
    pass


@task
def a_task():
    pass


def factory():
    @prefect.flow
    def nested():
        pass

    nested_too = prefect.flow(nested.fn)
    return nested_too.name


async def async_factory():
    @prefect.flow
    async def nested_async():
        pass


class Outer:
    def method(self):
        @prefect.flow
        def in_method():
            pass


TEXT = '''
from prefect import flow

@flow
def in_a_string():
    pass
'''
# @flow
# def in_a_comment(): ...

only_arguments = prefect.flow(name="no function yet")


@prefect.flow
def removed():
    pass


del removed


@prefect.flow
def replaced():
    pass


def replaced():
    pass


REGISTRY = {"x": prefect.flow(a_task.fn)}

if __name__ == "__main__":

    @prefect.flow
    def only_as_script():
        pass


@prefect.flow
def real():
    pass

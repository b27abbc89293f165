"""Nothing here is a flow of this file."""

import mylib.ready
from mylib.decorators import our_flow, tagged, with_defaults
from mylib.factories import make_flow
from mylib.ready import ReadyJobs, ready, ready_async
from prefect import flow, task


class toolkit:
    @staticmethod
    def flow(function):
        return function


def flow_like(fn):
    return fn


def make_never_called(name):
    @flow(name=name)
    def never():
        pass

    return never


def returns_nothing(name):
    @flow(name=name)
    def lost():
        pass


def returns_a_name():
    @flow
    def named():
        pass

    return named.name


def returns_a_list():
    @flow
    def listed():
        pass

    return [listed]


def uses_inside():
    local = make_flow("only-inside")
    return local.name


def with_local_flow():
    def flow(fn):
        return fn

    @flow
    def not_one():
        pass

    return not_one


TEXT = '''
from prefect import flow

@flow
def in_a_string():
    pass

text = make_flow("in-a-string")
'''
# @flow
# def in_a_comment(): ...


@toolkit.flow
def by_toolkit():
    pass


@flow_like
def by_flow_like():
    pass


@task
def a_task():
    pass


imported_again = ready
through_module = mylib.ready.ready
of_class = ReadyJobs.in_class
nothing = returns_nothing("nothing")
a_name = returns_a_name()
a_list = returns_a_list()
local_name = uses_inside()
a_function = with_local_flow()
the_factory = make_flow
waits_for_a_function = flow(name="no function yet")
decorator = tagged("never applied")
decorator_too = with_defaults("never applied either")
wrapper = our_flow
make_flow("not bound")
registry = {"x": make_flow("in a dictionary")}
in_a_list = [make_flow("in a list")]


class Holder:
    def __init__(self):
        self.flow = make_flow("in an instance")

    @property
    def made(self):
        return make_flow("in a property")


holder = Holder()
holder.extra = make_flow("on an instance")

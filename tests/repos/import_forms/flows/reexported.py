"""`flow` comes through the repository's own modules."""

import mylib
import mylib.decorators as decorators
from mylib import package_flow, quiet
from mylib.chained import chained_flow, relative, renamed_flow
from mylib.decorators import flow, patient, plain, retrying


@flow
def through_module(a):
    pass


@flow(name="through-module-named")
def through_module_with_name(a, *, b=1):
    pass


@package_flow
async def through_package(a: int):
    pass


@quiet
def through_options(a):
    pass


@quiet(name="quiet-and-named")
def through_options_named():
    pass


@plain
def through_alias():
    pass


@retrying
def through_partial(a, b):
    pass


@patient(name="patient-and-named")
def through_partial_of_partial(a, b):
    pass


@chained_flow
def through_chain():
    pass


@renamed_flow(name="through-star")
def through_star(x):
    pass


@relative
def through_relative_import():
    pass


@mylib.package_flow
def through_attribute():
    pass


@mylib.decorators.flow(name="through-two-attributes")
def through_attributes():
    pass


@decorators.retrying(retries=0)
def through_module_alias(n: int = 0):
    pass


by_call = decorators.flow(through_alias.fn, name="reexported-by-call")

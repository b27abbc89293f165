"""Imports from folders without `__init__.py`."""

import company.finance.decorators
from company.finance import decorators
from company.finance.decorators import finance_flow
from company.logistics.making import make_trip
from prefect import flow


@finance_flow
def by_name(a):
    pass


@decorators.finance_flow(name="namespace-by-module")
def by_module(a):
    pass


@company.finance.decorators.finance_flow(name="namespace-by-dotted")
def by_dotted(a):
    pass


@flow(name=f"{decorators.LABEL}-label")
def by_constant():
    pass


trip = make_trip("north")

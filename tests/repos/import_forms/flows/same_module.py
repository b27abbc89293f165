"""Aliases inside of one file, and flows beside flows."""

import prefect as pf
import prefect.flows
from prefect import Flow, flow as f
from prefect.flows import flow as from_flows

make = f
again = make
attribute = pf.flow
options = {"name": "same-from-options", "retries": 2}


@make
def by_alias():
    pass


@again(name="same-by-alias-of-alias")
def by_alias_of_alias(a):
    pass


@attribute
def by_attribute_alias():
    pass


@from_flows
def by_flows():
    pass


@prefect.flows.flow
def by_dotted():
    pass


@pf.flows.flow(name="same-by-renamed-package")
def by_renamed_package():
    pass


@f(**options)
def by_options():
    pass


by_class = Flow(by_alias.fn, name="same-by-class")
by_lambda = f(lambda x, y=1: x, name="same-by-lambda")
by_two_calls = f(retries=1)(name="same-by-two-calls")(by_alias_of_alias.fn)

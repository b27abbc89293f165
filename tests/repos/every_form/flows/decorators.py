"""Every way to write the decorator."""

import prefect
import prefect as pf
import prefect.flows as pflows
from prefect import flow
from prefect import flow as f
from prefect import flows
from prefect.flows import flow as flow_of_flows


@flow
def plain(day: str, count: int = 3):
    """What plain does.

    Indented below.
    """


@flow()
def called():
    pass


@flow(name="With Arguments", retries=2, retry_delay_seconds=1.5, on_failure=[])
def with_arguments(*, key=None):
    pass


@f
def renamed_import():
    pass


@prefect.flow
def dotted():
    pass


@pf.flow(name="module-alias")
def module_alias():
    pass


@prefect.flows.flow
def submodule():
    pass


@pflows.flow
def submodule_alias():
    pass


@flows.flow
def imported_submodule():
    pass


@flow_of_flows
def from_submodule():
    pass


@flow
async def asynchronous(x: int):
    pass


@flow(description="Given, not the docstring.")
def described():
    """The docstring."""


@flow
def everything(a, /, b, c: "int" = 1, *rest: int, d, e: list[str] = ["x"], **others: str):
    pass


@flow
def generator():
    yield 1

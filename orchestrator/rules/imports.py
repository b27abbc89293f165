"""Rules about importing: FLW010 and FLW011, which `--isolated-import` asks for. See `isolated_import`."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.rules.rule import Facts, Finding, Rule, reported

IMPORT_FAILS = "FLW010"
OTHER_FLOW = "FLW011"


def import_fails(facts: Facts) -> Iterator[Finding]:
    """The file of a flow cannot be imported: it raises an error, ends the process, or takes too long.

    A run of the flow would fail in the same way before it begins. What is needed when the module is imported (a
    connection, an environment variable that only the worker has) belongs into the flow or a task. A package that is
    missing may be missing here only: install it beside the orchestrator, or do without `--isolated-import`.
    """
    return reported(facts, IMPORT_FAILS)


def other_flow(facts: Facts) -> Iterator[Finding]:
    """What an import finds at an entrypoint is not what reading the file says: another name, or no flow at all.

    Prefect goes by the import: the deployment would belong to a flow of another name, or its runs would fail. Write
    the name out in the decorator, and let the entrypoint's name hold the flow.
    """
    return reported(facts, OTHER_FLOW)


RULES: tuple[Rule, ...] = (
    Rule(
        IMPORT_FAILS,
        "Flow cannot be imported",
        "error",
        import_fails,
        example="""
# flows/etl.py
import os
from prefect import flow

TABLE = os.environ["TABLE_THAT_ONLY_THE_WORKER_KNOWS"]

@flow
def etl():
    print(TABLE)
""".strip(),
        better="""
# flows/etl.py
import os
from prefect import flow

@flow
def etl():
    print(os.environ["TABLE_THAT_ONLY_THE_WORKER_KNOWS"])
""".strip(),
    ),
    Rule(
        OTHER_FLOW,
        "Import finds another flow",
        "warning",
        other_flow,
        example="""
# flows/etl.py
from prefect import flow

@flow(name="etl")
def etl(): ...

etl.name = "etl-nightly"
""".strip(),
        better="""
# flows/etl.py
from prefect import flow

@flow(name="etl-nightly")
def etl(): ...
""".strip(),
    ),
)

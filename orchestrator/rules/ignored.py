"""The rule about ignores: IGN. It judges what all other rules found, so `validation` applies it after them."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.rules.rule import Facts, Finding, Rule, reported


def unused_ignore(facts: Facts) -> Iterator[Finding]:
    """A comment `# orchestrator: ignore[CODE]`, or an entry of `ignore` in pyproject.toml, silences nothing.

    Either the fault is gone, or the comment never worked: no rule has this code, it names none, it stands on another
    line, or the rule cannot be silenced. What is left standing would hide the next fault of this kind, which nobody
    has looked at. Remove it, or correct the code.
    """
    return reported(facts, "IGN001")


RULES: tuple[Rule, ...] = (
    Rule(
        "IGN001",
        "Ignore that silences nothing",
        "warning",
        unused_ignore,
        example="""
# flows/etl.py
from prefect import flow

@flow
def etl(rows=()):  # orchestrator: ignore[FLW006]
    ...
""",
        better="""
# flows/etl.py
from prefect import flow

@flow
def etl(rows=()):
    ...
""",
        ignorable=False,
    ),
)

"""Options of the commands that plan and apply: what they are about, and in which manner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from orchestrator.desired import Selection
from orchestrator.model import Kind

Patterns = tuple[str, ...]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Scope:
    """Which part of the environment a command is about."""

    only: Annotated[Patterns, Parameter(help="Only what matches: patterns on flow/deployment.")] = ()
    kind: Annotated[Kind | None, Parameter(help="Only deployments of this kind.")] = None
    declared_only: Annotated[bool, Parameter(help="Only what a prefect.yaml declares.")] = False
    adopt: Annotated[Patterns, Parameter(help="Take over unowned deployments that match.")] = ()

    @property
    def selection(self) -> Selection:
        return Selection(only=self.only, kind=self.kind, declared_only=self.declared_only)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Manner:
    """How to apply, whatever it is."""

    allow_delete: Annotated[
        bool, Parameter(help="Delete even more than the environment's policy allows at a time.")
    ] = False
    atomic: Annotated[bool, Parameter(help="After a failure set everything back to what it was.")] = False
    wait: Annotated[
        bool,
        Parameter(
            negative="--no-wait",
            help="Wait for another apply to the environment to end; --no-wait says who is at it, and ends.",
        ),
    ] = True
    verify: Annotated[
        bool,
        Parameter(
            negative="--no-verify", help="Read back what was written, and wait until active schedules have runs."
        ),
    ] = True

    @property
    def terms(self) -> dict[str, Any]:
        """The fields of `Terms` that they decide on."""
        return {"is_atomic": self.atomic, "waits": self.wait, "verifies": self.verify}

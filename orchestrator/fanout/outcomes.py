"""What became of a run, and of many, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from orchestrator.errors import RunFailed
from orchestrator.masking import masked, masked_text

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
"""The state types that are ends. Everything else, Paused, Late and Cancelling included, is not."""

DELETED = "Deleted"
"""The state name that we give to a run which the server no longer knows."""

TIMED_OUT = "TimedOut"
"""The state name that we give to a run which was left running when its time was up."""

NAMED_FAILURES = 10  # how many failed runs an error message names before it counts the rest
SHOWN_PARAMETERS = 200  # characters of a run's parameters in a message


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOutcome:
    """How one run ended."""

    id: str
    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)  # as submitted: not those of the deployment
    state_type: str | None  # None where the run is gone, or was left running
    state_name: str  # what people see: Completed, TimedOut, NoChanges, ...
    message: str = ""
    started: datetime | None = None  # None where it never ran
    ended: datetime | None = None
    attempts: int = 0  # how often it was started, by whomever
    url: str = ""  # where it is seen in the UI

    @property
    def succeeded(self) -> bool:
        """Decided on the state's type, since its name can be anything."""
        return self.state_type == "COMPLETED"

    @property
    def duration(self) -> float | None:
        """Seconds from its start to its end; None where it has not both."""
        return (self.ended - self.started).total_seconds() if self.started and self.ended else None

    @property
    def label(self) -> str:
        """`run (id)`: the name that people see, and what tells it from another run of that name."""
        return self.id if self.name == self.id else f"{self.name} ({self.id[:8]})"

    @property
    def shown_parameters(self) -> str:
        """`table=1, token='***'`."""
        return ", ".join(f"{name}={masked(name, value)!r}" for name, value in self.parameters.items())

    @property
    def shown_message(self) -> str:
        """On one line, and without secrets."""
        return masked_text(" ".join(self.message.split()))

    def ending(self, longest: int | None = None) -> str:
        """`Failed after 2 attempts: message`, on one line and without secrets; of the message so many characters."""
        attempts = f" after {self.attempts} attempts" if self.attempts > 1 else ""
        message = self.shown_message[:longest]
        return f"{self.state_name}{attempts}{f': {message}' if message else ''}"

    def describe(self, flow_name: str) -> str:
        """`flow/run (id): state after 2 attempts: message [parameters]`, on one line."""
        given = self.shown_parameters[:SHOWN_PARAMETERS]
        shown = f" [{given}]" if given else ""
        return f"{flow_name}/{self.label}: {self.ending()}{shown}"


def failures_first(outcomes: Iterable[RunOutcome]) -> list[RunOutcome]:
    """In the order in which people look for a cause: what went wrong, what was cancelled, perhaps because of it, and
    what completed."""
    return sorted(outcomes, key=lambda outcome: (outcome.succeeded, outcome.state_type == "CANCELLED"))


def summary(outcomes: Iterable[RunOutcome]) -> str:
    """`18/20 succeeded, 2 failed`."""
    succeeded = [outcome.succeeded for outcome in outcomes]
    return f"{sum(succeeded)}/{len(succeeded)} succeeded, {len(succeeded) - sum(succeeded)} failed"


def run_failed(failures: Sequence[str], *, total: int, rest: str = "") -> RunFailed:
    """The error for runs that did not complete.

    Args:
        failures: a line for each.
        total: of how many.
        rest: what becomes of those that have not ended.
    """
    named = "; ".join(failures[:NAMED_FAILURES])
    more = f"; and {len(failures) - NAMED_FAILURES} more" if len(failures) > NAMED_FAILURES else ""
    return RunFailed(
        f"{len(failures)} of {total} flow runs did not complete: {named}{more}.{f' {rest}' if rest else ''}",
        remedy="The logs of these runs in the Prefect UI say more.",
    )

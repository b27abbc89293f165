"""One run, as far as it is known while it is followed."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from orchestrator.fanout.calls import NOT_STARTED
from orchestrator.fanout.outcomes import ENDED, RunOutcome

EARLIEST = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True, kw_only=True)
class Track:
    """One run, as far as it is known. Few words each: there may be many thousands."""

    id: str
    parameters: Mapping[str, Any]
    is_stray: bool = False  # it does not carry the batch's tag: it is asked for by its id
    since: float = field(default_factory=time.monotonic)  # when it was submitted, or started again
    name: str = ""
    state_type: str = "SCHEDULED"
    state_name: str = "Scheduled"
    message: str = ""
    changed: datetime = EARLIEST
    started: datetime | None = None
    ended: datetime | None = None
    attempts: int = 0
    crashed_at: float = math.inf  # when we heard of it
    looked: float = 0.0  # when it was last read
    running_since: datetime | None = None  # in its present attempt
    is_confirmed: bool = False
    doubts: int = 0  # how often the server has contradicted what an event told of it
    restarts_left: int = 0  # how often it is still started again when it ends badly
    is_retried: bool = False
    reason: str = ""  # why we have asked it to end
    is_overdue: bool = False
    is_left: bool = False  # it counts as TimedOut, whatever becomes of it
    ends_with_parent: bool = False  # it was being cancelled with its parent's earlier attempt: it is still to run
    outcome: RunOutcome | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it is in a state that is an end; a crashed one may still come back."""
        return self.state_type in ENDED

    def come_to(self, state_type: str, state_name: str, message: str, changed: datetime) -> None:
        """It is in another state now, since `changed`."""
        self.state_type, self.state_name, self.message, self.changed = state_type, state_name, message, changed
        if state_type == "RUNNING":
            self.running_since = self.running_since or changed
        elif state_type in NOT_STARTED:
            self.running_since = None
        elif state_type == "CRASHED":
            self.crashed_at = min(self.crashed_at, time.monotonic() - max(0.0, seconds_since(changed)))

    def reopen(self) -> None:
        """It has not ended, or runs again."""
        self.ended, self.outcome, self.is_confirmed, self.crashed_at = None, None, False, math.inf

    def begin_again(self) -> None:
        """It is started again: its time counts anew."""
        self.since, self.running_since, self.is_overdue, self.reason = time.monotonic(), None, False, ""

    def runs_again(self) -> bool:
        """Whether a run that has ended is started again by what we were told, each time counted. What somebody has
        cancelled is not."""
        if self.state_type == "CANCELLED":
            again, self.ends_with_parent = self.ends_with_parent, False
            return again
        if self.state_type == "COMPLETED" or not self.restarts_left:
            return False
        self.restarts_left, self.is_retried = self.restarts_left - 1, True
        return True

    def give_up(self, reason: str) -> None:
        """It is not started again, however it ends; where it ends as cancelled, that is why."""
        self.restarts_left, self.ends_with_parent, self.reason = 0, False, reason

    def as_outcome(self, ui_url: str) -> RunOutcome:
        """How it has ended, as people are told."""
        return RunOutcome(
            id=self.id,
            name=self.name or self.id,
            parameters=self.parameters,
            state_type=self.state_type or None,
            state_name=self.state_name or self.state_type.title(),
            message=(self.state_type == "CANCELLED" and self.reason) or self.message,
            started=self.started,
            ended=self.ended,
            attempts=self.attempts,
            url=f"{ui_url}/runs/flow-run/{self.id}",
        )


def seconds_since(moment: datetime) -> float:
    return (datetime.now(UTC) - moment).total_seconds()

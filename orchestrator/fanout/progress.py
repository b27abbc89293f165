"""What people see while runs end: a line and an artifact every few seconds, a table at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import anyio
from prefect.artifacts import (
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)

from orchestrator.fanout.log import logger
from orchestrator.fanout.outcomes import RunOutcome, summary
from orchestrator.fanout.watch import Watch
from orchestrator.masking import masked

FIRST_SECONDS, LONGEST_SECONDS, GROWTH = 5.0, 60.0, 2.0  # between two lines: each costs two requests
LINES = 50  # runs whose ends get a line each; of more than that only as many failures do
ROWS = 500  # of the table
SHOWN = 80  # characters of a value in the table


class EndLines:
    """A line for each run that ends, where they are not too many to read.

    Args:
        path: of the deployment.
        total: how many runs there are, by now.
    """

    def __init__(self, path: str, total: Callable[[], int]) -> None:
        self._path, self._total, self._failed = path, total, 0

    def tell(self, outcome: RunOutcome) -> None:
        self._failed += not outcome.succeeded
        if self._total() > LINES and (outcome.succeeded or self._failed > LINES):
            return
        sign = "✅" if outcome.succeeded else "❌"
        text = "%s [%s] Run %s finished with state: %s"
        line = logger().info if outcome.succeeded else logger().error
        line(text, sign, self._path, outcome.id[:8], outcome.state_name)


class Progress:
    """Tells how far the runs of a watch are.

    Args:
        path: of the deployment.
        watch: who follows them.
        with_artifact: there is a flow run that it belongs to.
        waiting: how many are still to be created.
    """

    def __init__(self, path: str, watch: Watch, *, with_artifact: bool, waiting: Callable[[], int]) -> None:
        self._path, self._watch, self._waiting = path, watch, waiting
        self._with_artifact = with_artifact
        self._artifact: UUID | None = None
        self._began, self._ended_before = time.monotonic(), self._ended

    async def run(self) -> None:
        """Until cancelled."""
        seconds, said = FIRST_SECONDS, ""
        while True:
            await anyio.sleep(seconds)
            words = self.words()
            if words != said and self._watch.pending:
                logger().info("[%s] %s", self._path, words)
                await self._show()
                said = words
            seconds = min(seconds * GROWTH, LONGEST_SECONDS)

    def words(self) -> str:
        """`120/1000 ended, 2 failed, 40 running; about 3 min to go`."""
        failed = sum(not outcome.succeeded for outcome in self._watch.outcomes)
        heard = sum(self._watch.tracks[id_].state_type == "RUNNING" for id_ in self._watch.pending)
        polled = sum(count for (state_type, _), count in self._watch.counts.items() if state_type == "RUNNING")
        running = heard if self._watch.is_live else polled
        counts = [f"{self._ended}/{self._total} ended", f"{failed} failed" if failed else "", f"{running} running"]
        return ", ".join(filter(None, counts)) + self._rest()

    @property
    def _ended(self) -> int:
        return len(self._watch.tracks) - len(self._watch.pending)

    @property
    def _total(self) -> int:
        return len(self._watch.tracks) + self._waiting()

    def _rest(self) -> str:
        done = self._ended - self._ended_before
        if done == 0:
            return ""
        seconds = (time.monotonic() - self._began) / done * (self._total - self._ended)
        return f"; about {_duration(seconds)} to go"

    async def _show(self) -> None:
        """The progress artifact of the parent."""
        if not self._with_artifact:
            return
        percent = 100 * self._ended / max(1, self._total)
        if self._artifact is None:
            description = f"Runs of {self._path} that have ended"
            self._artifact = await acreate_progress_artifact(percent, key=None, description=description)
        else:
            await aupdate_progress_artifact(self._artifact, percent)

    async def finish(self, outcomes: Sequence[RunOutcome]) -> None:
        """The table of what became of the runs, failures first, and the progress artifact at its end."""
        if not self._with_artifact:
            return
        if self._artifact is not None:
            await self._show()
        await acreate_table_artifact(_table(outcomes), key=_key(self._path), description=_title(self._path, outcomes))


def _title(path: str, outcomes: Sequence[RunOutcome]) -> str:
    left_out = f" Only {ROWS} of them are shown, failures first." if len(outcomes) > ROWS else ""
    return f"**{path}**: {summary(outcomes)}.{left_out}"


def _table(outcomes: Sequence[RunOutcome]) -> list[dict[str, Any]]:
    rows = sorted(outcomes, key=lambda outcome: outcome.succeeded)[:ROWS]
    return [
        {
            "run": f"[{outcome.name}](../../runs/flow-run/{outcome.id})",
            "state": outcome.state_name,
            "parameters": _short(
                ", ".join(f"{name}={masked(name, value)!r}" for name, value in outcome.parameters.items())
            ),
            "seconds": "" if outcome.duration is None else f"{outcome.duration:.1f}",
            "attempts": outcome.attempts,
            "message": _short(" ".join(outcome.message.split())),
        }
        for outcome in rows
    ]


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _key(path: str) -> str:
    """Artifact keys are small letters, digits and dashes."""
    return "-".join("".join(sign if sign.isalnum() and sign.isascii() else " " for sign in path.lower()).split())


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

"""What people see while runs end: a line and an artifact every few seconds, a table at the end."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import anyio
from prefect.artifacts import (
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)

from orchestrator.fanout.log import logger
from orchestrator.fanout.outcomes import RunOutcome, failures_first, summary
from orchestrator.fanout.watch import Watch

FIRST_SECONDS, LONGEST_SECONDS, GROWTH = 5.0, 60.0, 2.0  # between two lines: each costs two requests
LINES = 50  # runs whose ends get a line each; of more than that only as many failures do
ROWS = 500  # of the table
SHOWN = 80  # characters of a value in the table
REASON = 200  # characters of why a run has failed, in its line


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
        text = "%s [%s] Run %s finished with state: %s"
        if outcome.succeeded:
            logger().info(text, "✅", self._path, outcome.label, outcome.state_name)
        else:
            logger().error(text, "❌", self._path, outcome.label, outcome.ending(REASON))


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
        self._has_complained = False  # that an artifact could not be written
        self._began, self._ended_before = time.monotonic(), self._ended
        self._ended_at_line = self._ended

    async def run(self) -> None:
        """Until cancelled."""
        seconds, said = FIRST_SECONDS, ""
        while True:
            await anyio.sleep(seconds)
            words = self.words()
            if words != said and self._watch.pending and (self._ended or self._running):
                logger().info("[%s] %s", self._path, words)
                said, self._ended_at_line = words, self._ended
                await self._try_to(self._show)
            seconds = min(seconds * GROWTH, LONGEST_SECONDS)

    def words(self) -> str:
        """`120/1000 ended, 2 failed, 40 running; about 3 min to go`."""
        failed = sum(not outcome.succeeded for outcome in self._watch.outcomes)
        ended, running = f"{self._ended}/{self._total} ended", f"{self._running} running"
        counts = [ended, f"{failed} failed" if failed else "", running]
        return ", ".join(filter(None, counts)) + self._rest()

    @property
    def _ended(self) -> int:
        return len(self._watch.tracks) - len(self._watch.pending)

    @property
    def _total(self) -> int:
        return len(self._watch.tracks) + self._waiting()

    @property
    def _running(self) -> int:
        if self._watch.is_live:
            return sum(self._watch.tracks[id_].state_type == "RUNNING" for id_ in self._watch.pending)
        return sum(count for (state_type, _), count in self._watch.counts.items() if state_type == "RUNNING")

    def _rest(self) -> str:
        """What the pace so far lets expect; nothing where none has ended since the last line, or none runs."""
        done = self._ended - self._ended_before
        if done <= 0 or self._ended <= self._ended_at_line or not self._running:
            return ""
        seconds = (time.monotonic() - self._began) / done * (self._total - self._ended)
        return f"; about {_duration(seconds)} to go"

    async def _try_to(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write an artifact. Where that fails, whatever the reason, the runs are followed as before."""
        if not self._with_artifact:
            return
        try:
            await write()
        except Exception as error:  # an artifact is never worth the parent's life
            line = logger().debug if self._has_complained else logger().warning
            line("[%s] An artifact could not be written: %s", self._path, str(error) or type(error).__name__)
            self._has_complained = True

    async def _show(self) -> None:
        """The progress artifact of the parent."""
        percent = 100 * self._ended / max(1, self._total)
        if self._artifact is None:
            description = f"Runs of {self._path} that have ended"
            self._artifact = await acreate_progress_artifact(percent, key=None, description=description)
        else:
            await aupdate_progress_artifact(self._artifact, percent)

    async def finish(self, outcomes: Sequence[RunOutcome]) -> None:
        """The table of what became of the runs, failures first, and the progress artifact at its end."""
        if self._artifact is not None:
            await self._try_to(self._show)
        await self._try_to(partial(self._write_table, outcomes))

    async def _write_table(self, outcomes: Sequence[RunOutcome]) -> None:
        title = _title(self._path, self._watch.tag, outcomes)
        await acreate_table_artifact(_table(outcomes), key=_key(self._path), description=title)


def _title(path: str, tag: str | None, outcomes: Sequence[RunOutcome]) -> str:
    left_out = f" Only {ROWS} of them are shown, failures first." if len(outcomes) > ROWS else ""
    found_by = f" All runs carry the tag `{tag}`." if tag else ""
    return f"**{path}**: {summary(outcomes)}.{left_out}{found_by}"


def _table(outcomes: Sequence[RunOutcome]) -> list[dict[str, Any]]:
    rows = failures_first(outcomes)[:ROWS]
    return [
        {
            "run": f"[{outcome.name}](../../runs/flow-run/{outcome.id})",
            "state": outcome.state_name,
            "parameters": _short(outcome.shown_parameters),
            "seconds": "" if outcome.duration is None else f"{outcome.duration:.1f}",
            "attempts": outcome.attempts,
            "message": _short(outcome.shown_message),
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

"""What people read while runs are on their way, and that nothing of it can harm them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import anyio
import pytest

from orchestrator.fanout import progress, stream
from orchestrator.fanout.calls import Selection
from orchestrator.fanout.changes import Changes
from orchestrator.fanout.options import Options
from orchestrator.fanout.outcomes import RunOutcome, failures_first
from orchestrator.fanout.progress import EndLines, Progress
from orchestrator.fanout.track import Track
from orchestrator.fanout.watch import Watch

LOG = "orchestrator.submission"
PAUSES = 5


class EnoughPauses(Exception):
    """What would go on for ever is over."""


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was paused; no time passes, and the last pause raises."""
    seconds: list[float] = []

    async def pause(delay: float) -> None:
        seconds.append(delay)
        if len(seconds) == PAUSES:
            raise EnoughPauses

    monkeypatch.setattr(anyio, "sleep", pause)
    return seconds


def outcome(state: str = "Failed", **values: Any) -> RunOutcome:
    name = {"state_type": state.upper() if state not in ("Deleted", "TimedOut") else None, "state_name": state}
    return RunOutcome(**{"id": str(uuid4()), "name": "city-Oslo", **name, **values})


# --- the lines of runs -----------------------------------------------------------------------------------


def test_an_end_is_told_with_name_attempts_and_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger=LOG)
    failed = outcome(message="no\n password=hunter2-and-more " + "x" * 500, attempts=2)
    lines = EndLines("load/night", lambda: 2)
    lines.tell(failed)
    lines.tell(good := outcome("Completed", message="All states completed."))

    start = (
        f"❌ [load/night] Run city-Oslo ({failed.id[:8]}) finished with state: Failed after 2 attempts: no password="
    )
    assert caplog.messages[0].startswith(start) and "hunter2" not in caplog.messages[0]
    assert len(caplog.messages[0]) < len(start) + progress.REASON
    assert caplog.messages[1] == f"✅ [load/night] Run city-Oslo ({good.id[:8]}) finished with state: Completed"


def test_a_run_whose_name_is_not_known_is_told_by_its_id_once() -> None:
    nameless = str(uuid4())
    assert outcome(id=nameless, name=nameless).describe("load") == f"load/{nameless}: Failed"


def test_causes_come_before_what_was_cancelled_because_of_them() -> None:
    states = ["Completed", "Cancelled", "Failed", "Cancelled", "Deleted", "Crashed", "TimedOut", "Completed"]

    ordered = [each.state_name for each in failures_first(map(outcome, states))]
    assert ordered == ["Failed", "Deleted", "Crashed", "TimedOut", "Cancelled", "Cancelled", "Completed", "Completed"]


# --- progress --------------------------------------------------------------------------------------------


def watch_of(*states: str) -> Watch:
    watch = Watch(Options(), Changes(), lambda outcome: None)
    watch.is_live, watch.tag = True, "batch:load-1"
    for number, state in enumerate(states):
        watch.add(Track(id=str(number), parameters={}, state_type=state))
    return watch


def ends(watch: Watch, run_id: str) -> None:
    watch.pending.discard(run_id)


def told_by(watch: Watch, *, with_artifact: bool = False) -> Progress:
    return Progress("load/night", watch, with_artifact=with_artifact, waiting=lambda: 0)


async def follow(told: Progress, pauses: list[float]) -> None:
    """Let it look between pauses."""
    pauses.clear()
    with suppress(EnoughPauses):
        await told.run()


async def test_nothing_is_said_before_anything_has_happened(
    caplog: pytest.LogCaptureFixture, pauses: list[float]
) -> None:
    caplog.set_level(logging.INFO, logger=LOG)
    watch = watch_of("SCHEDULED", "SCHEDULED")
    await follow(told_by(watch), pauses)
    assert caplog.messages == []

    watch.tracks["0"].state_type = "RUNNING"
    await follow(told_by(watch), pauses)
    assert caplog.messages == ["[load/night] 0/2 ended, 1 running"]


def test_the_rest_is_estimated_only_while_it_shrinks() -> None:
    watch = watch_of("RUNNING", "RUNNING", "SCHEDULED")
    told = told_by(watch)
    ends(watch, "0")
    assert told.words().startswith("1/3 ended, 1 running; about ")
    told._ended_at_line = 1
    assert told.words() == "1/3 ended, 1 running"
    ends(watch, "1")
    assert told.words() == "2/3 ended, 0 running"


async def test_artifacts_that_cannot_be_written_are_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    async def away(*args: object, **kwargs: object) -> None:
        raise OSError("the server is away")

    monkeypatch.setattr(progress, "acreate_progress_artifact", away)
    monkeypatch.setattr(progress, "acreate_table_artifact", away)
    caplog.set_level(logging.INFO, logger=LOG)
    watch = watch_of("RUNNING", "RUNNING", "RUNNING")
    told = told_by(watch, with_artifact=True)
    await follow(told, pauses)
    ends(watch, "0")
    await follow(told, pauses)
    await told.finish([])

    assert [message for message in caplog.messages if " ended, " not in message] == [
        "[load/night] An artifact could not be written: the server is away"
    ]
    assert any("1/3 ended" in message for message in caplog.messages)


async def test_the_table_names_the_batch_and_begins_with_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[str, Any] = {}

    async def write(table: list[dict[str, Any]], **fields: Any) -> None:
        written.update(fields, states=[row["state"] for row in table])

    monkeypatch.setattr(progress, "acreate_table_artifact", write)
    await told_by(watch_of(), with_artifact=True).finish(
        [outcome(each) for each in ("Completed", "Cancelled", "Failed")]
    )

    assert written["states"] == ["Failed", "Cancelled", "Completed"]
    assert written["description"].endswith("All runs carry the tag `batch:load-1`.")


# --- the stream ------------------------------------------------------------------------------------------


async def test_a_stream_that_ends_at_once_is_tried_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    class Silent:
        def __aiter__(self) -> Silent:
            return self

        async def __anext__(self) -> None:
            raise StopAsyncIteration

    @asynccontextmanager
    async def subscriber(**options: object) -> AsyncIterator[Silent]:
        yield Silent()

    monkeypatch.setattr(stream, "get_events_subscriber", subscriber)
    monkeypatch.setattr(stream, "LONGEST_PAUSE", 8 * stream.FIRST_PAUSE)
    live: list[bool] = []
    with pytest.raises(EnoughPauses):
        await stream.follow(Selection(tag="batch:load-1"), lambda event: None, live.append)

    assert pauses == [stream.FIRST_PAUSE * times for times in (1, 2, 4, 8, 8)]
    assert live == [True, False] * PAUSES

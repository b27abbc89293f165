"""What a watch knows without asking: whether the time of a run is up, and whether there are ends to read."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.fanout.calls import RunRow
from orchestrator.fanout.known_ends import OVERLAP, KnownEnds, States, ended_in
from orchestrator.fanout.limits import is_grace_over, may_be_overdue, next_looks, why_overdue
from orchestrator.fanout.options import Options
from orchestrator.fanout.track import Track

NOW = datetime.now(UTC)
COMPLETED, FAILED = ("COMPLETED", "Completed"), ("FAILED", "Failed")


def track(**values: Any) -> Track:
    return Track(**{"id": "1", "parameters": {}, **values})


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


# --- limits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "waited", "ran", "words"),
    [
        (Options(), 1e6, None, ""),
        (Options(start_timeout=60), 59, None, ""),
        (Options(start_timeout=60), 61, None, "It had not started after 60 s"),
        (Options(start_timeout=60), 1e6, 10, ""),
        (Options(timeout=2.5), 1e6, None, ""),
        (Options(timeout=2.5), 1e6, 2, ""),
        (Options(timeout=2.5), 1e6, 3, "It had not ended after 2.5 s"),
    ],
)
def test_the_time_to_start_and_the_time_to_run_are_counted_apart(
    options: Options, waited: float, ran: float | None, words: str
) -> None:
    run = track(since=time.monotonic() - waited, running_since=None if ran is None else ago(ran))

    assert why_overdue(run, options) == words


def test_a_run_that_may_have_started_unseen_is_looked_at_before_it_is_ended() -> None:
    run, options = track(since=time.monotonic() - 100), Options(timeout=60)
    assert may_be_overdue(run, options) and not why_overdue(run, options)

    run.looked = time.monotonic()
    assert not may_be_overdue(run, options)
    assert min(next_looks(run, options)) == run.looked + 60


def test_the_time_to_start_is_no_reason_to_look_at_a_run_that_has_started() -> None:
    run, options = track(since=time.monotonic() - 100, running_since=ago(1)), Options(start_timeout=60)

    assert not may_be_overdue(run, options)


def test_a_run_that_was_asked_to_end_is_not_asked_again() -> None:
    run, options = track(since=time.monotonic() - 100, is_overdue=True), Options(start_timeout=60)

    assert not may_be_overdue(run, options)


def test_a_crash_is_believed_when_its_grace_is_over() -> None:
    run, options = track(), Options(crash_grace=5)
    assert not is_grace_over(run, options)

    run.come_to("CRASHED", "Crashed", "", ago(3))
    assert not is_grace_over(run, options)
    run.crashed_at -= 3
    assert is_grace_over(run, options)
    run.reopen()
    assert not is_grace_over(run, options)


# --- ends that were read ---------------------------------------------------------------------------------


def known(*ends: tuple[str, tuple[str, str], float]) -> KnownEnds:
    """Ends by id, state, and how many seconds ago."""
    found = KnownEnds()
    for id_, state, seconds in ends:
        found.note(row(id_, state, NOW - timedelta(seconds=seconds)))
    return found


def row(id_: str, state: tuple[str, str], ended: datetime) -> RunRow:
    none: dict[str, Any] = dict.fromkeys(["started", "deployment_id"])
    told = {"name": id_, "message": "", "attempts": 1, "tags": (), "flow_id": "1"}
    return RunRow(id=id_, state_type=state[0], state_name=state[1], changed=ended, ended=ended, **told, **none)


def counts(*states: tuple[str, str]) -> States:
    return Counter(states)


NONE, ALL = Counter[tuple[str, str]](), counts(FAILED, COMPLETED, COMPLETED, COMPLETED)


def test_ends_that_come_while_we_ask_contradict_nothing() -> None:
    assert not known(("a", FAILED, 9), ("b", COMPLETED, 5)).contradict(counts(FAILED), ALL)


@pytest.mark.parametrize(("before", "after"), [(NONE, counts(COMPLETED, COMPLETED)), (counts(FAILED, FAILED), ALL)])
def test_ends_that_are_counted_otherwise_than_they_are_known_are_read_again_once(before: States, after: States) -> None:
    ends = known(("a", FAILED, 9), ("b", COMPLETED, 5))
    assert ends.contradict(before, after)
    ends.accept(before, after)
    assert not ends.contradict(before, after)
    assert ends.contradict(before, counts())


def test_an_end_is_forgotten_or_replaced_when_the_run_ends_again() -> None:
    ends = known(("a", FAILED, 9), ("b", FAILED, 5), ("a", COMPLETED, 1))
    assert ends.states == counts(COMPLETED, FAILED)

    ends.forget("b")
    ends.forget("b")
    assert ends.states == counts(COMPLETED)


def test_some_seconds_before_the_latest_end_are_read_again_without_what_is_known() -> None:
    assert KnownEnds().still_to_read() == (None, [])

    ends = known(("old", COMPLETED, 60), ("new", FAILED, 10), ("last", COMPLETED, 1))
    assert ends.still_to_read() == (NOW - timedelta(seconds=1) - OVERLAP, ["new", "last"])


def test_only_ends_are_counted() -> None:
    assert ended_in(counts(("RUNNING", "Running"), FAILED, ("PAUSED", "Suspended"))) == counts(FAILED)

"""Waiting for many runs, and ending them, on a real server. The tests end the runs through the API."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import anyio
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import get_run_context
from prefect.flow_engine import run_flow
from prefect.states import AwaitingRetry, Cancelled, Completed, Crashed, Failed, Paused, Pending, Running, Scheduled

from orchestrator.errors import ConfigurationError, RunFailed, RunsTimedOut, ServerError
from orchestrator.fanout import ending, hints, shutdown
from orchestrator.fanout.calls import BULK_STATE, Selection, open_calls
from orchestrator.fanout.ending import cancel_runs
from orchestrator.fanout.target import find_target
from orchestrator.submission import (
    FlowSubmission,
    cancel_children,
    flow_submitter,
    trigger_multiple_subflows,
    trigger_subflow,
)

from .answers import Answer, Asked, lied_to
from .api import Api
from .conftest import TEST_SECONDS, PrefectServer
from .proxy import Fault, Judge, Request
from .runs import (
    SCHEMA,
    end,
    is_live,
    new_deployment,
    proxied,
    read,
    state_of,
    through_proxy,
    until,
    until_in,
)

pytestmark = pytest.mark.usefixtures("no_hanging")
ALWAYS = 10**9


@pytest.fixture
async def deployment(prefect_server: PrefectServer) -> str:
    return await new_deployment()


async def three(etl: FlowSubmission) -> list[str]:
    return await etl.submit_many([{"table": table} for table in range(3)])


# --- outcomes --------------------------------------------------------------------------------------------


async def test_an_outcome_tells_all_about_a_run(deployment: str) -> None:
    etl = flow_submitter(deployment)
    run_id = await etl.submit(table=3)
    await end(run_id, Running())
    await end(run_id, Failed(message="no such table"))
    await etl.wait()

    outcome, run = etl.outcomes[run_id], await read(run_id)
    assert (outcome.id, outcome.name, outcome.parameters) == (run_id, run.name, {"table": 3})
    assert (outcome.state_type, outcome.state_name, outcome.message) == ("FAILED", "Failed", "no such table")
    assert (outcome.started, outcome.ended, outcome.attempts) == (run.start_time, run.end_time, 1)
    assert outcome.duration == (outcome.ended - outcome.started).total_seconds()
    assert outcome.url.endswith(f"/runs/flow-run/{run_id}") and "/api/" not in outcome.url


async def test_runs_come_as_they_end(deployment: str) -> None:
    etl = flow_submitter(deployment)
    ids = await three(etl)
    ended: list[str] = []
    for run_id in reversed(ids):
        await end(run_id, Completed())
    async for outcome in etl.as_completed():
        ended.append(outcome.id)

    assert ended and set(ended) == set(ids)
    assert [outcome.id for outcome in etl.succeeded] == ids
    assert [outcome.id async for outcome in etl.as_completed()] == ended


async def test_as_completed_yields_while_others_run(deployment: str) -> None:
    etl = flow_submitter(deployment)
    ids = await three(etl)
    ended: list[str] = []
    await end(ids[1], Completed())
    async for outcome in etl.as_completed():
        ended.append(outcome.id)
        if len(ended) == 1:
            await end(ids[2], Failed())
            await end(ids[0], Cancelled())

    assert ended[0] == ids[1] and set(ended) == set(ids)
    assert {outcome.id for outcome in etl.failed} == {ids[0], ids[2]}


async def test_an_end_is_known_although_no_poll_is_due(deployment: str) -> None:
    """By an event: the poll comes every 15 s, and the wait here asks for an even slower one."""
    etl = flow_submitter(deployment)
    ids = await three(etl)
    waiting = asyncio.create_task(etl.wait(poll_interval=3600))
    await until(lambda: is_live(etl))
    for run_id in ids:
        await end(run_id, Completed())
    assert list((await waiting).values()) == ["Completed"] * 3


async def test_a_custom_state_name_is_kept_and_the_type_decides(deployment: str) -> None:
    etl = flow_submitter(deployment)
    ids = await three(etl)
    for run_id, state in zip(ids, (Completed(name="NoChanges"), Failed(name="TimedOut"), Completed()), strict=True):
        await end(run_id, state)

    assert list((await etl.wait()).values()) == ["NoChanges", "TimedOut", "Completed"]
    assert [outcome.succeeded for outcome in etl.outcomes.values()] == [True, False, True]


async def test_a_run_that_somebody_retries_is_waited_for_again(deployment: str) -> None:
    etl = flow_submitter(deployment)
    first, second, _ = await three(etl)
    await end(first, Failed())
    waiting = asyncio.create_task(etl.wait())
    async for _ in etl.as_completed():
        break
    await end(first, AwaitingRetry(scheduled_time=datetime.now(UTC)), force=False)
    await end(first, Running())
    for run_id in (second, etl.run_ids[2], first):
        await end(run_id, Completed())

    assert list((await waiting).values()) == ["Completed"] * 3


async def test_a_run_whose_tag_was_taken_away_is_followed_by_its_id(deployment: str, api: Api) -> None:
    etl = flow_submitter(deployment)
    first, second, third = await three(etl)
    api.patch(f"/flow_runs/{first}", tags=["mine"])
    for run_id in (first, second, third):
        await end(run_id, Completed())

    assert await etl.wait() == dict.fromkeys((first, second, third), "Completed")


async def test_runs_deleted_before_and_after_their_end(deployment: str, api: Api) -> None:
    etl = flow_submitter(deployment)
    ended, waiting, last = await three(etl)
    await end(ended, Completed())
    async for _ in etl.as_completed():
        break
    for run_id in (ended, waiting):
        api.call("DELETE", f"/flow_runs/{run_id}")
    await end(last, Completed())

    assert await etl.wait() == {ended: "Completed", waiting: "Deleted", last: "Completed"}


async def test_a_run_deleted_right_after_its_end_has_ended(deployment: str, api: Api) -> None:
    etl = flow_submitter(deployment)
    first, *_ = await three(etl)
    waiting = asyncio.create_task(etl.wait(poll_interval=3600))
    await until(lambda: is_live(etl))
    await end(first, Completed())
    await until(lambda: first in etl.results)
    api.call("DELETE", f"/flow_runs/{first}")
    for run_id in etl.run_ids[1:]:
        await end(run_id, Completed())

    assert await waiting == dict.fromkeys(etl.run_ids, "Completed")


def without_stream(route: str, fault: Fault) -> Judge:
    """A fault for each request of one route, too."""
    faults: dict[str, Fault] = {route: fault, "/events/out": "hang up"}
    return lambda request: next((faults[end] for end in faults if request.path.endswith(end)), None)


async def test_a_run_retried_by_a_person_between_two_polls_is_told_as_it_ended(
    prefect_server: PrefectServer, deployment: str
) -> None:
    etl = flow_submitter(deployment)
    first, second, third = await three(etl)
    await end(first, Failed())
    async with through_proxy(prefect_server) as proxy:
        waiting = asyncio.create_task(etl.wait(poll_interval=0.2))
        await until(lambda: first in etl.results)
        proxy.judge = without_stream("/flow_runs/history", "503")  # no poll before all have ended
        await end(first, Completed())  # as if it had been retried, and there is no stream to tell
        for run_id in (second, third):
            await end(run_id, Completed())
        proxy.judge = without_stream("/flow_runs/filter", "delay")  # time to return between two reads of one poll
        assert await waiting == dict.fromkeys((first, second, third), "Completed")


async def test_a_deleted_run_is_missed_among_runs_that_are_not_followed(deployment: str, api: Api) -> None:
    """A parent that submits less in its next attempt: the tag has more runs than are waited for."""
    results: list[dict[str, str]] = []

    @flow(retries=1)
    async def parent() -> None:
        etl = flow_submitter(deployment)
        is_first = not results
        ids = await etl.submit_many([{"table": table} for table in range(6 if is_first else 3)])
        if is_first:
            results.append({})
            raise ValueError("the parent fails")
        api.call("DELETE", f"/flow_runs/{ids[0]}")
        for run_id in ids[1:]:
            await end(run_id, Completed())
        results.append(await etl.wait(poll_interval=0.2))

    await parent()
    assert sorted(results[1].values()) == ["Completed", "Completed", "Deleted"]


# --- crashes and retries ---------------------------------------------------------------------------------


async def test_a_crashed_run_may_come_back(deployment: str) -> None:
    etl = flow_submitter(deployment, crash_grace=TEST_SECONDS)
    run_id = await etl.submit()
    waiting = asyncio.create_task(etl.wait())
    await until(lambda: is_live(etl))
    await end(run_id, Crashed())
    await end(run_id, AwaitingRetry(scheduled_time=datetime.now(UTC)))
    await end(run_id, Completed())

    assert await waiting == {run_id: "Completed"}


async def test_a_crashed_run_that_does_not_come_back_has_ended(deployment: str) -> None:
    etl = flow_submitter(deployment, crash_grace=0.2)
    run_id = await etl.submit()
    waiting = asyncio.create_task(etl.wait(poll_interval=3600))
    await end(run_id, Crashed())

    assert await waiting == {run_id: "Crashed"}


async def test_a_failed_run_is_started_again_under_its_own_id(deployment: str) -> None:
    etl = flow_submitter(deployment, retries=1, retry_delay=3600)
    run_id = await etl.submit()
    waiting = asyncio.create_task(etl.wait())
    await end(run_id, Running())
    await end(run_id, Failed())
    await until_in(run_id, "AwaitingRetry")
    run = await read(run_id)
    assert run.next_scheduled_start_time - datetime.now(UTC) > timedelta(minutes=50)
    assert (etl.results, waiting.done()) == ({}, False)

    await end(run_id, Running())
    await end(run_id, Failed())
    assert await waiting == {run_id: "Failed"}  # and not a third time
    assert (etl.run_ids, etl.outcomes[run_id].attempts) == ([run_id], 2)


async def test_a_retry_may_succeed(deployment: str) -> None:
    etl = flow_submitter(deployment, retries=3, retry_delay=0)
    good, bad, _ = await three(etl)
    waiting = asyncio.create_task(etl.wait())
    await end(bad, Failed())
    await until_in(bad, "AwaitingRetry")
    for run_id in etl.run_ids:
        await end(run_id, Completed())

    assert await waiting == dict.fromkeys(etl.run_ids, "Completed")
    assert good in etl.results
    etl.raise_for_failures()


async def test_failed_runs_are_retried_when_asked(deployment: str) -> None:
    etl = flow_submitter(deployment, crash_grace=0)
    states = (Failed(), Completed(), Crashed())
    for run_id, state in zip(await three(etl), states, strict=True):
        await end(run_id, state)
    await etl.wait()
    first, second, third = etl.run_ids

    assert await etl.retry_failed() == [first, third]
    assert etl.results == {second: "Completed"}
    assert [await state_of(run_id) for run_id in (first, third)] == ["AwaitingRetry"] * 2
    for run_id in (first, third):
        await end(run_id, Completed())
    assert await etl.wait() == dict.fromkeys(etl.run_ids, "Completed")
    assert await etl.retry_failed() == []


async def test_what_was_cancelled_is_not_started_again(deployment: str, api: Api) -> None:
    etl = flow_submitter(deployment, retries=2, retry_delay=0)
    by_a_person, *by_us = await three(etl)
    waiting = asyncio.create_task(etl.wait())
    await end(by_a_person, Cancelled())
    await until(lambda: by_a_person in etl.results)

    assert set((await etl.cancel()).values()) == {"Cancelled"}
    assert set((await waiting).values()) == {"Cancelled"}
    assert [names_of_states(api, run_id).count("AwaitingRetry") for run_id in (by_a_person, *by_us)] == [0] * 3


async def test_a_run_that_was_cancelled_for_its_time_is_not_started_again(deployment: str) -> None:
    etl = flow_submitter(deployment, retries=2, retry_delay=3600, start_timeout=0.5)
    run_id = await etl.submit()

    assert await etl.wait() == {run_id: "Cancelled"}


async def test_retries_are_not_given_anew_to_a_parents_next_attempt(deployment: str) -> None:
    attempts: list[dict[str, str]] = []

    @flow(retries=1)
    async def parent() -> None:
        etl = flow_submitter(deployment, retries=1, retry_delay=0)
        run_id = await etl.submit()
        waiting = asyncio.create_task(etl.wait())
        for state in () if attempts else ("AwaitingRetry", "Failed"):
            await end(run_id, Running())
            await end(run_id, Failed())
            await until_in(run_id, state)
        attempts.append(await waiting)
        etl.raise_for_failures()

    with pytest.raises(RunFailed):
        await parent()
    assert [list(each.values()) for each in attempts] == [["Failed"], ["Failed"]]


async def test_a_run_is_retried_once_though_somebody_waits(deployment: str, api: Api) -> None:
    etl = flow_submitter(deployment)
    failing, goes_on = await three(etl), await etl.submit()
    waiting = asyncio.create_task(etl.wait())
    for run_id in failing:
        await end(run_id, Failed())
    await until(lambda: len(etl.failed) == len(failing))
    assert await etl.retry_failed() == failing
    for run_id in (*failing, goes_on):
        await end(run_id, Completed())
    await waiting

    assert [names_of_states(api, run_id).count("AwaitingRetry") for run_id in failing] == [1, 1, 1]


def names_of_states(api: Api, run_id: str) -> list[str]:
    """All that a run has come to."""
    return [state["name"] for state in api.get(f"/flow_run_states/?flow_run_id={run_id}")]


async def until_all_have_ended(etl: FlowSubmission) -> None:
    async for _ in etl.as_completed():
        pass


# --- failures --------------------------------------------------------------------------------------------


async def test_the_first_failure_raises_and_the_others_go_on(deployment: str) -> None:
    etl = flow_submitter(deployment, on_failure="raise")
    first, second, _ = await three(etl)
    await end(second, Failed(message="no rows"))

    with pytest.raises(RunFailed, match=r"1 of 3 .*: no rows \[table=1\]\. 2 others go on"):
        await etl.wait()
    assert await state_of(first) == "Scheduled"


async def test_the_first_failure_cancels_the_others(deployment: str) -> None:
    etl = flow_submitter(deployment, on_failure="cancel")
    first, second, third = await three(etl)
    await end(second, Failed(message="no rows"))

    with pytest.raises(RunFailed, match=r"1 of 3 .*no rows .* 2 others were cancelled"):
        await etl.wait()
    assert [await state_of(run_id) for run_id in (first, third)] == ["Cancelled", "Cancelled"]


async def test_a_block_cancels_the_others_and_tells_the_failure(deployment: str) -> None:
    with pytest.raises(RunFailed, match=r"no rows .* 2 others were cancelled"):
        async with flow_submitter(deployment, on_failure="cancel") as etl:
            ids = await three(etl)
            await end(ids[1], Failed(message="no rows"))
            async for _ in etl.as_completed():
                pass
    assert [await state_of(run_id) for run_id in ids] == ["Cancelled", "Failed", "Cancelled"]


async def test_a_block_that_ends_by_itself_tells_the_failure(deployment: str) -> None:
    with pytest.raises(RunFailed, match="no rows"):
        async with flow_submitter(deployment, on_failure="raise", on_exit="leave") as etl:
            ids = await three(etl)
            await end(ids[1], Failed(message="no rows"))
            await until(lambda: etl.failed)
    assert [await state_of(run_id) for run_id in ids] == ["Scheduled", "Failed", "Scheduled"]


async def test_the_cause_is_told_although_many_others_were_cancelled(deployment: str) -> None:
    etl = flow_submitter(deployment, on_failure="cancel")
    ids = await etl.submit_many([{"table": table} for table in range(15)])
    await end(ids[13], Failed(message="no rows"))

    with pytest.raises(RunFailed, match=r"1 of 15 .*no rows \[table=13\]\. 14 others were cancelled"):
        await etl.wait()


async def test_a_failure_ends_a_submission_that_waits_for_places(deployment: str, api: Api) -> None:
    etl = flow_submitter(deployment, on_failure="cancel", max_in_flight=1)
    submitting = asyncio.create_task(three(etl))
    (first,) = await until(lambda: etl.run_ids)
    await end(first, Failed(message="no rows"))

    with pytest.raises(RunFailed, match="no rows"):
        await submitting
    assert api.post("/flow_runs/count", flow_runs={"tags": {"all_": [etl.batch_tag]}}) == 1


async def test_what_runs_in_sequence_is_checked_before_the_first(deployment: str, api: Api) -> None:
    with pytest.raises(ConfigurationError, match="table"):
        await trigger_multiple_subflows(deployment, [{"table": 1}, {"table": "x"}], sequential=True)
    flow_name = deployment.partition("/")[0]
    assert api.post("/flow_runs/count", flows={"name": {"any_": [flow_name]}}) == 0


async def test_a_sequence_ends_with_the_first_that_fails(deployment: str, api: Api) -> None:
    flow_name = deployment.partition("/")[0]
    running = asyncio.create_task(
        trigger_multiple_subflows(deployment, [{"table": 1}, {"table": 2}, {"table": 3}], sequential=True)
    )
    for state in (Completed(), Failed(message="no rows")):
        (run,) = await until(lambda: scheduled_of(flow_name))
        await end(str(run.id), state)
    with pytest.raises(RunFailed, match="no rows"):
        await running
    assert api.post("/flow_runs/count", flows={"name": {"any_": [flow_name]}}) == 2


async def scheduled_of(flow_name: str) -> list[FlowRun]:
    async with get_client() as client:
        return await client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow_name])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
            ),
        )


async def test_runs_that_end_again_come_once_for_each_end(deployment: str) -> None:
    etl = flow_submitter(deployment)
    for run_id in await three(etl):
        await end(run_id, Failed())
    await until_all_have_ended(etl)
    await etl.retry_failed()
    for run_id in etl.run_ids:
        await end(run_id, Completed())
    await etl.wait()

    assert sorted([outcome.id async for outcome in etl.as_completed()]) == sorted(etl.run_ids)


# --- time that is up -------------------------------------------------------------------------------------


async def test_a_wait_whose_time_is_up_cancels_and_says_so(deployment: str) -> None:
    etl = flow_submitter(deployment)
    first, second, third = await three(etl)
    await end(first, Completed())
    async for _ in etl.as_completed():
        break

    with pytest.raises(RunsTimedOut, match=r"2 of 3 flow runs had not ended after 0.1 s; they were asked to end: "):
        await etl.wait(timeout=0.1)
    assert [await state_of(run_id) for run_id in (second, third)] == ["Cancelled", "Cancelled"]
    assert etl.results == {first: "Completed", second: "Cancelled", third: "Cancelled"}


async def test_a_wait_whose_time_is_up_may_leave_the_runs(deployment: str) -> None:
    etl = flow_submitter(deployment, on_timeout="leave")
    run_id = await etl.submit()

    with pytest.raises(TimeoutError, match="they go on"):
        await etl.wait(timeout=0.1)
    assert await state_of(run_id) == "Scheduled"
    await end(run_id, Completed())
    assert await etl.wait() == {run_id: "Completed"}


async def test_a_run_that_does_not_start_in_time_is_cancelled(
    deployment: str, caplog: pytest.LogCaptureFixture
) -> None:
    etl = flow_submitter(deployment, start_timeout=1)
    started, idle, _ = await three(etl)
    for run_id in (started, etl.run_ids[2]):
        await end(run_id, Running())
    waiting = asyncio.create_task(etl.wait())
    await until_in(idle, "Cancelled")
    for run_id in (started, etl.run_ids[2]):
        await end(run_id, Completed())

    assert (await waiting)[idle] == "Cancelled"
    assert any("It had not started after 1 s; it is cancelled" in message for message in caplog.messages)


async def test_a_run_that_runs_for_too_long_is_left_as_told(deployment: str) -> None:
    etl = flow_submitter(deployment, timeout=0.5, on_timeout="leave")
    slow = await etl.submit()
    await end(slow, Running())

    assert await etl.wait() == {slow: "TimedOut"}
    outcome = etl.outcomes[slow]
    assert (outcome.succeeded, outcome.state_type) == (False, None)
    assert "had not ended after 0.5 s; it was left Running" in outcome.message
    assert await state_of(slow) == "Running"


async def test_a_run_that_was_left_counts_as_timed_out_when_it_runs_after_all(deployment: str) -> None:
    etl = flow_submitter(deployment, start_timeout=0.5, on_timeout="leave")
    late, other, _ = await three(etl)
    for run_id in (other, etl.run_ids[2]):
        await end(run_id, Running())
    waiting = asyncio.create_task(etl.wait())
    await until(lambda: late in etl.results)
    await end(late, Running())
    for run_id in (other, etl.run_ids[2]):
        await end(run_id, Completed())

    assert (await waiting)[late] == "TimedOut"


async def test_pending_runs_that_are_overdue_are_ended_together_and_say_why(deployment: str) -> None:
    etl = flow_submitter(deployment, start_timeout=0.5)
    for run_id in await three(etl):
        await end(run_id, Pending())
    waiting = asyncio.create_task(etl.wait())
    for run_id in etl.run_ids:
        await until_in(run_id, "Cancelling")
        await end(run_id, Cancelled())
    await waiting
    assert {outcome.message for outcome in etl.failed} == {"It had not started after 0.5 s."}


async def test_time_that_is_up_is_told_though_the_server_is_away(
    prefect_server: PrefectServer, deployment: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutdown, "LAST_WAIT_SECONDS", 1.0)
    async with through_proxy(prefect_server) as proxy:
        etl = flow_submitter(deployment)
        await three(etl)
        proxy.judge = lambda request: "503"
        with pytest.raises(RunsTimedOut, match="3 of 3"):
            await etl.wait(timeout=1)
    assert any(f"The runs may go on, tag {etl.batch_tag}" in message for message in caplog.messages)


async def test_a_run_that_waits_does_not_use_up_the_time_to_run(prefect_server: PrefectServer, deployment: str) -> None:
    etl = flow_submitter(deployment, timeout=0.1)
    run_id = await etl.submit()
    async with proxied(prefect_server) as proxy:
        waiting = asyncio.create_task(etl.wait())
        reads = lambda: sum(request.path.endswith("/flow_runs/filter") for request in proxy.seen)  # noqa: E731
        await until(lambda: reads() >= 3 or waiting.done())  # a run that may have used up its time is read
        assert (waiting.done(), await state_of(run_id)) == (False, "Scheduled")
        await end(run_id, Completed())
        assert await waiting == {run_id: "Completed"}


# --- cancelling ------------------------------------------------------------------------------------------


async def test_cancelling_ends_what_has_not_ended(deployment: str) -> None:
    etl = flow_submitter(deployment)
    done, idle, _ = await three(etl)
    await end(done, Completed())

    assert await etl.cancel() == {done: "Completed", idle: "Cancelled", etl.run_ids[2]: "Cancelled"}


async def test_a_run_that_does_not_end_in_time_is_named(deployment: str, caplog: pytest.LogCaptureFixture) -> None:
    etl = flow_submitter(deployment, cancel_grace=0.5)
    run_id = await etl.submit()
    await end(run_id, Running())

    assert await etl.cancel("enough") == {}
    run = await read(run_id)
    assert (run.state_name, run.state.message) == ("Cancelling", "enough")
    assert any("1 runs have not ended 0.5 s after" in line and run.name in line for line in caplog.messages)


async def test_more_runs_than_one_call_takes_are_cancelled(deployment: str) -> None:
    etl = flow_submitter(deployment)
    await etl.submit_many([{}] * 120)

    assert set((await etl.cancel()).values()) == {"Cancelled"}
    assert len(etl.results) == 120


async def test_what_has_failed_stays_failed_when_the_others_are_cancelled(deployment: str, api: Api) -> None:
    """More than one call takes, of both kinds."""
    etl = flow_submitter(deployment)
    ids = await etl.submit_many([{}] * 180)
    for first in range(0, 120, BULK_STATE):
        some = {"id": {"any_": ids[first : min(first + BULK_STATE, 120)]}}
        api.post("/flow_runs/bulk_set_state", flow_runs=some, state={"type": "FAILED", "name": "Failed"}, force=True)

    expected = {**dict.fromkeys(ids[:120], "Failed"), **dict.fromkeys(ids[120:], "Cancelled")}
    assert await etl.cancel() == expected
    async with open_calls() as calls:
        assert {id_: run.state_name for id_, run in (await calls.read_by_ids(ids)).items()} == expected


@pytest.mark.parametrize(("times", "words"), [(1, "Cancelled"), (ALWAYS, "Scheduled")])
async def test_a_run_that_the_database_was_too_busy_for_is_asked_again(
    prefect_server: PrefectServer, deployment: str, monkeypatch: pytest.MonkeyPatch, times: int, words: str
) -> None:
    """Some times: one that it is never there for keeps nobody from asking the others."""
    monkeypatch.setattr(ending, "AGAIN_SECONDS", 0.0)
    etl = flow_submitter(deployment)
    ids = await etl.submit_many([{}] * (BULK_STATE + 1))
    async with lied_to(prefect_server.api_url) as liar, open_calls() as calls:
        liar.tell = busy_for(max(ids), times)
        asked = await cancel_runs(calls, Selection(tag=etl.batch_tag), "enough")
        rows = await calls.read_by_ids(ids)
    assert asked == len(ids) - (words == "Scheduled")
    assert {id_: run.state_name for id_, run in rows.items()} == {**dict.fromkeys(ids, "Cancelled"), max(ids): words}


def busy_for(run_id: str, times: int) -> Callable[[Asked], Awaitable[Answer]]:
    """A database that is locked so many times when the state of one run is to be set with those of others."""
    left = times

    async def tell(asked: Asked) -> Answer:
        nonlocal left
        if not asked.sets_states or not left or run_id in asked.body["flow_runs"].get("id", {}).get("not_any_", ()):
            return await asked.pass_on()
        left -= 1
        answer = await asked.say({**asked.body, "flow_runs": without(asked.body["flow_runs"], run_id)})
        details = {"type": "abort_details", "reason": "(sqlite3.OperationalError) database is locked"}
        answer.body["results"].append({"flow_run_id": run_id, "status": "ABORT", "state": None, "details": details})
        return answer

    return tell


def without(query: dict[str, Any], run_id: str) -> dict[str, Any]:
    ids = query.get("id", {})
    return {**query, "id": {**ids, "not_any_": [*ids.get("not_any_", ()), run_id]}}


async def test_a_block_waits_for_its_runs(deployment: str) -> None:
    async with flow_submitter(deployment) as etl:
        run_id = await etl.submit()
        await end(run_id, Completed())
    assert etl.results == {run_id: "Completed"}


async def test_a_block_left_by_an_exception_cancels_its_runs(deployment: str) -> None:
    with pytest.raises(ValueError, match="no"):
        async with flow_submitter(deployment) as etl:
            run_id = await etl.submit()
            raise ValueError("no")
    assert await state_of(run_id) == "Cancelled"


async def test_a_block_that_is_cancelled_cancels_its_runs(deployment: str) -> None:
    ids: list[str] = []

    async def parent() -> None:
        async with flow_submitter(deployment) as etl:
            ids.extend(await three(etl))
            await etl.wait()

    task = asyncio.create_task(parent())
    await until(lambda: ids)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [await state_of(run_id) for run_id in ids] == ["Cancelled"] * 3


async def test_a_block_whose_scope_is_cancelled_cancels_its_runs(deployment: str) -> None:
    with anyio.CancelScope() as scope:
        async with flow_submitter(deployment) as etl:
            await three(etl)
            scope.cancel()
    assert [await state_of(run_id) for run_id in etl.run_ids] == ["Cancelled"] * 3


async def test_a_block_may_leave_its_runs(deployment: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="no"):
        async with flow_submitter(deployment, on_exit="leave") as etl:
            run_id = await etl.submit()
            raise ValueError("no")
    assert await state_of(run_id) == "Scheduled"
    assert any(f"1 runs go on, tag {etl.batch_tag}" in message for message in caplog.messages)


async def test_the_hook_ends_all_children_linked_or_not(deployment: str) -> None:
    @flow
    async def parent() -> tuple[FlowRun, list[str]]:
        etl = flow_submitter(deployment, link=False)
        ids = [await trigger_subflow(deployment), *await three(etl)]
        return get_run_context().flow_run, ids

    flow_run, ids = await parent()
    stranger = await flow_submitter(deployment).submit()
    await cancel_children(parent, flow_run, Crashed())

    assert [await state_of(run_id) for run_id in ids] == ["Cancelled"] * 4
    assert await state_of(stranger) == "Scheduled"


async def test_the_hook_ends_what_the_server_creates_after_its_first_look(
    prefect_server: PrefectServer, deployment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may be busy with what a parent has asked for when the parent is gone."""
    monkeypatch.setattr("orchestrator.submission.HOOK_PAUSES", (0.0, 0.0))
    is_asked, was_looked, are_created = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def tell(asked: Asked) -> Answer:
        """Creates between two looks."""
        if asked.is_bulk:
            is_asked.set()
            await was_looked.wait()
        elif asked.sets_states and was_looked.is_set():
            await are_created.wait()
        answer = await asked.pass_on()
        if asked.sets_states:
            was_looked.set()
        if asked.is_bulk and all(row["status"] == "CREATED" for row in answer.body["results"]):
            are_created.set()
        return answer

    @flow
    async def parent() -> list[str]:
        async with lied_to(prefect_server.api_url) as liar:
            liar.tell = tell
            submitting = asyncio.create_task(three(flow_submitter(deployment)))
            await is_asked.wait()
            await cancel_children(parent, get_run_context().flow_run, Crashed())
            return await submitting

    assert [await state_of(run_id) for run_id in await parent()] == ["Cancelled"] * 3


async def test_a_pending_run_is_asked_to_end_when_it_runs(deployment: str) -> None:
    """Asked before that, its process refuses to begin, and nobody ends the run."""
    etl = flow_submitter(deployment)
    run_id = await etl.submit()
    await end(run_id, Pending())
    cancelling = asyncio.create_task(etl.cancel("enough"))
    await until(lambda: is_live(etl))
    assert await state_of(run_id) == "Pending"
    await end(run_id, Running())
    await until_in(run_id, "Cancelling")
    await end(run_id, Cancelled())
    assert await cancelling == {run_id: "Cancelled"}


async def test_a_run_that_stays_pending_is_asked_all_the_same(deployment: str) -> None:
    etl = flow_submitter(deployment)
    run_id = await etl.submit()
    await end(run_id, Pending())
    async with open_calls() as calls:
        assert await cancel_runs(calls, Selection(tag=etl.batch_tag), "enough", patience=0.1) == 1
    assert await state_of(run_id) == "Cancelling"


async def test_a_run_that_waits_for_its_next_attempt_is_cancelled_at_once(deployment: str, api: Api) -> None:
    etl = flow_submitter(deployment, retries=1, retry_delay=3600)
    run_id = await etl.submit()
    waiting = asyncio.create_task(etl.wait())
    api.patch(f"/flow_runs/{run_id}", infrastructure_pid="host:1")
    await end(run_id, Running())
    await end(run_id, Failed())
    await until_in(run_id, "AwaitingRetry")

    assert await etl.cancel() == {run_id: "Cancelled"}
    assert await waiting == {run_id: "Cancelled"}


async def test_a_run_that_is_cancelled_before_we_know_that_it_was_started_again(
    deployment: str, prefect_server: PrefectServer
) -> None:
    """The server has started it again; what we know of it is still how its last attempt has ended."""
    was_asked = False

    def judge(request: Request) -> Fault | None:
        nonlocal was_asked
        was_asked = was_asked or (b"AwaitingRetry" in request.body and "set_state" in request.path)
        return "delay" if was_asked and request.path.endswith("/flow_runs/filter") else None

    async with proxied(prefect_server, judge):
        etl = flow_submitter(deployment, retries=1, retry_delay=3600)
        run_id = await etl.submit()
        waiting = asyncio.create_task(etl.wait())
        await end(run_id, Running())
        await end(run_id, Failed())
        await until_in(run_id, "AwaitingRetry")

        assert await etl.cancel() == {run_id: "Cancelled"}
        assert await waiting == {run_id: "Cancelled"}
    assert was_asked


# --- why runs wait ---------------------------------------------------------------------------------------


async def warnings_of(etl: FlowSubmission, caplog: pytest.LogCaptureFixture, wanted: str) -> list[str]:
    """Wait until a warning with these words has come; returns all warnings."""
    waiting = asyncio.create_task(etl.wait(poll_interval=0.2))
    try:
        await until(lambda: any(wanted in message for message in caplog.messages))
    finally:
        waiting.cancel()
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.fixture
async def pooled(prefect_server: PrefectServer, api: Api) -> str:
    """A deployment with a pool that has no worker."""
    name = f"waiting-{uuid4().hex[:8]}"
    api.ensure_pool(f"{name}-pool")
    api.deploy(f"{name}/pooled", work_pool_name=f"{name}-pool")
    return f"{name}/pooled"


async def test_a_pool_without_a_worker_is_told_at_once(pooled: str, caplog: pytest.LogCaptureFixture) -> None:
    etl = flow_submitter(pooled)
    await etl.submit()

    found = await warnings_of(etl, caplog, "Runs will wait")
    assert len(found) == 1 and f"no worker of work pool '{pooled.partition('/')[0]}-pool' is online" in found[0]


async def test_a_paused_pool_is_told_at_once(pooled: str, caplog: pytest.LogCaptureFixture, api: Api) -> None:
    pool = f"{pooled.partition('/')[0]}-pool"
    api.patch(f"/work_pools/{pool}", is_paused=True)
    etl = flow_submitter(pooled)
    await etl.submit()

    assert f"work pool '{pool}' is paused" in (await warnings_of(etl, caplog, "Runs will wait"))[0]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (Paused(timeout_seconds=86400), "1 run is Paused: somebody, or the flow itself, has paused"),
        (AwaitingRetry(scheduled_time=datetime.now(UTC)), "1 run is AwaitingRetry: waiting for the next attempt"),
        (Scheduled(name="AwaitingConcurrencySlot"), "the deployment's concurrency limit lets no more run"),
    ],
)
async def test_a_long_wait_is_explained(
    deployment: str, state: State, words: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "LONG_SECONDS", 0.0)
    etl = flow_submitter(deployment)
    await end(await etl.submit(), state)

    assert any(words in message for message in await warnings_of(etl, caplog, words))


async def test_last_words_outlive_a_loop_that_cancels_all_its_tasks(deployment: str) -> None:
    """What asyncio.run does when a SIGTERM ends its main task: a run that is asked to end is still waited for."""
    ids: list[str] = []

    async def parent() -> None:
        async with flow_submitter(deployment) as etl:
            ids.append(await etl.submit())
            await end(ids[0], Running())
            await etl.wait()

    mine, others = asyncio.current_task(), asyncio.all_tasks()
    task = asyncio.create_task(parent())
    await until(lambda: ids)
    await until_in(ids[0], "Running")
    for each in asyncio.all_tasks() - others - {mine}:
        each.cancel()
    await until_in(ids[0], "Cancelling")
    assert not task.done()
    await end(ids[0], Cancelled())
    with pytest.raises(asyncio.CancelledError):
        await task


# --- return values ---------------------------------------------------------------------------------------


async def test_return_values_come_where_they_are_persisted(prefect_server: PrefectServer, api: Api) -> None:
    name = f"returning-{uuid4().hex[:8]}"

    @flow(name=name)
    async def child(table: int) -> int:
        if table == 2:
            raise ValueError("no such table")
        return table * 10

    api.deploy(f"{name}/here", parameter_openapi_schema=SCHEMA)
    etl = flow_submitter(f"{name}/here")
    ids = await three(etl)
    for run_id, persists in zip(ids, (True, False, True), strict=True):
        run = await read(run_id)
        each = child.with_options(persist_result=persists)
        await run_flow(each, flow_run=run, parameters=run.parameters, return_type="state")
    assert list((await etl.wait()).values()) == ["Completed", "Completed", "Failed"]

    assert await etl.results() == {ids[0]: 0}


async def test_a_block_that_cannot_begin_may_be_begun_again(prefect_server: PrefectServer, api: Api) -> None:
    name = f"waiting-{uuid4().hex[:8]}"
    etl = flow_submitter(f"{name}/idle")
    with pytest.raises(ServerError, match="no such deployment"):
        async with etl:
            pass
    api.deploy(f"{name}/idle")
    async with etl:
        await end(await etl.submit(), Completed())
    assert list(etl.results.values()) == ["Completed"]


async def test_who_waits_while_somebody_submits_waits_for_those_runs(deployment: str) -> None:
    etl = flow_submitter(deployment)
    submitting = asyncio.create_task(three(etl))
    await until(lambda: etl._submitters)
    waiting = asyncio.create_task(etl.wait())
    for run_id in await submitting:
        await end(run_id, Completed())
    assert list((await waiting).values()) == ["Completed"] * 3


async def test_a_full_pool_is_told(pooled: str, api: Api) -> None:
    pool = f"{pooled.partition('/')[0]}-pool"
    api.patch(f"/work_pools/{pool}", concurrency_limit=1)
    etl = flow_submitter(pooled)
    busy, late = await etl.submit_many([{}, {}])
    await end(busy, Running())
    await end(late, Scheduled(name="Late"))
    async with open_calls() as calls:
        target = await find_target(calls, pooled, None)
        assert "1 of 1 places are taken" in await hints.Hints(calls, [target], Counter)._cause("Late")

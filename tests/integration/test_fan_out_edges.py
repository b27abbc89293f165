"""What comes together at a bad moment: retries and time limits, ends and deletions, a cancellation and a start."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import AwaitingRetry, Completed, Failed, Running

from orchestrator.errors import ConfigurationError, RunsTimedOut, ServerError
from orchestrator.fanout.calls import Selection, open_calls
from orchestrator.fanout.ending import cancel_runs
from orchestrator.fanout.parent import parent_tag
from orchestrator.submission import cancel_children, flow_submitter

from .answers import Answer, Asked, lied_to
from .api import Api
from .conftest import PrefectServer
from .proxy import Fault, Request
from .runs import end, is_live, new_deployment, proxied, read, state_of, through_proxy, until, until_in

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
async def deployment(prefect_server: PrefectServer) -> str:
    return await new_deployment()


# --- retries beside time limits --------------------------------------------------------------------------


async def test_an_end_that_is_read_after_its_time_was_up_is_retried(
    prefect_server: PrefectServer, deployment: str, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.fanout.calls.FIRST_PAUSE", 0.01)
    etl = flow_submitter(deployment, timeout=2, retries=1, retry_delay=0)
    run_id = await etl.submit()

    def come_to(state_type: str) -> None:
        """Not by the proxy."""
        api.post(f"/flow_runs/{run_id}/set_state", state={"type": state_type}, force=True)

    async with proxied(prefect_server) as proxy:
        waiting = asyncio.create_task(etl.wait(poll_interval=0.1))
        await until(lambda: is_live(etl))
        come_to("RUNNING")
        await until(lambda: etl._watch.tracks[run_id].running_since)
        proxy.judge = lambda request: "503"
        proxy.cut_streams("/api/events/out")
        await asyncio.sleep(2)  # its time
        come_to("FAILED")
        proxy.judge = lambda request: "hang up" if request.opens_stream else None
        await until(lambda: api.get(f"/flow_runs/{run_id}")["state_name"] == "AwaitingRetry")
        come_to("COMPLETED")
        assert await waiting == {run_id: "Completed"}


async def test_a_run_that_is_started_again_has_its_time_again(deployment: str) -> None:
    etl = flow_submitter(deployment, timeout=0.5)
    async with etl:
        run_id, other = await etl.submit(table=1), await etl.submit(table=2)
        await end(other, Completed())
        await end(run_id, Running())
        await until_in(run_id, "Cancelling")
        await end(run_id, Failed())
        await until(lambda: etl.failed)

        assert await etl.retry_failed() == [run_id]
        assert not etl._watch.tracks[run_id].is_overdue
        await end(run_id, Running())
        await until_in(run_id, "Cancelling")
        await end(run_id, Completed())


# --- runs that are deleted -------------------------------------------------------------------------------


async def test_a_deleted_run_is_told_as_it_ends(deployment: str, api: Api) -> None:
    etl = flow_submitter(deployment)
    deleted, other = await etl.submit(table=1), await etl.submit(table=2)
    api.call("DELETE", f"/flow_runs/{deleted}")
    await end(other, Completed())

    assert {outcome.id: outcome.state_name async for outcome in etl.as_completed()} == {
        deleted: "Deleted",
        other: "Completed",
    }


async def test_an_end_that_only_an_event_has_told_may_be_deleted_from_a_batch_with_others(
    deployment: str, api: Api
) -> None:
    """Where a parent was retried, the number of all runs of the batch does not tell that one is missing."""
    etl = flow_submitter(deployment, idempotency=lambda parameters: str(parameters["table"]))
    first, *others = await etl.map(table=range(3))
    waiting = asyncio.create_task(etl.wait(poll_interval=3600))
    await until(lambda: is_live(etl))
    await end(first, Completed())
    await until(lambda: first in etl.results)
    api.call("DELETE", f"/flow_runs/{first}")
    for run_id in others:
        await end(run_id, Completed())

    assert await waiting == dict.fromkeys(etl.run_ids, "Completed")


async def test_a_run_is_missed_though_others_were_created_while_it_was_counted(
    prefect_server: PrefectServer, deployment: str, api: Api
) -> None:
    etl = flow_submitter(deployment)
    run_ids = await etl.map(table=range(2))
    is_counted, may_answer = asyncio.Event(), asyncio.Event()

    async def late(asked: Asked) -> Answer:
        answer = await asked.pass_on()
        if asked.path.endswith("/flow_runs/history") and not is_counted.is_set():
            is_counted.set()
            await may_answer.wait()
        return answer

    async with lied_to(prefect_server.api_url) as liar:  # which has no event stream
        liar.tell = late
        waiting = asyncio.create_task(etl.wait(poll_interval=0.2))
        await is_counted.wait()
        run_ids += await etl.map(table=range(2, 5))
        may_answer.set()
        await until(lambda: etl._watch.counts.total() == 5)
        api.call("DELETE", f"/flow_runs/{run_ids[0]}")
        for run_id in run_ids[1:]:
            await end(run_id, Completed())
        assert (await waiting)[run_ids[0]] == "Deleted"


# --- ending ----------------------------------------------------------------------------------------------


async def test_a_run_that_starts_while_others_are_asked_to_end_is_asked_too(
    prefect_server: PrefectServer, deployment: str, api: Api
) -> None:
    etl = flow_submitter(deployment)
    run_id = await etl.submit()
    api.post(f"/flow_runs/{run_id}/set_state", state={"type": "PENDING"}, force=True)

    def start(request: Request) -> Fault | None:
        """Its worker is quicker than the question how many are Pending."""
        if request.path.endswith("/flow_runs/count"):
            api.post(f"/flow_runs/{run_id}/set_state", state={"type": "RUNNING"}, force=True)
        return None

    async with proxied(prefect_server, start), open_calls() as calls:
        assert await cancel_runs(calls, Selection(tag=etl.batch_tag), "because") == 1
    assert await state_of(run_id) == "Cancelling"


@flow
def crashed() -> None: ...


async def test_the_hook_leaves_the_children_of_the_next_attempt_alone(
    deployment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.submission.HOOK_PAUSES", (0.0, 0.0))
    async with get_client() as client:
        parent = await client.create_flow_run(crashed, state=Running())
    child = await flow_submitter(deployment, tags=[parent_tag(parent.id)]).submit()
    before = await read(str(parent.id))

    await end(str(parent.id), AwaitingRetry())  # somebody is quicker than the hook
    await cancel_children(crashed, before, Failed())
    assert await state_of(child) == "Scheduled"

    await end(str(parent.id), Failed())
    await cancel_children(crashed, await read(str(parent.id)), Failed())
    assert await state_of(child) == "Cancelled"


@pytest.mark.parametrize(
    ("options", "words"), [({"on_timeout": "leave"}, "they go on"), ({"on_failure": "raise"}, "1 others go on")]
)
async def test_what_becomes_of_runs_in_a_block_is_said_as_it_is(
    deployment: str, options: dict[str, Any], words: str
) -> None:
    etl = flow_submitter(deployment, **options)
    with pytest.raises(Exception, match=f"{words}, unless this error leaves the block"):
        async with etl:
            failed, other = await etl.submit(table=1), await etl.submit(table=2)
            await end(failed, Failed())
            await until(lambda: etl.failed)
            await etl.wait(timeout=0.1)
    assert await state_of(other) == "Cancelled"


async def test_a_server_that_goes_away_again_does_not_hold_up_what_is_to_be_told(
    prefect_server: PrefectServer, deployment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.fanout.calls.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("orchestrator.fanout.shutdown.LAST_WAIT_SECONDS", 0.5)
    etl = flow_submitter(deployment, cancel_grace=0.5)
    await etl.submit()
    async with proxied(prefect_server) as proxy:
        proxy.judge = lambda request: "503" if request.path.endswith("/bulk_set_state") else None
        with pytest.raises(RunsTimedOut, match=r"1 of 1 flow runs had not ended after 0\.1 s"):
            await etl.wait(timeout=0.1)
    assert [request.path for request in proxy.seen if request.path.endswith("/bulk_set_state")]


# --- a watch that fails, a second loop, keys -------------------------------------------------------------


async def test_who_waits_for_a_place_hears_that_nobody_watches(prefect_server: PrefectServer, deployment: str) -> None:
    etl = flow_submitter(deployment, max_in_flight=1)

    async def refuse(asked: Asked) -> Answer:
        return Answer(403, {}) if asked.path.endswith("/flow_runs/history") else await asked.pass_on()

    async with lied_to(prefect_server.api_url) as liar:
        liar.tell = refuse
        with pytest.raises(ServerError, match="403"):
            await etl.map(table=range(2))


def test_a_script_may_run_several_loops(prefect_server: PrefectServer) -> None:
    path = asyncio.run(new_deployment())
    etl = flow_submitter(path)

    async def end_one(run_id: str) -> None:
        await until(lambda: etl._watch.counts.total() == len(etl.run_ids))
        await end(run_id, Completed())

    async def wait_and_end(run_id: str) -> None:
        async with through_proxy(prefect_server):
            await asyncio.gather(etl.wait(), end_one(run_id))

    for table in range(3):
        asyncio.run(wait_and_end(asyncio.run(etl.submit(table=table))))
    assert list(etl.results.values()) == ["Completed"] * 3


async def test_two_items_of_one_key_are_refused_outside_of_a_flow_too(deployment: str, api: Api) -> None:
    etl = flow_submitter(deployment, idempotency=lambda parameters: "the same")
    with pytest.raises(ConfigurationError, match="Two items have the key 'the same'"):
        await etl.map(table=range(2))
    assert etl.run_ids == []


async def test_a_run_whose_time_was_up_is_ended_though_its_watch_was_broken_off(
    prefect_server: PrefectServer, deployment: str
) -> None:
    etl = flow_submitter(deployment, start_timeout=0.0)
    run_id = await etl.submit()
    async with proxied(prefect_server) as proxy:
        proxy.judge = lambda request: "503" if request.path.endswith("/bulk_set_state") else None
        waiting = asyncio.create_task(etl.wait())
        await until(lambda: any(request.path.endswith("/bulk_set_state") for request in proxy.seen))
        waiting.cancel()
        await asyncio.wait([waiting])
    assert await etl.wait() == {run_id: "Cancelled"}

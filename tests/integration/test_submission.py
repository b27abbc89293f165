"""Submitting and following runs on a real server. No worker runs them: the tests end them through the API."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from prefect import flow, task
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.context import get_run_context
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import (
    AwaitingConcurrencySlot,
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Late,
    Paused,
    Pending,
    Running,
    Suspended,
)

from orchestrator.errors import ConfigurationError, RunFailed, ServerError, ServerUnreachable
from orchestrator.fanout import calls
from orchestrator.submission import (
    flow_submitter,
    trigger_multiple_subflows,
    trigger_subflow,
    wait_for_flow_runs,
)

from .conftest import PrefectServer, free_port
from .proxy import Fault, Request, either, first, proxy_to
from .runs import end, new_deployment, read, through_proxy, until

QUICK = 0.05  # seconds between polls: what is tested does not depend on it
NO_ENDS = (
    Late(),
    AwaitingConcurrencySlot(),
    AwaitingRetry(),
    Suspended(timeout_seconds=86400),
    Pending(),
    Paused(timeout_seconds=86400),
    Running(),
    Cancelling(),  # after one with a process: the others would be Cancelled at once
)


@pytest.fixture
async def deployment(prefect_server: PrefectServer) -> str:
    return await new_deployment()


@asynccontextmanager
async def polled(server: PrefectServer) -> AsyncIterator[Callable[[], int]]:
    """Through such a proxy: how often it was polled."""
    async with through_proxy(server) as proxy:
        yield lambda: sum(map(is_poll, proxy.seen))


def is_poll(request: Request) -> bool:
    return request.path == "/api/flow_runs/history"


# --- submitting ------------------------------------------------------------------------------------------


async def test_submit_returns_at_once_with_the_id_of_a_scheduled_run(deployment: str) -> None:
    etl = flow_submitter(deployment)
    run_id = await etl.submit(table=3)

    run = await read(run_id)
    assert run.state and run.state.is_scheduled()
    assert run.parameters == {"table": 3}
    assert (etl.run_ids, etl.results) == ([run_id], {})


async def test_gathered_submits_make_one_run_each(deployment: str) -> None:
    etl = flow_submitter(deployment)
    run_ids = await asyncio.gather(*(etl.submit(table=table) for table in range(20)))

    assert etl.run_ids == run_ids and len(set(run_ids)) == 20
    tables = [(await read(run_id)).parameters["table"] for run_id in run_ids]
    assert tables == list(range(20))


async def test_submits_outside_of_a_run_are_never_taken_for_each_other(deployment: str) -> None:
    etl = flow_submitter(deployment)

    assert await etl.submit(table=1) != await etl.submit(table=1)


async def test_multiple_subflows_come_in_the_order_of_their_parameters(deployment: str) -> None:
    run_ids = await trigger_multiple_subflows(deployment, [{"table": 2}, {"table": 0}, {"table": 1}])

    assert [(await read(run_id)).parameters["table"] for run_id in run_ids] == [2, 0, 1]


async def test_a_deployment_that_does_not_exist_is_named(prefect_server: PrefectServer) -> None:
    with pytest.raises(ServerError, match=r"^no-such-flow/nowhere: .* no such deployment.* Deploy it first"):
        await trigger_subflow("no-such-flow/nowhere")


async def test_parameters_that_do_not_fit_are_explained(deployment: str) -> None:
    with pytest.raises(ConfigurationError, match=r"do not fit the flow: table: 'twelve' is not.*No run was created"):
        await flow_submitter(deployment).submit(table="twelve")


async def test_a_server_that_is_not_there_is_unreachable(deployment: str) -> None:
    with (
        temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}),
        pytest.raises(ServerUnreachable, match=r"does not answer \(ConnectError\).*is the address right"),
    ):
        await trigger_subflow(deployment)


# --- waiting ---------------------------------------------------------------------------------------------


async def test_wait_tells_what_became_of_each_run(deployment: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="orchestrator.submission")
    etl = flow_submitter(deployment, crash_grace=0)
    states = [Completed(), Completed(name="NoChanges"), Failed(name="TimedOut"), Crashed(), Cancelled()]
    for state in states:
        await end(await etl.submit(), state)

    results = await etl.wait(poll_interval=QUICK)
    assert list(results) == etl.run_ids
    assert list(results.values()) == ["Completed", "NoChanges", "TimedOut", "Crashed", "Cancelled"]
    assert etl.results == results
    assert "Summary → 2/5 succeeded, 3 failed" in caplog.messages
    third = etl.outcomes[etl.run_ids[2]]
    assert f"❌ [{deployment}] Run {third.name} ({third.id[:8]}) finished with state: TimedOut" in caplog.messages


async def test_wait_may_be_called_again_after_more_submits(deployment: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="orchestrator.submission")
    etl = flow_submitter(deployment)
    first = await etl.submit(table=1)
    await end(first, Completed())
    assert await etl.wait(poll_interval=QUICK, show_summary=False) == {first: "Completed"}
    assert not [message for message in caplog.messages if message.startswith("Summary")]

    second = await etl.submit(table=2)
    await end(second, Failed())
    assert await etl.wait(poll_interval=QUICK) == {first: "Completed", second: "Failed"}
    assert "Summary → 1/2 succeeded, 1 failed" in caplog.messages


async def test_wait_takes_in_runs_that_are_submitted_meanwhile(deployment: str) -> None:
    etl = flow_submitter(deployment)
    first = await etl.submit()
    waiting = asyncio.create_task(etl.wait(poll_interval=QUICK))
    second = await etl.submit()
    await end(first, Completed())
    await until(lambda: first in etl.results)
    assert not waiting.done()

    await end(second, Completed())
    assert await waiting == {first: "Completed", second: "Completed"}


async def test_states_that_are_no_ends_are_waited_through(prefect_server: PrefectServer, deployment: str) -> None:
    etl = flow_submitter(deployment)
    run_id = await etl.submit()
    async with polled(prefect_server) as polls:
        waiting = asyncio.create_task(etl.wait(poll_interval=QUICK))
        for state in NO_ENDS:
            await end(run_id, state)
            before = polls()
            await until(lambda before=before: polls() >= before + 2 or waiting.done())
            assert (waiting.done(), (await read(run_id)).state_name) == (False, state.name)
        await end(run_id, Completed())
        assert await waiting == {run_id: "Completed"}


async def test_a_round_is_one_count_and_one_read_whatever_the_number_of_runs(
    prefect_server: PrefectServer, deployment: str
) -> None:
    etl = flow_submitter(deployment)
    run_ids = await asyncio.gather(*(etl.submit(table=table) for table in range(20)))
    for run_id in run_ids:
        await end(run_id, Completed())

    async with through_proxy(prefect_server) as proxy:
        for _ in range(2):
            await etl.wait(poll_interval=QUICK)
            paths = Counter(request.path for request in proxy.seen)
            assert (paths["/api/flow_runs/history"], paths["/api/flow_runs/filter"]) == (1, 1)


async def test_more_runs_than_a_page_holds_are_read_in_pages(
    prefect_server: PrefectServer, deployment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "PAGE", 3)
    run_ids = await trigger_multiple_subflows(deployment, [{"table": table} for table in range(7)])
    for run_id in run_ids:
        await end(run_id, Completed())

    async with through_proxy(prefect_server) as proxy:
        results = await wait_for_flow_runs(run_ids, poll_interval=QUICK)
    assert results == dict.fromkeys(run_ids, "Completed")
    # Three for what has ended, and three to see whose runs they are.
    assert Counter(request.path for request in proxy.seen)["/api/flow_runs/filter"] == 6


async def test_a_deleted_run_is_an_outcome_and_no_hang(deployment: str) -> None:
    etl = flow_submitter(deployment)
    kept, deleted = await etl.submit(table=1), await etl.submit(table=2)
    await end(kept, Completed())
    async with get_client() as client:
        await client.delete_flow_run(UUID(deleted))

    assert await etl.wait(poll_interval=QUICK) == {kept: "Completed", deleted: "Deleted"}
    with pytest.raises(RunFailed, match="the server no longer knows this run"):
        etl.raise_for_failures()
    with pytest.raises(RunFailed, match=f"unknown flow/{deleted}"):
        await wait_for_flow_runs([deleted], poll_interval=QUICK)


# --- failures --------------------------------------------------------------------------------------------


async def test_a_failure_names_flow_run_state_and_reason(deployment: str) -> None:
    good, bad = await trigger_multiple_subflows(deployment, [{"table": 1}, {"table": 2}])
    await end(good, Completed())
    await end(bad, Failed(message="table_02 has no rows"))
    name = f"{deployment.partition('/')[0]}/{(await read(bad)).name}"

    with pytest.raises(RunFailed, match="1 of 2 flow runs did not complete") as failure:
        await wait_for_flow_runs([good, bad], poll_interval=QUICK)
    assert f"{name} ({bad[:8]}): Failed: table_02 has no rows" in str(failure.value)


async def test_failures_may_be_collected_instead(deployment: str) -> None:
    bad, good = await trigger_multiple_subflows(deployment, [{"table": 1}, {"table": 2}])
    await end(bad, Failed())
    await end(good, Completed())

    results = await wait_for_flow_runs([bad, good], poll_interval=QUICK, raise_on_failure=False)
    assert list(results.items()) == [(bad, "Failed"), (good, "Completed")]


async def test_a_failure_is_told_only_when_all_have_ended(prefect_server: PrefectServer, deployment: str) -> None:
    bad, slow = await trigger_multiple_subflows(deployment, [{"table": 1}, {"table": 2}])
    await end(bad, Failed())
    async with polled(prefect_server) as polls:
        waiting = asyncio.create_task(wait_for_flow_runs([bad, slow], poll_interval=QUICK))
        await until(lambda: polls() >= 3)
        assert not waiting.done()
        await end(slow, Completed())
        with pytest.raises(RunFailed):
            await waiting


async def test_a_submission_raises_for_its_failures_and_counts_beyond_ten(deployment: str) -> None:
    etl = flow_submitter(deployment)
    for table in range(12):
        await end(await etl.submit(table=table), Failed(message=f"no table {table}"))
    await etl.wait(poll_interval=QUICK)

    with pytest.raises(RunFailed, match=r"12 of 12 .* no table 9 \[table=9\]; and 2 more\."):
        etl.raise_for_failures()


# --- a server that fails ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["503", "hang up"])
async def test_a_server_that_fails_for_a_while_loses_no_run(
    prefect_server: PrefectServer, deployment: str, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    run_ids = await trigger_multiple_subflows(deployment, [{"table": 1}, {"table": 2}])
    async with proxy_to(prefect_server.api_url) as proxy:
        with temporary_settings({PREFECT_API_URL: proxy.api_url}):
            waiting = asyncio.create_task(wait_for_flow_runs(run_ids, poll_interval=QUICK))
            proxy.judge = lambda request: fault
            await until(lambda: any("Trying again in" in message for message in caplog.messages))
        for run_id in run_ids:
            await end(run_id, Completed())
        assert not waiting.done()
        proxy.judge = lambda request: None

        assert await waiting == dict.fromkeys(run_ids, "Completed")


@pytest.mark.parametrize("fault", ["503", "hang up"])
async def test_polls_that_fail_ten_times_are_told_a_few_times_and_lose_no_end(
    prefect_server: PrefectServer,
    deployment: str,
    fault: Fault,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "FIRST_PAUSE", QUICK)
    monkeypatch.setattr(calls, "LONGEST_PAUSE", 2 * QUICK)
    etl = flow_submitter(deployment)
    good, bad = await etl.submit(table=1), await etl.submit(table=2)
    async with through_proxy(prefect_server) as proxy:
        proxy.judge = either(proxy.judge, first(10, fault, when=is_poll))
        waiting = asyncio.create_task(etl.wait(poll_interval=QUICK))
        await until(lambda: sum(map(is_poll, proxy.seen)) >= 3 or waiting.done())
        await end(good, Completed())
        await end(bad, Failed())
        assert await waiting == {good: "Completed", bad: "Failed"}
        assert sum(map(is_poll, proxy.seen)) > 10
    assert sum("Trying again in" in message for message in caplog.messages) == 1  # until the pauses are the longest


# --- inside a run ----------------------------------------------------------------------------------------


async def test_runs_are_linked_to_the_flow_run_that_submits_them(deployment: str) -> None:
    @flow
    async def parent() -> tuple[UUID, list[str]]:
        etl = flow_submitter(deployment)
        await asyncio.gather(*(etl.submit(table=table) for table in range(3)))
        return get_run_context().flow_run.id, [*etl.run_ids, await trigger_subflow(deployment)]

    parent_id, run_ids = await parent()
    async with get_client() as client:
        for run_id in run_ids:
            placeholder = (await read(run_id)).parent_task_run_id
            assert placeholder
            assert (await client.read_task_run(placeholder)).flow_run_id == parent_id


async def test_equal_submits_in_one_run_make_a_run_each(deployment: str) -> None:
    @task
    async def refresh() -> str:
        return await trigger_subflow(deployment, {"table": 1})

    @flow
    async def parent() -> list[str]:
        etl = flow_submitter(deployment)
        submitted = await asyncio.gather(etl.submit(table=1), etl.submit(table=1))
        return [*submitted, await trigger_subflow(deployment, {"table": 1}), await refresh(), await refresh()]

    assert len(set(await parent())) == 5


async def test_a_retried_parent_finds_its_runs_and_repeats_only_the_failed(deployment: str) -> None:
    attempts: list[list[str]] = []

    async def first_attempt(run_ids: list[str]) -> None:
        await end(run_ids[0], Completed())
        await end(run_ids[1], Failed())
        raise ValueError("the parent fails with one run ended well, one ended badly, one under way")

    @flow(retries=1)
    async def parent() -> None:
        etl = flow_submitter(deployment, idempotency="retry-failed")
        tables = [0, 1, 2] if not attempts else [2, 1, 0]
        ids = await asyncio.gather(*(etl.submit(table=table) for table in tables))
        by_table = dict(zip(tables, ids, strict=True))
        attempts.append([by_table[table] for table in range(3)])
        if len(attempts) == 1:
            await first_attempt(attempts[0])

    await parent()
    first, second = attempts
    assert (second[0], second[2]) == (first[0], first[2])
    assert second[1] == first[1]
    assert (await read(second[1])).state_name == "AwaitingRetry"


async def test_lines_about_runs_are_in_the_parents_own_log(deployment: str) -> None:
    @flow
    async def parent() -> UUID:
        etl = flow_submitter(deployment)
        await end(await etl.submit(), Completed())
        await etl.wait(poll_interval=QUICK)
        return get_run_context().flow_run.id

    run_filter = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[await parent()]))
    async with get_client() as client:  # logs are sent in batches
        assert await until(lambda: logged(client, run_filter, "Summary → 1/1 succeeded, 0 failed"))


async def logged(client: PrefectClient, log_filter: LogFilter, message: str) -> bool:
    return message in {line.message for line in await client.read_logs(log_filter=log_filter)}

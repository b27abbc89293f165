"""What a submission says before it begins, and of runs that wait, by what a real server knows."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.context import get_run_context
from prefect.runtime import flow_run
from prefect.states import Completed, Failed, Running, Scheduled

from orchestrator.errors import ConfigurationError, ServerError
from orchestrator.fanout import hints
from orchestrator.fanout.calls import open_calls
from orchestrator.fanout.hints import Hints
from orchestrator.fanout.target import Target, find_target, require_queue
from orchestrator.submission import flow_submitter

from .api import Api
from .conftest import PrefectServer
from .runs import end, new_deployment, until


@pytest.fixture
def city(prefect_server: PrefectServer, api: Api) -> str:
    """A flow with two deployments in a pool that has no worker."""
    name = f"load-city-{uuid4().hex[:8]}"
    api.ensure_pool(f"{name}-pool")
    for each in ("night", "day"):
        api.deploy(f"{name}/{each}", work_pool_name=f"{name}-pool")
    return name


async def found(path: str) -> Target:
    async with open_calls(0.0) as calls:
        return await find_target(calls, path, None)


# --- paths and queues ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("{flow}/nigt", "Did you mean '{flow}/night'? The flow has {flow}/day, {flow}/night."),
        ("{flow}x/night", "there is no flow '{flow}x'. Did you mean '{flow}/night'?"),
        ("{flow}x", "there is no flow '{flow}x'. Did you mean '{flow}'?"),
    ],
)
async def test_a_misspelt_path_is_met_with_what_may_have_been_meant(city: str, written: str, words: str) -> None:
    with pytest.raises(ServerError) as failure:
        await found(written.format(flow=city))

    assert words.format(flow=city) in str(failure.value)


@pytest.mark.parametrize("rest", ["", "/night"])
async def test_a_flow_without_deployments_is_no_unknown_one(prefect_server: PrefectServer, rest: str) -> None:
    name = f"never-deployed-{uuid4().hex[:8]}"
    async with get_client() as client:
        await client.create_flow_from_name(name)

    with pytest.raises(ServerError, match=f"the flow '{name}' has no deployment"):
        await found(name + rest)


@pytest.mark.parametrize("path", ["", " ", "/", "load/", "/night", None])
async def test_a_path_that_is_none_is_refused(prefect_server: PrefectServer, path: str) -> None:
    with pytest.raises(ConfigurationError, match=r"names no deployment.*Write `flow/deployment`"):
        await found(path)


async def test_a_queue_that_is_not_there_is_not_made(city: str, api: Api) -> None:
    api.post(f"/work_pools/{city}-pool/queues", name="urgent")
    target = await found(f"{city}/night")
    async with open_calls(0.0) as calls:
        assert await require_queue(calls, target, None) == target
        assert (await require_queue(calls, target, "urgent")).work_queue == "urgent"
        with pytest.raises(ConfigurationError, match=r"has no queue 'urgnet'. Did you mean 'urgent'.*default, urgent"):
            await require_queue(calls, target, "urgnet")
    assert {row["name"] for row in api.post(f"/work_pools/{city}-pool/queues/filter")} == {"default", "urgent"}


async def test_without_a_pool_there_is_no_queue(prefect_server: PrefectServer, api: Api) -> None:
    path = f"poolless-{uuid4().hex[:8]}/idle"
    api.deploy(path)
    async with open_calls(0.0) as calls:
        with pytest.raises(ConfigurationError, match="no work pool"):
            await require_queue(calls, await find_target(calls, path, None), "urgent")


# --- sync flows ------------------------------------------------------------------------------------------


def test_a_sync_flow_runs_a_loop_of_its_own(prefect_server: PrefectServer, api: Api) -> None:
    path = f"from-sync-{uuid4().hex[:8]}/idle"
    api.deploy(path)

    @flow
    def parent() -> tuple[list[str], str]:
        async def go() -> list[str]:
            return await flow_submitter(path).submit_many([{}, {}])

        return asyncio.run(go()), str(flow_run.id)

    ids, parent_id = parent()
    assert all(f"parent-run:{parent_id}" in api.get(f"/flow_runs/{each}")["tags"] for each in ids)


# --- hints -----------------------------------------------------------------------------------------------


async def warned(
    path: str, counts: Counter[tuple[str, str]], caplog: pytest.LogCaptureFixture, said: set[str]
) -> list[str]:
    """What is said of runs of a deployment at once, and at two looks after that."""
    caplog.clear()
    async with open_calls(0.0) as calls:
        told = Hints(calls, [await find_target(calls, path, None)], lambda: counts, said)
        await told._foretell()
        for _ in range(2):
            await told._look()
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "LONG_SECONDS", 0.0)


@pytest.mark.usefixtures("quick")
async def test_what_was_said_is_not_said_at_the_next_wait(city: str, caplog: pytest.LogCaptureFixture) -> None:
    said: set[str] = set()
    counts = Counter({("PAUSED", "Paused"): 1, ("RUNNING", "Paused"): 1, ("SCHEDULED", "Late"): 1})

    first, second = await warned(f"{city}/night", counts, caplog, said)
    assert "Runs will wait: no worker of work pool" in first
    assert second.startswith(f"[{city}/night] 2 runs are Paused: ")
    assert await warned(f"{city}/night", counts, caplog, said) == []
    (later,) = await warned(f"{city}/night", counts + Counter({("SCHEDULED", "AwaitingRetry"): 1}), caplog, said)
    assert later.endswith("1 run is AwaitingRetry: waiting for the next attempt")


@pytest.mark.usefixtures("quick")
async def test_a_worker_that_is_online_with_places_free_may_be_at_its_limit(
    city: str, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    api.post(f"/work_pools/{city}-pool/workers/heartbeat", name="one", heartbeat_interval_seconds=30)
    late = Counter({("SCHEDULED", "Late"): 1})

    (line,) = await warned(f"{city}/night", late, caplog, set())
    assert f"1 run is Late: 1 worker of work pool '{city}-pool' is online, perhaps at its `--limit`" in line
    assert "parents that wait hold places, too" in line


@pytest.mark.usefixtures("quick")
async def test_a_full_pool_is_told_by_a_server_that_marks_no_run_as_late(
    city: str, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    api.post(f"/work_pools/{city}-pool/workers/heartbeat", name="one", heartbeat_interval_seconds=30)
    scheduled = Counter({("SCHEDULED", "Scheduled"): 1})
    assert await warned(f"{city}/night", scheduled, caplog, set()) == []  # a worker may take it at any moment

    api.patch(f"/work_pools/{city}-pool", concurrency_limit=1)
    await end(await flow_submitter(f"{city}/night").submit(), Running())
    (line,) = await warned(f"{city}/night", scheduled, caplog, set())
    assert f"1 run is Scheduled: work pool '{city}-pool': 1 of 1 places are taken" in line


@pytest.mark.usefixtures("quick")
async def test_who_holds_a_deployments_slots_is_counted(city: str, api: Api, caplog: pytest.LogCaptureFixture) -> None:
    path = f"{city}/limited"
    api.deploy(path, concurrency_limit=1)
    busy, waits = await flow_submitter(path).submit_many([{}, {}])
    await end(busy, Running())
    await end(waits, Scheduled(name="AwaitingConcurrencySlot"))

    slot = Counter({("SCHEDULED", "AwaitingConcurrencySlot"): 1})
    lines = await warned(path, slot, caplog, set())
    assert f"1 run is AwaitingConcurrencySlot: {path} lets 1 run at a time, and 1 is under way" in lines[-1]


# --- artifacts -------------------------------------------------------------------------------------------


async def test_a_parent_has_its_progress_and_its_summary_as_artifacts(
    prefect_server: PrefectServer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.fanout.progress.FIRST_SECONDS", 0.05)
    monkeypatch.setattr("orchestrator.fanout.progress.LONGEST_SECONDS", 0.05)
    path = await new_deployment()

    @flow
    async def parent() -> str:
        async with flow_submitter(path) as etl:
            good, bad = await etl.map(table=range(2))
            await end(good, Completed())
            await until(lambda: etl._progress and etl._progress._artifact)
            await end(bad, Failed(message="no such table"))
        return str(get_run_context().flow_run.id)

    of_parent = {"flow_run_id": {"any_": [await parent()]}}
    artifacts = {row["type"]: row for row in api.post("/artifacts/filter", artifacts=of_parent)}
    assert artifacts["progress"]["data"] == 100
    assert f"**{path}**: 1/2 succeeded, 1 failed" in artifacts["table"]["description"]
    rows = json.loads(artifacts["table"]["data"])
    assert [(row["state"], row["message"]) for row in rows] == [("Failed", "no such table"), ("Completed", "")]

"""Following a run and what it starts, on a real server. The tests end the runs themselves, through the API."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prefect import flow
from prefect.context import get_run_context
from prefect.deployments import run_deployment
from prefect.states import Completed, Failed, Running

from orchestrator import runs
from orchestrator.errors import OrchestratorError, ServerUnreachable
from orchestrator.model import RunReport
from orchestrator.server import open_server

from .api import Api, unique
from .conftest import PrefectServer, free_port
from .runs import end, until


@pytest.fixture
def path(api: Api) -> str:
    """A deployment of its own for each test, which no worker serves."""
    path = f"{unique('followed')}/idle"
    api.deploy(path, version="v1")
    return path


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "POLL_SECONDS", 0.05)


async def start(path: str) -> str:
    async with open_server() as server:
        return await runs.start_run(server, await runs.find_deployment(server, path), {})


async def followed(run_id: Any, said: list[str] | None = None) -> RunReport:
    async with open_server() as server, asyncio.timeout(60):
        heard = (said if said is not None else []).append
        return await runs.follow(server, str(run_id), heard, heard)


async def child_of_this_run(path: str, state: Any = None) -> Any:
    run = await run_deployment(path, timeout=0, as_subflow=True)
    await end(str(run.id), state or Completed())
    return run


# --- following -------------------------------------------------------------------------------------------


async def test_a_run_is_followed_through_its_states_to_its_end(path: str) -> None:
    run_id, said = await start(path), []
    following = asyncio.create_task(followed(run_id, said))
    for state, words in ((Running(), "Running"), (Completed(name="NoChanges", message="Fine."), "NoChanges")):
        await end(run_id, state)
        await until(lambda words=words: said[-1:] == [words])

    report = await following
    assert said[-2:] == ["Running", "NoChanges"]
    assert len(said) == len(set(said))
    assert (report.flow, report.state_name, report.message) == (path.partition("/")[0], "NoChanges", "Fine.")
    assert (report.succeeded, report.descendants) == (True, ())


async def test_each_parent_comes_before_its_children_with_their_depth(path: str) -> None:
    @flow(name=unique("middle"))
    async def middle() -> None:
        await child_of_this_run(path)

    @flow(name=unique("top"))
    async def top() -> Any:
        await child_of_this_run(path)
        await middle()
        await middle()
        await child_of_this_run(path)
        return get_run_context().flow_run.id

    report = await followed(await top())
    leaf = path.partition("/")[0]
    assert (report.flow, report.depth) == (top.name, 0)
    assert [(each.depth, each.flow) for each in report.descendants] == [
        (1, leaf),
        (1, middle.name),
        (2, leaf),
        (1, middle.name),
        (2, leaf),
        (1, leaf),
    ]


async def test_the_children_are_counted_while_the_run_goes_on(path: str) -> None:
    said: list[str] = []

    @flow
    async def top() -> None:
        await child_of_this_run(path, Completed())
        await child_of_this_run(path, Failed())
        following = asyncio.create_task(followed(get_run_context().flow_run.id, said))
        await until(lambda: said)
        following.cancel()

    await top()
    assert said[0] == "Running; children: 1 Completed, 1 Failed"
    assert said[1].startswith("The run goes on: http://")  # the following was interrupted
    assert len(said) == 2


async def test_a_failed_child_is_told_with_its_reason(path: str) -> None:
    @flow
    async def top() -> Any:
        await child_of_this_run(path, Failed(message="table_02 has no rows"))
        return get_run_context().flow_run.id

    report = await followed(await top())
    (child,) = report.descendants
    assert report.succeeded
    assert (child.succeeded, child.state_name, child.message) == (False, "Failed", "table_02 has no rows")


async def test_more_children_than_a_page_holds_are_all_told(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "PAGE", 2)

    @flow
    async def top() -> Any:
        started = [await child_of_this_run(path) for _ in range(5)]
        return get_run_context().flow_run.id, {str(run.id) for run in started}

    run_id, children = await top()
    assert {each.id for each in (await followed(run_id)).descendants} == children


async def test_the_latest_markdown_of_the_run_comes_along(api: Api, path: str) -> None:
    run_id = await start(path)
    for text in ("the plan", "the result"):
        api.post("/artifacts/", key=unique("a"), type="markdown", data=text, flow_run_id=run_id)
    api.post("/artifacts/", key=unique("a"), type="table", data="[]", flow_run_id=run_id)
    await end(run_id, Completed())

    assert (await followed(run_id)).artifact == "the result"


# --- finding ---------------------------------------------------------------------------------------------


async def test_a_run_that_completed_on_this_version_is_found(path: str) -> None:
    done, failed = await start(path), await start(path)
    await end(done, Completed())
    await end(failed, Failed())

    async with open_server() as server:
        found = await runs.latest_completed(server, await runs.find_deployment(server, path))
    assert found and str(found.id) == done


async def test_a_run_of_an_earlier_version_does_not_count(api: Api, path: str) -> None:
    await end(await start(path), Completed())
    api.patch(f"/deployments/{api.deployment(path)['id']}", version="v2")

    async with open_server() as server:
        assert await runs.latest_completed(server, await runs.find_deployment(server, path)) is None


@pytest.mark.parametrize("name", ["no-such-flow/nowhere", "no-slash", "a/b/c"])
async def test_an_unknown_deployment_is_named(prefect_server: PrefectServer, name: str) -> None:
    with pytest.raises(OrchestratorError, match=rf"There is no deployment '{name}'.*flow/deployment"):
        await start(name)


async def test_a_server_that_is_not_there_is_unreachable(prefect_server: PrefectServer) -> None:
    async with open_server(f"http://127.0.0.1:{free_port()}/api") as server:
        with pytest.raises(ServerUnreachable):
            await runs.find_deployment(server, "a/b")

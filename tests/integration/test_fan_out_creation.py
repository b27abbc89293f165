"""Runs that a submission creates, on a real server: each once, whatever happens to requests, answers and parents."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext, get_run_context
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow_async
from prefect.flow_runs import suspend_flow_run
from pydantic import BaseModel

from orchestrator.errors import ConfigurationError, OrchestratorError, ServerError
from orchestrator.fanout import creation
from orchestrator.fanout.calls import open_calls
from orchestrator.fanout.parent import current_parent, parent_tag
from orchestrator.fanout.target import find_target
from orchestrator.submission import FlowSubmission, flow_submitter, trigger_multiple_subflows, trigger_subflow

from .answers import Answer, Asked, Liar, lied_to
from .api import Api, unique
from .conftest import ROOT, PrefectServer
from .proxy import Fault, Proxy, Request, first
from .runs import proxied, until

pytestmark = pytest.mark.usefixtures("no_hanging")
SCHEMA = {
    "type": "object",
    "properties": {
        "table": {"type": "integer"},
        "day": {"type": "string", "format": "date-time"},
        "names": {"type": "array", "items": {"type": "string"}, "default": []},
        "options": {"default": {}},
    },
    "required": ["table"],
}
TEMPLATE = {
    "job_configuration": {"command": "{{ command }}", "size": "{{ size }}"},
    "variables": {"type": "object", "properties": {"command": {"type": "string"}, "size": {"type": "integer"}}},
}
Deploy = Callable[..., str]


@pytest.fixture
def deploy(api: Api) -> Deploy:
    """Make deployments that no worker serves, of a flow of their own unless its name is given."""

    def make(flow_name: str = "", name: str = "idle", **fields: Any) -> str:
        flow_name = flow_name or unique("fan-out")
        flow_id = api.post("/flows/", name=flow_name)["id"]
        checked = {"parameter_openapi_schema": SCHEMA, "enforce_parameter_schema": True}
        api.call("POST", "/deployments/", {"flow_id": flow_id, "name": name, **checked, **fields})
        return f"{flow_name}/{name}"

    return make


@pytest.fixture
def deployment(deploy: Deploy) -> str:
    return deploy()


@dataclass(frozen=True)
class Server:
    """What the server knows of a deployment's runs."""

    api: Api

    def runs(self, path: str) -> list[dict[str, Any]]:
        flow_name, _, name = path.partition("/")
        query = {"flows": {"name": {"any_": [flow_name]}}, "deployments": {"name": {"any_": [name]}}}
        rows: list[dict[str, Any]] = []
        while len(page := self.api.post("/flow_runs/filter", **query, sort="ID_DESC", offset=len(rows))) == 200:
            rows += page
        return rows + page

    def tables(self, path: str) -> list[int]:
        return sorted(run["parameters"]["table"] for run in self.runs(path))

    def end(self, run_id: str, type_: str) -> None:
        self.api.post(f"/flow_runs/{run_id}/set_state", state={"type": type_}, force=True)

    def state(self, run_id: str) -> str:
        return str(self.api.get(f"/flow_runs/{run_id}")["state_type"])

    def children_in_graph(self, run_id: UUID) -> list[str]:
        """Of the runs that a parent's graph shows, the ids."""
        graph = self.api.get(f"/flow_runs/{run_id}/graph-v2")
        return sorted(node["id"] for _, node in graph["nodes"] if node["kind"] == "flow-run")

    def task_runs(self, run_id: UUID) -> list[dict[str, Any]]:
        return list(self.api.post("/task_runs/filter", task_runs={"flow_run_id": {"any_": [str(run_id)]}}))


@pytest.fixture
def server(api: Api) -> Server:
    return Server(api)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.fanout.calls.FIRST_PAUSE", 0.01)
    monkeypatch.setattr(creation, "PAUSES", (0.01,) * 5)


def creates(proxy: Proxy | Liar) -> Counter[str]:
    """What was asked for to create something: in bulk, alone, or a task run that links."""
    ends = {"/bulk": "bulk", "/create_flow_run": "alone", "/task_runs/": "link"}
    return Counter(word for seen in proxy.seen for end, word in ends.items() if seen.path.endswith(end))


def is_create(request: Request) -> bool:
    return request.path.endswith(("/create_flow_run", "/create_flow_run/bulk"))


async def gathered(etl: FlowSubmission, tables: range | list[int]) -> list[str]:
    return await asyncio.gather(*(etl.submit(table=table) for table in tables))


# --- requests --------------------------------------------------------------------------------------------


async def test_gathered_submits_are_created_by_the_hundred(
    prefect_server: PrefectServer, deployment: str, server: Server
) -> None:
    async with lied_to(prefect_server.api_url) as liar:
        run_ids = await gathered(flow_submitter(deployment), range(250))
    # A database that is locked has some of them sent again.
    batches = {tuple(item["idempotency_key"] for item in asked.body) for asked in liar.seen if asked.is_bulk}
    assert sorted(map(len, batches)) == [50, 100, 100] and creates(liar)["alone"] == 0

    tables = {run["id"]: run["parameters"]["table"] for run in server.runs(deployment)}
    assert [tables[run_id] for run_id in run_ids] == list(range(250)) and len(tables) == 250


async def test_a_lone_submit_goes_as_prefect_itself_does(
    prefect_server: PrefectServer, deployment: str, server: Server
) -> None:
    ours = ("/api/deployments", "/api/flow_runs", "/api/task_runs")

    @flow
    async def parent() -> tuple[UUID, str, list[str]]:
        etl, names = flow_submitter(deployment), ["filter"]
        await etl.submit(table=1)
        while "filter" in names:  # a connection broke on a busy machine, and the run was looked for
            async with proxied(prefect_server) as proxy:
                run_id = await etl.submit(table=2)
            names = [request.path.rpartition("/")[2] for request in proxy.seen if request.path.startswith(ours)]
        return get_run_context().flow_run.id, run_id, names

    parent_id, run_id, names = await parent()
    assert names == ["idle", "", "create_flow_run"]
    assert run_id in server.children_in_graph(parent_id)
    assert {run["idempotency_key"] is None for run in server.runs(deployment)} == {False}


async def test_nothing_is_created_for_an_empty_list(prefect_server: PrefectServer, deployment: str) -> None:
    async with proxied(prefect_server) as proxy:
        assert await flow_submitter(deployment).submit_many([]) == []
        assert creates(proxy) == {}


async def test_many_come_in_the_order_of_what_generates_them(deployment: str, server: Server) -> None:
    run_ids = await flow_submitter(deployment).submit_many({"table": table} for table in (3, 1, 2))

    tables = {run["id"]: run["parameters"]["table"] for run in server.runs(deployment)}
    assert [tables[run_id] for run_id in run_ids] == [3, 1, 2]


async def test_columns_become_rows_in_their_order(deployment: str, server: Server) -> None:
    run_ids = await flow_submitter(deployment).map(table=range(3), names=[["a"], ["b"], ["c"]], options="all")

    given = {run["id"]: run["parameters"] for run in server.runs(deployment)}
    assert [given[run_id] for run_id in run_ids] == [
        {"table": number, "names": [name], "options": "all"} for number, name in enumerate("abc")
    ]


async def test_tags_queue_and_job_variables_reach_the_runs(api: Api, deploy: Deploy, server: Server) -> None:
    pool = api.ensure_pool(unique("pool"))
    api.post(f"/work_pools/{pool}/queues", name="urgent")
    path = deploy(work_pool_name=pool, tags=["of-the-deployment"], job_variables={"env": {"A": "1"}})
    etl = flow_submitter(path, tags=["nightly"], work_queue="urgent", job_variables={"env": {"B": "2"}})
    await etl.submit(table=1)
    await etl.submit_many([{"table": 2}, {"table": 3}])

    for run in server.runs(path):
        assert set(run["tags"]) == {"of-the-deployment", "nightly", etl.batch_tag}
        assert (run["work_queue_name"], run["job_variables"]) == ("urgent", {"env": {"B": "2"}})


# --- parameters ------------------------------------------------------------------------------------------


class Window(BaseModel):
    start: datetime
    size: int = 7


async def test_parameters_are_written_as_json(deployment: str, server: Server) -> None:
    id_ = uuid4()
    window = Window(start=datetime(2026, 1, 31, tzinfo=UTC))
    lone = {"table": 1, "day": datetime(2026, 1, 31), "names": {"b", "a"}, "options": {"w": window, "id": id_}}  # noqa: DTZ001
    etl = flow_submitter(deployment)
    await etl.submit(**lone)
    await etl.submit_many([{**lone, "names": (name for name in "ab")}, lone])

    shown = {"w": {"start": "2026-01-31T00:00:00Z", "size": 7}, "id": str(id_)}
    expected = {"table": 1, "day": "2026-01-31T00:00:00", "names": ["a", "b"], "options": shown}
    assert [run["parameters"] for run in server.runs(deployment)] == [expected] * 3


async def test_all_faults_are_told_before_the_first_run(deployment: str, server: Server) -> None:
    wrong: list[Mapping[str, Any]] = [
        {"table": 1},
        {"tabel": 2},
        {"table": "three"},
        {"table": 4, "day": object()},
        {"table": 5, "options": {"share": float("nan")}},
        {"table": 6, "names": ["a", 7]},
    ]
    with pytest.raises(ConfigurationError) as failure:
        await flow_submitter(deployment).submit_many(wrong)

    faults = (
        "item 1: the flow has no parameter 'tabel'. Did you mean 'table'?",
        "item 1: 'table' is a required property",
        "item 2: table: 'three' is not of type 'integer'",
        "item 3: day: cannot be written as JSON",
        "item 4: options: cannot be written as JSON",
        "item 5: names.1: 7 is not of type 'string'",
        "No run was created",
    )
    assert [fault for fault in faults if fault not in str(failure.value)] == [], str(failure.value)
    assert "item 0" not in str(failure.value) and server.runs(deployment) == []


async def test_faults_do_not_show_what_is_secret(deploy: Deploy) -> None:
    path = deploy(parameter_openapi_schema={"properties": {"password": {"type": "integer"}}})
    with pytest.raises(ConfigurationError, match="not of type 'integer'") as failure:
        await flow_submitter(path).submit(password="hunter2-hunter2")

    assert "hunter2" not in str(failure.value)


async def test_the_deployments_own_parameters_fill_in(deploy: Deploy, server: Server) -> None:
    path = deploy(parameters={"table": 7, "names": ["a"]})
    await flow_submitter(path).submit_many([{}, {"table": 8}])

    assert sorted((run["parameters"]["table"], *run["parameters"]["names"]) for run in server.runs(path)) == [
        (7, "a"),
        (8, "a"),
    ]


async def test_values_that_the_server_fills_in_are_its_own_affair(deploy: Deploy, server: Server) -> None:
    path = deploy(parameters={"options": {"__prefect_kind": "json", "value": "1"}})
    table = {"__prefect_kind": "json", "value": "12"}
    names = [{"__prefect_kind": "jinja", "template": "{{ 'b' }}"}]
    await flow_submitter(path).submit_many([{"table": table}, {"table": 13, "names": names}])

    found = {run["parameters"]["table"]: run["parameters"] for run in server.runs(path)}
    assert found == {12: {"table": 12, "options": 1}, 13: {"table": 13, "options": 1, "names": ["b"]}}


@pytest.mark.parametrize("schema", [SCHEMA, None])
async def test_what_the_server_does_not_check_is_not_checked(
    deploy: Deploy, server: Server, schema: dict[str, Any] | None
) -> None:
    path = deploy(parameter_openapi_schema=schema, enforce_parameter_schema=False)
    await flow_submitter(path).submit(table="three")

    assert [run["parameters"] for run in server.runs(path)] == [{"table": "three"}]


# --- answers that are wrong, and refusals ----------------------------------------------------------------


def rolled_back(batches: int) -> Callable[[Asked], Any]:
    """A database that is locked in the middle of a bulk create: nothing of it stays, and the answer calls half done."""
    left = batches

    async def tell(asked: Asked) -> Answer:
        nonlocal left
        if not asked.is_bulk or left == 0:
            return await asked.pass_on()
        left -= 1
        half = len(asked.body) // 2
        done = [{"flow_run_id": str(uuid4()), "status": "CREATED", "error": None} for _ in range(half)]
        failed = {"flow_run_id": None, "status": "FAILED", "error": "(sqlite3.OperationalError) database is locked"}
        return Answer(200, {"results": [*done, *[failed] * (len(asked.body) - half)]})

    return tell


def called_failed(text: str) -> Callable[[Asked], Any]:
    """A server that creates all, and says of every other one that it did not."""

    async def tell(asked: Asked) -> Answer:
        answer = await asked.pass_on()
        if asked.is_bulk and answer.status == 200:
            for row in answer.body["results"][::2]:
                row.update(status="FAILED", error=text, flow_run_id=None)
        return answer

    return tell


@pytest.mark.parametrize("batches", [1, 2, 99])
async def test_runs_that_a_rollback_took_are_created(
    prefect_server: PrefectServer, deployment: str, server: Server, batches: int
) -> None:
    async with lied_to(prefect_server.api_url) as liar:
        liar.tell = rolled_back(batches)
        run_ids = await gathered(flow_submitter(deployment), range(8))

    assert server.tables(deployment) == list(range(8))
    assert {run["id"] for run in server.runs(deployment)} == set(run_ids)


@pytest.mark.parametrize("text", ["(sqlite3.OperationalError) database is locked", "no reason that anybody knows"])
async def test_runs_that_are_called_failed_and_exist_are_not_created_again(
    prefect_server: PrefectServer, deployment: str, server: Server, text: str
) -> None:
    async with lied_to(prefect_server.api_url) as liar:
        liar.tell = called_failed(text)
        run_ids = await gathered(flow_submitter(deployment), range(8))
        assert creates(liar)["alone"] == 0

    assert server.tables(deployment) == list(range(8))
    assert {run["id"] for run in server.runs(deployment)} == set(run_ids)


async def test_refused_runs_are_named_beside_those_that_were_created(
    prefect_server: PrefectServer, deployment: str, server: Server
) -> None:
    async def tell(asked: Asked) -> Answer:
        """Takes even tables only."""
        if asked.is_bulk and len(asked.body) > 1:
            odd = [item for item in asked.body if item["parameters"]["table"] % 2]
            for item in odd:
                item["parameters"]["table"] = "odd"
            return await asked.say(asked.body)
        if asked.path.endswith("/create_flow_run") and asked.body["parameters"]["table"] % 2:
            return await asked.say({**asked.body, "parameters": {"table": "odd"}})
        return await asked.pass_on()

    etl = flow_submitter(deployment)
    async with lied_to(prefect_server.api_url) as liar:
        liar.tell = tell
        with pytest.raises(ServerError, match=r"2 of 5 runs were not created, 3 were: .*'table': 1.*'table': 3"):
            await etl.submit_many([{"table": table} for table in range(5)])
    assert server.tables(deployment) == [0, 2, 4]
    assert {run["id"] for run in server.runs(deployment)} == set(etl.run_ids)


async def test_job_variables_that_the_pool_refuses_are_asked_about_once(
    prefect_server: PrefectServer, api: Api, deploy: Deploy, server: Server
) -> None:
    path = deploy(work_pool_name=api.ensure_pool(unique("pool"), template=TEMPLATE))
    etl = flow_submitter(path, job_variables={"size": "large"})
    async with lied_to(prefect_server.api_url) as liar:
        with pytest.raises(
            ServerError, match=r"150 of 150 runs were not created, 0 were: .*'size'.*'large' is not valid"
        ):
            await etl.submit_many([{"table": table} for table in range(150)])
        assert creates(liar) == {"bulk": 4, "alone": 1}
    with pytest.raises(ServerError, match="'large' is not"):
        await etl.submit(table=1)
    assert server.runs(path) == [] and etl.run_ids == []


@pytest.mark.parametrize("status", [404, 405])
async def test_a_server_without_the_bulk_route_gets_them_one_by_one(
    prefect_server: PrefectServer, deployment: str, server: Server, status: int
) -> None:
    async def tell(asked: Asked) -> Answer:
        return Answer(status, {"detail": "Not Found"}) if asked.is_bulk else await asked.pass_on()

    async with lied_to(prefect_server.api_url) as liar:
        liar.tell = tell
        etl = flow_submitter(deployment)
        await gathered(etl, range(3))
        await gathered(etl, range(3, 5))
        assert creates(liar) == {"bulk": 1, "alone": 5}
    assert server.tables(deployment) == list(range(5))


@pytest.mark.parametrize("count", [1, 150])
async def test_a_deployment_that_is_deleted_meanwhile_is_named(
    prefect_server: PrefectServer, api: Api, deployment: str, count: int
) -> None:
    etl = flow_submitter(deployment)
    async with proxied(prefect_server) as proxy:
        await etl.submit_many([])
        api.delete_deployments_of(deployment.partition("/")[0])
        words = rf"^{deployment}: .*The server no longer has this deployment. Deploy it first"
        with pytest.raises(ServerError, match=words):
            await etl.submit_many([{"table": table} for table in range(count)])
        assert creates(proxy).total() <= 2


# --- a server that fails ---------------------------------------------------------------------------------

PASSING: tuple[Fault, ...] = ("503", "429", "500", "hang up", "cut the request", "lose the answer", "cut the answer")


@pytest.mark.parametrize("fault", PASSING)
async def test_no_run_is_lost_or_doubled_in_bulk(
    prefect_server: PrefectServer, deployment: str, server: Server, fault: Fault
) -> None:
    async with proxied(prefect_server) as proxy:
        proxy.judge = first(3, fault, when=is_create)
        run_ids = await gathered(flow_submitter(deployment), range(8))

    assert server.tables(deployment) == list(range(8))
    assert {run["id"] for run in server.runs(deployment)} == set(run_ids)


@pytest.mark.parametrize("fault", PASSING)
async def test_no_lone_run_is_lost_or_doubled_or_without_its_link(
    prefect_server: PrefectServer, deployment: str, server: Server, fault: Fault
) -> None:
    @flow
    async def parent() -> tuple[UUID, list[str]]:
        etl = flow_submitter(deployment)
        async with proxied(prefect_server) as proxy:
            proxy.judge = first(3, fault, when=is_create)
            return get_run_context().flow_run.id, [await etl.submit(table=1), await etl.submit(table=2)]

    parent_id, run_ids = await parent()
    assert server.tables(deployment) == [1, 2]
    assert server.children_in_graph(parent_id) == sorted(run_ids)


@pytest.mark.parametrize("fault", PASSING)
async def test_links_that_fail_are_made_once(
    prefect_server: PrefectServer, deployment: str, server: Server, fault: Fault
) -> None:
    @flow
    async def parent() -> tuple[UUID, list[str]]:
        async with proxied(prefect_server) as proxy:
            proxy.judge = first(2, fault, when=lambda request: request.path.endswith("/task_runs/"))
            return get_run_context().flow_run.id, await gathered(flow_submitter(deployment), range(3))

    parent_id, run_ids = await parent()
    assert server.children_in_graph(parent_id) == sorted(run_ids)
    assert len(server.task_runs(parent_id)) == 3


async def test_a_server_that_stays_away_leaves_nothing_in_the_queue(
    prefect_server: PrefectServer, deployment: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    etl = flow_submitter(deployment)
    async with proxied(prefect_server) as proxy:
        await etl.submit_many([])
        proxy.judge = lambda request: "hang up" if is_create(request) else None
        with monkeypatch.context() as impatient:
            impatient.setattr("orchestrator.fanout.calls.PATIENCE", 0.0)
            with pytest.raises(ServerError, match=r"150 of 150 runs were not created, 0 were: .*does not answer"):
                await etl.submit_many([{"table": table} for table in range(150)])
        proxy.judge = lambda request: None
        await etl.submit(table=1000)

    assert server.tables(deployment) == [1000] and len(etl.run_ids) == 1


# --- a parent that begins again --------------------------------------------------------------------------


@dataclass
class Attempts:
    """What each attempt of a flow had: its submission's tag, and the runs by table."""

    tags: list[str | None]
    runs: list[dict[int, str]]


async def two_attempts(
    deployment: str,
    tables: tuple[list[int], list[int]],
    between: Callable[[dict[int, str]], None] = lambda runs: None,
    **options: Any,
) -> Attempts:
    """A flow that fails after it has submitted, and submits again when it is retried."""
    attempts = Attempts([], [])

    @flow(retries=1)
    async def parent() -> None:
        number = len(attempts.runs)
        etl = flow_submitter(deployment, **options)
        attempts.runs.append(dict(zip(tables[number], await gathered(etl, tables[number]), strict=True)))
        attempts.tags.append(etl.batch_tag)
        if number == 0:
            between(attempts.runs[0])
            raise ValueError("the first attempt fails")

    await parent()
    return attempts


async def test_the_second_attempt_finds_what_the_first_has_created(deployment: str, server: Server) -> None:
    attempts = await two_attempts(deployment, ([0, 1, 2], [4, 2, 1, 3, 0]))

    first, second = attempts.runs
    assert {table: second[table] for table in first} == first
    assert server.tables(deployment) == [0, 1, 2, 3, 4]
    assert attempts.tags[0] == attempts.tags[1]


@pytest.mark.parametrize(
    ("idempotency", "again"), [("adopt", {"CANCELLED"}), ("retry-failed", {"FAILED", "CRASHED", "CANCELLED"})]
)
async def test_of_ended_runs_only_those_that_are_asked_for_run_again(
    deployment: str, server: Server, idempotency: Any, again: set[str]
) -> None:
    ends = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

    def end_all(runs: dict[int, str]) -> None:
        for table, type_ in enumerate(ends):
            server.end(runs[table], type_)

    attempts = await two_attempts(deployment, ([0, 1, 2, 3], [0, 1, 2, 3]), end_all, idempotency=idempotency)
    assert attempts.runs[0] == attempts.runs[1]
    found = {type_: server.state(attempts.runs[0][table]) for table, type_ in enumerate(ends)}
    assert found == {type_: "SCHEDULED" if type_ in again else type_ for type_ in ends}


async def test_runs_are_made_anew_where_that_is_asked_for(deployment: str, server: Server) -> None:
    attempts = await two_attempts(deployment, ([0, 1], [0, 1]), idempotency="none")

    assert server.tables(deployment) == [0, 0, 1, 1]
    assert attempts.tags[0] != attempts.tags[1]


async def test_people_may_say_what_makes_an_item(deployment: str, server: Server) -> None:
    attempts: list[list[str]] = []

    @flow(retries=1)
    async def parent() -> None:
        etl = flow_submitter(deployment, idempotency=lambda given: given["day"].isoformat())
        days = [{"table": len(attempts), "day": date(2026, 1, day)} for day in (1, 2)]
        attempts.append(await etl.submit_many(days))
        if len(attempts) == 1:
            raise ValueError("the first attempt fails")

    await parent()
    assert attempts[0] == attempts[1]
    await parent()  # another run of the flow has runs of its own
    assert len(server.runs(deployment)) == 4


async def test_peoples_own_keys_hold_outside_of_flows(deployment: str, server: Server) -> None:
    async def load() -> list[str]:
        return await flow_submitter(deployment, idempotency=lambda given: str(given["table"])).map(table=range(3))

    assert await load() == await load()
    assert server.tables(deployment) == [0, 1, 2]


async def test_one_key_for_two_items_is_a_fault(deployment: str, server: Server) -> None:
    @flow
    async def parent() -> None:
        await flow_submitter(deployment, idempotency=lambda given: "all the same").map(table=range(2))

    with pytest.raises(ConfigurationError, match="Two items have the key 'all the same'"):
        await parent()
    assert server.runs(deployment) == []


async def test_equal_submissions_of_one_flow_have_runs_and_tags_of_their_own(deployment: str, server: Server) -> None:
    attempts: list[tuple[list[str], list[str], str | None, str | None]] = []

    @flow(retries=1)
    async def parent() -> None:
        one, two = flow_submitter(deployment), flow_submitter(deployment)
        attempts.append((await gathered(one, [1, 1]), await gathered(two, [1, 1]), one.batch_tag, two.batch_tag))
        if len(attempts) == 1:
            raise ValueError("the first attempt fails")

    await parent()
    first, second = attempts
    assert first == second and first[2] != first[3]
    assert len({*first[0], *first[1]}) == len(server.runs(deployment)) == 4


async def test_lone_submits_of_the_second_attempt_keep_their_own_links(deployment: str, server: Server) -> None:
    attempts: list[UUID] = []

    @flow(retries=1)
    async def parent() -> list[str]:
        etl = flow_submitter(deployment)
        attempts.append(get_run_context().flow_run.id)
        if len(attempts) == 1:
            await etl.submit(table=1)
            raise ValueError("the first attempt fails")
        return [await etl.submit(table=2), await etl.submit(table=1)]

    run_ids = await parent()
    assert server.children_in_graph(attempts[0]) == sorted(run_ids)


# --- tasks that submit -----------------------------------------------------------------------------------


async def test_tasks_find_their_runs_in_the_next_attempt_of_their_flow(deployment: str, server: Server) -> None:
    attempts: list[set[str]] = []

    @task
    async def refresh(table: int) -> str:
        return await trigger_subflow(deployment, {"table": table})

    @flow(retries=1)
    async def parent() -> None:
        attempts.append({await refresh(1), await refresh(1), *refresh.map(range(1, 4)).result()})
        if len(attempts) == 1:
            raise ValueError("the first attempt fails")

    await parent()
    assert attempts[0] == attempts[1]
    assert server.tables(deployment) == [1, 1, 1, 2, 3]


async def test_a_retried_task_finds_its_runs(deployment: str, server: Server) -> None:
    found: list[list[str]] = []

    @task(retries=1)
    async def refresh() -> None:
        found.append(await gathered(flow_submitter(deployment), [1, 1, 2]))
        if len(found) % 2:
            raise ValueError("the first attempt fails")

    @flow
    async def parent() -> None:
        await refresh()
        await refresh()

    await parent()
    assert found[0] == found[1] and found[2] == found[3]
    assert server.tables(deployment) == [1, 1, 1, 1, 2, 2]


async def test_a_task_that_fails_and_its_equals_beside_it_share_nothing(deployment: str, server: Server) -> None:
    failed: set[UUID] = set()
    found: dict[UUID, list[str]] = {}

    @task(retries=1)
    async def refresh() -> str:
        task_run_id = get_run_context().task_run.id
        found.setdefault(task_run_id, []).append(await trigger_subflow(deployment, {"table": 1}))
        if task_run_id not in failed:
            failed.add(task_run_id)
            raise ValueError("the first attempt fails")
        return found[task_run_id][-1]

    @flow
    def parent() -> list[str]:
        return [future.result() for future in [refresh.submit() for _ in range(4)]]

    run_ids = await asyncio.to_thread(parent)
    assert len(set(run_ids)) == 4 == len(server.runs(deployment))
    assert all(len(set(runs)) == 1 for runs in found.values())


async def test_runs_of_a_task_are_linked_to_its_flow(deployment: str, server: Server) -> None:
    @task
    async def refresh() -> list[str]:
        return await gathered(flow_submitter(deployment), range(3))

    @flow
    async def parent() -> tuple[UUID, list[str]]:
        return get_run_context().flow_run.id, await refresh()

    parent_id, run_ids = await parent()
    assert server.children_in_graph(parent_id) == sorted(run_ids)


# --- flows that a flow calls ------------------------------------------------------------------------------


async def test_flows_in_a_flow_find_their_runs_in_its_next_attempt(deployment: str, server: Server) -> None:
    attempts: list[list[list[str]]] = []

    @flow
    async def innermost() -> list[str]:
        return await gathered(flow_submitter(deployment), [1, 2])

    @flow
    async def inner(table: int) -> list[str]:
        return [*await gathered(flow_submitter(deployment), [table, 1]), *await innermost()]

    @flow(retries=1)
    async def outer() -> None:
        attempts.append([await inner(1), await inner(1), await inner(3)])
        if len(attempts) == 1:
            raise ValueError("the first attempt fails")

    await outer()
    assert attempts[0] == attempts[1]
    assert server.tables(deployment) == sorted([1, 1, 1, 2] * 2 + [3, 1, 1, 2])


async def test_runs_of_a_flow_in_a_flow_carry_the_tags_of_both(deployment: str, server: Server) -> None:
    @flow
    async def inner() -> UUID:
        await gathered(flow_submitter(deployment), [1, 2])
        return get_run_context().flow_run.id

    @task
    async def between() -> UUID:
        return await inner()

    @flow
    async def outer() -> list[UUID]:
        return [get_run_context().flow_run.id, await between()]

    run_ids = await outer()
    assert len(set(run_ids)) == 2
    for run in server.runs(deployment):
        assert {parent_tag(run_id) for run_id in run_ids} <= {*run["tags"]}


# --- a parent in another process -------------------------------------------------------------------------


def execute(prefect_server: PrefectServer, run_id: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a worker does with a flow run: a process of its own."""
    variables = {**prefect_server.environment, "PREFECT__FLOW_RUN_ID": run_id, **environment}
    command = [sys.executable, "-m", "prefect.engine"]
    return subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=False)


async def test_a_killed_parent_finds_its_runs_in_its_next_process(
    prefect_server: PrefectServer, api: Api, deploy: Deploy, deployment: str, server: Server
) -> None:
    parent = deploy(
        parameter_openapi_schema={},
        path=str(ROOT),
        entrypoint="tests/integration/fan_out_parents.py:killed_parent",
        parameters={"deployment": deployment, "tables": list(range(5)), "survives": 1},
    )
    run = api.post(f"/deployments/{api.deployment(parent)['id']}/create_flow_run")
    killed = await asyncio.to_thread(execute, prefect_server, run["id"])
    assert killed.returncode == -9, killed.stderr
    created = {row["id"] for row in server.runs(deployment)}
    assert server.tables(deployment) == [0, 1, 1, 1, 2, 3, 4]

    api.post(f"/flow_runs/{run['id']}/set_state", state={"type": "SCHEDULED", "name": "AwaitingRetry"}, force=True)
    done = await asyncio.to_thread(execute, prefect_server, run["id"], FAN_OUT_SURVIVES="1", PYTHONHASHSEED="1")
    assert server.state(run["id"]) == "COMPLETED", done.stderr
    assert {row["id"] for row in server.runs(deployment)} == created
    assert len(server.children_in_graph(UUID(run["id"]))) == len(created)


async def test_a_suspended_parent_finds_its_runs_when_it_is_resumed(
    api: Api, deploy: Deploy, deployment: str, server: Server
) -> None:
    attempts: list[str] = []

    @flow
    async def parent() -> bool | None:
        attempts.append(await trigger_subflow(deployment, {"table": 1}))
        if len(attempts) == 1:
            server.end(attempts[0], "CANCELLED")
            await suspend_flow_run()
        submitter = current_parent()
        return submitter and submitter.is_repeated

    run = await deployed_run(api, deploy(name="parent", parameter_openapi_schema={}))
    with pytest.raises(Pause):
        await run_flow_async(parent, flow_run=run)
    api.post(f"/flow_runs/{run.id}/resume")
    async with get_client() as client:
        resumed = await client.read_flow_run(run.id)
    assert await run_flow_async(parent, flow_run=resumed) is True
    assert attempts[0] == attempts[1] and server.state(attempts[0]) == "SCHEDULED"


# --- the sibling -----------------------------------------------------------------------------------------


async def deployed_run(api: Api, path: str) -> FlowRun:
    row = api.post(f"/deployments/{api.deployment(path)['id']}/create_flow_run")
    async with get_client() as client:
        return await client.read_flow_run(UUID(row["id"]))


async def sibling_of(api: Api, running: str, flow_name: str) -> str:
    """Which deployment of a flow is meant in a run of another deployment."""

    @flow(name=running.partition("/")[0])
    async def parent() -> str:
        async with open_calls() as calls:
            return (await find_target(calls, flow_name, current_parent())).path

    return await run_flow_async(parent, flow_run=await deployed_run(api, running))


@dataclass(frozen=True)
class Shop:
    """A project whose flows are deployed in two environments, and in development in two kinds."""

    deploy: Deploy
    api: Api
    name: str

    def add(self, flow_name: str, environment: str, kind: str, suffix: str = "") -> str:
        pool = self.api.ensure_pool(f"{self.name}-{environment}-{kind}")
        return self.deploy(
            flow_name,
            f"{kind}-{environment}{suffix}",
            tags=[f"orchestrator:{self.name}:{environment}"],
            work_pool_name=pool,
            parameter_openapi_schema={},
            job_variables={"image": "etl:1"} if kind == "docker" else {},
        )


@pytest.fixture
def shop(deploy: Deploy, api: Api) -> Shop:
    return Shop(deploy, api, unique("shop"))


async def test_the_sibling_is_of_the_running_ones_environment_and_kind(api: Api, shop: Shop) -> None:
    parents, children = unique("parent"), unique("child")
    places = [("development", "python"), ("development", "docker"), ("production", "python")]
    for environment, kind in places:
        child = shop.add(children, environment, kind)
        assert await sibling_of(api, shop.add(parents, environment, kind), children) in child
    found = [await sibling_of(api, f"{parents}/{kind}-{where}", children) for where, kind in places]
    assert found == [f"{children}/{kind}-{where}" for where, kind in places]


async def test_another_kind_is_taken_where_there_is_no_other_choice(api: Api, shop: Shop) -> None:
    parent = shop.add(unique("parent"), "development", "python")
    children = unique("child")
    shop.add(children, "production", "python")
    child = shop.add(children, "development", "docker")

    assert await sibling_of(api, parent, children) == child


async def test_the_sibling_is_never_of_another_environment(api: Api, shop: Shop) -> None:
    parent = shop.add(unique("parent"), "development", "python")
    child = shop.add(unique("child"), "production", "python")

    words = f"no deployment in {shop.name}, development; it has {re.escape(child)}"
    with pytest.raises(ServerError, match=words):
        await sibling_of(api, parent, child.partition("/")[0])


async def test_siblings_that_may_both_be_meant_are_named(api: Api, shop: Shop) -> None:
    parent = shop.add(unique("parent"), "development", "python")
    children = unique("child")
    one, two = (shop.add(children, "development", "python", suffix) for suffix in ("-a", "-b"))

    with pytest.raises(ServerError, match=f"Several deployments may be meant: {one}, {two}. Name one"):
        await sibling_of(api, parent, children)
    with pytest.raises(ServerError, match="Several deployments may be meant"):
        await trigger_subflow(children)


async def test_outside_of_a_run_a_flows_only_deployment_is_meant(deployment: str, server: Server) -> None:
    await trigger_subflow(deployment.partition("/")[0], {"table": 1})
    assert server.tables(deployment) == [1]
    with pytest.raises(ServerError, match="there is no flow 'no-flow-"):
        await trigger_subflow(unique("no-flow"))


@pytest.mark.parametrize("name", ["with space", "what?", "no #1", "ümlaut", "50:50"])
async def test_names_may_be_any_that_prefect_takes(deploy: Deploy, server: Server, name: str) -> None:
    path = deploy(f"{unique('fan-out')} {name}", name)
    etl = flow_submitter(path)
    await etl.submit(table=1)
    await etl.submit_many([{"table": 2}, {"table": 3}])

    assert server.tables(path) == [1, 2, 3] and etl.batch_tag


# --- links -----------------------------------------------------------------------------------------------


async def submitted_in_a_flow(deployment: str, count: int, **options: Any) -> tuple[UUID, list[str]]:
    @flow
    async def parent() -> tuple[UUID, list[str]]:
        etl = flow_submitter(deployment, **options)
        return get_run_context().flow_run.id, await gathered(etl, range(count))

    return await parent()


@pytest.mark.parametrize(
    ("count", "link", "linked"),
    [(4, "auto", True), (5, "auto", False), (5, True, True), (2, False, False), (1, False, False), (1, "auto", True)],
)
async def test_runs_are_linked_while_few_are_in_flight_or_as_one_says(
    deployment: str, server: Server, monkeypatch: pytest.MonkeyPatch, count: int, link: Any, linked: bool
) -> None:
    monkeypatch.setattr(creation, "MOST_LINKED", 4)
    parent_id, run_ids = await submitted_in_a_flow(deployment, count, link=link)

    assert server.children_in_graph(parent_id) == (sorted(run_ids) if linked else [])
    assert len(server.task_runs(parent_id)) == (count if linked else 0)
    tag = f"parent-run:{parent_id}"
    assert all(tag in run["tags"] for run in server.runs(deployment))


async def test_runs_in_flight_count_for_the_links_of_later_ones(
    deployment: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "MOST_LINKED", 4)

    @flow
    async def parent() -> tuple[UUID, list[str]]:
        etl = flow_submitter(deployment)
        linked = await gathered(etl, range(3))
        await gathered(etl, range(2))
        return get_run_context().flow_run.id, linked

    parent_id, linked = await parent()
    assert server.children_in_graph(parent_id) == sorted(linked)


async def test_a_second_attempt_links_no_run_twice(deployment: str, server: Server) -> None:
    parents: list[UUID] = []
    await two_attempts(
        deployment, ([0, 1, 2], [0, 1, 2, 3]), lambda runs: parents.append(FlowRunContext.get().flow_run.id)
    )

    assert server.children_in_graph(parents[0]) == sorted(run["id"] for run in server.runs(deployment))
    assert len(server.task_runs(parents[0])) == 4


async def test_outside_of_a_flow_nothing_is_linked(deployment: str, server: Server) -> None:
    await flow_submitter(deployment, link=True).submit_many([{"table": 1}, {"table": 2}])

    assert {run["parent_task_run_id"] for run in server.runs(deployment)} == {None}


# --- a window --------------------------------------------------------------------------------------------


def under_way(server: Server, path: str) -> list[str]:
    return [run["id"] for run in server.runs(path) if run["state_type"] == "SCHEDULED"]


async def test_a_window_is_never_exceeded_and_all_are_created(
    prefect_server: PrefectServer, deployment: str, server: Server
) -> None:
    async with proxied(prefect_server) as proxy:
        etl = flow_submitter(deployment, max_in_flight=3)
        submitting = asyncio.create_task(etl.submit_many([{"table": table} for table in range(12)]))
        most = 0
        while not submitting.done():
            waiting = await asyncio.to_thread(under_way, server, deployment)
            most = max(most, len(waiting))
            for run_id in waiting:
                await asyncio.to_thread(server.end, run_id, "COMPLETED")
        run_ids = await submitting
        assert most <= 3 and creates(proxy)["bulk"] <= 12

    assert server.tables(deployment) == list(range(12))
    assert {run["id"] for run in server.runs(deployment)} == set(run_ids)


async def test_cancelling_creates_nothing_of_what_waits_for_a_place(deployment: str, server: Server) -> None:
    etl = flow_submitter(deployment, max_in_flight=2)
    submitting = asyncio.create_task(etl.submit_many([{"table": table} for table in range(5)]))
    await until(lambda: len(etl.run_ids) == 2)
    await etl.cancel()

    with pytest.raises(OrchestratorError, match=r"3 of 5 runs were not created, 2 were: .* was cancelled"):
        await submitting
    assert {run["state_type"] for run in server.runs(deployment)} == {"CANCELLED"}
    assert len(server.runs(deployment)) == 2


async def test_who_gives_up_waiting_for_a_place_gets_no_run_later(deployment: str, server: Server) -> None:
    async with flow_submitter(deployment, max_in_flight=1) as etl:
        first = await etl.submit(table=1)
        waiting = asyncio.create_task(etl.submit(table=2))
        given_up = asyncio.create_task(etl.submit(table=3))
        await until(lambda: len(etl._feeder.queue) == 2)
        given_up.cancel()
        server.end(first, "COMPLETED")
        server.end(await waiting, "COMPLETED")

    assert server.tables(deployment) == [1, 2]


async def test_a_refusal_leaves_the_window_to_others(api: Api, deploy: Deploy) -> None:
    path = deploy(work_pool_name=api.ensure_pool(unique("pool"), template=TEMPLATE))
    etl = flow_submitter(path, max_in_flight=2, job_variables={"size": "large"})

    with pytest.raises(ServerError, match="5 of 5 runs were not created, 0 were"):
        await etl.submit_many([{"table": table} for table in range(5)])
    assert await etl.wait() == {}


async def test_a_block_that_is_left_while_runs_are_created_leaves_none_behind(
    prefect_server: PrefectServer, deployment: str, server: Server
) -> None:
    async with proxied(prefect_server) as proxy:
        submitting: asyncio.Task[list[str]] | None = None
        with pytest.raises(ValueError, match="something else"):
            async with flow_submitter(deployment) as etl:
                submitting = asyncio.create_task(etl.submit_many([{"table": table} for table in range(50)]))
                await until(lambda: creates(proxy), pause=0.001)
                raise ValueError("something else")
        await submitting
    states = Counter(run["state_type"] for run in server.runs(deployment))
    assert states == {"CANCELLED": 50}


# --- many ------------------------------------------------------------------------------------------------


async def test_several_runs_come_in_order_from_the_older_functions(deployment: str, server: Server) -> None:
    run_ids = await trigger_multiple_subflows(deployment, [{"table": 2}, {"table": 0}])

    tables = {run["id"]: run["parameters"]["table"] for run in server.runs(deployment)}
    assert [tables[run_id] for run_id in run_ids] == [2, 0]


async def test_lines_of_a_submission_say_how_many_were_there_before(
    deployment: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="prefect.flow_runs")
    attempts = await two_attempts(deployment, ([0, 1], [0, 1, 2]))

    tag = attempts.tags[0]
    assert f"[{deployment}] Submitted 2 runs, tag {tag}" in caplog.messages
    assert f"[{deployment}] Found 2 runs of an earlier attempt, tag {tag}" in caplog.messages
    assert any(message.endswith(f", tag {tag}") and "Submitted run " in message for message in caplog.messages)

"""Recorded applies on a real server: kept, listed, gone back to, and taken into the next environment."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shutil import copytree
from typing import Any

import anyio
import pytest
import yaml
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from orchestrator import live, pipeline
from orchestrator.apply import apply_plan
from orchestrator.builder import DeploymentBuilder
from orchestrator.cli import run_command
from orchestrator.errors import ConfigurationError, LockedError, RefusedError, ServerError, ServerUnreachable
from orchestrator.holds import held_back, hold_name, read_hold, release_hold, set_hold
from orchestrator.lock import environment_lock
from orchestrator.model import (
    ACTIONS,
    DeploymentConfig,
    Hold,
    Owner,
    Plan,
    Provenance,
    RecordedState,
    Revision,
    ScheduleConfig,
)
from orchestrator.options import Manner
from orchestrator.provenance import deployed_files, provenance
from orchestrator.recording import desired_digest
from orchestrator.revision_commands import history, promote, rollback
from orchestrator.revisions import BLOCK_TYPE, RevisionStore
from orchestrator.server import open_server
from orchestrator.terminal import EXIT_DEGRADED, OnServer
from orchestrator.terms import Terms
from tests.unit.builders import write_files

from .api import Api, unique
from .proxy import Judge, first, proxy_to

POOL = "revision-processes"
SECRET = "hunter2-in-a-parameter"
RESOURCE_NAME = "prefect.resource.name"


@pytest.fixture(scope="module")
def api(api: Api) -> Api:
    api.ensure_pool(POOL)
    return api


@pytest.fixture
def owner() -> Owner:
    return Owner(project=unique("shop"), environment="staging")


@asynccontextmanager
async def store_of(owner: Owner, api_url: str) -> Any:
    async with open_server(api_url) as server:
        yield RevisionStore(server, owner)


def state(owner: Owner, *deployments: DeploymentConfig, note: str = "", status: Any = "completed") -> RecordedState:
    revision = Revision(
        number=0,
        owner=owner,
        provenance=Provenance(commit="0123abcd" * 5, is_dirty=True, by="me@here", trigger="run", note=note),
        applied_at="2026-11-22T06:31:59+00:00",
        status=status,
        summary={**dict.fromkeys(ACTIONS, 0), "create": len(deployments)},
        desired_digest="abc",
    )
    return RecordedState(revision=revision, deployments=deployments)


def wanted(owner: Owner, number: int = 1) -> DeploymentConfig:
    """A deployment that says much, as a large one does."""
    words = hashlib.sha256(str(number).encode()).hexdigest()
    field = {"type": "integer", "default": number, "title": words[:9], "description": f"What {words[:6]} means to it."}
    return DeploymentConfig(
        flow_name=f"{owner.project}-{number}",
        deployment_name="daily",
        environment=owner.environment,
        deployment_type="docker",
        origin="template",
        source="prefect.yaml:3",
        entrypoint=f"flows/etl_{number}.py:etl",
        work_pool=POOL,
        parameters={"password": SECRET, "table": words},
        job_variables={"image": f"etl@sha256:{words}", "env": {"A": words}},
        pull_steps=({"prefect.deployments.steps.set_working_directory": {"directory": "/srv"}},),
        schedules=(ScheduleConfig(cron="0 4 * * *", slug="nightly", parameters={"n": number}),),
        tags=("etl", owner.tag),
        version=words[:12],
        description=f"Loads {words}.",
        parameter_schema={"type": "object", "properties": {f"p{each}": field for each in range(6)}},
        concealed=(SECRET,),
    )


def documents(api: Api, owner: Owner, **query: Any) -> list[dict[str, Any]]:
    """Those of one project; by name, because a page ends after 200 and all tests share one server."""
    ours = {"block_types": {"slug": {"any_": [BLOCK_TYPE]}}, "block_documents": {"name": {"like_": owner.project}}}
    rows = api.post("/block_documents/filter", **ours, **query)
    return [row for row in rows if row["data"]["project"] == owner.project]


# --- the store --------------------------------------------------------------------------------------------


async def test_nothing_is_recorded_at_first(api: Api, owner: Owner) -> None:
    async with store_of(owner, api.url) as store:
        assert (await store.latest(), await store.latest_revision(), await store.history()) == (None, None, ())
        with pytest.raises(ConfigurationError, match=f"no revision 1 of {owner.project}"):
            await store.read(1)
        assert await store.prune(20) == 0


async def test_what_is_recorded_comes_back_whole(api: Api, owner: Owner) -> None:
    async with store_of(owner, api.url) as store:
        before = state(owner, wanted(owner, 1), wanted(owner, 2), note="first", status="degraded")
        revision = await store.record(before)
        found = await store.latest()

        assert revision == replace(before.revision, number=1) == await store.latest_revision()
        assert found == RecordedState(revision=revision, deployments=before.deployments) == await store.read(1)
        for one, other in zip(found.deployments, before.deployments, strict=True):
            for name in ("environment", "deployment_type", "origin", "source", "concealed"):  # `==` passes over them
                assert getattr(one, name) == getattr(other, name)


async def test_many_are_listed_newest_first_and_the_oldest_are_dropped(api: Api, owner: Owner) -> None:
    async with store_of(owner, api.url) as store:
        for number in range(1, 31):
            await store.record(state(owner, wanted(owner, number), note=f"apply {number}"))
        revisions = await store.history()

        assert [revision.number for revision in revisions] == list(range(30, 0, -1))
        assert [revision.provenance.note for revision in revisions[:2]] == ["apply 30", "apply 29"]
        assert (await store.read(9)).deployments == (wanted(owner, 9),)
        assert await store.prune(20) == 10
        assert [revision.number for revision in await store.history()] == list(range(30, 10, -1))
        assert (await store.record(state(owner))).number == 31


async def test_secrets_are_sent_only_to_who_asks_for_them(api: Api, owner: Owner) -> None:
    async with store_of(owner, api.url) as store:
        await store.record(state(owner, wanted(owner)))

    (listed,) = documents(api, owner)
    assert listed["data"]["state"] == "********"
    assert SECRET not in json.dumps(listed)
    assert (listed["data"]["number"], listed["data"]["by"], listed["data"]["trigger"]) == (1, "me@here", "run")
    (asked,) = documents(api, owner, include_secrets=True)
    assert len(asked["data"]["state"]) > 100
    event = await created_event(api, listed["name"])
    assert event["payload"]["data"]["by"] == "me@here" and "state" not in event["payload"]["data"]


async def created_event(api: Api, name: str) -> dict[str, Any]:
    """What the server tells everybody about a new block; it does so a moment later."""
    of_name = {"event": {"name": ["prefect.block-document.created"]}, "resource": {"labels": {RESOURCE_NAME: [name]}}}
    async with asyncio.timeout(60):
        while True:
            events = api.post("/events/filter", filter=of_name)["events"]
            if events:
                return dict(events[0])
            await asyncio.sleep(0.2)


async def test_projects_and_environments_do_not_see_each_others(api: Api, owner: Owner) -> None:
    others = [replace(owner, environment="staging-eu"), replace(owner, project=f"{owner.project}-staging")]
    async with open_server(api.url) as server:
        for number, each in enumerate((owner, *others)):
            for _ in range(number + 1):
                await RevisionStore(server, each).record(state(each))
        assert [len(await RevisionStore(server, each).history()) for each in (owner, *others)] == [1, 2, 3]


async def test_applies_at_the_same_time_take_different_numbers(api: Api, owner: Owner) -> None:
    async with store_of(owner, api.url) as store, store_of(owner, api.url) as other:
        notes = [f"apply {number}" for number in range(6)]
        taken = await asyncio.gather(
            *((store, other)[index % 2].record(state(owner, note=note)) for index, note in enumerate(notes))
        )
        revisions = await store.history()
    assert sorted(revision.number for revision in taken) == [1, 2, 3, 4, 5, 6]
    assert sorted(revision.provenance.note for revision in revisions) == notes


async def test_a_record_whose_answer_was_lost_is_no_second_one(api: Api, owner: Owner) -> None:
    async with proxy_to(api.url) as proxy:
        proxy.judge = once_lost("/api/block_documents/")
        async with store_of(owner, proxy.api_url) as store:
            revision = await store.record(state(owner, wanted(owner)))
            found = await store.history()
    assert [request.path for request in proxy.seen].count("/api/block_documents/") == 2
    assert found == (revision,)


async def test_a_record_that_is_repeated_is_no_second_one(api: Api, owner: Owner) -> None:
    """As an apply does it: each request is tried once, and all of it again."""
    async with proxy_to(api.url) as proxy, store_of(owner, proxy.api_url) as store:
        proxy.judge = once_lost("/api/block_documents/")
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            with pytest.raises(ServerUnreachable):
                await store.record(state(owner, wanted(owner), note="mine"))
            async with store_of(owner, api.url) as other:
                await other.record(state(owner, note="somebody else's"))
            first_try = await store.record(state(owner, wanted(owner), note="mine"))
            second = await store.record(state(owner, wanted(owner), note="mine"))
        assert (first_try.number, second.number) == (1, 3)
        assert [revision.number for revision in await store.history()] == [3, 2, 1]


def once_lost(path: str) -> Judge:
    return first(1, "lose the answer", when=lambda request: request.path == path)


async def test_a_thousand_deployments_fit_and_do_not_burden_a_list(api: Api, owner: Owner) -> None:
    many = tuple(wanted(owner, number) for number in range(1000))
    async with store_of(owner, api.url) as store:
        await store.record(state(owner, *many))
        found = await store.latest()
    assert found is not None and found.deployments == many

    (asked,) = documents(api, owner, include_secrets=True)
    assert len(asked["data"]["state"]) < 600_000  # below what a proxy lets through; 200 bytes of each are random
    assert len(json.dumps(documents(api, owner))) < 10_000


async def test_the_last_apply_is_read_by_one_request_and_writes_nothing(api: Api, owner: Owner) -> None:
    async with store_of(owner, api.url) as store:
        await store.record(state(owner, wanted(owner)))
    async with proxy_to(api.url) as proxy, open_server(proxy.api_url) as server:
        store = RevisionStore(server, owner)
        await store.latest_revision()  # Prefect's client asks for a token first
        already = len(proxy.seen)
        await store.latest()
        assert [request.path for request in proxy.seen[already:]] == ["/api/block_documents/filter"]
        assert proxy.writes == []


async def test_a_record_that_somebody_changed_is_said_to_be_unreadable(api: Api, owner: Owner) -> None:
    async with store_of(owner, api.url) as store:
        await store.record(state(owner, wanted(owner)))
        (row,) = documents(api, owner)
        body = {"data": {**row["data"], "state": "nonsense"}, "merge_existing_data": False}
        api.patch(f"/block_documents/{row['id']}", **body, block_schema_id=row["block_schema_id"])
        with pytest.raises(ServerError, match="cannot be read") as caught:
            await store.latest()
        assert row["name"] in str(caught.value)
        assert [revision.number for revision in await store.history()] == [1]


# --- holding back -----------------------------------------------------------------------------------------


async def test_a_hold_is_set_replaced_and_lifted(api: Api, owner: Owner) -> None:
    hold = Hold(owner=owner, revision=3, desired_digest="abc", by="me@here", at="2026-11-22T06:31:59+00:00")
    other = replace(owner, environment="production")
    async with open_server(api.url) as server:
        assert await read_hold(server, owner) is None
        await set_hold(server, replace(hold, revision=2))
        await set_hold(server, hold)
        assert await read_hold(server, owner) == hold
        assert await read_hold(server, other) is None
        assert await release_hold(server, owner) is True
        assert await release_hold(server, owner) is False
        assert await read_hold(server, owner) is None


async def test_a_hold_is_lifted_by_the_first_sync_after_the_repository_moved_on(api: Api, owner: Owner) -> None:
    hold = Hold(owner=owner, revision=3, desired_digest="abc")
    async with open_server(api.url) as server:
        await set_hold(server, hold)
        assert await held_back(server, owner, "abc") == hold
        assert await held_back(server, owner, "def") is None
        assert await held_back(server, owner, "abc") is None


async def test_a_hold_that_somebody_rewrote_holds_nothing(api: Api, owner: Owner) -> None:
    api.post("/variables/", name=hold_name(owner), value="whatever")
    async with open_server(api.url) as server:
        assert await held_back(server, owner, "abc") is None
    assert api.post("/variables/filter", variables={"name": {"any_": [hold_name(owner)]}}) == []


# --- a repository, and what people do with it -------------------------------------------------------------

FLOW = """
    from prefect import flow

    @flow(name="{flow}")
    def etl(table: str = "a") -> str:
        return "{word}"
"""


@dataclass
class Shop:
    """A git repository with one flow, deployed to two environments of one server."""

    root: Path
    project: str
    flow: str
    api: Api

    def owner(self, env: str) -> Owner:
        return Owner(project=self.project, environment=env)

    def server(self, env: str) -> OnServer:
        return OnServer(root=self.root, env=env)

    def write(self, *, word: str = "one", env: str = "staging", **deployment: Any) -> None:
        """The repository, with what is said about the one deployment, and what the flow returns."""
        declared = {"name": "{name}", "entrypoint": "flows/etl.py:etl", **deployment}
        config = {"prefect_api_url": self.api.url, "work_pools": {"python": {"name": POOL, "type": "process"}}}
        own = {env: {**config, "select": [f"{self.flow}/{env}"]} for env in ("staging", "production")}
        own["production"]["default_parameters"] = {"table": "of production"}
        write_files(
            self.root,
            {
                "pyproject.toml": f'[tool.orchestrator]\nproject = "{self.project}"\n',
                "flows/etl.py": FLOW.format(flow=self.flow, word=word),
                "prefect.yaml": yaml.safe_dump(
                    {"deployments": [{**declared, "name": name} for name in ("staging", "production")]}
                ),
                **{f"environments/{name}.yaml": yaml.safe_dump(said) for name, said in own.items()},
            },
        )

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "x")
        return self.git("rev-parse", "HEAD")

    def applied(self, env: str = "staging") -> Revision:
        """Apply the repository, and record it."""
        return anyio.run(self._apply, env)

    async def plan(self, env: str = "staging") -> Plan:
        asked = pipeline.read_repository(self.root, env)
        return await live.plan_changes(asked.desired, asked.settings.environment.policy, api_url=self.api.url)

    async def _apply(self, env: str) -> Revision:
        asked = pipeline.read_repository(self.root, env)
        plan = await self.plan(env)
        terms = Terms(
            provenance=provenance(self.root, files=deployed_files(asked.settings, asked.discovery)),
            desired_digest=desired_digest(asked.desired, self.root),
            verifies=False,
        )
        result = await live.apply_changes(plan, api_url=self.api.url, terms=terms)
        assert result.revision is not None and not result.failed, result
        async with store_of(self.owner(env), self.api.url) as store:
            return (await store.read(result.revision)).revision

    def applied_unrecorded(self, env: str = "staging") -> None:
        """Apply the repository, and die before it is recorded."""

        async def apply() -> None:
            async with open_server(self.api.url) as server:
                assert not (await apply_plan(await self.plan(env), server)).failed

        anyio.run(apply)

    def add(self, env: str, text: str) -> None:
        """Say more in an environment's file."""
        file = self.root / "environments" / f"{env}.yaml"
        file.write_text(f"{file.read_text(encoding='utf-8')}{text}\n", encoding="utf-8")

    def declare_another(self) -> None:
        """A second deployment of the flow in staging."""
        file = self.root / "prefect.yaml"
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        document["deployments"].append({**document["deployments"][0], "name": "another"})
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        environment = self.root / "environments" / "staging.yaml"
        said = yaml.safe_load(environment.read_text(encoding="utf-8"))
        environment.write_text(
            yaml.safe_dump({**said, "select": [*said["select"], f"{self.flow}/another"]}), encoding="utf-8"
        )

    def digest(self, env: str = "staging") -> str:
        return desired_digest(pipeline.read_repository(self.root, env).desired, self.root)

    def deployment(self, env: str = "staging") -> dict[str, Any]:
        return self.api.deployment(f"{self.flow}/{env}")

    def history(self, env: str = "staging") -> tuple[Revision, ...]:
        async def read() -> tuple[Revision, ...]:
            async with store_of(self.owner(env), self.api.url) as store:
                return tuple(await store.history())

        return anyio.run(read)

    def held(self, env: str = "staging") -> Hold | None:
        """What a scheduled sync is told."""

        async def ask() -> Hold | None:
            async with open_server(self.api.url) as server:
                return await held_back(server, self.owner(env), self.digest(env))

        return anyio.run(ask)


@pytest.fixture(scope="module")
def flow_name() -> str:
    return unique("etl")


@pytest.fixture(scope="module")
def schema_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parameter schemas are the same in every test's repository: they are worked out once."""
    return tmp_path_factory.mktemp("schemas")


@pytest.fixture
def shop(
    api: Api, tmp_path: Path, flow_name: str, schema_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shop]:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "A")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@example.com")
    made = Shop((tmp_path / "checkout").resolve(), unique("shop"), flow_name, api)
    cache = made.root / ".orchestrator" / "cache"
    copytree(schema_cache, cache)
    made.git("init", "-q")
    yield made
    if cache.is_dir():
        copytree(cache, schema_cache, dirs_exist_ok=True)
    api.delete_deployments_of(made.flow)
    for env in ("staging", "production"):
        owned = {"tags": {"all_": [made.owner(env).tag]}}
        for row in api.post("/deployments/filter", deployments=owned):
            api.call("DELETE", f"/deployments/{row['id']}")


FIRST: dict[str, Any] = {
    "schedules": [{"cron": "0 4 * * *", "slug": "nightly"}],
    "parameters": {"table": "first"},
    "tags": ["old"],
    "description": "As it was.",
}
SECOND: dict[str, Any] = {
    "schedules": [{"cron": "0 9 * * *", "slug": "nightly"}, {"interval": 3600, "slug": "hourly"}],
    "parameters": {"table": "second"},
    "tags": ["new"],
    "description": "As it should not be.",
}
COMPARED = ("parameters", "tags", "description", "version", "pull_steps", "entrypoint", "job_variables", "paused")


def essence(row: dict[str, Any]) -> dict[str, Any]:
    schedules = [(item["slug"], item["schedule"]["cron"], item["active"]) for item in row["schedules"]]
    return {**{name: row[name] for name in COMPARED}, "schedules": schedules}


def test_going_back_restores_a_deployment_and_holds_sync_until_the_repository_moves_on(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.write(**FIRST)
    old = shop.commit()
    shop.applied()
    before = shop.deployment()
    shop.write(word="two", **SECOND)
    commit = shop.commit()
    assert shop.applied().number == 2
    own = shop.api.deployment("deploy-everything/staging")

    assert rollback(server=shop.server("staging"), yes=True) == 0
    told, after = capsys.readouterr().out, shop.deployment()
    assert essence(after) == essence(before)
    assert after["id"] == before["id"]
    assert shop.api.deployment("deploy-everything/staging") == own
    assert f"run in {shop.root} stays as it is: {shop.flow}/staging. Check out {old[:12]}" in told
    assert "Scheduled sync of staging waits" in told

    last = shop.history()[0]
    assert (last.number, last.provenance.trigger, last.provenance.note) == (3, "rollback", "rollback to 1")
    assert last.provenance.commit == old != commit
    hold = shop.held()
    assert hold is not None and hold.revision == 1
    shop.write(word="two", **{**SECOND, "description": "Better."})
    assert shop.held() is None
    shop.write(word="two", **SECOND)
    assert shop.held() is None  # it was lifted for good


def test_going_back_to_a_number_and_releasing(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("one", "two", "three"):
        shop.write(description=word)
        shop.applied()
    assert rollback(1, server=replace(shop.server("staging"), output="json"), yes=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["status"], said["summary"]["update"]) == ("completed", 1)
    assert (said["revision"], said["rolled_back_to"]) == (4, 1)
    assert shop.deployment()["description"] == "one"

    assert shop.held() is not None
    for released in (True, False):
        assert rollback(server=replace(shop.server("staging"), output="json"), release=True) == 0
        assert json.loads(capsys.readouterr().out) == {"released": released}
    assert shop.held() is None
    assert shop.deployment()["description"] == "one"


def test_going_back_to_what_there_is_writes_no_deployment_and_no_revision(shop: Shop) -> None:
    shop.write()
    shop.applied()
    before = shop.deployment()
    assert rollback(1, server=shop.server("staging"), yes=True) == 0
    assert shop.deployment() == before
    assert len(shop.history()) == 1
    assert shop.held() is not None


def test_what_a_person_paused_stays_paused(shop: Shop) -> None:
    shop.write(**FIRST)
    shop.applied()
    shop.write(**SECOND)
    shop.applied()
    shop.api.post(f"/deployments/{shop.deployment()['id']}/pause_deployment")

    assert rollback(server=shop.server("staging"), yes=True) == 0
    assert (shop.deployment()["paused"], shop.deployment()["description"]) == (True, "As it was.")


def test_a_repository_with_faults_keeps_nobody_from_going_back(shop: Shop) -> None:
    shop.write(**FIRST)
    shop.applied()
    shop.write(**SECOND)
    shop.applied()
    write_files(shop.root, {"prefect.yaml": "deployments: {"})

    assert rollback(server=shop.server("staging"), yes=True) == 0
    assert shop.deployment()["description"] == "As it was."
    shop.write(**SECOND)
    assert shop.held() is None  # mended: it asks for something else than nothing


def test_nobody_goes_back_without_being_asked_nor_to_nothing(shop: Shop) -> None:
    shop.write(**FIRST)
    with pytest.raises(ConfigurationError, match="none is recorded"):
        rollback(server=shop.server("staging"), yes=True)
    shop.applied()
    with pytest.raises(ConfigurationError, match="none before revision 1"):
        rollback(server=shop.server("staging"), yes=True)
    shop.write(**SECOND)
    shop.applied()
    before = shop.deployment()
    with pytest.raises(RefusedError, match="nobody can be asked"):
        rollback(server=shop.server("staging"))
    with pytest.raises(ConfigurationError, match="no revision 99"):
        rollback(99, server=shop.server("staging"), yes=True)
    assert shop.deployment() == before and shop.held() is None


def test_pools_and_limits_go_back_as_well(shop: Shop) -> None:
    tag = unique("database")
    shop.write()
    shop.add("staging", f"concurrency_limits: {{{tag}: 3}}")
    shop.applied()
    shop.write()
    shop.add("staging", f"concurrency_limits: {{{tag}: 7}}")
    shop.applied()
    assert shop.api.get(f"/concurrency_limits/tag/{tag}")["concurrency_limit"] == 7

    shop.api.post("/concurrency_limits/", tag=tag, concurrency_limit=9)  # somebody else wants it otherwise
    assert rollback(server=shop.server("staging"), yes=True) == 0
    assert shop.api.get(f"/concurrency_limits/tag/{tag}")["concurrency_limit"] == 3


def test_a_way_back_that_fails_as_a_whole_holds_nothing(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    pool = shop.api.ensure_pool(unique("short-lived"))
    shop.write(work_pool={"name": pool}, **FIRST)
    shop.applied()
    shop.write(**SECOND)
    shop.applied()
    shop.api.call("DELETE", f"/work_pools/{pool}")
    before = shop.deployment()

    back = partial(rollback, 1, server=shop.server("staging"), yes=True)
    assert back(manner=Manner(atomic=True)) == EXIT_DEGRADED
    assert "waits until" not in capsys.readouterr().out
    assert shop.held() is None and shop.deployment() == before

    assert back() == EXIT_DEGRADED  # without it what can be done is done, and stays
    assert "waits until" in " ".join(capsys.readouterr().out.split())
    assert shop.held() is not None


def test_an_apply_with_nothing_to_do_lifts_a_hold(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.write(**FIRST)
    shop.applied()
    shop.write(**SECOND)
    shop.applied()
    assert rollback(server=shop.server("staging"), yes=True) == 0
    shop.write(**FIRST)
    assert run_command(["apply", "--root", str(shop.root), "--env", "staging", "--yes"]) == 0
    assert "nothing to change" in capsys.readouterr().out

    async def read() -> Hold | None:
        async with open_server(shop.api.url) as server:
            return await read_hold(server, shop.owner("staging"))

    assert anyio.run(read) is None


def test_going_back_waits_for_nobody_where_it_is_told_so(shop: Shop) -> None:
    shop.write(**FIRST)
    shop.applied()
    shop.write(**SECOND)
    shop.applied()
    before = shop.deployment()

    async def go_back() -> None:
        async with open_server(shop.api.url) as server, environment_lock(server, shop.owner("staging"), "somebody"):
            back = partial(rollback, server=shop.server("staging"), yes=True, manner=Manner(wait=False))
            await anyio.to_thread.run_sync(back)

    with pytest.raises(LockedError, match="somebody"):
        anyio.run(go_back)
    assert shop.deployment() == before


def test_what_came_later_is_deleted_where_nothing_is_pruned(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.write()
    shop.add("staging", "policy: {prune: false}")
    shop.applied()
    shop.declare_another()
    shop.applied()
    assert set(shop.api.deployments_of(shop.flow)) == {"staging", "another"}

    assert rollback(server=replace(shop.server("staging"), output="json"), yes=True) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["delete"] == 1
    assert set(shop.api.deployments_of(shop.flow)) == {"staging"}
    assert shop.api.deployment("deploy-everything/staging")


def test_going_back_deletes_no_more_than_the_limit(shop: Shop) -> None:
    shop.write()
    shop.add("staging", "policy: {prune: false, delete_limit: 0, delete_share: 0}")
    shop.applied()
    shop.declare_another()
    shop.applied()
    with pytest.raises(RefusedError, match="would delete 1 of the 2"):
        rollback(server=shop.server("staging"), yes=True)
    assert shop.held() is None
    assert rollback(server=shop.server("staging"), yes=True, manner=Manner(allow_delete=True)) == 0
    assert set(shop.api.deployments_of(shop.flow)) == {"staging"}


def test_what_was_not_recorded_is_undone_first(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.write(description="one")
    shop.applied()
    shop.write(description="two")
    shop.applied()
    shop.write(description="three")
    shop.declare_another()
    shop.applied_unrecorded()
    assert len(shop.history()) == 2

    assert rollback(server=shop.server("staging"), yes=True) == 0
    assert "back to revision 2, the last one: the server is not as it says" in " ".join(capsys.readouterr().out.split())
    assert shop.deployment()["description"] == "two"
    assert set(shop.api.deployments_of(shop.flow)) == {"staging"}


def test_the_only_revision_is_gone_back_to_from_what_was_not_recorded(shop: Shop) -> None:
    shop.write(description="one")
    shop.applied()
    shop.write(description="two")
    shop.applied_unrecorded()
    assert rollback(server=shop.server("staging"), yes=True) == 0
    assert shop.deployment()["description"] == "one"


def test_a_deployer_that_is_gone_comes_back(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.write(description="one")
    shop.applied()
    shop.write(description="two")
    shop.applied()
    own = shop.api.deployment("deploy-everything/staging")
    shop.api.call("DELETE", f"/deployments/{own['id']}")

    assert rollback(server=shop.server("staging"), yes=True) == 0
    assert "back to revision 1, the one before" in " ".join(capsys.readouterr().out.split())
    assert shop.deployment()["description"] == "one"
    again = shop.api.deployment("deploy-everything/staging")
    assert (again["tags"], again["parameters"]) == (own["tags"], own["parameters"])


def test_a_deployer_that_was_renamed_does_not_come_back(shop: Shop) -> None:
    shop.write(description="one")
    shop.applied()
    old = shop.api.deployment("deploy-everything/staging")
    shop.write(description="two")
    shop.add("staging", f"deployer: {{name: {shop.project}}}")
    shop.applied()
    shop.api.call("DELETE", f"/deployments/{old['id']}")

    assert rollback(server=shop.server("staging"), yes=True) == 0
    assert {"staging", shop.project} & set(shop.api.deployments_of("deploy-everything")) == {shop.project}


def test_a_second_project_names_its_deployer_otherwise(shop: Shop, tmp_path: Path) -> None:
    shop.write()
    shop.applied()
    other = replace(shop, root=tmp_path / "other", project=unique("bank"), flow=unique("etl"))
    other.write()
    (conflict,) = [change for change in anyio.run(other.plan).changes if change.action == "conflict"]
    assert conflict.deployment == "deploy-everything/staging"
    assert "`deployer: {name: …}` in environments/staging.yaml" in conflict.reasons[0]

    other.add("staging", f"deployer: {{name: {other.project}}}")
    try:
        assert other.applied().status == "completed"
    finally:
        owned = {"tags": {"all_": [other.owner("staging").tag]}}
        for row in shop.api.post("/deployments/filter", deployments=owned):
            shop.api.call("DELETE", f"/deployments/{row['id']}")


def test_deleting_everything_leaves_the_deployer_unless_its_flow_is_named(shop: Shop) -> None:
    shop.write()
    shop.applied()
    builder = DeploymentBuilder(shop.root, api_url=shop.api.url)
    assert builder.cleanup_deployments(None, "staging").deleted == (f"{shop.flow}/staging",)
    assert builder.cleanup_deployments("deploy*", "staging").deleted == ()
    assert builder.cleanup_deployments("deploy-everything/*", "staging").deleted == ("deploy-everything/staging",)


def test_history_tells_who_when_and_what(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.write(**FIRST)
    commit = shop.commit()
    shop.applied()
    shop.write(**SECOND)
    shop.applied()

    assert history(server=shop.server("staging")) == 0
    newest, oldest = capsys.readouterr().out.splitlines()[1:3]
    assert newest.split()[:2] != oldest.split()[:2]
    assert f"{commit[:12]}*" in newest and f"{commit[:12]} " in oldest
    assert "+2 ~0 -0" in oldest and "+0 ~" in newest and "command line" in newest

    assert history(server=replace(shop.server("staging"), output="json"), limit=1) == 0
    said = json.loads(capsys.readouterr().out)
    (only,) = said["revisions"]
    assert (only["number"], only["commit"], only["is_dirty"], only["environment"]) == (2, commit, True, "staging")
    assert said["hold"] is None


def test_an_empty_history_says_so(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.write()
    assert history(server=shop.server("production")) == 0
    assert "nothing is recorded for production" in capsys.readouterr().out


# --- promotion --------------------------------------------------------------------------------------------


def promoted(shop: Shop, **options: Any) -> int:
    return promote(source="staging", server=shop.server("production"), yes=True, **options)


def test_the_commit_that_staging_runs_goes_to_production_with_its_own_configuration(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.write(word="one", description="First.", tags=["first"])
    commit = shop.commit()
    shop.applied()
    version = shop.deployment()["version"]
    shop.write(word="two", description="Second.", tags=["second"])
    shop.commit()
    write_files(shop.root, {"flows/new.py": "broken ("})

    assert promoted(shop) == 0
    row = shop.deployment("production")
    assert (row["description"], row["version"]) == ("First.", version)
    assert row["tags"] == ["first", f"orchestrator:{shop.project}:production"]
    assert row["parameters"] == {"table": "of production"}
    assert row["pull_steps"] == [{"prefect.deployments.steps.set_working_directory": {"directory": str(shop.root)}}]
    assert f"run in {shop.root} stays as it is" in capsys.readouterr().out
    assert shop.git("worktree", "list", "--porcelain").count("worktree ") == 1

    (only,) = shop.history("production")
    source = only.provenance
    assert (source.commit, source.is_dirty, source.trigger) == (commit, False, "promotion")
    assert source.note == "promoted from staging 1"


def test_at_that_commit_the_checkout_itself_is_read(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.write(description="First.")
    shop.commit()
    shop.applied()

    assert promoted(shop) == 0
    assert "not the code" not in capsys.readouterr().out
    assert shop.deployment("production")["description"] == "First."
    assert promoted(shop) == 0
    assert len(shop.history("production")) == 1  # nothing had changed


async def test_the_other_environment_may_be_on_another_server(shop: Shop) -> None:
    """A proxy stands for it: what is asked there, and what is not done there."""
    shop.write(description="First.")
    shop.commit()
    await asyncio.to_thread(shop.applied)
    async with proxy_to(shop.api.url) as proxy:
        elsewhere = yaml.safe_dump({"prefect_api_url": proxy.api_url})
        write_files(shop.root, {"environments/staging.yaml": elsewhere})
        assert await asyncio.to_thread(promoted, shop) == 0

    assert "/api/block_documents/filter" in {request.path for request in proxy.seen}
    assert proxy.writes == []
    assert shop.deployment("production")["description"] == "First."


def test_what_stands_for_no_commit_is_refused(shop: Shop) -> None:
    shop.write(description="First.")
    shop.commit()
    write_files(shop.root, {"plan.json": "{}"})  # beside what is deployed: it takes no part
    shop.applied()
    shop.write(description="Not committed.")
    shop.applied()
    with pytest.raises(RefusedError, match="differ from commit") as caught:
        promoted(shop)
    assert caught.value.exit_code == 5 and "Commit" in caught.value.remedy
    assert set(shop.api.deployments_of(shop.flow)) == {"staging"}

    assert promoted(shop, revision=1) == 0
    assert shop.deployment("production")["description"] == "First."

    commit = shop.commit()
    assert promoted(shop) == 0  # to apply that would change nothing, and so record nothing
    assert shop.deployment("production")["description"] == "Not committed."
    (last, *_) = shop.history("production")
    source = last.provenance
    assert (source.commit, source.is_dirty, source.note) == (commit, False, "promoted from staging 2")


def test_what_was_applied_without_git_is_refused(shop: Shop, tmp_path: Path) -> None:
    shop.write()
    shop.applied()  # no commit yet
    with pytest.raises(RefusedError, match="not applied from a git commit"):
        promoted(shop)


def test_what_was_never_applied_is_not_promoted(shop: Shop) -> None:
    shop.write()
    with pytest.raises(ConfigurationError, match="Nothing is recorded for staging"):
        promoted(shop)
    with pytest.raises(RefusedError, match="into itself"):
        promote(source="staging", server=shop.server("staging"), yes=True)


def test_a_promotion_lifts_a_hold(shop: Shop) -> None:
    shop.write(description="First.")
    shop.commit()
    shop.applied()
    shop.applied("production")
    assert rollback(1, server=shop.server("production"), yes=True) == 0
    assert shop.held("production") is not None
    assert promoted(shop) == 0
    assert shop.held("production") is None

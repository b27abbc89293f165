"""Plan and apply against a real server: what arrives, what is written, and what is left as people had it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from orchestrator import live
from orchestrator.apply import apply_plan
from orchestrator.bootstrap import ensure_resources
from orchestrator.cli import run_command
from orchestrator.config import Policy
from orchestrator.errors import ServerUnreachable
from orchestrator.model import (
    DeploymentConfig,
    DeploymentResult,
    Desired,
    LimitSpec,
    Owner,
    Plan,
    PoolSpec,
    Resources,
    ScheduleConfig,
)
from orchestrator.revisions import RevisionStore
from orchestrator.server import open_server
from orchestrator.terminal import EXIT_DEGRADED
from orchestrator.terms import Terms
from orchestrator.writers import Writers
from tests.unit.builders import write_files

from .api import Api, unique
from .conftest import free_port
from .gitops import (
    DOCKER_POOL,
    OTHER_POOL,
    POOL,
    PULL,
    SCHEMA,
    TWO,
    Repository,
    actions,
    every,
    full,
    statuses,
)
from .proxy import Fault, Request, after_writes, first, proxy_to

# --- creating --------------------------------------------------------------------------------------------


async def test_every_field_of_a_new_deployment_arrives(api: Api, repository: Repository) -> None:
    wanted = full(repository)
    await repository.deployed(wanted)

    row = api.deployment(repository.path())
    (schedule,) = row["schedules"]
    assert row["name"] == "daily"
    assert row["entrypoint"] == "flows/etl.py:etl"
    assert row["path"] == "/srv/code"
    assert (row["work_pool_name"], row["work_queue_name"]) == (POOL, "tables")
    assert row["parameters"] == wanted.parameters
    assert row["job_variables"] == wanted.job_variables
    assert row["pull_steps"] == list(wanted.pull_steps)
    assert row["paused"] is True
    assert row["tags"] == ["zebra", "etl", "alpha", repository.owner.tag]
    assert (row["description"], row["version"]) == (wanted.description, "2026.1")
    assert row["global_concurrency_limit"]["limit"] == 3
    assert row["concurrency_options"] == wanted.concurrency_options
    assert row["enforce_parameter_schema"] is False
    assert row["parameter_openapi_schema"] == SCHEMA
    assert schedule["schedule"] == {"cron": "0 4 * * *", "timezone": "Europe/Vienna", "day_or": True}
    assert (schedule["slug"], schedule["active"], schedule["parameters"]) == ("nightly", True, {"tables": 1})


async def test_labels_tell_where_a_new_deployment_comes_from(api: Api, repository: Repository) -> None:
    await repository.deployed(repository.wants(source="etl/prefect.yaml:12"))

    labels = api.deployment(repository.path())["labels"]
    assert labels["orchestrator.project"] == repository.owner.project
    assert labels["orchestrator.environment"] == "development"
    assert labels["orchestrator.source"] == "etl/prefect.yaml:12"


async def test_a_schedule_that_is_off_from_the_start_arrives_switched_off(api: Api, repository: Repository) -> None:
    await repository.deployed(repository.wants(schedules=(every(cron="0 4 * * *", active=False),)))

    assert [item["active"] for item in api.deployment(repository.path())["schedules"]] == [False]


SCHEDULES = {
    "cron": [{"cron": "0 4 * * *"}],
    "cron with everything": [
        {"cron": "0 4 1 * 1", "slug": "s", "timezone": "America/New_York", "day_or": False, "parameters": {"a": [1]}}
    ],
    "cron by name": [{"cron": "@daily"}],
    "interval": [{"interval": 900}],
    "interval below a second": [{"interval": 0.25}],
    "interval as text": [{"interval": "PT1H30M", "slug": "often"}],
    "interval with timezone": [{"interval": 86400, "timezone": "Europe/Vienna"}],
    "interval with anchor": [{"interval": 3600, "anchor_date": "2026-01-01T00:00:00Z"}],
    "anchor without offset": [{"interval": 3600, "anchor_date": "2026-01-01T06:30:00"}],
    "anchor with an offset": [{"interval": 3600, "anchor_date": "2026-01-01T00:00:00+02:00"}],
    "anchor with fractions": [{"interval": 3600, "anchor_date": "2026-01-01T00:00:00.500000Z"}],
    "anchor as a date": [{"interval": 3600, "anchor_date": "2026-01-01", "timezone": "Europe/Vienna"}],
    "rrule": [{"rrule": "FREQ=WEEKLY;BYDAY=MO,WE;COUNT=300"}],
    "rrule of every minute": [{"rrule": "FREQ=MINUTELY;INTERVAL=7"}],
    "rrule with its name": [{"rrule": "RRULE:FREQ=MONTHLY;BYMONTHDAY=-1"}],
    "rrule with start": [{"rrule": "DTSTART:20260101T090000\nRRULE:FREQ=DAILY", "timezone": "Asia/Tokyo"}],
    "switched off": [{"cron": "0 1 * * *", "slug": "a", "active": False}, {"interval": 60, "active": False}],
    "many without slugs": [{"cron": "0 1 * * *"}, {"cron": "0 2 * * *"}, {"interval": 60}, {"rrule": "FREQ=DAILY"}],
    "one rule twice": [{"cron": "0 1 * * *", "parameters": {"a": 1}}, {"cron": "0 1 * * *", "parameters": {"a": 2}}],
    "some with slugs": [{"cron": "0 1 * * *"}, {"cron": "0 2 * * *", "slug": "b"}, {"cron": "0 3 * * *", "slug": "a"}],
}
ROUND_TRIPS: dict[str, dict[str, Any]] = {
    "nothing but the least": {},
    "paused": {"paused": True},
    "tags in order": {"tags": ("zebra", "alpha", "Ünïcode", "with space", "a:b")},
    "description of two lines": {"description": "One.\n\n- two  \n"},
    "no description": {"description": ""},
    "no version": {"version": ""},
    "no pool": {"work_pool": None, "work_queue": None},
    "no pull steps": {"pull_steps": ()},
    "another queue": {"work_queue": "tables"},
    "a queue not seen before": {"work_queue": "never seen"},
    "parameters of all types": {
        "parameters": {"a": 1, "b": 1.5, "c": None, "d": [1, {"e": False}], "f": {}, "g": "", "ü": "{{ x }}", "h": 1e30}
    },
    "a whole number as a float": {"parameters": {"a": 1.0, "b": 0.1}},
    "nested job variables": {"job_variables": {"env": {"A": "1", "N": None}, "limits": {"a": {"b": [1, {"c": None}]}}}},
    "template in job variables": {"job_variables": {"env": {"TOKEN": "{{ ctx.flow.name }}"}}},
    "pull steps with templates": {
        "pull_steps": (
            {"prefect.deployments.steps.git_clone": {"id": "clone", "repository": "https://x/y", "branch": None}},
            {"prefect.deployments.steps.set_working_directory": {"directory": "{{ clone.directory }}"}},
        )
    },
    "a parameter schema": {"parameter_schema": SCHEMA, "parameters": {"tables": 4}},
    "schema not enforced": {"parameter_schema": SCHEMA, "parameters": {"a": 4}, "enforce_parameter_schema": False},
    "a limit": {"concurrency_limit": 2},
    "a limit with strategy": {"concurrency_limit": 2, "concurrency_options": {"collision_strategy": "ENQUEUE"}},
    "a limit with grace": {
        "concurrency_limit": 1,
        "concurrency_options": {"collision_strategy": "CANCEL_NEW", "grace_period_seconds": 600},
    },
    "a module as entrypoint": {"entrypoint": "shop.etl.main"},
    # Paused: the server need not make runs for every quarter of a second.
    **{
        name: {"paused": True, "schedules": tuple(every(**rule) for rule in rules)} for name, rules in SCHEDULES.items()
    },
}


@pytest.mark.parametrize("case", ROUND_TRIPS)
async def test_what_was_applied_reads_as_unchanged(repository: Repository, case: str) -> None:
    wanted = repository.wants(**ROUND_TRIPS[case])
    await repository.deployed(wanted)

    (change,) = (await repository.plan(wanted)).changes
    assert change.fields == ()
    assert (change.action, change.kept) == ("unchanged", ())


async def test_a_docker_deployment_reads_as_unchanged(api: Api, repository: Repository) -> None:
    async with open_server(api.url) as server:
        await ensure_resources(server, Resources(pools=(PoolSpec(name=DOCKER_POOL, type="docker"),)))
    wanted = repository.wants(
        deployment_type="docker",
        work_pool=DOCKER_POOL,
        job_variables={
            "image": "registry.local/shop/etl:1",
            "image_pull_policy": "IfNotPresent",
            "mem_limit": "512m",
            "container_create_kwargs": {"nano_cpus": 500_000_000},
            "env": {"A": "1"},
            "volumes": ["/data:/data:ro"],
        },
    )
    await repository.deployed(wanted)

    (change,) = (await repository.plan(wanted)).changes
    assert (change.action, change.fields) == ("unchanged", ())


DECLARED = """
    deployments:
      - name: daily
        entrypoint: flows/etl.py:etl
        schedules:
          - cron: "{cron}"
"""
ALSO_DECLARED = """
      - name: weekly
        entrypoint: flows/etl.py:etl
"""


def test_a_declaration_with_a_fault_is_left_alone_and_the_others_go_on(
    capsys: pytest.CaptureFixture[str], api: Api, repository: Repository, tmp_path: Path
) -> None:
    pools = f"work_pools: {{python: {{name: {POOL}, type: process}}}}"
    files = {
        "pyproject.toml": f'[tool.orchestrator]\nproject = "{repository.owner.project}"\n',
        "environments/development.yaml": f"prefect_api_url: {api.url}\n{pools}\nselect: ['{repository.flow}/*']\n",
        "flows/etl.py": f'from prefect import flow\n@flow(name="{repository.flow}")\ndef etl(): ...\n',
        "prefect.yaml": DECLARED.format(cron="0 6 * * *"),
    }
    only = ["--root", str(write_files(tmp_path, files)), "--only", f"{repository.flow}/*"]
    assert run_command(["apply", "--yes", *only]) == 0
    before = api.deployment(repository.path())

    write_files(tmp_path, {"prefect.yaml": DECLARED.format(cron="0 61 * * *") + ALSO_DECLARED})
    assert run_command(["apply", "--yes", *only]) == EXIT_DEGRADED
    assert "prefect.yaml:5" in capsys.readouterr().out
    assert api.deployment(repository.path())["updated"] == before["updated"]
    assert set(api.deployments_of(repository.flow)) == {"daily", "weekly"}


WITH_DATES = """
    deployments:
      - name: daily
        entrypoint: flows/etl.py:etl
        parameters:
          day: 2024-02-01
          at: 2024-02-01 05:00:00+00:00
          window: {start: 2024-01-01, ends: [2024-01-02 05:00:00, 2024-01-03T00:00:00Z]}
        schedules:
          - cron: "0 6 * * *"
            parameters: {day: 2024-02-02}
      - name: weekly
        entrypoint: flows/etl.py:etl
        parameters: {day: 2024-02-03, at: 2024-02-01T05:00:00Z, window: {}}
        work_pool: {job_variables: {env: {SINCE: 2024-01-01}}}
"""
TAKES_DATES = """
    from datetime import date, datetime
    from prefect import flow

    @flow(name="{name}")
    def etl(day: date, at: datetime, window: dict): ...
"""


def test_dates_of_a_declaration_arrive_as_text_and_differ_no_more(
    capsys: pytest.CaptureFixture[str], api: Api, repository: Repository, tmp_path: Path
) -> None:
    pools = f"work_pools: {{python: {{name: {POOL}, type: process}}}}"
    files = {
        "pyproject.toml": f'[tool.orchestrator]\nproject = "{repository.owner.project}"\n',
        "environments/development.yaml": f"prefect_api_url: {api.url}\n{pools}\nselect: ['{repository.flow}/*']\n",
        "flows/etl.py": TAKES_DATES.format(name=repository.flow),
        "prefect.yaml": WITH_DATES,
    }
    only = ["--root", str(write_files(tmp_path, files)), "--only", f"{repository.flow}/*"]
    assert run_command(["apply", "--yes", *only]) == 0, capsys.readouterr()

    row = api.deployment(repository.path())
    assert row["parameters"] == {
        "day": "2024-02-01",
        "at": "2024-02-01T05:00:00Z",
        "window": {"start": "2024-01-01", "ends": ["2024-01-02T05:00:00", "2024-01-03T00:00:00Z"]},
    }
    assert row["schedules"][0]["parameters"] == {"day": "2024-02-02"}
    assert api.deployment(repository.path("weekly"))["job_variables"] == {"env": {"SINCE": "2024-01-01"}}
    assert run_command(["plan", "--detailed-exitcode", *only]) == 0, capsys.readouterr()


async def test_what_cannot_be_sent_fails_alone(repository: Repository) -> None:
    odd = [repository.wants(name, parameters={"x": value}) for name, value in (("b", object()), ("c", float("nan")))]
    result = await repository.apply(repository.wants("a"), *odd, repository.wants("d"))

    assert statuses(result) == {"a": "applied", "b": "failed", "c": "failed", "d": "applied"}
    assert "cannot be sent as JSON" in (result.failed[0].error or "")


# --- updating --------------------------------------------------------------------------------------------

CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # what is changed in the deployment → what of the server's row changes, besides `updated`
    "description": ({"description": "New."}, {"description": "New."}),
    "no description": ({"description": ""}, {"description": ""}),
    "version": ({"version": "2"}, {"version": "2"}),
    "tags": ({"tags": ("one",)}, {"tags": ["one", "OWNER"]}),
    "no tags": ({"tags": ()}, {"tags": ["OWNER"]}),
    "parameters": ({"parameters": {"tables": 5}}, {"parameters": {"tables": 5}}),
    "no parameters": ({"parameters": {}}, {"parameters": {}}),
    "job variables": ({"job_variables": {"env": {"A": "2"}}}, {"job_variables": {"env": {"A": "2"}}}),
    "no job variables": ({"job_variables": {}}, {"job_variables": {}}),
    "pull steps": ({"pull_steps": PULL}, {"pull_steps": list(PULL)}),
    "no pull steps": ({"pull_steps": ()}, {"pull_steps": []}),
    "entrypoint": ({"entrypoint": "a.py:b"}, {"entrypoint": "a.py:b"}),
    "path": ({"path": "/elsewhere"}, {"path": "/elsewhere"}),
    "no path": ({"path": None}, {"path": None}),
    "schema": ({"parameter_schema": {"type": "object"}}, {"parameter_openapi_schema": {"type": "object"}}),
    "no schema": ({"parameter_schema": {}}, {"parameter_openapi_schema": {"type": "object", "properties": {}}}),
    "schema enforced": ({"enforce_parameter_schema": True}, {"enforce_parameter_schema": True}),
    "concurrency options": (
        {"concurrency_options": {"collision_strategy": "ENQUEUE"}},
        {"concurrency_options": {"collision_strategy": "ENQUEUE", "grace_period_seconds": None}},
    ),
    "no concurrency options": ({"concurrency_options": {}}, {"concurrency_options": None}),
    "limit": ({"concurrency_limit": 7}, {"limit": 7}),
    "no limit": ({"concurrency_limit": None}, {"limit": None}),
    "queue": ({"work_queue": "default"}, {"work_queue_name": "default"}),
    "pool": ({"work_pool": OTHER_POOL}, {"work_pool_name": OTHER_POOL}),
    "no pool": ({"work_pool": None, "work_queue": None}, {"work_pool_name": None, "work_queue_name": None}),
}


def visible(row: dict[str, Any]) -> dict[str, Any]:
    """A deployment's row without times, and without the ids of what was asked for by name."""
    passing = {"updated", "work_queue_id", "global_concurrency_limit", "status", "last_polled"}
    limit = (row["global_concurrency_limit"] or {}).get("limit")
    return {"limit": limit, **{name: value for name, value in row.items() if name not in passing}}


@pytest.mark.parametrize("case", CHANGES)
async def test_an_update_changes_what_differs_and_nothing_else(api: Api, repository: Repository, case: str) -> None:
    fields, differences = CHANGES[case]
    before = replace(full(repository), paused=False)
    await repository.deployed(before)
    old = visible(api.deployment(repository.path()))
    if "tags" in fields:
        fields = {"tags": (*fields["tags"], repository.owner.tag)}
        differences = {"tags": list(fields["tags"])}
    wanted = replace(before, **fields)

    await repository.deployed(wanted)
    new = visible(api.deployment(repository.path()))
    assert {name: value for name, value in new.items() if value != old[name]} == differences
    assert actions(await repository.plan(wanted)) == {"daily": "unchanged"}


async def test_a_limit_given_later_is_set(api: Api, repository: Repository) -> None:
    await repository.deployed(repository.wants())
    await repository.deployed(repository.wants(concurrency_limit=4))

    assert api.deployment(repository.path())["global_concurrency_limit"]["limit"] == 4


async def test_only_the_deployment_that_differs_is_touched(api: Api, repository: Repository) -> None:
    names = ("a", "b", "c")
    await repository.deployed(*(repository.wants(name) for name in names))
    old = api.deployments_of(repository.flow)

    await repository.deployed(*(repository.wants(name, description="x" if name == "b" else "") for name in names))
    new = api.deployments_of(repository.flow)
    assert [name for name in names if new[name] != old[name]] == ["b"]


async def test_a_pause_asked_for_pauses(api: Api, repository: Repository) -> None:
    await repository.deployed(repository.wants())
    await repository.deployed(repository.wants(paused=True))

    assert api.deployment(repository.path())["paused"] is True


# --- what people and the scheduler did -------------------------------------------------------------------

NO_SLUGS = (every(cron="0 1 * * *"), every(interval=7200))


async def test_a_paused_deployment_stays_paused_through_an_update(api: Api, repository: Repository) -> None:
    await repository.deployed(repository.wants())
    api.post(f"/deployments/{api.deployment(repository.path())['id']}/pause_deployment")

    wanted = repository.wants(description="new", parameters={"a": 1}, tags=("x",))
    (change,) = (await repository.plan(wanted)).changes
    await repository.deployed(wanted)
    assert change.kept == ("paused: somebody paused it",)
    assert api.deployment(repository.path())["paused"] is True


@pytest.mark.parametrize("schedules", [TWO, NO_SLUGS], ids=["slugs", "no slugs"])
async def test_a_schedule_switched_off_stays_off_through_every_update(
    api: Api, repository: Repository, schedules: tuple[ScheduleConfig, ...]
) -> None:
    await repository.deployed(repository.wants(schedules=schedules))
    row = api.deployment(repository.path())
    off = next(item["id"] for item in row["schedules"] if item["schedule"].get("cron") == "0 1 * * *")
    api.patch(f"/deployments/{row['id']}/schedules/{off}", active=False)

    changed = (replace(schedules[0], parameters={"a": 1}), schedules[1])
    await repository.deployed(repository.wants(schedules=changed, description="new"))
    active = {item["id"]: item["active"] for item in api.deployment(repository.path())["schedules"]}
    assert active == {item["id"]: item["id"] != off for item in row["schedules"]}


@pytest.mark.parametrize("schedules", [TWO, NO_SLUGS], ids=["slugs", "no slugs"])
async def test_an_update_leaves_schedules_and_their_coming_runs(
    api: Api, repository: Repository, schedules: tuple[ScheduleConfig, ...]
) -> None:
    await repository.deployed(repository.wants(schedules=schedules))
    row = api.deployment(repository.path())
    api.schedule_runs(row["id"])
    times = [run["expected_start_time"] for run in api.scheduled_runs(row["id"])]

    await repository.deployed(repository.wants(schedules=schedules, description="new", parameters={"a": 1}))
    runs = api.scheduled_runs(row["id"])
    assert api.deployment(repository.path())["schedules"] == row["schedules"]
    assert times and [run["expected_start_time"] for run in runs] == times
    assert {str(run["parameters"]) for run in runs} == {"{'a': 1}"}


async def test_an_update_schedules_nothing_for_what_is_paused_or_switched_off(api: Api, repository: Repository) -> None:
    off = (replace(TWO[0], active=False),)
    await repository.deployed(repository.wants("off", schedules=off), repository.wants("paused", schedules=TWO))
    rows = api.deployments_of(repository.flow)
    api.post(f"/deployments/{rows['paused']['id']}/pause_deployment")

    await repository.deployed(
        repository.wants("off", schedules=off, description="new"),
        repository.wants("paused", schedules=TWO, description="new"),
    )
    assert [api.scheduled_runs(row["id"]) for row in rows.values()] == [[], []]


async def test_a_changed_schedule_leaves_the_other_one_its_id_and_runs(api: Api, repository: Repository) -> None:
    await repository.deployed(repository.wants(schedules=TWO))
    row = api.deployment(repository.path())
    api.schedule_runs(row["id"])
    early = [run["expected_start_time"] for run in api.scheduled_runs(row["id"]) if is_at(run, 1)]

    await repository.deployed(repository.wants(schedules=(TWO[0], replace(TWO[1], cron="30 5 * * *"))))
    runs = api.scheduled_runs(row["id"])
    assert early and [run["expected_start_time"] for run in runs if is_at(run, 1)] == early
    assert [run for run in runs if is_at(run, 5)] and not [run for run in runs if is_at(run, 2)]
    new = {item["slug"]: item for item in api.deployment(repository.path())["schedules"]}
    old = {item["slug"]: item for item in row["schedules"]}
    assert new["early"] == old["early"]
    assert (new["late"]["id"], new["late"]["schedule"]["cron"]) == (old["late"]["id"], "30 5 * * *")


async def test_schedules_come_and_go_and_the_one_that_stays_keeps_its_id(api: Api, repository: Repository) -> None:
    await repository.deployed(repository.wants(schedules=TWO))
    kept = schedule_ids(api, repository)["early"]

    wanted = repository.wants(schedules=(TWO[0], every(interval=600, slug="often"), every(rrule="FREQ=DAILY")))
    await repository.deployed(wanted)
    ids = schedule_ids(api, repository)
    assert set(ids) == {"early", "often", None}
    assert ids["early"] == kept
    assert actions(await repository.plan(wanted)) == {"daily": "unchanged"}


async def test_coming_runs_of_a_schedule_survive_the_removal_of_another(api: Api, repository: Repository) -> None:
    await repository.deployed(repository.wants(schedules=TWO))
    id_ = api.deployment(repository.path())["id"]
    api.schedule_runs(id_)
    early = [run["expected_start_time"] for run in api.scheduled_runs(id_) if is_at(run, 1)]

    await repository.deployed(repository.wants(schedules=TWO[:1]))
    assert early and [run["expected_start_time"] for run in api.scheduled_runs(id_)] == early


async def test_a_new_schedule_has_runs_at_once(api: Api, repository: Repository) -> None:
    await repository.deployed(repository.wants())
    await repository.deployed(repository.wants(schedules=TWO))

    assert api.scheduled_runs(api.deployment(repository.path())["id"])


async def test_all_schedules_can_be_removed(api: Api, repository: Repository) -> None:
    await repository.deployed(repository.wants(schedules=(*TWO, *NO_SLUGS)))
    id_ = api.deployment(repository.path())["id"]
    api.schedule_runs(id_)

    await repository.deployed(repository.wants())
    assert api.deployment(repository.path())["schedules"] == []
    assert api.scheduled_runs(id_) == []


async def test_an_interval_keeps_its_rhythm_when_its_parameters_change(api: Api, repository: Repository) -> None:
    hourly = every(interval=3600, slug="hourly")
    await repository.deployed(repository.wants(schedules=(hourly,)))
    (old,) = api.deployment(repository.path())["schedules"]

    await repository.deployed(repository.wants(schedules=(replace(hourly, parameters={"a": 1}),)))
    (new,) = api.deployment(repository.path())["schedules"]
    assert new["parameters"] == {"a": 1}
    assert new["schedule"] == old["schedule"]


async def test_a_schedule_may_change_from_one_kind_of_rule_to_another(api: Api, repository: Repository) -> None:
    for rule in ({"cron": "0 4 * * *", "timezone": "Europe/Vienna"}, {"interval": 60}, {"rrule": "FREQ=DAILY"}):
        wanted = repository.wants(schedules=(every(slug="s", **rule),))
        await repository.deployed(wanted)
        assert actions(await repository.plan(wanted)) == {"daily": "unchanged"}

    (schedule,) = api.deployment(repository.path())["schedules"]
    assert schedule["schedule"] == {"rrule": "DTSTART:20200101T000000\nFREQ=DAILY", "timezone": "UTC"}


def is_at(run: dict[str, Any], hour: int) -> bool:
    return f"T{hour:02}:" in run["expected_start_time"]


def schedule_ids(api: Api, repository: Repository) -> dict[str | None, str]:
    return {item["slug"]: item["id"] for item in api.deployment(repository.path())["schedules"]}


# --- nothing to do, and much ------------------------------------------------------------------------------


async def test_nothing_changed_is_nothing_written(api: Api, repository: Repository) -> None:
    wanted = [full(repository), *(repository.wants(f"d{number}", schedules=TWO) for number in range(4))]
    await repository.deployed(*wanted)
    before = api.deployments_of(repository.flow)

    async with proxy_to(api.url) as proxy:
        result = await repository.through(proxy.api_url).apply(*wanted)
        assert proxy.writes == []
    assert result.status == "no-changes"
    assert api.deployments_of(repository.flow) == before


async def test_more_deployments_than_a_page_holds_are_all_seen(api: Api, repository: Repository) -> None:
    many = [repository.path(f"table-{number:03}") for number in range(250)]
    for path in many:
        api.deploy(path, tags=[repository.owner.tag])
    total = api.post("/deployments/count") + api.post("/flows/count")
    async with proxy_to(api.url) as proxy:
        plan = await repository.through(proxy.api_url).plan()
        assert len(proxy.seen) <= total // 200 + 1 + 10

    assert [change.deployment for change in plan.changes if change.action == "delete"] == many


async def test_deployments_of_some_flows_are_read_alone(api: Api, repository: Repository) -> None:
    await repository.deployed(repository.wants("a"), repository.wants("b"), other_flow(repository))
    async with proxy_to(api.url) as proxy, open_server(proxy.api_url) as server:
        found = await server.read_deployments([repository.flow])
        assert [item.config.deployment_path for item in found] == [repository.path("a"), repository.path("b")]
        assert len([request for request in proxy.seen if request.path.endswith("/filter")]) == 2
        everything = await server.read_deployments()
        assert {item.id for item in found} < {item.id for item in everything}
        assert await server.read_deployments([f"{repository.flow}-{number}" for number in range(201)]) == everything


async def test_a_change_among_many_reads_the_others_once(api: Api, repository: Repository) -> None:
    """Nobody has applied between plan and lock: what was unchanged is so."""
    other = other_flow(repository)
    await repository.deployed(repository.wants(), other)
    plan = await repository.plan(repository.wants(description="new"), other)
    api.patch(f"/deployments/{api.deployment(other.deployment_path)['id']}", description="by hand")
    result = await live.apply_changes(plan, api_url=api.url, terms=Terms(verifies=False))
    assert {item.deployment: item.status for item in result.results} == {
        repository.path(): "applied",
        other.deployment_path: "unchanged",
    }
    assert (await repository.plan(repository.wants(description="new"), other)).has_changes  # the next one sees it


async def test_what_another_apply_changed_meanwhile_is_put_right(api: Api, repository: Repository) -> None:
    other = other_flow(repository)
    await repository.deployed(repository.wants(), other)
    plan = await repository.plan(repository.wants(description="new"), other)
    await repository.deployed(repository.wants(), replace(other, description="theirs"))
    result = await live.apply_changes(plan, api_url=api.url, terms=Terms(verifies=False))
    assert [item.status for item in result.results] == ["applied", "applied"]
    assert api.deployment(other.deployment_path)["description"] == ""


async def test_what_another_apply_changes_while_a_plan_is_read_is_put_right(api: Api, repository: Repository) -> None:
    """It is done and recorded between the plan's reading of deployments and its reading of the record."""
    other = other_flow(repository)
    await repository.deployed(repository.wants(), other)
    theirs = threading.Thread(
        target=asyncio.run, args=(repository.deployed(repository.wants(), replace(other, description="theirs")),)
    )

    def judge(request: Request) -> Fault | None:
        if request.path.endswith("/automations/filter") and not theirs.ident:
            theirs.start()
            theirs.join()
        return None

    async with proxy_to(api.url) as proxy:
        proxy.judge = judge
        plan = await repository.through(proxy.api_url).plan(repository.wants(description="new"), other)
    assert {change.deployment: change.action for change in plan.changes}[other.deployment_path] == "unchanged"
    plan = replace(plan, api_url=api.url)
    result = await live.apply_changes(plan, api_url=api.url, terms=Terms(verifies=False))
    assert {item.status for item in result.results} == {"applied"}
    assert api.deployment(other.deployment_path)["description"] == ""


async def test_what_is_gone_from_a_flow_that_changes_comes_back(api: Api, repository: Repository) -> None:
    wanted = repository.wants(description="new"), repository.wants("other")
    await repository.deployed(repository.wants(), repository.wants("other"))
    plan = await repository.plan(*wanted)
    api.call("DELETE", f"/deployments/{api.deployment(repository.path('other'))['id']}")
    result = await live.apply_changes(plan, api_url=api.url, terms=Terms(verifies=False))
    assert {item.status for item in result.results} == {"applied"}
    assert not (await repository.plan(*wanted)).has_changes


async def test_an_interrupted_apply_records_the_limits_that_it_wrote(api: Api, repository: Repository) -> None:
    limit = LimitSpec(scope="tag", name=unique("tag"), slots=3)
    desired = Desired(owner=repository.owner, deployments=(repository.wants(),), resources=Resources(limits=(limit,)))
    async with proxy_to(api.url) as proxy:
        plan = await live.plan_changes(desired, Policy(), api_url=proxy.api_url)
        task = asyncio.create_task(live.apply_changes(plan, api_url=proxy.api_url))
        hangs = asyncio.Event()

        def judge(request: Request) -> Fault | None:
            if request.path == "/api/deployments/" and request.method == "POST":
                hangs.set()
            return None

        proxy.judge = judge
        await hangs.wait()
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    assert api.get(f"/concurrency_limits/tag/{limit.name}")["concurrency_limit"] == 3
    async with open_server(api.url) as server:
        recorded = await RevisionStore(server, repository.owner).latest()
    assert recorded is not None and recorded.resources.limits == (limit,)


def other_flow(repository: Repository) -> DeploymentConfig:
    return replace(repository.wants(), flow_name=f"{repository.flow}-other")


# --- whose deployments ------------------------------------------------------------------------------------


async def test_a_deployment_of_nobody_is_a_conflict_and_stays_as_it_is(api: Api, repository: Repository) -> None:
    before = api.deploy(repository.path(), tags=["theirs"], description="By hand.")
    result = await repository.apply(repository.wants(description="Ours."))

    assert statuses(result) == {"daily": "skipped"}
    assert "--adopt" in str(result.results[0].error)
    assert api.deployment(repository.path()) == before


async def test_adopting_takes_a_deployment_over_with_its_id_and_schedules(api: Api, repository: Repository) -> None:
    schedules = [{"schedule": {"cron": "0 1 * * *"}, "active": False}]
    before = api.deploy(repository.path(), tags=["theirs"], description="By hand.", schedules=schedules, paused=True)
    wanted = repository.wants(description="Ours.", schedules=(every(cron="0 1 * * *"),))

    result = await repository.apply(wanted, adopt=["*"])
    row = api.deployment(repository.path())
    assert result.summary["adopt"] == 1
    assert (row["id"], row["tags"], row["description"]) == (before["id"], [repository.owner.tag], "Ours.")
    assert (row["schedules"], row["paused"]) == (before["schedules"], True)
    assert actions(await repository.plan(wanted)) == {"daily": "unchanged"}


@pytest.mark.parametrize("other", [Owner(project="bank", environment="development"), None], ids=["project", "env"])
async def test_what_another_project_or_environment_owns_is_never_taken(
    api: Api, repository: Repository, other: Owner | None
) -> None:
    holder = other or replace(repository.owner, environment="staging")
    before = api.deploy(repository.path(), tags=[holder.tag])

    result = await repository.apply(repository.wants(), adopt=["*"])
    assert statuses(result) == {"daily": "skipped"}
    assert f"belongs to {holder.project} in {holder.environment}" in str(result.results[0].error)
    assert api.deployment(repository.path()) == before


async def test_pruning_deletes_ours_and_nothing_else(api: Api, repository: Repository) -> None:
    await repository.deployed(repository.wants("stays"), repository.wants("goes"))
    api.deploy(repository.path("nobodys"))
    api.deploy(repository.path("staging"), tags=[replace(repository.owner, environment="staging").tag])
    api.deploy(repository.path("similar"), tags=[f"{repository.owner.tag}-2"])

    await repository.deployed(repository.wants("stays"))
    assert set(api.deployments_of(repository.flow)) == {"stays", "nobodys", "staging", "similar"}


async def test_two_environments_on_one_server_do_not_touch_each_other(api: Api, repository: Repository) -> None:
    staging = replace(repository, owner=replace(repository.owner, environment="staging"))
    await repository.deployed(repository.wants("development"))
    await staging.deployed(staging.wants("staging"))
    before = api.deployments_of(repository.flow)

    await staging.deployed(staging.wants("staging", description="new"))
    await staging.deployed()
    assert api.deployments_of(repository.flow) == {"development": before["development"]}


# --- refusals of the server -------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a missing pool": ({"work_pool": "no-such-pool"}, ["no-such-pool"]),
    "a job variable of a wrong type": ({"job_variables": {"command": 42}}, ["42 is not valid"]),
    "a parameter of a wrong type": ({"parameters": {"tables": "x"}, "parameter_schema": SCHEMA}, ["tables", "'x'"]),
    "an impossible cron": ({"schedules": (every(cron="61 * * * *"),)}, ["61 * * * *"]),
    "an unknown timezone": ({"schedules": (every(cron="0 4 * * *", timezone="Europe/Wien"),)}, ["Europe/Wien"]),
    "a broken rrule": ({"schedules": (every(rrule="FREQ=SOMETIMES"),)}, ["SOMETIMES"]),
    "an unknown strategy": (
        {"concurrency_limit": 1, "concurrency_options": {"collision_strategy": "WAIT"}},
        ["collision_strategy"],
    ),
}


def unforeseen(plan: Plan) -> Plan:
    """As if preflight had found nothing: what the server says itself."""
    return replace(plan, changes=tuple(replace(change, findings=()) for change in plan.changes))


@pytest.mark.parametrize("there", [False, True], ids=["create", "update"])
@pytest.mark.parametrize("case", REFUSED)
async def test_what_the_server_refuses_is_named_and_the_others_are_applied(
    api: Api, repository: Repository, case: str, there: bool
) -> None:
    fields, words = REFUSED[case]
    if there:
        await repository.deployed(repository.wants("bad"))

    plan = await repository.plan(*(repository.wants(name) for name in ("a", "z")), repository.wants("bad", **fields))
    result = await live.apply_changes(unforeseen(plan), api_url=api.url, terms=Terms(verifies=False))
    assert (result.status, statuses(result)) == ("degraded", {"a": "applied", "bad": "failed", "z": "applied"})
    (failed,) = result.failed
    assert failed.deployment == repository.path("bad")
    for word in words:
        assert word in str(failed.error)
    assert set(api.deployments_of(repository.flow)) == {"a", "z"} | ({"bad"} if there else set())


# --- a server that fails ----------------------------------------------------------------------------------


@contextmanager
def retries(count: int) -> Iterator[None]:
    """How often Prefect's client repeats what failed to be read; by default for a minute."""
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: count}):
        yield


async def apply_impatiently(plan: Plan, api_url: str) -> DeploymentResult:
    """An apply that does not wait a minute for a server to come back."""
    async with open_server(api_url) as server:
        return await apply_plan(plan, server, writers=Writers(patience=0.2))


async def test_a_server_that_is_busy_for_a_while_loses_nothing(api: Api, repository: Repository) -> None:
    names = ("a", "b", "c")
    async with proxy_to(api.url) as proxy:
        proxy.judge = first(6, "503")
        with retries(8):  # of what is read
            result = await repository.through(proxy.api_url).apply(*(repository.wants(name) for name in names))

    assert result.status == "completed"
    assert set(api.deployments_of(repository.flow)) == set(names)


@pytest.mark.parametrize("fault", ["503", "hang up", "lose the answer"])
async def test_a_server_lost_in_the_middle_leaves_a_report_and_the_next_apply_converges(
    api: Api, repository: Repository, fault: Fault
) -> None:
    await repository.deployed(repository.wants("b"), repository.wants("old"))
    wanted = [repository.wants("a"), repository.wants("b", description="new"), repository.wants("c", schedules=TWO)]
    async with proxy_to(api.url) as proxy:
        with retries(0):
            plan = await repository.through(proxy.api_url).plan(*wanted)
            proxy.judge = after_writes(3, fault)
            result = await apply_impatiently(plan, proxy.api_url)

    assert result.status == "degraded"
    assert statuses(result)["a"] == "applied"
    assert all(item.error for item in result.failed)
    missed = [item.deployment for item in result.failed]
    assert repository.path("old") in missed

    assert (await repository.apply(*wanted)).status in ("completed", "no-changes")
    rows = api.deployments_of(repository.flow)
    assert set(rows) == {"a", "b", "c"}
    assert api.post("/deployments/count", flows={"name": {"any_": [repository.flow]}}) == 3
    assert sorted(item["slug"] for item in rows["c"]["schedules"]) == ["early", "late"]
    assert set(actions(await repository.plan(*wanted)).values()) == {"unchanged"}


def is_about_a_deployment(request: Request) -> bool:
    return request.path.startswith(("/api/deployments/", "/api/flows/"))


async def test_after_the_connection_is_lost_nothing_more_is_tried(api: Api, repository: Repository) -> None:
    wanted = [repository.wants(name) for name in ("a", "b", "c", "d")]
    async with proxy_to(api.url) as proxy:
        with retries(0):
            plan = await repository.through(proxy.api_url).plan(*wanted)
            proxy.judge = after_writes(2, "hang up", when=is_about_a_deployment)
            result = await apply_impatiently(plan, proxy.api_url)

    assert statuses(result) == {"a": "applied", "b": "failed", "c": "skipped", "d": "skipped"}
    assert "does not answer" in str(result.results[1].error)
    assert "not tried" in str(result.results[2].error)


@pytest.mark.parametrize("lost_at", ["a deployment", "the record", "what comes after it"])
async def test_an_apply_tells_what_it_did_though_the_server_is_gone_at_its_end(
    api: Api, repository: Repository, monkeypatch: pytest.MonkeyPatch, lost_at: str
) -> None:
    writes = {"a deployment": 1, "the record": 2, "what comes after it": 2}[lost_at]
    monkeypatch.setattr(live, "PATIENCE_SECONDS", 0.2)
    desired = Desired(owner=repository.owner, deployments=(repository.wants("a"), repository.wants("b")))
    async with proxy_to(api.url) as proxy:
        plan = await live.plan_changes(desired, Policy(), api_url=proxy.api_url)
        recorded: list[str] = []

        def judge(request: Request) -> Fault | None:
            creates = {each.body for each in proxy.writes if each.path == "/api/deployments/"}
            if recorded or len(creates) > writes or (lost_at == "the record" and is_the_record(request)):
                return "hang up"
            if is_the_record(request):
                recorded.append(request.path)
            return None

        proxy.judge = judge
        with retries(0):
            result = await live.apply_changes(plan, api_url=proxy.api_url, terms=Terms())
    assert statuses(result) == {"a": "applied", "b": "applied" if writes == 2 else "failed"}
    assert result.status == "degraded"
    messages = " ".join(finding.message for found in result.findings.values() for finding in found)
    assert ("not recorded" in messages) == (lost_at != "what comes after it")
    assert ("could not be settled" in messages) == (lost_at != "the record")  # where it is the record alone that is


def is_the_record(request: Request) -> bool:
    return request.writes and request.path == "/api/block_documents/"


async def test_an_update_cut_between_fields_and_schedules_is_finished_by_the_next(
    api: Api, repository: Repository
) -> None:
    await repository.deployed(repository.wants(schedules=TWO))
    kept = schedule_ids(api, repository)["early"]
    wanted = repository.wants(description="new", schedules=(TWO[0], replace(TWO[1], cron="0 9 * * *")))
    async with proxy_to(api.url) as proxy:
        with retries(0):
            plan = await repository.through(proxy.api_url).plan(wanted)
            proxy.judge = first(99, "hang up", when=lambda request: "/schedules/" in request.path)
            result = await apply_impatiently(plan, proxy.api_url)
    half = api.deployment(repository.path())

    assert statuses(result) == {"daily": "failed"}
    assert half["description"] == "new" and schedule_ids(api, repository)["early"] == kept
    await repository.deployed(wanted)
    assert actions(await repository.plan(wanted)) == {"daily": "unchanged"}
    assert schedule_ids(api, repository)["early"] == kept


async def test_a_delete_whose_answer_was_lost_is_done(api: Api, repository: Repository) -> None:
    await repository.deployed(repository.wants("stays"), repository.wants("goes"))
    plan = await repository.plan(repository.wants("stays"))
    api.call("DELETE", f"/deployments/{api.deployment(repository.path('goes'))['id']}")

    result = await live.apply_changes(plan, api_url=api.url)
    assert statuses(result) == {"stays": "unchanged"}  # somebody else did it


async def test_a_deployment_deleted_since_the_plan_is_created_again(api: Api, repository: Repository) -> None:
    await repository.deployed(repository.wants("a"), repository.wants("b"))
    plan = await repository.plan(*(repository.wants(name, description="new") for name in ("a", "b")))
    api.call("DELETE", f"/deployments/{api.deployment(repository.path('a'))['id']}")

    assert statuses(await live.apply_changes(plan, api_url=api.url)) == {"a": "applied", "b": "applied"}
    assert actions(await repository.plan(*(change.desired for change in plan.changes if change.desired))) == {
        "a": "unchanged",
        "b": "unchanged",
    }


async def test_a_server_that_is_not_there_is_unreachable(repository: Repository) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/api"
    with retries(0), pytest.raises(ServerUnreachable, match=nowhere):
        await repository.through(nowhere).plan(repository.wants())


async def test_reading_while_others_deploy_is_no_crash(api: Api, repository: Repository) -> None:
    newcomer = unique("newcomer")

    async with proxy_to(api.url) as proxy:
        proxy.judge = once(lambda: api.deploy(f"{newcomer}/x"), before="/api/deployments/filter")
        plan = await repository.through(proxy.api_url).plan(repository.wants())
    assert actions(plan) == {"daily": "create"}


def once(action: Callable[[], object], *, before: str) -> Callable[..., None]:
    """Do something right before the first request to a path is passed on."""
    done = asyncio.Event()

    def judge(request: Any) -> None:
        if request.path == before and not done.is_set():
            done.set()
            action()

    return judge

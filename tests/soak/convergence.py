"""Whether a server has exactly what a world says: every difference in words, found by the raw API alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.integration.api import Api

from .people import key_of, schedule_ids
from .world import DEPLOYER, GLOBAL, OWNER_TAG, POOL, QUEUES, TAG, Schedule, Wanted, World

Row = dict[str, Any]
PAGE = 200


@dataclass(frozen=True)
class Snapshot:
    """All deployments of a server with their waiting runs."""

    rows: Mapping[str, Row]  # flow/deployment → as the API gives it
    runs: Mapping[str, tuple[Row, ...]]  # deployment id → its scheduled runs
    slots: Mapping[str, int | None]  # of our pool, its queue, the tag and the global limit

    @property
    def ours(self) -> dict[str, Row]:
        return {path: row for path, row in self.rows.items() if OWNER_TAG in row["tags"]}

    @property
    def foreign(self) -> dict[str, Row]:
        return {path: row for path, row in self.rows.items() if OWNER_TAG not in row["tags"]}

    def runs_of(self, path: str) -> tuple[Row, ...]:
        return self.runs.get(self.rows[path]["id"], ())


def snapshot(api: Api) -> Snapshot:
    """Read everything. Two deployments of one path cannot be told apart here: the server has a constraint for that."""
    flows = {row["id"]: row["name"] for row in _pages(api, "/flows/filter", sort="NAME_ASC")}
    deployments = _pages(api, "/deployments/filter", sort="CREATED_DESC")
    runs: dict[str, list[Row]] = {}
    waiting = {"state": {"type": {"any_": ["SCHEDULED"]}}}
    for run in _pages(api, "/flow_runs/filter", flow_runs=waiting, sort="ID_DESC"):
        runs.setdefault(run["deployment_id"], []).append(run)
    return Snapshot(
        rows={f"{flows[row['flow_id']]}/{row['name']}": row for row in deployments},
        runs={id_: tuple(found) for id_, found in runs.items()},
        slots=_slots(api),
    )


def _slots(api: Api) -> dict[str, int | None]:
    queues = {row["name"]: row for row in api.post(f"/work_pools/{POOL}/queues/filter")}
    tags = {row["tag"]: row for row in _pages(api, "/concurrency_limits/filter")}
    limits = {row["name"]: row for row in _pages(api, "/v2/concurrency_limits/filter")}
    return {
        f"work pool {POOL}": api.get(f"/work_pools/{POOL}")["concurrency_limit"],
        f"work queue {QUEUES[1]}": queues.get(QUEUES[1], {}).get("concurrency_limit"),
        f"tag limit {TAG}": tags.get(TAG, {}).get("concurrency_limit"),
        f"global limit {GLOBAL}": limits.get(GLOBAL, {}).get("limit"),
    }


def _pages(api: Api, route: str, **query: Any) -> list[Row]:
    rows: list[Row] = []
    while len(rows) % PAGE == 0:
        page = api.post(route, **query, limit=PAGE, offset=len(rows))
        rows += page
        if not page:
            break
    return rows


def differences(before: Snapshot, was: World, now: Snapshot, world: World) -> list[str]:
    """Everything on the server that is not as it should be.

    Args:
        before: the server after people had acted, before the apply.
        was: what the repository had asked for until then, with what people have decided.
        now: the server.
        world: what the repository asks for.
    """
    found = [*_wrong_set(now, world), *_of_others(before, now), *_of_the_deployer(before, now)]
    found += _wrong_slots(now, world)
    for path in sorted(world.wanted.keys() & now.ours.keys()):
        row = now.rows[path]
        wrong = [*_wrong_fields(world.wanted[path], row, world), *_wrong_schedules(world, path, row)]
        if not is_untouched(before, was, world, path):
            wrong += _wrong_runs(path, now)  # else Prefect itself may just have made runs of what a person switched off
        if path in before.rows:
            wrong += _lost(before, was, now, world, path)
        found += [f"{path}: {words}" for words in wrong]
    return found


def _wrong_set(now: Snapshot, world: World) -> Iterator[str]:
    should, have = {*world.wanted, DEPLOYER}, now.ours.keys()
    for path in sorted(should - have):
        yield f"{path}: missing"
    for path in sorted(have - should):
        yield f"{path}: still there"


def _wrong_slots(now: Snapshot, world: World) -> Iterator[str]:
    for name, slots in now.slots.items():
        should = world.slots + (10 if name == f"work pool {POOL}" else 0)
        if slots != should:
            yield f"{name}: {slots} slots instead of {should}"


def _of_others(before: Snapshot, now: Snapshot) -> Iterator[str]:
    for path, row in before.foreign.items():
        if path not in now.rows:
            yield f"{path}: not ours, and gone"
            continue
        changed = [name for name in row if row[name] != now.rows[path].get(name)]
        if changed:
            yield f"{path}: not ours, and changed in {', '.join(changed)}"
        yield from (f"{path}: not ours, {words}" for words in _lost_runs(before, now, path))


def _of_the_deployer(before: Snapshot, now: Snapshot) -> Iterator[str]:
    old, new = before.rows[DEPLOYER], now.rows.get(DEPLOYER, {})
    yield from (f"{DEPLOYER}: changed in {name}" for name in old if new and old[name] != new[name])


def _wrong_fields(wanted: Wanted, row: Row, world: World) -> Iterator[str]:
    limit = row.get("global_concurrency_limit") or {}
    options = {name: value for name, value in (row["concurrency_options"] or {}).items() if value is not None}
    schema = row["parameter_openapi_schema"]["properties"]
    have = {
        "description": row["description"],
        "tags": sorted(row["tags"]),
        "parameters": row["parameters"],
        "job variables": row["job_variables"],
        "pool": row["work_pool_name"],
        "queue": row["work_queue_name"],
        "limit": limit.get("limit"),
        "strategy": options if wanted.limit else {},
        "entrypoint": row["entrypoint"],
        "defaults of the schema": {name: each["default"] for name, each in schema.items()},
        "pull steps": len(row["pull_steps"] or ()),
        "enforced": row["enforce_parameter_schema"],
    }
    should = {
        "description": wanted.description,
        "tags": sorted([*wanted.tags, OWNER_TAG]),
        "parameters": dict(wanted.parameters),
        "job variables": dict(wanted.job_variables),
        "pool": POOL,
        "queue": wanted.queue,
        "limit": wanted.limit,
        "strategy": {"collision_strategy": wanted.strategy} if wanted.limit else {},
        "entrypoint": wanted.document()["entrypoint"],
        "defaults of the schema": {"tables": world.flows[wanted.flow], "day": "today", "fast": False},
        "pull steps": 1,
        "enforced": True,
    }
    for name, value in should.items():
        if have[name] != value:
            yield f"{name}: {have[name]!r} instead of {value!r}"
    if not row["version"] or (wanted.version and row["version"] != wanted.version):
        yield f"version: {row['version']!r} instead of {wanted.version or 'one from the code'!r}"


def _wrong_schedules(world: World, path: str, row: Row) -> Iterator[str]:
    if row["paused"] != world.is_paused(path):
        yield f"paused: {row['paused']} instead of {world.is_paused(path)}"
    should = {schedule.key: schedule for schedule in world.wanted[path].schedules}
    have = {key_of(item): item for item in row["schedules"]}
    doubled = [key for key, count in Counter(key_of(item) for item in row["schedules"]).items() if count > 1]
    yield from (f"schedule {key}: doubled" for key in doubled)
    yield from (f"schedule {key}: missing" for key in should.keys() - have.keys())
    yield from (f"schedule {key}: still there" for key in have.keys() - should.keys())
    for key in should.keys() & have.keys():
        active = world.is_active(path, should[key])
        yield from (f"schedule {key}: {words}" for words in _wrong_schedule(should[key], active, have[key]))


def _wrong_schedule(wanted: Schedule, active: bool, item: Row) -> Iterator[str]:
    if item["active"] != active:
        yield f"active: {item['active']} instead of {active}"
    if item["parameters"] != wanted.parameters:
        yield f"parameters: {item['parameters']} instead of {wanted.parameters}"
    rule, have = wanted.document(), item["schedule"]
    names = [name for name in ("cron", "interval", "timezone", "anchor_date") if name in rule]
    for name in names:
        if _value(name, have.get(name)) != _value(name, rule[name]):
            yield f"{name}: {have.get(name)} instead of {rule[name]}"
    if "rrule" in rule and not have.get("rrule", "").endswith(rule["rrule"]):
        yield f"rrule: {have.get('rrule')} instead of {rule['rrule']}"


def _value(name: str, value: Any) -> Any:
    return datetime.fromisoformat(value) if name == "anchor_date" and value else value


def idle_schedules(now: Snapshot) -> list[str]:
    """Our schedules that should fire, and for which no run waits."""
    found = []
    for path, row in sorted(now.ours.items()):
        waiting = {run["created_by"]["id"] for run in now.runs_of(path) if run["auto_scheduled"]}
        found += [f"{path}: no run waits for the schedule {_name(row, id_)}" for id_ in _firing(row) - waiting]
    return found


def _wrong_runs(path: str, now: Snapshot) -> Iterator[str]:
    """Runs that wait for a schedule which is gone or off, and runs that are doubled."""
    row, runs = now.rows[path], [run for run in now.runs_of(path) if run["auto_scheduled"]]
    waiting = Counter(run["created_by"]["id"] for run in runs)
    for id_ in waiting.keys() - _firing(row):
        yield f"{waiting[id_]} runs wait for the schedule {_name(row, id_)}, which should not fire"
    times = Counter((run["created_by"]["id"], run["expected_start_time"]) for run in runs)
    for (id_, time), count in times.items():
        if count > 1:
            yield f"{count} runs of the schedule {_name(row, id_)} at {time}"


def _firing(row: Row) -> set[str]:
    """The ids of the schedules for which runs should wait."""
    return set() if row["paused"] else {item["id"] for item in row["schedules"] if item["active"]}


def _name(row: Row, schedule_id: str) -> str:
    return next((key_of(item) for item in row["schedules"] if item["id"] == schedule_id), schedule_id)


def _lost(before: Snapshot, was: World, now: Snapshot, world: World, path: str) -> Iterator[str]:
    """What a deployment that was there before has lost: its id, those of its schedules, or, untouched, anything."""
    old, new = before.rows[path], now.rows[path]
    if new["id"] != old["id"]:
        yield f"id: {new['id']} instead of {old['id']}, it was made anew"
    old_ids, new_ids = schedule_ids(old), schedule_ids(new)
    for schedule in world.wanted[path].schedules:
        if schedule.key in old_ids and new_ids.get(schedule.key) not in (old_ids[schedule.key], None):
            yield f"schedule {schedule.key}: made anew"
    if path in was.wanted and world.wanted[path].version is None:  # a deployment keeps its flow and whose version it is
        moved = was.flows[world.wanted[path].flow] != world.flows[world.wanted[path].flow]
        if (old["version"] != new["version"]) != moved:
            code = "the code has changed" if moved else "the code has not changed"
            yield f"version: {new['version']!r} after {old['version']!r}, and {code}"
    if is_untouched(before, was, world, path):
        yield from (f"untouched, but changed in {name}" for name in old if old[name] != new[name])
        yield from _lost_runs(before, now, path)


def touched(before: Snapshot, was: World, world: World) -> list[str]:
    """The deployments that an apply has something to do for."""
    paths = before.ours.keys() | world.wanted.keys()
    return sorted(path for path in paths - {DEPLOYER} if not is_untouched(before, was, world, path))


def is_untouched(before: Snapshot, was: World, world: World, path: str) -> bool:
    """Whether an apply has nothing to do for a deployment."""
    if path not in was.wanted or path not in world.wanted or path not in before.rows:
        return False
    wanted, row = world.wanted[path], before.rows[path]
    as_wanted = not [*_wrong_fields(wanted, row, world), *_wrong_schedules(world, path, row)]
    return was.wanted[path] == wanted and was.flows[wanted.flow] == world.flows[wanted.flow] and as_wanted


def _lost_runs(before: Snapshot, now: Snapshot, path: str) -> Iterator[str]:
    left = {run["id"] for run in now.runs_of(path)}
    time = datetime.now(UTC).isoformat()
    lost = [run for run in before.runs_of(path) if run["id"] not in left and run["expected_start_time"] > time]
    if lost:
        yield f"{len(lost)} of {len(before.runs_of(path))} scheduled runs are lost"

"""What a generated repository asks for, and how that changes from round to round: a pure function of the seed.

A world is the repository's side (flows, deployments) and what people have decided on the server that an apply must
leave alone (paused deployments, switched-off schedules). Each round begins where the one before has ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tests.unit.builders import write_files

PROJECT, ENVIRONMENT = "soak", "development"
OWNER_TAG = f"orchestrator:{PROJECT}:{ENVIRONMENT}"
POOL, QUEUES, TAG, GLOBAL = "soak-pool", ("default", "tables"), "soak-database", "soak-licences"
DEPLOYER = f"deploy-everything/{ENVIRONMENT}"
MOST, LEAST = 20, 12  # deployments
FLOW = """
    from prefect import flow


    @flow(name="{name}")
    def work(tables: int = {revision}, day: str = "today", fast: bool = False) -> int:
        '''Works on some tables.'''
        return {revision}
"""
TIMEZONES = ("UTC", "Europe/Vienna", "America/New_York")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A schedule as the prefect.yaml has it. None fires so often that its runs would flood the server."""

    rule: Mapping[str, Any]  # cron, interval or rrule, and timezone, anchor_date
    slug: str | None = None
    active: bool = True
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What it is known by within its deployment."""
        return self.slug or rule_of(self.rule)

    def document(self) -> dict[str, Any]:
        slug = {"slug": self.slug} if self.slug else {}
        return {**self.rule, **slug, "active": self.active, "parameters": dict(self.parameters)}


def rule_of(rule: Mapping[str, Any]) -> str:
    """A rule in words, the same for what a file says and for what the server has of it."""
    zone = rule.get("timezone")
    if rule.get("cron"):
        return f"cron {rule['cron']} {zone}"
    if rule.get("interval"):
        return f"interval {float(rule['interval']):g} {zone}"
    return f"rrule {rule['rrule'].rpartition(chr(10))[2]} {zone}"  # the server puts a line DTSTART before it


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A deployment as the repository wants it."""

    flow: str
    name: str
    description: str
    version: str | None  # None: made from the code
    tags: tuple[str, ...]
    parameters: Mapping[str, Any]
    job_variables: Mapping[str, Any]
    queue: str
    limit: int | None
    strategy: str
    paused: bool
    schedules: tuple[Schedule, ...]

    @property
    def path(self) -> str:
        return f"{self.flow}/{self.name}"

    def document(self) -> dict[str, Any]:
        """Its part of the prefect.yaml."""
        limit = {"concurrency_limit": {"limit": self.limit, "collision_strategy": self.strategy}}
        return {
            "name": self.name,
            "entrypoint": f"flows/{self.flow.replace('-', '_')}.py:work",
            "description": self.description,
            **({"version": self.version} if self.version else {}),
            "tags": list(self.tags),
            "parameters": dict(self.parameters),
            "work_pool": {"name": POOL, "work_queue_name": self.queue, "job_variables": dict(self.job_variables)},
            **(limit if self.limit else {}),
            **({"paused": True} if self.paused else {}),
            "schedules": [schedule.document() for schedule in self.schedules],
        }


@dataclass(frozen=True, kw_only=True)
class World:
    """A repository, and what people have decided on the server."""

    flows: Mapping[str, int]  # name → revision of its code
    wanted: Mapping[str, Wanted]  # flow/deployment → …
    slots: int = 2  # of every limit that the environment declares
    paused: frozenset[str] = frozenset()  # flow/deployment, by a person
    off: frozenset[tuple[str, str]] = frozenset()  # flow/deployment and schedule, by a person

    def write(self, root: Path, api_url: str) -> None:
        """Make the folder the repository that this world describes."""
        environment = {
            "prefect_api_url": api_url,
            "work_pools": {
                "python": {
                    "name": POOL,
                    "type": "process",
                    "concurrency_limit": 10 + self.slots,
                    "queues": {QUEUES[1]: {"concurrency_limit": self.slots}},
                }
            },
            "concurrency_limits": {TAG: self.slots},
            "global_concurrency_limits": {GLOBAL: self.slots},
            "deployer": {"schedule": {"slug": "nightly", "cron": "0 4 * * *", "timezone": "UTC"}},
        }
        deployments = {"deployments": [wanted.document() for wanted in self.wanted.values()]}
        files = {
            "pyproject.toml": f'[tool.orchestrator]\nproject = "{PROJECT}"\n',
            f"environments/{ENVIRONMENT}.yaml": yaml.safe_dump(environment),
            "prefect.yaml": yaml.safe_dump(deployments, sort_keys=False),
            **{
                f"flows/{name.replace('-', '_')}.py": FLOW.format(name=name, revision=revision)
                for name, revision in self.flows.items()
            },
        }
        write_files(root, files)

    def is_paused(self, path: str) -> bool:
        return self.wanted[path].paused or path in self.paused

    def is_active(self, path: str, schedule: Schedule) -> bool:
        return schedule.active and (path, schedule.key) not in self.off

    def fires(self, path: str) -> bool:
        """Whether runs of the deployment should be waiting for their time."""
        return not self.is_paused(path) and any(self.is_active(path, each) for each in self.wanted[path].schedules)

    def without_ghosts(self) -> World:
        """What people have decided about things that are gone is forgotten."""
        keys = {(path, each.key) for path, wanted in self.wanted.items() for each in wanted.schedules}
        return replace(self, paused=self.paused & self.wanted.keys(), off=self.off & keys)


def world_before(seed: int, round_number: int) -> World:
    """The world at the start of a round, counted from 1: all rounds before it are done, and nobody has acted yet."""
    world = first_world(Random(f"{seed} first"))
    for number in range(1, round_number):
        world = next_world(acted(world, deeds(world, seed, number)), seed, number)
    return world


def first_world(random: Random) -> World:
    flows = {f"flow-{number}": 1 for number in range(1, 6)}
    world = World(flows=flows, wanted={})
    for number in range(1, 15):
        world = _with(world, _new(world, random, f"d{number:03}"))
    return world


def next_world(world: World, seed: int, round_number: int) -> World:
    """What the repository asks for after the round's commit: some new, some changed, some gone, most as they were."""
    random = Random(f"{seed} {round_number} repository")
    for path in random.sample(sorted(world.wanted), k=random.randint(3, 5)):
        world = _with(world, _changed(world.wanted[path], random, round_number))
    goes = random.randint(1, 2) if len(world.wanted) > LEAST else 0
    for path in random.sample(sorted(world.wanted), k=goes):
        world = replace(world, wanted={key: value for key, value in world.wanted.items() if key != path})
    for number in range(random.randint(1, 3) if len(world.wanted) < MOST else 0):
        world = _with(world, _new(world, random, f"r{round_number:03}-{number}"))
    if random.random() < 0.3:
        flow = random.choice(sorted(world.flows))
        world = replace(world, flows={**world.flows, flow: world.flows[flow] + 1})
    if random.random() < 0.5:
        world = replace(world, slots=2 + round_number)
    return world.without_ghosts()


def _with(world: World, wanted: Wanted) -> World:
    return replace(world, wanted={**world.wanted, wanted.path: wanted})


def _new(world: World, random: Random, name: str) -> Wanted:
    return Wanted(
        flow=random.choice(sorted(world.flows)),
        name=name,
        description=f"The deployment {name}." if random.random() < 0.8 else "Works on some tables.",
        version=f"{random.randint(1, 9)}.0" if random.random() < 0.6 else None,
        tags=tuple(random.sample(["etl", "daily", "slow", "ünïcode", "a:b"], k=random.randint(0, 3))),
        parameters={"tables": random.randint(1, 99)} if random.random() < 0.7 else {},
        job_variables={"env": {"LEVEL": random.choice(["low", "high"])}} if random.random() < 0.5 else {},
        queue=random.choice(QUEUES),
        limit=random.choice([None, None, 1, 5]),
        strategy=random.choice(["ENQUEUE", "CANCEL_NEW"]),
        paused=random.random() < 0.1,
        schedules=_schedules(random),
    )


def _schedules(random: Random) -> tuple[Schedule, ...]:
    made: dict[str, Schedule] = {}
    for number in range(random.choice([0, 1, 1, 2, 3])):
        slug = f"slug-{number}" if random.random() < 0.6 else None
        schedule = Schedule(
            rule=_rule(random), slug=slug, active=random.random() < 0.85, parameters=_parameters(random)
        )
        made[schedule.key] = schedule
    return tuple(made.values())


def _rule(random: Random) -> dict[str, Any]:
    zone = {"timezone": random.choice(TIMEZONES)}
    kind = random.choice(["cron", "interval", "anchored", "rrule"])
    if kind == "cron":
        return {"cron": f"{random.randint(0, 59)} {random.randint(0, 23)} * * *", **zone}
    if kind == "rrule":
        return {
            "rrule": f"FREQ=WEEKLY;BYDAY={random.choice(['MO', 'WE', 'SU'])};BYHOUR={random.randint(0, 23)}",
            **zone,
        }
    anchor = {"anchor_date": f"2026-01-{random.randint(1, 28):02}T06:30:00+00:00"} if kind == "anchored" else {}
    return {"interval": 3600 * random.randint(7, 99), **anchor, **zone}


def _parameters(random: Random) -> dict[str, Any]:
    return {"day": random.choice(["monday", "friday"])} if random.random() < 0.4 else {}


def _changed(wanted: Wanted, random: Random, round_number: int) -> Wanted:
    """The deployment with one to three things changed."""
    # Never a schedule without a slug for another one: whether it is the same one cannot be told then.
    changes = [_retold, _reset, _rescheduled, random.choice([_more_schedules, _fewer_schedules])]
    for change in random.sample(changes, random.randint(1, 3)):
        wanted = change(wanted, random, round_number)
    return wanted


def _retold(wanted: Wanted, random: Random, round_number: int) -> Wanted:
    tags = (*(tag for tag in wanted.tags if not tag.startswith("round-")), f"round-{round_number}")
    return replace(wanted, description=f"Told anew in round {round_number}.", tags=tags)


def _reset(wanted: Wanted, random: Random, round_number: int) -> Wanted:
    parameters = {"tables": 1000 + round_number, "fast": random.random() < 0.5}
    limit = random.choice([None, 2, 3])
    return replace(wanted, parameters=parameters, limit=limit, queue=random.choice(QUEUES))


def _rescheduled(wanted: Wanted, random: Random, round_number: int) -> Wanted:
    """Another rule for a schedule with a slug: it stays the same schedule."""
    slugs = [schedule for schedule in wanted.schedules if schedule.slug]
    if not slugs:
        return wanted
    old = random.choice(slugs)
    new = replace(old, rule=_rule(random), parameters=_parameters(random))
    return replace(wanted, schedules=tuple(new if each is old else each for each in wanted.schedules))


def _more_schedules(wanted: Wanted, random: Random, round_number: int) -> Wanted:
    new = Schedule(
        rule=_rule(random),
        slug=f"round-{round_number}" if random.random() < 0.6 else None,
        parameters=_parameters(random),
    )
    taken = {schedule.key for schedule in wanted.schedules}
    return wanted if new.key in taken else replace(wanted, schedules=(*wanted.schedules, new))


def _fewer_schedules(wanted: Wanted, random: Random, round_number: int) -> Wanted:
    if not wanted.schedules:
        return wanted
    goes = random.choice(wanted.schedules)
    return replace(wanted, schedules=tuple(each for each in wanted.schedules if each is not goes))


# ---------------------------------------------------------------------------------------------------------
# People
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Deed:
    """What a person does on the server."""

    what: str
    path: str = ""  # flow/deployment
    schedule: str = ""


def deeds(world: World, seed: int, round_number: int) -> tuple[Deed, ...]:
    """What people do on the server before the round's apply."""
    return tuple(_deeds(world, Random(f"{seed} {round_number} people")))


def _deeds(world: World, random: Random) -> Iterator[Deed]:
    paths = sorted(world.wanted)
    random.shuffle(paths)
    running = [path for path in paths if not world.is_paused(path)]
    yield Deed(what="pause", path=running.pop())
    resumable = sorted(path for path in world.paused if not world.wanted[path].paused)
    if len(resumable) > 3:
        yield Deed(what="resume", path=random.choice(resumable))
    active = [
        (path, each.key) for path in running for each in world.wanted[path].schedules if world.is_active(path, each)
    ]
    if active:
        yield Deed(what="switch off", path=active[0][0], schedule=active[0][1])
    others = [path for path in running if not active or path != active[0][0]]
    if random.random() < 0.3:
        yield Deed(what="edit a limit")
    for what in random.sample(["edit", "delete", "add a schedule"], k=random.randint(0, 2)):
        if others:
            yield Deed(what=what, path=others.pop())


def acted(world: World, done: tuple[Deed, ...]) -> World:
    """The world after these deeds: what is kept of them."""
    for deed in done:
        if deed.what == "pause":
            world = replace(world, paused=world.paused | {deed.path})
        elif deed.what == "resume":
            world = replace(world, paused=world.paused - {deed.path})
        elif deed.what == "switch off":
            world = replace(world, off=world.off | {(deed.path, deed.schedule)})
        elif deed.what == "delete":  # with it goes what people had decided about it
            off = frozenset(pair for pair in world.off if pair[0] != deed.path)
            world = replace(world, paused=world.paused - {deed.path}, off=off)
    return world

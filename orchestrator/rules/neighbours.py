"""The rules about environments on one server: what they share there they declare alike; deployments they do not share.

Pools, queues and limits belong to nobody: whichever environment was applied last has set them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from typing import Any, NamedTuple

from orchestrator.config import EnvironmentConfig, QueueConfig
from orchestrator.rules.deployments import declared_paths
from orchestrator.rules.places import columns_of
from orchestrator.rules.rule import Facts, Finding, Rule

LONGEST_VALUE = 60  # characters; a description may be a whole page
REMEDY = "Declare it in one of them only, or alike in all, such as in base.yaml; or give each environment its own."


@dataclass(frozen=True, slots=True)
class _Declared:
    """One value that an environment declares of something on its server: where, and what."""

    environment: EnvironmentConfig
    location: tuple[str, ...]
    value: Any

    @property
    def here(self) -> str:
        """`5 in staging`."""
        text = " ".join(str(self.value).split())
        cut = text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
        return f"{repr(cut) if isinstance(self.value, str) else cut} in {self.environment.name}"

    @property
    def in_words(self) -> str:
        """`5 in staging (environments/staging.yaml:3)`."""
        path, line = self.environment.place(*self.location)
        return f"{self.here} ({path}:{line})" if path else self.here


class _Queue(NamedTuple):
    pool: str
    name: str


def declared_otherwise(facts: Facts) -> Iterator[Finding]:
    """Two environments on one server declare the same pool, queue or limit with other values.

    It exists once on the server, so each apply of one environment undoes what the other has set, for ever. Declare it
    in one of them only, or alike in all: what stands in base.yaml, all of them have. Environments have one server if
    their `prefect_api_url` is the same; of those that name none, nobody knows. `validate --all-environments` finds
    this; `plan` and `apply` warn of it.
    """
    theirs = [dict(_declared(each)) for each in facts.neighbours]
    for what, ours in dict(_declared(facts.environment)).items():  # both kinds may name one pool
        others = [found[what] for found in theirs if what in found and found[what].value != ours.value]
        if others:
            otherwise = " and ".join(each.in_words for each in others)
            yield _finding(facts, ours, f"The {what} is {ours.here}, but {otherwise}, on the same server.")
    yield from _equal_priorities(facts)


def _finding(facts: Facts, ours: _Declared, message: str) -> Finding:
    path, line = ours.environment.place(*ours.location)
    spans = (columns_of(facts.repository, path, line, name) for name in reversed(ours.location))
    return Finding(path, line, message, REMEDY, span=next(filter(None, spans), None))


def _declared(environment: EnvironmentConfig) -> Iterator[tuple[str, _Declared]]:
    """What an environment says of what is shared on its server, by the words for it; its silence is left out."""
    for what, location, value in (*_of_pools(environment), *_of_limits(environment)):
        if value is not None:
            yield what, _Declared(environment, location, value)


def _of_pools(environment: EnvironmentConfig) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    for kind, pool in environment.work_pools.items():
        for field in ("type", "description", "concurrency_limit"):
            yield f"{field} of the work pool {pool.name!r}", ("work_pools", kind, field), getattr(pool, field)
        for name, queue in pool.queues.items():
            for field in QueueConfig.model_fields:
                location = ("work_pools", kind, "queues", name, field)
                yield f"{field} of the work queue '{pool.name}/{name}'", location, getattr(queue, field)


def _of_limits(environment: EnvironmentConfig) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    for tag, slots in environment.concurrency_limits.items():
        yield f"limit of the task tag {tag!r}", ("concurrency_limits", tag), slots
    for name, limit in environment.global_concurrency_limits.items():
        for field in ("limit", "slot_decay_per_second"):
            location = ("global_concurrency_limits", name, field)
            yield f"{field} of the global concurrency limit {name!r}", location, getattr(limit, field)


def _equal_priorities(facts: Facts) -> Iterator[Finding]:
    """Two queues that only one environment each declares, with one priority: the server moves one of them down."""
    ours = _priorities(facts.environment)
    for theirs in map(_priorities, facts.neighbours):
        mine_alone, theirs_alone = ours.keys() - theirs.keys(), theirs.keys() - ours.keys()
        for queue, other in product(sorted(mine_alone), sorted(theirs_alone)):
            if queue.pool == other.pool and ours[queue].value == theirs[other].value:
                said = f"The queues {queue.name} and {other.name} of the work pool {queue.pool!r} have one priority"
                both = f"{ours[queue].here}, and {theirs[other].in_words}"
                yield _finding(facts, ours[queue], f"{said}: {both}, on the same server.")


def _priorities(environment: EnvironmentConfig) -> dict[_Queue, _Declared]:
    return {
        _Queue(pool.name, name): _Declared(
            environment, ("work_pools", kind, "queues", name, "priority"), queue.priority
        )
        for kind, pool in environment.work_pools.items()
        for name, queue in pool.queues.items()
        if queue.priority is not None
    }


def declared_twice(facts: Facts) -> Iterator[Finding]:
    """Two environments on one server have the same declared deployment.

    On a server a deployment has one name and one owner: for the environment that is applied second it is in conflict,
    and never written. Declare one for each, and say in each environment's file which are its own:
    `select: ["*/staging-*"]`. Only `validate --all-environments` finds this.
    """
    ours = [path for path in declared_paths(facts) if _has(facts.environment, path)]
    for other in facts.neighbours:
        both = [path for path in ours if _has(other, path)]
        if both:
            path, line = facts.environment.place("select")
            more = f" and {len(both) - 1} more" if len(both) > 1 else ""
            who = f"{facts.environment.name} and {other.name}"
            message = f"{both[0]}{more} would belong to {who}, on the same server."
            yield Finding(path, line, message, "Declare one for each environment, and `select` its own in each.")


def _has(environment: EnvironmentConfig, path: str) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in environment.select)


RULE = Rule(
    "CFG011",
    "Declared otherwise for the same server",
    "error",
    declared_otherwise,
    example=(
        "# environments/development.yaml\n"
        "prefect_api_url: http://prefect:4200/api\n"
        "concurrency_limits:\n"
        "  database: 3\n"
        "# environments/staging.yaml\n"
        "prefect_api_url: http://prefect:4200/api\n"
        "concurrency_limits:\n"
        "  database: 5"
    ),
    better=(
        "# environments/base.yaml\n"
        "prefect_api_url: http://prefect:4200/api\n"
        "concurrency_limits:\n"
        "  database: 3\n"
        "# environments/development.yaml\n"
        "{}\n"
        "# environments/staging.yaml\n"
        "{}"
    ),
)
TWICE = Rule(
    "CFG013",
    "Deployment of two environments on one server",
    "error",
    declared_twice,
    example=(
        "# prefect.yaml\n"
        "deployments:\n"
        "  - name: daily\n"
        "    entrypoint: flows/etl.py:etl\n"
        "# environments/development.yaml\n"
        "prefect_api_url: http://prefect:4200/api\n"
        "# environments/staging.yaml\n"
        "prefect_api_url: http://prefect:4200/api"
    ),
    better=(
        "# prefect.yaml\n"
        "deployments:\n"
        "  - name: daily\n"
        "    entrypoint: flows/etl.py:etl\n"
        "  - name: staging-daily\n"
        "    entrypoint: flows/etl.py:etl\n"
        "# environments/development.yaml\n"
        "prefect_api_url: http://prefect:4200/api\n"
        "select: ['*/daily']\n"
        "# environments/staging.yaml\n"
        "prefect_api_url: http://prefect:4200/api\n"
        "select: ['*/staging-*']"
    ),
)
RULES: tuple[Rule, ...] = (RULE, TWICE)

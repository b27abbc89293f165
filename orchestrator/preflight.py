"""Plan × facts of the server → findings: what the server or a run would say against a change, before it is made.

The server itself says much of it too late or not at all (measured on Prefect 3.8.8): it takes unknown job variables,
unknown parameters and schedules with parameters that do not fit in silence, answers 500 to an update whose pool is
missing, and creates a queue that nobody serves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.faults import did_you_mean
from orchestrator.model import Change, DeploymentConfig, Finding, LivePool
from orchestrator.placeholders import ENVIRONMENT, environment_value, has_placeholder, names_in, texts_of

_REFERENCE = re.compile(r"\{\{\s*prefect\.(variables|blocks)\.([\w.\-\[\]]+)\s*\}\}")
_BLOCK_STEP = "prefect.deployments.steps.pull_with_block"
_WITHOUT_WORKER = (":push", ":managed")  # pool types whose runs are started by a service


@dataclass(frozen=True, kw_only=True, slots=True)
class References:
    """The variables and blocks that settings name, which a run looks up."""

    variables: frozenset[str] = frozenset()
    blocks: frozenset[str] = frozenset()  # type/name
    block_ids: frozenset[str] = frozenset()

    def __or__(self, other: References) -> References:
        return References(
            variables=self.variables | other.variables,
            blocks=self.blocks | other.blocks,
            block_ids=self.block_ids | other.block_ids,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerFacts:
    """What a server has of what deployments need. What the plan itself creates counts as there."""

    pools: tuple[LivePool, ...] = ()
    wanted_types: Mapping[str, str] = field(default_factory=dict)  # pool → type, as the environment says
    queues: frozenset[tuple[str, str]] = frozenset()  # pool, queue
    served_pools: frozenset[str] = frozenset()  # a worker is online
    references: References = References()  # those that there are
    server_version: str = ""
    client_version: str = ""

    def pool(self, name: str | None) -> LivePool | None:
        return next((pool for pool in self.pools if pool.spec.name == name), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Misfit:
    """Where a value does not fit its schema: never the value itself, which may be a secret."""

    place: tuple[str | int, ...]
    rule: str  # the keyword of JSON Schema that it breaks
    expected: Any  # what the keyword says
    found: str  # the JSON type of the value


class SchemaCheck(Protocol):
    """Checks values against a schema as the server does; required ones may be missing."""

    def __call__(
        self, values: Mapping[str, Any], schema: Mapping[str, Any], *, none_for_default: bool
    ) -> Sequence[Misfit]: ...


def findings(change: Change, facts: ServerFacts, misfits: SchemaCheck) -> tuple[Finding, ...]:
    """What speaks against a change.

    Args:
        change: of a plan.
        facts: about all that the plan's changes need.
        misfits: how values are checked against a schema; `facts.misfits` asks Prefect.

    Returns:
        Errors first. None for a change that writes nothing, or deletes.
    """
    config = change.desired
    if config is None or not change.writes or change.action == "delete":
        return ()
    found = [
        *_version(facts),
        *_pool(config, facts),
        *_job_variables(config, facts, misfits),
        *_parameters(config, misfits),
        *_references(config, facts),
        *_emptied_steps(change),
        *_queue(config, facts),
        *_worker(config, facts),
    ]
    return tuple(sorted(found, key=lambda finding: finding.severity != "error"))


def _emptied_steps(change: Change) -> Iterator[Finding]:
    """Pull steps that lose a value only because whoever plans has not set a variable that the last one had."""
    if change.desired is None or change.live is None:
        return
    for name in sorted(set(_emptied(change.desired.pull_steps, change.live.config.pull_steps))):
        variable = name.lstrip(ENVIRONMENT)
        yield Finding(
            message=f"The environment variable {variable} is not set here: the pull steps lose the value they have.",
            remedy=f"Set {variable} where the orchestrator runs, or leave it so: then the worker's value counts.",
            severity="warning",
        )


def _emptied(wanted: Sequence[Any], there: Sequence[Any]) -> Iterator[str]:
    """Environment variables that are not set, in texts that the server has in full."""
    for place, text in texts_of(wanted):
        before = _at(there, place)
        if isinstance(before, str) and not has_placeholder(before):
            names = (name for _, name in names_in(text) if name.startswith(ENVIRONMENT))
            yield from (name for name in names if environment_value(name) is None)


def _at(value: Any, place: Sequence[str | int]) -> Any:
    """What stands at a place, None where there is no such place."""
    for step in place:
        try:
            value = value[step]
        except (LookupError, TypeError):
            return None
    return value


# ---------------------------------------------------------------------------------------------------------
# Server, pool, queue, worker
# ---------------------------------------------------------------------------------------------------------


def _version(facts: ServerFacts) -> Iterator[Finding]:
    server, client = _release(facts.server_version), _release(facts.client_version)
    if not server or not client or (server >= client and server[0] == client[0]):
        return
    is_other = server[0] != client[0]
    yield Finding(
        message=f"The server runs Prefect {facts.server_version}, this is Prefect {facts.client_version}.",
        remedy=f"Install Prefect {server[0]}.{server[1]} here, or upgrade the server.",
        severity="error" if is_other else "warning",
    )


def _release(version: str) -> tuple[int, int] | None:
    """Major and minor of a version, None where it is no version."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else None


def _pool(config: DeploymentConfig, facts: ServerFacts) -> Iterator[Finding]:
    name, pool = config.work_pool, facts.pool(config.work_pool)
    if name and pool is None:
        known = sorted(facts.wanted_types)
        own = f"The environment's pools are {', '.join(known)}." if known else "Declare it in the environment's file."
        near = did_you_mean(name, [*known, *(each.spec.name for each in facts.pools)])
        yield Finding(
            message=f"There is no work pool {name!r}.",
            remedy=f"{near}{own} Or create it on the server: `{_create(name)}`.",
        )
    elif name and pool and facts.wanted_types.get(name, pool.spec.type) != pool.spec.type:
        yield Finding(
            message=f"The work pool {name!r} has the type {pool.spec.type!r}, and the environment says "
            f"{facts.wanted_types[name]!r}.",
            remedy="Correct the type in the environment's file, or give the pool another name there.",
        )


def _create(name: str) -> str:
    return f"prefect work-pool create {name} --type process"


def _queue(config: DeploymentConfig, facts: ServerFacts) -> Iterator[Finding]:
    pool, queue = config.work_pool, config.work_queue
    if not pool or not queue or facts.pool(pool) is None or (pool, queue) in facts.queues:
        return
    near = did_you_mean(queue, sorted(name for of_pool, name in facts.queues if of_pool == pool))
    yield Finding(
        message=f"The work pool {pool!r} has no queue {queue!r}; the server will create it, without a limit.",
        remedy=f"{near}Or declare it under the pool's `queues` in the environment's file.",
        severity="warning",
    )


def _worker(config: DeploymentConfig, facts: ServerFacts) -> Iterator[Finding]:
    pool = facts.pool(config.work_pool)
    if pool is None:
        return
    name = pool.spec.name
    if pool.is_paused:
        yield Finding(
            message=f"The work pool {name!r} is paused: no run starts.",
            remedy=f"Resume it when it is time: `prefect work-pool resume {name}`.",
            severity="warning",
        )
    elif name not in facts.served_pools and not pool.spec.type.endswith(_WITHOUT_WORKER):
        yield Finding(
            message=f"No worker is online in the work pool {name!r}: runs will wait.",
            remedy=f"Start one with `prefect worker start --pool {name}`.",
            severity="warning",
        )


# ---------------------------------------------------------------------------------------------------------
# Job variables and parameters
# ---------------------------------------------------------------------------------------------------------


def _job_variables(config: DeploymentConfig, facts: ServerFacts, misfits: SchemaCheck) -> Iterator[Finding]:
    pool = facts.pool(config.work_pool)
    schema = pool.job_template.get("variables") if pool else None
    if pool is None or not schema or not config.job_variables:
        return  # the server does not check a pool without a template, either
    known = schema.get("properties") or {}
    unknown = [] if schema.get("additionalProperties") else [name for name in config.job_variables if name not in known]
    for name in unknown:
        yield Finding(
            message=f"The work pool {pool.spec.name!r} knows no job variable {name!r}; it would have no effect.",
            remedy=f"{did_you_mean(name, known)}{_known(known)}",
            severity="warning",  # `prefect deploy` and the server take it
        )
    given = {name: value for name, value in config.job_variables.items() if name not in unknown}
    for misfit in misfits(given, schema, none_for_default=True):
        yield _unfit("job_variables", misfit, f"the work pool {pool.spec.name!r}")


def _parameters(config: DeploymentConfig, misfits: SchemaCheck) -> Iterator[Finding]:
    schema = config.parameter_schema
    if "properties" not in schema:
        return
    sources = [("parameters", config.parameters)]
    sources += [(f"schedules[{each.label}].parameters", each.parameters) for each in config.schedules]
    for place, values in sources:
        unknown = [name for name in values if name not in schema["properties"]]
        for name in unknown:
            yield Finding(
                message=f"{place}: the flow has no parameter {name!r}; Prefect would refuse every run.",
                remedy=f"{did_you_mean(name, schema['properties'])}{_known(schema['properties'])}",
            )
        given = {name: value for name, value in values.items() if name not in unknown}
        for misfit in (
            misfits(given, schema, none_for_default=False) if config.enforce_parameter_schema and given else ()
        ):
            yield _unfit(place, misfit, "the flow's signature")


def _known(names: Iterable[str]) -> str:
    return f"Known: {', '.join(sorted(names)) or 'none'}."


def _unfit(place: str, misfit: Misfit, whose: str) -> Finding:
    where = place + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in misfit.place)
    return Finding(message=f"{where} does not fit {whose}: {_rule(misfit)}.", remedy="Correct the value.")


_BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
    "minLength": "no shorter than",
    "maxLength": "no longer than",
    "minItems": "a list of at least",
    "maxItems": "a list of at most",
}


def _rule(misfit: Misfit) -> str:
    """The rule that a value breaks, in words."""
    rule, expected = misfit.rule, misfit.expected
    types = _types({rule: expected})
    if types and misfit.found not in types:
        return f"it must be of type {' or '.join(types)}, not {misfit.found}"
    if rule == "enum":
        return f"it must be one of {', '.join(str(each) for each in expected)}"
    if rule in _BOUNDS:
        return f"it must be {_BOUNDS[rule]} {expected}"
    if rule in ("pattern", "format"):
        return f"it must match the {rule} {expected}"
    if rule == "const":
        return f"it must be {expected}"
    if rule == "additionalProperties":
        return "it has a key that is not known there"
    return "it fits none of the allowed forms" if rule in ("anyOf", "oneOf") else f"it breaks the rule {rule!r}"


def _types(schema: Mapping[str, Any]) -> list[str]:
    """The JSON types that a schema allows where it speaks of types only."""
    written = schema.get("type")
    if written is not None:
        return list(written) if isinstance(written, list) else [written]
    branches = schema.get("anyOf") or schema.get("oneOf") or ()
    inner = [_types(branch) for branch in branches if isinstance(branch, Mapping)]
    return list(dict.fromkeys(name for names in inner for name in names)) if inner and all(inner) else []


# ---------------------------------------------------------------------------------------------------------
# Variables and blocks
# ---------------------------------------------------------------------------------------------------------


def references(config: DeploymentConfig) -> References:
    """The variables and blocks that a deployment's job variables and pull steps name."""
    found = References()
    for value in _mappings_and_texts([config.job_variables, config.pull_steps]):
        if isinstance(value, str):
            for kind, name in _REFERENCE.findall(value):
                found |= References(variables=frozenset([name])) if kind == "variables" else _block(name)
        elif isinstance(id_ := _inside(value, "$ref", "block_document_id"), str):
            found |= References(block_ids=frozenset([id_]))
        elif isinstance(step := value.get(_BLOCK_STEP), Mapping):
            name = f"{step.get('block_type_slug')}/{step.get('block_document_name')}"
            found |= References(blocks=frozenset([name] if "{{" not in name else []))
    return found


def _block(name: str) -> References:
    type_, _, rest = name.partition(".")
    document = rest.partition(".")[0].partition("[")[0]
    return References(blocks=frozenset([f"{type_}/{document}"])) if document else References()


def _inside(value: Mapping[str, Any], key: str, inner: str) -> Any:
    outer = value.get(key)
    return outer.get(inner) if isinstance(outer, Mapping) else None


def _mappings_and_texts(value: Any) -> Iterator[Any]:
    """A value's mappings and texts, at every depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield value
        for inner in value.values():
            yield from _mappings_and_texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _mappings_and_texts(inner)


def _references(config: DeploymentConfig, facts: ServerFacts) -> Iterator[Finding]:
    named, there = references(config), facts.references
    for name in sorted(named.variables - there.variables):
        yield Finding(
            message=f"There is no variable {name!r} on the server; a run would get nothing in its place.",
            remedy=f"Create it: `prefect variable set {name} VALUE`.",
        )
    for name in sorted(named.blocks - there.blocks):
        type_, _, document = name.partition("/")
        near = did_you_mean(name, there.blocks)
        yield Finding(
            message=f"There is no block {document!r} of type {type_!r} on the server; a run would fail.",
            remedy=f"{near}Create it on the server's page of blocks, or correct the name.",
        )
    for name in sorted(named.block_ids - there.block_ids):
        yield Finding(
            message=f"There is no block with the id {name} on the server; a run would fail.",
            remedy="Refer to a block by type and name: {{ prefect.blocks.TYPE.NAME }}.",
        )

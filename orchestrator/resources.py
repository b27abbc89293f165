"""Work pools, queues and concurrency limits: what differs between an environment and its server, and setting it right.

Where the environment is silent the server decides, and nothing is ever deleted: a pool or a limit may serve others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Protocol

from orchestrator.config import EnvironmentConfig, QueueConfig
from orchestrator.differences import cause_of
from orchestrator.errors import OrchestratorError, ServerUnreachable
from orchestrator.model import (
    Cause,
    FieldDiff,
    LimitSpec,
    LiveResources,
    PoolSpec,
    QueueSpec,
    ResourceChange,
    ResourceKind,
    ResourceResult,
    Resources,
    ResultStatus,
)
from orchestrator.reasons import deleted_since, reasons_of

logger = logging.getLogger(__name__)

Spec = PoolSpec | QueueSpec | LimitSpec

CUT_OFF = "It was interrupted."  # the error of a change of which nobody knows whether it has arrived
_IDENTITY = ("name", "pool", "scope", "type")  # what is never changed; every other field of a spec is


class ResourceWriter(Protocol):
    """What applying needs of a server; `pools.ResourceDoor` is one.

    A create says whether it created: what somebody else created in the meantime is set right instead.
    """

    async def create(self, spec: Spec) -> bool: ...
    async def update(self, spec: Spec, names: Sequence[str]) -> None:
        """Set the named fields, and only those; None empties one."""

    async def remove(self, spec: Spec) -> None: ...


# ---------------------------------------------------------------------------------------------------------
# Planning
# ---------------------------------------------------------------------------------------------------------


def resources_of(environment: EnvironmentConfig) -> Resources:
    """The pools, queues and limits that an environment declares. Two kinds may share one pool."""
    pools = {
        pool.name: PoolSpec(
            name=pool.name, type=pool.type, description=pool.description, concurrency_limit=pool.concurrency_limit
        )
        for pool in environment.work_pools.values()
    }
    queues = {
        (pool.name, name): _queue_spec(pool.name, name, queue)
        for pool in environment.work_pools.values()
        for name, queue in pool.queues.items()
    }
    tags = [LimitSpec(scope="tag", name=tag, slots=slots) for tag, slots in environment.concurrency_limits.items()]
    shared = [
        LimitSpec(scope="global", name=name, slots=limit.limit, decay_per_second=limit.slot_decay_per_second)
        for name, limit in environment.global_concurrency_limits.items()
    ]
    return Resources(pools=tuple(pools.values()), queues=tuple(queues.values()), limits=(*tags, *shared))


def _queue_spec(pool: str, name: str, queue: QueueConfig) -> QueueSpec:
    return QueueSpec(pool=pool, name=name, **queue.model_dump())


def resources_in(changes: Sequence[ResourceChange]) -> Resources:
    """What a plan wants of pools, queues and limits."""
    return resources_from(change.desired for change in changes)


def specs_of(resources: Resources) -> tuple[Spec, ...]:
    """All of them in one row, pools before their queues."""
    return (*resources.pools, *resources.queues, *resources.limits)


def resources_from(row: Iterable[Spec]) -> Resources:
    """What `specs_of` took apart."""
    specs = tuple(row)
    return Resources(
        pools=tuple(spec for spec in specs if isinstance(spec, PoolSpec)),
        queues=tuple(spec for spec in specs if isinstance(spec, QueueSpec)),
        limits=tuple(spec for spec in specs if isinstance(spec, LimitSpec)),
    )


def plan_resources(wanted: Resources, live: LiveResources) -> tuple[ResourceChange, ...]:
    """What has to change, in the order in which it has to be done.

    Args:
        wanted: what the environment declares.
        live: what the server has, at least of all that is wanted.

    Returns:
        One change for each wanted pool, queue and limit. A pool of another type is a conflict, and so are its queues.
    """
    pools = {pool.spec.name: pool.spec for pool in live.pools}
    wrong = {spec.name for spec in wanted.pools if spec.name in pools and pools[spec.name].type != spec.type}
    specs: list[Spec] = [*pools.values(), *live.queues, *live.limits]
    present = {key_of(spec): spec for spec in specs}
    changes = (_change(spec, present.get(key_of(spec))) for spec in _in_order(wanted))
    return tuple(_against_type(change, pools, wrong) for change in changes)


def key_of(spec: Spec) -> tuple[ResourceKind, str]:
    """What a pool, queue or limit is recognised by."""
    if isinstance(spec, PoolSpec):
        return "work pool", spec.name
    if isinstance(spec, QueueSpec):
        return "work queue", f"{spec.pool}/{spec.name}"
    return ("tag limit", spec.name) if spec.scope == "tag" else ("global limit", spec.name)


def _in_order(wanted: Resources) -> Iterator[Spec]:
    """Pools before their queues. Queues by priority: the server moves those behind a new one down, none before it."""
    yield from wanted.pools
    yield from sorted(wanted.queues, key=lambda queue: queue.priority or float("inf"))
    yield from wanted.limits


def _change(wanted: Spec, live: Spec | None) -> ResourceChange:
    kind, name = key_of(wanted)
    if live is None:
        diffs = tuple(FieldDiff(path=field, after=value) for field, value in declared(wanted).items())
        return ResourceChange(
            action="create", resource=kind, name=name, fields=diffs, desired=wanted, reasons=("not on the server",)
        )
    diffs = tuple(
        FieldDiff(path=field, before=getattr(live, field), after=value)
        for field, value in declared(wanted).items()
        if getattr(live, field) != value
    )
    return ResourceChange(
        action="update" if diffs else "unchanged",
        resource=kind,
        name=name,
        fields=diffs,
        desired=wanted,
        reasons=tuple(reasons_of(diffs)),
    )


def declared(spec: Spec) -> dict[str, Any]:
    """The fields that the environment sets."""
    names = [field.name for field in fields(spec) if field.name not in _IDENTITY]
    return {name: value for name in names if (value := getattr(spec, name)) is not None}


def _against_type(change: ResourceChange, pools: Mapping[str, PoolSpec], wrong: set[str]) -> ResourceChange:
    spec = change.desired
    pool = spec.name if isinstance(spec, PoolSpec) else spec.pool if isinstance(spec, QueueSpec) else None
    if pool not in wrong:
        return change
    if isinstance(spec, PoolSpec):
        reason = f"the pool {pool!r} has the type {pools[pool].type!r}; this environment wants {spec.type!r}"
    else:
        reason = f"the pool {pool} has another type than this environment wants"
    return replace(change, action="conflict", fields=(), reasons=(reason,))


# ---------------------------------------------------------------------------------------------------------
# Who moved
# ---------------------------------------------------------------------------------------------------------


def with_resource_causes(
    changes: Sequence[ResourceChange], recorded: Resources, *, revision: int, told: str
) -> tuple[ResourceChange, ...]:
    """Tell who moved since the last apply: the environment's file, or somebody on the server.

    Args:
        changes: as `plan_resources` gives them.
        recorded: what the last apply recorded; of what is not in it nothing is known.
        revision: its number.
        told: how the reasons say that what is asked for has changed.

    Returns:
        The same changes, with a cause for each difference of what is recorded.
    """
    last = {key_of(spec): spec for spec in specs_of(recorded)}
    return tuple(_with_cause(change, last.get((change.resource, change.name)), revision, told) for change in changes)


def _with_cause(change: ResourceChange, last: Spec | None, revision: int, told: str) -> ResourceChange:
    if last is None or change.action == "unchanged":
        return change
    if change.action == "conflict":
        return replace(change, reasons=(*change.reasons, *_moved_type(change.desired, last, revision, told)))
    diffs = tuple(replace(diff, cause=_cause(diff, last)) for diff in change.fields)
    if change.action == "create":
        return replace(change, fields=diffs, reasons=(deleted_since(revision),), is_lost=True)
    return replace(change, fields=diffs, reasons=tuple(reasons_of(diffs, told)))


def _cause(diff: FieldDiff, last: Spec) -> Cause:
    """Where the environment was silent the server decided: if it differs now, the environment has begun to speak."""
    before = getattr(last, diff.path)
    return "repository" if before is None else cause_of(diff.before, diff.after, before)


def _moved_type(wanted: Spec, last: Spec, revision: int, told: str) -> Iterator[str]:
    """Why a pool has another type. The server changes none: somebody deletes a pool and makes another."""
    if isinstance(wanted, PoolSpec) and isinstance(last, PoolSpec):
        same = wanted.type == last.type
        yield f"somebody made it anew after revision {revision}" if same else f"{told}: type"


# ---------------------------------------------------------------------------------------------------------
# Applying
# ---------------------------------------------------------------------------------------------------------


async def apply_resources(changes: Sequence[ResourceChange], writer: ResourceWriter) -> tuple[ResourceResult, ...]:
    """Carry out changes, in their order.

    Args:
        changes: as `plan_resources` gives them.
        writer: who writes.

    Returns:
        One result per change, as `ResourceWork` has them.
    """
    work = ResourceWork(writer)
    for change in changes:
        await work.carry_out(change)
    return tuple(work.results)


class ResourceWork:
    """Changes of pools, queues and limits, carried out one after the other, and what became of each so far.

    Nothing is raised for one that fails: its result says why, and the others can go on. When the server does not answer
    any more, the rest is skipped. A create whose result says `update` found that somebody else had created it in the
    meantime.
    """

    def __init__(self, writer: ResourceWriter) -> None:
        self.results: list[ResourceResult] = []
        self._writer = writer
        self._is_gone = False
        self._moved: set[str] = set()  # pools in which a queue's priority was written

    async def carry_out(self, change: ResourceChange) -> None:
        """The next change, in the order of `plan_resources`."""
        if self._is_gone and change.writes:
            self.results.append(_result(change, "skipped", "not tried: the server did not answer any more"))
            return
        self.results.append(_result(change, "failed", CUT_OFF))  # until it is done
        try:
            self.results[-1] = await self._written(change)
        except OrchestratorError as error:
            if isinstance(error, ServerUnreachable):
                self._is_gone = True
                self._moved.clear()
            logger.error("%s %s %s failed: %s", change.action, change.resource, change.name, error)
            self.results[-1] = _result(change, "failed", str(error))

    async def _written(self, change: ResourceChange) -> ResourceResult:
        spec = change.desired
        if change.action == "conflict":
            return _result(change, "skipped", "; ".join(change.reasons))
        if isinstance(spec, QueueSpec) and any(diff.path == "priority" for diff in change.fields):
            self._moved.add(spec.pool)
        if change.action == "unchanged":
            if isinstance(spec, QueueSpec) and spec.pool in self._moved and spec.priority is not None:
                await self._writer.update(spec, ("priority",))  # a queue before it may have pushed it down
            return _result(change, "unchanged")
        made = False
        if change.action == "create":
            made = await self._writer.create(spec)
        else:
            await self._writer.update(spec, [diff.path for diff in change.fields])
        logger.info("%s %s %s", change.action, change.resource, change.name)
        return _result(change if made or change.action != "create" else replace(change, action="update"), "applied")


async def undo(
    changes: Sequence[ResourceChange], results: Sequence[ResourceResult], writer: ResourceWriter
) -> tuple[ResourceResult, ...]:
    """Set back what was applied: updates to what was before, and what was created is removed again.

    An update that failed is set back, too: its answer may have been lost on the way. So is a create that was cut off.
    What somebody else created in the meantime stays, and so does a pool that deployments have come into.

    Args:
        changes: that were carried out.
        results: what became of them, one for each.
        writer: who writes.

    Returns:
        The results as they now are: `restored`, or as before with the reason why it could not be set back.
    """
    now = list(results)
    moved = {pool for change, result in zip(changes, results, strict=True) for pool in _moved(change, result)}
    for index in _backwards(changes):
        try:
            taken_back = await _take_back(changes[index], results[index], writer, moved)
        except OrchestratorError as error:
            now[index] = replace(results[index], error=f"{results[index].error or 'applied'}; not set back: {error}")
        else:
            if taken_back and results[index].status == "applied":
                now[index] = replace(results[index], status="restored")
            elif taken_back and results[index].error == CUT_OFF:
                now[index] = replace(results[index], error=f"{CUT_OFF} What had arrived of it was set back.")
    return tuple(_gone_with_pools(now))


def _gone_with_pools(results: Sequence[ResourceResult]) -> Iterator[ResourceResult]:
    """Queues that came with a pool (`default` does) go with it."""
    removed_pool = ("work pool", "create", "restored")
    gone = {each.name for each in results if (each.resource, each.action, each.status) == removed_pool}
    for each in results:
        is_gone = each.resource == "work queue" and each.status == "applied" and each.name.partition("/")[0] in gone
        yield replace(each, status="restored", error=None) if is_gone else each


def _moved(change: ResourceChange, result: ResourceResult) -> Iterator[str]:
    """The pool in which a change may have moved queues."""
    if isinstance(change.desired, QueueSpec) and result.status in ("applied", "failed"):
        yield from (change.desired.pool for diff in change.fields if diff.path == "priority")


def _backwards(changes: Sequence[ResourceChange]) -> list[int]:
    """Pools last. Among queues those that go first, and then by the priority that each gets back, as for applying."""

    def order(index: int) -> tuple[int, float, int]:
        change = changes[index]
        if isinstance(change.desired, QueueSpec) and change.action != "create":
            before = next((diff.before for diff in change.fields if diff.path == "priority"), change.desired.priority)
            return 1, before or float("inf"), index
        return (2 if change.resource == "work pool" else 0), 0, -index

    return sorted(range(len(changes)), key=order)


async def _take_back(change: ResourceChange, result: ResourceResult, writer: ResourceWriter, moved: set[str]) -> bool:
    spec = change.desired
    if change.action == "update" and result.status in ("applied", "failed"):
        before = {diff.path: diff.before for diff in change.fields}
        await writer.update(replace(spec, **before), list(before))
    elif change.action == "unchanged" and isinstance(spec, QueueSpec) and spec.priority and spec.pool in moved:
        await writer.update(spec, ("priority",))
    elif result.action == "create" and (result.status == "applied" or result.error == CUT_OFF):
        await writer.remove(spec)
    else:
        return False
    return True


def _result(change: ResourceChange, status: ResultStatus, error: str | None = None) -> ResourceResult:
    return ResourceResult(resource=change.resource, name=change.name, action=change.action, status=status, error=error)

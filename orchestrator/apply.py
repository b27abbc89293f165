"""Plan → results: carry out one plan and say what became of each change.

Changes are written by the gentlest call: creates by POST, updates without schedules, schedules one by one. One
failure does not stop the others, whatever it is; a server that goes away does, and so does a lost lock, and what was
not tried is reported as skipped. How many changes are written at a time, and what is repeated: see writers.py.

Pools, queues and limits come first, since deployments need them. Deletes begin when all creates and updates have ended;
the deployer's own deployment comes last and alone.

Who interrupts an apply waits for the write that is under way; what was done and what was not is told then, as ever.

An atomic apply is all or nothing. What can be undone best goes first: a deleted schedule would come back with a new id,
a deleted deployment with a new id and without its runs, so these are deleted when everything else is in place. After a
failure each deployment that was touched is looked at and set back to what the plan had found, and then so are pools,
queues and limits.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Literal, Protocol

import anyio

from orchestrator.config import DEPLOYER_FLOW
from orchestrator.differences import (
    COMPARED_FIELDS,
    SchedulePair,
    changed_fields,
    pair_schedules,
    replaced_triggers,
    triggers_to_write,
)
from orchestrator.errors import LockedError, OrchestratorError, ServerError, ServerUnreachable
from orchestrator.interruption import undisturbed
from orchestrator.masking import without_secrets
from orchestrator.model import (
    Change,
    ChangeResult,
    DeploymentConfig,
    DeploymentResult,
    LiveDeployment,
    Plan,
    ResourceChange,
    ResourceResult,
    ResultStatus,
    ScheduleConfig,
)
from orchestrator.plan import COMING, predecessor_kept
from orchestrator.resources import ResourceWork, ResourceWriter, undo
from orchestrator.writers import Writers

logger = logging.getLogger(__name__)

Part = Literal["whole", "additions", "removals"]
"""Which of a change's writes: all, or (in an atomic apply) first what is simple to undo and later the rest."""

WriteTriggers = Callable[[str, DeploymentConfig, Collection[str]], Awaitable[None]]
"""Gives a deployment, by its id, the automations that its configuration asks for, and no others but people's.

The names are those of automations that count as the deployment's, whoever made them.
"""

FAILURES = (OrchestratorError, TypeError, ValueError, LookupError)
"""What ends one change only; anything else is a bug and is raised."""


class DeploymentWriter(Protocol):
    """What apply needs of a server; `server.PrefectServer` is one. Every write may be repeated."""

    def writing(self) -> AbstractContextManager[object]: ...
    async def find_deployment(self, flow: str, name: str) -> LiveDeployment | None: ...
    async def read_labels(self, id_: str) -> Mapping[str, str]: ...
    async def create_deployment(self, config: DeploymentConfig, labels: Mapping[str, str]) -> str: ...
    async def update_deployment(self, id_: str, config: DeploymentConfig, fields: tuple[str, ...]) -> None: ...
    async def pause_deployment(self, id_: str) -> None: ...
    async def resume_deployment(self, id_: str) -> None: ...
    async def delete_deployment(self, id_: str) -> None: ...
    async def create_schedule(
        self, deployment_id: str, schedule: ScheduleConfig, known: Collection[str] = ()
    ) -> str: ...
    async def update_schedule(
        self, deployment_id: str, schedule_id: str, schedule: ScheduleConfig, *, may_activate: bool = False
    ) -> None: ...
    async def delete_schedule(self, deployment_id: str, schedule_id: str) -> None: ...


async def apply_plan(
    plan: Plan,
    server: DeploymentWriter,
    *,
    atomic: bool = False,
    writers: Writers | None = None,
    write_triggers: WriteTriggers | None = None,
    resources: ResourceWriter | None = None,
    on_interrupt: Callable[[DeploymentResult], object] | None = None,
) -> DeploymentResult:
    """Carry out a plan.

    Args:
        plan: what to do.
        server: where to.
        atomic: all or nothing: after a failure everything is set back to what it was.
        writers: how many at a time, and what is repeated; None: as usual.
        write_triggers: writes a deployment's automations; None: they are left alone.
        resources: writes pools, queues and limits; None: they are left alone.
        on_interrupt: is given what was done by then, when somebody interrupts.

    Returns:
        One result per change, in the plan's order. Nothing is raised for a change that fails: its result says why.
    """
    work = _Apply(plan, server, writers or Writers(), write_triggers, resources, atomic=atomic)
    if plan.has_changes:
        try:
            with server.writing():
                await work.carry_out()
        except anyio.get_cancelled_exc_class():
            if on_interrupt is not None:
                on_interrupt(replace(work.result(), is_interrupted=True))
            raise
    return work.result()


def untouched(plan: Plan) -> DeploymentResult:
    """What becomes of a plan that changes nothing; no server is needed for that."""
    return DeploymentResult(
        environment=plan.environment,
        api_url=plan.api_url,
        results=tuple(map(_without_a_write, plan.changes)),
        resources=tuple(_unwritten(change) for change in plan.resources),
        problems=plan.problems,
    )


def _unwritten(change: ResourceChange, why: str = "") -> ResourceResult:
    """What becomes of a pool, queue or limit that is not written; one in conflict is told."""
    reason = "; ".join(change.reasons) if change.action == "conflict" else why if change.writes else ""
    return ResourceResult(
        resource=change.resource,
        name=change.name,
        action=change.action,
        status="skipped" if reason else "unchanged",
        error=reason or None,
    )


class _Apply:
    """One plan on its way."""

    def __init__(
        self,
        plan: Plan,
        server: DeploymentWriter,
        writers: Writers,
        write_triggers: WriteTriggers | None,
        resource_writer: ResourceWriter | None,
        *,
        atomic: bool,
    ) -> None:
        self.plan, self.server, self.writers, self.atomic = plan, server, writers, atomic
        self.write_triggers, self.resource_writer = write_triggers, resource_writer
        self.stopped = ""  # why nothing more is written
        self.touched: set[str] = set()  # deployments that something was sent about
        self.labels: dict[str, Mapping[str, str]] = {}  # of what is deleted: the plan does not hold them
        self.due = [change for change in plan.changes if _is_due(change)]
        self.results = {change.deployment: _without_a_write(change) for change in plan.changes if not _is_due(change)}
        self.resources: list[ResourceResult] = []  # as they come
        self.half_set_back: set[str] = set()  # deployments that may be neither as planned nor as before
        wrong = [change.label for change in plan.resources if change.action == "conflict"]
        blocked = [*wrong, *(result.deployment for result in self.results.values() if result.status == "skipped")]
        if atomic and blocked:
            self._stop(f"--atomic, and {blocked[0]} cannot be done")

    def result(self) -> DeploymentResult:
        """What became of each change by now."""
        untried = {
            change.deployment: _result(change, "skipped", "not tried: it was interrupted")
            for change in self.plan.changes
            if change.deployment not in self.results
        }
        results = {**self.results, **untried}
        return DeploymentResult(
            environment=self.plan.environment,
            api_url=self.plan.api_url,
            results=tuple(results[change.deployment] for change in self.plan.changes),
            resources=self._resource_results() if self.resource_writer else (),
            problems=self.plan.problems,
            is_half_set_back=bool(self.half_set_back),
        )

    def _resource_results(self) -> tuple[ResourceResult, ...]:
        """One for each pool, queue and limit: as it was written, or why it was not."""
        why = f"not done: {self.stopped or 'it was interrupted'}"
        left = self.plan.resources[len(self.resources) :]
        return (*self.resources, *(_unwritten(change, why) for change in left))

    async def carry_out(self) -> None:
        """Write everything that there is to write; if that fails and the apply is atomic, take it back."""
        try:
            await self._write_resources()
            for jobs in self._phases():
                await self.writers.do([partial(self._one, change, part) for change, part in jobs])
        except anyio.get_cancelled_exc_class():
            await self._interrupted()
            raise
        if self.atomic and self.stopped:
            await undisturbed(self._restore)

    async def _write_resources(self) -> None:
        if self.stopped or self.resource_writer is None:
            return
        work = ResourceWork(self.resource_writer)
        self.resources = work.results
        for change in self.plan.resources:
            await self.writers.do([partial(work.carry_out, change)])
        broken = [result.label for result in self.resources if result.status == "failed"]
        if self.atomic and broken:
            self._stop(f"--atomic, and {broken[0]} failed")

    def _phases(self) -> Iterator[list[tuple[Change, Part]]]:
        """What is written together. The deployer comes last and alone: it may be the one that runs this."""
        own = [change for change in self.due if _is_own(change)]
        others = sorted((change for change in self.due if not _is_own(change)), key=_has_no_rhythm)
        additions = [change for change in others if change.action != "delete"]
        deletes = [change for change in others if change.action == "delete"]
        if not self.atomic:
            groups = (additions, deletes, own)
            yield from (_each(group, "whole") for group in groups)
            return
        yield _each(additions, "additions")
        yield _each([change for change in additions if _removed_schedules(change)], "removals")
        yield _each(deletes, "removals")
        yield _each([change for change in own if change.action != "delete"], "additions")
        yield _each([change for change in own if change.action == "delete" or _removed_schedules(change)], "removals")

    async def _one(self, change: Change, part: Part) -> None:
        """One change, or a part of it. Whatever becomes of it is in the results."""
        path = change.deployment
        if self.stopped:
            if path not in self.touched:
                self._note(change, "skipped", f"not tried: {self.stopped}")
            return
        if change.action == "delete" and (successor := self._lost_successor(change)):
            self._note(change, "skipped", predecessor_kept(successor))
            return
        if path not in self.touched:
            self.touched.add(path)
            self._note(change, "failed", "It was interrupted.")  # until it is done
        try:
            await self._carry_out(change, part)
        except FAILURES as error:
            reason = _reason(error, change)
            logger.error("%s %s failed: %s", change.action, path, reason)
            self._note(change, "failed", reason)
            self._stop_after(error, path)
        else:
            logger.info("%s %s", change.action, path)
            self._note(change, "applied")

    def _lost_successor(self, change: Change) -> str | None:
        """What should have come in place of a deployment that is to go, and has not."""
        flow = f"{change.deployment.partition('/')[0]}/"
        return next(
            (
                result.deployment
                for result in self.results.values()
                if result.action in COMING
                and result.status in ("failed", "skipped")
                and result.deployment.startswith(flow)
            ),
            None,
        )

    def _stop_after(self, error: Exception, path: str) -> None:
        if isinstance(error, ServerUnreachable):
            self._stop("the server did not answer any more")
        elif isinstance(error, LockedError):
            self._stop(error.message)
        elif self.atomic:
            self._stop(f"--atomic, and {path} failed")

    def _stop(self, why: str) -> None:
        self.stopped = self.stopped or why

    def _note(self, change: Change, status: ResultStatus, error: str | None = None) -> None:
        self.results[change.deployment] = _result(change, status, error)

    # ----- writing ---------------------------------------------------------------------------------------

    async def _carry_out(self, change: Change, part: Part) -> None:
        desired, live, attempt = change.desired, change.live, self.writers.attempt
        if change.action == "create" and desired is not None:
            id_ = await attempt(partial(self.server.create_deployment, desired, _labels(desired, self.plan)))
            if desired.triggers:
                await self._give_triggers(id_, desired)
        elif change.action == "delete" and live is not None:
            if self.atomic:
                self.labels[change.deployment] = await attempt(partial(self.server.read_labels, live.id))
            await attempt(partial(self.server.delete_deployment, live.id))
        elif desired is not None and live is not None:
            if part != "removals":
                await self._update(change, desired, live)
            if part != "additions":
                for id_ in _removed_schedules(change):
                    await attempt(partial(self.server.delete_schedule, live.id, id_))

    async def _update(self, change: Change, desired: DeploymentConfig, live: LiveDeployment) -> None:
        """Everything but the schedules that go."""
        names, gives_triggers = changed_fields(change.fields), _gives_triggers(change)
        fields = tuple(name for name in COMPARED_FIELDS if name in names)
        late: tuple[str, ...] = ()
        if change.action == "adopt" and gives_triggers:  # until they are there nobody owns it
            late, fields = tuple({"tags"} & {*fields}), tuple(name for name in fields if name != "tags")
        if fields:
            await self.writers.attempt(partial(self.server.update_deployment, live.id, desired, fields))
        if "paused" in names:
            await self.writers.attempt(partial(self.server.pause_deployment, live.id))
        if "schedules" in names:
            await self._write_schedules(desired, live)
        if gives_triggers:
            config = replace(desired, triggers=triggers_to_write(desired, live.config))
            await self._give_triggers(live.id, config, _taken_over(change))
        if late:
            await self.writers.attempt(partial(self.server.update_deployment, live.id, desired, late))

    async def _write_schedules(self, desired: DeploymentConfig, live: LiveDeployment) -> None:
        """Create and change single schedules: the ones that are right keep their ids and their runs."""
        known = [*live.schedule_ids]
        for pair in pair_schedules(desired.schedules, live):
            if pair.desired is None:
                continue
            if pair.live_id is None:
                create = partial(self.server.create_schedule, live.id, pair.desired, tuple(known))
                known.append(await self.writers.attempt(create))
            elif pair.differs:
                schedule = _in_rhythm(pair.desired, pair)
                await self.writers.attempt(partial(self.server.update_schedule, live.id, pair.live_id, schedule))

    async def _give_triggers(self, id_: str, config: DeploymentConfig, taken_over: Collection[str] = ()) -> None:
        if self.write_triggers is not None:
            await self.writers.attempt(partial(self.write_triggers, id_, config, taken_over))

    # ----- taking it back --------------------------------------------------------------------------------

    async def _interrupted(self) -> None:
        made = sum(outcome.status == "applied" for outcome in self.result().outcomes)
        logger.warning("Interrupted: %d of %d changes were made.", made, self.plan.writes)
        if self.atomic:
            self._stop("it was interrupted")
            await undisturbed(self._restore)

    async def _restore(self) -> None:
        """Set back everything that was touched: deployments first, since they need the pools and queues."""
        touched = [change for change in self.plan.changes if change.deployment in self.touched]
        if not touched and not self.resources:
            return
        logger.warning("Setting back what was made: %s.", self.stopped)
        self.writers.hope_again()
        await self.writers.do([partial(self._restore_one, change) for change in reversed(touched)])
        if self.resource_writer is not None:
            results = self._resource_results()
            self.resources = list(await undo(self.plan.resources, results, self.resource_writer))

    async def _restore_one(self, change: Change) -> None:
        before = self.results[change.deployment]
        self._note(change, "failed", "It was interrupted while it was being set back.")  # until it is done
        self.half_set_back.add(change.deployment)
        try:
            said = await self._set_back(change)
        except FAILURES as error:
            tried = f"{before.error} " if before.error else ""
            left = f"{tried}What was written of it ({change.action}) could not be set back: {_reason(error, change)}"
            logger.error("%s: %s", change.deployment, left)
            self._note(change, "failed", left)
            return
        self.half_set_back.discard(change.deployment)
        if before.status == "failed":
            self._note(change, "failed", f"{before.error} What was written of it was set back{said}.")
        else:
            self._note(change, "restored", f"it was made and then set back{said}: {self.stopped}")

    async def _set_back(self, change: Change) -> str:
        """Make one deployment what it was, whatever has arrived of what was written.

        Returns:
            What is not as before nevertheless, in words.
        """
        known = change.live.config if change.live else change.desired
        assert known is not None  # a change has at least one side
        find = partial(self.server.find_deployment, known.flow_name, known.deployment_name)
        now = await self.writers.attempt(find)
        if change.live is None:
            if now is not None and now.owner == self.plan.owner:
                await self.writers.attempt(partial(self.server.delete_deployment, now.id))
            return ""
        if now is None:
            return await self._create_again(change, change.live.config)
        if now.id != change.live.id:
            raise ServerError("Somebody has created another deployment of this name.", location=change.deployment)
        await self._set_back_fields(change, change.live, now)
        if "schedules" in changed_fields(change.fields):
            await self._set_back_schedules(change.live, now)
        return ""

    async def _create_again(self, change: Change, config: DeploymentConfig) -> str:
        labels = self.labels.get(change.deployment, {})
        id_ = await self.writers.attempt(partial(self.server.create_deployment, config, labels))
        if config.triggers:
            await self._give_triggers(id_, config)
        return " (created again: it has a new id, its earlier runs belong to the old one)"

    async def _set_back_fields(self, change: Change, live: LiveDeployment, now: LiveDeployment) -> None:
        names, attempt = changed_fields(change.fields), self.writers.attempt
        differs = [name for name in COMPARED_FIELDS if getattr(now.config, name) != getattr(live.config, name)]
        fields = tuple(name for name in differs if name in names)
        if fields:
            await attempt(partial(self.server.update_deployment, live.id, live.config, fields))
        if "paused" in names and now.config.paused and not live.config.paused:
            await attempt(partial(self.server.resume_deployment, live.id))
        if _gives_triggers(change) and change.desired is not None:
            config = replace(live.config, triggers=replaced_triggers(change.desired, live.config))
            await self._give_triggers(live.id, config, _taken_over(change))

    async def _set_back_schedules(self, live: LiveDeployment, now: LiveDeployment) -> None:
        was = dict(zip(live.schedule_ids, live.config.schedules, strict=True))
        there = dict(zip(now.schedule_ids, now.config.schedules, strict=True))
        for id_ in (id_ for id_ in there if id_ not in was):
            await self.writers.attempt(partial(self.server.delete_schedule, live.id, id_))
        for id_, schedule in was.items():
            if id_ not in there:
                create = partial(self.server.create_schedule, live.id, schedule, tuple(there))
                await self.writers.attempt(create)
            elif there[id_] != schedule:
                update = partial(self.server.update_schedule, live.id, id_, schedule, may_activate=True)
                await self.writers.attempt(update)


def _each(changes: Sequence[Change], part: Part) -> list[tuple[Change, Part]]:
    return [(change, part) for change in changes]


def _without_a_write(change: Change) -> ChangeResult:
    """The result of a change that writes nothing, or must not."""
    if change.action == "conflict":
        return _result(change, "skipped", "; ".join(change.reasons))
    if change.writes:
        told = "; ".join(f"{finding.message} {finding.remedy}".strip() for finding in change.obstacles)
        return _result(change, "skipped", told)
    return _result(change, "unchanged")


def _is_due(change: Change) -> bool:
    return change.writes and not change.obstacles


def _is_own(change: Change) -> bool:
    return change.deployment.startswith(f"{DEPLOYER_FLOW}/")


def _has_no_rhythm(change: Change) -> bool:
    """What runs by a schedule goes first: while the rest is written the server's scheduler makes its runs."""
    return change.desired is None or not any(schedule.active for schedule in change.desired.schedules)


def _removed_schedules(change: Change) -> Sequence[str]:
    """The ids of the schedules that an update deletes."""
    if change.live is None or change.desired is None or "schedules" not in changed_fields(change.fields):
        return ()
    pairs = pair_schedules(change.desired.schedules, change.live)
    return [pair.live_id for pair in pairs if pair.desired is None and pair.live_id is not None]


def _gives_triggers(change: Change) -> bool:
    """Whether automations are written: those that are taken over get the owner's tag even where nothing differs."""
    is_taken = change.action == "adopt" and change.desired is not None and bool(change.desired.triggers)
    return is_taken or "triggers" in changed_fields(change.fields)


def _taken_over(change: Change) -> Collection[str]:
    """The names of the automations that count as triggers of a deployment that is taken over, whoever made them."""
    if change.action != "adopt" or change.desired is None:
        return ()
    return {str(spec.get("name")) for spec in change.desired.triggers}


def _in_rhythm(desired: ScheduleConfig, pair: SchedulePair) -> ScheduleConfig:
    """An interval without an anchor of its own keeps the one it has: the server would let it start anew, from now."""
    if desired.interval is None or desired.anchor_date is not None or pair.live is None:
        return desired
    return replace(desired, anchor_date=pair.live.anchor_date)


def _labels(config: DeploymentConfig, plan: Plan) -> dict[str, str]:
    """Where a deployment comes from. Labels pass down to its runs, but can be set at creation only."""
    return {
        "orchestrator.project": plan.owner.project,
        "orchestrator.environment": plan.environment,
        "orchestrator.source": config.source,
    }


def _reason(error: Exception, change: Change) -> str:
    told = str(error) if isinstance(error, OrchestratorError) else f"{type(error).__name__}: {error}"
    for config in (change.desired, change.live.config if change.live else None):  # either is sent
        told = without_secrets(told, config) if config else told
    return told


def _result(change: Change, status: ResultStatus, error: str | None = None) -> ChangeResult:
    return ChangeResult(deployment=change.deployment, action=change.action, status=status, error=error)

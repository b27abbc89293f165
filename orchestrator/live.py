"""What needs the server: plan against it, apply to it, tell how it stands, delete by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial

import anyio

from orchestrator.apply import apply_plan, untouched
from orchestrator.automations import read_triggers, write_triggers
from orchestrator.config import DEPLOYER_FLOW, Policy
from orchestrator.desired import Selection
from orchestrator.errors import HeldError, ServerBusy, ServerError, ServerUnreachable
from orchestrator.facts import misfits, read_facts
from orchestrator.holds import held_back, read_hold, release_hold, set_hold
from orchestrator.images.changes import as_deployed, image_findings, with_pinned
from orchestrator.images.stages import with_decided_images
from orchestrator.interruption import undisturbed
from orchestrator.lock import environment_lock
from orchestrator.model import (
    Change,
    CleanupResult,
    DeploymentResult,
    DeploymentStatus,
    Desired,
    EnvironmentStatus,
    Finding,
    Hold,
    LiveDeployment,
    Owner,
    Plan,
    RecordedState,
    Resources,
    Revision,
)
from orchestrator.moved import has_moved, outline
from orchestrator.pipeline import narrowed
from orchestrator.plan import (
    is_left_alone,
    kind_of,
    make_plan,
    out_of_sync,
    refreshed,
    too_much,
    touching,
    with_causes,
    with_findings,
    with_predecessors_kept,
    with_runs,
)
from orchestrator.pools import ResourceDoor, read_resources
from orchestrator.preflight import findings
from orchestrator.recording import holds
from orchestrator.resources import Spec, plan_resources, resources_in
from orchestrator.revisions import RevisionStore, record_apply
from orchestrator.runs import touched_runs
from orchestrator.server import PrefectServer, open_server
from orchestrator.templating import resolve
from orchestrator.terms import Terms
from orchestrator.verify import pool_findings, verify, waits_for_runs, why_not_ready
from orchestrator.writers import PATIENCE_SECONDS, Writers

logger = logging.getLogger(__name__)

LAST_WORDS_SECONDS = 10.0  # for what has to be done after an interruption

# ---------------------------------------------------------------------------------------------------------
# Plan
# ---------------------------------------------------------------------------------------------------------


def make_ready() -> None:
    """Load what a plan with changes needs beyond this module, for who has time now."""
    misfits({}, {}, none_for_default=False)  # it imports Prefect's checks of schemas


async def plan_changes(
    desired: Desired,
    policy: Policy,
    *,
    api_url: str | None = None,
    selection: Selection | None = None,
    adopt: Sequence[str] = (),
    recorded_as: str = "",
) -> Plan:
    """Read the server and compare; nothing is written.

    Args:
        desired: what the environment should have; placeholders in it are filled from the server.
        policy: the environment's.
        api_url: the server; None: the one that Prefect's settings name.
        selection: what to plan; None: everything.
        adopt: patterns of unowned deployments to take over.
        recorded_as: where what is desired was recorded (`revision 3`), with its placeholders filled; empty: it is what
            the repository asks for.

    Returns:
        The plan; where it changes anything, with what speaks against it, who moved, and which runs it concerns.

    Raises:
        ServerUnreachable, ServerError: the server did not answer.
    """
    chosen = selection or Selection()
    async with open_server(api_url) as server:
        wanted = narrowed(desired if recorded_as else await resolve(desired, server), chosen)
        wanted, images = await with_decided_images(wanted, server)
        resources = wanted.resources if chosen.is_everything else _needed(wanted)
        number = await _last_number(server, desired.owner)  # first: who applies from now on changes it
        there = await _read_live(server)
        images = as_deployed(wanted, images, there)
        plan = make_plan(
            with_pinned(wanted, images),
            there,
            api_url=server.api_url,
            policy=policy,
            selection=chosen,
            adopt=adopt,
            resources=plan_resources(resources, await read_resources(server, resources)),
        )
        told = f"otherwise in {recorded_as}" if recorded_as else "the repository changed"
        plan = replace(plan, images=images, read_after=number, too_much=too_much(plan, policy))
        plan = await _explained(plan, resources, server, told)
        if recorded_as or not chosen.is_everything:
            return plan
        return replace(plan, hold=await read_hold(server, plan.owner))


async def _read_live(server: PrefectServer, flows: Collection[str] | None = None) -> tuple[LiveDeployment, ...]:
    return await read_triggers(server, await server.read_deployments(flows))


def _needed(desired: Desired) -> Resources:
    """The pools and queues that a part of the deployments runs in."""
    pools = {config.work_pool for config in desired.deployments}
    resources = desired.resources
    return Resources(
        pools=tuple(pool for pool in resources.pools if pool.name in pools),
        queues=tuple(queue for queue in resources.queues if queue.pool in pools),
    )


async def _explained(plan: Plan, resources: Resources, server: PrefectServer, told: str) -> Plan:
    """What a reader of a plan wants to know beyond the differences; nothing is asked where nothing changes."""
    if not plan.has_changes:
        return plan
    plan = with_causes(plan, await _last_record(RevisionStore(server, plan.owner)), told=told)
    plan = with_runs(plan, await touched_runs(server, touching(plan)))
    facts = await read_facts(server, plan.changes, resources)
    plan = with_findings(plan, {change.deployment: findings(change, facts, misfits) for change in plan.changes})
    return with_predecessors_kept(with_findings(plan, image_findings(plan)))


# ---------------------------------------------------------------------------------------------------------
# Apply
# ---------------------------------------------------------------------------------------------------------


async def apply_changes(
    plan: Plan,
    *,
    api_url: str | None = None,
    terms: Terms | None = None,
    tell: Callable[[str], None] = logger.info,
    on_interrupt: Callable[[DeploymentResult], object] | None = None,
) -> DeploymentResult:
    """Carry out a plan, alone in its environment, and record it. A plan without changes writes nothing at all.

    Args:
        plan: what to do.
        api_url: the server; None: the one that Prefect's settings name.
        terms: how; None: as usual.
        tell: is told, in words, whom we wait for.
        on_interrupt: is given what was done, and recorded, by the time that somebody interrupted.

    Returns:
        What became of each change; what fails is in it, nothing is raised for it.

    Raises:
        LockedError: somebody else applies, and the terms are not to wait.
        HeldError: it is a scheduled sync, which is held back.
        RefusedError: the plan was reviewed, and the server has moved since.
        ServerUnreachable, ServerError: the server did not answer before anything was written.
    """
    terms = terms or Terms()
    known: list[DeploymentResult] = []  # what was done, the newest last
    try:
        async with open_server(api_url) as server:
            if not plan.has_changes:
                ends_hold = await _end_hold(terms, plan.owner, server)
                return replace(untouched(plan), ends_hold=ends_hold)
            async with environment_lock(server, plan.owner, terms.holder, wait=terms.waits, tell=tell) as lock:
                now = await _still_the_same(plan, terms, server, waited=lock.waited)
                await _require_no_hold(terms, plan.owner, server)
                earlier = await read_hold(server, plan.owner) if terms.hold else None
                writers = Writers(patience=PATIENCE_SECONDS, before=lock.require, alive=server.is_alive)
                await _carry_out(_Work(now, terms, server, writers, earlier), known)
            if terms.verifies:
                known.append(await _verified(now, known[-1], server))
        return known[-1]
    except anyio.get_cancelled_exc_class():
        if known and on_interrupt is not None:
            on_interrupt(replace(known[-1], is_interrupted=True))
        raise


def is_undone(result: DeploymentResult, terms: Terms) -> bool:
    """Whether an atomic apply has failed, and nothing of it stands: it began nothing that goes on."""
    return terms.is_atomic and bool(result.failed) and not result.wrote and not result.is_half_set_back


async def _verified(plan: Plan, result: DeploymentResult, server: PrefectServer) -> DeploymentResult:
    read = partial(_read_live, server)
    return _with_findings(result, await verify(plan, result, server, read=read))


def _with_findings(result: DeploymentResult, more: Mapping[str, tuple[Finding, ...]]) -> DeploymentResult:
    findings = dict(result.findings)
    for place, found in more.items():
        findings[place] = (*findings.get(place, ()), *found)
    return replace(result, findings=findings)


async def _still_the_same(plan: Plan, terms: Terms, server: PrefectServer, *, waited: bool) -> Plan:
    """The plan against the server as it is now: until the lock was ours, others may have applied.

    If nobody has, by the lock and by the records, only the flows that are about to change are read once more.

    Raises:
        RefusedError: a person has looked at the plan, and by now it would do something else.
    """
    wanted = resources_in(plan.resources)
    resources = plan_resources(wanted, await read_resources(server, wanted))
    is_quiet = not waited and await _last_number(server, plan.owner) == plan.read_after
    flows = {_flow(change) for change in plan.changes if change.writes or not is_quiet}
    others = [change.live for change in plan.changes if change.live is not None and _flow(change) not in flows]
    there = await _read_live(server, flows if is_quiet else None)
    now = refreshed(plan, (*others, *there), adopt=terms.adopt, resources=resources)
    if terms.is_reviewed and now.checksum != plan.checksum:
        raise has_moved("The server has", outline(plan), now)
    return now


def _flow(change: Change) -> str:
    return change.deployment.partition("/")[0]


async def _last_number(server: PrefectServer, owner: Owner) -> int | None:
    last = await RevisionStore(server, owner).latest_revision()
    return last.number if last else None


class _PatientWriter:
    """Writes pools, queues and limits, and repeats what is worth it; see `resources.ResourceWriter`."""

    def __init__(self, door: ResourceDoor, writers: Writers) -> None:
        self._door, self._writers = door, writers

    async def create(self, spec: Spec) -> bool:
        return await self._writers.attempt(partial(self._door.create, spec))

    async def update(self, spec: Spec, names: Sequence[str]) -> None:
        await self._writers.attempt(partial(self._door.update, spec, names))

    async def remove(self, spec: Spec) -> None:
        await self._writers.attempt(partial(self._door.remove, spec))


@dataclass(frozen=True, slots=True)
class _Work:
    """An apply under the lock."""

    plan: Plan
    terms: Terms
    server: PrefectServer
    writers: Writers
    earlier_hold: Hold | None  # that there was before this apply set its own


async def _carry_out(work: _Work, known: list[DeploymentResult]) -> None:
    """Write what there is to write, then the record, whatever became of it and whoever interrupts."""
    if work.terms.hold is not None:
        await _set_hold(work, work.terms.hold)
    try:
        known.append(await _written(work, known.append))
    except anyio.get_cancelled_exc_class():
        with anyio.CancelScope(shield=True), anyio.move_on_after(LAST_WORDS_SECONDS):
            await _finish(work, known, patience=LAST_WORDS_SECONDS / 3)
        raise
    patience = 0.0 if work.writers.is_gone else PATIENCE_SECONDS  # who is gone is asked once more only
    await undisturbed(partial(_finish, work, known, patience=patience), seconds=LAST_WORDS_SECONDS)


async def _set_hold(work: _Work, hold: Hold) -> None:
    """Set the hold of a rollback, before anything is written; not if that fails, or somebody interrupts."""
    try:
        await set_hold(work.server, hold)
    except (ServerError, anyio.get_cancelled_exc_class()):
        with anyio.CancelScope(shield=True), anyio.move_on_after(LAST_WORDS_SECONDS), suppress(ServerError):
            await _put_back_hold(work)
        raise


async def _put_back_hold(work: _Work) -> None:
    """What was in place of the hold that this apply has set."""
    if work.earlier_hold:
        await set_hold(work.server, work.earlier_hold)
    else:
        await release_hold(work.server, work.plan.owner)


async def _written(work: _Work, on_interrupt: Callable[[DeploymentResult], object]) -> DeploymentResult:
    return await apply_plan(
        work.plan,
        work.server,
        atomic=work.terms.is_atomic,
        writers=work.writers,
        write_triggers=partial(write_triggers, work.server),
        resources=_PatientWriter(ResourceDoor(work.server), work.writers),
        on_interrupt=on_interrupt,
    )


async def _finish(work: _Work, known: list[DeploymentResult], *, patience: float) -> None:
    """Record what was done, and settle the hold. What fails of that is a finding: the changes are made.

    It is recorded without the lock, too, if that was lost meanwhile.

    Args:
        work: the apply.
        known: its result; what comes of this is added.
        patience: seconds for each of both.
    """
    result, place = known[-1], work.plan.owner.tag
    if result.wrote:
        known.append(_with_findings(result, {place: (_unrecorded("It was interrupted."),)}))  # until it is
    with work.server.writing():
        try:
            revision = await Writers(patience=patience).attempt(partial(_record, work, result))
            known.append(replace(result, revision=revision.number if revision else None))
        except ServerError as error:
            known.append(_with_findings(result, {place: (_unrecorded(error.message),)}))
        try:
            ends_hold = await Writers(patience=patience).attempt(partial(_settle_hold, work, result))
            known.append(replace(known[-1], ends_hold=ends_hold))
        except ServerError as error:
            known.append(_with_findings(known[-1], {place: (_unsettled(error),)}))


async def _record(work: _Work, result: DeploymentResult) -> Revision | None:
    store = RevisionStore(work.server, work.plan.owner)
    # A part alone would be no state.
    before = await (_last_record(store) if work.terms.concerns_all else store.latest())
    return await record_apply(store, work.plan, result, work.terms, before)


async def _settle_hold(work: _Work, result: DeploymentResult) -> bool:
    """What becomes of holds after an apply: the one that it came with may be as undone as its changes.

    Returns:
        Whether scheduled sync goes on that was held back before.
    """
    if work.terms.hold is not None and is_undone(result, work.terms):
        await _put_back_hold(work)
    return result.wrote and await _end_hold(work.terms, work.plan.owner, work.server)


def _unrecorded(why: str) -> Finding:
    return Finding(
        message=f"The changes were made, but not recorded: {why}",
        remedy="`history` and `rollback` do not know of them; the next apply that changes something is recorded.",
    )


def _unsettled(error: ServerError) -> Finding:
    return Finding(
        message=f"Whether scheduled sync is held back could not be settled: {error.message}",
        remedy="`status` tells how it is, `rollback --release` lets it go on.",
    )


async def _last_record(store: RevisionStore) -> RecordedState | None:
    """What was recorded last. A record that cannot be read is as good as none: it is not needed for doing things."""
    try:
        return await store.latest()
    except (ServerBusy, ServerUnreachable):
        raise
    except ServerError as error:
        logger.warning("The last revision cannot be used: %s", error)
        return None


async def _require_no_hold(terms: Terms, owner: Owner, server: PrefectServer) -> None:
    """Keep a scheduled sync from undoing a rollback, be it one that came while the sync waited for the lock.

    Raises:
        HeldError: there is a hold, and the repository asks for the same as when it was set.
    """
    if terms.provenance.trigger != "schedule":
        return
    if hold := await held_back(server, owner, terms.desired_digest):
        raise HeldError(
            f"Scheduled sync waits since the rollback to revision {hold.revision} by {hold.by or 'somebody'}.",
            location=owner.tag,
            remedy="`orchestrator rollback --release` lifts this, and so does a change of the repository.",
        )


async def _end_hold(terms: Terms, owner: Owner, server: PrefectServer) -> bool:
    """What a person applies, if it is all that the repository asks for, ends what a rollback has begun.

    Returns:
        Whether there was a hold that ends.
    """
    is_by_hand = terms.hold is None and terms.provenance.trigger not in ("schedule", "bootstrap")
    if not is_by_hand or not terms.concerns_all or not await read_hold(server, owner):
        return False
    await release_hold(server, owner)
    return True


async def hold_on(owner: Owner, digest: str, *, api_url: str | None = None) -> Hold | None:
    """The hold that keeps scheduled sync from applying what the repository asks for; one that is over is lifted."""
    async with open_server(api_url) as server:
        return await held_back(server, owner, digest)


# ---------------------------------------------------------------------------------------------------------
# Status
# ---------------------------------------------------------------------------------------------------------


async def read_status(desired: Desired, policy: Policy, digest: str, api_url: str | None) -> EnvironmentStatus:
    """How each deployment of an environment stands on the server, and what they need around them.

    Args:
        desired: what it should have.
        policy: the environment's.
        digest: of what the repository asks for: tells whether a hold still holds.
        api_url: the server.
    """
    async with open_server(api_url) as server:
        wanted, images = await with_decided_images(await resolve(desired, server), server)
        live = await _read_live(server)
        wanted = with_pinned(wanted, as_deployed(wanted, images, live))
        resources = plan_resources(wanted.resources, await read_resources(server, wanted.resources))
        plan = make_plan(wanted, live, api_url=server.api_url, policy=policy, resources=resources)
        if plan.has_changes:
            plan = with_causes(plan, await _last_record(RevisionStore(server, plan.owner)))
        ours = [item for item in live if item.owner == desired.owner]
        pools = await pool_findings(ours, server)
        scheduled = await server.deployments_with_scheduled_runs([item.id for item in ours if waits_for_runs(item)])
        hold = await read_hold(server, desired.owner)
    return EnvironmentStatus(
        environment=desired.owner.environment,
        api_url=plan.api_url,
        deployments=tuple(_status(change, pools, scheduled) for change in plan.changes),
        resources=tuple(change for change in plan.resources if change.action != "unchanged"),
        problems=wanted.problems,
        hold=hold if hold and holds(hold, digest) else None,
    )


def _status(change: Change, pools: Mapping[str, Finding], scheduled: frozenset[str]) -> DeploymentStatus:
    unready: tuple[str, ...] = ("not on the server",)
    if change.live:
        found = why_not_ready(change.live, pools, scheduled)
        unready = tuple(f"{finding.message}: {finding.remedy}" for finding in found)
    return DeploymentStatus(
        deployment=change.deployment,
        in_sync=change.action == "unchanged" and not is_left_alone(change),
        ready=not unready,
        problems=(*out_of_sync(change), *(unready if change.live else ()), *change.kept),
    )


# ---------------------------------------------------------------------------------------------------------
# Delete by name
# ---------------------------------------------------------------------------------------------------------


async def find_deployments(
    owner: Owner, pattern: str, api_url: str | None
) -> tuple[tuple[LiveDeployment, ...], tuple[str, ...]]:
    """Live deployments by pattern on flow/deployment: ours, and the names of those that are not.

    The deployer's own deployment is not met by a pattern such as `*`: its flow must be named.
    """
    async with open_server(api_url) as server:
        live = await server.read_deployments()
    found = [item for item in live if fnmatchcase(item.config.deployment_path, pattern)]
    names_deployer = pattern.startswith(f"{DEPLOYER_FLOW}/")
    ours = tuple(
        item for item in found if item.owner == owner and (names_deployer or item.config.flow_name != DEPLOYER_FLOW)
    )
    return ours, tuple(item.config.deployment_path for item in found if item.owner != owner)


async def delete_deployments(
    owner: Owner,
    deployments: Sequence[LiveDeployment],
    foreign: Sequence[str],
    pattern: str,
    *,
    api_url: str | None,
    terms: Terms,
    tell: Callable[[str], None] = logger.info,
    on_interrupt: Callable[[CleanupResult], object] | None = None,
) -> CleanupResult:
    """Delete deployments of ours, as an apply: alone in the environment, recorded, one failure does not stop the rest.

    Args:
        owner: whose they are.
        deployments: which.
        foreign: what the pattern meets besides, which is not ours.
        pattern: as it was given.
        api_url: the server.
        terms: as for an apply; its selection must take nothing but these.
        tell: is told, in words, whom we wait for.
        on_interrupt: is given what was deleted by the time that somebody interrupted.
    """
    reasons = (f"it matches {pattern}",)
    changes = tuple(
        Change(
            action="delete",
            deployment=item.config.deployment_path,
            kind=kind_of(item.config),
            reasons=reasons,
            live=item,
        )
        for item in deployments
    )
    plan = Plan(owner=owner, api_url=api_url or "", changes=changes)
    cleaned = partial(_cleaned, pattern, foreign)
    told = None if on_interrupt is None else lambda result: on_interrupt(cleaned(result))
    return cleaned(await apply_changes(plan, api_url=api_url, terms=terms, tell=tell, on_interrupt=told))


def _cleaned(pattern: str, foreign: Sequence[str], result: DeploymentResult) -> CleanupResult:
    return CleanupResult(
        status=result.status,
        pattern=pattern,
        deleted=tuple(item.deployment for item in result.results if item.status == "applied"),
        foreign=tuple(foreign),
        failed={item.deployment: item.error or item.status for item in result.results if item.status != "applied"},
        findings=result.findings,
    )

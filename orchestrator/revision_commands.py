"""The commands about recorded applies: list them, go back to one, take one into the next environment."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import anyio
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Group
from rich.text import Text

from orchestrator import fault_report, live, pipeline, plan_report, report
from orchestrator.applying import carried_out, exit_code
from orchestrator.config import DEPLOYER_FLOW, ConfigurationManager, EnvironmentConfig
from orchestrator.confirmation import ask
from orchestrator.errors import ConfigurationError, RefusedError
from orchestrator.git import commit_of, is_dirty
from orchestrator.holds import read_hold, release_hold, set_hold
from orchestrator.model import (
    DeploymentConfig,
    DeploymentResult,
    Desired,
    Hold,
    LiveDeployment,
    Owner,
    Plan,
    Provenance,
    RecordedState,
    Revision,
)
from orchestrator.options import Manner
from orchestrator.plan import check_deletes
from orchestrator.promotion import as_committed_since, promotable_commit, promoted
from orchestrator.provenance import user_at_host
from orchestrator.recording import desired_digest
from orchestrator.revision_report import folder_lines, history_json, history_text, hold_line, short_commit
from orchestrator.revisions import RevisionStore
from orchestrator.server import open_server
from orchestrator.terminal import OnServer, Terminal
from orchestrator.terms import ONLY, Terms

ARevision = Annotated[int, Parameter(validator=Number(gte=1))]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One environment and its server, as far as its own files say: a fault in a prefect.yaml keeps nobody from going
    back."""

    root: Path
    owner: Owner
    environment: EnvironmentConfig
    api_url: str | None


def place_of(root: Path, env: str, api_url: str | None, *, writes: bool) -> Place:
    """Read where an environment is.

    Raises:
        ConfigurationError: its file or the project's has faults, or there is no such environment.
    """
    manager = ConfigurationManager(root)
    manager.require_project()
    project, environment = manager.load_project(), manager.load_environment_config(env)
    return Place(
        root=manager.root,
        owner=Owner(project=project.project, environment=environment.name),
        environment=environment,
        api_url=pipeline.server_address(environment, api_url, writes=writes),
    )


# ---------------------------------------------------------------------------------------------------------
# history
# ---------------------------------------------------------------------------------------------------------


def history(*, server: OnServer = OnServer(), limit: ARevision = 20) -> int:  # noqa: B008 - frozen
    """List what was applied to the environment: when, from which commit, by whom, and what changed.

    Args:
        limit: How many to list, the newest first.
    """
    terminal = Terminal(server.output)
    place = place_of(server.root, server.env, server.api_url, writes=False)
    revisions, hold = anyio.run(_history, place)
    shown = revisions[:limit]
    terminal.show(history_text(place.environment.name, shown, hold), history_json(shown, hold))
    return 0


async def _history(place: Place) -> tuple[tuple[Revision, ...], Hold | None]:
    async with open_server(place.api_url) as server:
        revisions = await RevisionStore(server, place.owner).history()
        return revisions, await read_hold(server, place.owner)


# ---------------------------------------------------------------------------------------------------------
# rollback
# ---------------------------------------------------------------------------------------------------------


def rollback(
    revision: ARevision | None = None,
    *,
    server: OnServer = OnServer(),  # noqa: B008
    yes: bool = False,
    release: bool = False,
    manner: Manner = Manner(),  # noqa: B008
) -> int:
    """Apply an older revision again, and let scheduled sync wait until the repository asks for something else.

    Args:
        revision: Its number in `history`; default: the one before the last, or the last if the server differs from it.
        yes: Do not ask.
        release: Only let scheduled sync go on.
    """
    terminal = Terminal(server.output)
    place = place_of(server.root, server.env, server.api_url, writes=True)
    if release:
        return _release(terminal, place, revision)
    target, which = anyio.run(_target, place, revision)
    found = anyio.run(_plan_back, place, target)
    source = target.revision
    words = f"{place.owner.environment} on {found.api_url}: back to revision {source.number}{which}"
    _tell(terminal, words, source, found, place.root)
    note = f"rollback to {source.number}"
    _make_sure(terminal, place, found, f"Go back to revision {source.number}?", manner, yes=yes)
    hold = Hold(
        owner=place.owner,
        revision=source.number,
        desired_digest=_digest_of_repository(server, terminal),
        by=user_at_host(),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    provenance = replace(source.provenance, by=hold.by, trigger="rollback", note=note)
    terms = _terms(place, provenance, source.desired_digest, manner, yes=yes, hold=hold)
    result = carried_out(terminal, partial(_apply, place, found, terms))
    held = () if live.is_undone(result, terms) else (hold_line(hold),)
    _show(terminal, result, {"rolled_back_to": source.number}, *held)
    return exit_code(result.status)


def _release(terminal: Terminal, place: Place, revision: int | None) -> int:
    if revision is not None:
        raise ConfigurationError("--release goes back to no revision.", remedy="Leave out the number, or --release.")
    released = anyio.run(_lift, place)
    words = "scheduled sync goes on" if released else "scheduled sync is not held back"
    terminal.show(Text(f"{place.environment.name}: {words}"), {"released": released})
    return 0


async def _lift(place: Place) -> bool:
    async with open_server(place.api_url) as server:
        return await release_hold(server, place.owner)


async def _target(place: Place, number: int | None) -> tuple[RecordedState, str]:
    """The revision to go back to and, where nobody named it, which one that is.

    An apply that died before it was recorded, or a person, may have left the deployments otherwise than the last
    revision says: then that one is what was there before. Pools and limits do not count, since other environments may
    share them and want them otherwise for good, nor does what cannot be changed.
    """
    if number is not None:
        return await _recorded(place, number), ""
    revisions, _ = await _history(place)
    if revisions:
        last = await _recorded(place, revisions[0].number)
        found = await _plan_towards(place, last, _without_deployer(last))
        if any(change.writes and not change.obstacles for change in found.changes):
            return last, ", the last one: the server is not as it says"
    before = one_before(revisions)
    if before is None:
        raise ConfigurationError(
            "There is no revision to go back to: "
            + (f"none before revision {revisions[-1].number} is recorded." if revisions else "none is recorded."),
            location=place.owner.tag,
            remedy="`orchestrator history` lists them.",
        )
    return await _recorded(place, before.number), ", the one before"


def one_before(revisions: Sequence[Revision]) -> Revision | None:
    """The revision before the last; after a rollback the one before that which was gone back to: a second rollback
    goes further back, not forward again."""
    if not revisions:
        return None
    last = revisions[0]
    gone_back = (
        re.fullmatch(r"rollback to (\d+)", last.provenance.note) if last.provenance.trigger == "rollback" else None
    )
    number = int(gone_back[1]) if gone_back else last.number
    return next((each for each in revisions if each.number < number), None)


async def _plan_back(place: Place, target: RecordedState) -> Plan:
    """What leads to what the environment had then. The deployer's own deployment stays as it is where there is one."""
    async with open_server(place.api_url) as server:
        there = await server.read_deployments()
    deployer = _lost_deployer(target, place.owner, there)
    return await _plan_towards(place, target, (*_without_deployer(target), *deployer))


def _without_deployer(target: RecordedState) -> tuple[DeploymentConfig, ...]:
    return tuple(config for config in target.deployments if config.flow_name != DEPLOYER_FLOW)


def _lost_deployer(
    target: RecordedState, owner: Owner, there: Sequence[LiveDeployment]
) -> tuple[DeploymentConfig, ...]:
    """The deployer's own deployment as it was then, if by now there is none of ours, and its name is free."""
    deployers = [item for item in there if item.config.flow_name == DEPLOYER_FLOW]
    taken = {item.config.deployment_path for item in deployers}
    if any(item.owner == owner for item in deployers):
        return ()
    own = [config for config in target.deployments if config.flow_name == DEPLOYER_FLOW]
    return tuple(config for config in own if config.deployment_path not in taken)


async def _plan_towards(place: Place, target: RecordedState, deployments: tuple[DeploymentConfig, ...]) -> Plan:
    """A plan for deployments of a revision, and for its pools, queues and limits.

    Deployments that came after it are deleted, in an environment that does not prune as well: going back is asked for,
    while pruning happens by the way. The limit on deletes holds. Pools and limits that came after it stay.
    """
    name = f"revision {target.revision.number}"
    policy = place.environment.policy.model_copy(update={"prune": True})
    desired = Desired(owner=place.owner, deployments=deployments, resources=target.resources)
    plan = await live.plan_changes(desired, policy, api_url=place.api_url, recorded_as=name)
    reasons = (f"it is not in {name}",)
    changes = (replace(change, reasons=reasons) if change.action == "delete" else change for change in plan.changes)
    return replace(plan, changes=tuple(changes))


def _digest_of_repository(server: OnServer, terminal: Terminal) -> str:
    """What the repository asks for now; empty where it has faults: once they are mended, it asks for something else."""
    try:
        with terminal.working("reading the repository"):
            asked = pipeline.read_repository(server.root, server.env)
    except ConfigurationError:
        return ""
    return desired_digest(asked.desired, asked.settings.root)


# ---------------------------------------------------------------------------------------------------------
# promote
# ---------------------------------------------------------------------------------------------------------


def promote(
    *,
    source: Annotated[str, Parameter(name="--from", help="The environment whose last apply is taken.")],
    server: OnServer = OnServer(),  # noqa: B008
    revision: ARevision | None = None,
    from_api_url: str | None = None,
    yes: bool = False,
    manner: Manner = Manner(),  # noqa: B008
) -> int:
    """Take the commit and the images of one environment into another one, with that one's configuration.

    Args:
        revision: Which revision of the first environment; default: the last.
        from_api_url: The first environment's server; default: the one that its file names.
        yes: Do not ask.
    """
    terminal = Terminal(server.output)
    place = place_of(server.root, server.env, server.api_url, writes=True)
    first = place_of(server.root, source, from_api_url, writes=False)
    if first.owner == place.owner:
        raise RefusedError("An environment is not promoted into itself.", remedy="Name another one with --from.")
    recorded = as_committed_since(anyio.run(_recorded, first, revision), place.root)
    promotable_commit(recorded.revision)  # before any work
    number = recorded.revision.number
    with terminal.working(f"reading commit {short_commit(recorded.revision)}"):
        desired = promoted(place.root, server.env, recorded)
    found = anyio.run(partial(live.plan_changes, desired, place.environment.policy, api_url=place.api_url))
    words = f"{source} {number} into {server.env} on {found.api_url}"
    _tell(terminal, words, recorded.revision, found, place.root)
    question = f"Take revision {number} of {source} into {server.env}?"
    _make_sure(terminal, place, found, question, manner, yes=yes)
    note = f"promoted from {source} {number}"
    provenance = replace(recorded.revision.provenance, by=user_at_host(), trigger="promotion", note=note)
    terms = _terms(place, provenance, desired_digest(desired, place.root), manner, yes=yes)
    result = carried_out(terminal, partial(_apply, place, found, terms))
    _show(terminal, result, {"promoted_from": {"environment": source, "revision": number}})
    return exit_code(result.status)


async def _recorded(place: Place, number: int | None) -> RecordedState:
    async with open_server(place.api_url) as server:
        store = RevisionStore(server, place.owner)
        found = await store.latest() if number is None else await store.read(number)
    if found is None:
        raise ConfigurationError(
            f"Nothing is recorded for {place.owner.environment}.",
            location=place.owner.tag,
            remedy="Apply to it first.",
        )
    return found


# ---------------------------------------------------------------------------------------------------------
# What both do
# ---------------------------------------------------------------------------------------------------------


def _terms(
    place: Place, provenance: Provenance, digest: str, manner: Manner, *, yes: bool, hold: Hold | None = None
) -> Terms:
    return Terms(
        provenance=provenance,
        desired_digest=digest,
        is_reviewed=not yes,
        keep_revisions=place.environment.policy.keep_revisions,
        hold=hold,
        **manner.terms,
    )


async def _apply(
    place: Place,
    plan: Plan,
    terms: Terms,
    *,
    tell: Callable[[str], None],
    on_interrupt: Callable[[DeploymentResult], object],
) -> DeploymentResult:
    """Carry out a plan. Where it changes nothing, nothing is written but the hold, which is what was asked for."""
    if not plan.has_changes:
        async with open_server(place.api_url) as server:
            if terms.hold is not None:
                await set_hold(server, terms.hold)
            else:
                await release_hold(server, place.owner)
    return await live.apply_changes(plan, api_url=place.api_url, terms=terms, tell=tell, on_interrupt=on_interrupt)


def _tell(terminal: Terminal, words: str, source: Revision, plan: Plan, root: Path) -> None:
    """Say what is about to be done, and what a reader may take for granted but is not so."""
    terminal.tell(Text(f"{words} ({short_commit(source)}, {source.applied_at})", style="bold"))
    for line in _cautions(source, plan, root):
        terminal.tell(Text(line, style="yellow"))


def _cautions(source: Revision, plan: Plan, root: Path) -> Iterator[str]:
    if source.status != "completed":
        where = f"Revision {source.number} of {source.owner.environment}"
        yield f"{where} is {source.status}: not all of it was applied there."
    if source.provenance.note.startswith(f"{ONLY} ") and source.provenance.trigger != "bootstrap":
        yield (
            f"Revision {source.number} of {source.owner.environment} was of a part ({source.provenance.note}): "
            f"other deployments there may come from another commit."
        )
    commit, is_clean = source.provenance.commit, not source.provenance.is_dirty
    is_there = is_clean and commit is not None and commit == commit_of(root) and not is_dirty(root)
    yield from folder_lines(plan, source, right=root if is_there else None)


def _make_sure(terminal: Terminal, place: Place, plan: Plan, question: str, manner: Manner, *, yes: bool) -> None:
    """The safety rules, and a person's yes.

    Raises:
        RefusedError: the plan deletes too much, or nobody said yes.
    """
    if not manner.allow_delete:
        if plan.too_much:
            terminal.error.print(plan_report.plan_text(plan))
        check_deletes(plan, place.environment.policy, look="See the plan above")
    if plan.has_changes and not yes:
        ask(terminal, plan_report.plan_text(plan), question)


def _show(terminal: Terminal, result: DeploymentResult, more: dict[str, object], *below: str) -> None:
    lines = [Text(line, style="magenta") for line in below]
    text = Group(fault_report.problems_text(result.problems), report.result_text(result), *lines)
    terminal.show(text, {**report.result_json(result), **more})

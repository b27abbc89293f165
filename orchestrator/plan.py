"""Desired × live → Plan: what has to happen to each deployment, and why.

Pure functions of values: nothing is read, nothing is written. The rules that keep people's work safe live here: only
what carries our mark is changed or deleted, nobody's paused deployment is resumed, what a broken file asks for is left
alone, and a plan that would delete much is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from typing import Any

from orchestrator.config import DEPLOYER_FLOW, Policy
from orchestrator.desired import Selection
from orchestrator.differences import differences
from orchestrator.errors import RefusedError
from orchestrator.masking import without_secrets
from orchestrator.model import (
    DEFAULT_ENVIRONMENT,
    Action,
    Change,
    DeploymentConfig,
    Desired,
    Finding,
    Kind,
    LiveDeployment,
    Owner,
    Plan,
    RecordedState,
    ResourceChange,
    TouchedRuns,
)
from orchestrator.reasons import deleted_since, reasons_of
from orchestrator.resources import with_resource_causes
from orchestrator.step_outputs import as_live, open_outputs, with_pins

TAKEN_OVER = "taken over on request: it belonged to nobody"
_OF_OURS = ("source", "concealed", "steps", "images", "follows_code")  # of no interest to a server
COMING: tuple[Action, ...] = ("create", "adopt")
NOT_PRUNED = "left as it is: this environment's policy does not prune"


def make_plan(
    desired: Desired,
    live: Sequence[LiveDeployment],
    *,
    api_url: str,
    policy: Policy,
    selection: Selection | None = None,
    adopt: Sequence[str] = (),
    resources: Sequence[ResourceChange] = (),
) -> Plan:
    """Compare and decide.

    Args:
        desired: what the environment should have, already narrowed to `selection`.
        live: every deployment of the server, whoever owns it.
        api_url: the server that `live` was read from.
        policy: whether to prune.
        selection: what the command is about: nothing outside of it is deleted.
        adopt: patterns of unowned deployments to take over instead of reporting a conflict.
        resources: what is to happen to pools, queues and limits.

    Returns:
        The plan: creates and updates, then deletes, the deployer's own deployment last.
    """
    by_path = {item.config.deployment_path: item for item in live}
    wanted = [
        _change(config, by_path.get(config.deployment_path), desired.owner, adopt) for config in desired.deployments
    ]
    paths = {config.deployment_path for config in desired.deployments}
    left_over = [item for item in live if item.config.deployment_path not in paths]
    unwanted = [_removal(item, desired, policy) for item in left_over if _is_unwanted(item, desired, selection)]
    changes = tuple(sorted([*wanted, *unwanted], key=_order))
    plan = Plan(
        owner=desired.owner,
        api_url=api_url,
        changes=changes,
        resources=tuple(resources),
        image_terms=desired.image_terms,
        root=desired.root,
        problems=desired.problems,
    )
    return replace(plan, checksum=checksum(plan))


def refreshed(
    plan: Plan,
    live: Sequence[LiveDeployment],
    *,
    adopt: Sequence[str] = (),
    resources: Sequence[ResourceChange] | None = None,
) -> Plan:
    """The same intentions against the server as it is now.

    Between a plan and its apply somebody may have changed the server; under the lock each change is worked out anew,
    except for those whose deployment was not read again.
    What was to be deleted and is gone, or belongs to somebody else now, is left out. Nothing new is deleted. Findings
    and runs are taken over from the plan, causes are not: see `with_causes`.

    Args:
        plan: what was planned.
        live: every deployment of the server: read just now, or the very value that the plan has.
        adopt: as for `make_plan`.
        resources: as for `make_plan`; None: those of the plan.

    Returns:
        The plan for now. Its checksum is that of `plan` if nothing has moved that it writes.
    """
    by_path = {item.config.deployment_path: item for item in live}
    changes = [_refreshed(change, by_path.get(change.deployment), plan.owner, adopt) for change in plan.changes]
    now = replace(
        plan,
        changes=tuple(sorted((change for change in changes if change is not None), key=_order)),
        resources=plan.resources if resources is None else tuple(resources),
        last_revision=None,
    )
    return replace(now, checksum=checksum(now))


def _refreshed(change: Change, live: LiveDeployment | None, owner: Owner, adopt: Sequence[str]) -> Change | None:
    if live is not None and live is change.live:
        return change  # it was not read again
    if change.desired is None:
        return replace(change, live=live) if live is not None and live.owner == owner else None
    now = _change(change.desired, live, owner, adopt)
    return replace(now, findings=change.findings, runs=change.runs)


def check_deletes(plan: Plan, policy: Policy, *, look: str = "Look at it with `orchestrator plan`") -> None:
    """Refuse a plan that would delete much of what we own.

    Args:
        plan: the plan.
        policy: the environment's.
        look: how a person sees what it would delete.

    Raises:
        RefusedError: it deletes more than the policy's limit and share, or everything but the deployer. One that
            gets another name is not everything: it is created anew.
    """
    if would := too_much(plan, policy):
        raise RefusedError(
            f"The plan would {would}; nothing was changed.",
            location=plan.owner.tag,
            remedy=f"{look}; if it is meant, repeat with --allow-delete.",
        )


def too_much(plan: Plan, policy: Policy) -> str:
    """What a plan would delete, if that is more than `check_deletes` lets pass; else empty."""
    deletes = plan.summary["delete"]
    others = [change for change in plan.changes if not _is_deployer(change)]
    owned = sum(change.live is not None and change.live.owner == plan.owner for change in others)
    comes = any(change.action in COMING for change in others)
    much = deletes > policy.delete_limit and deletes > policy.delete_share * owned
    everything = deletes > 0 and deletes == owned and not (deletes == 1 and comes)
    if not much and not everything:
        return ""
    who = f"{plan.owner.project} in {plan.environment}"
    return f"delete {deletes} of the {owned} deployments of {who} that it is about"


def checksum(plan: Plan) -> str:
    """A digest of what a plan would do, and to what: equal plans do equal things to equal things.

    It covers the whole state of the server that a change was based on: a change that looks the same but would now
    overwrite something else has another checksum.
    """
    changes = [_essence(change) for change in plan.changes if change.writes]
    resources = [_resource_essence(change) for change in plan.resources if change.writes]
    text = json.dumps([plan.owner.tag, plan.api_url, changes, resources], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _essence(change: Change) -> list[Any]:
    live = change.live
    there = [live.id, live.schedule_ids, live.owner and live.owner.tag, _plain(live.config)] if live else None
    steps = [step for step in change.desired.steps if step.image is None] if change.desired else []
    to_run = [[step.function, step.id, step.inputs, step.folder] for step in steps]
    return [change.action, change.deployment, _plain(change.desired), there, *to_run]


def _resource_essence(change: ResourceChange) -> list[Any]:
    """Without reasons and causes, which tell how it came to this."""
    there = {diff.path: diff.before for diff in change.fields}
    return [change.action, change.resource, change.name, asdict(change.desired), there]


def _plain(config: DeploymentConfig | None) -> dict[str, Any] | None:
    """A deployment without what says where it comes from: a declaration may move within its file.

    An image of ours is named by its tag, which says what it is built from, whether or not it has been built by now.
    """
    if config is None:
        return None
    by_tag = with_pins(config, {name: name for name, _ in config.images})
    return {name: value for name, value in asdict(replace(by_tag, steps=())).items() if name not in _OF_OURS}


# ---------------------------------------------------------------------------------------------------------
# One deployment
# ---------------------------------------------------------------------------------------------------------


def _change(config: DeploymentConfig, live: LiveDeployment | None, owner: Owner, adopt: Sequence[str]) -> Change:
    path, kind = config.deployment_path, config.deployment_type
    if live is None:
        reason = f"asked for by {config.source}" if config.source else "not on the server"
        return Change(action="create", deployment=path, kind=kind, reasons=(reason,), desired=config)
    if live.owner != owner:
        return _foreign(config, live, adopt)
    config = _settled(config, live)
    fields, kept = differences(config, live)
    return Change(
        action="update" if fields else "unchanged",
        deployment=path,
        kind=kind,
        reasons=tuple(reasons_of(fields)),
        fields=fields,
        kept=kept,
        desired=config,
        live=live,
    )


def _settled(config: DeploymentConfig, live: LiveDeployment) -> DeploymentConfig:
    """A deployment that waits for the output of a step, where all the rest is as it should be: then so is the output.

    Such a step runs only when something that needs it is written.
    """
    if not open_outputs(config):
        return config
    known = as_live(config, live.config)
    return config if differences(known, live)[0] else known


def _foreign(config: DeploymentConfig, live: LiveDeployment, adopt: Sequence[str]) -> Change:
    """A deployment of the same name that is not ours: taken over only on request, and only from nobody."""
    path, kind = config.deployment_path, config.deployment_type
    if live.owner is None and any(fnmatchcase(path, pattern) for pattern in adopt):
        fields, kept = differences(config, live)
        reasons = ("taken over on request: it belonged to nobody",)
        return Change(
            action="adopt",
            deployment=path,
            kind=kind,
            reasons=reasons,
            fields=fields,
            kept=kept,
            desired=config,
            live=live,
        )
    holder = f"{live.owner.project} in {live.owner.environment}" if live.owner else "nobody that we know"
    reasons = (f"a deployment of this name belongs to {holder}: {_way_out(config, live)}",)
    return Change(action="conflict", deployment=path, kind=kind, reasons=reasons, desired=config, live=live)


def _way_out(config: DeploymentConfig, live: LiveDeployment) -> str:
    """What to do about a name that somebody else has."""
    if config.flow_name == DEPLOYER_FLOW:  # named after the environment, as every project does
        rename = f"name ours otherwise, by `deployer: {{name: …}}` in {config.source or 'the file of our environment'}"
    elif live.owner is None:
        rename = "rename ours"
    else:
        rename = _rename(config, live.owner)
    return f"{rename}, or take it over with --adopt '{config.deployment_path}'" if live.owner is None else rename


def _rename(config: DeploymentConfig, holder: Owner) -> str:
    ours = Owner.from_tags(config.tags)
    if ours is not None and ours.project != holder.project and ours.environment == holder.environment:
        return (
            f"rename one of them, or, if that is this project, whose name here is {ours.project}, write "
            f'project = "{holder.project}" below [tool.orchestrator] in pyproject.toml'
        )
    return "two environments on one server need different names: rename one, or let `select` leave it out of ours"


def _is_unwanted(item: LiveDeployment, desired: Desired, selection: Selection | None) -> bool:
    """Whether something that nothing asks for is ours to delete, and within what the command is about."""
    path = item.config.deployment_path
    if item.owner != desired.owner or item.config.flow_name == DEPLOYER_FLOW:
        return False
    return selection is None or (not selection.declared_only and selection.takes(path, kind_of(item.config)))


def _removal(item: LiveDeployment, desired: Desired, policy: Policy) -> Change:
    path, kind = item.config.deployment_path, kind_of(item.config)
    keep = _why_kept(item, desired, policy)
    if keep:
        return Change(action="unchanged", deployment=path, kind=kind, kept=(keep,), live=item)
    reasons = ("nothing in the repository asks for it any more",)
    return Change(action="delete", deployment=path, kind=kind, reasons=reasons, live=item)


def _why_kept(item: LiveDeployment, desired: Desired, policy: Policy) -> str | None:
    """Why something that nothing asks for is not deleted: its source has a fault, or the policy says so."""
    file = (item.config.entrypoint or "").partition(":")[0]
    broken = next((each for each in desired.skipped_files if file and f"/{each}".endswith(f"/{file}")), None)
    if broken is not None:
        return f"left as it is: {_fault_of(broken, desired)}"
    if any(_is_same(item.config, path) for path in desired.skipped_paths):
        return "left as it is: its declaration or its flow has a fault"
    return None if policy.prune else NOT_PRUNED


def _fault_of(file: str, desired: Desired) -> str:
    """Why the flows of a file are not used: the fault may lie in another file that they need."""
    faults = [problem for problem in desired.problems if problem.severity == "error" and problem.skips]
    mine = [fault for fault in faults if any(flow.startswith(f"{file}:") for flow in fault.flows)]
    mine += [fault for fault in faults if fault.file_path == file and not fault.declaration]
    return f"{mine[0].location} has a fault ({mine[0].code})" if mine else f"{file} cannot be read"


def _is_same(config: DeploymentConfig, path: str) -> bool:
    """Whether a deployment has this path, in which the flow may be `*`; brackets in names are no patterns."""
    flow, _, name = path.partition("/")
    return config.deployment_name == name and flow in ("*", config.flow_name)


def kind_of(config: DeploymentConfig) -> Kind:
    """The kind of a live deployment: an image in its job variables makes it `docker`."""
    return "docker" if "image" in config.job_variables else "python"


def _order(change: Change) -> tuple[bool, bool, str]:
    return _is_deployer(change), change.action == "delete", change.deployment


def _is_deployer(change: Change) -> bool:
    return change.deployment.startswith(f"{DEPLOYER_FLOW}/")


# ---------------------------------------------------------------------------------------------------------
# More about a plan: who moved, which runs it touches, what speaks against it
# ---------------------------------------------------------------------------------------------------------


def with_causes(plan: Plan, last: RecordedState | None, *, told: str = "the repository changed") -> Plan:
    """Tell who moved since the last apply: the repository, or somebody on the server.

    Args:
        plan: the plan.
        last: what was recorded at the last apply; None where there is no record.
        told: how the reasons say that what is asked for has changed.

    Returns:
        The plan with the same actions, a cause for each difference of what is recorded, and reasons that say so.
    """
    if last is None:
        return plan
    recorded = {config.deployment_path: config for config in last.deployments}
    number = last.revision.number
    changes = tuple(_with_cause(change, recorded.get(change.deployment), number, told) for change in plan.changes)
    resources = with_resource_causes(plan.resources, last.resources, revision=number, told=told)
    return replace(plan, changes=changes, resources=resources, last_revision=number)


def _with_cause(change: Change, last: DeploymentConfig | None, revision: int, told: str) -> Change:
    if last is None or change.desired is None or (change.action == "unchanged" and not change.kept):
        return change
    if change.live is None:
        return replace(change, reasons=(deleted_since(revision),), is_lost=True)
    if change.action == "conflict":
        lost = f"it was ours, as revision {revision} records: somebody deployed it anew or took its tag away"
        return replace(change, reasons=(*change.reasons, *((lost,) if change.live.owner is None else ())))
    fields, kept = differences(change.desired, change.live, last)
    taken = (TAKEN_OVER,) if change.action == "adopt" else ()
    return replace(change, fields=fields, kept=kept, reasons=(*taken, *reasons_of(fields, told)))


def with_runs(plan: Plan, runs: Mapping[str, TouchedRuns]) -> Plan:
    """Say which runs each change concerns; `runs` is by the deployment's id."""
    return replace(plan, changes=tuple(_with_runs(change, runs) for change in plan.changes))


def _with_runs(change: Change, runs: Mapping[str, TouchedRuns]) -> Change:
    touched = runs.get(change.live.id) if change.live and change.writes else None
    return change if touched is None else replace(change, runs=touched)


def touching(plan: Plan) -> tuple[str, ...]:
    """The ids of the deployments whose runs a plan concerns: those that are on the server and are written."""
    return tuple(change.live.id for change in plan.changes if change.live and change.writes)


def with_findings(plan: Plan, findings: Mapping[str, tuple[Finding, ...]]) -> Plan:
    """Add what speaks against changes; `findings` is by `flow/deployment`."""
    return replace(plan, changes=tuple(_with_findings(change, findings) for change in plan.changes))


def _with_findings(change: Change, findings: Mapping[str, tuple[Finding, ...]]) -> Change:
    found = findings.get(change.deployment, ())
    config = change.desired or (change.live.config if change.live else None)
    if config is not None:
        found = tuple(
            replace(each, message=without_secrets(each.message, config), remedy=without_secrets(each.remedy, config))
            for each in found
        )
    return replace(change, findings=(*change.findings, *found)) if found else change


def with_predecessors_kept(plan: Plan) -> Plan:
    """Nothing is deleted as long as what comes in its place, another deployment of the flow, cannot be made."""
    stopped = {_flow(change): change for change in plan.changes if change.obstacles and change.action in COMING}
    kept = {
        change.deployment: (Finding(message=predecessor_kept(stopped[_flow(change)].deployment)),)
        for change in plan.changes
        if change.action == "delete" and _flow(change) in stopped
    }
    return with_findings(plan, kept) if kept else plan


def predecessor_kept(successor: str) -> str:
    return f"It is kept: {successor}, which comes in its place, cannot be made."


def _flow(change: Change) -> str:
    return change.deployment.partition("/")[0]


def is_left_alone(change: Change) -> bool:
    """Whether it is as it is because of a fault: what the repository asks for is not known."""
    return change.action == "unchanged" and change.desired is None and change.kept != (NOT_PRUNED,)


def out_of_sync(change: Change) -> tuple[str, ...]:
    """Why a deployment is not as the repository says, and what to do: for `status`."""
    if change.action == "unchanged":
        return ()
    apply = f"`orchestrator apply{_in_environment(change)}`"
    if change.action == "create":
        return (f"not on the server ({'; '.join(change.reasons)}): {apply} creates it",)
    if change.action == "conflict":
        return change.reasons
    if change.action == "delete":
        return (f"{'; '.join(change.reasons)}: {apply} deletes it",)
    drifted = [diff.path for diff in change.fields if diff.cause in ("server", "both")]
    moved = [diff.path for diff in change.fields if diff.cause not in ("server", "both")]
    words = [f"somebody changed {_listed(drifted)} on the server: {apply} sets it back"] if drifted else []
    if moved:
        words.append(f"{_listed(moved)} not as the repository says: {apply} changes that")
    return tuple(words)


def _in_environment(change: Change) -> str:
    """The option that names a change's environment, where it is not the default one."""
    owner = change.live.owner if change.live else None
    name = (change.desired.environment if change.desired else "") or (owner.environment if owner else "")
    return f" --env {name}" if name not in ("", DEFAULT_ENVIRONMENT) else ""


def _listed(paths: Sequence[str]) -> str:
    shown = ", ".join(paths[:5])
    return f"{shown} and {len(paths) - 5} more" if len(paths) > 5 else shown

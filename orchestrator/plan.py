"""Desired × live → Plan: what has to happen to each deployment, and why.

A pure function of two sets of values: nothing is read, nothing is written. The rules that keep people's work safe
live here: only what carries our mark is changed or deleted, nobody's paused deployment is resumed, what a broken
file asks for is left alone, and a plan that would delete much is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from orchestrator.config import DEPLOYER_FLOW, Policy
from orchestrator.desired import Selection
from orchestrator.errors import RefusedError
from orchestrator.masking import masked
from orchestrator.model import (
    Change,
    DeploymentConfig,
    Desired,
    FieldDiff,
    Kind,
    LiveDeployment,
    Owner,
    Plan,
    ScheduleConfig,
)

COMPARED_FIELDS = (
    "entrypoint",
    "path",
    "work_pool",
    "work_queue",
    "parameters",
    "job_variables",
    "pull_steps",
    "tags",
    "description",
    "version",
    "concurrency_limit",
    "concurrency_options",
    "enforce_parameter_schema",
    "parameter_schema",
)
SCHEDULE_RULE = ("cron", "interval", "rrule", "timezone", "day_or", "parameters")
NO_SCHEMA = {"type": "object", "properties": {}}  # what the server keeps for a deployment without a parameter schema
_RRULE_START = re.compile(r"^DTSTART:\d{8}T\d{6}\n")


@dataclass(frozen=True, kw_only=True, slots=True)
class SchedulePair:
    """One schedule as it is and as it should be; None on one side: to be created or deleted."""

    live: ScheduleConfig | None
    live_id: str | None
    desired: ScheduleConfig | None

    @property
    def differs(self) -> bool:
        """Whether anything has to be written."""
        return bool(_schedule_differences(self)[0])


def make_plan(
    desired: Desired,
    live: Sequence[LiveDeployment],
    *,
    api_url: str,
    policy: Policy,
    selection: Selection | None = None,
    adopt: Sequence[str] = (),
) -> Plan:
    """Compare and decide.

    Args:
        desired: what the environment should have, already narrowed to `selection`.
        live: every deployment of the server, whoever owns it.
        api_url: the server that `live` was read from.
        policy: whether to prune.
        selection: what the command is about: nothing outside of it is deleted.
        adopt: patterns of unowned deployments to take over instead of reporting a conflict.

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
    plan = Plan(owner=desired.owner, api_url=api_url, changes=changes, problems=desired.problems)
    return replace(plan, checksum=checksum(plan))


def check_deletes(plan: Plan, policy: Policy) -> None:
    """Refuse a plan that would delete much of what we own.

    Raises:
        RefusedError: it deletes more than the policy's limit and share, or everything but the deployer.
    """
    deletes = plan.summary["delete"]
    ours = (change for change in plan.changes if change.action != "conflict" and not _is_deployer(change))
    owned = sum(change.live is not None for change in ours)
    much = deletes > policy.delete_limit and deletes > policy.delete_share * owned
    everything = deletes > 1 and deletes == owned
    if much or everything:
        raise RefusedError(
            f"The plan would delete {deletes} of the {owned} deployments that {plan.owner.project} owns in "
            f"{plan.environment}; nothing was changed.",
            location=plan.owner.tag,
            remedy="Look at it with `orchestrator plan`; if it is meant, repeat with --allow-delete.",
        )


def checksum(plan: Plan) -> str:
    """A digest of what a plan would do, and to what: equal plans do equal things."""
    essence = [_essence(change) for change in plan.changes if change.writes]
    text = json.dumps(_comparable([plan.owner.tag, plan.api_url, essence]), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _essence(change: Change) -> list[Any]:
    desired = asdict(change.desired) if change.desired else None
    fields = [diff.path for diff in change.fields]
    return [change.action, change.deployment, desired, fields, change.live.id if change.live else None]


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
    fields, kept = differences(config, live)
    return Change(
        action="update" if fields else "unchanged",
        deployment=path,
        kind=kind,
        reasons=tuple(_reasons(fields)),
        fields=fields,
        kept=kept,
        desired=config,
        live=live,
    )


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
    remedy = f"rename ours, or take it over with --adopt '{path}'" if live.owner is None else "rename one of them"
    reasons = (f"a deployment of this name belongs to {holder}: {remedy}",)
    return Change(action="conflict", deployment=path, kind=kind, reasons=reasons, desired=config, live=live)


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
    return None if policy.prune else "left as it is: this environment's policy does not prune"


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


def _reasons(fields: Sequence[FieldDiff]) -> Iterator[str]:
    names = dict.fromkeys(re.split(r"[.\[]", diff.path)[0] for diff in fields)
    if "version" in names:
        yield "its code changed"
    others = [name.replace("_", " ") for name in names if name != "version"]
    if others:
        yield f"{', '.join(others)} differ"


# ---------------------------------------------------------------------------------------------------------
# Differences
# ---------------------------------------------------------------------------------------------------------


def differences(config: DeploymentConfig, live: LiveDeployment) -> tuple[tuple[FieldDiff, ...], tuple[str, ...]]:
    """What an update would change, and what a person changed that stays.

    Returns:
        The field differences, and the kept overrides in words.
    """
    fields = [
        found for name in COMPARED_FIELDS for found in diff(_field(live.config, name), _field(config, name), name)
    ]
    kept: list[str] = []
    if config.paused and not live.config.paused:
        fields.append(FieldDiff(path="paused", before=False, after=True))
    elif live.config.paused and not config.paused:
        kept.append("paused: somebody paused it")
    for pair in pair_schedules(config.schedules, live):
        found, overrides = _schedule_differences(pair)
        fields += found
        kept += overrides
    return tuple(fields), tuple(kept)


def diff(before: Any, after: Any, path: str) -> Iterator[FieldDiff]:
    """Every difference between two plain values; mappings are entered, lists are one value."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}, key=str):
            yield from diff(before.get(key), after.get(key), f"{path}.{key}")
    elif not _equal(before, after):
        yield FieldDiff(path=path, before=masked(path, before), after=masked(path, after))


def _equal(one: Any, other: Any) -> bool:
    """Equality of plain values; unlike Python's, it tells True from 1."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _field(config: DeploymentConfig, name: str) -> Any:
    value = _comparable(getattr(config, name))
    return value or NO_SCHEMA if name == "parameter_schema" else value


def _comparable(value: Any) -> Any:
    """JSON's view of a value: the server makes no difference between tuples and lists, nor between 1 and 1.0."""
    return json.loads(json.dumps(value, default=str)) if isinstance(value, Mapping | tuple | list) else value


def pair_schedules(desired: Sequence[ScheduleConfig], live: LiveDeployment) -> tuple[SchedulePair, ...]:
    """Match desired schedules with live ones: by slug, then what is the same, then by rule, then in order.

    The order is the weakest sign: the server gives schedules in no order that means anything.
    """
    left = list(zip(live.config.schedules, live.schedule_ids, strict=True))
    unpaired = list(desired)
    pairs: list[SchedulePair] = []
    for same in (_same_slug, _same_schedule, _same_rule, _both_without_slug):
        for wanted in list(unpaired):
            found = next((item for item in left if same(wanted, item[0])), None)
            if found is not None:
                left.remove(found)
                unpaired.remove(wanted)
                pairs.append(SchedulePair(live=found[0], live_id=found[1], desired=wanted))
    pairs += [SchedulePair(live=None, live_id=None, desired=wanted) for wanted in unpaired]
    return (*pairs, *(SchedulePair(live=item, live_id=id_, desired=None) for item, id_ in left))


def _same_slug(one: ScheduleConfig, other: ScheduleConfig) -> bool:
    return one.slug is not None and one.slug == other.slug


def _same_schedule(wanted: ScheduleConfig, live: ScheduleConfig) -> bool:
    return _same_rule(wanted, live) and wanted.active == live.active and wanted.parameters == live.parameters


def _same_rule(wanted: ScheduleConfig, live: ScheduleConfig) -> bool:
    return wanted.slug == live.slug and wanted.rule == _as_written(live, wanted).rule


def _as_written(live: ScheduleConfig, wanted: ScheduleConfig) -> ScheduleConfig:
    """A live schedule without the start that the server puts before an rrule which names none."""
    if wanted.rrule is None or live.rrule is None or "DTSTART" in wanted.rrule.upper():
        return live
    return replace(live, rrule=_RRULE_START.sub("", live.rrule))


def _both_without_slug(one: ScheduleConfig, other: ScheduleConfig) -> bool:
    return one.slug is None and other.slug is None


def _schedule_differences(pair: SchedulePair) -> tuple[list[FieldDiff], list[str]]:
    wanted, live = pair.desired, pair.live
    if wanted is None or live is None:
        known = wanted or live
        assert known is not None  # a pair has at least one side
        path = f"schedules[{known.label}]"
        return [FieldDiff(path=path, before=live and live.rule, after=wanted and wanted.rule)], []
    path, live = f"schedules[{wanted.label}]", _as_written(live, wanted)
    fields = [
        found
        for name in SCHEDULE_RULE
        for found in diff(_comparable(getattr(live, name)), _comparable(getattr(wanted, name)), f"{path}.{name}")
    ]
    if wanted.anchor_date is not None:
        fields += diff(live.anchor_date, wanted.anchor_date, f"{path}.anchor_date")
    if live.active and not wanted.active:
        fields.append(FieldDiff(path=f"{path}.active", before=True, after=False))
    kept = [f"{path}.active: somebody switched it off"] if wanted.active and not live.active else []
    return fields, kept

"""What is recorded of an apply, and how it is written down: pure, without a server.

A record holds deployments, pools, queues and limits as they were asked for, with everything that placeholders stood
for: an older revision can be applied again though a variable has changed since. That makes it secret; `revisions`
stores it as such.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from orchestrator.config import DEPLOYER_FLOW
from orchestrator.desired import SET_DIRECTORY, Selection
from orchestrator.images.sources import source_digests
from orchestrator.model import (
    Change,
    DeploymentConfig,
    DeploymentResult,
    DeployStep,
    Desired,
    Hold,
    ImageSpec,
    LimitSpec,
    Owner,
    Plan,
    PoolSpec,
    QueueSpec,
    RecordedState,
    Resources,
    ResultStatus,
    ScheduleConfig,
)
from orchestrator.resources import key_of, resources_from, specs_of

LONGEST_NAME = 60  # characters of project and environment in a name on the server; its digest tells the rest
_NOT_ASKED_FOR = ("environment", "deployment_type", "origin", "source", "concealed")  # says where it comes from
_OF_THE_MACHINE = ("parameter_schema",)  # static only where the flow's packages are missing
_BEFORE_AN_APPLY = ("steps", "images", "follows_code")  # nothing is left of it to do
_SAID = tuple(field.name for field in fields(DeploymentConfig) if field.name not in _BEFORE_AN_APPLY)
_OF_SCHEDULES = tuple(field.name for field in fields(ScheduleConfig))
_CHECKOUT = "{checkout}"
NO_RESOURCES = Resources()


# ---------------------------------------------------------------------------------------------------------
# Names on the server
# ---------------------------------------------------------------------------------------------------------


def server_name(owner: Owner, separator: str = "-") -> str:
    """A name for something that belongs to an owner: lower-case letters, digits and the separator only.

    It ends in a digest, always: `a-b` in `c` and `a` in `b-c` would share a name otherwise, and one environment's name
    may start another's.
    """
    words = re.sub(r"[^a-z0-9]+", separator, f"{owner.project} {owner.environment}".lower()).strip(separator)
    digest = hashlib.sha256(owner.tag.encode()).hexdigest()[:8]
    return f"{words[:LONGEST_NAME].strip(separator)}{separator}{digest}".lstrip(separator)


# ---------------------------------------------------------------------------------------------------------
# Deployments as JSON
# ---------------------------------------------------------------------------------------------------------


def to_json(config: DeploymentConfig) -> dict[str, Any]:
    """All that a deployment says, where it comes from included, for `json.dumps` with `default=str`.

    Nothing is copied, as `dataclasses.asdict` would do: there may be thousands.
    """
    said = {name: getattr(config, name) for name in _SAID}
    return {**said, "schedules": [{name: getattr(each, name) for name in _OF_SCHEDULES} for each in config.schedules]}


def from_json(written: Mapping[str, Any]) -> DeploymentConfig:
    """The deployment that `to_json` wrote; a field of another version of ours is passed over."""
    values = _known(DeploymentConfig, written)
    values["schedules"] = tuple(ScheduleConfig(**_known(ScheduleConfig, each)) for each in written.get("schedules", ()))
    return DeploymentConfig(**values)


def _known(kind: type, written: Mapping[str, Any]) -> dict[str, Any]:
    """What a class knows of some values; it has tuples where JSON has lists."""
    names = {field.name for field in fields(kind)}
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in written.items() if name in names
    }


def packed(deployments: tuple[DeploymentConfig, ...], resources: Resources = NO_RESOURCES) -> str:
    """What an environment has as one short text: many deployments say nearly the same."""
    written = {"deployments": [to_json(config) for config in deployments], "resources": asdict(resources)}
    text = json.dumps(written, separators=(",", ":"), default=str)
    return base64.b64encode(zlib.compress(text.encode())).decode("ascii")


def unpacked(text: str) -> tuple[tuple[DeploymentConfig, ...], Resources]:
    """What `packed` wrote.

    Raises:
        ValueError: the text is none of ours.
    """
    try:
        written = json.loads(zlib.decompress(base64.b64decode(text, validate=True)))
        if isinstance(written, list):  # as it was before resources were recorded
            written = {"deployments": written, "resources": asdict(NO_RESOURCES)}
        return tuple(from_json(each) for each in written["deployments"]), _resources(written["resources"])
    except (zlib.error, TypeError, AttributeError, LookupError) as error:
        raise ValueError(str(error)) from error


def _resources(written: Mapping[str, Any]) -> Resources:
    return Resources(
        pools=tuple(PoolSpec(**_known(PoolSpec, each)) for each in written["pools"]),
        queues=tuple(QueueSpec(**_known(QueueSpec, each)) for each in written["queues"]),
        limits=tuple(LimitSpec(**_known(LimitSpec, each)) for each in written["limits"]),
    )


# ---------------------------------------------------------------------------------------------------------
# What an environment has after an apply
# ---------------------------------------------------------------------------------------------------------


def state_after(
    plan: Plan, result: DeploymentResult, before: RecordedState | None, selection: Selection | None = None
) -> tuple[DeploymentConfig, ...]:
    """What an environment has after an apply, as far as we know.

    Args:
        plan: what was to be done.
        result: what became of it.
        before: the record of the apply before this one.
        selection: what the plan was about; None: everything. What lies outside of it is as it was recorded.

    Returns:
        Sorted by path: what was applied or found right as it was asked for; what failed or was left alone as it was
        recorded before, else, if it is ours, as the server had it; nothing of what was deleted.
    """
    recorded = {config.deployment_path: config for config in before.deployments} if before else {}
    statuses = {item.deployment: item.status for item in result.results}
    planned = {change.deployment for change in plan.changes}
    after = {
        path: config for path, config in recorded.items() if path not in planned and _is_outside(config, selection)
    }
    for change in plan.changes:
        path = change.deployment
        config = _after(change, statuses.get(path, "skipped"), recorded.get(path), plan.owner)
        if config is not None:
            after[path] = config
    return tuple(after[path] for path in sorted(after))


def resources_after(
    plan: Plan, result: DeploymentResult, before: RecordedState | None, selection: Selection | None = None
) -> Resources:
    """The pools, queues and limits of an environment after an apply, as far as we know.

    Args:
        plan, result, before, selection: as for `state_after`.

    Returns:
        What was applied or found right as it was asked for; what failed as it was recorded before, and so what a plan
        for a part did not look at. What the environment declares no more is left out.
    """
    recorded = {key_of(spec): spec for spec in specs_of(before.resources)} if before else {}
    done = {item.label for item in result.resources if item.status in ("applied", "unchanged")}
    after = {} if selection is None or selection.is_everything else dict(recorded)
    for change in plan.resources:
        key = (change.resource, change.name)
        if f"{change.resource} {change.name}" in done:
            after[key] = change.desired
        elif key in recorded:
            after[key] = recorded[key]
    return resources_from(after.values())


def _is_outside(config: DeploymentConfig, selection: Selection | None) -> bool:
    """Whether a plan had nothing to say about a deployment; the deployer's own is never pruned."""
    if config.flow_name == DEPLOYER_FLOW:
        return True
    if selection is None:
        return False
    by_template = selection.declared_only and config.origin == "template"
    return by_template or not selection.takes(config.deployment_path, config.deployment_type)


def _after(
    change: Change, status: ResultStatus, recorded: DeploymentConfig | None, owner: Owner
) -> DeploymentConfig | None:
    """One deployment after an apply, None where there is nothing to record."""
    is_done = status in ("applied", "unchanged")
    if change.action == "conflict":
        return recorded  # so that plans go on saying that it was ours
    if change.action == "delete" and is_done:
        return None
    if is_done and change.desired is not None:
        return change.desired
    if recorded is None and change.live is not None and change.live.owner == owner:
        return change.live.config
    return recorded


# ---------------------------------------------------------------------------------------------------------
# What a repository asks for
# ---------------------------------------------------------------------------------------------------------


def desired_digest(desired: Desired, root: Path | None = None) -> str:
    """A digest of what a repository asks for: it changes when the repository does, and not with the machine.

    Left out are the deployer's own deployment, which changes with our version, and parameter schemas, which depend on
    what is installed; the versions of deployments tell when their flows change.

    Args:
        desired: all that the environment should have, as `pipeline.work_out` gives it.
        root: the checkout that it was worked out from: pull steps name it, another machine has another.
    """
    without = (*_NOT_ASKED_FOR, *_OF_THE_MACHINE)
    asked = sorted(
        (config for config in desired.deployments if config.origin != "deployer"),
        key=lambda config: config.deployment_path,
    )
    specs = {step.image for config in asked for step in config.steps if step.image}
    sources = source_digests(Path(desired.root), specs) if specs else {}
    essence = [
        {name: value for name, value in to_json(config).items() if name not in without}
        | ({"steps": [_step_essence(step, sources) for step in config.steps]} if config.steps else {})
        for config in asked
    ]
    written = [_anywhere(essence, str(root) if root else ""), asdict(desired.resources)]
    text = json.dumps(written, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _step_essence(step: DeployStep, sources: Mapping[ImageSpec, str]) -> dict[str, Any]:
    """What a step does, wherever in its file it stands, and of an image what the repository gives to it."""
    if step.image is None:
        return asdict(step)
    return {
        **asdict(replace(step, image=replace(step.image, source="", closures=()))),
        "sources": sources.get(step.image, ""),
    }


def _anywhere(value: Any, root: str) -> Any:
    """`value` with the folder of the checkout, and those in it, written as seen from there."""
    if isinstance(value, str):
        inside = root and (value == root or value.startswith((f"{root}/", f"{root}:")))  # `:` in volumes
        return f"{_CHECKOUT}{value[len(root) :]}" if inside else value
    if isinstance(value, Mapping):
        return {key: _anywhere(inner, root) for key, inner in value.items()}
    return [_anywhere(inner, root) for inner in value] if isinstance(value, list | tuple) else value


def runs_from_folder(config: DeploymentConfig) -> str | None:
    """The folder whose code a deployment runs, as it is there at that time; None where it fetches its code."""
    if config.deployment_type != "python" or len(config.pull_steps) != 1:
        return None
    return next(_folders(config.pull_steps[0]), None)


def _folders(step: Mapping[str, Any]) -> Iterator[str]:
    for name, arguments in step.items():
        if name == SET_DIRECTORY and isinstance(arguments, Mapping):
            yield str(arguments.get("directory", ""))


# ---------------------------------------------------------------------------------------------------------
# Holding back
# ---------------------------------------------------------------------------------------------------------


def holds(hold: Hold, digest: str) -> bool:
    """Whether a hold still holds: the repository asks for the same as when it was set."""
    return hold.desired_digest == digest

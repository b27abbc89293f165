"""What images mean for a plan: which of them its changes need, what keeps these from being made, and what is pinned
when the images are there. Pure functions of values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.differences import differences
from orchestrator.images.names import shown_name
from orchestrator.model import (
    Change,
    DeploymentConfig,
    Desired,
    Finding,
    ImageResult,
    LiveDeployment,
    Plan,
    PlannedImage,
)
from orchestrator.plan import checksum
from orchestrator.step_outputs import with_pins, with_planned_images

_ID = re.compile(r"sha256:[0-9a-f]{64}")  # of an image that lies in an engine only


def with_images(desired: Desired, images: Sequence[PlannedImage]) -> Desired:
    """The desired state with its images named, as far as they are known."""
    planned = {image.spec: image for image in images}
    return replace(desired, deployments=tuple(with_planned_images(config, planned) for config in desired.deployments))


def with_pinned(desired: Desired, images: Sequence[PlannedImage]) -> Desired:
    """The desired state with its images pinned where that is known by now."""
    pins = {image.name: image.reference for image in images}
    return replace(desired, deployments=tuple(with_pins(config, pins) for config in desired.deployments))


def as_deployed(
    desired: Desired, images: Sequence[PlannedImage], live: Sequence[LiveDeployment]
) -> tuple[PlannedImage, ...]:
    """The images, with what a deployment on the server says of those whose registry or engine does not answer.

    A deployment whose version is the image's tag, and which names it by a digest, was made for that very image.
    """
    there = {item.config.deployment_path: item.config for item in live}
    pins: dict[str, str] = {}
    for config in desired.deployments:
        known = there.get(config.deployment_path)
        for name, _ in config.images if known else ():
            repository, _, tag = name.rpartition(":")
            pinned = str(known.job_variables.get("image", "")) if known else ""
            if known and known.version == tag and (pinned.startswith(f"{repository}@sha256:") or _ID.fullmatch(pinned)):
                pins[name] = pinned
    return tuple(_as_deployed(image, pins.get(image.name, "")) for image in images)


def _as_deployed(image: PlannedImage, pinned: str) -> PlannedImage:
    if image.action != "unknown" or not pinned:
        return image
    findings = tuple(replace(finding, severity="warning") for finding in image.findings)
    who = "its registry" if image.spec.is_pushed else "the engine"
    return replace(image, pinned=pinned, findings=findings, reason=f"as it is deployed: {who} does not answer")


def due(plan: Plan) -> tuple[PlannedImage, ...]:
    """The images that a plan's changes need, and those that are there anyway: what is not to be written needs none."""
    configs = [change.desired for change in plan.changes if change.desired and change.writes and not change.obstacles]
    needed = {name for config in configs for name, _ in config.images}
    return tuple(image for image in plan.images if image.name in needed or image.action == "reuse")


def image_findings(plan: Plan) -> dict[str, tuple[Finding, ...]]:
    """What speaks against changes, by deployment: an image of theirs cannot be had."""
    by_name = {image.name: image for image in plan.images}
    found = {}
    for change in plan.changes:
        config = change.desired
        if config is not None and change.writes:
            mine = [by_name[name] for name, _ in config.images if name in by_name]
            told = [_about(image, finding) for image in mine for finding in image.findings]
            found[change.deployment] = (*told, *_never_pulled(config, mine))
    return {deployment: findings for deployment, findings in found.items() if findings}


def _about(image: PlannedImage, finding: Finding) -> Finding:
    return replace(finding, message=f"Its image {shown_name(image)}: {finding.message}")


def _never_pulled(config: DeploymentConfig, images: Sequence[PlannedImage]) -> tuple[Finding, ...]:
    """An image of this machine's engine, which may still have to be built, is not to be looked for in a registry."""
    is_local = any(not image.spec.is_pushed for image in images)
    if not is_local or config.job_variables.get("image_pull_policy") != "Always":
        return ()
    message = "Its image lies in this machine's engine only, and `image_pull_policy: Always` asks a registry for it."
    return (Finding(message=message, remedy="Write `image_pull_policy: IfNotPresent`, or name a docker_registry."),)


def with_made_images(plan: Plan, results: Sequence[ImageResult]) -> Plan:
    """The plan with its images pinned as they were made; what needs one that failed is not to be written.

    What differs is told anew: an image that came out as it was deployed is no difference.
    """
    made = {result.name: result for result in results}
    changes = tuple(_with_made(change, made) for change in plan.changes)
    images = tuple(
        replace(image, pinned=made[image.name].pinned or image.pinned) if image.name in made else image
        for image in plan.images
    )
    now = replace(plan, changes=changes, images=images)
    return replace(now, checksum=checksum(now))


def _with_made(change: Change, made: Mapping[str, ImageResult]) -> Change:
    config = change.desired
    mine = [made[name] for name, _ in config.images if name in made] if config else []
    if config is None or not mine:
        return change
    failed = tuple(_failure(result) for result in mine if not result.pinned)
    pinned = with_pins(config, {result.name: result.pinned for result in mine if result.pinned})
    if pinned.follows_code and (first := made.get(config.images[0][0])):
        pinned = replace(pinned, version=first.tag or pinned.version)
    return replace(with_desired(change, pinned), findings=(*change.findings, *failed))


def _failure(result: ImageResult) -> Finding:
    where = f"{result.location}: " if result.location else ""
    return Finding(
        message=f"Its image {shown_name(result)} could not be made: {where}{result.error}", remedy=result.remedy
    )


def with_desired(change: Change, config: DeploymentConfig) -> Change:
    """A change that brings about another configuration, with what differs now."""
    if change.live is None or change.action == "conflict":
        return replace(change, desired=config)
    fields, kept = differences(config, change.live)
    causes = {diff.path: diff.cause for diff in change.fields}
    fields = tuple(replace(diff, cause=causes.get(diff.path, diff.cause)) for diff in fields)
    values: dict[str, Any] = {"desired": config, "fields": fields, "kept": change.kept or kept}
    if change.action == "update" and not fields:
        values |= {"action": "unchanged", "reasons": ()}
    return replace(change, **values)

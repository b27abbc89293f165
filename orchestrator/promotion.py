"""Promotion: what one environment runs, taken into the next with that environment's configuration.

The commit is the one that was last applied to the first environment, whatever has been committed since; its sources
and its environment files say what the next one gets. Images are taken over by their digests, never built again: what
was tried is what runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator import pipeline
from orchestrator.config import merge
from orchestrator.errors import ConfigurationError, RefusedError
from orchestrator.git import checked_out, commit_of, is_dirty
from orchestrator.model import DeploymentConfig, Desired, RecordedState, Revision, ValidationError
from orchestrator.recording import desired_digest
from orchestrator.step_outputs import as_live, images_of, open_outputs

NOT_TRIED = "IMG006"
_PINNED = re.compile(r"(.+@)?sha256:[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class _Image:
    """A pinned image, and the version of the deployment that runs from it."""

    pinned: str
    version: str


Images = Mapping[str, Mapping[str, _Image]]
"""Flow → deployment → its image."""


def as_committed_since(recorded: RecordedState, root: Path) -> RecordedState:
    """A record of files that were not committed when they were applied: by now they may be.

    Applying them again from the commit changes nothing, and so records nothing. But where the checkout is at a commit,
    and asks for exactly the same, that is the commit which the record stands for.

    Args:
        recorded: the record.
        root: the checkout.

    Returns:
        The record, as of that commit; as it is where it stands for one already, or where the checkout asks for
        something else.
    """
    revision, commit = recorded.revision, commit_of(root)
    stands_for_one = revision.provenance.commit is not None and not revision.provenance.is_dirty
    if stands_for_one or commit is None or is_dirty(root) or not _asks_for_the_same(root, revision):
        return recorded
    provenance = replace(revision.provenance, commit=commit, is_dirty=False)
    return replace(recorded, revision=replace(revision, provenance=provenance))


def _asks_for_the_same(root: Path, revision: Revision) -> bool:
    try:
        asked = pipeline.read_repository(root, revision.owner.environment)
    except ConfigurationError:
        return False
    return desired_digest(asked.desired, asked.settings.root) == revision.desired_digest


def promotable_commit(revision: Revision) -> str:
    """The commit that a revision stands for.

    Raises:
        RefusedError: it stands for none, or for more than one.
    """
    where, source = f"revision {revision.number} of {revision.owner.tag}", revision.provenance
    again = f"apply it to {revision.owner.environment} if that changes anything, and promote then."
    if source.commit is None:
        raise RefusedError(
            "It was not applied from a git commit, so that nobody can tell what to promote.",
            location=where,
            remedy=f"Commit what is there, {again}",
        )
    if source.is_dirty:
        raise RefusedError(
            f"It was applied from files that differ from commit {source.commit[:12]}.",
            location=where,
            remedy=f"Commit or undo the differences, {again}",
        )
    return source.commit


def promoted(root: Path, env: str, recorded: RecordedState) -> Desired:
    """What an environment should have to run what another one runs.

    Args:
        root: the checkout that workers run from; it need not be at that commit.
        env: the environment that is promoted to.
        recorded: what the other environment has.

    Raises:
        RefusedError: the revision stands for no single commit, or its images are ambiguous.
        ConfigurationError: git does not have that commit here, or the repository had faults then.
    """
    root = root.resolve()
    with _sources(root, promotable_commit(recorded.revision)) as folder:
        settings = pipeline.load_settings(folder, env)
        discovery = pipeline.discover_flows(folder, settings.project, settings.declarations)
        validation = pipeline.validate(settings, discovery)
        desired = pipeline.work_out(settings, discovery, validation, checkout=root)
    return with_images(desired, recorded.deployments)


@contextmanager
def _sources(root: Path, commit: str) -> Iterator[Path]:
    """A folder with the repository as it is at a commit: the checkout, or a worktree for as long as the block."""
    if commit_of(root) == commit and not is_dirty(root):
        yield root
        return
    with checked_out(root, commit) as folder:
        yield folder


def with_images(desired: Desired, tried: tuple[DeploymentConfig, ...]) -> Desired:
    """The desired state, with the images that another environment runs the same flows from.

    Raises:
        RefusedError: that environment runs a flow from several images, and no deployment of the same name settles it.
    """
    images = _images(tried)
    configs = [_with_given(_with_image(config, images), tried) for config in desired.deployments]
    untried = [config for config in configs if images_of(config) or open_outputs(config)]
    return replace(
        desired,
        deployments=tuple(replace(config, steps=()) for config in configs if config not in untried),
        skipped_paths=(*desired.skipped_paths, *(config.deployment_path for config in untried)),
        problems=(*desired.problems, *map(_untried, untried)),
    )


def _untried(config: DeploymentConfig) -> ValidationError:
    """A deployment whose image the other environment does not run, or whose steps have not run there: to do that now
    would be to deploy what nobody tried."""
    file, _, line = config.source.rpartition(":")
    why = "no deployment of its flow has run from an image there"
    if not images_of(config):
        why = f"no deployment of its flow there tells what its steps give: {', '.join(open_outputs(config))}"
    return ValidationError(
        code=NOT_TRIED,
        message=f"{config.deployment_path} is left out: {why}.",
        file_path=file or None,
        line_number=int(line) if line.isdigit() else None,
        remediation="Deploy the flow in the same way in the environment that is promoted, and promote then.",
        skips=True,
        declaration=config.source,
    )


def _with_given(config: DeploymentConfig, tried: tuple[DeploymentConfig, ...]) -> DeploymentConfig:
    """A deployment with what its steps gave in the other environment: that of the same name, or all of its flow.

    An image that is not pinned there is nothing to go by.
    """
    is_pinned = _PINNED.fullmatch(str(config.job_variables.get("image", ""))) is not None
    if config.deployment_type == "docker" and images_of(config) and not is_pinned:
        return config
    of_flow = [each for each in tried if each.flow_name == config.flow_name]
    same = [each for each in of_flow if each.deployment_name == config.deployment_name] or of_flow
    first, *others = [as_live(config, each) for each in same] or [config]
    return config if any(other != first for other in others) else first


def _images(tried: tuple[DeploymentConfig, ...]) -> Images:
    found: dict[str, dict[str, _Image]] = {}
    for config in tried:
        image = config.job_variables.get("image")
        if isinstance(image, str) and _PINNED.fullmatch(image):
            found.setdefault(config.flow_name, {})[config.deployment_name] = _Image(image, config.version)
    return found


def _with_image(config: DeploymentConfig, images: Images) -> DeploymentConfig:
    of_flow = images.get(config.flow_name, {})
    if config.deployment_type != "docker" or not of_flow:
        return config
    image = of_flow.get(config.deployment_name) or _only(of_flow, config)
    version = image.version if config.follows_code and images_of(config) else config.version
    variables = merge(config.job_variables, {"image": image.pinned})
    return replace(config, job_variables=variables, version=version)


def _only(of_flow: Mapping[str, _Image], config: DeploymentConfig) -> _Image:
    by_pin = {image.pinned: image for image in of_flow.values()}
    first, *others = (by_pin[pinned] for pinned in sorted(by_pin))
    if others:
        raise RefusedError(
            f"The flow runs from {len(others) + 1} images there ({', '.join(sorted(of_flow))}), and none of these "
            f"deployments is called {config.deployment_name!r}.",
            location=config.deployment_path,
            remedy="Give the deployment the same name in both environments, or one image to the flow.",
        )
    return first

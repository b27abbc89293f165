"""Images on this machine: pull those that an environment runs from, and remove those that nothing needs any more.

What is removed carries this project's label, is named by nothing but the tags that it was built under, and is used by
no deployment and no recorded revision of any environment. What containers use the engine does not give away.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.config import EnvironmentConfig
from orchestrator.errors import ConfigurationError, ImageError, OrchestratorError, RefusedError, ServerError
from orchestrator.images.decisions import INPUT_DIGEST_LABEL
from orchestrator.images.doors import ImageDoors, open_image_doors
from orchestrator.images.engine import EngineImage, open_engine
from orchestrator.images.making import (
    ALIASES_LABEL,
    PROJECT_LABEL,
    REPOSITORY_LABEL,
    failed,
    login_for,
    result_of,
)
from orchestrator.images.names import parse_image, without_secrets_of
from orchestrator.model import TAG_LENGTH, ImageResult, OldImage, Owner, PlannedImage
from orchestrator.revisions import RevisionStore
from orchestrator.server import PrefectServer, open_server


async def pull_images(
    images: Sequence[PlannedImage], api_url: str | None, tell: Callable[[str], None]
) -> tuple[ImageResult, ...]:
    """Pull images into the engine, each under its tag.

    Args:
        images: what was decided about them.
        api_url: the Prefect server that may have users of registries.
        tell: is told what pulls say.

    Returns:
        What became of each: one that no registry has yet is skipped.

    Raises:
        EngineUnavailable: there is no engine.
    """
    async with open_image_doors([image.spec for image in images], api_url=api_url) as doors:
        if doors.engine is None and doors.why_none is not None:
            raise doors.why_none
        return tuple([await _pulled(image, doors, tell) for image in images])


async def _pulled(image: PlannedImage, doors: ImageDoors, tell: Callable[[str], None]) -> ImageResult:
    if not image.spec.is_pushed and image.action == "reuse":
        return result_of(image, "reused", image.pinned)
    obstacles = [finding for finding in image.findings if finding.severity == "error"]
    if image.action == "unknown" and obstacles:
        return failed(image, ImageError(obstacles[0].message, remedy=obstacles[0].remedy))
    if image.action != "reuse" or doors.engine is None:
        return replace(result_of(image, "skipped", ""), error="The registry has it not yet: push it first.")

    def shown(line: str) -> None:
        tell(without_secrets_of(image.spec, line))

    try:
        login = await login_for(image.spec.repository, doors)
        found = await doors.engine.pull(image.pinned, platform=image.spec.platform, login=login, tell=shown)
        await doors.engine.tag(found.id, image.spec.repository, image.tag)
    except OrchestratorError as error:
        return failed(image, error)
    return result_of(image, "pulled", image.pinned)


# ---------------------------------------------------------------------------------------------------------
# What is not needed any more
# ---------------------------------------------------------------------------------------------------------


Place = tuple[Owner, EnvironmentConfig, str | None]
"""An environment, and the server on which it is."""


async def find_old_images(project: str, places: Sequence[Place], keep: int) -> tuple[OldImage, ...]:
    """The images of a project in this machine's engine that nothing needs.

    Args:
        project: the owner's name.
        places: all environments of the repository, and the servers on which they are.
        keep: how many of each repository stay in any case, the newest first.

    Returns:
        Sorted by their tags.

    Raises:
        EngineUnavailable: there is no engine.
        RefusedError: a server does not answer, so that nobody knows what its deployments use.
    """
    used = [text for owner, environment, api_url in places for text in await _named_by(owner, environment, api_url)]
    async with open_engine() as engine:
        found = await engine.labelled(f"{PROJECT_LABEL}={project}")
    environments = [environment for _, environment, _ in places]
    ours = [image for image in found if _has_our_tags_only(image) and _is_named_here(image, environments, used)]
    newest = {image.id for group in _by_repository(ours).values() for image in group[:keep]}
    old = [image for image in ours if image.id not in newest and not _is_used(image, used)]
    return tuple(
        OldImage(tags=image.tags, created=image.created, size=image.size)
        for image in sorted(old, key=lambda each: each.tags)
    )


async def _named_by(owner: Owner, environment: EnvironmentConfig, api_url: str | None) -> Collection[str]:
    """All texts in the job variables of an environment's deployments and revisions, and of others on its server."""
    try:
        async with open_server(api_url) as server:
            return {*await _of_deployments(server), *await _of_revisions(server, owner)}
    except ServerError as error:
        raise RefusedError(
            f"The server of the environment {environment.name!r} does not answer: nobody knows what it uses.",
            location=error.location,
            remedy="Start it, or remove the environment's file if there is no such environment any more.",
        ) from error


async def _of_deployments(server: PrefectServer) -> Collection[str]:
    return {text for item in await server.read_deployments() for text in _texts(item.config.job_variables)}


async def _of_revisions(server: PrefectServer, owner: Owner) -> Collection[str]:
    store = RevisionStore(server, owner)
    states = [await store.read(revision.number) for revision in await store.history()]
    return {text for state in states for config in state.deployments for text in _texts(config.job_variables)}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _is_named_here(image: EngineImage, environments: Sequence[EnvironmentConfig], used: Sequence[str]) -> bool:
    """Whether an image has a name that the environments of this checkout give, or have given. Another checkout of a
    project of the same name may have others, and a server that nobody has asked."""
    repository = image.labels.get(REPOSITORY_LABEL, "")
    registries = {(environment.docker_registry or "").rstrip("/") for environment in environments}
    if repository.rpartition("/")[0] in registries:
        return True
    return any(text.startswith((f"{repository}@", f"{repository}:")) for text in used)


def _has_our_tags_only(image: EngineImage) -> bool:
    """Whether all its names are those that it was built under, the one of its input digest among them. An image that
    somebody has built on top of one of ours has the same labels and other names."""
    repository, digest = image.labels.get(REPOSITORY_LABEL, ""), image.labels.get(INPUT_DIGEST_LABEL, "")
    own = f"{repository}:{digest[:TAG_LENGTH]}"
    aliases = [f"{repository}:{alias}" for alias in image.labels.get(ALIASES_LABEL, "").split()]
    names = {_normal(tag) for tag in image.tags}
    return bool(digest) and _normal(own) in names and names <= {_normal(name) for name in (own, *aliases)}


def _normal(name: str) -> str:
    """A name as the engine has it: without the host of Docker Hub."""
    try:
        return parse_image(name).familiar
    except ConfigurationError:
        return name


def _by_repository(images: Sequence[EngineImage]) -> dict[str, list[EngineImage]]:
    groups: dict[str, list[EngineImage]] = {}
    for image in sorted(images, key=lambda each: each.created, reverse=True):
        groups.setdefault(image.labels[REPOSITORY_LABEL], []).append(image)
    return groups


def _is_used(image: EngineImage, used: Sequence[str]) -> bool:
    names = {
        image.id,
        image.id.partition(":")[2][:12],
        *image.tags,
        *(each.partition("@")[2] for each in image.digests),
    }
    return any(name in text for name in names if name for text in used)


async def remove_images(images: Sequence[OldImage]) -> tuple[list[str], list[str]]:
    """Remove the tags of some images, and with the last of them the image.

    Returns:
        The tags that were removed, and those that stay since a container uses their image.
    """
    removed: list[str] = []
    kept: list[str] = []
    async with open_engine() as engine:
        for image in images:
            for tag in image.tags:
                (removed if await engine.remove(tag) else kept).append(tag)
    return removed, kept

"""Make the images that a plan needs: build, push, pin.

Each image is a job of its own: one that fails does not stop the others, and only the deployments that need it are left
out. What was decided when the plan was made is looked at once more: somebody else may have built it meanwhile.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio

from orchestrator.dockerfile import Dockerfile, read_dockerfile
from orchestrator.errors import ImageError, OrchestratorError
from orchestrator.git import commit_of, is_dirty, remote_of
from orchestrator.images.copied import needed_stages, target_of
from orchestrator.images.decisions import INPUT_DIGEST_LABEL, Bases, decide, read_image_inputs
from orchestrator.images.doors import ImageDoors, open_image_doors
from orchestrator.images.engine import Engine, EngineImage
from orchestrator.images.names import parse_image, shown_name, without_secrets_of
from orchestrator.images.registry import docker_login
from orchestrator.images.sent_context import SentContext
from orchestrator.masking import shown_url
from orchestrator.model import BuildInputs, ImageResult, ImageSpec, ImageStatus, ImageTerms, PlannedImage

logger = logging.getLogger(__name__)

Tell = Callable[[str, str], None]
"""Is told a line that a build or a push says: the image's name, and the line."""

PROJECT_LABEL = "io.orchestrator.project"
REPOSITORY_LABEL = "io.orchestrator.repository"
ALIASES_LABEL = "io.orchestrator.aliases"  # its further tags, by which people know it
CLOSURE_LABEL = "io.orchestrator.closure"  # which code of which flows: {flow: closure digest}
# https://github.com/opencontainers/image-spec/blob/main/annotations.md
COMMIT_LABEL = "org.opencontainers.image.revision"
SOURCE_LABEL = "org.opencontainers.image.source"
BASE_NAME_LABEL = "org.opencontainers.image.base.name"
BASE_DIGEST_LABEL = "org.opencontainers.image.base.digest"


def log_line(name: str, line: str) -> None:
    """Tell the log."""
    logger.info("%s | %s", name, line)


async def make_images(
    images: Sequence[PlannedImage],
    root: Path,
    terms: ImageTerms,
    *,
    pushes: bool = True,
    tell: Tell = log_line,
    api_url: str | None = None,
) -> tuple[ImageResult, ...]:
    """Make some images, a few at a time.

    Args:
        images: what was decided about them.
        root: the repository.
        terms: how many at a time, and how long one may take.
        pushes: to the registry as well; else they stay in the engine.
        tell: is told what builds say.
        api_url: the Prefect server that may have users of registries; None: the one that Prefect's settings name.

    Returns:
        What became of each, in order.
    """
    if all(image.action == "reuse" for image in images):
        return tuple(result_of(image, "reused", image.pinned) for image in images)
    results: dict[int, ImageResult] = {}
    limiter = anyio.CapacityLimiter(terms.parallel)
    async with open_image_doors([image.spec for image in images], api_url=api_url) as doors:
        maker = _Maker(root, terms, doors, pushes=pushes, tell=tell)

        async def one(index: int, image: PlannedImage) -> None:
            async with limiter:
                results[index] = await maker.make(image)

        async with anyio.create_task_group() as group:
            for index, image in enumerate(images):
                group.start_soon(one, index, image)
    return tuple(results[index] for index in range(len(images)))


class _Maker:
    """Makes images of one repository."""

    def __init__(self, root: Path, terms: ImageTerms, doors: ImageDoors, *, pushes: bool, tell: Tell) -> None:
        self._root, self._terms, self._doors = root, terms, doors
        self._pushes, self._tell = pushes, tell
        self._bases = Bases(root, doors)

    async def make(self, image: PlannedImage) -> ImageResult:
        """One image; what goes wrong with it is in the result."""
        began = time.monotonic()
        try:
            made = await self._made(image)
        except OrchestratorError as error:
            made = failed(image, error)
        return replace(made, seconds=time.monotonic() - began)

    async def _made(self, image: PlannedImage) -> ImageResult:
        if image.action == "unknown" and not self._pushes:  # perhaps its registry does not answer: nothing goes there
            (image,) = await decide(self._root, [replace(image.spec, is_pushed=False)], self._doors, self._bases)
        obstacles = [finding for finding in image.findings if finding.severity == "error"]
        if obstacles:
            raise ImageError(obstacles[0].message, remedy=obstacles[0].remedy)
        if image.action == "reuse" or image.pinned:  # a deployment has it, though its registry does not answer
            return result_of(image, "reused", image.pinned)
        engine = self._engine()
        now = image
        if image.action == "build":
            await self._pull_bases(image.spec, engine)
            now = await self._now(image)
        if now.action == "reuse":
            return result_of(image, "reused", now.pinned, now)
        if now.action == "push" and not self._pushes:
            return result_of(image, "reused", await _id_of(now, engine), now)
        self._tell_of_waiting(now)
        id_ = await self._build(now, engine) if now.action == "build" else await _id_of(now, engine)
        if image.spec.is_pushed and self._pushes:
            return result_of(image, "pushed", await self._push(now, id_, engine), now)
        return result_of(image, "built", id_, now)

    def _teller(self, image: PlannedImage) -> Callable[[str], None]:
        """Tells a line about an image, behind its name."""
        return lambda line: self._tell(shown_name(image), without_secrets_of(image.spec, line))

    def _tell_of_waiting(self, image: PlannedImage) -> None:
        """Tell which further tags it does not get."""
        for alias in image.spec.aliases:
            if alias not in _known_aliases(image.spec):
                self._teller(image)(f"is not tagged {alias}: no step that runs before it has given that")

    def _engine(self) -> Engine:
        if self._doors.engine is None:
            assert self._doors.why_none is not None
            raise self._doors.why_none
        return self._doors.engine

    async def _now(self, image: PlannedImage) -> PlannedImage:
        """The image as it is to be made now: base images are here, and somebody may have built it since the plan.

        Raises:
            ImageError: its files have changed since the plan was made.
        """
        (now,) = await decide(self._root, [image.spec], self._doors, self._bases)
        obstacles = [finding for finding in now.findings if finding.severity == "error"]
        if obstacles:
            raise ImageError(obstacles[0].message, remedy=obstacles[0].remedy)
        if image.knows_bases and now.input_digest != image.input_digest:
            raise _changed(image)
        return now

    # ----- building --------------------------------------------------------------------------------------

    async def _pull_bases(self, spec: ImageSpec, engine: Engine) -> None:
        """Have the base images here, as they were resolved: a build takes what lies in the engine."""
        inputs = await self._inputs(spec)
        for base, digest in (*inputs.bases, *((base, "") for base in _pinned_bases(inputs))):
            found = await engine.find(base)
            if found is None or not _is(found, digest):
                await self._pull_base(base, digest, spec.platform, engine)

    async def _pull_base(self, base: str, digest: str, platform: str, engine: Engine) -> None:
        """Pull a base image; by its digest if that is not what its tag gives, as where a mirror is behind."""
        pull = partial(engine.pull, platform=platform, login=await self._login(base), tell=partial(self._tell, base))
        if _is(await pull(base), digest):
            return
        name = parse_image(base)
        found = await pull(f"{name.repository}@{digest}")
        await engine.tag(found.id, name.repository, name.tag)

    async def _inputs(self, spec: ImageSpec) -> BuildInputs:
        (read,) = await read_image_inputs(self._root, [spec], self._bases)
        if isinstance(read, OrchestratorError):
            raise read
        return read

    async def _build(self, image: PlannedImage, engine: Engine) -> str:
        inputs = await self._inputs(image.spec)
        if inputs.digest != image.input_digest:
            raise _changed(image)
        spec = image.spec
        names = (*(base for base, _ in inputs.bases), *_pinned_bases(inputs))
        bases = [found for base in names if (found := await engine.find(base))]
        _refuse_triggers(spec, [trigger for base in bases for trigger in base.on_build])
        return await engine.build(
            SentContext(self._root, inputs),
            tags=[image.name, *(f"{spec.repository}:{alias}" for alias in _known_aliases(spec))],
            labels=self._labels(image, inputs),
            arguments=dict((*spec.arguments, *spec.secret_arguments)),
            target=spec.target,
            platform=spec.platform,
            dockerfile_text=inputs.dockerfile_text,
            shown_as=spec.dockerfile,
            secrets=[*(value for _, value in spec.secret_arguments), *spec.concealed],
            tell=self._teller(image),
            timeout_seconds=self._terms.timeout_seconds,
        )

    def _labels(self, image: PlannedImage, inputs: BuildInputs) -> dict[str, str]:
        commit, source = commit_of(self._root), remote_of(self._root)
        labels = {
            INPUT_DIGEST_LABEL: image.input_digest,
            PROJECT_LABEL: self._terms.project,
            REPOSITORY_LABEL: image.spec.repository,
            ALIASES_LABEL: " ".join(_known_aliases(image.spec)),
            CLOSURE_LABEL: json.dumps(dict(image.spec.closures), sort_keys=True),
            COMMIT_LABEL: f"{commit}{'-dirty' if is_dirty(self._root) else ''}" if commit else "",
            SOURCE_LABEL: shown_url(source) if source else "",
        }
        base = _own_base(inputs)
        if digest := dict(inputs.bases).get(base) or base.partition("@")[2]:
            labels |= {BASE_NAME_LABEL: base, BASE_DIGEST_LABEL: digest}
        return {name: without_secrets_of(image.spec, value) for name, value in labels.items() if value}

    # ----- pushing ---------------------------------------------------------------------------------------

    async def _push(self, image: PlannedImage, id_: str, engine: Engine) -> str:
        """Push the image and its further tags, which an image that was built for others does not have yet.

        Returns:
            What deployments name: repository@digest.

        Raises:
            ImageError: it was not taken, or the registry has another image than was pushed.
        """
        spec = image.spec
        login = await self._login(spec.repository)
        for alias in _known_aliases(spec):
            await engine.tag(id_, spec.repository, alias)
            await engine.push(spec.repository, alias, login=login, tell=self._teller(image))
        digest = await engine.push(spec.repository, image.tag, login=login, tell=self._teller(image))
        there = await self._doors.registries.digest_of(parse_image(image.name))
        if there != digest:
            raise ImageError(
                f"The registry has another image than was pushed: {there or 'none'} instead of {digest}.",
                location=image.name,
                remedy="Somebody pushes the same tag at the same time, or the registry is broken: do it again.",
            )
        return f"{spec.repository}@{digest}"

    async def _login(self, image: str) -> dict[str, str] | None:
        return await login_for(image, self._doors)


async def login_for(image: str, doors: ImageDoors) -> dict[str, str] | None:
    """The user for an image's registry, as the engine takes it: of a block, else of Docker's own configuration."""
    registry = parse_image(image).registry
    login = doors.logins.get(registry) or await anyio.to_thread.run_sync(docker_login, registry)
    return {"username": login.username, "password": login.password} if login else None


def _is(found: EngineImage, digest: str) -> bool:
    """Whether an image of the engine is the one that a base image was resolved to, if anybody knew."""
    return digest in ("", found.id, *(each.partition("@")[2] for each in found.digests))


def _pinned_bases(inputs: BuildInputs) -> tuple[str, ...]:
    """The base images that the Dockerfile names by a digest: nobody need look up what they are."""
    dockerfile = _dockerfile(inputs)
    stages = (dockerfile.stages[index] for index in sorted(needed_stages(dockerfile, inputs.spec.target)))
    return tuple(stage.base.text for stage in stages if stage.base.text and "@" in stage.base.text)


def _own_base(inputs: BuildInputs) -> str:
    """The base image of the image itself, not of other stages; empty where it has none."""
    dockerfile = _dockerfile(inputs)
    stage = dockerfile.stages[target_of(dockerfile, inputs.spec.target)]
    while stage.parent is not None:
        stage = dockerfile.stages[stage.parent]
    return stage.base.text or ""


def _dockerfile(inputs: BuildInputs) -> Dockerfile:
    return read_dockerfile(inputs.dockerfile_text, dict(inputs.spec.arguments))


def _known_aliases(spec: ImageSpec) -> list[str]:
    """Further tags, but for those that only another step gives."""
    return [alias for alias in spec.aliases if "{{" not in alias]


def _refuse_triggers(spec: ImageSpec, triggers: Sequence[str]) -> None:
    """A base image whose ONBUILD copies from the context needs files that the Dockerfile does not name.

    Raises:
        ImageError: only what the Dockerfile names would be sent.
    """
    copying = [trigger for trigger in triggers if trigger.split(" ")[0].upper() in ("COPY", "ADD")]
    if copying and not spec.takes_whole_context:
        raise ImageError(
            f"Its base image copies from the context by itself: ONBUILD {copying[0]}.",
            location=spec.dockerfile,
            remedy=f'Write `images: {{builds: {{"{spec.dockerfile}": {{whole_context: true}}}}}}` in the environment.',
        )


async def _id_of(image: PlannedImage, engine: Engine) -> str:
    found = await engine.find(image.name)
    return found.id if found else ""


def _changed(image: PlannedImage) -> ImageError:
    return ImageError(
        "What it is built from has changed since this was planned.",
        location=image.name,
        remedy="Leave the files alone for that time, and do it again.",
    )


def result_of(image: PlannedImage, status: ImageStatus, pinned: str, now: PlannedImage | None = None) -> ImageResult:
    """The result of an image under the name that the plan has for it; `now`: as it was made."""
    digest = (now or image).input_digest
    return ImageResult(name=image.name, spec=image.spec, input_digest=digest, status=status, pinned=pinned)


def failed(image: PlannedImage, error: OrchestratorError) -> ImageResult:
    """The result of an image that could not be made."""
    return replace(
        result_of(image, "failed", ""),
        error=without_secrets_of(image.spec, error.message),
        remedy=without_secrets_of(image.spec, error.remedy),
        location=without_secrets_of(image.spec, error.location),
        output=error.output if isinstance(error, ImageError) else (),
    )

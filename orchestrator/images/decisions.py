"""Which images there are already, and which have to be built: decided without building anything.

An image is there if the registry (or, for images that stay on this machine, the engine) has its tag, which is made of
its input digest, and if the image under that tag says so itself, by its label: a tag can be overwritten by anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio

from orchestrator.cache_file import write_cache
from orchestrator.errors import ConfigurationError, ImageError, OrchestratorError, RegistryError, RegistryUnreachable
from orchestrator.images.context import FileDigests, read_inputs
from orchestrator.images.doors import ImageDoors
from orchestrator.images.engine import EngineImage
from orchestrator.images.names import parse_image, without_secrets_of
from orchestrator.local import STATE_FOLDER
from orchestrator.model import BuildInputs, Finding, ImageSpec, PlannedImage

INPUT_DIGEST_LABEL = "io.orchestrator.input-digest"
AT_A_TIME = 8  # questions to registries


class Bases:
    """What base images are resolved to: by the registry, or if that does not answer by the engine, or as they were
    resolved here the last time.

    Each is asked for once, and a registry that does not answer is left alone. So a base image that has moved is a
    change of every image on it; who does not want that names the base image by its digest.
    """

    def __init__(self, root: Path, doors: ImageDoors) -> None:
        self._doors = doors
        self._earlier = _Remembered(root, "base-images.txt")
        self._known: dict[tuple[str, str], str] = {}
        self._silent: set[str] = set()  # registries that do not answer
        self.platform = doors.platform

    async def resolve(self, image: str, platform: str) -> str:
        """The digest of a base image, or its id in the engine; empty where nobody knows it."""
        key = (image, platform)
        if not self._known.get(key):  # one that nobody knew may have been pulled meanwhile
            earlier = self._earlier.get(f"{image}|{platform}") or ""
            self._known[key] = await self._in_registry(image) or await self._in_engine(image) or earlier
            self._earlier.put(f"{image}|{platform}", self._known[key])
        return self._known[key]

    def save(self) -> None:
        """Remember them for the next time."""
        self._earlier.save()

    async def _in_registry(self, image: str) -> str:
        try:
            name = parse_image(image)
            if name.registry in self._silent:
                return ""
            digest: str | None = await self._doors.registries.digest_of(name)
            return digest or ""
        except ConfigurationError:
            return ""
        except RegistryUnreachable:
            self._silent.add(name.registry)
            return ""
        except RegistryError:  # it does not let us see this one
            return ""

    async def _in_engine(self, image: str) -> str:
        found = await self._doors.engine.find(image) if self._doors.engine else None
        return digest_in(found, image) if found else ""


def digest_in(found: EngineImage, image: str) -> str:
    """The digest by which the engine has pulled or pushed an image under its repository's name, else its id."""
    repository = parse_image(image).repository
    digests = [each.partition("@")[2] for each in found.digests if parse_image(each).repository == repository]
    return digests[0] if digests else found.id


Read = BuildInputs | OrchestratorError
"""What an image is built from, or why that cannot be read."""


async def read_image_inputs(root: Path, specs: Sequence[ImageSpec], bases: Bases) -> list[Read]:
    """Read what some images are built from, in a thread.

    Returns:
        One for each, in order.
    """

    def resolve(image: str, platform: str) -> str:
        return anyio.from_thread.run(bases.resolve, image, platform)

    built = [replace(spec, platform=spec.platform or bases.platform) for spec in specs]
    found = await anyio.to_thread.run_sync(_read_all, root, built, resolve, abandon_on_cancel=True)
    bases.save()
    return found


def _read_all(root: Path, specs: Sequence[ImageSpec], base_of: Callable[[str, str], str]) -> list[Read]:
    cache = FileDigests(root)
    found: list[Read] = []
    for spec in specs:
        try:
            found.append(read_inputs(root, spec, base_of=base_of, cache=cache))
        except (ConfigurationError, ImageError) as error:
            found.append(error)
    cache.save()
    return found


async def decide(
    root: Path, specs: Sequence[ImageSpec], doors: ImageDoors, bases: Bases | None = None
) -> tuple[PlannedImage, ...]:
    """What each image needs.

    Args:
        root: the repository.
        specs: the images.
        doors: the engine and the registries.
        bases: what is known of base images; None: nothing yet.

    Returns:
        One for each, in order. What cannot be decided, or cannot be built, says why in its findings.
    """
    inputs = await read_image_inputs(root, specs, bases or Bases(root, doors))
    labels = _Remembered(root, "image-labels.txt")
    decided: dict[int, PlannedImage] = {}
    limiter = anyio.CapacityLimiter(AT_A_TIME)

    async def one(index: int, spec: ImageSpec, read: Read) -> None:
        async with limiter:
            decided[index] = _concealed(await _decided(spec, read, doors, labels))

    async with anyio.create_task_group() as group:
        for index, (spec, read) in enumerate(zip(specs, inputs, strict=True)):
            group.start_soon(one, index, spec, read)
    labels.save()
    return tuple(decided[index] for index in range(len(specs)))


def _concealed(image: PlannedImage) -> PlannedImage:
    """The image; what was found about it does not tell the secret parts of its name."""
    hide = partial(without_secrets_of, image.spec)
    findings = tuple(replace(each, message=hide(each.message), remedy=hide(each.remedy)) for each in image.findings)
    return replace(image, findings=findings)


async def _decided(spec: ImageSpec, read: Read, doors: ImageDoors, labels: _Remembered) -> PlannedImage:
    if isinstance(read, OrchestratorError):
        return PlannedImage(spec=spec, input_digest="", action="unknown", findings=tuple(_faults_of(read)))
    knows_bases = all(digest for _, digest in read.bases)
    image = PlannedImage(spec=spec, input_digest=read.digest, action="build", knows_bases=knows_bases)
    try:
        image = await (_in_registry(image, doors, labels) if spec.is_pushed else _in_engine(image, doors))
    except OrchestratorError as error:
        return replace(image, action="unknown", findings=(_finding(error),))
    if image.action == "build" and not knows_bases and doors.engine is None:
        return replace(image, action="unknown", findings=(*image.findings, _baseless(read)))
    return _buildable(image, read, doors) if image.action in ("build", "push") else image


async def _in_registry(image: PlannedImage, doors: ImageDoors, labels: _Remembered) -> PlannedImage:
    name = parse_image(image.name)
    digest = await doors.registries.digest_of(name)
    if digest is not None:
        if await _input_digest_of(image, digest, doors, labels) == image.input_digest:
            pinned = f"{image.spec.repository}@{digest}"
            return replace(image, action="reuse", pinned=pinned, reason="the registry has it")
        image = replace(image, findings=(_overwritten(image),))
    found = await doors.engine.find(image.name) if doors.engine else None
    reason = "what it is built from has changed" if digest is None else "its tag was overwritten"
    if found is not None and found.labels.get(INPUT_DIGEST_LABEL) == image.input_digest:
        reason = "the registry has it not" if digest is None else reason
        return replace(image, action="push", reason=f"this machine's engine has it, {reason}")
    return replace(image, reason=reason)


async def _in_engine(image: PlannedImage, doors: ImageDoors) -> PlannedImage:
    if doors.engine is None:
        assert doors.why_none is not None
        raise doors.why_none
    found = await doors.engine.find(image.name)
    if found is not None and found.labels.get(INPUT_DIGEST_LABEL) == image.input_digest:
        reason = "this machine's engine has it; there is no registry"
        return replace(image, action="reuse", pinned=found.id, reason=reason)
    return replace(image, reason="what it is built from has changed")


def _buildable(image: PlannedImage, read: BuildInputs, doors: ImageDoors) -> PlannedImage:
    """The image with what will keep it from being built."""
    missing = read.missing if image.action == "build" else ()
    found = [
        Finding(message=f"{fault.location}: {fault.message}", remedy=fault.remediation, severity=fault.severity)
        for fault in missing
    ]
    found += [_finding(doors.why_none)] if doors.why_none else []
    return replace(image, findings=(*image.findings, *found))


def _baseless(read: BuildInputs) -> Finding:
    bases = ", ".join(base for base, digest in read.bases if not digest)
    return Finding(
        message=f"Nobody knows whether it has to be built: its base image {bases} could not be looked up.",
        remedy="See that this machine reaches its registry or a Docker engine, or name the base image by its digest.",
    )


def _overwritten(image: PlannedImage) -> Finding:
    return Finding(
        message=f"Somebody has overwritten {image.name} in the registry: the image there is not built from this.",
        remedy="It is pushed anew. Forbid the registry to overwrite tags, or find out who does it.",
        severity="warning",
    )


def _faults_of(error: OrchestratorError) -> list[Finding]:
    faults = error.faults if isinstance(error, ConfigurationError) else ()
    if not faults:
        return [_finding(error)]
    places = [f"{fault.file_path}: " if fault.file_path else "" for fault in faults]
    return [
        Finding(message=f"{place}{fault.message}", remedy=fault.remediation)
        for place, fault in zip(places, faults, strict=True)
    ]


def _finding(error: OrchestratorError) -> Finding:
    where = f"{error.location}: " if error.location else ""
    return Finding(message=f"{where}{error.message}", remedy=error.remedy)


class _Remembered:
    """Texts by text, kept from one command to the next in a file of the cache: a pair without blanks in each line."""

    def __init__(self, root: Path, name: str) -> None:
        self._file = root / STATE_FOLDER / "cache" / name
        self._known = dict(_pairs(self._file))
        self._is_new = False

    def get(self, key: str) -> str | None:
        return self._known.get(key)

    def put(self, key: str, value: str) -> None:
        self._is_new = self._is_new or self._known.get(key) != value
        self._known[key] = value

    def save(self) -> None:
        if self._is_new:
            write_cache(self._file, "".join(f"{key} {value}\n" for key, value in self._known.items()).encode())


def _pairs(file: Path) -> Iterator[tuple[str, str]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for key, blank, value in (line.partition(" ") for line in lines):
        if blank and " " not in value:
            yield key, value


async def _input_digest_of(image: PlannedImage, digest: str, doors: ImageDoors, labels: _Remembered) -> str:
    """What an image of a registry says that it is built from; empty where it is none of ours.

    A digest never changes what it stands for: each is asked for once.
    """
    known = labels.get(digest)
    if known is None:
        found = await doors.registries.labels_of(parse_image(image.name), digest, image.spec.platform)
        known = found.get(INPUT_DIGEST_LABEL, "")
        labels.put(digest, known)
    return known

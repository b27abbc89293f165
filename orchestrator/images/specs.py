"""Which image the runs of a flow start from, what that is built from, and where the flow lies in it.

The Dockerfile is the one that discovery found for the flow. Flows with the same one share an image: its name is made of
the project and the Dockerfile, and never of the environment.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.config import EnvironmentConfig, ImageBuildConfig
from orchestrator.dockerfile import Copy, Dockerfile, Instruction, Source, read_dockerfile
from orchestrator.model import ImageSpec
from orchestrator.placeholders import has_placeholder
from orchestrator.repository import Repository

_ENDING = ".Dockerfile"
_ARCHIVE = re.compile(r"(?i)\.(tar(\.\w+)?|tgz|tbz2?|txz|tzst)$")  # that ADD unpacks


@dataclass(frozen=True, slots=True)
class FlowImage:
    """The image of a Dockerfile, and what the Dockerfile says."""

    spec: ImageSpec
    dockerfile: Dockerfile


def flow_images(
    repository: Repository, environment: EnvironmentConfig, project: str, dockerfiles: Iterable[str]
) -> dict[str, FlowImage]:
    """The image of each Dockerfile that belongs to flows.

    Args:
        repository: where the Dockerfiles are.
        environment: says which registry, and how images are built.
        project: the owner's name.
        dockerfiles: their paths; one that cannot be read is left out.

    Returns:
        By the Dockerfile's path.
    """
    found = {}
    for path in dict.fromkeys(dockerfiles):
        text = repository.text(path)
        if text is not None:
            written = environment.images.builds.get(path, ImageBuildConfig())
            dockerfile = read_dockerfile(text, written.arguments)
            found[path] = FlowImage(_spec(repository, environment, project, path, written, dockerfile), dockerfile)
    return found


def _spec(
    repository: Repository,
    environment: EnvironmentConfig,
    project: str,
    path: str,
    written: ImageBuildConfig,
    dockerfile: Dockerfile,
) -> ImageSpec:
    registry = environment.docker_registry
    name = written.repository or repository_name(project, path)
    context = written.context
    return ImageSpec(
        repository=f"{registry.rstrip('/')}/{name}" if registry else name,
        dockerfile=path,
        context=_context(repository, path, dockerfile) if context is None else _normal(context),
        target=written.target or "",
        platform=written.platform or environment.images.platform or "",
        arguments=tuple(sorted(written.arguments.items())),
        takes_whole_context=written.whole_context,
        is_pushed=registry is not None,
        credentials=environment.docker_registry_credentials or "",
        source=f"{path}:1",
    )


def repository_name(project: str, dockerfile: str) -> str:
    """What an image is called: `shop-flow` for docker/flow.Dockerfile, `shop-flows-x` for flows/x/Dockerfile."""
    folder, name = posixpath.split(dockerfile)
    if name.endswith(_ENDING):
        folder = posixpath.join("" if folder == "docker" else folder, name.removesuffix(_ENDING))
    words = re.sub(r"[^a-z0-9]+", "-", f"{project}-{folder}".lower())
    return words.strip("-") or "flows"


def possible_contexts(dockerfile: str) -> tuple[str, ...]:
    """From where a Dockerfile may be built: the root, or any folder from there down to its own."""
    parts = posixpath.dirname(dockerfile).split("/")
    folders = ("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    return ("", *(folder for folder in folders if folder))


def _context(repository: Repository, path: str, dockerfile: Dockerfile) -> str:
    """The first possible one that has everything which is copied; the root where none has."""
    sources = [_relative(source) for source in _known_sources(dockerfile)]
    fitting = (
        context
        for context in possible_contexts(path)
        if all(_exists(repository, posixpath.join(context, source)) for source in sources)
    )
    return next(fitting, "")


def _known_sources(dockerfile: Dockerfile) -> Iterator[Source]:
    for copy in dockerfile.copies:
        yield from filter(_is_known, copy.sources if copy.is_from_context else ())


def _is_known(source: Source) -> bool:
    """Whether a source is a path in the context, without anything in it that is not known."""
    text = source.path.text
    is_remote = Source(text or "", source.path).is_remote  # perhaps by a variable
    return bool(text) and not is_remote and not source.has_wildcards and not has_placeholder(text)


def _relative(source: Source) -> str:
    """The path of a source as docker looks it up: from the context, out of which `..` does not lead."""
    return posixpath.normpath(f"/{source.path.text}").lstrip("/")


def _exists(repository: Repository, path: str) -> bool:
    return repository.has_folder(path) or path in repository


def _normal(path: str) -> str:
    normal = posixpath.normpath(path)
    return "" if normal == "." else normal


# ---------------------------------------------------------------------------------------------------------
# Where a flow lies in its image
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlaceInImage:
    """Where a run finds its flow.

    Attributes:
        folder: the working directory; empty: the image's own, which the base image sets.
        entrypoint: from there.
    """

    folder: str
    entrypoint: str


def place_in_image(image: FlowImage, entrypoint: str) -> PlaceInImage:
    """Where a flow lies in an image, as far as the Dockerfile tells.

    Args:
        image: the image.
        entrypoint: of the flow, relative to the repository's root.

    Returns:
        The folder from which the entrypoint holds, as in the repository; where the Dockerfile puts the file under
        another path, its working directory and the whole path of the file.
    """
    path, colon, function = entrypoint.rpartition(":")
    stage = _stage(image)
    working_folder = _working_folder(image.dockerfile, stage)
    location = _location(image, stage, posixpath.relpath(path, image.spec.context or ".")) if colon else None
    if location is None:
        return PlaceInImage(working_folder, entrypoint)
    if location.endswith(f"/{path}"):
        return PlaceInImage(location.removesuffix(f"/{path}") or "/", entrypoint)
    return PlaceInImage(working_folder, f"{location}:{function}")


def is_known_to_lack(image: FlowImage, path: str) -> bool:
    """Whether an image surely does not hold a file of the repository, as far as its COPY lines tell.

    An image that copies nothing has its code from elsewhere.
    """
    stage = _stage(image)
    line = _line_of_stages(image.dockerfile, stage)
    sources = [source for copy in image.dockerfile.copies if copy.stage in line for source in copy.sources]
    if not sources or any(_may_bring_anything(image.dockerfile, each) for each in line):
        return False
    inside = posixpath.relpath(path, image.spec.context or ".")
    return all(_taken(source, inside, is_folder=True) is None for source in sources)


def _may_bring_anything(dockerfile: Dockerfile, stage: int) -> bool:
    """Whether a stage takes something of which nobody knows what is in it: another image, wildcards, an archive, …"""
    copies = [copy for copy in dockerfile.copies if copy.stage == stage]
    is_told = all(copy.is_from_context and all(map(_is_known, copy.sources)) for copy in copies)
    added = [source for copy in copies if copy.instruction.name == "ADD" for source in copy.sources]
    is_unpacked = any(_ARCHIVE.search(source.path.text or "") for source in added)
    return not is_told or is_unpacked or any(map(_mounts_files, _instructions_in(dockerfile, stage)))


def _mounts_files(instruction: Instruction) -> bool:
    """Whether a RUN sees files of the context, or of another stage, which it may copy."""
    mounts = [value for name, value in instruction.flags if name == "mount"]
    return any("type=bind" in mount or "type=" not in mount for mount in mounts)


def _stage(image: FlowImage) -> int | None:
    """The index of the stage that is built; None where there is none of that name."""
    stages, target = image.dockerfile.stages, image.spec.target.lower()
    if not target:
        return len(stages) - 1 if stages else None
    named = {stage.name: index for index, stage in enumerate(stages) if stage.name}
    number = int(target) if target.isdecimal() and int(target) < len(stages) else None
    return named.get(target, number)


def _line_of_stages(dockerfile: Dockerfile, stage: int | None) -> list[int]:
    """A stage and those that it starts from, the first one first."""
    found: list[int] = []
    while stage is not None:
        found.insert(0, stage)
        stage = dockerfile.stages[stage].parent
    return found


def _working_folder(dockerfile: Dockerfile, stage: int | None) -> str:
    return _folder_before(dockerfile, stage, None)


def _folder_before(dockerfile: Dockerfile, stage: int | None, line_number: int | None) -> str:
    """The working directory at a line, or at the end of a stage; empty where the base image or a variable decides."""
    folder = ""
    for index in _line_of_stages(dockerfile, stage):
        for number, written in _workdirs(dockerfile, index):
            if index == stage and line_number is not None and number > line_number:
                break
            if written.startswith("/") or folder:
                folder = "" if "$" in written else posixpath.normpath(posixpath.join(folder, written))
    return folder


def _workdirs(dockerfile: Dockerfile, stage: int) -> Iterator[tuple[int, str]]:
    for instruction in _instructions_in(dockerfile, stage):
        if instruction.name == "WORKDIR":
            yield instruction.line_number, instruction.arguments.strip().strip("\"'")


def _instructions_in(dockerfile: Dockerfile, stage: int) -> Iterator[Instruction]:
    starts = [each.line_number for each in dockerfile.stages]
    end = starts[stage + 1] if stage + 1 < len(starts) else None
    for instruction in dockerfile.instructions:
        if instruction.line_number > starts[stage] and (end is None or instruction.line_number < end):
            yield instruction


def _location(image: FlowImage, stage: int | None, path: str) -> str | None:
    """Where a file of the context lies in a stage: the last COPY that takes it decides."""
    line = _line_of_stages(image.dockerfile, stage)
    found = None
    for copy in image.dockerfile.copies:
        if copy.stage in line and copy.is_from_context:
            found = _copied_to(image.dockerfile, copy, path) or found
    return found


def _copied_to(dockerfile: Dockerfile, copy: Copy, path: str) -> str | None:
    """Where a COPY puts a file of the context, None where it does not take it or cannot be understood."""
    destination = _destination(dockerfile, copy)
    if destination is None or copy.instruction.flag("parents") is not None:
        return None
    is_folder = posixpath.splitext(destination)[1] != posixpath.splitext(path)[1]  # a flow keeps its ending
    found = (_taken(source, path, is_folder=is_folder) for source in copy.sources)
    taken = next((each for each in found if each is not None), None)
    return None if taken is None else posixpath.normpath(posixpath.join(destination, taken))


def _destination(dockerfile: Dockerfile, copy: Copy) -> str | None:
    """The whole path that a COPY names as its destination, None where that is not known."""
    written = copy.destination.strip("\"'")
    if "$" in written:
        return None
    if written.startswith("/"):
        return written
    folder = _folder_before(dockerfile, copy.stage, copy.instruction.line_number)
    return posixpath.join(folder, written) if folder else None


def _taken(source: Source, path: str, *, is_folder: bool) -> str | None:
    """The path of a file below a COPY's destination; empty where the destination is the file itself."""
    if not _is_known(source) or path.startswith("../"):
        return None
    start = _relative(source)
    if start == path:
        return posixpath.basename(path) if is_folder else ""
    if not start or path.startswith(f"{start}/"):
        return posixpath.relpath(path, start or ".")
    return None

"""What an image is built from: read from the disk, and the digest over it.

The digest is over all that decides what comes out of a build, as far as anybody can know it before, and over nothing
else: two checkouts of one commit have the same, whoever made them, when and where.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from orchestrator.dockerfile import Dockerfile, Stage, read_dockerfile
from orchestrator.dockerignore import DockerIgnore, dockerignore_of
from orchestrator.errors import ConfigurationError, ImageError
from orchestrator.images.context_files import LEFT_OUT, FileDigests, Tree, unreadable
from orchestrator.images.copied import (
    Listing,
    TakenPath,
    Taking,
    existing_paths,
    is_understood,
    needed_stages,
    takings_of,
    target_of,
)
from orchestrator.model import BuildInputs, ImageSpec, ValidationError
from orchestrator.repository import Repository

__all__ = ["IGNORE_FILE", "FileDigests", "location_of_context", "read_inputs"]

IGNORE_FILE = ".dockerignore"
_FORM = 1  # of the digest: with another one all images are built anew

BaseOf = Callable[[str, str], str]
"""Base image and platform → its digest or id; empty where that is not known."""


def _nobody_knows(image: str, platform: str) -> str:
    return ""


def read_inputs(
    root: Path, spec: ImageSpec, *, base_of: BaseOf = _nobody_knows, cache: FileDigests | None = None
) -> BuildInputs:
    """Read what an image is built from.

    Of the context that is what the Dockerfile takes, as far as reading it tells; else all of it. Base images are those
    of the FROM lines that the image needs and that name no digest; that of the image itself is the last one.

    Args:
        root: the repository.
        spec: the image.
        base_of: what a base image is today; asked once for each.
        cache: what is known of files, shared by the images of one command.

    Returns:
        The inputs. What the Dockerfile takes and nobody has is in `missing`: an error where no build can end well, a
        warning for wildcards that match nothing, with which BuildKit builds and the classic builder does not.

    Raises:
        ConfigurationError: Dockerfile or context are not in the repository, or docker would refuse the .dockerignore.
        ImageError: something of it cannot be read.
    """
    files = cache or FileDigests()
    location = location_of_context(root, spec)
    text = _text_of_dockerfile(root, spec)
    ignore = _ignore_of(root, spec, location)
    dockerfile = read_dockerfile(text, dict(spec.arguments))
    lookups = _looked_up(dockerfile, spec, partial(_listing, files, location))
    tree = files.tree(location, _starts(spec, lookups), ignore)
    bases = _bases(dockerfile, spec, base_of)
    return BuildInputs(
        spec=spec,
        digest=_digest(spec, text, tree, bases),
        dockerfile_text=text,
        entries=tree.entries,
        bases=bases,
        missing=tuple(_missing(spec, lookups, tree, ignore)) if lookups else (),
    )


def _digest(spec: ImageSpec, text: str, tree: Tree, bases: tuple[tuple[str, str], ...]) -> str:
    """Neither names of the image nor the values of secrets are in it: a digest could be tried for them."""
    parts = [
        _FORM,
        text,
        tree.digest,
        sorted(spec.arguments),
        sorted(name for name, _ in spec.secret_arguments),
        spec.target,
        spec.platform,
        bases,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _bases(dockerfile: Dockerfile, spec: ImageSpec, base_of: BaseOf) -> tuple[tuple[str, str], ...]:
    """Images that are no stages, with what they are today; that of the image itself at the end."""
    if not dockerfile.stages:
        return ()
    own = target_of(dockerfile, spec.target)
    while (parent := dockerfile.stages[own].parent) is not None:
        own = parent
    order = (own, *sorted(needed_stages(dockerfile, spec.target) - {own}, reverse=True))
    images = [_outside_image(dockerfile.stages[index], spec) for index in order]
    return tuple((image, base_of(image, platform)) for image, platform in reversed(dict.fromkeys(filter(None, images))))


def _outside_image(stage: Stage, spec: ImageSpec) -> tuple[str, str] | None:
    """The image that a stage starts from, and its platform; None where that is a stage, pinned, or not known."""
    image = stage.base.text
    depends_on_secrets = stage.base.from_argument and bool(spec.secret_arguments)
    if stage.parent is not None or not image or image.lower() == "scratch" or "@" in image or depends_on_secrets:
        return None
    written = stage.platform or "$TARGETPLATFORM"
    if "$" in written:
        return image, spec.platform if "TARGETPLATFORM" in written else ""
    return image, written


# ---------------------------------------------------------------------------------------------------------
# Where it lies
# ---------------------------------------------------------------------------------------------------------


def location_of_context(root: Path, spec: ImageSpec) -> str:
    """The folder that is the build context of an image, free of links.

    Raises:
        ConfigurationError: there is none in the repository.
    """
    location = _inside(root, spec.context)
    if location is None:
        raise _refused(spec, f"The build context {spec.context!r} lies outside of the repository.")
    if not os.path.isdir(location):  # noqa: PTH112 - a Path raises where it may not look
        raise _refused(spec, f"The build context {spec.context!r} of the image does not exist, or is no folder.")
    return str(location)


def _text_of_dockerfile(root: Path, spec: ImageSpec) -> str:
    if spec.dockerfile_text is not None:
        return spec.dockerfile_text
    location = _inside(root, spec.dockerfile)
    if location is None:
        raise _refused(spec, f"The Dockerfile {spec.dockerfile!r} lies outside of the repository.")
    try:
        if location.is_file():
            return location.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise ImageError(
            f"The Dockerfile cannot be read ({error.strerror}).",
            location=spec.dockerfile,
            remedy="Make it readable for the user who builds.",
        ) from error
    raise _refused(spec, f"The Dockerfile {spec.dockerfile!r} does not exist, or is no file.")


def _inside(root: Path, path: str) -> Path | None:
    """Where a path of the repository lies, with links followed; None outside of it."""
    try:
        location = Path(os.path.realpath(root / path))
    except ValueError:  # a null byte
        return Path(root, "\ufffd")
    return location if location.is_relative_to(os.path.realpath(root)) else None


def _refused(spec: ImageSpec, message: str) -> ConfigurationError:
    remedy = "Correct the path where the image is asked for: it starts at the repository's root."
    fault = ValidationError(code="IMG001", message=message, file_path=spec.dockerfile, remediation=remedy)
    return ConfigurationError(message, location=spec.source or spec.dockerfile, remedy=remedy, faults=[fault])


def _ignore_of(root: Path, spec: ImageSpec, location: str) -> DockerIgnore:
    """What the user leaves out, behind what we leave out."""
    repository = Repository(Path(os.path.realpath(root)))
    context = posixpath.relpath(location, os.path.realpath(root))
    ignore = dockerignore_of(repository, posixpath.normpath(spec.dockerfile), "" if context == "." else context)
    faults = [
        ValidationError(
            code="IMG005",
            message=f"The pattern {fault.written[:80]!r} is malformed.",
            file_path=ignore.path,
            line_number=fault.line_number,
            remediation="Close its brackets and finish its escapes; `!` needs a pattern behind it.",
        )
        for fault in ignore.faults
    ]
    if ignore.path and repository.text(ignore.path) is None:
        message, remedy = "It cannot be read, or is no UTF-8 text.", "Save it as UTF-8, and make it readable."
        faults = [ValidationError(code="IMG005", message=message, file_path=ignore.path, remediation=remedy)]
    if faults:
        first = faults[0]
        raise ConfigurationError(first.message, location=first.location, remedy=first.remediation, faults=faults)
    return replace(ignore, patterns=(*LEFT_OUT.patterns, *ignore.patterns))


# ---------------------------------------------------------------------------------------------------------
# What the Dockerfile takes of the context
# ---------------------------------------------------------------------------------------------------------

_Found = tuple[TakenPath, list[str] | None]
"""A path that is taken, and what it stands for on the disk; None where that is not known for sure."""

_Lookups = tuple[tuple[Taking, tuple[_Found, ...]], ...]


def _listing(files: FileDigests, context: str, folder: str) -> Mapping[str, str]:
    try:
        return files.listing(f"{context}/{folder}" if folder else context)
    except OSError as error:
        raise unreadable([f"{folder or '.'!r} ({error.strerror})"]) from error


def _looked_up(dockerfile: Dockerfile, spec: ImageSpec, listing: Listing) -> _Lookups | None:
    """What a Dockerfile takes; None where reading it does not tell."""
    if not is_understood(dockerfile, spec):
        return None
    return tuple(
        (taking, tuple((taken, existing_paths(taken, listing)) for taken in taking.paths))
        for taking in takings_of(dockerfile, spec)
    )


def _starts(spec: ImageSpec, lookups: _Lookups | None) -> set[str]:
    """The paths at and below which the image can reach the context."""
    found = [paths for _, places in lookups or () for _, paths in places]
    if spec.takes_whole_context or lookups is None or None in found:
        return {""}
    return {path for paths in found for path in paths or ()}


def _missing(spec: ImageSpec, lookups: _Lookups, tree: Tree, ignore: DockerIgnore) -> Iterator[ValidationError]:
    """What is taken and not sent, by the stages that the image needs."""
    sent = {"", *(entry.path for entry in tree.entries)}
    for taking, places in lookups:
        lacking = [(taken, paths) for taken, paths in places if paths is not None and sent.isdisjoint(paths)]
        takes_some = taking.takes_more or len(lacking) < len(places)
        for taken, paths in lacking if taking.is_needed else ():
            if not (taken.has_wildcards and takes_some):
                yield _fault(spec, taking, taken, _removal(ignore, paths))


def _removal(ignore: DockerIgnore, paths: Sequence[str]) -> str:
    """What removes paths from the context, as `pattern (file:line)`; empty where nothing does."""
    reason = next((reason for path in paths if (reason := ignore.reason(path))), None)
    if reason is None:
        return ""
    is_ours = any(reason is pattern for pattern in LEFT_OUT.patterns)
    return f"{reason.written!r} ({'left out of all images' if is_ours else f'{ignore.path}:{reason.line_number}'})"


def _fault(spec: ImageSpec, taking: Taking, taken: TakenPath, removal: str) -> ValidationError:
    if removal:
        message = f"The Dockerfile copies {taken.written!r}, which {removal} removes from the build context."
        remedy = "Remove this pattern from .dockerignore, or add an exception: `!` and the path from the build context."
    else:
        place = spec.context or "the root of the repository"
        message = f"The Dockerfile copies {taken.written!r}, but there is no such file or folder in {place}."
        remedy = "Correct the path (it starts at the build context), or add the file."
    return ValidationError(
        code="IMG003" if removal else "IMG002",
        message=message,
        file_path=spec.dockerfile,
        line_number=taking.line_number,
        remediation=remedy,
        severity="warning" if taken.has_wildcards else "error",
    )

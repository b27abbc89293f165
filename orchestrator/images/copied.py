"""What a Dockerfile takes of its build context: the sources of COPY, ADD and `RUN --mount=type=bind`.

An image need not be built anew when a file changes that nothing of this can reach. Where reading cannot say for sure
what is reached, all of the context counts.

Sources are looked up as docker does it (https://docs.docker.com/reference/dockerfile/#copy): each path starts at the
context, out of which `..` does not lead, and wildcards are those of Go's filepath.Match.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from orchestrator.dockerfile import Copy, Dockerfile, Instruction, Source, Stage
from orchestrator.dockerignore import matching_names
from orchestrator.model import ImageSpec

_WILDCARDS = re.compile(r"[*?\[]")
_PLAIN_CLASS = re.compile(r"\[(?:\w(?:-\w)?)+\]")  # others may be malformed, or match a slash, too
_PERHAPS_REMOTE = re.compile(r"(?i)github\.com/")  # a folder, or for ADD a repository
_FRONTEND_ARGUMENT = "BUILDKIT_SYNTAX"  # names another frontend, as `# syntax=` does


@dataclass(frozen=True, slots=True)
class TakenPath:
    """A place in the build context that an instruction takes."""

    written: str
    path: str | None  # from the context, normalised; "" for all of it, None where it is not known for sure

    @property
    def has_wildcards(self) -> bool:
        return bool(_WILDCARDS.search(self.path or ""))


@dataclass(frozen=True, slots=True)
class Taking:
    """What one instruction takes of the build context."""

    line_number: int
    paths: tuple[TakenPath, ...]
    takes_more: bool = False  # heredocs or addresses
    is_needed: bool = True  # by the stage that is built; docker's classic builder builds those before it, too


def is_understood(dockerfile: Dockerfile, spec: ImageSpec) -> bool:
    """Does a Dockerfile say everything that is taken of the context?

    A trigger (ONBUILD) takes something only in another build, or in a later stage. Those of a base image are not known
    here.
    """
    names = {name for name, _ in (*spec.arguments, *spec.secret_arguments)}
    bases = " ".join(stage.base.text or "" for stage in dockerfile.stages)
    has_triggers = any(instruction.name == "ONBUILD" for instruction in dockerfile.instructions) or "onbuild" in bases
    is_docker = not dockerfile.has_foreign_syntax and _FRONTEND_ARGUMENT not in names
    return is_docker and not dockerfile.faults and not has_triggers


def takings_of(dockerfile: Dockerfile, spec: ImageSpec) -> tuple[Taking, ...]:
    """All that is taken of the context by the stages up to the one that is built, in the order of the file.

    Args:
        dockerfile: read with the arguments that the spec gives in clear.
        spec: says which stage is built; and what only a secret argument tells is not known.
    """
    built, needed = target_of(dockerfile, spec.target), needed_stages(dockerfile, spec.target)
    has_secrets = bool(spec.secret_arguments)
    copies = ((each.stage, _of_copy(each, has_secrets)) for each in dockerfile.copies if each.is_from_context)
    runs = ((stage, each) for stage, each in _with_stages(dockerfile) if each.name == "RUN")
    mounts = ((stage, Taking(run.line_number, tuple(_mounted(run)))) for stage, run in runs)
    taken = (replace(taking, is_needed=stage in needed) for stage, taking in (*copies, *mounts) if stage <= built)
    return tuple(sorted((taking for taking in taken if taking.paths), key=lambda taking: taking.line_number))


def _with_stages(dockerfile: Dockerfile) -> Iterator[tuple[int, Instruction]]:
    """Each instruction behind the first FROM, and the index of its stage."""
    stage = -1
    for instruction in dockerfile.instructions:
        stage += instruction.name == "FROM"
        if stage >= 0:
            yield stage, instruction


# ---------------------------------------------------------------------------------------------------------
# Stages
# ---------------------------------------------------------------------------------------------------------


def target_of(dockerfile: Dockerfile, target: str) -> int:
    """The index of the stage that is built: the last one, also where there is none of that name."""
    found = _stage_called(target, dockerfile.stages) if target else None
    return len(dockerfile.stages) - 1 if found is None else found


def needed_stages(dockerfile: Dockerfile, target: str) -> set[int]:
    """The stages that the one which is built starts from, copies from or mounts, and itself."""
    stages = dockerfile.stages
    uses = {index: _used(stage.base.text or "$", stages[:index]) for index, stage in enumerate(stages)}
    for index, instruction in _with_stages(dockerfile):
        for name in _other_places(instruction):
            uses[index] |= _used(name, stages[:index])
    needed: set[int] = set()
    waiting = [target_of(dockerfile, target)] if stages else []
    while waiting:
        needed.add(current := waiting.pop())
        waiting += uses[current] - needed
    return needed


def _used(name: str, earlier: tuple[Stage, ...]) -> set[int]:
    """The earlier stage that a name means; none where it means an image, any of them where it holds a variable."""
    found = _stage_called(name, earlier)
    return {found} if found is not None else set(range(len(earlier))) if "$" in name else set()


def _stage_called(name: str, stages: tuple[Stage, ...]) -> int | None:
    """The stage of a name or number."""
    named = {stage.name: index for index, stage in enumerate(stages) if stage.name}
    number = int(name) if name.isdecimal() and int(name) < len(stages) else None
    return named.get(name.lower(), number)


def _other_places(instruction: Instruction) -> Iterator[str]:
    """The stages or images that an instruction takes files from."""
    if instruction.name in ("COPY", "ADD"):
        yield instruction.flag("from") or ""
    elif instruction.name == "RUN":
        yield from (mount.get("from", "") for mount in _mounts(instruction))


# ---------------------------------------------------------------------------------------------------------
# Sources
# ---------------------------------------------------------------------------------------------------------


def _of_copy(copy: Copy, has_secrets: bool) -> Taking:
    remote = [source for source in copy.sources if copy.instruction.name == "ADD" and _is_remote(source)]
    paths = tuple(
        TakenPath(source.written, None if source.path.from_argument and has_secrets else _path_of(source))
        for source in copy.sources
        if source not in remote
    )
    takes_more = bool(remote or copy.instruction.heredocs)
    return Taking(copy.instruction.line_number, paths, takes_more)


def _is_remote(source: Source) -> bool:
    """An address, perhaps out of a variable."""
    text = source.path.text or ""
    return not _PERHAPS_REMOTE.match(text) and Source(text, source.path).is_remote


def _path_of(source: Source) -> str | None:
    text = source.path.text
    is_odd = text is None or "\\" in text or "**" in text or "[" in _PLAIN_CLASS.sub("", text)
    return None if text is None or is_odd or _PERHAPS_REMOTE.match(text) else _normal(text)


def _normal(path: str) -> str:
    return posixpath.normpath(f"/{path}").lstrip("/")


def _mounted(run: Instruction) -> Iterator[TakenPath]:
    """What `RUN --mount=type=bind` shows of the context: all of it, unless it names a source."""
    for mount in _mounts(run):
        if mount.get("type", "bind") == "bind" and "from" not in mount:
            written = mount.get("source", mount.get("src", ""))
            is_known = not re.search(r"[$\"'\\]", "".join(mount.values())) and not _WILDCARDS.search(written)
            yield TakenPath(written, _normal(written) if is_known else None)


def _mounts(instruction: Instruction) -> Iterator[Mapping[str, str]]:
    """`type=bind,source=a,target=/b` of each --mount."""
    for name, value in instruction.flags:
        if name == "mount":
            pairs = (part.partition("=") for part in value.split(","))
            yield {key.strip().lower(): text.strip() for key, _, text in pairs}


# ---------------------------------------------------------------------------------------------------------
# On the disk
# ---------------------------------------------------------------------------------------------------------

Listing = Callable[[str], Mapping[str, str]]
"""What a folder of the context holds: names and their kinds ("file", "folder", "link", "other")."""


def existing_paths(taken: TakenPath, listing: Listing) -> list[str] | None:
    """What a path stands for, whether or not .dockerignore leaves it.

    Args:
        taken: the path.
        listing: lists a folder of the context.

    Returns:
        Paths that exist; none where there is nothing. None where the path is not known, or a link is on the way: docker
        follows it.
    """
    if taken.path is None:
        return None
    found: dict[str, str] = {"": "folder"}  # paths and their kinds
    for part in filter(None, taken.path.split("/")):
        deeper: dict[str, str] = {}
        for folder in (path for path, kind in found.items() if kind == "folder"):
            names = listing(folder)
            here = matching_names(part, list(names)) if taken.has_wildcards else names.keys() & {part}
            deeper |= {posixpath.join(folder, name): names[name] for name in here}
        if "link" in deeper.values():
            return None
        found = deeper
    return sorted(found)

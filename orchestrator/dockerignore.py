r""".dockerignore, by docker's own rules.

Follows https://docs.docker.com/build/concepts/context/#dockerignore-files and what the engine does
(github.com/moby/patternmatcher): Go's filepath.Match for each part of a path, `**` for any number of folders, `!` for
exceptions; a pattern that matches a folder holds for all below it, and of all patterns that match the last one wins.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from orchestrator.repository import Repository

_MANY_FOLDERS = r"(?:.*/)?"


@dataclass(frozen=True, slots=True)
class IgnorePattern:
    """One line: what it matches, and whether that is kept (`!`) or removed."""

    line_number: int
    written: str
    keeps: bool
    matcher: re.Pattern[str]  # of a path, or of a path below a folder that the pattern matches


@dataclass(frozen=True, slots=True)
class IgnoreFault:
    """A line that docker refuses, and the whole build with it."""

    line_number: int
    written: str


@dataclass(frozen=True, slots=True)
class DockerIgnore:
    """The patterns of one file, in their order. Without any, nothing is removed."""

    path: str = ""  # of the file, relative to the repository; empty where there is none
    patterns: tuple[IgnorePattern, ...] = ()
    faults: tuple[IgnoreFault, ...] = ()

    def excludes(self, path: str) -> bool:
        """Is a file or folder kept out of the build context?

        Args:
            path: relative to the context, with forward slashes.
        """
        return self.reason(path) is not None

    def reason(self, path: str) -> IgnorePattern | None:
        """The pattern that removes a file or folder, None where it stays."""
        decisive = next((pattern for pattern in reversed(self.patterns) if pattern.matcher.fullmatch(path)), None)
        return decisive if decisive and not decisive.keeps else None

    def excludes_all_below(self, folder: str) -> bool:
        """Is a folder removed with everything in it? It need not be listed then: no exception can bring back a part."""
        return self.excludes(folder) and not any(pattern.keeps for pattern in self.patterns)

    def may_keep_below(self, folder: str) -> bool:
        """May something of a folder that is removed stay? If not, it need not be listed.

        More exact than `excludes_all_below`: an exception counts only behind the pattern that removes the folder, and
        only where its path may lead into it.
        """
        for pattern in reversed(self.patterns):
            if pattern.matcher.fullmatch(folder):
                return pattern.keeps
            if pattern.keeps and _may_lead_into(pattern.written, folder):
                return True
        return True


def read_dockerignore(text: str, path: str = "") -> DockerIgnore:
    """Read the text of a .dockerignore.

    Args:
        text: its text.
        path: of the file, for who wants to name it.

    Returns:
        Its patterns; the lines that docker refuses are in `faults`.
    """
    patterns: list[IgnorePattern] = []
    faults: list[IgnoreFault] = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        written = line.strip()
        if not written or line.startswith("#"):
            continue
        keeps = written.startswith("!")
        cleaned = _cleaned(written[1:].strip() if keeps else written)
        expression = as_expression(cleaned) if cleaned else None
        if expression is None:
            faults.append(IgnoreFault(number, written))
        else:
            matcher = re.compile(rf"(?s:(?:{expression})(?:/.*)?)")
            patterns.append(IgnorePattern(number, written, keeps, matcher))
    return DockerIgnore(path, tuple(patterns), tuple(faults))


def dockerignore_of(repository: Repository, dockerfile: str, context: str) -> DockerIgnore:
    """What a build leaves out: `<Dockerfile>.dockerignore` beside the Dockerfile, else the context's .dockerignore.

    Args:
        repository: where the files are.
        dockerfile: its path, relative to the repository.
        context: the folder that is the build context, relative to the repository; empty for its root.
    """
    for path in (f"{dockerfile}.dockerignore", posixpath.join(context, ".dockerignore")):
        if path in repository:
            return read_dockerignore(repository.text(path) or "", path)
    return DockerIgnore()


def _may_lead_into(exception: str, folder: str) -> bool:
    """May an exception, as it is written, hold for something in a folder?"""
    parts = _cleaned(exception.removeprefix("!").strip()).split("/")
    fixed = list(takewhile(lambda part: not re.search(r"[*?\[\\]", part), parts))
    return all(part == name for part, name in zip(fixed, folder.split("/"), strict=False))


def _cleaned(pattern: str) -> str:
    """A pattern without what means nothing in it: `./`, `//`, `a/../`, slashes at both ends (Go's filepath.Clean)."""
    cleaned = posixpath.normpath(pattern) if pattern else ""
    return (cleaned.lstrip("/") or "/") if cleaned else ""


def as_expression(pattern: str) -> str | None:
    """A pattern of Go's filepath.Match, with `**`, as a regular expression; None where it is malformed."""
    parts: list[str] = []
    wildcards = 0
    position = 0
    while position < len(pattern):
        character = pattern[position]
        if pattern.startswith("**", position):
            # `**file` at the start means "ends with file", but only where no other wildcard follows.
            ends_with = position == 0 and not re.search(r"[*?\[\\]", pattern[2:])
            position += 2
            part, position = _double_star(pattern, position, ends_with)
            if not (part == _MANY_FOLDERS and parts[-1:] == [part]):  # twice says no more, and costs time
                parts.append(part)
            wildcards += 1
            continue
        width, part_or_fault = _single(pattern, position, character)
        if part_or_fault is None:
            return None
        parts.append(part_or_fault)
        position += width
    return "".join(parts)


def _double_star(pattern: str, position: int, ends_with: bool) -> tuple[str, int]:
    """What `**` matches, and where the pattern goes on."""
    if pattern.startswith("/", position):
        position += 1
        return (_MANY_FOLDERS if position < len(pattern) else ".*"), position
    return (".*" if ends_with or position == len(pattern) else _MANY_FOLDERS), position


def _single(pattern: str, position: int, character: str) -> tuple[int, str | None]:
    """What one character (or class in brackets) matches, and how long it is."""
    if character == "*":
        return 1, "[^/]*"
    if character == "?":
        return 1, "[^/]"
    if character == "\\":
        return 2, re.escape(pattern[position + 1]) if position + 1 < len(pattern) else None
    if character == "[":
        return _character_class(pattern, position)
    return 1, re.escape(character)


_CLASS = re.compile(r"\[(\^?)((?:(?:\\.|[^\]\\-])(?:-(?:\\.|[^\]\\-]))?)+)\]", re.DOTALL)
_RANGE = re.compile(r"(\\.|[^\\])(?:-(\\.|[^\\]))?", re.DOTALL)


def _character_class(pattern: str, position: int) -> tuple[int, str | None]:
    found = _CLASS.match(pattern, position)
    if found is None:
        return 1, None
    ranges = []
    for low, high in _RANGE.findall(found[2]):
        first, last = low[-1], (high or low)[-1]
        if first <= last:  # an inverted range matches nothing
            ranges.append(f"{re.escape(first)}-{re.escape(last)}")
    inside = "".join(ranges)
    if not inside:
        return len(found[0]), r"." if found[1] else r"(?!)"
    return len(found[0]), f"[{found[1]}{inside}]"


def matching_names(pattern: str, names: Sequence[str]) -> list[str]:
    """The names of one folder that one part of a path with wildcards matches, as COPY and ADD take them."""
    expression = as_expression(pattern)
    return [] if expression is None else [name for name in sorted(names) if re.fullmatch(f"(?s:{expression})", name)]

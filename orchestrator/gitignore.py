"""Patterns of files as a .gitignore writes them.

Follows git's `dir.c` and `wildmatch.c`: https://git-scm.com/docs/gitignore says what the patterns mean. Matching is by
path component, as git does it: a pattern that excludes a folder says nothing about the files in it, the walk simply
does not enter. `Patterns` therefore judges one entry at a time; whoever walks asks about each folder first.

Names are bytes to git. Here they are text with one character for each byte (latin-1), unless they are plain ASCII.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": r"\x21-\x7e",
    "lower": "a-z",
    "print": r"\x20-\x7e",
    "punct": r"\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e",
    "space": r" \t-\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
_CLASS = re.compile(r"\[:([^\]]*):\]")
_NEVER = "(?!)"
_STAR = "*"  # stands for itself until its path component is known
_BARRIERS = ("/", "(?:.*/)?", ".*")  # between components
_SPECIAL = re.compile(r"[*?\[\\]")


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One line: what it says about what it matches."""

    glob: str
    excludes: bool
    folders_only: bool
    by_name: bool  # without a slash it is about names, wherever they are; else about paths

    @property
    def is_literal(self) -> bool:
        return _SPECIAL.search(self.glob) is None


class Patterns:
    """The patterns of one file, relative to the folder in which it lies.

    Args:
        lines: of the file, without line ends.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._patterns = [pattern for line in lines if (pattern := _parsed(line))]
        self._regexes: dict[_Pattern, re.Pattern[str]] = {}
        names = [pattern for pattern in self._patterns if pattern.by_name]
        paths = [pattern for pattern in self._patterns if not pattern.by_name]
        # Most entries match nothing: these four say so quickly.
        self._literal_names = {pattern.glob for pattern in names if pattern.is_literal}
        self._endings = tuple({pattern.glob[1:] for pattern in names if _is_ending(pattern)})
        self._names = _any_of(each for each in names if not each.is_literal and not _is_ending(each))
        self._literal_paths = {pattern.glob for pattern in paths if pattern.is_literal}
        self._paths = _any_of(pattern for pattern in paths if not pattern.is_literal)

    @classmethod
    def from_bytes(cls, content: bytes) -> Patterns:
        """The patterns of a file as it lies on the disk."""
        lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        return cls(os.fsdecode(line.removesuffix(b"\r")) for line in lines)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def verdict(self, path: str, name: str, is_folder: bool) -> bool | None:
        """Is an entry excluded? The last pattern that matches decides.

        Args:
            path: relative to the folder of the patterns.
            name: the last part of it.
            is_folder: whether it is a folder; a link to one is none.

        Returns:
            None where no pattern matches.
        """
        if not path.isascii():
            path, name = _as_bytes(path), _as_bytes(name)
        if not self._may_match(path, name):
            return None
        deciding = (each for each in reversed(self._patterns) if self._matches(each, path, name, is_folder))
        return next((pattern.excludes for pattern in deciding), None)

    def cover(self, path: str) -> bool:
        """Do the patterns choose a file, by itself or by a folder above it? The last one that matches decides."""
        parts = _as_bytes(path).split("/")
        places = [("/".join(parts[:count]), parts[count - 1], count < len(parts)) for count in range(1, len(parts) + 1)]
        for pattern in reversed(self._patterns):
            if any(self._matches(pattern, *place) for place in places):
                return pattern.excludes
        return False

    def _may_match(self, path: str, name: str) -> bool:
        return (
            name in self._literal_names
            or name.endswith(self._endings)
            or path in self._literal_paths
            or (self._names is not None and self._names.match(name) is not None)
            or (self._paths is not None and self._paths.match(path) is not None)
        )

    def _matches(self, pattern: _Pattern, path: str, name: str, is_folder: bool) -> bool:
        if pattern.folders_only and not is_folder:
            return False
        subject = name if pattern.by_name else path
        if pattern.is_literal:
            return subject == pattern.glob
        if pattern not in self._regexes:
            self._regexes[pattern] = re.compile(_regex(pattern), re.DOTALL)
        return self._regexes[pattern].match(subject) is not None


def _as_bytes(text: str) -> str:
    """One character for each byte of a file name."""
    return text if text.isascii() else os.fsencode(text).decode("latin-1")


def _parsed(line: str) -> _Pattern | None:
    if line.startswith("#") or not (line := _without_trailing_spaces(line)):
        return None
    negated = line.startswith("!")
    glob = _as_bytes(line[negated:])
    folders_only = glob.endswith("/")
    glob = glob[: len(glob) - folders_only]
    by_name = "/" not in glob
    return _Pattern(glob.removeprefix("/"), not negated, folders_only, by_name) if glob else None


def _without_trailing_spaces(line: str) -> str:
    """A space counts after a backslash only."""
    kept = line.rstrip(" ")
    backslashes = len(kept) - len(kept.rstrip("\\"))
    return f"{kept} " if backslashes % 2 and len(kept) < len(line) else kept


def _is_ending(pattern: _Pattern) -> bool:
    return pattern.glob.startswith("*") and _SPECIAL.search(pattern.glob, 1) is None


def _any_of(patterns: Iterable[_Pattern]) -> re.Pattern[str] | None:
    alternatives = "|".join(_regex(pattern) for pattern in patterns)
    return re.compile(alternatives, re.DOTALL) if alternatives else None


# ---------------------------------------------------------------------------------------------------------
# Globs → regular expressions
# ---------------------------------------------------------------------------------------------------------


def _regex(pattern: _Pattern) -> str:
    """A glob as a regular expression that does not blow up, however many stars the glob has."""
    pieces = list(_pieces(pattern.glob))
    if _NEVER in pieces:
        return _NEVER
    found, component = [], [""]  # the text of a component between its stars
    for piece in [*pieces, ""]:
        if piece == _STAR:
            component.append("")
        elif piece in _BARRIERS or not piece:
            found += [_component(component), piece]
            component = [""]
        else:
            component[-1] += piece
    return "".join(found) + r"\Z"


def _component(texts: list[str]) -> str:
    """Stars stand between the texts. All but the last text are taken where they match first, and never reconsidered."""
    first, *others = texts
    atoms = [f"(?>[^/]*?{text})" for text in others[:-1]]
    return "".join([first, *atoms, *(f"[^/]*{text}" for text in others[-1:])])


def _pieces(glob: str) -> Iterator[str]:
    at = 0
    while at < len(glob):
        start, character = at, glob[at]
        at += 1
        if character == "*":
            at = _end_of_stars(glob, start)
            double = at - start > 1 and _stands_alone(glob, start, at)
            swallows_slash = double and glob[at : at + 1] == "/"
            at += swallows_slash
            yield _BARRIERS[1] if swallows_slash else _BARRIERS[2] if double else _STAR
        elif character == "?":
            yield "[^/]"
        elif character == "[":
            piece, at = _bracket(glob, at)
            yield piece
        elif character == "\\":
            yield re.escape(glob[at]) if at < len(glob) else _NEVER
            at += 1
        else:
            yield re.escape(character)


def _end_of_stars(glob: str, at: int) -> int:
    return at + len(glob[at:]) - len(glob[at:].lstrip("*"))


def _stands_alone(glob: str, start: int, end: int) -> bool:
    """`**` is a whole component. Git takes it for one after any literal text at the beginning, too."""
    opened = glob[:start].endswith("/") or _SPECIAL.search(glob, 0, start) is None
    return opened and (end == len(glob) or glob.startswith(("/", "\\/"), end))


def _bracket(glob: str, at: int) -> tuple[str, int]:
    """`[…]`, whose content starts at `at`: the piece, and where the glob goes on. It never matches a slash."""
    negated = glob[at : at + 1] in ("!", "^") and at < len(glob)
    at += negated
    members, previous, start = "", "", at
    while at < len(glob) and (glob[at] != "]" or at == start):
        if named := _CLASS.match(glob, at):
            if named[1] not in _CLASSES:
                return _NEVER, len(glob)
            members, previous, at = members + _CLASSES[named[1]], "", named.end()
        elif glob[at] == "-" and previous and at + 1 < len(glob) and glob[at + 1] != "]":
            last, at = _character(glob, at + 1)
            members += f"{re.escape(previous)}-{re.escape(last)}" if previous <= last else ""
            previous = ""
        else:
            previous, at = _character(glob, at)
            members += re.escape(previous)
    if at >= len(glob):
        return _NEVER, at  # never closed
    return f"(?!/)[{'^' * negated}{members}]", at + 1


def _character(glob: str, at: int) -> tuple[str, int]:
    """One character of a bracket, perhaps after a backslash."""
    at += glob[at] == "\\"
    return glob[at : at + 1], at + 1

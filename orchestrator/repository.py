"""The door to a repository's files: which there are, and the text of those that are not Python source.

Paths are relative to the root, with forward slashes. Folders are listed once and texts read once, for the time of one
command: a scan sees one state of the repository. Nothing outside of the root is listed or read, whatever a path says.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from orchestrator.gitignore import Patterns

LARGEST_TEXT = 4_000_000  # bytes; nobody writes more by hand

# Folders that hold other people's code, or none that anybody wrote.
_INSTALLED = frozenset(("__pycache__", "__pypackages__", "node_modules", "site-packages", "dist-packages"))
_FOREIGN = _INSTALLED | {"third_party", "_vendor", "_vendored"}
_PERHAPS_FOREIGN = frozenset(("vendor", "vendored"))  # a team may have flows about its vendors
_METADATA = (".egg-info", ".dist-info")
_SUBMODULE_PATH = re.compile(r"^\s*path\s*=\s*(.+?)\s*$", re.MULTILINE)

# Patterns that hold for a folder, the deepest first, each with the length of the prefix to take off a path for them.
# Patterns from above the root see a prefix more instead.
_Rules = tuple[tuple[Patterns, int, str], ...]


@dataclass(frozen=True, slots=True)
class _Listing:
    """What one folder holds, by name. Links count as what they lead to, and are named in `links` besides."""

    names: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()  # that can be read: no pipes, sockets or devices
    folders: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()


_NOTHING = _Listing()


def folder_of(path: str) -> str:
    """The folder of a path that is relative to the root; "" for the root itself. Several times as fast as dirname."""
    return path.rpartition("/")[0]


class Repository:
    """The files of one repository.

    Args:
        root: its folder.
        also: files to answer for as if they existed: of another time, for who asks what depended on them.
    """

    def __init__(self, root: Path, also: Iterable[str] = ()) -> None:
        self.root = root
        self._listings: dict[str, _Listing] = {}
        self._texts: dict[str, str | None] = {}
        self._lines: dict[str, list[str]] = {}
        self._also = _names_by_folder(also)

    def __contains__(self, path: str) -> bool:
        """Is there such a file?"""
        folder, name = posixpath.split(posixpath.normpath(path))
        return name in self.listing(folder).files

    def names(self, folder: str) -> frozenset[str]:
        """What a folder holds, files and folders; nothing where there is no such folder."""
        return self.listing(_normal(folder)).names

    def has_folder(self, path: str) -> bool:
        """Is there such a folder?"""
        path = _normal(path)
        return not path or posixpath.basename(path) in self.listing(posixpath.dirname(path)).folders

    def text(self, path: str) -> str | None:
        """The text of a file; None where it is missing, unreadable, not UTF-8 or too large for a text."""
        if path not in self._texts:
            self._texts[path] = self._read(path)
        return self._texts[path]

    def undecoded(self, path: str) -> bytes:
        """The bytes of a file that is there, but no UTF-8 text; else none."""
        if path not in self or self.text(path) is not None:
            return b""
        try:
            with (self.root / path).open("rb") as file:
                data = file.read(LARGEST_TEXT + 1)
        except (OSError, ValueError):
            return b""
        return data if len(data) <= LARGEST_TEXT and line_of_fault(data) is not None else b""

    def line(self, path: str | None, number: int | None) -> str:
        """One line of a text, without its end; empty where there is no such line.

        Lines end where Python's parser ends them, and not, as `str.splitlines` has it, at form feeds and the like too.

        Args:
            path: the file.
            number: 1-based.
        """
        if path is None or number is None:
            return ""
        if path not in self._lines:
            self._lines[path] = (self.text(path) or "").split("\n")
        return self._lines[path][number - 1] if 1 <= number <= len(self._lines[path]) else ""

    def listing(self, folder: str) -> _Listing:
        """What a folder holds, by kind.

        Args:
            folder: its path, in normal form; "" for the root.

        Returns:
            Nothing where there is no such folder, or where the path leads out of the repository.
        """
        if folder not in self._listings:
            self._listings[folder] = self._list(folder)
        return self._listings[folder]

    def files(self, starts: Iterable[str], suffixes: tuple[str, ...], exclude: Sequence[str] = ()) -> Collection[str]:
        """The files that somebody wrote for this repository, at and under some places of it.

        Left out: what git ignores (https://git-scm.com/docs/gitignore; not the user's own global patterns); hidden
        folders, caches, virtual environments, installed and vendored packages, the output of setuptools; other git
        repositories and worktrees that lie inside, unless they are submodules. Links to folders are not followed; a
        link to a file is, where its target lies in the repository and is not found by itself.

        Args:
            starts: files or folders. What is named here is taken even if ignored.
            suffixes: how the names of the files end.
            exclude: patterns of what to leave out besides, in gitignore's language, relative to the root. They are
                final: no .gitignore takes anything back in.

        Returns:
            Paths, each once, in no particular order.
        """
        return _Walk(self, suffixes, Patterns(exclude)).files({_normal(start) for start in starts})

    def is_ignored(self, path: str) -> bool:
        """Does git ignore a file, whether it exists or not? It may be one that is generated."""
        rules = self.outer_rules
        parts = path.split("/")
        for count, name in enumerate(parts, 1):
            rules = self.rules_in("/".join(parts[: count - 1]), rules)
            if _verdict(rules, "/".join(parts[:count]), name, is_folder=count < len(parts)):
                return True
        return False

    def rules_in(self, folder: str, outer: _Rules) -> _Rules:
        """The patterns that hold for what lies in a folder: its own .gitignore before those from above."""
        listing = self.listing(folder)
        if ".gitignore" not in listing.files or ".gitignore" in listing.links:  # git does not follow such a link
            return outer
        patterns = _patterns(self.root / folder / ".gitignore")
        return ((patterns, len(folder) + 1 if folder else 0, ""), *outer) if patterns else outer

    @cached_property
    def outer_rules(self) -> _Rules:
        """The patterns from outside of the tree: `.git/info/exclude`, and the folders above in the same git repository.

        An enclosing repository that ignores the root has nothing to say about it.
        """
        top = self._git_top
        if top is None:
            return ()
        inside = self.root.absolute().relative_to(top).parts
        found = [(_patterns(_git_folder(top) / "info" / "exclude"), inside)]
        for depth, name in enumerate(inside):
            found.insert(0, (_patterns(top.joinpath(*inside[:depth], ".gitignore")), inside[depth:]))
            here: _Rules = tuple((each, 0, _prefix(way[: depth - len(inside)])) for each, way in found)
            if _verdict(here, name, name, is_folder=True):
                return ()
        return tuple((patterns, 0, _prefix(way)) for patterns, way in found if patterns)

    @cached_property
    def submodules(self) -> frozenset[str]:
        """The folders that .gitmodules names: other git repositories that are part of this one."""
        top = self._git_top or self.root.absolute()
        try:
            text = (top / ".gitmodules").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return frozenset()
        prefix = _prefix(self.root.absolute().relative_to(top).parts)
        paths = (path.strip('"') for path in _SUBMODULE_PATH.findall(text))
        return frozenset(path.removeprefix(prefix) for path in paths if path.startswith(prefix))

    @cached_property
    def _git_top(self) -> Path | None:
        root = self.root.absolute()
        return next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), None)

    def _list(self, folder: str) -> _Listing:
        if folder and not self._may_exist(folder):
            return _NOTHING
        more_files, more_folders = self._also.get(folder, ((), ()))
        found = _listed(self.root / folder)
        if not (more_files or more_folders):
            return found
        return _Listing(
            found.names.union(more_files, more_folders),
            found.files.union(more_files),
            found.folders.union(more_folders),
            found.links,
        )

    def _may_exist(self, folder: str) -> bool:
        parent, name = posixpath.split(folder)
        return not folder.startswith("/") and name in self.listing(parent).folders

    def _read(self, path: str) -> str | None:
        if path not in self:
            return None
        location = self.root / path
        try:
            if location.stat().st_size > LARGEST_TEXT:
                return None
            return location.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError, ValueError):
            return None


def line_of_fault(data: bytes) -> int | None:
    """The first line, 1-based, that is not UTF-8; None where all are."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return data.count(b"\n", 0, error.start) + 1
    return None


def _normal(path: str) -> str:
    normal = posixpath.normpath(path)
    return "" if normal == "." else normal


def _prefix(parts: Sequence[str]) -> str:
    return "".join(f"{part}/" for part in parts)


def _names_by_folder(paths: Iterable[str]) -> Mapping[str, tuple[set[str], set[str]]]:
    """The names of files and of folders that some paths put into each folder."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for path in paths:
        folder, name = posixpath.split(path)
        found.setdefault(folder, (set(), set()))[0].add(name)
        while folder:
            folder, name = posixpath.split(folder)
            found.setdefault(folder, (set(), set()))[1].add(name)
    return found


def _listed(location: Path) -> _Listing:
    files, folders, links = [], [], []
    names = []
    try:
        with os.scandir(location) as entries:
            for entry in entries:  # the kind is known from listing; only links cost a look at the disk
                names.append(entry.name)
                if entry.is_symlink():
                    links.append(entry.name)
                if _is_folder(entry):
                    folders.append(entry.name)
                elif _is_file(entry):
                    files.append(entry.name)
    except (OSError, ValueError):  # ValueError: a null byte in a path
        return _NOTHING
    return _Listing(frozenset(names), frozenset(files), frozenset(folders), frozenset(links))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


# ---------------------------------------------------------------------------------------------------------
# What git ignores
# ---------------------------------------------------------------------------------------------------------


def _patterns(location: Path) -> Patterns:
    try:
        return Patterns.from_bytes(location.read_bytes())
    except OSError:
        return Patterns(())


def _verdict(rules: _Rules, path: str, name: str, is_folder: bool) -> bool:
    """Is an entry excluded? The deepest .gitignore that says something about it decides."""
    for patterns, cut, prefix in rules:
        verdict = patterns.verdict(prefix + path[cut:], name, is_folder)
        if verdict is not None:
            return verdict
    return False


def _git_folder(top: Path) -> Path:
    """Where git keeps what its worktrees share. `.git` is a file in a worktree or submodule:
    https://git-scm.com/docs/gitrepository-layout."""
    folder = top / ".git"
    try:
        if folder.is_file():
            folder = top / folder.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        return folder / (folder / "commondir").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return folder


# ---------------------------------------------------------------------------------------------------------
# The walk
# ---------------------------------------------------------------------------------------------------------


class _Walk:
    """One search through a repository."""

    def __init__(self, repository: Repository, suffixes: tuple[str, ...], exclude: Patterns) -> None:
        self._repository = repository
        self._suffixes = suffixes
        self._exclude = exclude
        self._entered: set[str] = set()
        self._found: set[str] = set()
        self._links: set[str] = set()

    def files(self, starts: Iterable[str]) -> Collection[str]:
        for start in sorted(starts, reverse=True):  # a place within another comes first: it is entered on its own terms
            if start in self._repository:
                self._found.add(start)
            else:
                self._search(start)
        return self._found | set(self._linked())

    def _search(self, start: str) -> None:
        waiting = [(start, self._rules_above(start))]
        while waiting:
            folder, outer = waiting.pop()
            if folder in self._entered:
                continue
            self._entered.add(folder)
            listing = self._repository.listing(folder)
            rules = self._repository.rules_in(folder, outer)
            prefix = f"{folder}/" if folder else ""
            for name in listing.folders - listing.links:
                if self._is_ours(folder, name, start) and not self._is_excluded(rules, prefix + name, name, True):
                    waiting.append((prefix + name, rules))
            for name in listing.names:
                if name.endswith(self._suffixes) and not self._is_excluded(rules, prefix + name, name, False):
                    if name in listing.links:
                        self._links.add(prefix + name)
                    elif name in listing.files:
                        self._found.add(prefix + name)

    def _rules_above(self, start: str) -> _Rules:
        """The patterns that hold at a start. Those that exclude the start itself are overruled by naming it."""
        rules = self._repository.outer_rules
        if not start:
            return rules
        parts = start.split("/")
        for count, name in enumerate(parts):
            rules = self._repository.rules_in("/".join(parts[:count]), rules)
            if _verdict(rules, "/".join(parts[: count + 1]), name, is_folder=True):
                rules = ()
        return rules

    def _is_excluded(self, rules: _Rules, path: str, name: str, is_folder: bool) -> bool:
        if self._exclude and self._exclude.verdict(path, name, is_folder):
            return True
        return bool(rules) and _verdict(rules, path, name, is_folder)

    def _is_ours(self, folder: str, name: str, start: str) -> bool:
        """Does a folder hold this repository's own work, as far as its name and its marks tell?"""
        if name.startswith(".") or name in _FOREIGN or name.endswith(_METADATA):
            return False
        if name in _PERHAPS_FOREIGN and not start:
            return False
        path = posixpath.join(folder, name)
        marks = self._repository.listing(path)
        if "pyvenv.cfg" in marks.files or "conda-meta" in marks.folders:
            return False
        if ".git" in marks.names and path not in self._repository.submodules:
            return False
        return not (not folder and name == "build" and self._is_built(marks))

    def _is_built(self, build: _Listing) -> bool:
        """`build` at the root of a package: setuptools copies the package to `build/lib`."""
        packaged = {"setup.py", "setup.cfg", "pyproject.toml"} & self._repository.listing("").files
        return bool(packaged) and any(name.startswith(("lib", "bdist.")) for name in build.folders)

    def _linked(self) -> Iterator[str]:
        """Links to files, by what they lead to: each target once. A link to nothing is worth a report."""
        root = os.path.realpath(self._repository.root)
        taken = set(self._found)
        for path in sorted(self._links - self._found):
            target = os.path.realpath(self._repository.root / path)
            inside = os.path.relpath(target, root).replace(os.sep, "/")
            if inside.startswith("../") or inside in taken or not _is_regular_or_missing(target):
                continue
            if not posixpath.basename(path).startswith(".#"):  # an editor's lock is a link to nothing
                taken.add(inside)
                yield path


def _is_regular_or_missing(location: str) -> bool:
    try:
        return stat.S_ISREG(Path(location).stat().st_mode)
    except OSError:
        return True

"""The files of a build context: each folder listed once, each file read once, and what .dockerignore leaves of them.

What a file holds is remembered between two commands by its signature, as git's index does it: a file whose size, inode
and times are those of the last time is not read again, unless it was written so shortly before it was read that a
later write could carry the same times.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator.cache_file import write_cache
from orchestrator.dockerignore import DockerIgnore, read_dockerignore
from orchestrator.errors import ImageError
from orchestrator.model import ContextEntry
from orchestrator.repository import folder_of

logger = logging.getLogger(__name__)

LEFT_OUT = read_dockerignore(".git\n.orchestrator\n**/__pycache__\n**/*.pyc\n**/.venv")
"""What changes with every commit or run, and no image needs. An exception in .dockerignore takes it back (`!.git`)."""

MOST_NAMED = 5  # unreadable files that an error names

_FORM = 1  # of the cache file: another one makes it worthless
_COARSEST_CLOCK = 2_000_000_000  # nanoseconds: the steps of the file times of FAT, the coarsest there is
_BLOCK = 1 << 17  # bytes read at once
_ROWS = 1000  # entries made into one text at once

Kind = Literal["file", "folder", "link", "other"]
"""What lies at a place. Links are not followed; "other" are sockets, pipes and devices."""

_Known = list[Any]
"""Of a file: size, inode, the times of the last write and of the last change in nanoseconds; and the hex sha256.

A list, as JSON gives it: a hundred thousand of them are not made anew."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A build context, or the part of it that an image can reach."""

    entries: tuple[ContextEntry, ...]  # sorted by path
    digest: str  # hex sha256 over all of them


class FileDigests:
    """What folders and files hold, for the time of one command: it sees one state of them, however many images ask.

    Args:
        root: the repository in whose cache digests are kept for the next command; None keeps nothing.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._file = root / ".orchestrator" / "cache" / "context.cache" if root else None
        self._opened_at = time.time_ns()
        self._kept = _read_kept(self._file) if self._file else {}
        self._known: dict[str, _Known] = {}
        self._listings: dict[str, Mapping[str, Kind]] = {}
        self._trees: dict[tuple[str, tuple[str, ...], DockerIgnore], Tree] = {}

    def listing(self, folder: str) -> Mapping[str, Kind]:
        """What a folder holds, by name.

        Args:
            folder: its location.

        Raises:
            OSError: it cannot be listed.
        """
        if folder not in self._listings:
            with os.scandir(folder) as entries:
                self._listings[folder] = {entry.name: _kind_of(entry) for entry in entries}
        return self._listings[folder]

    def digest(self, location: str, status: os.stat_result) -> str:
        """The hex sha256 of what a regular file holds.

        Args:
            location: of the file.
            status: what is known of it; it was asked for before.

        Raises:
            OSError: it cannot be read.
        """
        known = self._known.get(location)
        if known is None:
            signature = [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
            known = self._kept.get(location, [])
            if known[:-1] != signature:
                known = [*signature, _digest_of_file(location)]
            self._known[location] = known
        return str(known[-1])

    def tree(self, context: str, starts: Collection[str], ignore: DockerIgnore) -> Tree:
        """A build context, as far as it can be reached.

        Args:
            context: the location of its folder.
            starts: existing paths in it; what lies at and below them is reached. "" for all.
            ignore: what is left out.

        Raises:
            ImageError: files or folders in it cannot be read.
        """
        key = context, tuple(_outermost(starts)), ignore
        if key not in self._trees:
            self._trees[key] = _Walk(self, context, ignore).tree(key[1])
        return self._trees[key]

    def save(self) -> None:
        """Keep what was learned for the next command, and forget the files that are gone."""
        latest = self._opened_at - _COARSEST_CLOCK  # what was written later may be written again with the same times
        trusted = {path: known for path, known in self._known.items() if max(known[2:4]) < latest}
        if self._file is None or all(self._kept.get(path) is known for path, known in trusted.items()):
            return
        unseen = {
            path: known for path, known in self._kept.items() if path not in self._known and os.path.lexists(path)
        }
        content = {"form": _FORM, "files": {**unseen, **trusted}}
        write_cache(self._file, json.dumps(content, separators=(",", ":")).encode())


def _read_kept(file: Path) -> dict[str, _Known]:
    try:
        content = json.loads(file.read_bytes())
        kept = content["files"].items() if content["form"] == _FORM else ()
        return {path: known for path, known in kept if isinstance(known, list) and len(known) == 5}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _kind_of(entry: os.DirEntry[str]) -> Kind:
    """Known from listing: it takes no look at the disk."""
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    return "file" if entry.is_file(follow_symlinks=False) else "other"


def blocks_of(location: str) -> Iterator[bytes]:
    """What a file holds. A link that has come in its place is not followed.

    Raises:
        OSError: it cannot be read.
    """
    # Of small files, a file object takes half of the time.
    descriptor = os.open(location, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        while block := os.read(descriptor, _BLOCK):
            yield block
    finally:
        os.close(descriptor)


def _digest_of_file(location: str) -> str:
    digest = hashlib.sha256()
    for block in blocks_of(location):
        digest.update(block)
    return digest.hexdigest()


def _outermost(starts: Iterable[str]) -> Iterator[str]:
    """The paths that lie below no other one of them, sorted."""
    last: str | None = None
    for start in sorted(starts, key=lambda path: path.split("/")):
        if last is None or not (last == "" or f"{start}/".startswith(f"{last}/")):
            yield start
            last = start


# ---------------------------------------------------------------------------------------------------------
# The walk
# ---------------------------------------------------------------------------------------------------------


class _Walk:
    """One search through a build context."""

    def __init__(self, files: FileDigests, context: str, ignore: DockerIgnore) -> None:
        self._files, self._context, self._ignore = files, context, ignore
        # Most paths match no pattern: all at once are asked about that, which takes a fifth of the time.
        self._matches_any = re.compile("|".join(pattern.matcher.pattern for pattern in ignore.patterns)).fullmatch
        self._found: dict[str, ContextEntry] = {}
        self._held: dict[str, int] = {}  # of each folder that was listed: how much in it an image may need
        self._unreadable: list[str] = []

    def tree(self, starts: Sequence[str]) -> Tree:
        for start in starts:
            self._search(start)
        if self._unreadable:
            raise unreadable(sorted(self._unreadable))
        self._drop_leftovers(starts)
        self._add_parents()
        entries = tuple(self._found[path] for path in sorted(self._found))
        return Tree(entries, _digest_of(entries))

    def _search(self, start: str) -> None:
        waiting: list[str] = []
        if start:
            self._take(start, self._listing(folder_of(start))[start.rpartition("/")[2]], waiting)
        else:
            waiting.append(start)
        while waiting:
            folder = waiting.pop()
            prefix = f"{folder}/" if folder else ""
            held = [self._take(prefix + name, kind, waiting) for name, kind in self._listing(folder).items()]
            self._held[folder] = sum(held) if held else 1  # an empty one is there on purpose: git makes none

    def _listing(self, folder: str) -> Mapping[str, Kind]:
        try:
            return self._files.listing(self._location(folder))
        except OSError as error:
            self._unreadable.append(f"{folder or '.'!r} ({error.strerror})")
            return {}

    def _location(self, path: str) -> str:
        return f"{self._context}/{path}" if path else self._context

    def _take(self, path: str, kind: Kind, waiting: list[str]) -> bool:
        """Take what lies at a path, if .dockerignore leaves it; folders have to wait until they are searched.

        Returns:
            Whether an image may need it, or somebody wants it to be left out: its folder is no leftover then.
        """
        is_left_out = self._matches_any(path) is not None and self._ignore.excludes(path)
        if kind == "folder" and (not is_left_out or self._ignore.may_keep_below(path)):
            waiting.append(path)
        if is_left_out:
            return not LEFT_OUT.excludes(path)
        try:
            self._found.update({path: entry} if (entry := self._entry(path, kind)) else {})
        except OSError as error:
            self._unreadable.append(f"{path!r} ({error.strerror})")
        return True

    def _entry(self, path: str, kind: Kind) -> ContextEntry | None:
        location = self._location(path)
        if kind == "file":
            status = os.lstat(location)
            is_executable = bool(status.st_mode & stat.S_IXUSR)
            content = self._files.digest(location, status)
            return ContextEntry(
                path=path, kind="file", is_executable=is_executable, size=status.st_size, content=content
            )
        if kind == "other":
            logger.debug("%r is left out of the build context: it is a socket, a pipe or a device.", path)
            return None
        target = os.readlink(location) if kind == "link" else ""  # noqa: PTH115 - as it stands
        return ContextEntry(path=path, kind=kind, content=target)

    def _drop_leftovers(self, starts: Sequence[str]) -> None:
        """Drop folders that hold nothing but caches: where git has removed the sources, another checkout has none."""
        for folder in reversed(self._held):  # what lies in a folder comes before it
            if self._held[folder] == 0 and folder in self._found and folder not in starts:
                del self._found[folder]
                self._held[folder_of(folder)] -= 1

    def _add_parents(self) -> None:
        """An engine would make the folders above what is reached with whatever mode it likes."""
        for path in list(self._found):
            while (path := folder_of(path)) and path not in self._found:
                self._found[path] = ContextEntry(path=path, kind="folder")


def unreadable(named: Sequence[str]) -> ImageError:
    """The error about files and folders of a build context that cannot be read, each with the reason."""
    count = len(named)
    more = f" and {count - MOST_NAMED} more" if count > MOST_NAMED else ""
    return ImageError(
        f"The build context holds what cannot be read: {', '.join(named[:MOST_NAMED])}{more}.",
        remedy="Make it readable for the user who builds, or leave it out in .dockerignore.",
    )


def _digest_of(entries: Sequence[ContextEntry]) -> str:
    """JSON tells any two lists apart; names that are no UTF-8 stay what they are in it."""
    digest = hashlib.sha256()
    for start in range(0, len(entries), _ROWS):
        rows = [(each.path, each.kind, each.is_executable, each.content) for each in entries[start : start + _ROWS]]
        digest.update(f"{json.dumps(rows, separators=(',', ':'))[1:-1]},".encode())
    return digest.hexdigest()

"""What is remembered of the files of a repository between two scans.

Everything is kept by content: an entry counts only for a file whose bytes have its digest. Whether they have is asked
the way git asks its index: a file whose size, inode and times are those of the entry is not read again, unless it was
written so shortly before it was read that a later write could carry the same time.

The cache is one file of plain values (Python's marshal, four times as fast as JSON) with a checksum, replaced in one
step: whoever reads at the same time sees the old or the new one, whole. One that is damaged, was written by another
version of the reader or of Python, or for another folder, is not read.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import orchestrator
from orchestrator.cache_file import write_cache

_COARSEST_CLOCK = 2_000_000_000  # nanoseconds: the steps of the file times of FAT, the coarsest there is
_READERS = (
    "bindings",
    "closure",
    "deployment_calls",
    "flow_source",
    "flow_values",
    "imports",
    "interpreter",
    "model",
    "sources",
    "workspaces",
)

Signature = tuple[int, ...]
"""Size, inode, and the times of the last write and of the last change, in nanoseconds."""


class Entry(NamedTuple):
    """What is known of one file.

    Attributes:
        signature: of the file when it was read; None where it is not to be trusted.
        digest: hex sha256 of its bytes; "" where the signature alone must tell.
        notes: what the reader keeps of it, in plain values; None of a dull file, in which nothing is of interest.
    """

    signature: Signature | None
    digest: str
    notes: dict[str, Any] | None


class ScanCache:
    """The cache of one repository.

    Args:
        root: its folder.
        file: where it is kept; None keeps nothing.

    Attributes:
        dull: most files are: they take no more than a look at their times. Signatures by path.
    """

    def __init__(self, root: Path, file: Path | None) -> None:
        self._root, self._file = root, file
        self._opened_at = time.time_ns()
        self._entries, self.dull = _read(root, file) if file else ({}, {})

    @property
    def is_kept(self) -> bool:
        return self._file is not None

    def entry(self, path: str) -> Entry | None:
        """What was known of a file at the end of the last scan."""
        return Entry._make(self._entries[path]) if path in self._entries else None

    def knows(self, path: str) -> bool:
        """Is there an entry of a file?"""
        return path in self._entries

    def save(self, learned: Mapping[str, Entry]) -> None:
        """Write what is new, and forget the files that are gone. Without a folder to write to, nothing happens."""
        if self._file is None or not learned:
            return
        entries, dull = self._still_there(self._entries, learned), self._still_there(self.dull, learned)
        for path, (signature, digest, notes) in learned.items():
            trusted = self._trusted(signature)
            if notes is not None:
                entries[path] = trusted, digest, notes
            elif trusted is not None:
                dull[path] = trusted
        body = marshal.dumps((entries, dull))
        write_cache(self._file, _headline(self._root, body).encode() + b"\n" + body)

    def _still_there(self, known: Mapping[str, Any], learned: Mapping[str, Entry]) -> dict[str, Any]:
        return {path: entry for path, entry in known.items() if path not in learned and (self._root / path).is_file()}

    def _trusted(self, signature: Signature | None) -> Signature | None:
        """A signature, unless the file was written so late that it may be written again with the same times."""
        return signature if signature and max(signature[2:]) < self._opened_at - _COARSEST_CLOCK else None


def signature_of(location: str) -> Signature | None:
    """What tells whether a file has been written since.

    Args:
        location: of the file.

    Returns:
        Its signature; None where there is no such file.
    """
    try:
        status = os.stat(location)  # noqa: PTH116 - for thousands of files; a Path takes twice the time
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


@lru_cache(maxsize=1)
def _version() -> str:
    """Changes whenever something else may be read from the same source."""
    readers = [os.stat(Path(__file__).with_name(f"{name}.py")) for name in _READERS]  # noqa: PTH116
    states = [(reader.st_size, reader.st_mtime_ns) for reader in readers]
    return f"{orchestrator.__version__} {hashlib.sha256(f'{sys.version}{states}'.encode()).hexdigest()}"


def _read(root: Path, file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        first, _, body = file.read_bytes().partition(b"\n")
        if first.decode() != _headline(root, body):
            return {}, {}
        entries, dull = marshal.loads(body)
    except (OSError, ValueError, EOFError, TypeError):
        return {}, {}
    return entries, dull


def _headline(root: Path, body: bytes) -> str:
    """Tells a cache that is whole, and was written for this folder on this machine: one that came with the repository
    is none of ours, and could hide what its author wants hidden."""
    place = os.stat(root)  # noqa: PTH116 - as above
    return f"{_version()} {place.st_dev} {place.st_ino} {hashlib.sha256(body).hexdigest()}"

"""What is remembered of the files of a repository between two scans.

Everything is kept by content: an entry counts only for a file whose bytes have its digest. Whether they have is asked
the way git asks its index: a file whose size, inode and times are those of the entry is not read again, unless it was
written so shortly before it was read that a later write could carry the same time.

The cache is one JSON file with a checksum, replaced in one step: whoever reads at the same time sees the old or the new
one, whole. One that is damaged, was written by another version of the reader or for another folder, is ignored.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one file.

    Attributes:
        signature: of the file when it was read; None where it is not to be trusted.
        digest: hex sha256 of its bytes; "" where the signature alone must tell.
        notes: what the reader keeps of it, in terms of JSON.
        is_dull: whether the notes say that it holds nothing of interest.
    """

    signature: Signature | None
    digest: str
    notes: dict[str, Any]
    is_dull: bool = False


class ScanCache:
    """The cache of one repository.

    Args:
        root: its folder.
        file: where it is kept; None keeps nothing.
    """

    def __init__(self, root: Path, file: Path | None) -> None:
        self._root, self._file = root, file
        self._opened_at = time.time_ns()
        self._entries = _read(root, file) if file else {}

    @property
    def is_kept(self) -> bool:
        return self._file is not None

    def entry(self, path: str) -> Entry | None:
        """What was known of a file at the end of the last scan."""
        known = self._entries.get(path)
        if known is None or len(known) == 1:
            return None
        signature, digest, notes = known
        return Entry(tuple(signature) if signature else None, digest, notes)

    def is_dull(self, path: str, location: str) -> bool:
        """Was there nothing of interest in a file, and is it as it was? Most files are dull: they take no more than a
        look at their times."""
        known = self._entries.get(path)
        return known is not None and len(known) == 1 and known[0] == list(signature_of(location) or ())

    def save(self, learned: Mapping[str, Entry]) -> None:
        """Write what is new, and forget the files that are gone. Without a folder to write to, nothing happens."""
        if self._file is None or not learned:
            return
        news = {path: self._kept(entry) for path, entry in learned.items()}
        others = {path: entry for path, entry in self._entries.items() if path not in news}
        kept = {path: entry for path, entry in others.items() if (self._root / path).is_file()}
        body = json.dumps({**kept, **news}, separators=(",", ":")).encode()
        write_cache(self._file, _headline(self._root, body).encode() + b"\n" + body)

    def _kept(self, entry: Entry) -> list[Any]:
        signature = self._trusted(entry.signature)
        return [signature] if entry.is_dull and signature else [signature, entry.digest, entry.notes]

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
    digest = hashlib.sha256(sys.version.encode())
    for name in _READERS:
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return f"{orchestrator.__version__} {digest.hexdigest()}"


def _read(root: Path, file: Path) -> dict[str, Any]:
    try:
        first, _, body = file.read_bytes().partition(b"\n")
        if first.decode() != _headline(root, body):
            return {}
        entries = json.loads(body)
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _headline(root: Path, body: bytes) -> str:
    """Tells a cache that is whole, and was written for this folder on this machine: one that came with the repository
    is none of ours, and could hide what its author wants hidden."""
    place = os.stat(root)  # noqa: PTH116 - as above
    return f"{_version()} {place.st_dev} {place.st_ino} {hashlib.sha256(body).hexdigest()}"

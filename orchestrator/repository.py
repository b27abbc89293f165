"""The door to a repository's files: which there are, and the text of those that are not Python source.

Paths are relative to the root, with forward slashes. Folders are listed once and texts read once, for the time of one
command: a scan sees one state of the repository.
"""

from __future__ import annotations

import posixpath
from pathlib import Path

LARGEST_TEXT = 4_000_000  # bytes; nobody writes more by hand


class Repository:
    """The files of one repository.

    Args:
        root: its folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[str, frozenset[str]] = {}
        self._texts: dict[str, str | None] = {}

    def __contains__(self, path: str) -> bool:
        """Is there such a file?"""
        folder, name = posixpath.split(path)
        return name in self.names(folder) and (self.root / path).is_file()

    def names(self, folder: str) -> frozenset[str]:
        """What a folder holds, files and folders; nothing where there is no such folder."""
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(entry.name for entry in (self.root / folder).iterdir())
            except OSError:
                self._names[folder] = frozenset()
        return self._names[folder]

    def text(self, path: str) -> str | None:
        """The text of a file; None where it is missing, unreadable, not UTF-8 or too large for a text."""
        if path not in self._texts:
            self._texts[path] = self._read(path)
        return self._texts[path]

    def _read(self, path: str) -> str | None:
        location = self.root / path
        try:
            if not location.is_file() or location.stat().st_size > LARGEST_TEXT:
                return None
            return location.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError, ValueError):
            return None

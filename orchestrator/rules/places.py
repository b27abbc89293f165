"""Where on its line a finding lies."""

from __future__ import annotations

import re

from orchestrator.repository import Repository

Columns = tuple[int, int]


def columns_of(repository: Repository, path: str | None, line: int | None, text: str) -> Columns | None:
    """The columns of a text that stands by itself on a line: `a` is not found in `parameters: {a: 1}` before the `{`.

    Args:
        repository: holds the file.
        path: the file, relative to the root.
        line: 1-based.
        text: what to find.

    Returns:
        The first column and the one behind the last, 1-based; None where the text is not on that line.
    """
    if not text:
        return None
    before = r"(?<![\w-])" if re.match(r"\w", text) else ""
    behind = r"(?![\w-])" if re.search(r"\w\Z", text) else ""
    found = re.search(f"{before}{re.escape(text)}{behind}", repository.line(path, line))
    return (found.start() + 1, found.end() + 1) if found else None

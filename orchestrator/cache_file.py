"""Write a file of the cache under `.orchestrator/` in a repository that may be anybody's."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path


def write_cache(file: Path, content: bytes) -> None:
    """Replace a cache file in one step, so that whoever reads at the same time sees the old or the new one, whole.

    The folder is made when it is missing, and is not shown to git. A folder that is a link is not written to: it may
    have come with the repository, and lead anywhere. Where nothing can be written, nothing happens: that costs time,
    not correctness.

    Args:
        file: the file; its folder and the one above belong to the cache.
        content: what it shall hold.
    """
    folder = file.parent
    if folder.is_symlink() or folder.parent.is_symlink():
        return
    draft = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}")
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        _write_new(folder / ".gitignore", b"*\n")  # whatever the repository ignores
        draft.unlink(missing_ok=True)
        _write_new(draft, content)
        draft.replace(file)


def _write_new(file: Path, content: bytes) -> None:
    """Write a file that does not exist yet; a link counts as existing, and is not followed."""
    with suppress(FileExistsError), file.open("xb") as output:
        output.write(content)

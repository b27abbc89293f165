"""Twenty real children on a real process worker, submitted and awaited by a flow: what the parent adds to them.

    overhead    the parent flow's seconds, less those from its first child's creation to its last child's end; asked
                in relation to the sum of the children's own run times
    one child   CPU seconds of the worker and all that it starts, and of the server, divided by the number of children

Each child sleeps for CHILD_SECONDS. On SQLite, as `make bootstrap` has it. The worker polls every 2 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import Figure


def benchmark(folder: Path) -> Iterator[Figure]:
    yield from ()

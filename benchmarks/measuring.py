"""What all benchmarks share: a figure, and how a command is timed."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Two sides of one comparison, in seconds, and the ratio that is asked for."""

    name: str
    ours: float
    peer: float
    at_most: float | None = None  # ours / peer

    @property
    def ratio(self) -> float:
        return self.ours / self.peer

    @property
    def is_reached(self) -> bool:
        return self.at_most is None or self.ratio <= self.at_most


@dataclass(frozen=True, kw_only=True)
class Command:
    """A whole process: its start and its imports are part of what is measured."""

    line: Sequence[str]
    folder: Path
    api_url: str | None = None

    def run(self) -> tuple[float, str]:
        """Its seconds, and what it wrote to standard output; a command that fails ends the benchmark."""
        started = time.perf_counter()
        done = subprocess.run(
            self.line, cwd=self.folder, env=self._environment(), capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - started
        if done.returncode:
            raise SystemExit(f"{' '.join(self.line)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return seconds, done.stdout

    def seconds(self) -> float:
        return self.run()[0]

    def _environment(self) -> dict[str, str]:
        """The caller's, without settings of Prefect's: its home lies in the folder."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        server = {"PREFECT_API_URL": self.api_url} if self.api_url else {}
        return {**clean, "PREFECT_HOME": str(self.folder / ".orchestrator" / "prefect"), "DO_NOT_TRACK": "1", **server}


def median(rounds: int, measure: Callable[[], float]) -> float:
    """The median of so many rounds."""
    return statistics.median(measure() for _ in range(rounds))

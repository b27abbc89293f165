"""What all benchmarks share: a figure, and how a command is timed."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What one side of a comparison took and what the other one did, and what is asked of it: a ratio or a bound."""

    name: str
    ours: float
    peer: float = math.nan  # nan: there is none
    at_most: float | None = None  # ours / peer
    bound: float | None = None  # ours
    unit: str = "s"

    @property
    def ratio(self) -> float:
        return self.ours / self.peer if self.peer else math.nan

    @property
    def is_reached(self) -> bool:
        is_within_ratio = self.at_most is None or self.ratio <= self.at_most
        return is_within_ratio and (self.bound is None or self.ours <= self.bound)

    def cells(self) -> tuple[str, str, str, str, str]:
        """A row of the table."""
        return self.name, self._amount(self.ours), self._amount(self.peer), _number(self.ratio, ".3f"), self._asked()

    def _asked(self) -> str:
        ratio = "" if self.at_most is None else f"<= {self.at_most:.3g}"
        bound = "" if self.bound is None else f"ours <= {self._amount(self.bound)}"
        return ", ".join(filter(None, (ratio, bound)))

    def _amount(self, number: float) -> str:
        return _number(number, ".0f" if number >= 1000 or float(number).is_integer() else ".3g") + self._suffix(number)

    def _suffix(self, number: float) -> str:
        return "" if math.isnan(number) or not self.unit else f" {self.unit}"


def _number(number: float, style: str) -> str:
    return "–" if math.isnan(number) else format(number, style)


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

"""Starting one side of the fan-out benchmarks (`benchmarks.fan_out_parent`) and hearing what it tells."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from benchmarks.servers import Server

REPOSITORY = Path(__file__).parents[1]
LIMIT_SECONDS = 3600.0  # for one side: longer is a hang


class Parent:
    """The process of one side; it tells two lines, one when all is submitted and one when all is done."""

    def __init__(self, folder: Path, on: Server, way: str, path: str, size: int, parent: str) -> None:
        self.log = folder / f"{way}-{parent}-{size}.log"
        line = [sys.executable, "-m", "benchmarks.fan_out_parent", way, path, str(size), parent]
        with self.log.open("ab") as errors:
            self.process = subprocess.Popen(
                line, cwd=REPOSITORY, env=dict(on.environment), stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self.limit = threading.Timer(LIMIT_SECONDS, self.process.kill)

    def tell(self) -> dict[str, Any]:
        """The next line; a process that ends instead ends the benchmark."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.log.stem} ended early:\n{self.log.read_text(encoding='utf-8')[-3000:]}")
        told: dict[str, Any] = json.loads(line)
        return told

    def __enter__(self) -> Parent:
        self.limit.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.limit.cancel()
        self.process.kill()  # it has told all, or it is at fault
        self.process.wait()

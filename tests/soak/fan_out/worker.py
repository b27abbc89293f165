"""A process worker that is killed, and the real children that it runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.integration.conftest import ROOT

from .child_flow import GATE

ENTRYPOINT = "tests/soak/fan_out/child_flow.py:child"
LIMIT = 2  # runs at once


@dataclass
class Worker:
    """The workers of one pool, one after another, each with its flow runs.

    Args:
        environment: in which the server is known.
        pool: whose runs.
        folder: for the log, and for the gate at which the runs wait.
    """

    environment: Mapping[str, str]
    pool: str
    folder: Path
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _runs: list[psutil.Process] = field(default_factory=list)  # of those that were killed

    def start(self) -> None:
        """Start another one; it is not ready yet."""
        command = ["worker", "start", "--pool", self.pool, "--type", "process", "--limit", str(LIMIT)]
        own = {GATE: str(self._gate), "PREFECT_WORKER_QUERY_SECONDS": "1"}
        with (self.folder / "worker.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "prefect", *command],
                env={**self.environment, **own},
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)

    def kill(self, *, with_runs: bool) -> None:
        """As `kill -9` of the latest, or as a machine that is gone with all that ran on it."""
        worker = psutil.Process(self._processes[-1].pid)
        self._runs += worker.children(recursive=True)  # without their worker nobody finds them any more
        worker.kill()
        self._processes[-1].wait()
        if with_runs:
            _kill(self._runs)

    def let_runs_end(self) -> None:
        """They wait for this."""
        self._gate.touch()

    def stop(self) -> None:
        """End all that was started, the runs that outlived their worker, too."""
        if self._processes[-1].poll() is None:
            self.kill(with_runs=False)
        _kill(self._runs)

    @property
    def _gate(self) -> Path:
        return self.folder / "gate"


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # psutil sees where another process has got the number
            process.kill()

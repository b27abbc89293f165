"""The process of the parent: killed at any time, and started again as the same flow run."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.api import Api
from tests.integration.conftest import ROOT

from .account import ENDED

ENTRYPOINT = "tests/soak/fan_out/parent_flow.py:fan_out"
ATTEMPT_SECONDS = 240  # far more than it takes: a slow machine is no failure


@dataclass
class Parent:
    """One flow run, and the processes that execute it one after another.

    Args:
        api: of the server itself.
        run_id: of the flow run.
        folder: for what it says, and for its logs.
        environment: of its processes.
    """

    api: Api
    run_id: str
    folder: Path
    environment: Mapping[str, str]
    codes: list[int] = field(default_factory=list)  # exit codes of its processes so far
    _process: Process | None = None

    @property
    def report(self) -> Any:
        """What the submission has said at its end."""
        return json.loads(report_in(self.folder).read_text())

    @property
    def state(self) -> str:
        return str(self.api.get(f"/flow_runs/{self.run_id}")["state_type"])

    @property
    def log(self) -> str:
        """What all its processes have said."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("parent-*.log")))

    async def start(self, **environment: str) -> None:
        """Execute the flow run in a process of its own."""
        with (self.folder / f"parent-{len(self.codes) + 1}.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "prefect.flow_engine", ENTRYPOINT),
                env={**self.environment, **environment, "PREFECT__FLOW_RUN_ID": self.run_id},
                cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def gone(self) -> None:
        """Wait for the end of its process."""
        assert self._process is not None
        await self._process.wait()

    async def finished(self) -> int:
        """The exit code of the process at its end; the process is killed where it has none."""
        assert self._process is not None
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                code = await self._process.wait()
        except TimeoutError:
            self.kill()
            code = await self._process.wait()
        self.codes.append(code)
        return code

    def kill(self) -> None:
        """As `kill -9`: it hears nothing of it."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def retry(self) -> None:
        """What a worker reports of a process that is gone, and a person then does in the UI."""
        if self.state not in ENDED:
            self._set({"type": "CRASHED", "message": "its process is gone"}, force=True)
        self._set({"type": "SCHEDULED", "name": "AwaitingRetry"}, force=False)

    def _set(self, state: Mapping[str, str], *, force: bool) -> None:
        self.api.post(f"/flow_runs/{self.run_id}/set_state", state=state, force=force)


def new_parent(api: Api, api_url: str, folder: Path, environment: Mapping[str, str], **parameters: Any) -> Parent:
    """A new flow run of the deployment that no worker serves.

    Args:
        api: of the server itself.
        api_url: the server as the parent sees it.
        folder: of its own.
        environment: of its processes.
        parameters: of the flow, but for the report.
    """
    deployment = api.deploy("fan-out-parent/by-itself", entrypoint=ENTRYPOINT)
    given = {**parameters, "report": str(report_in(folder))}
    run = api.post(f"/deployments/{deployment['id']}/create_flow_run", parameters=given)
    return Parent(api, run["id"], folder, {**environment, "PREFECT_API_URL": api_url})


def report_in(folder: Path) -> Path:
    return folder / "report.json"

"""`python -m orchestrator` as a person or a service starts it: a process of its own."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

COMMAND_SECONDS = 300  # far more than it takes: a slow machine is no failure


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code; negative: the signal that ended it."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}".strip()


@dataclass(frozen=True)
class Commands:
    """Starts commands on one repository."""

    root: Path
    environment: Mapping[str, str]

    async def run(self, api_url: str, *arguments: str) -> Answer:
        return await self.finished(await self.start(api_url, *arguments))

    async def start(self, api_url: str, *arguments: str, **environment: str) -> Process:
        """Start a command on a server."""
        where = ("--root", str(self.root), "--api-url", api_url)
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "orchestrator", *arguments, *where),
            env={**self.environment, **environment},
            cwd=self.root,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )

    async def finished(self, process: Process) -> Answer:
        """Wait for its end.

        Raises:
            TimeoutError: it does not end; it is killed.
        """
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            raise
        return Answer(process.returncode or 0, out.decode(), err.decode())

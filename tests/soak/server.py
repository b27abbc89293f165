"""A Prefect server of our own that can be killed and started again on the same database."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.integration.api import Api
from tests.integration.conftest import START_SECONDS, clean_environment, free_port, stop
from tests.integration.proxy import Fault


@dataclass
class Server:
    """One server with one database, whatever becomes of its process."""

    home: Path
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def api(self) -> Api:
        return Api(self.api_url)

    @property
    def environment(self) -> dict[str, str]:
        """Of processes that belong to it."""
        return {**clean_environment(self.home), "PREFECT_SERVER_UI_ENABLED": "false"}

    def start(self) -> None:
        """Start its process; it is not ready yet."""
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.home / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                command, env=self.environment, cwd=self.home, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """End it and all that it started at once, as a power cut would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    async def ready(self) -> None:
        """Wait until it answers.

        Raises:
            TimeoutError: it never does.
        """
        async with asyncio.timeout(START_SECONDS), httpx.AsyncClient(timeout=5) as client:
            while not await _answers(client, f"{self.api_url}/health"):  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process)


@dataclass
class Crash:
    """`kill -9` of a server at a request, before or while it works on it; it is started again at once.

    Args:
        server: which one.
        flight: seconds that it works on the request; None: it never hears of it.
    """

    server: Server
    flight: float | None
    happened: asyncio.Event = field(default_factory=asyncio.Event)

    def strike(self) -> Fault | None:
        """Now, or in a moment: what becomes of the request."""
        if self.flight is None:
            self._happen()
            return "hang up"
        asyncio.get_running_loop().call_later(self.flight, self._happen)
        return None

    @property
    def words(self) -> str:
        return "before it" if self.flight is None else f"{self.flight * 1000:.0f} ms into it"

    def _happen(self) -> None:
        self.server.kill()
        self.server.start()
        self.happened.set()


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).is_success
    except httpx.TransportError:
        return False


@asynccontextmanager
async def running_server(home: Path) -> AsyncIterator[Server]:
    """A server that is ready, until the end of the block."""
    server = Server(home)
    server.start()
    try:
        await server.ready()
        yield server
    finally:
        server.stop()

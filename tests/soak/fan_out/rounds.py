"""One round: a fan-out meets a fault, and then every run must be accounted for exactly once.

The claim (issue 5): whatever is killed, cut or refused, there is one run for each item, it ends once, and the parent
knows of each how it ended. A parent that fails on the way, or is killed, goes on as the same flow run.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.integration.api import Api
from tests.integration.conftest import ROOT
from tests.integration.proxy import proxy_to
from tests.soak.server import Server, running_server

from .account import Found, found_in, read_books
from .children import Children, all_well, ends_of
from .faults import FAULTS, WORKER_KILLED, Scene
from .parent import new_parent
from .parent_flow import WAYS
from .worker import ENTRYPOINT

MOST_TRIES = 6
FEWEST_ITEMS, MOST_ITEMS = 6, 150
REAL_ITEMS = 3  # each costs a process
SCHEMA = {"type": "object", "properties": {"table": {"type": "integer"}}}


@dataclass(frozen=True, kw_only=True)
class Round:
    """How a round went."""

    number: int
    fault: str
    seed: int
    way: str
    retries: int  # of each run
    detail: str  # when and how it struck
    codes: tuple[int, ...]  # exit codes of the parent's processes
    seconds: float
    said: str  # by them
    found: Found

    def __str__(self) -> str:
        """All that somebody needs who looks for the cause of a fault."""
        what = f"{self.way}, {self.found.items} items, {self.retries} retries, {self.detail}"
        about = f"round {self.number} of seed {self.seed}: {self.fault}, {what}"
        return "\n".join([about, *(f"- {words}" for words in self.found.faults), "", self.said])


@dataclass(frozen=True)
class FanOut:
    """A server, and rounds of faults on it; each has its own deployment, and follows from seed and number alone.

    Args:
        server: one that may be killed; it is ready.
        folder: for what processes say.
        seed: of all that is random.
        most_items: in a round.
    """

    server: Server
    folder: Path
    seed: int
    most_items: int

    async def run(self, number: int, fault: str) -> Round:
        """One round, whatever was run before it."""
        start = time.monotonic()
        async with self._scene(number, fault) as scene:
            detail = await FAULTS[fault](scene)
            await self._go_on(scene)
        return Round(
            number=number,
            fault=fault,
            seed=self.seed,
            way=scene.way,
            retries=scene.retries,
            detail=detail,
            codes=tuple(scene.parent.codes),
            seconds=time.monotonic() - start,
            said=scene.parent.log,
            found=self._found(scene),
        )

    @asynccontextmanager
    async def _scene(self, number: int, fault: str) -> AsyncIterator[Scene]:
        """A deployment of its own, children that end, and a parent that has not begun."""
        random, api, name = Random(f"{self.seed} {number} fan-out"), self.server.api, f"fan-out-{number}"
        way = random.choice(list(WAYS))
        if fault == WORKER_KILLED:
            ends, retries = all_well(REAL_ITEMS), 0
        else:
            ends, retries = ends_of(random, self._some_items(random, way)), random.choice([0, 0, 1])
        folder = self.folder / f"round-{number}"
        folder.mkdir()
        api.ensure_pool(name)
        children = Children(self.server.api_url, _deployment(api, name)["id"], ends)
        async with proxy_to(self.server.api_url) as proxy, children.at_work():
            given = {"path": f"{name}/child", "items": len(ends), "way": way, "retries": retries}
            parent = new_parent(api, proxy.api_url, folder, self.server.environment, **given)
            try:
                yield Scene(self.server, parent, proxy, children, random, folder, name, way, retries)
            finally:
                parent.kill()

    def _some_items(self, random: Random, way: str) -> int:
        most = self.most_items // 4 if way == "one by one" else self.most_items
        return random.randint(FEWEST_ITEMS, max(FEWEST_ITEMS, most))

    async def _go_on(self, scene: Scene) -> None:
        """Execute the parent until it completes, or often enough, as a person does who retries a failed run."""
        await self.server.ready()
        scene.let_all_end()
        while scene.parent.state != "COMPLETED" and len(scene.parent.codes) < MOST_TRIES:
            scene.parent.retry()
            await scene.parent.start()
            await scene.parent.finished()

    def _found(self, scene: Scene) -> Found:
        parent, children = scene.parent, scene.children
        if parent.state != "COMPLETED":
            never = f"the parent never completes: exit codes {parent.codes}"
            return Found(items=scene.items, runs=0, ended=0, told=0, faults=(never,))
        attempts = len(parent.codes)
        books = read_books(self.server.api, children.deployment_id, parent.report, scene.retries, attempts)
        return found_in(books, {table: state.get("name") for table, state in children.ends.items()})


@asynccontextmanager
async def fanning_out(folder: Path, seed: int, most_items: int = MOST_ITEMS) -> AsyncIterator[FanOut]:
    """A server of our own with an empty database in this folder."""
    home = folder / "prefect"
    home.mkdir(exist_ok=True)  # it may hold a database
    async with running_server(home) as server:
        yield FanOut(server, folder, seed, most_items)


def _deployment(api: Api, name: str) -> dict[str, Any]:
    return api.deploy(
        f"{name}/child",
        entrypoint=ENTRYPOINT,
        path=str(ROOT),
        work_pool_name=name,
        parameter_openapi_schema=SCHEMA,
        enforce_parameter_schema=True,
    )

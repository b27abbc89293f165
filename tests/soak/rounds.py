"""One round: people and the repository have moved on, an apply meets a fault, and applying again must reach exactly it.

The claim (issue 4): killing the process or the server at any point and applying again reaches exactly the desired
state, with no duplicates and nothing lost; what is paused stays paused. An apply that ends with exit code 0 says that
it has reached it, so a round takes its word for it, whatever had happened to it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from random import Random

from tests.integration.proxy import proxy_to

from .commands import Answer, Commands
from .convergence import Snapshot, differences, idle_schedules, snapshot, touched
from .faults import APPLY, FAULTS, Target
from .people import act, delete_locks, prepare
from .server import Server, running_server
from .world import Deed, World, acted, deeds, next_world, world_before

MOST_TRIES = 6
RUNS_SECONDS = 150  # the server's scheduler looks at everything once a minute
PAGE = 200


@dataclass(frozen=True, kw_only=True)
class Round:
    """How a round went."""

    number: int
    fault: str
    detail: str  # when and how it struck
    codes: tuple[int, ...]  # exit codes of the applies that met the fault
    tries: int  # applies until one ended with 0, those that met the fault included
    seconds: float
    told: str  # what the applies said


class NotConverged(AssertionError):
    """The server is not as it should be."""


@dataclass(frozen=True)
class Soak:
    """A server and a repository, and rounds of faults on them.

    `hurries`: nobody waits until the lock of a killed applier is stale; it is deleted, as a person may do who knows.
    """

    server: Server
    commands: Commands
    seed: int
    hurries: bool = False

    async def begin(self, round_number: int = 1) -> None:
        """Bring a fresh server to where the rounds before this one would have left it."""
        world, api = world_before(self.seed, round_number), self.server.api
        prepare(api)
        world.write(self.commands.root, self.server.api_url)
        answer = await self.commands.run(self.server.api_url, *APPLY)
        if answer.code:
            raise NotConverged(f"The first apply, without any fault: {answer.text}")
        act(api, [Deed(what="pause", path=path) for path in sorted(world.paused)])
        act(api, [Deed(what="switch off", path=path, schedule=key) for path, key in sorted(world.off)])

    async def run(self, number: int, fault: str) -> Round:
        """One round; those before it must have been run, or skipped by `begin`.

        Raises:
            NotConverged: with every difference, and what repeats the round.
        """
        start = time.monotonic()
        old = world_before(self.seed, number)
        done = deeds(old, self.seed, number)
        was = acted(old, done)
        act(self.server.api, done)
        before = all_scheduled(self.server, was)
        world = next_world(was, self.seed, number)
        world.write(self.commands.root, self.server.api_url)

        random = Random(f"{self.seed} {number} fault")
        target = Target(self.server, self.commands, random, len(touched(before, was, world)))
        hit = await FAULTS[fault](target)
        answers = [*hit.answers, *(await self._again() if any(each.code for each in hit.answers) else ())]
        about = f"round {number} of seed {self.seed}: {fault}, {hit.detail}"
        self._require_sane(about, answers)
        self._require_converged(about, answers, before, was, world)
        await self._require_calm(about)
        return Round(
            number=number,
            fault=fault,
            detail=hit.detail,
            codes=tuple(each.code for each in hit.answers),
            tries=len(answers),
            seconds=time.monotonic() - start,
            told=_told(about, [], answers),
        )

    async def _again(self) -> list[Answer]:
        """Apply until it ends with 0, or often enough."""
        answers: list[Answer] = []
        while len(answers) < MOST_TRIES and (not answers or answers[-1].code):
            await self.server.ready()
            if self.hurries:
                delete_locks(self.server.api)
            answers.append(await self.commands.run(self.server.api_url, *APPLY))
        return answers

    def _require_sane(self, about: str, answers: list[Answer]) -> None:
        """The last apply has ended well, and none has broken down without a word of ours."""
        if answers[-1].code or any("Traceback" in each.text for each in answers):
            raise NotConverged(_told(about, ["an apply broke down, or none ended with 0"], answers))

    def _require_converged(self, about: str, answers: list[Answer], before: Snapshot, was: World, world: World) -> None:
        found = differences(before, was, snapshot(self.server.api), world)
        if found:
            raise NotConverged(_told(about, found, answers))

    async def _require_calm(self, about: str) -> None:
        """A plan is empty, an apply writes nothing, asks little and changes nothing."""
        before = snapshot(self.server.api)
        async with proxy_to(self.server.api_url) as plans, proxy_to(self.server.api_url) as applies:
            plan, apply = await asyncio.gather(
                self.commands.run(plans.api_url, "plan", "--detailed-exitcode"),
                self.commands.run(applies.api_url, *APPLY),
            )
        found = [f"{name} is not empty" for name, each in (("plan", plan), ("apply", apply)) if each.code]
        found += [f"a write of nothing: {write.method} {write.path}" for write in (*plans.writes, *applies.writes)]
        most = ceil(len(before.rows) / PAGE) + 10
        if len(applies.seen) > most:
            found.append(f"{len(applies.seen)} requests to find that nothing has changed, not {most} at most")
        now = snapshot(self.server.api)
        if (now.rows, now.slots) != (before.rows, before.slots):
            found.append("an apply of nothing has changed something")
        if found:
            raise NotConverged(_told(about, found, [plan, apply]))

    async def require_runs(self) -> None:
        """Runs come to wait for every schedule that fires, also where an apply ended before it had made them.

        Raises:
            NotConverged: for some schedule there are none, though the server's scheduler has had its time.
        """
        deadline = time.monotonic() + RUNS_SECONDS
        while idle := idle_schedules(snapshot(self.server.api)):
            if time.monotonic() > deadline:
                raise NotConverged("\n".join(idle))
            await asyncio.sleep(1)


@asynccontextmanager
async def soaking(folder: Path, seed: int, *, hurries: bool = False) -> AsyncIterator[Soak]:
    """A server of our own with an empty database, and an empty repository, in this folder."""
    home, root = folder / "prefect", folder / "repository"
    home.mkdir(exist_ok=True)  # it may hold a database
    root.mkdir()
    async with running_server(home) as server:
        yield Soak(server, Commands(root, server.environment), seed, hurries)


def all_scheduled(server: Server, world: World) -> Snapshot:
    """The server once every schedule that fires has runs: what its scheduler would do, done at once."""
    rows = snapshot(server.api).rows
    for path in world.wanted:
        if path in rows and world.fires(path):
            server.api.schedule_runs(rows[path]["id"])
    return snapshot(server.api)


def _told(about: str, found: list[str], answers: list[Answer]) -> str:
    seen = "\n\n".join(each.text for each in answers)
    return "\n".join([about, *(f"- {words}" for words in found), "", seen])

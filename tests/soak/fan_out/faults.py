"""The ways in which a fan-out is hit. Each is random by its seed; moments are counted in requests and in ended runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.integration.proxy import ALL_FAULTS, Fault, Proxy, Request, at_random, at_request, either, first
from tests.soak.server import Crash, Server

from .children import Children
from .parent import Parent
from .worker import LIMIT, Worker

STREAM = "/api/events/out"
CREATES = ("/create_flow_run", "/create_flow_run/bulk")
READS = ("/flow_runs/filter", "/flow_runs/count", "/flow_runs/history")
OF_THE_PROCESS = ("/api/logs", "/api/events/in", "/api/csrf-token", "/api/admin", "/api/health", "/api/flows")
BATCH = 100  # the most that a request can create
IMPATIENT = {"PREFECT_API_REQUEST_TIMEOUT": "8"}  # else one answer that never comes takes a minute
ALWAYS = 10**9
CREATE_SECONDS = 0.05  # about what the server takes for one run
WORKER_KILLED = "worker killed"  # its children are processes


@dataclass(frozen=True)
class Scene:
    """What can be hit: a server, a parent that is not started yet, the way between them, and the children."""

    server: Server
    parent: Parent
    proxy: Proxy
    children: Children
    random: Random
    folder: Path
    pool: str
    way: str
    retries: int

    @property
    def items(self) -> int:
        return len(self.children.ends)

    @property
    def creates_expected(self) -> int:
        """How many requests create the runs."""
        return self.items if self.way == "one by one" else -(-self.items // BATCH)

    @property
    def creates_seen(self) -> int:
        """How many requests that create runs there were."""
        return sum(map(_is_create, self.proxy.seen))

    def some_create(self) -> int:
        """The number of a request that creates runs, counted from 1."""
        return self.random.randint(1, self.creates_expected)

    def some_end(self) -> int:
        """A number of runs that have ended, neither none nor all."""
        return self.random.randint(1, self.items - 1)

    async def let_end(self, count: int) -> None:
        """Let so many runs end, and wait until they have: the parent is in the middle of it."""
        self.children.let = count
        await self.unless_over(self.children.have_ended(count))

    def let_all_end(self) -> None:
        self.children.let = self.items

    async def unless_over(self, condition: Coroutine[Any, Any, object]) -> None:
        """Wait for something that the parent's doing brings about, until its process is over."""
        tasks = [asyncio.create_task(condition), asyncio.create_task(self.parent.gone())]
        _, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()


async def requests_fail(scene: Scene) -> str:
    """Requests of the submission fail in all ways, up to some number: then all is well again."""
    random = scene.random
    count, share = random.randint(3, 12), random.choice([0.2, 0.5, 1.0])
    scene.proxy.judge = at_random(random, count, share, when=_of_submission(scene), faults=ALL_FAULTS)
    scene.let_all_end()
    await scene.parent.start(**IMPATIENT)
    await scene.parent.finished()
    return f"{share:.0%} of the requests until {count} have failed"


async def server_is_killed_submitting(scene: Scene) -> str:
    """`kill -9` of the server, before or while it works on a create; it is started again."""
    seconds = CREATE_SECONDS * min(BATCH, scene.items / scene.creates_expected)
    moment, flight = scene.some_create(), scene.random.choice([None, scene.random.uniform(0, seconds)])
    crash = Crash(scene.server, flight)
    scene.proxy.judge = at_request(moment, crash.strike, when=_is_create)
    scene.let_all_end()
    await scene.parent.start()
    await scene.unless_over(crash.happened.wait())
    await scene.server.ready()
    await scene.parent.finished()
    return f"at create {moment} of {scene.creates_seen}, {crash.words}"


async def server_is_killed_waiting(scene: Scene) -> str:
    """`kill -9` of the server between two ends; it is started again at once, or after a while."""
    ended, away = scene.some_end(), scene.random.choice([0, 0, 15])
    await scene.parent.start()
    await scene.let_end(ended)
    scene.server.kill()
    await asyncio.sleep(away)
    scene.server.start()
    await scene.server.ready()
    scene.let_all_end()
    await scene.parent.finished()
    return f"after {ended} of {scene.items} ends, away for {away} s and its start"


async def parent_is_killed_submitting(scene: Scene) -> str:
    """`kill -9` of the parent; the create that it was busy with arrives, or does not. Then the same run goes on."""
    moment = scene.some_create()
    last: Fault | None = scene.random.choice([None, "hang up"])
    killed = asyncio.Event()

    def strike() -> Fault | None:
        scene.parent.kill()
        killed.set()
        return last

    scene.proxy.judge = at_request(moment, strike, when=_is_create)
    await scene.parent.start()
    await scene.unless_over(killed.wait())
    await scene.parent.finished()
    scene.let_all_end()
    words = f"at create {moment} of {scene.creates_expected}, {'lost' if last else 'passed on'}, {await _go_on(scene)}"
    await scene.parent.finished()
    return words


async def parent_is_killed_waiting(scene: Scene) -> str:
    """`kill -9` of the parent between two ends; some more end while it is away. Then the same run goes on."""
    ended = scene.some_end()
    await scene.parent.start()
    await scene.let_end(ended)
    scene.parent.kill()
    await scene.parent.finished()
    more = scene.random.randint(0, min(3, scene.items - ended))
    await scene.children.end_without_more(ended + more)
    words = await _go_on(scene)
    scene.let_all_end()
    await scene.parent.finished()
    return f"after {ended} of {scene.items} ends, {more} more meanwhile, {words}"


async def stream_is_cut(scene: Scene) -> str:
    """The event stream is cut between ends, opens again or not, and polls fail, too; or it falls silent."""
    random = scene.random
    ended = sorted(random.sample(range(1, scene.items), k=min(3, scene.items - 1)))
    is_cut, refused, polls = random.random() < 0.8, random.choice([0, 3, ALWAYS]), random.choice([0, 4, 12])
    how: Fault = random.choice(ALL_FAULTS)
    await scene.parent.start(**IMPATIENT)
    for count in ended:
        await scene.let_end(count)
        scene.proxy.judge = either(first(refused, how, when=_opens_stream), first(polls, how, when=_polls))
        scene.proxy.cut_streams(STREAM) if is_cut else scene.proxy.silence_streams(STREAM)
    scene.let_all_end()
    await scene.parent.finished()
    times = "for good" if refused == ALWAYS else f"{refused} times"
    words = f"cut, refused {times}" if is_cut else "silent"
    return f"after {', '.join(map(str, ended))} ends: {words}, and {polls} polls fail by {how}"


async def worker_is_killed(scene: Scene) -> str:
    """`kill -9` of the worker, with the runs that it had started or without them; then another one is started."""
    with_runs = scene.random.choice([True, False])
    worker = Worker(scene.parent.environment, scene.pool, scene.folder)
    try:
        worker.start()
        await scene.parent.start()
        await scene.unless_over(scene.children.are_running(LIMIT))
        worker.kill(with_runs=with_runs)
        runs = await (scene.children.crash_running() if with_runs else scene.children.leave_running())
        worker.start()
        worker.let_runs_end()
        await scene.parent.finished()
    finally:
        worker.stop()
    return f"{'with' if with_runs else 'without'} its {runs} runs of {scene.items}"


FAULTS: dict[str, Callable[[Scene], Awaitable[str]]] = {
    "requests fail": requests_fail,
    "server killed submitting": server_is_killed_submitting,
    "server killed waiting": server_is_killed_waiting,
    "parent killed submitting": parent_is_killed_submitting,
    "parent killed waiting": parent_is_killed_waiting,
    "stream cut": stream_is_cut,
    WORKER_KILLED: worker_is_killed,
}


async def _go_on(scene: Scene) -> str:
    """Execute the flow run again, as its platform does by itself, or as a person asks for who sees it crashed."""
    retried = scene.random.choice([True, False])
    if retried:
        scene.parent.retry()
    await scene.parent.start()
    return "retried" if retried else "started again as it was"


def _of_submission(scene: Scene) -> Callable[[Request], bool]:
    """Requests of the submission, from its first one on; not those of the process for itself."""
    begun = False

    def matches(request: Request) -> bool:
        nonlocal begun
        begun = begun or request.path.startswith("/api/deployments/name/")
        return begun and scene.parent.run_id not in request.path and not request.path.startswith(OF_THE_PROCESS)

    return matches


def _is_create(request: Request) -> bool:
    return request.path.endswith(CREATES)


def _opens_stream(request: Request) -> bool:
    return request.opens_stream and request.path == STREAM


def _polls(request: Request) -> bool:
    return request.path.endswith(READS)

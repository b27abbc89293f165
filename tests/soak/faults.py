"""The ways in which an apply is hit. Each is random by its seed; moments are counted in writes, not in seconds."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from tests.integration.proxy import Fault, Judge, Proxy, at_random, at_request, proxy_to

from .commands import Answer, Commands
from .server import Crash, Server

APPLY = ("apply", "--yes")
LONGEST_FLIGHT = 0.03  # seconds within which the server is killed after a request has reached it


@dataclass(frozen=True)
class Hit:
    """What became of the applies that were hit."""

    detail: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Target:
    """What can be hit: a server, and applies to it that write at least so much."""

    server: Server
    commands: Commands
    random: Random
    writes: int

    def some_write(self) -> int:
        """The number of a write, counted from 1; now and then there are not so many."""
        return self.random.randint(1, 2 * self.writes + 3)


async def requests_fail(target: Target) -> Hit:
    """Requests fail in all ways, up to some number: then all is well again."""
    random = target.random
    count, share, retries = random.randint(2, 8), random.choice([0.1, 0.3, 1.0]), random.choice(["0", "5"])
    which, when = random.choice([("requests", lambda request: True), ("writes", lambda request: request.writes)])
    async with proxy_to(target.server.api_url) as proxy:
        proxy.judge = at_random(random, count, share, when=when)
        process = await target.commands.start(proxy.api_url, *APPLY, PREFECT_CLIENT_MAX_RETRIES=retries)
        answer = await target.commands.finished(process)
    return Hit(f"{share:.0%} of the {which} until {count} have failed, {retries} retries of the client", (answer,))


async def applier_is_killed(target: Target) -> Hit:
    """`kill -9` of the applier; the write that it was busy with arrives, or does not."""
    return await _signalled(target, signal.SIGKILL)


async def applier_is_interrupted(target: Target) -> Hit:
    """Ctrl-C, or a service manager that stops it."""
    return await _signalled(target, target.random.choice([signal.SIGINT, signal.SIGTERM]))


async def _signalled(target: Target, number: signal.Signals) -> Hit:
    moment = target.some_write()
    last: Fault | None = target.random.choice([None, "hang up"])
    async with proxy_to(target.server.api_url) as proxy:
        process = await target.commands.start(proxy.api_url, *APPLY)

        def strike() -> Fault | None:
            process.send_signal(number)
            return last

        proxy.judge = at_write(moment, strike)
        answer = await target.commands.finished(process)
        return Hit(f"{number.name} at {_moment(moment, proxy)}, {'lost' if last else 'passed on'}", (answer,))


async def server_is_killed(target: Target) -> Hit:
    """`kill -9` of the server, before or while it works on a write; it is started again at once."""
    moment, flight = target.some_write(), target.random.choice([None, target.random.uniform(0, LONGEST_FLIGHT)])
    crash = Crash(target.server, flight)
    async with proxy_to(target.server.api_url) as proxy:
        process = await target.commands.start(proxy.api_url, *APPLY)
        proxy.judge = at_write(moment, crash.strike)
        answer = await target.commands.finished(process)
        if moment <= len(proxy.writes):
            await crash.happened.wait()
        await target.server.ready()
        return Hit(f"at {_moment(moment, proxy)}, {crash.words}", (answer,))


async def two_appliers(target: Target) -> Hit:
    """Two people apply; the second starts at the same time, or while the first writes."""
    moment, first_writes = target.random.choice([None, target.some_write()]), asyncio.Event()
    async with proxy_to(target.server.api_url) as proxy:
        proxy.judge = at_write(moment or 0, first_writes.set)
        first = await target.commands.start(proxy.api_url, *APPLY)
        one = asyncio.create_task(target.commands.finished(first))
        if moment is not None:
            waiting = asyncio.create_task(first_writes.wait())
            await asyncio.wait([one, waiting], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        second = await target.commands.start(proxy.api_url, *APPLY)
        answers = await asyncio.gather(one, target.commands.finished(second))
        words = "at the same time" if moment is None else f"the second at {_moment(moment, proxy)}"
        return Hit(words, tuple(answers))


FAULTS: dict[str, Callable[[Target], Awaitable[Hit]]] = {
    "requests fail": requests_fail,
    "applier killed": applier_is_killed,
    "server killed": server_is_killed,
    "two appliers": two_appliers,
    "interrupted": applier_is_interrupted,
}


def at_write(number: int, strike: Callable[[], Fault | None]) -> Judge:
    """Do something when a write comes by, before it is passed on: the first is number 1."""
    return at_request(number, strike, when=lambda request: request.writes)


def _moment(number: int, proxy: Proxy) -> str:
    return f"write {number} of {len(proxy.writes)}" if number <= len(proxy.writes) else f"no write: {number} never came"

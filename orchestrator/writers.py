"""Writers: how many work at a time, and what they repeat.

SQLite gets slower with every further writer, Postgres faster, and no client is told which of them it talks to. So the
number is found by trying: one writer at first, one more where that raises the throughput, one less where it does not
(hill climbing, as in J. Hellerstein, V. Morrison, E. Eilebrecht: "Applying Control Theory in the Real World:
Experience With Building a Controller for the .NET Thread Pool", 2009); half as many when the server says that it is
busy (multiplicative decrease: D. Chiu, R. Jain, "Analysis of the Increase and Decrease Algorithms for Congestion
Avoidance in Computer Networks", 1989).

What a server answers that is busy, or that does not answer, is repeated, with pauses that double and vary. When no
writer has got anything done for a minute the server counts as gone.

Who interrupts them waits for what is under way, for a few seconds.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from orchestrator.errors import ServerBusy, ServerError, ServerUnreachable
from orchestrator.interruption import Grace

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Job = Callable[[], Awaitable[None]]

MOST_WRITERS = 8
PATIENCE_SECONDS = 60.0
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 5.0  # seconds between two tries of one operation
GRACE_SECONDS = 5.0  # for jobs that are under way when somebody interrupts
SILENT_SECONDS = 5.0  # without any success: people are told


class Throttle:
    """How many writers there may be now, from what became of the operations so far.

    The throughput of a number of writers is measured over a window of operations that began under it. While all is
    well the climber looks one step up after each window; a step that did not pay is taken back, and the next look
    waits for twice as many windows as the last time. The first look waits too: a second writer can bring little to a
    few dozen writes, and on SQLite it makes them slower (50 creates by one, two, four writers: 4.4, 6.7, 7.3 s).

    Args:
        clock: seconds, from any start.
        most: more writers than this there never are.
    """

    WINDOW = 8  # operations per writer and window; fewer say little
    WORTH = 0.3  # what a further writer must bring, as a share of what the others bring each: less is noise
    FIRST_REST, LONGEST_REST = 8, 64  # windows without a look up

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, most: int = MOST_WRITERS) -> None:
        self.limit = 1
        self._clock, self._most = clock, most
        self._rest = self._next_rest = self.FIRST_REST  # now, and after the next step that does not pay
        self._below: float | None = None  # the throughput one step down, while a step up is on trial
        self._level = 0
        self._new_window()

    def begin(self) -> int:
        """An operation begins. Returns the level it runs under, to be named when it ends."""
        if self._began is None:
            self._began = self._clock()
        return self._level

    def succeeded(self, level: int) -> None:
        """An operation of this level is done."""
        if level != self._level or self._began is None:
            return  # it began under another number of writers and says nothing about this one
        self._done += 1
        if self._done >= self.WINDOW * self.limit:
            self._judge(self._done / max(self._clock() - self._began, 1e-9))

    def refused(self, level: int) -> None:
        """The server was too busy for an operation of this level; a burst of refusals counts once."""
        if level != self._level:
            return
        self._below = None
        self._next_rest = self.LONGEST_REST
        self._fall_back(max(1, self.limit // 2))

    def _judge(self, rate: float) -> None:
        if self._below is not None and rate < self._below * (1 + self.WORTH / (self.limit - 1)):
            self._below = None
            self._fall_back(self.limit - 1)
            return
        if self._below is not None:
            self._next_rest = self.FIRST_REST  # that step paid: the next ones may
        self._rest -= 1
        self._below = None
        if self._rest < 0 and self.limit < self._most:
            self._below = rate
            self._move(self.limit + 1)
        else:
            self._new_window()

    def _fall_back(self, limit: int) -> None:
        self._rest, self._next_rest = self._next_rest, min(self._next_rest * 2, self.LONGEST_REST)
        self._move(limit)

    def _move(self, limit: int) -> None:
        self.limit = limit
        self._level += 1
        self._new_window()

    def _new_window(self) -> None:
        self._done, self._began = 0, None

    _done: int
    _began: float | None


class Writers:
    """Does jobs, a few at a time, and repeats the operations in them that are worth it.

    Args:
        patience: seconds; when nothing has succeeded for so long the server is gone.
        throttle: says how many jobs at a time.
        before: called before each try of an operation; what it raises ends the operation.
        grace: seconds that jobs under way have to end when somebody interrupts.
        alive: says whether the server answers at all: one operation that it hangs up on is not its end. None: nobody
            knows.
        clock: seconds, from any start.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        *,
        patience: float = PATIENCE_SECONDS,
        throttle: Throttle | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
        grace: float = GRACE_SECONDS,
        alive: Callable[[], Awaitable[bool]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self.throttle = throttle or Throttle(clock=clock)
        self._patience, self._before, self._clock, self._sleep = patience, before, clock, sleep
        self._last_success, self._told = clock(), False
        self._alive, self._hung_up = alive, 0
        self._grace_seconds = grace
        self._gone: ServerUnreachable | None = None
        self._running = 0
        self._ended = anyio.Event()

    def hope_again(self) -> None:
        """Give a server that counted as gone a new chance: something has to be put right there."""
        self._gone, self._last_success = None, self._clock()

    @property
    def is_gone(self) -> bool:
        """Whether the server was given up."""
        return self._gone is not None

    async def do(self, jobs: Sequence[Job]) -> None:
        """Do jobs, beginning them in their order, until all have ended.

        A job deals with its own failures; one that raises nevertheless keeps later ones from beginning, and its
        error is raised at the end. Whoever is cancelled while waiting for them waits a few seconds more for those that
        are under way; others do not begin.
        """
        faults: list[Exception] = []
        grace = Grace(self._grace_seconds)
        async with anyio.create_task_group() as group:
            group.start_soon(grace.watch)
            for job in jobs:
                while self._running >= self.throttle.limit:
                    await self._ended.wait()
                if faults:
                    break
                self._running += 1
                group.start_soon(self._one, job, grace, faults)
            while self._running:
                await self._ended.wait()
            group.cancel_scope.cancel()
        if faults:
            raise faults[0]

    async def _one(self, job: Job, grace: Grace, faults: list[Exception]) -> None:
        try:
            await checkpoint_if_cancelled()
            with grace.shield():
                await job()
        except Exception as error:
            faults.append(error)
        finally:
            self._running -= 1
            self._ended.set()
            self._ended = anyio.Event()

    async def attempt(self, operation: Callable[[], Awaitable[Result]]) -> Result:
        """Try an operation until it succeeds, fails for good, or patience ends. It must bear being repeated.

        Raises:
            ServerUnreachable: no operation at all has succeeded for as long as patience lasts.
            ServerError: the server refused it, or kept failing it while it did others.
        """
        began, tries = self._clock(), 0
        while True:
            tries += 1
            try:
                return await self._try(operation)
            except (ServerBusy, ServerUnreachable) as error:
                pause = min(_pause(error, tries), max(self._patience, FIRST_PAUSE))
                if tries > 1 and self._clock() + pause - began > self._patience:
                    raise await self._verdict(error, began) from error
                if self._gone is not None:
                    raise self._gone from error
                self._tell(error)
                await self._sleep(pause)

    def _tell(self, error: ServerError) -> None:
        """Say it when the server has done nothing for a while: once, not for each try."""
        if not self._told and self._clock() - self._last_success > SILENT_SECONDS:
            self._told = True
            logger.warning("%s Trying again, for up to %.0f seconds.", error.message, self._patience)

    async def _try(self, operation: Callable[[], Awaitable[Result]]) -> Result:
        if self._before is not None:
            await self._before()
        level = self.throttle.begin()
        try:
            result = await operation()
        except ServerBusy:
            self.throttle.refused(level)
            raise
        self.throttle.succeeded(level)
        self._last_success, self._told = self._clock(), False
        return result

    async def _verdict(self, error: ServerBusy | ServerUnreachable, began: float) -> ServerError:
        """The end of patience: is the server gone, or is it this one operation that it cannot do?"""
        if self._last_success > began or await self._hangs_up(error):
            message = f"{error.message} It was tried for {self._patience:.0f} seconds, while others succeeded."
            return ServerError(message, location=error.location, remedy=error.remedy)
        self._gone = ServerUnreachable(
            f"{error.message} Nothing has succeeded for {self._patience:.0f} seconds.",
            location=error.location,
            remedy=error.remedy or "When the server is well again, apply again: it goes on where this one ended.",
        )
        return self._gone

    async def _hangs_up(self, error: ServerBusy | ServerUnreachable) -> bool:
        """Whether the server answers others while it hangs up on this one. Twice is as good as gone: who waits a
        minute for each of a hundred operations does not come to an end."""
        if isinstance(error, ServerBusy) or self._alive is None or self._hung_up:
            return False
        self._hung_up += 1
        return await self._alive()


def _pause(error: ServerBusy | ServerUnreachable, tries: int) -> float:
    """Seconds until the next try: doubling, varied by half so that writers do not return together."""
    usual = min(FIRST_PAUSE * 2.0 ** (tries - 1), LONGEST_PAUSE) * random.uniform(0.5, 1.5)
    asked = error.retry_after if isinstance(error, ServerBusy) else 0.0
    return max(usual, asked)

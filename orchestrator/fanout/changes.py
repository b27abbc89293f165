"""Waiting for something that others change, and work that goes on while somebody needs it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import anyio

Work = Callable[[], Awaitable[None]]

HELPER_SECONDS = 5.0  # until a helper that failed begins again

logger = logging.getLogger(__name__)


class Changes:
    """Tells all who wait that something has changed; each looks for itself whether it is what it waits for."""

    def __init__(self) -> None:
        self._event: anyio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def tell(self) -> None:
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Until the next change."""
        loop = asyncio.get_running_loop()
        if self._event is None or self._loop is not loop:  # a script may call asyncio.run more than once
            self._event, self._loop = anyio.Event(), loop
        await self._event.wait()


class Background:
    """Work without an end that is under way while at least one caller needs it.

    The callers are tasks of other people, under asyncio.gather for one, which begin and end in any order: no task group
    of any of them could hold what they share. So it is a task of its own; it ends with the last caller, and its error
    reaches all of them.

    Args:
        work: begun anew each time somebody is the first.
        changes: what callers wait for; told when the work fails.
        others: told, too: somebody who waits for these must hear of it.
    """

    def __init__(self, work: Work, changes: Changes, *others: Changes) -> None:
        self._work, self._changes, self._others = work, changes, others
        self._task: asyncio.Task[None] | None = None
        self._callers = 0

    @asynccontextmanager
    async def needed(self) -> AsyncIterator[None]:
        """The work is under way in the block."""
        self._callers += 1
        if self._task is not None and self._task.done():
            self._task = None  # it has failed, which was told to whom it concerned
        self._begin()
        try:
            yield
        finally:
            self._callers -= 1
            if self._callers == 0:
                await self._end()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait in the block until something holds.

        Raises:
            Exception: what the work has raised.
        """
        while not condition():
            self._begin()
            self.raise_failure()
            await self._changes.wait()

    def raise_failure(self) -> None:
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()

    def _begin(self) -> None:
        """Begin, or begin again: a loop that closes, as after a SIGTERM, cancels all tasks, and callers that have last
        words still need this one."""
        if self._task is None or self._task.cancelled():
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(lambda _: self._tell())

    def _tell(self) -> None:
        for changes in (self._changes, *self._others):
            changes.tell()

    async def _run(self) -> None:
        await self._work()

    async def _end(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])


async def beside(main: Work, helpers: Sequence[Work]) -> None:
    """Do some work, and other work beside it that ends with it and must not break it.

    Raises:
        Exception: what `main` raises, as it is and not in a group of exceptions.
    """
    failures: list[BaseException] = []

    async def job(work: Work) -> None:
        try:
            await work()
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # a SystemExit, too, of a log line into a pipe that nobody reads any more
            failures.append(error)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for helper in helpers:
            group.start_soon(job, partial(_again_and_again, helper))
        await job(main)
        group.cancel_scope.cancel()
    if failures:
        raise failures[0]


async def _again_and_again(helper: Work) -> None:
    """Until it ends: a helper that fails begins again, some time later."""
    while True:
        try:
            return await helper()
        except Exception:
            logger.warning("Something beside the runs failed; they are followed all the same", exc_info=True)
            await anyio.sleep(HELPER_SECONDS)

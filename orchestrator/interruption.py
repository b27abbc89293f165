"""What an interruption must not cut off.

A write that has left us is done by the server whether we hear of it or not, and what was done has to be recorded. So
whoever is interrupted, by a cancelled scope of anyio or by asyncio's cancelling of a task after a Ctrl-C, waits for
what is under way, for a time that is set then. A second Ctrl-C ends everything at once.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import anyio


class Grace:
    """The time that work under way gets when somebody interrupts.

    It needs a task that watches, beside those that work, in one task group: a shield keeps cancellation away, and
    nobody else would notice it.

    Args:
        seconds: that time.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._deadline = seconds, math.inf
        self._under_way: set[anyio.CancelScope] = set()

    @contextmanager
    def shield(self) -> Iterator[None]:
        """For work that may end in that time."""
        with anyio.CancelScope(shield=True, deadline=self._deadline) as scope:
            self._under_way.add(scope)
            try:
                yield
            finally:
                self._under_way.remove(scope)

    async def watch(self) -> None:
        """Wait for the interruption, and set the time."""
        try:
            await anyio.sleep_forever()
        finally:
            self._deadline = anyio.current_time() + self._seconds
            for scope in self._under_way:
                scope.deadline = self._deadline


async def undisturbed(work: Callable[[], Awaitable[None]], *, seconds: float = math.inf) -> None:
    """Do work that goes on when somebody interrupts.

    Args:
        work: what to do. It is begun even if somebody has interrupted already.
        seconds: how long it may go on then.

    Raises:
        Exception: what the work raises. An interruption is raised when the work has ended.
    """
    grace, ended = Grace(seconds), anyio.Event()
    faults: list[Exception] = []

    async def job() -> None:
        try:
            with grace.shield():
                await work()
        except Exception as error:
            faults.append(error)
        finally:
            ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(grace.watch)
        group.start_soon(job)
        await ended.wait()
        group.cancel_scope.cancel()
    if faults:
        raise faults[0]

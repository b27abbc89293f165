"""Share work with copies of this process, where that is safe.

A copy (fork(2)) starts at once with all that this process has imported and read; a new Python takes as long to start as
reading hundreds of files. It is made on Linux only, and only while a single thread runs: a copy has none of the
others, but has the locks that they hold. Elsewhere the work is done here, with the same result.
"""

from __future__ import annotations

import marshal
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

_BATCHES = 200  # so many that nobody waits long for who has the last one, and all their numbers fit into a pipe

Item = TypeVar("Item")


def shared(
    work: Callable[[Sequence[Item]], None],
    items: Sequence[Item],
    helpers: int,
    answer: Callable[[Any], Any],
) -> Iterator[Any]:
    """Do some work on many items, in this process and in helpers.

    Args:
        work: what to do with a batch of items; it keeps its results where it runs.
        items: all of them; tuples whose first member names the item.
        helpers: how many other processes to use at most.
        answer: gives, in a helper, the result for an item by its name, in plain values.

    Yields:
        The answers of the helpers. What they did not get done is done here.
    """
    size = max(1, -(-len(items) // _BATCHES))
    batches = [items[start : start + size] for start in range(0, len(items), size)]
    if helpers < 1 or not _may_fork():
        work(items)
        return
    tokens = _Tokens(len(batches))
    running = [_Helper(lambda: _take_part(batches, tokens, work, answer)) for _ in range(helpers)]
    try:
        mine = list(_done(batches, tokens, work))
        answered = [helper.result() for helper in running]
    finally:
        for helper in running:
            helper.end()
    done = {*mine, *(number for numbers, _ in answered for number in numbers)}
    for number, batch in enumerate(batches):
        if number not in done:  # its helper died
            work(batch)
    for _, answers in answered:
        yield from answers


def _may_fork() -> bool:
    return sys.platform == "linux" and threading.active_count() == 1


def _done(batches: Sequence[Sequence[Item]], tokens: _Tokens, work: Callable[[Sequence[Item]], None]) -> Iterator[int]:
    """Work on batches as long as there are any; says which."""
    while (number := tokens.take()) is not None:
        work(batches[number])
        yield number


def _take_part(
    batches: Sequence[Sequence[Any]],
    tokens: _Tokens,
    work: Callable[[Sequence[Any]], None],
    answer: Callable[[Any], Any],
) -> tuple[list[int], list[Any]]:
    """What a helper does."""
    numbers = list(_done(batches, tokens, work))
    return numbers, [answer(item[0]) for number in numbers for item in batches[number]]


class _Tokens:
    """The numbers of the batches that nobody works on yet: a pipe from which each process takes the next one."""

    def __init__(self, count: int) -> None:
        self._reader, writer = os.pipe()
        os.write(writer, bytes(range(count)))
        os.close(writer)

    def take(self) -> int | None:
        token = os.read(self._reader, 1)
        return token[0] if token else None

    def __del__(self) -> None:
        os.close(self._reader)


class _Helper:
    """A copy of this process that does one thing and tells its result in plain values."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._reader, writer = os.pipe()
        self._pid = os.fork()
        if self._pid:
            os.close(writer)
            return
        try:
            with os.fdopen(writer, "wb") as output:
                output.write(marshal.dumps(work()))
        finally:
            os._exit(0)  # nothing of what the original has open is closed or flushed a second time

    def result(self) -> tuple[list[int], list[Any]]:
        """What it has done: numbers of batches, and its answers; nothing if it died."""
        with os.fdopen(self._reader, "rb") as output:
            told = output.read()
        try:
            numbers, answers = marshal.loads(told)
        except (EOFError, ValueError, TypeError):  # cut off
            return [], []
        return numbers, answers

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

"""Writers: how many at a time, what is repeated, and when the server counts as gone. Nobody waits: time is counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import anyio
import anyio.lowlevel
import pytest

from orchestrator.errors import LockedError, ServerBusy, ServerError, ServerUnreachable
from orchestrator.writers import Job, Throttle, Writers

BUSY = ServerBusy("The server answered 503.")
NO_ANSWER = ServerUnreachable("It does not answer.")


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await anyio.lowlevel.checkpoint()


def climb(throughput: Callable[[int], float], operations: int, *, most: int = 8) -> list[int]:
    """The limits that a throttle goes through on a server with this throughput by number of writers."""
    clock = Clock()
    throttle = Throttle(clock=clock, most=most)
    limits = [throttle.limit]
    for _ in range(operations):
        level = throttle.begin()
        clock.now += 1 / throughput(throttle.limit)
        throttle.succeeded(level)
        if throttle.limit != limits[-1]:
            limits.append(throttle.limit)
    return limits


class TestThrottle:
    def test_starts_with_one_writer(self) -> None:
        assert Throttle(clock=Clock()).limit == 1

    def test_looks_for_no_second_writer_in_a_small_plan(self) -> None:
        assert climb(lambda writers: 10.0 * writers, 64) == [1]

    def test_climbs_to_the_top_where_each_writer_brings_as_much_as_the_first(self) -> None:
        assert climb(lambda writers: 10.0 * writers, 1000) == [1, 2, 3, 4, 5, 6, 7, 8]

    def test_never_has_more_than_it_may(self) -> None:
        assert max(climb(lambda writers: 10.0 * writers, 1000, most=3)) == 3

    @pytest.mark.parametrize("throughput", [lambda writers: 10.0, lambda writers: 10.0 / writers])
    def test_goes_back_to_one_where_more_bring_nothing(self, throughput: Callable[[int], float]) -> None:
        limits = climb(throughput, 2000)
        assert set(limits) == {1, 2}

    def test_tries_again_ever_more_rarely_what_did_not_pay(self) -> None:
        assert len(climb(lambda writers: 10.0, 4000)) < 4 * len(climb(lambda writers: 10.0, 400))

    def test_stays_where_the_next_step_does_not_pay(self) -> None:
        limits = climb(lambda writers: 10.0 * min(writers, 4), 2000)
        assert limits[:6] == [1, 2, 3, 4, 5, 4]
        assert set(limits[4:]) == {4, 5}

    def test_halves_when_the_server_is_busy(self) -> None:
        throttle = at_its_most()
        throttle.refused(throttle.begin())
        assert throttle.limit == 4

    def test_takes_a_burst_of_refusals_for_one(self) -> None:
        throttle = at_its_most()
        levels = [throttle.begin() for _ in range(8)]
        for level in levels:
            throttle.refused(level)
        assert throttle.limit == 4

    def test_never_goes_below_one(self) -> None:
        throttle = Throttle(clock=Clock())
        for _ in range(5):
            throttle.refused(throttle.begin())
        assert throttle.limit == 1

    def test_does_not_climb_right_after_a_refusal(self) -> None:
        clock = Clock()
        throttle = Throttle(clock=clock)
        throttle.refused(throttle.begin())
        for _ in range(3 * Throttle.WINDOW):
            level = throttle.begin()
            clock.now += 0.1
            throttle.succeeded(level)
        assert throttle.limit == 1


def at_its_most() -> Throttle:
    clock = Clock()
    throttle = Throttle(clock=clock)
    while throttle.limit < 8:
        level = throttle.begin()
        clock.now += 0.1 / throttle.limit
        throttle.succeeded(level)
    return throttle


class Operation:
    """Fails as it is told, then succeeds; counts how often it was tried."""

    def __init__(self, *faults: Exception, forever: Exception | None = None) -> None:
        self.faults, self.forever, self.tries = list(faults), forever, 0

    async def __call__(self) -> str:
        self.tries += 1
        if self.faults:
            raise self.faults.pop(0)
        if self.forever is not None:
            raise self.forever
        return "done"


def writers(clock: Clock | None = None, before: Callable[[], Awaitable[None]] | None = None) -> Writers:
    clock = clock or Clock()
    return Writers(clock=clock, sleep=clock.sleep, before=before)


class TestAttempts:
    @pytest.mark.parametrize("fault", [BUSY, NO_ANSWER])
    async def test_repeat_what_is_transient(self, fault: Exception) -> None:
        operation = Operation(fault, fault, fault)
        assert await writers().attempt(operation) == "done"
        assert operation.tries == 4

    async def test_do_not_repeat_a_refusal(self) -> None:
        operation = Operation(forever=ServerError("The server answered 422."))
        with pytest.raises(ServerError, match="422"):
            await writers().attempt(operation)
        assert operation.tries == 1

    async def test_wait_ever_longer_and_never_long(self) -> None:
        clock = Clock()
        pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            await clock.sleep(seconds)

        await Writers(clock=clock, sleep=sleep).attempt(Operation(*[BUSY] * 10))
        assert pauses[0] < 0.2 and 1 < pauses[-1] <= 7.5
        assert sum(pauses) < 60

    async def test_wait_as_long_as_the_server_asks(self) -> None:
        clock = Clock()
        await writers(clock).attempt(Operation(ServerBusy("429", retry_after=20)))
        assert 20 <= clock.now < 21

    @pytest.mark.parametrize("fault", [BUSY, NO_ANSWER])
    async def test_end_when_nothing_succeeds_for_a_minute(self, fault: Exception) -> None:
        clock = Clock()
        with pytest.raises(ServerUnreachable, match="Nothing has succeeded for 60 seconds"):
            await writers(clock).attempt(Operation(forever=fault))
        assert 50 < clock.now <= 60

    async def test_are_two_at_least_however_long_one_takes(self) -> None:
        clock = Clock()
        operation = Operation(forever=NO_ANSWER)

        async def slow() -> str:
            await clock.sleep(100)
            return await operation()

        with pytest.raises(ServerUnreachable):
            await writers(clock).attempt(slow)
        assert operation.tries == 2

    async def test_of_one_fail_alone_while_others_succeed(self) -> None:
        clock = Clock()
        pool = writers(clock)

        async def others() -> None:
            await clock.sleep(30)
            await pool.attempt(Operation())

        other = asyncio.create_task(others())
        with pytest.raises(ServerError, match="while others succeeded") as caught:
            await pool.attempt(Operation(forever=BUSY))
        await other
        assert not isinstance(caught.value, ServerUnreachable)

    async def test_are_not_repeated_once_the_server_is_gone(self) -> None:
        pool = writers()
        with pytest.raises(ServerUnreachable):
            await pool.attempt(Operation(forever=NO_ANSWER))
        late = Operation(forever=NO_ANSWER)
        with pytest.raises(ServerUnreachable):
            await pool.attempt(late)
        assert late.tries == 1

    async def test_ask_before_each_try(self) -> None:
        asked = 0

        async def may_i() -> None:
            nonlocal asked
            asked += 1
            if asked == 3:
                raise LockedError("The lock was taken from us.")

        operation = Operation(forever=BUSY)
        with pytest.raises(LockedError):
            await writers(before=may_i).attempt(operation)
        assert (asked, operation.tries) == (3, 2)


class TestJobs:
    async def test_begin_in_their_order(self) -> None:
        begun: list[int] = []

        async def job(number: int) -> None:
            begun.append(number)

        await writers().do([partial(job, number) for number in range(20)])
        assert begun == list(range(20))

    async def test_are_never_more_at_a_time_than_the_throttle_says(self) -> None:
        clock = Clock()
        throttle = at_its_most()
        pool = Writers(clock=clock, sleep=clock.sleep, throttle=throttle)
        running = most = 0

        async def job() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            running -= 1

        await pool.do([job] * 50)
        assert most == 8

    async def test_that_raise_end_the_work_with_their_own_error(self) -> None:
        begun: list[int] = []

        async def job(number: int) -> None:
            begun.append(number)
            if number == 2:
                raise AttributeError("A bug.")

        with pytest.raises(AttributeError, match=r"A bug\."):
            await writers().do([partial(job, number) for number in range(9)])
        assert begun == [0, 1, 2]


Interrupted = Callable[[Writers, Sequence[Job]], AbstractAsyncContextManager[Callable[[], object]]]


class TestAnInterruption:
    """Both as anyio cancels a scope, and as asyncio cancels a task after a Ctrl-C."""

    @pytest.fixture(params=["scope", "task"])
    def interrupted(self, request: pytest.FixtureRequest) -> Interrupted:
        return in_a_scope if request.param == "scope" else as_a_task

    async def test_lets_what_is_under_way_end_and_begins_nothing_more(self, interrupted: Interrupted) -> None:
        seen: list[str] = []
        both, go_on = anyio.Event(), anyio.Event()

        async def job(number: int) -> None:
            seen.append(f"{number} begins")
            if number == 1:
                both.set()
            await go_on.wait()
            seen.append(f"{number} ends")

        throttle = at_its_most()
        throttle.limit = 2
        async with interrupted(Writers(throttle=throttle), [partial(job, number) for number in range(5)]) as interrupt:
            await both.wait()
            interrupt()
            await anyio.wait_all_tasks_blocked()
            assert seen == ["0 begins", "1 begins"]
            go_on.set()
        assert sorted(seen) == ["0 begins", "0 ends", "1 begins", "1 ends"]

    async def test_waits_no_longer_than_it_was_told_to(self, interrupted: Interrupted) -> None:
        begun, ends = anyio.Event(), []

        async def job() -> None:
            begun.set()
            try:
                await anyio.sleep_forever()
            finally:
                ends.append("cut off")

        async with interrupted(Writers(grace=0), [job]) as interrupt:
            await begun.wait()
            interrupt()
        assert ends == ["cut off"]


@asynccontextmanager
async def in_a_scope(pool: Writers, jobs: Sequence[Job]) -> AsyncIterator[Callable[[], object]]:
    scope = anyio.CancelScope()

    async def work() -> None:
        with scope:
            await pool.do(jobs)

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        yield scope.cancel
    assert scope.cancelled_caught


@asynccontextmanager
async def as_a_task(pool: Writers, jobs: Sequence[Job]) -> AsyncIterator[Callable[[], object]]:
    task = asyncio.create_task(pool.do(jobs))
    yield task.cancel
    await asyncio.wait([task])
    assert task.cancelled()


class TestHangingUp:
    """The server answers others, but ends the connection on one operation, again and again."""

    async def verdicts(self, *, answers: bool) -> list[str]:
        clock = Clock()

        async def alive() -> bool:
            return answers

        async def hangs_up() -> None:
            raise ServerUnreachable("It hung up.")

        writers = Writers(patience=10.0, clock=clock, sleep=clock.sleep, alive=alive)
        found = []
        for _ in range(2):
            with pytest.raises(ServerError) as caught:
                await writers.attempt(hangs_up)
            found.append(type(caught.value).__name__)
        return found

    async def test_one_operation_is_not_the_servers_end_two_are(self) -> None:
        assert await self.verdicts(answers=True) == ["ServerError", "ServerUnreachable"]

    async def test_a_server_that_answers_nobody_is_gone_at_once(self) -> None:
        assert await self.verdicts(answers=False) == ["ServerUnreachable", "ServerUnreachable"]

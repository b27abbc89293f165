"""Items → runs that exist: in bulk, each once, whatever happens to the answers.

What is submitted at the same time, by asyncio.gather for one, is created together: an item joins a queue, and a feeder
takes from it as much as the window leaves free and the server takes at once.

A key goes with every run, and a repeated key gives the run that exists. So a create whose answer was lost is sent
again, and so is one whose answer cannot be right: the server does a bulk create in one transaction, one fault of its
database takes all of it back, and the answer still calls some created. What is left is looked up by key.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

import anyio
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas import TaskRunResult
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Pending
from prefect.tasks import Task

from orchestrator.errors import OrchestratorError, ServerError
from orchestrator.fanout.calls import BULK_CREATE, Calls, RunRow, is_passing, status_of
from orchestrator.fanout.changes import Changes
from orchestrator.fanout.ending import NO_ROUTE, start_again
from orchestrator.fanout.log import logger
from orchestrator.fanout.options import Options
from orchestrator.fanout.outcomes import NAMED_FAILURES
from orchestrator.fanout.parent import Parent
from orchestrator.fanout.target import Target, missing
from orchestrator.masking import masked
from orchestrator.server import our_errors

MOST_LINKED = 50  # runs in flight: linking doubles the cost of a create, and of every state a run comes to
PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)  # seconds before a bulk create that failed in part is sent again
LINGER_SECONDS = 0.5  # that a full window waits for more ends: one create for several runs
OF_THE_DATABASE = ("database is locked", "rolled back", "transaction", "deadlock", "OperationalError", "DBAPIError")


@dataclass(slots=True, kw_only=True, eq=False)
class Item:
    """One run to be created, and what came of it: an id or an error."""

    parameters: Mapping[str, Any]
    key: str
    run_id: str = ""
    row: RunRow | None = None  # of one that was there before
    restarts_used: int = 0  # by an earlier attempt of the parent
    doubt: str = ""  # what the last bulk answer said against it
    error: OrchestratorError | None = None

    @property
    def is_done(self) -> bool:
        return bool(self.run_id) or self.error is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What all runs of one submission share."""

    target: Target
    tag: str
    parent: Parent | None
    options: Options
    may_exist: bool  # runs with these keys may have been created by an earlier attempt of the parent
    tags: tuple[str, ...]

    def is_to_run_again(self, row: RunRow) -> bool:
        """Of runs that have ended. A cancelled one was ended with its parent: what it is for is still to be done."""
        is_asked = self.options.idempotency == "retry-failed" and row.state_type != "COMPLETED"
        return is_asked or row.state_type == "CANCELLED"

    def body(self, item: Item, task_run_id: str | None = None) -> dict[str, Any]:
        """The item as the server takes it."""
        return {
            "parameters": dict(item.parameters),
            "idempotency_key": item.key,
            "tags": list(self.tags),
            "work_queue_name": self.options.work_queue,
            "job_variables": dict(self.options.job_variables),
            "labels": dict(self.parent.labels) if self.parent else {},
            "parent_task_run_id": task_run_id,
        }


class Feeder:
    """Creates what is in its queue.

    Args:
        created: told when items are done.
        ended: tells when runs have ended.
        in_flight: how many runs have been created and have not ended.
        on_created: told each item that has become a run.
        is_to_stop: whether nothing more is to be created, since a run has failed.
    """

    def __init__(
        self,
        created: Changes,
        ended: Changes,
        in_flight: Callable[[], int],
        on_created: Callable[[Item], None],
        is_to_stop: Callable[[], bool],
    ) -> None:
        self.queue: deque[Item] = deque()
        self._created, self._ended = created, ended
        self._in_flight, self._on_created, self._is_to_stop = in_flight, on_created, is_to_stop
        self._added = Changes()
        self._is_creating, self._learned = False, Learned()
        self._untold: list[Item] = []  # created, and not yet in a line of the log
        self.was_cut = False  # a create was broken off: there may be runs that nobody was told of

    @contextmanager
    def feeding(self, items: Sequence[Item]) -> Iterator[None]:
        """In the block the items are in the queue; who leaves it does not wait for them any more."""
        self.queue.extend(items)
        self._added.tell()
        try:
            yield
        finally:
            if not all(item.is_done for item in items):
                mine = set(map(id, items))
                rest = [item for item in self.queue if id(item) not in mine]
                self.queue.clear()
                self.queue.extend(rest)

    @property
    def is_busy(self) -> bool:
        """Whether runs are still to come."""
        return self._is_creating or bool(self.queue)

    async def stop(self) -> None:
        """Create nothing of what is in the queue, and wait for what is being created just now."""
        self._fail(self.queue, OrchestratorError("It was not created: the submission was cancelled."))
        while self._is_creating:
            await self._created.wait()

    async def run(self, calls: Calls, batch: Batch) -> None:
        """Create, until cancelled."""
        creator = Creator(calls, batch, self._learned)
        while True:
            while not self.queue:
                await self._added.wait()
            free = await self._free_places(batch.options.max_in_flight)
            if self._is_to_stop():
                self._fail(self.queue, OrchestratorError("It was not created: another run of the batch has failed."))
                continue
            count = min(free, BULK_CREATE, len(self.queue))
            is_linked = batch.parent is not None and self._is_linked(batch.options)
            is_lone = len(self.queue) == 1 and batch.options.max_in_flight is None
            items = [self.queue.popleft() for _ in range(count)]
            with self._creating():
                await self._create(partial(creator.create, items, is_linked=is_linked, is_lone=is_lone), items)
                self._tell(batch, [item for item in items if item.run_id])

    async def _create(self, create: Callable[[], Awaitable[None]], items: Sequence[Item]) -> None:
        """Where the server does not answer, nobody waits for the rest in vain."""
        try:
            await create()
        except ServerError as error:
            self._fail([*items, *self.queue], error)

    def _fail(self, items: Iterable[Item], error: OrchestratorError) -> None:
        for item in items:
            if not item.is_done:
                item.error = error
        self.queue.clear()
        self._created.tell()

    @contextmanager
    def _creating(self) -> Iterator[None]:
        self._is_creating = True
        try:
            yield
        except BaseException:
            self.was_cut = True
            raise
        finally:
            self._is_creating = False
            self._created.tell()

    def _tell(self, batch: Batch, created: Sequence[Item]) -> None:
        """One line for all that were in the queue together."""
        self._untold += created
        for item in created:
            self._on_created(item)
        if self.queue or not self._untold:
            return
        told, self._untold = self._untold, []
        new = [item for item in told if item.row is None]
        if len(new) == 1:
            logger().info("[%s] Submitted run %s, tag %s", batch.target.path, new[0].run_id, batch.tag)
        elif new:
            logger().info("[%s] Submitted %d runs, tag %s", batch.target.path, len(new), batch.tag)
        if rows := [item.row for item in told if item.row is not None]:
            bad = sum(row.has_ended and row.state_type != "COMPLETED" for row in rows)
            failed = (
                f"; {bad} of them had failed and are not run again (idempotency='retry-failed' would)" if bad else ""
            )
            text = "[%s] Found %d runs of an earlier attempt%s, tag %s"
            logger().info(text, batch.target.path, len(rows), failed, batch.tag)

    async def _free_places(self, window: int | None) -> int:
        """How many runs may be created, once there is place for one."""
        if window is None:
            return BULK_CREATE
        if self._in_flight() >= window:
            while self._in_flight() >= window:
                await self._ended.wait()
            if len(self.queue) > 1:
                await anyio.sleep(LINGER_SECONDS)
        return window - self._in_flight()

    def _is_linked(self, options: Options) -> bool:
        if options.link != "auto":
            return bool(options.link)
        to_come = len(self.queue) + self._in_flight()
        return min(to_come, options.max_in_flight or to_come) <= MOST_LINKED


@dataclass(slots=True)
class Learned:
    """What the server's answers have shown so far."""

    has_bulk: bool = True
    refusals: dict[str, ServerError] = field(default_factory=dict)  # by what a bulk answer says of such an item


class Creator:
    """Creates items of one batch, each once."""

    def __init__(self, calls: Calls, batch: Batch, learned: Learned) -> None:
        self._calls, self._batch, self._learned = calls, batch, learned

    async def create(self, items: Sequence[Item], *, is_linked: bool, is_lone: bool) -> None:
        """Give each item its run, or its error.

        Raises:
            ServerError: the server does not answer for too long, or the deployment is gone; what was created is found
                again by its key.
        """
        if self._batch.may_exist:
            await self._adopt(items)
        new = [item for item in items if not item.is_done]
        if is_lone and len(new) == 1 and not self._is_repeated:
            await self._run_deployment(new[0], is_linked=is_linked)
        elif new:
            links = [await self._link(item) if is_linked else None for item in new]
            bodies = [self._batch.body(item, link) for item, link in zip(new, links, strict=True)]
            await self._create_many(new, bodies)

    @property
    def _is_repeated(self) -> bool:
        """In the next attempt of a parent, `run_deployment` would take the link of one run for another one."""
        return self._batch.parent is not None and self._batch.parent.is_repeated

    async def _adopt(self, items: Sequence[Item]) -> None:
        """Take over what an earlier attempt of the parent has created, and start again what is to run again."""
        rows = await self._calls.read_by_keys(self._batch.target.flow_id, [item.key for item in items])
        again = [row for row in rows.values() if row.has_ended and self._batch.is_to_run_again(row)]
        await start_again(self._calls, again, delay=0.0)
        restarted = await self._calls.read_by_ids([row.id for row in again]) if again else {}
        for item in items:
            if item.key in rows:
                item.run_id = rows[item.key].id
                item.restarts_used = rows[item.key].restarts
                item.row = restarted.get(item.run_id, rows[item.key])

    async def _create_many(self, items: Sequence[Item], bodies: Sequence[Mapping[str, Any]]) -> None:
        if self._learned.has_bulk and await self._in_bulk(items, bodies):
            return
        await self._settle_by_keys(items)
        for item, body in zip(items, bodies, strict=True):
            if not item.is_done:
                await self._alone(item, body)

    async def _in_bulk(self, items: Sequence[Item], bodies: Sequence[Mapping[str, Any]]) -> bool:
        """Send all until no part has failed; whether that came about."""
        for tries, pause in enumerate(PAUSES):
            try:
                answers = await self._calls.create_many(self._batch.target.id, bodies)
            except ServerError as error:
                if status_of(error) not in NO_ROUTE:
                    raise
                self._learned.has_bulk = False
                return False
            errors = [str(answer["error"]) for answer in answers if answer["status"] == "FAILED"]
            for item, answer in zip(items, answers, strict=True):
                item.doubt = str(answer["error"]) if answer["status"] == "FAILED" else ""
            if not errors:
                for item, answer in zip(items, answers, strict=True):
                    item.run_id = str(answer["flow_run_id"])
                return True
            if tries and not any(word in error for error in errors for word in OF_THE_DATABASE):
                return False
            logger().debug("%d of %d creates failed, sent again: %s", len(errors), len(items), errors[0])
            await anyio.sleep(pause)
        return False

    async def _settle_by_keys(self, items: Sequence[Item]) -> None:
        """Which of them exist, whatever the answers said."""
        rows = await self._calls.read_by_keys(self._batch.target.flow_id, [item.key for item in items])
        for item in items:
            item.run_id = rows[item.key].id if item.key in rows else ""

    async def _alone(self, item: Item, body: Mapping[str, Any]) -> None:
        """One that fails alone is refused, and so are those of which the server had said the same."""
        item.error = self._learned.refusals.get(item.doubt) if item.doubt else None
        if item.error is not None:
            return
        try:
            item.run_id = (await self._calls.create_one(self._batch.target.id, body)).id
        except ServerError as error:
            if status_of(error) == HTTPStatus.NOT_FOUND:
                raise self._gone() from error
            if is_passing(error):
                raise
            item.error = self._learned.refusals[item.doubt] = error

    def _gone(self) -> ServerError:
        return missing(self._batch.target.path, "The server no longer has this deployment.")

    # ----- one by one, as Prefect does -----------------------------------------------------------------

    async def _run_deployment(self, item: Item, *, is_linked: bool) -> None:
        """A lone run, by Prefect's own function. Where it is cut, the next try finds what was created by its key."""
        body = self._batch.body(item)
        try:
            with our_errors(self._calls.api_url):
                run = await arun_deployment(
                    self._batch.target.path,
                    client=self._calls.server.client,
                    parameters=body["parameters"],
                    timeout=0,
                    tags=body["tags"],
                    idempotency_key=item.key,
                    work_queue_name=body["work_queue_name"],
                    as_subflow=is_linked,
                    job_variables=body["job_variables"],
                )
            item.run_id = str(run.id)
        except ServerError as error:
            # Prefect does not find what has `?` or `#` in its name.
            if not is_passing(error) and not isinstance(error.__cause__, ObjectNotFound):
                item.error = error
                return
            await self._settle_by_keys([item])
            if not item.run_id:
                link = await self._link(item) if is_linked else None
                await self._create_many([item], [self._batch.body(item, link)])

    async def _link(self, item: Item) -> str:
        """The task run that stands for the run in its parent's graph. Under the run's own key, so that the parent's
        next attempt has the same one."""
        parent, path = self._batch.parent, self._batch.target.path
        assert parent is not None  # only runs of a parent are linked
        stand_in: Task[Any, Any] = Task(fn=_nothing, name=path, persist_result=False)
        stand_in.task_key = f"orchestrator.submission.{path}"
        client: PrefectClient = self._calls.server.client

        async def create() -> str:
            with our_errors(self._calls.api_url):
                run = await client.create_task_run(
                    task=stand_in,
                    flow_run_id=parent.flow_run_id,
                    dynamic_key=item.key,
                    state=Pending(),
                    task_inputs={"__parents__": [TaskRunResult(id=parent.task_run_id)]} if parent.task_run_id else None,
                )
            return str(run.id)

        return await self._calls.patiently(create)


def _nothing() -> None:
    """What a stand-in would run, if it ever ran."""


def refused(items: Sequence[Item], target: Target) -> OrchestratorError | None:
    """One error for all items that have not become runs, None where all have."""
    errors = [(item, item.error) for item in items if item.error is not None]
    if not errors:
        return None
    kinds = {type(error) for _, error in errors}
    kind = kinds.pop() if len(kinds) == 1 else ServerError
    if len(items) == 1:
        return _at(target, kind, str(errors[0][1]))
    by_reason: dict[str, list[Item]] = {}
    for item, error in errors:
        by_reason.setdefault(str(error), []).append(item)
    told = "; ".join(_refusal(reason, some) for reason, some in list(by_reason.items())[:NAMED_FAILURES])
    more = f"; and {len(by_reason) - NAMED_FAILURES} more reasons" if len(by_reason) > NAMED_FAILURES else ""
    counts = f"{len(errors)} of {len(items)} runs were not created, {len(items) - len(errors)} were"
    return _at(target, kind, f"{counts}: {told}{more}.")


def _refusal(reason: str, items: Sequence[Item]) -> str:
    shown = ", ".join(str(masked("", dict(item.parameters))) for item in items[:NAMED_FAILURES])
    more = f" and {len(items) - NAMED_FAILURES} more" if len(items) > NAMED_FAILURES else ""
    return f"{reason} ({shown}{more})"


def _at(target: Target, kind: type[OrchestratorError], message: str) -> OrchestratorError:
    return kind(message, location="" if message.startswith(target.path) else target.path)

"""The runs of one deployment that somebody submits: what was created, what is known, and who waits.

It holds the parts together: `creation` makes runs, `watch` follows them, `shutdown` ends them. Both of the first are at
work in the background while a call needs them, or while a block is open. People import `orchestrator.submission`.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any

import anyio

from orchestrator.errors import RunsTimedOut
from orchestrator.fanout.calls import Calls, open_calls
from orchestrator.fanout.changes import Background, Changes, beside
from orchestrator.fanout.columns import rows_of
from orchestrator.fanout.creation import Batch, Feeder, Item, refused
from orchestrator.fanout.hints import Hints
from orchestrator.fanout.log import logger
from orchestrator.fanout.options import Options
from orchestrator.fanout.outcomes import RunOutcome, failures_first, run_failed, summary
from orchestrator.fanout.outer import with_outer_runs
from orchestrator.fanout.parent import Keys, Parent, current_parent
from orchestrator.fanout.progress import EndLines, Progress
from orchestrator.fanout.results import StateNames, read_values
from orchestrator.fanout.shutdown import Shutdown, first_names
from orchestrator.fanout.target import find_target, require_fit, require_queue
from orchestrator.fanout.track import Track
from orchestrator.fanout.watch import Watch
from orchestrator.runs import ui_url


class FlowSubmission:
    """Runs of one deployment: submit as many as needed, at once or little by little, and wait for them.

    Made by `flow_submitter`, which says what the options do. As a context manager it leaves no run behind: at the end
    of the block it waits for all; where the block is left by an exception or a cancellation, it cancels what has not
    ended, unless told to leave it.

    Args:
        deployment_path: `flow name/deployment name`, or a flow's name.
        options: of the submission.
        site: the function that submits, by which a retried parent finds its runs again.
    """

    def __init__(self, deployment_path: str, options: Options | None = None, site: str = "") -> None:
        self.deployment_path = deployment_path
        self.run_ids: list[str] = []
        self._options, self._site = options or Options(), site
        self._batch: Batch | None = None
        self._keys: Keys | None = None
        self._created, self._ended = Changes(), Changes()
        self._hinted: set[str] = set()  # what was said of runs that wait
        self._submitters = 0  # calls that are creating runs
        self._in_order: list[str] = []  # of ending
        self._lines = EndLines(deployment_path, lambda: len(self.run_ids))
        self._watch = Watch(self._options, self._ended, self._take_note)
        self._feeder = Feeder(self._created, self._ended, self._in_flight, self._follow_up, self._is_to_stop)
        self._feeding = Background(self._feed, self._created)
        self._watching = Background(self._observe, self._ended, self._created)  # submits may wait for a place
        self._shutdown = Shutdown(
            deployment_path, self._options, self._watch, self._watching, self._feeder, self._summarise
        )
        self._block = AsyncExitStack()
        self._is_in_block = False
        self._progress: Progress | None = None

    # ----- what is known -------------------------------------------------------------------------------

    @property
    def outcomes(self) -> dict[str, RunOutcome]:
        """How each run ended, by run id, for those that are known to have ended."""
        return {outcome.id: outcome for outcome in self._watch.outcomes}

    @property
    def results(self) -> StateNames:
        """The final state's name by run id, in the order of submission, for runs known to have ended.

        Called, as in `await etl.results()`, it reads what the flows have returned, by run id, where they persist it.
        """
        names = {outcome.id: outcome.state_name for outcome in self._watch.outcomes}
        return StateNames(names, partial(read_values, list(names)))

    @property
    def succeeded(self) -> list[RunOutcome]:
        """Of the runs known to have ended, those that completed."""
        return [outcome for outcome in self._watch.outcomes if outcome.succeeded]

    @property
    def failed(self) -> list[RunOutcome]:
        """Of the runs known to have ended, those that did not complete."""
        return [outcome for outcome in self._watch.outcomes if not outcome.succeeded]

    @property
    def batch_tag(self) -> str | None:
        """The tag of all runs of this submission, to filter them by in the UI; None before the first submit."""
        return self._batch.tag if self._batch else None

    # ----- submitting ----------------------------------------------------------------------------------

    async def submit(self, **parameters: Any) -> str:
        """Create a run and return at once; where the submission has a window, as soon as there is place in it.

        Args:
            parameters: of the flow; the deployment's own parameters fill in what is not given.

        Returns:
            The run's id.

        Raises:
            ConfigurationError: the parameters do not fit the flow.
            ServerError: there is no such deployment, or the server refuses the run.
            ServerUnreachable: the server did not answer.
        """
        return (await self.submit_many([parameters]))[0]

    async def submit_many(self, parameters_list: Iterable[Mapping[str, Any]]) -> list[str]:
        """Create a run for each set of parameters, a hundred with each request.

        Args:
            parameters_list: one mapping for each run. All are checked before the first run is created.

        Returns:
            The runs' ids, in the order of `parameters_list`.

        Raises:
            ConfigurationError: names each item whose parameters do not fit the flow; no run was created.
            ServerError: there is no such deployment, or the server refuses runs; those that it took are followed.
            ServerUnreachable: the server did not answer.
        """
        async with AsyncExitStack() as needed:
            needed.enter_context(self._submitting())
            await needed.enter_async_context(self._feeding.needed())
            if self._options.max_in_flight is not None:  # who waits for a place must hear of ends
                await needed.enter_async_context(self._watching.needed())
            await self._feeding.until(lambda: self._batch is not None)
            items = self._items(list(parameters_list))
            with self._feeder.feeding(items):
                await self._feeding.until(lambda: self._are_done(items) or self._is_to_stop())
                if self._is_to_stop():
                    await self._feeder.stop()
        if self._is_to_stop():
            await self._act_on_failures()
        return self._taken(items)

    def _in_flight(self) -> int:
        return len(self._watch.pending)

    def _is_to_stop(self) -> bool:
        """Whether a run has failed, and that is a reason to end."""
        return self._options.on_failure != "collect" and bool(self._watch.failed)

    async def map(self, **columns: Any) -> list[str]:
        """Create a run for each row of some columns: `map(table=range(20), day="monday")` makes 20 runs.

        Args:
            columns: a list, tuple, range or iterator for each parameter that varies, all of one length; what else is
                given goes to every run.

        Returns:
            The runs' ids, in the order of the rows.

        Raises:
            ConfigurationError: no column varies, or they differ in length; else as `submit_many`.
        """
        return await self.submit_many(rows_of(columns))

    @contextmanager
    def _submitting(self) -> Iterator[None]:
        """Who waits meanwhile waits for what is still to be created, too."""
        self._submitters += 1
        try:
            yield
        finally:
            self._submitters -= 1
            self._ended.tell()

    def _items(self, given: Sequence[Mapping[str, Any]]) -> list[Item]:
        assert self._batch is not None and self._keys is not None
        target, keys = self._batch.target, self._keys
        plain = require_fit(target, given)
        pairs = zip(plain, given, strict=True)
        return [Item(parameters=each, key=keys.key_of(target.id, each, as_given)) for each, as_given in pairs]

    def _are_done(self, items: Sequence[Item]) -> bool:
        if self._options.max_in_flight is not None:
            self._watching.raise_failure()
        return all(item.is_done for item in reversed(items))  # the last one is done last

    def _taken(self, items: Sequence[Item]) -> list[str]:
        assert self._batch is not None
        if (error := refused(items, self._batch.target)) is not None:
            raise error
        return [item.run_id for item in items]

    async def _feed(self) -> None:
        """In the background, while somebody submits."""
        parent = current_parent()
        async with open_calls(at_first=None if parent else 0.0) as calls:  # a script's author is told at once
            if self._batch is None:
                self._batch = await self._prepared(calls, parent)
                self._created.tell()
            await self._feeder.run(calls, self._batch)

    async def _prepared(self, calls: Calls, parent: Parent | None) -> Batch:
        parent = await with_outer_runs(calls, parent) if parent else None
        options, found = self._options, await find_target(calls, self.deployment_path, parent)
        target = await require_queue(calls, found, options.work_queue)
        item_key = options.idempotency if callable(options.idempotency) else None
        self._keys = Keys(parent, self._site, item_key=item_key, are_new=options.idempotency == "none")
        tag = self._keys.batch_tag(target.flow_name, target.id)
        self._watch.tag, self._watch.ui_url = tag, ui_url(calls.api_url)
        self._watch.may_have_others = self._keys.may_exist
        return Batch(
            target=target,
            tag=tag,
            parent=parent,
            options=options,
            may_exist=self._keys.may_exist,
            tags=(tag, *(parent.tags if parent else ()), *options.tags),
        )

    def _follow_up(self, item: Item) -> None:
        """A run exists: follow it. One that an earlier attempt of the parent has created may have ended."""
        if item.run_id not in self._watch.tracks:
            self.run_ids.append(item.run_id)
        track = Track(
            id=item.run_id,
            parameters=item.parameters,
            restarts_left=max(0, self._options.retries - item.restarts_used),
            ends_with_parent=item.row is not None and item.row.state_type == "CANCELLING",
        )
        self._watch.add(track, item.row)

    # ----- waiting -------------------------------------------------------------------------------------

    async def wait(
        self,
        poll_interval: float = 5,
        show_summary: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109 - it decides what becomes of the runs, too
    ) -> dict[str, str]:
        """Wait until every run submitted so far, or meanwhile, has ended. May be called again after more submits.

        Args:
            poll_interval: seconds between two reads of the server where it has no event stream, at most; they are
                shorter at first. With the stream, ends are known at once and reads are rare.
            show_summary: log how many succeeded and failed, and write the table of the parent's artifacts.
            timeout: seconds that this call waits at most; then the runs are cancelled or left, as `on_timeout` says.

        Returns:
            The final state's name by run id, for all runs of this submission.

        Raises:
            RunsTimedOut: the time was up; says how many had not ended and what becomes of them.
            RunFailed: a run has failed, and the submission was told to raise or to cancel on that.
            ServerError: the server refuses to be asked. That it does not answer is logged and tried again.
        """
        if not self._is_over():
            self._watch.poll_interval = poll_interval
            async with self._watching.needed():
                with anyio.move_on_after(timeout) as scope:
                    await self._watching.until(self._is_over)
                if scope.cancelled_caught and timeout is not None and self._watch.pending:
                    await self._give_up(timeout)
        try:
            await self._act_on_failures()
        finally:
            if show_summary:
                await self._summarise()
        return self.results

    async def as_completed(self) -> AsyncIterator[RunOutcome]:
        """The runs as they end, each once for each time it does, those that have ended already first.

        Raises:
            RunFailed: a run has failed, and the submission was told to raise or to cancel on that.
            ServerError: the server refuses to be asked.
        """
        told, said = 0, set[tuple[str, datetime | None]]()
        async with self._watching.needed():
            while told < len(self._in_order) or not self._is_over():
                if told == len(self._in_order):
                    await self._watching.until(partial(self._has_more, told))
                    continue
                outcome = self._watch.tracks[self._in_order[told]].outcome
                told += 1
                if outcome is not None and (outcome.id, outcome.ended) not in said:  # None: it runs again
                    said.add((outcome.id, outcome.ended))
                    yield outcome
            await self._act_on_failures()

    def _has_more(self, told: int) -> bool:
        return told < len(self._in_order) or self._is_over()

    def raise_for_failures(self) -> None:
        """Raise RunFailed, naming each failed run, its parameters and its reason, if a run is known to have failed."""
        if failures := self._described_failures():
            raise run_failed(failures, total=len(self.run_ids))

    async def retry_failed(self) -> list[str]:
        """Start all runs again that are known to have failed, under their own ids; `wait` waits for them again.

        Returns:
            Their ids. Runs that the server no longer knows cannot be started again and are not among them.
        """
        ids = [outcome.id for outcome in self.failed if outcome.state_type is not None]
        if ids:
            async with open_calls() as calls:
                await self._watch.restart_now(calls, ids)
        return ids

    def _described_failures(self) -> list[str]:
        flow_name = self.deployment_path.partition("/")[0]
        return [outcome.describe(flow_name) for outcome in failures_first(self.failed)]

    def _is_over(self) -> bool:
        if self._is_to_stop():
            return True
        return self._watch.is_settled and not self._submitters

    async def _act_on_failures(self) -> None:
        if not self._is_to_stop():
            return
        failures, others = self._described_failures(), len(self._watch.pending)  # before the others are cancelled
        if others and self._options.on_failure == "cancel":
            await self.cancel("Another run of the batch has failed.")
        raise run_failed(failures, total=len(self.run_ids), rest=self._words_about(others))

    def _words_about(self, others: int) -> str:
        """What becomes of those that had not ended at the first failure."""
        if not others:
            return ""
        left = len(self._watch.pending)
        if self._options.on_failure == "raise":
            return f"{others} others {self._going_on}."
        return f"{others - left} others were cancelled{f', {left} have not ended yet' if left else ''}."

    async def _give_up(self, seconds: float) -> None:
        late = sorted(self._watch.pending)
        names = await first_names(late)
        if self._options.on_timeout == "cancel":
            await self._shutdown.end_as_far_as_possible(f"It had not ended after {seconds:g} s, with its batch.")
        fate = "they were asked to end" if self._options.on_timeout == "cancel" else f"they {self._going_on}"
        raise RunsTimedOut(
            f"{len(late)} of {len(self.run_ids)} flow runs had not ended after {seconds:g} s; {fate}: {names}.",
            location=self.deployment_path,
        )

    @property
    def _going_on(self) -> str:
        is_block_to_end_them = self._is_in_block and self._options.on_exit == "cancel"
        return "go on, unless this error leaves the block" if is_block_to_end_them else "go on"

    async def _summarise(self) -> None:
        outcomes = list(self._watch.outcomes)
        logger().info("Summary → %s", summary(outcomes))
        if self._progress is not None:
            await self._progress.finish(outcomes)

    async def _observe(self) -> None:
        """In the background, while somebody waits."""
        while self._batch is None:
            await self._created.wait()
        batch = self._batch
        self._progress = self._progress or self._new_progress(batch)
        async with open_calls(math.inf) as calls:
            hints = Hints(calls.with_patience(0.0), [batch.target], lambda: self._watch.counts, self._hinted)
            await beside(partial(self._watch.run, calls), [self._progress.run, hints.run])

    def _new_progress(self, batch: Batch) -> Progress:
        queue = self._feeder.queue
        return Progress(
            self.deployment_path, self._watch, with_artifact=batch.parent is not None, waiting=lambda: len(queue)
        )

    def _take_note(self, outcome: RunOutcome) -> None:
        self._in_order.append(outcome.id)
        self._lines.tell(outcome)

    # ----- ending --------------------------------------------------------------------------------------

    async def cancel(self, reason: str = "") -> dict[str, str]:
        """Ask all runs to end that have not, and wait until they have, `cancel_grace` at most.

        Args:
            reason: as people read it at the runs.

        Returns:
            As `wait`. Runs that have not ended in time are named in the log, and are not in it.
        """
        reason = reason or "Cancelled by the flow that submitted it."
        await self._shutdown.end_all(reason, self._options.cancel_grace)
        return self.results

    async def __aenter__(self) -> FlowSubmission:
        async with AsyncExitStack() as needed:
            await needed.enter_async_context(self._feeding.needed())
            await self._feeding.until(lambda: self._batch is not None)
            await needed.enter_async_context(self._watching.needed())
            self._block = needed.pop_all()
        self._is_in_block = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await (self._act_on_failures() if self._is_over() else self.wait())
            elif self._watch.pending or self._feeder.is_busy or self._feeder.was_cut:
                await self._shutdown.leave(error)
        except BaseException as late:
            if self._watch.pending and error is None:
                await self._shutdown.leave(late)
            raise
        finally:
            self._is_in_block = False
            await self._block.aclose()

"""Submit runs of deployments and learn what became of each.

    etl = flow_submitter("process-table-etl/process-table-etl-deployment")
    await asyncio.gather(*(etl.submit(table=table) for table in range(20)))
    results = await etl.wait()  # {run id: "Completed" | "Failed" | ...}

`trigger_subflow`, `trigger_multiple_subflows` and `wait_for_flow_runs` do the same for runs of different deployments.
All of them create runs by `fanout.creation`, under keys that let a parent which is retried or restarted find the runs
that it had created, and wait for them by `fanout.watch`: on the server's events, with a slow poll that finds what they
missed. docs/fan-out.md shows what to use when, and what it costs.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import datetime
from functools import partial
from itertools import repeat
from types import TracebackType
from typing import Any
from uuid import UUID

import anyio
from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State

from orchestrator.errors import ConfigurationError, OrchestratorError, RunFailed, RunsTimedOut
from orchestrator.fanout.calls import PATIENCE, Calls, Selection, open_calls
from orchestrator.fanout.changes import Background, Changes, beside
from orchestrator.fanout.creation import Batch, Feeder, Item, refused
from orchestrator.fanout.ending import PENDING_SECONDS, cancel_runs
from orchestrator.fanout.hints import Hints
from orchestrator.fanout.log import logger
from orchestrator.fanout.options import Idempotency, Link, OnFailure, Options, Rest
from orchestrator.fanout.outcomes import NAMED_FAILURES, RunOutcome, failures_first, run_failed, summary
from orchestrator.fanout.outer import with_outer_runs
from orchestrator.fanout.parent import Keys, Parent, current_parent, parent_tag
from orchestrator.fanout.progress import EndLines, Progress
from orchestrator.fanout.results import StateNames, read_values
from orchestrator.fanout.target import find_target, read_target, require_fit, require_queue
from orchestrator.fanout.track import Track
from orchestrator.fanout.watch import Watch
from orchestrator.interruption import undisturbed
from orchestrator.runs import ui_url
from orchestrator.server import PAGE

MOST_HINTED = 5  # deployments whose pools are looked at for runs that were given by their ids
HOOK_PAUSES = (2.0, 4.0, 8.0, 0.0)  # seconds between the looks of a hook
LAST_WORDS_SECONDS = 25.0  # Prefect gives a cancelled flow 30 s
LAST_WAIT_SECONDS = 15.0  # of them for runs that were asked to end


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
        in_flight = lambda: len(self._watch.pending)  # noqa: E731
        self._feeder = Feeder(self._created, self._ended, in_flight, self._follow_up, self._is_to_stop)
        self._feeding = Background(self._feed, self._created)
        self._watching = Background(self._observe, self._ended)
        self._block = AsyncExitStack()
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
        return await self.submit_many(_rows(columns))

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
        return items[-1].is_done and all(item.is_done for item in items) if items else True

    def _taken(self, items: Sequence[Item]) -> list[str]:
        assert self._batch is not None
        if (error := refused(items, self._batch.target)) is not None:
            raise error
        return [item.run_id for item in items]

    async def _feed(self) -> None:
        """In the background, while somebody submits."""
        parent = current_parent()
        async with open_calls(PATIENCE if parent else 0.0) as calls:
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
        before = item.row.attempts - 1 if item.row else 0  # in an earlier attempt of the parent
        track = Track(
            id=item.run_id,
            parameters=item.parameters,
            restarts_left=max(0, self._options.retries - max(0, before)),
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
        told, said = 0, dict[str, datetime | None]()
        async with self._watching.needed():
            while told < len(self._in_order) or not self._is_over():
                if told == len(self._in_order):
                    await self._watching.until(partial(self._has_more, told))
                    continue
                outcome = self._watch.tracks[self._in_order[told]].outcome
                told += 1
                if outcome is not None and said.get(outcome.id) != outcome.ended:  # None: it runs again
                    said[outcome.id] = outcome.ended
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
            return f"{others} others go on."
        return f"{others - left} others were cancelled{f', {left} have not ended yet' if left else ''}."

    async def _give_up(self, seconds: float) -> None:
        late = sorted(self._watch.pending)
        names = await self._names(late)
        if self._options.on_timeout == "cancel":
            await self._ended_as_far_as_possible(f"It had not ended after {seconds:g} s, with its batch.")
        fate = "they were asked to end" if self._options.on_timeout == "cancel" else "they go on"
        raise RunsTimedOut(
            f"{len(late)} of {len(self.run_ids)} flow runs had not ended after {seconds:g} s; {fate}: {names}.",
            location=self.deployment_path,
        )

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
        await self._end_all(reason or "Cancelled by the flow that submitted it.", self._options.cancel_grace)
        return self.results

    async def _end_all(self, reason: str, grace: float) -> None:
        """
        Args:
            reason: why, as people read it.
            grace: seconds for all of it, from when the server has been told.
        """
        await self._feeder.stop()
        self._watch.give_up(list(self._watch.pending), reason)
        if self._batch is None or not (self._watch.pending or self._feeder.was_cut):
            return
        async with self._watching.needed():
            await self._watching.until(lambda: not self._watch.is_restarting)
            async with open_calls(max(grace, LAST_WAIT_SECONDS)) as calls:
                await self._ask_to_end(calls, reason, patience=min(grace, PENDING_SECONDS))
            self._watch.poll_soon()
            with anyio.move_on_after(grace):
                await self._watching.until(lambda: self._watch.is_settled)
        if late := sorted(self._watch.pending):
            text = "[%s] %d runs have not ended %g s after they were asked to: %s"
            names = await self._names(late)
            logger().error(text, self.deployment_path, len(late), grace, names)

    async def _names(self, ids: Sequence[str]) -> str:
        """The first runs of some by their names, which those that have not ended may not have told yet."""
        named = ids[:NAMED_FAILURES]
        try:
            async with open_calls(0.0) as calls:
                rows = await calls.read_by_ids(named)
        except OrchestratorError:  # a message without names is better than losing the message
            rows = {}
        names = ", ".join(rows[id_].name if id_ in rows else id_ for id_ in named)
        return f"{names} and {len(ids) - len(named)} more" if len(ids) > len(named) else names

    async def _ask_to_end(self, calls: Calls, reason: str, *, patience: float) -> None:
        strays = tuple(id_ for id_ in self._watch.pending if self._watch.tracks[id_].is_stray)
        await cancel_runs(calls, Selection(tag=self._watch.tag), reason, patience=patience)
        if strays:
            await cancel_runs(calls, Selection(ids=strays), reason, patience=patience)

    async def _ended_as_far_as_possible(self, reason: str) -> None:
        """For somebody who has an error of his own to raise: that the server is away as well only goes to the log."""
        grace = min(self._options.cancel_grace, LAST_WAIT_SECONDS)
        try:
            await self._end_all(reason, grace)
            await self._summarise()
        except OrchestratorError as error:
            logger().error("[%s] The runs may go on, tag %s: %s", self.deployment_path, self._watch.tag, error)

    async def __aenter__(self) -> FlowSubmission:
        async with AsyncExitStack() as needed:
            await needed.enter_async_context(self._feeding.needed())
            await self._feeding.until(lambda: self._batch is not None)
            await needed.enter_async_context(self._watching.needed())
            self._block = needed.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await (self._act_on_failures() if self._is_over() else self.wait())
            elif self._watch.pending or self._feeder.is_busy or self._feeder.was_cut:
                await self._leave(error)
        except BaseException as late:
            if self._watch.pending and error is None:
                await self._leave(late)
            raise
        finally:
            await self._block.aclose()

    async def _leave(self, error: BaseException) -> None:
        """The block ends and runs have not."""
        count, why = len(self._watch.pending), f"Its parent ended: {type(error).__name__}."
        if self._options.on_exit == "leave":
            logger().warning("[%s] %d runs go on, tag %s", self.deployment_path, count, self._watch.tag)
            return

        await undisturbed(partial(self._ended_as_far_as_possible, why), seconds=LAST_WORDS_SECONDS)


def flow_submitter(
    path: str,
    *,
    max_in_flight: int | None = None,
    retries: int = 0,
    retry_delay: float = 10.0,
    tags: Iterable[str] = (),
    job_variables: Mapping[str, Any] | None = None,
    work_queue: str | None = None,
    timeout: float | None = None,
    start_timeout: float | None = None,
    on_timeout: Rest = "cancel",
    on_failure: OnFailure = "collect",
    on_exit: Rest = "cancel",
    cancel_grace: float = 60.0,
    crash_grace: float = 5.0,
    link: Link = "auto",
    idempotency: Idempotency = "adopt",
) -> FlowSubmission:
    """A new, empty submission for one deployment. All times are in seconds.

    Args:
        path: `flow name/deployment name`; a flow's name alone means that flow's deployment in the environment and kind
            of the running deployment.
        max_in_flight: how many runs may be created and not ended; more are created as others end. None: no window.
        retries: how often a run that ends badly is started again, under its own id, before it counts as failed.
        retry_delay: until a run that has failed is started again; 15 s after its last process ended at least.
        tags: that each run carries besides those of its deployment.
        job_variables: of each run, over those of its deployment.
        work_queue: where the runs wait, instead of in the deployment's queue: how priorities are given.
        timeout: how long a run may run.
        start_timeout: how long a run may wait until it starts.
        on_timeout: `cancel` a run whose time is up, or `leave` it and count it as `TimedOut`. The same for `wait`.
        on_failure: `collect` the failures; `raise` at the first one, the others go on; or `cancel` them and raise.
        on_exit: what becomes of runs that have not ended when an `async with` block is left by an exception.
        cancel_grace: how long runs may take to end when they are cancelled, before they are named.
        crash_grace: how long a crashed run may take to come back, by a retry of its infrastructure.
        link: show the runs in the parent's graph. Linked runs that wait cost the server work: `auto` links while no
            more than 50 are in flight. All runs carry the batch's tag anyway.
        idempotency: `adopt`: a parent that is retried or restarted gets the runs that it had created, ended or not,
            and those that were cancelled run again; `retry-failed`: the failed ones run again, too; `none`: always new
            runs; or a function that makes an item's key out of its parameters.

    Raises:
        ConfigurationError: names every option that cannot be meant.
    """
    options = Options(
        max_in_flight=max_in_flight,
        retries=retries,
        retry_delay=retry_delay,
        tags=(tags,) if isinstance(tags, str) else tuple(tags),
        job_variables=dict(job_variables or {}),
        work_queue=work_queue,
        timeout=timeout,
        start_timeout=start_timeout,
        on_timeout=on_timeout,
        on_failure=on_failure,
        on_exit=on_exit,
        cancel_grace=cancel_grace,
        crash_grace=crash_grace,
        link=link,
        idempotency=idempotency,
    )
    return FlowSubmission(path, options, _calling_function())


async def trigger_subflow(deployment_path: str, parameters: Mapping[str, Any] | None = None) -> str:
    """Create a run of a deployment, linked to the flow run that this is called from, and return at once.

    Args:
        deployment_path: `flow name/deployment name`, or a flow's name.
        parameters: of the flow; the deployment's own parameters fill in what is not given.

    Returns:
        The run's id.

    Raises:
        ConfigurationError: the parameters do not fit the flow.
        ServerError: there is no such deployment, or the server refuses the run.
        ServerUnreachable: the server did not answer.
    """
    submission = FlowSubmission(deployment_path, Options(link=True, idempotency="retry-failed"), _calling_function())
    run_id = await submission.submit(**dict(parameters or {}))
    logger().info("Triggered subflow %s (run_id: %s)", deployment_path, run_id)
    return run_id


async def trigger_multiple_subflows(
    deployment_path: str, parameters_list: Sequence[Mapping[str, Any]], *, sequential: bool = False
) -> list[str]:
    """Create one run of a deployment for each set of parameters.

    Args:
        deployment_path: `flow name/deployment name`, or a flow's name.
        parameters_list: one mapping for each run.
        sequential: create each run when the one before has ended, and stop at the first that does not complete.

    Returns:
        The runs' ids, in the order of `parameters_list`.

    Raises:
        ConfigurationError: parameters do not fit the flow; no run was created.
        RunFailed: one of the sequential runs did not complete; those after it were not created.
        ServerError: there is no such deployment, or the server refuses a run.
        ServerUnreachable: the server did not answer.
    """
    logger().info("Triggering %d instances of %s", len(parameters_list), deployment_path)
    window: dict[str, Any] = {"max_in_flight": 1, "on_failure": "raise"} if sequential else {}
    options = Options(idempotency="retry-failed", **window)
    submission = FlowSubmission(deployment_path, options, _calling_function())
    run_ids = await submission.submit_many(parameters_list)
    if sequential:
        await submission.wait(show_summary=False)
    return run_ids


async def wait_for_flow_runs(
    flow_run_ids: Sequence[str], poll_interval: float = 5, raise_on_failure: bool = True
) -> dict[str, str]:
    """Wait until all the given runs have ended, whichever deployments they belong to.

    Args:
        flow_run_ids: ids of runs, however they were created.
        poll_interval: seconds between two reads of the server where it has no event stream, at most.
        raise_on_failure: raise once all have ended and some did not complete.

    Returns:
        The final state's name by run id, in the order given.

    Raises:
        RunFailed: names each run that did not complete, with its state and message.
        ServerError: the server refuses to be asked. That it does not answer is logged and tried again.
        ValueError: one of the ids is no UUID.
    """
    ids = [str(UUID(str(run_id))) for run_id in flow_run_ids]
    changes, lines = Changes(), EndLines("runs", lambda: len(ids))
    watch = Watch(Options(), changes, lines.tell)
    watch.poll_interval = poll_interval
    for run_id in ids:
        watch.add(Track(id=run_id, parameters={}, is_stray=True))
    watching = Background(partial(_watch_ids, watch), changes)
    async with watching.needed():
        await watching.until(lambda: watch.is_settled)
    outcomes = {outcome.id: outcome for outcome in watch.outcomes}
    failures = failures_first(outcome for outcome in outcomes.values() if not outcome.succeeded)
    if failures and raise_on_failure:
        names = await _flow_names([outcome.id for outcome in failures])
        raise run_failed([each.describe(names.get(each.id, "unknown flow")) for each in failures], total=len(ids))
    return {run_id: outcomes[run_id].state_name for run_id in ids}


async def _watch_ids(watch: Watch) -> None:
    async with open_calls(math.inf) as calls:
        watch.ui_url = ui_url(calls.api_url)
        await beside(partial(watch.run, calls), [partial(_hint, calls.with_patience(0.0), watch)])


async def _hint(calls: Calls, watch: Watch) -> None:
    """Say what the runs wait for."""
    rows = await calls.read_by_ids(sorted(watch.pending)[:PAGE])
    ids = sorted({row.deployment_id for row in rows.values() if row.deployment_id})
    targets = [target for id_ in ids[:MOST_HINTED] if (target := await read_target(calls, id_)) is not None]
    await Hints(calls, targets, lambda: watch.counts).run()


async def _flow_names(run_ids: Sequence[str]) -> dict[str, str]:
    """The flows' names by run id, for a message."""
    async with open_calls(0.0) as calls:
        try:
            rows = await calls.read_by_ids(run_ids)
            query = {"flows": {"id": {"any_": sorted({row.flow_id for row in rows.values()})}}}
            names = {row["id"]: row["name"] for row in await calls.read_all("/flows/filter", query)}
        except OrchestratorError:  # a message without names is better than losing the message
            return {}
    return {row.id: names.get(row.flow_id, "unknown flow") for row in rows.values()}


async def cancel_children(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A hook: end all runs that a flow run has submitted, linked or not, when it was cancelled or has crashed.

        @flow(on_cancellation=[cancel_children], on_crashed=[cancel_children])

    Prefect calls it in another process, after the flow run's own has ended. A flow run that is retried after that runs
    its children again.

    Args:
        flow: whose run.
        flow_run: the parent.
        state: that it has come to.
    """
    reason, count = f"Its parent {flow_run.name} is {state.name}.", 0
    async with open_calls() as calls:
        for pause in HOOK_PAUSES:  # the server may still be creating what the parent had asked for when it was killed
            count += await cancel_runs(calls, Selection(tag=parent_tag(flow_run.id)), reason)
            await anyio.sleep(pause)
    if count:
        logging.getLogger(__name__).info("Asked %d children of %s to end", count, flow_run.name)


def _rows(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    columns = {name: list(column) if isinstance(column, Iterator) else column for name, column in columns.items()}
    varying = {name: column for name, column in columns.items() if isinstance(column, list | tuple | range)}
    lengths = {name: len(column) for name, column in varying.items()}
    if len(set(lengths.values())) != 1:
        told = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise ConfigurationError(
            f"The columns differ in length ({told})." if told else "No column is a list, tuple or range.",
            location="FlowSubmission.map",
            remedy="Give lists of one length for what varies; anything else goes to every run.",
        )
    values = [varying.get(name, repeat(column)) for name, column in columns.items()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=False)]


def _calling_function() -> str:
    """Who calls a function of this module: file and qualified name, which an edit above it does not change."""
    code = sys._getframe(2).f_code
    return f"{code.co_filename.replace(chr(92), '/').rpartition('/')[2]}:{code.co_qualname}"


__all__ = [
    "FlowSubmission",
    "RunFailed",
    "RunOutcome",
    "cancel_children",
    "flow_submitter",
    "trigger_multiple_subflows",
    "trigger_subflow",
    "wait_for_flow_runs",
]

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
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import anyio
from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State

from orchestrator.errors import OrchestratorError, RunFailed, RunsTimedOut
from orchestrator.fanout.calls import NOT_STARTED, Calls, Selection, open_calls
from orchestrator.fanout.changes import Background, Changes, beside
from orchestrator.fanout.ending import cancel_runs
from orchestrator.fanout.flow_submission import FlowSubmission
from orchestrator.fanout.hints import Hints
from orchestrator.fanout.log import logger
from orchestrator.fanout.options import Idempotency, Link, OnFailure, Options, Rest, as_mapping, as_texts
from orchestrator.fanout.outcomes import RunOutcome, failures_first, run_failed
from orchestrator.fanout.parent import parent_tag
from orchestrator.fanout.progress import EndLines
from orchestrator.fanout.target import read_target
from orchestrator.fanout.track import Track
from orchestrator.fanout.watch import Watch
from orchestrator.runs import ui_url
from orchestrator.server import PAGE

MOST_HINTED = 5  # deployments whose pools are looked at for runs that were given by their ids
HOOK_PAUSES = (2.0, 4.0, 8.0, 0.0)  # seconds between the looks of a hook


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
        cancel_grace: how long runs may take to end when they are cancelled, before they are named; 15 s at most where a
            block is left, or `wait` has timed out.
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
        tags=as_texts(tags),
        job_variables=as_mapping(job_variables),
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
            if await _runs_again(calls, flow_run, since=state.timestamp):
                break
            count += await cancel_runs(calls, Selection(tag=parent_tag(flow_run.id)), reason)
            await anyio.sleep(pause)
    if count:
        logging.getLogger(__name__).info("Asked %d children of %s to end", count, flow_run.name)


async def _runs_again(calls: Calls, flow_run: FlowRun, *, since: datetime) -> bool:
    """Whether somebody has retried a run since it was cancelled or has crashed: its children are the next attempt's.
    The counts of `flow_run` may be those from before its start."""
    row = (await calls.read_by_ids([str(flow_run.id)])).get(str(flow_run.id))
    if row is None:
        return False
    return row.state_type in NOT_STARTED or (row.state_type == "RUNNING" and row.changed > since)


def _calling_function() -> str:
    """Who calls a function of this module: file and qualified name, which an edit above it does not change."""
    code = sys._getframe(2).f_code
    return f"{code.co_filename.replace(chr(92), '/').rpartition('/')[2]}:{code.co_qualname}"


__all__ = [
    "FlowSubmission",
    "RunFailed",
    "RunOutcome",
    "RunsTimedOut",
    "cancel_children",
    "flow_submitter",
    "trigger_multiple_subflows",
    "trigger_subflow",
    "wait_for_flow_runs",
]

"""Submit runs of deployments and learn what became of each.

    etl = flow_submitter("process-table-etl/process-table-etl-deployment")
    await asyncio.gather(*(etl.submit(table=table) for table in range(20)))
    results = await etl.wait()  # {run id: "Completed" | "Failed" | ...}

`trigger_subflow`, `trigger_multiple_subflows` and `wait_for_flow_runs` do the same for runs of different deployments.
Everything submits through `_create_run` and waits through `_Watch`.

Inside a flow run the new runs are linked to it, and each is created under an idempotency key: a parent that is
retried or restarted gets back the runs that it had already created. Those that are under way or Completed are kept;
those that ended otherwise are created anew, since a retry is how a person asks for that.

Requests: three for each submitted run inside a flow, two outside; one for up to 200 pending runs in a poll round.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import FlowRunContext, TaskRunContext
from prefect.deployments import arun_deployment
from prefect.exceptions import MissingContextError, ObjectNotFound
from pydantic_core import to_jsonable_python

from orchestrator.errors import RunFailed, ServerError, ServerUnreachable

DELETED = "Deleted"
"""The state name that we give to a run which the server no longer knows."""

PAGE = 200  # the server cuts longer lists without a word
TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
NAMED_FAILURES = 10  # how many failed runs an error message names before it counts the rest


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOutcome:
    """How one run ended."""

    id: str
    name: str
    flow_id: UUID | None  # None where the run is gone
    state_type: StateType | None  # None where the run is gone
    state_name: str  # what people see: Completed, TimedOut, NoChanges, ...
    message: str

    @property
    def succeeded(self) -> bool:
        """Decided on the state's type, since its name can be anything."""
        return self.state_type is StateType.COMPLETED

    def describe(self, flow_name: str) -> str:
        """`flow/run (id): state: message`, on one line."""
        message = f": {' '.join(self.message.split())}" if self.message else ""
        return f"{flow_name}/{self.name} ({self.id[:8]}): {self.state_name}{message}"


# ---------------------------------------------------------------------------------------------------------
# The public names
# ---------------------------------------------------------------------------------------------------------


class FlowSubmission:
    """Runs of one deployment: submit as many as needed, at once or little by little, and wait for them.

    Args:
        deployment_path: `flow name/deployment name`.
    """

    def __init__(self, deployment_path: str) -> None:
        self.deployment_path = deployment_path
        self.run_ids: list[str] = []
        self._watch = _Watch(label=deployment_path)
        # One create at a time, also under asyncio.gather: concurrent creates make SQLite answer 503, and the
        # client's backing off then costs far more than the queue does.
        self._creating = asyncio.Lock()

    @property
    def outcomes(self) -> dict[str, RunOutcome]:
        """How each run ended, by run id, for those that are known to have ended."""
        return dict(self._watch.outcomes)

    @property
    def results(self) -> dict[str, str]:
        """The final state's name by run id, in the order of submission, for runs known to have ended."""
        outcomes = self._watch.outcomes
        return {run_id: outcomes[run_id].state_name for run_id in self.run_ids if run_id in outcomes}

    async def submit(self, **parameters: Any) -> str:
        """Create a run and return at once.

        Args:
            parameters: of the flow; the deployment's own parameters fill in what is not given.

        Returns:
            The run's id.

        Raises:
            ServerError: there is no such deployment, or the server refuses the parameters.
            ServerUnreachable: the server did not answer.
        """
        async with self._creating:
            run = await _create_run(self.deployment_path, parameters)
        self.run_ids.append(str(run.id))
        _logger().info("[%s] Submitted run %s (%s)", self.deployment_path, run.name, run.id)
        return str(run.id)

    async def wait(self, poll_interval: float = 5, show_summary: bool = True) -> dict[str, str]:
        """Wait until every run submitted so far, or meanwhile, has ended. May be called again after more submits.

        Args:
            poll_interval: seconds between two reads of the pending runs.
            show_summary: log how many succeeded and failed.

        Returns:
            The final state's name by run id, for all runs of this submission.

        Raises:
            ServerError: the server refuses to be asked. That it does not answer is logged and tried again.
        """
        await self._watch.wait(lambda: self.run_ids, poll_interval)
        if show_summary:
            _logger().info("Summary → %s", _summary(self._watch.outcomes.values()))
        return self.results

    def raise_for_failures(self) -> None:
        """Raise RunFailed, naming each failed run and its reason, if a run is known to have failed."""
        flow_name = self.deployment_path.partition("/")[0]
        ended = [self._watch.outcomes[run_id] for run_id in self.results]
        failures = [outcome.describe(flow_name) for outcome in ended if not outcome.succeeded]
        if failures:
            raise _run_failed(failures, total=len(self.run_ids))


def flow_submitter(path: str) -> FlowSubmission:
    """A new, empty submission for one deployment.

    Args:
        path: `flow name/deployment name`.
    """
    return FlowSubmission(path)


async def trigger_subflow(deployment_path: str, parameters: Mapping[str, Any] | None = None) -> str:
    """Create a run of a deployment, linked to the flow run that this is called from, and return at once.

    Args:
        deployment_path: `flow name/deployment name`.
        parameters: of the flow; the deployment's own parameters fill in what is not given.

    Returns:
        The run's id.

    Raises:
        ServerError: there is no such deployment, or the server refuses the parameters.
        ServerUnreachable: the server did not answer.
    """
    run = await _create_run(deployment_path, dict(parameters or {}))
    _logger().info("Triggered subflow %s (run_id: %s)", deployment_path, run.id)
    return str(run.id)


async def trigger_multiple_subflows(deployment_path: str, parameters_list: Sequence[Mapping[str, Any]]) -> list[str]:
    """Create one run of a deployment for each set of parameters, one after another.

    Args:
        deployment_path: `flow name/deployment name`.
        parameters_list: one mapping for each run.

    Returns:
        The runs' ids, in the order of `parameters_list`.

    Raises:
        ServerError: there is no such deployment, or the server refuses the parameters.
        ServerUnreachable: the server did not answer.
    """
    _logger().info("Triggering %d instances of %s", len(parameters_list), deployment_path)
    return [await trigger_subflow(deployment_path, parameters) for parameters in parameters_list]


async def wait_for_flow_runs(
    flow_run_ids: Sequence[str], poll_interval: float = 5, raise_on_failure: bool = True
) -> dict[str, str]:
    """Wait until all the given runs have ended, whichever deployments they belong to.

    Args:
        flow_run_ids: ids of runs, however they were created.
        poll_interval: seconds between two reads of the pending runs.
        raise_on_failure: raise once all have ended and some did not complete.

    Returns:
        The final state's name by run id, in the order given.

    Raises:
        RunFailed: names each run that did not complete, with its state and message.
        ServerError: the server refuses to be asked. That it does not answer is logged and tried again.
        ValueError: one of the ids is no UUID.
    """
    run_ids = [str(UUID(str(run_id))) for run_id in flow_run_ids]
    watch = _Watch()
    await watch.wait(lambda: run_ids, poll_interval)
    outcomes = [watch.outcomes[run_id] for run_id in run_ids]
    failed = [outcome for outcome in outcomes if not outcome.succeeded]
    if failed and raise_on_failure:
        names = await _flow_names(failed)
        failures = [outcome.describe(names.get(outcome.flow_id, "unknown flow")) for outcome in failed]
        raise _run_failed(failures, total=len(outcomes))
    return {outcome.id: outcome.state_name for outcome in outcomes}


# ---------------------------------------------------------------------------------------------------------
# Creating runs
# ---------------------------------------------------------------------------------------------------------


async def _create_run(deployment_path: str, parameters: dict[str, Any]) -> FlowRun:
    """Create a run, or get back the one that an earlier attempt of this parent run has created."""
    key = _idempotency_key(deployment_path, parameters)
    run = await _run_deployment(deployment_path, parameters, key)
    attempt = 1
    # A run that has just been created cannot have ended: this one is from an earlier attempt of the parent.
    while key and run.state and run.state.is_final() and not run.state.is_completed():
        attempt += 1
        run = await _run_deployment(deployment_path, parameters, f"{key}:{attempt}")
    return run


async def _run_deployment(deployment_path: str, parameters: dict[str, Any], key: str | None) -> FlowRun:
    """One call of Prefect's run_deployment, with its errors turned into ours."""
    try:
        async with get_client() as client:
            return await arun_deployment(
                deployment_path, client=client, parameters=parameters, timeout=0, idempotency_key=key
            )
    except ObjectNotFound as error:
        raise ServerError(
            "The server has no such deployment.",
            location=deployment_path,
            remedy="Deploy it first (`orchestrator apply`), or correct the flow/deployment path.",
        ) from error
    except httpx.HTTPStatusError as error:
        raise _refusal(error, location=deployment_path) from error
    except httpx.TransportError as error:
        raise ServerUnreachable(
            f"The Prefect server did not answer: {_reason(error)}.",
            location=deployment_path,
            remedy="Check PREFECT_API_URL and whether the server is running.",
        ) from error


def _idempotency_key(deployment_path: str, parameters: Mapping[str, Any]) -> str | None:
    """What makes this submission the same one when its parent is retried; None outside a run.

    It must not depend on the order of calls, which differs from retry to retry under asyncio.gather. An ordinal
    tells apart submissions with equal parameters, for which the order makes no difference.
    """
    task, flow = TaskRunContext.get(), FlowRunContext.get()
    context = task or flow
    parent = task.task_run if task else flow.flow_run if flow else None
    if context is None or parent is None:
        return None
    # Keys are unique per flow, not per deployment: the path has to be in it.
    content = json.dumps([deployment_path, to_jsonable_python(dict(parameters))], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:32]
    return f"{parent.id}:{digest}:{_ordinal(context, digest)}"


_ordinals: dict[int, Counter[str]] = {}
"""By id of a run's context, which Prefect makes anew for each attempt: how often each submission was made."""


def _ordinal(context: FlowRunContext | TaskRunContext, digest: str) -> int:
    """1 for the first submission of this content in this attempt of the run, 2 for the second, ..."""
    identity = id(context)
    if identity not in _ordinals:
        _ordinals[identity] = Counter()
        weakref.finalize(context, _ordinals.pop, identity, None)
    _ordinals[identity][digest] += 1
    return _ordinals[identity][digest]


# ---------------------------------------------------------------------------------------------------------
# Waiting for runs
# ---------------------------------------------------------------------------------------------------------


class _Watch:
    """Follows runs to their ends by one filtered read a round, and keeps what became of each.

    Args:
        label: what log lines call the runs; their own names where it is empty.
    """

    def __init__(self, label: str = "") -> None:
        self.outcomes: dict[str, RunOutcome] = {}
        self._label = label
        self._absent: set[str] = set()  # runs that were missing from the latest answer

    async def wait(self, run_ids: Callable[[], Iterable[str]], poll_interval: float) -> None:
        """Poll until all runs have ended; `run_ids` is asked again each round, as more may be submitted."""

        def pending() -> list[str]:
            return [run_id for run_id in run_ids() if run_id not in self.outcomes]

        if not pending():
            return
        async with get_client() as client:
            while waiting := pending():
                await self._round(client, waiting)
                if pending():
                    await asyncio.sleep(poll_interval)

    async def _round(self, client: PrefectClient, waiting: list[str]) -> None:
        runs = await _read_runs(client, waiting)
        if runs is None:
            return
        for run_id in waiting:
            run = runs.get(run_id)
            if run and run.state and run.state.is_final():
                self._record(_outcome(run, run.state))
        # Missing once may be a read that was overtaken by the run's creation. Missing twice is gone.
        absent = set(waiting) - runs.keys()
        for run_id in sorted(absent & self._absent):
            self._record(_deleted(run_id))
        self._absent = absent

    def _record(self, outcome: RunOutcome) -> None:
        self.outcomes[outcome.id] = outcome
        level = logging.INFO if outcome.succeeded else logging.ERROR
        _logger().log(
            level,
            "[%s] Run %s finished with state: %s",
            self._label or outcome.name,
            outcome.id[:8],
            outcome.state_name,
        )


async def _read_runs(client: PrefectClient, run_ids: Sequence[str]) -> dict[str, FlowRun] | None:
    """Those of the runs that exist, by id; None where the server is not able to say just now."""
    runs: dict[str, FlowRun] = {}
    try:
        for start in range(0, len(run_ids), PAGE):
            ids = [UUID(run_id) for run_id in run_ids[start : start + PAGE]]
            page = await client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)), limit=PAGE)
            runs.update({str(run.id): run for run in page})
    except httpx.HTTPStatusError as error:
        if error.response.status_code not in TRANSIENT_STATUS:
            raise _refusal(error, location="flow runs") from error
        _logger().warning("Could not read %d pending runs, trying again: %s", len(run_ids), _reason(error))
        return None
    except httpx.TransportError as error:
        _logger().warning("Could not read %d pending runs, trying again: %s", len(run_ids), _reason(error))
        return None
    return runs


def _outcome(run: FlowRun, end: State) -> RunOutcome:
    return RunOutcome(
        id=str(run.id),
        name=run.name,
        flow_id=run.flow_id,
        state_type=end.type,
        state_name=end.name or end.type.value.title(),
        message=end.message or "",
    )


def _deleted(run_id: str) -> RunOutcome:
    return RunOutcome(
        id=run_id,
        name=run_id,
        flow_id=None,
        state_type=None,
        state_name=DELETED,
        message="the server no longer knows this run",
    )


# ---------------------------------------------------------------------------------------------------------
# Words
# ---------------------------------------------------------------------------------------------------------


async def _flow_names(outcomes: Iterable[RunOutcome]) -> dict[UUID | None, str]:
    """Flow names by flow id, for the flows of the given runs."""
    flow_ids = list({outcome.flow_id for outcome in outcomes if outcome.flow_id})
    if not flow_ids:
        return {}
    try:
        async with get_client() as client:
            flows = await client.read_flows(flow_filter=FlowFilter(id=FlowFilterId(any_=flow_ids)), limit=PAGE)
    except httpx.HTTPError:  # a message without names is better than losing the message
        return {}
    return {flow.id: flow.name for flow in flows}


def _summary(outcomes: Iterable[RunOutcome]) -> str:
    succeeded = [outcome.succeeded for outcome in outcomes]
    return f"{sum(succeeded)}/{len(succeeded)} succeeded, {len(succeeded) - sum(succeeded)} failed"


def _run_failed(failures: Sequence[str], *, total: int) -> RunFailed:
    named = "; ".join(failures[:NAMED_FAILURES])
    rest = f"; and {len(failures) - NAMED_FAILURES} more" if len(failures) > NAMED_FAILURES else ""
    return RunFailed(
        f"{len(failures)} of {total} flow runs did not complete: {named}{rest}.",
        remedy="The logs of these runs in the Prefect UI say more.",
    )


def _refusal(error: httpx.HTTPStatusError, *, location: str) -> ServerError:
    answer = " ".join(_detail(error.response).split())[:500]
    return ServerError(f"The Prefect server answered {error.response.status_code}: {answer}", location=location)


def _detail(response: httpx.Response) -> str:
    """What the server says went wrong, out of its usual JSON where it is that."""
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.text


def _reason(error: Exception) -> str:
    """Some transport errors have no text of their own."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _logger() -> logging.Logger | logging.LoggerAdapter[Any]:
    """The run's own logger inside a run, so that the lines appear in the UI; this module's outside."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(__name__)

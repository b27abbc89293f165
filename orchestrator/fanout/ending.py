"""Ending runs, and starting them again.

Runs are asked to end by the state Cancelling, never by Cancelled, which would overwrite what they have come to and
leave their process running. Those that have no process yet are Cancelled at once; the others when their worker has
ended them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

from orchestrator.errors import ServerError
from orchestrator.fanout.calls import BULK_STATE, UNDER_WAY, Calls, RunRow, Selection, chunks, status_of
from orchestrator.fanout.log import logger

NO_ROUTE = (404, 405)
# A worker takes runs 10 s before their time, and one with a `--limit` breaks where a run's last process still ends.
LEAST_DELAY = timedelta(seconds=15)  # after a run's end
AGAIN, AGAIN_MESSAGE = "AwaitingRetry", "Started again by the flow that submitted it."
ASKED_AT_ONCE = tuple(state_type for state_type in UNDER_WAY if state_type != "PENDING")
PENDING_SECONDS, PENDING_LOOK_SECONDS = 10.0, 1.0
MOST_TRIES, AGAIN_SECONDS = 5, 1.0
RESTARTABLE = ("FAILED", "CRASHED", "CANCELLED")


async def cancel_runs(calls: Calls, selection: Selection, message: str, *, patience: float = PENDING_SECONDS) -> int:
    """Ask runs that have not ended to end.

    One that is Pending is asked when it runs: asked before that, its process refuses to begin and nobody ends the run,
    until the server gives it up after five minutes.

    Args:
        calls: to the server.
        selection: which runs.
        message: why, as people read it at a run that was running. Of one that had not started the server forgets it.
        patience: seconds that Pending ones get to run; then they are asked all the same.

    Returns:
        How many were asked.

    Raises:
        ServerError: the server does not answer, or refuses.
    """
    state = {"type": "CANCELLING", "name": "Cancelling", "message": message}
    until, count = anyio.current_time() + patience, 0
    for part in _parts(selection):
        await _forget_old_processes(calls, part)
        while True:
            count += await _ask(calls, part, ASKED_AT_ONCE, state)
            if not await calls.count(part, "PENDING"):
                count += await _ask(calls, part, ASKED_AT_ONCE, state)  # what was Pending at first may run by now
                break
            if anyio.current_time() >= until:
                count += await _ask(calls, part, UNDER_WAY, state)
                break
            await anyio.sleep(PENDING_LOOK_SECONDS)
    return count


async def _ask(calls: Calls, part: Selection, types: Sequence[str], state: Mapping[str, Any]) -> int:
    """Ask all of these types. What the server has aborted, its database being busy for one, is asked again."""
    asked: set[str] = set()
    aborted: Counter[str] = Counter()
    stuck: set[str] = set()  # neither may those that stay as they are hide the others
    while True:
        query = {**part.query, "state": {"type": {"any_": list(types)}}}
        if stuck:
            query["id"] = {**query.get("id", {}), "not_any_": sorted(stuck)}
        rows = await _set_states(calls, query, state)
        if not rows:
            return len(asked)
        failed = {row["flow_run_id"] for row in rows if row["status"] == "ABORT"}
        done = {row["flow_run_id"] for row in rows} - failed
        aborted.update(failed)
        stuck |= {id_ for id_ in failed if aborted[id_] >= MOST_TRIES} | (done & asked)
        asked |= done
        if failed:
            await anyio.sleep(AGAIN_SECONDS)


async def _forget_old_processes(calls: Calls, part: Selection) -> None:
    """Runs that we start again, and that wait for it, still name the process of their last attempt. The server would
    wait for it to end."""
    query = {**part.query, "state": {"type": {"any_": ["SCHEDULED"]}, "name": {"any_": [AGAIN]}}}
    for row in await calls.read_all("/flow_runs/filter", {"flow_runs": query}):
        if row["infrastructure_pid"] and row["state"]["message"] == AGAIN_MESSAGE:
            await calls.request("PATCH", f"/flow_runs/{row['id']}", {"infrastructure_pid": None})


async def start_again(
    calls: Calls, rows: Collection[RunRow], delay: float, wanted: Collection[str] | None = None
) -> None:
    """Start runs again, under their own ids: what the UI's Retry does. Only those that ended badly are touched.

    Args:
        calls: to the server.
        rows: which runs.
        delay: seconds until they may start; some more where the last process of one may still be ending.
        wanted: which of them are still to be started; it may change meanwhile. None: all.
    """
    free = [row.ended + LEAST_DELAY for row in rows if row.ended and row.started]
    begins = max([datetime.now(UTC) + timedelta(seconds=delay), *free])
    state = {
        "type": "SCHEDULED",
        "name": AGAIN,
        "message": AGAIN_MESSAGE,
        "state_details": {"scheduled_time": begins.isoformat()},
    }
    for chunk in chunks(sorted(row.id for row in rows), BULK_STATE):
        part = [id_ for id_ in chunk if wanted is None or id_ in wanted]
        query = {"id": {"any_": list(part)}, "state": {"type": {"any_": list(RESTARTABLE)}}}
        for row in await _set_states(calls, query, state):
            if row["status"] != "ACCEPT":
                logger().warning("Run %s was not started again: %s", row["flow_run_id"][:8], row["details"])


def _parts(selection: Selection) -> list[Selection]:
    if selection.tag:
        return [selection]
    return [Selection(ids=tuple(part)) for part in chunks(selection.ids, BULK_STATE)]


async def _set_states(calls: Calls, query: Mapping[str, Any], state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One bulk change, or one request for each run where the server has no route for many."""
    try:
        return await calls.set_states(query, state)
    except ServerError as error:
        if status_of(error) not in NO_ROUTE:
            raise
    rows = await calls.request("POST", "/flow_runs/filter", {"flow_runs": dict(query), "limit": BULK_STATE})
    return [await _set_state(calls, row["id"], state) for row in rows]


async def _set_state(calls: Calls, run_id: str, state: Mapping[str, Any]) -> dict[str, Any]:
    answer = await calls.request("POST", f"/flow_runs/{run_id}/set_state", {"state": dict(state)})
    return {"flow_run_id": run_id, **answer}

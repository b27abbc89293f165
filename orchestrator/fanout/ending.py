"""Ending runs, and starting them again.

Runs are asked to end by the state Cancelling, never by Cancelled, which would overwrite what they have come to and
leave their process running. Those that have no process yet are Cancelled at once; the others when their worker has
ended them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.errors import ServerError
from orchestrator.fanout.calls import BULK_STATE as AT_ONCE
from orchestrator.fanout.calls import UNDER_WAY, Calls, Selection, chunks, status_of
from orchestrator.fanout.log import logger

NO_ROUTE = (404, 405)
# A worker takes runs 10 s before their time, and one with a `--limit` breaks where a run's last process still ends.
LEAST_DELAY = 15.0
RESTARTABLE = ("FAILED", "CRASHED", "CANCELLED")


async def cancel_runs(calls: Calls, selection: Selection, message: str) -> int:
    """Ask runs that have not ended to end.

    Args:
        calls: to the server.
        selection: which runs.
        message: why, as people read it at the run.

    Returns:
        How many were asked.

    Raises:
        ServerError: the server does not answer, or refuses.
    """
    state = {"type": "CANCELLING", "name": "Cancelling", "message": message}
    asked: set[str] = set()
    for part in _parts(selection):
        query = {**part.query, "state": {"type": {"any_": list(UNDER_WAY)}}}
        while (found := {row["flow_run_id"] for row in await _set_states(calls, query, state)}) - asked:
            asked |= found
    return len(asked)


async def start_again(calls: Calls, ids: Collection[str], delay: float) -> None:
    """Start runs again, under their own ids: what the UI's Retry does. Only those that ended badly are touched.

    Args:
        calls: to the server.
        ids: which runs.
        delay: seconds until they may start.
    """
    at = datetime.now(UTC) + timedelta(seconds=max(delay, LEAST_DELAY))
    state = {
        "type": "SCHEDULED",
        "name": "AwaitingRetry",
        "message": "Started again by the flow that submitted it.",
        "state_details": {"scheduled_time": at.isoformat()},
    }
    for part in chunks(sorted(ids), AT_ONCE):
        query = {"id": {"any_": list(part)}, "state": {"type": {"any_": list(RESTARTABLE)}}}
        for row in await _set_states(calls, query, state):
            if row["status"] != "ACCEPT":
                logger().warning("Run %s was not started again: %s", row["flow_run_id"][:8], row["details"])


def _parts(selection: Selection) -> list[Selection]:
    if selection.tag:
        return [selection]
    return [Selection(ids=tuple(part)) for part in chunks(selection.ids, AT_ONCE)]


async def _set_states(calls: Calls, query: Mapping[str, Any], state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One bulk change, or one request for each run where the server has no route for many."""
    try:
        return await calls.set_states(query, state)
    except ServerError as error:
        if status_of(error) not in NO_ROUTE:
            raise
    rows = await calls.request("POST", "/flow_runs/filter", {"flow_runs": dict(query), "limit": AT_ONCE})
    return [await _set_state(calls, row["id"], state) for row in rows]


async def _set_state(calls: Calls, run_id: str, state: Mapping[str, Any]) -> dict[str, Any]:
    answer = await calls.request("POST", f"/flow_runs/{run_id}/set_state", {"state": dict(state)})
    return {"flow_run_id": run_id, **answer}

"""The only door to the server for the runs of a submission: what is asked, and who waits for how long when it fails.

Every request may be sent again after its answer was lost: runs are created under keys, states are set only on runs
that are in the state that is meant to change, and the rest reads. Source: Prefect's REST API, in `prefect.server.api`
of the installed version, for `flow_runs`, `deployments` and `work_pools`.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import anyio
import httpx

from orchestrator.errors import ServerBusy, ServerError, ServerUnreachable
from orchestrator.fanout.log import logger
from orchestrator.fanout.outcomes import ENDED
from orchestrator.server import PAGE, PrefectServer, Rows, open_server

BULK_CREATE, BULK_STATE = 100, 50  # the server's own limits for one call
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0  # seconds between tries
LONGEST_WISH = 60.0  # seconds that a busy server may ask us to wait
PATIENCE = 300.0  # seconds that somebody who writes waits for a server that has answered before
NOT_STARTED = ("SCHEDULED", "PENDING")
UNDER_WAY = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED")  # what can be asked to end

Thing = TypeVar("Thing")
Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRow:
    """A run as the server has it, as far as a submission needs it."""

    id: str
    name: str
    state_type: str
    state_name: str
    message: str
    changed: datetime  # when it came into this state
    started: datetime | None
    ended: datetime | None
    attempts: int
    tags: tuple[str, ...]
    flow_id: str
    deployment_id: str | None

    @property
    def has_ended(self) -> bool:
        return self.state_type in ENDED

    @property
    def restarts(self) -> int:
        """How often it was started again; one that waits for its next attempt was, too."""
        return max(0, self.attempts - (self.state_type not in NOT_STARTED))


@dataclass(frozen=True, slots=True)
class Selection:
    """Runs by a tag, or by their ids."""

    tag: str | None = None
    ids: tuple[str, ...] = ()

    @property
    def query(self) -> dict[str, Any]:
        return {"tags": {"all_": [self.tag]}} if self.tag else {"id": {"any_": list(self.ids)}}


class Calls:
    """Requests about runs, on one connection.

    Args:
        server: where they go.
        patience: seconds that a request is tried for, from its first failure; None: PATIENCE. 0 for somebody who may be
            told at once.
        at_first: the same until the server has answered once; None: no other.
    """

    def __init__(self, server: PrefectServer, patience: float | None = None, *, at_first: float | None = None) -> None:
        self.server, self._later = server, PATIENCE if patience is None else patience
        self._patience = self._later if at_first is None else at_first

    @property
    def api_url(self) -> str:
        return self.server.api_url

    def with_patience(self, seconds: float) -> Calls:
        """The same connection, for somebody who waits longer, or shorter."""
        return Calls(self.server, seconds)

    # ----- single requests -----------------------------------------------------------------------------

    async def request(self, method: str, route: str, json: Any = None) -> Any:
        """One request, again and again while the server cannot answer it.

        Raises:
            ServerUnreachable, ServerBusy: for longer than we are patient.
            ServerError: the server refuses it.
        """
        return await self.patiently(lambda: self.server.request(method, route, json=json))

    async def patiently(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """What may be repeated, again and again while the server cannot answer; raises as `request`."""
        deadline, pause = math.inf, FIRST_PAUSE
        while True:
            try:
                answer = await call()
            except ServerError as error:
                deadline = min(deadline, anyio.current_time() + self._patience)
                if not is_passing(error) or anyio.current_time() + pause > deadline:
                    raise
                if pause < LONGEST_PAUSE:  # after that, it has been said
                    logger().warning("Trying again in %.1f s: %s", pause, error)
                await anyio.sleep(max(pause, min(getattr(error, "retry_after", 0.0), LONGEST_WISH)))
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                self._patience = self._later  # a server that has answered comes back
                return answer

    async def find(self, method: str, route: str) -> Any:
        """One request; None where the server has nothing there."""
        try:
            return await self.request(method, route)
        except ServerError as error:
            if status_of(error) == httpx.codes.NOT_FOUND:
                return None
            raise

    async def read_all(self, route: str, query: Mapping[str, Any]) -> Rows:
        """All rows, in pages."""
        rows: Rows = []
        while True:
            page = await self.request("POST", route, {**query, "limit": PAGE, "offset": len(rows)})
            rows += page
            if len(page) < PAGE:
                return rows

    # ----- runs ----------------------------------------------------------------------------------------

    async def create_many(self, deployment_id: str, bodies: Sequence[Mapping[str, Any]]) -> Rows:
        """One bulk create, of at most `BULK_CREATE` runs.

        Returns:
            For each a `status` (CREATED, also where the key exists; FAILED) and a `flow_run_id` or an `error`. Where
            one has failed, nothing in the answer is certain: one fault of the database takes back all.
        """
        answer = await self.request("POST", f"/deployments/{deployment_id}/create_flow_run/bulk", list(bodies))
        rows: Rows = answer["results"]
        return rows

    async def create_one(self, deployment_id: str, body: Mapping[str, Any]) -> RunRow:
        return _row(await self.request("POST", f"/deployments/{deployment_id}/create_flow_run", dict(body)))

    async def read_by_keys(self, flow_id: str, keys: Sequence[str]) -> dict[str, RunRow]:
        """Those of the keys that exist; keys are unique in a flow."""
        found: dict[str, RunRow] = {}
        for chunk in chunks(keys, PAGE):
            query = {"flows": {"id": {"any_": [flow_id]}}, "flow_runs": {"idempotency_key": {"any_": list(chunk)}}}
            for row in await self.request("POST", "/flow_runs/filter", {**query, "limit": PAGE}):
                found[row["idempotency_key"]] = _row(row)
        return found

    async def read_by_ids(self, ids: Collection[str]) -> dict[str, RunRow]:
        """Those of the runs that exist."""
        found: dict[str, RunRow] = {}
        for chunk in chunks(sorted(ids), PAGE):
            query = {"flow_runs": {"id": {"any_": list(chunk)}}, "limit": PAGE}
            found |= {row["id"]: _row(row) for row in await self.request("POST", "/flow_runs/filter", query)}
        return found

    async def read_ended(
        self, selection: Selection, *, after: datetime | None = None, but: Collection[str] = ()
    ) -> list[RunRow]:
        """Runs that have ended, the latest first.

        Args:
            selection: of these.
            after: only ends after this time, by the server's clock.
            but: not these.
        """
        query: dict[str, Any] = {**selection.query, "state": {"type": {"any_": list(ENDED)}}}
        if after is not None:
            query["end_time"] = {"after_": after.isoformat()}
        if but:
            query["id"] = {**query.get("id", {}), "not_any_": sorted(but)}
        found: dict[str, RunRow] = {}  # full rows are not kept longer than their page
        for offset in itertools.count(step=PAGE):
            body = {"flow_runs": query, "sort": "END_TIME_DESC", "limit": PAGE, "offset": offset}
            page = await self.request("POST", "/flow_runs/filter", body)
            found |= {row["id"]: _row(row) for row in page}
            if len(page) < PAGE:
                break
        return list(found.values())

    async def count_states(self, selection: Selection) -> Counter[tuple[str, str]]:
        """How many runs are in each state, by type and name: one request, however many there are."""
        now = datetime.now(UTC)
        span = timedelta(days=3650)
        body = {
            "history_start": (now - span).isoformat(),
            "history_end": (now + span).isoformat(),
            "history_interval_seconds": 2 * span.total_seconds() + 1,
            "flow_runs": selection.query,
        }
        intervals = await self.request("POST", "/flow_runs/history", body)
        counts: Counter[tuple[str, str]] = Counter()
        for state in (state for interval in intervals for state in interval["states"]):
            counts[state["state_type"], state["state_name"]] += state["count_runs"]
        return counts

    async def count(self, selection: Selection, state_type: str) -> int:
        """How many runs are in states of a type."""
        query = {**selection.query, "state": {"type": {"any_": [state_type]}}}
        return int(await self.request("POST", "/flow_runs/count", {"flow_runs": query}))

    async def set_states(self, query: Mapping[str, Any], state: Mapping[str, Any]) -> Rows:
        """One bulk change of at most `BULK_STATE` runs, by the rules of orchestration; for each its `status`."""
        body = {"flow_runs": dict(query), "state": dict(state), "limit": BULK_STATE}
        answer = await self.request("POST", "/flow_runs/bulk_set_state", body)
        rows: Rows = answer["results"]
        return rows


@asynccontextmanager
async def open_calls(patience: float | None = None, *, at_first: float | None = None) -> AsyncIterator[Calls]:
    """Calls to the server that Prefect's settings name. Each request of theirs is tried once by Prefect's client:
    trying again is decided here."""
    async with open_server() as server:
        with server.writing():
            yield Calls(server, patience, at_first=at_first)


def is_passing(error: ServerError) -> bool:
    """Whether the same request may work later: the server is away or overloaded, or broke just now."""
    status = status_of(error)
    return isinstance(error, ServerBusy | ServerUnreachable) or (status is not None and status >= 500)


def status_of(error: ServerError) -> int | None:
    """The HTTP status behind an error, None where there was no answer."""
    cause = error.__cause__
    return cause.response.status_code if isinstance(cause, httpx.HTTPStatusError) else None


def chunks(items: Sequence[Thing], size: int) -> list[Sequence[Thing]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _row(row: Mapping[str, Any]) -> RunRow:
    state = row["state"] or {}
    return RunRow(
        id=row["id"],
        name=row["name"],
        state_type=row["state_type"] or "",
        state_name=row["state_name"] or "",
        message=state.get("message") or "",
        changed=_time(state.get("timestamp")) or _time(row["created"]) or datetime.now(UTC),
        started=_time(row["start_time"]),
        ended=_time(row["end_time"]),
        attempts=row["run_count"],
        tags=tuple(row["tags"]),
        flow_id=row["flow_id"],
        deployment_id=row["deployment_id"],
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None

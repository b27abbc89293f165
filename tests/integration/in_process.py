"""A stand-in of a worker: it takes runs as a worker does, and Prefect's own engine executes them in this process.

A run in a process of its own costs seconds of CPU, nearly all of them to import Prefect. Server, engine, task runs,
states and results are the real ones here. What only a process can show is not: nobody kills these runs, and one that is
asked to end while it runs goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.context import SettingsContext, get_settings_context
from prefect.exceptions import Abort
from prefect.flow_engine import run_flow
from prefect.states import Pending
from prefect.utilities.engine import propose_state_sync

LOOK_SECONDS = 0.3
MOST_AT_ONCE = 8


@contextmanager
def taking_runs(pool: str, flow: Flow[..., Any]) -> Iterator[None]:
    """In the block runs of this pool are executed; at its end those that were taken have ended.

    Args:
        pool: how many of its runs are under way at a time, if any, is the server's affair.
        flow: the only one whose deployments wait in this pool.
    """
    with ThreadPoolExecutor(MOST_AT_ONCE + 1) as executor:
        taker = _Taker(pool, flow, get_settings_context(), executor)
        taking = executor.submit(Context().run, taker.take)
        try:
            yield
        finally:
            taker.is_over.set()
    for done in (taking, *taker.runs):
        done.result()


@dataclass(frozen=True)
class _Taker:
    """Each run gets a new context, in which neither its parent, which runs in this process, too, nor the test is seen;
    only the settings are the test's."""

    pool: str
    flow: Flow[..., Any]
    settings: SettingsContext
    executor: ThreadPoolExecutor
    is_over: Event = field(default_factory=Event)
    runs: list[Future[None]] = field(default_factory=list)

    def take(self) -> None:
        with self._same_settings(), get_client(sync_client=True) as client:
            while not self.is_over.wait(LOOK_SECONDS):
                now = datetime.now(UTC)
                for waiting in client.get_scheduled_flow_runs_for_work_pool(self.pool, scheduled_before=now):
                    if _is_ours(client, waiting.flow_run.id):
                        self.runs.append(self.executor.submit(Context().run, self._execute, waiting.flow_run.id))

    def _execute(self, run_id: UUID) -> None:
        with self._same_settings():
            with get_client(sync_client=True) as client:
                flow_run = client.read_flow_run(run_id)
            run_flow(self.flow, flow_run=flow_run, return_type="state")

    def _same_settings(self) -> SettingsContext:
        return SettingsContext(profile=self.settings.profile, settings=self.settings.settings)


def _is_ours(client: SyncPrefectClient, run_id: UUID) -> bool:
    """Whether the server lets us have it: so none is taken twice."""
    try:
        return propose_state_sync(client, Pending(), flow_run_id=run_id).is_pending()
    except Abort:
        return False

"""The server's events about our runs, as they happen.

A hint, not a promise: the server keeps 256 events for a subscriber and drops the rest without a word, and forgets what
it had not stored when it is killed. Whoever listens polls, too. Filtered on the server: by the batch's tag among all
resources of an event (the filter `related` is ignored for live events), or by the runs' own ids.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import anyio
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter, EventResourceFilter
from prefect.events.schemas.events import Event, ResourceSpecification

from orchestrator.fanout.calls import Selection
from orchestrator.fanout.outcomes import ENDED

RUN = "prefect.flow-run."
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between attempts to connect
STEADY_SECONDS = 10.0  # a stream that lived so long, or told something, is tried again soon when it ends
MOST_IDS = 500  # of a filter: the server goes through them for every event of its own

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunEvent:
    """A run came into a state."""

    id: str
    name: str
    state_type: str
    state_name: str
    message: str
    occurred: datetime
    attempts: int


async def follow(selection: Selection, on_event: Callable[[RunEvent], None], on_live: Callable[[bool], None]) -> None:
    """Listen for ever: starts and ends of runs.

    Args:
        selection: of which runs; of more than `MOST_IDS` ids nothing is heard.
        on_event: told each event, some of them twice, and after a reconnection those of the last minute again.
        on_live: told when we listen, and when we do not any more.
    """
    if len(selection.ids) > MOST_IDS:
        return
    pause = FIRST_PAUSE
    while True:
        began = time.monotonic()
        try:
            async with get_events_subscriber(filter=_filter(selection), reconnection_attempts=0) as subscriber:
                on_live(True)
                async for event in subscriber:
                    pause = FIRST_PAUSE
                    with suppress(KeyError, ValueError):  # an event of another version of Prefect: the poll finds it
                        on_event(_run_event(event))
        except Exception as error:  # whatever it is, the poll goes on without the stream
            logger.debug("The event stream ended: %s", error)
        on_live(False)
        pause = FIRST_PAUSE if time.monotonic() - began >= STEADY_SECONDS else pause
        await anyio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def _filter(selection: Selection) -> EventFilter:
    states = ResourceSpecification({"prefect.state-type": [*ENDED, "RUNNING"]})
    if selection.tag:
        return EventFilter(
            event=EventNameFilter(prefix=[RUN]),
            resource=EventResourceFilter(labels=states),
            any_resource=EventAnyResourceFilter(id=[f"prefect.tag.{selection.tag}"]),
        )
    ids = [f"{RUN}{run_id}" for run_id in selection.ids]
    return EventFilter(event=EventNameFilter(prefix=[RUN]), resource=EventResourceFilter(labels=states, id=ids))


def _run_event(event: Event) -> RunEvent:
    resource = event.resource
    return RunEvent(
        id=resource.id.removeprefix(RUN),
        name=resource.name or "",
        state_type=resource["prefect.state-type"],
        state_name=resource["prefect.state-name"],
        message=resource.get("prefect.state-message") or "",
        occurred=event.occurred,
        attempts=int(resource.get("prefect.run-count") or 0),
    )

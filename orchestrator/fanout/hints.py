"""Why runs wait: said once for each reason, where the cause can be seen."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import anyio

from orchestrator.errors import ServerError
from orchestrator.fanout.calls import Calls
from orchestrator.fanout.log import logger
from orchestrator.fanout.target import Target

LOOK_SECONDS = 1.0
LONG_SECONDS = 30.0  # that runs are in such a state before something is said
# State names that are no ends, in which runs may stay, and what people do about it where nothing else is seen.
WAITING: Mapping[str, str] = {
    "Late": "no worker has taken them",
    "AwaitingConcurrencySlot": "the deployment's concurrency limit lets no more run",
    "Pending": "a worker has taken them and their process, container or flow has not started yet",
    "Paused": "somebody, or the flow itself, has paused them; the Prefect UI resumes them",
    "Suspended": "the flow has suspended itself; the Prefect UI resumes it",
    "AwaitingRetry": "they have failed and wait for their next attempt",
    "Cancelling": "they are to end, and their worker has not ended them yet",
}


class Hints:
    """Looks at the counts of a watch, and says what runs have been waiting for.

    Args:
        calls: to the server.
        targets: whose runs.
        counts: the latest ones, by state type and name.
    """

    def __init__(self, calls: Calls, targets: Sequence[Target], counts: Callable[[], Counter[tuple[str, str]]]) -> None:
        self._calls, self._targets, self._counts = calls, targets, counts
        self._label = ", ".join(target.path for target in targets)
        self._since: dict[str, float] = {}  # state name → from when on some runs were in it
        self._said: set[str] = set()

    async def run(self) -> None:
        """Look now whether anybody can take the runs, then at how they wait, until cancelled."""
        if cause := await self._cause("Scheduled"):
            logger().warning("[%s] Runs will wait: %s", self._label, cause)
            self._said.add("Late")
        while True:
            await anyio.sleep(LOOK_SECONDS)
            await self._look()

    async def _look(self) -> None:
        now, counts = time.monotonic(), {name: count for (_, name), count in self._counts().items()}
        self._since = {name: self._since.get(name, now) for name in WAITING if counts.get(name)}
        for name, since in self._since.items():
            # Late is late already: the server says so after 15 s.
            if name not in self._said and now - since >= (0.0 if name == "Late" else LONG_SECONDS):
                self._said.add(name)
                cause = await self._cause(name) or WAITING[name]
                logger().warning("[%s] %d runs are %s: %s", self._label, counts[name], name, cause)

    async def _cause(self, name: str) -> str:
        """What can be seen on the server that keeps runs in a state; empty where nothing is."""
        causes: dict[str, None] = {}  # in their order, each once
        try:
            for target in self._targets:
                causes |= dict.fromkeys(await self._causes(target, name))
        except ServerError:  # the runs go on without our words
            pass
        return "; ".join(causes)

    async def _causes(self, target: Target, name: str) -> list[str]:
        if name == "AwaitingConcurrencySlot" and target.concurrency_limit is not None:
            return [f"{target.path} lets {target.concurrency_limit} run at a time"]
        if name not in ("Late", "Scheduled"):
            return []
        if target.work_pool is None:
            return [f"{target.path} has no work pool: only `serve` would run them"]
        pool = await self._calls.find("GET", f"/work_pools/{target.work_pool}")
        causes = list(_of_pool(pool, target.work_pool))
        if pool is None or name == "Scheduled":
            return causes
        queue = await self._calls.find("GET", f"/work_pools/{target.work_pool}/queues/{target.work_queue}")
        if queue and queue["is_paused"]:
            causes.append(f"work queue {target.work_queue!r} is paused")
        return [
            *causes,
            *await self._full(pool, "work pool"),
            *(await self._full(queue, "work queue") if queue else []),
        ]

    async def _full(self, row: Mapping[str, Any], kind: str) -> list[str]:
        """Whether all places of a pool or queue are taken. Parents that wait for these very runs hold places, too."""
        if not (limit := row["concurrency_limit"]):
            return []
        pool = row["name"] if kind == "work pool" else row["work_pool_name"]
        body = {
            "work_pools": {"name": {"any_": [pool]}},
            "work_pool_queues": {"name": {"any_": [row["name"]]}} if kind == "work queue" else None,
            "flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}},
        }
        busy = int(await self._calls.request("POST", "/flow_runs/count", body))
        if busy < limit:
            return []
        return [f"{kind} {row['name']!r}: {busy} of {limit} places are taken, parents that wait hold one each, too"]


def _of_pool(pool: Mapping[str, Any] | None, name: str) -> Iterator[str]:
    if pool is None:
        yield f"there is no work pool {name!r}"
        return
    if pool["is_paused"]:
        yield f"work pool {name!r} is paused"
    elif pool["status"] == "NOT_READY":
        yield f"no worker of work pool {name!r} is online: `prefect worker start --pool {name}`"
    if pool["concurrency_limit"] == 0:
        yield f"work pool {name!r} has a concurrency limit of 0"

"""Why runs wait: said once for each reason, where the cause can be seen."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import anyio

from orchestrator.errors import ServerError
from orchestrator.fanout.calls import Calls
from orchestrator.fanout.log import logger
from orchestrator.fanout.target import Target

LOOK_SECONDS = 1.0
AT_FIRST = ""  # no state yet
PARENTS = "parents that wait hold places, too"
LONG_SECONDS = 30.0  # that runs are in such a state before something is said
# State names that are no ends, in which runs may stay, and what people do about it where nothing else is seen.
WAITING: Mapping[str, str] = {
    "Late": "not taken by any worker yet",
    "Scheduled": "",  # as Late, on a server that marks none as late; nothing where no cause is seen
    "AwaitingConcurrencySlot": "the deployment's concurrency limit lets no more run",
    "Pending": "taken by a worker, and the process, container or flow has not started yet",
    "Paused": "somebody, or the flow itself, has paused; the Prefect UI resumes",
    "Suspended": "the flow has suspended itself; the Prefect UI resumes it",
    "AwaitingRetry": "waiting for the next attempt",
    "Cancelling": "asked to end, and not ended by a worker yet",
}
NOT_TAKEN = {"Late", "Scheduled"}  # what is said of one holds for both


class Hints:
    """Looks at the counts of a watch, and says what runs have been waiting for.

    Args:
        calls: to the server.
        targets: whose runs.
        counts: the latest ones, by state type and name.
        said: state names of which all has been said; it is added to, and may be given to the next ones.
    """

    def __init__(
        self,
        calls: Calls,
        targets: Sequence[Target],
        counts: Callable[[], Counter[tuple[str, str]]],
        said: set[str] | None = None,
    ) -> None:
        self._calls, self._targets, self._counts = calls, targets, counts
        self._label = ", ".join(target.path for target in targets)
        self._since: dict[str, float] = {}  # state name → from when on some runs were in it
        self._said = set[str]() if said is None else said

    async def run(self) -> None:
        """Look now whether anybody can take the runs, then at how they wait, until cancelled."""
        await self._foretell()
        while True:
            await anyio.sleep(LOOK_SECONDS)
            await self._look()

    async def _foretell(self) -> None:
        """Say at once what will keep runs from starting."""
        if "Late" not in self._said and (cause := await self._cause(AT_FIRST)):
            logger().warning("[%s] Runs will wait: %s", self._label, cause)
            self._said |= NOT_TAKEN

    async def _look(self) -> None:
        now, counts = time.monotonic(), _by_name(self._counts())
        self._since = {name: self._since.get(name, now) for name in WAITING if counts.get(name)}
        for name, since in self._since.items():
            # Late is late already: the server says so after 15 s.
            if name not in self._said and now - since >= (0.0 if name == "Late" else LONG_SECONDS):
                self._said |= NOT_TAKEN if name in NOT_TAKEN else {name}
                if cause := await self._cause(name) or WAITING[name]:
                    runs = "1 run is" if counts[name] == 1 else f"{counts[name]} runs are"
                    logger().warning("[%s] %s %s: %s", self._label, runs, name, cause)

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
        if name == "AwaitingConcurrencySlot":
            return await self._slots(target)
        if name not in (AT_FIRST, *NOT_TAKEN):
            return []
        if target.work_pool is None:
            return [f"{target.path} has no work pool: only `serve` would run them"]
        pool = await self._calls.find("GET", _route(target.work_pool))
        causes = list(_of_pool(pool, target.work_pool))
        if pool is None or name == AT_FIRST:
            return causes
        causes += await self._of_queue(target) + await self._full(pool, "work pool")
        return causes if causes or name == "Scheduled" else await self._of_workers(target.work_pool)

    async def _slots(self, target: Target) -> list[str]:
        """Who has the places that a deployment's own limit gives: runs of others, too."""
        row = await self._calls.find("GET", f"/deployments/{target.id}")
        limit = ((row or {}).get("global_concurrency_limit") or {}).get("limit")
        if limit is None:
            return []
        busy = await self._busy({"deployments": {"id": {"any_": [target.id]}}})
        are = "is" if busy == 1 else "are"
        return [f"{target.path} lets {limit} run at a time, and {busy} {are} under way"]

    async def _of_queue(self, target: Target) -> list[str]:
        if target.work_pool is None or target.work_queue is None:
            return []
        queue = await self._calls.find("GET", _route(target.work_pool, target.work_queue))
        if queue is None:
            return [f"work pool {target.work_pool!r} has no queue {target.work_queue!r}"]
        paused = [f"work queue {target.work_queue!r} is paused"] if queue["is_paused"] else []
        return paused + await self._full(queue, "work queue")

    async def _of_workers(self, pool: str) -> list[str]:
        """Where places are free and workers there: what these are not asked for, the server does not know."""
        online = {"workers": {"status": {"any_": ["ONLINE"]}}}
        count = len(await self._calls.read_all(f"{_route(pool)}/workers/filter", online))
        if not count:
            return []
        workers, which = ("1 worker", "is online") if count == 1 else (f"{count} workers", "are online")
        limit = "perhaps at its `--limit`" if count == 1 else "perhaps at their `--limit`"
        return [f"{workers} of work pool {pool!r} {which}, {limit}, or serving other queues; {PARENTS}"]

    async def _full(self, row: Mapping[str, Any], kind: str) -> list[str]:
        """Whether all places of a pool or queue are taken. Parents that wait for these very runs hold places, too."""
        if not (limit := row["concurrency_limit"]):
            return []
        pool = row["name"] if kind == "work pool" else row["work_pool_name"]
        queues = {"work_pool_queues": {"name": {"any_": [row["name"]]}}} if kind == "work queue" else {}
        busy = await self._busy({"work_pools": {"name": {"any_": [pool]}}, **queues})
        return [f"{kind} {row['name']!r}: {busy} of {limit} places are taken; {PARENTS}"] if busy >= limit else []

    async def _busy(self, of: Mapping[str, Any]) -> int:
        """How many runs hold a place."""
        runs = {"flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}}
        return int(await self._calls.request("POST", "/flow_runs/count", {**of, **runs}))


def _route(pool: str, queue: str | None = None) -> str:
    route = f"/work_pools/{quote(pool, safe='')}"
    return route if queue is None else f"{route}/queues/{quote(queue, safe='')}"


def _by_name(counts: Counter[tuple[str, str]]) -> Counter[str]:
    """People may give one name to states of several types."""
    names: Counter[str] = Counter()
    for (_, name), count in counts.items():
        names[name] += count
    return names


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

"""End runs through the API, as a worker would report them: Running, then Completed, at an even rate.

    python -m benchmarks.ender API_URL SECONDS < ids

Reads a JSON list of run ids and ends them in an order of its own over so many seconds, a few at a time; a server that
cannot keep up stretches that. It stands in for a worker and a process per run, which would take the whole machine.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Sequence
from typing import Any

import httpx

AT_A_TIME = 4
BUSY = frozenset({429, 502, 503, 504})  # SQLite answers 503 where it is locked
PAUSE = 0.05


async def end_all(api_url: str, run_ids: Sequence[str], seconds: float) -> None:
    """The k-th of n runs ends at k/n of the time, or as soon as the server can take it."""
    order = random.Random(5).sample(run_ids, len(run_ids))  # not the order in which they were submitted
    slots = asyncio.Semaphore(AT_A_TIME)
    started = asyncio.get_running_loop().time()
    async with httpx.AsyncClient(base_url=api_url, timeout=120) as client, asyncio.TaskGroup() as group:
        for number, run_id in enumerate(order):
            due = started + seconds * number / len(order)
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            await slots.acquire()
            group.create_task(end_one(client, run_id)).add_done_callback(lambda _: slots.release())


async def end_one(client: httpx.AsyncClient, run_id: str) -> None:
    for state in ("RUNNING", "COMPLETED"):
        await post(client, f"/flow_runs/{run_id}/set_state", {"state": {"type": state}})


async def post(client: httpx.AsyncClient, path: str, body: Any) -> None:
    """One request, as often as the server is busy."""
    while (answer := await client.post(path, json=body)).status_code in BUSY:  # noqa: ASYNC110 - it is another process
        await asyncio.sleep(PAUSE)
    answer.raise_for_status()
    if answer.json()["status"] != "ACCEPT":
        raise SystemExit(f"{path}: {body} was answered by {answer.text}")


if __name__ == "__main__":
    asyncio.run(end_all(sys.argv[1], json.load(sys.stdin), float(sys.argv[2])))

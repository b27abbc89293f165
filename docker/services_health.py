"""Healthcheck of Prefect's background services, which answer no requests: does this container's loop report to Redis?

What runs them (docket, in `prefect server services start`) tells Redis every two seconds that it is there, and is
forgotten after ten. Exit code 1, and a word on standard error, where nothing of this machine does.
"""

import asyncio
import os
import socket
import sys

from docket import Docket

NAME = "prefect"  # what `prefect server services start` calls its docket; that of the API has another name


async def reporting() -> list[str]:
    """The workers of the services that have been heard of lately, as `host#pid`."""
    async with Docket(name=NAME, url=os.environ["PREFECT_SERVER_DOCKET_URL"]) as docket:
        return [worker.name for worker in await docket.workers()]


if __name__ == "__main__":
    here = f"{socket.gethostname()}#"
    names = asyncio.run(reporting())
    if not any(name.startswith(here) for name in names):
        sys.exit(f"no services of {here} report, only {names}")

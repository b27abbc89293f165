"""A child that costs as little as a process can: it waits until it may end."""

from __future__ import annotations

import os
import time
from pathlib import Path

from prefect import flow

GATE = "SOAK_GATE"


@flow(name="fan-out-child")
def child(table: int) -> int:
    """Wait for the file that the environment names.

    Args:
        table: nothing but a number.
    """
    gate = Path(os.environ[GATE])
    while not gate.exists():
        time.sleep(0.05)
    return table

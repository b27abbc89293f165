"""Calling what is asynchronous from plain code: for people's scripts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from orchestrator.errors import OrchestratorError

T = TypeVar("T")


def wait_for(work: Callable[[], Awaitable[T]], *, caller: str) -> T:
    """Do something asynchronous from beginning to end, in an event loop of its own.

    Args:
        work: what to do.
        caller: the name of the function that people called, for the error.

    Returns:
        What came of it.

    Raises:
        OrchestratorError: an event loop is running here, and would stand still meanwhile.
    """
    if _is_in_loop():
        raise OrchestratorError(
            f"{caller} cannot be called in asynchronous code: everything else would stand still until it is done.",
            location=caller,
            remedy=f"Call it in a thread: `await asyncio.to_thread({caller}, …)`.",
        )
    return anyio.run(work)


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True

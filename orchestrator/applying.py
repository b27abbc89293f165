"""What commands that apply a plan share: they show whom it waits for, and what was done though somebody interrupted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import anyio

from orchestrator.model import ResultState
from orchestrator.terminal import EXIT_DEGRADED, EXIT_INTERRUPTED, Terminal

Result = TypeVar("Result")


def carried_out(terminal: Terminal, apply: Callable[..., Awaitable[Result]], *, doing: str = "applying") -> Result:
    """Run an apply.

    Args:
        terminal: shows whom it waits for.
        apply: `live.apply_changes`, or what works like it: takes `tell` and `on_interrupt`.
        doing: what is being done, for who looks.

    Returns:
        What it did; if somebody interrupted it, what it had done by then.

    Raises:
        KeyboardInterrupt: somebody interrupted it before it wrote anything.
    """
    done: list[Result] = []
    with terminal.working(doing) as working:
        try:
            return anyio.run(partial(apply, tell=working.tell, on_interrupt=done.append))
        except KeyboardInterrupt:
            if not done:
                raise
            return done[-1]


def exit_code(state: ResultState) -> int:
    """As the command-line contract in docs/architecture.md names it."""
    return {"degraded": EXIT_DEGRADED, "interrupted": EXIT_INTERRUPTED}.get(state, 0)

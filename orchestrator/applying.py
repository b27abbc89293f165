"""What commands that apply a plan share: they show whom it waits for, and what was done though somebody interrupted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import anyio

from orchestrator.model import DeploymentResult
from orchestrator.terminal import EXIT_DEGRADED, EXIT_INTERRUPTED, Terminal


class Apply(Protocol):
    """`live.apply_changes`, with everything but these given."""

    async def __call__(
        self, *, tell: Callable[[str], None], on_interrupt: Callable[[DeploymentResult], object]
    ) -> DeploymentResult: ...


def carried_out(terminal: Terminal, apply: Apply) -> DeploymentResult:
    """Run an apply.

    Args:
        terminal: shows whom it waits for.
        apply: the apply.

    Returns:
        What it did; if somebody interrupted it, what it had done by then.

    Raises:
        KeyboardInterrupt: somebody interrupted it before it wrote anything, or when it had written everything.
    """
    done: list[DeploymentResult] = []
    with terminal.working("applying") as doing:
        try:
            return anyio.run(partial(apply, tell=doing.tell, on_interrupt=done.append))
        except KeyboardInterrupt:
            if not done:
                raise
            return done[0]


def exit_code(result: DeploymentResult) -> int:
    """As the command-line contract in docs/architecture.md names it."""
    return {"degraded": EXIT_DEGRADED, "interrupted": EXIT_INTERRUPTED}.get(result.status, 0)

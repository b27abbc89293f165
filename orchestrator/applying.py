"""What commands that apply a plan share: they show whom it waits for, and what was done though somebody interrupted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import anyio
from rich.text import Text

from orchestrator.late import late
from orchestrator.model import ImageResult, Plan, ResultState
from orchestrator.terminal import EXIT_DEGRADED, EXIT_INTERRUPTED, Doing, Terminal

if TYPE_CHECKING:
    from orchestrator.images import making as image_making
    from orchestrator.images import stages
else:
    image_making, stages = late("orchestrator.images.making"), late("orchestrator.images.stages")

Result = TypeVar("Result")


def prepared(terminal: Terminal, plan: Plan, api_url: str | None) -> tuple[Plan, tuple[ImageResult, ...]]:
    """Make what a plan needs before it can be applied, and show how that goes.

    Args:
        terminal: shows what builds say.
        plan: the plan.
        api_url: the server; None: the one that Prefect's settings name.

    Returns:
        The plan with its images pinned, and what became of each image.
    """
    if not plan.has_changes:
        return plan, ()
    with terminal.working("images and build steps") as working:
        return anyio.run(partial(stages.prepare, plan, tell=_telling(terminal, working), api_url=api_url))


def making(terminal: Terminal, working: Doing, api_url: str | None, *, pushes: bool = True) -> stages.MakeImages:
    """Makes images, and shows each line that a build says beside the image's name."""
    return partial(image_making.make_images, pushes=pushes, tell=_telling(terminal, working), api_url=api_url)


def _telling(terminal: Terminal, working: Doing) -> Callable[[str, str], None]:
    """Shows lines behind the name of the image, or of the step, that says them."""

    def tell(name: str, line: str) -> None:
        short = name.rpartition("/")[2]
        terminal.tell(Text.assemble((f"{short} | ", "cyan"), (line, "dim")))
        working.now(f"{short}: {line}")

    return tell


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

"""The two stages about images, which the server's stages stand between.

    with_decided_images  desired → desired with its images named, and what each needs   (before a plan; builds nothing)
    prepare              plan → plan with its images made and pinned                    (before an apply)

What they need of Docker is loaded when there are images at all: most environments have none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.images.changes import due, with_images, with_made_images
from orchestrator.late import late
from orchestrator.model import Desired, ImageResult, ImageTerms, Plan, PlannedImage
from orchestrator.plan import with_predecessors_kept
from orchestrator.server import PrefectServer, open_server
from orchestrator.step_outputs import needs
from orchestrator.templating import asks_server, resolve

if TYPE_CHECKING:
    from orchestrator import step_runs
    from orchestrator.images import decisions, doors, making
else:  # they import docker's SDK, which most environments have no use for
    decisions, doors = late("orchestrator.images.decisions"), late("orchestrator.images.doors")
    making, step_runs = late("orchestrator.images.making"), late("orchestrator.step_runs")


async def decide_images(desired: Desired, api_url: str | None = None) -> tuple[PlannedImage, ...]:
    """What was decided about the images of an environment, whatever its deployments are on the server.

    Args:
        desired: what the environment should have.
        api_url: the server, which is asked only for blocks and variables that say something of images; None: the one
            that Prefect's settings name.

    Raises:
        ServerUnreachable, ServerError: it did not answer.
    """
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_server(api_url)) if asks_server(desired) else None
        return (await with_decided_images(await resolve(desired, server), server))[1]


async def with_decided_images(
    desired: Desired, server: PrefectServer | None
) -> tuple[Desired, tuple[PlannedImage, ...]]:
    """The desired state with its images named, and what was decided about each of them."""
    specs = needs(desired.deployments)
    if not specs:
        return desired, ()
    async with doors.open_image_doors(specs, server=server) as opened:
        images = await decisions.decide(Path(desired.root), specs, opened)
    return with_images(desired, images), images


MakeImages = Callable[[Sequence[PlannedImage], Path, ImageTerms], Awaitable[tuple[ImageResult, ...]]]
"""Makes some images, and says what became of each, in order; `making.make_images` is one."""


async def prepare(
    plan: Plan,
    make: MakeImages | None = None,
    *,
    tell: Callable[[str, str], None] | None = None,
    api_url: str | None = None,
) -> tuple[Plan, tuple[ImageResult, ...]]:
    """Do what has to be done before a plan can be applied: run build steps, make images, pin them.

    Args:
        plan: what is to be applied.
        make: makes images; None: `making.make_images`, several at a time.
        tell: is told each line that a build or a step says, behind a name; None: the log is.
        api_url: the server that has blocks and variables; None: the one that Prefect's settings name.

    Returns:
        The plan as it can be applied: changes whose image could not be made, or whose step failed, have a finding that
        keeps them from being written; and what became of each image.
    """
    images = due(plan)
    if not images and not any(change.desired and change.desired.steps for change in plan.changes if change.writes):
        return plan, ()
    tell = tell or making.log_line
    make = make or partial(making.make_images, tell=tell, api_url=api_url)
    steps = step_runs.StepRuns(plan, tell, api_url)
    images = await steps.before_images(images)
    results = await make(images, Path(plan.root), plan.image_terms) if images else ()
    plan = await steps.after_images(with_made_images(plan, results))
    return with_predecessors_kept(plan), results

"""The two stages that need the server: plan against it, and apply to it."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.apply import apply_plan
from orchestrator.config import Policy
from orchestrator.desired import Selection
from orchestrator.model import DeploymentResult, Desired, Plan
from orchestrator.pipeline import narrowed
from orchestrator.plan import make_plan
from orchestrator.server import open_server


async def plan_changes(
    desired: Desired,
    policy: Policy,
    *,
    api_url: str | None = None,
    selection: Selection | None = None,
    adopt: Sequence[str] = (),
) -> Plan:
    """Read the server and compare; nothing is written.

    Args:
        desired: what the environment should have.
        policy: the environment's.
        api_url: the server; None: the one that Prefect's settings name.
        selection: what to plan; None: everything.
        adopt: patterns of unowned deployments to take over.

    Raises:
        ServerUnreachable, ServerError: the server did not answer.
    """
    chosen = selection or Selection()
    async with open_server(api_url) as server:
        live = await server.read_deployments()
        return make_plan(
            narrowed(desired, chosen), live, api_url=server.api_url, policy=policy, selection=chosen, adopt=adopt
        )


async def apply_changes(plan: Plan, *, api_url: str | None = None) -> DeploymentResult:
    """Carry out a plan; what fails is in the result, nothing is raised for it."""
    async with open_server(api_url) as server:
        return await apply_plan(plan, server)

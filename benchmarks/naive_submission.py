"""The obvious fan-out, as design note 4 ("FlowSubmission Class Enhancements") has it: the peer of benchmarks.fan_out.

Each `submit` calls Prefect's `run_deployment`, and `wait` reads every pending run in every round. It is kept as it was
written, so that it stays what we compare with; two things had to differ: `run_deployment` takes no `schedule=True`
(it raises TypeError in every Prefect that we support), and no emojis are logged.
"""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment


class FlowSubmission:
    """Runs of one deployment.

    Example:
        etl = flow_submitter("etl-parent/etl-child-deployment")
        await asyncio.gather(etl.submit(table="customer"), etl.submit(table="orders"))
        await etl.wait()
    """

    def __init__(self, deployment_path: str) -> None:
        self.deployment_path = deployment_path
        self.run_ids: list[str] = []
        self.results: dict[str, str] = {}

    async def submit(self, **parameters: Any) -> str:
        """Create a run and return its id."""
        flow_run = await run_deployment(  # type: ignore[misc]
            name=self.deployment_path, parameters=parameters, timeout=0
        )
        self.run_ids.append(str(flow_run.id))
        get_run_logger().info(f"[{self.deployment_path}] Submitted run {flow_run.id}")
        return str(flow_run.id)

    async def wait(self, poll_interval: float = 5, show_summary: bool = True) -> dict[str, str]:
        """Wait until all runs have ended."""
        logger = get_run_logger()
        pending = list(self.run_ids)
        async with get_client() as client:
            while pending:
                completed = []
                for run_id in pending:
                    flow_run = await client.read_flow_run(run_id)  # type: ignore[arg-type]  # as it was written
                    if flow_run.state and flow_run.state.is_final():
                        self.results[run_id] = flow_run.state.name or ""
                        logger.info(f"[{self.deployment_path}] Run {run_id[:8]} finished: {flow_run.state.name}")
                        completed.append(run_id)
                for run_id in completed:
                    pending.remove(run_id)
                if pending:
                    await asyncio.sleep(poll_interval)
        if show_summary:
            total = len(self.results)
            success = sum(name == "Completed" for name in self.results.values())
            logger.info(f"Summary → {success}/{total} succeeded, {total - success} failed")
        return self.results


def flow_submitter(path: str) -> FlowSubmission:
    return FlowSubmission(path)

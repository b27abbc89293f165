"""First cleanup: remove what loading has left behind."""

from __future__ import annotations

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows import warehouse
from flows.direct_run import run_directly


@task(name="drop-staging", retries=2, retry_delay_seconds=5, cache_policy=NO_CACHE)
def drop_staging() -> list[str]:
    """Drop the staging tables of the target."""
    with warehouse.connect(warehouse.target_url()) as engine:
        return warehouse.drop_staging(engine)


@flow(name="cleanup-flow-1")
def cleanup_flow_1() -> list[str]:
    """Drop the staging tables that loading has left in the target.

    Returns:
        the names of the dropped tables.
    """
    dropped = drop_staging()
    get_run_logger().info("Dropped %d staging tables", len(dropped))
    return dropped


if __name__ == "__main__":
    run_directly(cleanup_flow_1)

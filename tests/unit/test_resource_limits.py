"""Resource limits in the words of each pool type; tests/integration/test_conformance.py asks its job template."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.resource_limits import limit_variables


@pytest.mark.parametrize(
    ("pool_type", "memory", "cpu", "variables"),
    [
        ("docker", "512Mi", "500m", {"mem_limit": "512m", "container_create_kwargs": {"nano_cpus": 500_000_000}}),
        ("kubernetes", "2Gi", "1.5", {"memory_limit": "2Gi", "cpu_limit": "1.5"}),
        ("kubernetes", "2K", None, {"memory_limit": "2k"}),
        ("ecs", "2Gi", "500m", {"memory": 2048, "cpu": 512}),
        ("ecs:push", "1G", None, {"memory": 954}),
        ("azure-container-instance", "1.5Gi", "2", {"memory": 1.5, "cpu": 2.0}),
        ("cloud-run-v2", "512Mi", "2", {"memory": "512Mi", "cpu": "2000m"}),
        ("cloud-run-v2:push", "1.5Gi", None, {"memory": "1536Mi"}),
        ("cloud-run", "1048576", "1000m", {"memory": "1Mi", "cpu": "1000m"}),
        ("process", "2Gi", "1", {}),
        (None, "2Gi", "1", {}),
        ("kubernetes", None, None, {}),
    ],
)
def test_by_type(pool_type: str | None, memory: str | None, cpu: str | None, variables: dict[str, Any]) -> None:
    assert limit_variables(pool_type, memory=memory, cpu=cpu) == variables


@pytest.mark.parametrize(("pool_type", "known"), [("docker", True), ("kubernetes", True), ("ecs", False)])
def test_the_pull_policy_where_a_worker_pulls(pool_type: str, known: bool) -> None:
    found = limit_variables(pool_type, memory=None, cpu=None, image_pull_policy="Always")
    assert found == ({"image_pull_policy": "Always"} if known else {})

"""The server's API, raw: tests look at what is really there, and do what people do, without our own door to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx


def unique(prefix: str = "t") -> str:
    """A name that no other test has: all tests share one server."""
    return f"{prefix}-{uuid4().hex[:8]}"


def _new_client() -> httpx.Client:
    """A new connection for each request: the server closes idle ones when it likes. Loading certificates takes
    30 ms each time, and there is no TLS here."""
    return httpx.Client(timeout=60, verify=False, limits=httpx.Limits(max_keepalive_connections=0))


@dataclass(frozen=True)
class Api:
    """One Prefect server."""

    url: str
    client: httpx.Client = field(default_factory=_new_client, repr=False)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.client.request(method, f"{self.url}{path}", json=body)
        while answer.status_code == 503:  # SQLite is locked while the server's own services write
            answer = self.client.request(method, f"{self.url}{path}", json=body)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def post(self, path: str, /, **body: Any) -> Any:
        return self.call("POST", path, body)

    def patch(self, path: str, /, **body: Any) -> None:
        self.call("PATCH", path, body)

    def ensure_pool(self, name: str, type_: str = "process", template: dict[str, Any] | None = None) -> str:
        """A work pool; one that is there already stays as it is."""
        pool = {"name": name, "type": type_, "base_job_template": template or {}}
        answer = self.client.post(f"{self.url}/work_pools/", json=pool)
        assert answer.is_success or answer.status_code == 409, answer.text
        return name

    def deploy(self, path: str, /, **fields: Any) -> dict[str, Any]:
        """Create a deployment the way somebody else would."""
        flow, _, name = path.partition("/")
        flow_id = self.post("/flows/", name=flow)["id"]
        return self.post("/deployments/", flow_id=flow_id, name=name, **fields)

    def deployment(self, path: str) -> dict[str, Any]:
        return self.get(f"/deployments/name/{path}")

    def deployments(self, **filters: Any) -> dict[str, dict[str, Any]]:
        """Name → deployment, up to 200."""
        return {row["name"]: row for row in self.post("/deployments/filter", **filters)}

    def deployments_of(self, flow: str) -> dict[str, dict[str, Any]]:
        return self.deployments(flows={"name": {"any_": [flow]}})

    def delete_deployments_of(self, flow: str) -> None:
        while rows := self.deployments_of(flow):
            ids = [row["id"] for row in rows.values()][:50]  # the server takes no more at a time
            self.post("/deployments/bulk_delete", deployments={"id": {"any_": ids}})

    def schedule_runs(self, deployment_id: str) -> None:
        """What the server's scheduler does when its turn comes."""
        self.post(f"/deployments/{deployment_id}/schedule")

    def scheduled_runs(self, deployment_id: str) -> list[dict[str, Any]]:
        return self.post(
            "/flow_runs/filter",
            deployments={"id": {"any_": [deployment_id]}},
            flow_runs={"state": {"type": {"any_": ["SCHEDULED"]}}},
            sort="EXPECTED_START_TIME_ASC",
        )

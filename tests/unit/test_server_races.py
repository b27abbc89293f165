"""What the server fails because somebody did the same at the same time is asked for again, a few times."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import server as door
from orchestrator.errors import ServerError
from orchestrator.server import PrefectServer
from tests.unit.builders import deployment

CONFLICT = ServerError("The server answered 409: Data integrity conflict. This usually means a unique or …")


class Racing(PrefectServer):
    """A server that fails its first writes as Prefect does when a scheduler, or another writer, was faster."""

    def __init__(self, *faults: ServerError) -> None:
        super().__init__(client=None)  # type: ignore[arg-type]
        self.faults, self.asked = list(faults), []  # type: ignore[var-annotated]

    async def request(self, method: Any, route: Any, **arguments: Any) -> Any:
        self.asked.append(f"{method} {route}")
        if route != "/flows/" and self.faults:
            raise self.faults.pop(0)
        return {"id": "1"}


async def test_scheduling_is_repeated() -> None:
    server = Racing(CONFLICT)
    await server.schedule_runs("1")
    assert server.asked == ["POST /deployments/{id}/schedule"] * 2


async def test_a_create_is_repeated() -> None:
    server = Racing(CONFLICT)
    assert await server.create_deployment(deployment(), {}) == "1"
    assert server.asked == ["POST /flows/", "POST /deployments/", "POST /deployments/"]


async def test_a_conflict_that_stays_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "RACE_PAUSES", (0.0, 0.0))
    server = Racing(*[CONFLICT] * 3)
    with pytest.raises(ServerError, match="409"):
        await server.update_deployment("1", deployment(), ("description",))
    assert len(server.asked) == 3


async def test_another_refusal_is_not_repeated() -> None:
    server = Racing(ServerError("The server answered 422: parameters: no."))
    with pytest.raises(ServerError, match="422"):
        await server.schedule_runs("1")
    assert len(server.asked) == 1

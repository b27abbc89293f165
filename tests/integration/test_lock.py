"""One lock per environment, against a real server: who waits, who is refused, and what becomes of the dead."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from orchestrator import lock
from orchestrator.apply import apply_plan
from orchestrator.config import Policy
from orchestrator.errors import LockedError, ServerError
from orchestrator.lock import Lock, environment_lock, lock_name
from orchestrator.model import Desired, Owner
from orchestrator.plan import make_plan
from orchestrator.server import open_server
from orchestrator.writers import Writers
from tests.unit.builders import deployment

from .api import Api, unique
from .conftest import ROOT
from .proxy import first, proxy_to
from .runs import until


@pytest.fixture
def owner(api: Api) -> Iterator[Owner]:
    owner = Owner(project=unique("Shop of"), environment="Ünit test")
    yield owner
    api.client.delete(f"{api.url}/variables/name/{lock_name(owner)}")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewals and looks several times a second. A living holder counts as dead no sooner: a machine may be slow."""
    for name, seconds in {"RENEW_SECONDS": 0.2, "POLL_SECONDS": 0.1}.items():
        monkeypatch.setattr(lock, name, seconds)


@asynccontextmanager
async def held(api: Api, owner: Owner, name: str = "alice@laptop", **more: Any) -> AsyncIterator[Lock]:
    async with open_server(api.url) as server, environment_lock(server, owner, name, **more) as found:
        yield found


def variable(api: Api, owner: Owner) -> dict[str, Any] | None:
    answer = api.client.get(f"{api.url}/variables/name/{lock_name(owner)}")
    return answer.json() if answer.is_success else None


async def test_it_shows_who_has_it_and_is_gone_afterwards(api: Api, owner: Owner) -> None:
    async with held(api, owner):
        row = variable(api, owner)
        assert row is not None
        assert (row["value"]["holder"], owner.tag in row["tags"]) == ("alice@laptop", True)
    assert variable(api, owner) is None


async def test_who_does_not_wait_is_refused_and_told_who_has_it(api: Api, owner: Owner) -> None:
    async with held(api, owner):
        with pytest.raises(LockedError, match="alice@laptop applies to Ünit test since 20") as caught:
            async with held(api, owner, "bob@desk", wait=False):
                raise AssertionError("it has the lock")
    assert caught.value.exit_code == 5


async def test_who_waits_gets_it_when_it_is_released(api: Api, owner: Owner, quick: None) -> None:
    told: list[str] = []
    order: list[str] = []

    async def bob() -> None:
        async with held(api, owner, "bob@desk", tell=told.append):
            order.append("bob")

    async with held(api, owner):
        waiting = asyncio.create_task(bob())
        await until(lambda: told)
        order.append("alice")
    await waiting
    assert order == ["alice", "bob"]
    assert len(told) == 1 and told[0].startswith("alice@laptop applies to Ünit test since")


async def test_other_environments_and_projects_have_their_own(api: Api, owner: Owner) -> None:
    other = Owner(project=owner.project, environment="ünit-test")  # the same name but for the digest
    async with held(api, owner), held(api, other, wait=False):
        assert lock_name(owner) != lock_name(other)
    api.client.delete(f"{api.url}/variables/name/{lock_name(other)}")


async def test_it_is_renewed_for_as_long_as_it_is_held(api: Api, owner: Owner, quick: None) -> None:
    async with held(api, owner):
        before = variable(api, owner)
        await until(lambda: (variable(api, owner) or {})["updated"] > (before or {})["updated"])
        assert (variable(api, owner) or {})["id"] == (before or {})["id"]


async def test_what_goes_wrong_inside_comes_out_as_it_is_and_releases(api: Api, owner: Owner) -> None:
    with pytest.raises(ServerError, match=r"No\."):
        async with held(api, owner):
            raise ServerError("No.")
    assert variable(api, owner) is None


async def test_who_is_cancelled_releases(api: Api, owner: Owner) -> None:
    async def hold() -> None:
        async with held(api, owner):
            await anyio.sleep_forever()

    holding = asyncio.create_task(hold())
    await until(lambda: variable(api, owner))
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    assert variable(api, owner) is None


async def test_of_many_only_one_at_a_time_has_it(api: Api, owner: Owner, quick: None) -> None:
    inside = most = done = 0

    async def one(number: int) -> None:
        nonlocal inside, most, done
        async with held(api, owner, f"number {number}"):
            inside += 1
            most = max(most, inside)
            await anyio.sleep(0.1)
            inside -= 1
            done += 1

    await asyncio.gather(*(one(number) for number in range(6)))
    assert (most, done) == (1, 6)


HOLDER = """
import anyio
from orchestrator.lock import environment_lock
from orchestrator.model import Owner
from orchestrator.server import open_server

async def main():
    owner = Owner(project={project!r}, environment={environment!r})
    async with open_server({url!r}) as server, environment_lock(server, owner, {name!r}):
        print("holds", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


@pytest.fixture
def holder(api: Api, owner: Owner) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock."""
    code = HOLDER.format(project=owner.project, environment=owner.environment, url=api.url, name="carol@server")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None and process.stdout.readline() == "holds\n"
        yield process
        process.kill()


async def test_who_is_killed_here_frees_it_at_once(api: Api, owner: Owner, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(LockedError, match="carol@server"):
        async with held(api, owner, wait=False):
            raise AssertionError("its holder lives")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    async with held(api, owner, wait=False):
        assert (variable(api, owner) or {})["value"]["holder"] == "alice@laptop"


async def test_who_is_killed_elsewhere_frees_it_by_time(
    api: Api, owner: Owner, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    left = variable(api, owner) or {}
    api.patch(f"/variables/{left['id']}", value={**left["value"], "process": f"another-machine pid:[1] {holder.pid}"})
    told: list[str] = []
    with pytest.raises(LockedError, match="carol@server"):
        async with held(api, owner, wait=False):
            raise AssertionError("it is too early")
    monkeypatch.setattr(lock, "STALE_SECONDS", 1.0)
    async with held(api, owner, tell=told.append):
        assert (variable(api, owner) or {})["value"]["holder"] == "alice@laptop"
    assert "carol@server has ended without giving its lock back" in told[-1]


async def test_who_is_interrupted_releases(api: Api, owner: Owner, holder: subprocess.Popen[str]) -> None:
    os.kill(holder.pid, signal.SIGINT)
    holder.wait(timeout=30)
    assert variable(api, owner) is None


async def test_of_many_heirs_of_a_dead_holder_one_at_a_time_has_it(
    api: Api, owner: Owner, holder: subprocess.Popen[str], quick: None
) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    await test_of_many_only_one_at_a_time_has_it(api, owner, quick)


async def test_a_lost_answer_does_not_lock_us_out(api: Api, owner: Owner) -> None:
    async with proxy_to(api.url) as proxy:
        proxy.judge = first(1, "lose the answer", when=lambda request: request.path == "/api/variables/")
        async with held(Api(proxy.api_url), owner, wait=False) as found:
            await found.require()
    assert variable(api, owner) is None


async def test_what_a_person_wrote_under_its_name_is_somebodys_lock(api: Api, owner: Owner) -> None:
    api.post("/variables/", name=lock_name(owner), value="nobody applies today")
    with pytest.raises(LockedError, match="somebody applies"):
        async with held(api, owner, wait=False):
            raise AssertionError("it has the lock")


async def test_who_has_lost_it_writes_nothing_more(api: Api, owner: Owner, quick: None) -> None:
    plan = make_plan(
        Desired(owner=owner, deployments=tuple(deployment(f"{unique('lost')}/x", tags=(owner.tag,)) for _ in "ab")),
        (),
        api_url=api.url,
        policy=Policy(),
    )
    async with open_server(api.url) as server, environment_lock(server, owner, "alice@laptop") as found:
        api.call("DELETE", f"/variables/name/{lock_name(owner)}")
        await until(lambda: is_lost(found))
        result = await apply_plan(plan, server, writers=Writers(before=found.require))

    assert [item.status for item in result.results] == ["failed", "skipped"]
    assert "was taken from us or deleted" in str(result.results[1].error)
    assert not api.deployments(deployments={"tags": {"all_": [owner.tag]}})


def is_lost(found: Lock) -> bool:
    return found._lost is not None


async def test_who_was_silent_for_long_asks_before_it_writes(
    api: Api, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder that slept, or could not reach the server, finds out before its next write, not after."""
    async with held(api, owner) as found:
        await found.require()
        api.call("DELETE", f"/variables/name/{lock_name(owner)}")
        monkeypatch.setattr(lock, "PROOF_SECONDS", 0.0)
        with pytest.raises(LockedError, match="taken from us"):
            await found.require()

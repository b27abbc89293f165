"""Ctrl-C, or a service manager, ends a real `apply` in the middle of a write: the server goes on, and we tell so."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.terminal import EXIT_INTERRUPTED
from tests.soak.commands import Answer, Commands
from tests.unit.builders import write_files

from .api import Api, unique
from .conftest import PrefectServer
from .gitops import Repository
from .proxy import Fault, Request, proxy_to

NAMES = ("a", "b", "c")


@pytest.fixture
def limit() -> str:
    return unique("limit")


@pytest.fixture
def commands(prefect_server: PrefectServer, repository: Repository, limit: str, tmp_path: Path) -> Commands:
    """Three deployments of one flow, and a limit."""
    declared = "".join(f"  - {{name: {name}, entrypoint: 'flows/etl.py:etl'}}\n" for name in NAMES)
    files = {
        "pyproject.toml": f'[tool.orchestrator]\nproject = "{repository.owner.project}"\n',
        "environments/development.yaml": f"concurrency_limits: {{{limit}: 3}}\nselect: ['{repository.flow}/*']\n",
        "flows/etl.py": f'from prefect import flow\n@flow(name="{repository.flow}")\ndef etl(): ...\n',
        "prefect.yaml": f"deployments:\n{declared}",
    }
    return Commands(write_files(tmp_path, files), {**os.environ, **prefect_server.environment})


Moment = Callable[[Sequence[str]], bool]


def second_create(paths: Sequence[str]) -> bool:
    return paths[-1] == "deployments/" and paths.count("deployments/") == 2


def recording(paths: Sequence[str]) -> bool:
    return paths[-1] == "block_documents/"


def releasing(paths: Sequence[str]) -> bool:
    """The lock is given back: the one variable that is deleted by its id, after the record."""
    return re.fullmatch("variables/[0-9a-f-]{36}", paths[-1]) is not None and "block_documents/" in paths


def verifying(paths: Sequence[str]) -> bool:
    return paths[-1] == "deployments/filter" and "block_documents/" in paths


async def interrupted(
    api: Api,
    commands: Commands,
    number: signal.Signals,
    *arguments: str,
    when: Moment = second_create,
    command: Sequence[str] = ("apply", "--yes"),
) -> Answer:
    """A command that is signalled while the server has the request of that moment.

    `when` sees the paths of all requests so far; a write that a busy server has refused and that comes again is none.
    """
    async with proxy_to(api.url) as proxy:
        process = await commands.start(proxy.api_url, *command, *arguments)

        def strike(request: Request) -> Fault | None:
            if is_again(request, proxy.seen[:-1]):
                return None
            first = [each for at, each in enumerate(proxy.seen) if not is_again(each, proxy.seen[:at])]
            if not when([each.path.removeprefix("/api/") for each in first]):
                return None
            for _ in range(2 if number is signal.SIGHUP else 1):  # as a terminal does that is closed
                process.send_signal(number)
            return "delay"

        proxy.judge = strike
        return await commands.finished(process)


def is_again(request: Request, before: Sequence[Request]) -> bool:
    return request.writes and request in before


async def told(api: Api, commands: Commands, *arguments: str) -> dict[str, Any]:
    answer = await commands.run(api.url, *arguments, "--output", "json")
    assert answer.code in (0, 3), answer.text
    return dict(json.loads(answer.out))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
async def test_what_was_done_is_told_and_recorded_and_the_next_apply_goes_on(
    api: Api, repository: Repository, commands: Commands, limit: str, number: signal.Signals, code: int
) -> None:
    answer = await interrupted(api, commands, number, "--output", "json")

    assert answer.code == code, answer.text
    result = json.loads(answer.out)
    assert (result["status"], result["revision"]) == ("interrupted", 1)
    assert [item["status"] for item in result["results"]] == ["applied", "applied", "skipped"]
    assert [item["status"] for item in result["resources"]] == ["applied"]
    assert sorted(api.deployments_of(repository.flow)) == ["a", "b"]
    (revision,) = (await told(api, commands, "history"))["revisions"]
    assert (revision["status"], revision["failed"]) == ("interrupted", 1)
    plan = await told(api, commands, "plan")
    pending = [(change["action"], change["reasons"]) for change in plan["changes"] if change["action"] != "unchanged"]
    assert pending == [("create", ["asked for by prefect.yaml:4"])]  # and nobody is said to have changed the server

    assert (await told(api, commands, "apply", "--yes"))["status"] == "completed"
    assert (await told(api, commands, "plan", "--detailed-exitcode"))["summary"]["unchanged"] == len(NAMES)
    assert sorted(api.deployments_of(repository.flow)) == [*NAMES]


async def test_clean_tells_what_it_deleted(api: Api, repository: Repository, commands: Commands) -> None:
    await told(api, commands, "apply", "--yes")

    def second_delete(paths: Sequence[str]) -> bool:
        deletes = [path.startswith("automations/owned-by/") for path in paths]
        return deletes[-1] and sum(deletes) == 2

    line = ("clean", f"{repository.flow}/*", "--yes", "--output", "json")
    answer = await interrupted(api, commands, signal.SIGINT, command=line, when=second_delete)

    assert answer.code == EXIT_INTERRUPTED, answer.text
    result = json.loads(answer.out)
    assert (result["status"], len(result["deleted"]), len(result["failed"])) == ("interrupted", 2, 1)
    assert list(result["failed"]) == [repository.path(name) for name in api.deployments_of(repository.flow)]


@pytest.mark.parametrize("when", [recording, releasing, verifying])
async def test_what_is_done_by_then_is_recorded_and_told(api: Api, commands: Commands, when: Moment) -> None:
    answer = await interrupted(api, commands, signal.SIGINT, "--output", "json", when=when)

    assert answer.code == EXIT_INTERRUPTED, answer.text
    result = json.loads(answer.out)
    assert (result["status"], result["revision"]) == ("interrupted", 1)
    assert {item["status"] for item in result["results"]} == {"applied"}
    (revision,) = (await told(api, commands, "history"))["revisions"]
    assert (revision["status"], revision["failed"]) == ("completed", 0)


async def test_a_background_job_of_a_script_can_be_ended(api: Api, commands: Commands) -> None:
    """Shells start those with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is ignored is inherited
    try:
        answer = await interrupted(api, commands, signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)
    assert answer.code == 143, answer.text
    assert "INTERRUPTED: 1 of 4 not made" in answer.out


async def test_an_atomic_one_leaves_nothing(api: Api, repository: Repository, commands: Commands, limit: str) -> None:
    answer = await interrupted(api, commands, signal.SIGINT, "--atomic")

    assert answer.code == EXIT_INTERRUPTED, answer.text
    assert api.deployments_of(repository.flow) == {}
    assert limit not in {row["tag"] for row in api.post("/concurrency_limits/filter", limit=200)}
    assert (await told(api, commands, "history"))["revisions"] == []
    assert "was made and then set back" in answer.out
    assert "INTERRUPTED" in answer.out

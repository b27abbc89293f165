"""`orchestrator discover --changed-since`: the flows that a change touches, with real repositories."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli import run_command
from tests.unit.builders import write_files
from tests.unit.test_git import Git, commit, git

__all__ = ["git"]  # the fixture

FLOW = "from prefect import flow\n{imports}\n@flow\ndef main(): pass\n"
FILES = {
    "pyproject.toml": "[tool.orchestrator]\n",
    "flows/alone.py": FLOW.format(imports=""),
    "flows/direct.py": FLOW.format(imports="import lib.first"),
    "flows/indirect.py": FLOW.format(imports="from lib import second"),
    "flows/helped.py": FLOW.format(imports="import helper"),
    "lib/__init__.py": "",
    "lib/first.py": "X = 1\n",
    "lib/second.py": "from . import first\n",
    "helper.py": "Y = 1\n",
}


@pytest.fixture
def repository(tmp_path: Path, git: Git) -> Path:
    write_files(tmp_path, FILES)
    commit(git)
    return tmp_path


def touched(root: Path, capsys: pytest.CaptureFixture[str], revision: str = "HEAD") -> list[str]:
    assert run_command(["discover", "--root", str(root), "--output", "json", "--changed-since", revision]) == 0
    return [
        flow["path"].removeprefix("flows/").removesuffix(".py") for flow in json.loads(capsys.readouterr().out)["flows"]
    ]


@pytest.mark.parametrize(
    ("changed", "flows"),
    [
        ({}, []),
        ({"flows/alone.py": FLOW.format(imports="import os")}, ["alone"]),
        ({"flows/new.py": FLOW.format(imports="")}, ["new"]),
        ({"lib/first.py": "X = 2\n"}, ["direct", "indirect"]),
        ({"lib/second.py": "from . import first, y\n"}, ["indirect"]),
        ({"lib/__init__.py": "Z = 3\n"}, ["direct", "indirect"]),
        ({"lib/unused.py": ""}, []),
        ({"flows/helper.py": ""}, ["helped"]),  # it hides the one in the root
        ({"lib/first/__init__.py": ""}, ["direct", "indirect"]),
    ],
)
def test_changed(
    repository: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, str], flows: list[str]
) -> None:
    write_files(repository, changed)
    assert touched(repository, capsys) == flows


@pytest.mark.parametrize(
    ("deleted", "flows"),
    [
        (["lib/first.py"], ["direct", "indirect"]),
        (["lib/first.py", "lib/second.py", "lib/__init__.py"], ["direct", "indirect"]),
        (["lib/__init__.py"], ["direct", "indirect"]),
        (["flows/alone.py"], []),
        (["helper.py"], ["helped"]),
    ],
)
def test_deleted(repository: Path, capsys: pytest.CaptureFixture[str], deleted: list[str], flows: list[str]) -> None:
    for path in deleted:
        (repository / path).unlink()
    assert touched(repository, capsys) == flows


def test_renamed(repository: Path, capsys: pytest.CaptureFixture[str], git: Git) -> None:
    git("mv", "lib/first.py", "lib/third.py")
    git("mv", "flows/alone.py", "flows/moved.py")
    assert touched(repository, capsys) == ["direct", "indirect", "moved"]
    commit(git)
    assert touched(repository, capsys) == []
    assert touched(repository, capsys, "HEAD~1") == ["direct", "indirect", "moved"]


def test_what_was_hidden_counts_when_the_file_before_it_goes(
    repository: Path,
    capsys: pytest.CaptureFixture[str],
    git: Git,
) -> None:
    write_files(repository, {"flows/helper.py": ""})
    commit(git)
    (repository / "flows" / "helper.py").unlink()
    assert touched(repository, capsys) == ["helped"]


@pytest.mark.parametrize("revision", ["nowhere", "--output=x", ""])
def test_no_such_revision(repository: Path, capsys: pytest.CaptureFixture[str], revision: str) -> None:
    assert run_command(["discover", "--root", str(repository), f"--changed-since={revision}"]) == 2
    assert "revision" in capsys.readouterr().err

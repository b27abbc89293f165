"""Against flows that really exist: what reading finds is what importing finds, no more and no less.

Every file of the repositories under tests/repos and of the shipped flows is imported by Prefect in a child process
(`import_truth`). What cannot be imported is left out on both sides; of the repositories made for this comparison,
everything can.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.discovery import discover
from orchestrator.model import FlowMetadata

PROJECT = Path(__file__).parents[2]
REPOS = PROJECT / "tests" / "repos"
FOLDERS = {repo.name: (repo, ".") for repo in sorted(REPOS.iterdir()) if repo.is_dir()}
FOLDERS["shipped"] = (PROJECT, "flows")
COMPLETE = [name for name in FOLDERS if name.startswith("import_") or name == "shipped"]  # all of it can be imported

ONLY_BY_IMPORT: dict[str, str] = {
    "import_forms/flows/dynamic.py:load_orders": "bound through globals() in a loop",
    "import_forms/flows/dynamic.py:load_customers": "bound through globals() in a loop",
    "import_forms/flows/dynamic.py:by_setattr": "bound by setattr",
    "import_forms/flows/dynamic.py:by_exec": "bound by exec",
    "import_forms/flows/odd_factories.py:by_instance": "made by a method of an instance, which reading does not follow",
}
"""Entrypoints that reading cannot know of, with the reason."""

ONLY_BY_READING: dict[str, str] = {
    "import_forms/flows/conditional.py:on_another_system": "made under a condition about the platform",
}
"""Entrypoints that are there under conditions which do not hold here, with the reason."""

UNKNOWN_NAMES: dict[str, str] = {
    "import_forms/flows/constants.py:computed": "the constant is made by a call of str.join",
    "import_forms/flows/constants.py:percent": "put together with %",
    "import_forms/flows/constants.py:formatted": "put together with str.format",
    "import_forms/flows/dynamic.py:current": "made in a loop",
    "import_forms/flows/odd_factories.py:args": "the factory takes *names and joins them",
    "import_forms/flows/odd_factories.py:early": "which branch the factory takes depends on what it is given",
    "import_forms/flows/odd_factories.py:quiet": "which branch the factory takes depends on what it is given",
    "import_forms/flows/odd_factories.py:loud": "which branch the factory takes depends on what it is given",
    "import_forms/flows/odd_factories.py:late": "which branch the factory takes depends on what it is given",
    "import_forms/flows/odd_factories.py:shouting": "the factory calls str.upper",
    "import_forms/flows/odd_factories.py:by_class_method": "made by a class method",
    "import_forms/flows/odd_factories.py:starred": "the factory is called with a starred list",
}
"""Entrypoints of the complete repositories whose name reading may leave open, with the reason."""


@dataclass(frozen=True)
class Truth:
    """What importing says of one repository."""

    flows: Mapping[str, Mapping[str, Any]]  # by entrypoint
    errors: Mapping[str, str]  # by file


@pytest.fixture(scope="module")
def truths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Truth]:
    """What importing says of all of them, from one child process."""
    roots = {str(root): name for name, (root, _) in FOLDERS.items()}
    questions = [[str(root), files_in(root, folder)] for root, folder in FOLDERS.values()]
    child = subprocess.run(
        [sys.executable, "-P", str(Path(__file__).with_name("import_truth.py"))],
        input=json.dumps(questions),
        env={**os.environ, "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect"))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr[-1000:]
    found: dict[str, Truth] = {name: Truth({}, {}) for name in FOLDERS}
    for root, file, answer in json.loads(child.stdout.splitlines()[-1]):
        truth = found[roots[root]]
        errors = {file: answer["error"]} if "error" in answer else {}
        found[roots[root]] = Truth({**truth.flows, **answer.get("flows", {})}, {**truth.errors, **errors})
    return found


def files_in(root: Path, folder: str) -> list[str]:
    paths = (path.relative_to(root) for path in sorted((root / folder).rglob("*.py")) if path.is_file())
    return [path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts)]


def read(name: str, truth: Truth) -> dict[str, FlowMetadata]:
    """The flows that reading finds in the files that can be imported."""
    root, folder = FOLDERS[name]
    return {flow.entrypoint: flow for flow in discover(root, [folder]).flows if flow.path not in truth.errors}


@pytest.mark.parametrize("name", COMPLETE)
def test_all_of_it_can_be_imported(truths: dict[str, Truth], name: str) -> None:
    assert truths[name].errors == {}
    assert truths[name].flows


@pytest.mark.parametrize("name", FOLDERS)
def test_reading_finds_every_flow_that_importing_finds(truths: dict[str, Truth], name: str) -> None:
    missed = truths[name].flows.keys() - read(name, truths[name]).keys()
    assert_none(entrypoint for entrypoint in missed if f"{name}/{entrypoint}" not in ONLY_BY_IMPORT)


@pytest.mark.parametrize("name", FOLDERS)
def test_reading_finds_nothing_else(truths: dict[str, Truth], name: str) -> None:
    invented = read(name, truths[name]).keys() - truths[name].flows.keys()
    assert_none(entrypoint for entrypoint in invented if f"{name}/{entrypoint}" not in ONLY_BY_READING)


@pytest.mark.parametrize("name", FOLDERS)
def test_what_reading_says_of_a_flow_is_true(truths: dict[str, Truth], name: str) -> None:
    found = read(name, truths[name])
    both = [
        (entrypoint, stated(found[entrypoint]), truth)
        for entrypoint, truth in truths[name].flows.items()
        if entrypoint in found
    ]
    assert_none(f"{entrypoint}: {said}, but {truth}" for entrypoint, said, truth in both if {**truth, **said} != truth)


@pytest.mark.parametrize("name", COMPLETE)
def test_reading_leaves_open_only_what_it_must(truths: dict[str, Truth], name: str) -> None:
    vague = {entrypoint for entrypoint, flow in read(name, truths[name]).items() if not flow.name_is_static}
    assert_none(entrypoint for entrypoint in vague if f"{name}/{entrypoint}" not in UNKNOWN_NAMES)


def test_the_exceptions_are_of_this_world(truths: dict[str, Truth]) -> None:
    """A table of exceptions that name nothing would hide that a form is gone."""
    real = {f"{name}/{entrypoint}" for name in COMPLETE for entrypoint in truths[name].flows}
    assert_none(exception for exception in (*ONLY_BY_IMPORT, *UNKNOWN_NAMES) if exception not in real)
    assert_none(exception for exception in ONLY_BY_READING if exception in real)


def assert_none(faults: Iterable[str]) -> None:
    listed = sorted(faults)
    assert not listed, "\n".join(listed)


def stated(flow: FlowMetadata) -> dict[str, Any]:
    """What reading is sure of."""
    facts: dict[str, Any] = {"name": flow.name} if flow.name_is_static else {}
    if flow.signature_is_static:
        facts |= {"is_async": flow.is_async, "parameters": [parameter.name for parameter in flow.parameters]}
    return facts

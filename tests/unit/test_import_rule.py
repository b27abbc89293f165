"""Who may import whom. The table is the architecture; a new import either fits it or changes it in plain sight."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "orchestrator"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))

# module: what it may import of ours. Read it from the top: a row names rows above it only.
OURS: dict[str, set[str]] = {
    # nouns and errors: nothing of ours
    "model": set(),
    "errors": set(),
    # reading what people write
    "yaml_source": {"errors", "model"},
    "strict": {"errors", "model", "yaml_source"},
    "config": {"errors", "model", "strict", "yaml_source"},
    "prefect_yaml": {"config", "errors", "model", "strict", "yaml_source"},
    # reading the repository
    "closure": {"errors", "model"},
    "discovery": {"closure", "errors", "model"},
    "validation": {"closure", "discovery", "errors", "model"},
    "schemas": {"errors", "model"},
    "schema_child": set(),
    # deciding
    "desired": {"config", "errors", "model", "validation"},
    "plan": {"config", "desired", "errors", "model"},
    # telling
    "report": {"errors", "model"},
    "terminal": {"config", "errors", "model", "report"},
    # machines: local processes, the server, runs on it
    "local": {"errors", "model"},
    "server": {"config", "errors", "model"},
    "runs": {"errors", "model", "server"},
    "submission": {"errors", "model"},
    # writing: apply sees the server through a Protocol only
    "apply": {"errors", "model", "plan"},
    # putting it together
    "pipeline": {
        "config", "desired", "discovery", "errors", "local", "model", "prefect_yaml", "schemas", "validation",
    },
    "live": {"apply", "config", "desired", "errors", "model", "pipeline", "plan", "server"},
    "deployer": {"config", "desired", "errors", "live", "model", "pipeline", "plan", "report"},
    "bootstrap": {"config", "desired", "errors", "live", "local", "model", "pipeline", "plan", "runs", "server"},
    "commands": {
        "bootstrap", "config", "desired", "errors", "live", "local", "model", "pipeline", "plan", "report", "runs",
        "server", "terminal",
    },
    "cli": {"__init__", "config", "errors", "model", "pipeline", "report", "terminal"},
    "__init__": set(),
    "__main__": {"cli"},
}  # fmt: skip

# module: which of the heavy packages it may import, and why it must.
HEAVY = {"prefect", "prefect_docker", "docker", "httpx", "sqlalchemy", "fastapi"}
DOORS: dict[str, tuple[set[str], str]] = {
    "server": ({"prefect", "httpx"}, "the door to the API for deployments, pools and limits; httpx for its errors"),
    "runs": ({"prefect"}, "starts and follows flow runs"),
    "submission": ({"prefect", "httpx"}, "fans out into deployed runs, inside of a flow"),
    "deployer": ({"prefect"}, "is a Prefect flow"),
    "bootstrap": ({"httpx"}, "asks whether a server answers before there is a client for it"),
    "schema_child": ({"prefect"}, "imports flows, in a process of its own"),
}


def tree_of(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a tree imports, `from a import b` as a.b; imports for type checkers count too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a module stands"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(tree: ast.AST) -> set[str]:
    """The modules of ours that a tree imports."""
    found = {name.split(".")[1] for name in imported(tree) if name.split(".")[0] == "orchestrator" and "." in name}
    return {name if name in MODULES else "__init__" for name in found}


def test_every_module_has_a_row() -> None:
    assert sorted(OURS) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_row_allows(module: str) -> None:
    assert ours(tree_of(module)) <= OURS[module]


@pytest.mark.parametrize("module", MODULES)
def test_only_the_doors_import_what_is_heavy(module: str) -> None:
    allowed, _ = DOORS.get(module, (set(), ""))
    assert {name.partition(".")[0] for name in imported(tree_of(module))} & HEAVY <= allowed


@pytest.mark.parametrize("module", sorted(DOORS))
def test_a_door_needs_what_it_is_allowed(module: str) -> None:
    allowed, reason = DOORS[module]
    assert allowed <= {name.partition(".")[0] for name in imported(tree_of(module))}, "take it out of the table"
    assert reason


def test_rows_name_rows_above_them_only() -> None:
    order = list(OURS)
    upwards = [(module, name) for module in order for name in OURS[module] if order.index(name) > order.index(module)]
    assert upwards == [("cli", "__init__")], "the package itself, for its version"


def test_there_are_no_cycles() -> None:
    TopologicalSorter({module: ours(tree_of(module)) for module in MODULES}).prepare()


@pytest.mark.parametrize("module", MODULES)
def test_nothing_of_ours_is_imported_inside_functions(module: str) -> None:
    functions = [node for node in ast.walk(tree_of(module)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert {name: ours(node) for node in functions for name in [node.name] if ours(node)} == {}


@pytest.mark.parametrize("module", MODULES)
def test_only_terminal_and_report_write_to_standard_output(module: str) -> None:
    calls = {
        node.func.id
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert "print" not in calls or module in ("terminal", "report", "cli", "submission")


def test_the_standard_library_shadows_none_of_ours() -> None:
    assert set(MODULES) & sys.stdlib_module_names == set()

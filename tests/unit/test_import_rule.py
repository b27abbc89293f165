"""Who may import whom. The table is the architecture; a new import either fits it or changes it in plain sight."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import orchestrator

PACKAGE = Path(__file__).parents[2] / "orchestrator"


def name_of(path: Path) -> str:
    """`config` for config.py, `rules.flows` for rules/flows.py, `rules` for rules/__init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in PACKAGE.rglob("*.py")}
MODULES = sorted(FILES)

# model and errors are what all stages share: everybody may import them, and they import nothing of ours.
SHARED = {"model", "errors"}

# module: what else of ours it imports. A row names rows above it only.
OURS: dict[str, set[str]] = {
    "__init__": set(),  # public names are resolved when they are asked for
    "model": set(),
    "errors": set(),
    # reading single texts and values
    "annotations": set(),
    "bindings": set(),
    "cache_file": set(),
    "cron": set(),
    "deployment_calls": set(),
    "plain_text": set(),
    "dockerfile": set(),
    "entrypoints": set(),
    "faults": set(),
    "flow_values": set(),
    "git": set(),
    "gitignore": set(),
    "forks": set(),
    "late": set(),
    "images": set(),
    "imports": set(),
    "markdown": set(),
    "secret_scan": set(),
    "masking": {"secret_scan"},
    "images.names": {"masking"},
    "images.registry_answers": {"images.names"},
    "images.engine_words": set(),
    "parameter_kinds": set(),
    "resource_limits": set(),
    # reading what people write
    "yaml_source": set(),
    "strict": {"faults", "yaml_source"},
    "project": {"faults"},
    "config": {"faults", "project", "strict", "yaml_source"},
    "placeholders": {"yaml_source"},
    "deploy_steps": {"placeholders"},
    # reading the repository
    "repository": {"gitignore"},
    "dockerignore": {"repository"},
    "images.copied": {"dockerfile", "dockerignore"},
    "images.context_files": {"cache_file", "dockerignore", "repository"},
    "images.context": {"dockerfile", "dockerignore", "images.context_files", "images.copied", "repository"},
    "images.sources": {"images.context", "images.context_files"},
    "images.specs": {"config", "dockerfile", "placeholders", "repository"},
    "prefect_yaml": {"config", "faults", "gitignore", "placeholders", "repository", "strict", "yaml_source"},
    "ignores": {"gitignore", "project", "repository"},
    "requirements": {"repository"},
    "distributions": {"requirements"},
    "workspaces": {"repository"},
    "scan_cache": {"cache_file"},
    "sources": {"bindings", "deployment_calls", "imports", "repository", "scan_cache"},
    "closure": {"distributions", "imports", "repository", "sources", "workspaces"},
    "interpreter": {"flow_values"},
    "flow_source": {"bindings", "closure", "flow_values", "interpreter", "repository", "sources"},
    "scanning": {"closure", "flow_source", "forks", "sources"},
    "discovery": {
        "closure",
        "distributions",
        "flow_source",
        "flow_values",
        "repository",
        "requirements",
        "scanning",
        "sources",
    },
    "changes": {"closure", "git", "repository", "sources"},
    # judging it
    "rules.rule": {"config", "repository"},
    "rules.places": {"repository"},
    "rules.signatures": {"annotations", "repository", "rules.places"},
    "rules.deployments": {"config", "entrypoints", "placeholders", "rules.rule"},
    "rules.flows": {"annotations", "discovery", "rules.places", "rules.rule", "rules.signatures", "sources"},
    "rules.imports": {"rules.rule"},
    "rules.dependencies": {"closure", "distributions", "masking", "repository", "requirements", "rules.rule"},
    "rules.declarations": {
        "config",
        "discovery",
        "entrypoints",
        "placeholders",
        "rules.deployments",
        "rules.flows",
        "rules.places",
        "rules.rule",
        "rules.signatures",
        "sources",
    },
    "rules.schedules": {"config", "cron", "rules.places", "rules.rule"},
    "rules.parameters": {
        "annotations",
        "config",
        "entrypoints",
        "rules.deployments",
        "rules.places",
        "rules.rule",
        "rules.signatures",
    },
    "rules.images": {
        "deploy_steps",
        "dockerfile",
        "dockerignore",
        "images.specs",
        "repository",
        "rules.rule",
        "yaml_source",
    },
    "rules.flow_images": {"dockerignore", "images.specs", "rules.rule"},
    "rules.configuration": {"rules.deployments", "rules.places", "rules.rule"},
    "rules.neighbours": {"config", "rules.deployments", "rules.places", "rules.rule"},
    "rules.secrets": {"repository", "rules.images", "rules.rule", "secret_scan"},
    "rules.ignored": {"rules.rule"},
    "rules": {
        "rules.configuration",
        "rules.declarations",
        "rules.dependencies",
        "rules.flow_images",
        "rules.flows",
        "rules.ignored",
        "rules.images",
        "rules.imports",
        "rules.neighbours",
        "rules.parameters",
        "rules.rule",
        "rules.schedules",
        "rules.secrets",
    },
    "validation": {"discovery", "ignores", "masking", "repository", "rules", "rules.ignored"},
    # asking child processes that import people's code
    "children": {"masking"},  # starts flow_child, never imports it
    "flow_child": set(),
    "schemas": {"cache_file", "children"},
    "isolated_import": {"children", "closure", "rules.imports", "rules.rule"},
    # deciding
    "desired": {"config", "deploy_steps", "entrypoints", "images.specs", "placeholders", "resource_limits"},
    "step_outputs": {"deploy_steps", "placeholders"},
    "differences": {"masking", "parameter_kinds"},
    "reasons": {"differences"},
    "resources": {"config", "differences", "reasons"},
    "plan": {"config", "desired", "differences", "masking", "reasons", "resources", "step_outputs"},
    "images.changes": {"differences", "images.names", "plan", "step_outputs"},
    "moved": set(),
    "preflight": {"faults", "placeholders"},
    "recording": {"config", "desired", "images.sources", "resources"},
    "options": {"desired"},
    "review": {"moved", "options"},
    # telling
    "fault_report": {"markdown", "masking", "plain_text"},
    "images.report": {"images.names", "plain_text"},
    "plan_report": {"fault_report", "images.report", "markdown", "masking", "plain_text"},
    "rule_report": {"markdown", "rules"},
    "flow_report": {"fault_report", "masking", "plain_text"},
    "code_hosts": {"__init__", "fault_report", "plain_text", "rule_report", "rules"},
    "report": {"fault_report", "images.report", "markdown", "plain_text", "plan_report"},
    "revision_report": {"plain_text", "plan_report", "recording"},
    "terminal": {"plain_text"},
    "confirmation": {"terminal"},
    # this machine, and the stages without a server
    "local": set(),
    "pipeline": {
        "config",
        "desired",
        "discovery",
        "entrypoints",
        "gitignore",
        "ignores",
        "images.specs",
        "isolated_import",
        "local",
        "masking",
        "prefect_yaml",
        "project",
        "repository",
        "resources",
        "rules",
        "rules.neighbours",
        "schemas",
        "validation",
    },
    "provenance": {"git", "pipeline"},
    "terms": {"config", "desired", "images.sources", "pipeline", "provenance", "recording", "step_outputs"},
    "promotion": {"config", "git", "pipeline", "recording", "step_outputs"},
    "interruption": set(),
    # the doors to the server
    "settings_override": set(),
    "server": {"masking", "settings_override"},
    "pools": {"resources", "server"},
    "facts": {"pools", "preflight", "server"},
    "automations": {"differences", "server"},
    "templating": {
        "step_outputs",
        "automations",
        "deploy_steps",
        "images.names",
        "masking",
        "placeholders",
        "prefect_yaml",
        "server",
        "yaml_source",
    },
    # images: the engine, the registries, and what is done through both
    "images.build_output": {"dockerfile", "images.engine_words", "masking"},
    "images.engine_connection": {"masking"},
    "images.builders": {"images.build_output", "images.engine_connection"},
    "images.engine": {"images.build_output", "images.builders", "images.engine_connection", "images.engine_words"},
    "images.registry_requests": set(),
    "images.registry": {"images.names", "images.registry_answers", "images.registry_requests"},
    "images.doors": {"images.engine", "images.names", "images.registry", "server"},
    "images.decisions": {"cache_file", "images.context", "images.doors", "images.engine", "images.names", "local"},
    "images.sent_context": {"dockerignore", "images.context", "images.context_files", "local"},
    "images.making": {
        "dockerfile",
        "git",
        "images.copied",
        "images.decisions",
        "images.doors",
        "images.engine",
        "images.names",
        "images.registry",
        "images.sent_context",
        "masking",
    },
    "step_runs": {"images.changes", "masking", "placeholders", "plan", "step_outputs"},
    "images.stages": {
        "images.changes",
        "images.decisions",
        "images.doors",
        "images.making",
        "late",
        "plan",
        "server",
        "step_outputs",
        "step_runs",
        "templating",
    },
    "runs": {"faults", "server"},
    # fanning out
    "fanout": set(),
    "fanout.changes": set(),
    "fanout.log": set(),
    "fanout.options": set(),
    "fanout.outcomes": {"masking"},
    "fanout.parent": {"fanout.options"},
    "fanout.calls": {"fanout.log", "fanout.outcomes", "server"},
    "fanout.stream": {"fanout.calls", "fanout.outcomes"},
    "fanout.outer": {"fanout.calls", "fanout.parent"},
    "fanout.target": {"fanout.calls", "fanout.outcomes", "fanout.parent", "faults", "masking", "server"},
    "fanout.ending": {"fanout.calls", "fanout.log"},
    "fanout.creation": {
        "fanout.calls",
        "fanout.changes",
        "fanout.ending",
        "fanout.log",
        "fanout.options",
        "fanout.outcomes",
        "fanout.parent",
        "fanout.target",
        "server",
        "masking",
    },
    "fanout.track": {"fanout.calls", "fanout.outcomes"},
    "fanout.limits": {"fanout.options", "fanout.track"},
    "fanout.known_ends": {"fanout.calls", "fanout.outcomes"},
    "fanout.watch": {
        "fanout.calls",
        "fanout.changes",
        "fanout.ending",
        "fanout.known_ends",
        "fanout.limits",
        "fanout.log",
        "fanout.options",
        "fanout.outcomes",
        "fanout.stream",
        "fanout.track",
    },
    "fanout.hints": {"fanout.calls", "fanout.log", "fanout.target"},
    "fanout.progress": {"fanout.log", "fanout.outcomes", "fanout.watch"},
    "fanout.results": {"fanout.calls", "server"},
    "fanout.columns": set(),
    "fanout.shutdown": {
        "fanout.calls",
        "fanout.changes",
        "fanout.creation",
        "fanout.ending",
        "fanout.log",
        "fanout.options",
        "fanout.outcomes",
        "fanout.watch",
        "interruption",
    },
    "fanout.flow_submission": {
        "fanout.calls",
        "fanout.changes",
        "fanout.columns",
        "fanout.creation",
        "fanout.hints",
        "fanout.log",
        "fanout.options",
        "fanout.outcomes",
        "fanout.outer",
        "fanout.parent",
        "fanout.progress",
        "fanout.results",
        "fanout.shutdown",
        "fanout.target",
        "fanout.track",
        "fanout.watch",
        "runs",
    },
    "submission": {
        "fanout.calls",
        "fanout.changes",
        "fanout.ending",
        "fanout.hints",
        "fanout.log",
        "fanout.options",
        "fanout.outcomes",
        "fanout.parent",
        "fanout.progress",
        "fanout.flow_submission",
        "fanout.target",
        "fanout.track",
        "fanout.watch",
        "runs",
        "server",
    },
    "revisions": {"recording", "server", "terms"},
    "images.upkeep": {
        "config",
        "images.decisions",
        "images.doors",
        "images.engine",
        "images.making",
        "images.names",
        "revisions",
        "server",
    },
    "holds": {"recording", "server"},
    "lock": {"interruption", "server"},
    "verify": {"differences", "pools", "resources", "server"},
    # writing: sees the server through a Protocol only
    "writers": {"interruption"},
    "apply": {"config", "differences", "interruption", "masking", "plan", "resources", "writers"},
    # putting it together
    "live": {
        "apply",
        "automations",
        "config",
        "desired",
        "facts",
        "holds",
        "images.changes",
        "images.stages",
        "interruption",
        "lock",
        "moved",
        "pipeline",
        "plan",
        "pools",
        "preflight",
        "recording",
        "resources",
        "revisions",
        "runs",
        "server",
        "templating",
        "terms",
        "verify",
        "writers",
    },
    "blocking": set(),
    "builder": {
        "blocking",
        "config",
        "desired",
        "fault_report",
        "faults",
        "images.specs",
        "images.stages",
        "live",
        "local",
        "pipeline",
        "plan",
        "repository",
        "schemas",
        "terms",
    },
    "code_deployments": {
        "blocking",
        "config",
        "desired",
        "faults",
        "live",
        "plan",
        "project",
        "provenance",
        "recording",
        "strict",
        "terms",
    },
    "deployer": {
        "config",
        "desired",
        "fault_report",
        "images.making",
        "images.names",
        "images.report",
        "images.stages",
        "late",
        "live",
        "masking",
        "pipeline",
        "plan",
        "plan_report",
        "recording",
        "report",
        "revision_report",
        "runs",
        "server",
        "terms",
    },
    "bootstrap": {
        "config",
        "desired",
        "holds",
        "live",
        "local",
        "masking",
        "pipeline",
        "pools",
        "recording",
        "resources",
        "runs",
        "server",
        "terms",
    },
    "applying": {"images.making", "images.stages", "late", "terminal"},
    "build_commands": {
        "applying",
        "config",
        "confirmation",
        "fault_report",
        "faults",
        "images.report",
        "images.stages",
        "images.upkeep",
        "late",
        "pipeline",
        "terminal",
    },
    "deploy_commands": {
        "apply",
        "applying",
        "confirmation",
        "deployer",
        "fault_report",
        "late",
        "live",
        "options",
        "pipeline",
        "plan",
        "plan_report",
        "recording",
        "report",
        "review",
        "revision_report",
        "terminal",
        "terms",
    },
    "run_commands": {"bootstrap", "fault_report", "local", "pipeline", "report", "server", "terminal"},
    "revision_commands": {
        "applying",
        "config",
        "confirmation",
        "fault_report",
        "git",
        "holds",
        "live",
        "options",
        "pipeline",
        "plan",
        "plan_report",
        "promotion",
        "provenance",
        "recording",
        "report",
        "revision_report",
        "revisions",
        "server",
        "terminal",
        "terms",
    },
    "discover_command": {"changes", "discovery", "flow_report", "git", "project", "terminal"},
    "validate_command": {
        "code_hosts",
        "config",
        "distributions",
        "fault_report",
        "pipeline",
        "rule_report",
        "rules",
        "rules.rule",
        "terminal",
        "validation",
    },
    "cli": {"__init__", "fault_report", "terminal"},  # the commands by their import path, when called
    "__main__": {"cli"},
}

# module: which of the heavy packages it may import, and why it must.
HEAVY = {"prefect", "prefect_docker", "docker", "httpx", "sqlalchemy", "fastapi"}
DOORS: dict[str, tuple[set[str], str]] = {
    "settings_override": ({"prefect"}, "Prefect's settings"),
    "server": ({"prefect", "httpx"}, "the door to the API for deployments, pools and limits; httpx for its errors"),
    "runs": ({"prefect"}, "starts and follows flow runs"),
    "submission": ({"prefect"}, "fans out into deployed runs, inside of a flow"),
    "fanout.log": ({"prefect"}, "the run's own logger"),
    "fanout.parent": ({"prefect"}, "the run that submits"),
    "fanout.calls": ({"httpx"}, "requests about runs; httpx for status codes"),
    "fanout.stream": ({"prefect"}, "the server's events"),
    "fanout.target": ({"prefect"}, "Prefect's own check of parameters"),
    "fanout.creation": ({"prefect"}, "run_deployment, and task runs that stand for runs"),
    "fanout.progress": ({"prefect"}, "artifacts"),
    "fanout.results": ({"prefect"}, "return values"),
    "images.engine_connection": ({"docker"}, "the engine's API"),
    "images.engine": ({"docker"}, "what is asked of the engine, and names as Docker splits them"),
    "deployer": ({"prefect"}, "is a Prefect flow"),
    "bootstrap": ({"httpx"}, "asks whether a server answers before there is a client for it"),
    "flow_child": ({"prefect"}, "imports flows, in a process of its own"),
    "pools": ({"prefect"}, "pools, queues and limits"),
    "facts": ({"prefect"}, "what preflight must know"),
    "automations": ({"prefect"}, "triggers"),
    "templating": ({"prefect"}, "placeholders, by Prefect's own templating"),
    "revisions": ({"prefect"}, "recorded applies"),
    "holds": ({"prefect"}, "whether scheduled sync waits"),
    "lock": ({"httpx"}, "one apply at a time"),
    "images.doors": ({"prefect"}, "blocks with users of registries"),
    "step_runs": ({"prefect"}, "build and push steps, run by Prefect's own run_steps"),
    "code_deployments": ({"prefect"}, "deployments of flow objects"),
    "images.registry_requests": ({"httpx"}, "requests to image registries"),
    "images.registry": ({"docker", "httpx"}, "image registries; docker for the logins in its configuration"),
}


def tree_of(module: str) -> ast.Module:
    """The source of a module; of `__init__` without what only type checkers see."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    if module == "__init__":
        tree.body = [statement for statement in tree.body if statement not in typing_only(tree)]
    return tree


def typing_only(tree: ast.Module) -> list[ast.stmt]:
    return [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]


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
    found = {name.removeprefix("orchestrator.") for name in imported(tree) if name.startswith("orchestrator.")}
    return {module_in(name) for name in found}


def module_in(name: str) -> str:
    """The module that a dotted name lies in: the longest one that it starts with."""
    parts = name.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in MODULES), "__init__")


def test_every_module_has_a_row() -> None:
    assert sorted(OURS) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_what_its_row_says(module: str) -> None:
    assert ours(tree_of(module)) - SHARED == OURS[module]


@pytest.mark.parametrize("module", ["__init__", *sorted(SHARED)])
def test_what_all_share_imports_nothing_of_ours(module: str) -> None:
    assert ours(tree_of(module)) == set()


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
    for module in order:
        assert OURS[module] <= set(order[: order.index(module)]), module


def test_there_are_no_cycles() -> None:
    order = list(TopologicalSorter({module: ours(tree_of(module)) for module in MODULES}).static_order())  # or raises
    assert set(order) >= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_nothing_of_ours_is_imported_inside_functions(module: str) -> None:
    functions = [node for node in ast.walk(tree_of(module)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert {name: ours(node) for node in functions for name in [node.name] if ours(node)} == {}


@pytest.mark.parametrize("module", MODULES)
def test_nobody_prints(module: str) -> None:
    """What is shown goes through terminal, what is told through logging: standard output may be one JSON document."""
    names = [node.func for node in ast.walk(tree_of(module)) if isinstance(node, ast.Call)]
    assert "print" not in {name.id for name in names if isinstance(name, ast.Name)}


def test_the_standard_library_shadows_none_of_ours() -> None:
    assert set(MODULES) & sys.stdlib_module_names == set()


def test_type_checkers_see_the_public_names_that_the_package_resolves() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    seen = {name for block in typing_only(tree) for name in imported(block)}

    assert seen == {f"orchestrator.{home}.{name}" for name, home in orchestrator._HOME_OF.items()}
    assert all(getattr(orchestrator, name) is not None for name in orchestrator._HOME_OF)

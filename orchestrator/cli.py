"""The command line: `orchestrator COMMAND` and `python -m orchestrator COMMAND`.

A command is parse + one call + render. Those that only read source are here; those that need Prefect are registered
by their import path and loaded when called, so that help, `discover` and `validate` never pay for importing Prefect.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from orchestrator import __version__, report
from orchestrator.config import DEFAULT_ENVIRONMENT, ConfigurationManager
from orchestrator.errors import OrchestratorError
from orchestrator.pipeline import about, discover_flows, load_settings
from orchestrator.pipeline import validate as validate_repository
from orchestrator.terminal import EXIT_FAILED, EXIT_USAGE, Common, Env, Root, Terminal

app = App(
    name="orchestrator",
    help="GitOps for Prefect, run by Prefect itself: deploy every flow of a repository, and only what changed.",
    version=__version__,
    help_flags=["--help", "-h"],
    default_parameter=Parameter(negative=""),  # no --no-yes; where a "no" means something, the command says so
)

_LATER = {
    "bootstrap": "From nothing to a running deployer: server, pools, limits, worker, first sync.",
    "plan": "Show what would change on the server, and write nothing.",
    "apply": "Change what differs between the repository and the server.",
    "status": "Compare the live server with the repository: in sync, ready, and what is wrong.",
    "run": "Run one deployment, follow it, and show what its child runs did.",
    "clean": "Delete deployments of ours that match a pattern.",
    "down": "Stop the server and the worker that bootstrap started, and only those.",
}
for _name, _help in _LATER.items():
    app.command(f"orchestrator.commands:{_name}", name=_name, help=_help)


@app.command
def discover(*paths: str, common: Common = Common()) -> int:  # noqa: B008 - frozen
    """List the flows of the repository, by reading source only.

    Args:
        paths: Files or folders to look into; default: the folders of [tool.orchestrator].
    """
    manager = ConfigurationManager(common.root)
    found = discover_flows(manager.root, manager.load_project(), (), paths or None)
    Terminal(common.output).show(report.flows_text(found), report.discovery_json(found))
    return EXIT_FAILED if found.problems else 0


ValidationOutput = Annotated[
    Literal["text", "json", "sarif", "github"],
    Parameter(help="json or sarif: one document on standard output; github: workflow annotations."),
]


@app.command
def validate(
    *paths: str, root: Root = Path(), env: Env = DEFAULT_ENVIRONMENT, output: ValidationOutput = "text"
) -> int:
    """Check flows, prefect.yaml and environment files without the server.

    Args:
        paths: Files or folders to look into; default: the folders of [tool.orchestrator].
    """
    settings = load_settings(root, env)
    settings = about(settings, paths) if paths else settings
    found = discover_flows(settings.root, settings.project, settings.declarations, paths or None)
    result = validate_repository(settings, found)
    if output == "github":
        Terminal().lines(report.github_annotations(result))
    else:
        document = report.sarif(result) if output == "sarif" else report.validation_json(result)
        Terminal("text" if output == "text" else "json").show(report.validation_text(result), document)
    return 0 if result.is_valid else EXIT_FAILED


def run_command(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code that the contract in docs/architecture.md names."""
    terminal = Terminal("json" if _asks_for_json(arguments) else "text")
    try:
        code = app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        usage = OrchestratorError(str(error), remedy="See `orchestrator --help`.")
        usage.exit_code = EXIT_USAGE
        return _fail(usage, terminal)
    except OrchestratorError as error:
        return _fail(error, terminal)
    return code if isinstance(code, int) else 0


def _fail(error: OrchestratorError, terminal: Terminal) -> int:
    if terminal.is_json:
        terminal.show("", report.error_json(error))
    else:
        terminal.error.print(report.error_text(error))
    return error.exit_code


def _asks_for_json(arguments: Sequence[str]) -> bool:
    documents = ("json", "sarif")
    return any(f"--output={form}" in arguments or ("--output", form) in pairwise(arguments) for form in documents)


def main() -> None:
    """The console script."""
    os.environ.setdefault("DO_NOT_TRACK", "1")  # Prefect's usage statistics, and its notice about them, are not ours
    try:
        code = run_command(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the reader went away (`| head`): nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)

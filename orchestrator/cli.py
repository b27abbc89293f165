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

from orchestrator import __version__, fault_report, report, rule_report
from orchestrator.changes import touched
from orchestrator.config import DEFAULT_ENVIRONMENT, ConfigurationManager
from orchestrator.errors import ConfigurationError, OrchestratorError
from orchestrator.git import changed_files
from orchestrator.model import ValidationResult
from orchestrator.pipeline import about, discover_flows, read_settings
from orchestrator.pipeline import validate as validate_repository
from orchestrator.rules import RULES
from orchestrator.rules.rule import suggestion
from orchestrator.terminal import EXIT_FAILED, EXIT_USAGE, Common, Root, Terminal
from orchestrator.validation import as_result

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
def discover(*paths: str, changed_since: str | None = None, common: Common = Common()) -> int:  # noqa: B008 - frozen
    """List the flows of the repository, by reading source only.

    Args:
        paths: Files or folders to look into; default: the folders of [tool.orchestrator].
        changed_since: Only flows that use a file which differs from this git revision, committed or not.
    """
    manager = ConfigurationManager(common.root)
    changes = None if changed_since is None else changed_files(manager.root, changed_since)
    found = discover_flows(manager.root, manager.load_project(), (), paths or None)
    found = touched(found, manager.root, changes) if changes else found
    Terminal(common.output).show(report.flows_text(found), report.discovery_json(found))
    return EXIT_FAILED if found.problems else 0


ValidationOutput = Annotated[
    Literal["text", "json", "sarif", "github"],
    Parameter(help="json or sarif: one document on standard output; github: workflow annotations."),
]


@app.command
def validate(
    *paths: str,
    root: Root = Path(),
    env: Annotated[tuple[str, ...], Parameter(help="The environment. May be given several times.")] = (
        DEFAULT_ENVIRONMENT,
    ),
    all_environments: Annotated[bool, Parameter(help="Check every environment that has a file.")] = False,
    output: ValidationOutput = "text",
) -> int:
    """Check flows, prefect.yaml and environment files without the server.

    Args:
        paths: Files or folders to look into; default: the folders of [tool.orchestrator].
    """
    try:
        names = (ConfigurationManager(root).environments() if all_environments else ()) or env
        first, *others = [read_settings(root, name) for name in dict.fromkeys(names)]
    except ConfigurationError as error:
        return _cannot_validate(error, output)
    settings = [about(each, paths) if paths else each for each in (first, *others)]
    found = discover_flows(first.root, first.project, settings[0].declarations, paths or None)
    result = validate_repository(settings[0], found, settings[1:])
    _show_validation(result, output)
    if any(each.errors for each in settings):
        return EXIT_USAGE
    return 0 if result.is_valid else EXIT_FAILED


def _show_validation(result: ValidationResult, output: str) -> None:
    if output == "github":
        Terminal().lines(fault_report.github_annotations(result))
    else:
        document = fault_report.sarif(result) if output == "sarif" else fault_report.validation_json(result)
        Terminal("text" if output == "text" else "json").show(fault_report.validation_text(result), document)


def _cannot_validate(error: ConfigurationError, output: str) -> int:
    """Nothing was checked; what code hosts read gets the faults in its own format all the same."""
    if output not in ("sarif", "github") or not error.faults:
        raise error
    _show_validation(as_result(error.faults), output)  # type: ignore[arg-type]  # ours are ValidationErrors
    return error.exit_code


@app.command
def rules(
    code: str | None = None,
    *,
    output: Annotated[
        Literal["text", "json", "markdown"],
        Parameter(help="json: one document on standard output; markdown: the page docs/rules.md."),
    ] = "text",
) -> int:
    """List all rules of `validate`, or explain one.

    Args:
        code: Which one, such as FLW001.
    """
    terminal = Terminal("json" if output == "json" else "text")
    if code is None:
        if output == "markdown":
            terminal.lines(rule_report.rules_markdown().rstrip("\n"))
        else:
            terminal.show(rule_report.rules_text(), rule_report.rules_json())
        return 0
    rule = next((rule for rule in RULES if rule.code == code.upper()), None)
    if rule is None:
        near = suggestion(code.upper(), [rule.code for rule in RULES])
        raise ConfigurationError(f"There is no rule {code!r}.", remedy=near or "See `orchestrator rules`.")
    if output == "markdown":
        terminal.lines(rule_report.rule_markdown(rule))
    else:
        terminal.show(rule_report.rule_text(rule), rule_report.rule_json(rule))
    return 0


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
        terminal.show("", fault_report.error_json(error))
    else:
        terminal.error.print(fault_report.error_text(error))
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

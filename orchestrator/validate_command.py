"""`orchestrator validate` and `orchestrator rules`: neither needs a server, nor imports Prefect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from orchestrator import code_hosts, fault_report, rule_report
from orchestrator.config import ConfigurationManager
from orchestrator.distributions import installed_modules
from orchestrator.errors import ConfigurationError
from orchestrator.model import DEFAULT_ENVIRONMENT, ValidationResult
from orchestrator.pipeline import about, discover_flows, read_settings, with_imports_tried
from orchestrator.pipeline import validate as validate_repository
from orchestrator.rules import RULES
from orchestrator.rules.rule import suggestion
from orchestrator.terminal import EXIT_FAILED, EXIT_USAGE, Root, Terminal
from orchestrator.validation import as_result

ValidationOutput = Annotated[
    Literal["text", "json", "sarif", "github"],
    Parameter(help="json or sarif: one document on standard output; github: workflow annotations."),
]


def validate(
    *paths: str,
    root: Root = Path(),
    env: Annotated[tuple[str, ...], Parameter(help="The environment. May be given several times.")] = (
        DEFAULT_ENVIRONMENT,
    ),
    all_environments: Annotated[bool, Parameter(help="Check every environment that has a file.")] = False,
    isolated_import: Annotated[
        bool, Parameter(help="Also import each flow, in a child process. This runs the repository's code.")
    ] = False,
    installed: Annotated[bool, Parameter(help="What is installed here counts as declared, too.")] = False,
    strict: Annotated[bool, Parameter(help="Fail with 1 for warnings, too.")] = False,
    output: ValidationOutput = "text",
) -> int:
    """Check flows, prefect.yaml and environment files without the server.

    Args:
        paths: Files or folders to look into; default: the folders of [tool.orchestrator].
    """
    try:
        names = (ConfigurationManager(root).environments() if all_environments else ()) or env
        first, *others = [read_settings(root, name) for name in dict.fromkeys(names)]
        settings = [about(each, paths) if paths else each for each in (first, *others)]
        found = discover_flows(first.root, first.project, settings[0].declarations, paths or None)
    except ConfigurationError as error:
        return _cannot_validate(error, output)
    found = with_imports_tried(first.root, found) if isolated_import else found
    result = validate_repository(settings[0], found, settings[1:], installed_modules() if installed else None)
    _show_validation(result, output)
    if any(each.errors for each in settings):
        return EXIT_USAGE
    is_good = result.is_valid and not (strict and result.warnings)
    return 0 if is_good else EXIT_FAILED


def _show_validation(result: ValidationResult, output: str) -> None:
    if output == "github":
        Terminal().lines(code_hosts.github_annotations(result))
    else:
        document = code_hosts.sarif(result) if output == "sarif" else fault_report.validation_json(result)
        Terminal("text" if output == "text" else "json").show(fault_report.validation_text(result), document)


def _cannot_validate(error: ConfigurationError, output: str) -> int:
    """Nothing was checked; what code hosts read gets the reasons in its own format all the same."""
    if output not in ("sarif", "github"):
        raise error
    if error.faults:
        _show_validation(as_result(error.faults), output)  # type: ignore[arg-type]  # ours are ValidationErrors
    elif output == "github":
        Terminal().lines(code_hosts.github_error(error))
    else:
        Terminal("json").show("", code_hosts.sarif_of_error(error))
    return error.exit_code


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

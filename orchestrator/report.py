"""Results → what people and programs read: terminal text, markdown, JSON.

Nothing is decided here. Terminal text is made of rich's `Text`, never of markup, so that brackets in names stay as
they are; colours are dropped by rich where nobody looks.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from rich.console import Group, RenderableType
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from orchestrator.errors import ConfigurationError, Fault, OrchestratorError
from orchestrator.model import (
    BootstrapResult,
    Change,
    ChangeResult,
    CleanupResult,
    DeploymentResult,
    Discovery,
    EnvironmentStatus,
    FieldDiff,
    FlowMetadata,
    Plan,
    RunReport,
    ValidationError,
    ValidationResult,
)

SIGNS = {"create": "+", "adopt": "+", "update": "~", "delete": "-", "unchanged": "=", "conflict": "!"}
COLOURS = {
    "create": "green",
    "adopt": "green",
    "update": "yellow",
    "delete": "red",
    "unchanged": "dim",
    "conflict": "bold red",
}
LONGEST_VALUE = 100  # characters of a value in a diff; the rest is cut and said


def headline(environment: str, summary: Mapping[Any, int]) -> str:
    """`development: +8 ~0 -0`, and ` !1` where deployments are in conflict."""
    created = summary["create"] + summary["adopt"]
    conflicts = f" !{summary['conflict']}" if summary["conflict"] else ""
    return f"{environment}: +{created} ~{summary['update']} -{summary['delete']}{conflicts}"


def counts(summary: Mapping[Any, int]) -> str:
    """`8 to create, 1 unchanged`: what there is, nothing else."""
    words = {
        "create": "to create",
        "update": "to update",
        "delete": "to delete",
        "adopt": "to adopt",
        "conflict": "in conflict",
        "unchanged": "unchanged",
    }
    found = [f"{summary[action]} {word}" for action, word in words.items() if summary[action]]
    return ", ".join(found) or "nothing to do"


def shown(value: Any) -> str:
    """A value in a diff: JSON, cut where it is long."""
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}… ({len(text)} characters)"


# ---------------------------------------------------------------------------------------------------------
# Terminal
# ---------------------------------------------------------------------------------------------------------


def plan_text(plan: Plan) -> RenderableType:
    """A plan: one line per change, its differences below; what is unchanged is counted, not listed."""
    lines = [line for change in plan.changes for line in _change_lines(change)]
    summary = Text(f"{headline(plan.environment, plan.summary)}  ({counts(plan.summary)})", style="bold")
    return Group(*lines, summary)


def _change_lines(change: Change) -> Iterator[Text]:
    if change.action != "unchanged":
        line = Text(f"{SIGNS[change.action]} {change.deployment}", style=COLOURS[change.action])
        yield line.append(f"  {'; '.join(change.reasons)}", style="dim")
    for diff in change.fields:
        yield Text(f"    {_diff_line(diff)}")
    for kept in change.kept:
        yield Text(f"    kept {change.deployment} {kept}", style="cyan")


def _diff_line(diff: FieldDiff) -> str:
    return f"{diff.path}: {shown(diff.before)} → {shown(diff.after)}"


def result_text(result: DeploymentResult) -> RenderableType:
    """What an apply did; what is unchanged is counted."""
    lines = [_result_line(item) for item in result.results if item.status != "unchanged"]
    words = {"no-changes": "nothing to change", "completed": "done", "degraded": "DEGRADED: see above"}
    style = "bold red" if result.status == "degraded" else "bold green"
    end = f"{headline(result.environment, result.summary)}  {words[result.status]}"
    unchanged = result.summary["unchanged"]
    return Group(*lines, Text(f"{end} ({unchanged} unchanged)" if unchanged else end, style=style))


def _result_line(item: ChangeResult) -> Text:
    sign, style = SIGNS[item.action], COLOURS[item.action]
    if item.status == "applied":
        return Text(f"{sign} {item.deployment}", style=style)
    return Text(f"{sign} {item.deployment}  {item.status}: {item.error}", style="bold red")


def faults_text(faults: Iterable[Fault], severity: str = "error") -> RenderableType:
    """Faults, one block each: where and what, and below it what to do."""
    style = "red" if severity == "error" else "yellow"
    lines: list[Text] = []
    for each in faults:
        where = f"{_place(each)}: " if each.file_path else ""
        lines.append(Text(f"{where}{severity} {each.code}: ", style=style).append(each.message, style="default"))
        if each.remediation:
            lines.append(Text(f"    {each.remediation}", style="dim"))
    return Group(*lines)


def _place(fault: Fault) -> str:
    return f"{fault.file_path}:{fault.line_number}" if fault.line_number else str(fault.file_path)


def problems_text(problems: Sequence[ValidationError]) -> RenderableType:
    """Errors, then warnings."""
    errors = [problem for problem in problems if problem.severity == "error"]
    warnings = [problem for problem in problems if problem.severity == "warning"]
    return Group(faults_text(errors), faults_text(warnings, "warning"))


def error_text(error: OrchestratorError) -> RenderableType:
    """An error as a person should meet it."""
    where = f"{error.location}: " if error.location else ""
    head = Text(f"error: {where}", style="bold red").append(error.message, style="default")
    parts: list[RenderableType] = [head]
    if isinstance(error, ConfigurationError) and error.faults:
        parts.append(faults_text(error.faults))
    if error.remedy:
        parts.append(Text(f"    {error.remedy}", style="dim"))
    return Group(*parts)


def flows_text(discovery: Discovery) -> RenderableType:
    """The flows found, as a table."""
    table = Table(box=None, pad_edge=False)
    for heading in ("FLOW", "ENTRYPOINT", "LINE", "PARAMETERS"):
        table.add_column(heading, overflow="fold")
    for flow in discovery.flows:
        parameters = ", ".join(parameter.name for parameter in flow.parameters)
        table.add_row(Text(flow.name), Text(flow.entrypoint), str(flow.line_number), Text(parameters))
    return Group(table, Text(f"{len(discovery.flows)} flows", style="bold"), problems_text(discovery.problems))


def validation_text(result: ValidationResult) -> RenderableType:
    end = f"errors: {len(result.errors)}, warnings: {len(result.warnings)}"
    style = "bold green" if result.is_valid else "bold red"
    return Group(problems_text((*result.errors, *result.warnings)), Text(end, style=style))


def cleanup_text(result: CleanupResult) -> RenderableType:
    lines = [Text(f"- {path}", style="red") for path in result.deleted]
    lines += [Text(f"= {path}  not ours: left as it is", style="dim") for path in result.foreign]
    lines += [Text(f"! {path}  failed: {reason}", style="bold red") for path, reason in result.failed.items()]
    return Group(*lines, Text(f"{len(result.deleted)} deleted", style="bold"))


def status_text(status: EnvironmentStatus) -> RenderableType:
    """One line per deployment, what is wrong below it."""
    lines: list[Text] = []
    for item in status.deployments:
        good = item.in_sync and item.ready
        words = f"{'in sync' if item.in_sync else 'OUT OF SYNC'}, {'ready' if item.ready else 'NOT READY'}"
        lines.append(Text(f"{'=' if good else '!'} {item.deployment}  {words}", style="green" if good else "red"))
        lines += [Text(f"    {problem}", style="yellow") for problem in item.problems]
    healthy = sum(item.in_sync and item.ready for item in status.deployments)
    end = f"{status.environment} on {status.api_url}: {healthy} of {len(status.deployments)} in sync and ready"
    return Group(*lines, Text(end, style="bold"))


def run_text(run: RunReport) -> RenderableType:
    """A run and everything it started, indented by depth, failures with their reason."""
    lines: list[Text] = []
    for each in (run, *run.descendants):
        style = "green" if each.succeeded else "bold red"
        line = Text("  " * each.depth + f"{each.flow} ({each.name})  ")
        lines.append(line.append(each.state_name, style=style).append(f"  {each.seconds:.1f} s", style="dim"))
        if not each.succeeded and each.message:
            lines.append(Text("  " * each.depth + f"    {each.message}", style="red"))
    done = sum(each.succeeded for each in run.descendants)
    end = [Text(f"{done} of {len(run.descendants)} child runs completed", style="bold")] if run.descendants else []
    return Group(*lines, *end)


def sync_text(run: RunReport) -> RenderableType:
    """What a run of the deployer did: its artifact."""
    return Markdown(run.artifact)


# ---------------------------------------------------------------------------------------------------------
# Markdown, for artifacts in the Prefect UI
# ---------------------------------------------------------------------------------------------------------


def plan_markdown(plan: Plan) -> str:
    """A plan as the artifact `plan-<environment>`."""
    rows = [
        (
            f"`{SIGNS[change.action]}` {change.action}",
            _linked(change),
            _cell("; ".join((*change.reasons, *change.kept))),
        )
        for change in plan.changes
        if change.action != "unchanged" or change.kept
    ]
    parts = [f"## {headline(plan.environment, plan.summary)}", f"{counts(plan.summary).capitalize()}."]
    parts += [_table(("Action", "Deployment", "Why"), rows)] if rows else []
    parts += [_details(change) for change in plan.changes if change.fields]
    parts += [problems_markdown(plan.problems)] if plan.problems else []
    return "\n\n".join(parts)


def _linked(change: Change) -> str:
    name = _cell(change.deployment)
    return f"[{name}](../../deployments/deployment/{change.live.id})" if change.live else name


def _details(change: Change) -> str:
    rows = [(f"`{diff.path}`", _code(diff.before), _code(diff.after)) for diff in change.fields]
    title = f"{change.deployment}: {len(rows)} differences"
    return f"<details><summary>{title}</summary>\n\n{_table(('Field', 'Live', 'Repository'), rows)}\n\n</details>"


def result_markdown(result: DeploymentResult) -> str:
    """A result as the artifact `deployments-<environment>`."""
    rows = [
        (f"`{SIGNS[item.action]}` {item.action}", _cell(item.deployment), item.status, _cell(item.error or ""))
        for item in result.results
        if item.status != "unchanged"
    ]
    parts = [f"## {headline(result.environment, result.summary)}", f"**{result.status}**"]
    parts += [_table(("Action", "Deployment", "Result", "Error"), rows)] if rows else []
    parts += [f"{result.summary['unchanged']} unchanged."] if result.summary["unchanged"] else []
    parts += [problems_markdown(result.problems)] if result.problems else []
    return "\n\n".join(parts)


def problems_markdown(problems: Sequence[ValidationError]) -> str:
    rows = [
        (item.severity, item.code, _cell(item.location), _cell(item.message), _cell(item.remediation))
        for item in problems
    ]
    return f"### Faults\n\n{_table(('', 'Code', 'Where', 'What', 'What to do'), rows)}"


def problem_line(problem: Fault) -> str:
    """A fault on one line, for logs and state messages."""
    where = f"{_place(problem)}: " if problem.file_path else ""
    return f"{where}{problem.code} {problem.message} {problem.remediation}".strip()


def error_line(error: OrchestratorError) -> str:
    """An error with all its faults, for a state's message."""
    faults = error.faults if isinstance(error, ConfigurationError) else ()
    return "\n".join([str(error), *(problem_line(each) for each in faults)])


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _code(value: Any) -> str:
    text = shown(value).replace("`", "'").replace("|", "\\|")
    return f"`{text}`" if text else ""


# ---------------------------------------------------------------------------------------------------------
# JSON: keys that stay stable
# ---------------------------------------------------------------------------------------------------------


def fault_json(fault: Fault) -> dict[str, Any]:
    names = ("code", "message", "file_path", "line_number", "remediation")
    return {name: getattr(fault, name) for name in names}


def flow_json(flow: FlowMetadata) -> dict[str, Any]:
    fields = {field.name: getattr(flow, field.name) for field in dataclasses.fields(flow)}
    parameters = [dataclasses.asdict(parameter) for parameter in flow.parameters]
    return {**fields, "parameters": parameters, "entrypoint": flow.entrypoint, "is_valid": flow.is_valid}


def discovery_json(discovery: Discovery) -> dict[str, Any]:
    flows = [flow_json(flow) for flow in discovery.flows]
    return {"flows": flows, "problems": [fault_json(problem) for problem in discovery.problems]}


def validation_json(result: ValidationResult) -> dict[str, Any]:
    return {
        "is_valid": result.is_valid,
        "errors": [fault_json(error) for error in result.errors],
        "warnings": [fault_json(warning) for warning in result.warnings],
    }


def plan_json(plan: Plan) -> dict[str, Any]:
    return {
        "environment": plan.environment,
        "api_url": plan.api_url,
        "checksum": plan.checksum,
        "summary": plan.summary,
        "changes": [_change_json(change) for change in plan.changes],
        "problems": [fault_json(problem) for problem in plan.problems],
    }


def _change_json(change: Change) -> dict[str, Any]:
    return {
        "action": change.action,
        "deployment": change.deployment,
        "kind": change.kind,
        "reasons": change.reasons,
        "fields": [dataclasses.asdict(diff) for diff in change.fields],
        "kept": change.kept,
    }


def result_json(result: DeploymentResult) -> dict[str, Any]:
    return {
        "environment": result.environment,
        "api_url": result.api_url,
        "revision": result.revision,
        "status": result.status,
        "summary": result.summary,
        "results": [dataclasses.asdict(item) for item in result.results],
        "problems": [fault_json(problem) for problem in result.problems],
    }


def error_json(error: OrchestratorError) -> dict[str, Any]:
    faults = error.faults if isinstance(error, ConfigurationError) else ()
    return {
        "error": {
            "type": type(error).__name__,
            "message": error.message,
            "location": error.location,
            "remediation": error.remedy,
            "exit_code": error.exit_code,
            "faults": [fault_json(each) for each in faults],
        }
    }


def cleanup_json(result: CleanupResult) -> dict[str, Any]:
    return {
        "pattern": result.pattern,
        "deleted": result.deleted,
        "foreign": result.foreign,
        "failed": dict(result.failed),
    }


def status_json(status: EnvironmentStatus) -> dict[str, Any]:
    return dataclasses.asdict(status)


def run_json(run: RunReport) -> dict[str, Any]:
    return dataclasses.asdict(run)


def bootstrap_json(result: BootstrapResult) -> dict[str, Any]:
    return {
        "environment": result.environment,
        "api_url": result.api_url,
        "ui_url": result.ui_url,
        "steps": [dataclasses.asdict(step) for step in result.steps],
        "sync": dataclasses.asdict(result.sync) if result.sync else None,
        "run": dataclasses.asdict(result.run) if result.run else None,
        "problems": [fault_json(problem) for problem in result.problems],
    }


# ---------------------------------------------------------------------------------------------------------
# For code hosts
# ---------------------------------------------------------------------------------------------------------

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif(result: ValidationResult) -> dict[str, Any]:
    """Faults as SARIF 2.1.0 (OASIS), which code hosts show beside the source."""
    faults = (*result.errors, *result.warnings)
    rules = [{"id": code} for code in sorted({each.code for each in faults})]
    driver = {"name": "orchestrator", "rules": rules}
    results = [_sarif_result(each) for each in faults]
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _sarif_result(fault: ValidationError) -> dict[str, Any]:
    found: dict[str, Any] = {"ruleId": fault.code, "level": fault.severity, "message": {"text": _both(fault)}}
    if fault.file_path is None:
        return found
    place: dict[str, Any] = {"artifactLocation": {"uri": quote(fault.file_path)}}
    if fault.line_number:
        place["region"] = {"startLine": fault.line_number}
    return {**found, "locations": [{"physicalLocation": place}]}


def github_annotations(result: ValidationResult) -> str:
    """Faults as GitHub's workflow commands, one line each (docs.github.com, "workflow commands")."""
    return "\n".join(_annotation(each) for each in (*result.errors, *result.warnings))


def _annotation(fault: ValidationError) -> str:
    properties = {"file": fault.file_path, "line": fault.line_number, "title": fault.code}
    written = ",".join(f"{name}={_escaped(str(value), ':,')}" for name, value in properties.items() if value)
    return f"::{fault.severity} {written}::{_escaped(_both(fault))}"


def _both(fault: ValidationError) -> str:
    """What is wrong, and on the next line what to do."""
    return f"{fault.message}\n{fault.remediation}".strip()


def _escaped(text: str, also: str = "") -> str:
    """A text as a workflow command takes it: percent signs, line ends and what separates properties encoded."""
    for character in ("%", "\r", "\n", *also):
        text = text.replace(character, f"%{ord(character):02X}")
    return text

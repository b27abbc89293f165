"""Results → what people and programs read: terminal text, markdown, JSON. Faults are told by `fault_report`.

Nothing is decided here. Terminal text is made of rich's `Text`, never of markup, so that brackets in names stay as
they are; colours are dropped by rich where nobody looks.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.fault_report import fault_json, problems_markdown
from orchestrator.markdown import cell, table
from orchestrator.model import (
    BootstrapResult,
    Change,
    ChangeResult,
    CleanupResult,
    DeploymentResult,
    EnvironmentStatus,
    FieldDiff,
    Plan,
    RunReport,
)
from orchestrator.plain_text import one_line

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
        line = Text(f"{SIGNS[change.action]} {one_line(change.deployment)}", style=COLOURS[change.action])
        yield line.append(f"  {'; '.join(change.reasons)}", style="dim")
    for diff in change.fields:
        yield Text(f"    {_diff_line(diff)}")
    for kept in change.kept:
        yield Text(f"    kept {one_line(change.deployment)} {kept}", style="cyan")


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
        return Text(f"{sign} {one_line(item.deployment)}", style=style)
    return Text(f"{sign} {one_line(item.deployment)}  {item.status}: {item.error}", style="bold red")


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
        lines.append(
            Text(f"{'=' if good else '!'} {one_line(item.deployment)}  {words}", style="green" if good else "red")
        )
        lines += [Text(f"    {problem}", style="yellow") for problem in item.problems]
    healthy = sum(item.in_sync and item.ready for item in status.deployments)
    end = f"{status.environment} on {status.api_url}: {healthy} of {len(status.deployments)} in sync and ready"
    return Group(*lines, Text(end, style="bold"))


def run_text(run: RunReport) -> RenderableType:
    """A run and everything it started, indented by depth, failures with their reason."""
    lines: list[Text] = []
    for each in (run, *run.descendants):
        style = "green" if each.succeeded else "bold red"
        line = Text("  " * each.depth + f"{one_line(each.flow)} ({one_line(each.name)})  ")
        lines.append(line.append(each.state_name, style=style).append(f"  {each.seconds:.1f} s", style="dim"))
        if not each.succeeded and each.message:
            lines.append(Text("  " * each.depth + f"    {each.message}", style="red"))
    done = sum(each.succeeded for each in run.descendants)
    end = [Text(f"{done} of {len(run.descendants)} child runs completed", style="bold")] if run.descendants else []
    return Group(*lines, *end)


# ---------------------------------------------------------------------------------------------------------
# Markdown, for artifacts in the Prefect UI
# ---------------------------------------------------------------------------------------------------------


def plan_markdown(plan: Plan) -> str:
    """A plan as the artifact `plan-<environment>`."""
    rows = [
        (
            f"`{SIGNS[change.action]}` {change.action}",
            _linked(change),
            cell("; ".join((*change.reasons, *change.kept))),
        )
        for change in plan.changes
        if change.action != "unchanged" or change.kept
    ]
    parts = [f"## {headline(plan.environment, plan.summary)}", f"{counts(plan.summary).capitalize()}."]
    parts += [table(("Action", "Deployment", "Why"), rows)] if rows else []
    parts += [_details(change) for change in plan.changes if change.fields]
    parts += [problems_markdown(plan.problems)] if plan.problems else []
    return "\n\n".join(parts)


def _linked(change: Change) -> str:
    name = cell(change.deployment)
    return f"[{name}](../../deployments/deployment/{change.live.id})" if change.live else name


def _details(change: Change) -> str:
    rows = [(f"`{diff.path}`", _code(diff.before), _code(diff.after)) for diff in change.fields]
    title = f"{change.deployment}: {len(rows)} differences"
    return f"<details><summary>{title}</summary>\n\n{table(('Field', 'Live', 'Repository'), rows)}\n\n</details>"


def result_markdown(result: DeploymentResult) -> str:
    """A result as the artifact `deployments-<environment>`."""
    rows = [
        (f"`{SIGNS[item.action]}` {item.action}", cell(item.deployment), item.status, cell(item.error or ""))
        for item in result.results
        if item.status != "unchanged"
    ]
    parts = [f"## {headline(result.environment, result.summary)}", f"**{result.status}**"]
    parts += [table(("Action", "Deployment", "Result", "Error"), rows)] if rows else []
    parts += [f"{result.summary['unchanged']} unchanged."] if result.summary["unchanged"] else []
    parts += [problems_markdown(result.problems)] if result.problems else []
    return "\n\n".join(parts)


def _code(value: Any) -> str:
    text = shown(value).replace("`", "'").replace("|", "\\|")
    return f"`{text}`" if text else ""


# ---------------------------------------------------------------------------------------------------------
# JSON: keys that stay stable
# ---------------------------------------------------------------------------------------------------------


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

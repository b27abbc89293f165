"""Results → what people and programs read: terminal text, markdown, JSON. Plans are told by `plan_report`, faults by
`fault_report`.

Nothing is decided here. Terminal text is made of rich's `Text`, never of markup, so that brackets in names stay as
they are; colours are dropped by rich where nobody looks.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.fault_report import fault_json, problems_markdown
from orchestrator.images.report import STATUS_COLOURS, result_line, results_json, results_markdown_rows
from orchestrator.markdown import folded, plain, table
from orchestrator.model import (
    BootstrapResult,
    ChangeResult,
    CleanupResult,
    DeploymentResult,
    EnvironmentStatus,
    Finding,
    ResourceResult,
    RunReport,
)
from orchestrator.plain_text import one_line
from orchestrator.plan_report import (
    COLOURS,
    FINDING_HEADINGS,
    SIGNS,
    Hanging,
    finding_line,
    finding_row,
    headline,
    shown,
)

MANY = 3  # deployments with one problem, from which on it is told once for all of them

# ---------------------------------------------------------------------------------------------------------
# Terminal
# ---------------------------------------------------------------------------------------------------------


def result_text(result: DeploymentResult) -> RenderableType:
    """What an apply did, and what reading back showed; what is unchanged is counted."""
    lines = [(Text(), Text(result_line(image), style=STATUS_COLOURS[image.status])) for image in result.images]
    lines += [(Text("    "), Text(line, style="dim")) for image in result.images for line in image.output]
    lines += [_result_line(item) for item in _changed(result)]
    lines += _finding_lines(result.findings)
    style = "bold red" if result.status in ("degraded", "interrupted") else "bold green"
    end = f"{headline(result.environment, result)}  {_verdict(result)}{_aside(result)}"
    lines.append((Text(), Text(end, style=style)))
    return Hanging(lambda width: lines)


def _finding_lines(findings: Mapping[str, tuple[Finding, ...]]) -> Iterator[tuple[Text, Text]]:
    for place, found in findings.items():
        yield Text(), Text(f"? {one_line(place)}", style="yellow")
        yield from map(finding_line, found)


def _verdict(result: DeploymentResult) -> str:
    if any(item.status == "restored" for item in result.outcomes):
        stands = sum(item.status == "applied" for item in result.outcomes)
        not_all = f", {stands} changes stand" if stands else ""
        return f"{'INTERRUPTED' if result.is_interrupted else 'FAILED'}: what was set back is told above{not_all}"
    asked = sum(item.status != "unchanged" for item in result.outcomes)
    left = f"{len(result.failed)} of {asked} not made" if result.failed else ""
    go_on = f"{left}; the same command goes on from here" if left else "all was made, `orchestrator status` verifies it"
    words = {
        "no-changes": "nothing to change",
        "completed": "done",
        "degraded": f"DEGRADED: {left or 'see above'}",
        "interrupted": f"INTERRUPTED: {go_on}",
    }
    return words[result.status]


def _aside(result: DeploymentResult) -> str:
    """` (revision 12, 40 unchanged)`."""
    unchanged = result.summary["unchanged"]
    said = [f"revision {result.revision}"] if result.revision is not None else []
    said += [f"{unchanged} unchanged"] if unchanged else []
    return f" ({', '.join(said)})" if said else ""


def _changed(result: DeploymentResult) -> Iterator[ChangeResult | ResourceResult]:
    """What became of everything that was to change."""
    return (item for item in result.outcomes if item.status != "unchanged")


def _result_line(item: ChangeResult | ResourceResult) -> tuple[Text, Text]:
    line = f"{SIGNS[item.action]} {one_line(item.label)}"
    if item.status == "applied" and not item.error:
        return Text(), Text(line, style=COLOURS[item.action])
    style = "yellow" if item.status == "restored" else "bold red"
    why = f"{item.status}: {item.error}" if item.error else item.status
    return Text(f"{line}  ", style=style), Text(why, style=style)


def cleanup_text(result: CleanupResult) -> RenderableType:
    said = [Text(f"- {path}", style="red") for path in result.deleted]
    said += [Text(f"= {path}  not ours: left as it is", style="dim") for path in result.foreign]
    said += [Text(f"! {path}  failed: {reason}", style="bold red") for path, reason in result.failed.items()]
    end = "" if said else f": nothing of ours matches {result.pattern}"
    end = "  INTERRUPTED" if result.status == "interrupted" else end
    lines = [(Text(), text) for text in said]
    lines += _finding_lines(result.findings)
    lines.append((Text(), Text(f"{len(result.deleted)} deleted{end}", style="bold")))
    return Hanging(lambda width: lines)


def status_text(status: EnvironmentStatus, *, hold: str = "") -> RenderableType:
    """One line per deployment, what is wrong below it.

    Args:
        status: how the deployments stand.
        hold: why scheduled syncs are held, and how to go on; empty: they are not.
    """
    lines = [(Text("! ", style="bold magenta"), Text(hold, style="bold magenta"))] if hold else []
    for change in status.resources:
        fields = [f"{diff.path} {shown(diff.before)} → {shown(diff.after)}" for diff in change.fields]
        said = "; ".join((*change.reasons, *fields))
        lines.append((Text(), Text(f"! {change.resource} {one_line(change.name)}  to {change.action}", style="red")))
        lines += [(Text("    "), Text(said, style="yellow"))] if said else []
    common = _common_problems(status)
    for item in status.deployments:
        good = item.in_sync and item.ready
        words = f"{'in sync' if item.in_sync else 'OUT OF SYNC'}, {'ready' if item.ready else 'NOT READY'}"
        style = "green" if good else "red"
        lines.append((Text(), Text(f"{'=' if good else '!'} {one_line(item.deployment)}  {words}", style=style)))
        lines += [(Text("    "), Text(problem, style="yellow")) for problem in item.problems if problem not in common]
    for words, count in common.items():
        lines.append((Text(f"! {count} deployments: ", style="red"), Text(words, style="yellow")))
    healthy = sum(item.in_sync and item.ready for item in status.deployments)
    end = f"{status.environment} on {status.api_url}: {healthy} of {len(status.deployments)} in sync and ready"
    if status.resources:  # they may be far above
        end += f"; {len(status.resources)} of the pools and limits not as the environment says"
    lines.append((Text(), Text(end, style="bold")))
    return Hanging(lambda width: lines)


def _common_problems(status: EnvironmentStatus) -> dict[str, int]:
    """What many deployments have in common, such as a pool without a worker, and how many: it is told once."""
    counted = Counter(problem for item in status.deployments for problem in item.problems)
    return {problem: count for problem, count in counted.items() if count >= MANY}


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


def result_markdown(result: DeploymentResult) -> str:
    """A result as the artifact `deployments-<environment>`."""
    rows = [
        (f"`{SIGNS[item.action]}` {item.action}", plain(item.label), item.status, folded(item.error or ""))
        for item in _changed(result)
    ]
    findings = [finding_row(name, finding) for name, found in result.findings.items() for finding in found]
    parts = [f"## {headline(result.environment, result)}", f"**{result.status}**"]
    parts += [f"Revision {result.revision}."] if result.revision is not None else []
    images = [(status, plain(name), folded(*end)) for status, name, end in results_markdown_rows(result.images)]
    parts += [table(("Image", "Name", "Pinned, or why not"), images)] if images else []
    parts += [table(("Action", "Deployment", "Result", "Error"), rows)] if rows else []
    parts += [table(FINDING_HEADINGS, findings)] if findings else []
    parts += [f"{result.summary['unchanged']} unchanged."] if result.summary["unchanged"] else []
    parts += [problems_markdown(result.problems)] if result.problems else []
    return "\n\n".join(parts)


# ---------------------------------------------------------------------------------------------------------
# JSON: keys that stay stable
# ---------------------------------------------------------------------------------------------------------


def result_json(result: DeploymentResult) -> dict[str, Any]:
    return {
        "environment": result.environment,
        "api_url": result.api_url,
        "revision": result.revision,
        "status": result.status,
        "summary": result.summary,
        "resource_summary": result.resource_summary,
        "images": results_json(result.images),
        "resources": [dataclasses.asdict(item) for item in result.resources],
        "results": [dataclasses.asdict(item) for item in result.results],
        "findings": _findings_json(result.findings),
        "problems": [fault_json(problem) for problem in result.problems],
    }


def _findings_json(findings: Mapping[str, tuple[Finding, ...]]) -> dict[str, Any]:
    return {place: [dataclasses.asdict(each) for each in found] for place, found in findings.items()}


def cleanup_json(result: CleanupResult) -> dict[str, Any]:
    return {
        "status": result.status,
        "pattern": result.pattern,
        "deleted": result.deleted,
        "foreign": result.foreign,
        "failed": dict(result.failed),
        "findings": _findings_json(result.findings),
    }


def status_json(status: EnvironmentStatus, *, hold: str = "") -> dict[str, Any]:
    problems = [fault_json(problem) for problem in status.problems]
    return {**dataclasses.asdict(dataclasses.replace(status, problems=())), "problems": problems, "hold": hold or None}


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

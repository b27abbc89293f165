"""Plan → what people and programs read: terminal text, markdown, JSON.

Nothing is decided here. Terminal text is made of rich's `Text`, never of markup, so that brackets in names stay as
they are; colours are dropped by rich where nobody looks.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from io import StringIO
from typing import Any, Protocol

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from orchestrator.fault_report import fault_json, problems_markdown
from orchestrator.images.report import planned_json, planned_lines, planned_rows
from orchestrator.markdown import details, folded, plain, table
from orchestrator.masking import HIDDEN
from orchestrator.model import Cause, Change, DeploymentConfig, FieldDiff, Finding, Plan, ResourceChange
from orchestrator.plain_text import one_line

SIGNS = {"create": "+", "adopt": "+", "update": "~", "delete": "-", "unchanged": "=", "conflict": "!"}
COLOURS = {
    "create": "green",
    "adopt": "green",
    "update": "yellow",
    "delete": "red",
    "unchanged": "dim",
    "conflict": "bold magenta",
}
SEVERITY_COLOURS = {"error": "bold red", "warning": "yellow"}
MARKS: dict[Cause, tuple[str, str]] = {
    "server": ("← changed on the server", "cyan"),
    "both": ("← changed on both sides", "magenta"),
}
LONGEST_VALUE = 100  # characters of a value in a diff; the rest is cut and said
KEPT_BEFORE = 30  # characters that are shown before the first difference of two long values
LONGEST_COMMENT = 60_000  # characters of markdown: GitHub takes 65,536 in a comment
LONGEST_ARTIFACT = 500_000
WIDEST_PATH = 44  # columns
DETAILS_WIDTH = 100  # columns: what the UI shows beside its own
INDENT = "    "
FINDING_HEADINGS = ("Severity", "Deployment", "What, and what to do")
_LONG_DIGEST = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}\b")  # of an image; a dozen digits tell it from others
GAP = "\n\n"  # between two parts of markdown
AROUND = "pools and limits"  # what deployments need around them, queues included, where all of it is counted
COUNT_WORDS = {
    "create": "to create",
    "update": "to update",
    "delete": "to delete",
    "adopt": "to adopt",
    "conflict": "in conflict",
    "unchanged": "unchanged",
}


class Counted(Protocol):
    """What counts its changes: a plan, the result of an apply, a revision."""

    @property
    def summary(self) -> Mapping[Any, int]:
        """How many changes of each action."""

    @property
    def resource_summary(self) -> Mapping[Any, int]:
        """The same for pools, queues and limits."""


def headline(environment: str, counted: Counted) -> str:
    """What changes in an environment, in one line: the name of a run, the title of an artifact."""
    return f"{environment}: {signs(counted)}"


def signs(counted: Counted) -> str:
    """`+8 ~0 -0`, ` !1` where deployments are in conflict, and `, pools and limits +1 ~2` where any of them changes."""
    summary, around = counted.summary, counted.resource_summary
    created = summary["create"] + summary["adopt"]
    said = f"+{created} ~{summary['update']} -{summary['delete']}{_conflicts(summary)}"
    if not any(around.get(action) for action in ("create", "update", "conflict")):
        return said  # as of what older versions recorded, which has no such counts
    return f"{said}, {AROUND} +{around['create']} ~{around['update']}{_conflicts(around)}"


def _conflicts(summary: Mapping[Any, int]) -> str:
    return f" !{summary['conflict']}" if summary["conflict"] else ""


def counts(counted: Counted) -> str:
    """`8 to create, 1 unchanged; pools and limits: 1 to update`: what there is, nothing else."""
    around = _in_words({**counted.resource_summary, "unchanged": 0})
    parts = [_in_words(counted.summary), f"{AROUND}: {around}" if around else ""]
    return "; ".join(filter(None, parts)) or "nothing to do"


def _in_words(summary: Mapping[Any, int]) -> str:
    return ", ".join(f"{summary[action]} {word}" for action, word in COUNT_WORDS.items() if summary.get(action))


def notes(plan: Plan) -> tuple[str, ...]:
    """What a reader should know besides the counts: drift, and changes that cannot be made."""
    stopped = sum(change.writes and bool(change.obstacles) for change in plan.changes)
    found = []
    if plan.too_much:
        found.append(f"apply refuses this without --allow-delete: it would {plan.too_much}")
    if plan.hold is not None and plan.has_changes:
        who = plan.hold.by or "somebody"
        found.append(f"{who} went back to revision {plan.hold.revision}: applying this undoes that rollback")
    if drifted := _drifted(plan):
        found.append(f"{drifted} changed on the server since revision {plan.last_revision}")
    if stopped:
        found.append(f"{_number(stopped, 'change')} cannot be made: see the errors")
    return tuple(found)


def _drifted(plan: Plan) -> str:
    """`1 deployment and 2 pools or limits`: what somebody changed; empty where nobody did."""
    deployments = sum(change.is_drift for change in plan.changes)
    around = sum(change.is_drift for change in plan.resources)
    said = [_number(deployments, "deployment")] if deployments else []
    said += [_number(around, "pool or limit", "pools or limits")] if around else []
    return " and ".join(said)


def _number(count: int, noun: str, nouns: str = "") -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {nouns or f'{noun}s'}"


# ---------------------------------------------------------------------------------------------------------
# Values and runs in words
# ---------------------------------------------------------------------------------------------------------


def shown(value: Any) -> str:
    """A value in a diff: JSON, cut where it is long."""
    return _cut(_on_one_line(value))


def shown_pair(diff: FieldDiff) -> tuple[str, str]:
    """Both values of a difference, so that the difference is seen: long ones are cut around it."""
    before, after = _on_one_line(diff.before), _on_one_line(diff.after)
    if before == after and diff.before != HIDDEN:  # "5" and 5, or only white space differs
        before, after = (json.dumps(value, default=str, ensure_ascii=False) for value in (diff.before, diff.after))
    same = next((at for at, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), 0)
    if same > KEPT_BEFORE and max(len(before), len(after)) > LONGEST_VALUE:
        before, after = (f"…{text[same - KEPT_BEFORE :]}" for text in (before, after))
    return _cut(before), f"{_cut(after)} (another value)" if before == after else _cut(after)


def _on_one_line(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return _LONG_DIGEST.sub(r"\1…", " ".join(text.split()))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}… ({len(text)} characters)"


def created(config: DeploymentConfig) -> str:
    """What a new deployment will do, in a line."""
    where = f"in {config.work_pool}" if config.work_pool else "in no pool"
    words = [where, config.schedule or "no schedule", *(["paused"] if config.paused else [])]
    given = ", ".join(sorted(map(str, config.parameters)))
    return one_line("; ".join([*words, *([f"parameters {given}"] if given else [])]))


def runs_in_words(change: Change) -> str:
    """`3 scheduled runs, next 2026-11-22 04:00 UTC; 1 running`; empty where there are none."""
    runs, removed = change.runs, change.action == "delete"
    more = "at least " if runs.is_more else ""
    parts = []
    if runs.scheduled:
        following = f", next {_moment(runs.next_start)}" if runs.next_start else ""
        words = f"{more}{_number(runs.scheduled, 'scheduled run')}{following}"
        parts.append(f"removes {words}" if removed else words)
    if runs.running:
        goes_on = " (goes on)" if removed else ""
        parts.append(f"{runs.running} running{goes_on}")
    return "; ".join(parts)


def _moment(iso: str) -> str:
    try:
        return datetime.fromisoformat(iso).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return iso


# ---------------------------------------------------------------------------------------------------------
# Terminal
# ---------------------------------------------------------------------------------------------------------


def plan_text(plan: Plan) -> RenderableType:
    """A plan: one line per change, its differences below; what is unchanged is counted, not listed."""
    return Hanging(lambda width: _plan_lines(plan, width))


class Hanging:
    """Lines that are laid out for the width that there is.

    Each line has a prefix and a body; what does not fit goes on below the body, not below the prefix.

    Args:
        lines: gives prefixes and bodies for a width in columns.
    """

    def __init__(self, lines: Callable[[int], Iterable[tuple[Text, Text]]]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for prefix, body in self._lines(options.max_width):
            yield from _folded(prefix, body, console, options.max_width)


def _folded(prefix: Text, body: Text, console: Console, width: int) -> Iterator[Text]:
    room = max(width - prefix.cell_len, 20)
    lines = body.wrap(console, room) if body.cell_len > room else [body]
    for number, line in enumerate(lines):
        line.rstrip()
        first = prefix if number == 0 else Text(" " * prefix.cell_len)
        yield Text.assemble(first, line)  # `+` would give the line the style of the prefix


def _plan_lines(plan: Plan, width: int) -> Iterator[tuple[Text, Text]]:
    for resource in plan.resources:
        if resource.action != "unchanged":
            yield from _resource_lines(resource, width)
    yield from planned_lines(plan)
    listed = [change for change in plan.changes if change.action != "unchanged" or change.kept]
    shared = _shared(plan)
    for change in listed:
        yield from _change_lines(change, width, shared)
    for finding, number in shared.items():
        _, body = finding_line(finding)
        yield Text(f"! {_number(number, 'deployment')}  ", style=SEVERITY_COLOURS[finding.severity]), body
    yield from [(Text(), Text())] if listed or plan.resources or plan.images else []
    yield from _total_lines(plan, width)
    for note in notes(plan):
        yield (
            Text("  "),
            Text(
                note, style="bold red" if "cannot" in note or "undoes" in note else "cyan" if "server" in note else ""
            ),
        )


def _total_lines(plan: Plan, width: int) -> Iterator[tuple[Text, Text]]:
    """What there is, by signs and in words; the words go below the signs where both do not fit."""
    said, words = headline(plan.environment, plan), counts(plan)
    if len(f"{said}  ({words})") <= width:
        yield Text(), Text(f"{said}  ({words})", style="bold")
    else:
        yield Text(), Text(said, style="bold")
        yield Text("  "), Text(words, style="bold")


def _shared(plan: Plan) -> dict[Finding, int]:
    """The warnings that several deployments have, such as a pool without a worker: told once."""
    found = Counter(each for change in plan.changes for each in change.findings if each.severity == "warning")
    return {finding: number for finding, number in found.items() if number > 1}


def _resource_lines(change: ResourceChange, width: int) -> Iterator[tuple[Text, Text]]:
    yield from _head(change.action, f"{change.resource} {change.name}", change.reasons, width)
    yield from _diff_lines(change.fields, width)


def _change_lines(change: Change, width: int, shared: Collection[Finding] = ()) -> Iterator[tuple[Text, Text]]:
    yield from _head(change.action, change.deployment, change.reasons, width)
    if change.action == "create" and change.desired:
        yield Text(INDENT), Text(created(change.desired), style="dim")
    yield from _diff_lines(change.fields, width)
    for finding in change.findings:
        if finding not in shared:
            yield finding_line(finding)
    if runs_in_words(change):
        yield Text(f"{INDENT}runs  ", style="bright_blue"), Text(runs_in_words(change))
    for kept in change.kept:
        yield Text(f"{INDENT}kept  ", style="cyan"), Text(kept, style="cyan")


def _head(action: str, name: str, reasons: Sequence[str], width: int) -> Iterator[tuple[Text, Text]]:
    """The line of a change; long reasons go below a long name."""
    line = Text(f"{SIGNS[action]} {one_line(name)}", style=COLOURS[action])
    why = Text("; ".join(reasons), style="dim")
    if line.cell_len > width // 2 and line.cell_len + why.cell_len + 2 > width:
        yield line, Text()
        yield Text(INDENT), why
    else:
        yield Text.assemble(line, "  " if reasons else ""), why


def finding_line(finding: Finding) -> tuple[Text, Text]:
    """What speaks against a change, and what to do."""
    style = SEVERITY_COLOURS[finding.severity]
    body = Text.assemble((finding.message, style), f"  {finding.remedy}" if finding.remedy else "")
    return Text(f"{INDENT}{finding.severity}  ", style=style), body


def _diff_lines(fields: Sequence[FieldDiff], width: int) -> Iterator[tuple[Text, Text]]:
    column = min(max((len(diff.path) for diff in fields), default=0), WIDEST_PATH)
    for diff in fields:
        path = Text(f"{INDENT}{one_line(diff.path):<{column}}  ")
        before, after = (Text.assemble(side) for side in _values(diff))
        mark = Text.assemble(MARKS[diff.cause]) if diff.cause in MARKS else Text()
        line = Text.assemble(before, (" → ", "dim"), after, "  " if mark else "", mark)
        if path.cell_len + line.cell_len <= width:
            yield path, line
        else:
            yield path, before
            yield Text(" " * (path.cell_len - 2) + "→ ", style="dim"), after
            yield from [(Text(" " * path.cell_len), mark)] if mark else []


def _values(diff: FieldDiff) -> Iterator[tuple[str, str]]:
    """The live and the desired value with their styles; what is not there or empty is said in words."""
    said = shown_pair(diff)
    for value, text, style in zip((diff.before, diff.after), said, ("red", "green"), strict=True):
        if value is None or value in ("", [], {}):
            yield "none" if value is None else "empty", "dim"
        else:
            yield text, style


# ---------------------------------------------------------------------------------------------------------
# Markdown: for artifacts in the Prefect UI, and for comments on a pull request
# ---------------------------------------------------------------------------------------------------------


def plan_markdown(plan: Plan, *, with_links: bool = True, longest: int = LONGEST_ARTIFACT) -> str:
    """A plan as the artifact `plan-<environment>`, or as a comment on a pull request.

    Args:
        plan: the plan.
        with_links: link deployments, relative to the page of an artifact; False for any other place.
        longest: roughly how many characters it may have: what comes last is left out, and said so.
    """
    parts = [f"## {headline(plan.environment, plan)}", f"{counts(plan).capitalize()}."]
    parts += [f"{note[0].upper()}{note[1:]}." for note in notes(plan)]
    in_cell = folded if with_links else _whole
    resources = [_resource_row(change, in_cell) for change in plan.resources if change.action != "unchanged"]
    parts += [table(("Action", "Pool or limit", "Why"), resources)] if resources else []
    images = [(done, plain(name), in_cell(*why)) for done, name, why in planned_rows(plan)]
    parts += _fitting_rows(("Image", "Name", "Why"), images, longest // 4)
    rows = [
        _row(change, with_links=with_links) for change in plan.changes if change.action != "unchanged" or change.kept
    ]
    parts += _fitting_rows(("Action", "Deployment", "Why"), rows, longest // 2)
    shared = _shared(plan)
    findings = [
        finding_row(change.deployment, finding, in_cell)
        for change in plan.changes
        for finding in change.findings
        if finding not in shared
    ]
    findings += [finding_row(_number(number, "deployment"), finding, in_cell) for finding, number in shared.items()]
    parts += _fitting_rows(FINDING_HEADINGS, findings, longest // 4)
    parts += [problems_markdown(plan.problems)] if plan.problems else []
    differences = [_details(change) for change in plan.changes if change.fields]
    room = longest - sum(len(part) + len(GAP) for part in parts)
    parts += _fitting(differences, room, "more with differences")
    return GAP.join(parts)


def _whole(*texts: str) -> str:
    """Texts as a cell takes them where cells wrap by themselves: a command in them can be copied."""
    return plain("; ".join(text.rstrip(".") for text in texts if text))


def _resource_row(change: ResourceChange, in_cell: Callable[..., str]) -> tuple[str, str, str]:
    fields = [f"{diff.path}: {_both(diff)}{_mark(diff)}" for diff in change.fields]
    name = plain(f"{change.resource} {change.name}")
    return f"`{SIGNS[change.action]}` {change.action}", name, in_cell(*change.reasons, *fields)


def _both(diff: FieldDiff) -> str:
    return " → ".join(text for text, _ in _values(diff))


def _mark(diff: FieldDiff) -> str:
    return f" {MARKS[diff.cause][0]}" if diff.cause in MARKS else ""


def _row(change: Change, *, with_links: bool) -> tuple[str, str, str]:
    name = plain(change.deployment)
    if with_links and change.live:
        name = f"[{name}](../../deployments/deployment/{change.live.id})"
    more = [
        *([created(change.desired)] if change.action == "create" and change.desired else []),
        *([f"runs: {runs_in_words(change)}"] if runs_in_words(change) else []),
        *map("kept: {}".format, change.kept),
    ]
    why = (folded if with_links else _whole)(*change.reasons, *more)
    return f"`{SIGNS[change.action]}` {change.action}", name, why


def finding_row(deployment: str, finding: Finding, in_cell: Callable[..., str] = folded) -> tuple[str, str, str]:
    """A row of a table of findings, for `FINDING_HEADINGS`."""
    return finding.severity, plain(deployment), in_cell(finding.message, finding.remedy)


def _details(change: Change) -> str:
    """The differences of one change as on a terminal, folded away."""
    output = StringIO()
    lines = Hanging(lambda width: _diff_lines(change.fields, width))
    Console(file=output, width=DETAILS_WIDTH).print(lines)
    return details(f"{one_line(change.deployment)}: {_number(len(change.fields), 'difference')}", output.getvalue())


def _fitting_rows(headings: Sequence[str], rows: Sequence[Sequence[str]], longest: int) -> list[str]:
    """A table of as many rows as fit, and how many more there are; nothing without rows."""
    if not rows:
        return []
    taken = list(_as_many(rows, longest, lambda row: sum(map(len, row)) + 3 * len(row)))
    rest = [f"… and {len(rows) - len(taken)} more."] if len(taken) < len(rows) else []
    return [table(headings, taken), *rest]


def _fitting(parts: Sequence[str], longest: int, what: str) -> list[str]:
    rest = f"… and {len(parts)} {what}."
    taken = list(_as_many(parts, longest - len(rest), lambda part: len(part) + len(GAP)))
    return [*taken, *([f"… and {len(parts) - len(taken)} {what}."] if len(taken) < len(parts) else [])]


def _as_many(items: Iterable[Any], longest: int, size: Any) -> Iterator[Any]:
    for item in items:
        longest -= size(item)
        if longest < 0:
            return
        yield item


# ---------------------------------------------------------------------------------------------------------
# JSON: keys that stay stable
# ---------------------------------------------------------------------------------------------------------


def plan_json(plan: Plan) -> dict[str, Any]:
    return {
        "environment": plan.environment,
        "api_url": plan.api_url,
        "checksum": plan.checksum,
        "last_revision": plan.last_revision,
        "summary": plan.summary,
        "resource_summary": plan.resource_summary,
        "images": [planned_json(image) for image in plan.images],
        "resources": [_resource_json(change) for change in plan.resources],
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
        "runs": dataclasses.asdict(change.runs),
        "findings": [dataclasses.asdict(finding) for finding in change.findings],
    }


def _resource_json(change: ResourceChange) -> dict[str, Any]:
    return {
        "action": change.action,
        "resource": change.resource,
        "name": change.name,
        "reasons": change.reasons,
        "fields": [dataclasses.asdict(diff) for diff in change.fields],
    }

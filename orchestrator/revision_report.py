"""Revisions and holds → what people and programs read: terminal text and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.model import DEFAULT_ENVIRONMENT, Hold, Plan, Provenance, Revision
from orchestrator.plain_text import one_line
from orchestrator.plan_report import signs
from orchestrator.recording import runs_from_folder

SHOWN_OF_COMMIT = 12  # characters
SHOWN_DEPLOYMENTS = 5  # names in a sentence


def history_text(environment: str, revisions: Sequence[Revision], hold: Hold | None = None) -> RenderableType:
    """One line per revision, the newest first; an asterisk marks a commit that files differed from."""
    parts: list[RenderableType] = [Text(hold_line(hold), style="bold magenta")] if hold else []
    if not revisions:
        words = f"nothing is recorded for {environment} yet: the first apply that changes something is revision 1"
        return Group(*parts, Text(words, style="dim"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Revision", "When (UTC)", "Commit", "Result", "Changes", "By", "How"):
        is_copied = title in ("Revision", "Commit")
        table.add_column(title, justify="right" if title == "Revision" else "left", overflow="fold", no_wrap=is_copied)
    for revision in revisions:
        table.add_row(*_cells(revision))
    if any(revision.provenance.is_dirty for revision in revisions):
        parts_below = [Text("* applied from files that differ from the commit", style="dim")]
        return Group(*parts, table, *parts_below)
    return Group(*parts, table)


def _cells(revision: Revision) -> Iterator[Text]:
    source = revision.provenance
    yield Text(str(revision.number), style="bold")
    yield Text(_moment(revision.applied_at))
    yield Text(short_commit(revision), style="yellow" if source.is_dirty else "")
    word = "not made" if revision.status == "interrupted" else "failed"
    failed = f", {revision.failed} {word}" if revision.failed else ""
    yield Text(revision.status + failed, style="green" if revision.status == "completed" else "bold red")
    yield Text(signs(revision))
    yield Text(one_line(source.by))
    yield Text(one_line(_how(source)))


def _how(source: Provenance) -> str:
    """What started an apply; the note of a rollback or promotion says so itself."""
    if source.note and source.trigger in ("rollback", "promotion"):
        return source.note
    return f"{source.trigger}: {source.note}" if source.note else source.trigger


def short_commit(revision: Revision) -> str:
    """The first characters of a commit, with an asterisk where files differed from it."""
    source = revision.provenance
    if source.commit is None:
        return "no commit"
    return source.commit[:SHOWN_OF_COMMIT] + ("*" if source.is_dirty else "")


def _moment(written: str) -> str:
    """`2026-11-22 06:31:59`; what is no time stays as it is."""
    try:
        return datetime.fromisoformat(written).strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return written


def hold_line(hold: Hold) -> str:
    """That scheduled sync waits, why, and how to go on."""
    who = f" by {one_line(hold.by)}" if hold.by else ""
    return (
        f"Scheduled sync of {hold.owner.environment} waits until the repository asks for something else: gone back to "
        f"revision {hold.revision}{who} at {_moment(hold.at)} UTC. `orchestrator rollback --release"
        f"{'' if hold.owner.environment == DEFAULT_ENVIRONMENT else f' --env {hold.owner.environment}'}` lifts this."
    )


def folder_lines(plan: Plan, source: Revision, right: Path | None = None) -> tuple[str, ...]:
    """What going to other sources leaves as it is: code that runs from a folder, one line for each folder.

    Args:
        plan: what is to be done.
        source: the revision whose commit the code should be at.
        right: a checkout that is at that commit.
    """
    by_folder: dict[str, list[str]] = {}
    for change in plan.changes:
        if not change.writes or change.desired is None or change.desired.origin == "deployer":
            continue
        folder = runs_from_folder(change.desired)
        if folder is not None and not (right and Path(folder).is_relative_to(right)):
            by_folder.setdefault(folder, []).append(change.deployment)
    commit, is_dirty = source.provenance.commit, source.provenance.is_dirty
    has_code = commit is not None and not is_dirty
    remedy = f"Check out {short_commit(source)} there for its code." if has_code else "No commit has its code."
    return tuple(
        f"The code that deployments run in {folder} stays as it is: {_some(names)}. {remedy}"
        for folder, names in sorted(by_folder.items())
    )


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_DEPLOYMENTS
    listed = ", ".join(one_line(name) for name in names[:SHOWN_DEPLOYMENTS])
    return f"{listed} and {more} more" if more > 0 else listed


def history_json(revisions: Sequence[Revision], hold: Hold | None = None) -> dict[str, Any]:
    return {"revisions": [revision_json(revision) for revision in revisions], "hold": hold_json(hold)}


def revision_json(revision: Revision) -> dict[str, Any]:
    """A revision, flat: what applies to the owner and the provenance stands beside the rest."""
    values = asdict(revision)
    owner, source = values.pop("owner"), values.pop("provenance")
    return {"number": values.pop("number"), **owner, **source, **values}


def hold_json(hold: Hold | None) -> dict[str, Any] | None:
    if hold is None:
        return None
    return {"revision": hold.revision, "by": hold.by, "at": hold.at}

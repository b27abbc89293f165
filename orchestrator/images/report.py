"""Images → what people and programs read: lines of a plan, results of builds, JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.images.names import shown_name, without_secrets_of
from orchestrator.model import ImageResult, OldImage, Plan, PlannedImage
from orchestrator.plain_text import one_line, visible

ACTION_WORDS = {"reuse": "is there", "push": "to push", "build": "to build", "unknown": "not known"}
ACTION_SIGNS = {"reuse": "=", "push": "↑", "build": "*", "unknown": "?"}
ACTION_COLOURS = {"reuse": "dim", "push": "green", "build": "green", "unknown": "bold red"}
STATUS_COLOURS = {
    "built": "green",
    "pushed": "green",
    "pulled": "green",
    "reused": "dim",
    "skipped": "yellow",
    "failed": "bold red",
}
DIGITS = len("sha256:") + 12  # of a digest, where it need not be exact
LOCAL = "in this machine's engine only"
INDENT = (0, 0, 0, 4)  # above, right, below, left


def planned_lines(plan: Plan) -> Iterator[tuple[Text, Text]]:
    """The images of a plan that something has to be done about, as prefixes and bodies; the others are counted."""
    for image in plan.images:
        if image.action != "reuse" or image.findings:
            style = ACTION_COLOURS[image.action]
            why = "; ".join(filter(None, (ACTION_WORDS[image.action], image.reason, _users(plan, image))))
            name = Text.assemble((one_line(shown_name(image)), style), (f"  {one_line(why)}", "dim"))
            yield Text(f"{ACTION_SIGNS[image.action]} image ", style=style), name
    if there := [image for image in plan.images if image.action == "reuse"]:
        noun = "1 image is" if len(there) == 1 else f"{len(there)} images are"
        local = sum(not image.spec.is_pushed for image in there)
        yield Text("= "), Text(f"{noun} there{f', {local} {LOCAL}' if local else ''}", style="dim")


def _users(plan: Plan, image: PlannedImage) -> str:
    names = [
        change.deployment
        for change in plan.changes
        if change.desired and image.name in {name for name, _ in change.desired.images}
    ]
    many = f"for {len(names)} deployments" if names else ""
    return f"for {names[0]}" if len(names) == 1 else many


def planned_rows(plan: Plan) -> list[tuple[str, str, tuple[str, ...]]]:
    """Rows of a table for markdown: what is to be done, the image without its registry, and why."""
    rows = []
    for image in plan.images:
        local = "" if image.spec.is_pushed else LOCAL
        done = f"`{ACTION_SIGNS[image.action]}` {ACTION_WORDS[image.action]}"
        rows.append((done, _short(shown_name(image)), tuple(filter(None, (image.reason, _users(plan, image), local)))))
    return rows


def _short(name: str) -> str:
    """A name without its registry: tables have little room."""
    return name.rpartition("/")[2]


def planned_json(image: PlannedImage) -> dict[str, Any]:
    """An image of a plan. Its build arguments are not in it."""
    return {
        "name": without_secrets_of(image.spec, image.spec.repository),
        "tag": image.tag,
        "action": image.action,
        "pinned": without_secrets_of(image.spec, image.pinned) or None,
        "input_digest": image.input_digest or None,
        "dockerfile": image.spec.dockerfile,
        "is_pushed": image.spec.is_pushed,
        "reason": image.reason,
        "findings": [
            {"severity": each.severity, "message": each.message, "remedy": each.remedy} for each in image.findings
        ],
    }


def result_line(result: ImageResult) -> str:
    """What became of an image, in a line."""
    if result.status == "failed":
        where = f" at {result.location}" if result.location else ""
        return f"{shown_name(result)} failed{where}: {result.error} {result.remedy}".strip()
    local = f" ({LOCAL})" if result.pinned.startswith("sha256:") else ""
    return f"{shown_name(result)} {result.status}{local}, {result.seconds:.1f} s"


def results_text(results: Sequence[ImageResult]) -> RenderableType:
    """What became of some images: a table, and of each that failed the last that its build said."""
    if not results:
        return Text("no images: no deployment here runs from one of ours", style="dim")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # who reads a name wants to copy it: nothing is cut off
    for result in results:
        told = "  ".join((*_pinned(result), f"{result.seconds:.1f} s"))
        name = Text.assemble(one_line(shown_name(result)), (f"  {told}", "dim"))
        table.add_row(Text(result.status, style=STATUS_COLOURS[result.status]), name)
    return Group(table, *(part for result in results if result.status == "failed" for part in _failure(result)))


def _pinned(result: ImageResult) -> tuple[str, ...]:
    """By what an image is pinned, in short, and where that is."""
    digest = result.pinned.rpartition("@")[2]
    is_local = bool(digest) and digest == result.pinned
    return tuple(filter(None, (digest[:DIGITS], LOCAL if is_local else "")))


def _failure(result: ImageResult) -> Iterator[RenderableType]:
    where = f"{result.location}: " if result.location else ""
    yield Text()
    yield Text(one_line(shown_name(result)), style="bold red")
    yield from (Padding(Text(visible(line), style="dim"), INDENT, expand=False) for line in result.output)
    yield Text(visible(f"{where}{result.error}"), style="red")
    if result.remedy:
        yield Padding(Text(visible(result.remedy)), INDENT, expand=False)


def results_json(results: Sequence[ImageResult]) -> list[Mapping[str, Any]]:
    return [_result_json(result) for result in results]


def _result_json(result: ImageResult) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": without_secrets_of(result.spec, result.spec.repository),
        "tag": result.tag,
        "digest": result.pinned.partition("@")[2] or result.pinned or None,
        "input_digest": result.input_digest or None,
        "status": result.status,
        "seconds": round(result.seconds, 3),
    }
    if result.status == "failed":
        found |= {"error": result.error, "remedy": result.remedy, "location": result.location, "output": result.output}
    return found


def results_markdown_rows(results: Sequence[ImageResult]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Rows of a table: what became of it, the image without its registry, by what it is pinned or why it failed."""
    return [(result.status, _short(shown_name(result)), _end(result)) for result in results]


def _end(result: ImageResult) -> tuple[str, ...]:
    if result.error:
        return tuple(filter(None, (result.location, result.error, result.remedy)))
    return _pinned(result)


def old_images_text(images: Sequence[OldImage]) -> RenderableType:
    """The images that would be removed."""
    return Group(*map(_old_image, images))


def _old_image(image: OldImage) -> Text:
    tags = "\n".join(map(one_line, image.tags))
    return Text.assemble(tags, (f"  {image.created[:10]}  {image.size / 1_000_000:.0f} MB", "dim"))


def removed_text(removed: Sequence[str], kept: Sequence[str]) -> RenderableType:
    """What was removed, and what a container uses."""
    lines = [Text(f"- {one_line(tag)}", style="red") for tag in removed]
    lines += [
        Text(f"= {one_line(tag)}  a container or another image uses it: left as it is", style="dim") for tag in kept
    ]
    end = f"{len(removed)} removed" if lines else "nothing to remove: all images of ours are used, or among the newest"
    return Group(*lines, Text(end, style="bold"))

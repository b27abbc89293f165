"""Images → what people and programs read: lines of a plan, results of builds, JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

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


def planned_lines(plan: Plan) -> Iterator[tuple[Text, Text]]:
    """The images of a plan that something has to be done about, as prefixes and bodies; the others are counted."""
    for image in plan.images:
        if image.action != "reuse" or image.findings:
            users = _users(plan, image)
            name = Text(
                f"{ACTION_SIGNS[image.action]} image {one_line(image.name)}  ", style=ACTION_COLOURS[image.action]
            )
            yield name, Text("; ".join(filter(None, (ACTION_WORDS[image.action], image.reason, users))), style="dim")
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
    return f"for {names[0]}" if len(names) == 1 else f"for {len(names)} deployments"


def planned_rows(plan: Plan) -> list[tuple[str, str, tuple[str, ...]]]:
    """Rows of a table for markdown: what is to be done, the image without its registry, and why."""
    rows = []
    for image in plan.images:
        local = "" if image.spec.is_pushed else LOCAL
        done = f"`{ACTION_SIGNS[image.action]}` {ACTION_WORDS[image.action]}"
        rows.append((done, _short(image.name), tuple(filter(None, (image.reason, _users(plan, image), local)))))
    return rows


def _short(name: str) -> str:
    """A name without its registry: tables have little room."""
    return name.rpartition("/")[2]


def planned_json(image: PlannedImage) -> dict[str, Any]:
    """An image of a plan. Its build arguments are not in it."""
    return {
        "name": image.spec.repository,
        "tag": image.tag,
        "action": image.action,
        "pinned": image.pinned or None,
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
        return f"{result.name} failed{where}: {result.error} {result.remedy}".strip()
    local = f" ({LOCAL})" if result.pinned.startswith("sha256:") else ""
    return f"{result.name} {result.status}{local}, {result.seconds:.1f} s"


def results_text(results: Sequence[ImageResult]) -> RenderableType:
    """What became of some images: a table, and of each that failed the last that its build said."""
    if not results:
        return Text("no images: no deployment here runs from one of ours", style="dim")
    table = Table(box=None, pad_edge=False, show_header=False)
    for result in results:
        style = STATUS_COLOURS[result.status]
        pinned = result.pinned.partition("@")[2] or result.pinned or "–"
        where = LOCAL if result.pinned.startswith("sha256:") and "@" not in result.pinned else ""
        table.add_row(
            Text(result.status, style=style),
            Text(one_line(result.name)),
            Text(pinned[:DIGITS], style="dim"),
            Text(f"{result.seconds:.1f} s", style="dim"),
            Text(where, style="dim"),
        )
    return Group(table, *(part for result in results if result.status == "failed" for part in _failure(result)))


def _failure(result: ImageResult) -> Iterator[RenderableType]:
    where = f"{result.location}: " if result.location else ""
    yield Text()
    yield Text(f"{result.name}", style="bold red")
    yield from (Text(f"    {visible(line)}", style="dim") for line in result.output)
    yield Text(f"{where}{result.error}", style="red")
    if result.remedy:
        yield Text(f"    {result.remedy}")


def results_json(results: Sequence[ImageResult]) -> list[Mapping[str, Any]]:
    return [_result_json(result) for result in results]


def _result_json(result: ImageResult) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": result.spec.repository,
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
    return [(result.status, _short(result.name), _end(result)) for result in results]


def _end(result: ImageResult) -> tuple[str, ...]:
    if result.error:
        return tuple(filter(None, (result.location, result.error, result.remedy)))
    digest = result.pinned.rpartition("@")[2]
    local = LOCAL if digest == result.pinned and digest else ""
    return tuple(filter(None, (digest[:DIGITS], local)))


def old_images_text(images: Sequence[OldImage]) -> RenderableType:
    """The images that would be removed."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for image in images:
        size = f"{image.size / 1_000_000:.0f} MB"
        table.add_row(
            Text(one_line(", ".join(image.tags))), Text(image.created[:10], style="dim"), Text(size, style="dim")
        )
    return table


def removed_text(removed: Sequence[str], kept: Sequence[str]) -> RenderableType:
    """What was removed, and what a container uses."""
    lines = [Text(f"- {one_line(tag)}", style="red") for tag in removed]
    lines += [Text(f"= {one_line(tag)}  a container uses it: left as it is", style="dim") for tag in kept]
    end = f"{len(removed)} removed" if lines else "nothing to remove: all images of ours are used, or among the newest"
    return Group(*lines, Text(end, style="bold"))

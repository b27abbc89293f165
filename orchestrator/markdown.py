"""Pieces of markdown, as GitHub and the Prefect UI read it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; its cells are markdown: see `cell`."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """A text as a cell takes it: on one line, with what separates cells escaped."""
    return " ".join(text.replace("|", "\\|").split())


def fenced(source: str, language: str = "") -> str:
    """Source text as it is, in a fence that is longer than any in it."""
    fence = "```"
    while fence in source:
        fence += "`"
    return f"{fence}{language}\n{source}\n{fence}"

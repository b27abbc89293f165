"""Pieces of markdown, as GitHub and the Prefect UI read it."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Sequence

CELL_WIDTH = 60  # characters


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; its cells are markdown: see `cell`."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """A text as a cell takes it: on one line, with what separates cells escaped."""
    return " ".join(text.replace("|", "\\|").split())


def folded(*texts: str) -> str:
    """Texts as a cell takes them, each on lines of its own: the Prefect UI folds no cell by itself and cuts it off."""
    whole_words = textwrap.TextWrapper(CELL_WIDTH, break_long_words=False, break_on_hyphens=False)
    return "<br>".join(plain(line) for text in texts for line in whole_words.wrap(text))


def plain(text: str) -> str:
    """A text as a cell takes it, whatever it looks like: a name is no markup."""
    return cell(html.escape(text, quote=False))


def details(title: str, content: str) -> str:
    """Plain text that is folded away behind its title.

    Its markup is HTML: of markdown within `<details>` the Prefect UI folds only the title away.
    """
    text = "\n".join(line for line in html.escape(content, quote=False).splitlines() if line.strip())
    return f"<details><summary>{html.escape(title, quote=False)}</summary><pre>\n{text}\n</pre></details>"


def fenced(source: str, language: str = "") -> str:
    """Source text as it is, in a fence that is longer than any in it."""
    fence = "```"
    while fence in source:
        fence += "`"
    return f"{fence}{language}\n{source}\n{fence}"

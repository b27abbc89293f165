"""Asking a person before something is written."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from orchestrator.errors import RefusedError
from orchestrator.terminal import Terminal


def ask(terminal: Terminal, about: RenderableType, question: str) -> None:
    """Ask a person; where nobody can answer, refuse.

    Raises:
        RefusedError: the answer was no, or nobody is there.
    """
    terminal.progress.print(about)
    if terminal.is_json or not terminal.out.is_terminal:
        raise RefusedError(
            f"This needs a yes, and nobody can be asked here: {question}", remedy="Add --yes if it is meant."
        )
    try:
        answer = terminal.out.input(Text(f"{question} [y/N] "))  # as text: brackets are rich's markup otherwise
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise RefusedError("Not confirmed; nothing was changed.")

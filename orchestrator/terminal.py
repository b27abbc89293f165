"""What every command shares: its common options, and how it speaks to a terminal or to a program.

Text goes to standard output, coloured only where somebody looks. With `--output json` standard output holds exactly
one JSON document; progress and logs go to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console, RenderableType
from rich.text import Text

from orchestrator.errors import ConfigurationError
from orchestrator.model import DEFAULT_ENVIRONMENT
from orchestrator.plain_text import OnlyVisible, one_line, visible

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CHANGES_PENDING = 3
EXIT_DEGRADED = 4
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

PIPED_WIDTH = 1000  # columns: lines are not folded where a program reads them


Root = Annotated[Path, Parameter(help="The repository.")]
Env = Annotated[str, Parameter(help="The environment.")]
Wait = Annotated[bool, Parameter(negative="--no-wait")]
ApiUrl = Annotated[str | None, Parameter(help="The server's API; default: the environment's.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Common:
    """Options of every command."""

    root: Root = Path()
    output: Annotated[Literal["text", "json"], Parameter(help="json: one document on standard output.")] = "text"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class OnServer(Common):
    """Options of commands about one environment and its server."""

    env: Env = DEFAULT_ENVIRONMENT
    api_url: ApiUrl = None


def existing_root(root: Path) -> Path:
    """The repository's folder, resolved.

    Raises:
        ConfigurationError: there is no such folder.
    """
    if not root.is_dir():
        raise ConfigurationError("There is no such folder.", location=str(root.absolute()), remedy="Correct --root.")
    return root.resolve()


class Terminal:
    """Where one command writes."""

    def __init__(self, output: str = "text") -> None:
        self.is_json = output == "json"
        self.out = _console(stderr=False)
        self.error = _console(stderr=True)
        self.progress = self.error if self.is_json else self.out

    def show(self, text: RenderableType, document: Mapping[str, Any]) -> None:
        """Write a result: as text, or as the one JSON document."""
        if self.is_json:
            sys.stdout.write(json.dumps(document, indent=2) + "\n")
        else:
            self.out.print(text)

    def lines(self, text: str) -> None:
        """Write lines that a program reads."""
        sys.stdout.write(f"{visible(text)}\n" if text else "")

    def tell(self, line: str | Text) -> None:
        """Write a line of progress."""
        self.progress.print(line if isinstance(line, Text) else Text(line))

    @contextmanager
    def working(self, first: str) -> Iterator[Doing]:
        """A spinner that says what is being done, where somebody looks."""
        if not self.progress.is_terminal:
            yield Doing(now=lambda words: None, tell=lambda words: self.tell(f"... {words}"))
            return
        with self.progress.status(Text(one_line(first))) as status:

            def update(words: str) -> None:
                status.update(Text(one_line(words)))

            yield Doing(now=update, tell=update)


class Doing:
    """Says what is being done.

    `now` is for what a person watching should see, `tell` for what a log should have as well: one line for each, but
    not the same one twice.
    """

    def __init__(self, *, now: Callable[[str], None], tell: Callable[[str], None]) -> None:
        self.now, self._tell, self._told = now, tell, ""

    def tell(self, words: str) -> None:
        if words != self._told:
            self._told = words
            self._tell(words)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    console.push_render_hook(OnlyVisible())
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    return console

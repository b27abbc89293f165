"""Text that other people wrote (names, file names, messages of exceptions), made fit to be printed.

Whoever names a file or a flow must not be able to move somebody's cursor, colour their terminal or turn their text
around; and a name that is not UTF-8 must not stop a report.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.segment import Segment

# Control characters but tab and newline; line ends that only some programs know; direction marks and other invisible
# characters (UAX #9), but not the joiners that Persian and emoji need; halves of surrogate pairs.
_UNSHOWN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0001-\U000e007f]"
)


def visible(text: str) -> str:
    """A text with everything that is not shown, or that moves a cursor, as a backslash escape; lines stay lines."""
    return _UNSHOWN.sub(lambda found: _escape(found[0]), text)


def one_line(text: str) -> str:
    """The same on one line."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class Shown:
    """Something to print, with `visible` applied to all of its text."""

    def __init__(self, content: RenderableType) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._content, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


class OnlyVisible(RenderHook):
    """Makes a console print nothing but visible text."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return list(_shown(renderables))


def _shown(renderables: Iterable[ConsoleRenderable]) -> Iterable[ConsoleRenderable]:
    for each in renderables:
        yield Shown(each)

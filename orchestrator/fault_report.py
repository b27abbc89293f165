"""Faults → what people and programs read: terminal text, markdown, JSON.

On a terminal a fault comes with the line that it is about and a caret; where a program reads, it is one line and its
remedy, so that grep finds whole faults.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.text import Text

from orchestrator.errors import ConfigurationError, Fault, OrchestratorError
from orchestrator.markdown import cell, table
from orchestrator.masking import masked_text
from orchestrator.model import LONGEST_EXCERPT, ValidationError, ValidationResult
from orchestrator.plain_text import one_line


def told(text: str) -> str:
    """A text of a fault or an error as every report shows it: without secrets, and on one line.

    Messages quote what people wrote, and what exceptions say: nothing is shown that did not pass here.
    """
    return one_line(masked_text(text))


# ---------------------------------------------------------------------------------------------------------
# Terminal
# ---------------------------------------------------------------------------------------------------------

TAB = 4  # cells
NARROWEST = 12  # cells for source; on less it is left out


@dataclass(frozen=True, slots=True)
class FaultBlock:
    """One fault: where and what, the source where somebody looks, and what to do."""

    fault: Fault
    severity: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        fault, colour = self.fault, "red" if self.severity == "error" else "yellow"
        where = f"{_place(fault)}: " if fault.file_path else ""
        yield Text(f"{where}{self.severity} {fault.code}: ", style=colour).append(told(fault.message), style="default")
        excerpt: list[Text] = []
        if console.is_terminal and isinstance(fault, ValidationError):
            excerpt = list(excerpt_lines(fault, options.max_width, colour))
        yield from excerpt
        if fault.remediation:
            yield Text(f"    {told(fault.remediation)}", style="dim")
        if excerpt:
            yield Text()


def excerpt_lines(fault: ValidationError, width: int, colour: str = "red") -> Iterator[Text]:
    """The line that a fault is about, and carets below what is wrong with it.

    Args:
        fault: with its excerpt; without one nothing is shown.
        width: of the terminal, in cells. A longer line is cut, so that the carets stay visible.
        colour: of the carets.
    """
    gutter = f"    {fault.line_number} | "
    if not fault.excerpt.strip() or width - len(gutter) < NARROWEST:
        return
    start, end = _marked(fault)
    shown, before, length = _window(_pieces(fault.excerpt.ljust(end)), start, end, width - len(gutter))
    yield Text.assemble((gutter, "dim"), shown.rstrip())
    if length:
        below = f"{' ' * (len(gutter) - 2)}| "
        yield Text.assemble((below, "dim"), (" " * before + "^" * length, f"bold {colour}"))


def _marked(fault: ValidationError) -> tuple[int, int]:
    """The characters of the excerpt that are at fault; none where they are unknown, or behind where it was cut.

    Where something is missing, it is the place behind the last character.
    """
    start = (fault.column_number or 0) - 1
    length = len(fault.excerpt)
    if start == length < LONGEST_EXCERPT:
        return start, start + 1
    end = min((fault.end_column_number or start + 2) - 1, length)
    return (start, end) if 0 <= start < end else (0, 0)


def _pieces(line: str) -> list[str]:
    """Each character as a terminal may show it: tabs as spaces, what would move the cursor as a mark."""
    pieces: list[str] = []
    column = 0
    for character in line:
        if character == "\t":
            pieces.append(" " * (TAB - column % TAB))
        else:
            pieces.append("\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) in _UNSHOWN else character)
        column += cell_len(pieces[-1])
    return pieces


_UNSHOWN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, direction marks, broken halves, line ends


def _window(pieces: Sequence[str], start: int, end: int, width: int) -> tuple[str, int, int]:
    """As much of a line as fits, around what is at fault; then the cells before the carets, and their number."""
    first = 0
    if cell_len("".join(pieces)) > width and cell_len("".join(pieces[:end])) >= width:
        first = start
        while first > 0 and cell_len("".join(pieces[first - 1 : start])) <= width // 3:
            first -= 1
    left = "…" if first else ""
    last = first
    while last < len(pieces) and cell_len(left + "".join(pieces[first : last + 1])) <= width:
        last += 1
    while last > first and last < len(pieces) and cell_len(left + "".join(pieces[first:last])) >= width:
        last -= 1
    shown = left + "".join(pieces[first:last]) + ("…" if last < len(pieces) else "")
    before = cell_len(left + "".join(pieces[first:start]))
    return shown, before, cell_len("".join(pieces[start : min(end, last)]))


def _place(fault: Fault) -> str:
    """`file:line:column`, as far as known."""
    column = getattr(fault, "column_number", None)
    return ":".join(one_line(str(part)) for part in (fault.file_path, fault.line_number, column) if part)


def faults_text(faults: Iterable[Fault], severity: str = "error") -> RenderableType:
    """Faults, one block each."""
    return Group(*(FaultBlock(fault, severity) for fault in faults))


def problems_text(problems: Sequence[ValidationError]) -> RenderableType:
    """Errors, then warnings."""
    errors = [problem for problem in problems if problem.severity == "error"]
    warnings = [problem for problem in problems if problem.severity == "warning"]
    return Group(faults_text(errors), faults_text(warnings, "warning"))


def validation_text(result: ValidationResult) -> RenderableType:
    """All faults by file and line, and how many there are."""
    end = f"errors: {len(result.errors)}, warnings: {len(result.warnings)}"
    style = "bold green" if result.is_valid else "bold red"
    return Group(*(FaultBlock(fault, fault.severity) for fault in by_place(result)), Text(end, style=style))


def by_place(result: ValidationResult) -> list[ValidationError]:
    both = (*result.errors, *result.warnings)
    return sorted(both, key=lambda fault: (fault.file_path or "", fault.line_number or 0, fault.column_number or 0))


def error_text(error: OrchestratorError) -> RenderableType:
    """An error as a person should meet it."""
    where = f"{one_line(error.location)}: " if error.location else ""
    head = Text(f"error: {where}", style="bold red").append(masked_text(error.message), style="default")
    faults = error.faults if isinstance(error, ConfigurationError) else ()
    if any(fault.message == error.message for fault in faults):  # it says the same, and where
        return faults_text(faults)
    parts: list[RenderableType] = [head]
    if faults:
        parts.append(faults_text(faults))
    if error.remedy:
        parts.append(Text(f"    {masked_text(error.remedy)}", style="dim"))
    return Group(*parts)


# ---------------------------------------------------------------------------------------------------------
# Markdown, and lines for logs
# ---------------------------------------------------------------------------------------------------------


def problems_markdown(problems: Sequence[ValidationError]) -> str:
    rows = [
        (item.severity, item.code, *(cell(told(text)) for text in (item.location, item.message, item.remediation)))
        for item in problems
    ]
    return f"### Faults\n\n{table(('', 'Code', 'Where', 'What', 'What to do'), rows)}"


def problem_line(problem: Fault) -> str:
    """A fault on one line, for logs and state messages."""
    where = f"{_place(problem)}: " if problem.file_path else ""
    return f"{where}{problem.code} {told(problem.message)} {told(problem.remediation)}".strip()


def error_line(error: OrchestratorError) -> str:
    """An error with all its faults, for a state's message."""
    faults = error.faults if isinstance(error, ConfigurationError) else ()
    return "\n".join([masked_text(str(error)), *(problem_line(each) for each in faults)])


# ---------------------------------------------------------------------------------------------------------
# JSON: keys that stay stable
# ---------------------------------------------------------------------------------------------------------


def fault_json(fault: Fault) -> dict[str, Any]:
    return {
        "code": fault.code,
        "message": masked_text(fault.message),
        "file_path": fault.file_path,
        "line_number": fault.line_number,
        "remediation": masked_text(fault.remediation),
        "severity": getattr(fault, "severity", "error"),
        "column_number": getattr(fault, "column_number", None),
    }


def validation_json(result: ValidationResult) -> dict[str, Any]:
    return {
        "is_valid": result.is_valid,
        "errors": [fault_json(error) for error in result.errors],
        "warnings": [fault_json(warning) for warning in result.warnings],
    }


def error_json(error: OrchestratorError) -> dict[str, Any]:
    faults = error.faults if isinstance(error, ConfigurationError) else ()
    return {
        "error": {
            "type": type(error).__name__,
            "message": masked_text(error.message),
            "location": error.location,
            "remediation": masked_text(error.remedy),
            "exit_code": error.exit_code,
            "faults": [fault_json(each) for each in faults],
        }
    }

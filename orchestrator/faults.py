"""What everything that reads configuration says its faults with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from orchestrator.errors import ConfigurationError
from orchestrator.model import ValidationError


def faulty(faults: Sequence[ValidationError]) -> ConfigurationError:
    """One error that carries all faults, sorted by place."""
    ordered = sorted(faults, key=lambda each: (each.file_path or "", each.line_number or 0))
    count = "One fault" if len(ordered) == 1 else f"{len(ordered)} faults"
    return ConfigurationError(f"{count} in the configuration.", faults=ordered)


def did_you_mean(written: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'? ` for the nearest known name, empty where none is near."""
    close = difflib.get_close_matches(written, list(known), n=1)
    return f"Did you mean {close[0]!r}? " if close else ""

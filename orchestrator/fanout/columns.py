"""Columns of parameters → the parameters of each run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import repeat
from typing import Any

from orchestrator.errors import ConfigurationError


def rows_of(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One mapping for each row.

    Args:
        columns: by the parameter's name, a list, tuple, range or iterator of its values; what else is given goes to
            every row.

    Raises:
        ConfigurationError: no column varies, or they differ in length.
    """
    columns = {name: list(column) if isinstance(column, Iterator) else column for name, column in columns.items()}
    varying = {name: column for name, column in columns.items() if isinstance(column, list | tuple | range)}
    lengths = {name: len(column) for name, column in varying.items()}
    if len(set(lengths.values())) != 1:
        told = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise ConfigurationError(
            f"The columns differ in length ({told})." if told else "No column is a list, tuple or range.",
            location="FlowSubmission.map",
            remedy="Give lists of one length for what varies; anything else goes to every run.",
        )
    values = [varying.get(name, repeat(column)) for name, column in columns.items()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=False)]

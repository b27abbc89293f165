"""Parameters that Prefect works out itself: `{"__prefect_kind": "json", "value": "[1, 2]"}`.

A create stores them as they are written; an update stores what they stand for (measured on 3.8.8, and read in
`prefect.utilities.schema_tools.hydration`). Either is what was asked for, so a comparison must take both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MARK = "__prefect_kind"
_UNKNOWN = object()  # a template or a variable: only the server knows what it stands for
_REMOVED = object()  # stands for nothing: the server takes it out of what holds it


def as_stored(live: Any, wanted: Any) -> Any:
    """What is wanted, in the form in which the server may hold it by now.

    Args:
        live: the value that the server has.
        wanted: the value that was asked for.

    Returns:
        `wanted`, with what is marked in it replaced by what it stands for, unless the server still has the mark. For
        a template or a variable any value of the server counts: it was worked out there.
    """
    if not _is_marked_within(wanted) or live == wanted:
        return wanted
    if isinstance(wanted, Mapping) and MARK not in wanted:
        there = live if isinstance(live, Mapping) else {}
        stored = {key: as_stored(there.get(key), inner) for key, inner in wanted.items()}
        return {key: inner for key, inner in stored.items() if inner is not _REMOVED}
    if isinstance(wanted, list | tuple):
        standing = [inner for inner in map(_meaning, wanted) if inner is not _REMOVED]
        if not isinstance(live, list | tuple) or len(live) != len(standing):
            return wanted
        return [there if inner is _UNKNOWN else inner for there, inner in zip(live, standing, strict=True)]
    meaning = _meaning(wanted)
    if meaning is not _UNKNOWN:
        return meaning
    return wanted if live is None or _is_marked_within(live) else live


def _is_marked_within(value: Any) -> bool:
    if isinstance(value, Mapping):
        return MARK in value or any(map(_is_marked_within, value.values()))
    return isinstance(value, list | tuple) and any(map(_is_marked_within, value))


def _meaning(value: Any) -> Any:
    """What the server makes of a value at an update."""
    if isinstance(value, list | tuple):
        return _joined([_meaning(inner) for inner in value])
    if not isinstance(value, Mapping):
        return value
    if MARK not in value:
        meanings = {key: _meaning(inner) for key, inner in value.items()}
        unknown = any(inner is _UNKNOWN for inner in meanings.values())
        return _UNKNOWN if unknown else {key: inner for key, inner in meanings.items() if inner is not _REMOVED}
    match value[MARK]:
        case "jinja":
            return _UNKNOWN
        case "workspace_variable":
            return _UNKNOWN if "variable_name" in value else _REMOVED
        case "json":
            return _of_json(_meaning(value["value"])) if "value" in value else _REMOVED
        case "none":
            return _meaning(value.get("value"))
        case _:
            return value.get("value")


def _joined(meanings: list[Any]) -> Any:
    unknown = any(inner is _UNKNOWN for inner in meanings)
    return _UNKNOWN if unknown else [inner for inner in meanings if inner is not _REMOVED]


def _of_json(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text  # the server refuses the update and says why

"""Why something is changed, in words: what differs and, where it is known, who moved.

Deployments, pools and limits are told in the same words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.differences import changed_fields
from orchestrator.model import Cause, FieldDiff


def deleted_since(revision: int) -> str:
    """Why something is created that was there at the last apply."""
    return f"somebody deleted it from the server after revision {revision}"


def reasons_of(fields: Sequence[FieldDiff], told: str = "") -> Iterator[str]:
    """Why there is an update, in words; where it is known who moved, each side on its own."""
    words: dict[Cause, str] = {
        "repository": told,
        "server": "somebody changed the server",
        "both": "changed on both sides",
    }
    for cause, moved in words.items():
        names = _named([diff for diff in fields if diff.cause == cause])
        if names:
            yield f"{moved}: {', '.join(names)}"
    names = _named([diff for diff in fields if not diff.cause])
    if "code" in names:
        yield "its code changed"
    others = [name for name in names if name != "code"]
    if others:
        alone = len(others) == 1 and not others[0].endswith("s")
        yield f"{', '.join(others)} {'differs' if alone else 'differ'}"


def _named(fields: Sequence[FieldDiff]) -> list[str]:
    """Fields as people call them: a version that the server has not got means other code."""
    is_ours = all(diff.cause in ("", "repository") for diff in fields)
    return ["code" if name == "version" and is_ours else name.replace("_", " ") for name in changed_fields(fields)]

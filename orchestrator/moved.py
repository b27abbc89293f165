"""Two plans at two times → what has moved between them, in words: why a plan that was looked at is not carried out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import RefusedError
from orchestrator.model import Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Intent:
    """What a plan does to one thing, as far as it may be shown."""

    action: str
    fields: Mapping[str, Any]  # path of a difference → both values, in plain JSON


Outline = Mapping[str, Intent]
"""All that a plan does: deployment, or kind and name of a pool or limit → intent."""

LONGEST_LIST = 5  # changes that a refusal names


def outline(plan: Plan) -> Outline:
    """All that a plan writes."""
    done = [(change.deployment, change.action, change.fields) for change in plan.changes if change.writes]
    done += [
        (f"{change.resource} {change.name}", change.action, change.fields) for change in plan.resources if change.writes
    ]
    return {
        label: Intent(action=action, fields=_plain({diff.path: [diff.before, diff.after] for diff in fields}))
        for label, action, fields in done
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return found


def moved(before: Outline, now: Outline) -> tuple[str, ...]:
    """What a plan does otherwise than an earlier one, a text for each; what differs may be nothing that it shows."""
    return tuple(
        f"{label}: {_otherwise(before.get(label), now.get(label))}"
        for label in sorted(before.keys() | now.keys())
        if before.get(label) != now.get(label)
    )


def _otherwise(before: Intent | None, now: Intent | None) -> str:
    if before is None or now is None or before.action != now.action:
        return f"{before.action if before else 'nothing'} then, {now.action if now else 'nothing'} now"
    then, today = before.fields, now.fields
    paths = [path for path in sorted(then.keys() | today.keys()) if then.get(path) != today.get(path)]
    return f"other values of {', '.join(paths)}"


def has_moved(who: str, before: Outline, now: Plan) -> RefusedError:
    """The refusal of a plan that is not the one that was looked at.

    Args:
        who: what may have moved, with its verb.
        before: the plan that was looked at.
        now: the one that there is now.
    """
    found = moved(before, outline(now))
    more = f"; and {len(found) - LONGEST_LIST} more" if len(found) > LONGEST_LIST else ""
    said = f" ({'; '.join(found[:LONGEST_LIST])}{more})" if found else ""
    return RefusedError(
        f"{who} moved since this plan was made{said}; nothing was changed.",
        location=now.owner.tag,
        remedy="Plan again, and look at it again.",
    )

"""What differs between a deployment as it should be and as the server has it, and who moved since the last apply.

A diff has three sides: the repository (desired), the server (live) and what was applied last, where that is known.
Schedules are compared one by one, each with its counterpart. Values that a diff shows are without secrets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.masking import HIDDEN, concealed, hidden_beside, masked
from orchestrator.model import Cause, DeploymentConfig, FieldDiff, LiveDeployment, ScheduleConfig
from orchestrator.parameter_kinds import as_stored

COMPARED_FIELDS = (
    "entrypoint",
    "path",
    "work_pool",
    "work_queue",
    "parameters",
    "job_variables",
    "pull_steps",
    "tags",
    "description",
    "version",
    "concurrency_limit",
    "concurrency_options",
    "enforce_parameter_schema",
    "parameter_schema",
)
"""What an update of the deployment itself writes; schedules, triggers and the paused flag are written on their own."""

SCHEDULE_RULE = ("cron", "interval", "rrule", "timezone", "day_or", "parameters")
NO_SCHEMA = {"type": "object", "properties": {}}  # what the server keeps for a deployment without a parameter schema
_RRULE_START = re.compile(r"^DTSTART:\d{8}T\d{6}\n")
_OTHER = object()  # what was applied had another form: equal to neither side


class StrayTrigger(dict[str, Any]):
    """A trigger of a deployment that has no owner, made by `prefect deploy` or by a person: the server does not tell.

    What is taken over replaces those that it names; the others stay.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class SchedulePair:
    """One schedule as it is and as it should be; None on one side: to be created or deleted."""

    live: ScheduleConfig | None
    live_id: str | None
    desired: ScheduleConfig | None

    @property
    def differs(self) -> bool:
        """Whether anything has to be written."""
        return any(True for _ in _schedule_differences(self, None))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Difference:
    """Two values that differ, raw, and what was applied last in that place."""

    path: str
    before: Any
    after: Any
    last: Any = None

    @property
    def cause(self) -> Cause:
        return cause_of(self.before, self.after, self.last)


def cause_of(before: Any, after: Any, last: Any) -> Cause:
    """Who moved: last applied is live → the repository; last applied is desired → somebody on the server."""
    if _equal(last, before):
        return "repository"
    return "server" if _equal(last, after) else "both"


def differences(
    config: DeploymentConfig, live: LiveDeployment, last: DeploymentConfig | None = None
) -> tuple[tuple[FieldDiff, ...], tuple[str, ...]]:
    """What an update would change, and what a person changed that stays.

    Args:
        config: the deployment as it should be.
        live: as the server has it.
        last: as it was applied last; None where nothing is known: then no difference has a cause.

    Returns:
        The field differences, and the kept overrides in words.
    """
    wanted = replace(config, triggers=triggers_to_write(config, live.config))
    there = replace(live.config, triggers=_counterparts(config, live.config))
    found = [*_field_differences(wanted, there, last), *_pause(config, live.config, last)]
    kept = [*_kept_pause(config, live.config, last), *_kept_triggers(config, live.config, last)]
    for pair in pair_schedules(config.schedules, live):
        recorded = _recorded(pair, last.schedules) if last else None
        found += _schedule_differences(pair, recorded)
        kept += _kept_schedule(pair, recorded)
    texts = (*config.concealed, *live.config.concealed, *(last.concealed if last else ()))
    fields = tuple(_shown(each, texts, has_cause=last is not None) for each in found)
    return fields, tuple(str(concealed(words, texts)) for words in kept)


def diff(before: Any, after: Any, path: str) -> Iterator[FieldDiff]:
    """Every difference between two plain values; mappings are entered, lists are one value."""
    return (_shown(each, (), has_cause=False) for each in _walk(before, after, None, path))


def changed_fields(fields: Sequence[FieldDiff]) -> tuple[str, ...]:
    """The fields of a deployment that differ, each once: `schedules` for `schedules[nightly].cron`."""
    return tuple(dict.fromkeys(re.split(r"[.\[]", each.path)[0] for each in fields))


def _shown(found: _Difference, texts: Sequence[str], *, has_cause: bool) -> FieldDiff:
    """A difference as people see it: without secrets, and without what a block or a variable gave."""
    before = hidden_beside(found.before, found.after, texts)
    return FieldDiff(
        path=_shown_path(found.path, texts),
        before=HIDDEN if before == HIDDEN else concealed(masked(found.path, before), texts),
        after=concealed(masked(found.path, found.after), texts),
        cause=found.cause if has_cause else "",
    )


def _shown_path(path: str, texts: Sequence[str]) -> str:
    """A path without what is hidden in its keys; the field that it begins with stays, since an apply goes by it."""
    name = re.split(r"[.\[]", path)[0]
    return name + str(concealed(path[len(name) :], texts))


# ---------------------------------------------------------------------------------------------------------
# Fields
# ---------------------------------------------------------------------------------------------------------


def _field_differences(
    config: DeploymentConfig, live: DeploymentConfig, last: DeploymentConfig | None
) -> Iterator[_Difference]:
    for name in (*COMPARED_FIELDS, "triggers"):
        if _is_same(getattr(config, name), getattr(live, name)):
            continue  # nearly always: what follows costs more
        before, after, before_that = _field(live, name), _field(config, name), last and _field(last, name)
        if name == "parameters":
            after, before_that = as_stored(before, after), as_stored(before, before_that)
        yield from _walk(before, after, before_that, name)


def _field(config: DeploymentConfig, name: str) -> Any:
    value = _comparable(getattr(config, name))
    if name == "triggers":
        return _by_name(value)
    return value or NO_SCHEMA if name == "parameter_schema" else value


def _by_name(triggers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Triggers as a mapping, so that a difference names the one that it is in."""
    names = [str(trigger.get("name") or number) for number, trigger in enumerate(triggers)]
    if len(set(names)) < len(names):
        names = [str(number) for number in range(len(triggers))]
    return dict(zip(names, triggers, strict=True))


def _walk(before: Any, after: Any, last: Any, path: str) -> Iterator[_Difference]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}, key=str):
            yield from _walk(before.get(key), after.get(key), _within(last, key), f"{path}.{key}")
    elif not _equal(before, after):
        yield _Difference(path=path, before=before, after=after, last=last)


def _within(last: Any, key: Any) -> Any:
    if last is None:
        return None
    return last.get(key) if isinstance(last, Mapping) else _OTHER


def _equal(one: Any, other: Any) -> bool:
    """Equality of plain values; unlike Python's, it tells True from 1."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are alike in every type: then they are in JSON, too."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return bool(one == other)


def _comparable(value: Any) -> Any:
    """JSON's view of a value: the server makes no difference between tuples and lists, nor between 1 and 1.0."""
    return json.loads(json.dumps(value, default=str)) if isinstance(value, Mapping | tuple | list) else value


def _pause(config: DeploymentConfig, live: DeploymentConfig, last: DeploymentConfig | None) -> Iterator[_Difference]:
    """Only a pause is written: nothing here resumes what is paused."""
    if config.paused and not live.paused:
        yield _Difference(path="paused", before=False, after=True, last=last and last.paused)


def _kept_pause(config: DeploymentConfig, live: DeploymentConfig, last: DeploymentConfig | None) -> list[str]:
    if not live.paused or config.paused:
        return []
    if last is not None and last.paused:
        return ["paused: the repository paused it before; resume it in the UI if it should run again"]
    return ["paused: somebody paused it"]


# ---------------------------------------------------------------------------------------------------------
# Triggers
# ---------------------------------------------------------------------------------------------------------


def triggers_to_write(config: DeploymentConfig, live: DeploymentConfig) -> tuple[Mapping[str, Any], ...]:
    """The desired triggers; what somebody switched off stays off."""
    there = _by_name(_counterparts(config, live))
    wanted = _by_name(config.triggers).items()
    return tuple(spec if _is_on(there.get(name, {})) else {**spec, "enabled": False} for name, spec in wanted)


def replaced_triggers(config: DeploymentConfig, live: DeploymentConfig) -> tuple[Mapping[str, Any], ...]:
    """The live triggers that go when those of `config` are written: all but the strays that it does not name."""
    wanted = {spec.get("name") for spec in config.triggers}
    return tuple(spec for spec in live.triggers if not isinstance(spec, StrayTrigger) or spec.get("name") in wanted)


def _counterparts(config: DeploymentConfig, live: DeploymentConfig) -> tuple[Mapping[str, Any], ...]:
    """What desired triggers are compared with; a stray counts where no other live trigger has its name."""
    known = {spec.get("name") for spec in live.triggers if not isinstance(spec, StrayTrigger)}
    replaced = replaced_triggers(config, live)
    return tuple(spec for spec in replaced if not isinstance(spec, StrayTrigger) or spec.get("name") not in known)


def _is_on(trigger: Mapping[str, Any]) -> bool:
    return trigger.get("enabled") is not False


def _kept_triggers(config: DeploymentConfig, live: DeploymentConfig, last: DeploymentConfig | None) -> Iterator[str]:
    there, recorded = _by_name(_counterparts(config, live)), _by_name(last.triggers if last else ())
    for name, spec in _by_name(config.triggers).items():
        if _is_on(spec) and not _is_on(there.get(name, {})):
            yield _switched_off(f"triggers.{name}.enabled", by_repository=not _is_on(recorded.get(name, {})))
    replaced = replaced_triggers(config, live)
    for spec in live.triggers:
        if spec not in replaced:
            yield f"triggers.{spec.get('name')}: nobody can tell who made it; delete it in the UI if it should not stay"


def _switched_off(path: str, *, by_repository: bool) -> str:
    if by_repository:
        return f"{path}: the repository switched it off before; switch it on in the UI if it should run again"
    return f"{path}: somebody switched it off"


# ---------------------------------------------------------------------------------------------------------
# Schedules
# ---------------------------------------------------------------------------------------------------------


def pair_schedules(desired: Sequence[ScheduleConfig], live: LiveDeployment) -> tuple[SchedulePair, ...]:
    """Match desired schedules with live ones: by slug, by the slug they replace, as they are, by rule, in order.

    The order is the weakest sign: the server gives schedules in no order that means anything.
    """
    left = list(zip(live.config.schedules, live.schedule_ids, strict=True))
    unpaired = list(desired)
    pairs: list[SchedulePair] = []
    for same in (_same_slug, _is_renamed, _same_schedule, _same_rule, _both_without_slug):
        for wanted in list(unpaired):
            found = next((item for item in left if same(wanted, item[0])), None)
            if found is not None:
                left.remove(found)
                unpaired.remove(wanted)
                pairs.append(SchedulePair(live=found[0], live_id=found[1], desired=wanted))
    pairs += [SchedulePair(live=None, live_id=None, desired=wanted) for wanted in unpaired]
    return (*pairs, *(SchedulePair(live=item, live_id=id_, desired=None) for item, id_ in left))


def _same_slug(one: ScheduleConfig, other: ScheduleConfig) -> bool:
    return one.slug is not None and one.slug == other.slug


def _is_renamed(wanted: ScheduleConfig, live: ScheduleConfig) -> bool:
    return wanted.replaces is not None and wanted.replaces == live.slug


def _same_schedule(wanted: ScheduleConfig, live: ScheduleConfig) -> bool:
    return _same_rule(wanted, live) and wanted.active == live.active and wanted.parameters == live.parameters


def _same_rule(wanted: ScheduleConfig, live: ScheduleConfig) -> bool:
    return wanted.slug == live.slug and wanted.rule == _as_written(live, wanted).rule


def _as_written(live: ScheduleConfig, wanted: ScheduleConfig) -> ScheduleConfig:
    """A live schedule without the start that the server puts before an rrule which names none."""
    if wanted.rrule is None or live.rrule is None or "DTSTART" in wanted.rrule.upper():
        return live
    return replace(live, rrule=_RRULE_START.sub("", live.rrule))


def _both_without_slug(one: ScheduleConfig, other: ScheduleConfig) -> bool:
    return one.slug is None and other.slug is None


def _recorded(pair: SchedulePair, recorded: Sequence[ScheduleConfig]) -> ScheduleConfig | None:
    """The schedule that was applied last in the place of a pair, None where there was none."""
    for same in (_same_slug, _is_renamed, _same_rule):
        for known in (pair.live, pair.desired):
            found = next((each for each in recorded if known and same(known, each)), None)
            if found is not None:
                return found
    nameless = [each for each in recorded if each.slug is None]
    paired_by_order = pair.live is not None and pair.desired is not None and pair.desired.slug is None
    return nameless[0] if paired_by_order and len(nameless) == 1 else None


def _schedule_differences(pair: SchedulePair, last: ScheduleConfig | None) -> Iterator[_Difference]:
    wanted, live = pair.desired, pair.live
    if wanted is None or live is None:
        yield from _coming_or_going(wanted, live, last)
        return
    path, live = f"schedules[{wanted.label}]", _as_written(live, wanted)
    last = last and _as_written(last, wanted)
    for name in ("slug", *SCHEDULE_RULE, *(("anchor_date",) if wanted.anchor_date is not None else ())):
        before_that = _OTHER if last is None else _comparable(getattr(last, name))
        before, after = _comparable(getattr(live, name)), _comparable(getattr(wanted, name))
        yield from _walk(before, after, before_that, f"{path}.{name}")
    if live.active and not wanted.active:
        yield _Difference(path=f"{path}.active", before=True, after=False, last=last and last.active)


def _coming_or_going(
    wanted: ScheduleConfig | None, live: ScheduleConfig | None, last: ScheduleConfig | None
) -> Iterator[_Difference]:
    """A schedule that only one side has."""
    known = wanted or live
    assert known is not None  # a pair has at least one side
    rules = [each and _as_written(each, last or known).rule for each in (live, wanted, last)]
    yield _Difference(path=f"schedules[{known.label}]", before=rules[0], after=rules[1], last=rules[2])


def _kept_schedule(pair: SchedulePair, last: ScheduleConfig | None) -> list[str]:
    if pair.desired is None or pair.live is None or pair.live.active or not pair.desired.active:
        return []
    by_repository = last is not None and not last.active
    return [_switched_off(f"schedules[{pair.desired.label}].active", by_repository=by_repository)]

"""Rules about schedules, wherever one is written: in a prefect.yaml, or in a template, an override or the deployer's
section of an environment. They belong to the DPL codes.

A wrong schedule in a prefect.yaml takes out its one deployment. One in an environment may concern any number of them,
so it stops an apply.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from zoneinfo import available_timezones

from orchestrator.config import ScheduleSection
from orchestrator.cron import cron_fault, never_comes
from orchestrator.model import Declaration, ScheduleConfig
from orchestrator.rules.places import columns_of
from orchestrator.rules.rule import Facts, Finding, Rule, suggestion

LONGEST_RRULE = 6500
"""Characters; see MAX_RRULE_LENGTH in Prefect's own schemas."""


@dataclass(frozen=True, slots=True)
class _Written:
    """A schedule and where it is written."""

    facts: Facts
    schedule: ScheduleConfig
    owner: str  # how a message calls what it belongs to
    source: Declaration | None  # None: an environment
    location: tuple[str | int, ...]

    def finding(self, key: str, value: str, message: str, remedy: str) -> Finding:
        """A finding about one key of the schedule."""
        path, line = self._place(*self.location, key)
        span = columns_of(self.facts.repository, path, line, value)
        declaration = self.source.location if self.source else None
        text = f"{self.owner}: {message}."
        skips = declaration is not None
        return Finding(path, line, text, remedy, skips, span=span or key, declaration=declaration)

    def _place(self, *place: str | int) -> tuple[str | None, int | None]:
        if self.source is None:
            return self.facts.environment.place(*place)
        return self.source.file_path, self.source.line(*place)


def _schedules(facts: Facts) -> Iterator[_Written]:
    """Every schedule that is written out; what holds a `{{ … }}` cannot be known."""
    for written in (*_declared(facts), *_of_environment(facts)):
        texts = (written.schedule.cron, written.schedule.rrule, written.schedule.timezone)
        if not any("{{" in text for text in texts if text):
            yield written


def _declared(facts: Facts) -> Iterator[_Written]:
    for declaration in facts.declarations:
        owner = f"The schedule of the deployment {declaration.name!r}"
        for index, schedule in enumerate(declaration.schedules):
            yield _Written(facts, schedule, owner, declaration, ("schedules", index))


def _of_environment(facts: Facts) -> Iterator[_Written]:
    environment = facts.environment
    for kind, template in environment.templates.items():
        for index, section in enumerate(template.schedules or ()):
            owner = f"A schedule of the template {kind!r}"
            yield _Written(facts, section.to_schedule(), owner, None, ("templates", kind, "schedules", index))
    for pattern, override in environment.deployments.items():
        for index, section in enumerate(override.schedules or ()):
            owner = f"A schedule for the deployments {pattern!r}"
            yield _Written(facts, section.to_schedule(), owner, None, ("deployments", pattern, "schedules", index))
    yield from _of_deployer(facts, environment.deployer.schedule)


def _of_deployer(facts: Facts, section: ScheduleSection | None) -> Iterator[_Written]:
    if section is not None:
        yield _Written(facts, section.to_schedule(), "The deployer's schedule", None, ("deployer", "schedule"))


def invalid_cron(facts: Facts) -> Iterator[Finding]:
    """A cron expression is none that Prefect accepts.

    The server refuses the deployment. Correct the field that is named: minute, hour, day of month, month, day of week,
    in this order; a sixth field holds seconds, a seventh years. Names (`MON-FRI`), steps (`*/15`), lists, `L`, `5#2`
    and the short forms `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly` are understood.
    """
    for written in _schedules(facts):
        cron = written.schedule.cron
        if cron is not None and (fault := cron_fault(cron)):
            yield written.finding(
                "cron",
                fault.part or cron,
                f"{_shown(cron)} is no cron expression: {fault.reason}",
                "Correct it; the fields are minute (0-59), hour (0-23), day of month (1-31), month (1-12), "
                "day of week (0-7 or mon-sun).",
            )


def cron_without_days(facts: Facts) -> Iterator[Finding]:
    """A cron expression names only days that no year has, such as 30 February.

    Prefect accepts it, but it never brings a run. Correct the day or the month; `L` is the last day of a month.
    """
    for written in _schedules(facts):
        cron = written.schedule.cron
        if cron is not None and never_comes(cron, day_or=written.schedule.day_or):
            yield written.finding(
                "cron",
                cron,
                f"{_shown(cron)} never comes: no year has such a day",
                "Correct the day of month (third field) or the month (fourth); `L` is the last day of a month.",
            )


def misplaced_anchor(facts: Facts) -> Iterator[Finding]:
    """A schedule that is no interval has an anchor date.

    An anchor says from when on the steps of an `interval` are counted. A cron expression or an rrule knows its times
    by itself: the anchor has no effect, and `prefect deploy` refuses it. Remove it; for an rrule, write `DTSTART`.
    """
    for written in _schedules(facts):
        if written.schedule.anchor_date is not None and written.schedule.interval is None:
            yield written.finding(
                "anchor_date",
                "anchor_date",
                f"an anchor date has no effect beside {'cron' if written.schedule.cron else 'rrule'}",
                "Remove `anchor_date`; only an `interval` is counted from one.",
            )


def invalid_rrule(facts: Facts) -> Iterator[Finding]:
    """A recurrence rule is none that Prefect accepts.

    The server refuses the deployment. Write it as RFC 5545 says (`FREQ=WEEKLY;BYDAY=MO`), in up to 6500 characters.
    """
    for written in _schedules(facts):
        rrule = written.schedule.rrule
        if rrule is not None and (reason := _rrule_fault(rrule)):
            yield written.finding(
                "rrule",
                rrule,
                f"{_shown(rrule)} is no recurrence rule: {reason}",
                "Correct it as RFC 5545 says, for example FREQ=WEEKLY;BYDAY=MO.",
            )


def _rrule_fault(rrule: str) -> str:
    """Why a recurrence rule is refused, empty where the server takes it."""
    # Imported here, since few repositories have an rrule and all commands load the rules.
    from dateutil.rrule import rrulestr  # type: ignore[import-untyped]

    if len(rrule) > LONGEST_RRULE:
        return f"it has {len(rrule)} characters, {LONGEST_RRULE} are allowed"
    try:
        rrulestr(rrule, cache=True)
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        return " ".join(str(error).split())[:120] or "it cannot be read"
    return ""


def unknown_timezone(facts: Facts) -> Iterator[Finding]:
    """A schedule names a time zone that does not exist.

    The server refuses the deployment. Write an IANA name such as `Europe/Berlin` or `UTC`, in exactly this spelling;
    offsets such as `+02:00` are no names.
    """
    for written in _schedules(facts):
        zone = written.schedule.timezone
        if zone and zone != "UTC" and _zones() and zone not in _zones():
            yield written.finding(
                "timezone",
                zone,
                f"there is no time zone {_shown(zone)}",
                _nearest_zone(zone) or "Write an IANA name, for example Europe/Berlin or UTC.",
            )


@cache
def _zones() -> frozenset[str]:
    """The names that this machine knows; a server knows the same. Empty where it has no time zone data."""
    return frozenset(available_timezones())


def _nearest_zone(zone: str) -> str:
    """The zone meant, be it written in other letters, with a space, or by its city alone."""
    folded = zone.strip().replace(" ", "_").casefold()[:60]
    exact = [known for known in _zones() if known.casefold() == folded or known.casefold().endswith(f"/{folded}")]
    return f"Did you mean {min(exact, key=len)}?" if exact else suggestion(zone[:60], sorted(_zones()))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}…")


RULES: tuple[Rule, ...] = (
    Rule(
        "DPL007",
        "Invalid cron expression",
        "error",
        invalid_cron,
        example="schedules:\n  - cron: 0 61 * * *",
        better="schedules:\n  - cron: 0 6 * * *",
    ),
    Rule(
        "DPL008",
        "Anchor date without an interval",
        "warning",
        misplaced_anchor,
        example="schedules:\n  - cron: 0 6 * * *\n    anchor_date: 2024-01-01",
        better="schedules:\n  - interval: 86400\n    anchor_date: 2024-01-01T06:00:00+00:00",
    ),
    Rule(
        "DPL009",
        "Invalid recurrence rule",
        "error",
        invalid_rrule,
        example="schedules:\n  - rrule: FREQ=WEKLY;BYDAY=MO",
        better="schedules:\n  - rrule: FREQ=WEEKLY;BYDAY=MO",
    ),
    Rule(
        "DPL010",
        "Unknown time zone",
        "error",
        unknown_timezone,
        example="schedules:\n  - cron: 0 6 * * *\n    timezone: Europe/Berln",
        better="schedules:\n  - cron: 0 6 * * *\n    timezone: Europe/Berlin",
    ),
    Rule(
        "DPL014",
        "Schedule that never comes",
        "warning",
        cron_without_days,
        example="schedules:\n  - cron: 0 6 30 2 *",
        better="schedules:\n  - cron: 0 6 L 2 *",
    ),
)

"""Three-way comparison: who moved since the last apply, which schedules belong together, and what a diff may show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.differences import (
    StrayTrigger,
    changed_fields,
    differences,
    pair_schedules,
    replaced_triggers,
)
from orchestrator.masking import HIDDEN
from orchestrator.model import Cause, DeploymentConfig, FieldDiff, ScheduleConfig
from tests.unit.builders import cron, deployment, live

ABSENT = object()


def compared(last: DeploymentConfig | None, there: DeploymentConfig, wanted: DeploymentConfig) -> tuple[FieldDiff, ...]:
    return differences(wanted, live(there), last)[0]


def causes(last: DeploymentConfig | None, there: DeploymentConfig, wanted: DeploymentConfig) -> dict[str, Cause]:
    return {found.path: found.cause for found in compared(last, there, wanted)}


def with_value(field: str, value: Any) -> DeploymentConfig:
    """A deployment with this value in one field; in mappings under the key `x`."""
    if field in ("parameters", "job_variables"):
        return deployment(**{field: {} if value is ABSENT else {"x": value}})
    if field == "nested":
        return deployment(job_variables={"env": {} if value is ABSENT else {"X": value}})
    if field == "schedule":
        return deployment(schedules=() if value is ABSENT else (cron(f"{value} * * * *", slug="nightly"),))
    return deployment(**{field: "" if value is ABSENT else str(value)})


FIELDS = {
    "parameters": "parameters.x",
    "job_variables": "job_variables.x",
    "nested": "job_variables.env.X",
    "description": "description",
    "version": "version",
    "schedule": "schedules[nightly].cron",
}
# last applied, live, desired → who moved
TABLE: list[tuple[Any, Any, Any, str | None]] = [
    (1, 1, 1, None),
    (1, 1, 2, "repository"),
    (1, 2, 1, "server"),
    (1, 2, 2, None),
    (1, 2, 3, "both"),
    (ABSENT, ABSENT, 1, "repository"),
    (ABSENT, 1, ABSENT, "server"),
    (ABSENT, 1, 1, None),
    (ABSENT, 1, 2, "both"),
    (1, ABSENT, ABSENT, None),
    (1, ABSENT, 1, "server"),
    (1, 1, ABSENT, "repository"),
    (1, ABSENT, 2, "both"),
    (1, 2, ABSENT, "both"),
]


class TestCauses:
    @pytest.mark.parametrize("field", FIELDS)
    @pytest.mark.parametrize(("last", "there", "wanted", "cause"), TABLE)
    def test_of_every_combination(self, field: str, last: Any, there: Any, wanted: Any, cause: str | None) -> None:
        found = causes(*(with_value(field, value) for value in (last, there, wanted)))
        assert list(found.values()) == ([cause] if cause else [])

    @pytest.mark.parametrize("field", FIELDS)
    def test_are_told_at_the_same_path_as_without_a_record(self, field: str) -> None:
        there, wanted = with_value(field, 1), with_value(field, 2)
        assert causes(None, there, wanted) == {FIELDS[field]: ""}
        assert causes(there, there, wanted) == {FIELDS[field]: "repository"}

    def test_of_neighbours_are_told_apart(self) -> None:
        last = deployment(parameters={"a": 1, "b": 1, "c": 1}, tags=("x",))
        there = replace(last, parameters={"a": 1, "b": 2, "c": 2})
        wanted = replace(last, parameters={"a": 3, "b": 1, "c": 3}, tags=("y",))
        assert causes(last, there, wanted) == {
            "parameters.a": "repository",
            "parameters.b": "server",
            "parameters.c": "both",
            "tags": "repository",
        }

    def test_where_the_record_had_another_form(self) -> None:
        last = deployment(job_variables={"env": "a text"})
        there, wanted = (replace(last, job_variables={"env": {"A": value}}) for value in ("1", "2"))
        assert causes(last, there, wanted) == {"job_variables.env.A": "both"}

    def test_true_is_not_one(self) -> None:
        last, there, wanted = (deployment(parameters={"x": value}) for value in (1, True, 2))
        assert causes(last, there, wanted) == {"parameters.x": "both"}

    def test_of_a_pause(self) -> None:
        running, paused = deployment(), deployment(paused=True)
        assert causes(paused, running, paused) == {"paused": "server"}
        assert causes(running, running, paused) == {"paused": "repository"}

    def test_of_a_switched_off_schedule(self) -> None:
        on, off = (deployment(schedules=(cron(slug="n", active=active),)) for active in (True, False))
        assert causes(off, on, off) == {"schedules[n].active": "server"}
        assert causes(on, on, off) == {"schedules[n].active": "repository"}

    def test_of_schedules_without_slugs(self) -> None:
        one, two, three = (deployment(schedules=(cron(f"{minute} * * * *"),)) for minute in (1, 2, 3))
        for last, there, wanted, cause in [(one, one, two, "repository"), (one, two, one, "server")]:
            assert list(causes(last, there, wanted).values()) == [cause]
        assert list(causes(one, two, three).values()) == ["both"]

    def test_of_a_schedule_more_or_less(self) -> None:
        one = deployment(schedules=(cron("1 * * * *", slug="a"),))
        two = deployment(schedules=(cron("1 * * * *", slug="a"), cron("2 * * * *", slug="b")))
        assert causes(one, one, two) == {"schedules[b]": "repository"}
        assert causes(two, one, two) == {"schedules[b]": "server"}
        assert causes(one, two, one) == {"schedules[b]": "server"}
        assert causes(two, two, one) == {"schedules[b]": "repository"}

    def test_the_servers_start_of_an_rrule_is_nobodys_change(self) -> None:
        rule = "FREQ=DAILY"
        last, wanted = deployment(schedules=(ScheduleConfig(rrule=rule, slug="r"),)), deployment()
        there = deployment(schedules=(ScheduleConfig(rrule=f"DTSTART:20261122T000000\n{rule}", slug="r"),))
        assert causes(last, there, last) == {}
        assert causes(last, there, wanted) == {"schedules[r]": "repository"}

    def test_of_triggers(self) -> None:
        trigger = {"name": "on-file", "expect": ["a"], "enabled": True}
        last = deployment(triggers=(trigger,))
        there = deployment(triggers=({**trigger, "expect": ["b"]},))
        assert causes(last, there, last) == {"triggers.on-file.expect": "server"}
        assert causes(last, last, deployment()) == {"triggers.on-file": "repository"}

    @given(*(st.sampled_from([ABSENT, 1, 2, "1", True]) for _ in range(3)), st.sampled_from(sorted(FIELDS)))
    def test_never_change_what_differs(self, last: Any, there: Any, wanted: Any, field: str) -> None:
        if field == "schedule" and any(value in ("1", True) for value in (last, there, wanted)):
            return  # no minutes
        known, one, other = (with_value(field, value) for value in (last, there, wanted))
        without, found = compared(None, one, other), compared(known, one, other)
        assert [replace(each, cause="") for each in found] == list(without)
        assert all(each.cause for each in found)


class TestKept:
    def kept(self, last: DeploymentConfig | None, there: DeploymentConfig, wanted: DeploymentConfig) -> tuple[str, ...]:
        return differences(wanted, live(there), last)[1]

    def test_what_a_person_paused(self) -> None:
        assert self.kept(deployment(), deployment(paused=True), deployment()) == ("paused: somebody paused it",)

    def test_what_the_repository_paused_and_now_does_not(self) -> None:
        paused = deployment(paused=True)
        (words,) = self.kept(paused, paused, deployment())
        assert "the repository paused it before" in words

    def test_what_the_repository_switched_off_and_now_does_not(self) -> None:
        on, off = (deployment(schedules=(cron(slug="n", active=active),)) for active in (True, False))
        assert self.kept(on, off, on) == ("schedules[n].active: somebody switched it off",)
        assert "the repository switched it off before" in self.kept(off, off, on)[0]


class TestRenamedSchedules:
    OLD, NEW = cron(slug="old"), cron("5 5 * * *", slug="new", replaces="old")

    def test_are_changed_in_place(self) -> None:
        (pair,) = pair_schedules([self.NEW], live(deployment(schedules=(self.OLD,))))
        assert (pair.live_id, pair.desired) == ("schedule-0", self.NEW)
        assert pair.differs
        found = compared(None, deployment(schedules=(self.OLD,)), deployment(schedules=(self.NEW,)))
        assert [(each.path, each.before, each.after) for each in found] == [
            ("schedules[new].slug", "old", "new"),
            ("schedules[new].cron", "0 4 * * *", "5 5 * * *"),
        ]

    def test_are_renamed_once(self) -> None:
        there = live(deployment(schedules=(replace(self.NEW, replaces=None),)))
        (pair,) = pair_schedules([self.NEW], there)
        assert not pair.differs

    def test_the_own_name_counts_first(self) -> None:
        there = live(deployment(schedules=(self.OLD, replace(self.NEW, replaces=None))))
        pairs = pair_schedules([self.NEW], there)
        assert [(pair.live_id, pair.desired) for pair in pairs] == [("schedule-1", self.NEW), ("schedule-0", None)]

    def test_one_that_keeps_the_old_name_is_not_taken(self) -> None:
        pairs = pair_schedules([self.NEW, self.OLD], live(deployment(schedules=(self.OLD,))))
        assert [(pair.live_id, pair.desired) for pair in pairs] == [("schedule-0", self.OLD), (None, self.NEW)]

    def test_the_cause_is_the_repository(self) -> None:
        was = deployment(schedules=(self.OLD,))
        assert set(causes(was, was, deployment(schedules=(self.NEW,))).values()) == {"repository"}


class TestConcealed:
    """What came from a block or the environment is shown nowhere, whatever it looks like."""

    TEXT = "plain words"

    def shown(
        self, there: Any, wanted: Any, *, last: DeploymentConfig | None = None, **fields: Any
    ) -> tuple[FieldDiff, ...]:
        config = deployment(parameters=wanted, **{"concealed": (self.TEXT,), **fields})
        return differences(config, live(deployment(parameters=there)), last)[0]

    @pytest.mark.parametrize("form", ["{}", "before {} after", '{{"json": "{}"}}'])
    def test_wherever_it_stands(self, form: str) -> None:
        value = form.format(self.TEXT) if "{{" not in form else '{"json": "' + self.TEXT + '"}'
        for there, wanted in [({}, {"x": value}), ({"x": value}, {}), ({"x": value}, {"x": [value]})]:
            assert self.TEXT not in repr(self.shown(there, wanted))

    def test_the_rest_is_shown(self) -> None:
        (found,) = self.shown({}, {"x": f"user:{self.TEXT}"})
        assert found.after == f"user:{HIDDEN}"

    def test_in_keys(self) -> None:
        (found,) = self.shown({}, {"x": {self.TEXT: 1}})
        assert found.after == {HIDDEN: 1}
        assert self.TEXT not in repr(self.shown({"x": {self.TEXT: 2}}, {"x": {self.TEXT: 1}}))

    def test_the_old_one_on_the_server_neither(self) -> None:
        (found,) = self.shown({"x": "the one before"}, {"x": self.TEXT})
        assert (found.before, found.after) == (HIDDEN, HIDDEN)
        (found,) = self.shown({"x": ["same", "the one before"]}, {"x": ["same", self.TEXT]})
        assert (found.before, found.after) == (["same", HIDDEN], ["same", HIDDEN])
        (found,) = self.shown({"x": [{"y": "the one before"}]}, {"x": [{"y": self.TEXT}, 2]})
        assert "the one before" not in repr(found)

    def test_what_was_concealed_at_the_last_apply(self) -> None:
        last = deployment(parameters={"x": "the one before"}, concealed=("the one before",))
        assert "the one before" not in repr(self.shown({"x": "the one before"}, {}, last=last, concealed=()))

    def test_numbers(self) -> None:
        (found,) = self.shown({}, {"port": 5432}, concealed=("5432",))
        assert found.after == HIDDEN

    def test_short_ones_cut_no_words(self) -> None:
        (one, two) = self.shown({}, {"a": "abc", "b": "b"}, concealed=("b", ""))
        assert (one.after, two.after) == ("abc", HIDDEN)

    def test_the_field_stays_named(self) -> None:
        found = differences(deployment(tags=("x",), concealed=("tags",)), live(deployment()))[0]
        assert changed_fields(found) == ("tags",)

    def test_json_escapes(self) -> None:
        secret = 'with "quotes"\nand lines'
        document = '{"x": "with \\"quotes\\"\\nand lines"}'
        assert "quotes" not in repr(self.shown({}, {"x": document}, concealed=(secret,)))


def test_fields_are_named_once() -> None:
    fields = tuple(FieldDiff(path=path) for path in ("tags", "parameters.a", "parameters.b", "schedules[x.y].cron"))
    assert changed_fields(fields) == ("tags", "parameters", "schedules")


class TestTriggers:
    ON: ClassVar[dict[str, Any]] = {"name": "mine", "expect": ["a"], "enabled": True}
    OFF: ClassVar[dict[str, Any]] = {**ON, "enabled": False}

    def found(
        self, wanted: Sequence[Any], there: Sequence[Any], last: Sequence[Any] | None = None
    ) -> tuple[dict[str, tuple[Any, Any]], tuple[str, ...]]:
        recorded = None if last is None else deployment(triggers=tuple(last))
        fields, kept = differences(
            deployment(triggers=tuple(wanted)), live(deployment(triggers=tuple(there))), recorded
        )
        return {field.path: (field.before, field.after) for field in fields}, kept

    def test_that_somebody_switched_off_stay_off(self) -> None:
        kept = ("triggers.mine.enabled: somebody switched it off",)
        assert self.found([self.ON], [self.OFF]) == ({}, kept)
        assert self.found([self.ON], [self.OFF], [self.ON]) == ({}, kept)
        changed = {**self.ON, "expect": ["b"]}
        assert self.found([changed], [self.OFF]) == ({"triggers.mine.expect": (["a"], ["b"])}, kept)

    def test_that_the_repository_switched_off_stay_off(self) -> None:
        fields, (kept,) = self.found([self.ON], [self.OFF], [self.OFF])
        assert fields == {}
        assert kept.startswith("triggers.mine.enabled: the repository switched it off before")

    def test_are_switched_off_by_the_repository(self) -> None:
        assert self.found([self.OFF], [self.ON]) == ({"triggers.mine.enabled": (True, False)}, ())
        assert self.found([self.OFF], [self.OFF]) == ({}, ())

    def test_that_are_strays_are_compared_where_they_are_named(self) -> None:
        fields, (kept,) = self.found([self.ON], [StrayTrigger(self.ON), StrayTrigger(name="other")])
        assert fields == {}
        assert kept.startswith("triggers.other: nobody can tell who made it")
        changed = StrayTrigger({**self.ON, "expect": ["b"]})
        assert self.found([self.ON], [changed]) == ({"triggers.mine.expect": (["b"], ["a"])}, ())
        assert self.found([self.ON], [self.ON, changed]) == ({}, ())

    def test_that_are_strays_are_replaced_where_they_are_named(self) -> None:
        mine, other = StrayTrigger(self.ON), StrayTrigger(name="other")
        there = deployment(triggers=(mine, other, {"name": "ours"}))
        assert replaced_triggers(deployment(triggers=(self.ON,)), there) == (mine, {"name": "ours"})
        assert replaced_triggers(deployment(), there) == ({"name": "ours"},)

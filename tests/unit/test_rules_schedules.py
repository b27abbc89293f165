"""Rules about schedules: DPL007 to DPL010 and DPL014, in prefect.yaml and in all places of an environment."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent
from zoneinfo import available_timezones

import pytest
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from pydantic import ValidationError as PydanticError

from orchestrator.model import ValidationError
from orchestrator.rules import RULES
from tests.unit.checking import faults_of, marked

FLOW = "from prefect import flow\n\n@flow\ndef etl(): ...\n"


def of_schedule(root: Path, text: str, code: str) -> tuple[ValidationError, ...]:
    """The faults of a prefect.yaml whose one schedule begins at line 5."""
    start = "deployments:\n  - name: daily\n    entrypoint: flows/etl.py:etl\n    schedules:\n"
    entry = indent(dedent(text).strip(), "        ").replace("        ", "      - ", 1)
    return faults_of(root, {"flows/etl.py": FLOW, "prefect.yaml": f"{start}{entry}\n"}, code)


def of_environment(root: Path, text: str, code: str) -> tuple[ValidationError, ...]:
    files = {"flows/etl.py": FLOW, "environments/base.yaml": "{}", "environments/development.yaml": text}
    return faults_of(root, files, code)


WRONG = {
    "DPL007": ("cron: 0 61 * * *", "61", "the hour '61': 61 lies outside 0-23"),
    "DPL008": ("cron: 0 6 * * *\nanchor_date: 2024-01-01", "anchor_date", "no effect beside cron"),
    "DPL009": ("rrule: FREQ=WEKLY", "FREQ=WEKLY", "'FREQ=WEKLY' is no recurrence rule"),
    "DPL014": ("cron: 0 6 30 2 *", "0 6 30 2 *", "no year has such a day"),
    "DPL010": ("cron: 0 6 * * *\ntimezone: Europe/Berln", "Europe/Berln", "no time zone 'Europe/Berln'"),
}
PLACES = {
    "prefect.yaml": "",
    "the deployer": "deployer:\n  schedule:\n{}",
    "a template": "templates:\n  python:\n    schedules:\n      - slug: a\n{}",
    "an override": "deployments:\n  'etl/*':\n    schedules:\n      - slug: a\n{}",
}


class TestEverywhere:
    @pytest.mark.parametrize("code", WRONG)
    def test_in_a_prefect_yaml_only_that_deployment_is_left_out(self, tmp_path: Path, code: str) -> None:
        text, part, reason = WRONG[code]
        (fault,) = of_schedule(tmp_path, text, code)
        assert fault.location == f"prefect.yaml:{5 + text.count(chr(10))}"
        assert fault.skips is (fault.severity == "error")
        assert reason in fault.message
        assert "'daily'" in fault.message
        assert marked(tmp_path, fault) == part

    @pytest.mark.parametrize("code", WRONG)
    @pytest.mark.parametrize("place", [name for name in PLACES if PLACES[name]])
    def test_in_an_environment(self, tmp_path: Path, code: str, place: str) -> None:
        text, part, reason = WRONG[code]
        written = PLACES[place].format(indent(text, "        "))
        (fault,) = of_environment(tmp_path, written, code)
        assert fault.location == f"environments/development.yaml:{len(written.splitlines())}"
        assert fault.skips is False
        assert reason in fault.message
        assert marked(tmp_path, fault) == part

    def test_the_file_that_says_it_is_named(self, tmp_path: Path) -> None:
        files = {
            "environments/base.yaml": "select: ['*']\ndeployer:\n  schedule:\n    cron: 0 61 * * *\n",
            "environments/development.yaml": "deployer:\n  schedule: {timezone: Nowhere}\n",
        }
        (cron,) = faults_of(tmp_path, files, "DPL007")
        (zone,) = faults_of(tmp_path, files, "DPL010")
        assert [cron.location, zone.location] == ["environments/base.yaml:4", "environments/development.yaml:2"]

    @pytest.mark.parametrize("code", WRONG)
    def test_the_example_of_the_rule_has_its_fault_and_the_better_one_has_not(self, tmp_path: Path, code: str) -> None:
        rule = next(rule for rule in RULES if rule.code == code)
        start = "deployments:\n  - name: daily\n    entrypoint: flows/etl.py:etl\n"
        for text, count in ((rule.example, 1), (rule.better, 0)):
            files = {"flows/etl.py": FLOW, "prefect.yaml": start + indent(text, "    ")}
            assert len(faults_of(tmp_path, files, code)) == count


class TestLines:
    def test_an_anchor_is_where_it_stands(self, tmp_path: Path) -> None:
        text = """
            definitions:
              schedules:
                nightly: &nightly
                  cron: 0 61 * * *
            deployments:
              - name: a
                entrypoint: flows/etl.py:etl
                schedules: [*nightly]
              - name: b
                entrypoint: flows/etl.py:etl
                schedules:
                  - <<: *nightly
                    slug: b
        """
        found = faults_of(tmp_path, {"flows/etl.py": FLOW, "prefect.yaml": text}, "DPL007")
        assert [fault.location for fault in found] == ["prefect.yaml:4", "prefect.yaml:4"]

    def test_each_of_several_is_told_where_it_stands(self, tmp_path: Path) -> None:
        text = """
            deployments:
              - name: a
                entrypoint: flows/etl.py:etl
                schedules:
                  - cron: 0 62 * * *
                  - cron: 0 63 * * *
              - name: b
                entrypoint: flows/etl.py:etl
                schedule:
                  cron: 0 61 * * *
        """
        found = faults_of(tmp_path, {"flows/etl.py": FLOW, "prefect.yaml": text}, "DPL007")
        assert [(fault.line_number, marked(tmp_path, fault)) for fault in found] == [(5, "62"), (6, "63"), (10, "61")]


class TestNearMisses:
    @pytest.mark.parametrize(
        "text",
        [
            *("cron: '@daily'", "cron: 0 0 * * MON-FRI", "cron: 0 0 L * *", "cron: 0 0 * * 5#2", "cron: 0 0 ? * 7"),
            *("cron: 0 0 * * * 30", "cron: 0 0 29 2 *", "cron: '{{ prefect.variables.cron }}'"),
            *("rrule: FREQ=DAILY;COUNT=3", "rrule: 'RRULE:FREQ=WEEKLY;BYDAY=MO'", "rrule: '{{ prefect.variables.r }}'"),
            *(
                "cron: 0 0 * * *\ntimezone: EST5EDT",
                "cron: 0 0 * * *\ntimezone: ''",
                "interval: 5\ntimezone: Asia/Tokyo",
            ),
            *("cron: 0 0 * * *\ntimezone: '{{ prefect.variables.zone }}'", "interval: 60\nanchor_date: 2024-01-01"),
        ],
    )
    def test_are_not_reported(self, tmp_path: Path, text: str) -> None:
        for code in WRONG:
            assert of_schedule(tmp_path, text, code) == ()


class TestTimezones:
    @pytest.mark.parametrize("zone", [*sorted(available_timezones())[::40], "europe/berlin", "+02:00", "CEST", "UTC "])
    def test_what_a_server_accepts_is_accepted(self, tmp_path: Path, zone: str) -> None:
        try:
            CronSchedule(cron="0 6 * * *", timezone=zone)
            IntervalSchedule(interval=60, timezone=zone)  # type: ignore[arg-type]  # as it comes over the wire
            accepted = True
        except PydanticError:
            accepted = False
        assert (of_schedule(tmp_path, f"cron: 0 6 * * *\ntimezone: '{zone}'", "DPL010") == ()) is accepted

    @pytest.mark.parametrize(
        ("written", "meant"),
        [
            ("Europe/Berln", "Europe/Berlin"),
            ("europe/berlin", "Europe/Berlin"),
            ("Berlin", "Europe/Berlin"),
            ("New York", "America/New_York"),
        ],
    )
    def test_the_nearest_is_suggested(self, tmp_path: Path, written: str, meant: str) -> None:
        (fault,) = of_schedule(tmp_path, f"cron: 0 6 * * *\ntimezone: {written}", "DPL010")
        assert meant in fault.remediation


class TestRrules:
    @pytest.mark.parametrize(
        "rule",
        [
            *("FREQ=DAILY", "RRULE:FREQ=DAILY", "FREQ=DAILY;COUNT=0", "FREQ=MONTHLY;BYDAY=-1FR", "freq=daily"),
            *(
                "",
                "DAILY",
                "FREQ=",
                "FREQ=OFTEN",
                "FREQ=DAILY;BYDAY=XX",
                "FREQ=DAILY;COUNT=x",
                "COUNT=3",
                "FREQ=DAILY;X=1",
            ),
            *("DTSTART:20240101T000000\nRRULE:FREQ=DAILY", "DTSTART:soon\nRRULE:FREQ=DAILY", "RDATE:20240101T000000"),
            *("FREQ=DAILY;UNTIL=20240101T000000Z", "FREQ=DAILY;UNTIL=never", "FREQ=YEARLY;BYMONTH=13", "FREQ=DAILY;;"),
            *("RDATE:" + ",".join(["20240101T000000Z"] * 400), "RDATE:" + ",".join(["20240101T000000Z"] * 380)),
        ],
    )
    def test_what_a_server_accepts_is_accepted(self, tmp_path: Path, rule: str) -> None:
        try:
            RRuleSchedule(rrule=rule)
            accepted = True
        except (PydanticError, TypeError, KeyError, AttributeError):
            accepted = False
        if rule:  # an empty one is a wrong value, CFG003
            assert (of_schedule(tmp_path, f"rrule: {rule!r}".replace("'", '"'), "DPL009") == ()) is accepted

    def test_a_long_one_is_cut_short(self, tmp_path: Path) -> None:
        (fault,) = of_schedule(tmp_path, f"rrule: FREQ=DAILY;BYHOUR={'1,' * 5000}1", "DPL009")
        assert "characters, 6500 are allowed" in fault.message
        assert len(fault.message) < 300

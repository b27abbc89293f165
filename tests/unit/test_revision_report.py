"""How recorded applies and holds are told."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from orchestrator.config import Policy
from orchestrator.desired import SET_DIRECTORY
from orchestrator.model import ACTIONS, RESOURCE_ACTIONS, Desired, Hold, Plan, Provenance, Revision
from orchestrator.plan import make_plan
from orchestrator.revision_commands import one_before
from orchestrator.revision_report import folder_lines, history_json, history_text, hold_line
from tests.unit.builders import API_URL, OWNER, deployment, live

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HOLD = Hold(owner=OWNER, revision=3, desired_digest="abc", by="me@here", at="2026-11-22T06:31:59+00:00")


def revision(number: int = 1, **fields: Any) -> Revision:
    source = {"commit": COMMIT, "by": "me@here", **fields.pop("source", {})}
    values: dict[str, Any] = {
        "owner": OWNER,
        "provenance": Provenance(**source),
        "applied_at": "2026-11-22T06:31:59+00:00",
        "status": "completed",
        "summary": {**dict.fromkeys(ACTIONS, 0), "create": 8, "update": 2},
        "desired_digest": "abc",
        "failed": 0,
    }
    return Revision(number=number, **{**values, **fields})


def text(shown: RenderableType, width: int = 200) -> list[str]:
    output = StringIO()
    Console(file=output, width=width, color_system=None).print(shown)
    return [line.rstrip() for line in output.getvalue().splitlines()]


def test_one_line_says_all_about_a_revision() -> None:
    heading, line = text(
        history_text("staging", [revision(12, source={"trigger": "rollback", "note": "rollback to 3"})])
    )
    assert heading.split() == ["Revision", "When", "(UTC)", "Commit", "Result", "Changes", "By", "How"]
    assert line.split() == [
        *("12", "2026-11-22", "06:31:59", "0123456789ab", "completed", "+8", "~2", "-0", "me@here"),
        *("rollback", "to", "3"),
    ]


def test_what_is_copied_stays_whole_in_a_narrow_terminal() -> None:
    rollback = revision(12, source={"trigger": "rollback", "note": "rollback to 3", "is_dirty": True})
    assert "0123456789ab*" in "\n".join(text(history_text("staging", [rollback]), width=80))


def test_what_an_interruption_left_is_counted() -> None:
    *_, line = text(history_text("staging", [revision(status="interrupted", failed=3)]))
    assert "interrupted, 3 not made" in line


def test_pools_and_limits_are_counted_where_any_changed() -> None:
    nothing = dict.fromkeys(ACTIONS, 0)
    around = {**dict.fromkeys(RESOURCE_ACTIONS, 0), "update": 2, "unchanged": 5}
    _, line = text(history_text("staging", [revision(summary=nothing, resource_summary=around)]))
    assert "+0 ~0 -0, pools and limits +0 ~2" in line
    _, line = text(history_text("staging", [revision(resource_summary={**around, "update": 0})]))
    assert "pools and limits" not in line


def test_what_older_versions_recorded_has_no_counts_of_pools_and_limits() -> None:
    _, line = text(history_text("staging", [revision(resource_summary={})]))
    assert "+8 ~2 -0  me@here" in line


def test_failures_are_counted() -> None:
    *_, line = text(history_text("staging", [revision(status="degraded", failed=3)]))
    assert "degraded, 3 failed" in line


def test_a_dirty_commit_is_marked_and_the_mark_is_explained() -> None:
    *_, line, note = text(history_text("staging", [revision(source={"is_dirty": True})]))
    assert "0123456789ab*" in line and note.startswith("* applied from files that differ")
    assert "*" not in "".join(text(history_text("staging", [revision()])))


def test_without_a_commit_it_says_so() -> None:
    assert "no commit" in text(history_text("staging", [revision(source={"commit": None})]))[1]


def test_what_others_wrote_does_not_move_the_cursor() -> None:
    shown = "\n".join(text(history_text("s", [revision(source={"by": "a\x1b[2J", "note": "two\nlines [bold]"})])))
    assert "\x1b" not in shown and "two\\nlines [bold]" in shown


def test_a_hold_stands_above_everything() -> None:
    first, *_ = text(history_text("staging", [revision()], HOLD), width=400)
    assert first == hold_line(HOLD)
    assert "revision 3 by me@here" in first and "rollback --release" in first


def test_json_is_flat() -> None:
    around = {"create": 0, "update": 1, "unchanged": 4, "conflict": 0}
    shown = [revision(2, resource_summary=around), revision(1)]
    document = json.loads(json.dumps(history_json(shown, HOLD)))
    assert [each["number"] for each in document["revisions"]] == [2, 1]
    assert document["revisions"][0] == {
        "number": 2,
        "project": "shop",
        "environment": "development",
        "commit": COMMIT,
        "is_dirty": False,
        "by": "me@here",
        "trigger": "command line",
        "note": "",
        "applied_at": "2026-11-22T06:31:59+00:00",
        "status": "completed",
        "summary": {**dict.fromkeys(ACTIONS, 0), "create": 8, "update": 2},
        "resource_summary": around,
        "desired_digest": "abc",
        "failed": 0,
    }
    assert document["hold"] == {"revision": 3, "by": "me@here", "at": "2026-11-22T06:31:59+00:00"}


def plan_of(*paths: str, there: bool = False, **fields: Any) -> Plan:
    pull = ({SET_DIRECTORY: {"directory": "/srv/shop/etl"}},)
    wanted = tuple(deployment(path, pull_steps=pull, **fields) for path in paths)
    desired = Desired(owner=OWNER, deployments=wanted)
    return make_plan(desired, [live(each) for each in wanted] if there else [], api_url=API_URL, policy=Policy())


def test_code_in_a_folder_is_told_for_what_changes() -> None:
    (line,) = folder_lines(plan_of("etl/daily", "etl/weekly"), revision())
    assert "run in /srv/shop/etl stays as it is: etl/daily, etl/weekly." in line
    assert line.endswith("Check out 0123456789ab there for its code.")
    assert folder_lines(plan_of("etl/daily", there=True), revision()) == ()


def test_code_that_is_right_or_ours_is_no_caution() -> None:
    assert folder_lines(plan_of("etl/daily"), revision(), right=Path("/srv/shop")) == ()
    assert len(folder_lines(plan_of("etl/daily"), revision(), right=Path("/srv/sho"))) == 1
    assert folder_lines(plan_of("deploy-everything/x", origin="deployer"), revision()) == ()


@pytest.mark.parametrize("source", [{"commit": None}, {"is_dirty": True}])
def test_code_of_no_commit_is_lost(source: dict[str, Any]) -> None:
    (line,) = folder_lines(plan_of("etl/daily"), revision(source=source))
    assert line.endswith("No commit has its code.")


def test_many_deployments_are_counted() -> None:
    (line,) = folder_lines(plan_of(*(f"etl/{number}" for number in range(9))), revision())
    assert "etl/0, etl/1, etl/2, etl/3, etl/4 and 4 more." in line


def test_a_time_that_is_none_is_shown_as_it_is() -> None:
    assert "whenever" in text(history_text("s", [replace(revision(), applied_at="whenever")]))[1]


class TestOneBefore:
    def numbers(self, *revisions: Revision) -> int | None:
        found = one_before(revisions)
        return found.number if found else None

    def test_is_the_one_before_the_last(self) -> None:
        assert self.numbers(revision(3), revision(2), revision(1)) == 2

    def test_a_second_rollback_goes_further_back(self) -> None:
        back = revision(4, provenance=Provenance(trigger="rollback", note="rollback to 2"))
        assert self.numbers(back, revision(3), revision(2), revision(1)) == 1

    def test_there_may_be_none(self) -> None:
        assert (self.numbers(), self.numbers(revision(1))) == (None, None)

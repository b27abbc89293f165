"""Plans as people and programs read them: nothing is dropped, nothing hides, and it fits where it is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from rich.console import Console, RenderableType

from orchestrator import plan_report
from orchestrator.config import Policy
from orchestrator.masking import HIDDEN
from orchestrator.model import (
    Change,
    DeploymentConfig,
    Desired,
    FieldDiff,
    Finding,
    Hold,
    LimitSpec,
    Plan,
    PoolSpec,
    ResourceChange,
    Resources,
    ScheduleConfig,
    TouchedRuns,
)
from orchestrator.plan import make_plan, with_causes, with_findings, with_runs
from tests.unit.builders import API_URL, OWNER, deployment, live, problem, record, since

RESOURCES = (
    ResourceChange(
        action="create",
        resource="work pool",
        name="containers",
        reasons=("the environment asks for it",),
        desired=PoolSpec(name="containers", type="docker"),
    ),
    ResourceChange(
        action="update",
        resource="tag limit",
        name="db",
        reasons=("slots differ",),
        fields=(FieldDiff(path="slots", before=5, after=10),),
        desired=LimitSpec(scope="tag", name="db", slots=10),
    ),
    ResourceChange(
        action="unchanged", resource="work pool", name="processes", desired=PoolSpec(name="processes", type="process")
    ),
)
NO_POOL = Finding(message="There is no work pool 'x'.", remedy="Create it.")
NO_WORKER = Finding(message="No worker is online.", remedy="Start one.", severity="warning")


def text_of(renderable: RenderableType, width: int = 400) -> str:
    output = StringIO()
    Console(file=output, width=width).print(renderable)
    return output.getvalue()


def plan_of(*wanted: DeploymentConfig, there: Any = (), **more: Any) -> Plan:
    desired = Desired(owner=OWNER, deployments=wanted, problems=more.pop("problems", ()))
    return make_plan(desired, there, api_url=API_URL, policy=Policy(), **more)


def plan_with_everything(**more: Any) -> Plan:
    same, other, theirs = deployment("a/same"), deployment("b/other"), deployment("c/theirs")
    there = [
        live(same, paused=True),
        live(other, description="old"),
        live(theirs, owner=None),
        live(deployment("d/gone")),
        live(deployment("f/quiet")),
    ]
    wanted = (same, other, theirs, deployment("e/[new]"), deployment("f/quiet"))
    return plan_of(*wanted, there=there, problems=(problem(),), resources=RESOURCES, **more)


class TestJson:
    def test_keys_that_stay(self) -> None:
        document = plan_report.plan_json(plan_with_everything())
        assert set(document) >= {"environment", "api_url", "checksum", "summary", "changes", "resources"}
        assert set(document["summary"]) == {"create", "update", "unchanged", "delete", "adopt", "conflict"}
        keys = {"action", "deployment", "kind", "reasons", "fields", "kept", "runs", "findings"}
        assert all(set(each) == keys for each in document["changes"])
        (update,) = [each for each in document["changes"] if each["action"] == "update"]
        assert update["fields"] == [{"path": "description", "before": "old", "after": "", "cause": ""}]

    def test_pools_and_limits(self) -> None:
        document = plan_report.plan_json(plan_with_everything())
        assert [(each["action"], each["resource"], each["name"]) for each in document["resources"]] == [
            ("create", "work pool", "containers"),
            ("update", "tag limit", "db"),
            ("unchanged", "work pool", "processes"),
        ]

    def test_causes_runs_and_findings(self) -> None:
        plan = since(plan_with_everything(), deployment("b/other"))
        plan = with_runs(plan, {"id-of-b/other": TouchedRuns(scheduled=3, running=1, next_start="2026-11-23T04:00Z")})
        document = plan_report.plan_json(with_findings(plan, {"b/other": (NO_POOL,)}))
        (update,) = [each for each in document["changes"] if each["action"] == "update"]
        assert document["last_revision"] == 12
        assert update["fields"][0]["cause"] == "server"
        assert update["runs"] == {"scheduled": 3, "running": 1, "next_start": "2026-11-23T04:00Z", "is_more": False}
        assert update["findings"] == [{"message": NO_POOL.message, "remedy": "Create it.", "severity": "error"}]

    def test_causes_of_pools_and_limits(self) -> None:
        recorded = Resources(limits=(LimitSpec(scope="tag", name="db", slots=10),))
        document = plan_report.plan_json(with_causes(plan_with_everything(), record(12, resources=recorded)))
        assert document["resource_summary"] == {"create": 1, "update": 1, "unchanged": 1, "conflict": 0}
        assert document["resources"][1]["reasons"] == ("somebody changed the server: slots",)
        assert document["resources"][1]["fields"] == [{"path": "slots", "before": 5, "after": 10, "cause": "server"}]

    def test_can_be_written_and_read(self) -> None:
        document = plan_report.plan_json(plan_with_everything())
        assert json.loads(json.dumps(document))["checksum"] == document["checksum"]


class TestHeadline:
    def test_counts_by_sign(self) -> None:
        assert plan_report.headline("development", plan_of(deployment())) == "development: +1 ~0 -0"
        said = plan_report.headline("development", plan_with_everything())
        assert said == "development: +1 ~1 -1 !1, pools and limits +1 ~1"

    def test_in_words_says_what_there_is(self) -> None:
        plan = plan_with_everything()
        assert plan_report.counts(plan) == (
            "1 to create, 1 to update, 1 to delete, 1 in conflict, 2 unchanged; "
            "pools and limits: 1 to create, 1 to update"
        )
        assert plan_report.counts(plan_of()) == "nothing to do"

    def test_notes_say_what_counts_do_not(self) -> None:
        plan = with_findings(since(plan_with_everything(), deployment("b/other")), {"e/[new]": (NO_POOL,)})
        assert plan_report.notes(plan) == (
            "1 deployment changed on the server since revision 12",
            "1 change cannot be made: see the errors",
        )

    def test_a_plan_for_a_limit_alone_is_not_nothing(self) -> None:
        plan = plan_of(resources=RESOURCES[1:])
        assert plan_report.headline("development", plan) == "development: +0 ~0 -0, pools and limits +0 ~1"
        assert plan_report.counts(plan) == "pools and limits: 1 to update"

    def test_pools_in_conflict_are_counted(self) -> None:
        plan = plan_of(resources=[replace(RESOURCES[0], action="conflict")])
        assert plan_report.signs(plan) == "+0 ~0 -0, pools and limits +0 ~0 !1"
        assert plan_report.counts(plan) == "pools and limits: 1 in conflict"

    def test_notes_count_drift_of_pools_and_limits(self) -> None:
        recorded = Resources(limits=(LimitSpec(scope="tag", name="db", slots=10),))
        pool = PoolSpec(name="containers", type="docker")
        plan = plan_of(resources=RESOURCES)
        assert plan_report.notes(with_causes(plan, record(12, resources=recorded))) == (
            "1 pool or limit changed on the server since revision 12",
        )
        recorded = replace(recorded, pools=(pool,))
        assert plan_report.notes(with_causes(plan, record(12, resources=recorded))) == (
            "2 pools or limits changed on the server since revision 12",
        )
        plan = plan_of(deployment(), there=[live(deployment(), description="old")], resources=RESOURCES[1:])
        assert plan_report.notes(with_causes(plan, record(12, deployment(), resources=recorded))) == (
            "1 deployment and 1 pool or limit changed on the server since revision 12",
        )

    def test_notes_say_that_apply_will_refuse(self) -> None:
        plan = replace(plan_of(deployment()), too_much="delete 11 of the 16 deployments")
        assert plan_report.notes(plan) == (
            "apply refuses this without --allow-delete: it would delete 11 of the 16 deployments",
        )

    def test_there_are_no_notes_where_there_is_nothing_to_say(self) -> None:
        plan = with_findings(plan_of(deployment()), {"etl/daily": (NO_WORKER,)})
        assert plan_report.notes(plan) == ()


class TestText:
    def lines(self, plan: Plan, width: int = 400) -> list[str]:
        return text_of(plan_report.plan_text(plan), width).splitlines()

    def test_what_somebody_did_to_a_limit_is_marked(self) -> None:
        recorded = Resources(limits=(LimitSpec(scope="tag", name="db", slots=10),))
        lines = self.lines(with_causes(plan_of(resources=RESOURCES[1:]), record(12, resources=recorded)), 80)
        assert lines == [
            "~ tag limit db  somebody changed the server: slots",
            "    slots  5 → 10  ← changed on the server",
            "",
            "development: +0 ~0 -0, pools and limits +0 ~1  (pools and limits: 1 to update)",
            "  1 pool or limit changed on the server since revision 12",
        ]

    def test_what_does_not_fit_beside_the_signs_goes_below_them(self) -> None:
        assert self.lines(plan_of(deployment(), resources=RESOURCES), 80)[-2:] == [
            "development: +1 ~0 -0, pools and limits +1 ~1",
            "  1 to create; pools and limits: 1 to create, 1 to update",
        ]

    def test_has_a_line_for_each_change_pools_first(self) -> None:
        lines = self.lines(plan_with_everything())
        assert [line.split("  ")[0] for line in lines if line and line[0] in "+~-!="] == [
            "+ work pool containers",
            "~ tag limit db",
            "= a/same",
            "~ b/other",
            "! c/theirs",
            "+ e/[new]",
            "- d/gone",
        ]

    def test_shows_differences_side_by_side_and_what_is_kept(self) -> None:
        wanted = deployment(parameters={"a": 1}, job_variables={"env": {"LONG": "x"}})
        lines = self.lines(plan_of(wanted, there=[live(wanted, parameters={"a": 2}, job_variables={}, paused=True)]))
        assert lines[1:4] == [
            "    parameters.a       2 → 1",
            '    job_variables.env  none → {"LONG": "x"}',
            "    kept  paused: somebody paused it",
        ]

    def test_marks_what_changed_on_the_server(self) -> None:
        was = deployment(description="old", tags=("a",), version="1")
        wanted = replace(was, version="2", tags=("b",))
        plan = since(plan_of(wanted, there=[live(wanted, version="1", description="by hand", tags=("c",))]), was)
        lines = self.lines(plan)
        assert "    description  by hand → old  ← changed on the server" in lines
        assert '    tags         ["c"] → ["b"]  ← changed on both sides' in lines
        assert "    version      1 → 2" in lines

    def test_says_runs_and_findings(self) -> None:
        plan = with_findings(plan_with_everything(), {"b/other": (NO_POOL, NO_WORKER)})
        plan = with_runs(plan, {"id-of-b/other": TouchedRuns(running=1)})
        lines = self.lines(plan)
        assert "    error  There is no work pool 'x'.  Create it." in lines
        assert "    warning  No worker is online.  Start one." in lines
        assert "    runs  1 running" in lines

    def test_drops_no_brackets(self) -> None:
        there = [live(deployment(), description="[y]")]
        assert "[y]" in text_of(plan_report.plan_text(plan_of(deployment(), there=there)))

    def test_what_is_unchanged_is_counted_only(self) -> None:
        assert "f/quiet" not in "\n".join(self.lines(plan_with_everything()))
        assert "2 unchanged" in "\n".join(self.lines(plan_with_everything()))

    @pytest.mark.parametrize("width", [40, 60, 80, 120])
    def test_fits_and_loses_nothing(self, width: int) -> None:
        long = " ".join(f"word{number}" for number in range(15))
        wanted = deployment(description=f"{long} new", tags=("one", "two", OWNER.tag), parameters={"a" * 20: 5})
        plan = plan_of(wanted, deployment(f"etl/{'x' * 60}", source="prefect.yaml:3"), there=[live(wanted, tags=())])
        lines = self.lines(with_findings(plan, {"etl/daily": (Finding(message=long, remedy=long),)}), width)
        assert max(map(len, lines)) <= max(width, len(f"+ etl/{'x' * 60}"))
        everything = "".join("".join(lines).split())
        assert all(f"word{number}" in everything for number in range(15))
        assert f"etl/{'x' * 60}" in everything

    def test_what_does_not_fit_goes_on_below_itself(self) -> None:
        wanted = deployment(description="one two three four five six seven eight nine ten")
        lines = self.lines(plan_of(wanted, there=[live(wanted, description="x")]), 40)
        assert lines[1:4] == [
            "    description  x",
            "               → one two three four five",
            "                 six seven eight nine",
        ]


class TestValues:
    def pair(self, before: Any, after: Any) -> tuple[str, str]:
        return plan_report.shown_pair(FieldDiff(path="x", before=before, after=after))

    def test_long_ones_are_cut_and_said(self) -> None:
        assert plan_report.shown("x" * 150) == "x" * 100 + "… (150 characters)"

    def test_stand_on_one_line(self) -> None:
        assert plan_report.shown("a\n  b") == "a b"

    def test_long_ones_are_cut_around_what_differs(self) -> None:
        before, after = self.pair("x" * 200 + "old", "x" * 200 + "new")
        assert (before, after) == (f"…{'x' * 30}old", f"…{'x' * 30}new")

    def test_what_would_look_alike_is_told_apart(self) -> None:
        assert self.pair("5", 5) == ('"5"', "5")
        assert self.pair("a b", "a\nb") == ('"a b"', '"a\\nb"')
        assert self.pair("true", True) == ('"true"', "true")

    def test_secrets_are_not_told_apart(self) -> None:
        assert self.pair(HIDDEN, HIDDEN) == (HIDDEN, f"{HIDDEN} (another value)")


class TestRuns:
    def words(self, action: Any = "update", **runs: Any) -> str:
        return plan_report.runs_in_words(Change(action=action, deployment="a/b", runs=TouchedRuns(**runs)))

    def test_are_not_told_where_there_are_none(self) -> None:
        assert self.words() == ""

    def test_are_counted_with_the_next_start(self) -> None:
        found = self.words(scheduled=3, running=1, next_start="2026-11-23T06:00:00.5+02:00")
        assert found == "3 scheduled runs, next 2026-11-23 04:00 UTC; 1 running"
        assert self.words(scheduled=1) == "1 scheduled run"

    def test_a_delete_removes_the_scheduled_ones(self) -> None:
        assert self.words("delete", scheduled=2, running=1) == "removes 2 scheduled runs; 1 running (goes on)"

    def test_more_than_were_counted(self) -> None:
        assert self.words(scheduled=200, is_more=True) == "at least 200 scheduled runs"


class TestMarkdown:
    def test_links_what_is_on_the_server(self) -> None:
        text = plan_report.plan_markdown(plan_with_everything())
        assert "[b/other](../../deployments/deployment/id-of-b/other)" in text
        assert "| `+` create | e/[new] |" in text

    def test_has_no_links_outside_of_the_ui(self) -> None:
        assert "](.." not in plan_report.plan_markdown(plan_with_everything(), with_links=False)

    def test_shows_differences_faults_and_pools(self) -> None:
        text = plan_report.plan_markdown(plan_with_everything())
        assert "<details><summary>b/other: 1 difference</summary><pre>\n    description  old → empty\n</pre>" in text
        assert "| error | FLW001 |" in text
        assert "| `~` update | tag limit db | slots differ<br>slots: 5 → 10 |" in text

    def test_tells_who_changed_a_limit(self) -> None:
        recorded = Resources(limits=(LimitSpec(scope="tag", name="db", slots=10),))
        text = plan_report.plan_markdown(with_causes(plan_of(resources=RESOURCES), record(12, resources=recorded)))
        assert "somebody changed the server: slots<br>slots: 5 → 10 ← changed on the server |" in text

    def test_says_who_changed_what(self) -> None:
        text = plan_report.plan_markdown(since(plan_with_everything(), deployment("b/other")))
        assert "| somebody changed the server: description |" in text
        assert "    description  old → empty  ← changed on the server" in text

    def test_has_findings_with_what_to_do(self) -> None:
        text = plan_report.plan_markdown(with_findings(plan_with_everything(), {"e/[new]": (NO_POOL,)}))
        assert "| error | e/[new] | There is no work pool 'x'.<br>Create it. |" in text

    def test_pipes_do_not_break_a_table(self) -> None:
        wanted = deployment("a|b/c", description="x `y` | z")
        lines = plan_report.plan_markdown(plan_of(wanted, there=[live(wanted, description="old")])).splitlines()
        assert "    description  old → x `y` | z" in lines
        assert any("[a\\|b/c](" in line for line in lines)

    def test_details_end_where_they_should(self) -> None:
        wanted = deployment(description="</pre></details>\n\n# gotcha\n\n<b>", parameters={"a\n\nb": 1})
        text = plan_report.plan_markdown(plan_of(wanted, there=[live(deployment())]))
        details = text[text.index("<details>") :]
        assert details.count("</details>") == 1 and details.endswith("</pre></details>")
        assert "\n\n" not in details

    def test_long_reasons_are_folded(self) -> None:
        plan = plan_of(deployment("a/x"), there=[live(deployment("a/x"), owner=None)])
        (row,) = [line for line in plan_report.plan_markdown(plan).splitlines() if line.startswith("| `!`")]
        assert max(map(len, row.split("|")[3].split("<br>"))) <= 62

    def test_names_are_no_html(self) -> None:
        wanted = deployment("a/<b>", description="new")
        there = replace(live(wanted, description="old"), id="1")
        text = plan_report.plan_markdown(plan_of(wanted, deployment("c/<i>"), there=[there]))
        assert "<b>" not in text and "<i>" not in text
        assert "<summary>a/&lt;b&gt;: 1 difference</summary>" in text

    def test_reasons_do_not_break_a_table(self) -> None:
        theirs = replace(live(deployment("a|b/c"), owner=None), id="1")
        plan = plan_of(deployment("a|b/c"), there=[theirs])
        (row,) = [line for line in plan_report.plan_markdown(plan).splitlines() if line.startswith("| `!`")]
        assert row.replace("\\|", "").count("|") == 4

    def test_of_nothing_to_do_is_short(self) -> None:
        assert plan_report.plan_markdown(plan_of()) == "## development: +0 ~0 -0\n\nNothing to do."

    def test_what_is_too_long_is_left_out_and_said(self) -> None:
        wanted = [deployment(f"etl/{number}", description="x" * 90) for number in range(300)]
        plan = plan_of(*wanted, there=[live(each, description="y" * 90) for each in wanted])
        text = plan_report.plan_markdown(plan, longest=20_000)
        assert len(text) < 20_000
        assert text.count("| `~` update |") < 300 and text.count("<details>") < 300
        more = [int(line.split()[2]) for line in text.splitlines() if line.startswith("… and")]
        assert more == [300 - text.count("| `~` update |"), 300 - text.count("<details>")]
        assert "300 to update" in text


class TestSharedWarnings:
    def shown(self, *findings: tuple[Finding, ...]) -> tuple[str, str]:
        paths = [f"etl/{number}" for number in range(len(findings))]
        plan = plan_of(*(deployment(path) for path in paths))
        plan = with_findings(plan, dict(zip(paths, findings, strict=True)))
        return text_of(plan_report.plan_text(plan)), plan_report.plan_markdown(plan)

    def test_what_several_have_is_told_once(self) -> None:
        for told in self.shown((NO_WORKER,), (NO_WORKER, NO_POOL), (NO_WORKER,)):
            assert told.count("No worker is online") == 1 and "3 deployments" in told
            assert told.count("There is no work pool") == 1

    def test_what_one_has_stands_with_it(self) -> None:
        for told in self.shown((NO_WORKER,), ()):
            assert told.count("No worker is online") == 1 and "2 deployments " not in told

    def test_errors_are_never_folded(self) -> None:
        for told in self.shown((NO_POOL,), (NO_POOL,)):
            assert told.count("There is no work pool") == 2


def test_what_applying_would_undo_is_said() -> None:
    plan = replace(
        plan_of(deployment("etl/daily")), hold=Hold(owner=OWNER, revision=3, desired_digest="", by="me@here")
    )
    for told in (text_of(plan_report.plan_text(plan)), plan_report.plan_markdown(plan)):
        assert "e@here went back to revision 3: applying this undoes that rollback" in told  # M or m


def test_what_is_created_says_what_it_will_do() -> None:
    wanted = deployment("etl/daily", work_pool="processes", parameters={"day": 1}, paused=True)
    plan = plan_of(replace(wanted, schedules=(ScheduleConfig(cron="0 4 * * *"),)))
    for told in (text_of(plan_report.plan_text(plan)), plan_report.plan_markdown(plan, with_links=False)):
        assert "in processes; cron 0 4 * * *; paused; parameters day" in told


def test_cells_for_a_pull_request_are_not_broken_into_lines() -> None:
    assert "<br>" in plan_report.plan_markdown(plan_with_everything())
    plan = with_findings(plan_with_everything(), {"e/[new]": (NO_POOL,)})
    comment = plan_report.plan_markdown(plan, with_links=False)
    assert "<br>" not in comment and "There is no work pool 'x'; Create it |" in comment

"""Reports: JSON keys that stay, markdown that holds together, text that drops nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from typing import Any

from rich.console import Console, RenderableType

from orchestrator import flow_report, report
from orchestrator.config import Policy
from orchestrator.model import (
    BootstrapResult,
    ChangeResult,
    CleanupResult,
    DeploymentConfig,
    DeploymentResult,
    DeploymentStatus,
    Desired,
    Discovery,
    EnvironmentStatus,
    Plan,
    RunReport,
    Step,
)
from orchestrator.plan import make_plan
from tests.unit.builders import API_URL, OWNER, deployment, flow, live, problem

FAULT_KEYS = {"code", "message", "file_path", "line_number", "remediation", "severity", "column_number"}


def text_of(renderable: RenderableType) -> str:
    output = StringIO()
    Console(file=output, width=400).print(renderable)
    return output.getvalue()


def plan_of(*wanted: DeploymentConfig, there: Any = (), problems: Any = ()) -> Plan:
    desired = Desired(owner=OWNER, deployments=wanted, problems=problems)
    return make_plan(desired, there, api_url=API_URL, policy=Policy())


def plan_with_everything() -> Plan:
    same, other, theirs = deployment("a/same"), deployment("b/other"), deployment("c/theirs")
    there = [
        live(same, paused=True),
        live(other, description="old"),
        live(theirs, owner=None),
        live(deployment("d/gone")),
    ]
    return plan_of(same, other, theirs, deployment("e/[new]"), there=there, problems=(problem(),))


def result(*items: ChangeResult, **fields: Any) -> DeploymentResult:
    return DeploymentResult(environment="development", api_url=API_URL, results=items, **fields)


class TestJson:
    def test_of_discover(self) -> None:
        document = flow_report.discovery_json(Discovery(flows=(flow(parameters="a"),), problems=(problem(),)))
        assert set(document) == {"flows", "problems"}
        assert set(document["problems"][0]) == FAULT_KEYS
        assert set(document["flows"][0]) >= {
            "name",
            "path",
            "module_path",
            "function_name",
            "entrypoint",
            "line_number",
            "is_async",
            "dependencies",
            "dockerfile_path",
            "env_files",
            "is_valid",
            "validation_errors",
            "metadata",
        }

    def test_of_plan(self) -> None:
        document = report.plan_json(plan_with_everything())
        assert set(document) >= {"environment", "api_url", "checksum", "summary", "changes"}
        assert set(document["summary"]) == {"create", "update", "unchanged", "delete", "adopt", "conflict"}
        assert all(set(each) >= {"action", "deployment", "kind", "reasons", "fields"} for each in document["changes"])
        (update,) = [each for each in document["changes"] if each["action"] == "update"]
        assert update["fields"] == [{"path": "description", "before": "old", "after": ""}]

    def test_of_apply(self) -> None:
        failed = ChangeResult(deployment="etl/daily", action="create", status="failed", error="No.")
        document = report.result_json(result(failed))
        assert set(document) >= {"revision", "status", "summary", "results"}
        assert document["results"] == [
            {"deployment": "etl/daily", "action": "create", "status": "failed", "error": "No."}
        ]

    def test_of_clean(self) -> None:
        found = CleanupResult(pattern="a/*", deleted=("a/b",), foreign=("a/c",), failed={"a/d": "No."})
        assert report.cleanup_json(found) == {
            "pattern": "a/*",
            "deleted": ("a/b",),
            "foreign": ("a/c",),
            "failed": {"a/d": "No."},
        }

    def test_of_status(self) -> None:
        status = DeploymentStatus(deployment="etl/daily", in_sync=True, ready=False, problems=("no worker",))
        document = report.status_json(
            EnvironmentStatus(environment="development", api_url=API_URL, deployments=(status,))
        )
        assert set(document["deployments"][0]) == {"deployment", "in_sync", "ready", "problems"}

    def test_of_bootstrap(self) -> None:
        found = BootstrapResult(
            environment="development",
            api_url=API_URL,
            ui_url="http://x",
            steps=(Step(name="a", outcome="b", seconds=1),),
        )
        assert set(report.bootstrap_json(found)) >= {"steps", "ui_url"}

    def test_can_be_written_and_read(self) -> None:
        document = report.plan_json(plan_with_everything())
        assert json.loads(json.dumps(document))["checksum"] == document["checksum"]


class TestHeadline:
    def test_counts_by_sign(self) -> None:
        assert report.headline("development", plan_with_everything().summary) == "development: +1 ~1 -1 !1"

    def test_in_words_says_what_there_is(self) -> None:
        plan = plan_with_everything()
        assert report.counts(plan.summary) == "1 to create, 1 to update, 1 to delete, 1 in conflict, 1 unchanged"
        assert report.counts(plan_of().summary) == "nothing to do"


class TestText:
    def test_of_a_plan_has_a_line_for_each_change(self) -> None:
        lines = text_of(report.plan_text(plan_with_everything())).splitlines()
        assert [line.split("  ")[0] for line in lines if line[0] in "+~-!"] == [
            "~ b/other",
            "! c/theirs",
            "+ e/[new]",
            "- d/gone",
        ]

    def test_of_a_plan_shows_differences_and_what_is_kept(self) -> None:
        text = text_of(report.plan_text(plan_with_everything()))
        assert "    description: old → " in text
        assert "    kept a/same paused: somebody paused it" in text

    def test_drops_no_brackets(self) -> None:
        item = ChangeResult(deployment="etl/[bold]x[/bold]", action="create", status="failed", error="[red] no")
        assert "+ etl/[bold]x[/bold]  failed: [red] no" in text_of(report.result_text(result(item)))
        found = Discovery(flows=(flow(name="[x]", path="a.py", function_name="a"),))
        assert "[x]" in text_of(flow_report.flows_text(found))
        assert "[y]" in text_of(report.plan_text(plan_of(deployment(), there=[live(deployment(), description="[y]")])))

    def test_of_flows_marks_those_that_cannot_be_used(self) -> None:
        broken = flow(name="b", validation_errors=("lib/db.py:7: lib/db.py is not valid Python",))
        text = text_of(flow_report.flows_text(Discovery(flows=(flow(name="a"), broken))))
        (line,) = [line for line in text.splitlines() if "flows/b.py" in line]
        assert line.startswith("! b ") and "lib/db.py:7: lib/db.py is not valid" in line
        assert "2 flows, 1 of them (!) cannot be used" in text
        assert "!" not in text_of(flow_report.flows_text(Discovery(flows=(flow(name="a"),))))

    def test_of_a_degraded_apply_says_so(self) -> None:
        applied = ChangeResult(deployment="a/b", action="create", status="applied")
        failed = ChangeResult(deployment="a/c", action="create", status="skipped", error="not tried")
        text = text_of(report.result_text(result(applied, failed)))
        assert "+ a/b\n+ a/c  skipped: not tried\ndevelopment: +1 ~0 -0  DEGRADED" in text

    def test_of_a_run_shows_why_a_child_failed(self) -> None:
        child = RunReport(
            id="2", name="b", flow="sub", state_type="FAILED", state_name="Failed", message="Bad.", depth=1
        )
        parent = RunReport(
            id="1", name="a", flow="main", state_type="COMPLETED", state_name="Completed", descendants=(child,)
        )
        text = text_of(report.run_text(parent))
        assert "main (a)  Completed" in text
        assert "  sub (b)  Failed  0.0 s\n      Bad.\n0 of 1 child runs completed" in text

    def test_long_values_are_cut_and_said(self) -> None:
        assert report.shown("x" * 150) == "x" * 100 + "… (150 characters)"

    def test_values_stand_on_one_line(self) -> None:
        assert report.shown("a\n  b") == "a b"


class TestMarkdown:
    def test_of_a_plan_links_what_is_on_the_server(self) -> None:
        text = report.plan_markdown(plan_with_everything())
        assert "[b/other](../../deployments/deployment/id-of-b/other)" in text
        assert "| `+` create | e/[new] |" in text

    def test_of_a_plan_shows_differences_and_faults(self) -> None:
        text = report.plan_markdown(plan_with_everything())
        assert "<details><summary>b/other: 1 differences</summary>" in text
        assert "| `description` | `old` |  |" in text
        assert "| error | FLW001 |" in text

    def test_pipes_and_backticks_do_not_break_a_table(self) -> None:
        wanted = deployment("a|b/c", description="x `y` | z")
        lines = report.plan_markdown(plan_of(wanted, there=[live(wanted, description="old")])).splitlines()
        assert "| `description` | `old` | `x 'y' \\| z` |" in lines
        assert any("[a\\|b/c](" in line for line in lines)

    def test_reasons_do_not_break_a_table(self) -> None:
        theirs = replace(live(deployment("a|b/c"), owner=None), id="1")
        plan = plan_of(deployment("a|b/c"), there=[theirs])
        (row,) = [line for line in report.plan_markdown(plan).splitlines() if line.startswith("| `!`")]
        assert row.replace("\\|", "").count("|") == 4

    def test_of_nothing_to_do_is_short(self) -> None:
        assert report.plan_markdown(plan_of()) == "## development: +0 ~0 -0\n\nNothing to do."

    def test_of_a_result(self) -> None:
        failed = ChangeResult(deployment="a/b", action="create", status="failed", error="Not\nso.")
        same = ChangeResult(deployment="a/c", action="unchanged", status="unchanged")
        text = report.result_markdown(result(failed, same, problems=(problem(),)))
        assert text.startswith("## development: +0 ~0 -0\n\n**degraded**")
        assert "| `+` create | a/b | failed | Not so. |" in text
        assert "1 unchanged." in text and "FLW001" in text

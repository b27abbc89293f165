"""Reports of results: JSON keys that stay, markdown that holds together, text that drops nothing."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from typing import Any

from rich.console import Console, RenderableType

from orchestrator import flow_report, report
from orchestrator.model import (
    BootstrapResult,
    ChangeResult,
    CleanupResult,
    DeploymentResult,
    DeploymentStatus,
    Discovery,
    EnvironmentStatus,
    Finding,
    LimitSpec,
    LiveResources,
    ResourceResult,
    Resources,
    RunReport,
    Step,
)
from orchestrator.resources import plan_resources, with_resource_causes
from tests.unit.builders import API_URL, flow, problem

NO_RUN = Finding(message="No run is scheduled.", remedy="Look.")
FAULT_KEYS = {"code", "message", "file_path", "line_number", "remediation", "severity", "column_number"}


def text_of(renderable: RenderableType) -> str:
    output = StringIO()
    Console(file=output, width=400).print(renderable)
    return output.getvalue()


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

    def test_of_apply(self) -> None:
        failed = ChangeResult(deployment="etl/daily", action="create", status="failed", error="No.")
        document = report.result_json(result(failed))
        assert set(document) >= {"revision", "status", "summary", "results", "resources", "findings"}
        assert document["results"] == [
            {"deployment": "etl/daily", "action": "create", "status": "failed", "error": "No."}
        ]

    def test_of_apply_has_pools_and_what_reading_back_showed(self) -> None:
        pool = ResourceResult(resource="work pool", name="p", action="create", status="applied")
        document = report.result_json(result(resources=(pool,), findings={"a/b": (NO_RUN,)}, revision=4))
        assert document["resources"] == [
            {"resource": "work pool", "name": "p", "action": "create", "status": "applied", "error": None}
        ]
        assert document["findings"] == {
            "a/b": [{"message": "No run is scheduled.", "remedy": "Look.", "severity": "error"}]
        }
        assert (document["revision"], document["status"]) == (4, "degraded")

    def test_of_clean(self) -> None:
        found = CleanupResult(
            status="degraded", pattern="a/*", deleted=("a/b",), foreign=("a/c",), failed={"a/d": "No."}
        )
        assert report.cleanup_json(found) == {
            "status": "degraded",
            "pattern": "a/*",
            "deleted": ("a/b",),
            "foreign": ("a/c",),
            "failed": {"a/d": "No."},
            "findings": {},
        }

    def test_of_status(self) -> None:
        status = DeploymentStatus(deployment="etl/daily", in_sync=True, ready=False, problems=("no worker",))
        document = report.status_json(
            EnvironmentStatus(environment="development", api_url=API_URL, deployments=(status,))
        )
        assert set(document["deployments"][0]) == {"deployment", "in_sync", "ready", "problems"}
        assert document["hold"] is None

    def test_of_status_says_what_holds_it(self) -> None:
        status = EnvironmentStatus(environment="development", api_url=API_URL)
        assert report.status_json(status, hold="held")["hold"] == "held"

    def test_of_bootstrap(self) -> None:
        found = BootstrapResult(
            environment="development",
            api_url=API_URL,
            ui_url="http://x",
            steps=(Step(name="a", outcome="b", seconds=1),),
        )
        assert set(report.bootstrap_json(found)) >= {"steps", "ui_url"}


class TestText:
    def test_drops_no_brackets(self) -> None:
        item = ChangeResult(deployment="etl/[bold]x[/bold]", action="create", status="failed", error="[red] no")
        assert "+ etl/[bold]x[/bold]  failed: [red] no" in text_of(report.result_text(result(item)))
        found = Discovery(flows=(flow(name="[x]", path="a.py", function_name="a"),))
        assert "[x]" in text_of(flow_report.flows_text(found))

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
        assert "+ a/b\n+ a/c  skipped: not tried\ndevelopment: +1 ~0 -0  DEGRADED: 1 of 2 not made" in text

    def test_of_an_apply_that_somebody_interrupted(self) -> None:
        applied = ChangeResult(deployment="a/b", action="create", status="applied")
        untried = ChangeResult(deployment="a/c", action="create", status="skipped", error="not tried")
        restored = ChangeResult(deployment="a/b", action="create", status="restored")
        text = text_of(report.result_text(result(applied, untried, is_interrupted=True, revision=1)))
        assert "INTERRUPTED: 1 of 2 not made; the same command goes on from here (revision 1)" in text
        atomic = text_of(report.result_text(result(restored, untried, is_interrupted=True)))
        assert "INTERRUPTED: what was set back is told above" in atomic
        assert report.result_json(result(applied, is_interrupted=True))["status"] == "interrupted"

    def test_of_an_apply_counts_pools_and_limits_that_were_written(self) -> None:
        done = ResourceResult(resource="tag limit", name="db", action="update", status="applied")
        same = ResourceResult(resource="work pool", name="p", action="unchanged", status="unchanged")
        failed = ResourceResult(resource="work pool", name="q", action="create", status="failed", error="No.")
        found = result(resources=(done, same))
        assert "development: +0 ~0 -0, pools and limits +0 ~1  done" in text_of(report.result_text(found))
        assert report.result_markdown(found).startswith("## development: +0 ~0 -0, pools and limits +0 ~1\n")
        assert report.result_json(found)["resource_summary"]["update"] == 1
        assert "development: +0 ~0 -0  DEGRADED" in text_of(report.result_text(result(resources=(same, failed))))

    def test_of_status_says_who_changed_a_limit(self) -> None:
        wanted = LimitSpec(scope="tag", name="db", slots=3)
        changes = plan_resources(Resources(limits=(wanted,)), LiveResources(limits=(replace(wanted, slots=5),)))
        changes = with_resource_causes(changes, Resources(limits=(wanted,)), revision=2, told="")
        status = EnvironmentStatus(environment="development", api_url=API_URL, resources=changes)
        assert "somebody changed the server: slots; slots 5 → 3" in text_of(report.status_text(status))
        (shown,) = report.status_json(status)["resources"]
        assert [diff["cause"] for diff in shown["fields"]] == ["server"]

    def test_of_an_apply_has_pools_first_and_findings_last(self) -> None:
        pool = ResourceResult(resource="tag limit", name="db", action="update", status="failed", error="No.")
        restored = ChangeResult(deployment="a/b", action="update", status="restored", error="set back")
        text = text_of(report.result_text(result(restored, resources=(pool,), findings={"a/b": (NO_RUN,)}, revision=4)))
        assert text.splitlines() == [
            "~ tag limit db  failed: No.",
            "~ a/b  restored: set back",
            "? a/b",
            "    error  No run is scheduled.  Look.",
            "development: +0 ~0 -0  FAILED: what was set back is told above (revision 4)",
        ]

    def test_of_status_says_what_is_wrong_and_what_holds_it(self) -> None:
        good = DeploymentStatus(deployment="a/b", in_sync=True, ready=True)
        bad = DeploymentStatus(deployment="a/[c]", in_sync=False, ready=True, problems=("somebody changed x",))
        status = EnvironmentStatus(environment="development", api_url=API_URL, deployments=(good, bad))
        assert text_of(report.status_text(status, hold="held at revision 3")).splitlines() == [
            "! held at revision 3",
            "= a/b  in sync, ready",
            "! a/[c]  OUT OF SYNC, ready",
            "    somebody changed x",
            f"development on {API_URL}: 1 of 2 in sync and ready",
        ]

    def test_of_status_says_once_what_many_have_in_common(self) -> None:
        paused, other = "the work pool p is paused", "somebody changed x"
        ill = [
            DeploymentStatus(deployment=f"a/{name}", in_sync=True, ready=False, problems=(paused,)) for name in "bcd"
        ]
        ill[0] = replace(ill[0], problems=(paused, other))
        status = EnvironmentStatus(environment="development", api_url=API_URL, deployments=tuple(ill))
        assert text_of(report.status_text(status)).splitlines() == [
            "! a/b  in sync, NOT READY",
            f"    {other}",
            "! a/c  in sync, NOT READY",
            "! a/d  in sync, NOT READY",
            f"! 3 deployments: {paused}",
            f"development on {API_URL}: 0 of 3 in sync and ready",
        ]
        assert [each["problems"] for each in report.status_json(status)["deployments"]] == [
            *((paused, other), (paused,), (paused,))
        ]

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


class TestMarkdown:
    def test_of_a_result(self) -> None:
        failed = ChangeResult(deployment="a/b", action="create", status="failed", error="Not\nso.")
        same = ChangeResult(deployment="a/c", action="unchanged", status="unchanged")
        text = report.result_markdown(result(failed, same, problems=(problem(),)))
        assert text.startswith("## development: +0 ~0 -0\n\n**degraded**")
        assert "| `+` create | a/b | failed | Not so. |" in text
        assert "1 unchanged." in text and "FLW001" in text

    def test_of_a_result_has_findings_and_the_revision(self) -> None:
        text = report.result_markdown(result(findings={"a|b/c": (NO_RUN,)}, revision=4))
        assert "| error | a\\|b/c | No run is scheduled.<br>Look. |" in text
        assert "Revision 4." in text

"""Rules about declarations: what they point to, what they give, what calls them, what fills their placeholders."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent

import pytest
from prefect.client.schemas.actions import DeploymentCreate
from prefect.utilities.templating import PlaceholderType, find_placeholders
from pydantic import ValidationError as PydanticError

from orchestrator.model import ValidationError
from orchestrator.placeholders import OUTPUTS
from orchestrator.rules import RULES
from tests.unit.checking import all_faults, faults_of, marked

FLOW = "from prefect import flow\n\n@flow\ndef etl(day: str = 'today', rows: int = 10): ...\n"
START = "deployments:\n  - name: daily\n    entrypoint: flows/etl.py:etl\n"


def declared(root: Path, text: str, code: str, flow: str = FLOW) -> tuple[ValidationError, ...]:
    """The faults of a prefect.yaml that says `text` from line 4 on about its one deployment."""
    files = {"flows/etl.py": flow, "prefect.yaml": START + indent(dedent(text).lstrip("\n"), "    ")}
    return faults_of(root, files, code)


class TestEntrypoints:
    def test_dpl001_points_to_the_entrypoint(self, tmp_path: Path) -> None:
        files = {"flows/etl.py": FLOW, "prefect.yaml": START.replace(":etl", ":elt")}
        (fault,) = faults_of(tmp_path, files, "DPL001")
        assert (fault.location, fault.skips, marked(tmp_path, fault)) == ("prefect.yaml:3", False, "flows/etl.py:elt")
        assert faults_of(tmp_path, files, "DPL006") == ()

    @pytest.mark.parametrize(
        ("source", "remedy"),
        [
            ("def etl(): ...", "`@flow` above `def etl`"),
            ("def other(): ...", "`orchestrator discover`"),
            ("", "`orchestrator discover`"),
            ("flow = 1", "`orchestrator discover`"),
        ],
    )
    @pytest.mark.parametrize("entrypoint", ["flows/etl.py:etl", "flows.etl.etl"])
    def test_dpl006_no_flow_in_the_file(self, tmp_path: Path, source: str, remedy: str, entrypoint: str) -> None:
        text = START.replace("flows/etl.py:etl", entrypoint)
        files = {"flows/etl.py": source, "prefect.yaml": text}
        (fault,) = faults_of(tmp_path, files, "DPL006")
        assert (fault.location, fault.severity, fault.skips) == ("prefect.yaml:3", "error", True)
        assert "flows/etl.py" in fault.message
        assert remedy in fault.remediation
        assert faults_of(tmp_path, files, "DPL001") == ()

    def test_dpl001_a_file_that_does_not_exist(self, tmp_path: Path) -> None:
        files = {"flows/etl.py": FLOW, "prefect.yaml": START.replace("etl.py", "elt.py")}
        (fault,) = faults_of(tmp_path, files, "DPL001")
        assert fault.message == "The deployment 'daily' cannot be used: the file flows/elt.py does not exist."
        assert "Did you mean flows/etl.py:etl" in fault.remediation

    @pytest.mark.parametrize(
        ("source", "reason"),
        [
            ("from prefect import task\n\n@task\ndef elt(): ...", "elt in flows/etl.py is a task"),
            ("import prefect as p\n\n@p.task(retries=1)\nasync def elt(): ...", "elt in flows/etl.py is a task"),
            ("import celery\n\n@celery.task\ndef elt(): ...", "elt in flows/etl.py is a plain function"),
            ("def elt(): ...", "elt in flows/etl.py is a plain function"),
        ],
    )
    @pytest.mark.parametrize("head", ["", FLOW])
    def test_a_function_that_is_no_flow(self, tmp_path: Path, source: str, reason: str, head: str) -> None:
        files = {"flows/etl.py": f"{head}{source}\n", "prefect.yaml": START.replace(":etl", ":elt")}
        (fault,) = faults_of(tmp_path, files, "DPL001" if head else "DPL006")
        assert reason in fault.message

    def test_dpl006_a_broken_file_is_another_matter(self, tmp_path: Path) -> None:
        files = {"flows/etl.py": "def etl(:", "prefect.yaml": START}
        assert faults_of(tmp_path, files, "DPL006") == ()
        assert [fault.skips for fault in faults_of(tmp_path, files, "DPL001")] == [True]

    def test_a_file_outside_the_repository_is_not_looked_at(self, tmp_path: Path) -> None:
        (tmp_path / "outside.py").write_text("x = 1")
        files = {"prefect.yaml": START.replace("flows/etl.py", "../outside.py")}
        assert faults_of(tmp_path / "here", files, "DPL006") == ()


class TestNames:
    @pytest.mark.parametrize(
        "name", ["a/b", "100%", "a&b", "a<b", "b>a", "a b", "ä", "a.b", "-", "a" * 5000, " ", "a\tb"]
    )
    def test_dpl013_what_a_server_refuses(self, tmp_path: Path, name: str) -> None:
        try:
            DeploymentCreate(name=name, flow_id="12345678-1234-5678-1234-567812345678")  # type: ignore[arg-type]
            refused = False
        except PydanticError:
            refused = True
        files = {"flows/etl.py": FLOW, "prefect.yaml": START.replace("name: daily", f'name: "{name}"')}
        found = faults_of(tmp_path, files, "DPL013")
        assert bool(found) is refused
        assert all((fault.location, fault.skips) == ("prefect.yaml:2", True) for fault in found)

    def test_dpl013_of_a_template_that_puts_a_path_into_the_name(self, tmp_path: Path) -> None:
        environment = 'templates:\n  python:\n    name: "{flow.path}"'
        files = {
            "flows/etl.py": FLOW,
            "flows/b.py": FLOW.replace("etl", "b"),
            "environments/development.yaml": environment,
        }
        (fault,) = faults_of(tmp_path, files, "DPL013")
        assert (fault.location, fault.skips) == ("environments/development.yaml:3", False)
        assert "'flows/b.py'" in fault.message

    def test_dpl013_of_the_deployer(self, tmp_path: Path) -> None:
        files = {"environments/development.yaml": "deployer:\n  name: a/b"}
        (fault,) = faults_of(tmp_path, files, "DPL013")
        assert (fault.location, marked(tmp_path, fault)) == ("environments/development.yaml:2", "a/b")


class TestOpenReferences:
    def files(self, entry: str) -> dict[str, str]:
        return {"flows/etl.py": FLOW, "prefect.yaml": f"deployments:\n  - {entry}\n"}

    def test_dpl015_an_environment_variable_that_is_not_set(self, tmp_path: Path) -> None:
        files = self.files('{name: daily, entrypoint: "{{ $NOT_SET }}/etl.py:etl"}')
        (fault,) = faults_of(tmp_path, files, "DPL015")
        assert (fault.location, fault.skips, fault.declaration) == ("prefect.yaml:2", True, "prefect.yaml:2")
        assert "its entrypoint holds {{ $NOT_SET }}, and the environment variable NOT_SET is not set" in fault.message
        assert marked(tmp_path, fault) == "{{ $NOT_SET }}"
        assert faults_of(tmp_path, files, "DPL001") == faults_of(tmp_path, files, "DPL006") == ()

    def test_dpl015_a_flow_cannot_come_from_the_server(self, tmp_path: Path) -> None:
        (fault,) = faults_of(tmp_path, self.files('{name: a, flow_name: "{{ prefect.variables.flow }}"}'), "DPL015")
        assert "only environment variables are known here" in fault.message

    def test_dpl015_the_name_of_a_deployment(self, tmp_path: Path) -> None:
        (fault,) = faults_of(tmp_path, self.files('{name: "{{ $NOT_SET }}-a", entrypoint: flows/etl.py:etl}'), "DPL015")
        assert "its name holds {{ $NOT_SET }}" in fault.message

    @pytest.mark.parametrize("name", ["{{ prefect.variables.x }}", "{{ $PLACE }}-daily"])
    def test_dpl015_names_that_can_be_filled(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv("PLACE", "vienna")
        files = self.files(f'{{name: "{name}", entrypoint: flows/etl.py:etl}}')
        assert faults_of(tmp_path, files, "DPL015") == ()

    def test_dpl004_whether_a_schedule_is_active_may_be_open(self, tmp_path: Path) -> None:
        text = "schedules:\n  - cron: 0 6 * * *\n    active: '{{ prefect.variables.on }}'\n"
        assert declared(tmp_path, text, "DPL004", FLOW.replace(" = 'today'", "")) == ()


class TestParameters:
    def test_dpl003_points_to_the_very_value(self, tmp_path: Path) -> None:
        text = "parameters:\n  day: x\n  a: 1\nschedules:\n  - cron: 0 6 * * *\n    parameters:\n      {dya: x}\n"
        found = declared(tmp_path, text, "DPL003")
        assert [(fault.line_number, marked(tmp_path, fault)) for fault in found] == [(6, "a"), (10, "dya")]

    def test_dpl004_points_to_the_schedule(self, tmp_path: Path) -> None:
        text = "schedules:\n  - interval: 60\n  - slug: a\n    cron: 0 6 * * *\n"
        found = declared(tmp_path, text, "DPL004", FLOW.replace(" = 'today'", ""))
        assert [(fault.line_number, marked(tmp_path, fault)) for fault in found] == [(5, "interval"), (7, "0 6 * * *")]

    @pytest.mark.parametrize(("stars", "empty"), [("*rows", "`rows: []`"), ("**rows", "`rows: {}`")])
    def test_dpl004_what_stars_gather_is_required_by_prefect(self, tmp_path: Path, stars: str, empty: str) -> None:
        flow = f"from prefect import flow\n@flow\ndef etl({stars}): ...\n"
        (found,) = declared(tmp_path, "schedule: {interval: 60}\n", "DPL004", flow)
        assert "requires rows" in found.message
        assert empty in found.remediation
        value = empty.strip("`")
        assert declared(tmp_path, f"schedule: {{interval: 60}}\nparameters: {{{value}}}\n", "DPL004", flow) == ()

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ('"20"', "the server casts nothing"),
            ("many", "unable to parse string as an integer"),
            ("2.5", "fractional part"),
            ("null", "should be a valid integer"),
            ("[1]", "should be a valid integer"),
            ("2024-01-01", "unable to parse string as an integer"),
        ],
    )
    def test_dpl005_a_value_that_does_not_fit(self, tmp_path: Path, value: str, reason: str) -> None:
        (fault,) = declared(tmp_path, f"parameters:\n  day: monday\n  rows: {value}\n", "DPL005")
        assert (fault.location, fault.severity, fault.skips) == ("prefect.yaml:6", "error", True)
        assert marked(tmp_path, fault) == "rows"
        assert "takes `int`" in fault.message
        assert reason in fault.message
        assert ("without quotes" in fault.remediation) is value.startswith('"')
        assert "flows/etl.py:4" in fault.message

    def test_dpl005_in_a_schedule(self, tmp_path: Path) -> None:
        text = "schedules:\n  - cron: 0 6 * * *\n    parameters:\n      rows: many\n"
        (fault,) = declared(tmp_path, text, "DPL005")
        assert fault.location == "prefect.yaml:7"
        assert "in its schedule 'cron 0 6 * * *'" in fault.message

    @pytest.mark.parametrize(
        "value",
        [
            *("20", "20.0", '"{{ prefect.variables.rows }}"', "{$ref: {block_document_id: x}}"),
            *("{__prefect_kind: json, value: '5'}",),
        ],
    )
    def test_dpl005_what_fits_or_cannot_be_known(self, tmp_path: Path, value: str) -> None:
        assert declared(tmp_path, f"parameters: {{rows: {value}}}", "DPL005") == ()

    @pytest.mark.parametrize(
        "annotation", ["Rows", "shop.Rows", "int | Rows", "'Rows'", "list[Rows]", "object", "conint(gt=3)"]
    )
    def test_dpl005_types_of_the_repository_are_not_judged(self, tmp_path: Path, annotation: str) -> None:
        source = FLOW.replace("rows: int", f"rows: {annotation}")
        assert declared(tmp_path, "parameters: {rows: [1]}", "DPL005", source) == ()

    def test_dpl005_a_date_of_its_own_is_not_python_s(self, tmp_path: Path) -> None:
        source = FLOW.replace("rows: int", "rows: date")
        value = "parameters: {rows: soon}"
        assert declared(tmp_path, value, "DPL005", f"from shop import date\n{source}") == ()
        assert len(declared(tmp_path, value, "DPL005", f"from datetime import date\n{source}")) == 1
        assert (
            len(declared(tmp_path, value, "DPL005", "import datetime as d\n" + source.replace(": date", ": d.date")))
            == 1
        )

    def test_dpl005_where_the_schema_is_not_enforced_runs_cast(self, tmp_path: Path) -> None:
        text = "enforce_parameter_schema: false\nparameters: {rows: VALUE}"
        assert declared(tmp_path, text.replace("VALUE", "'20'"), "DPL005") == ()
        assert len(declared(tmp_path, text.replace("VALUE", "many"), "DPL005")) == 1

    def test_dpl005_where_runs_do_not_validate_the_server_still_does(self, tmp_path: Path) -> None:
        source = FLOW.replace("@flow", "@flow(validate_parameters=False)")
        text = "enforce_parameter_schema: ENFORCED\nparameters: {rows: many}"
        assert declared(tmp_path, text.replace("ENFORCED", "false"), "DPL005", source) == ()
        assert len(declared(tmp_path, text.replace("ENFORCED", "true"), "DPL005", source)) == 1

    @pytest.mark.parametrize(
        ("environment", "line"),
        [
            ("default_parameters:\n  rows: many", 2),
            ("deployments:\n  'etl/*':\n    parameters:\n      rows: many", 4),
        ],
    )
    def test_dpl005_in_the_environment(self, tmp_path: Path, environment: str, line: int) -> None:
        files = {"flows/etl.py": FLOW, "prefect.yaml": START, "environments/development.yaml": environment}
        (fault,) = faults_of(tmp_path, files, "DPL005")
        assert (fault.location, fault.skips) == (f"environments/development.yaml:{line}", False)
        assert marked(tmp_path, fault) == "rows"

    def test_dpl005_a_default_that_a_declaration_replaces_is_no_fault(self, tmp_path: Path) -> None:
        environment = "default_parameters: {rows: many}\ndeployments:\n  b/*:\n    parameters: {rows: many}\n"
        files = {
            "flows/etl.py": FLOW,
            "prefect.yaml": f"{START}    parameters: {{rows: 5}}",
            "environments/development.yaml": environment,
        }
        assert faults_of(tmp_path, files, "DPL005") == ()

    def test_dpl005_what_the_environment_does_not_select_is_none_of_its_business(self, tmp_path: Path) -> None:
        environment = "select: ['other/*']\ndefault_parameters: {rows: many}"
        files = {"flows/etl.py": FLOW, "prefect.yaml": START, "environments/development.yaml": environment}
        assert faults_of(tmp_path, files, "DPL005") == ()

    def test_dpl005_in_a_template(self, tmp_path: Path) -> None:
        environment = (
            "templates:\n  python:\n    parameters:\n      rows: many\n      day: '{flow.name}'\n      other: 1"
        )
        files = {"flows/etl.py": FLOW, "environments/development.yaml": environment}
        (fault,) = faults_of(tmp_path, files, "DPL005")
        assert fault.location == "environments/development.yaml:4"
        files["prefect.yaml"] = START  # now the flow is declared, and no template is about it
        assert faults_of(tmp_path, files, "DPL005") == ()

    def test_dpl005_hostile_values(self, tmp_path: Path) -> None:
        deep = "[" * 100 + "]" * 100
        for value in (deep, "!!binary aGk=", ".inf", ".nan", "!!set {a}", "9" * 4000, "2024-01-01T00:00:00Z"):
            found = declared(tmp_path, f"parameters:\n  rows: {value}\n  day: {value}\n", "DPL005")
            assert {fault.location for fault in found} <= {"prefect.yaml:5", "prefect.yaml:6"}, value[:40]

    def test_dpl005_no_message_shows_the_value(self, tmp_path: Path) -> None:
        (fault,) = declared(tmp_path, "parameters: {rows: hunter2}", "DPL005")
        assert "hunter2" not in fault.message + fault.remediation


CALLER = """
from prefect import flow
from prefect.deployments import run_deployment

@flow
def parent():
    run_deployment("CALLED")
"""


class TestCalls:
    def faults(self, root: Path, called: str, **files: str) -> tuple[ValidationError, ...]:
        usual = {"flows/etl.py": FLOW, "prefect.yaml": START, "flows/parent.py": CALLER.replace("CALLED", called)}
        return faults_of(root, {**usual, **files}, "DPL011")

    def test_dpl011_nobody_declares_it(self, tmp_path: Path) -> None:
        (fault,) = self.faults(tmp_path, "etl/dayly")
        assert (fault.location, fault.severity) == ("flows/parent.py:6", "warning")
        assert "run_deployment calls 'etl/dayly'" in fault.message
        assert "Did you mean etl/daily" in fault.remediation
        assert marked(tmp_path, fault) == "etl/dayly"

    @pytest.mark.parametrize(
        "called",
        ["etl/daily", "12345678-1234-5678-1234-567812345678", "deploy-everything/development"],
    )
    def test_dpl011_what_is_known(self, tmp_path: Path, called: str) -> None:
        assert self.faults(tmp_path, called) == ()

    @pytest.mark.parametrize("called", ["parent/development-python", "parent/x-shop", "parent/x-other-project"])
    def test_dpl011_what_templates_give(self, tmp_path: Path, called: str) -> None:
        name = '"{environment.name}-{kind}"' if called.endswith("python") else '"x-{project}"'
        environment = f"templates: {{python: {{name: {name}}}}}"
        assert self.faults(tmp_path, called, **{"environments/development.yaml": environment}) == ()
        assert (
            len(self.faults(tmp_path, "etl/development-python", **{"environments/development.yaml": environment})) == 1
        )

    def test_dpl011_a_flow_whose_name_or_file_cannot_be_read_may_be_meant(self, tmp_path: Path) -> None:
        dynamic = FLOW.replace("@flow", "@flow(name=input())")
        assert self.faults(tmp_path, "other/daily", **{"flows/dynamic.py": dynamic}) == ()
        assert (
            self.faults(tmp_path, "other/daily", **{"flows/dynamic.py": "from prefect import flow\n@flow\ndef (:"})
            == ()
        )

    @pytest.mark.parametrize("code", ["extra.serve(name='served')", "serve(extra)", "extra.deploy('x', 'pool')"])
    def test_dpl011_where_code_makes_deployments(self, tmp_path: Path, code: str) -> None:
        main = f"import flows.serving\n{FLOW}"
        for path in ("flows/serving.py", "flows/other.py"):
            files = {"flows/etl.py": main, path: f"{FLOW.replace('etl', 'extra')}\n{code}\n"}
            assert self.faults(tmp_path, "extra/served", **files) == ()
            (tmp_path / path).unlink()

    @pytest.mark.parametrize("code", ["observe(extra)", "server(1)", "reserve (1)", "serve = deploy(1)"])
    def test_dpl011_where_code_sounds_like_it(self, tmp_path: Path, code: str) -> None:
        assert len(self.faults(tmp_path, "etl/dayly", **{"flows/etl.py": f"{FLOW}\n{code}\n"})) == 1

    def test_dpl011_a_flow_whose_name_prefect_refuses_may_be_meant(self, tmp_path: Path) -> None:
        refused = FLOW.replace("@flow", '@flow(name="etl/shop")')
        assert self.faults(tmp_path, "etl-shop/daily", **{"flows/etl.py": refused}) == ()

    def test_dpl011_without_declarations_and_templates_nothing_is_known(self, tmp_path: Path) -> None:
        assert faults_of(tmp_path, {"flows/parent.py": CALLER}, "DPL011") == ()
        files = {"flows/parent.py": CALLER, "environments/development.yaml": "{}"}
        assert faults_of(tmp_path, files, "DPL011") == ()

    def test_dpl011_nor_where_the_configuration_is_broken(self, tmp_path: Path) -> None:
        assert self.faults(tmp_path, "etl/dayly", **{"jobs/prefect.yaml": "deployments: ["}) == ()


BUILD = """
build:
  - prefect_docker.deployments.steps.build_docker_image:
      id: build-image
      image_name: shop
"""


class TestPlaceholders:
    def faults(self, root: Path, placeholder: str, build: str = BUILD) -> tuple[ValidationError, ...]:
        text = f"{build}{START}    work_pool:\n      job_variables:\n        image: '{placeholder}'\n"
        return faults_of(root, {"flows/etl.py": FLOW, "prefect.yaml": text}, "DPL012")

    @pytest.mark.parametrize(
        ("placeholder", "remedy"),
        [
            ("{{ build_image.image }}", "Did you mean {{ build-image.image }}?"),
            ("{{ build-image.imge }}", "Did you mean {{ build-image.image }}?"),
            ("{{ build-image.digest }}", "The step build-image gives: additional_tags, image"),
            ("{{ prefect.block.secret.x }}", "Did you mean {{ prefect.blocks.secret.x }}?"),
            ("{{ prefect.varables.x }}", "Did you mean {{ prefect.variables.x }}?"),
            ("{{ env.HOME }}", "Ids of steps in this file: build-image."),
        ],
    )
    def test_dpl012_that_nothing_fills(self, tmp_path: Path, placeholder: str, remedy: str) -> None:
        (fault,) = self.faults(tmp_path, placeholder)
        assert (fault.location, fault.severity) == ("prefect.yaml:10", "warning")
        assert placeholder in fault.message
        assert remedy in fault.remediation
        assert marked(tmp_path, fault) == placeholder

    @pytest.mark.parametrize(
        "placeholder",
        [
            *("{{ build-image.image }}", "{{build-image.tag}}", "{{ image }}", "{{ HOME }}", "{{ $HOME }}"),
            *("{{ prefect.blocks.secret.x }}", "{{ prefect.variables.x }}", "{{ ctx.flow_run.id }}"),
            *("{{ build-image.additional_tags[0] }}", "{{ a b.c }}", "{ a.b }", "{{ }}", "{{ a.b | upper }}"),
        ],
    )
    def test_dpl012_what_may_be_filled(self, tmp_path: Path, placeholder: str) -> None:
        assert self.faults(tmp_path, placeholder) == ()

    def test_dpl012_a_step_of_one_s_own_may_give_anything(self, tmp_path: Path) -> None:
        own = BUILD + "  - shop.steps.build: {id: own}\n"
        assert self.faults(tmp_path, "{{ own.anything }}", own) == ()
        assert self.faults(tmp_path, "{{ nobody.anything }}", own) == ()
        assert len(self.faults(tmp_path, "{{ build-image.imge }}", own)) == 1

    def test_dpl012_parameters_and_triggers_may_hold_other_templates(self, tmp_path: Path) -> None:
        text = "parameters: {day: '{{ a.b }}'}\ndescription: '{{ a.b }}'\ntriggers: [{x: '{{ event.id }}'}]"
        assert declared(tmp_path, text, "DPL012") == ()

    def test_dpl012_in_steps(self, tmp_path: Path) -> None:
        text = "pull:\n  - prefect.deployments.steps.set_working_directory:\n      directory: '{{ clone.directory }}'\n"
        (fault,) = declared(tmp_path, text, "DPL012")
        assert fault.location == "prefect.yaml:6"

    @pytest.mark.parametrize(
        "text", ["{{ a.b }}", "{{a.b}} {{ $X }} {{ c }}", "{{ a b }}", "{{ a.b|c }}", "{{ x-y[0].z }}"]
    )
    def test_placeholders_are_what_prefect_takes_for_some(self, tmp_path: Path, text: str) -> None:
        found = {each.full_match for each in find_placeholders(text) if each.type is PlaceholderType.STANDARD}
        dotted = {each for each in found if "." in each and "[" not in each}
        faults = self.faults(tmp_path, text, "")
        assert {fault.message.removeprefix("Nothing fills the placeholder ")[:-1] for fault in faults} == dotted

    @pytest.mark.parametrize("name", sorted(OUTPUTS))
    def test_the_steps_whose_outputs_we_know_exist(self, name: str) -> None:
        module, _, function = name.rpartition(".")
        assert callable(getattr(__import__(module, fromlist=[function]), function))


class TestExamples:
    @pytest.mark.parametrize("code", ["DPL001", "DPL002", "DPL003", "DPL004", "DPL005", "DPL006", "DPL012", "DPL013"])
    def test_the_example_has_its_fault(self, tmp_path: Path, code: str) -> None:
        rule = next(rule for rule in RULES if rule.code == code)
        flow, _, yaml = rule.example.rpartition("# prefect.yaml\n")
        source = f"from prefect import flow\n{flow}" if flow else FLOW
        files = {"flows/etl.py": source, "prefect.yaml": yaml, "Dockerfile": "FROM python:3.11-slim\n"}
        found = all_faults(tmp_path, files)
        assert code in [fault.code for fault in found]
        assert {fault.code for fault in found if fault.severity == "error"} <= {code}

"""Every rule, provoked by a repository or a declaration that breaks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import EnvironmentConfig
from orchestrator.discovery import discover
from orchestrator.entrypoints import declared_files, resolve
from orchestrator.errors import ConfigurationError
from orchestrator.model import Declaration, Discovery, FlowMetadata, ScheduleConfig, ValidationError, ValidationResult
from orchestrator.pipeline import without_faulty_flows
from orchestrator.repository import Repository
from orchestrator.rules import RULES, Facts
from orchestrator.validation import FlowValidator, facts_of, validate
from tests.unit.builders import write_files

REPOS = Path(__file__).parents[1] / "repos"


def faults_of(repo: str) -> ValidationResult:
    return validate(facts_of(REPOS / repo, discover(REPOS / repo, ["flows"])))


def validate_declarations(
    flows: Sequence[FlowMetadata],
    problems: Sequence[ValidationError],
    declarations: Sequence[Declaration],
    provided: Sequence[str] = (),
) -> tuple[ValidationError, ...]:
    """The faults of declarations alone."""
    environment = EnvironmentConfig(name="test", default_parameters=dict.fromkeys(provided, "today"))
    facts = Facts(flows=flows, problems=problems, declarations=declarations, environment=environment)
    result = validate(facts)
    return tuple(each for each in (*result.errors, *result.warnings) if each.code.startswith("DPL"))


def places(faults: Sequence[ValidationError]) -> list[tuple[str, str]]:
    return [(fault.code, fault.location) for fault in faults]


def line_of(repo: str, path: str, text: str) -> int:
    lines = (REPOS / repo / path).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def declaration(entrypoint: str | None = None, **fields: Any) -> Declaration:
    basics = {"name": "daily", "file_path": "prefect.yaml", "line_number": 7, "folder": "."}
    return Declaration(**{**basics, "entrypoint": entrypoint, **fields})


class TestRules:
    def test_codes_are_unique_and_every_rule_explains_itself(self) -> None:
        assert len({rule.code for rule in RULES}) == len(RULES)
        for rule in RULES:
            assert len(rule.explanation.splitlines()) > 2, f"{rule.code} says too little"
            assert rule.title

    def test_sound_repository_has_no_faults(self) -> None:
        assert faults_of("shared_modules") == ValidationResult()
        assert faults_of("shared_modules").is_valid

    def test_all_faults_have_place_and_remedy(self) -> None:
        for repo in REPOS.iterdir():
            result = faults_of(repo.name)
            for fault in (*result.errors, *result.warnings):
                assert fault.file_path and fault.remediation, fault

    def test_faults_are_sorted_by_place(self) -> None:
        warnings = faults_of("signatures").warnings
        assert len(warnings) > 3
        assert list(warnings) == sorted(warnings, key=lambda fault: (fault.file_path, fault.line_number))


class TestFlows:
    def test_flw001_syntax_error(self) -> None:
        result = faults_of("broken_syntax")
        assert places(result.errors) == [("FLW001", "flows/broken.py:5"), ("FLW001", "shared/helper.py:2")]
        assert result.stopping == ()

    def test_flw002_unreadable(self) -> None:
        result = faults_of("broken_encoding")
        assert ("FLW002", "flows/latin1_undeclared.py:6") in places(result.errors)
        assert result.stopping == ()

    def test_flw003_duplicate_names(self) -> None:
        (error,) = faults_of("duplicate_names").errors
        assert (error.code, error.location, error.skips) == ("FLW003", "flows/two.py:7", False)
        assert "flows/one.py:5" in error.message
        assert "flows/two.py:7" in error.message

    def test_flw004_dynamic_name(self) -> None:
        result = faults_of("duplicate_names")
        assert places(result.warnings) == [("FLW004", "flows/two.py:12"), ("FLW004", "flows/two.py:17")]
        assert "unknown_2" in result.warnings[1].message

    def test_flw005_variadic(self) -> None:
        line = line_of("signatures", "flows/signatures.py", "def variadic")
        found = [fault for fault in faults_of("signatures").warnings if fault.line_number == line]
        assert [fault.code for fault in found] == ["FLW005", "FLW005"]
        assert "`args: []`" in found[0].remediation
        assert "`kwargs: {}`" in found[1].remediation
        late = next(fault for fault in faults_of("signatures").warnings if "'late'" in fault.message)
        assert "a default comes before it" in late.remediation

    def test_flw006_mutable_default(self) -> None:
        found = [fault.message for fault in faults_of("signatures").warnings if fault.code == "FLW006"]
        assert [message.split("'")[1] for message in found] == ["a", "b", "c", "d", "e"]


class TestExcerpts:
    """Each fault has the line that it is about."""

    def excerpts(self, root: Path, *problems: ValidationError) -> list[tuple[str, int | None]]:
        result = validate(Facts(repository=Repository(root), problems=problems))
        return [(fault.excerpt, fault.column_number) for fault in (*result.errors, *result.warnings)]

    def unknown_key(self, line: int | None, columns: tuple[int, int] | None = None) -> ValidationError:
        start, end = columns or (None, None)
        return ValidationError(
            code="CFG002",
            message="x",
            file_path="a.yaml",
            line_number=line,
            column_number=start,
            end_column_number=end,
        )

    def test_is_the_line_as_it_stands(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_bytes(b"one: 1\r\n\ttwo: 2  \r\nthree: 3")
        found = self.excerpts(tmp_path, self.unknown_key(2, (2, 5)), self.unknown_key(3))
        assert found == [("\ttwo: 2  ", 2), ("three: 3", None)]

    @pytest.mark.parametrize("line", [None, 0, -1, 4, 10**9])
    def test_is_empty_where_there_is_no_such_line(self, tmp_path: Path, line: int | None) -> None:
        (tmp_path / "a.yaml").write_text("one: 1\ntwo: 2\n")
        assert self.excerpts(tmp_path, self.unknown_key(line)) == [("", None)]

    def test_is_empty_where_there_is_no_such_file(self, tmp_path: Path) -> None:
        assert self.excerpts(tmp_path, self.unknown_key(1)) == [("", None)]

    def test_shows_no_secret(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text("x: 1\npassword: hunter2-hunter2\nurl: https://me:hunter2@h/\nname: x\n")
        found = self.excerpts(tmp_path, self.unknown_key(2, (1, 9)), self.unknown_key(3, (6, 10)))
        assert not any("hunter2" in excerpt for excerpt, _ in found)
        assert [excerpt.partition(":")[0] for excerpt, _ in found] == ["password", "url"]
        assert [len(excerpt) for excerpt, _ in found] == [25, 26]  # so that columns stay what they are

    def test_has_no_columns_where_they_would_lie(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text("{password: x, nmae: y}\n")
        assert self.excerpts(tmp_path, self.unknown_key(1, (15, 19))) == [("{password: ****, nmae: y}", None)]

    def test_of_python_in_its_own_encoding(self, tmp_path: Path) -> None:
        source = "# coding: latin-1\nfrom prefect import flow\n@flow\ndef etl(ä=[]): ...\n"
        (tmp_path / "etl.py").write_bytes(source.encode("latin-1"))
        (found,) = FlowValidator(tmp_path).validate_flow("etl.py").warnings
        assert found.excerpt == "def etl(ä=[]): ..."


class TestFlowValidator:
    def test_one_file(self) -> None:
        validator = FlowValidator(REPOS / "broken_syntax")
        assert validator.validate_flow("flows/good.py").is_valid
        assert places(validator.validate_flow("flows/broken.py").errors) == [("FLW001", "flows/broken.py:5")]

    def test_broken_module_of_a_flow(self) -> None:
        result = FlowValidator(REPOS / "broken_syntax").validate_flow("flows/needs_broken.py")
        assert places(result.errors) == [("FLW001", "shared/helper.py:2")]

    def test_file_that_does_not_exist(self) -> None:
        with pytest.raises(ConfigurationError):
            FlowValidator(REPOS / "broken_syntax").validate_flow("flows/none.py")


class TestResolve:
    FLOW = FlowMetadata(
        name="etl",
        path="jobs/a/etl.py",
        module_path="jobs.a.etl",
        function_name="run",
        line_number=1,
        end_line_number=2,
    )

    @pytest.mark.parametrize(
        ("entrypoint", "folder"),
        [
            ("jobs/a/etl.py:run", "."),
            ("./jobs/a/../a/etl.py:run", "."),
            ("jobs.a.etl.run", "."),
            ("jobs.a.etl:run", "."),
            ("a.etl.run", "jobs"),
            ("etl:run", "jobs/a"),
            ("jobs/a/etl.py:run", "jobs/a"),  # entrypoints arrive relative to the root
        ],
    )
    def test_by_entrypoint(self, entrypoint: str, folder: str) -> None:
        assert resolve(declaration(entrypoint, folder=folder), [self.FLOW]) is self.FLOW
        assert "jobs/a/etl.py" in declared_files([declaration(entrypoint, folder=folder)])

    @pytest.mark.parametrize("entrypoint", ["jobs/a/etl.py:other", "jobs/a/etl.py", "etl.run", "jobs/b/etl.py:run", ""])
    def test_no_such_entrypoint(self, entrypoint: str) -> None:
        assert resolve(declaration(entrypoint), [self.FLOW]) is None

    def test_by_flow_name(self) -> None:
        assert resolve(declaration(flow_name="etl"), [self.FLOW]) is self.FLOW
        assert resolve(declaration(flow_name="other"), [self.FLOW]) is None
        assert resolve(declaration(), [self.FLOW]) is None

    def test_declared_files_are_found_outside_the_folders(self) -> None:
        root = REPOS / "signatures"
        declared = [declaration("flows/signatures.py:needs_day")]
        found = discover(root, (), also=declared_files(declared))
        assert resolve(declared[0], found.flows) is not None


class TestDeclarations:
    @pytest.fixture(scope="class")
    def signatures(self) -> Discovery:
        return discover(REPOS / "signatures", ["flows"])

    @pytest.mark.parametrize(
        ("declared", "message", "remedy"),
        [
            (
                declaration("flows/signatures.py:need_day"),
                "flows/signatures.py:need_day",
                "flows/signatures.py:needs_day",
            ),
            (declaration("flows/signature.py:needs_day"), "flows/signature.py", "Did you mean flows/signatures.py"),
            (declaration("elsewhere.py:x"), "the file elsewhere.py does not exist", "orchestrator discover"),
            (declaration(flow_name="needs-dy"), "'needs-dy'", "Did you mean needs-day?"),
            (declaration(), "neither", "Add `entrypoint"),
        ],
    )
    def test_dpl001_unknown_flow(self, signatures: Discovery, declared: Declaration, message: str, remedy: str) -> None:
        (error,) = validate_declarations(signatures.flows, signatures.problems, [declared])
        assert (error.code, error.location, error.skips) == ("DPL001", "prefect.yaml:7", False)
        assert message in error.message
        assert remedy in error.remediation

    @pytest.mark.parametrize("entrypoint", ["flows/broken.py:unfinished", "flows.broken.unfinished"])
    def test_dpl001_broken_file_takes_out_one_deployment(self, entrypoint: str) -> None:
        found = discover(REPOS / "broken_syntax", ["flows"])
        (error,) = validate_declarations(found.flows, found.problems, [declaration(entrypoint)])
        assert (error.code, error.skips) == ("DPL001", True)
        assert "flows/broken.py:5" in error.message

    def test_dpl002_declared_twice(self, signatures: Discovery) -> None:
        declared = [
            declaration("flows/signatures.py:open_ended"),
            declaration(flow_name="open-ended", file_path="flows/prefect.yaml", line_number=3),
            declaration("flows/signatures.py:mutable"),
        ]
        (error,) = validate_declarations(signatures.flows, (), declared)
        assert (error.code, error.location, error.skips) == ("DPL002", "flows/prefect.yaml:3", False)
        assert "open-ended/daily is already declared at prefect.yaml:7" in error.message

    @pytest.mark.parametrize(
        ("function", "values", "remedy"),
        [
            ("needs_day", {"dya": "x"}, "Did you mean day?"),
            ("needs_day", {"colour": "red"}, "the flow has: day, limit"),
            ("open_ended", {"colour": "red"}, "Put it under `kwargs:`"),
        ],
    )
    def test_dpl003_unknown_parameter(
        self, signatures: Discovery, function: str, values: dict[str, Any], remedy: str
    ) -> None:
        entrypoint = f"flows/signatures.py:{function}"
        schedule = ScheduleConfig(cron="0 6 * * *", slug="early", active=False, parameters=values)
        in_both = declaration(entrypoint, parameters=values, schedules=(schedule,))
        one, two = validate_declarations(signatures.flows, (), [in_both])
        assert {one.code, two.code} == {"DPL003"}
        assert remedy in one.remediation
        assert "`parameters`" in one.message
        assert "'early'" in two.message

    def test_variadic_parameters_go_by_their_own_name(self, signatures: Discovery) -> None:
        declared = declaration("flows/signatures.py:open_ended", parameters={"kwargs": {"colour": "red"}})
        assert validate_declarations(signatures.flows, (), [declared]) == ()

    def test_dpl004_scheduled_without_a_value(self, signatures: Discovery) -> None:
        (error,) = self.scheduled(signatures)
        assert (error.code, error.location, error.skips) == ("DPL004", "prefect.yaml:7", False)
        assert "requires day" in error.message
        assert "limit" not in error.message

    @pytest.mark.parametrize(
        "fields",
        [
            {"parameters": {"day": "today"}},
            {"schedules": (ScheduleConfig(cron="0 6 * * *", parameters={"day": "today"}),)},
            {"schedules": (ScheduleConfig(cron="0 6 * * *", active=False),)},
            {"schedules": ()},
            {"paused": True},
        ],
    )
    def test_dpl004_is_no_fault_where_a_run_gets_its_value_or_never_starts(
        self, signatures: Discovery, fields: dict[str, Any]
    ) -> None:
        assert self.scheduled(signatures, **fields) == ()

    def test_dpl004_the_environment_may_give_the_value(self, signatures: Discovery) -> None:
        assert self.scheduled(signatures, provided=["day"]) == ()

    def test_unknown_signature_is_given_the_benefit_of_the_doubt(self) -> None:
        found = discover(REPOS / "unknown_names", ["flows"])
        declared = declaration("flows/dynamic.py:elsewhere", parameters={"anything": 1})
        assert validate_declarations(found.flows, (), [declared]) == ()

    def test_all_faults_together(self, signatures: Discovery) -> None:
        declared = [
            declaration("none.py:x", line_number=9),
            declaration("flows/signatures.py:mutable", parameters={"z": 1}),
        ]
        assert places(validate_declarations(signatures.flows, (), declared)) == [
            ("DPL003", "prefect.yaml:7"),
            ("DPL001", "prefect.yaml:9"),
        ]

    def scheduled(self, found: Discovery, provided: Sequence[str] = (), **fields: Any) -> tuple[ValidationError, ...]:
        schedules = {"schedules": (ScheduleConfig(cron="0 6 * * *"),)}
        declared = declaration("flows/signatures.py:needs_day", **{**schedules, **fields})
        return validate_declarations(found.flows, (), [declared], provided)


def test_columns_are_found_behind_what_ends_no_line_for_python(tmp_path: Path) -> None:
    source = "from prefect import flow\n\f\nMARK = '\u2028'\n@flow\ndef etl(rows=[]): ...\n"
    write_files(tmp_path, {"flows/etl.py": source})
    result = validate(facts_of(tmp_path, discover(tmp_path, ["flows"])))
    (warning,) = result.warnings
    assert (warning.code, warning.line_number, warning.column_number) == ("FLW006", 5, 14)
    assert warning.excerpt == "def etl(rows=[]): ..."


ASK_PREFECT = """
import json
from prefect import flow
from prefect.utilities.callables import call_with_parameters
from prefect.utilities.schema_tools import validate

@flow
def args_after_default(x=1, *args): return args

@flow
def args_alone(*args): return args

@flow
def kwargs_only(**kwargs): return kwargs

def outcome(flow, values):
    refused = bool(validate(values, flow.parameters.model_dump_for_openapi()))
    try:
        call_with_parameters(flow.fn, flow.validate_parameters(values))
        return [refused, "runs"]
    except Exception as error:
        return [refused, type(error).__name__]

print(json.dumps([
    outcome(kwargs_only, {}),
    outcome(kwargs_only, {"kwargs": {"colour": "red"}}),
    outcome(kwargs_only, {"colour": "red", "kwargs": {}}),
    outcome(args_after_default, {}),
    outcome(args_after_default, {"args": []}),
    outcome(args_after_default, {"args": [1]}),
    outcome(args_alone, {"args": [1]}),
]))
"""


def test_what_flw005_and_dpl003_say_is_what_prefect_does(tmp_path: Path) -> None:
    """Each pair: does the server refuse the run while the schema is enforced, and what happens if it starts."""
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    command = [sys.executable, "-c", ASK_PREFECT]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(child.stdout.splitlines()[-1]) == [
        [True, "runs"],
        [False, "runs"],
        [False, "SignatureMismatchError"],
        [True, "runs"],
        [False, "ParameterTypeError"],
        [False, "ParameterTypeError"],
        [False, "runs"],
    ]


def test_a_fault_takes_out_each_flow_that_it_names_and_says_it_once(tmp_path: Path) -> None:
    user = "import lib\nfrom prefect import flow\n@flow\ndef {}(): ...\n"
    files = {f"flows/{name}.py": user.format(name) for name in ("a", "b")}
    write_files(tmp_path, {**files, "lib.py": "def (", "flows/c.py": user.format("c").replace("lib", "os")})
    found = discover(tmp_path, ["flows"])
    flows = without_faulty_flows(found, validate(facts_of(tmp_path, found))).flows
    assert [(flow.function_name, len(flow.validation_errors)) for flow in flows] == [("a", 1), ("b", 1), ("c", 0)]
    fault = ValidationError(code="DEP003", message="No.", skips=True, flows=("flows/a.py:a", "flows/c.py:c"))
    flows = without_faulty_flows(found, ValidationResult(errors=(fault,))).flows
    assert [(flow.function_name, len(flow.validation_errors)) for flow in flows] == [("a", 2), ("b", 1), ("c", 1)]

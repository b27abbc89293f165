"""Faults as people and programs read them: carets at the right place, SARIF by its schema, lines that grep finds."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console, RenderableType

import orchestrator
from orchestrator import code_hosts, fault_report
from orchestrator.discovery import discover
from orchestrator.errors import ConfigurationError, RefusedError
from orchestrator.model import ValidationError, ValidationResult
from orchestrator.rules import RULES
from orchestrator.validation import facts_of, validate
from tests.unit.builders import problem

SARIF_SCHEMA = json.loads((Path(__file__).parents[1] / "data" / "sarif-2.1.0.json").read_text(encoding="utf-8"))
FAULT_KEYS = {"code", "message", "file_path", "line_number", "remediation", "severity", "column_number"}


def text_of(renderable: RenderableType, *, terminal: bool = False, width: int = 400) -> str:
    output = StringIO()
    Console(file=output, width=width, force_terminal=terminal, color_system=None, soft_wrap=True).print(renderable)
    return output.getvalue()


def shown(excerpt: str, columns: tuple[int, int] | None = None, width: int = 80) -> list[str]:
    """The excerpt of a fault as a terminal shows it, without the gutter."""
    start, end = columns or (None, None)
    fault = problem(file_path="a.py", line_number=3, excerpt=excerpt, column_number=start, end_column_number=end)
    lines = [line.plain for line in fault_report.excerpt_lines(fault, width)]
    assert all(len(line) <= width for line in lines if line.isascii())
    return [line.partition("| ")[2] for line in lines]


class TestOnATerminal:
    FAULT = problem(
        file_path="flows/etl.py",
        line_number=12,
        column_number=9,
        end_column_number=16,
        excerpt="def etl(rows=[]):",
        remediation="Use `rows=None`.",
    )

    def test_a_fault_comes_with_its_line_and_a_caret(self) -> None:
        assert text_of(fault_report.problems_text([self.FAULT]), terminal=True).splitlines() == [
            "flows/etl.py:12:9: error FLW001: Something is wrong.",
            "    12 | def etl(rows=[]):",
            "       |         ^^^^^^^",
            "    Use `rows=None`.",
            "",
        ]

    def test_where_a_program_reads_it_is_one_line_and_the_remedy(self) -> None:
        assert text_of(fault_report.problems_text([self.FAULT])).splitlines() == [
            "flows/etl.py:12:9: error FLW001: Something is wrong.",
            "    Use `rows=None`.",
        ]

    @pytest.mark.parametrize(
        ("excerpt", "columns", "lines"),
        [
            ("rows=[]", (1, 5), ["rows=[]", "^^^^"]),
            ("rows=[]", None, ["rows=[]"]),
            ("\trows=[]", (2, 6), ["    rows=[]", "    ^^^^"]),
            ("a\trows=[]", (3, 7), ["a   rows=[]", "    ^^^^"]),
            ("名前 = x", (6, 7), ["名前 = x", "       ^"]),
            ("名前 = x", (1, 3), ["名前 = x", "^^^^"]),
            ("a\x1b[31mb", (6, 7), ["a\N{REPLACEMENT CHARACTER}[31mb", "     ^"]),
            ("a\u202eb", (3, 4), ["a\N{REPLACEMENT CHARACTER}b", "  ^"]),
            ("short", (90, 95), ["short"]),
            ("short", (3, 95), ["short", "  ^^^"]),
            ("名前 =", (5, 6), ["名前 =", "      ^"]),  # behind the end: something is missing
            ("short", (7, 8), ["short"]),
            ("", (1, 2), []),
        ],
    )
    def test_the_caret_stands_below_what_is_meant(
        self, excerpt: str, columns: tuple[int, int] | None, lines: list[str]
    ) -> None:
        assert shown(excerpt, columns) == lines

    @pytest.mark.parametrize("width", [20, 21, 22, 30, 40, 80])
    @pytest.mark.parametrize("filling", ["x", "名", "\t"])
    @pytest.mark.parametrize("before", [0, 1, 30, 500])
    def test_of_a_long_line_the_faulty_part_is_seen(self, width: int, filling: str, before: int) -> None:
        excerpt = f"{filling * before}FAULT{filling * 500}"
        line, carets = shown(excerpt, (before + 1, before + 6), width)
        cells = "".join(character * (2 if character == "名" else 1) for character in line)
        assert len(cells) <= width - len("    3 | ")
        position = carets.index("^")
        assert cells[position : position + 2] == "FA"
        assert cells[position : position + carets.count("^")].startswith("FAULT"[: carets.count("^")])

    def test_a_faulty_part_that_is_longer_than_the_line_is_cut_with_it(self) -> None:
        line, carets = shown("x" * 1000, (11, 900), 40)
        assert len(line) == 32 and "^" * 20 in carets and len(carets) <= 32

    def test_on_a_very_narrow_terminal_there_is_no_source(self) -> None:
        assert shown("rows=[]", (1, 5), 15) == []

    def test_brackets_in_source_and_names_are_no_markup(self) -> None:
        found = problem(message="[a] b [/a]", file_path="x", line_number=1, excerpt="[bold]x[/bold]")
        text = text_of(fault_report.problems_text([found]), terminal=True)
        assert "[a] b [/a]" in text and "[bold]x[/bold]" in text
        assert "error: [a]: [b]" in text_of(fault_report.error_text(RefusedError("[b]", location="[a]")))

    def test_errors_and_warnings_stand_together_by_file_and_line(self) -> None:
        def at(file: str, line: int, severity: str) -> ValidationError:
            return problem(file_path=file, line_number=line, severity=severity)

        errors, warnings = (at("b.py", 1, "error"), at("b.py", 9, "error")), (at("a.py", 2, "warning"),)
        found = ValidationResult(errors=errors, warnings=(*warnings, at("b.py", 4, "warning")))
        lines = text_of(fault_report.validation_text(found)).splitlines()
        assert [line.partition(":")[0] + line.split(":")[1] for line in lines[:-1]] == [
            "a.py2",
            "b.py1",
            "b.py4",
            "b.py9",
        ]
        assert lines[-1] == "errors: 2, warnings: 2"


class TestErrors:
    def test_as_text_have_every_fault_and_remedy(self) -> None:
        faults = [problem(file_path="a.yaml", line_number=3, remediation="Do this."), problem(code="FLW002")]
        text = text_of(fault_report.error_text(ConfigurationError("Two faults.", faults=faults)))
        assert "a.yaml:3: error FLW001: Something is wrong.\n    Do this." in text
        assert "error FLW002: Something is wrong." in text

    def test_as_a_line_hold_all_faults(self) -> None:
        error = ConfigurationError("Two faults.", remedy="Correct.", faults=[problem(file_path="a.py", line_number=2)])
        assert fault_report.error_line(error) == "Two faults. Correct.\na.py:2: FLW001 Something is wrong."

    def test_as_json(self) -> None:
        error = ConfigurationError("Two faults.", location="a.yaml:1", remedy="Correct.", faults=[problem()])
        document = fault_report.error_json(error)["error"]
        assert (document["type"], document["exit_code"]) == ("ConfigurationError", 2)
        assert (document["message"], document["location"], document["remediation"]) == (
            "Two faults.",
            "a.yaml:1",
            "Correct.",
        )
        assert [set(each) for each in document["faults"]] == [FAULT_KEYS]


class TestJson:
    def test_of_validate_tells_what_and_where_but_no_source(self) -> None:
        found = problem(column_number=4, excerpt="password: x", severity="warning")
        document = fault_report.validation_json(ValidationResult(errors=(problem(),), warnings=(found,)))
        assert set(document) == {"is_valid", "errors", "warnings"}
        assert document["is_valid"] is False
        assert set(document["errors"][0]) == set(document["warnings"][0]) == FAULT_KEYS
        assert (document["warnings"][0]["severity"], document["warnings"][0]["column_number"]) == ("warning", 4)


RESULT = ValidationResult(
    errors=(
        ValidationError(
            code="FLW003",
            message="100% wrong",
            file_path="flows/a,b.py",
            line_number=3,
            column_number=5,
            end_column_number=8,
            remediation="Mend it.",
        ),
        ValidationError(code="XYZ999", message="Nobody's rule.", file_path="flows/ä b.py"),
    ),
    warnings=(ValidationError(code="CFG007", message="Defaults hold.", severity="warning"),),
)


class TestGitHub:
    def test_an_annotation_is_one_line_with_what_separates_encoded(self) -> None:
        first, second, third = code_hosts.github_annotations(RESULT).splitlines()
        assert first == "::warning title=CFG007 No environment files::Defaults hold."
        assert second == (
            "::error file=flows/a%2Cb.py,line=3,endLine=3,col=5,endColumn=8,title=FLW003 Two flows with the same name"
            "::100%25 wrong%0AMend it."
        )
        assert third == "::error file=flows/ä b.py,title=XYZ999::Nobody's rule."


def validate_sarif(document: Any) -> None:
    jsonschema.Draft4Validator(SARIF_SCHEMA, format_checker=jsonschema.FormatChecker()).validate(document)


class TestSarif:
    @pytest.mark.parametrize("result", [ValidationResult(), RESULT], ids=["without faults", "with faults"])
    def test_is_what_the_official_schema_says(self, result: ValidationResult) -> None:
        document = json.loads(json.dumps(code_hosts.sarif(result)))
        validate_sarif(document)
        assert document["version"] == "2.1.0"

    @pytest.mark.parametrize("repo", ["signatures", "broken_syntax", "duplicate_names"])
    def test_of_a_repository_is_so_too(self, repo: str) -> None:
        root = Path(__file__).parents[1] / "repos" / repo
        result = validate(facts_of(root, discover(root, ["flows"])))
        document = json.loads(json.dumps(code_hosts.sarif(result)))
        validate_sarif(document)
        assert len(document["runs"][0]["results"]) == len(result.errors) + len(result.warnings) > 0

    def test_the_schema_refuses_what_is_no_sarif(self) -> None:
        document = code_hosts.sarif(RESULT)
        document["runs"][0]["results"][0]["level"] = "fatal"
        with pytest.raises(jsonschema.ValidationError):
            validate_sarif(document)

    def test_names_the_tool_and_every_rule(self) -> None:
        (run,) = code_hosts.sarif(RESULT)["runs"]
        driver = run["tool"]["driver"]
        assert (driver["name"], driver["version"]) == ("orchestrator", orchestrator.__version__)
        assert [rule["id"] for rule in driver["rules"]] == [rule.code for rule in RULES]
        for rule in driver["rules"]:
            assert rule["name"].isidentifier() and rule["shortDescription"]["text"] and rule["help"]["markdown"]
            assert rule["defaultConfiguration"]["level"] in ("error", "warning")

    def test_a_result_names_rule_level_and_place(self) -> None:
        (run,) = code_hosts.sarif(RESULT)["runs"]
        warning, error, unknown = run["results"]
        assert (error["ruleId"], error["level"]) == ("FLW003", "error")
        assert run["tool"]["driver"]["rules"][error["ruleIndex"]]["id"] == "FLW003"
        place = error["locations"][0]["physicalLocation"]
        assert place["region"] == {"startLine": 3, "startColumn": 5, "endColumn": 8}
        assert place["artifactLocation"] == {"uri": "flows/a%2Cb.py", "uriBaseId": "%SRCROOT%"}
        assert run["columnKind"] == "unicodeCodePoints" and "%SRCROOT%" in run["originalUriBaseIds"]
        assert "locations" not in warning
        assert "ruleIndex" not in unknown
        assert unknown["locations"][0]["physicalLocation"] == {
            "artifactLocation": {"uri": "flows/%C3%A4%20b.py", "uriBaseId": "%SRCROOT%"}
        }

    def test_a_fingerprint_stays_when_the_line_moves(self) -> None:
        def prints(*faults: ValidationError) -> list[str]:
            (run,) = code_hosts.sarif(ValidationResult(errors=faults))["runs"]
            return [found["partialFingerprints"]["orchestratorFault/v1"] for found in run["results"]]

        one = problem(file_path="a.py", line_number=3, excerpt="def etl(rows=[]):", message="See line 3.")
        moved = problem(file_path="a.py", line_number=7, excerpt="  def etl(rows=[]):", message="See line 7.")
        other = problem(file_path="a.py", line_number=3, excerpt="def etl(days=[]):")
        assert prints(one) == prints(moved) != prints(other)
        first, second = prints(one, moved)
        assert first != second
        assert prints(one) == [first]

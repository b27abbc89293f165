"""Silenced faults: comments and entries that work, those that silence nothing, and text that only looks like one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from orchestrator.config import ConfigurationManager
from orchestrator.discovery import discover
from orchestrator.ignores import Ignore, comment_ignores, project_ignores, silenced
from orchestrator.model import ValidationResult
from orchestrator.pipeline import about, discover_flows, read_settings
from orchestrator.pipeline import validate as validate_repository
from orchestrator.repository import Repository
from orchestrator.validation import FlowValidator, facts_of, not_silenced, validate
from tests.unit.builders import problem, write_files

FLOW = """
    from prefect import flow

    @flow
    def etl(rows=[]):{comment}
        ...
"""


def etl(comment: str = "") -> dict[str, str]:
    """A flow with a mutable default (FLW006) and a comment behind it."""
    return {"flows/etl.py": FLOW.format(comment=f"  {comment}" if comment else "")}


def checked(root: Path, files: dict[str, str]) -> ValidationResult:
    write_files(root, files)
    return validate(facts_of(root, discover(root, ["flows"])))


def told(result: ValidationResult) -> list[tuple[str, str]]:
    return [(fault.code, fault.location) for fault in (*result.errors, *result.warnings)]


def lines_silenced(root: Path, name: str, text: str) -> list[tuple[str, list[int]]]:
    """The codes that comments of one file silence, and the lines."""
    write_files(root, {name: text})
    return [(each.code, sorted(each.lines)) for each in comment_ignores([name], Repository(root))]


class TestComments:
    @pytest.mark.parametrize(
        "comment",
        [
            "# orchestrator: ignore[FLW006]",
            "# orchestrator: ignore [FLW006]",
            "#orchestrator:ignore[ FLW006 ]",
            "# orchestrator: ignore[FLW006] nobody changes it",
            "# orchestrator: ignore[flw006]",
            "# noqa: B006  # orchestrator: ignore[FLW006]",
        ],
    )
    def test_silence_a_fault_on_their_line(self, tmp_path: Path, comment: str) -> None:
        assert told(checked(tmp_path, etl())) == [("FLW006", "flows/etl.py:4")]
        assert told(checked(tmp_path, etl(comment))) == []

    def test_silence_several_codes(self, tmp_path: Path) -> None:
        files = {
            "flows/etl.py": """
                from prefect import flow
                @flow
                def etl(a=[], *args): ...  # orchestrator: ignore[FLW005,FLW006]
            """
        }
        assert told(checked(tmp_path, files)) == []

    @pytest.mark.parametrize("line", ["@flow(", "    retries=2,", ")", "@other", "def etl(", "    a=[],", "):"])
    def test_of_a_flow_stand_on_any_line_of_its_decorators_and_signature(self, tmp_path: Path, line: str) -> None:
        text = "from prefect import flow\nother = print\n\n"
        text += "@other\n@flow(\n    retries=2,\n)\ndef etl(\n    a=[],\n):\n    ...\n"
        assert [code for code, _ in told(checked(tmp_path, {"flows/etl.py": text}))] == ["FLW006"]
        text = text.replace(f"\n{line}\n", f"\n{line}  # orchestrator: ignore[FLW006]\n")
        assert told(checked(tmp_path, {"flows/etl.py": text})) == []

    def test_beside_a_parameter_speak_for_that_one(self, tmp_path: Path) -> None:
        text = "from prefect import flow\n@flow\ndef etl(\n"
        text += "    a=[],  # orchestrator: ignore[FLW006]\n    b=[],\n):\n    ...\n"
        (found,) = checked(tmp_path, {"flows/etl.py": text}).warnings
        assert (found.code, "'b'" in found.message) == ("FLW006", True)

    def test_on_a_line_of_their_own_speak_for_the_next_one(self, tmp_path: Path) -> None:
        comment = "# orchestrator: ignore[FLW006]\n# why: nobody changes it\n\n"
        text = f"from prefect import flow\n\n{comment}@flow\ndef etl(a=[]): ...\n"
        assert told(checked(tmp_path, {"flows/etl.py": text})) == []

    @pytest.mark.parametrize(
        "text",
        [
            "from prefect import flow\n@flow\ndef etl(a=[]):\n    x = 1  # orchestrator: ignore[FLW006]\n",
            "from prefect import flow\n@flow\ndef etl(a=[]):\n    # orchestrator: ignore[FLW006]\n    x = 1\n",
            "from prefect import flow\n# orchestrator: ignore[FLW006]\nx = 1\n@flow\ndef etl(a=[]): ...\n",
        ],
    )
    def test_elsewhere_silence_nothing(self, tmp_path: Path, text: str) -> None:
        codes = [code for code, _ in told(checked(tmp_path, {"flows/etl.py": text}))]
        assert sorted(codes) == ["FLW006", "IGN001"]

    @pytest.mark.parametrize(
        "text",
        [
            'from prefect import flow\n@flow\ndef etl(a=[], b="# orchestrator: ignore[FLW006]"): ...\n',
            'from prefect import flow\n@flow\ndef etl(a=[]): """\n# orchestrator: ignore[FLW006]\n"""\n',
        ],
    )
    def test_in_strings_are_none(self, tmp_path: Path, text: str) -> None:
        assert [code for code, _ in told(checked(tmp_path, {"flows/etl.py": text}))] == ["FLW006"]

    def test_of_a_syntax_error_change_nothing(self, tmp_path: Path) -> None:
        result = checked(
            tmp_path, {"flows/etl.py": "from prefect import flow\n@flow(  # orchestrator: ignore[FLW001]\n"}
        )
        assert [fault.code for fault in result.errors] == ["FLW001"]

    def test_in_another_encoding(self, tmp_path: Path) -> None:
        text = (
            "# coding: latin-1\nfrom prefect import flow\n@flow\ndef etl(ä=[]): ...  # orchestrator: ignore[FLW006]\n"
        )
        write_files(tmp_path, {"flows/x.txt": ""})
        (tmp_path / "flows" / "etl.py").write_bytes(text.encode("latin-1"))
        assert told(checked(tmp_path, {})) == []

    @pytest.mark.parametrize("ending", ["\n", "\r\n"])
    def test_after_any_line_end_and_byte_order_mark(self, tmp_path: Path, ending: str) -> None:
        text = "\ufefffrom prefect import flow\n\n@flow\ndef etl(a=[]):  # orchestrator: ignore[FLW006]\n    ...\n"
        write_files(tmp_path, {"flows/x.txt": ""})
        (tmp_path / "flows" / "etl.py").write_bytes(text.replace("\n", ending).encode())
        assert told(checked(tmp_path, {})) == []


class TestInOtherFiles:
    def test_yaml(self, tmp_path: Path) -> None:
        text = """
            # orchestrator: ignore[A001]
            deployments:
              - name: daily  # orchestrator: ignore[A002, A003]
                description: "x # orchestrator: ignore[B001]"
                other: 'x
                  # orchestrator: ignore[B002]'
                script: |  # orchestrator: ignore[A004]
                  # orchestrator: ignore[B003]
                  echo
                # orchestrator: ignore[A005]
                plain: x#orchestrator:ignore[B004]
        """
        assert lines_silenced(tmp_path, "prefect.yaml", text) == [
            ("A001", [1, 2]),
            ("A002", [3]),
            ("A003", [3]),
            ("A004", [7]),
            ("A005", [10, 11]),
        ]

    def test_dockerfile(self, tmp_path: Path) -> None:
        text = """
            # syntax=docker/dockerfile:1
            # orchestrator: ignore[A001]
            FROM python
            RUN echo x # orchestrator: ignore[B001]
              # orchestrator: ignore[A002]
            COPY a b
        """
        assert lines_silenced(tmp_path, "Dockerfile", text) == [("A001", [2, 3]), ("A002", [5, 6])]

    def test_requirements(self, tmp_path: Path) -> None:
        text = """
            pandas==1  # orchestrator: ignore[A001]
            # orchestrator: ignore[A002]
            numpy
            x @ https://example.org/x.zip#orchestrator: ignore[B001]
        """
        assert lines_silenced(tmp_path, "requirements.txt", text) == [("A001", [1]), ("A002", [2, 3])]

    def test_toml(self, tmp_path: Path) -> None:
        text = '''
            [project]
            dependencies = [
              "pandas",  # orchestrator: ignore[A001]
              "x # orchestrator: ignore[B001]",
            ]
            text = """
            # orchestrator: ignore[B002]
            """
        '''
        assert lines_silenced(tmp_path, "pyproject.toml", text) == [("A001", [3])]

    @pytest.mark.parametrize("name", ["a.py", "a.yaml", "a.toml", "Dockerfile", "requirements.txt", ".env"])
    @pytest.mark.parametrize(
        "text",
        [
            "# orchestrator: ignore[",
            "# orchestrator: ignore[A001",
            "# orchestrator: ignore[[[]]]",
            "\t- {\n# orchestrator: ignore[A001]\n'",
            "x = (((\n# orchestrator: ignore[A001]",
            '"""\\\n# orchestrator: ignore[A001]',
            "# orchestrator: ignore[A001]\x00\x00",
            "(" * 5000 + "\n# orchestrator: ignore[A001]",
            "\x0c# orchestrator: ignore[A001]\x85\u2028x",
        ],
    )
    def test_nothing_that_a_file_holds_is_a_crash(self, tmp_path: Path, name: str, text: str) -> None:
        (tmp_path / name).write_text(text, encoding="utf-8")
        for ignore in comment_ignores([name], Repository(tmp_path)):
            assert ignore.line_number in ignore.lines

    def test_files_that_are_not_there_have_none(self, tmp_path: Path) -> None:
        assert list(comment_ignores(["a.py", "b.yaml", ""], Repository(tmp_path))) == []


class TestLaterStages:
    """What is met when schemas are read comes after validation, and is silenced all the same."""

    FAULT = problem(code="SCH001", severity="warning", file_path="flows/etl.py", line_number=4)

    @pytest.mark.parametrize(("comment", "count"), [("", 1), ("# orchestrator: ignore[SCH001]", 0)])
    def test_a_comment_silences(self, tmp_path: Path, comment: str, count: int) -> None:
        write_files(tmp_path, etl(comment))
        assert len(not_silenced([self.FAULT], (), Repository(tmp_path))) == count

    def test_an_entry_silences(self, tmp_path: Path) -> None:
        entry = Ignore(code="SCH001", file_path="pyproject.toml", pattern="**")
        assert not_silenced([self.FAULT], (entry,), Repository(tmp_path)) == []

    @pytest.mark.parametrize("code", ["SCH001", "FLW010"])
    def test_what_nobody_asked_for_does_not_make_a_comment_unused(self, tmp_path: Path, code: str) -> None:
        assert told(checked(tmp_path, etl(f"# orchestrator: ignore[FLW006, {code}]"))) == []


class TestUnused:
    @pytest.mark.parametrize(
        ("comment", "reason", "remedy", "columns"),
        [
            ("# orchestrator: ignore[FLW005]", "There is no FLW005 on this line.", "Remove it.", (43, 49)),
            ("# orchestrator: ignore[FLW06]", "There is no rule 'FLW06'.", "Did you mean FLW006?", (43, 48)),
            ("# orchestrator: ignore[flw999]", "There is no rule 'FLW999'.", "Did you mean FLW", (43, 49)),
            ("# orchestrator: ignore[nonsense]", "There is no rule 'nonsense'.", "orchestrator rules", (43, 51)),
            ("# orchestrator: ignore[FLW003]", "FLW003 cannot be silenced.", "orchestrator rules FLW003", (43, 49)),
            ("# orchestrator: ignore[IGN001]", "IGN001 cannot be silenced.", "orchestrator rules IGN001", (43, 49)),
            ("# orchestrator: ignore", "names no rule", "ignore[CODE]", (20, 42)),
            ("# orchestrator: ignore[]", "names no rule", "ignore[CODE]", (20, 44)),
        ],
    )
    def test_comments_are_told(
        self, tmp_path: Path, comment: str, reason: str, remedy: str, columns: tuple[int, int]
    ) -> None:
        result = checked(tmp_path, etl(comment))
        assert [fault.code for fault in result.warnings] == ["FLW006", "IGN001"]
        found = result.warnings[1]
        assert (found.location, found.severity) == ("flows/etl.py:4", "warning")
        assert "silences nothing" in found.message and reason in found.message
        assert remedy in found.remediation
        assert (found.column_number, found.end_column_number) == columns

    def test_one_code_of_several(self, tmp_path: Path) -> None:
        result = checked(tmp_path, etl("# orchestrator: ignore[FLW005, FLW006]"))
        assert told(result) == [("IGN001", "flows/etl.py:4")]
        assert "FLW005" in result.warnings[0].message

    def test_only_in_files_that_were_read(self, tmp_path: Path) -> None:
        notes = {"notes.py": "# orchestrator: ignore[FLW006]\n", "other/prefect.md": "# orchestrator: ignore"}
        assert told(checked(tmp_path, {"flows/a.py": "import b\n", **notes})) == []

    def test_in_modules_that_a_flow_imports(self, tmp_path: Path) -> None:
        files = {"flows/etl.py": "import helper\n" + "from prefect import flow\n@flow\ndef etl(): ...\n"}
        files["flows/helper.py"] = "x = []  # orchestrator: ignore[FLW006]\n"
        assert told(checked(tmp_path, files)) == [("IGN001", "flows/helper.py:1")]

    def test_are_not_told_of_what_was_read_in_part(self, tmp_path: Path) -> None:
        write_files(tmp_path, etl("# orchestrator: ignore[FLW005, FLW06]"))
        found = FlowValidator(tmp_path).validate_flow("flows/etl.py").warnings
        assert [fault.message.split(". ")[-1] for fault in found if fault.code == "IGN001"] == [
            "There is no rule 'FLW06'."
        ]

    def test_are_not_told_while_something_cannot_be_read(self, tmp_path: Path) -> None:
        files = {**etl("# orchestrator: ignore[FLW005]"), "flows/broken.py": "from prefect import flow\n@flow(\n"}
        assert "IGN001" not in [code for code, _ in told(checked(tmp_path, files))]


def run(root: Path, *environments: str, paths: Sequence[str] = ()) -> ValidationResult:
    """What `orchestrator validate` finds."""
    settings = [read_settings(root, env) for env in environments or ("development",)]
    settings = [about(each, paths) if paths else each for each in settings]
    found = discover_flows(root, settings[0].project, settings[0].declarations, tuple(paths) or None)
    return validate_repository(settings[0], found, settings[1:])


def project(lines: str) -> dict[str, str]:
    """A repository with some lines under [tool.orchestrator]."""
    return {
        **etl(),
        "environments/development.yaml": "default_parameters: {}\n",
        "pyproject.toml": f"[tool.other]\nignore = ['FLW004', 'FLW006']\n\n[tool.orchestrator]\n{lines}\n",
    }


class TestProject:
    @pytest.mark.parametrize(
        "lines",
        [
            'ignore = ["FLW006"]',
            'per_file_ignores = {"flows/**" = ["FLW006"]}',
            'per_file_ignores = {"etl.py" = ["FLW006"]}',
            '[tool.orchestrator.per_file_ignores]\n"/flows/etl.py" = ["FLW006"]',
        ],
    )
    def test_entries_silence(self, tmp_path: Path, lines: str) -> None:
        assert told(run(write_files(tmp_path, project("")))) == [("FLW006", "flows/etl.py:4")]
        assert told(run(write_files(tmp_path, project(lines)))) == []

    @pytest.mark.parametrize(
        ("lines", "place", "reason"),
        [
            ('ignore = [\n  "FLW006",\n  "FLW004",\n]', "pyproject.toml:7", "There is no FLW004 in this repository."),
            ('ignore = ["FLW006", "FLW06"]', "pyproject.toml:5", "There is no rule 'FLW06'."),
            ('ignore = ["FLW006", "FLW003"]', "pyproject.toml:5", "FLW003 cannot be silenced."),
            (
                'ignore = ["FLW006"]\nper_file_ignores = {"jobs/**" = ["FLW006"]}',
                "pyproject.toml:6",
                "There is no FLW006 in jobs/**.",
            ),
        ],
    )
    def test_entries_that_silence_nothing_are_told(self, tmp_path: Path, lines: str, place: str, reason: str) -> None:
        result = run(write_files(tmp_path, project(lines)))
        assert told(result) == [("IGN001", place)]
        assert reason in result.warnings[0].message

    def test_an_entry_without_a_text_to_be_found_has_no_line(self, tmp_path: Path) -> None:
        escaped = project('"ignore" = ["FLW\\u0030\\u0030\\u0034", "FLW006"]')
        (found,) = run(write_files(tmp_path, escaped)).warnings
        assert (found.code, found.file_path, found.line_number) == ("IGN001", "pyproject.toml", None)

    def test_entries_are_not_judged_by_a_part_of_the_repository(self, tmp_path: Path) -> None:
        root = write_files(tmp_path, {**project('ignore = ["FLW006"]'), "flows/fine.py": "x = 1\n"})
        assert told(run(root, paths=["flows/fine.py"])) == []

    def test_a_fault_without_a_file_is_silenced_by_its_code(self) -> None:
        fault = problem(code="SCH001")
        everywhere = Ignore(code="SCH001", file_path="pyproject.toml", pattern="**")
        somewhere = Ignore(code="SCH001", file_path="pyproject.toml", pattern="flows/**")
        assert silenced([fault], [everywhere], {"SCH001": True}) == ([], {everywhere})
        assert silenced([fault], [somewhere], {"SCH001": True}) == ([fault], frozenset())

    def test_what_may_not_be_ignored_stays(self) -> None:
        fault = problem(code="FLW001")
        everywhere = Ignore(code="FLW001", file_path="pyproject.toml", pattern="**")
        assert silenced([fault], [everywhere], {"FLW001": False}) == ([fault], frozenset())

    def test_wrong_types_are_faults_of_the_configuration(self, tmp_path: Path) -> None:
        result = write_files(tmp_path, {"pyproject.toml": "[tool.orchestrator]\nignore = 'FLW006'\n"})
        with pytest.raises(Exception, match="One fault"):
            ConfigurationManager(result).load_project()

    def test_entries_are_read_in_their_order(self, tmp_path: Path) -> None:
        root = write_files(tmp_path, project('ignore = ["FLW006", "FLW006", "FLW004"]'))
        found = project_ignores(ConfigurationManager(root).load_project(), Repository(root))
        assert [(each.code, each.line_number) for each in found] == [("FLW006", 5), ("FLW004", 5)]


class TestSeveralEnvironments:
    """One needs the comment, the other does not: only both together could tell that it silences nothing."""

    FILES: ClassVar = {
        "flows/etl.py": "from prefect import flow\n@flow\ndef etl(day): ...\n",
        "environments/development.yaml": "default_parameters: {day: today}\n",
        "environments/production.yaml": "concurrency_limits: {}\n",
        "prefect.yaml": """
            deployments:
              - name: daily
                entrypoint: flows/etl.py:etl
                # orchestrator: ignore[DPL004]
                schedule: {cron: "0 4 * * *"}
        """,
    }

    def test_a_comment_that_another_environment_needs_is_left_alone(self, tmp_path: Path) -> None:
        root = write_files(tmp_path, self.FILES)
        for environments in (["development"], ["production"], ["development", "production"]):
            assert told(run(root, *environments)) == [], environments

    def test_a_comment_that_none_needs_is_told_when_all_are_checked(self, tmp_path: Path) -> None:
        root = write_files(tmp_path, {**self.FILES, "environments/base.yaml": "default_parameters: {day: today}\n"})
        assert told(run(root, "development")) == []
        assert told(run(root, "development", "production")) == [("IGN001", "prefect.yaml:4")]

    def test_a_fault_of_both_is_told_once(self, tmp_path: Path) -> None:
        root = write_files(tmp_path, {**self.FILES, "flows/etl.py": "from prefect import flow\n@flow(\n"})
        result = run(root, "development", "production")
        assert [fault.code for fault in result.errors] == ["FLW001", "DPL001"]

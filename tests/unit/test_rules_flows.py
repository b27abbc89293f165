"""Rules about flows: FLW007 to FLW009, and where all of them point."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow, flow
from prefect.types.names import BANNED_CHARACTERS

from orchestrator.model import ValidationError
from orchestrator.rules import RULES
from orchestrator.rules.flows import BANNED, OPTIONS
from tests.unit.checking import all_faults, faults_of, marked

HEAD = "from prefect import flow\n\n"


def in_file(root: Path, source: str, code: str) -> tuple[ValidationError, ...]:
    """The faults of a flow file whose source begins at line 3."""
    return faults_of(root, {"flows/etl.py": HEAD + source}, code)


class TestDefaults:
    @pytest.mark.parametrize(
        ("parameter", "reason"),
        [
            ("size: int = 'big'", "unable to parse string as an integer"),
            ("size: int = None", "should be a valid integer"),
            ("size: int = 1.5", "fractional part"),
            ("size: str = 5", "should be a valid string"),
            ("size: bool = 2", "should be a valid boolean"),
            ("size: list[int] = ('a',)", "should be a valid integer"),
            ("size: dict = []", "should be a valid dictionary"),
            ("size: 'int' = 'big'", "unable to parse string as an integer"),
        ],
    )
    def test_flw007(self, tmp_path: Path, parameter: str, reason: str) -> None:
        (fault,) = in_file(tmp_path, f"@flow\ndef etl(\n    day: str,\n    *,\n    {parameter},\n): ...\n", "FLW007")
        assert (fault.location, fault.severity) == ("flows/etl.py:7", "warning")
        assert marked(tmp_path, fault) == "size"
        assert reason in fault.message

    def test_flw007_none_has_its_own_remedy(self, tmp_path: Path) -> None:
        (fault,) = in_file(tmp_path, "@flow\ndef etl(x: int = None): ...", "FLW007")
        assert "Write `x: int | None = None`" in fault.remediation

    @pytest.mark.parametrize(
        "parameter",
        [
            *("x: int = 5", "x: float = 5", "x: int = '5'", "x: int = 5.0", "x: bool = 1", "x: int | None = None"),
            *("x: list[int] = ()", "x: tuple = []", "x: Any = None", "x: object = 5", "x: Model = None", "x=None"),
            *("x: int = Field(default=None)", "x: int = DEFAULT", "x: int = ...", "x: int = -5", "x: set = set()"),
            *("x: date = '2024-01-01'", "x: date = 'soon'", "x: Literal['a'] = 'b'", "*x: int", "**x: int"),
            *("x: Optional[Model] = 5", "x: 'int | Model' = 'big'", "x: conint(gt=1) = 0"),
        ],
    )
    def test_flw007_what_fits_or_cannot_be_known(self, tmp_path: Path, parameter: str) -> None:
        """`date` and `Literal` are not imported: nobody knows what they are."""
        assert in_file(tmp_path, f"@flow\ndef etl({parameter}): ...", "FLW007") == ()

    def test_flw007_imports_are_read(self, tmp_path: Path) -> None:
        head = "import datetime as dt\nimport typing as t\nfrom typing import Literal\n\n"
        source = head + "@flow\ndef etl(x: dt.date = 'soon', y: Literal['a'] = 'b', z: t.Optional[int] = 'c'): ..."
        assert len(in_file(tmp_path, source, "FLW007")) == 3

    @pytest.mark.parametrize("option", ["validate_parameters=False", "**OPTIONS"])
    def test_flw007_where_prefect_does_not_validate(self, tmp_path: Path, option: str) -> None:
        assert in_file(tmp_path, f"@flow({option})\ndef etl(x: int = None): ...", "FLW007") == ()

    def test_flw007_a_class_that_is_called_int(self, tmp_path: Path) -> None:
        assert in_file(tmp_path, "class int: ...\n\n@flow\ndef etl(x: int = 'big'): ...", "FLW007") == ()

    def test_flw007_huge_defaults_and_annotations(self, tmp_path: Path) -> None:
        for text in ("'" + "x" * 100_000 + "'", "[" * 90 + "]" * 90, "9" * 4000, "1+" * 500 + "1"):
            found = in_file(tmp_path, f"@flow\ndef etl(x: int = {text}, y: {text} = 5): ...", "FLW007")
            assert all("xxxx" not in fault.message for fault in found), text[:20]


class TestOptions:
    def test_the_list_is_prefects(self) -> None:
        ours = set(OPTIONS)
        decorator = {name for name in inspect.signature(flow).parameters if "__fn" not in name}
        assert ours == decorator
        assert ours == set(inspect.signature(Flow.with_options).parameters) - {"self"}
        assert ours == set(inspect.signature(Flow.__init__).parameters) - {"self", "fn"}

    @pytest.mark.parametrize(
        ("source", "line"),
        [
            ("@flow(retrys=3)\ndef etl(): ...", 3),
            ("@flow(\n    name='x',\n    retrys=3,\n)\ndef etl(): ...", 5),
            ("def work(): ...\n\n\netl = flow(retrys=3)(work)", 6),
            ("@flow\ndef work(): ...\n\n\nwork = work.with_options(retrys=3)", 7),
        ],
    )
    def test_flw008(self, tmp_path: Path, source: str, line: int) -> None:
        (fault,) = in_file(tmp_path, source, "FLW008")
        assert (fault.line_number, fault.severity, fault.skips) == (line, "error", True)
        assert fault.flows in (("flows/etl.py:etl",), ("flows/etl.py:work",))
        assert "Did you mean retries" in fault.remediation
        assert marked(tmp_path, fault) == "retrys"

    @pytest.mark.parametrize("option", ["retries=3", "**OPTIONS", "name='x', log_prints=True", "on_failure=[print]"])
    def test_flw008_known_ones(self, tmp_path: Path, option: str) -> None:
        assert in_file(tmp_path, f"@flow({option})\ndef etl(): ...", "FLW008") == ()

    def test_flw008_takes_out_that_flow_only(self, tmp_path: Path) -> None:
        found = all_faults(
            tmp_path, {"flows/a.py": HEAD + "@flow(x=1)\ndef a(): ...", "flows/b.py": HEAD + "@flow\ndef b(): ..."}
        )
        assert [(fault.code, fault.flows) for fault in found if fault.severity == "error"] == [
            ("FLW008", ("flows/a.py:a",))
        ]


SHARED = """
    from prefect import flow

    def ours(**options):
        return flow(
            %s,
        )
"""
"""A decorator that flows share: the argument is on line 5."""


def users(argument: str, comment: str = "") -> dict[str, str]:
    """Two flows in two files with a decorator that gives an argument."""
    user = "from lib.decorators import ours\n\n@ours()\ndef %s(): ...\n"
    return {
        "lib/decorators.py": SHARED % argument + comment,
        "flows/a.py": user % "a",
        "flows/b.py": user % "b",
    }


class TestSharedDecorators:
    """A fault is where it is written, once, however many flows it concerns."""

    FLOWS = ("flows/a.py:a", "flows/b.py:b")

    def test_flw008(self, tmp_path: Path) -> None:
        (fault,) = faults_of(tmp_path, users("retrys=3"), "FLW008")
        assert (fault.location, fault.flows, fault.skips) == ("lib/decorators.py:5", self.FLOWS, True)
        assert "flows/a.py:a and 1 more cannot be imported" in fault.message
        assert marked(tmp_path, fault) == "retrys"

    def test_a_comment_there_silences_it(self, tmp_path: Path) -> None:
        files = users("retrys=3,  # orchestrator: ignore[FLW008]\n            name=None")
        assert [fault.code for fault in all_faults(tmp_path, files) if fault.code != "CFG007"] == []

    def test_flw009(self, tmp_path: Path) -> None:
        files = {**users("name='a/b'"), "flows/b.py": ""}
        (fault,) = faults_of(tmp_path, files, "FLW009")
        assert (fault.location, fault.flows, marked(tmp_path, fault)) == ("lib/decorators.py:5", self.FLOWS[:1], "a/b")

    def test_flw004(self, tmp_path: Path) -> None:
        (fault,) = faults_of(tmp_path, users("name=input()"), "FLW004")
        assert (fault.location, marked(tmp_path, fault)) == ("lib/decorators.py:5", "name")
        assert "flows/a.py:a and 1 more" in fault.message


class TestBrokenFiles:
    """What breaks a file breaks the flows that need it."""

    BROKEN = "from prefect import flow\n\ndef connect(:\n"

    @staticmethod
    def needing(*names: str, what: str = "lib.db") -> dict[str, str]:
        return {f"flows/{name}.py": f"import {what}\n{HEAD}@flow\ndef {name}(): ...\n" for name in names}

    def test_flw001_names_who_needs_it(self, tmp_path: Path) -> None:
        (fault,) = faults_of(tmp_path, {"lib/db.py": self.BROKEN, **self.needing(*"abcd")}, "FLW001")
        assert fault.flows == tuple(f"flows/{name}.py:{name}" for name in "abcd")
        assert fault.remediation == (
            "Correct the syntax. 4 flows need it and are left as they are until then: "
            "flows/a.py:a, flows/b.py:b, flows/c.py:c, …"
        )

    def test_flw001_of_a_file_that_nobody_else_needs(self, tmp_path: Path) -> None:
        (fault,) = faults_of(tmp_path, {"flows/a.py": self.BROKEN, **self.needing("b", what="os")}, "FLW001")
        assert (fault.flows, "need it" in fault.remediation) == ((), False)

    def test_flw002_too(self, tmp_path: Path) -> None:
        (tmp_path / "lib").mkdir()
        (tmp_path / "lib/db.py").write_bytes("x = 'ö'".encode("latin-1"))
        (fault,) = faults_of(tmp_path, self.needing("a"), "FLW002")
        assert fault.flows == ("flows/a.py:a",)
        assert "One flow needs it and is left as it is until then: flows/a.py:a." in fault.remediation

    def test_flw004_is_not_told_about_names_that_a_broken_file_holds(self, tmp_path: Path) -> None:
        source = f"from lib.config import NAME\n{HEAD}@flow(name=NAME)\ndef etl(): ...\n"
        found = all_faults(tmp_path, {"flows/etl.py": source, "lib/config.py": "NAME = (\n"})
        assert {fault.code for fault in found} & {"FLW001", "FLW004"} == {"FLW001"}

    @pytest.mark.parametrize(
        ("source", "code", "part"),
        [
            ("@flwo\ndef etl(): ...", "FLW012", "flwo"),
            ("@flow('daily')\ndef etl(): ...", "FLW013", "'daily'"),
            ("from prefect import flwo as fl\n\n@fl\ndef etl(): ...", "FLW012", "flwo"),
        ],
    )
    def test_what_fails_on_import(self, tmp_path: Path, source: str, code: str, part: str) -> None:
        files = {"flows/etl.py": f"{HEAD}{source}\n\n@flow\ndef other(): ...\n", **self.needing("a", what="flows.etl")}
        (fault,) = faults_of(tmp_path, files, code)
        assert (fault.file_path, fault.severity, fault.skips) == ("flows/etl.py", "error", True)
        assert marked(tmp_path, fault) == part
        assert set(fault.flows) == {"flows/etl.py:other", "flows/a.py:a"}

    def test_what_fails_in_a_function_of_another_file(self, tmp_path: Path) -> None:
        files = {
            "lib.py": "def make(name): return flow(name=name)(len)\n",
            "flows/etl.py": f"{HEAD}from lib import make\nmade = make('made')\n\n@flow\ndef other(): ...\n",
            "flows/b.py": f"{HEAD}from lib import make\n\n@flow\ndef b(): ...\n",
        }
        (fault,) = faults_of(tmp_path, files, "FLW012")
        assert fault.message.startswith("In lib.py:1, which is called here, the name flow is not defined: ")
        assert (fault.location, fault.flows) == ("flows/etl.py:4", ("flows/etl.py:other",))

    def test_flw015(self, tmp_path: Path) -> None:
        files = {
            "flows/etl.py": f"{HEAD}raise OSError\n\n@flow\ndef other(): ...\n",
            **self.needing("a", what="flows.etl"),
        }
        (fault,) = faults_of(tmp_path, files, "FLW015")
        assert (fault.location, fault.severity, fault.skips) == ("flows/etl.py:3", "error", True)
        assert marked(tmp_path, fault) == "raise OSError"
        assert fault.flows == ("flows/a.py:a",)

    def test_a_deployment_of_such_a_file_is_left_out_alone(self, tmp_path: Path) -> None:
        files = {
            "flows/etl.py": f"{HEAD}@flwo\ndef etl(): ...\n",
            "prefect.yaml": "deployments:\n  - name: daily\n    entrypoint: flows/etl.py:etl\n",
        }
        (fault,) = faults_of(tmp_path, files, "DPL001")
        assert (fault.skips, "FLW012 at flows/etl.py:3" in fault.message) == (True, True)


class TestMethods:
    def test_flw014(self, tmp_path: Path) -> None:
        source = "class Sync:\n    @flow\n    def pull(self, since='monday'): ...\n"
        (fault,) = in_file(tmp_path, source, "FLW014")
        assert (fault.location, fault.severity, fault.skips) == ("flows/etl.py:5", "warning", False)
        assert marked(tmp_path, fault) == "pull"

    @pytest.mark.parametrize("above", ["@staticmethod", "@classmethod"])
    def test_flw014_what_needs_no_instance(self, tmp_path: Path, above: str) -> None:
        source = f"class Sync:\n    {above}\n    @flow\n    def pull(since='monday'): ...\n"
        assert in_file(tmp_path, source, "FLW014") == ()


class TestMutableDefaults:
    @pytest.mark.parametrize(
        ("source", "text", "line"),
        [
            ("@flow\ndef etl(a=[]): ...", "Runs in one process share it", 4),
            ("@flow\ndef etl(ä, *, a: list[str] = []): ...", "Runs get a copy of it, but calls of `.fn` share it", 4),
            ("@flow(validate_parameters=False)\ndef etl(a: list = []): ...", "Runs in one process share it", 4),
            ("@flow\ndef etl(\n    b,\n    a: list = (\n        []\n    ),\n): ...", "Runs get a copy", 7),
        ],
    )
    def test_flw006(self, tmp_path: Path, source: str, text: str, line: int) -> None:
        (fault,) = in_file(tmp_path, source, "FLW006")
        assert (fault.line_number, marked(tmp_path, fault)) == (line, "[]")
        assert text in fault.message

    @pytest.mark.parametrize(("annotation", "shared"), [("", True), (": list", False), (": list[str]", False)])
    def test_flw006_is_true(self, annotation: str, shared: bool) -> None:
        names: dict[str, Any] = {"flow": flow}
        exec(f"def etl(a{annotation} = []):\n    a.append('x')\n    return len(a)\n", names)
        etl = names["etl"]
        parameters = Flow(etl).validate_parameters({"a": etl.__defaults__[0]})
        assert (parameters["a"] is etl.__defaults__[0]) is shared


class TestNames:
    def test_the_characters_are_prefects(self) -> None:
        assert sorted(BANNED) == sorted(BANNED_CHARACTERS)

    @pytest.mark.parametrize("character", BANNED)
    def test_flw009(self, tmp_path: Path, character: str) -> None:
        (fault,) = in_file(tmp_path, f"@flow(\n    name='a{character}b',\n)\ndef etl(): ...", "FLW009")
        assert (fault.location, fault.skips, fault.flows) == ("flows/etl.py:4", True, ("flows/etl.py:etl",))
        assert repr(character) in fault.message
        assert marked(tmp_path, fault) == f"a{character}b"

    @pytest.mark.parametrize("name", ["a b", "ä", "a.b", "", " ", "a\\\\b", "x" * 1000, "a\\nb", "a:b", "[a]"])
    def test_flw009_what_prefect_takes(self, tmp_path: Path, name: str) -> None:
        flow(lambda: None, name=name)  # Prefect's own opinion: raises for a name that it refuses
        assert in_file(tmp_path, f'@flow(name="{name}")\ndef etl(): ...', "FLW009") == ()

    def test_flw009_a_name_that_cannot_be_known(self, tmp_path: Path) -> None:
        assert in_file(tmp_path, "@flow(name=input() + '/')\ndef etl(): ...", "FLW009") == ()

    def test_flw003_marks_the_function(self, tmp_path: Path) -> None:
        (fault,) = in_file(tmp_path, "@flow(name='x')\ndef a(): ...\n\n@flow(name='x')\ndef b(): ...", "FLW003")
        assert (fault.line_number, marked(tmp_path, fault)) == (7, "b")


class TestExamples:
    CODES = tuple(f"FLW{number:03}" for number in (1, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14))

    @pytest.mark.parametrize("code", CODES)
    def test_the_example_has_its_fault_and_the_better_one_has_not(self, tmp_path: Path, code: str) -> None:
        rule = next(rule for rule in RULES if rule.code == code)
        assert code in codes(tmp_path, rule.example)
        assert codes(tmp_path, rule.better) == set()

    def test_an_encoding(self, tmp_path: Path) -> None:
        rule = next(rule for rule in RULES if rule.code == "FLW002")
        for text, expected in ((rule.example, {"FLW002"}), (rule.better, set())):
            lines = re.sub("# saved.*\n", "", text)
            head, _, rest = lines.partition("\n") if lines.startswith("# -*-") else ("", "", lines)
            (tmp_path / "flows").mkdir(exist_ok=True)
            (tmp_path / "flows/a.py").write_bytes(f"{head}\nfrom prefect import flow\n{rest}".encode("latin-1"))
            assert {fault.code for fault in all_faults(tmp_path, {}) if fault.code.startswith("FLW")} == expected


def codes(root: Path, source: str) -> set[str]:
    found = all_faults(root, {"flows/etl.py": f"import os\n{HEAD}{source}"})
    return {fault.code for fault in found if fault.code.startswith("FLW")}

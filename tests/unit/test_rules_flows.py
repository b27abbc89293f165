"""Rules about flows: FLW007 to FLW009, and where all of them point."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

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
            in_file(tmp_path, f"@flow\ndef etl(x: int = {text}, y: {text} = 5): ...", "FLW007")


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
        assert fault.flow in ("flows/etl.py:etl", "flows/etl.py:work")
        assert "Did you mean retries" in fault.remediation
        assert marked(tmp_path, fault) == "retrys"

    @pytest.mark.parametrize("option", ["retries=3", "**OPTIONS", "name='x', log_prints=True", "on_failure=[print]"])
    def test_flw008_known_ones(self, tmp_path: Path, option: str) -> None:
        assert in_file(tmp_path, f"@flow({option})\ndef etl(): ...", "FLW008") == ()

    def test_flw008_takes_out_that_flow_only(self, tmp_path: Path) -> None:
        found = all_faults(
            tmp_path, {"flows/a.py": HEAD + "@flow(x=1)\ndef a(): ...", "flows/b.py": HEAD + "@flow\ndef b(): ..."}
        )
        assert [(fault.code, fault.flow) for fault in found if fault.severity == "error"] == [
            ("FLW008", "flows/a.py:a")
        ]


class TestNames:
    def test_the_characters_are_prefects(self) -> None:
        assert sorted(BANNED) == sorted(BANNED_CHARACTERS)

    @pytest.mark.parametrize("character", BANNED)
    def test_flw009(self, tmp_path: Path, character: str) -> None:
        (fault,) = in_file(tmp_path, f"@flow(\n    name='a{character}b',\n)\ndef etl(): ...", "FLW009")
        assert (fault.location, fault.skips, fault.flow) == ("flows/etl.py:4", True, "flows/etl.py:etl")
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
    CODES = ("FLW001", "FLW003", "FLW004", "FLW005", "FLW006", "FLW007", "FLW008", "FLW009")

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

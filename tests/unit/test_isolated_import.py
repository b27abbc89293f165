"""What importing says about flows that reading has found: FLW010 and FLW011."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.discovery import discover
from orchestrator.isolated_import import import_problems
from orchestrator.model import ValidationError
from orchestrator.rules import RULES, Facts
from orchestrator.validation import validate
from tests.unit.builders import flow, write_files

SOUND = "from prefect import flow\n@flow\ndef f(): open('executed', 'w')\n"
PASSWORD = "hunter2-hunter2"
FILES = {
    "lib/__init__.py": "",
    "lib/database.py": "def connect():\n    raise ConnectionError('no route\\nto host')\n",
    "src/shop/__init__.py": "",
    "flows/beside.py": "VALUE = 1",
    "flows/a_sound.py": "import beside, lib\nfrom . import beside\n" + SOUND,
    "flows/b_connects.py": SOUND + "from lib.database import connect\n\nconnect()\n",
    "flows/c_third_party.py": SOUND + "import not_installed_anywhere.deep\n",
    "flows/d_own_missing.py": SOUND + "import lib.nothing\n",
    "flows/e_own_in_src.py": SOUND + "from shop import prices\n",
    "flows/f_other_system.py": SOUND + "import winreg\n",
    "flows/g_password.py": SOUND + f"raise ValueError('cannot use postgresql://admin:{PASSWORD}@db/shop.')\n",
    "flows/h_in_function.py": SOUND + "def check():\n    return {}['key']\n\ncheck()\n",
    "flows/i_renamed.py": SOUND + "f.name = 'other'\n",
    "flows/j_replaced.py": SOUND + "globals().update(f=5)\n",
    "flows/k_removed.py": SOUND + "globals().pop('f')\n",
    "flows/l_dynamic.py": "import os\n" + SOUND.replace("@flow", "@flow(name=os.sep.join('ab').replace('/', '-'))"),
    "flows/m_method.py": "from prefect import flow\nclass Jobs:\n  @flow\n  @staticmethod\n  def f(): ...\n",
    "flows/n_empty_text.py": SOUND + "raise ValueError\n",
    "flows/o_long_text.py": SOUND + "raise ValueError('x' * 100_000)\n",
    "slow/a_hangs.py": SOUND + "while True: pass\n",
    "slow/b_exits.py": SOUND + "@flow\ndef g(): ...\nimport os\nos._exit(3)\n",
    "slow/c_broken.py": SOUND + "import broken\n",
    "slow/broken.py": "def (",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("repository"), FILES)


@pytest.fixture(scope="module")
def problems(root: Path) -> Iterator[tuple[ValidationError, ...]]:
    flows = [replace(each, validation_errors=()) for each in discover(root, ["flows", "slow"]).flows]
    yield import_problems(root, flows, seconds=8)
    assert not (root / "executed").exists(), "a flow was run"


def of(problems: tuple[ValidationError, ...], path: str) -> ValidationError:
    """The one problem of the flow in a file."""
    (found,) = [each for each in problems if path in (",".join(each.flows) or each.file_path or "")]
    return found


class TestImportFails:
    @pytest.mark.parametrize(
        ("path", "location", "reason"),
        [
            ("flows/b_connects.py", "lib/database.py:2", "ConnectionError: no route"),
            ("flows/c_third_party.py", "flows/c_third_party.py:4", "No module named 'not_installed_anywhere'"),
            ("flows/d_own_missing.py", "flows/d_own_missing.py:4", "No module named 'lib.nothing'"),
            ("flows/h_in_function.py", "flows/h_in_function.py:5", "KeyError: 'key'"),
            ("flows/n_empty_text.py", "flows/n_empty_text.py:4", "imported: ValueError."),
            ("slow/a_hangs.py", "slow/a_hangs.py:3", "it takes longer than 8 s"),
            ("slow/c_broken.py", "slow/broken.py:1", "SyntaxError: invalid syntax"),
        ],
    )
    def test_is_told_with_place_and_reason(
        self, problems: tuple[ValidationError, ...], path: str, location: str, reason: str
    ) -> None:
        found = of(problems, path)
        assert (found.code, found.severity, found.skips, found.flows) == ("FLW010", "error", True, (f"{path}:f",))
        assert found.location == location
        assert reason in found.message
        assert "\n" not in found.message

    def test_each_flow_of_a_file_that_ends_the_process_is_skipped(self, problems: tuple[ValidationError, ...]) -> None:
        found = [each for each in problems if each.file_path == "slow/b_exits.py"]
        assert [(each.flows, each.line_number) for each in found] == [
            (("slow/b_exits.py:f",), 3),
            (("slow/b_exits.py:g",), 5),
        ]
        assert all("it ends the process with exit code 3" in each.message for each in found)

    def test_one_cause_at_one_place_is_told_once(self, tmp_path: Path) -> None:
        files = {name: FILES[name] for name in ("lib/__init__.py", "lib/database.py", "flows/b_connects.py")}
        write_files(tmp_path, {**files, "flows/z.py": FILES["flows/b_connects.py"], "flows/a.py": SOUND})
        (found,) = import_problems(tmp_path, discover(tmp_path, ["flows"]).flows, seconds=60)
        assert (found.location, found.flows) == ("lib/database.py:2", ("flows/b_connects.py:f", "flows/z.py:f"))
        assert found.message.startswith("The flows flows/b_connects.py:f and 1 more cannot be imported: ")

    @pytest.mark.parametrize(
        ("path", "remedy"),
        [
            ("flows/c_third_party.py", "not_installed_anywhere is not installed here: install it beside the orchestr"),
            ("flows/d_own_missing.py", "lib is in the repository, but there is no lib.nothing"),
            ("flows/e_own_in_src.py", "put src on PYTHONPATH"),
            ("flows/f_other_system.py", "has no winreg here"),
            ("flows/h_in_function.py", "belongs into the flow"),
            ("slow/a_hangs.py", "Move what waits"),
            ("slow/b_exits.py:f", "Move what ends the process"),
        ],
    )
    def test_has_a_remedy_that_fits(self, problems: tuple[ValidationError, ...], path: str, remedy: str) -> None:
        assert remedy in of(problems, path).remediation

    def test_passwords_are_not_shown(self, problems: tuple[ValidationError, ...]) -> None:
        assert "postgresql://admin:********@db/shop" in of(problems, "g_password").message
        assert PASSWORD not in repr(problems)

    def test_long_texts_are_cut(self, problems: tuple[ValidationError, ...]) -> None:
        assert len(of(problems, "o_long_text").message) < 500

    def test_a_flow_whose_file_is_gone_is_told(self, tmp_path: Path) -> None:
        (found,) = import_problems(tmp_path, [flow()], seconds=60)
        assert (found.code, found.location) == ("FLW010", "flows/etl.py:4")


class TestOtherFlow:
    @pytest.mark.parametrize(
        ("path", "difference"),
        [
            ("flows/i_renamed.py", "the flow there is called 'other', not 'f'"),
            ("flows/j_replaced.py", "there is no flow but int"),
            ("flows/k_removed.py", "there is no flow but nothing"),
        ],
    )
    def test_is_told(self, problems: tuple[ValidationError, ...], path: str, difference: str) -> None:
        found = of(problems, path)
        assert (found.code, found.severity, found.location) == ("FLW011", "warning", f"{path}:3")
        assert difference in found.message
        assert found.remediation


class TestNothingToTell:
    @pytest.mark.parametrize("path", ["a_sound", "l_dynamic", "m_method"])
    def test_about_sound_flows(self, problems: tuple[ValidationError, ...], path: str) -> None:
        assert [each for each in problems if path in f"{each.flows}{each.file_path}"] == []

    def test_about_flows_that_reading_found_faults_with(self, tmp_path: Path) -> None:
        assert import_problems(tmp_path, [flow(validation_errors=("flows/etl.py:1: broken",))]) == ()

    def test_without_flows(self, tmp_path: Path) -> None:
        assert import_problems(tmp_path, []) == ()


class TestAsRules:
    def test_validation_passes_them_on(self, root: Path, problems: tuple[ValidationError, ...]) -> None:
        result = validate(Facts(problems=problems))
        told = [*result.errors, *result.warnings]
        assert sorted(map(place, told)) == sorted(map(place, problems))
        assert result.stopping == ()

    @pytest.mark.parametrize("code", ["FLW010", "FLW011"])
    def test_the_examples_are_what_they_say(self, tmp_path: Path, code: str) -> None:
        (rule,) = [each for each in RULES if each.code == code]
        write_files(tmp_path, {"bad/etl.py": rule.example, "good/etl.py": rule.better})
        flows = discover(tmp_path, ["."]).flows
        assert len(flows) == 2
        found = import_problems(tmp_path, flows, seconds=60)
        assert [(each.code, each.file_path) for each in found] == [(code, "bad/etl.py")]


def place(problem: ValidationError) -> tuple[str, str, str]:
    return problem.code, problem.location, problem.message

"""The rules about imports and requirements, each provoked by a repository that has the fault, and by near misses."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from orchestrator.discovery import discover
from orchestrator.model import FlowMetadata, OutsideImport, ValidationError
from orchestrator.repository import Repository
from orchestrator.requirements import normalised
from orchestrator.rules.dependencies import PREFECT_BRINGS, RULES, _fits
from orchestrator.rules.rule import Facts, Rule
from orchestrator.validation import facts_of, validate
from tests.unit.builders import flow, write_files

REPOSITORY = Path(__file__).parents[1] / "repos" / "requirements"
BY_CODE = {rule.code: rule for rule in RULES}


def outside(text: str, *, line: int = 1, file: str = "flows/etl.py", **fields: bool) -> OutsideImport:
    return OutsideImport(module=text, file_path=file, line_number=line, **fields)


def faults(
    code: str,
    root: Path,
    *imports: OutsideImport,
    flows: Sequence[FlowMetadata] = (),
    installed: frozenset[str] | None = None,
) -> list[ValidationError]:
    """What one rule finds; without flows given there is one, in flows/etl.py."""
    flows = flows or [flow(closure=tuple(dict.fromkeys(["flows/etl.py", *(each.file_path for each in imports)])))]
    facts = Facts(repository=Repository(root), flows=flows, outside_imports=imports, installed=installed)
    found = list(BY_CODE[code].apply(facts))
    assert all(fault.code == code and fault.remediation for fault in found)
    return found


def places(found: Sequence[ValidationError]) -> list[str]:
    return [fault.location for fault in found]


def marked(root: Path, fault: ValidationError) -> str:
    """The text that the caret marks."""
    assert fault.file_path and fault.line_number and fault.column_number and fault.end_column_number
    line = (root / fault.file_path).read_text().splitlines()[fault.line_number - 1]
    return line[fault.column_number - 1 : fault.end_column_number - 1]


def requirements(tmp_path: Path, text: str, **others: str) -> Path:
    return write_files(tmp_path, {"requirements.txt": text, **others})


class TestUnreadFiles:
    """DEP004 also says what pip cannot read at all."""

    def latin(self, root: Path, text: str) -> Path:
        (root / "requirements.txt").write_bytes(text.encode("latin-1"))
        return root

    def test_not_utf8(self, tmp_path: Path) -> None:
        (found,) = faults("DEP004", self.latin(tmp_path, "pandas\n# schön\n"))
        assert (found.location, found.severity) == ("requirements.txt:2", "warning")
        assert "not UTF-8" in found.message
        assert faults("DEP001", tmp_path, outside("boto3")) == []

    @pytest.mark.parametrize("text", ["# -*- coding: latin-1 -*-\n# schön\n", "ÿþ"])
    def test_an_encoding_that_pip_understands(self, tmp_path: Path, text: str) -> None:
        assert faults("DEP004", self.latin(tmp_path, text)) == []

    @pytest.mark.parametrize("option", ["-r", "-c", "--requirement="])
    def test_an_included_file_that_is_not_there(self, tmp_path: Path, option: str) -> None:
        (found,) = faults("DEP004", requirements(tmp_path, f"pandas\n{option} reqs/base.txt\n"))
        assert found.location == "requirements.txt:2"
        assert marked(tmp_path, found) == "reqs/base.txt"

    @pytest.mark.parametrize("text", ["-r reqs/base.txt", "-r https://example.com/r.txt", "-r ${HOME}/r.txt"])
    def test_one_that_is_there_generated_or_elsewhere(self, tmp_path: Path, text: str) -> None:
        write_files(tmp_path, {".gitignore": "generated.txt", "reqs/base.txt": "polars"})
        assert faults("DEP004", requirements(tmp_path, f"{text}\n-r generated.txt")) == []


class TestUndeclaredImport:
    def test_not_declared(self, tmp_path: Path) -> None:
        requirements(tmp_path, "prefect", **{"flows/etl.py": "import os, pandas.io\n"})
        (found,) = faults("DEP001", tmp_path, outside("pandas.io"))
        assert (found.location, found.severity, found.skips) == ("flows/etl.py:1", "warning", False)
        assert "requirements.txt" in found.message
        assert "flows/etl.py:etl" in found.message
        assert found.remediation == "Add `pandas` to requirements.txt."
        assert marked(tmp_path, found) == "pandas.io"

    def test_the_distribution_is_named_where_it_differs(self, tmp_path: Path) -> None:
        requirements(tmp_path, "prefect", **{"flows/etl.py": "from google.cloud import storage\nimport cv2"})
        one, two = faults("DEP001", tmp_path, outside("google.cloud.storage"), outside("cv2", line=2))
        assert "`google-cloud-storage`" in one.remediation
        assert marked(tmp_path, one) == "google.cloud"
        assert "`opencv-python`" in two.remediation

    def test_a_folder_of_the_repository_has_that_name(self, tmp_path: Path) -> None:
        requirements(tmp_path, "prefect", **{"shared/tables.py": ""})
        (found,) = faults("DEP001", tmp_path, outside("shared.tabels"))
        assert found.remediation == "Did you mean shared.tables? Else: Add `shared` to requirements.txt."

    def test_no_distribution_is_made_up(self, tmp_path: Path) -> None:
        (found,) = faults("DEP001", requirements(tmp_path, "prefect"), outside("google.cloud"))
        assert found.remediation == "Add the distribution that provides it to requirements.txt."

    def test_nothing_is_declared_anywhere(self, tmp_path: Path) -> None:
        (found,) = faults("DEP001", tmp_path, outside("pandas"))
        assert "declares nothing to install" in found.message
        assert "Write a requirements.txt that holds `pandas`" in found.remediation

    def test_once_for_each_file_and_module(self, tmp_path: Path) -> None:
        imports = [outside("pandas"), outside("pandas.io", line=2), outside("pandas", file="shared/x.py")]
        assert places(faults("DEP001", tmp_path, *imports)) == ["flows/etl.py:1", "shared/x.py:1"]

    def test_declared_for_one_flow_only(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"requirements.txt": "pandas", "flows/b/requirements.txt": "polars"})
        one = flow("one", closure=("flows/one.py", "shared.py"))
        others = [flow(name, path=f"flows/b/{name}.py", closure=("shared.py",)) for name in ("two", "three")]
        (found,) = faults("DEP001", tmp_path, outside("pandas", file="shared.py"), flows=[one, *others])
        assert "flows/b/two.py:two and 1 more" in found.message
        assert "flows/b/requirements.txt" in found.message
        assert faults("DEP001", tmp_path, outside("pandas", file="shared.py"), flows=[one]) == []

    @pytest.mark.parametrize(
        "entry",
        [
            outside("os.path"),
            outside("tomllib"),
            outside("__main__"),
            outside("prefect.blocks"),
            outside("pydantic"),
            outside("httpx"),
            outside("yaml"),
            outside("pandas", is_optional=True),
            outside(".helpers", is_missing=True),
            outside("pandas", file="scripts/no_flow_needs_me.py"),
        ],
    )
    def test_no_fault(self, tmp_path: Path, entry: OutsideImport) -> None:
        assert faults("DEP001", tmp_path, entry, flows=[flow(closure=("flows/etl.py",))]) == []

    @pytest.mark.parametrize("text", ["pandas", "Pandas>=2; python_version < '3'", "-e git+https://x.y/private.git"])
    def test_declared_or_not_to_be_known(self, tmp_path: Path, text: str) -> None:
        assert faults("DEP001", requirements(tmp_path, text), outside("pandas")) == []

    def test_in_requirements_for_tests(self, tmp_path: Path) -> None:
        requirements(tmp_path, "prefect", **{"requirements-dev.txt": "pytest"})
        assert faults("DEP001", tmp_path, outside("pytest")) == []

    def test_installed_where_that_counts(self, tmp_path: Path) -> None:
        assert faults("DEP001", tmp_path, outside("pandas.io"), installed=frozenset({"pandas"})) == []
        assert len(faults("DEP001", tmp_path, outside("pandas.io"), installed=frozenset())) == 1

    @pytest.mark.parametrize(
        ("text", "count"),
        [
            ("FROM python:3.12\nRUN pip install \\\n  'pandas>=2'", 0),
            ("RUN conda install scikit-learn pandas", 0),
            ("RUN pip install polars\n# pandas", 1),
        ],
    )
    def test_installed_by_the_dockerfile_of_the_flow(self, tmp_path: Path, text: str, count: int) -> None:
        write_files(tmp_path, {"flows/Dockerfile": text})
        own = flow(closure=("flows/etl.py",), dockerfile_path="flows/Dockerfile")
        assert len(faults("DEP001", tmp_path, outside("pandas"), flows=[own])) == count

    @pytest.mark.parametrize("module", ["acme.x", "tool"])
    def test_in_a_folder_that_is_installed(self, tmp_path: Path, module: str) -> None:
        requirements(tmp_path, "-e ./lib", **{"lib/src/acme/x.py": "", "lib/tool.py": "", "lib/pyproject.toml": ""})
        assert faults("DEP001", tmp_path, outside(module)) == []
        assert len(faults("DEP001", tmp_path, outside("other"))) == 1

    def test_a_library_of_the_repository_declares_what_it_needs(self, tmp_path: Path) -> None:
        requirements(tmp_path, "acme-lib", **{"libs/acme/pyproject.toml": "[project]\ndependencies = ['boto3']"})
        imports = [outside(name, file="libs/acme/src/acme/x.py") for name in ("boto3", "pandas")]
        (found,) = faults("DEP001", tmp_path, *imports)
        assert "pandas" in found.message

    def test_what_prefect_brings_is_what_its_metadata_says(self) -> None:
        required = importlib.metadata.requires("prefect") or []
        always = {normalised(re.split(r"[^\w.-]", text)[0]) for text in required if ";" not in text}
        assert always | {"prefect"} >= PREFECT_BRINGS


class TestMissingModule:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return write_files(
            tmp_path,
            {
                "flows/etl.py": "from shared.cleanning import clean\nfrom .helper import x\n",
                "flows/helpers.py": "",
                "shared/cleaning.py": "",
                "shared/__init__.py": "",
            },
        )

    def test_all_flows_are_taken_out_by_one_fault(self, root: Path) -> None:
        flows = [flow(name, path="flows/etl.py", closure=("flows/etl.py",)) for name in ("a", "b")]
        found = faults("DEP002", root, outside("shared.cleanning", is_missing=True), flows=flows)
        assert places(found) == ["flows/etl.py:1"]
        assert found[0].flows == ("flows/etl.py:a", "flows/etl.py:b")
        assert (found[0].skips, found[0].severity) == (True, "error")
        assert "flows/etl.py:a and 1 more cannot be loaded" in found[0].message
        assert marked(root, found[0]) == "shared.cleanning"

    @pytest.mark.parametrize(
        ("module", "remedy"),
        [
            ("shared.cleanning", "Did you mean shared.cleaning?"),
            ("shred.cleaning", "Did you mean shared?"),
            (".helper", "Did you mean .helpers?"),
            ("flows.helper", "Did you mean flows.helpers?"),
            ("..shared.cleanin", "Did you mean ..shared.cleaning?"),
            ("shared.nothing_like_it", "Correct the name"),
            ("......beyond", "Correct the name"),
            (".", "Correct the name"),
        ],
    )
    def test_nearest_names(self, root: Path, module: str, remedy: str) -> None:
        (found,) = faults("DEP002", root, outside(module, is_missing=True))
        assert found.remediation.startswith(remedy)

    def test_no_fault(self, root: Path) -> None:
        imports = [
            outside("shared.local", is_missing=True, is_optional=True),
            outside("pandas"),
        ]
        assert faults("DEP002", root, *imports, flows=[flow(closure=("flows/etl.py",))]) == []


class TestContradictions:
    def test_two_places(self, tmp_path: Path) -> None:
        requirements(tmp_path, "numpy\npandas>=2\n-r more.txt", **{"more.txt": "# more\npandas<2\n"})
        flows = [flow("a"), flow("b")]
        found = faults("DEP003", tmp_path, flows=flows)
        assert places(found) == ["more.txt:2"]
        assert (found[0].skips, found[0].severity) == (True, "error")
        assert found[0].flows == ("flows/a.py:a", "flows/b.py:b")
        assert found[0].message.startswith("The requirements of flows/a.py:a and 1 more cannot be installed")
        assert (
            "no version of pandas fits `pandas>=2` (requirements.txt:2) and `pandas<2` (more.txt:2)" in found[0].message
        )
        assert marked(tmp_path, found[0]) == "pandas<2"

    def test_only_the_flows_that_they_govern(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"requirements.txt": "a", "flows/b/requirements.txt": "a<1\na>1"})
        (found,) = faults("DEP003", tmp_path, flows=[flow("x"), flow("y", path="flows/b/y.py")])
        assert found.flows == ("flows/b/y.py:y",)

    @pytest.mark.parametrize(
        "text",
        [
            "a>=2,<2",
            "a==1.0\na==1.1",
            "a==1.*\na>=2",
            "a~=1.4\na>=2",
            "a==1\na!=1",
            "a===1.0\na>1",
            "a>1\na<=1",
            "a>=1,!=1.0\na<=1",
            "A_b>=2\na.B<2",
            "a[x]>=2\na<2",
            "a<1 ; python_version > '3'\na>1 ; python_version > '3'",
            "a<1\na>1 ; python_version > '3'",
            "a<1\na>1\na>2",
            "a==1.0+cpu\na==1.0+gpu",
            "a>=1.0a1,<1.0\na>=1.0",
            "a>=2.0b1,<2.0\na",  # `<2.0` leaves out the pre-releases of 2.0
        ],
    )
    def test_contradictory(self, tmp_path: Path, text: str) -> None:
        (found,) = faults("DEP003", requirements(tmp_path, text))
        assert found.message.count("requirements.txt:") <= 2

    def test_three_that_only_together_leave_nothing(self, tmp_path: Path) -> None:
        requirements(tmp_path, "a>=1\na<=2\na!=1.*\nother\na!=2\na<2.0.dev0\na!=3")
        (found,) = faults("DEP003", tmp_path)
        assert [text in found.message for text in ("`a>=1`", "`a!=1.*`", "`a<2.0.dev0`")] == [True] * 3
        assert found.message.count("requirements.txt:") == 3

    @pytest.mark.parametrize(
        "text",
        [
            "a>=2\na<3",
            "a>=1\na<=1",
            "a>1\na<1.0.1",
            "a==1.0\na==1.0+cpu",
            "a~=1.4\na==1.9.*",
            "a>=1,!=1.5\na<2",
            "a\na",
            "a>1.0a1\na<1.0a3",
            "a>1.post1\na<1.post3",
            "a!=1\na==1.0.*",
            "a===1.0\na>=1",
            "a===strange\na>=1",
            "a>=2 ; python_version < '3.12'\na<2 ; python_version >= '3.11'",
            "a>=2 ; sys_platform == 'win32'\na<2 ; sys_platform != 'win32'",
            "a>=2\na<2 ; sys_platform == 'win32'",
            "a>=2\na<2 ; extra == 'x'",
            "a>=2\na @ https://x.y/a-1.0.zip",
            "a>=2\n./a-1.0.zip",
            "a=>2\na<1",
            f"a<1\na>{'9' * 5000}",
            "a>=2\na<2 ; python_version ~= 'what'",
        ],
    )
    def test_not_contradictory(self, tmp_path: Path, text: str) -> None:
        assert faults("DEP003", requirements(tmp_path, text)) == []

    def test_constraints_limit_what_is_required(self, tmp_path: Path) -> None:
        limits = {"limits.txt": "a<2\nb<1\nb>1\n"}
        assert faults("DEP003", requirements(tmp_path, "a\n-c limits.txt", **limits)) == []
        assert places(faults("DEP003", requirements(tmp_path, "b\n-c limits.txt", **limits))) == ["limits.txt:3"]
        assert places(faults("DEP003", requirements(tmp_path, "a>=2\n-c limits.txt", **limits))) == ["limits.txt:1"]

    def test_pyproject_and_requirements_of_one_folder(self, tmp_path: Path) -> None:
        requirements(tmp_path, "a<2", **{"pyproject.toml": '[project]\ndependencies = ["b",\n"a>=2"]\n'})
        (found,) = faults("DEP003", tmp_path)
        assert "`a>=2` (pyproject.toml:3) and `a<2` (requirements.txt:1)" in found.message

    def test_script_block_alone(self, tmp_path: Path) -> None:
        block = '# /// script\n# dependencies = [\n#   "a<1",\n#   "a>1",\n# ]\n# ///\n'
        requirements(tmp_path, "a==1", **{"flows/etl.py": block, "flows/x.py": ""})
        (found,) = faults("DEP003", tmp_path, flows=[flow(), flow("x")])
        assert (found.location, found.flows) == ("flows/etl.py:4", ("flows/etl.py:etl",))
        assert marked(tmp_path, found) == "a>1"

    def test_files_beside_are_for_other_occasions(self, tmp_path: Path) -> None:
        requirements(tmp_path, "a<2", **{"requirements-dev.txt": "a>=2", "requirements/test.txt": "a>=3"})
        assert faults("DEP003", tmp_path) == faults("DEP005", tmp_path) == []

    def test_hostile_lengths(self, tmp_path: Path) -> None:
        many = "\n".join(f"a!={number}" for number in range(5000))
        assert faults("DEP003", requirements(tmp_path, f"{many}\na<1\na>1")) == []


class TestGroups:
    def groups(self, tmp_path: Path, text: str) -> Path:
        return write_files(tmp_path, {"pyproject.toml": f'[project]\ndependencies = ["a>=2"]\n{text}'})

    def test_extra_against_the_rest(self, tmp_path: Path) -> None:
        self.groups(
            tmp_path, '[project.optional-dependencies]\ntest = ["a<2"]\n[dependency-groups]\ndev = ["b>1", "b<1"]'
        )
        one, two = faults("DEP005", tmp_path, flows=[flow("a"), flow("b")])
        assert (one.location, one.severity, one.skips) == ("pyproject.toml:4", "warning", False)
        assert "extra test" in one.message
        assert "group dev" in two.message
        assert faults("DEP003", tmp_path) == []

    def test_groups_are_not_combined(self, tmp_path: Path) -> None:
        self.groups(tmp_path, '[project.optional-dependencies]\nold = ["b<2"]\nnew = ["b>=2"]')
        assert faults("DEP005", tmp_path) == []

    def test_a_requirements_file_with_what_it_includes(self, tmp_path: Path) -> None:
        requirements(tmp_path, "a<2", **{"requirements-dev.txt": "-r requirements.txt\na>=2"})
        (found,) = faults("DEP005", tmp_path)
        assert found.message.startswith("requirements-dev.txt cannot be installed")
        assert (found.location, marked(tmp_path, found)) == ("requirements-dev.txt:2", "a>=2")

    def test_what_contradicts_without_the_group_is_told_once(self, tmp_path: Path) -> None:
        requirements(tmp_path, "a<2\na>2", **{"requirements-dev.txt": "-r requirements.txt\na>2"})
        assert len(faults("DEP003", tmp_path)) == 1
        assert faults("DEP005", tmp_path) == []


class TestMalformed:
    @pytest.mark.parametrize(
        ("line", "remedy"),
        [
            ("pandas=>2", "Did you mean `pandas>=2`?"),
            ("pandas =< 2", "Did you mean `pandas <= 2`?"),
            ("pandas=2", "Did you mean `pandas==2`?"),
            ("pandas>=1.*", "Write a name"),
            ("pandas 2", "Write a name"),
            ("<<<<<<< HEAD", "Write a name"),
            ("pandas[x", "Write a name"),
            ("pandas; python_version", "Write a name"),
            ("p" + "~" * 90, "Write a name"),
            ("(" * 500, "Write a name"),
            ("a;" + "(" * 1500 + "python_version>'3'" + ")" * 100, "Write a name"),
            (f"pandas=={'9' * 1900}.x y", "Write a name"),
        ],
    )
    def test_not_pep_508(self, tmp_path: Path, line: str, remedy: str) -> None:
        (found,) = faults("DEP004", requirements(tmp_path, f"numpy\n{line}"))
        assert (found.location, found.severity) == ("requirements.txt:2", "warning")
        assert found.remediation.startswith(remedy)
        assert marked(tmp_path, found) == line
        assert len(found.message) < 200

    @pytest.mark.parametrize(
        "line",
        [
            "pandas",
            "pandas >= 2, < 3 ; python_version > '3'",
            "pandas (>=2)",
            "pandas[a,b]~=2.0",
            "pandas @ https://x.y/z.zip",
            "pandas===strange",
            "./local",
            "git+https://x.y/z",
            "${PACKAGE}==1",
            "local.whl",
            "--pre",
            "-e .",
        ],
    )
    def test_fine(self, tmp_path: Path, line: str) -> None:
        assert faults("DEP004", requirements(tmp_path, line)) == []

    def test_tools_with_notations_of_their_own(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"pyproject.toml": '[tool.poetry.dependencies]\npython = "^3.11"\npandas = "^2"'})
        assert faults("DEP004", tmp_path) == []

    def test_in_toml_and_scripts_once_for_all_flows(self, tmp_path: Path) -> None:
        block = '# /// script\n# dependencies = ["a=>1"]\n# ///\n'
        write_files(tmp_path, {"pyproject.toml": '[dependency-groups]\ndev = [\n"b=>1"]', "flows/etl.py": block})
        found = faults("DEP004", tmp_path, flows=[flow(), flow("x"), flow("y")])
        assert sorted(places(found)) == ["flows/etl.py:2", "pyproject.toml:3"]

    @pytest.mark.parametrize(("before", "after"), [("", 0), ("p" * 60, 40), ("", 200)])
    def test_secrets_are_masked(self, tmp_path: Path, before: str, after: int) -> None:
        requirements(tmp_path, f"pandas @@ {before}https://user:hunter2{'x' * after}@x.y/z")
        (found,) = faults("DEP004", tmp_path)
        assert "hunter2" not in f"{found.message}{found.remediation}"


class TestTheTestRepository:
    """Every rule at once, on a repository as people have them, as discovery reads it."""

    @pytest.fixture(scope="class")
    def found(self) -> list[str]:
        facts = facts_of(REPOSITORY, discover(REPOSITORY, ["flows"]))
        assert len(facts.flows) == 3
        return [f"{fault.code} {fault.location}" for rule in RULES for fault in rule.apply(facts)]

    def test_sound_flow(self, found: list[str]) -> None:
        assert [each for each in found if "flows/declared.py" in each] == []

    def test_all_the_others(self, found: list[str]) -> None:
        assert found == [
            "DEP001 flows/script.py:16",
            "DEP001 shared/tables.py:2",
            "DEP002 flows/legacy/deep/old.py:11",
            "DEP003 flows/legacy/more.txt:1",
            "DEP004 flows/legacy/requirements.txt:2",
        ]


# ---------------------------------------------------------------------------------------------------------
# Versions
# ---------------------------------------------------------------------------------------------------------

NUMBERS = st.integers(0, 3)
RELEASES = st.lists(NUMBERS, min_size=1, max_size=3).map(lambda parts: ".".join(map(str, parts)))
PARTS = [
    RELEASES,
    st.just("") | st.builds("{}{}".format, st.sampled_from(["a", "b", "rc"]), NUMBERS),
    st.just("") | st.builds(".post{}".format, NUMBERS),
    st.just("") | st.builds(".dev{}".format, NUMBERS),
]
PUBLIC = st.builds("{}{}{}{}{}".format, st.sampled_from(["", "", "", "1!"]), *PARTS)
VERSIONS = PUBLIC | PUBLIC | st.builds("{}+{}".format, PUBLIC, st.sampled_from(["cpu", "1", "cpu.1"]))


@st.composite
def clauses(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from([">=", "<=", ">", "<", "==", "!=", "~=", "== .*", "!= .*", "==="]))
    if kind.endswith(".*"):
        return f"{kind[:2]}{draw(RELEASES)}.*"
    if kind == "~=":
        return f"~={draw(NUMBERS)}.{draw(RELEASES)}"
    return kind + draw(VERSIONS if kind in ("==", "!=", "===") else PUBLIC)


class TestVersions:
    @settings(max_examples=600)
    @given(VERSIONS, st.lists(clauses(), max_size=12))
    def test_what_one_version_fits_is_never_contradictory(self, version: str, drawn: list[str]) -> None:
        fitting = [clause for clause in drawn if SpecifierSet(clause).contains(version, prereleases=True)]
        assert _fits([SpecifierSet(clause) for clause in fitting])

    @pytest.mark.skipif(not hasattr(SpecifierSet, "is_unsatisfiable"), reason="packaging has it since 26.1")
    @settings(max_examples=600)
    @given(st.lists(clauses(), min_size=2, max_size=5))
    def test_agrees_with_the_interval_arithmetic_of_packaging(self, drawn: list[str]) -> None:
        """Ours works with the older ones too, which the same environment may need."""
        written = [clause.removeprefix("===") for clause in drawn if clause.startswith("===")]
        assume(all(str(Version(text)) == text for text in written))  # others are compared as text, see below
        together = SpecifierSet(",".join(drawn))
        assert _fits([together]) is not together.is_unsatisfiable()

    def test_text_that_is_compared_as_text_is_left_alone(self) -> None:
        assert _fits([SpecifierSet("===1.0-1"), SpecifierSet("<1")])


def test_the_rules_are_cheap_to_import() -> None:
    code = "import sys, orchestrator.rules.dependencies; print('packaging' in sys.modules)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert child.stdout.strip() == "False"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_examples_have_the_fault_and_its_absence(rule: Rule, tmp_path: Path) -> None:
    for name, text in (("example", rule.example), ("better", rule.better)):
        root = tmp_path / name
        parts = re.split(r"(?m)^# (\S+\.(?:py|txt|toml))(?: is there)?\n", text)
        files = dict(zip(parts[1::2], parts[2::2], strict=True))
        code = files.pop("shared/cleaning.py", "") if "shared/cleaning.py" in files else files.get("flows/etl.py", "")
        write_files(root, {**files, "flows/etl.py": code, "shared/cleaning.py": ""})
        imports = [
            outside(match[1], is_missing="cleanning" in match[1])
            for match in re.finditer(r"(?m)^(?:import|from) ([\w.]+)", code)
            if match[1] != "shared.cleaning"
        ]
        found = faults(rule.code, root, *imports)
        assert bool(found) is (name == "example")


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from(
            [
                "a",
                "B.c",
                "==",
                ">=",
                "<",
                "=",
                "1",
                ".*",
                ",",
                ";",
                " ",
                "\n",
                "python_version",
                "'",
                "[",
                "]",
                "(",
                ")",
                "@",
                "https://",
                "-r ",
                "-c ",
                "-e ",
                ".",
                "/",
                "#",
                "\\\n",
                "requirements.txt",
                "\0",
                "é",
            ]
        )
    )
)
def test_no_text_breaks_a_rule(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    text = "".join(parts)
    block = "".join(f"# {line}\n" for line in f"dependencies = [{text!r}]".splitlines())
    script = f"# /// script\n{block}# ///\n"
    root = write_files(tmp_path_factory.mktemp("hostile"), {"requirements.txt": text, "flows/etl.py": script})
    imports = [outside(text or ".", line=line, is_missing=line > 1) for line in (0, 1, 2, 9)]
    for code in BY_CODE:
        found = faults(code, root, *imports, flows=[flow(), flow("other")])
        assert {fault.code for fault in found} <= {code}


def test_dep002_of_a_file_whose_flows_hang_on_the_missing_name(tmp_path: Path) -> None:
    """The import would have made the flows: nobody knows them, so the whole file is left as it is."""
    files = {
        "lib/__init__.py": "",
        "lib/factories.py": "from prefect import flow\ndef make_flow(name): return flow(name=name)(print)\n",
        "flows/a.py": "from lib.factories import make_flwo\na = make_flwo('a')\n",
    }
    root = write_files(tmp_path, files)
    (fault,) = validate(facts_of(root, discover(root, ["flows"]))).errors
    assert (fault.code, fault.location, fault.skips, fault.flows) == ("DEP002", "flows/a.py:1", True, ())
    assert fault.remediation == "Did you mean make_flow?"

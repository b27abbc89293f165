"""What is declared to install: which declaration counts, how each is read, and which distribution an import means."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.distributions import (
    _DISTRIBUTIONS,
    declared_provider,
    distribution_of,
    installed_modules,
    is_shared_package,
)
from orchestrator.repository import Repository
from orchestrator.requirements import (
    Requirement,
    RequirementFiles,
    Requirements,
    normalised,
    pip_lines,
    script_requirements,
)
from tests.unit.builders import write_files

REPOSITORY = Path(__file__).parents[1] / "repos" / "requirements"

# The expression of PEP 723, word for word.
PEP_723 = r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$"


def read(root: Path, path: str = "flows/etl.py", source: str | None = None) -> Requirements:
    return RequirementFiles(Repository(root)).for_file(path, source)


def declared(*texts: str) -> Requirements:
    """Requirements as a requirements.txt would hold them."""
    entries = []
    for text in texts:
        name, _, extras = text.partition("[")
        entries.append(
            Requirement(
                name=normalised(name),
                text=text,
                file_path="requirements.txt",
                line_number=1,
                extras=tuple(extras.removesuffix("]").split(",")) if extras else (),
            )
        )
    return Requirements(entries=tuple(entries), files=("requirements.txt",))


def places(found: Requirements) -> list[tuple[str, str, str]]:
    return [(entry.name, entry.location, entry.group) for entry in found.entries]


class TestWhichDeclarationCounts:
    def test_nearest_folder_that_declares_something(self, tmp_path: Path) -> None:
        write_files(
            tmp_path,
            {
                "requirements.txt": "pandas",
                "flows/pyproject.toml": "[tool.ruff]\nline-length = 100",
                "flows/a/requirements.txt": "polars",
                "flows/b/deep/x.py": "",
            },
        )
        files = RequirementFiles(Repository(tmp_path))
        assert files.for_file("flows/a/x.py").names == {"polars"}
        assert files.for_file("flows/a/deep/er/x.py").names == {"polars"}
        assert files.for_file("flows/b/deep/x.py").names == {"pandas"}
        assert files.for_file("x.py").names == {"pandas"}

    def test_a_folder_is_read_once(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"requirements.txt": "pandas", "flows/deep/x.py": ""})
        files = RequirementFiles(Repository(tmp_path))
        assert files.for_file("flows/deep/x.py") is files.for_file("flows/y.py") is files.for_file("z.py")

    def test_nothing_declared(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"pyproject.toml": "[project]\nname = 'x'\n[tool.orchestrator]\nproject = 'x'"})
        found = read(tmp_path)
        assert (found.entries, found.files, found.is_complete) == ((), (), True)

    def test_all_of_one_folder_counts_together(self) -> None:
        found = read(REPOSITORY, "flows/declared.py")
        assert found.files == ("pyproject.toml", "requirements.txt", "libs/common/pyproject.toml", "constraints.txt")
        assert found.folders == ("libs/common",)
        assert found.is_complete
        assert places(found) == [
            ("prefect", "pyproject.toml:8", ""),
            ("pyyaml", "pyproject.toml:9", ""),
            ("google-cloud-storage", "pyproject.toml:10", ""),
            ("dbt-postgres", "pyproject.toml:11", ""),
            ("pytest", "pyproject.toml:15", "extra test"),
            ("", "requirements.txt:2", ""),
            ("boto3", "libs/common/pyproject.toml:4", ""),
            ("pandas", "requirements.txt:4", ""),
            ("pandas", "constraints.txt:1", ""),
        ]
        assert found.entries[-2].text == "pandas>=2,<3"
        assert found.entries[-1].is_constraint

    def test_script_block_stands_alone(self) -> None:
        source = (REPOSITORY / "flows/script.py").read_text()
        found = read(REPOSITORY, "flows/script.py", source)
        assert places(found) == [("prefect", "flows/script.py:4", ""), ("duckdb", "flows/script.py:5", "")]
        assert read(REPOSITORY, "flows/script.py").names >= {"pandas"}

    @pytest.mark.parametrize("name", ["setup.py", "Pipfile", "environment.yml", "requirements/base.txt"])
    def test_other_declarations_count_too(self, tmp_path: Path, name: str) -> None:
        write_files(tmp_path, {"requirements.txt": "pandas", f"flows/{name}": "polars"})
        found = read(tmp_path)
        assert found.files == (f"flows/{name}",)
        assert found.is_complete is name.endswith(".txt")

    def test_setup_py_beside_a_declaration_that_can_be_read_is_no_riddle(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"requirements.txt": "pandas", "setup.py": "from setuptools import setup; setup()"})
        assert read(tmp_path).is_complete


class TestScriptBlocks:
    def test_dependencies_with_their_lines(self) -> None:
        source = '#!/bin/env python\n# /// script\n# dependencies = ["a", "b>=1"]\n#\n# ///\nimport a\n'
        found = script_requirements("x.py", source)
        assert found is not None
        assert [(entry.text, entry.location) for entry in found.entries] == [("a", "x.py:3"), ("b>=1", "x.py:3")]
        assert script_requirements("x.py", source.replace("\n", "\r\n")) == found

    @pytest.mark.parametrize(
        "source",
        ["", "x = 1", "# /// script", "# /// script\n# ///", "#/// script\n# a\n# ///", "# /// scripts\n# a=1\n# ///"],
    )
    def test_no_block(self, source: str) -> None:
        assert script_requirements("x.py", source) is None

    @pytest.mark.parametrize(
        "source",
        [
            "# /// script\n# not toml\n# ///",
            "# /// script\n# a=1\n# ///\n\n# /// script\n# a=1\n# ///",
            f"# /// script\n# a={'[' * 5000}\n# ///",
            f"# /// script\n# a={'9' * 5000}\n# ///",
        ],
    )
    def test_what_the_pep_forbids_tells_nothing(self, source: str) -> None:
        found = script_requirements("x.py", source)
        assert found is not None
        assert (found.entries, found.is_complete) == ((), False)

    @pytest.mark.parametrize("value", ["1", "'pandas'", "[1, true]", "{a = 1}"])
    def test_values_of_another_type_declare_nothing(self, value: str) -> None:
        found = script_requirements("x.py", f"# /// script\n# dependencies = {value}\n# ///")
        assert found == Requirements(files=("x.py",))

    @given(
        st.lists(
            st.sampled_from(
                ["# /// script", "# /// other", "# ///", "#", "# a = 1", "#b", "", "x", "# dependencies = ['a']"]
            ),
            max_size=14,
        )
    )
    def test_finds_what_the_expression_of_the_pep_finds(self, lines: list[str]) -> None:
        source = "\n".join(lines)
        blocks = [match for match in re.finditer(PEP_723, source) if match["type"] == "script"]
        found = script_requirements("x.py", source)
        assert (found is not None) is bool(blocks)
        if found is not None and found.is_complete:
            assert len(blocks) == 1
            assert bool(found.entries) is ("# dependencies" in blocks[0]["content"])

    def test_hostile_blocks_take_no_longer_than_others(self) -> None:
        assert script_requirements("x.py", "# /// script\n" * 200_000) is None


class TestPip:
    def test_logical_lines(self) -> None:
        text = "a\\\n  ,b # c\n# d \\\ne\n\n  f  #g\nh#i\nj \\\n# k\nl \\"
        assert list(pip_lines(text)) == [(1, "a  ,b"), (4, "e"), (6, "f"), (7, "h#i"), (8, "j"), (10, "l")]

    @pytest.mark.parametrize(
        ("line", "name", "text"),
        [
            ("Foo_Bar.baz", "foo-bar-baz", "Foo_Bar.baz"),
            ("pandas >= 2 ; python_version<'4' --hash=sha256:1", "pandas", "pandas >= 2 ; python_version<'4'"),
            ("dask[ DataFrame, array ]>=1", "dask", "dask[ DataFrame, array ]>=1"),
            ("pkg @ https://x.y/pkg.zip", "pkg", "pkg @ https://x.y/pkg.zip"),
            ("pkg@git+https://x.y/pkg", "pkg", "pkg@git+https://x.y/pkg"),
            ("pandas=>2", "pandas", "pandas=>2"),
            ("=2", "", "=2"),
        ],
    )
    def test_entries(self, tmp_path: Path, line: str, name: str, text: str) -> None:
        write_files(tmp_path, {"requirements.txt": line})
        (entry,) = read(tmp_path).entries
        assert (entry.name, entry.text, entry.is_reference) == (name, text, False)

    @pytest.mark.parametrize(
        ("line", "name"),
        [
            ("git+https://x.y/a/b.git@v1#egg=Beta_X", "beta-x"),
            ("-e git+ssh://git@x.y/b.git#subdirectory=c&egg=beta", "beta"),
            ("https://x.y/acme_tools-2.1-py3-none-any.whl", "acme-tools"),
            ("https://x.y/acme-tools-2.1.tar.gz", "acme-tools"),
            ("./wheels/acme_tools-2.1-py3-none-any.whl ; python_version > '3'", "acme-tools"),
        ],
    )
    def test_addresses_that_tell_their_name(self, tmp_path: Path, line: str, name: str) -> None:
        write_files(tmp_path, {"requirements.txt": line})
        found = read(tmp_path)
        assert (found.names, found.is_complete) == ({name}, True)
        assert found.entries[0].is_reference

    @pytest.mark.parametrize(
        "line",
        [
            "git+https://x.y/a/b.git",
            "-e ../elsewhere",
            "./missing",
            "-r missing.txt",
            "-r https://x.y/requirements.txt",
            "-r ${FILE}",
            "-r /etc/passwd",
            "-r ../../outside.txt",
            "--constraint=missing.txt",
        ],
    )
    def test_what_cannot_be_known(self, tmp_path: Path, line: str) -> None:
        write_files(tmp_path, {"requirements.txt": f"pandas\n{line}"})
        found = read(tmp_path)
        assert (found.names, found.is_complete) == ({"pandas"}, False)

    def test_an_unreadable_file(self, tmp_path: Path) -> None:
        (tmp_path / "requirements.txt").write_bytes("pandas".encode("utf-16"))
        found = read(tmp_path)
        assert (found.files, found.is_complete) == (("requirements.txt",), False)

    @pytest.mark.parametrize(
        "option", ["-r other.txt", "-rother.txt", "--requirement other.txt", "--requirement=other.txt"]
    )
    def test_includes_relative_to_the_file_and_in_a_circle(self, tmp_path: Path, option: str) -> None:
        write_files(
            tmp_path,
            {
                "requirements.txt": "-r parts/base.txt",
                "parts/base.txt": f"pandas\n{option}\n-c limits.txt",
                "parts/other.txt": "-r ../requirements.txt\nboto3",
                "parts/limits.txt": "numpy<2",
            },
        )
        found = read(tmp_path)
        assert (found.names, found.is_complete) == ({"pandas", "boto3"}, True)
        assert [entry.name for entry in found.entries if entry.is_constraint] == ["numpy"]

    def test_options_are_no_requirements(self, tmp_path: Path) -> None:
        write_files(
            tmp_path, {"requirements.txt": "--index-url https://u:p@x.y\n-i x\n--pre\n--no-binary :all:\npandas"}
        )
        assert [entry.text for entry in read(tmp_path).entries] == ["pandas"]

    def test_files_beside_are_groups(self, tmp_path: Path) -> None:
        files = ["requirements-dev.txt", "dev-requirements.txt", "requirements/test.txt", "requirements_x.txt"]
        write_files(tmp_path, {"requirements.txt": "pandas", "notes.txt": "no", **dict.fromkeys(files, "polars")})
        groups = {entry.group for entry in read(tmp_path).entries}
        assert groups == {"", *files}

    def test_thousands_of_files_that_include_one_another(self, tmp_path: Path) -> None:
        numbers = range(700)
        files = {f"{number}.txt": f"-r {number + 1}.txt\n-r requirements.txt\np{number}" for number in numbers}
        write_files(tmp_path, {"requirements.txt": "-r 0.txt", **files})
        found = read(tmp_path)
        assert not found.is_complete
        assert 400 < len(found.names) < 600


PYPROJECT = """
[project]
name = "x"
dependencies = ['a>=1', "b"]
[project.optional-dependencies]
test = ["c"]
[dependency-groups]
dev = ["d", {include-group = "lint"}]
lint = ["e"]
[tool.uv]
dev-dependencies = ["f"]
[tool.poetry.dependencies]
python = "^3.11"
G_g = "^1"
h = {path = "../h"}
[tool.poetry.group.docs.dependencies]
i = "*"
[tool.pdm.dev-dependencies]
k = ["l"]
"""


class TestProjects:
    def test_every_table(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"pyproject.toml": PYPROJECT})
        assert places(read(tmp_path)) == [
            ("a", "pyproject.toml:3", ""),
            ("b", "pyproject.toml:3", ""),
            ("c", "pyproject.toml:5", "extra test"),
            ("d", "pyproject.toml:7", "group dev"),
            ("e", "pyproject.toml:8", "group lint"),
            ("f", "pyproject.toml:10", "group dev"),
            ("l", "pyproject.toml:18", "group k"),
            ("g-g", "pyproject.toml:13", ""),
            ("h", "pyproject.toml:14", ""),
            ("i", "pyproject.toml:16", "group docs"),
        ]

    @pytest.mark.parametrize(
        "text",
        [
            "[project]\ndependencies = 'a'",
            "[project]\ndependencies = [1, {a = 1}, [['x']]]",
            "project = 1\ntool = [1]",
            "[project]\noptional-dependencies = ['a']",
            "[tool]\npoetry = 1",
            "[dependency-groups]\ndev = {a = 1}",
        ],
    )
    def test_values_of_another_type_declare_nothing(self, tmp_path: Path, text: str) -> None:
        write_files(tmp_path, {"pyproject.toml": text})
        assert read(tmp_path).names == frozenset()

    @pytest.mark.parametrize("text", ["[project", "a = " + "[" * 5000, "a = " + "9" * 5000])
    def test_broken_toml_tells_nothing(self, tmp_path: Path, text: str) -> None:
        write_files(tmp_path, {"pyproject.toml": text})
        found = read(tmp_path)
        assert (found.files, found.is_complete) == (("pyproject.toml",), False)

    def test_dynamic_dependencies_of_setuptools(self, tmp_path: Path) -> None:
        text = """
            [project]
            dynamic = ["dependencies"]
            [tool.setuptools.dynamic]
            dependencies = {file = ["needs.in"]}
            """
        write_files(tmp_path, {"pyproject.toml": text, "needs.in": "pandas"})
        found = read(tmp_path)
        assert (found.names, found.is_complete) == ({"pandas"}, True)

    def test_dynamic_dependencies_of_others_are_not_known(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"pyproject.toml": "[project]\ndynamic = ['dependencies']"})
        assert not read(tmp_path).is_complete

    def test_setup_cfg(self, tmp_path: Path) -> None:
        text = """
            [options]
            install_requires =
                pandas>=2
                # not this
                tomli; python_version < "3.11"
            [options.extras_require]
            test = pytest; hypothesis
            """
        write_files(tmp_path, {"setup.cfg": text, "setup.py": ""})
        found = read(tmp_path)
        assert places(found) == [
            ("pandas", "setup.cfg:3", ""),
            ("tomli", "setup.cfg:5", ""),
            ("pytest", "setup.cfg:7", "extra test"),
            ("hypothesis", "setup.cfg:7", "extra test"),
        ]
        assert found.is_complete

    def test_setup_cfg_from_a_file(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"setup.cfg": "[options]\ninstall_requires = file: a.txt", "a.txt": "pandas"})
        assert read(tmp_path).names == {"pandas"}

    @pytest.mark.parametrize("text", ["no section", "[metadata]\nname = x", "[options]\ninstall_requires", "[a]\n[a]"])
    def test_setup_cfg_without_requirements(self, tmp_path: Path, text: str) -> None:
        write_files(tmp_path, {"setup.cfg": text, "flows/etl.py": ""})
        assert read(tmp_path).entries == ()

    def test_installed_folder_without_a_declaration_that_can_be_read(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"requirements.txt": "-e ./lib", "lib/setup.py": ""})
        assert not read(tmp_path).is_complete


class TestDistributions:
    @pytest.mark.parametrize(
        ("module", "distribution"),
        [
            ("pandas", "pandas"),
            ("pandas.io.sql", "pandas"),
            ("foo_bar", "foo-bar"),
            ("yaml", "pyyaml"),
            ("sklearn.svm", "scikit-learn"),
            ("google.cloud.storage", "google-cloud-storage"),
            ("google.cloud.secretmanager_v1", "google-cloud-secret-manager"),
            ("google.oauth2.service_account", "google-auth"),
            ("azure.identity.aio", "azure-identity"),
            ("azure.storage.blob.aio", "azure-storage-blob"),
            ("snowflake.connector.errors", "snowflake-connector-python"),
            ("prefect_aws.s3", "prefect-aws"),
            ("ruamel.yaml", "ruamel-yaml"),
            ("", ""),
        ],
    )
    def test_usual_names(self, module: str, distribution: str) -> None:
        assert distribution_of(module) == distribution
        assert distribution_of(module, Requirements()) == distribution

    @pytest.mark.parametrize(
        ("module", "text"),
        [
            ("psycopg2", "psycopg2-binary"),
            ("cv2", "opencv-python-headless"),
            ("foo_bar", "Foo.Bar"),
            ("acme.jobs.daily", "acme-jobs"),
            ("yaml", "yaml"),
        ],
    )
    def test_the_declared_one_of_several(self, module: str, text: str) -> None:
        assert distribution_of(module, declared("numpy", text)) == normalised(text)
        assert declared_provider(module, declared("numpy", text)) == normalised(text)

    @pytest.mark.parametrize(
        ("module", "text"),
        [
            ("dbt.cli", "dbt-postgres"),
            ("prefect_aws", "prefect[aws,gcp]"),
            ("acme", "acme-core"),
            ("airflow", "apache-airflow-providers-amazon"),
            ("google.cloud", "google-cloud-storage"),
            ("telegram", "python-telegram"),
            ("hive", "pyhive"),
        ],
    )
    def test_what_brings_it(self, module: str, text: str) -> None:
        assert declared_provider(module, declared(text)) is not None

    @pytest.mark.parametrize(
        ("module", "text"),
        [
            ("pandas", "pandas-stubs"),
            ("requests", "types-requests"),
            ("google.cloud.storage", "google-auth"),
            ("azure.identity", "azure-storage-blob"),
            ("pandas", "pandastic"),
            ("aws", "prefect[aws]"),
        ],
    )
    def test_what_does_not_bring_it(self, module: str, text: str) -> None:
        assert declared_provider(module, declared(text)) is None

    @pytest.mark.parametrize("module", ["google.cloud", "google", "azure", "azure.storage", "snowflake", "ruamel"])
    def test_packages_that_several_share(self, module: str) -> None:
        assert is_shared_package(module)

    @pytest.mark.parametrize(
        "module", ["google.cloud.storage", "azure.identity", "pandas", "yaml", "snowflake.connector", ""]
    )
    def test_packages_of_one(self, module: str) -> None:
        assert not is_shared_package(module)

    def test_a_constraint_installs_nothing(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"requirements.txt": "-c limits.txt", "limits.txt": "pandas"})
        assert declared_provider("pandas", read(tmp_path)) is None

    def test_every_row_of_the_table_says_something(self) -> None:
        assert len(_DISTRIBUTIONS) > 110
        for module, distributions in _DISTRIBUTIONS.items():
            assert distributions == tuple(map(normalised, distributions)), module
            without = module.replace("_", "-").replace(".", "-").lower()
            assert len(distributions) > 1 or distributions[0] != without or "." in module, module

    def test_the_table_agrees_with_what_is_installed(self) -> None:
        """For every row that this environment can judge."""
        import importlib.metadata

        provided = importlib.metadata.packages_distributions()
        judged = [module for module in _DISTRIBUTIONS if module in provided]
        assert "yaml" in judged
        for module in judged:
            assert set(_DISTRIBUTIONS[module]) & set(map(normalised, provided[module])), module

    def test_installed_modules(self) -> None:
        assert {"yaml", "pytest", "prefect"} <= installed_modules()
        assert "pandas_that_is_not_there" not in installed_modules()


def test_importing_it_is_cheap() -> None:
    code = "import sys, orchestrator.requirements as r; print(*sys.modules)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {"packaging", "importlib.metadata", "pydantic", "prefect"} & set(child.stdout.split())


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reading(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = tmp_path_factory.mktemp("hostile")
    for name in ("requirements.txt", "pyproject.toml", "setup.cfg"):
        (root / name).write_bytes(content)
    assert isinstance(read(root, "x.py", content.decode("latin-1")), Requirements)

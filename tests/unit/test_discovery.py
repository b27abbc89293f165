"""Discovery by reading, held against what Prefect finds by importing the same files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.closure import ImportGraph
from orchestrator.discovery import FlowDiscovery, discover, module_path
from orchestrator.errors import ConfigurationError
from orchestrator.flow_source import FlowReader
from orchestrator.model import FlowMetadata, Parameter
from orchestrator.sources import SourceFiles

REPOS = Path(__file__).parents[1] / "repos"

IMPORT_FLOWS = """
import importlib.util, json, sys
from pathlib import Path
from prefect import Flow

def flows_of(holder, prefix, file, seen):
    for name in list(vars(holder)):
        value = getattr(holder, name)
        if isinstance(value, Flow):
            if id(value) not in seen and value.fn.__code__.co_filename == str(file):
                seen.add(id(value))
                yield prefix + name, value
        elif isinstance(value, type) and value.__module__ == "under_test":
            yield from flows_of(value, prefix + name + ".", file, seen)

found = {}
for root in map(Path, sys.argv[1:]):
    for file in sorted(root.rglob("*.py")):
        sys.path.insert(0, str(file.parent))
        spec = importlib.util.spec_from_file_location("under_test", file)
        module = importlib.util.module_from_spec(spec)
        sys.modules["under_test"] = module
        spec.loader.exec_module(module)
        for name, flow in flows_of(module, "", file, set()):
            found[f"{root.name}/{file.relative_to(root).as_posix()}:{name}"] = {
                "name": flow.name,
                "is_async": flow.isasync,
                "description": flow.description or "",
                "parameters": list(flow.parameters.properties),
                "required": flow.parameters.required,
            }
print(json.dumps(found))
"""

IMPORTABLE = ("every_form", "traps", "signatures", "duplicate_names", "dockerfiles")


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What Prefect says of the flows, from one child process that imports the files."""
    environment = {
        **os.environ,
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-c", IMPORT_FLOWS, *(str(REPOS / name) for name in IMPORTABLE)]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr
    found: dict[str, dict[str, Any]] = json.loads(child.stdout.splitlines()[-1])
    return found


def flows_of(repo: str, **options: Any) -> dict[str, FlowMetadata]:
    found = discover(REPOS / repo, ["flows"], **options)
    return {flow.function_name: flow for flow in found.flows}


def read(source: str) -> dict[str, tuple[str, bool]]:
    """Names by binding, of flows in a source text."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "source.py").write_bytes(source.encode("utf-8", "surrogatepass"))
        sources = SourceFiles(Path(folder))
        flows = FlowReader(sources, ImportGraph(sources)).flows_of("source.py")
    return {flow.function_name: (flow.name, flow.name_is_static) for flow in flows}


class TestAgainstPrefect:
    @pytest.mark.parametrize("repo", IMPORTABLE)
    def test_the_same_flows_under_the_same_names(self, truth: dict[str, dict[str, Any]], repo: str) -> None:
        expected = {path: flow["name"] for path, flow in truth.items() if path.startswith(f"{repo}/")}
        found = {f"{repo}/{flow.entrypoint}": flow for flow in discover(REPOS / repo, ["flows"]).flows}
        assert expected
        assert found.keys() == expected.keys()
        wrong = {path for path, flow in found.items() if flow.name_is_static and flow.name != expected[path]}
        assert not wrong

    def test_the_same_signatures_and_descriptions(self, truth: dict[str, dict[str, Any]]) -> None:
        found = {
            f"{repo}/{flow.entrypoint}": flow for repo in IMPORTABLE for flow in discover(REPOS / repo, ["."]).flows
        }
        for path, expected in truth.items():
            flow = found[path]
            assert [parameter.name for parameter in flow.parameters] == expected["parameters"], path
            # Prefect's schema requires a value for *args and **kwargs, the function does not.
            required = [parameter.name for parameter in flow.parameters if parameter.required or parameter.variadic]
            assert required == expected["required"], path
            assert (flow.is_async, flow.description) == (expected["is_async"], expected["description"]), path


class TestMetadata:
    def test_everything_about_one_flow(self) -> None:
        flow = flows_of("every_form")["with_arguments"]
        assert flow.entrypoint == "flows/decorators.py:with_arguments"
        assert flow.module_path == "flows.decorators"
        assert flow.name == "With Arguments"
        assert flow.metadata == {"name": "With Arguments", "retries": 2, "retry_delay_seconds": 1.5, "on_failure": []}
        assert flow.dependencies == ("prefect",)
        assert flow.closure == ("flows/decorators.py",)
        assert flow.is_valid
        lines = (REPOS / "every_form" / flow.path).read_text().splitlines()
        assert lines[flow.line_number - 1] == "def with_arguments(*, key=None):"
        assert lines[flow.end_line_number - 1] == "    pass"
        json.dumps(dict(flow.metadata))

    def test_parameters_as_the_source_says_them(self) -> None:
        assert flows_of("every_form")["everything"].parameters == (
            Parameter(name="a"),
            Parameter(name="b"),
            Parameter(name="c", annotation="'int'", default="1", required=False),
            Parameter(name="rest", annotation="int", required=False, variadic="*"),
            Parameter(name="d"),
            Parameter(name="e", annotation="list[str]", default="['x']", required=False),
            Parameter(name="others", annotation="str", required=False, variadic="**"),
        )

    def test_metadata_shows_source_where_there_is_no_literal(self) -> None:
        flows = flows_of("every_form")
        assert flows["constant"].metadata == {"name": "acme-data-etl"}
        assert flows["unpacked"].metadata == {"name": "from-options", "retries": 3}
        assert flows["renamed"].metadata == {"name": "renamed", "description": "Another one."}

    def test_order_is_by_path_and_line(self) -> None:
        found = discover(REPOS / "every_form", ["flows"]).flows
        assert [(flow.path, flow.line_number) for flow in found] == sorted(
            (flow.path, flow.line_number) for flow in found
        )
        assert found == discover(REPOS / "every_form", [".", "flows"]).flows

    @pytest.mark.parametrize(
        ("function", "dockerfile"),
        [
            ("own", "flows/own/Dockerfile"),
            ("inherits", "flows/inherits/Dockerfile"),
            ("a", "docker/by-dash.Dockerfile"),
            ("by_underscore", "docker/by_underscore.Dockerfile"),
            ("c", None),
        ],
    )
    def test_dockerfile(self, function: str, dockerfile: str | None) -> None:
        assert flows_of("dockerfiles")[function].dockerfile_path == dockerfile

    def test_dockerfiles_by_what_lies_nearer(self, tmp_path: Path) -> None:
        """The order of docs/images.md: each is found once those before it are gone."""
        write(tmp_path, "flows/shop/my_etl.py", "from prefect import flow\n@flow(name='my-etl')\ndef f(): pass\n")
        order = [
            "flows/shop/my_etl.Dockerfile",
            "docker/my-etl.Dockerfile",
            "docker/my_etl.Dockerfile",
            "flows/shop/Dockerfile",
            "flows/Dockerfile",
            "Dockerfile",
            "docker/flow.Dockerfile",
        ]
        others = [
            "flows/shop/my-etl.Dockerfile",
            "flows/my_etl.Dockerfile",
            "flows/other/Dockerfile",
            "docker/Dockerfile",
        ]
        for path in (*order, *others):
            write(tmp_path, path, "")
        for path in order:
            assert discover(tmp_path, ["flows"]).flows[0].dockerfile_path == path
            (tmp_path / path).unlink()
        assert discover(tmp_path, ["flows"]).flows[0].dockerfile_path is None

    def test_a_name_with_a_slash_has_no_dockerfile_of_its_own(self, tmp_path: Path) -> None:
        write(tmp_path, "flows/a.py", "from prefect import flow\n@flow(name='../Dockerfiles/etl')\ndef f(): pass\n")
        for path in ("Dockerfiles/etl.Dockerfile", "docker/flow.Dockerfile"):
            write(tmp_path, path, "")
        assert discover(tmp_path, ["flows"]).flows[0].dockerfile_path == "docker/flow.Dockerfile"

    def test_env_files_lie_beside_the_flow_and_above(self, tmp_path: Path) -> None:
        write_flow(tmp_path, "flows/a.py")
        for name in (".env.production", ".env", ".environment", "my.env"):
            (tmp_path / "flows" / name).touch()
        (tmp_path / ".env").touch()
        assert discover(tmp_path, ["flows"]).flows[0].env_files == (".env", "flows/.env", "flows/.env.production")

    @pytest.mark.parametrize(
        ("path", "module"),
        [("a.py", "a"), ("flows/a.py", "flows.a"), ("flows/__init__.py", "flows"), ("src/pkg/a.py", "pkg.a")],
    )
    def test_module_path(self, path: str, module: str) -> None:
        assert module_path(path) == module


class TestNames:
    def test_what_cannot_be_known_is_said(self) -> None:
        flows = flows_of("unknown_names")
        static = {name for name, flow in flows.items() if flow.name_is_static}
        assert static == {"elsewhere_named"}
        assert flows["from_environment"].name == "from-environment"

    def test_signature_of_a_function_from_elsewhere_is_unknown(self) -> None:
        flow = flows_of("unknown_names")["elsewhere"]
        assert (flow.signature_is_static, flow.parameters) == (False, ())

    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("if x:\n  N = 'a'\nelse:\n  N = 'a'", ("a", True)),
            ("if x:\n  N = 'a'\nelse:\n  N = 'b'", ("e", False)),
            ("N = 'a'\nif x:\n  N = 'b'", ("e", False)),
            ("try:\n  N = 'a'\nexcept E:\n  N = 'b'", ("e", False)),
            ("N = 'a'\nfor i in x:\n  N = N + 'b'", ("e", False)),
            ("N = 'a'\nwith x as N: pass", ("e", False)),
            ("N, M = 'a', 'b'", ("a", True)),
            ("N = M = 'a'", ("a", True)),
            ("N: str", ("e", False)),
            ("N = 'a'\nN += 'b'", ("e", False)),
            ("N = 'a'\ndel N", ("e", False)),
            ("if __name__ == '__main__':\n  N = 'a'\nelse:\n  N = 'b'", ("b", True)),
            ("N = ''", ("e", True)),
            ("N = 3", ("e", False)),
        ],
    )
    def test_constants(self, source: str, expected: tuple[str, bool]) -> None:
        assert read(f"from prefect import flow\n{source}\n@flow(name=N)\ndef e(): pass")["e"] == expected

    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("f.with_options(name='')", ("first", True)),
            ("f.with_options(name=None)", ("first", True)),
            ("f.with_options(retries=1)", ("first", True)),
            ("f.with_options(name=unknown)", ("e", False)),
            ("f.with_options(**unknown)", ("e", False)),
            ("f.with_options(**{'name': 'second'})", ("second", True)),
        ],
    )
    def test_with_options(self, source: str, expected: tuple[str, bool]) -> None:
        flows = read(f"from prefect import flow\ndef e(): pass\nf = flow(e, name='first')\ng = {source}")
        assert flows["g"] == expected


class TestForms:
    @pytest.mark.parametrize(
        "source",
        [
            "from prefect import *\n@flow\ndef f(): pass",
            "from prefect.flows import *\n@flow\ndef f(): pass",
            "try:\n  from prefect import flow\nexcept ImportError:\n  def flow(g): return g\n@flow\ndef f(): pass",
            "if HAVE:\n  from prefect import flow\nelse:\n  flow = None\n@flow\ndef f(): pass",
            "import prefect.flows\n@prefect.flow\ndef f(): pass",
            "from prefect import flow\ntry:\n  pass\nexcept* E:\n  pass\nelse:\n  @flow\n  def f(): pass",
            "from prefect import flow\nwhile True:\n  @flow\n  def f(): pass",
        ],
    )
    def test_is_a_flow(self, source: str) -> None:
        assert read(source) == {"f": ("f", True)}

    @pytest.mark.parametrize(
        "source",
        [
            "from flow import flow\n@flow\ndef f(): pass",
            "from .prefect import flow\n@flow\ndef f(): pass",
            "@flow\ndef f(): pass",
            "import prefect\n@prefect.task\ndef f(): pass",
            "from prefect import flow\nflow = None\n@flow\ndef f(): pass",
            "from prefect import flow\nx.f = flow(g)\ny[0] = flow(g)",
            "from prefect import flow\n@flow\ndef f(): pass\nf = wrap(f)",
            "from prefect import flow\nclass A:\n  def m(self):\n    self.f = flow(g)",
        ],
    )
    def test_is_none(self, source: str) -> None:
        assert read(source) == {}

    def test_hundreds_of_branches_are_no_trouble(self) -> None:
        branches = "".join(f"elif x == {i}:\n  pass\n" for i in range(2000))
        source = f"from prefect import flow\nif x:\n  pass\n{branches}else:\n  @flow\n  def f(): pass"
        assert read(source) == {"f": ("f", True)}

    def test_long_chains_are_no_trouble(self) -> None:
        chain = "x" + ".a()" * 400
        assert read(f"from prefect import flow\ny = {chain}\n@flow(name={chain})\ndef f(): pass") == {"f": ("f", False)}


class TestBrokenFiles:
    def test_syntax_errors_are_reported_and_the_others_go_on(self) -> None:
        found = discover(REPOS / "broken_syntax", ["flows"])
        assert [flow.name for flow in found.flows] == ["good", "needs-broken"]
        assert [(problem.code, problem.location, problem.skips) for problem in found.problems] == [
            ("FLW001", "flows/broken.py:5", True),
            ("FLW001", "shared/helper.py:2", True),
        ]
        assert all(problem.remediation for problem in found.problems)

    def test_a_broken_module_breaks_the_flow_that_imports_it(self) -> None:
        flows = flows_of("broken_syntax")
        assert flows["good"].is_valid
        assert flows["needs_broken"].validation_errors == (
            "shared/helper.py:2: shared/helper.py is not valid Python: '(' was never closed",
        )

    def test_in_a_search_of_everything_only_files_about_prefect_count(self) -> None:
        found = discover(REPOS / "broken_syntax", ["."])
        assert "scripts/python2_flow.py" not in {problem.file_path for problem in found.problems}
        named = discover(REPOS / "broken_syntax", ["."], paths=["scripts"])
        assert [problem.file_path for problem in named.problems] == ["scripts/python2_flow.py"]

    def test_in_a_flows_folder_any_broken_file_counts(self, tmp_path: Path) -> None:
        write(tmp_path, "flows/x.py", "def (")
        assert [problem.location for problem in discover(tmp_path, ["flows"]).problems] == ["flows/x.py:1"]

    def test_encodings(self) -> None:
        found = discover(REPOS / "broken_encoding", ["flows"])
        assert {flow.name: flow.description for flow in found.flows} == dict.fromkeys(
            ("bom", "crlf", "latin1-declared"), "Größe"
        )
        assert {problem.file_path: problem.code for problem in found.problems} == {
            "flows/latin1_undeclared.py": "FLW002",
            "flows/unknown_codec.py": "FLW002",
            "flows/not_a_text_codec.py": "FLW002",
            "flows/utf16.py": "FLW002",
            "flows/null_byte.py": "FLW001",
        }
        undeclared = next(problem for problem in found.problems if "undeclared" in (problem.file_path or ""))
        assert undeclared.line_number == 6

    def test_deep_nesting(self, tmp_path: Path) -> None:
        write(tmp_path, "flows/x.py", "flow = " + "-" * 100_000 + "1")
        assert [problem.code for problem in discover(tmp_path, ["flows"]).problems] == ["FLW002"]

    def test_link_to_nothing(self, tmp_path: Path) -> None:
        write_flow(tmp_path, "flows/a.py")
        (tmp_path / "flows" / "gone.py").symlink_to("nowhere.py")
        found = discover(tmp_path, ["flows"])
        assert (len(found.flows), [problem.code for problem in found.problems]) == (1, ["FLW002"])

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_unreadable(self, tmp_path: Path) -> None:
        write_flow(tmp_path, "flows/a.py").chmod(0)
        assert [problem.code for problem in discover(tmp_path, ["flows"]).problems] == ["FLW002"]


class TestWhichFiles:
    def test_what_is_no_source_of_the_repository_is_left_out(self, tmp_path: Path) -> None:
        write_flow(tmp_path, "flows/kept.py")
        for path in (
            "my-env/lib/python3.11/site-packages/x.py",
            ".hidden/x.py",
            "node_modules/x.py",
            "flows/__pycache__/x.py",
            "generated/x.py",
            "flows/old/x.py",
            "flows/notes.ipynb",
        ):
            write_flow(tmp_path, path)
        write(tmp_path, "my-env/pyvenv.cfg", "")
        write(tmp_path, ".gitignore", "# ours\n/generated/\n")
        assert paths_of(tmp_path, ["."], exclude=["old/"]) == ["flows/kept.py"]
        assert paths_of(tmp_path, ["."]) == ["flows/kept.py", "flows/old/x.py"]

    def test_loops_of_links_end(self, tmp_path: Path) -> None:
        write_flow(tmp_path, "flows/a.py")
        (tmp_path / "flows" / "loop").symlink_to(tmp_path)
        (tmp_path / "flows" / "self.py").symlink_to("self.py")
        assert paths_of(tmp_path, ["."]) == ["flows/a.py"]

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
    def test_pipes_are_not_read(self, tmp_path: Path) -> None:
        write_flow(tmp_path, "flows/a.py")
        os.mkfifo(tmp_path / "flows" / "pipe.py")
        assert paths_of(tmp_path, ["."]) == ["flows/a.py"]

    def test_paths_replace_the_folders(self, tmp_path: Path) -> None:
        for path in ("flows/a.py", "flows/b.py", "jobs/c.py"):
            write_flow(tmp_path, path)
        assert paths_of(tmp_path, ["flows"], paths=["flows/b.py", "jobs"]) == ["flows/b.py", "jobs/c.py"]
        assert paths_of(tmp_path, ["flows"], paths=[str(tmp_path / "jobs")]) == ["jobs/c.py"]

    def test_declared_files_are_looked_at_besides(self, tmp_path: Path) -> None:
        for path in ("flows/a.py", "jobs/b.py", "jobs/c.py"):
            write_flow(tmp_path, path)
        outside = f"../{write_flow(tmp_path.parent, 'outside.py').name}"
        assert paths_of(tmp_path, ["flows"], also=["jobs/b.py", "jobs/none.py", outside]) == ["flows/a.py", "jobs/b.py"]

    @pytest.mark.parametrize("path", ["nowhere", "flows/nowhere.py", "..", "/"])
    def test_paths_must_exist_inside(self, tmp_path: Path, path: str) -> None:
        write_flow(tmp_path, "flows/a.py")
        with pytest.raises(ConfigurationError) as caught:
            discover(tmp_path, ["flows"], paths=[path])
        assert caught.value.remedy

    def test_nothing_is_executed(self, tmp_path: Path) -> None:
        witness = tmp_path / "witness"
        write(tmp_path, "flows/a.py", f"open({str(witness)!r}, 'w')\nfrom prefect import flow\n@flow\ndef f(): pass")
        path_before = list(sys.path)
        assert len(discover(tmp_path, ["flows"]).flows) == 1
        assert not witness.exists()
        assert sys.path == path_before


class TestFlowDiscovery:
    def test_default_folders(self, tmp_path: Path) -> None:
        write_flow(tmp_path, "jobs/a.py")
        assert len(FlowDiscovery(tmp_path).discover().flows) == 1
        write_flow(tmp_path, "flows/b.py")
        assert [flow.path for flow in FlowDiscovery(tmp_path).discover().flows] == ["flows/b.py"]

    def test_discover_flows(self) -> None:
        discovery = FlowDiscovery(REPOS / "every_form")
        assert discovery.discover_flows() == list(discovery.discover().flows)
        assert {flow.path for flow in discovery.discover_flows("flows/names.py")} == {"flows/names.py"}

    def test_get_flow_dependencies(self) -> None:
        discovery = FlowDiscovery(REPOS / "shared_modules")
        assert discovery.get_flow_dependencies("flows/cycle_a.py") == ["requests"]
        with pytest.raises(ConfigurationError):
            discovery.get_flow_dependencies("flows/none.py")


EVERY_FORM = [path.read_text() for path in sorted((REPOS / "every_form" / "flows").glob("*.py"))]


class TestAnySource:
    @settings(max_examples=150, deadline=None)
    @given(source=st.sampled_from(EVERY_FORM), data=st.data())
    def test_mutated_source_never_crashes(
        self, tmp_path_factory: pytest.TempPathFactory, source: str, data: Any
    ) -> None:
        tokens = source.split(" ")
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(tokens) - 1))
            tokens[place] = data.draw(st.sampled_from(["", "(", "flow", "@flow", "=", "\n", "**x", "del", *tokens]))
        self.scan(tmp_path_factory, " ".join(tokens).encode())

    @settings(max_examples=80, deadline=None)
    @given(content=st.binary(max_size=200).map(lambda noise: b"flow\n" + noise))
    def test_noise_never_crashes(self, tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
        self.scan(tmp_path_factory, content)

    def scan(self, factory: pytest.TempPathFactory, content: bytes) -> None:
        root = factory.getbasetemp() / "mutated"
        root.mkdir(exist_ok=True)
        (root / "a.py").write_bytes(content)
        found = discover(root, ["."], paths=["a.py"])
        assert found == discover(root, ["."], paths=["a.py"])
        assert not (found.problems and any(flow.is_valid for flow in found.flows))


def paths_of(root: Path, folders: list[str], **options: Any) -> list[str]:
    found = discover(root, folders, **options)
    assert [problem for problem in found.problems if "self.py" not in problem.message] == []
    return [flow.path for flow in found.flows]


def write_flow(root: Path, path: str) -> Path:
    return write(root, path, "from prefect import flow\n\n\n@flow\ndef f():\n    pass\n")


def write(root: Path, path: str, text: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file

"""The import graph: which files a flow needs, told by reading."""

from __future__ import annotations

import ast
import os
import shutil
from pathlib import Path

import pytest

from orchestrator.closure import Closure, ImportGraph, import_roots
from orchestrator.imports import dynamic_imports_in, imports_in
from orchestrator.sources import SourceFiles
from tests.unit.builders import write_files

REPOS = Path(__file__).parents[1] / "repos"
SHARED = REPOS / "shared_modules"


def closure_of(root: Path, path: str) -> Closure:
    return ImportGraph(SourceFiles(root)).closure_of(path)


def write(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def test_follows_every_kind_of_import() -> None:
    assert closure_of(SHARED, "flows/etl.py").paths == (
        "flows/cycle_a.py",  # by a sibling; it and cycle_b import each other
        "flows/cycle_b.py",
        "flows/etl.py",
        "flows/sibling.py",  # the script's folder is an import root
        "lib/__init__.py",
        "lib/alpha.py",  # from lib import alpha
        "lib/beta.py",  # from lib.beta import *
        "lib/gamma.py",  # from . import gamma, in alpha
        "lib/lazy.py",  # imported in a function
        "lib/nested/__init__.py",
        "lib/nested/leaf.py",
        "namespace/inner/thing.py",  # no __init__.py on the way
        "plugins/first.py",  # importlib.import_module("plugins.first")
        "plugins/second.py",  # import_module(".second", "plugins")
        "src/src_package/__init__.py",
        "src/src_package/deep/module.py",
    )


def test_dependencies_are_third_parties_only() -> None:
    # `docker` is a folder of the repository too, but without any Python in it. `requests` comes from a cycle.
    outside = closure_of(SHARED, "flows/etl.py").outside
    assert {each.top_level for each in outside} == {"docker", "pandas", "prefect", "requests", "yaml"}


def test_a_script_does_not_run_the_package_around_it() -> None:
    assert closure_of(SHARED, "flows/alone.py").paths == ("flows/alone.py",)


def test_digest_is_the_same_wherever_the_repository_lies(tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(SHARED, copy)
    for file in copy.rglob("*.py"):
        os.utime(file, (0, 0))
    assert closure_of(copy, "flows/etl.py").digest == closure_of(SHARED, "flows/etl.py").digest


@pytest.mark.parametrize(
    ("changed", "differs"),
    [("flows/etl.py", True), ("lib/nested/leaf.py", True), ("lib/unused.py", False), ("flows/alone.py", False)],
)
def test_digest_changes_with_the_closure_and_nothing_else(tmp_path: Path, changed: str, differs: bool) -> None:
    copy = shutil.copytree(SHARED, tmp_path / "copy")
    before = closure_of(copy, "flows/etl.py").digest
    with (copy / changed).open("a") as file:
        file.write("# changed\n")
    assert (closure_of(copy, "flows/etl.py").digest != before) is differs


def test_digest_tells_where_content_lies(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"f.py": "import a, b", "a.py": "x", "b.py": "y"})
    two = write(tmp_path / "two", {"f.py": "import a, b", "a.py": "y", "b.py": "x"})
    assert closure_of(one, "f.py").digest != closure_of(two, "f.py").digest


def test_broken_module_belongs_to_the_closure() -> None:
    assert closure_of(REPOS / "broken_syntax", "flows/needs_broken.py").paths == (
        "flows/needs_broken.py",
        "shared/helper.py",
    )


def test_nearest_module_wins(tmp_path: Path) -> None:
    root = write(tmp_path, {"a/b/f.py": "import helper", "a/b/helper.py": "", "a/helper.py": "", "helper.py": ""})
    assert closure_of(root, "a/b/f.py").paths == ("a/b/f.py", "a/b/helper.py")


def test_package_wins_over_module_and_namespace(tmp_path: Path) -> None:
    root = write(tmp_path, {"f.py": "import x, y", "x/__init__.py": "", "x.py": "", "y.py": "", "y/z.py": ""})
    assert closure_of(root, "f.py").paths == ("f.py", "x/__init__.py", "y.py")


def test_import_roots() -> None:
    assert import_roots("") == ("", "src")
    assert import_roots("a/b") == ("a/b", "a/b/src", "a", "a/src", "", "src")


def test_a_file_is_read_once(tmp_path: Path) -> None:
    root = write(tmp_path, {"f.py": "import g", "g.py": ""})
    sources = SourceFiles(root)
    first = ImportGraph(sources).closure_of("f.py")
    (root / "g.py").write_text("changed")
    assert ImportGraph(sources).closure_of("f.py") == first


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a, b.c as d", {("a", 0), ("b.c", 0)}),
        ("from .. import x", {("", 2)}),
        ("def f():\n  if 1:\n    import deep", {("deep", 0)}),
        ("try: import a\nexcept E: import b\nelse: import c\nfinally: import d", {(n, 0) for n in "abcd"}),
        ("match 1:\n  case 1: import m", {("m", 0)}),
        ("class A:\n  with b:\n    import w", {("w", 0)}),
    ],
)
def test_import_statements(source: str, expected: set[tuple[str, int]]) -> None:
    assert {(found.module, found.level) for found in imports_in(ast.parse(source))} == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("importlib.import_module('a.b')", [("a.b", 0)]),
        ("import_module('.c', package='a')", [("a.c", 0)]),
        ("import_module('.c', 'a.b')", [("a.b.c", 0)]),
        ("import_module('.c', __package__)", [("c", 1)]),
        ("__import__('x')", [("x", 0)]),
        ("import_module(name)", []),
        ("import_module('../../etc/x')", []),
        ("import_module('/etc/x')", []),
        ("import_module('')", []),
        ("import_module()", []),
    ],
)
def test_dynamic_imports(source: str, expected: list[tuple[str, int]]) -> None:
    assert [(found.module, found.level) for found in dynamic_imports_in(ast.parse(source))] == expected


# ---------------------------------------------------------------------------------------------------------
# What leads outside, or nowhere
# ---------------------------------------------------------------------------------------------------------


def outside_of(root: Path, path: str = "flows/f.py") -> set[tuple[str, str, bool]]:
    """Where, what, and whether it is missing."""
    return {
        (f"{each.file_path}:{each.line_number}", each.module, each.is_missing)
        for each in closure_of(root, path).outside
    }


def test_outside_imports_have_a_place() -> None:
    found = {(each.file_path, each.line_number, each.module) for each in closure_of(SHARED, "flows/etl.py").outside}
    assert {("flows/etl.py", 4, "pandas"), ("flows/etl.py", 5, "yaml.nodes"), ("flows/etl.py", 23, "docker")} <= found
    assert not any(each.is_missing for each in closure_of(SHARED, "flows/etl.py").outside)


def test_a_relative_import_that_leaves_the_repository_is_missing(tmp_path: Path) -> None:
    flow = "from ...beyond import nothing\nfrom . import helper\n"
    write_files(tmp_path, {"flows/f.py": flow, "flows/helper.py": ""})
    assert outside_of(tmp_path) == {("flows/f.py:1", "...beyond", True)}


NAMED = """
import os
from shutil import rmtree as tidy
constant: int = 1
def function(): ...
class Class: ...
if constant:
    branch = 1
a, *star = [1, 2]
try: ...
except ValueError as caught: ...
def declare():
    global by_global
    by_global = local = 1
"""
PACKAGES = {
    "lib/__init__.py": "",
    "lib/here.py": "",
    "lib/plain/x.py": "",
    "lib/fast.cpython-311-x86_64-linux-gnu.so": "",
    "lib/tricky/__init__.py": "__path__ = __import__('pkgutil').extend_path(__path__, __name__)",
    "lib/named.py": NAMED,
    "lib/dynamic.py": "for name in 'ab': globals()[name] = 1",
    "lib/lazy.py": "def __getattr__(name): return 1",
    "lib/starred.py": "from os.path import *",
    "lib/broken.py": "def (",
    "google/ours/__init__.py": "",
    "docker/build.py": "",
    "yaml.py": "",
    "flows/redis.py": "",
    "flows/near.py": "",
}


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("from lib.gone import x", "lib.gone"),
        ("import lib.gone.deeper", "lib.gone.deeper"),
        ("import lib.here.no_package", "lib.here.no_package"),
        ("from lib.plain import gone", "lib.plain.gone"),
        ("import google.ours.gone", "google.ours.gone"),
        ("import redis.asyncio", "redis.asyncio"),  # the file next to the script shadows the package
        ("from .gone import x", ".gone"),
        ("from . import gone", ".gone"),
        ("from ..lib.gone import x", "..lib.gone"),
        ("from .... import x", "....x"),
        ("from lib import anything", "lib.anything"),
        ("from .near import anything", ".near.anything"),
        ("from lib.named import gone", "lib.named.gone"),
    ],
)
def test_missing(tmp_path: Path, source: str, missing: str) -> None:
    root = write(tmp_path, {**PACKAGES, "flows/f.py": source})
    assert outside_of(root) == {("flows/f.py:1", missing, True)}


@pytest.mark.parametrize(
    "source",
    [
        "from lib.named import constant, function, Class, branch, star, caught, by_global, os, tidy, __doc__",
        "from lib.dynamic import anything",
        "from lib.lazy import anything",
        "from lib.starred import anything",
        "from lib.broken import anything",
        "from lib import here, plain, fast",
        "from lib.plain import x, *",
        "import lib.fast.inner",
        "from lib.tricky.gone import x",
        "from . import near",
        "import redis, near",
        "import_module('lib.here')",
        "import os.path, logging.handlers, __future__",
    ],
)
def test_nothing_is_missing(tmp_path: Path, source: str) -> None:
    assert outside_of(write(tmp_path, {**PACKAGES, "flows/f.py": source})) == set()


@pytest.mark.parametrize("module", ["docker.errors", "docker", "google.cloud.storage", "yaml.nodes", "lib2.gone"])
def test_what_may_be_installed_is_not_missing(tmp_path: Path, module: str) -> None:
    root = write(tmp_path, {**PACKAGES, "flows/f.py": f"import {module}"})
    assert not any(is_missing for _, _, is_missing in outside_of(root))


def test_a_package_in_a_folder_between_proves_nothing(tmp_path: Path) -> None:
    root = write(tmp_path, {"flows/airbyte/__init__.py": "", "flows/etl/f.py": "import airbyte.caches"})
    assert outside_of(root, "flows/etl/f.py") == set()


def test_the_nearest_name_is_told(tmp_path: Path) -> None:
    root = write(tmp_path, {"lib/__init__.py": "ORDERS = 1\nOTHER = 2", "flows/f.py": "from lib import ORDER"})
    (found,) = closure_of(root, "flows/f.py").outside
    assert (found.module, found.nearest) == ("lib.ORDER", "ORDERS")


def test_what_a_function_binds_for_itself_is_missing(tmp_path: Path) -> None:
    root = write(tmp_path, {**PACKAGES, "flows/f.py": "from lib.named import local, declare"})
    assert outside_of(root) == {("flows/f.py:1", "lib.named.local", True)}


def test_generated_modules_are_not_missing(tmp_path: Path) -> None:
    files = {"lib/__init__.py": "from ._version import v", "flows/f.py": "import lib", ".gitignore": "_version.py\n"}
    assert outside_of(write(tmp_path, files)) == set()


@pytest.mark.parametrize(
    ("source", "optional"),
    [
        ("try:\n  import x\nexcept ImportError:\n  import x", True),
        ("try:\n  import x\nexcept (KeyError, ModuleNotFoundError): pass", True),
        ("try:\n  import x\nexcept: pass", True),
        ("try:\n  def f():\n    import x\nexcept Exception: pass", True),
        ("try:\n  import x\nexcept KeyError: pass", False),
        ("try: pass\nexcept ImportError: pass\nfinally:\n  import x", False),
        ("if TYPE_CHECKING:\n  import x", True),
        ("if typing.TYPE_CHECKING:\n  pass\nelse:\n  import x", False),
        ("if not TYPE_CHECKING:\n  import x", False),
        ("if sys.version_info < (3, 11):\n  import x", True),
        ("if y:\n  import x", False),
        ("with contextlib.suppress(ImportError):\n  import x", True),
        ("with open(y):\n  import x", False),
        ("import x", False),
    ],
)
def test_optional(source: str, optional: bool) -> None:
    assert {found.is_optional for found in imports_in(ast.parse(source))} == {optional}


def test_the_same_import_twice_is_known_by_both_lines(tmp_path: Path) -> None:
    root = write(tmp_path, {"f.py": "try:\n  import x\nexcept ImportError: pass\nimport x"})
    found = closure_of(root, "f.py").outside
    assert [(each.line_number, each.is_optional) for each in found] == [(2, True), (4, False)]


def test_outside_imports_of_all_closures(tmp_path: Path) -> None:
    root = write(tmp_path, {"a.py": "import lib", "b.py": "import lib, y", "lib.py": "import x"})
    graph = ImportGraph(SourceFiles(root))
    for path in ("a.py", "b.py"):
        graph.closure_of(path)
    assert [(each.file_path, each.module) for each in graph.outside_imports()] == [("b.py", "y"), ("lib.py", "x")]


# ---------------------------------------------------------------------------------------------------------
# Where names lead
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "level", "importer", "expected"),
    [
        ("lib.nested.leaf.x", 0, "flows/etl.py", ("lib/nested/leaf.py", ("x",))),
        ("lib.name", 0, "flows/etl.py", ("lib/__init__.py", ("name",))),
        ("lib", 0, "flows/etl.py", ("lib/__init__.py", ())),
        ("gamma.x.y", 1, "lib/alpha.py", ("lib/gamma.py", ("x", "y"))),
        ("name", 1, "lib/alpha.py", ("lib/__init__.py", ("name",))),
        ("namespace.name", 0, "flows/etl.py", None),
        ("pandas.x", 0, "flows/etl.py", None),
        ("name", 9, "lib/alpha.py", None),
        ("", 0, "lib/alpha.py", None),
    ],
)
def test_locate(module: str, level: int, importer: str, expected: object) -> None:
    assert ImportGraph(SourceFiles(SHARED)).locate(module, level, importer, "flows") == expected


def test_a_regular_package_wins_over_a_nearer_folder(tmp_path: Path) -> None:
    root = write(tmp_path, {"flows/f.py": "import lib.x", "flows/lib/y.py": "", "lib/__init__.py": "", "lib/x.py": ""})
    assert closure_of(root, "flows/f.py").paths == ("flows/f.py", "lib/__init__.py", "lib/x.py")


@pytest.mark.parametrize(
    ("pyproject", "place"),
    [
        ('[tool.uv.workspace]\nmembers = ["libs/*"]', "libs/one"),
        ('[tool.uv.workspace]\nmembers = ["libs/*"]', "libs/one/src"),
        ('[tool.uv.workspace]\nmembers = ["**/one"]', "a/b/one/src"),
        ('[tool.uv.sources]\none = { path = "elsewhere/one" }', "elsewhere/one/src"),
        ('[[tool.hatch.envs.default.workspace.members]]\npath = "libs/one"', "libs/one/src"),
        ('[tool.hatch.envs.default]\nworkspace.members = ["libs/o*"]', "libs/one"),
        ('[tool.hatch.build.targets.wheel]\npackages = ["python/shared"]', "python"),
        ('[tool.hatch.build.targets.wheel]\nsources = ["python"]', "python"),
        ('[tool.setuptools.packages.find]\nwhere = ["python"]', "python"),
        ('[tool.setuptools]\npackage-dir = {"" = "python"}', "python"),
        ('[tool.setuptools.package-dir]\nshared = "python/shared"', "python"),
        ('[[tool.poetry.packages]]\ninclude = "shared"\nfrom = "python"', "python"),
        ('[tool.pdm.build]\npackage-dir = "python"', "python"),
    ],
)
def test_packages_of_the_repository(tmp_path: Path, pyproject: str, place: str) -> None:
    files = {"flows/f.py": "import shared.x", f"{place}/shared/__init__.py": "", f"{place}/shared/x.py": ""}
    root = write(tmp_path, {**files, "pyproject.toml": pyproject})
    assert f"{place}/shared/x.py" in closure_of(root, "flows/f.py").paths


@pytest.mark.parametrize(
    "pyproject",
    [
        "[broken",
        "tool = 3",
        '[tool.uv.workspace]\nmembers = ["libs/*"]\nexclude = ["libs/one"]',
        '[tool.uv]\nworkspace = ["libs/*"]\nsources = [1]',
        '[tool.uv.workspace]\nmembers = ["../*", "/", "", 3, "[", "libs/\\u0000*"]',
        '[tool.setuptools.packages]\nfind.where = ["../outside", 3, ".."]',
    ],
)
def test_workspaces_that_do_not_count(tmp_path: Path, pyproject: str) -> None:
    files = {"flows/f.py": "import shared.x", "libs/one/shared/__init__.py": "", "libs/one/shared/x.py": ""}
    root = write(tmp_path, {**files, "pyproject.toml": pyproject})
    assert closure_of(root, "flows/f.py").paths == ("flows/f.py",)

"""The import graph: which files a flow needs, told by reading."""

from __future__ import annotations

import ast
import os
import shutil
from pathlib import Path

import pytest

from orchestrator.closure import Closure, ImportGraph, SourceFiles, dynamic_imports_in, import_roots, imports_in

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
    assert closure_of(SHARED, "flows/etl.py").dependencies == ("docker", "pandas", "prefect", "requests", "yaml")


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

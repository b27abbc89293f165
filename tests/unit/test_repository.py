"""Which files belong to a repository: git is the judge of what is ignored."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.gitignore import Patterns
from orchestrator.repository import LARGEST_TEXT, Repository

GIT_ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_CEILING_DIRECTORIES": tempfile.gettempdir(),
    "XDG_CONFIG_HOME": os.devnull,
}


def git(root: Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, env=GIT_ENVIRONMENT, check=True, capture_output=True).stdout


def listed_by_git(root: Path) -> set[str]:
    found = git(root, "ls-files", "-co", "--exclude-standard", "-z", "*.py")
    return {os.fsdecode(path) for path in found.split(b"\0") if path}


def files(root: Path, *starts: str, exclude: tuple[str, ...] = ()) -> list[str]:
    found = list(Repository(root).files(starts or ("",), (".py",), exclude))
    assert len(found) == len(set(found))
    return sorted(found)


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("")


# ---------------------------------------------------------------------------------------------------------
# What git ignores
# ---------------------------------------------------------------------------------------------------------

NAMES = ("a", "b", "ab", "a.py", "b.py", "ab.py", "a b.py", "é.py", "build", "x[1].py", "!a.py", "#a.py")
FOLDERS = ("", "a/", "b/", "a/b/", "ab/a/", "build/a/", "a/b/a/", "é/")
TREE = sorted({folder + name for folder in FOLDERS for name in NAMES if name.endswith(".py")})

GLOBS = r"* ** ? / / a b ab .py build é [ab] [!a] [^b] [a-c] [[:alpha:]]"
GLOBS += r" \a \ [ ] - **/ /** /**/ *.py a/ ! # []a] [a-] [z-a]"
fragments = st.sampled_from([" ", "[[:no:]]", *GLOBS.split()])
patterns = st.tuples(st.sampled_from(["", "", "!", "/", "!/", "\\!", "\\#"]), st.lists(fragments, max_size=5)).map(
    lambda parts: parts[0] + "".join(parts[1])
)
ignore_files = st.dictionaries(
    st.sampled_from([".gitignore", "a/.gitignore", "a/b/.gitignore", "ab/.gitignore", ".git/info/exclude"]),
    st.lists(patterns, min_size=1, max_size=6),
    max_size=3,
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    git(root, "init", "-q")
    touch(root, *TREE)
    return root


@settings(max_examples=150, deadline=None)
@given(rules=ignore_files, ends=st.sampled_from(["\n", "\r\n"]))
@example(rules={".gitignore": ["*.py", "!a/"]}, ends="\n")
@example(rules={".gitignore": ["a/*", "!a/b"], "a/.gitignore": ["!a.py"], "a/b/.gitignore": ["*"]}, ends="\n")
@example(rules={".gitignore": ["a**/a.py", "/**/b.py", "a/**", "!a.py  ", "\\!a.py", "ab/**/*.py"]}, ends="\r\n")
@example(rules={".gitignore": ["\ufeffa.py", "?.py"], ".git/info/exclude": ["ab"]}, ends="\n")
def test_git_agrees(tree: Path, rules: dict[str, list[str]], ends: str) -> None:
    for path in (".gitignore", "a/.gitignore", "a/b/.gitignore", "ab/.gitignore", ".git/info/exclude"):
        (tree / path).unlink(missing_ok=True)
    for path, lines in rules.items():
        (tree / path).write_bytes(ends.join([*lines, ""]).encode())
    assert set(files(tree)) == listed_by_git(tree)


@pytest.mark.parametrize(
    ("lines", "path", "covered"),
    [
        (["prefect.yaml"], "a/b/prefect.yaml", True),
        (["/prefect.yaml"], "a/prefect.yaml", False),
        (["deploy/"], "deploy/x/any.yaml", True),
        (["*.yaml", "!old/"], "old/a.yaml", False),
        (["*.yaml", "!old/"], "new/a.yaml", True),
        (["é.yaml"], "é.yaml", True),
        ([], "a.yaml", False),
    ],
)
def test_patterns_choose_files_by_their_folders_too(lines: list[str], path: str, covered: bool) -> None:
    assert Patterns(lines).cover(path) is covered


def test_many_stars_are_no_trouble(tmp_path: Path) -> None:
    touch(tmp_path, "a" * 200 + ".py")
    (tmp_path / ".gitignore").write_text("*a" * 60 + "b\n" + "/".join(["**"] * 30) + "/b\n")
    assert len(files(tmp_path)) == 1


def test_patterns_of_the_project_are_final(tmp_path: Path) -> None:
    touch(tmp_path, "a/old/x.py", "a/y.py")
    (tmp_path / "a" / ".gitignore").write_text("!old/\n!*.py\n")
    assert files(tmp_path, exclude=("old/",)) == ["a/y.py"]


def test_what_is_named_is_taken_even_if_ignored(tmp_path: Path) -> None:
    touch(tmp_path, "out/x.py", "out/deep/y.py", "z.py", ".hidden/h.py")
    (tmp_path / ".gitignore").write_text("out/\nz.py\n")
    assert files(tmp_path) == []
    assert files(tmp_path, "out", "z.py", ".hidden") == [".hidden/h.py", "out/deep/y.py", "out/x.py", "z.py"]


def test_a_part_of_a_git_repository_follows_the_rules_of_the_whole(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    touch(tmp_path, "team/flows/a.py", "team/flows/b.py", "team/flows/c.py")
    (tmp_path / ".gitignore").write_text("/team/flows/a.py\n")
    (tmp_path / "team" / ".gitignore").write_text("b.py\n")
    assert files(tmp_path / "team" / "flows") == ["c.py"]
    (tmp_path / ".gitignore").write_text("/team/\n")  # then it is no part of it
    assert files(tmp_path / "team" / "flows") == ["a.py", "b.py", "c.py"]


def test_rules_of_a_worktree_lie_in_the_repository_that_it_belongs_to(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "main")
    main = tmp_path / "main"
    git(main, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x")
    git(main, "worktree", "add", "-q", "../tree")
    touch(tmp_path / "tree", "a.py", "b.py")
    (main / ".git" / "info").mkdir(exist_ok=True)
    (main / ".git" / "info" / "exclude").write_text("a.py\n")
    assert files(tmp_path / "tree") == ["b.py"]
    assert listed_by_git(tmp_path / "tree") == {"b.py"}


# ---------------------------------------------------------------------------------------------------------
# What nobody wrote for this repository
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "foreign",
    [
        ".hidden/x.py",
        "__pycache__/x.py",
        "web/node_modules/x.py",
        "lib/site-packages/x.py",
        "__pypackages__/x.py",
        "app/_vendor/x.py",
        "third_party/x.py",
        "flows/vendor/x.py",
        "shop.egg-info/x.py",
        "build/lib/shop/x.py",
        "env/lib/x.py",
        "conda/lib/x.py",
        "clone/x.py",
        "worktree/x.py",
    ],
)
def test_skipped_without_being_told(tmp_path: Path, foreign: str) -> None:
    touch(tmp_path, "a.py", "setup.py", foreign, "env/pyvenv.cfg", "conda/conda-meta/history", "clone/.git/HEAD")
    touch(tmp_path, "worktree/.git")
    assert files(tmp_path) == ["a.py", "setup.py"]


def test_near_misses_are_kept(tmp_path: Path) -> None:
    kept = ["build/tools.py", "dist/x.py", "vendors/x.py", "flows/build/lib/x.py", "environment/x.py", "sub/x.py"]
    touch(tmp_path, *kept, "sub/.git", "notes.ipynb", "a.pyc", "a.pyi")
    (tmp_path / ".gitmodules").write_text('[submodule "sub"]\n\tpath = sub\n\turl = ../sub\n')
    assert files(tmp_path) == sorted(kept)


def test_flows_about_vendors(tmp_path: Path) -> None:
    touch(tmp_path, "flows/vendor/x.py", "vendor/y.py")
    assert files(tmp_path, "flows") == ["flows/vendor/x.py"]
    assert files(tmp_path, "flows", ".") == ["flows/vendor/x.py"]


def test_a_file_shows_once(tmp_path: Path) -> None:
    touch(tmp_path, "flows/a.py", "jobs/b.py")
    outside = tmp_path.parent / f"{tmp_path.name}-outside.py"
    outside.touch()
    for link, target in [("one", "a.py"), ("two", "../jobs/b.py"), ("three", "../jobs/b.py"), ("four", str(outside))]:
        (tmp_path / "flows" / f"{link}.py").symlink_to(target)
    (tmp_path / "loop").symlink_to(tmp_path)
    assert files(tmp_path) == ["flows/a.py", "jobs/b.py"]
    assert files(tmp_path, "flows", "flows/a.py") == ["flows/a.py", "flows/three.py"]


def test_links_to_nothing_are_shown(tmp_path: Path) -> None:
    for name, target in [("gone.py", "nowhere.py"), ("self.py", "self.py"), (".#lock.py", "me@host.1")]:
        (tmp_path / name).symlink_to(target)
    assert files(tmp_path) == ["gone.py", "self.py"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_only_files_are_shown(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "linked.py").symlink_to("pipe.py")
    (tmp_path / "folder.py").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket.py"))
        assert files(tmp_path) == []


def test_odd_names(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.py")
    touch(tmp_path, name, "a\nb.py", " .py")
    (tmp_path / ".gitignore").write_bytes(b"x\xff\n[\xe9\n")
    assert files(tmp_path) == sorted([name, "a\nb.py", " .py"])
    (tmp_path / ".gitignore").write_bytes(b"caf\xe9.*\n")
    assert name not in files(tmp_path)


# ---------------------------------------------------------------------------------------------------------
# The door
# ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    touch(tmp_path, "root/a.txt", "root/f/b.txt", "secret.txt")
    (tmp_path / "root" / "large").write_bytes(b"x" * (LARGEST_TEXT + 1))
    (tmp_path / "root" / "latin").write_bytes(b"\xff")
    return Repository(tmp_path / "root")


@pytest.mark.parametrize("path", ["../secret.txt", "f/../../secret.txt", "/etc/passwd", "none", "f", "", "..", "a\0b"])
def test_nothing_outside_is_there(repository: Repository, path: str) -> None:
    assert path not in repository
    assert repository.text(path) is None


def test_names_and_texts(repository: Repository) -> None:
    assert repository.names("") == {"a.txt", "f", "large", "latin"}
    assert repository.names("f") == repository.names("./f/") == {"b.txt"}
    assert repository.names("..") == repository.names("/") == repository.names("none") == frozenset()
    assert "./f/b.txt" in repository
    assert repository.text("a.txt") == ""
    assert (repository.text("large"), repository.text("latin")) == (None, None)


def test_lines_end_where_python_ends_them(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes("one\f\u2028 = 1\r\ntwo\rthree\n".encode())
    repository = Repository(tmp_path)
    lines = [repository.line("a.py", number) for number in range(6)]
    assert lines == ["", "one\f\u2028 = 1", "two", "three", "", ""]
    assert repository.line("none.py", 1) == repository.line(None, 1) == repository.line("a.py", None) == ""


def test_files_of_another_time(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.py")
    repository = Repository(tmp_path, also=["a/gone.py", "b/c/gone.py"])
    assert "b/c/gone.py" in repository
    assert repository.names("a") == {"x.py", "gone.py"}
    assert repository.names("") == {"a", "b"}

"""What git is asked, and what it answers, with real repositories."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import ConfigurationError
from orchestrator.git import ChangedFiles, changed_files, checked_out, commit_of, is_dirty, remote_of
from tests.unit.builders import write_files

Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Runs git in a new repository in tmp_path."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "A")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@example.com")

    def run(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    run("init", "-q")
    return run


def commit(git: Git) -> str:
    git("add", "-A")
    git("commit", "-q", "--allow-empty", "-m", "x")
    return git("rev-parse", "HEAD")


def test_every_way_to_change(tmp_path: Path, git: Git) -> None:
    names = ("same", "committed", "staged", "unstaged", "removed", "removed_from_index", "renamed")
    write_files(tmp_path, {**{f"{name}.py": name * 9 for name in names}, ".gitignore": "ignored*\n"})
    commit(git)
    git("tag", "base")
    write_files(tmp_path, {"committed.py": "new"})
    git("rm", "-q", "removed.py")
    git("mv", "renamed.py", "after.py")
    commit(git)
    write_files(tmp_path, {"staged.py": "new", "added.py": ""})
    git("add", "-A")
    git("rm", "-q", "--cached", "removed_from_index.py")
    write_files(tmp_path, {"unstaged.py": "new", "deep/untracked.py": "", "ignored.py": ""})
    assert changed_files(tmp_path, "base") == ChangedFiles(
        frozenset(
            f"{name}.py"
            for name in ("committed", "staged", "unstaged", "added", "deep/untracked", "after", "removed_from_index")
        ),
        frozenset({"removed.py", "renamed.py"}),
    )
    assert changed_files(tmp_path, "HEAD").deleted == frozenset()


def test_nothing_changed(tmp_path: Path, git: Git) -> None:
    write_files(tmp_path, {"a.py": "x"})
    revision = commit(git)
    (tmp_path / "a.py").touch()
    assert changed_files(tmp_path, revision) == ChangedFiles()


def test_a_part_of_a_repository(tmp_path: Path, git: Git) -> None:
    write_files(tmp_path, {"part/a.py": "", "other/b.py": ""})
    commit(git)
    write_files(tmp_path, {"part/a.py": "x", "part/sub/new.py": "", "other/b.py": "x", "other/new.py": ""})
    assert changed_files(tmp_path / "part", "HEAD") == ChangedFiles(frozenset({"a.py", "sub/new.py"}))


def test_odd_names(tmp_path: Path, git: Git) -> None:
    names = ['a "b" c.py', "größe.py", "a\nb.py", "-x.py", ":(top)y.py", os.fsdecode(b"\xff.py")]
    for name in names:
        (tmp_path / name).write_text("")
    commit(git)
    for name in names[:3]:
        (tmp_path / name).write_text("x")
    for name in names[3:]:
        (tmp_path / name).unlink()
    assert changed_files(tmp_path, "HEAD") == ChangedFiles(frozenset(names[:3]), frozenset(names[3:]))


def test_settings_of_the_repository_run_nothing(tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    witness = tmp_path.parent / f"{tmp_path.name}-witness"
    program = tmp_path.parent / f"{tmp_path.name}-program"
    program.write_text(f"#!/bin/sh\ntouch '{witness}'\n")
    program.chmod(0o755)
    write_files(tmp_path, {"a.py": "x", ".gitattributes": "*.py diff=mine\n"})
    commit(git)
    for key in ("core.fsmonitor", "diff.external", "core.pager", "diff.mine.textconv", "diff.mine.command"):
        git("config", key, str(program))
    git("config", "diff.orderFile", "nowhere")
    git("config", "diff.relative", "false")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(program))
    monkeypatch.setenv("GIT_DIR", "elsewhere")
    (tmp_path / "a.py").write_text("y")
    assert changed_files(tmp_path, "HEAD").changed == {"a.py"}
    assert not witness.exists()


@pytest.mark.parametrize("revision", ["nowhere", "HEAD~9", "HEAD..HEAD", "HEAD:a.py", "", "a b", "\0", "^HEAD"])
def test_unknown_revision(tmp_path: Path, git: Git, revision: str) -> None:
    write_files(tmp_path, {"a.py": ""})
    commit(git)
    with pytest.raises(ConfigurationError, match=r"revision") as caught:
        changed_files(tmp_path, revision)
    assert caught.value.remedy


def test_a_revision_is_never_an_option(tmp_path: Path, git: Git) -> None:
    commit(git)
    with pytest.raises(ConfigurationError, match="not a revision"):
        changed_files(tmp_path, f"--output={tmp_path / 'x'}")
    assert not (tmp_path / "x").exists()


def test_no_commit_yet(tmp_path: Path, git: Git) -> None:
    with pytest.raises(ConfigurationError, match="no revision HEAD"):
        changed_files(tmp_path, "HEAD")


@pytest.mark.parametrize("revision", ["main...HEAD", "main...", "...main", "main...work"])
def test_where_a_branch_left_another(tmp_path: Path, git: Git, revision: str) -> None:
    git("checkout", "-q", "-b", "main")
    commit(git)
    git("checkout", "-q", "-b", "work")
    write_files(tmp_path, {"ours.py": "1"})
    commit(git)
    git("checkout", "-q", "main")
    write_files(tmp_path, {"theirs.py": "1"})
    commit(git)
    git("checkout", "-q", "work")
    assert changed_files(tmp_path, revision) == ChangedFiles(frozenset({"ours.py"}))


def test_branches_without_a_common_commit(tmp_path: Path, git: Git) -> None:
    git("checkout", "-q", "-b", "main")
    commit(git)
    git("checkout", "-q", "--orphan", "work")
    git("commit", "-q", "--allow-empty", "-m", "another")
    with pytest.raises(ConfigurationError, match="main and HEAD have no commit in common") as caught:
        changed_files(tmp_path, "main...")
    assert "shallow" not in caught.value.remedy


def test_only_a_shallow_clone_is_told_to_fetch_more(tmp_path: Path, git: Git) -> None:
    for _ in range(2):
        commit(git)
    with pytest.raises(ConfigurationError) as caught:
        changed_files(tmp_path, "HEAD~5")
    assert "shallow" not in caught.value.remedy
    git("clone", "-q", "--depth=1", tmp_path.as_uri(), str(tmp_path / "clone"))
    with pytest.raises(ConfigurationError) as caught:
        changed_files(tmp_path / "clone", "HEAD~1")
    assert "git fetch --unshallow" in caught.value.remedy


def test_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ConfigurationError, match="not a git repository") as caught:
        changed_files(tmp_path, "HEAD")
    assert caught.value.remedy


def test_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="git is not installed"):
        changed_files(tmp_path, "HEAD")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no folder"):
        changed_files(tmp_path / "gone", "HEAD")


# --- which commit a folder is at --------------------------------------------------------------------------


def test_the_commit_of_a_folder(tmp_path: Path, git: Git) -> None:
    write_files(tmp_path, {"part/a.py": ""})
    assert commit_of(tmp_path) is None
    made = commit(git)
    assert commit_of(tmp_path) == commit_of(tmp_path / "part") == made


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert (commit_of(tmp_path), is_dirty(tmp_path)) == (None, False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (commit_of(tmp_path), is_dirty(tmp_path)) == (None, False)


def test_what_makes_a_folder_dirty(tmp_path: Path, git: Git) -> None:
    write_files(tmp_path, {"a.py": "", "b.py": "", "part/c.py": "", ".gitignore": "ignored*\n"})
    commit(git)
    write_files(tmp_path, {"ignored.py": ""})
    assert not is_dirty(tmp_path)

    write_files(tmp_path, {"plan.json": "{}"})
    assert is_dirty(tmp_path) and not is_dirty(tmp_path / "part")
    assert not is_dirty(tmp_path, {"a.py", "b.py"})
    write_files(tmp_path, {"a.py": "changed"})
    assert is_dirty(tmp_path, {"a.py"}) and not is_dirty(tmp_path, {"b.py"})


def test_a_file_that_is_missing_counts_though_nothing_names_it(tmp_path: Path, git: Git) -> None:
    write_files(tmp_path, {"a.py": "", "b.py": ""})
    commit(git)
    (tmp_path / "b.py").unlink()
    assert is_dirty(tmp_path, {"a.py"})


def test_a_changed_submodule_stands_for_its_files(tmp_path: Path, git: Git) -> None:
    write_files(tmp_path, {"sub/a.py": ""})
    git("-C", "sub", "init", "-q")
    git("-C", "sub", "add", "-A")
    git("-C", "sub", "commit", "-q", "-m", "x")
    commit(git)  # the folder is a link to a commit now
    write_files(tmp_path, {"sub/a.py": "changed"})
    assert is_dirty(tmp_path, {"sub/a.py"}) and not is_dirty(tmp_path, {"subject.py"})


# --- where it comes from ----------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["git@example.com:shop/etl.git", "https://me:secret@example.com/shop", "../größe"])
def test_the_remote_as_it_is_written(tmp_path: Path, git: Git, url: str) -> None:
    git("remote", "add", "origin", url)
    write_files(tmp_path, {"part/a.py": ""})
    assert remote_of(tmp_path) == remote_of(tmp_path / "part") == url


def test_no_remote(tmp_path: Path, git: Git) -> None:
    assert remote_of(tmp_path) is None
    git("remote", "add", "upstream", "https://example.com/shop")
    assert remote_of(tmp_path) is None


def test_no_repository_has_no_remote(tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    git("remote", "add", "origin", "https://example.com/shop")
    (tmp_path / ".git").rename(tmp_path / "no-git")
    assert remote_of(tmp_path) is None
    assert remote_of(tmp_path / "nowhere") is None
    monkeypatch.setenv("PATH", "")
    assert remote_of(tmp_path) is None


def test_the_first_of_several_addresses(tmp_path: Path, git: Git) -> None:
    git("remote", "add", "origin", "https://one.example.com/x")
    git("remote", "set-url", "--add", "origin", "https://two.example.com/x")
    git("remote", "set-url", "--push", "origin", "https://push.example.com/x")
    assert remote_of(tmp_path) == "https://one.example.com/x"


# --- a folder as it was -----------------------------------------------------------------------------------


def test_a_folder_as_it_was_at_a_commit(tmp_path: Path, git: Git) -> None:
    write_files(tmp_path, {"part/a.py": "old", "gone.py": ""})
    first = commit(git)
    git("rm", "-q", "gone.py")
    write_files(tmp_path, {"part/a.py": "new", "part/untracked.py": ""})

    with checked_out(tmp_path / "part", first) as folder:
        assert (folder.name, sorted(path.name for path in folder.iterdir())) == ("part", ["a.py"])
        assert (folder / "a.py").read_text() == "old"
        assert commit_of(folder) == first
        write_files(folder, {".orchestrator/cache/x": ""})
    with checked_out(tmp_path, first[:10]) as whole:
        assert whole.name == tmp_path.name
        assert (whole / "gone.py").is_file()
    assert not folder.exists() and not whole.exists()
    assert git("worktree", "list", "--porcelain").count("worktree ") == 1
    assert (tmp_path / "part/a.py").read_text() == "new"
    assert git("status", "--porcelain") == "D  gone.py\n M part/a.py\n?? part/untracked.py"


def test_a_worktree_is_removed_after_a_failure(tmp_path: Path, git: Git) -> None:
    made = commit(git)
    with pytest.raises(ZeroDivisionError), checked_out(tmp_path, made):
        _ = 1 / 0
    assert git("worktree", "list", "--porcelain").count("worktree ") == 1


def test_no_hook_and_no_branch_comes_with_a_worktree(tmp_path: Path, git: Git) -> None:
    made = commit(git)
    write_files(tmp_path, {".git/hooks/post-checkout": f"#!/bin/sh\ntouch {tmp_path}/ran\n"})
    (tmp_path / ".git/hooks/post-checkout").chmod(0o755)
    branches = git("branch", "--list")
    with checked_out(tmp_path, made):
        pass
    assert not (tmp_path / "ran").exists() and git("branch", "--list") == branches


def test_a_commit_that_is_not_here(tmp_path: Path, git: Git) -> None:
    commit(git)
    with pytest.raises(ConfigurationError, match="no revision"), checked_out(tmp_path, "0" * 40):
        pass

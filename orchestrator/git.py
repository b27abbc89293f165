"""The one door to git: runs it so that neither the repository's nor the user's settings change what it does.

Reading commands, without hooks, pager, fsmonitor or external diff; git may refresh what its index knows of file times,
and keeps a note about the worktree of `checked_out` while it is there. Names come as bytes, divided by zero bytes
(`-z`), so that every file name survives.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from orchestrator.errors import ConfigurationError

SECONDS = 120  # nobody waits longer; a repository of a million files needs a few

_SETTINGS = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "core.untrackedCache=false", "submodule.recurse=false")
_ENVIRONMENT = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LITERAL_PATHSPECS": "1",
    "LC_ALL": "C",
    "LANGUAGE": "",
}
# A git hook that calls us sets these, and others may: the folder we are asked about says which repository it is.
_KEPT = ("GIT_CONFIG", "GIT_CEILING", "GIT_EXEC_PATH", "GIT_SSL", "GIT_DISCOVERY_ACROSS_FILESYSTEM")


@dataclass(frozen=True, slots=True)
class ChangedFiles:
    """What differs between a revision and the files on disk.

    Attributes:
        changed: files that exist and are new or different; a folder stands for all that lies in it (a submodule).
        deleted: files that the revision has and the disk has not; a renamed file is one of each.
    """

    changed: frozenset[str] = frozenset()
    deleted: frozenset[str] = frozenset()


def changed_files(root: Path, revision: str) -> ChangedFiles:
    """The files of a folder that differ from a revision: committed, staged, unstaged, or new and not ignored.

    Args:
        root: the folder; the whole of a git repository or a part of it.
        revision: whatever git takes for a commit; or `A...` or `A...B` for where B (else HEAD) left A, as `git diff`
            has it (git-diff(1)).

    Returns:
        Paths relative to the folder.

    Raises:
        ConfigurationError: there is no git, no repository, or no such revision.
    """
    commit = _commit(root, revision)
    options = ("--no-renames", "--no-ext-diff", "--no-textconv", "--ignore-submodules=none", "-O/dev/null")
    diff = _git(root, "diff", "--name-status", "-z", "--relative", *options, commit, "--", ".")
    new = _names(_git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", "."))
    entries = _names(diff)
    statuses = list(zip(entries[::2], entries[1::2], strict=True))
    present = {name.rstrip("/") for name in new} | {name for status, name in statuses if status != "D"}
    return ChangedFiles(frozenset(present), frozenset(name for status, name in statuses if status == "D") - present)


def commit_of(root: Path) -> str | None:
    """The full hash of the commit that a folder is at; None where there is no git, no repository or no commit yet."""
    try:
        found = _run(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    except ConfigurationError:
        return None
    return found.stdout.decode("ascii").strip() if found.returncode == 0 else None


def remote_of(root: Path) -> str | None:
    """The address of the remote repository `origin`, as it is written, secrets included; None where there is none."""
    try:
        found = _run(root, "remote", "get-url", "origin")
    except ConfigurationError:
        return None
    return found.stdout.decode("utf-8", "replace").strip() or None if found.returncode == 0 else None


def is_dirty(root: Path, files: Collection[str] | None = None) -> bool:
    """Whether a folder differs from its commit; False where there is no commit to differ from.

    Args:
        root: the folder; the whole of a git repository or a part of it.
        files: the new and changed files that count, relative to the folder; None: all. A file that is missing from the
            disk counts always: nothing that was read can name it.
    """
    if commit_of(root) is None:
        return False
    found = changed_files(root, "HEAD")
    if found.deleted or files is None:
        return bool(found.deleted or found.changed)
    folders = tuple(f"{name.rstrip('/')}/" for name in found.changed)  # a changed submodule stands for what is in it
    return any(file in found.changed or file.startswith(folders) for file in files)


@contextmanager
def checked_out(root: Path, commit: str) -> Iterator[Path]:
    """A folder as it was at a commit, in a temporary worktree (git-worktree(1)) that is gone after the block.

    Args:
        root: the folder; the whole of a git repository or a part of it.
        commit: whatever git takes for one.

    Yields:
        The same folder in the worktree. Its name is that of `root`: a project may be named after it.

    Raises:
        ConfigurationError: there is no git, no repository, or no such commit here.
    """
    commit = _commit(root, commit)
    top = Path(_line(_git(root, "rev-parse", "--show-toplevel")))
    inside = _line(_git(root, "rev-parse", "--show-prefix"))
    with TemporaryDirectory(prefix="orchestrator-") as temporary:
        tree = Path(temporary).resolve() / (top.name or "root")
        try:
            _git(root, "worktree", "add", "--quiet", "--detach", str(tree), commit)
            yield tree / inside
        finally:
            _run(root, "worktree", "remove", "--force", "--force", str(tree))


def _line(output: bytes) -> str:
    return os.fsdecode(output.removesuffix(b"\n"))


def _commit(root: Path, revision: str) -> str:
    """The hash of a commit; later commands never see what the user wrote."""
    if not revision or revision.startswith(("-", "^")) or "\0" in revision:
        raise ConfigurationError(f"{revision!r} is not a revision.", remedy="Name a commit, branch or tag of git.")
    _git(root, "rev-parse", "--git-dir")  # tells a missing repository from a missing revision
    first, dots, second = revision.partition("...")
    if dots:
        return _merge_base(root, first or "HEAD", second or "HEAD")
    found = _run(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if found.returncode:
        remedy = "Name a commit, branch or tag, or A...B for where B left A."
        raise ConfigurationError(f"git knows no revision {revision} in {root}.", remedy=_if_shallow(root, remedy))
    return found.stdout.decode("ascii").strip()


def _merge_base(root: Path, one: str, other: str) -> str:
    """The commit where two revisions parted."""
    found = _run(root, "merge-base", _commit(root, one), _commit(root, other))
    if found.returncode:
        raise ConfigurationError(
            f"{one} and {other} have no commit in common in {root}.",
            remedy=_if_shallow(root, "Name a commit, branch or tag instead."),
        )
    return found.stdout.decode("ascii").strip()


def _if_shallow(root: Path, remedy: str) -> str:
    """A remedy, and what to do about a clone that lacks old commits."""
    if _run(root, "rev-parse", "--is-shallow-repository").stdout.strip() != b"true":
        return remedy
    return (
        f"{remedy} This clone is shallow and lacks old commits: run `git fetch --unshallow`, or set `fetch-depth: 0` "
        "for actions/checkout."
    )


def _names(output: bytes) -> list[str]:
    return [os.fsdecode(name) for name in output.split(b"\0") if name]


def _git(root: Path, *arguments: str) -> bytes:
    finished = _run(root, *arguments)
    if finished.returncode:
        said = finished.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ConfigurationError(
            f"git cannot read {root}: {said[0] if said else f'it ended with {finished.returncode}'}",
            remedy="Choose a git working tree with --root, or leave out what asks git.",
        )
    return finished.stdout


def _run(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    command = ["git", "--no-pager", *settings, *arguments]
    try:
        return subprocess.run(
            command, cwd=root, env=dict(_environment()), stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS
        )
    except FileNotFoundError as error:
        if not root.is_dir():
            raise ConfigurationError(f"There is no folder {root}.", remedy="Correct --root.") from error
        raise ConfigurationError("git is not installed.", remedy="Install git, or leave out what asks it.") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"git cannot be run in {root}: {error}", remedy="See that git works there.") from error


def _environment() -> Iterator[tuple[str, str]]:
    for name, value in os.environ.items():
        if not name.startswith("GIT_") or name.startswith(_KEPT):
            yield name, value
    yield from _ENVIRONMENT.items()

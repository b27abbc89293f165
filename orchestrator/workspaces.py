"""Where the packages of a repository lie, by what its pyproject.toml files say.

A repository of several packages installs them as editable ones, so a flow imports them from wherever they are. Read
are the workspaces of uv (https://docs.astral.sh/uv/concepts/projects/workspaces/) and Hatch
(https://hatch.pypa.io/latest/config/environment/overview/), path dependencies of uv, and the tables in which
setuptools, Hatch, Poetry and PDM say where packages are.
"""

from __future__ import annotations

import fnmatch
import posixpath
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any

from orchestrator.repository import Repository


def package_roots(repository: Repository) -> tuple[str, ...]:
    """The folders that installing the repository's own packages makes importable.

    Args:
        repository: whose pyproject.toml is read, and those of the members it names.

    Returns:
        Folders that exist, relative to the root: of each member itself, its `src`, and where its tables point. A
        pyproject.toml that is not valid counts as empty.
    """
    top = _pyproject(repository, "")
    if not top:
        return ()
    members = dict.fromkeys(["", *_members(repository, top)])
    found = (root for member in members for root in _roots_of(repository, member))
    return tuple(root for root in dict.fromkeys(found) if repository.has_folder(root))


def _roots_of(repository: Repository, member: str) -> Iterator[str]:
    yield member
    for folder in ("src", *_package_folders(_pyproject(repository, member))):
        root = posixpath.normpath(posixpath.join(member, folder))
        if _is_inside(root):
            yield "" if root == "." else root


def _pyproject(repository: Repository, folder: str) -> dict[str, Any]:
    try:
        return tomllib.loads(repository.text(posixpath.join(folder, "pyproject.toml")) or "")
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}


# ---------------------------------------------------------------------------------------------------------
# Members
# ---------------------------------------------------------------------------------------------------------


def _members(repository: Repository, pyproject: dict[str, Any]) -> Iterator[str]:
    workspace = _at(pyproject, "tool", "uv", "workspace")
    excluded = {folder for each in _texts(_at(workspace, "exclude")) for folder in _expanded(repository, each)}
    for pattern in _texts(_at(workspace, "members")):
        yield from (folder for folder in _expanded(repository, pattern) if folder not in excluded)
    for source in _tables(_at(pyproject, "tool", "uv", "sources")):
        yield from _existing(repository, _texts([source.get("path")]))
    for dependency in _tables(_at(pyproject, "tool", "poetry", "dependencies")):
        yield from _existing(repository, _texts([dependency.get("path")]))
    for environment in _tables(_at(pyproject, "tool", "hatch", "envs")):
        members = _at(environment, "workspace", "members")
        for member in members if isinstance(members, list) else ():
            for pattern in _texts([member.get("path") if isinstance(member, dict) else member]):
                yield from _expanded(repository, pattern)


def _existing(repository: Repository, paths: Iterable[str]) -> Iterator[str]:
    yield from (path for each in paths if _is_inside(path := posixpath.normpath(each)) and repository.has_folder(path))


def _expanded(repository: Repository, pattern: str) -> list[str]:
    """The folders that a glob names, each part matched by itself; `**` is any number of folders."""
    normal = posixpath.normpath(pattern)
    if not _is_inside(normal):
        return []
    found = [""]
    for part in normal.split("/"):
        if part == "**":
            found = [below for folder in found for below in _below(repository, folder)]
        elif part != ".":
            found = [each for folder in found for each in _children(repository, folder, part)]
    return list(dict.fromkeys(found))


def _children(repository: Repository, folder: str, part: str) -> Iterator[str]:
    for name in sorted(repository.listing(folder).folders):
        if fnmatch.fnmatchcase(name, part) and (not name.startswith(".") or part.startswith(".")):
            yield posixpath.join(folder, name)


def _below(repository: Repository, folder: str) -> Iterator[str]:
    waiting = [folder]
    while waiting:
        yield (here := waiting.pop())
        listing = repository.listing(here)
        names = sorted(listing.folders - listing.links, reverse=True)
        waiting += [posixpath.join(here, name) for name in names if not name.startswith(".") and name != "node_modules"]


def _is_inside(path: str) -> bool:
    return bool(path) and not path.startswith(("/", "../")) and path != ".."


# ---------------------------------------------------------------------------------------------------------
# What a member says about its packages
# ---------------------------------------------------------------------------------------------------------


def _package_folders(pyproject: dict[str, Any]) -> Iterator[str]:
    """The folders that hold a project's packages, relative to it."""
    tool = _at(pyproject, "tool")
    yield from _texts(_at(tool, "setuptools", "packages", "find", "where"))
    for package, folder in _items(_at(tool, "setuptools", "package-dir")):
        yield from _texts([folder if not package else _parent_of_package(folder, package)])
    for wheel in (_at(tool, "hatch", "build", "targets", "wheel"), _at(tool, "hatch", "build")):
        yield from (posixpath.dirname(path) or "." for path in _texts(_at(wheel, "packages")))
        yield from _texts(_at(wheel, "dev-mode-dirs"))
        sources = _at(wheel, "sources")
        yield from _texts(sources if isinstance(sources, list) else [name for name, to in _items(sources) if to == ""])
    for package in _at(tool, "poetry", "packages") if isinstance(_at(tool, "poetry", "packages"), list) else ():
        yield from _texts([_at(package, "from")])
    yield from _texts([_at(tool, "pdm", "build", "package-dir"), _at(tool, "pdm", "package-dir")])


def _parent_of_package(folder: Any, package: str) -> str | None:
    """setuptools' `package-dir = {"a.b" = "lib/a/b"}` makes `lib` importable; another name is not looked for."""
    path = package.replace(".", "/")
    if not isinstance(folder, str) or not (folder == path or folder.endswith(f"/{path}")):
        return None
    return folder.removesuffix(path).rstrip("/") or "."


# ---------------------------------------------------------------------------------------------------------
# TOML of which nothing is known
# ---------------------------------------------------------------------------------------------------------


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


def _tables(value: Any) -> Iterator[dict[str, Any]]:
    for _, each in _items(value):
        yield from (table for table in (each if isinstance(each, list) else [each]) if isinstance(table, dict))


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str) and each] if isinstance(value, list) else []

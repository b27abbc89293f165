"""[tool.orchestrator] of pyproject.toml: where in a repository what is.

Read without pydantic, unlike the rest of the configuration: every command reads it, and importing pydantic takes longer
than finding the flows of a repository.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigurationError
from orchestrator.faults import did_you_mean, faulty
from orchestrator.model import ValidationError

FILE = "pyproject.toml"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectConfig:
    """The settings of a project.

    Attributes:
        project: the owner's name; by default that of the folder.
        flows: folders to look for flows in; by default `flows` where there is one, else everywhere.
        exclude: patterns of what to leave out, as in a .gitignore.
        prefect_files: patterns of the prefect.yaml files, as in a .gitignore.
        environments: the folder of the environment files.
        ignore: codes of rules whose findings nobody wants to see.
        per_file_ignores: the same for some files: pattern, as in a .gitignore → codes.
    """

    project: str = ""
    flows: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    prefect_files: tuple[str, ...] = ("prefect.yaml",)
    environments: str = "environments"
    ignore: tuple[str, ...] = ()
    per_file_ignores: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def load_project(root: Path) -> ProjectConfig:
    """Read the settings; without pyproject.toml the defaults hold.

    Args:
        root: the repository.

    Raises:
        ConfigurationError: the file cannot be read (CFG001), or with a fault for each wrong key or value.
    """
    path = root / FILE
    try:
        data = path.read_bytes() if path.is_file() else b""
        text = data.decode("utf-8")
        tools = tomllib.loads(text).get("tool", {})
    except (OSError, ValueError, RecursionError) as error:  # ValueError: of decoding, and of TOML
        raise _unreadable(error) from error
    written = tools.get("orchestrator", {}) if isinstance(tools, dict) else {}
    if faults := list(_faults(written, text)):
        raise faulty(faults)
    given = {name: _frozen(value) for name, value in written.items()}
    name = given.get("project") or re.sub(r"[^\w.-]", "-", root.name)
    folders = given.get("flows") or (("flows",) if (root / "flows").is_dir() else (".",))
    return ProjectConfig(**{**given, "project": name, "flows": folders})


def is_project(folder: Path) -> bool:
    """Whether a folder's pyproject.toml has a section for us."""
    try:
        tools = tomllib.loads((folder / FILE).read_text(encoding="utf-8")).get("tool", {})
    except (OSError, ValueError, RecursionError):  # ValueError: of decoding, and of TOML
        return False
    return isinstance(tools, dict) and "orchestrator" in tools


def require_folders(root: Path, project: ProjectConfig) -> None:
    """Make sure that the folders of the flows exist.

    Raises:
        ConfigurationError: with a fault for each that does not (CFG003).
    """
    missing = [folder for folder in project.flows if not (root / folder).exists()]
    if not missing:
        return
    text = (root / FILE).read_text(encoding="utf-8")  # only who writes `flows` there can name what does not exist
    names = [each.name for each in root.iterdir() if each.is_dir() and not each.name.startswith(".")]
    faults = [
        _fault(
            "CFG003",
            f"flows: there is no folder {folder!r}.",
            _line_of("flows", text),
            f"{did_you_mean(folder, names)}Correct `flows`, or make the folder.",
        )
        for folder in missing
    ]
    raise ConfigurationError(faults[0].message, faults=faults)


def _unreadable(error: Exception) -> ConfigurationError:
    line: int | None
    if isinstance(error, UnicodeDecodeError):
        line = error.object.count(b"\n", 0, error.start) + 1
        reason, remedy = f"it is not UTF-8 (byte 0x{error.object[error.start]:02x})", "Save the file as UTF-8."
    else:
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found else None
        reason, remedy = str(error), "Correct the TOML at this place."
    fault = ValidationError(
        code="CFG001",
        message=f"The file cannot be read: {reason}.",
        file_path=FILE,
        line_number=line,
        remediation=remedy,
    )
    return ConfigurationError(f"{FILE} cannot be read.", faults=[fault])


def _frozen(value: Any) -> Any:
    """Lists as tuples, so that nobody changes what was read."""
    if isinstance(value, list):
        return tuple(value)
    return {key: _frozen(item) for key, item in value.items()} if isinstance(value, dict) else value


# ---------------------------------------------------------------------------------------------------------
# What is wrong
# ---------------------------------------------------------------------------------------------------------


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w.-]*", value) is not None


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _are_lists(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_are_texts, value.values()))


_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "project": (_is_name, "a name of letters, digits, dots, dashes and underscores"),
    "flows": (_are_texts, "a list of folders"),
    "exclude": (_are_texts, "a list of patterns"),
    "prefect_files": (_are_texts, "a list of patterns"),
    "environments": (_is_text, "the name of a folder"),
    "ignore": (_are_texts, "a list of codes"),
    "per_file_ignores": (_are_lists, "a table of patterns, each with a list of codes"),
}


def _faults(written: Any, text: str) -> Iterator[ValidationError]:
    if not isinstance(written, dict):
        yield _fault("CFG003", "[tool.orchestrator] must be a table.", None, "Correct the value.")
        return
    known = [each.name for each in fields(ProjectConfig)]
    for key, value in written.items():
        line = _line_of(key, text)
        if key not in _KINDS:
            remedy = f"{did_you_mean(key, known)}Known: {', '.join(sorted(known))}."
            yield _fault("CFG002", f"Unknown key {key!r}.", line, remedy)
        elif not _KINDS[key][0](value):
            yield _fault("CFG003", f"{key}: must be {_KINDS[key][1]}.", line, "Correct the value.")


def _fault(code: str, message: str, line: int | None, remedy: str) -> ValidationError:
    return ValidationError(code=code, message=message, file_path=FILE, line_number=line, remediation=remedy)


def _line_of(key: str, text: str) -> int:
    """The line of a key of [tool.orchestrator]: tomllib does not tell."""
    inside, heading = False, 1
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("["):
            inside = line.strip().startswith("[tool.orchestrator")
            heading = number if inside else heading
            if inside and line.strip() == f"[tool.orchestrator.{key}]":
                return number
        elif inside and line.partition("=")[0].strip().strip("\"'") == key:
            return number
    return heading

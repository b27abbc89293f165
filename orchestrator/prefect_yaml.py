"""prefect.yaml files → declared deployments, strictly.

The schema is the one that `prefect deploy` reads (documented at docs.prefect.io under "prefect.yaml"). Prefect ignores
keys that it does not know, so a misspelt `shcedules:` deploys without a schedule; here it is a fault with file and
line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pathspec import PathSpec
from pydantic import BeforeValidator, Field, StrictBool, StrictInt, model_validator

from orchestrator.config import ScheduleSection
from orchestrator.errors import ConfigurationError
from orchestrator.model import Declaration, ValidationError
from orchestrator.strict import Section, fault, faulty, validated
from orchestrator.yaml_source import YamlDocument, read_yaml

Step = dict[str, Any]


def _as_list(value: Any) -> Any:
    """Prefect takes a single step, or a single tag, for a list of one, and an empty one for none."""
    if isinstance(value, str | dict):
        return [value] if value else None
    return value


def _none_if_empty(value: Any) -> Any:
    return None if value == {} else value  # `prefect init` writes `schedule: {}`


def _as_limit(value: Any) -> Any:
    return value if value is None or isinstance(value, dict) else {"limit": value}


Steps = Annotated[list[Step] | None, BeforeValidator(_as_list)]
Version = Annotated[str, Field(coerce_numbers_to_str=True)]


class PoolSection(Section):
    """`work_pool` of a deployment."""

    name: str | None = None
    work_queue_name: str | None = None
    job_variables: dict[str, Any] = Field(default_factory=dict)


class LimitSection(Section):
    """`concurrency_limit` of a deployment; a plain number is its `limit`."""

    limit: StrictInt | None = Field(default=None, gt=0)
    collision_strategy: str | None = Field(default=None, pattern="^(ENQUEUE|CANCEL_NEW)$")
    grace_period_seconds: StrictInt | None = Field(default=None, ge=0)


class DeclaredSchedule(ScheduleSection):
    """One schedule of a deployment."""

    replaces: str | None = None


class DeploymentSection(Section):
    """One entry of `deployments`."""

    name: str = Field(min_length=1)
    version: Version | None = None
    version_type: str | None = None
    tags: Annotated[list[str] | None, BeforeValidator(_as_list)] = None
    description: str | None = None
    schedule: Annotated[DeclaredSchedule | None, BeforeValidator(_none_if_empty)] = None
    schedules: list[DeclaredSchedule] | None = None
    paused: StrictBool | None = None
    concurrency_limit: Annotated[LimitSection | None, BeforeValidator(_as_limit)] = None
    flow_name: str | None = None
    entrypoint: str | None = None
    parameters: dict[str, Any] | None = None
    enforce_parameter_schema: StrictBool | None = None
    build: Steps = None
    push: Steps = None
    pull: Steps = None
    work_pool: PoolSection | None = None
    triggers: list[dict[str, Any]] | None = None
    sla: list[dict[str, Any]] | None = None

    @model_validator(mode="after")
    def _names_a_flow(self) -> DeploymentSection:
        if not (self.entrypoint or self.flow_name):
            raise ValueError("a deployment needs an entrypoint (path/to/file.py:function) or a flow_name")
        return self


class PrefectFile(Section):
    """A whole prefect.yaml."""

    prefect_version: str | None = Field(default=None, alias="prefect-version")
    name: str | None = None
    build: Steps = None
    push: Steps = None
    pull: Steps = None
    definitions: Any = None  # where Prefect's documentation keeps YAML anchors
    deployments: list[DeploymentSection] | None = None


def read_declarations(
    root: Path, patterns: Sequence[str]
) -> tuple[tuple[Declaration, ...], tuple[ValidationError, ...]]:
    """Read every prefect.yaml of a repository.

    Args:
        root: the repository.
        patterns: which files, in gitignore's pattern language.

    Returns:
        The declared deployments in the order of files and lines, and warnings about what is read but not used.

    Raises:
        ConfigurationError: with every fault of every file.
    """
    declarations: list[Declaration] = []
    warnings: list[ValidationError] = []
    faults: list[Any] = []
    for path in _prefect_files(root, patterns):
        try:
            document = read_yaml(path, shown_as=path.relative_to(root).as_posix())
            content = validated(PrefectFile, document.data, document)
        except ConfigurationError as error:
            faults += error.faults
            continue
        declarations += _declarations(root, content, document)
        warnings += _unused(content, document)
    if faults:
        raise faulty(faults)
    return tuple(declarations), tuple(warnings)


def _prefect_files(root: Path, patterns: Sequence[str]) -> list[Path]:
    spec = PathSpec.from_lines("gitwildmatch", patterns)
    found = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not _is_foreign(Path(folder) / name)]
        found += [Path(folder) / name for name in files if name.endswith((".yaml", ".yml"))]
    return sorted(path for path in found if spec.match_file(path.relative_to(root).as_posix()))


def _is_foreign(folder: Path) -> bool:
    return folder.name.startswith(".") or folder.name == "node_modules" or (folder / "pyvenv.cfg").exists()


def _declarations(root: Path, content: PrefectFile, document: YamlDocument) -> Iterator[Declaration]:
    home = Path(document.path).parent
    for index, section in enumerate(content.deployments or []):
        pull = section.pull if section.pull is not None else content.pull
        yield _declaration(section, pull, document, index, _folder_of(root, home, section.entrypoint))


def _folder_of(root: Path, home: Path, entrypoint: str | None) -> Path:
    """Where a deployment's paths start: its file's folder, or the root if the entrypoint is found there only.

    `prefect deploy` takes the folder in which it is called, and people call it in either.
    """
    file = (entrypoint or "").rpartition(":")[0]
    in_root_only = file and not (root / home / file).exists() and (root / file).exists()
    return Path() if in_root_only else home


def _declaration(
    section: DeploymentSection, pull: list[Step] | None, document: YamlDocument, index: int, folder: Path
) -> Declaration:
    pool = section.work_pool or PoolSection()
    limit = section.concurrency_limit or LimitSection()
    return Declaration(
        name=section.name,
        file_path=document.path,
        line_number=document.line(("deployments", index)),
        folder=folder.as_posix(),
        entrypoint=_rooted(folder, section.entrypoint),
        flow_name=section.flow_name,
        description=section.description,
        version=section.version,
        tags=tuple(section.tags or ()),
        parameters=section.parameters or {},
        work_pool=pool.name,
        work_queue=pool.work_queue_name,
        job_variables=pool.job_variables,
        schedules=tuple(rule.to_schedule() for rule in [section.schedule, *(section.schedules or [])] if rule),
        paused=section.paused,
        concurrency_limit=limit.limit,
        concurrency_options=limit.model_dump(exclude={"limit"}, exclude_none=True),
        enforce_parameter_schema=section.enforce_parameter_schema,
        pull_steps=None if pull is None else tuple(pull),
    )


def _rooted(folder: Path, entrypoint: str | None) -> str | None:
    """An entrypoint with its path relative to the root; a dotted module path stays as it is."""
    if entrypoint is None or ":" not in entrypoint:
        return entrypoint
    file, _, function = entrypoint.rpartition(":")
    return f"{(folder / file).as_posix()}:{function}"


def _unused(content: PrefectFile, document: YamlDocument) -> Iterator[ValidationError]:
    """Say what a file asks for and this version does not do, rather than dropping it in silence."""
    for key in ("build", "push"):
        if getattr(content, key):
            yield _not_used(key, document, (key,))
    for index, section in enumerate(content.deployments or []):
        for key in ("build", "push", "triggers", "sla"):
            if getattr(section, key):
                yield _not_used(key, document, ("deployments", index, key))


def _not_used(key: str, document: YamlDocument, place: tuple[str | int, ...]) -> ValidationError:
    found = fault("CFG006", f"{key!r} is read, but not carried out yet.", document, place)
    return ValidationError(
        code=found.code,
        message=found.message,
        file_path=found.file_path,
        line_number=found.line_number,
        remediation="Run it with `prefect deploy` until then.",
        severity="warning",
    )

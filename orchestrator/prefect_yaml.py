"""prefect.yaml files → declared deployments, strictly.

The schema is the one that `prefect deploy` reads (documented at docs.prefect.io under "prefect.yaml"). Prefect ignores
keys that it does not know, so a misspelt `shcedules:` deploys without a schedule; here it is a fault with file and
line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator
from pydantic import ValidationError as PydanticError

from orchestrator.config import ScheduleSection, without_anchors
from orchestrator.errors import ConfigurationError
from orchestrator.faults import faulty
from orchestrator.gitignore import Patterns
from orchestrator.model import Declaration, ScheduleConfig, ValidationError
from orchestrator.placeholders import Outputs, Unfillable, has_placeholder, unfillable, with_environment
from orchestrator.repository import Repository
from orchestrator.strict import Section, WrongValue, as_far_as_known, fault, matching
from orchestrator.yaml_source import Location, YamlDocument, read_yaml

Step = dict[str, Any]

SET_DIRECTORY = "prefect.deployments.steps.set_working_directory"


def _as_list(value: Any) -> Any:
    """Prefect takes a single step, or a single tag, for a list of one, and an empty one for none."""
    if isinstance(value, str | dict):
        return [value] if value else None
    return value


def _as_tags(value: Any) -> Any:
    """Prefect makes text of every tag and drops the blank ones; a text alone is a placeholder for a list of them."""
    values = _as_list(value)
    if not isinstance(values, list) or any(isinstance(each, list | dict) for each in values):
        return values
    return [str(each) for each in values if str(each).strip()]


_TRUTH = TypeAdapter(bool)


def _as_switch(value: Any) -> Any:
    """True, false, or a placeholder for one; nothing is true, as Prefect takes it."""
    try:
        return value if has_placeholder(value) else value is None or _TRUTH.validate_python(value)
    except PydanticError:
        raise WrongValue("must be true or false", "Write `true` or `false`, without quotes.") from None


def _none_if_empty(value: Any) -> Any:
    return None if value == {} else value  # `prefect init` writes `schedule: {}`


def _as_limit(value: Any) -> Any:
    return value if value is None or isinstance(value, dict) else {"limit": value}


Steps = Annotated[list[Step] | None, BeforeValidator(_as_list)]
Version = Annotated[str, Field(coerce_numbers_to_str=True)]


_STRATEGY = matching("ENQUEUE|CANCEL_NEW", "ENQUEUE or CANCEL_NEW", "Write ENQUEUE or CANCEL_NEW.")


class PoolSection(Section):
    """`work_pool` of a deployment."""

    name: str | None = None
    work_queue_name: str | None = None
    job_variables: dict[str, Any] = Field(default_factory=dict)


class LimitSection(Section):
    """`concurrency_limit` of a deployment; a plain number is its `limit`."""

    limit: int | None = Field(default=None, gt=0)
    collision_strategy: Annotated[str | None, _STRATEGY] = None
    grace_period_seconds: int | None = Field(default=None, ge=0)


class DeclaredSchedule(ScheduleSection):
    """One schedule of a deployment. Its switches may be placeholders, and its rrule may be JSON with a time zone."""

    active: Annotated[Any, BeforeValidator(_as_switch)] = True
    day_or: Annotated[Any, BeforeValidator(_as_switch)] = True

    @model_validator(mode="before")
    @classmethod
    def _plain_rrule(cls, data: Any) -> Any:
        return {**data, **_read_rrule(data)} if isinstance(data, Mapping) else data

    def to_schedule(self) -> ScheduleConfig:
        schedule = super().to_schedule()
        held = {name: value for name in ("active", "day_or") if isinstance(value := getattr(self, name), str)}
        active, day_or = ("active" in held or self.active, "day_or" in held or self.day_or)
        return replace(schedule, active=active, day_or=day_or, placeholders=held)


def _read_rrule(data: Mapping[str, Any]) -> dict[str, Any]:
    """The rule and the time zone of an rrule that is written as JSON; a time zone beside it counts."""
    written = data.get("rrule")
    if not isinstance(written, str) or not written.lstrip().startswith("{") or has_placeholder(written):
        return {}
    try:
        found = json.loads(written)
    except ValueError:
        return {}
    if not isinstance(found.get("rrule"), str):
        raise WrongValue("an rrule that is JSON has a text under `rrule`", 'Write {"rrule": "FREQ=DAILY"}.')
    return {"rrule": found["rrule"], "timezone": data.get("timezone") or found.get("timezone")}


class DeploymentSection(Section):
    """One entry of `deployments`."""

    name: Annotated[str, Field(min_length=1)] | None
    version: Version | None = None
    version_type: str | None = None
    tags: Annotated[list[str] | None, BeforeValidator(_as_tags)] = None
    description: str | None = None
    schedule: Annotated[DeclaredSchedule | None, BeforeValidator(_none_if_empty)] = None
    schedules: list[DeclaredSchedule] | None = None
    paused: bool | None = None
    concurrency_limit: Annotated[LimitSection | None, BeforeValidator(_as_limit)] = None
    flow_name: str | None = None
    entrypoint: str | None = None
    parameters: dict[str, Any] | None = None
    enforce_parameter_schema: bool | None = None
    build: Steps = None
    push: Steps = None
    pull: Steps = None
    work_pool: PoolSection | None = None
    triggers: list[dict[str, Any]] | None = None
    sla: list[dict[str, Any]] | None = None

    @property
    def is_blank(self) -> bool:
        """Whether it is the form to fill in that `prefect init` writes; `prefect deploy --all` skips it, too."""
        return self.name is None and not (self.entrypoint or self.flow_name)

    @model_validator(mode="after")
    def _names_a_flow(self) -> DeploymentSection:
        if self.is_blank:
            return self
        if self.name is None:
            raise WrongValue("the deployment has no name yet", "Write one under `name`.")
        if self.schedule is not None and "schedules" in self.model_fields_set:
            raise WrongValue("it has both `schedule` and `schedules`", "Move the one under `schedule` to `schedules`.")
        if not (self.entrypoint or self.flow_name):
            raise WrongValue(
                "a deployment needs an entrypoint (path/to/file.py:function) or a flow_name",
                "Add `entrypoint: path/to/file.py:function`.",
            )
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """What the prefect.yaml files of a repository say.

    Attributes:
        declarations: the deployments, in the order of files and lines.
        problems: all faults of the files, and warnings about what is read but not used.
        unread: the files that may declare more than is known.
    """

    declarations: tuple[Declaration, ...] = ()
    problems: tuple[ValidationError, ...] = ()
    unread: tuple[str, ...] = ()


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
    found = read_prefect_files(root, patterns)
    if faults := [problem for problem in found.problems if problem.severity == "error"]:
        raise faulty(faults)
    return found.declarations, found.problems


def read_prefect_files(root: Path, patterns: Sequence[str]) -> Declared:
    """Read as much of every prefect.yaml as can be read.

    Args:
        root: the repository.
        patterns: which files, in gitignore's pattern language.

    Returns:
        What they say: a file with unknown keys as if those were not there.
    """
    declarations: list[Declaration] = []
    problems: list[Any] = []
    unread: list[str] = []
    for path in prefect_files(root, patterns):
        shown_as = path.relative_to(root).as_posix()
        try:
            document = read_yaml(path, shown_as=shown_as)
        except ConfigurationError as error:
            problems += error.faults
            unread.append(shown_as)
            continue
        data = without_anchors(document.data) if isinstance(document.data, Mapping) else document.data
        content, faults = as_far_as_known(PrefectFile, data, document)
        problems += faults
        if content is None or (faults and content.deployments is None):  # `deploymnets:` perhaps
            unread.append(shown_as)
        if content is not None:
            declarations += _declarations(root, content, document)
            problems += [*_unused(content, document), *_unfilled(content, document)]
    return Declared(declarations=tuple(declarations), problems=tuple(problems), unread=tuple(unread))


def prefect_files(root: Path, patterns: Sequence[str]) -> list[Path]:
    """The prefect.yaml files of a repository, sorted.

    Args:
        root: the repository.
        patterns: which files, in gitignore's pattern language.

    Returns:
        Their places; what does not belong to the repository is left out, see `Repository.files`.
    """
    chosen = Patterns(patterns)
    found = Repository(root).files([""], (".yaml", ".yml"))
    return sorted(root / path for path in found if chosen.cover(path))


def _declarations(root: Path, content: PrefectFile, document: YamlDocument) -> Iterator[Declaration]:
    home = Path(document.path).parent
    lines = _lines_by_deployment(document)
    for index, section in enumerate(content.deployments or []):
        if section.name is None:
            continue
        build = (section.build if "build" in section.model_fields_set else content.build) or []
        push = section.push or content.push or []
        pull = section.pull if section.pull is not None else content.pull
        folder = _folder_of(root, home, section.entrypoint)
        if pull is None:
            pull = _pull_of_image(build, (root / folder).resolve().name)
        places = {_declared_place(place, section): line for place, line in lines[index].items()}
        yield _declaration(section, section.name, (build, push, pull), document.path, places, folder)


def _lines_by_deployment(document: YamlDocument) -> dict[int, dict[Location, int]]:
    """The lines of everything below each entry of `deployments`, by its place in the entry."""
    found: dict[int, dict[Location, int]] = {}
    for place, line in document.lines.items():
        match place:
            case ("deployments", int(index), *rest):
                found.setdefault(index, {})[tuple(rest)] = line
    return found


def _declared_place(place: Location, section: DeploymentSection) -> Location:
    """Where a Declaration has what the file holds at `place`: the one under `schedule` is the first of `schedules`."""
    match place:
        case ("schedule", *rest) if section.schedule is not None:
            return ("schedules", 0, *rest)
    return place


def _folder_of(root: Path, home: Path, entrypoint: str | None) -> Path:
    """Where a deployment's paths start: its file's folder, or the root if the entrypoint is found there only.

    `prefect deploy` takes the folder in which it is called, and people call it in either.
    """
    file = (entrypoint or "").rpartition(":")[0]
    in_root_only = file and not (root / home / file).exists() and (root / file).exists()
    return Path() if in_root_only else home


def _declaration(
    section: DeploymentSection,
    name: str,
    steps: tuple[list[Step], list[Step], list[Step] | None],
    path: str,
    lines: Mapping[Location, int],
    folder: Path,
) -> Declaration:
    build, push, pull = steps
    pool = section.work_pool or PoolSection()
    limit = section.concurrency_limit or LimitSection()
    entrypoint = with_environment(section.entrypoint)
    return Declaration(
        name=with_environment(name) or name,
        file_path=path,
        line_number=lines[()],
        folder=folder.as_posix(),
        entrypoint=_rooted(folder, entrypoint),
        written_entrypoint=entrypoint,
        flow_name=with_environment(section.flow_name),
        description=section.description,
        version=section.version,
        tags=tuple(section.tags or ()),
        parameters=section.parameters or {},
        work_pool=with_environment(pool.name),
        work_queue=pool.work_queue_name,
        job_variables=pool.job_variables,
        schedules=tuple(rule.to_schedule() for rule in [section.schedule, *(section.schedules or [])] if rule),
        paused=section.paused,
        concurrency_limit=limit.limit,
        concurrency_options=limit.model_dump(exclude={"limit"}, exclude_none=True),
        enforce_parameter_schema=section.enforce_parameter_schema,
        build_steps=tuple(build),
        push_steps=tuple(push),
        pull_steps=None if pull is None else tuple(pull),
        triggers=tuple(section.triggers or ()),
        lines=lines,
    )


_BUILD_IMAGE = "prefect_docker.deployments.steps.build_docker_image"


def _pull_of_image(build: list[Step], folder: str) -> list[Step] | None:
    """How the code gets into a run whose image the file builds, where it does not say: as `prefect deploy` has it.

    An image that Prefect writes the Dockerfile for holds the folder below /opt/prefect; any other holds its code where
    its own Dockerfile puts it, and nothing is pulled.
    """
    step = next((step[_BUILD_IMAGE] for step in build if step.get(_BUILD_IMAGE)), None)
    if step is None:
        return None
    is_written_by_prefect = isinstance(step, Mapping) and step.get("dockerfile") == "auto"
    return [{SET_DIRECTORY: {"directory": f"/opt/prefect/{folder}"}}] if is_written_by_prefect else []


def _rooted(folder: Path, entrypoint: str | None) -> str | None:
    """An entrypoint with its path relative to the root; a dotted module path stays as it is."""
    if entrypoint is None or ":" not in entrypoint:
        return entrypoint
    file, _, function = entrypoint.rpartition(":")
    return f"{(folder / file).as_posix()}:{function}"


def _unused(content: PrefectFile, document: YamlDocument) -> Iterator[ValidationError]:
    """Say what a file asks for and this version does not do, rather than dropping it in silence."""
    for index, section in enumerate(content.deployments or []):
        if section.is_blank:
            yield _blank(index, document)
        if section.sla:
            yield _no_service_levels(document, ("deployments", index, "sla"))


def _blank(index: int, document: YamlDocument) -> ValidationError:
    found = fault("CFG006", "The deployment has no name and no entrypoint yet: it is left out.", document, ())
    return replace(
        found,
        line_number=document.line(("deployments", index)),
        remediation="Fill in `name` and `entrypoint`, or remove it.",
        severity="warning",
    )


def _no_service_levels(document: YamlDocument, place: tuple[str | int, ...]) -> ValidationError:
    message = "'sla' is read, but not carried out: only Prefect Cloud has service levels."
    remedy = "Remove it, or use `prefect deploy` with Prefect Cloud."
    return replace(fault("CFG006", message, document, place, remedy), severity="warning")


_STEPS = ("build", "push", "pull")


def _unfilled(content: PrefectFile, document: YamlDocument) -> Iterator[ValidationError]:
    """The placeholders that nothing fills, where `prefect deploy` or a run would fill them."""
    outputs = Outputs()
    for section in (content, *(content.deployments or [])):
        for key in _STEPS:
            for step in getattr(section, key) or []:
                outputs.add(step)
    for place, value in _templated(content):
        for found in unfillable(value, place, outputs):
            yield _unfilled_warning(found, document)


def _templated(content: PrefectFile) -> Iterator[tuple[Location, Any]]:
    """What holds Prefect's placeholders. Parameters and triggers may hold templates of other makes."""
    for key in _STEPS:
        yield (key,), getattr(content, key)
    for index, section in enumerate(content.deployments or []):
        place = ("deployments", index)
        for key in (*_STEPS, "tags", "version"):
            yield (*place, key), getattr(section, key)
        if section.work_pool:
            yield (*place, "work_pool"), section.work_pool.model_dump()


def _unfilled_warning(found: Unfillable, document: YamlDocument) -> ValidationError:
    return ValidationError(
        code="DPL012",
        message=f"Nothing fills the placeholder {found.text}.",
        file_path=document.path,
        line_number=document.line(found.place),
        remediation=found.remedy,
        severity="warning",
    )

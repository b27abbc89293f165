"""What people write: project settings in pyproject.toml, environments in environments/*.yaml.

Read strictly: an unknown key, a wrong type or an unknown placeholder is a fault with file, line and remedy, and all
faults of a run are reported together. `base.yaml` holds what the environments share; `<name>.yaml` is merged over it
(mappings merge, scalars and lists replace).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, StrictBool, StrictInt, TypeAdapter, model_validator
from pydantic import ValidationError as PydanticError

from orchestrator.errors import ConfigurationError
from orchestrator.faults import did_you_mean, faulty
from orchestrator.model import DEFAULT_ENVIRONMENT, KINDS, FlowMetadata, Kind, ScheduleConfig, ValidationError
from orchestrator.project import ProjectConfig, is_project, load_project
from orchestrator.strict import Section, WrongValue, as_far_as_known, fault, matching, written_in
from orchestrator.yaml_source import Location, YamlDocument, read_yaml

DEPLOYER_FLOW = "deploy-everything"
PLACEHOLDER = re.compile(r"(?<!\{)\{([A-Za-z_][\w-]*(?:\.[\w-]+)*)\}(?!\})")
IMAGE = "{{ image }}"  # Prefect's placeholder for what the latest build step gives
FLOW_PLACEHOLDERS = ("image", "flow.name", "flow.path", "flow.module_path", "flow.function_name", "kind", "project")

Positive = Annotated[StrictInt, Field(gt=0)]
NonEmpty = Annotated[str, Field(min_length=1)]


LOCAL_WORKERS = ("process", "docker")
"""The types of pools for which `bootstrap` can start a worker here."""


class QueueConfig(Section):
    """A work queue of a pool."""

    priority: Positive | None = None
    concurrency_limit: Annotated[StrictInt, Field(ge=0)] | None = None
    description: str | None = None


class WorkPoolConfig(Section):
    """A work pool. Created when missing; of an existing one what is written here is set and the rest left alone."""

    name: NonEmpty
    type: NonEmpty
    description: str | None = None
    concurrency_limit: Annotated[StrictInt, Field(ge=0)] | None = None
    queues: dict[str, QueueConfig] = Field(default_factory=dict)
    local_worker: StrictBool = False  # bootstrap starts a worker on this machine when none is online


class GlobalLimitConfig(Section):
    """A global concurrency limit; a plain number is its `limit`."""

    limit: Positive
    slot_decay_per_second: Annotated[float, Field(ge=0)] | None = None


def _as_limit(value: Any) -> Any:
    return value if isinstance(value, Mapping) else {"limit": value}


GlobalLimit = Annotated[GlobalLimitConfig, BeforeValidator(_as_limit)]

_A_SIZE = matching(r"\d+(\.\d+)?(Ki|Mi|Gi|Ti|k|K|M|G|T)?", "a size", "Write a number and a unit: 512Mi or 2Gi.")
_A_SHARE = matching(r"\d+(\.\d+)?m?", "a number of CPUs", "Write cores or thousandths of one: 2, 0.5 or 500m.")
_AN_ADDRESS = matching(
    r"https?://[^\s/]+(/\S*)?", "an address", "Write it with http:// or https://: http://host:4200/api."
)


_A_REGISTRY = matching(
    r"[a-zA-Z0-9][\w.\-]*(:\d+)?(/[a-z0-9][a-z0-9._\-]*)*/?",
    "a registry",
    "Write its host, and the path below it if there is one, without https://: registry.example.com/team.",
)
_A_BLOCK = matching(
    r"\{\{\s*prefect\.blocks\.[\w\-]+\.[\w.\-]+\s*\}\}",
    "a reference to a block",
    "Write {{ prefect.blocks.docker-registry-credentials.NAME }}; values do not belong into a file.",
)


class ResourceLimits(Section):
    """Limits for one run, translated into the pool type's own job variables."""

    memory: Annotated[str | None, _A_SIZE] = None
    cpu: Annotated[str | None, Field(coerce_numbers_to_str=True), _A_SHARE] = None


def _as_moment(value: Any) -> Any:
    """A date or time (YAML makes them of what looks like one) in the form in which the server echoes it."""
    if isinstance(value, str) and "{{" in value:
        return value  # a placeholder of Prefect's
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        form = "2024-01-31 or 2024-01-31T05:00:00+01:00"
        raise WrongValue(f"no date or time; write it as {form}", f"Write it as {form}.") from None
    if isinstance(moment, date) and not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    if not isinstance(moment, datetime):
        return value  # nothing, or of the wrong type
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.isoformat().replace("+00:00", "Z")


_DURATION = TypeAdapter(timedelta)


def _as_duration(value: Any) -> Any:
    """An interval in any of its forms; what is wrong with it is said in our words."""
    try:
        duration = _DURATION.validate_python(value)
    except PydanticError:
        forms = "seconds (900), HH:MM:SS or ISO 8601 (PT15M)"
        raise WrongValue(f"no interval; write {forms}", f"Write {forms}.") from None
    if duration <= timedelta(0):
        raise WrongValue("an interval must be longer than nothing", "Write more than 0 seconds.")
    return duration


class ScheduleSection(Section):
    """One schedule: exactly one of cron, interval (seconds, HH:MM:SS or ISO 8601) and rrule."""

    cron: NonEmpty | None = None
    interval: Annotated[timedelta, BeforeValidator(_as_duration)] | None = None
    rrule: NonEmpty | None = None
    timezone: str | None = None
    anchor_date: Annotated[str | None, BeforeValidator(_as_moment)] = None
    day_or: StrictBool = True
    active: StrictBool = True
    parameters: dict[str, Any] = Field(default_factory=dict)
    slug: NonEmpty | None = None
    replaces: NonEmpty | None = None  # the slug that it had before

    @model_validator(mode="after")
    def _exactly_one_rule(self) -> ScheduleSection:
        if sum(rule is not None for rule in (self.cron, self.interval, self.rrule)) != 1:
            raise WrongValue(
                "a schedule has exactly one of cron, interval and rrule", "Keep or add one; write a schedule for each."
            )
        return self

    def to_schedule(self) -> ScheduleConfig:
        """The noun that later stages take, with the time zone that the server fills in."""
        values = {name: getattr(self, name) for name in ScheduleConfig.__dataclass_fields__ if name != "placeholders"}
        interval = self.interval.total_seconds() if self.interval else None
        timezone = self.timezone or (None if self.cron else "UTC")
        return ScheduleConfig(**{**values, "interval": interval, "timezone": timezone})


class DeploymentSettings(Section):
    """What templates and overrides may say about a deployment."""

    work_pool: NonEmpty | None = None
    work_queue: NonEmpty | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    job_variables: dict[str, Any] = Field(default_factory=dict)
    schedules: tuple[ScheduleSection, ...] | None = None
    tags: tuple[str, ...] = ()
    description: str | None = None
    version: str | None = None
    paused: StrictBool | None = None
    concurrency_limit: Positive | None = None


class DeploymentTemplate(DeploymentSettings):
    """The deployment that a flow gets which no prefect.yaml mentions. Texts may hold placeholders.

    Without a work pool it takes the environment's pool of its kind.
    """

    name: NonEmpty = "{environment.name}-{kind}"
    parameters: dict[str, Any] | Literal["{environment.default_parameters}"] = Field(  # type: ignore[assignment]
        default_factory=dict
    )


class DeploymentOverride(DeploymentSettings):
    """What an environment changes in the deployments that a pattern selects."""


class Policy(Section):
    """What a sync may do by itself."""

    prune: StrictBool = True  # delete what we own and no longer want
    delete_limit: Annotated[StrictInt, Field(ge=0)] = 10  # more deletes than this AND ...
    delete_share: Annotated[float, Field(ge=0, le=1)] = 0.3  # ... this share of all that we own need --allow-delete
    keep_revisions: Annotated[StrictInt, Field(ge=2)] = 20  # recorded applies to go back to; older ones are deleted


class ImageBuildConfig(Section):
    """How the image of one Dockerfile is built. Paths are relative to the repository's root."""

    context: str | None = None  # default: the folder in which all that the Dockerfile copies lies, the root first
    target: NonEmpty | None = None
    platform: NonEmpty | None = None
    arguments: dict[str, Annotated[str, Field(coerce_numbers_to_str=True)]] = Field(default_factory=dict)
    whole_context: StrictBool = False  # files that no COPY names count as well: for base images with ONBUILD
    repository: NonEmpty | None = None  # its name below docker_registry; default: project and Dockerfile


class ImagesConfig(Section):
    """How images are built."""

    parallel: Positive = 2
    timeout_minutes: Positive = 30
    platform: NonEmpty | None = None  # of all of them; default: the engine's own
    builds: dict[str, ImageBuildConfig] = Field(default_factory=dict)  # Dockerfile → how


class DeployerConfig(Section):
    """The deployment of deploy-everything itself."""

    name: str | None = None  # default: the environment's name
    schedule: ScheduleSection | None = None
    scheduled_mode: Literal["plan", "apply"] = "apply"


@dataclass(frozen=True, slots=True)
class _Written:
    """The files that an environment was read from. Two environments that say the same are equal, wherever they do."""

    documents: tuple[YamlDocument, ...] = field(default=(), compare=False)


class EnvironmentConfig(Section):
    """One environment: base.yaml with <name>.yaml merged over it."""

    given_by_file_name: ClassVar[frozenset[str]] = frozenset({"name"})

    _written: _Written = PrivateAttr(default_factory=_Written)

    name: str
    prefect_api_url: Annotated[str | None, _AN_ADDRESS] = None
    work_pools: dict[Kind, WorkPoolConfig] = Field(default_factory=dict)
    default_parameters: dict[str, Any] = Field(default_factory=dict)
    resource_limits: ResourceLimits = ResourceLimits()
    docker_registry: Annotated[str | None, _A_REGISTRY] = (
        None  # what names of images start with: registry.example.com/team
    )
    docker_registry_credentials: Annotated[str | None, _A_BLOCK] = None
    images: ImagesConfig = ImagesConfig()
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] | None = None
    concurrency_limits: dict[str, Positive] = Field(default_factory=dict)  # task tag → slots
    global_concurrency_limits: dict[str, GlobalLimit] = Field(default_factory=dict)  # name → slots
    templates: dict[Kind, DeploymentTemplate] = Field(default_factory=dict)
    select: tuple[str, ...] = ("*",)  # which declared deployments belong here, by pattern on flow/deployment
    deployments: dict[str, DeploymentOverride] = Field(default_factory=dict)  # pattern → overrides
    policy: Policy = Policy()
    deployer: DeployerConfig = DeployerConfig()

    @property
    def deployer_name(self) -> str:
        return self.deployer.name or self.name

    def place(self, *location: str | int) -> tuple[str | None, int | None]:
        """File and line of a value (`"deployer", "schedule", "cron"`), or of the nearest thing around it.

        Where both files say something, the overlay's counts: its value holds. Nothing where the environment was not
        read from files.
        """
        document = written_in(location, self._written.documents)
        return (document.path, document.line(location)) if document else (None, None)


# ---------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------


class ConfigurationManager:
    """The configuration of one repository."""

    def __init__(self, root: Path | str = ".") -> None:
        self.root = Path(root).resolve()
        if not self.root.is_dir():
            raise ConfigurationError("There is no such folder.", location=str(self.root), remedy="Correct --root.")

    def load_project(self) -> ProjectConfig:
        """Read [tool.orchestrator]; without pyproject.toml the defaults hold.

        Raises:
            ConfigurationError: with a fault for each wrong key or value.
        """
        return load_project(self.root)

    def environments(self) -> tuple[str, ...]:
        """The names of the environments that have a file."""
        folder = self.root / self.load_project().environments
        return tuple(sorted(path.stem for path in folder.glob("*.yaml") if path.stem != "base"))

    def load_environment_config(self, env: str = DEFAULT_ENVIRONMENT) -> EnvironmentConfig:
        """Read one environment.

        Args:
            env: its name. Where the repository has no environment files at all, every name gives the defaults.

        Raises:
            ConfigurationError: there are environments, but none of that name (CFG004); or a fault for each wrong
                key, value or placeholder.
        """
        found, faults = self.read_environment(env)
        if faults:
            raise faulty(faults)
        return found

    def read_environment(self, env: str) -> tuple[EnvironmentConfig, tuple[ValidationError, ...]]:
        """Read as much of one environment as can be read.

        Args:
            env: its name.

        Returns:
            The environment as if unknown keys, kinds and placeholders were not there, the defaults where more is
            wrong; and every fault.

        Raises:
            ConfigurationError: there are environments, but none of that name (CFG004).
        """
        folder = self.load_project().environments
        files = [f"{folder}/base.yaml", f"{folder}/{env}.yaml"]
        self.require_environment(env)
        documents: list[YamlDocument] = []
        faults: list[Any] = []
        for file in files:
            try:
                documents += [read_yaml(self.root / file, shown_as=file)] if (self.root / file).is_file() else []
            except ConfigurationError as error:
                faults += error.faults
        if faults:
            return EnvironmentConfig(name=env), tuple(faults)
        return _environment_from(env, documents)

    def other_environments(self, env: str) -> tuple[EnvironmentConfig, ...]:
        """The environments besides one. Those with faults are left out: they are told where these are checked."""
        found = [self.read_environment(name) for name in self.environments() if name != env]
        return tuple(environment for environment, faults in found if not faults)

    def has_environment_files(self) -> bool:
        return any((self.root / self.load_project().environments).glob("*.yaml"))

    def require_environment(self, env: str) -> None:
        """Make sure that there is an environment.

        Raises:
            ConfigurationError: there are environments, but none of that name (CFG004).
        """
        known, file = self.environments(), f"{self.load_project().environments}/{env}.yaml"
        if env in known or not self.has_environment_files():
            return
        message = f"There is no environment {env!r}."
        here = f"Environments here: {', '.join(known) or 'none'}."
        remedy = f"{did_you_mean(env, known)}{here} Write {file} to add it."
        missing = ValidationError(code="CFG004", message=message, file_path=file, remediation=remedy)
        raise ConfigurationError(message, faults=[missing])

    def require_project(self) -> None:
        """Make sure that this is no mere folder inside of a project: it would count as a project of its own, with
        another name and deployments that clash with the true ones.

        Raises:
            ConfigurationError: it is.
        """
        if self.has_environment_files() or is_project(self.root):
            return
        if outer := next((folder for folder in self.root.parents if is_project(folder)), None):
            raise ConfigurationError(
                "This is no project, but a folder inside of one.",
                location=str(self.root),
                remedy=f"Call it in {outer}, or with --root {outer}.",
            )


def merge(base: Any, over: Any) -> Any:
    """Mappings merge key by key; anything else is replaced."""
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        return {**base, **{key: merge(base.get(key), value) for key, value in over.items()}}
    return over


def _environment_from(
    env: str, documents: Sequence[YamlDocument]
) -> tuple[EnvironmentConfig, tuple[ValidationError, ...]]:
    data: Any = {}
    for document in documents:
        if not isinstance(document.data, Mapping):
            wrong = fault("CFG003", "The file must hold a mapping.", document, (), "Write `key: value` pairs.")
            return EnvironmentConfig(name=env), (wrong,)
        data = merge(data, without_anchors(document.data))
    faults = [*_own_name(data, documents), *_unknown_kinds(data, documents)]
    known = {**_of_known_kinds(data), "name": env}
    environment, found = as_far_as_known(EnvironmentConfig, known, *documents)
    if environment is None:
        environment = EnvironmentConfig(name=env, work_pools=dict(_pools_in(known)))
    faults += [*found, *_local_workers(environment, documents), *_resource_faults(environment, documents)]
    faults += _placeholder_faults(environment, documents)
    environment._written = _Written(tuple(documents))
    return environment, tuple(faults)


def without_anchors(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says, without the keys at its top where people keep YAML anchors: `x-common`, `.common`."""
    return {key: value for key, value in data.items() if not key.startswith(("x-", "."))}


def _own_name(data: Mapping[str, Any], documents: Sequence[YamlDocument]) -> Iterator[ValidationError]:
    if "name" in data:
        document = written_in(("name",), documents)
        yield fault("CFG002", "The environment's name is its file's name.", document, ("name",), "Remove this key.")


def _pools_in(data: Mapping[str, Any]) -> Iterator[tuple[Kind, WorkPoolConfig]]:
    """The pools of an environment with faults, as far as they are known."""
    written = data.get("work_pools")
    for kind, pool in written.items() if isinstance(written, Mapping) else ():
        name, type_ = (pool.get("name"), pool.get("type")) if isinstance(pool, Mapping) else (None, None)
        if name and type_ and isinstance(name, str) and isinstance(type_, str):
            is_local = pool.get("local_worker") is True
            yield kind, WorkPoolConfig(name=name, type=type_, local_worker=is_local)


def _local_workers(environment: EnvironmentConfig, documents: Sequence[YamlDocument]) -> Iterator[ValidationError]:
    """Bootstrap can start workers for processes and for containers of this machine's engine."""
    for kind, pool in environment.work_pools.items():
        if pool.local_worker and pool.type not in LOCAL_WORKERS:
            location = ("work_pools", kind, "type")
            message = f"work_pools.{kind}.type: local_worker needs a pool of type {' or '.join(LOCAL_WORKERS)}."
            remedy = "Write `type: process` or `type: docker`, or remove `local_worker`."
            yield fault("CFG003", message, written_in(location, documents), location, remedy)


_NOT_IN_NAMES = "/%&<>"  # Prefect's own rule; a task tag with one of these it answers with 500 and no reason
_PREFECTS_OWN = ("tag:", "deployment:")  # how the server names the limits of tags and deployments among the global ones


def _resource_faults(environment: EnvironmentConfig, documents: Sequence[YamlDocument]) -> Iterator[ValidationError]:
    """Pools, queues and limits that no server can have as they are written."""
    for location, name in _resource_names(environment):
        if any(character in name for character in _NOT_IN_NAMES):
            message = f"{'.'.join(location)}: a name may not hold {' '.join(_NOT_IN_NAMES)}."
            yield fault("CFG003", message, written_in(location, documents), location, "Choose another name.")
    for name in environment.global_concurrency_limits:
        if name.startswith(_PREFECTS_OWN):
            location = ("global_concurrency_limits", name)
            message = f"{'.'.join(location)}: names that start with {' or '.join(_PREFECTS_OWN)} are Prefect's own."
            remedy = "Write limits of task tags under concurrency_limits, those of deployments with the deployment."
            yield fault("CFG003", message, written_in(location, documents), location, remedy)
    yield from _unlike_pools(environment, documents)
    yield from _equal_priorities(environment, documents)


def _resource_names(environment: EnvironmentConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    for kind, pool in environment.work_pools.items():
        yield ("work_pools", kind, "name"), pool.name
        yield from ((("work_pools", kind, "queues", name), name) for name in pool.queues)
    yield from ((("concurrency_limits", name), name) for name in environment.concurrency_limits)
    yield from ((("global_concurrency_limits", name), name) for name in environment.global_concurrency_limits)


def _unlike_pools(environment: EnvironmentConfig, documents: Sequence[YamlDocument]) -> Iterator[ValidationError]:
    """One pool for both kinds, described in two ways."""
    first: dict[str, Kind] = {}
    for kind, pool in environment.work_pools.items():
        other = environment.work_pools[first.setdefault(pool.name, kind)]
        for key in ("type", "description", "concurrency_limit"):
            if getattr(pool, key) != getattr(other, key):
                location = ("work_pools", kind, key)
                message = f"work_pools.{kind}.{key}: work_pools.{first[pool.name]} says otherwise of the same pool."
                remedy = "Write the same in both, or give one of the pools another name."
                yield fault("CFG003", message, written_in(location, documents), location, remedy)


def _equal_priorities(environment: EnvironmentConfig, documents: Sequence[YamlDocument]) -> Iterator[ValidationError]:
    """Queues of one pool with one priority: the server moves one of them down, and a plan would never come to rest."""
    holders: dict[tuple[str, int], str] = {}
    for kind, pool in environment.work_pools.items():
        for name, queue in pool.queues.items():
            if queue.priority is None or holders.setdefault((pool.name, queue.priority), name) == name:
                continue
            location = ("work_pools", kind, "queues", name, "priority")
            message = f"{'.'.join(location)}: the queue {holders[pool.name, queue.priority]} has it already."
            remedy = "Give each queue of a pool a priority of its own, or leave it out."
            yield fault("CFG003", message, written_in(location, documents), location, remedy)


_BY_KIND = ("work_pools", "templates")


def _unknown_kinds(data: Mapping[str, Any], documents: Sequence[YamlDocument]) -> Iterator[ValidationError]:
    """Pools and templates of a kind that there is not."""
    for section in _BY_KIND:
        written = data.get(section)
        for kind in written if isinstance(written, Mapping) else ():
            if kind not in KINDS:
                location = (section, str(kind))
                message = f"Unknown kind {str(kind)!r} under {section}."
                remedy = (
                    f"{did_you_mean(str(kind), KINDS)}The kinds are {' and '.join(KINDS)}; a pool's `type` is free."
                )
                yield fault("CFG008", message, written_in(location, documents), location, remedy)


def _of_known_kinds(data: Mapping[str, Any]) -> dict[str, Any]:
    """`data` without what `_unknown_kinds` reports, so that the rest is checked as well."""
    return {
        key: {kind: inner for kind, inner in value.items() if kind in KINDS}
        if key in _BY_KIND and isinstance(value, Mapping)
        else value
        for key, value in data.items()
    }


# ---------------------------------------------------------------------------------------------------------
# Placeholders
# ---------------------------------------------------------------------------------------------------------


def environment_values(environment: EnvironmentConfig) -> dict[str, Any]:
    """What `{environment.…}` placeholders stand for."""
    pools = {f"environment.work_pools.{kind}": pool.name for kind, pool in environment.work_pools.items()}
    return {
        "environment.name": environment.name,
        "environment.prefect_api_url": environment.prefect_api_url or "",
        "environment.default_parameters": dict(environment.default_parameters),
        "environment.docker_registry": environment.docker_registry or "",
        **pools,
    }


def template_values(environment: EnvironmentConfig, flow: FlowMetadata, kind: Kind, project: str) -> dict[str, Any]:
    """What the placeholders of a template stand for when it makes a deployment of `flow`."""
    of_flow = {f"flow.{name}": getattr(flow, name) for name in ("name", "path", "module_path", "function_name")}
    return {**environment_values(environment), **of_flow, "image": IMAGE, "kind": kind, "project": project}


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """Replace placeholders in a template; one that is the whole text keeps its value's type.

    Raises:
        KeyError: a placeholder has no value.
    """
    if isinstance(template, str):
        whole = PLACEHOLDER.fullmatch(template)
        return values[whole[1]] if whole else PLACEHOLDER.sub(lambda match: str(values[match[1]]), template)
    if isinstance(template, Mapping):
        return {key: fill(value, values) for key, value in template.items()}
    if isinstance(template, list | tuple):
        return [fill(item, values) for item in template]
    return template


def _placeholder_faults(environment: EnvironmentConfig, documents: Sequence[YamlDocument]) -> Iterator[ValidationError]:
    known = {*environment_values(environment), *FLOW_PLACEHOLDERS}
    for kind, template in environment.templates.items():
        written = template.model_dump(exclude_none=True)
        for location, placeholder in _placeholders(written, ("templates", kind)):
            if placeholder in known:
                continue
            document = next((d for d in reversed(documents) if d.has(location)), documents[-1])
            remedy = f"{did_you_mean(placeholder, known)}Known: {', '.join(sorted(known))}."
            yield fault("CFG005", f"Unknown placeholder {{{placeholder}}}.", document, location, remedy)


def _placeholders(value: Any, location: Location) -> Iterator[tuple[Location, str]]:
    if isinstance(value, str):
        yield from ((location, match[1]) for match in PLACEHOLDER.finditer(value))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _placeholders(inner, (*location, key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _placeholders(inner, (*location, index))

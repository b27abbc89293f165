"""Flows + declarations + one environment → what the environment should have.

A declared deployment keeps what its prefect.yaml says; the environment adds its work pool where none is named, its
default parameters where the flow has them, and its overrides. A flow that no prefect.yaml mentions gets a deployment
from each template of the environment that fits it. Last comes the deployer's own deployment.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from orchestrator.config import (
    DEPLOYER_FLOW,
    IMAGE,
    DeploymentOverride,
    DeploymentTemplate,
    EnvironmentConfig,
    fill,
    merge,
    template_values,
)
from orchestrator.deploy_steps import implied_step, steps_of
from orchestrator.entrypoints import Resolver
from orchestrator.images.specs import FlowImage, place_in_image
from orchestrator.model import (
    TAG_LENGTH,
    Declaration,
    DeploymentConfig,
    DeployStep,
    Desired,
    Discovery,
    FlowMetadata,
    Kind,
    Owner,
    ScheduleConfig,
    ValidationError,
)
from orchestrator.placeholders import has_placeholder
from orchestrator.resource_limits import limit_variables

DEPLOYER_ENTRYPOINT = "orchestrator.deployer.deploy_everything"  # a module path: it works from any folder
SET_DIRECTORY = "prefect.deployments.steps.set_working_directory"
IN_IMAGE = "/opt/prefect"  # the folder in which `prefect deploy` expects the code of an image that it does not build
NO_IMAGES: Mapping[str, FlowImage] = {}
# A worker hands its own PREFECT_HOME down, a folder that a container does not have and may not make.
_IN_CONTAINER: Mapping[str, Any] = {"image": IMAGE, "env": {"PREFECT_HOME": "/tmp/prefect"}}
DEFAULT_QUEUE = "default"  # the server files a deployment without a queue under its pool's default queue


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which part of the desired state a command is about."""

    only: tuple[str, ...] = ()  # patterns on flow/deployment; none: all
    kind: Kind | None = None
    declared_only: bool = False  # nothing by template

    def takes(self, path: str, kind: Kind) -> bool:
        wanted = not self.only or any(fnmatchcase(path, pattern) for pattern in self.only)
        return wanted and self.kind in (None, kind)

    @property
    def is_everything(self) -> bool:
        return not self.only and self.kind is None and not self.declared_only


def desired_state(
    *,
    root: Path,
    project: str,
    environment: EnvironmentConfig,
    discovery: Discovery,
    declarations: Sequence[Declaration],
    schemas: Mapping[str, Mapping[str, Any]],
    images: Mapping[str, FlowImage] = NO_IMAGES,
    folders: Sequence[str] = (".",),
    problems: Sequence[ValidationError] = (),
) -> Desired:
    """Work out what `environment` should have.

    Args:
        root: the checkout that the workers run from: pull steps name it.
        project: the owner's name.
        environment: its configuration.
        discovery: the flows of the repository.
        declarations: what the prefect.yaml files declare.
        schemas: parameter schemas by entrypoint (relative to the root, or the deployer's module path).
        images: of the Dockerfiles that belong to flows, by the Dockerfile's path.
        folders: where undeclared flows get deployments by template; one in a file that only a declaration points to
            does not.
        problems: the faults found so far. Flows and declarations with one are left out, and so are their deployments.

    Returns:
        The deployments in the order in which they are applied (the deployer's own last), and what was left out.
    """
    owner = Owner(project=project, environment=environment.name)
    builder = _Builder(root, owner, environment, schemas, images)
    flow_of = Resolver(discovery.flows)
    resolved = [(item, flow_of(item)) for item in declarations]
    mentioned = {flow.entrypoint for _, flow in resolved if flow}
    selected = [(item, flow) for item, flow in resolved if _belongs(_path_of(item, flow), environment)]
    faulty = {problem.declaration for problem in problems if problem.skips}
    sound = [(item, flow) for item, flow in selected if item.location not in faulty]
    usable = [(item, flow) for item, flow in sound if flow is not None and flow.is_valid]
    left_out = [
        _path_of(item, flow) for item, flow in selected if item.location in faulty or flow is None or not flow.is_valid
    ]
    usual = [flow for flow in discovery.flows if flow.is_valid and _is_in(flow.path, folders)]
    undeclared = [flow for flow in usual if flow.entrypoint not in mentioned and not flow.needs_instance]
    unreadable = [each.file_path for each in problems if each.skips and each.file_path and not each.declaration]
    broken = [flow.path for flow in discovery.flows if not flow.is_valid]  # the fault may lie in what they import
    nameless = [flow.path for item, flow in selected if item.location in faulty and flow and has_placeholder(item.name)]
    return Desired(
        owner=owner,
        deployments=(
            *(builder.declared(item, flow) for item, flow in usable),
            *(config for flow in undeclared for config in builder.by_template(flow)),
            *builder.deployer(),
        ),
        skipped_paths=tuple(left_out),
        skipped_files=tuple(dict.fromkeys([*unreadable, *broken, *nameless])),
        problems=tuple(problems),
    )


def from_template(
    *,
    root: Path,
    project: str,
    environment: EnvironmentConfig,
    flow: FlowMetadata,
    kind: Kind,
    schemas: Mapping[str, Mapping[str, Any]],
    images: Mapping[str, FlowImage] = NO_IMAGES,
) -> DeploymentConfig:
    """The deployment that `environment` makes of one flow, whether or not a prefect.yaml mentions the flow.

    Args:
        root, project, environment, schemas, images: as for `desired_state`.
        flow: the flow.
        kind: which template to use; an environment without one gives the defaults of a template.
    """
    builder = _Builder(root, Owner(project=project, environment=environment.name), environment, schemas, images)
    return builder.of_kind(flow, kind, environment.templates.get(kind) or DeploymentTemplate())


def select(desired: Desired, selection: Selection) -> Desired:
    """The part of the desired state that a selection takes."""
    taken = tuple(
        config
        for config in desired.deployments
        if selection.takes(config.deployment_path, config.deployment_type)
        and not (selection.declared_only and config.origin == "template")
    )
    return replace(desired, deployments=taken)


def deployer_version() -> str:
    """The digest of this package's own sources: what the deployer runs."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


class _Builder:
    """Makes deployments for one environment."""

    def __init__(
        self,
        root: Path,
        owner: Owner,
        environment: EnvironmentConfig,
        schemas: Mapping[str, Mapping[str, Any]],
        images: Mapping[str, FlowImage],
    ) -> None:
        self.root, self.owner, self.environment, self.schemas = root, owner, environment, schemas
        self.images = images

    def declared(self, item: Declaration, flow: FlowMetadata) -> DeploymentConfig:
        """A deployment from a prefect.yaml."""
        kind = self._kind_of(item)
        config = DeploymentConfig(
            flow_name=flow.name,
            deployment_name=item.name,
            deployment_type=kind,
            origin="declared",
            source=item.location,
            entrypoint=item.written_entrypoint or _relative_to(item.folder, item.entrypoint or flow.entrypoint),
            work_pool=item.work_pool or self._pool(kind),
            work_queue=item.work_queue,
            parameters={**self._default_parameters(flow), **item.parameters},
            job_variables=item.job_variables,
            pull_steps=self._default_pull(item) if item.pull_steps is None else item.pull_steps,
            schedules=item.schedules,
            paused=bool(item.paused),
            tags=item.tags,
            description=item.description or flow.description,
            version=item.version or flow.closure_digest[:TAG_LENGTH],
            follows_code=item.version is None,
            concurrency_limit=item.concurrency_limit,
            concurrency_options=item.concurrency_options,
            enforce_parameter_schema=item.enforce_parameter_schema is not False,
            parameter_schema=self.schemas.get(flow.entrypoint, {}),
            triggers=item.triggers,
            steps=_for_flow(
                self._with_user(steps_of(item.build_steps, item.push_steps, item.folder, item.location)), flow
            ),
        )
        image = self.images.get(flow.dockerfile_path or "")
        if image is not None and self._needs_image(config, item):
            config = _in_image(config, image, flow)
        return self._finished(config)

    def _with_user(self, steps: tuple[DeployStep, ...]) -> tuple[DeployStep, ...]:
        """Steps whose images go to the environment's registry, as its user if they name no other one."""
        registry, user = self.environment.docker_registry or "", self.environment.docker_registry_credentials
        start = f"{registry.partition('/')[0]}/"
        if not registry or not user:
            return steps
        return tuple(
            replace(step, image=replace(step.image, credentials=step.image.credentials or user))
            if step.image is not None and step.image.repository.startswith(start)
            else step
            for step in steps
        )

    def _needs_image(self, config: DeploymentConfig, item: Declaration) -> bool:
        """Whether a declaration says nothing of an image or of how its code comes to the worker, and so needs one."""
        is_silent = not item.build_steps and item.pull_steps is None and not config.job_variables.get("image")
        return config.deployment_type == "docker" and is_silent

    def by_template(self, flow: FlowMetadata) -> Iterator[DeploymentConfig]:
        """The deployments that the environment's templates give to a flow which nobody declares.

        A copy of a flow under the same name gets none: they would be those of the flow.
        """
        if flow.is_copy:
            return
        for kind, template in self.environment.templates.items():
            if kind == "docker" and flow.dockerfile_path is None:
                continue
            yield self.of_kind(flow, kind, template)

    def of_kind(self, flow: FlowMetadata, kind: Kind, template: DeploymentTemplate) -> DeploymentConfig:
        """The deployment that one template gives to a flow."""
        config = self._from_template(flow, kind, template)
        image = self.images.get(flow.dockerfile_path or "")
        return self._finished(_in_image(config, image, flow) if kind == "docker" and image else config)

    def _from_template(self, flow: FlowMetadata, kind: Kind, template: DeploymentTemplate) -> DeploymentConfig:
        written = fill(template.model_dump(), template_values(self.environment, flow, kind, self.owner.project))
        known = {parameter.name for parameter in flow.parameters}
        given = {name: value for name, value in (written["parameters"] or {}).items() if name in known}
        return DeploymentConfig(
            flow_name=flow.name,
            deployment_name=written["name"],
            deployment_type=kind,
            origin="template",
            source=f"{flow.path}:{flow.line_number}",
            entrypoint=flow.entrypoint,
            work_pool=written["work_pool"] or self._pool(kind),
            work_queue=written["work_queue"],
            parameters={**self._default_parameters(flow), **given},
            job_variables=written["job_variables"],
            pull_steps=self._pull_steps("."),
            schedules=tuple(rule.to_schedule() for rule in template.schedules or ()),
            paused=bool(template.paused),
            tags=tuple(written["tags"]),
            description=written["description"] or flow.description,
            version=written["version"] or flow.closure_digest[:TAG_LENGTH],
            follows_code=not written["version"],
            concurrency_limit=template.concurrency_limit,
            parameter_schema=self.schemas.get(flow.entrypoint, {}),
        )

    def deployer(self) -> Iterator[DeploymentConfig]:
        """The deployer's own deployment, where the environment has a pool to run it."""
        pool = self._pool("python")
        if pool is None:
            return
        name = self.environment.name
        yield self._owned(
            DeploymentConfig(
                flow_name=DEPLOYER_FLOW,
                deployment_name=self.environment.deployer_name,
                origin="deployer",
                source=f"environments/{name}.yaml",
                entrypoint=DEPLOYER_ENTRYPOINT,
                work_pool=pool,
                parameters={"environment": name},
                job_variables={"env": {"PREFECT_LOGGING_EXTRA_LOGGERS": "orchestrator"}},  # our logs belong to the run
                pull_steps=self._pull_steps("."),
                schedules=self._deployer_schedules(),
                tags=("deployer",),
                description=f"Keeps the deployments of the environment {name} as the repository says they should be.",
                version=deployer_version()[:TAG_LENGTH],
                concurrency_limit=1,  # two syncs at a time would undo each other's work
                concurrency_options={"collision_strategy": "ENQUEUE"},
                parameter_schema=self.schemas.get(DEPLOYER_ENTRYPOINT, {}),
            )
        )

    def _deployer_schedules(self) -> tuple[ScheduleConfig, ...]:
        written = self.environment.deployer.schedule
        if written is None:
            return ()
        schedule = written.to_schedule()
        return (
            replace(schedule, parameters={"mode": self.environment.deployer.scheduled_mode, **schedule.parameters}),
        )

    def _finished(self, config: DeploymentConfig) -> DeploymentConfig:
        for pattern, override in self.environment.deployments.items():
            if fnmatchcase(config.deployment_path, pattern):
                config = _overridden(config, override)
        variables = merge(self._limit_variables(config.work_pool), config.job_variables)
        if "volumes" in variables and self._pool_type(config.work_pool) == "docker":
            variables = {**variables, "volumes": _absolute_volumes(variables["volumes"], self.root)}
        return self._owned(replace(config, job_variables=variables))

    def _limit_variables(self, pool: str | None) -> dict[str, Any]:
        environment, limits = self.environment, self.environment.resource_limits
        policy = environment.image_pull_policy
        return limit_variables(self._pool_type(pool), memory=limits.memory, cpu=limits.cpu, image_pull_policy=policy)

    def _owned(self, config: DeploymentConfig) -> DeploymentConfig:
        """With the owner's mark, last: the deployments list of the UI shows one tag and a count."""
        return replace(
            config,
            environment=self.environment.name,
            work_queue=config.work_queue or (DEFAULT_QUEUE if config.work_pool else None),
            tags=(*dict.fromkeys(config.tags), self.owner.tag),
        )

    def _kind_of(self, item: Declaration) -> Kind:
        kinds = [kind for kind, pool in self.environment.work_pools.items() if pool.name == item.work_pool]
        return kinds[0] if kinds else "docker" if "image" in item.job_variables else "python"

    def _pool(self, kind: Kind) -> str | None:
        pool = self.environment.work_pools.get(kind)
        return pool.name if pool else None

    def _pool_type(self, name: str | None) -> str | None:
        return next((pool.type for pool in self.environment.work_pools.values() if pool.name == name), None)

    def _default_parameters(self, flow: FlowMetadata) -> dict[str, Any]:
        known = {parameter.name for parameter in flow.parameters}
        return {name: value for name, value in self.environment.default_parameters.items() if name in known}

    def _default_pull(self, item: Declaration) -> tuple[Mapping[str, Any], ...]:
        """Where the runs of a deployment without pull steps find their code; in an image that is not the checkout."""
        if item.job_variables.get("image"):
            return ({SET_DIRECTORY: {"directory": IN_IMAGE}},)
        return self._pull_steps(item.folder)

    def _pull_steps(self, folder: str) -> tuple[Mapping[str, Any], ...]:
        """What `prefect deploy` writes where a prefect.yaml has no pull section: work in the checkout's folder."""
        return ({SET_DIRECTORY: {"directory": str((self.root / folder).resolve())}},)


def _in_image(config: DeploymentConfig, image: FlowImage, flow: FlowMetadata) -> DeploymentConfig:
    """A deployment whose runs start from the image of its flow: nothing has to be pulled into that."""
    place = place_in_image(image, flow.entrypoint)
    folder: tuple[Mapping[str, Any], ...] = ({SET_DIRECTORY: {"directory": place.folder}},) if place.folder else ()
    return replace(
        config,
        entrypoint=place.entrypoint,
        pull_steps=folder,
        job_variables=merge(_IN_CONTAINER, config.job_variables),
        steps=_for_flow((implied_step(image.spec),), flow),
    )


def _for_flow(steps: tuple[DeployStep, ...], flow: FlowMetadata) -> tuple[DeployStep, ...]:
    """Steps whose images know for which flow they are built."""
    closures = ((flow.name, flow.closure_digest[:TAG_LENGTH]),)
    return tuple(replace(step, image=replace(step.image, closures=closures)) if step.image else step for step in steps)


def _absolute_volumes(volumes: Any, root: Path) -> Any:
    """Volumes whose folder on this machine is written from the repository's root: the engine takes whole paths only."""
    if not isinstance(volumes, list | tuple):
        return volumes
    return [_absolute_volume(volume, root) if isinstance(volume, str) else volume for volume in volumes]


def _absolute_volume(volume: str, root: Path) -> str:
    folder, colon, target = volume.partition(":")
    is_relative = folder.partition("/")[0] in (".", "..")  # a name without dots is a volume of the engine
    return f"{(root / folder).resolve()}{colon}{target}" if is_relative else volume


def _path_of(item: Declaration, flow: FlowMetadata | None) -> str:
    """`flow/deployment`, as far as it is known: `*` where the flow cannot be read."""
    return f"{flow.name if flow else item.flow_name or '*'}/{item.name}"


def _is_in(path: str, folders: Sequence[str]) -> bool:
    return any(folder == "." or path == folder or path.startswith(f"{folder.rstrip('/')}/") for folder in folders)


def _belongs(path: str, environment: EnvironmentConfig) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in environment.select)


def _relative_to(folder: str, entrypoint: str) -> str:
    """An entrypoint as a run in `folder` needs it; a module path stays."""
    if ":" not in entrypoint or folder == ".":
        return entrypoint
    file, _, function = entrypoint.rpartition(":")
    return f"{posixpath.relpath(file, folder)}:{function}"


def _overridden(config: DeploymentConfig, override: DeploymentOverride) -> DeploymentConfig:
    """`config` with what an environment says about it; mappings merge, the rest is replaced, null empties."""
    empty: dict[str, Any] = {"description": "", "version": "", "paused": False}
    given = override.model_dump(exclude_unset=True)
    written: dict[str, Any] = {name: empty.get(name) if value is None else value for name, value in given.items()}
    for name in ("parameters", "job_variables"):
        if name in written:
            written[name] = merge(getattr(config, name), written[name])
    if "version" in written:
        written["follows_code"] = False
    if "schedules" in written:
        written["schedules"] = tuple(rule.to_schedule() for rule in override.schedules or ())
    return replace(config, **written)

"""Deployments of flows that a script defines or imports, listed in code instead of a prefect.yaml.

    DEPLOYMENT_CONFIGS = [
        FlowDeployment(flow_func=main_etl, deployment_name="main-etl-deployment", description="The whole ETL"),
        FlowDeployment(flow_func=sub_etl, deployment_name="nightly", schedules=[{"cron": "0 4 * * *"}]),
    ]
    deploy_all_flows("my-pool", DEPLOYMENT_CONFIGS)

They become the same nouns as everything else and take the same way: compared with the server, only what differs is
written, and what an earlier call deployed and the list holds no more is deleted. They have an owner of their own, so
that neither a sync of the repository deletes them, nor they what the repository declares.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from prefect import Flow
from prefect.utilities.callables import parameter_schema

from orchestrator import live
from orchestrator.blocking import wait_for
from orchestrator.config import Policy, ScheduleSection
from orchestrator.desired import DEFAULT_QUEUE, SET_DIRECTORY
from orchestrator.faults import did_you_mean, faulty
from orchestrator.model import (
    DEFAULT_ENVIRONMENT,
    DeploymentConfig,
    DeploymentResult,
    Desired,
    Owner,
    ScheduleConfig,
    ValidationError,
)
from orchestrator.plan import check_deletes
from orchestrator.project import load_project
from orchestrator.provenance import provenance
from orchestrator.recording import desired_digest
from orchestrator.strict import as_far_as_known
from orchestrator.terms import Terms


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowDeployment:
    """One deployment of a flow that is at hand as an object."""

    flow_func: Flow[..., Any]
    deployment_name: str
    description: str = ""  # none: the flow's own
    parameters: Mapping[str, Any] = field(default_factory=dict)
    schedules: Sequence[
        Mapping[str, Any]
    ] = ()  # each as a prefect.yaml says it: {"cron": "0 4 * * *", "slug": "early"}
    tags: Sequence[str] = ()
    job_variables: Mapping[str, Any] = field(default_factory=dict)
    work_queue: str | None = None
    paused: bool = False
    concurrency_limit: int | None = None
    version: str = ""  # none: the flow's own, by default a hash of its file

    @property
    def deployment_path(self) -> str:
        """`flow/deployment`, the name that `run_deployment` takes."""
        return f"{self.flow_func.name}/{self.deployment_name}"


DEPLOYMENT_CONFIGS: list[FlowDeployment] = []
"""What `deploy_all_flows` deploys when it is given no list: modules with flows may append theirs."""


def deploy_all_flows(
    work_pool: str,
    configs: Sequence[FlowDeployment] | None = None,
    *,
    project: str | None = None,
    environment: str = DEFAULT_ENVIRONMENT,
    root: Path | str = ".",
    api_url: str | None = None,
    prune: bool = True,
    allow_delete: bool = False,
) -> DeploymentResult:
    """Deploy flows from code: only what differs is written.

    Waits until it is done; in asynchronous code call it in a thread (`asyncio.to_thread`).

    Args:
        work_pool: where their runs go; it must exist.
        configs: what to deploy; None: `DEPLOYMENT_CONFIGS`.
        project: whose deployments these are; None: the project's name of `root`. Two lists that are deployed
            independently need two names: each deletes what it does not hold.
        environment: the environment that they belong to.
        root: the folder that the workers run from; it holds the files of all flows.
        api_url: the Prefect server; None: the one that Prefect's settings name.
        prune: delete what an earlier call deployed for the same project and environment, and nothing lists any more.
        allow_delete: delete even more than usual at a time.

    Returns:
        What became of each deployment. One that fails does not stop the others: `status` is `degraded` then.

    Raises:
        ConfigurationError: with every fault of the list; nothing was changed.
        RefusedError: much, or everything, would be deleted; nothing was changed.
        ServerUnreachable, ServerError: the server could not be read.
    """
    folder = Path(root).resolve()
    owner = Owner(project=f"{project or load_project(folder).project}/code", environment=environment)
    chosen = DEPLOYMENT_CONFIGS if configs is None else configs
    desired = desired_from_code(chosen, work_pool=work_pool, owner=owner, root=folder)
    terms = Terms(provenance=provenance(folder, "code"), desired_digest=desired_digest(desired, folder))
    work = partial(_deploy, desired, Policy(prune=prune), api_url, allow_delete, terms)
    return wait_for(work, caller="deploy_all_flows")


def desired_from_code(configs: Sequence[FlowDeployment], *, work_pool: str, owner: Owner, root: Path) -> Desired:
    """What a list of deployments asks for.

    Raises:
        ConfigurationError: with every fault of all of them.
    """
    items = [_Item(config, position, root) for position, config in enumerate(configs)]
    faults = [fault for item in items for fault in item.faults()]
    faults += list(_listed_twice([item for item in items if item.is_flow]))
    if faults:
        raise faulty(faults)
    return Desired(owner=owner, deployments=tuple(item.deployment(work_pool, owner) for item in items))


async def _deploy(
    desired: Desired, policy: Policy, api_url: str | None, allow_delete: bool, terms: Terms
) -> DeploymentResult:
    plan = await live.plan_changes(desired, policy, api_url=api_url)
    if not allow_delete:
        check_deletes(plan, policy)
    return await live.apply_changes(plan, api_url=api_url, terms=terms)


class _Item:
    """One entry of a list, with what is known about its flow."""

    def __init__(self, config: FlowDeployment, position: int, root: Path) -> None:
        self.config, self.position, self.root = config, position, root
        self.is_flow = isinstance(config.flow_func, Flow)
        self.file = _file_of(config.flow_func) if self.is_flow else None
        self.bound = _bound_name(config.flow_func) if self.is_flow else None
        self.schedules, self._schedule_faults = _schedules(config.schedules)

    @property
    def is_in_root(self) -> bool:
        return self.file is not None and self.file.is_relative_to(self.root)

    @property
    def place(self) -> tuple[str | None, int | None]:
        """File and line of the flow."""
        if not self.is_flow or self.file is None:
            return None, None
        shown = self.file.relative_to(self.root).as_posix() if self.is_in_root else str(self.file)
        code = getattr(inspect.unwrap(self.config.flow_func.fn), "__code__", None)
        if code is None or Path(code.co_filename).resolve() != self.file:  # a copy that was made elsewhere
            return shown, None
        return shown, code.co_firstlineno

    def deployment(self, work_pool: str, owner: Owner) -> DeploymentConfig:
        """The deployment that a sound entry asks for."""
        config, flow = self.config, self.config.flow_func
        file, line = self.place
        source = file if line is None else f"{file}:{line}"
        return DeploymentConfig(
            flow_name=flow.name,
            deployment_name=config.deployment_name,
            environment=owner.environment,
            deployment_type="docker" if "image" in config.job_variables else "python",
            source=source or "",
            entrypoint=f"{file}:{self.bound}",
            work_pool=work_pool,
            work_queue=config.work_queue or DEFAULT_QUEUE,
            parameters=config.parameters,
            job_variables=config.job_variables,
            pull_steps=({SET_DIRECTORY: {"directory": str(self.root)}},),
            schedules=self.schedules,
            paused=config.paused,
            tags=(*dict.fromkeys(config.tags), owner.tag),
            description=config.description or flow.description or "",
            version=config.version or flow.version or "",
            concurrency_limit=config.concurrency_limit,
            parameter_schema=parameter_schema(flow).model_dump(exclude_unset=True),  # as `prefect deploy` stores it
        )

    # ----- faults --------------------------------------------------------------------------------------

    def faults(self) -> Iterator[ValidationError]:
        """Everything that is wrong with it."""
        if not self.is_flow:
            yield self.fault(
                "DPL001",
                f"flow_func is no flow but a {type(self.config.flow_func).__name__}",
                "Give it the function that is decorated with @flow.",
            )
            return
        yield from self._place_faults()
        yield from self._parameter_faults()
        for each in self._schedule_faults:
            yield self.fault(each.code, each.message.rstrip("."), each.remediation)

    def _place_faults(self) -> Iterator[ValidationError]:
        flow = self.config.flow_func
        if self.file is None:
            yield self.fault("DPL001", f"the flow {flow.name!r} is in no file", "Define it in a file.")
        elif not self.is_in_root:
            remedy = "Say with `root` which folder the workers run from."
            yield self.fault("DPL001", f"{self.file} lies outside of {self.root}", remedy)
        elif self.bound is None:
            remedy = "Define it at the top of its module: a worker imports it by its name."
            yield self.fault("DPL001", f"no name of its module leads to the flow {flow.name!r}", remedy)

    def _parameter_faults(self) -> Iterator[ValidationError]:
        parameters = inspect.signature(self.config.flow_func.fn).parameters
        if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
            return
        for name in self.config.parameters:
            if name not in parameters:
                remedy = f"{did_you_mean(name, parameters)}It has: {', '.join(parameters) or 'none'}."
                yield self.fault("DPL003", f"the flow has no parameter {name!r}", remedy)

    def fault(self, code: str, message: str, remedy: str) -> ValidationError:
        name = f"entry {self.position + 1} ({self.config.deployment_name})"
        file, line = self.place
        return ValidationError(
            code=code, message=f"{name}: {message}.", file_path=file, line_number=line, remediation=remedy
        )


def _listed_twice(items: Sequence[_Item]) -> Iterator[ValidationError]:
    seen: dict[str, int] = {}
    for item in items:
        path = item.config.deployment_path
        if path in seen:
            first = seen[path] + 1
            yield item.fault("DPL002", f"{path} is listed twice, first as entry {first}", "Rename one of them.")
        seen.setdefault(path, item.position)


def _schedules(
    written: Sequence[Mapping[str, Any]],
) -> tuple[tuple[ScheduleConfig, ...], tuple[ValidationError, ...]]:
    read = [as_far_as_known(ScheduleSection, item) for item in written]
    found = tuple(section.to_schedule() for section, _ in read if section is not None)
    return found, tuple(fault for _, faults in read for fault in faults)


# ---------------------------------------------------------------------------------------------------------
# Where a flow is
# ---------------------------------------------------------------------------------------------------------


def _file_of(flow: Flow[..., Any]) -> Path | None:
    """The file that binds the flow to a name: not the one of its function, where a copy was made elsewhere."""
    module = _module_of(flow)
    try:
        file = module.__file__ if module is not None else inspect.getsourcefile(flow.fn)
    except TypeError:  # a builtin
        return None
    return Path(file).resolve() if file and Path(file).is_file() else None


def _bound_name(flow: Flow[..., Any]) -> str | None:
    """What an entrypoint calls it: its name in its module, or `Class.method`."""
    module = _module_of(flow)
    if module is None:
        return None
    names = [name for name, value in vars(module).items() if value is flow]
    function = flow.fn.__name__
    if names:
        return function if function in names else names[0]
    return flow.fn.__qualname__


def _module_of(flow: Flow[..., Any]) -> ModuleType | None:
    """The module through which a worker gets at the flow: its function's own, else one that has it under a name."""
    own = sys.modules.get(flow.fn.__module__)
    if own is not None and (_has(own, flow) or _is_method_of(own, flow)):
        return own
    others = sorted(sys.modules, key=lambda name: name == "__main__")  # a script that imports it is the last resort
    return next((sys.modules[name] for name in others if _has(sys.modules[name], flow)), None)


def _has(module: Any, flow: Flow[..., Any]) -> bool:
    values = vars(module).values() if isinstance(module, ModuleType) else ()
    return any(value is flow for value in list(values))


def _is_method_of(module: ModuleType, flow: Flow[..., Any]) -> bool:
    """Whether the name of its function (`Class.method`) leads to it."""
    found: Any = module
    for part in flow.fn.__qualname__.split("."):
        found = getattr(found, part, None)
    return isinstance(found, Flow) and found.fn is flow.fn and found.name == flow.name

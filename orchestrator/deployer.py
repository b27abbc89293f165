"""The deployer: one flow that keeps an environment's deployments, its own among them, as the repository says.

    Discover flows ─► Validate ─► Plan ─► Images ─► Apply

Each stage is a plain function of `pipeline` and `live`, lifted into a task here; the tasks get frozen values, never
clients, and nothing of them is cached between runs. The plan and the result are artifacts, and the run is renamed
after its outcome, since Prefect's page of an artifact's versions lists them by run name.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anyio
from prefect import flow, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.states import Completed, Failed

from orchestrator import live, pipeline
from orchestrator.config import DEPLOYER_FLOW, EnvironmentConfig
from orchestrator.desired import Selection
from orchestrator.errors import (
    ConfigurationError,
    HeldError,
    OrchestratorError,
    RefusedError,
    ServerMismatch,
    ServerUnreachable,
)
from orchestrator.fault_report import error_line, problem_line
from orchestrator.images import stages
from orchestrator.images.names import shown_name
from orchestrator.images.report import result_line
from orchestrator.late import late
from orchestrator.masking import shown_url
from orchestrator.model import (
    DEFAULT_ENVIRONMENT,
    DeploymentResult,
    Hold,
    ImageResult,
    ImageTerms,
    Plan,
    PlannedImage,
    Trigger,
)
from orchestrator.pipeline import Asked
from orchestrator.plan import check_deletes
from orchestrator.plan_report import counts, headline, plan_markdown
from orchestrator.recording import desired_digest
from orchestrator.report import result_markdown
from orchestrator.revision_report import hold_line
from orchestrator.runs import rename_run
from orchestrator.server import open_server
from orchestrator.terms import Terms, terms_of

if TYPE_CHECKING:
    from orchestrator.images import making
else:
    making = late("orchestrator.images.making")

logger = logging.getLogger(__name__)

Mode = Literal["plan", "apply"]

load_settings = task(name="Read configuration", cache_policy=NO_CACHE)(pipeline.load_settings)
discover_flows = task(name="Discover flows", cache_policy=NO_CACHE)(pipeline.discover_flows)
validate = task(name="Validate", cache_policy=NO_CACHE)(pipeline.validate)
work_out = task(name="Work out desired state", cache_policy=NO_CACHE)(pipeline.work_out)
plan_changes = task(name="Plan", cache_policy=NO_CACHE)(live.plan_changes)
apply_changes = task(name="Apply", cache_policy=NO_CACHE)(live.apply_changes)


@flow(name=DEPLOYER_FLOW)
async def deploy_everything(
    mode: Mode = "plan", environment: str = DEFAULT_ENVIRONMENT, only: tuple[str, ...] = ()
) -> State[Any]:
    """Compare the repository with this server and, on request, change what differs.

    Args:
        mode: `plan` shows what would change and writes nothing; `apply` changes it.
        environment: The environment whose deployments to look after.
        only: Patterns on flow/deployment, such as `sub-etl-job/*`. Empty means everything.
    """
    _let_logs_through()
    try:
        selection = Selection(only=only)
        asked = await _read(environment)
        plan = await _plan(asked, selection)
        if mode == "plan":
            return _planned(plan)
        if hold := await _held_back(asked):
            return Completed(name="Held", message=hold_line(hold))
        check_deletes(plan, asked.settings.environment.policy)
        ready, images = await stages.prepare(plan, _make_images)
        return _applied(await _apply(ready, _terms(asked, selection), images))
    except HeldError as error:  # it came while we waited for another apply to end
        return Completed(name="Held", message=error_line(error))
    except OrchestratorError as error:
        return Failed(name=_name_of(error), message=error_line(error))


def _let_logs_through() -> None:
    """Our log lines belong to the run. Prefect forwards them, but Python drops those below WARNING by itself."""
    ours = logging.getLogger(__package__)
    if ours.level == logging.NOTSET:
        ours.setLevel(logging.INFO)


def parameter_schema() -> dict[str, Any]:
    """The schema of this flow's parameters, as `prefect deploy` would store it."""
    return deploy_everything.parameters.model_dump(exclude_unset=True)


async def _read(environment: str) -> Asked:
    """Every stage before the server."""
    settings = load_settings(Path.cwd(), environment)
    await _require_right_server(settings.environment)
    discovery = discover_flows(settings.root, settings.project, settings.declarations)
    validation = validate(settings, discovery)
    for problem in (*validation.errors, *validation.warnings):
        logger.warning(problem_line(problem))
    desired = work_out(settings, discovery, validation, deployer_schema=parameter_schema)
    return Asked(settings=settings, discovery=discovery, desired=desired)


async def _plan(asked: Asked, selection: Selection) -> Plan:
    environment = asked.settings.environment.name
    plan = await plan_changes(asked.desired, asked.settings.environment.policy, selection=selection)
    await acreate_markdown_artifact(
        key=_artifact_key("plan", environment),
        markdown=plan_markdown(plan),
        description=f"What differs between the repository and the environment {environment}.",
    )
    await _rename_run(headline(environment, plan))
    return plan


async def _held_back(asked: Asked) -> Hold | None:
    """What keeps a scheduled run from undoing a rollback. Who starts a run by hand means it."""
    run = _own_run()
    if run is None or not run.auto_scheduled:
        return None
    return await live.hold_on(pipeline.owner_of(asked.settings), desired_digest(asked.desired, asked.settings.root))


def _terms(asked: Asked, selection: Selection) -> Terms:
    run = _own_run()
    trigger: Trigger = "schedule" if run is not None and run.auto_scheduled else "run"
    name = f"flow run {run.name}" if run is not None else None
    return terms_of(asked, trigger, run_name=name, selection=selection)


async def _make_images(images: Sequence[PlannedImage], root: Path, terms: ImageTerms) -> tuple[ImageResult, ...]:
    """A task for each image, a few at a time; one that needs nothing is shown as reused."""
    results: dict[int, ImageResult] = {}
    limiter = anyio.CapacityLimiter(terms.parallel)

    async def one(index: int, image: PlannedImage) -> None:
        async with limiter:
            state: State[Any] = await make_image(_short(image), image, root, terms, return_state=True)  # type: ignore[misc]
            made = await state.aresult(raise_on_failure=False)
            if isinstance(made, Exception):  # a bug, or the task run was crashed: there is no result to tell
                raise made
            results[index] = made

    async with anyio.create_task_group() as group:
        for index, image in enumerate(images):
            group.start_soon(one, index, image)
    return tuple(results[index] for index in range(len(images)))


def _short(image: PlannedImage) -> str:
    """An image's name without its registry: the graph has little room."""
    return shown_name(image).rpartition("/")[2]


@task(name="Image", task_run_name="{name}", cache_policy=NO_CACHE)
async def make_image(name: str, image: PlannedImage, root: Path, terms: ImageTerms) -> State[Any]:
    """Build and push one image, unless it is there; `name` names the task run."""
    (result,) = await making.make_images([image], root, terms)
    if result.status == "failed":
        said = "\n".join((result_line(result), *result.output))
        return Failed(message=said, data=result)
    return Completed(name=result.status.title(), message=result.pinned, data=result)


async def _apply(plan: Plan, terms: Terms, images: tuple[ImageResult, ...]) -> DeploymentResult:
    result = replace(await apply_changes(plan, terms=terms), images=images)
    await acreate_markdown_artifact(
        key=_artifact_key("deployments", plan.environment),
        markdown=result_markdown(result),
        description=f"What this run changed in the environment {plan.environment}.",
    )
    await _rename_run(headline(plan.environment, result))
    return result


def _planned(plan: Plan) -> State[Any]:
    """The final state of a run that only looked."""
    broken = sum(problem.severity == "error" for problem in plan.problems)
    message = f"{counts(plan)}; nothing was written." + (f" {broken} faults." if broken else "")
    if plan.summary["conflict"] or plan.resource_summary["conflict"] or broken:
        return Failed(name="Degraded", message=message)
    return Completed(name="ChangesPending" if plan.has_changes else "NoChanges", message=message)


def _applied(result: DeploymentResult) -> State[Any]:
    """The final state of a run that applied."""
    message = headline(result.environment, result)
    if result.status == "degraded":
        reasons = [f"{item.label}: {item.error}" for item in result.failed]
        reasons += [
            f"{place}: {finding.message}"
            for place, found in result.findings.items()
            for finding in found
            if finding.severity == "error"
        ]
        reasons += [problem_line(problem) for problem in result.problems if problem.severity == "error"]
        return Failed(name="Degraded", message="\n".join([message, *reasons]))
    return Completed(name="NoChanges" if result.status == "no-changes" else "Completed", message=message)


def _name_of(error: OrchestratorError) -> str:
    """What the badge of a run says that could not do its work."""
    names = {ConfigurationError: "Invalid", RefusedError: "Refused", ServerUnreachable: "Unreachable"}
    return next((name for kind, name in names.items() if isinstance(error, kind)), "Failed")


async def _require_right_server(environment: EnvironmentConfig) -> None:
    """Refuse to apply one environment's deployments to another one's server.

    The deployer's own deployment of that environment was put on this server by `bootstrap`, which settled the
    question; the address may read differently here (in a container, behind a proxy). Otherwise addresses are compared.
    """
    run = _own_run()
    async with open_server() as server:
        if run is not None and run.deployment_id is not None:
            owner = await server.read_owner(run.deployment_id)
            if owner is not None and owner.environment == environment.name:
                return
        own, here = environment.prefect_api_url, server.api_url
    if own is not None and not pipeline.same_server(own, here):
        raise ServerMismatch(
            f"This run is on {here}, but the environment {environment.name!r} is at {shown_url(own)}.",
            location=f"environments/{environment.name}.yaml",
            remedy=f"Run {DEPLOYER_FLOW} on that server, or choose this server's environment.",
        )


async def _rename_run(name: str) -> None:
    """The run's name is what the artifact's history shows."""
    run = _own_run()
    if run is not None:
        async with open_server() as server:
            await rename_run(server, run.id, name)


def _own_run() -> FlowRun | None:
    context = FlowRunContext.get()
    return context.flow_run if context else None


def _artifact_key(kind: str, environment: str) -> str:
    """Artifact keys take lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9-]+", "-", f"{kind}-{environment}".lower())

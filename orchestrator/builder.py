"""DeploymentBuilder: deployments from a script of one's own, by the stages that the command line uses.

builder = DeploymentBuilder()
(etl,) = FlowDiscovery().discover().flows
builder.create_python_deployment(etl, "staging")   # what the environment makes of the flow; nothing is written
builder.deploy_all("all", "staging")               # plan and apply
builder.cleanup_deployments("etl/*", "staging")    # delete what is ours and matches
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from orchestrator import live, pipeline
from orchestrator.blocking import wait_for
from orchestrator.config import ConfigurationManager, EnvironmentConfig
from orchestrator.desired import Selection, from_template
from orchestrator.errors import ConfigurationError
from orchestrator.fault_report import problem_line
from orchestrator.faults import did_you_mean
from orchestrator.images.specs import flow_images
from orchestrator.images.stages import prepare
from orchestrator.local import STATE_FOLDER
from orchestrator.model import (
    DEFAULT_ENVIRONMENT,
    KINDS,
    CleanupResult,
    DeploymentConfig,
    DeploymentResult,
    FlowMetadata,
    Kind,
)
from orchestrator.pipeline import Asked, Settings
from orchestrator.plan import check_deletes
from orchestrator.repository import Repository
from orchestrator.schemas import Subject, read_schemas
from orchestrator.terms import cleaning_terms, terms_of

logger = logging.getLogger(__name__)

DeploymentType = Literal["python", "docker", "all"]


class DeploymentBuilder:
    """The deployments of one repository.

    Its methods wait until they are done; in asynchronous code call them in a thread (`asyncio.to_thread`).

    Args:
        root: the repository.
        api_url: the Prefect server; None: the environment's, else the one that Prefect's settings name.
    """

    def __init__(self, root: Path | str = ".", *, api_url: str | None = None) -> None:
        self._manager = ConfigurationManager(root)
        self.root, self.api_url = self._manager.root, api_url

    def create_python_deployment(self, flow: FlowMetadata, env: str = DEFAULT_ENVIRONMENT) -> DeploymentConfig:
        """The deployment that an environment makes of a flow, to run from source on a worker. Nothing is written.

        Args:
            flow: a discovered flow.
            env: the environment's name.

        Returns:
            What the environment's template of this kind asks for (without one: the defaults of a template), with the
            environment's parameters, limits and overrides. What a prefect.yaml says of the flow has no part in it.

        Raises:
            ConfigurationError: the flow or the environment has faults, or the environment has no pool of this kind.
        """
        return self._create(flow, env, "python")

    def create_docker_deployment(self, flow: FlowMetadata, env: str = DEFAULT_ENVIRONMENT) -> DeploymentConfig:
        """The same, to run from an image: the flow needs a Dockerfile. Its image is named when it is deployed.

        Raises:
            ConfigurationError: as for `create_python_deployment`; or no Dockerfile belongs to the flow.
        """
        if flow.dockerfile_path is None:
            raise ConfigurationError(
                f"No Dockerfile belongs to the flow {flow.name!r}.",
                location=flow.entrypoint,
                remedy="Write one beside the flow's file, or in a folder above it.",
            )
        return self._create(flow, env, "docker")

    def deploy_all(
        self,
        deployment_type: DeploymentType = "all",
        environment: str = DEFAULT_ENVIRONMENT,
        *,
        allow_delete: bool = False,
    ) -> DeploymentResult:
        """Deploy what the repository asks for: only what differs is written, and what nothing asks for is deleted.

        Args:
            deployment_type: `python`, `docker`, or `all`.
            environment: the environment's name.
            allow_delete: delete even more than the environment's policy allows at a time.

        Returns:
            What became of each deployment. One that fails does not stop the others: `status` is `degraded` then.

        Raises:
            ConfigurationError: what people wrote has faults; nothing was changed.
            RefusedError: more would be deleted than the policy allows; nothing was changed.
            ServerUnreachable, ServerError: the server could not be read.
        """
        kind = _kind(deployment_type)
        asked = pipeline.read_repository(self.root, environment)
        api_url = pipeline.server_address(asked.settings.environment, self.api_url, writes=True)
        work = partial(_deploy, asked, api_url, Selection(kind=kind), allow_delete)
        return wait_for(work, caller="DeploymentBuilder.deploy_all")

    def cleanup_deployments(self, pattern: str | None = None, environment: str = DEFAULT_ENVIRONMENT) -> CleanupResult:
        """Delete deployments of ours in one environment. Nobody is asked.

        The deployer's own deployment stays, unless the pattern names its flow: `deploy-everything/*`.

        Args:
            pattern: on flow/deployment, such as `etl/*`; None: all of ours but the deployer.
            environment: the environment's name.

        Returns:
            What was deleted, what matches but is not ours (it stays), and what could not be deleted.

        Raises:
            ConfigurationError: the configuration has faults.
            ServerUnreachable, ServerError: the server could not be read.
        """
        settings = pipeline.load_settings(self.root, environment)
        api_url = pipeline.server_address(settings.environment, self.api_url, writes=True)
        work = partial(_clean, settings, "*" if pattern is None else pattern, api_url)
        return wait_for(work, caller="DeploymentBuilder.cleanup_deployments")

    def _create(self, flow: FlowMetadata, env: str, kind: Kind) -> DeploymentConfig:
        if not flow.is_valid:
            raise ConfigurationError(
                f"The flow {flow.name!r} has faults: {'; '.join(flow.validation_errors)}", location=flow.entrypoint
            )
        environment = self._manager.load_environment_config(env)
        _require_pool(environment, kind)
        subject = Subject(entrypoint=flow.entrypoint, digest=flow.closure_digest, flow=flow)
        cache_file = self.root / STATE_FOLDER / "cache" / "schemas.json"
        schemas, warnings = read_schemas(self.root, [subject], cache_file=cache_file)
        for warning in warnings:
            logger.warning(problem_line(warning))
        project = self._manager.load_project().project
        dockerfiles = [flow.dockerfile_path] if flow.dockerfile_path else []
        return from_template(
            root=self.root,
            project=project,
            environment=environment,
            flow=flow,
            kind=kind,
            schemas=schemas,
            images=flow_images(Repository(self.root), environment, project, dockerfiles),
        )


def _kind(deployment_type: str) -> Kind | None:
    """The kind to select; None: all of them."""
    known = (*KINDS, "all")
    if deployment_type not in known:
        raise ConfigurationError(
            f"There is no deployment type {deployment_type!r}.",
            remedy=f"{did_you_mean(deployment_type, known)}There are {', '.join(known)}.",
        )
    return next((kind for kind in KINDS if kind == deployment_type), None)


def _require_pool(environment: EnvironmentConfig, kind: Kind) -> None:
    template = environment.templates.get(kind)
    if kind in environment.work_pools or (template is not None and template.work_pool):
        return
    file, line = environment.place("work_pools")
    raise ConfigurationError(
        f"The environment {environment.name!r} has no work pool of kind {kind}.",
        location=f"{file}:{line}" if file else environment.name,
        remedy=f"Name one in the environment's file: work_pools: {{{kind}: {{name: …, type: …}}}}.",
    )


async def _deploy(asked: Asked, api_url: str | None, selection: Selection, allow_delete: bool) -> DeploymentResult:
    policy = asked.settings.environment.policy
    plan = await live.plan_changes(asked.desired, policy, api_url=api_url, selection=selection)
    if not allow_delete:
        check_deletes(plan, policy)
    ready, images = await prepare(plan, api_url=api_url)
    result = await live.apply_changes(ready, api_url=api_url, terms=terms_of(asked, "code", selection=selection))
    return replace(result, images=images)


async def _clean(settings: Settings, pattern: str, api_url: str | None) -> CleanupResult:
    owner = pipeline.owner_of(settings)
    ours, foreign = await live.find_deployments(owner, pattern, api_url)
    terms = cleaning_terms(settings, "code", pattern)
    return await live.delete_deployments(owner, ours, foreign, pattern, api_url=api_url, terms=terms)

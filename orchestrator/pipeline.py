"""The stages, in the order in which data takes its way: called by the command line, lifted into tasks by the deployer.

    load_settings      files people write  → Settings
    discover_flows     source              → Discovery
    validate           both                → ValidationResult
    work_out           all of it           → Desired      (parameter schemas come from child processes)
    live.plan_changes  + live server       → Plan         (read only)
    live.apply_changes Plan + server       → DeploymentResult

Between the stages stand frozen values. The two stages that need the server lie in `live`, so that commands which only
read source never import Prefect.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.config import ConfigurationManager, EnvironmentConfig
from orchestrator.desired import (
    DEPLOYER_ENTRYPOINT,
    Selection,
    deployer_version,
    desired_state,
    select,
)
from orchestrator.discovery import cache_file_of, discover, relative_path
from orchestrator.entrypoints import declared_files
from orchestrator.errors import ConfigurationError, ServerMismatch
from orchestrator.gitignore import Patterns
from orchestrator.ignores import project_ignores
from orchestrator.images.specs import flow_images
from orchestrator.isolated_import import import_problems
from orchestrator.local import STATE_FOLDER, is_loopback
from orchestrator.masking import shown_url
from orchestrator.model import (
    Declaration,
    Desired,
    Discovery,
    FlowMetadata,
    ImageTerms,
    Owner,
    ValidationError,
    ValidationResult,
)
from orchestrator.prefect_yaml import prefect_files, read_prefect_files
from orchestrator.project import ProjectConfig, require_folders
from orchestrator.repository import Repository
from orchestrator.resources import resources_of
from orchestrator.rules import Facts
from orchestrator.rules.neighbours import RULE as NEIGHBOURS
from orchestrator.schemas import Schema, Subject, read_schemas
from orchestrator.validation import as_result, not_silenced
from orchestrator.validation import validate as check


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """All that people wrote about one environment of one repository."""

    root: Path
    project: ProjectConfig
    environment: EnvironmentConfig
    declarations: tuple[Declaration, ...] = ()
    problems: tuple[ValidationError, ...] = ()  # of the files that were read; what has an error counts as not written
    prefect_files: tuple[str, ...] = ()
    configuration_files: tuple[str, ...] = ()  # of this environment, and pyproject.toml
    environments: tuple[str, ...] = ()  # all that have a file
    unread: tuple[str, ...] = ()  # prefect.yaml files that may declare more than is known
    is_whole: bool = True  # False: narrowed to what some paths are about

    @property
    def errors(self) -> tuple[ValidationError, ...]:
        return tuple(problem for problem in self.problems if problem.severity == "error")


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a repository asks for in one environment, and what that was worked out from."""

    settings: Settings
    discovery: Discovery
    desired: Desired


def read_repository(
    root: Path,
    env: str,
    *,
    meanwhile: Callable[[], object] | None = None,
    deployer_schema: Callable[[], Schema] | None = None,
) -> Asked:
    """Every stage before the server.

    Args:
        root: the repository.
        env: the environment.
        meanwhile, deployer_schema: as for `work_out`.

    Raises:
        ConfigurationError: with every fault that forbids an apply.
    """
    settings = load_settings(root, env)
    discovery = discover_flows(settings.root, settings.project, settings.declarations)
    desired = work_out(
        settings,
        discovery,
        validate(settings, discovery),
        meanwhile=meanwhile,
        deployer_schema=deployer_schema,
    )
    return Asked(settings=settings, discovery=discovery, desired=desired)


def load_settings(root: Path, env: str) -> Settings:
    """Read the project's, the environment's and the prefect.yaml files.

    Raises:
        ConfigurationError: with every fault of all of them; or it is a mere folder inside of a project.
    """
    ConfigurationManager(root).require_project()
    settings = read_settings(root, env)
    if settings.errors:
        raise ConfigurationError("The configuration has faults; nothing was changed.", faults=settings.errors)
    return settings


def read_settings(root: Path, env: str) -> Settings:
    """Read as much of them as can be read, for who wants to hear of all faults at once.

    Returns:
        The settings, with the faults in `problems`. Unknown keys count as not written; in place of a file that has
        worse faults stand the defaults.

    Raises:
        ConfigurationError: pyproject.toml has faults, or there is no such environment: nothing can be said then.
    """
    manager = ConfigurationManager(root)
    project = manager.load_project()
    manager.require_environment(env)
    environment, faults = manager.read_environment(env)
    declared = read_prefect_files(manager.root, project.prefect_files)
    problems = [*faults, *declared.problems, *_not_read(manager.root, project)]
    if not manager.has_environment_files():
        problems.append(_defaults_hold(project, env))
    return Settings(
        root=manager.root,
        project=project,
        environment=environment,
        declarations=declared.declarations,
        problems=tuple(sorted(problems, key=lambda each: (each.file_path or "", each.line_number or 0))),
        prefect_files=tuple(
            path.relative_to(manager.root).as_posix() for path in prefect_files(manager.root, project.prefect_files)
        ),
        configuration_files=_configuration_files(manager.root, project, env),
        environments=manager.environments(),
        unread=declared.unread,
    )


def _configuration_files(root: Path, project: ProjectConfig, env: str) -> tuple[str, ...]:
    names = (f"{project.environments}/base.yaml", f"{project.environments}/{env}.yaml", "pyproject.toml")
    return tuple(name for name in names if (root / name).is_file())


def _not_read(root: Path, project: ProjectConfig) -> Iterator[ValidationError]:
    """Files that look like configuration, but for the end of their name."""
    repository = Repository(root)
    chosen = Patterns(project.prefect_files)
    others = [path for path in repository.files([""], ("prefect.yml",)) if posixpath.basename(path) == "prefect.yml"]
    names = repository.names(project.environments)
    others += [posixpath.join(project.environments, name) for name in names if name.endswith(".yml")]
    for path in sorted(others):
        if not chosen.cover(path):
            yield ValidationError(
                code="CFG010",
                message=f"{path} is not read: its name ends in .yml.",
                file_path=path,
                remediation=f"Rename it to {posixpath.basename(path).removesuffix('.yml')}.yaml.",
                severity="warning",
            )


def _defaults_hold(project: ProjectConfig, env: str) -> ValidationError:
    return ValidationError(
        code="CFG007",
        message=f"No environment files: {env!r} has no work pool, no templates and Prefect's active server.",
        file_path=f"{project.environments}/{env}.yaml",
        remediation="Write it to deploy flows that no prefect.yaml declares.",
        severity="warning",
    )


def discover_flows(
    root: Path, project: ProjectConfig, declarations: Sequence[Declaration] = (), paths: tuple[str, ...] | None = None
) -> Discovery:
    """Find the flows of the configured folders and of the files that declarations point to, or of the paths given.

    Raises:
        ConfigurationError: a folder or path does not exist or lies outside the repository.
    """
    if not paths:
        require_folders(root, project)
    also = () if paths else declared_files(declarations)
    return discover(root, project.flows, project.exclude, paths, also, cache_file=cache_file_of(root))


def with_imports_tried(root: Path, discovery: Discovery) -> Discovery:
    """The discovery, with what importing each flow in a child process says added to its problems."""
    return replace(discovery, problems=(*discovery.problems, *import_problems(root, discovery.flows)))


def about(settings: Settings, paths: Sequence[str]) -> Settings:
    """The settings as far as they are about some paths: declarations whose flow lies there, files, and all errors.

    Raises:
        ConfigurationError: a path does not exist or lies outside the repository.
    """
    starts = [Path(relative_path(settings.root, path)) for path in paths]
    broken = {error.file_path for error in settings.errors}

    def concerned(file: str | None) -> bool:
        return file in broken or any(Path(file or "").is_relative_to(start) for start in starts)

    return replace(
        settings,
        declarations=tuple(
            item for item in settings.declarations if concerned((item.entrypoint or "").rpartition(":")[0])
        ),
        problems=tuple(each for each in settings.problems if each.severity == "error" or concerned(each.file_path)),
        prefect_files=tuple(filter(concerned, settings.prefect_files)),
        configuration_files=tuple(filter(concerned, settings.configuration_files)),
        is_whole=False,
    )


def validate(
    settings: Settings,
    discovery: Discovery,
    others: Sequence[Settings] = (),
    installed: frozenset[str] | None = None,
) -> ValidationResult:
    """Every rule over flows, declarations and configuration.

    Args:
        settings: of the environment that is checked.
        discovery: the flows.
        others: the same for further environments, checked in the same go.
        installed: import names of an environment; what is there counts as declared. None: only what is declared does.

    Returns:
        All faults together, each once, sorted by place; those that people silenced are left out.
    """
    repository = Repository(settings.root)
    environments = [each.environment for each in (settings, *others)]
    first, *rest = (
        replace(
            _facts(repository, each, discovery, installed), neighbours=on_one_server(each.environment, environments)
        )
        for each in (settings, *others)
    )
    return check(
        first,
        *rest,
        entries=project_ignores(settings.project, repository),
        doubtful={code for each in (settings, *others) for code in _doubtful(each)},
        whole=settings.is_whole,
        everywhere={each.environment.name for each in (settings, *others)} >= set(settings.environments),
    )


def _doubtful(settings: Settings) -> Iterator[str]:
    """Rules that say "there is none", where the file that may have it was not read."""
    faulty = {error.file_path for error in settings.errors}
    if faulty.intersection((*settings.configuration_files, *settings.prefect_files)):
        yield "DPL004"  # no value for a required parameter: an unknown key may be meant to give it
    if faulty.intersection(settings.configuration_files):
        yield from ("CFG011", "CFG013")  # about environments on the same server: it may be another one
    if settings.unread or faulty.intersection(settings.configuration_files) or not settings.is_whole:
        yield "DPL011"  # a call to a deployment that nobody declares


def _facts(repository: Repository, settings: Settings, discovery: Discovery, installed: frozenset[str] | None) -> Facts:
    environment = settings.environment
    if settings.unread:
        environment = environment.model_copy(update={"templates": {}})  # nobody knows for which flows they are
    return Facts(
        repository=repository,
        flows=discovery.flows,
        problems=(*discovery.problems, *settings.problems),
        declarations=settings.declarations,
        outside_imports=discovery.outside_imports,
        environment=environment,
        prefect_files=settings.prefect_files,
        configuration_files=settings.configuration_files,
        installed=installed,
    )


def work_out(
    settings: Settings,
    discovery: Discovery,
    validation: ValidationResult,
    *,
    checkout: Path | None = None,
    meanwhile: Callable[[], object] | None = None,
    deployer_schema: Callable[[], Schema] | None = None,
) -> Desired:
    """What the environment should have.

    Args:
        settings, discovery, validation: what the stages before found.
        checkout: the folder that workers run from, which pull steps name; None: the one that was read.
        meanwhile: as for `schemas.read_schemas`.
        deployer_schema: says the parameter schema of the deployer's own flow; None: a child process is asked.

    Raises:
        ConfigurationError: a fault forbids any apply (two flows of one name, an unknown parameter, …).
    """
    if validation.stopping:
        raise ConfigurationError("The repository has faults; nothing was changed.", faults=validation.errors)
    discovery = without_faulty_flows(discovery, validation)
    subjects = [
        Subject(entrypoint=flow.entrypoint, digest=flow.closure_digest, flow=flow)
        for flow in discovery.flows
        if flow.is_valid
    ]
    subjects.append(Subject(entrypoint=DEPLOYER_ENTRYPOINT, digest=deployer_version(), here=deployer_schema))
    cache_file = settings.root / STATE_FOLDER / "cache" / "schemas.json"
    schemas, met = read_schemas(settings.root, subjects, cache_file=cache_file, meanwhile=meanwhile)
    repository = Repository(settings.root)
    warnings = not_silenced(
        (*met, *_against_neighbours(settings, repository)), project_ignores(settings.project, repository), repository
    )
    dockerfiles = [flow.dockerfile_path for flow in discovery.flows if flow.dockerfile_path]
    found = desired_state(
        root=checkout or settings.root,
        project=settings.project.project,
        environment=settings.environment,
        discovery=discovery,
        declarations=settings.declarations,
        schemas=schemas,
        images=flow_images(repository, settings.environment, settings.project.project, dockerfiles),
        folders=settings.project.flows,
        problems=(*validation.errors, *validation.warnings, *warnings),
    )
    return replace(
        found,
        resources=resources_of(settings.environment),
        root=str(settings.root),
        image_terms=_image_terms(settings),
    )


def _image_terms(settings: Settings) -> ImageTerms:
    written = settings.environment.images
    return ImageTerms(
        project=settings.project.project, parallel=written.parallel, timeout_seconds=written.timeout_minutes * 60.0
    )


def _against_neighbours(settings: Settings, repository: Repository) -> tuple[ValidationError, ...]:
    """What other environments declare otherwise on this one's server: a warning, since this one is as it says."""
    others = ConfigurationManager(settings.root).other_environments(settings.environment.name)
    neighbours = on_one_server(settings.environment, others)
    facts = Facts(repository=repository, environment=settings.environment, neighbours=neighbours)
    return as_result(replace(fault, severity="warning") for fault in NEIGHBOURS.apply(facts)).warnings


def without_faulty_flows(discovery: Discovery, validation: ValidationResult) -> Discovery:
    """The discovery with the faults of single flows noted on them: later stages leave such flows out."""
    reasons: dict[str, list[str]] = {}
    for fault in validation.errors:
        for entrypoint in fault.flows if fault.skips else ():
            reasons.setdefault(entrypoint, []).append(f"{fault.location}: {fault.message}")

    def noted(flow: FlowMetadata) -> FlowMetadata:
        errors = dict.fromkeys((*flow.validation_errors, *reasons.get(flow.entrypoint, ())))
        return replace(flow, validation_errors=tuple(errors))

    return replace(discovery, flows=tuple(map(noted, discovery.flows)))


def owner_of(settings: Settings) -> Owner:
    """Who the deployments of this environment belong to."""
    return Owner(project=settings.project.project, environment=settings.environment.name)


def narrowed(desired: Desired, selection: Selection) -> Desired:
    """The part of the desired state that a command is about."""
    return desired if selection.is_everything else select(desired, selection)


def server_address(environment: EnvironmentConfig, given: str | None, *, writes: bool) -> str | None:
    """Which server a command acts on: --api-url, else the environment's, else (None) Prefect's active profile.

    Raises:
        ServerMismatch: a writing command, PREFECT_API_URL names another server than the environment's file, and no
            --api-url settles it.
    """
    ambient, own = os.environ.get("PREFECT_API_URL"), environment.prefect_api_url
    if given or own is None:
        return given
    if writes and ambient and not same_server(ambient, own):
        here, there = shown_url(ambient), shown_url(own)
        raise ServerMismatch(
            f"PREFECT_API_URL is {here}, but the environment {environment.name!r} is at {there}.",
            location=f"environments/{environment.name}.yaml",
            remedy="Say which one with --api-url, or unset PREFECT_API_URL.",
        )
    return own


def on_one_server(environment: EnvironmentConfig, others: Sequence[EnvironmentConfig]) -> tuple[EnvironmentConfig, ...]:
    """Those that use the server of an environment. Who names none may use any: that is said where a command runs."""
    own = environment.prefect_api_url
    return tuple(
        each
        for each in others
        if each.name != environment.name
        and own is not None
        and each.prefect_api_url is not None
        and same_server(own, each.prefect_api_url)
    )


def same_server(one: str, other: str) -> bool:
    """Whether two API addresses name the same server; the names of this machine are one."""

    def essence(url: str) -> tuple[str | None, int | None, str]:
        parts = urlsplit(url)
        host = "loopback" if is_loopback(url) else parts.hostname
        return host, parts.port or {"http": 80, "https": 443}.get(parts.scheme), parts.path.rstrip("/")

    return essence(one) == essence(other)

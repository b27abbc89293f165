"""Small valid values for tests: each test says only what it is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

from orchestrator.config import EnvironmentConfig
from orchestrator.errors import Fault
from orchestrator.model import (
    Declaration,
    DeploymentConfig,
    FlowMetadata,
    ImageResult,
    ImageSpec,
    LiveDeployment,
    Owner,
    Parameter,
    Plan,
    PlannedImage,
    Provenance,
    RecordedState,
    Resources,
    Revision,
    ScheduleConfig,
    ValidationError,
)
from orchestrator.plan import with_causes
from orchestrator.recording import NO_RESOURCES

OWNER = Owner(project="shop", environment="development")
API_URL = "http://127.0.0.1:4270/api"


def write_files(root: Path, files: Mapping[str, str]) -> Path:
    """A repository with these files; their texts are dedented."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
    return root


def flow(name: str = "etl", *, parameters: str = "", **fields: Any) -> FlowMetadata:
    """A discovered flow in flows/<name>.py; `parameters` are names, separated by spaces."""
    values: dict[str, Any] = {
        "name": name,
        "path": f"flows/{name}.py",
        "module_path": f"flows.{name}",
        "function_name": name,
        "line_number": 4,
        "end_line_number": 6,
        "closure_digest": "0123456789abcdef" * 4,
        "parameters": tuple(Parameter(name=each) for each in parameters.split()),
    }
    return FlowMetadata(**{**values, **fields})


def declaration(name: str = "daily", **fields: Any) -> Declaration:
    """What a prefect.yaml says about flows/etl.py:etl."""
    values: dict[str, Any] = {
        "name": name,
        "file_path": "prefect.yaml",
        "line_number": 3,
        "folder": ".",
        "entrypoint": "flows/etl.py:etl",
    }
    return Declaration(**{**values, **fields})


def environment(**fields: Any) -> EnvironmentConfig:
    """An environment with a process pool."""
    pools = {"python": {"name": "processes", "type": "process"}}
    return EnvironmentConfig.model_validate({"name": "development", "work_pools": pools, **fields})


def deployment(path: str = "etl/daily", **fields: Any) -> DeploymentConfig:
    """A desired deployment of ours."""
    flow_name, _, name = path.partition("/")
    values: dict[str, Any] = {"entrypoint": "flows/etl.py:etl", "tags": (OWNER.tag,), "version": "0123456789ab"}
    return DeploymentConfig(flow_name=flow_name, deployment_name=name, **{**values, **fields})


def live(config: DeploymentConfig, *, owner: Owner | None = OWNER, **changed: Any) -> LiveDeployment:
    """`config` as the server has it, except for what is `changed`."""
    config = replace(config, **changed)
    ids = tuple(f"schedule-{number}" for number, _ in enumerate(config.schedules))
    return LiveDeployment(id=f"id-of-{config.deployment_path}", config=config, owner=owner, schedule_ids=ids)


INPUT_DIGEST = "b0ee9bf369e1" + "0" * 52
DIGEST = "sha256:" + "6cb2de72" * 8


def image_spec(**fields: Any) -> ImageSpec:
    """An image that is pushed to a registry."""
    values: dict[str, Any] = {"repository": "registry.example.com/shop-flow", "dockerfile": "docker/flow.Dockerfile"}
    return ImageSpec(**{**values, "is_pushed": True, **fields})


def planned_image(spec: ImageSpec | None = None, **fields: Any) -> PlannedImage:
    """An image that has to be built."""
    values: dict[str, Any] = {"input_digest": INPUT_DIGEST, "action": "build"}
    return PlannedImage(spec=spec or image_spec(), **{**values, **fields})


def image_result(image: PlannedImage | None = None, **fields: Any) -> ImageResult:
    """What became of an image: it was built and pushed."""
    image = image or planned_image()
    values: dict[str, Any] = {"input_digest": image.input_digest, "status": "pushed"}
    return ImageResult(
        name=image.name, spec=image.spec, **{**values, "pinned": f"{image.spec.repository}@{DIGEST}", **fields}
    )


def cron(rule: str = "0 4 * * *", **fields: Any) -> ScheduleConfig:
    return ScheduleConfig(cron=rule, **fields)


def problem(**fields: Any) -> ValidationError:
    return ValidationError(**{"code": "FLW001", "message": "Something is wrong.", **fields})


def places(faults: tuple[Fault, ...]) -> list[tuple[str, str]]:
    """Code and file:line of each fault."""
    return [(fault.code, f"{fault.file_path}:{fault.line_number}") for fault in faults]


def since(plan: Plan, *recorded: DeploymentConfig) -> Plan:
    """The plan, with causes since revision 12, which had these deployments."""
    return with_causes(plan, record(12, *recorded))


def record(
    number: int, *deployments: DeploymentConfig, owner: Owner = OWNER, resources: Resources = NO_RESOURCES
) -> RecordedState:
    """What a revision holds."""
    revision = Revision(
        number=number,
        owner=owner,
        provenance=Provenance(),
        applied_at="2026-11-20T10:00:00Z",
        status="completed",
        summary={},
        desired_digest="",
    )
    return RecordedState(revision=revision, deployments=deployments, resources=resources)

"""What `prefect deploy --all` makes of a repository, `orchestrator apply` makes too, field by field."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.schema_tools import validate
from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

from orchestrator.resource_limits import limit_variables

from .api import Api
from .conftest import PrefectServer

REPOSITORIES = Path(__file__).parents[1] / "repos"
POOL = "conformance"
FLOWS = "conformance-"  # all flows of these repositories begin so, and no others do
SECONDS = 180

VARIABLES: Mapping[str, Any] = {
    "conformance_text": "shop",
    "conformance_number": 5,
    "conformance_tags": ["b", "a"],
    "conformance_mapping": {"inner": [1, {"x": None}]},
    "conformance_cron": "0 6 * * *",
    "conformance_active": False,
    "conformance_rrule": "FREQ=YEARLY;BYMONTH=1;BYMONTHDAY=1",
}
SECRET = "s3cr3t-of-the-block"
BLOCKS: Mapping[str, Any] = {
    "conformance-token": SECRET,
    "conformance-json": {"list": [{"name": "deep"}], "number": 7},
}
ENVIRONMENT = {
    "CONFORMANCE_NAME": "here",
    "CONFORMANCE_FILE": "flows/flow.py",
    "CONFORMANCE_POOL": POOL,
    "CONFORMANCE_ZONE": "Europe/Vienna",
    "CONFORMANCE_REPOSITORY": "repository",
}

OF_THE_SERVER = ("id", "created", "updated", "created_by", "updated_by", "flow_id", "deployment_id", "status")
OURS = ("labels", "version")  # where they come from, and the digest of the code where the file names no version


@pytest.fixture(scope="module")
def api(prefect_server: PrefectServer) -> Iterator[Api]:
    api = Api(prefect_server.api_url)
    api.ensure_pool(POOL)
    for name, value in VARIABLES.items():
        api.post("/variables/", name=name, value=value)
    type_id = api.get("/block_types/slug/secret")["id"]
    (schema, *_) = api.post("/block_schemas/filter", block_schemas={"block_type_id": {"any_": [type_id]}})
    block = {"block_type_id": type_id, "block_schema_id": schema["id"]}
    for name, value in BLOCKS.items():
        api.post("/block_documents/", name=name, data={"value": value}, **block)
    yield api
    forget(api)


@pytest.mark.parametrize(
    ("repository", "folder"),
    [
        ("conformance_fields", "."),
        ("conformance_schedules", "."),
        ("conformance_templating", "."),
        ("conformance_pull", "."),
        ("conformance_nested", "jobs"),
        ("conformance_triggers", "."),
    ],
)
def test_apply_makes_what_prefect_deploy_makes(
    api: Api, prefect_server: PrefectServer, tmp_path: Path, repository: str, folder: str
) -> None:
    root = tmp_path / "shop"
    shutil.copytree(REPOSITORIES / repository, root)
    environment = {**prefect_server.environment, **ENVIRONMENT}

    forget(api)
    run(["prefect", "--no-prompt", "deploy", "--all"], root / folder, environment)
    theirs, their_automations = deployments(api), automations(api)
    assert theirs

    forget(api)
    applied = run(["orchestrator", "apply", "--yes", "--root", str(root)], tmp_path, environment)
    assert SECRET not in applied
    assert list(differences(deployments(api), theirs)) == []
    assert list(differences(automations(api), their_automations)) == []

    again = json.loads(run(["orchestrator", "plan", "--root", str(root), "--output", "json"], tmp_path, environment))
    assert [change for change in again["changes"] if change["action"] != "unchanged"] == []


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Every difference, in words."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in sorted({*ours, *theirs}):
            yield from differences(ours.get(key, "nothing"), theirs.get(key, "nothing"), f"{path}.{key}")
    elif ours != theirs or type(ours) is not type(theirs):
        yield f"{path}: ours is {ours!r}, theirs is {theirs!r}"


def run(command: list[str], folder: Path, environment: Mapping[str, str]) -> str:
    """Run `python -m COMMAND`; its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def forget(api: Api) -> None:
    """Remove what a test deployed, and its automations: the server keeps those of a deployment that is gone."""
    for row in _rows(api):
        api.call("DELETE", f"/deployments/{row['id']}")
    for automation in _automations(api):
        api.call("DELETE", f"/automations/{automation['id']}")


def deployments(api: Api) -> dict[str, dict[str, Any]]:
    """What there is of the deployments, without what the server makes up and what is ours by policy."""
    flows = {row["id"]: row["name"] for row in api.post("/flows/filter")}
    return {f"{flows[row['flow_id']]}/{row['name']}": _comparable(row) for row in _rows(api)}


def _rows(api: Api) -> list[dict[str, Any]]:
    flows = {"name": {"like_": FLOWS}}
    rows: list[dict[str, Any]] = api.post("/deployments/filter", flows=flows)
    return rows


def _comparable(row: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in row.items() if key not in (*OF_THE_SERVER, *OURS)}
    found["tags"] = sorted({tag for tag in row["tags"] if not tag.startswith("orchestrator:")})
    found["schedules"] = sorted((_schedule(item) for item in row["schedules"]), key=json.dumps)
    if found["description"] in (None, "None"):  # `prefect deploy` makes a text of a missing one
        found["description"] = ""
    if limit := found.pop("global_concurrency_limit", None):
        found["limit"] = limit["limit"]
    return found


def _schedule(item: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in item.items() if key not in OF_THE_SERVER}
    if found["slug"] == "minute":  # an interval without an anchor starts now
        del found["schedule"]["anchor_date"]
    return found


def automations(api: Api) -> dict[str, dict[str, Any]]:
    """Name → automation, without ids and with sets in order."""
    return {row["name"]: _without_ids(row) for row in _automations(api)}


def _automations(api: Api) -> list[dict[str, Any]]:
    return [row for row in api.post("/automations/filter") if row["name"].startswith("on-events")]


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        ids = (*OF_THE_SERVER, "tags")
        return {key: _without_ids(inner) for key, inner in value.items() if key not in ids}
    if isinstance(value, list):
        inner = [_without_ids(item) for item in value]
        return sorted(inner) if all(isinstance(item, str) for item in inner) else inner
    return value


@pytest.mark.parametrize(
    "pool_type", ["docker", "kubernetes", "ecs", "azure-container-instance", "cloud-run", "cloud-run-v2"]
)
async def test_resource_limits_fit_the_job_template_of_the_pool_type(
    prefect_server: PrefectServer, pool_type: str
) -> None:
    template = await get_default_base_job_template_for_infrastructure_type(pool_type)
    assert template
    variables = limit_variables(pool_type, memory="1.5Gi", cpu="2", image_pull_policy="Always")
    assert len(variables) >= 2
    assert variables.keys() <= template["variables"]["properties"].keys()
    validate(variables, template["variables"], raise_on_error=True, preprocess=True, ignore_required=True)

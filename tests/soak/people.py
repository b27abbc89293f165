"""What people and other projects do on the server, by the raw API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.integration.api import Api

from .world import OWNER_TAG, POOL, TAG, Deed, rule_of

FOREIGN_FLOW = "flow-1"  # it has deployments of ours, too
FOREIGN_TAG = OWNER_TAG.replace("soak", "others")
TEMPLATE = {
    "job_configuration": {"env": "{{ env }}", "command": "{{ command }}"},
    "variables": {
        "type": "object",
        "properties": {
            "env": {"type": "object", "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
            "command": {"type": "string"},
        },
    },
}


def prepare(api: Api) -> None:
    """A pool, and deployments that are not ours: by hand, and of another project."""
    api.ensure_pool(POOL, template=TEMPLATE)
    schedules = [{"schedule": {"cron": "30 3 * * *"}, "slug": "theirs"}, {"schedule": {"interval": 86400}}]
    fields: dict[str, Any] = {"work_pool_name": POOL, "schedules": schedules, "entrypoint": "flows/x.py:x"}
    api.deploy(f"{FOREIGN_FLOW}/by-hand", **fields)
    api.deploy(f"{FOREIGN_FLOW}/of-others", tags=[FOREIGN_TAG], **fields)
    api.deploy("their-flow/daily", tags=["orchestrator"], paused=True, **fields)


def act(api: Api, deeds: Iterable[Deed]) -> None:
    """Do what people do between two applies."""
    for deed in deeds:
        if deed.what == "edit a limit":
            api.post("/concurrency_limits/", tag=TAG, concurrency_limit=99)
            continue
        row = api.deployment(deed.path)
        path = f"/deployments/{row['id']}"
        if deed.what == "pause":
            api.post(f"{path}/pause_deployment")
        elif deed.what == "resume":
            api.post(f"{path}/resume_deployment")
        elif deed.what == "delete":
            api.call("DELETE", path)
        elif deed.what == "edit":
            api.patch(path, description="Edited by hand.", parameters={"tables": -1})
        elif deed.what == "add a schedule":
            api.call("POST", f"{path}/schedules", [{"schedule": {"cron": "11 11 * * *"}, "active": True}])
        elif deed.what == "switch off":
            schedule_id = schedule_ids(row)[deed.schedule]
            api.patch(f"{path}/schedules/{schedule_id}", active=False)  # as the UI does; it empties its parameters
        else:
            raise ValueError(deed.what)


def delete_locks(api: Api) -> None:
    """Take the locks of appliers that are known to be dead."""
    for row in api.post("/variables/filter", variables={"tags": {"all_": ["orchestrator", "lock"]}}):
        api.call("DELETE", f"/variables/{row['id']}")


def schedule_ids(row: dict[str, Any]) -> dict[str, str]:
    """Slug, or the rule of one that has none → id."""
    return {key_of(schedule): schedule["id"] for schedule in row["schedules"]}


def key_of(schedule: dict[str, Any]) -> str:
    """What our side calls a schedule of the server."""
    return schedule["slug"] or rule_of(schedule["schedule"])

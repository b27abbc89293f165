"""The only door to the Prefect API for deployments, work pools, workers and limits.

Everything goes through Prefect's own client (its connections, authentication, TLS and retries); its errors become
ours here. Lists are read in pages, since the server cuts them at 200 without a word. Facts about what the endpoints
do to schedules and paused flags: docs/decisions/0004-gentle-writes.md.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

from orchestrator.config import QueueConfig, WorkPoolConfig
from orchestrator.errors import ConfigurationError, ServerError, ServerUnreachable
from orchestrator.masking import shown_url
from orchestrator.model import DeploymentConfig, LiveDeployment, Owner, ScheduleConfig

PAGE = 200  # rows: the server's own maximum

_UPDATABLE = (
    "description",
    "parameters",
    "tags",
    "path",
    "entrypoint",
    "job_variables",
    "concurrency_options",
    "enforce_parameter_schema",
)
_RENAMED = {
    "work_pool": "work_pool_name",
    "work_queue": "work_queue_name",
    "parameter_schema": "parameter_openapi_schema",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolState:
    """A work pool as the server has it."""

    name: str
    type: str
    concurrency_limit: int | None
    queues: Mapping[str, Mapping[str, Any]]


@asynccontextmanager
async def open_server(api_url: str | None = None) -> AsyncIterator[PrefectServer]:
    """Connect to a Prefect server.

    Args:
        api_url: its API address; None takes the one that Prefect's settings name (inside a flow run: the server
            that runs it).

    Raises:
        ConfigurationError: neither names a server.
    """
    with temporary_settings(updates={PREFECT_API_URL: api_url} if api_url else {}):
        if active_api_url() is None:  # Prefect would start a temporary server, which forgets what it is told
            raise ConfigurationError(
                "No Prefect server is named.",
                remedy="Give one with --api-url, or as prefect_api_url in the environment's file.",
            )
        async with get_client() as client:
            yield PrefectServer(client)


def active_api_url() -> str | None:
    """The API address that Prefect's settings name: its active profile, or PREFECT_API_URL."""
    return PREFECT_API_URL.value() or None


class PrefectServer:
    """A connected server: reads into our nouns, writes by the gentlest call."""

    def __init__(self, client: PrefectClient) -> None:
        self.client = client
        self._flow_ids: dict[str, str] = {}

    @property
    def api_url(self) -> str:
        """Its address, as it may be shown."""
        return shown_url(str(self.client.api_url)).rstrip("/")

    # ----- deployments: reading ------------------------------------------------------------------------

    async def read_deployments(self) -> tuple[LiveDeployment, ...]:
        """Every deployment of the server, whoever owns it: one request per 200 deployments and per 200 flows.

        Raises:
            ServerUnreachable, ServerError: the server did not answer, or not with deployments.
        """
        # Flows come second: one that somebody adds meanwhile would be missing for its deployment. A deployment whose
        # flow is gone by then is gone too.
        rows = await self.pages("/deployments/filter", {"sort": "CREATED_DESC"})
        flows = {flow["id"]: flow["name"] for flow in await self.pages("/flows/filter", {"sort": "NAME_ASC"})}
        self._flow_ids = {name: id_ for id_, name in flows.items()}
        found = {row["id"]: _live(row, flows[row["flow_id"]]) for row in rows if row["flow_id"] in flows}
        return tuple(sorted(found.values(), key=lambda item: item.config.deployment_path))

    async def pages(self, route: Any, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        """All rows, in pages. What is sorted by must be unique: many deployments share a name, and a database may
        order equals differently for each page. New ones come first, so that no page loses one to the next."""
        rows: list[dict[str, Any]] = []
        while True:
            body = {**query, "limit": PAGE, "offset": len(rows)}
            page = await self.request("POST", route, json=body)
            rows += page
            if len(page) < PAGE:
                return rows

    async def deployments_with_scheduled_runs(self) -> frozenset[str]:
        """The ids of the deployments that have runs waiting for their time: one request per 200 runs."""
        waiting = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        runs = await self.pages("/flow_runs/filter", {**waiting, "sort": "EXPECTED_START_TIME_ASC"})
        return frozenset(run["deployment_id"] for run in runs if run["deployment_id"])

    # ----- deployments: writing ------------------------------------------------------------------------

    async def create_deployment(self, config: DeploymentConfig, labels: Mapping[str, str]) -> str:
        """Create a deployment, with its schedules.

        Args:
            config: what to create.
            labels: where it comes from; the server takes labels at creation only.

        Returns:
            Its id.
        """
        body = {
            "name": config.deployment_name,
            "flow_id": await self._flow_id(config.flow_name),
            "paused": config.paused,
            "schedules": [_schedule_body(schedule) for schedule in config.schedules],
            "concurrency_limit": config.concurrency_limit,
            "version": config.version,
            "labels": dict(labels),
            **_writable(config, (*_UPDATABLE, *_RENAMED, "pull_steps")),
        }
        return str((await self.request("POST", "/deployments/", json=body))["id"])

    async def update_deployment(self, id_: str, config: DeploymentConfig, fields: tuple[str, ...]) -> None:
        """Change the named fields of a deployment and nothing else: never its schedules, never un-pausing it."""
        if {"work_pool", "work_queue", "job_variables"} & set(fields):
            # A queue alone is looked up in Prefect's default pool, and takes the deployment there. Job variables
            # alone are not checked against the pool's template.
            fields = (*fields, "work_pool", "work_queue")
        body = _writable(config, fields)
        if "version" in fields:
            body["version"] = config.version
        if "concurrency_limit" in fields:
            body["concurrency_limit"] = config.concurrency_limit
        try:
            await self.request("PATCH", "/deployments/{id}", path_params={"id": id_}, json=body)
        except ServerError as error:
            await self._require_pool(body.get("work_pool_name"), error)
            raise
        if config.schedules:
            await self._restore_runs(id_)

    async def _require_pool(self, name: str | None, error: ServerError) -> None:
        """Name a missing pool: to an update the server answers 500 and no reason."""
        if name and not isinstance(error, ServerUnreachable) and await self.read_pool(name) is None:
            raise ServerError(
                f"There is no work pool {name!r}.",
                location=f"work pool {name}",
                remedy="`orchestrator bootstrap` creates those of the environment's file.",
            ) from error

    async def _restore_runs(self, id_: str) -> None:
        """Schedule a deployment's coming runs: the server drops them with every update of it or of a schedule.

        Its scheduler would get to it within a minute, and leave out what was due in the meantime.
        """
        row = await self.request("GET", "/deployments/{id}", path_params={"id": id_})
        if not row["paused"] and any(schedule["active"] for schedule in row["schedules"]):
            await self.request("POST", "/deployments/{id}/schedule", path_params={"id": id_}, json={})

    async def pause_deployment(self, id_: str) -> None:
        await self.request("POST", "/deployments/{id}/pause_deployment", path_params={"id": id_})

    async def delete_deployment(self, id_: str) -> None:
        """Delete a deployment; one that is gone already is no error."""
        try:
            await self.request("DELETE", "/deployments/{id}", path_params={"id": id_})
        except ServerError as error:
            if not isinstance(error.__cause__, ObjectNotFound) and "404" not in error.message:
                raise

    async def create_schedule(self, deployment_id: str, schedule: ScheduleConfig) -> None:
        await self._schedule("POST", "/deployments/{id}/schedules", [_schedule_body(schedule)], id=deployment_id)

    async def update_schedule(self, deployment_id: str, schedule_id: str, schedule: ScheduleConfig) -> None:
        """Change one schedule's rule and parameters; its `active` flag is only ever switched off."""
        body = _schedule_body(schedule)  # with its parameters always: a PATCH that is silent about them empties them
        if schedule.active:
            del body["active"]
        route = "/deployments/{id}/schedules/{schedule_id}"
        await self._schedule("PATCH", route, body, id=deployment_id, schedule_id=schedule_id)

    async def delete_schedule(self, deployment_id: str, schedule_id: str) -> None:
        route = "/deployments/{id}/schedules/{schedule_id}"
        await self._schedule("DELETE", route, None, id=deployment_id, schedule_id=schedule_id)

    async def _schedule(self, method: Any, route: Any, body: Any, **ids: str) -> None:
        await self.request(method, route, path_params=ids, json=body)
        await self._restore_runs(ids["id"])

    async def _flow_id(self, name: str) -> str:
        if name not in self._flow_ids:  # POST /flows/ gives the existing flow of that name
            self._flow_ids[name] = (await self.request("POST", "/flows/", json={"name": name}))["id"]
        return self._flow_ids[name]

    # ----- work pools, workers, limits -----------------------------------------------------------------

    async def read_pool(self, name: str) -> PoolState | None:
        """A work pool with its queues, None where there is none of that name."""
        with our_errors(self.api_url):
            try:
                pool = await self.client.read_work_pool(name)
            except ObjectNotFound:
                return None
            queues = await self.client.read_work_queues(work_pool_name=name, limit=PAGE)
        return PoolState(
            name=pool.name,
            type=pool.type,
            concurrency_limit=pool.concurrency_limit,
            queues={
                queue.name: {"priority": queue.priority, "concurrency_limit": queue.concurrency_limit}
                for queue in queues
            },
        )

    async def create_pool(self, config: WorkPoolConfig) -> None:
        """Create a work pool with the full job template of its type; queues are not created here.

        A pool that somebody else created in the meantime is as good.

        Raises:
            ServerError: this installation of Prefect knows no such pool type.
        """
        template = await get_default_base_job_template_for_infrastructure_type(config.type)
        if template is None:
            raise ServerError(
                f"Prefect here knows no work pool type {config.type!r}.",
                location=f"work pool {config.name}",
                remedy=f"Install the integration that brings it, for example prefect-{config.type}.",
            )
        with our_errors(self.api_url), suppress(ObjectAlreadyExists):
            await self.client.create_work_pool(
                WorkPoolCreate(
                    name=config.name,
                    type=config.type,
                    description=config.description,
                    concurrency_limit=config.concurrency_limit,
                    base_job_template=template,
                )
            )

    async def create_queue(self, pool: str, name: str, queue: QueueConfig) -> None:
        with our_errors(self.api_url):
            await self.client.create_work_queue(name=name, work_pool_name=pool, **_without_none(queue.model_dump()))

    async def update_queue(self, pool: str, name: str, queue: QueueConfig) -> None:
        """Set a queue's priority, limit and description where given; what is None stays."""
        path = {"work_pool_name": pool, "name": name}
        body = _without_none(queue.model_dump())
        await self.request("PATCH", "/work_pools/{work_pool_name}/queues/{name}", path_params=path, json=body)

    async def online_workers(self, pool: str) -> frozenset[str]:
        """The names of the workers that have polled a pool lately."""
        with our_errors(self.api_url):
            workers = await self.client.read_workers_for_work_pool(pool, limit=PAGE)
        return frozenset(worker.name for worker in workers if worker.status == "ONLINE")

    async def read_tag_limits(self) -> dict[str, int]:
        """Task tag → slots."""
        with our_errors(self.api_url):
            limits = await self.client.read_concurrency_limits(limit=PAGE, offset=0)
        return {limit.tag: limit.concurrency_limit for limit in limits}

    async def create_tag_limit(self, tag: str, slots: int) -> None:
        with our_errors(self.api_url):
            await self.client.create_concurrency_limit(tag=tag, concurrency_limit=slots)

    async def read_owner(self, deployment_id: Any) -> Owner | None:
        """Who a deployment belongs to."""
        row = await self.request("GET", "/deployments/{id}", path_params={"id": deployment_id})
        return Owner.from_tags(tuple(row["tags"]))

    async def version(self) -> str:
        """The server's Prefect version."""
        with our_errors(self.api_url):
            return await self.client.api_version()

    async def request(self, method: Any, route: Any, **arguments: Any) -> Any:
        """One request, by Prefect's client.

        Args:
            method: of HTTP.
            route: below /api; `{names}` in it come from `path_params`.
            arguments: as the client's `request` takes them (`json`, `path_params`).

        Returns:
            The answer's JSON, None where it has none.

        Raises:
            ServerUnreachable, ServerError: the server did not answer, or refused.
        """
        _require_json(arguments.get("json"), location=f"{method} {route}")
        with our_errors(self.api_url):
            response = await self.client.request(method, route, **arguments)
        try:
            return response.json() if response.content else None
        except ValueError as error:
            raise ServerError(
                "The answer is no JSON.",
                location=f"{method} {route}",
                remedy="Is this address a Prefect server's API? It ends in /api.",
            ) from error


# ---------------------------------------------------------------------------------------------------------
# Between the API's shapes and ours
# ---------------------------------------------------------------------------------------------------------


def _live(row: Mapping[str, Any], flow_name: str) -> LiveDeployment:
    schedules = [(_schedule(item), item["id"]) for item in row["schedules"]]
    limit = row.get("global_concurrency_limit") or {}
    description = row.get("description")
    return LiveDeployment(
        id=row["id"],
        owner=Owner.from_tags(tuple(row["tags"])),
        changed_at=max([row["updated"], *(item["updated"] for item in row["schedules"])]),
        schedule_ids=tuple(id_ for _, id_ in schedules),
        config=DeploymentConfig(
            flow_name=flow_name,
            deployment_name=row["name"],
            entrypoint=row["entrypoint"],
            path=row["path"] or None,
            work_pool=row["work_pool_name"],
            work_queue=row["work_queue_name"],
            parameters=row["parameters"] or {},
            job_variables=row["job_variables"] or {},
            pull_steps=tuple(row["pull_steps"] or ()),
            schedules=tuple(schedule for schedule, _ in schedules),
            paused=row["paused"],
            tags=tuple(row["tags"]),
            # A redeploy by Prefect can store a missing description as the text "None".
            description="" if description in (None, "None") else description,
            version=row["version"] or "",
            concurrency_limit=limit.get("limit"),
            concurrency_options=_without_none(row.get("concurrency_options") or {}),
            enforce_parameter_schema=row["enforce_parameter_schema"],
            parameter_schema=row["parameter_openapi_schema"] or {},
        ),
    )


def _schedule(item: Mapping[str, Any]) -> ScheduleConfig:
    rule = item["schedule"]
    return ScheduleConfig(
        cron=rule.get("cron"),
        interval=rule.get("interval"),
        rrule=rule.get("rrule"),
        timezone=rule.get("timezone"),
        anchor_date=rule.get("anchor_date"),
        day_or=rule.get("day_or", True),
        active=item["active"],
        parameters=item.get("parameters") or {},
        slug=item.get("slug"),
    )


def _schedule_body(schedule: ScheduleConfig) -> dict[str, Any]:
    """A schedule as the API takes it: only what its kind of rule has."""
    names = ("cron", "timezone", "day_or") if schedule.cron is not None else ("rrule", "timezone")
    if schedule.interval is not None:
        names = ("interval", "timezone", "anchor_date")
    rule = {name: getattr(schedule, name) for name in names}
    body = {"schedule": _without_none(rule), "active": schedule.active, "parameters": dict(schedule.parameters)}
    return {**body, "slug": schedule.slug} if schedule.slug else body


def _writable(config: DeploymentConfig, fields: Sequence[str]) -> dict[str, Any]:
    """The named fields in the API's words."""
    body = {_RENAMED.get(name, name): getattr(config, name) for name in (*_UPDATABLE, *_RENAMED) if name in fields}
    for name in ("tags", "parameters", "job_variables", "concurrency_options", "parameter_openapi_schema"):
        if name in body:
            body[name] = list(body[name]) if name == "tags" else dict(body[name])
    if "concurrency_options" in body and not body["concurrency_options"]:
        body["concurrency_options"] = None
    if "pull_steps" in fields:
        body["pull_steps"] = [dict(step) for step in config.pull_steps]
    return body


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _require_json(body: Any, *, location: str) -> None:
    """Say what cannot be sent, in the words of the one change that it belongs to.

    Raises:
        ServerError: JSON has nothing for some value of the body.
    """
    try:
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ServerError(
            f"This cannot be sent as JSON: {error}.",
            location=location,
            remedy="Write text, numbers, true, false, null, lists and mappings only.",
        ) from error


@contextmanager
def our_errors(api_url: str) -> Iterator[None]:
    """Turn what Prefect's client raises into our errors."""
    try:
        yield
    except (PrefectHTTPStatusError, httpx.HTTPStatusError) as error:
        detail = _detail(error.response)
        raise ServerError(
            f"The server answered {error.response.status_code}{f': {detail}' if detail else ''}.",
            location=f"{error.request.method} {error.request.url.path}",
        ) from error
    except httpx.TransportError as error:
        raise ServerUnreachable(
            f"The Prefect server does not answer ({type(error).__name__}).",
            location=api_url,
            remedy="Is it running, and is the address right? `orchestrator bootstrap` starts a local one.",
        ) from error
    except (ObjectNotFound, ObjectAlreadyExists) as error:
        raise ServerError(str(error) or type(error).__name__) from error


def _detail(response: httpx.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        return response.text[:300]
    if not isinstance(body, dict):
        return ""
    faults = body.get("exception_detail")  # of a request that the server could not take: what, and where in it
    if isinstance(faults, list) and faults:
        return "; ".join(_fault(item) for item in faults)[:600]
    return str(body.get("detail") or body.get("exception_message") or body)[:600]


def _fault(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    place = ".".join(str(part) for part in item.get("loc", ()) if part != "body")
    return f"{place}: {item.get('msg', '')}"

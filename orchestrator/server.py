"""The door to the Prefect API for deployments; `pools` is the one for what they need around them.

Everything goes through Prefect's own client (its connections, authentication, TLS and retries); its errors become
ours here. Lists are read in pages, since the server cuts them at 200 without a word. Facts about what the endpoints
do to schedules and paused flags: docs/decisions/0004-gentle-writes.md.

Every write may be repeated when its answer was lost: what is created is looked for before it is created again, what
is gone counts as deleted, and changing twice is changing once.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from typing import Any

import anyio
import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL

from orchestrator.errors import ConfigurationError, ServerBusy, ServerError, ServerUnreachable
from orchestrator.masking import shown_url
from orchestrator.model import DeploymentConfig, LiveDeployment, Owner, ScheduleConfig
from orchestrator.settings_override import overridden

PAGE = 200  # rows: the server's own maximum
BUSY = (408, 429, 502, 503, 504)  # status codes of a server, or of a proxy before it, that may do it later
RACE_PAUSES = (0.0, 0.3, 1.0, 2.0)  # seconds: who was first needs that long at most
RACE = "Data integrity conflict"  # what the server says when two requests create the same thing at a time
LOST_TOKEN = "Invalid CSRF token"  # to a write after a restart; Prefect's client has fetched a new one by then

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


Rows = list[dict[str, Any]]


@asynccontextmanager
async def open_server(api_url: str | None = None) -> AsyncIterator[PrefectServer]:
    """Connect to a Prefect server.

    Args:
        api_url: its API address; None takes the one that Prefect's settings name (inside a flow run: the server
            that runs it).

    Raises:
        ConfigurationError: neither names a server.
    """
    with overridden("api.url", api_url) if api_url else nullcontext():
        if active_api_url() is None:  # Prefect would start a temporary server, which forgets what it is told
            raise ConfigurationError(
                "No Prefect server is named.",
                remedy="Give one with --api-url, as prefect_api_url in the environment's file, or as PREFECT_API_URL.",
            )
        async with get_client(httpx_settings=_http_settings()) as client:
            yield PrefectServer(client)


def _http_settings() -> dict[str, Any]:
    """Of Prefect's client. Each loads the system's certificates anew, which takes 30 ms: where the address asks for no
    TLS they are loaded once. Where it does, Prefect's settings say which."""
    settings: dict[str, Any] = {"event_hooks": {"response": [_no_second_try]}}
    return settings if (active_api_url() or "").startswith("https:") else {**settings, "verify": _certificates()}


@cache
def _certificates() -> ssl.SSLContext:
    return ssl.create_default_context()


_TRIED_ONCE = ContextVar("tried once", default=False)


async def _no_second_try(answer: httpx.Response) -> None:
    """Raise at once what would be tried again: Prefect's client sleeps two seconds even after the last try."""
    if _TRIED_ONCE.get() and answer.status_code in BUSY:
        await answer.aread()
        answer.raise_for_status()


def active_api_url() -> str | None:
    """The API address that Prefect's settings name: its active profile, or PREFECT_API_URL."""
    return PREFECT_API_URL.value() or None


class PrefectServer:
    """A connected server: reads into our nouns, writes by the gentlest call."""

    def __init__(self, client: PrefectClient) -> None:
        self.client = client
        self._flow_ids: dict[str, str] = {}
        self._unanswered: set[tuple[str, ...]] = set()  # what may have been created without our being told

    @property
    def api_url(self) -> str:
        """Its address, as it may be shown."""
        return shown_url(str(self.client.api_url)).rstrip("/")

    async def is_alive(self) -> bool:
        """Whether the server answers at all, whatever becomes of single requests."""
        try:
            await self.request("GET", "/health")
        except ServerError:
            return False
        return True

    # ----- deployments: reading ------------------------------------------------------------------------

    async def read_deployments(self, flows: Collection[str] | None = None) -> tuple[LiveDeployment, ...]:
        """Every deployment of the server, whoever owns it: one request per 200 deployments and per 200 flows.

        Args:
            flows: only those of flows with these names; so many that it takes several questions are not told apart.

        Raises:
            ServerUnreachable, ServerError: the server did not answer, or not with deployments.
        """
        # Flows come second: one that somebody adds meanwhile would be missing for its deployment. A deployment whose
        # flow is gone by then is gone too. A server may have any number of flows that never had a deployment.
        chosen = {"name": {"any_": sorted(flows)}} if flows is not None and len(flows) <= PAGE else {}
        rows = await self.pages("/deployments/filter", {"flows": chosen or None, "sort": "CREATED_DESC"})
        deployed = {"flows": {"deployment": {"is_null_": False}, **chosen}, "sort": "NAME_ASC"}
        wanted = {row["flow_id"] for row in rows}
        named = await self.pages("/flows/filter", deployed, enough=lambda found: wanted <= {row["id"] for row in found})
        names = {flow["id"]: flow["name"] for flow in named}
        self._flow_ids |= {name: id_ for id_, name in names.items()}
        found = {row["id"]: _live(row, names[row["flow_id"]]) for row in rows if row["flow_id"] in names}
        return tuple(sorted(found.values(), key=lambda item: item.config.deployment_path))

    async def pages(
        self,
        route: Any,
        query: Mapping[str, Any],
        *,
        enough: Callable[[Rows], bool] | None = None,
    ) -> Rows:
        """All rows, in pages, or as many as are `enough`. What is sorted by must be unique: many deployments share a
        name, and a database may order equals differently for each page. New ones come first, so that no page loses one
        to the next."""
        rows: Rows = []
        while True:
            body = {**query, "limit": PAGE, "offset": len(rows)}
            page = await self.request("POST", route, json=body)
            rows += page
            if len(page) < PAGE or (enough is not None and enough(rows)):
                return rows

    async def deployments_with_scheduled_runs(
        self, ids: Sequence[str], *, since: datetime | None = None
    ) -> frozenset[str]:
        """Which of these deployments have runs waiting for a time to come. A scheduler that works leaves none without;
        one that is dead leaves late ones, where no worker takes them.

        Args:
            ids: of the deployments.
            since: count runs whose time came after this, whatever has become of them.

        One that runs every minute has a hundred of them, so each further page leaves out whom the last one named.
        """
        found: set[str] = set()
        for start in range(0, len(ids), PAGE):
            unknown = set(ids[start : start + PAGE])
            while unknown:
                named = await self._next_to_run(unknown, since)
                found |= named
                unknown -= named
                if not named:
                    break
        return frozenset(found)

    async def _next_to_run(self, ids: Collection[str], since: datetime | None) -> set[str]:
        query = {
            "deployments": {"id": {"any_": sorted(ids)}},
            "flow_runs": {
                "state": None if since else {"type": {"any_": ["SCHEDULED"]}},
                "expected_start_time": {"after_": (since or datetime.now(UTC)).isoformat()},
            },
            "sort": "EXPECTED_START_TIME_ASC",
            "limit": PAGE,
        }
        return {run["deployment_id"] for run in await self.request("POST", "/flow_runs/filter", json=query)}

    # ----- deployments: writing ------------------------------------------------------------------------

    async def find_deployment(self, flow: str, name: str) -> LiveDeployment | None:
        """The deployment of this name, None where there is none."""
        query = {"flows": {"name": {"any_": [flow]}}, "deployments": {"name": {"any_": [name]}}, "limit": 1}
        rows = await self.request("POST", "/deployments/filter", json=query)
        return _live(rows[0], flow) if rows else None

    async def read_labels(self, id_: str) -> dict[str, str]:
        """What a deployment's labels say; none where it is gone."""
        rows = await self.request("POST", "/deployments/filter", json={"deployments": {"id": {"any_": [id_]}}})
        return dict(rows[0].get("labels") or {}) if rows else {}

    @contextmanager
    def writing(self) -> Iterator[None]:
        """For the time of the block each request is tried once: whoever writes decides what is repeated, and how."""
        with overridden("client.max_retries", 0):
            token = _TRIED_ONCE.set(True)
            try:
                yield
            finally:
                _TRIED_ONCE.reset(token)

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
        key = ("deployment", config.deployment_path)
        if key in self._unanswered:  # to create it again would recreate its schedules, and overwrite somebody else's
            found = await self.find_deployment(config.flow_name, config.deployment_name)
            if found is not None and found.owner != Owner.from_tags(config.tags):
                raise ServerError(
                    "Somebody else has created a deployment of this name meanwhile.",
                    location=config.deployment_path,
                    remedy="Plan again.",
                )
            if found is not None:
                return found.id
        with self._creating(key):
            return str((await self._despite_a_race("POST", "/deployments/", json=body))["id"])

    async def _despite_a_race(self, method: Any, route: Any, **arguments: Any) -> Any:
        """A request that creates what is missing: work queues, scheduled runs. Of two at a time that do, one fails, and
        the server's own scheduler is at it, too."""
        for pause in RACE_PAUSES:
            try:
                return await self.request(method, route, **arguments)
            except ServerError as error:
                if RACE not in error.message:
                    raise
                await anyio.sleep(pause)
        return await self.request(method, route, **arguments)

    @contextmanager
    def _creating(self, key: tuple[str, ...]) -> Iterator[None]:
        """Remember what was sent to be created and not answered, so that the next try looks whether it is there."""
        try:
            yield
        except (ServerBusy, ServerUnreachable):
            self._unanswered.add(key)
            raise

    async def update_deployment(self, id_: str, config: DeploymentConfig, fields: tuple[str, ...]) -> None:
        """Change the named fields of a deployment and nothing else: never its schedules, never un-pausing it."""
        if "work_pool" in fields and config.work_pool:
            await self._require_pool(config.work_pool)
        if {"work_pool", "work_queue", "job_variables"} & set(fields):
            # A queue alone is looked up in Prefect's default pool, and takes the deployment there. Job variables
            # alone are not checked against the pool's template.
            fields = (*fields, "work_pool", "work_queue")
        body = _writable(config, fields)
        if "version" in fields:
            body["version"] = config.version
        if "concurrency_limit" in fields:
            body["concurrency_limit"] = config.concurrency_limit
        await self._despite_a_race("PATCH", "/deployments/{id}", path_params={"id": id_}, json=body)
        if config.schedules:
            await self._restore_runs(id_)

    async def _require_pool(self, name: str) -> None:
        """Name a missing pool: an update with one the server answers by 500 and no reason, or by hanging up."""
        if not await self._has_pool(name):
            raise ServerError(
                f"There is no work pool {name!r}.",
                location=f"work pool {name}",
                remedy="`orchestrator bootstrap` creates those of the environment's file.",
            )

    async def _has_pool(self, name: str) -> bool:
        body = {"work_pools": {"name": {"any_": [name]}}, "limit": 1}
        return bool(await self.request("POST", "/work_pools/filter", json=body))

    async def _restore_runs(self, id_: str) -> None:
        """Schedule a deployment's coming runs: the server drops them with every update of it or of a schedule.

        Its scheduler would get to it within a minute, and leave out what was due in the meantime.
        """
        row = await self.request("GET", "/deployments/{id}", path_params={"id": id_})
        if not row["paused"] and any(schedule["active"] for schedule in row["schedules"]):
            await self.schedule_runs(id_)

    async def schedule_runs(self, id_: str, *, at_most: int | None = None) -> None:
        """Make a deployment's coming runs, as the scheduler does; ask it for no paused one, it makes them too.

        Args:
            id_: of the deployment.
            at_most: so many of each schedule; None: as many as the scheduler makes.
        """
        body = {} if at_most is None else {"min_runs": at_most, "max_runs": at_most}
        await self._despite_a_race("POST", "/deployments/{id}/schedule", path_params={"id": id_}, json=body)

    async def has_scheduler(self) -> bool | None:
        """Whether the server says that its scheduler is on; None: it does not say, as Prefect Cloud."""
        try:
            settings = await self.request("GET", "/admin/settings")
            return bool(settings["server"]["services"]["scheduler"]["enabled"])
        except (ServerError, LookupError, TypeError):
            return None

    async def pause_deployment(self, id_: str) -> None:
        await self.request("POST", "/deployments/{id}/pause_deployment", path_params={"id": id_})

    async def resume_deployment(self, id_: str) -> None:
        """Undo a pause of ours; what a person paused is never resumed."""
        await self.request("POST", "/deployments/{id}/resume_deployment", path_params={"id": id_})
        await self._restore_runs(id_)

    async def delete_triggers(self, deployment_id: str) -> None:
        """Delete the automations that were made for a deployment; those that people made to start it stay."""
        owned = {"resource_id": f"prefect.deployment.{deployment_id}"}
        await self.request("DELETE", "/automations/owned-by/{resource_id}", path_params=owned)

    async def delete_deployment(self, id_: str) -> None:
        """Delete a deployment and the automations that it owns; one that is gone already is no error."""
        await self.delete_triggers(id_)  # first, since the server would keep them, and then nobody knows whose they are
        with _gone_is_fine():
            await self.request("DELETE", "/deployments/{id}", path_params={"id": id_})

    async def create_schedule(self, deployment_id: str, schedule: ScheduleConfig, known: Collection[str] = ()) -> str:
        """Add a schedule to a deployment.

        Args:
            deployment_id: of the deployment.
            schedule: what to add.
            known: ids of the schedules that the deployment has.

        Returns:
            The id of the new schedule.
        """
        key = ("schedule", deployment_id, schedule.label)
        id_ = await self._find_schedule(deployment_id, schedule, known) if key in self._unanswered else None
        if id_ is None:
            with self._creating(key):
                id_ = await self._add_schedule(deployment_id, schedule, known)
        await self._restore_runs(deployment_id)
        return id_

    async def _add_schedule(self, deployment_id: str, schedule: ScheduleConfig, known: Collection[str]) -> str:
        ids, body = {"id": deployment_id}, [_schedule_body(schedule)]
        try:
            rows = await self.request("POST", "/deployments/{id}/schedules", path_params=ids, json=body)
        except ServerError as error:
            if RACE not in error.message:
                raise
            found = await self._find_schedule(deployment_id, schedule, known)
            if found is not None:  # it was added, and what came after that failed
                return found
            rows = await self._despite_a_race("POST", "/deployments/{id}/schedules", path_params=ids, json=body)
        return str(rows[0]["id"])

    async def _find_schedule(self, deployment_id: str, schedule: ScheduleConfig, known: Collection[str]) -> str | None:
        row = await self.request("GET", "/deployments/{id}", path_params={"id": deployment_id})
        new = [item for item in row["schedules"] if item["id"] not in known]
        return next((item["id"] for item in new if _is_as_sent(_schedule(item), schedule)), None)

    async def update_schedule(
        self, deployment_id: str, schedule_id: str, schedule: ScheduleConfig, *, may_activate: bool = False
    ) -> None:
        """Change one schedule's rule and parameters; its `active` flag is only ever switched off.

        Args:
            deployment_id: of the deployment.
            schedule_id: of the schedule.
            schedule: what it is to be.
            may_activate: to undo: switch it on, too, if `schedule` is active.
        """
        body = _schedule_body(schedule)  # with its parameters always: a PATCH that is silent about them empties them
        if schedule.active and not may_activate:
            del body["active"]
        route = "/deployments/{id}/schedules/{schedule_id}"
        await self._schedule("PATCH", route, body, id=deployment_id, schedule_id=schedule_id)

    async def delete_schedule(self, deployment_id: str, schedule_id: str) -> None:
        """Delete one schedule; one that is gone already is no error."""
        route = "/deployments/{id}/schedules/{schedule_id}"
        with _gone_is_fine():
            await self.request("DELETE", route, path_params={"id": deployment_id, "schedule_id": schedule_id})
        await self._restore_runs(deployment_id)

    async def _schedule(self, method: Any, route: Any, body: Any, **ids: str) -> None:
        await self.request(method, route, path_params=ids, json=body)
        await self._restore_runs(ids["id"])

    async def _flow_id(self, name: str) -> str:
        if name not in self._flow_ids:  # POST /flows/ gives the existing flow of that name
            self._flow_ids[name] = (await self.request("POST", "/flows/", json={"name": name}))["id"]
        return self._flow_ids[name]

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


def _is_as_sent(found: ScheduleConfig, sent: ScheduleConfig) -> bool:
    """Whether a schedule of the server is the one that we sent: it adds an anchor, and a start before an rrule."""
    if sent.slug is not None or found.slug is not None:
        return found.slug == sent.slug
    rules = (found.cron, found.interval, found.parameters) == (sent.cron, sent.interval, dict(sent.parameters))
    ends = (found.rrule or "").endswith(sent.rrule or "")
    return rules and ends and (found.timezone, found.active) == (sent.timezone or found.timezone, sent.active)


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
def _gone_is_fine() -> Iterator[None]:
    """For deleting: what is not there any more is deleted."""
    try:
        yield
    except ServerError as error:
        cause = error.__cause__
        answered = isinstance(cause, httpx.HTTPStatusError) and cause.response.status_code == httpx.codes.NOT_FOUND
        if not answered and not isinstance(cause, ObjectNotFound):
            raise


@contextmanager
def our_errors(api_url: str) -> Iterator[None]:
    """Turn what Prefect's client raises into our errors."""
    try:
        yield
    except (PrefectHTTPStatusError, httpx.HTTPStatusError) as error:
        raise _answered(error) from error
    except httpx.TransportError as error:
        raise ServerUnreachable(
            f"The Prefect server does not answer ({type(error).__name__}).",
            location=api_url,
            remedy="Is it running, and is the address right? `orchestrator bootstrap` starts a local one.",
        ) from error
    except (ObjectNotFound, ObjectAlreadyExists) as error:
        raise ServerError(str(error) or type(error).__name__) from error


def _answered(error: httpx.HTTPStatusError) -> ServerError:
    response = error.response
    detail = _detail(response)
    message = f"The server answered {response.status_code}{f': {detail}' if detail else ''}."
    location = f"{error.request.method} {error.request.url.path}"
    if response.status_code in BUSY or LOST_TOKEN in detail:
        return ServerBusy(message, location=location, retry_after=_retry_after(response))
    return ServerError(message, location=location)


def _retry_after(response: httpx.Response) -> float:
    """Seconds; 0 where the server names none. Its other form, a date, is not used by Prefect."""
    try:
        return max(0.0, float(response.headers.get("Retry-After", 0)))
    except ValueError:
        return 0.0


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

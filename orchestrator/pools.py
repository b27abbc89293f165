"""The door to work pools, queues, workers and concurrency limits.

Measured on Prefect 3.8.8:

- The list of task tag limits (`/concurrency_limits/filter`) cuts the server's list of all limits first and takes out
  the others afterwards, so that its pages lose tags. `/v2/concurrency_limits/filter` has them all, as `tag:NAME`.
- A PATCH changes what it names: neither pools nor queues are resumed by it, and null empties a limit.
- To give a queue a priority moves those behind it down.
- A pool's status is READY while a worker is online in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from prefect.exceptions import PrefectHTTPStatusError

from orchestrator.errors import ServerError
from orchestrator.model import LimitSpec, LivePool, LiveResources, PoolSpec, QueueSpec, Resources
from orchestrator.resources import Spec, declared
from orchestrator.server import PAGE, PrefectServer, our_errors

_TAG = "tag:"
_IN_API_WORDS = {"slots": "limit", "decay_per_second": "slot_decay_per_second"}

# ---------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------


async def read_resources(server: PrefectServer, wanted: Resources) -> LiveResources:
    """What the server has of the pools, queues and limits that are wanted.

    Requests: none for a kind of which nothing is wanted. One for the pools, one for each of them that is to have
    queues, and one per 200 limits of the server.

    Raises:
        ServerUnreachable, ServerError: the server did not answer, or refused.
    """
    pools = await read_pools(server, [spec.name for spec in wanted.pools]) if wanted.pools else ()
    with_queues = {queue.pool for queue in wanted.queues} & {pool.spec.name for pool in pools}
    queues = [queue for pool in sorted(with_queues) for queue in await read_queues(server, pool)]
    limits = await read_limits(server) if wanted.limits else ()
    return LiveResources(pools=pools, queues=tuple(queues), limits=limits)


async def read_pools(server: PrefectServer, names: Sequence[str] | None = None) -> tuple[LivePool, ...]:
    """The pools of these names that there are, or all: one request per 200."""
    rows = await server.pages("/work_pools/filter", {"work_pools": {"name": {"any_": list(names)}}} if names else {})
    return tuple(live_pool(row) for row in rows)


def live_pool(row: Mapping[str, Any]) -> LivePool:
    """A pool from what the API says of it."""
    spec = PoolSpec(
        name=row["name"],
        type=row["type"],
        description=row["description"],
        concurrency_limit=row["concurrency_limit"],
    )
    return LivePool(spec=spec, job_template=row["base_job_template"] or {}, is_paused=row["is_paused"])


async def read_queues(server: PrefectServer, pool: str) -> tuple[QueueSpec, ...]:
    """The queues of a pool that there is: one request per 200. (The list of all pools' queues has no order to page by.)

    Raises:
        ServerUnreachable, ServerError: the server did not answer, or there is no such pool.
    """
    rows = await server.pages(f"/work_pools/{quote(pool, safe='')}/queues/filter", {})
    return tuple(
        QueueSpec(
            pool=pool,
            name=row["name"],
            priority=row["priority"],
            concurrency_limit=row["concurrency_limit"],
            description=row["description"],
        )
        for row in rows
    )


async def read_limits(server: PrefectServer) -> tuple[LimitSpec, ...]:
    """All limits of task tags, and all global ones: one request per 200."""
    return tuple(_limit(row) for row in await server.pages("/v2/concurrency_limits/filter", {}))


def _limit(row: Mapping[str, Any]) -> LimitSpec:
    if row["name"].startswith(_TAG):
        return LimitSpec(scope="tag", name=row["name"].removeprefix(_TAG), slots=row["limit"])
    return LimitSpec(
        scope="global", name=row["name"], slots=row["limit"], decay_per_second=row["slot_decay_per_second"]
    )


async def online_workers(server: PrefectServer, pool: str) -> frozenset[str]:
    """The names of the workers that have polled a pool lately."""
    with our_errors(server.api_url):
        workers = await server.client.read_workers_for_work_pool(pool, limit=PAGE)
    return frozenset(worker.name for worker in workers if worker.status == "ONLINE")


# ---------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------


class ResourceDoor:
    """Writes pools, queues and limits: what `resources.apply_resources` needs of a server.

    Never a pool's job template and never a paused flag: those are people's.
    """

    def __init__(self, server: PrefectServer) -> None:
        self._server = server

    async def create(self, spec: Spec) -> bool:
        """Create it. What somebody else created in the meantime is set to what `spec` says instead.

        Returns:
            Whether it was created here.

        Raises:
            ServerUnreachable, ServerError: the server did not answer, or refused; or this installation of Prefect
                knows no such pool type; or the pool that is there now has another type.
        """
        route, body = _collection(spec), _body(spec, list(declared(spec)))
        if isinstance(spec, PoolSpec):
            body |= {"name": spec.name, "type": spec.type, "base_job_template": await default_template(spec)}
        elif isinstance(spec, LimitSpec) and spec.scope == "tag":
            body = {"tag": spec.name, "concurrency_limit": spec.slots}  # creates or sets
        else:
            body["name"] = spec.name
        try:
            await self._server.request("POST", route, json=body)
        except ServerError as error:
            if status_of(error) != 409:
                raise
            await self._require_type(spec)
            await self.update(spec, list(declared(spec)))
            return False
        return True

    async def _require_type(self, spec: Spec) -> None:
        for pool in await read_pools(self._server, [spec.name]) if isinstance(spec, PoolSpec) else ():
            if isinstance(spec, PoolSpec) and pool.spec.type != spec.type:
                raise ServerError(
                    f"Somebody has created it in the meantime, with the type {pool.spec.type!r}.",
                    location=f"work pool {spec.name}",
                    remedy="Give the pool another name in the environment's file.",
                )

    async def update(self, spec: Spec, names: Sequence[str]) -> None:
        """Set the named fields to what `spec` says, and only those; None empties one.

        Raises:
            ServerUnreachable, ServerError: the server did not answer, or refused.
        """
        if isinstance(spec, LimitSpec) and spec.scope == "tag":
            body = {"tag": spec.name, "concurrency_limit": spec.slots}
            await self._server.request("POST", "/concurrency_limits/", json=body)
        elif names:
            await self._server.request("PATCH", _route(spec), json=_body(spec, names))

    async def remove(self, spec: Spec) -> None:
        """Remove what `create` created; what is gone already is no error.

        Raises:
            ServerUnreachable, ServerError: the server did not answer, or refused; or the pool has deployments.
        """
        if isinstance(spec, PoolSpec):
            await self._require_empty(spec)
        try:
            await self._server.request("DELETE", _route(spec))
        except ServerError as error:
            if status_of(error) != 404:
                raise

    async def _require_empty(self, spec: PoolSpec) -> None:
        body = {"work_pools": {"name": {"any_": [spec.name]}}}
        count = await self._server.request("POST", "/deployments/count", json=body)
        if count:  # to delete their pool would leave them without one
            raise ServerError(f"It has deployments ({count}).", location=f"work pool {spec.name}")


async def default_template(spec: PoolSpec) -> dict[str, Any]:
    """The full job template of a pool's type, as Prefect or an integration brings it.

    Raises:
        ServerError: this installation of Prefect knows no such type.
    """
    # Here, since it imports all that a worker needs, which takes longer than comparing fifty deployments.
    from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

    template = await get_default_base_job_template_for_infrastructure_type(spec.type)
    if template is None:
        raise ServerError(
            f"Prefect here knows no work pool type {spec.type!r}.",
            location=f"work pool {spec.name}",
            remedy=f"Install the integration that brings it, for example prefect-{spec.type}.",
        )
    return template


def status_of(error: ServerError) -> int | None:
    """The HTTP status with which the server refused, None where it said none."""
    cause = error.__cause__
    return cause.response.status_code if isinstance(cause, PrefectHTTPStatusError) else None


def _collection(spec: Spec) -> str:
    if isinstance(spec, PoolSpec):
        return "/work_pools/"
    if isinstance(spec, QueueSpec):
        return f"/work_pools/{quote(spec.pool, safe='')}/queues"
    return "/concurrency_limits/" if spec.scope == "tag" else "/v2/concurrency_limits/"


def _route(spec: Spec) -> str:
    """Names are quoted: Prefect allows `?`, `#` and spaces in them."""
    place = _collection(spec).rstrip("/")
    if isinstance(spec, LimitSpec) and spec.scope == "tag":
        place += "/tag"
    return f"{place}/{quote(spec.name, safe='')}"


def _body(spec: Spec, names: Sequence[str]) -> dict[str, Any]:
    """The named fields in the API's words."""
    return {_IN_API_WORDS.get(name, name): getattr(spec, name) for name in names}

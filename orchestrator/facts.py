"""The door to what preflight must know: pools with their workers, queues, variables, blocks, versions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any
from uuid import UUID

import prefect

from orchestrator.errors import ServerError
from orchestrator.model import Change, LivePool, PoolSpec, Resources
from orchestrator.pools import default_template, live_pool
from orchestrator.preflight import Misfit, References, ServerFacts, references
from orchestrator.server import PrefectServer


async def read_facts(server: PrefectServer, changes: Iterable[Change], wanted: Resources) -> ServerFacts:
    """Read what the changes of a plan need.

    Requests: none where nothing is created or updated. Else one for the version, one per 200 pools and queues of the
    server each, and one each for variables and blocks where any are referenced: their number does not grow with the
    number of changes.

    Args:
        server: to ask.
        changes: of the plan.
        wanted: what the environment declares, which counts as there.

    Raises:
        ServerUnreachable, ServerError: the server did not answer, or refused.
    """
    written = [change.desired for change in changes if change.writes and change.action != "delete" and change.desired]
    if not written:
        return ServerFacts()
    rows = await server.pages("/work_pools/filter", {})
    pools = [live_pool(row) for row in rows]
    new = await _created(wanted.pools, {pool.spec.name for pool in pools})
    queues = await server.pages("/work_queues/filter", {})
    planned = {(queue.pool, queue.name) for queue in wanted.queues} | {(pool.spec.name, "default") for pool in new}
    return ServerFacts(
        pools=(*pools, *new),
        wanted_types={spec.name: spec.type for spec in wanted.pools},
        queues=frozenset((row["work_pool_name"], row["name"]) for row in queues) | planned,
        served_pools=frozenset(row["name"] for row in rows if row["status"] == "READY"),
        references=await _existing(server, reduce(References.__or__, map(references, written), References())),
        server_version=await server.version(),
        client_version=prefect.__version__,
    )


async def _created(wanted: Sequence[PoolSpec], present: Collection[str]) -> list[LivePool]:
    """The pools that the plan creates, as they will be."""
    return [LivePool(spec=spec, job_template=await _template(spec)) for spec in wanted if spec.name not in present]


async def _template(spec: PoolSpec) -> dict[str, Any]:
    try:
        return await default_template(spec)
    except ServerError:
        return {}  # creating the pool will say so


async def _existing(server: PrefectServer, named: References) -> References:
    """Those of the named variables and blocks that there are. The values of blocks are not asked for."""
    variables = await _rows(server, "variables", {"name": {"any_": sorted(named.variables)}})
    documents = {name.partition("/")[2] for name in named.blocks}
    blocks = await _rows(server, "block_documents", {"name": {"any_": sorted(documents)}})
    ids = sorted(id_ for id_ in named.block_ids if _is_uuid(id_))
    by_id = await _rows(server, "block_documents", {"id": {"any_": ids}, "is_anonymous": None})
    return References(
        variables=frozenset(row["name"] for row in variables),
        blocks=frozenset(f"{row['block_type']['slug']}/{row['name']}" for row in blocks),
        block_ids=frozenset(row["id"] for row in by_id),
    )


async def _rows(server: PrefectServer, kind: str, query: Mapping[str, Any]) -> list[dict[str, Any]]:
    is_asked = any(each["any_"] for each in query.values() if each)
    return await server.pages(f"/{kind}/filter", {kind: query}) if is_asked else []


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def misfits(values: Mapping[str, Any], schema: Mapping[str, Any], *, none_for_default: bool) -> tuple[Misfit, ...]:
    """Where values do not fit a schema, by the rules that the server itself applies to job variables and parameters.

    Args:
        values: what is given; required ones may be missing.
        schema: a JSON Schema, as Prefect makes them.
        none_for_default: null fits what has a default, as among job variables.

    Source: prefect.server.api.validation, and `validate_parameters_conform_to_schema` of its schemas.
    """
    # Its package imports SQLAlchemy: half a second that a plan without changes does not pay.
    from prefect.utilities.schema_tools.validation import CircularSchemaRefError, ValidationError, validate

    try:
        errors = validate(
            dict(values), dict(schema), preprocess=True, ignore_required=True, allow_none_with_default=none_for_default
        )
    except (CircularSchemaRefError, ValidationError):
        return ()  # the schema is what is wrong; the server says so of it
    return tuple(
        Misfit(
            place=tuple(error.absolute_path),
            rule=str(error.validator),
            expected=error.validator_value,
            found=_json_type(error.instance),
        )
        for error in errors
    )


def _json_type(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object", list: "array"}
    return "null" if value is None else names.get(type(value), type(value).__name__)

"""The deployment that is submitted to, and whether parameters fit it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic_core import PydanticSerializationError, to_jsonable_python

from orchestrator.errors import ConfigurationError, ServerError
from orchestrator.fanout.calls import Calls
from orchestrator.fanout.outcomes import NAMED_FAILURES
from orchestrator.fanout.parent import Parent
from orchestrator.faults import did_you_mean
from orchestrator.model import Owner

Row = Mapping[str, Any]
PLACEHOLDER = "__prefect_kind"  # the server fills in such a value: a workspace variable, Jinja, JSON


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One deployment, as far as a submission needs it."""

    id: str
    flow_id: str
    flow_name: str
    name: str
    schema: Mapping[str, Any]
    is_schema_enforced: bool
    defaults: Mapping[str, Any]  # the deployment's own parameters
    work_pool: str | None
    work_queue: str | None
    is_paused: bool
    concurrency_limit: int | None

    @property
    def path(self) -> str:
        return f"{self.flow_name}/{self.name}"


async def find_target(calls: Calls, path: str, parent: Parent | None) -> Target:
    """The deployment of a path.

    Args:
        calls: to the server.
        path: `flow/deployment`; without `/` the sibling of the running deployment.
        parent: whose sibling.

    Raises:
        ServerError: there is none, or several fit.
    """
    flow_name, slash, name = path.partition("/")
    if slash:
        return _target(await _by_name(calls, flow_name, name), flow_name)
    return _target(await _sibling(calls, flow_name, parent), flow_name)


async def _by_name(calls: Calls, flow_name: str, name: str) -> Mapping[str, Any]:
    row: Row | None = await calls.find("GET", f"/deployments/name/{flow_name}/{name}")
    if row is None:
        raise _missing(f"{flow_name}/{name}", "The server has no such deployment.")
    return row


async def _sibling(calls: Calls, flow_name: str, parent: Parent | None) -> Mapping[str, Any]:
    """The flow's deployment in the environment and kind of the running one.

    A deployment's kind is not on the server. It shows in the pool, which an environment has one of for each kind, and
    in whether there is an image.
    """
    candidates = await calls.read_all("/deployments/filter", {"flows": {"name": {"any_": [flow_name]}}})
    running = await _running(calls, parent)
    if running is not None:
        owner = Owner.from_tags(tuple(running["tags"]))
        rules = (
            lambda row: owner is not None and Owner.from_tags(tuple(row["tags"])) == owner,
            lambda row: row["work_pool_name"] == running["work_pool_name"],
            lambda row: ("image" in row["job_variables"]) == ("image" in running["job_variables"]),
            lambda row: row["name"] == running["name"],
        )
        for fits in rules:
            candidates = [row for row in candidates if fits(row)] or candidates
    if len(candidates) == 1:
        return candidates[0]
    names = ", ".join(sorted(f"{flow_name}/{row['name']}" for row in candidates))
    what = f"Several deployments may be meant: {names}." if candidates else "The flow has no deployment."
    raise _missing(flow_name, what)


async def _running(calls: Calls, parent: Parent | None) -> Mapping[str, Any] | None:
    if parent is None or parent.deployment_id is None:
        return None
    row: Row | None = await calls.find("GET", f"/deployments/{parent.deployment_id}")
    return row


def _missing(path: str, what: str) -> ServerError:
    remedy = "Deploy it first (`orchestrator apply`), or correct the flow/deployment path."
    return ServerError(what, location=path, remedy=remedy)


def _target(row: Mapping[str, Any], flow_name: str) -> Target:
    limit = row.get("global_concurrency_limit") or {}
    return Target(
        id=str(UUID(row["id"])),
        flow_id=row["flow_id"],
        flow_name=flow_name,
        name=row["name"],
        schema=row["parameter_openapi_schema"] or {},
        is_schema_enforced=bool(row["enforce_parameter_schema"]),
        defaults=row["parameters"] or {},
        work_pool=row["work_pool_name"],
        work_queue=row["work_queue_name"],
        is_paused=bool(row["paused"]),
        concurrency_limit=limit.get("limit"),
    )


# ---------------------------------------------------------------------------------------------------------
# Parameters
# ---------------------------------------------------------------------------------------------------------


def require_fit(target: Target, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Check the parameters of all items before a run is created.

    Returns:
        The parameters as JSON has them.

    Raises:
        ConfigurationError: names every item that does not fit, and why.
    """
    plain: list[dict[str, Any]] = []
    faults: list[str] = []
    check = _Check(target)
    for number, item in enumerate(items):
        found = list(_unsendable(item)) or list(check.faults(item))
        faults += [f"item {number}: {fault}" if len(items) > 1 else fault for fault in found]
        plain.append({} if found else to_jsonable_python(dict(item)))
    if faults:
        raise _unfit(target, faults)
    return plain


def _unsendable(item: Mapping[str, Any]) -> Iterator[str]:
    for name, value in item.items():
        try:
            to_jsonable_python(value)
        except (PydanticSerializationError, ValueError) as error:
            yield f"{name}: cannot be written as JSON ({error})"


def _unfit(target: Target, faults: Sequence[str]) -> ConfigurationError:
    more = f"; and {len(faults) - NAMED_FAILURES} more" if len(faults) > NAMED_FAILURES else ""
    return ConfigurationError(
        f"Parameters do not fit the flow: {'; '.join(faults[:NAMED_FAILURES])}{more}. No run was created.",
        location=target.path,
        remedy=f"Parameters: {', '.join(target.schema.get('properties', {})) or 'none'}.",
    )


class _Check:
    """The deployment's schema, prepared once for many items."""

    def __init__(self, target: Target) -> None:
        # Its package imports SQLAlchemy, half a second that importing this module need not cost.
        from prefect.utilities.schema_tools.validation import preprocess_schema, validate

        self._target = target
        self._validate = validate
        self._schema = preprocess_schema(dict(target.schema))
        self._names = target.schema.get("properties")

    def faults(self, item: Mapping[str, Any]) -> Iterator[str]:
        """What the server would refuse, and names that it would take and the flow would not."""
        if not self._target.is_schema_enforced or self._names is None:
            return
        for name in item:
            if name not in self._names:
                yield f"the flow has no parameter {name!r}. {did_you_mean(name, self._names)}".rstrip()
        values = {**self._target.defaults, **to_jsonable_python(dict(item))}
        filled = {name for name, value in values.items() if isinstance(value, dict) and PLACEHOLDER in value}
        for error in self._validate(values, self._schema, preprocess=False):
            place = str(error.absolute_path[0]) if error.absolute_path else ""
            if place not in filled:
                yield f"{'.'.join(map(str, error.absolute_path))}: {error.message}" if place else error.message

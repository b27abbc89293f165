"""The deployment that is submitted to, and whether parameters fit it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import UUID

from pydantic_core import PydanticSerializationError, to_jsonable_python

from orchestrator.errors import ConfigurationError, ServerError
from orchestrator.fanout.calls import Calls
from orchestrator.fanout.outcomes import NAMED_FAILURES
from orchestrator.fanout.parent import Parent
from orchestrator.faults import did_you_mean
from orchestrator.masking import masked
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


async def read_target(calls: Calls, deployment_id: str) -> Target | None:
    """The deployment of an id; None where it, or its flow, is gone."""
    row = await calls.find("GET", f"/deployments/{deployment_id}")
    flow = await calls.find("GET", f"/flows/{row['flow_id']}") if row else None
    return _target(row, flow["name"]) if flow else None


async def _by_name(calls: Calls, flow_name: str, name: str) -> Mapping[str, Any]:
    route = f"/deployments/name/{quote(flow_name, safe='')}/{quote(name, safe='')}"
    row: Row | None = await calls.find("GET", route) if flow_name and name else None
    if row is None:
        raise missing(f"{flow_name}/{name}", "The server has no such deployment.")
    return row


async def _sibling(calls: Calls, flow_name: str, parent: Parent | None) -> Mapping[str, Any]:
    """The flow's deployment in the environment and kind of the running one.

    A deployment's kind is not on the server. It shows in the pool, which an environment has one of for each kind, and
    in whether there is an image. Another kind will do where there is no other choice; another environment never.
    """
    rows = await calls.read_all("/deployments/filter", {"flows": {"name": {"any_": [flow_name]}}})
    running = await _running(calls, parent)
    candidates = _like(running, rows) if running is not None else rows
    if len(candidates) == 1:
        return candidates[0]
    names = ", ".join(sorted(f"{flow_name}/{row['name']}" for row in candidates or rows))
    if candidates:
        raise missing(flow_name, f"Several deployments may be meant: {names}.", "Name one as flow/deployment.")
    if rows and running is not None:
        owner = _owner(running)
        where = f"{owner.project}, {owner.environment}" if owner else "the environment of the running one"
        raise missing(flow_name, f"The flow has no deployment in {where}; it has {names}.")
    raise missing(flow_name, "The flow has no deployment.")


def _like(running: Row, rows: Sequence[Row]) -> Sequence[Row]:
    """Those that are most like the running deployment: of its owner, and as far as there are some, of its kind."""
    candidates = [row for row in rows if _owner(row) == _owner(running)]
    likenesses: tuple[Callable[[Row], object], ...] = (
        lambda row: row["work_pool_name"],
        lambda row: "image" in row["job_variables"],
        lambda row: row["name"],
    )
    for likeness in likenesses:
        candidates = [row for row in candidates if likeness(row) == likeness(running)] or candidates
    return candidates


def _owner(row: Row) -> Owner | None:
    return Owner.from_tags(tuple(row["tags"]))


async def _running(calls: Calls, parent: Parent | None) -> Mapping[str, Any] | None:
    if parent is None or parent.deployment_id is None:
        return None
    row: Row | None = await calls.find("GET", f"/deployments/{parent.deployment_id}")
    return row


def missing(path: str, what: str, remedy: str = "") -> ServerError:
    """There is no such deployment."""
    deploy = "Deploy it first (`orchestrator apply`), or correct the flow/deployment path."
    return ServerError(what, location=path, remedy=remedy or deploy)


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
        values, found = _plain(item)
        found = found or list(check.faults(values))
        faults += [f"item {number}: {fault}" if len(items) > 1 else fault for fault in found]
        plain.append(values)
    if faults:
        raise _unfit(target, faults)
    return plain


def _plain(item: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The parameters as JSON has them, and what cannot be written as such. Each value is looked at once: an iterator is
    empty after that."""
    plain: dict[str, Any] = {}
    faults: list[str] = []
    for name, value in item.items():
        try:
            plain[name] = to_jsonable_python(_in_order(value))
            json.dumps(plain[name], ensure_ascii=False, allow_nan=False).encode()
        except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
            faults.append(f"{name}: cannot be written as JSON ({error})")
    return plain, faults


def _in_order(value: Any) -> Any:
    """With sets as lists in one order: theirs differs from process to process, and a run is known by its parameters."""
    if isinstance(value, dict):
        return {name: _in_order(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_in_order(each) for each in value]
    return sorted(map(_in_order, value), key=repr) if isinstance(value, set | frozenset) else value


def _unfit(target: Target, faults: Sequence[str]) -> ConfigurationError:
    more = f"; and {len(faults) - NAMED_FAILURES} more" if len(faults) > NAMED_FAILURES else ""
    return ConfigurationError(
        f"Parameters do not fit the flow: {'; '.join(faults[:NAMED_FAILURES])}{more}. No run was created.",
        location=target.path,
        remedy=f"Parameters: {', '.join(target.schema.get('properties', {})) or 'none'}.",
    )


class _Check:
    """The deployment's schema, prepared once for many items.

    As the server checks it, which does not look at formats: `2026-01-31` will do for a datetime, as it does for the
    flow.
    """

    def __init__(self, target: Target) -> None:
        # They import SQLAlchemy, half a second that importing this module need not cost.
        from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
        from prefect.utilities.schema_tools.validation import preprocess_schema
        from referencing import Registry
        from referencing.exceptions import Unresolvable

        self._broken = (RecursionError, Unresolvable)
        self._target = target
        self._names: Mapping[str, Any] | None = target.schema.get("properties")
        schema = preprocess_schema(dict(target.schema))
        self._validator = Draft202012Validator(schema, registry=Registry())  # which fetches nothing from the network

    def faults(self, item: Mapping[str, Any]) -> Iterator[str]:
        """What the server would refuse, and names that it would take and the flow would not."""
        if not self._target.is_schema_enforced or self._names is None:
            return
        for name in item:
            if name not in self._names:
                near = did_you_mean(name, self._names).rstrip()
                yield f"the flow has no parameter {name!r}{f'. {near}' if near else ''}"
        values = {**self._target.defaults, **item}
        filled = {name for name, value in values.items() if _is_filled_in(value)}
        for error in self._misfits(values):
            place = ".".join(map(str, error.absolute_path))
            if not place or error.absolute_path[0] not in filled:
                yield f"{place}: {_reason(place, error)}" if place else _reason(place, error)

    def _misfits(self, values: Mapping[str, Any]) -> list[Any]:
        try:
            return list(self._validator.iter_errors(values))
        except self._broken:  # the schema is what is wrong, and the server says so
            return []


def _is_filled_in(value: Any) -> bool:
    """Whether the server puts something else into the value before it checks it."""
    if isinstance(value, dict):
        return PLACEHOLDER in value or any(map(_is_filled_in, value.values()))
    return isinstance(value, list) and any(map(_is_filled_in, value))


def _reason(place: str, error: Any) -> str:
    """Of a value that may be one of several things, why it is none of them. A secret is not shown."""
    parts: Iterable[Any] = error.context or (error,)
    text = " and ".join(dict.fromkeys(part.message for part in parts))
    shown = masked(place, error.instance)
    return text if shown == error.instance else text.replace(repr(error.instance), repr(shown))

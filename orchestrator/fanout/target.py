"""The deployment that is submitted to, and whether parameters fit it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote
from uuid import UUID

from pydantic_core import PydanticSerializationError, to_jsonable_python

from orchestrator.errors import ConfigurationError, ServerError
from orchestrator.fanout.calls import Calls
from orchestrator.fanout.outcomes import NAMED_FAILURES, SHOWN_PARAMETERS
from orchestrator.fanout.parent import Parent
from orchestrator.faults import did_you_mean
from orchestrator.masking import masked, masked_text
from orchestrator.model import Owner
from orchestrator.server import PAGE

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
        ConfigurationError: the path is none.
        ServerError: there is none, or several fit.
    """
    flow_name, slash, name = _parts(path)
    if slash:
        return _target(await _by_name(calls, flow_name, name), flow_name)
    return _target(await _sibling(calls, flow_name, parent), flow_name)


def _parts(path: str) -> tuple[str, str, str]:
    flow_name, slash, name = path.partition("/") if isinstance(path, str) else ("", "", "")
    if not flow_name.strip() or (slash and not name.strip()):
        raise ConfigurationError(
            f"{path!r} names no deployment.",
            location="flow_submitter",
            remedy="Write `flow/deployment`, or a flow's name alone for the sibling of the running deployment.",
        )
    return flow_name, slash, name


async def read_target(calls: Calls, deployment_id: str) -> Target | None:
    """The deployment of an id; None where it, or its flow, is gone."""
    row = await calls.find("GET", f"/deployments/{deployment_id}")
    flow = await calls.find("GET", f"/flows/{row['flow_id']}") if row else None
    return _target(row, flow["name"]) if flow else None


async def require_queue(calls: Calls, target: Target, name: str | None) -> Target:
    """The deployment as it is with its runs in another queue; None means its own. The server would make a new queue for
    any name, from which no worker may take runs.

    Raises:
        ConfigurationError: its pool has no such queue.
        ServerError: the server does not answer, or refuses.
    """
    if name is None:
        return target
    if target.work_pool is None:
        raise _no_queue(target, name, "The deployment has no work pool, so there are no queues.", [])
    pool = f"/work_pools/{quote(target.work_pool, safe='')}/queues"
    if await calls.find("GET", f"{pool}/{quote(name, safe='')}") is None:
        names = sorted(row["name"] for row in await calls.read_all(f"{pool}/filter", {}))
        raise _no_queue(target, name, f"Work pool {target.work_pool!r} has no queue {name!r}.", names)
    return replace(target, work_queue=name)


def _no_queue(target: Target, name: str, what: str, names: Sequence[str]) -> ConfigurationError:
    there = f"It has {', '.join(names)}." if names else ""
    return ConfigurationError(
        f"{what} {did_you_mean(name, names)}No run was created.", location=target.path, remedy=there
    )


async def _by_name(calls: Calls, flow_name: str, name: str) -> Mapping[str, Any]:
    route = f"/deployments/name/{quote(flow_name, safe='')}/{quote(name, safe='')}"
    row: Row | None = await calls.find("GET", route)
    if row is not None:
        return row
    path, paths = f"{flow_name}/{name}", await _paths(calls, [flow_name])
    if not paths:
        raise await _no_deployment(calls, path)
    near = did_you_mean(path, paths)
    raise missing(path, f"The server has no such deployment. {near}The flow has {', '.join(paths[:NAMED_FAILURES])}.")


async def _no_deployment(calls: Calls, path: str) -> ServerError:
    """The flow of a path has none: there is no such flow, or it was never deployed."""
    flow_name = path.partition("/")[0]
    if await calls.find("GET", f"/flows/name/{quote(flow_name, safe='')}") is not None:
        return missing(path, f"The server has no such deployment: the flow {flow_name!r} has no deployment.")
    near = did_you_mean(path, await _near(calls, path))
    return missing(path, f"The server has no such deployment: there is no flow {flow_name!r}. {near}".rstrip())


async def _near(calls: Calls, path: str) -> list[str]:
    """What may have been meant, of the flows that were changed last, written as the path is."""
    flow_name, slash, _ = path.partition("/")
    flows = await calls.request("POST", "/flows/filter", {"limit": PAGE, "sort": "UPDATED_DESC"})
    names = difflib.get_close_matches(flow_name, [row["name"] for row in flows])
    return await _paths(calls, names) if slash and names else names


async def _paths(calls: Calls, flow_names: Sequence[str]) -> list[str]:
    """The deployments of some flows, a page of them at most."""
    flows = {"flows": {"name": {"any_": list(flow_names)}}, "limit": PAGE}
    names = {row["id"]: row["name"] for row in await calls.request("POST", "/flows/filter", flows)}
    rows = await calls.request("POST", "/deployments/filter", flows)
    return sorted(f"{names[row['flow_id']]}/{row['name']}" for row in rows if row["flow_id"] in names)


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
    raise await _no_deployment(calls, flow_name)


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
        values, found = _plain(item) if isinstance(item, Mapping) else ({}, [_no_item(item)])
        found = found or list(check.faults(values))
        faults += [f"item {number}: {fault}" if len(items) > 1 else fault for fault in found]
        plain.append(values)
    if faults:
        raise _unfit(target, faults, len(items))
    return plain


def _no_item(item: object) -> str:
    shown = masked_text(repr(masked("", item)))
    return f"{shown[:SHOWN_PARAMETERS]} is no mapping of parameters to their values, such as {{'table': 3}}"


def _plain(item: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The parameters as JSON has them, and what cannot be written as such. Each value is looked at once: an iterator is
    empty after that."""
    plain: dict[str, Any] = {}
    faults: list[str] = []
    for name, value in item.items():
        if not isinstance(name, str):
            faults.append(f"{name!r}: a parameter's name is text")
            continue
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


def _unfit(target: Target, faults: Sequence[str], count: int) -> ConfigurationError:
    of = f" ({count} items, counted from 0)" if count > 1 else ""
    more = f"; and {len(faults) - NAMED_FAILURES} more" if len(faults) > NAMED_FAILURES else ""
    return ConfigurationError(
        f"Parameters do not fit the flow{of}: {'; '.join(faults[:NAMED_FAILURES])}{more}. No run was created.",
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
                yield f"{place}: {_reason(error)}" if place else _reason(error)

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


def _reason(error: Any) -> str:
    """Of a value that may be one of several things, why it is none of them. A secret is not shown."""
    parts: Iterable[Any] = error.context or (error,)
    return " and ".join(dict.fromkeys(map(_shown, parts)))


def _shown(part: Any) -> str:
    """A message with the value that it is about as it may be shown: a part may lie deeper than what it is a part of."""
    place, value = ".".join(map(str, part.absolute_path)), part.instance
    return masked_text(part.message.replace(repr(value), repr(masked(place, value))))

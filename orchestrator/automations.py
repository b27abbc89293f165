"""Triggers of deployments: the automations that start them when something happens.

`prefect deploy` makes one automation for each entry of `triggers`. The server knows which automations belong to a
deployment, but does not tell, and keeps them when the deployment is deleted. Ours carry the owner's tag; of those that
`prefect deploy` made, we know the ones that go by the name which it gives them. The others may be a person's: where
a deployment is taken over they are strays, and only those that have the name of a desired trigger are replaced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from prefect.events import DeploymentTriggerTypes
from pydantic import TypeAdapter, ValidationError

from orchestrator.differences import StrayTrigger
from orchestrator.model import DeploymentConfig, LiveDeployment, Owner
from orchestrator.server import PrefectServer

_TRIGGER: TypeAdapter[Any] = TypeAdapter(DeploymentTriggerTypes)
_SETS = ("after", "expect", "for_each")
_AS_GIVEN = ("parameters", "job_variables", "match", "match_related")  # what people write in them stays as it is


class WrongTrigger(ValueError):
    """A trigger is none that Prefect takes; the text says where in it and why, without its values."""


def normal_triggers(specs: Sequence[Mapping[str, Any]], deployment_name: str) -> tuple[Mapping[str, Any], ...]:
    """Triggers in the one form in which they are compared: every name given, sets in order, nothing that is empty.

    Args:
        specs: as a prefect.yaml has them, without placeholders that somebody still has to fill.
        deployment_name: those without a name are called after it, as `prefect deploy` does.

    Raises:
        WrongTrigger: Prefect would not take one of them.
    """
    named = [{"name": f"{deployment_name}__automation_{number}", **spec} for number, spec in enumerate(specs, start=1)]
    return _in_order([_normal(spec) for spec in named])


async def read_triggers(server: PrefectServer, live: Sequence[LiveDeployment]) -> tuple[LiveDeployment, ...]:
    """The deployments with their triggers: one request per 200 automations of the server, none without deployments.

    Those of a deployment that nobody owns hold strays, too: whatever starts it and does nothing else.

    Raises:
        ServerUnreachable, ServerError: the server did not answer, or not with automations.
    """
    rows = await server.pages("/automations/filter", {"sort": "CREATED_DESC"}) if live else []
    by_deployment: dict[str, list[Mapping[str, Any]]] = {}
    for row in {row["id"]: row for row in rows}.values():
        if deployment_id := _started_by(row):
            by_deployment.setdefault(deployment_id, []).append(row)
    return tuple(_with_triggers(item, by_deployment.get(item.id, ())) for item in live)


async def write_triggers(
    server: PrefectServer, deployment_id: str, config: DeploymentConfig, taken_over: Collection[str] = ()
) -> None:
    """Give a deployment exactly the triggers of `config`. Those that are right, or have the right name, keep their ids.

    May be repeated after a failure. Automations that people made for the deployment are not touched.

    Args:
        server: where to.
        deployment_id: of the deployment.
        config: what it is to have.
        taken_over: names of automations that are its triggers, whoever made them.

    Raises:
        ServerUnreachable, ServerError: the server did not answer, or refused.
    """
    resource = {"resource_id": f"prefect.deployment.{deployment_id}"}
    rows = await server.request("GET", "/automations/related-to/{resource_id}", path_params=resource)
    name, owner = config.deployment_name, Owner.from_tags(config.tags)
    left = [row for row in rows if _is_replaced(row, deployment_id, name, taken_over)]
    missing = [spec for spec in config.triggers if not _taken(left, (row for row in left if _is_as(row, spec, owner)))]
    for spec in missing:
        trigger = _TRIGGER.validate_python(dict(spec))
        trigger.set_deployment_id(UUID(deployment_id))
        body = trigger.as_automation().model_dump(mode="json")
        old = _taken(left, (row for row in left if row["name"] == spec["name"]))
        await _write(server, {**body, "tags": _tags(old or {}, owner)}, old)
    for row in left:
        await server.request("DELETE", "/automations/{id}", path_params={"id": row["id"]})


async def _write(server: PrefectServer, body: Mapping[str, Any], old: Mapping[str, Any] | None) -> None:
    """Create an automation, or change one in place: whom it belongs to does not change then."""
    if old is None:
        await server.request("POST", "/automations/", json=body)
        return
    known = {key: value for key, value in body.items() if key != "owner_resource"}
    await server.request("PUT", "/automations/{id}", path_params={"id": old["id"]}, json=known)


def _taken(rows: list[Mapping[str, Any]], fitting: Iterator[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The first one that fits, which is no longer among the rows then."""
    found = next(fitting, None)
    if found is not None:
        rows.remove(found)
    return found


def _is_replaced(row: Mapping[str, Any], deployment_id: str, deployment_name: str, taken_over: Collection[str]) -> bool:
    """Whether an automation that is related to a deployment is one of its triggers, as far as anybody can tell."""
    if _has_our_tag(row):  # a person may have given it more to do
        started = [action["deployment_id"] for action in row["actions"] if _is_start(action)]
        return not started or started[0] == deployment_id
    is_known = row["name"] in taken_over or _belongs(row, deployment_name)
    return is_known and _started_by(row) == deployment_id


def _is_as(row: Mapping[str, Any], spec: Mapping[str, Any], owner: Owner | None) -> bool:
    """Whether nothing has to be written."""
    return _started_by(row) is not None and row["tags"] == _tags(row, owner) and _spec(row) == dict(spec)


def _tags(row: Mapping[str, Any], owner: Owner | None) -> list[str]:
    """What an automation is tagged with: what people gave it, and whose it is."""
    theirs = [tag for tag in row.get("tags") or () if not tag.startswith(f"{Owner.PREFIX}:")]
    return [*theirs, *([owner.tag] if owner else [])]


def _with_triggers(item: LiveDeployment, rows: Sequence[Mapping[str, Any]]) -> LiveDeployment:
    name = item.config.deployment_name
    known = [row for row in rows if _belongs(row, name)]
    specs = [_spec(row) for row in known]
    if item.owner is None:
        specs += [StrayTrigger(_spec(row)) for row in rows if row not in known]
    return replace(item, config=replace(item.config, triggers=_in_order(specs))) if specs else item


def _started_by(row: Mapping[str, Any]) -> str | None:
    """The id of the deployment whose start is the one thing that an automation does."""
    actions = [*row["actions"], *(row.get("actions_on_trigger") or ()), *(row.get("actions_on_resolve") or ())]
    if len(actions) != 1 or not _is_start(actions[0]):
        return None
    return str(actions[0]["deployment_id"])


def _is_start(action: Mapping[str, Any]) -> bool:
    return (action["type"], action.get("source")) == ("run-deployment", "selected")


def _belongs(row: Mapping[str, Any], deployment_name: str) -> bool:
    """Whether a deployment made an automation, and no person did."""
    return _has_our_tag(row) or re.fullmatch(rf"{re.escape(deployment_name)}__automation_\d+", row["name"]) is not None


def _has_our_tag(row: Mapping[str, Any]) -> bool:
    return any(tag.startswith(f"{Owner.PREFIX}:") for tag in row.get("tags") or ())


def _spec(row: Mapping[str, Any]) -> dict[str, Any]:
    """An automation in the words of prefect.yaml."""
    (action,) = row["actions"]
    of_run = {name: action[name] for name in ("parameters", "job_variables", "schedule_after") if name in action}
    spec = {**row["trigger"], **{name: row[name] for name in ("name", "description", "enabled")}, **of_run}
    try:
        return _normal(spec)
    except WrongTrigger:  # a server that is newer than this Prefect: it differs from whatever we want
        return spec


def _normal(spec: Mapping[str, Any]) -> dict[str, Any]:
    try:
        trigger = _TRIGGER.validate_python(dict(spec))
    except ValidationError as error:
        raise WrongTrigger(_in_words(error)) from None
    except (TypeError, ValueError, AttributeError) as error:  # Prefect's own validators, given what they do not expect
        raise WrongTrigger(type(error).__name__) from None
    plain: dict[str, Any] = _plain(trigger.model_dump(mode="json"))
    return plain


def _in_words(error: ValidationError) -> str:
    details = error.errors(include_url=False, include_context=False, include_input=False)
    places = (".".join(str(step) for step in each["loc"][1:]) or "it" for each in details)
    reasons = (each["msg"].removeprefix("Value error, ") for each in details)
    return "; ".join(f"{place}: {reason}" for place, reason in zip(places, reasons, strict=True))


def _plain(value: Any) -> Any:
    """Without what is empty, and with the members of sets in order; lists of triggers are entered."""
    if isinstance(value, Mapping):
        known = {key: inner for key, inner in value.items() if inner not in (None, "", [], {})}
        return {key: _member(key, inner) for key, inner in known.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _member(key: str, value: Any) -> Any:
    if key in _AS_GIVEN:
        return value
    return sorted(value) if key in _SETS else _plain(value)


def _in_order(specs: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    return tuple(sorted(specs, key=lambda spec: (spec["name"], json.dumps(spec, sort_keys=True, default=str))))

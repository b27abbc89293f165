"""Triggers of deployments: the automations that start them when something happens.

`prefect deploy` makes one automation for each entry of `triggers`. The server does not tell which automations belong to
a deployment, and keeps them when the deployment is deleted. Ours carry the owner's tag; of those that `prefect deploy`
made, we know the ones that go by the name which it gives them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from prefect.events import DeploymentTriggerTypes
from pydantic import TypeAdapter, ValidationError

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

    Raises:
        ServerUnreachable, ServerError: the server did not answer, or not with automations.
    """
    rows = await server.pages("/automations/filter", {"sort": "CREATED_DESC"}) if live else []
    by_deployment: dict[str, list[Mapping[str, Any]]] = {}
    for row in {row["id"]: row for row in rows}.values():
        if deployment_id := _started_by(row):
            by_deployment.setdefault(deployment_id, []).append(row)
    return tuple(_with_triggers(item, by_deployment.get(item.id, ())) for item in live)


async def write_triggers(server: PrefectServer, deployment_id: str, config: DeploymentConfig) -> None:
    """Give a deployment exactly the triggers of `config`, as Prefect does: all that it owns go, then the new ones come.

    May be repeated after a failure. Automations that people made for the deployment are not touched.

    Raises:
        ServerUnreachable, ServerError: the server did not answer, or refused.
    """
    await server.delete_triggers(deployment_id)
    owner = Owner.from_tags(config.tags)
    for spec in config.triggers:
        trigger = _TRIGGER.validate_python(dict(spec))
        trigger.set_deployment_id(UUID(deployment_id))
        automation = trigger.as_automation().model_dump(mode="json")
        await server.request("POST", "/automations/", json={**automation, "tags": [owner.tag] if owner else []})


def _with_triggers(item: LiveDeployment, rows: Sequence[Mapping[str, Any]]) -> LiveDeployment:
    name = item.config.deployment_name
    specs = [_spec(row) for row in rows if _belongs(row, name)]
    return replace(item, config=replace(item.config, triggers=_in_order(specs))) if specs else item


def _started_by(row: Mapping[str, Any]) -> str | None:
    """The id of the deployment whose start is the one thing that an automation does."""
    actions = row["actions"]
    if len(actions) != 1 or (actions[0]["type"], actions[0].get("source")) != ("run-deployment", "selected"):
        return None
    return str(actions[0]["deployment_id"])


def _belongs(row: Mapping[str, Any], deployment_name: str) -> bool:
    """Whether a deployment made an automation, and no person did."""
    is_ours = any(tag.startswith(f"{Owner.PREFIX}:") for tag in row.get("tags") or ())
    return is_ours or re.fullmatch(rf"{re.escape(deployment_name)}__automation_\d+", row["name"]) is not None


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

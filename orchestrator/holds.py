"""The door to holds: after a rollback, scheduled sync waits until the repository asks for something else.

A hold is a Prefect variable, one for each environment of a project: people see it in the UI, and may delete it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from orchestrator.model import Hold, Owner
from orchestrator.recording import holds, server_name
from orchestrator.server import PrefectServer, our_errors


def hold_name(owner: Owner) -> str:
    """The name of the variable that holds back an environment."""
    return f"orchestrator_hold_{server_name(owner, '_')}"


async def read_hold(server: PrefectServer, owner: Owner) -> Hold | None:
    """The hold of an environment, whether it still holds or not; None where there is none.

    Raises:
        ServerUnreachable, ServerError: the server did not answer.
    """
    with our_errors(server.api_url):
        variable = await server.client.read_variable_by_name(hold_name(owner))
    return _hold(variable.value, owner) if variable else None


async def set_hold(server: PrefectServer, hold: Hold) -> None:
    """Hold an environment back, in place of an older hold.

    Raises:
        ServerUnreachable, ServerError: the server did not take it.
    """
    name = hold_name(hold.owner)
    value = {
        "revision": hold.revision,
        "desired_digest": hold.desired_digest,
        "by": hold.by,
        "at": hold.at,
        "means": "scheduled sync waits: orchestrator rollback --release lifts this",
    }
    tags = [hold.owner.tag]
    with our_errors(server.api_url):
        try:
            await server.client.create_variable(VariableCreate(name=name, value=value, tags=tags))
        except ObjectAlreadyExists:
            await server.client.update_variable(VariableUpdate(name=name, value=value, tags=tags))


async def release_hold(server: PrefectServer, owner: Owner) -> bool:
    """Lift the hold of an environment.

    Returns:
        Whether there was one.

    Raises:
        ServerUnreachable, ServerError: the server did not answer.
    """
    with our_errors(server.api_url):
        try:
            await server.client.delete_variable_by_name(hold_name(owner))
        except ObjectNotFound:
            return False
    return True


async def held_back(server: PrefectServer, owner: Owner, digest: str) -> Hold | None:
    """The hold that keeps a scheduled sync from applying; one that has done its work is lifted.

    Args:
        server: the environment's.
        owner: the environment.
        digest: of what the repository asks for now, by `recording.desired_digest`.
    """
    hold = await read_hold(server, owner)
    if hold is None or holds(hold, digest):
        return hold
    await release_hold(server, owner)
    return None


def _hold(value: Any, owner: Owner) -> Hold:
    """A variable's value as a hold; one that somebody rewrote by hand holds nothing, and is lifted by the next sync."""
    written = value if isinstance(value, Mapping) else {}
    revision = written.get("revision")
    return Hold(
        owner=owner,
        revision=revision if isinstance(revision, int) else 0,
        desired_digest=str(written.get("desired_digest") or ""),
        by=str(written.get("by") or ""),
        at=str(written.get("at") or ""),
    )

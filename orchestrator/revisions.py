"""The door to recorded applies. They live on the Prefect server itself: no file to lose, every machine sees them.

Each is a document of a block type of our own. The server encrypts it, hides the recorded deployments in the UI, and
sends them only to who asks for secrets; its name takes part in a unique key, so that two applies at a time cannot take
one number. Why blocks, and what was measured: docs/decisions/0012-where-revisions-live.md.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID

from prefect.blocks.core import Block
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from pydantic import SecretStr

from orchestrator.errors import ConfigurationError, ServerError
from orchestrator.model import DeploymentResult, Owner, Plan, Provenance, RecordedState, Revision
from orchestrator.recording import packed, resources_after, server_name, state_after, unpacked
from orchestrator.server import PAGE, PrefectServer, our_errors
from orchestrator.terms import Terms

logger = logging.getLogger(__name__)

BLOCK_TYPE = "orchestrator-revision"
ROUTE = "/block_documents/filter"


class OrchestratorRevision(Block):
    """One recorded apply of orchestrator: `orchestrator history` lists them, `orchestrator rollback` goes back to one.

    The fields are those of `model.Revision`; `state` holds the deployments, pools, queues and limits.
    """

    _block_type_name: ClassVar[str | None] = "Orchestrator Revision"
    _block_type_slug: ClassVar[str | None] = BLOCK_TYPE

    number: int
    project: str
    environment: str
    commit: str | None
    is_dirty: bool
    by: str
    trigger: str
    note: str
    applied_at: str
    status: str
    summary: dict[str, int]
    desired_digest: str
    failed: int
    resource_summary: dict[str, int]
    state: SecretStr


class RevisionStore:
    """The recorded applies of one environment of one project on one server."""

    def __init__(self, server: PrefectServer, owner: Owner) -> None:
        self._server, self._owner = server, owner
        self._name = server_name(owner)
        self._unanswered: Revision | None = None  # what may have been recorded without our being told

    async def latest(self) -> RecordedState | None:
        """The last apply, with all that the environment had after it: one request."""
        rows = await self._rows(limit=1, include_secrets=True)
        return self._state(rows[0]) if rows else None

    async def latest_revision(self) -> Revision | None:
        """The last apply, without the deployments: one small request."""
        rows = await self._rows(limit=1)
        return self._revision(rows[0]["data"]) if rows else None

    async def history(self) -> tuple[Revision, ...]:
        """All applies that are recorded, the newest first, without their deployments."""
        rows = await self._server.pages(ROUTE, self._query())
        return tuple(self._revision(row["data"]) for row in rows if self._is_ours(row))

    async def read(self, number: int) -> RecordedState:
        """One apply, with all that the environment had after it.

        Raises:
            ConfigurationError: none of this number is recorded.
            ServerError: the server cannot read it any more.
        """
        row = await self._find(number, include_secrets=True)
        if row is None:
            raise ConfigurationError(
                f"There is no revision {number} of {self._owner.project} in {self._owner.environment}.",
                location=self._server.api_url,
                remedy="`orchestrator history` lists those that are kept.",
            )
        return self._state(row)

    async def record(self, state: RecordedState) -> Revision:
        """Write down an apply. May be repeated when its answer was lost: one apply gives one record.

        Args:
            state: what was applied; its number does not matter.

        Returns:
            The revision with its number: one more than the last, or than what somebody else recorded meanwhile.

        Raises:
            ServerUnreachable, ServerError: it could not be recorded.
        """
        if self._unanswered is not None and await self._is_recorded(self._unanswered):
            revision, self._unanswered = self._unanswered, None
            return revision
        last = await self.latest_revision()
        revision = replace(state.revision, owner=self._owner, number=last.number + 1 if last else 1)
        text = packed(state.deployments, state.resources)
        while not await self._create(revision, text) and not await self._is_recorded(revision):
            revision = replace(revision, number=revision.number + 1)  # somebody else's
        return revision

    async def _is_recorded(self, revision: Revision) -> bool:
        """Whether this very apply is recorded under its number."""
        row = await self._find(revision.number)
        return row is not None and self._revision(row["data"]) == revision

    async def prune(self, keep: int) -> int:
        """Delete the oldest revisions.

        Args:
            keep: how many to keep.

        Returns:
            How many were deleted.
        """
        rows = await self._rows(offset=keep, limit=PAGE)
        for row in rows:
            with our_errors(self._server.api_url):
                try:
                    await self._server.client.delete_block_document(UUID(row["id"]))
                except ObjectNotFound:  # somebody else prunes
                    continue
        return len(rows)

    async def _create(self, revision: Revision, text: str) -> bool:
        """Write one document; False where there is one of that name."""
        block = OrchestratorRevision(**_fields(revision), state=SecretStr(text))
        self._unanswered = revision
        with our_errors(self._server.api_url):
            try:
                await block.asave(self._name_of(revision.number), client=self._server.client)
            except ObjectAlreadyExists:  # somebody else was quicker to register the block type: it is there now
                return await self._create(revision, text)
            except ValueError as error:
                if not isinstance(error.__cause__, ObjectAlreadyExists):
                    raise
                self._unanswered = None
                return False
        self._unanswered = None
        return True

    async def _find(self, number: int, *, include_secrets: bool = False) -> dict[str, Any] | None:
        rows = await self._rows(name={"any_": [self._name_of(number)]}, limit=1, include_secrets=include_secrets)
        return rows[0] if rows else None

    async def _rows(self, *, name: Mapping[str, Any] | None = None, **asked: Any) -> list[dict[str, Any]]:
        rows = await self._server.request("POST", ROUTE, json={**self._query(name), **asked})
        return [row for row in rows if self._is_ours(row)]

    def _query(self, name: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Our documents, the newest first: a number has as many digits as every other."""
        return {
            "block_types": {"slug": {"any_": [BLOCK_TYPE]}},
            "block_documents": {"name": name or {"like_": f"{self._name}-"}, "is_anonymous": {"eq_": False}},
            "include_secrets": False,
            "sort": "NAME_DESC",
        }

    def _name_of(self, number: int) -> str:
        return f"{self._name}-{number:06}"

    def _is_ours(self, row: Mapping[str, Any]) -> bool:
        data = row["data"]
        return (data.get("project"), data.get("environment")) == (self._owner.project, self._owner.environment)

    def _revision(self, data: Mapping[str, Any]) -> Revision:
        names = ("commit", "is_dirty", "by", "trigger", "note")
        return Revision(
            number=data["number"],
            owner=self._owner,
            provenance=Provenance(**{name: data[name] for name in names if name in data}),
            applied_at=data["applied_at"],
            status=data["status"],
            summary=data["summary"],
            desired_digest=data["desired_digest"],
            failed=data.get("failed", 0),
            resource_summary=data.get("resource_summary", {}),
        )

    def _state(self, row: Mapping[str, Any]) -> RecordedState:
        revision = self._revision(row["data"])
        try:
            deployments, resources = unpacked(row["data"]["state"])
            return RecordedState(revision=revision, deployments=deployments, resources=resources)
        except (ValueError, LookupError) as error:
            raise ServerError(
                f"What revision {revision.number} recorded cannot be read: {type(error).__name__}.",
                location=f"block {BLOCK_TYPE}/{row['name']}",
                remedy="It was written by another version of orchestrator, or changed by hand: delete that block.",
            ) from error


def _fields(revision: Revision) -> dict[str, Any]:
    """A revision's own fields, in plain values."""
    values = asdict(revision)
    return {**values.pop("owner"), **values.pop("provenance"), **values}


def _source(terms: Terms, before: RecordedState | None) -> Provenance:
    """Where an apply comes from. What changes nothing that commits say goes on standing for the one before."""
    if not terms.keeps_commit or before is None:
        return terms.provenance
    last = before.revision.provenance
    return replace(terms.provenance, commit=last.commit, is_dirty=last.is_dirty)


async def record_apply(
    store: RevisionStore,
    plan: Plan,
    result: DeploymentResult,
    terms: Terms,
    before: RecordedState | None,
) -> Revision | None:
    """Record an apply that wrote something, and drop the oldest records.

    Args:
        store: of the environment that was applied to.
        plan: what was carried out.
        result: what became of it.
        terms: on which, and where it comes from.
        before: the last record, read under the same lock.

    Returns:
        The new revision; None where nothing was written.

    Raises:
        ServerUnreachable, ServerError: it could not be recorded.
    """
    came_too_late = result.is_interrupted and not result.failed
    state = replace(result, is_interrupted=False).status if came_too_late else result.status
    if not result.wrote or state == "no-changes":
        return None
    revision = Revision(
        number=0,
        owner=plan.owner,
        provenance=_source(terms, before),
        applied_at=datetime.now(UTC).isoformat(timespec="seconds"),
        status=state,
        summary=result.summary,
        desired_digest=terms.desired_digest,
        failed=len(result.failed),
        resource_summary=result.resource_summary,
    )
    deployments = state_after(plan, result, before, terms.selection)
    resources = resources_after(plan, result, before, terms.selection)
    recorded = await store.record(RecordedState(revision=revision, deployments=deployments, resources=resources))
    if recorded.number > terms.keep_revisions:
        await store.prune(terms.keep_revisions)
    logger.info("recorded as revision %s of %s", recorded.number, plan.environment)
    return recorded

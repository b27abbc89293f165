"""How a plan is to be carried out, and what is recorded of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.config import Policy
from orchestrator.desired import Selection
from orchestrator.images.sources import image_files
from orchestrator.model import Hold, Provenance, Trigger
from orchestrator.pipeline import Asked, Settings
from orchestrator.provenance import deployed_files, provenance
from orchestrator.recording import desired_digest
from orchestrator.step_outputs import needs

ONLY = "only"  # how the note of a partial apply begins
NOWHERE = Provenance()
KEPT_REVISIONS = Policy().keep_revisions


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """The terms of one apply.

    Attributes:
        provenance: where it comes from.
        desired_digest: of what the repository asks for, by `recording.desired_digest`.
        selection: what the plan is about; None: everything.
        adopt: the patterns of unowned deployments that the plan takes over.
        is_reviewed: a person has looked at this very plan: refuse if anything has moved since.
        is_atomic: all or nothing.
        keeps_commit: it changes nothing that commits say: the environment goes on to stand for the one before.
        waits: for another apply to the environment to end; else refuse.
        verifies: read back what was written.
        keep_revisions: how many recorded applies to keep.
        hold: set with the apply, so that no scheduled sync undoes it; None lifts the one that there is, if the plan is
            about everything.
    """

    provenance: Provenance = NOWHERE
    desired_digest: str = ""
    selection: Selection | None = None
    adopt: tuple[str, ...] = ()
    is_reviewed: bool = False
    is_atomic: bool = False
    keeps_commit: bool = False
    waits: bool = True
    verifies: bool = True
    keep_revisions: int = KEPT_REVISIONS
    hold: Hold | None = None

    @property
    def concerns_all(self) -> bool:
        return self.selection is None or self.selection.is_everything

    @property
    def holder(self) -> str:
        """Who applies, as others who wait for it read."""
        return f"{self.provenance.by or 'somebody'} ({self.provenance.trigger})"


def terms_of(asked: Asked, trigger: Trigger, *, run_name: str | None = None, **others: Any) -> Terms:
    """The terms for applying what a repository asks for.

    Args:
        asked: that.
        trigger: what started the apply.
        run_name: of the flow run that applies; None: a person does.
        others: further fields of `Terms`.
    """
    settings = asked.settings
    files = deployed_files(settings, asked.discovery) | image_files(settings.root, needs(asked.desired.deployments))
    note = _part(others.get("selection"))
    return Terms(
        provenance=provenance(settings.root, trigger, note, run_name=run_name, files=files),
        desired_digest=desired_digest(asked.desired, settings.root),
        keep_revisions=settings.environment.policy.keep_revisions,
        **others,
    )


def _part(selection: Selection | None) -> str:
    """Which part of an environment an apply is about, for the history; empty: all of it."""
    if selection is None or selection.is_everything:
        return ""
    words = [*selection.only, *([f"kind {selection.kind}"] if selection.kind else [])]
    words += ["declared ones"] if selection.declared_only else []
    return f"{ONLY} {', '.join(words)}"


def cleaning_terms(settings: Settings, trigger: Trigger, pattern: str, **others: Any) -> Terms:
    """The terms for deleting by pattern: what lies outside of it stays as it was recorded, a hold included."""
    return Terms(
        provenance=provenance(settings.root, trigger, f"clean {pattern}"),
        keep_revisions=settings.environment.policy.keep_revisions,
        selection=Selection(only=(pattern,)),
        keeps_commit=True,
        **others,
    )

"""Where an apply comes from: the commit, whether files differ from it, and who applies."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Collection
from pathlib import Path

from orchestrator.git import commit_of, is_dirty
from orchestrator.model import Discovery, Provenance, Trigger
from orchestrator.pipeline import Settings


def provenance(
    root: Path,
    trigger: Trigger = "command line",
    note: str = "",
    *,
    run_name: str | None = None,
    files: Collection[str] | None = None,
) -> Provenance:
    """Say where an apply comes from.

    Args:
        root: the repository that is applied; it need not be one of git.
        trigger: what started the apply.
        note: what else a reader of the history should know.
        run_name: of the flow run that applies; None: a person does.
        files: what is deployed, by `deployed_files`; None: every file of the folder counts.
    """
    return Provenance(
        commit=commit_of(root),
        is_dirty=is_dirty(root, files),
        by=run_name or user_at_host(),
        trigger=trigger,
        note=note,
    )


def deployed_files(settings: Settings, discovery: Discovery) -> frozenset[str]:
    """The files that say what is deployed: sources, Dockerfiles and configuration. A plan.json beside them is not."""
    flows = discovery.flows
    sources = {file for flow in flows for file in (*flow.closure, *flow.env_files)}
    dockerfiles = {flow.dockerfile_path for flow in flows if flow.dockerfile_path}
    return frozenset({*sources, *dockerfiles, *settings.prefect_files, *settings.configuration_files})


def user_at_host() -> str:
    """Who works on this machine, as far as it says."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container: a user id without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"

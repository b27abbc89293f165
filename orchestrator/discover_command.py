"""`orchestrator discover`. It needs little and starts at once: nothing here imports pydantic, let alone Prefect."""

from __future__ import annotations

from orchestrator.changes import touched
from orchestrator.discovery import cache_file_of
from orchestrator.discovery import discover as discover_flows
from orchestrator.flow_report import discovery_json, flows_text
from orchestrator.git import changed_files
from orchestrator.project import load_project, require_folders
from orchestrator.terminal import EXIT_FAILED, Common, Terminal, existing_root


def discover(*paths: str, changed_since: str | None = None, common: Common = Common()) -> int:  # noqa: B008 - frozen
    """List the flows of the repository, by reading source only.

    Args:
        paths: Files or folders to look into; default: the folders of [tool.orchestrator].
        changed_since: Only flows that use a Python file which differs from this git revision, committed or not.
            Other files do not count: no requirements, no prefect.yaml.
    """
    root = existing_root(common.root)
    project = load_project(root)
    if not paths:
        require_folders(root, project)
    changes = None if changed_since is None else changed_files(root, changed_since)
    found = discover_flows(root, project.flows, project.exclude, paths or None, cache_file=cache_file_of(root))
    found = touched(found, root, changes) if changes is not None else found
    Terminal(common.output).show(flows_text(found), discovery_json(found))
    return EXIT_FAILED if found.problems else 0

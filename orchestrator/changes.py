"""Which flows a change touches: those whose closure holds a file that changed, or held one that is gone."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from orchestrator.closure import ImportGraph
from orchestrator.git import ChangedFiles
from orchestrator.model import Discovery, FlowMetadata
from orchestrator.repository import Repository
from orchestrator.sources import SourceFiles


def touched(discovery: Discovery, root: Path, changes: ChangedFiles) -> Discovery:
    """The part of a discovery that changes touch.

    Args:
        discovery: of the files as they are.
        root: the repository.
        changes: of its files.

    Returns:
        The same with fewer flows. A flow that imports a module which is gone, or was found in another place before,
        is one of them.
    """
    return replace(discovery, flows=tuple(_touched_flows(discovery.flows, root, changes)))


def _touched_flows(flows: Iterable[FlowMetadata], root: Path, changes: ChangedFiles) -> Iterator[FlowMetadata]:
    # With the deleted files in the tree again, imports lead to them. Whatever they hide, they are part of the closure.
    gone = {path for path in changes.deleted if path.endswith(".py")}
    before = ImportGraph(SourceFiles(root, Repository(root, also=gone)))
    for flow in flows:
        if _meet(flow.closure, changes.changed) or (gone and not gone.isdisjoint(before.closure_of(flow.path).paths)):
            yield flow


def _meet(closure: Iterable[str], changed: frozenset[str]) -> bool:
    return any(place in changed for path in closure for place in _places(path))


def _places(path: str) -> Iterator[str]:
    """A file and the folders in which it lies."""
    while path:
        yield path
        path = posixpath.dirname(path)

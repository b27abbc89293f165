"""Read the flows of many files: what the last scan remembers, the rest in parallel where that pays.

A file's flows are remembered by the digest of its closure: whatever reading them may look at is part of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from orchestrator.closure import ImportGraph
from orchestrator.flow_source import FileFlows, FlowReader
from orchestrator.forks import shared
from orchestrator.sources import SourceFiles

FILES_THAT_PAY = 150  # for one more process: copying this one takes as long as reading some dozens
_MOST_PROCESSES = 4


class FlowScan:
    """Reads the flows of one repository.

    Args:
        sources: its files.
        graph: their imports.
        processes: how many processes may read, this one included; by default as many as there are processors.
    """

    def __init__(self, sources: SourceFiles, graph: ImportGraph, processes: int | None = None) -> None:
        self._sources, self._graph = sources, graph
        self._reader = FlowReader(sources, graph)
        self._processes = processes or min(_processors(), _MOST_PROCESSES)
        self._fresh: dict[str, FileFlows] = {}

    def look_at(self, paths: Iterable[str], also_parse: Callable[[str], bool] = lambda path: False) -> None:
        """Look at files that nobody has looked at since they were written; parse those that speak of flows.

        Args:
            paths: relative to the root.
            also_parse: says which of the others are parsed as well: what is wrong with them counts, whatever they hold.
        """
        unknown = [(path, also_parse(path)) for path in self._sources.not_remembered(paths)]
        helpers = min(self._processes - 1, len(unknown) // FILES_THAT_PAY)
        for path, (signature, digest, notes), flows in shared(self._look_at_all, unknown, helpers, self._answer):
            self._sources.adopt(path, signature, digest, notes)
            if flows is not None:
                self._fresh[path] = FileFlows.from_plain(flows)

    def _look_at_all(self, files: Iterable[tuple[str, bool]]) -> None:
        for path, always in files:
            source = self._sources[path]
            glance = source.glance
            if glance.speaks_of_flows or glance.is_odd:
                self._fresh[path] = self._reader.read(path)
            elif always:
                source.parse()

    def _answer(self, path: str) -> list[Any]:
        """What this process has learned of a file, in plain values."""
        flows = self._fresh.get(path)
        told = self._sources[path].to_tell()
        return [path, told, None if flows is None else flows.as_plain()]

    def read(self, paths: Sequence[str]) -> dict[str, FileFlows]:
        """The flows of each file.

        Args:
            paths: files that may hold flows, relative to the root.

        Returns:
            By path, in the order given.
        """
        return {path: self._read(path) for path in paths}

    def _read(self, path: str) -> FileFlows:
        source, closure = self._sources[path], self._graph.closure_of(path)
        if path not in self._fresh and source.flows and source.flows[0] == closure.digest:
            return FileFlows.from_plain(source.flows[1])
        found = self._fresh[path] if path in self._fresh else self._reader.read(path)
        source.note_flows(closure.digest, found.as_plain())
        return found


def _processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

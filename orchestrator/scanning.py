"""Read the flows of many files: what the last scan remembers, the rest in parallel where that pays.

A file's flows are remembered by the digest of its closure: whatever reading them may look at is part of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

from orchestrator.closure import ImportGraph
from orchestrator.flow_source import FlowReader, SourceFlow, flow_from_json, flow_to_json
from orchestrator.sources import SourceFiles

FILES_THAT_PAY = 300  # for a child process: starting it takes as long as reading about so many files
_MOST_CHILDREN = 3
_BATCH = 24  # files: small, so that nobody waits for the last one

Flows = tuple[SourceFlow, ...]


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
        self._processes = processes or min(_processors(), _MOST_CHILDREN + 1)

    def flows_of(self, paths: Sequence[str]) -> dict[str, Flows]:
        """The flows of each file.

        Args:
            paths: files that may hold flows, relative to the root.

        Returns:
            By path, in the order given; of each file in the order of lines.
        """
        found = {path: flows for path in paths if (flows := self._remembered(path)) is not None}
        found |= self._read([path for path in paths if path not in found])
        return {path: found[path] for path in paths}

    def _remembered(self, path: str) -> Flows | None:
        """The flows of a file whose whole closure is as it was."""
        notes = self._sources[path].notes
        if "reading" not in notes or "flows" not in notes:
            return None
        digest, flows = notes["flows"]
        return tuple(map(flow_from_json, flows)) if digest == self._graph.closure_of(path).digest else None

    def _read(self, paths: Sequence[str]) -> dict[str, Flows]:
        queue = deque(paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH))
        helpers = min(self._processes - 1, len(paths) // FILES_THAT_PAY)
        found: dict[str, Flows] = {}
        with _helped(self._sources, queue, helpers) as answers:
            while queue:
                with suppress(IndexError):  # a helper took the last one
                    found |= {path: self._reader.flows_of(path) for path in queue.popleft()}
        for answer in answers:
            self._sources[answer["path"]].adopt(answer["digest"], answer["notes"])
            found[answer["path"]] = tuple(map(flow_from_json, answer["flows"]))
        # What a helper left undone when it died:
        found |= {path: self._reader.flows_of(path) for path in paths if path not in found}
        for path in paths:
            self._sources[path].notes["flows"] = [self._graph.closure_of(path).digest, map_to_json(found[path])]
        return found


def map_to_json(flows: Iterable[SourceFlow]) -> list[dict[str, Any]]:
    return [flow_to_json(flow) for flow in flows]


def _processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# ---------------------------------------------------------------------------------------------------------
# Helping processes
# ---------------------------------------------------------------------------------------------------------


@contextmanager
def _helped(sources: SourceFiles, queue: deque[Sequence[str]], helpers: int) -> Iterator[list[Mapping[str, Any]]]:
    """Let child processes take batches from the end of the queue; at the end their answers are complete."""
    answers: list[Mapping[str, Any]] = []
    threads = [Thread(target=_help, args=(str(sources.root), queue, answers), daemon=True) for _ in range(helpers)]
    for thread in threads:
        thread.start()
    yield answers
    for thread in threads:
        thread.join()


def _help(root: str, queue: deque[Sequence[str]], answers: list[Mapping[str, Any]]) -> None:
    """Pass batches to one child process until none is left. One that fails leaves its batch to others."""
    command = [sys.executable, "-P", "-m", "orchestrator.scan_child", root]
    with suppress(OSError, ValueError):
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        with child:
            assert child.stdin and child.stdout
            with suppress(IndexError):
                while True:
                    child.stdin.write(json.dumps(queue.pop()).encode() + b"\n")
                    child.stdin.flush()
                    answers += json.loads(child.stdout.readline())

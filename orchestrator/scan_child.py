"""The child process that helps to read a large repository.

Run as `python -m orchestrator.scan_child ROOT`. Reads batches of paths from standard input, one JSON list a line, and
writes one line for each: what it has noted of the files. It reads and parses, and executes nothing of theirs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from orchestrator.closure import ImportGraph
from orchestrator.flow_source import FlowReader, flow_to_json
from orchestrator.sources import SourceFiles


def noted(path: str, sources: SourceFiles, reader: FlowReader) -> dict[str, Any]:
    """What is known of one file."""
    flows = [flow_to_json(flow) for flow in reader.flows_of(path)]
    source = sources[path]
    return {"path": path, "digest": source.digest, "notes": source.noted(), "flows": flows}


def main() -> None:
    sources = SourceFiles(Path(sys.argv[1]))
    reader = FlowReader(sources, ImportGraph(sources))
    for line in sys.stdin:
        answers = [noted(path, sources, reader) for path in json.loads(line)]
        sys.stdout.write(json.dumps(answers) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

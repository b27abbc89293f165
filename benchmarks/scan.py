"""Scan a repository of 1,000 flow files and 4,000 others, and read the same files in other ways.

Run as `python -m benchmarks.scan WAY ROOT`, each way in a process of its own; prints seconds and megabytes as JSON.
Seconds are those of the work alone, without starting Python and importing the libraries.

    scan      `FlowDiscovery.discover` with the cache as it is (empty: cold; filled: warm)
    parse     read and `ast.parse` the 1,000 flow files, nothing else, on one core
    prefect   Prefect's own finder, which its prompts use
    import    import each flow file
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import importlib.util
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.discovery import FlowDiscovery

FLOW_FILES = 1000
OTHER_FILES = 4000
TEAMS = 50
SHARED_MODULES = 20
FLOW = '''"""Load {number} from the source system into the warehouse."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta

from prefect import flow, get_run_logger, task

from lib.common import PREFIX
from lib.module_{shared} import clean, load

logger = logging.getLogger(__name__)
BATCH = 500


@task(retries=2, retry_delay_seconds=10)
def extract(day: str, limit: int = BATCH) -> list[dict]:
    """Read the rows of one day."""
    rows = []
    for number in range(limit):
        rows.append({{"day": day, "number": number, "value": number * {number} % 97}})
    return rows


@task
def transform(rows: list[dict]) -> list[dict]:
    kept = [row for row in rows if row["value"] > 3]
    if not kept:
        raise ValueError(f"nothing left of {{len(rows)}} rows")
    return clean(kept)


@flow(name="load-{number}", retries=1, log_prints=True)
def load_{number}(day: str = "today", size: int = {number}, dry_run: bool = False) -> int:
    """Flow number {number}.

    Reads, cleans and loads the rows of one day.
    """
    when = datetime.now() - timedelta(days=1) if day == "today" else datetime.fromisoformat(day)
    rows = transform(extract(when.isoformat(), limit=size))
    get_run_logger().info("loaded %s", json.dumps({{"rows": len(rows)}}))
    if not dry_run:
        load(rows, table=f"{{PREFIX}}_{number}")
    return len(rows)


if __name__ == "__main__":
    load_{number}()
'''
OTHER = '''"""Module {number}."""

import os
from collections import defaultdict
from dataclasses import dataclass


@dataclass
class Record{number}:
    name: str
    value: int = {number}
    labels: dict | None = None

    def as_row(self) -> dict:
        return {{"name": self.name, "value": self.value}}


def group(records):
    """Group records by name."""
    found = defaultdict(list)
    for record in records:
        found[record.name].append(record)
    return {{name: sorted(items, key=lambda item: item.value) for name, items in found.items()}}


def path_of(name: str) -> str:
    return os.path.join(os.getcwd(), "data", f"{{name}}-{number}.csv")
'''
SHARED = "from lib.common import PREFIX\n\n\ndef clean(rows): return rows\n\n\ndef load(rows, table): ...\n"
IGNORED = "__pycache__/\n*.pyc\n.venv/\nbuild/\ndist/\n*.egg-info\n.env\ndata/\n*.log\n.mypy_cache/\nnode_modules/\n"


def write_repository(root: Path) -> Path:
    """Write the 5,000 files."""
    files = {".gitignore": IGNORED, "lib/__init__.py": "", "lib/common.py": 'PREFIX = "acme"\n'}
    files |= {f"lib/module_{number}.py": SHARED for number in range(SHARED_MODULES)}
    for number in range(FLOW_FILES):
        source = FLOW.format(number=number, shared=number % SHARED_MODULES)
        files[f"teams/team_{number % TEAMS}/load_{number}.py"] = source
    for number in range(OTHER_FILES - SHARED_MODULES - 2):
        files[f"src/package_{number % 100}/module_{number}.py"] = OTHER.format(number=number)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def scan(root: Path) -> int:
    return len(FlowDiscovery(root).discover().flows)


def parse(root: Path) -> int:
    files = sorted((root / "teams").rglob("*.py"))
    for path in files:
        ast.parse(path.read_bytes())
    return len(files)


def prefect_finder(root: Path) -> int:
    finder = importlib.import_module("prefect.cli._prompts").search_for_flow_functions
    return len(asyncio.run(finder(root)))


def import_each(root: Path) -> int:
    sys.path.insert(0, str(root))
    files = sorted((root / "teams").rglob("*.py"))
    for path in files:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec and spec.loader
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return len(files)


WAYS: dict[str, Callable[[Path], int]] = {
    "scan": scan,
    "parse": parse,
    "prefect": prefect_finder,
    "import": import_each,
}


def main(way: str, root: Path) -> None:
    if way in ("prefect", "import"):
        importlib.import_module("prefect.cli._prompts")  # importing Prefect is not what is measured
    started = time.perf_counter()
    found = WAYS[way](root)
    seconds = time.perf_counter() - started
    usages = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    if found != FLOW_FILES:
        raise SystemExit(f"{way} found {found} of {FLOW_FILES}")
    sys.stdout.write(json.dumps({"seconds": seconds, "megabytes": sum(usages) / 1024}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

"""Run the benchmarks and print a table of medians and ratios.

    start-up     `orchestrator discover` on this repository, against `python -c "import prefect"`
    scan         finding the flows of 1,000 files among 5,000, without and with a cache, against reading them otherwise
    deploy       `orchestrator apply` of 50 and 500 flows: first, with nothing to change, with one flow edited; against
                 `prefect deploy --all` and a bare loop. BENCH_SIZES=20 makes it short
    fan-out      submitting 200 to 10,000 runs and waiting for them, on SQLite and Postgres, against the obvious code
                 and a bare bulk loop; 20 real children on a worker. BENCH_RUNS=sqlite:50 BENCH_REAL= is short
    images       deciding about 20 images of which none has changed, against `docker build` of the same; needs an engine
    scaling      a server on SQLite, on Postgres, and docker/compose.yaml: idle, creating runs, a first apply

Each figure is of whole processes, imports included, unless the group says otherwise. Seconds depend on the machine;
ratios hold better. `make bench ARGS=scan` (or start-up, deploy, fan-out, images, scaling) runs one group.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.deploy import benchmark as deploying
from benchmarks.fan_out import benchmark as fanning_out
from benchmarks.images import benchmark as with_images
from benchmarks.measuring import Command, Figure
from benchmarks.scaling import benchmark as scaling
from benchmarks.scan import write_repository as write_tree

ROUNDS = 3
SCAN_ROUNDS = 7


def main(groups: Sequence[str]) -> None:
    repository = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory(prefix="orchestrator-bench-") as folder:
        ways: dict[str, Callable[[], list[Figure]]] = {
            "start-up": lambda: [startup(repository)],
            "scan": lambda: scanning(repository, Path(folder)),
            "deploy": lambda: list(deploying(Path(folder))),
            "fan-out": lambda: list(fanning_out(Path(folder) / "fan-out")),
            "images": lambda: list(with_images(Path(folder))),
            "scaling": lambda: list(scaling(Path(folder) / "scaling")),
        }
        figures = [figure for name, way in ways.items() if not groups or name in groups for figure in way()]
    table = Table("benchmark", "ours", "peer", "ours / peer", "asked")
    for figure in figures:
        table.add_row(*figure.cells(), style=None if figure.is_reached else "red")
    Console().print(table)


def startup(repository: Path) -> Figure:
    """The two sides take turns."""
    ours = Command(line=[sys.executable, "-m", "orchestrator", "discover"], folder=repository)
    peer = Command(line=[sys.executable, "-c", "import prefect"], folder=repository)
    pairs = [(ours.seconds(), peer.seconds()) for _ in range(ROUNDS)]
    return Figure(
        name="start-up: discover / import prefect",
        ours=statistics.median(one for one, _ in pairs),
        peer=statistics.median(other for _, other in pairs),
    )


def scanning(repository: Path, folder: Path) -> list[Figure]:
    """Cold and warm scans of 5,000 files, against other ways to look at the 1,000 with flows."""
    tree = write_tree(folder / "tree")
    rounds = [scan_round(repository, tree) for _ in range(SCAN_ROUNDS)]
    median = {way: statistics.median(each[way]["seconds"] for each in rounds) for way in rounds[0]}
    memory = max(each[way]["megabytes"] for each in rounds for way in ("cold", "warm"))
    Console().print(f"a scan takes {memory:.0f} MB at most, its helpers included")
    return [
        Figure(name="cold scan / read and parse the flow files", ours=median["cold"], peer=median["parse"]),
        Figure(name="warm scan / cold scan", ours=median["warm"], peer=median["cold"]),
        Figure(name="cold scan / Prefect's own finder", ours=median["cold"], peer=median["prefect"]),
        Figure(name="cold scan / importing each flow file", ours=median["cold"], peer=median["import"]),
    ]


def scan_round(repository: Path, tree: Path) -> dict[str, dict[str, float]]:
    shutil.rmtree(tree / ".orchestrator", ignore_errors=True)
    ways = {"cold": "scan", "parse": "parse", "warm": "scan", "prefect": "prefect", "import": "import"}
    return {name: measured(repository, way, tree) for name, way in ways.items()}


def measured(repository: Path, way: str, tree: Path) -> dict[str, float]:
    """One way of `benchmarks.scan`, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scan", way, str(tree)]
    environment = {**os.environ, "PREFECT_HOME": str(tree.parent / "prefect"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def stop(*_: object) -> None:
    """End as an exception does, so that the servers which were started are ended, too."""
    raise SystemExit("terminated")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    main(sys.argv[1:])

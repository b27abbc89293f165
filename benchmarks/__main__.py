"""Run the benchmarks and print a table of medians and ratios.

    start-up     `orchestrator discover` on this repository, against `python -c "import prefect"`
    scan         finding the flows of 1,000 files among 5,000, without and with a cache, against reading them otherwise
    no change    `orchestrator apply` with nothing to change, against `prefect deploy --all` on the same flows
    first apply  `orchestrator apply` on a fresh server, against `prefect deploy --all` on a fresh server

Each figure is the median of whole processes, imports included; the two sides take turns. Seconds depend on the machine;
ratios hold better. `make bench ARGS=scan` (or start-up, deploy) runs one group.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from rich.console import Console
from rich.table import Table

from benchmarks.scan import write_repository as write_tree
from orchestrator.bootstrap import ensure_pool, is_healthy
from orchestrator.config import WorkPoolConfig
from orchestrator.local import LocalState
from orchestrator.server import open_server

FLOWS = 20
ROUNDS = 3
SCAN_ROUNDS = 7
POOL = "bench-pool"
FLOW_SOURCE = '''from prefect import flow


@flow
def flow_{number}(day: str = "today", size: int = {number}) -> int:
    """Flow number {number}."""
    return size
'''
DECLARATION = """  - name: bench
    entrypoint: flows/flow_{number}.py:flow_{number}
    work_pool:
      name: bench-pool
"""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Two sides of one comparison, in seconds."""

    name: str
    ours: float
    peer: float

    @property
    def ratio(self) -> float:
        return self.ours / self.peer


def main(groups: Sequence[str]) -> None:
    repository = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory(prefix="orchestrator-bench-") as folder:
        ways: dict[str, Callable[[], list[Figure]]] = {
            "start-up": lambda: [startup(repository)],
            "scan": lambda: scanning(repository, Path(folder)),
            "deploy": lambda: list(deploying(Path(folder))),
        }
        figures = [figure for name, way in ways.items() if not groups or name in groups for figure in way()]
    table = Table("benchmark", "ours, s", "peer, s", "ours / peer")
    for figure in figures:
        table.add_row(figure.name, f"{figure.ours:.2f}", f"{figure.peer:.2f}", f"{figure.ratio:.2f}")
    Console().print(table)


def startup(repository: Path) -> Figure:
    ours = [sys.executable, "-m", "orchestrator", "discover"]
    peer = [sys.executable, "-c", "import prefect"]
    return compare("start-up: discover / import prefect", runner(ours, repository), runner(peer, repository))


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


def deploying(folder: Path) -> Iterator[Figure]:
    """Both tools on the same repository, each on a fresh server of its own."""
    repository = write_repository(folder / "repository")
    with fresh_server(folder / "ours") as ours_url, fresh_server(folder / "peer") as peer_url:
        ours = runner(apply_command(ours_url), repository)
        peer = runner(deploy_command(), repository, PREFECT_API_URL=peer_url)
        yield Figure(name=f"first apply, {FLOWS} deployments", ours=ours(), peer=peer())
        yield compare(f"no change, {FLOWS} deployments", ours, peer)


def compare(name: str, ours: Callable[[], float], peer: Callable[[], float]) -> Figure:
    pairs = [(ours(), peer()) for _ in range(ROUNDS)]
    return Figure(
        name=name, ours=statistics.median(one for one, _ in pairs), peer=statistics.median(other for _, other in pairs)
    )


def runner(command: list[str], folder: Path, **environment: str) -> Callable[[], float]:
    """A function that runs a command and returns its seconds; a command that fails ends the benchmark."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    home = str(folder / ".orchestrator" / "prefect")

    def run() -> float:
        started = time.perf_counter()
        settings = {**clean, "PREFECT_HOME": home, **environment}
        done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
        return seconds

    return run


def apply_command(api_url: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator", "apply", "--yes", "--api-url", api_url]


def deploy_command() -> list[str]:
    return [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]


def write_repository(folder: Path) -> Path:
    (folder / "flows").mkdir(parents=True)
    for number in range(FLOWS):
        (folder / "flows" / f"flow_{number}.py").write_text(FLOW_SOURCE.format(number=number))
    declared = "".join(DECLARATION.format(number=number) for number in range(FLOWS))
    (folder / "prefect.yaml").write_text(f"name: bench\ndeployments:\n{declared}")
    return folder


@contextmanager
def fresh_server(folder: Path) -> Iterator[str]:
    """A Prefect server with an empty database and one work pool, stopped at the end."""
    folder.mkdir()
    state = LocalState(folder)
    api_url = f"http://127.0.0.1:{free_port()}/api"
    process = state.start_server(api_url)
    try:
        anyio.run(prepare, api_url)
        yield api_url
    finally:
        state.stop(process)


async def prepare(api_url: str) -> None:
    while not await is_healthy(api_url):  # noqa: ASYNC110 - the state of another process
        await anyio.sleep(0.2)
    async with open_server(api_url) as server:
        await ensure_pool(server, WorkPoolConfig(name=POOL, type="process"))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    main(sys.argv[1:])

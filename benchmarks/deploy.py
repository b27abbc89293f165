"""Apply a repository of N flows, against `prefect deploy --all` on a copy of it: same machine, same server, same run.

    first apply   nothing is on the server yet
    no change     the same again
    one changed   one flow of them was edited
    bare loop     `python -m benchmarks.deploy FILE API_URL`: POST what our first apply posted, one by one, and no more

Each N has a fresh server on SQLite. The two sides follow each other, each with nothing but its own deployments on the
server. Sizes come from BENCH_SIZES (`50,500,1000`); above PEER_LIMIT only ours is measured.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import ceil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type
from rich.console import Console

from benchmarks.measuring import Command, Figure, median
from orchestrator.local import LocalState

SIZES = tuple(int(size) for size in os.environ.get("BENCH_SIZES", "50,500,1000").split(","))
PEER_LIMIT = 500  # above, `prefect deploy --all` takes longer than anybody waits
MANY = 200  # deployments from which on one round of what takes minutes must do
ROUNDS = 5
PAGE = 200  # rows: what the server gives at most
ASKED = {50: (1 / 8, 1 / 3), 500: (1 / 50, 1 / 4)}  # size: no change, first apply, as ours / peer
LOOP_ASKED, CHANGED_ASKED = 1.3, 1.5
POOL = "bench-pool"
FLOW = '''"""Flow number {number}: reads the rows of one day and counts them."""

from prefect import flow, task


@task(retries=2)
def extract(day: str, size: int) -> list[str]:
    return [f"{{day}}-{{row}}" for row in range(size)]


@flow(name="{side}-flow-{number}")
def flow_{number}(day: str = "today", size: int = {number}, dry_run: bool = False) -> int:
    """Flow number {number}.

    Args:
        day: Whose rows.
        size: How many.
        dry_run: Look only.
    """
    return len(extract(day, size))
'''
DECLARATION = """  - name: bench
    entrypoint: flows/flow_{number}.py:flow_{number}
    parameters: {{day: yesterday}}
    work_pool: {{name: {pool}}}
"""
SCHEDULE = """    schedules:
      - {cron: "0 4 * * *", slug: nightly}
"""


def benchmark(folder: Path) -> Iterator[Figure]:
    """Every size in turn."""
    for size in SIZES:
        with fresh_server(folder / f"server-{size}") as api_url:
            yield from Bench(folder / f"repositories-{size}", size, api_url).figures()


class Bench:
    """Both sides at one size, on one server."""

    def __init__(self, folder: Path, size: int, api_url: str) -> None:
        self.size, self.api_url, self.is_many = size, api_url, size >= MANY
        self.folder, self.peer_folder = folder / "ours", folder / "peer"
        for repository, side in ((self.folder, "ours"), (self.peer_folder, "peer")):
            write_repository(repository, side, size)
        self.first_rounds = 1 if self.is_many else 3
        self.peer = Command(
            line=[sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
            folder=self.peer_folder,
            api_url=api_url,
        )

    def figures(self) -> Iterator[Figure]:
        """Ours, then the peer."""
        with_peer = self.size <= PEER_LIMIT
        first = median(self.first_rounds, self._first_apply)
        say(f"{self.size} deployments: first apply took {first:.1f} s")
        unchanged = median(ROUNDS, lambda: self._apply(unchanged=self.size))
        self._tell_requests(unchanged)
        changed = statistics.median(self._apply_changed(number) for number in range(ROUNDS))
        yield self._figure(f"one of {self.size} changed / none changed", changed, unchanged, CHANGED_ASKED)
        if with_peer and self.is_many:
            yield self._figure(f"first apply of {self.size} / bare loop", first, self._bare_loop(), LOOP_ASKED)
        if with_peer:
            no_change_asked, first_asked = ASKED.get(self.size, (None, None))
            peer_first = median(self.first_rounds, self._first_deploy)
            yield self._figure(f"first apply of {self.size} / deploy --all", first, peer_first, first_asked)
            peer_again = median(self.first_rounds, self.peer.seconds)
            yield self._figure(f"no change of {self.size} / deploy --all", unchanged, peer_again, no_change_asked)

    def _figure(self, name: str, ours: float, peer: float, at_most: float | None) -> Figure:
        figure = Figure(name=name, ours=ours, peer=peer, at_most=at_most)
        say(f"{name}: {ours:.2f} s / {peer:.2f} s = {figure.ratio:.3f}")
        return figure

    def _first_apply(self) -> float:
        clear(self.api_url)
        shutil.rmtree(self.folder / ".orchestrator", ignore_errors=True)
        return self._apply(create=self.size)

    def _first_deploy(self) -> float:
        clear(self.api_url)
        return self.peer.seconds()

    def _apply_changed(self, number: int) -> float:
        """Edit one flow and apply."""
        with (self.folder / "flows" / f"flow_{number}.py").open("a", encoding="utf-8") as file:
            file.write(f"# edited at {time.time_ns()}\n")
        return self._apply(update=1, unchanged=self.size - 1)

    def _apply(self, api_url: str | None = None, **expected: int) -> float:
        """The seconds of one whole apply, which must have done what is expected and no more."""
        line = [sys.executable, "-m", "orchestrator", "apply", "--yes", "--output", "json"]
        command = Command(line=[*line, "--api-url", api_url or self.api_url], folder=self.folder)
        seconds, output = command.run()
        done = {action: count for action, count in json.loads(output)["summary"].items() if count}
        expected = {action: count for action, count in expected.items() if count}
        if done != expected:
            raise SystemExit(f"{' '.join(line)} did {done} instead of {expected}")
        return seconds

    def _tell_requests(self, seconds: float) -> None:
        with recorder(self.api_url) as recorded:
            self._apply(recorded.api_url, unchanged=self.size)
        bound = ceil(self.size / PAGE) + 10
        counts = f"{len(recorded.requests)} requests (asked: at most {bound}), {len(recorded.writes)} writes"
        say(f"{self.size} deployments unchanged: {seconds:.2f} s, {counts}")
        for request in recorded.requests:
            say(f"    {request.method} {request.path}")

    def _bare_loop(self) -> float:
        """The seconds of a process that posts what our first apply posts, one by one."""
        clear(self.api_url)
        with recorder(self.api_url) as recorded:
            self._apply(recorded.api_url, create=self.size)
        file = self.folder.parent / "posted.json"
        posts = [(each.path, each.body) for each in recorded.requests if each.creates]
        file.write_text(json.dumps(posts), encoding="utf-8")
        clear(self.api_url)
        line = [sys.executable, "-m", "benchmarks.deploy", str(file), self.api_url]
        return Command(line=line, folder=Path(__file__).parents[1]).seconds()


def say(text: str) -> None:
    Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)


def write_repository(folder: Path, side: str, size: int) -> None:
    """N flows in a file each, and one prefect.yaml that declares them all; every tenth has a schedule."""
    (folder / "flows").mkdir(parents=True)
    for number in range(size):
        (folder / "flows" / f"flow_{number}.py").write_text(FLOW.format(number=number, side=side))
    declared = [
        DECLARATION.format(number=number, pool=POOL) + (SCHEDULE if number % 10 == 0 else "") for number in range(size)
    ]
    (folder / "prefect.yaml").write_text(f"name: bench\ndeployments:\n{''.join(declared)}")


# ---------------------------------------------------------------------------------------------------------
# The server
# ---------------------------------------------------------------------------------------------------------


@contextmanager
def fresh_server(folder: Path) -> Iterator[str]:
    """A Prefect server with an empty database and one work pool, stopped at the end."""
    folder.mkdir()
    state = LocalState(folder)
    api_url = f"http://127.0.0.1:{free_port()}/api"
    process = state.start_server(api_url)
    try:
        while not is_healthy(api_url):
            time.sleep(0.2)
        template = anyio.run(get_default_base_job_template_for_infrastructure_type, "process")
        pool = {"name": POOL, "type": "process", "base_job_template": template}
        httpx.post(f"{api_url}/work_pools/", json=pool).raise_for_status()
        yield api_url
    finally:
        state.stop(process)


def is_healthy(api_url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{api_url}/health").is_success
    return False


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def clear(api_url: str) -> None:
    """Delete all flows, with their deployments."""
    with httpx.Client(base_url=api_url, timeout=120) as client:
        while rows := client.post("/deployments/filter", json={"limit": 50}).json():
            ids = {"deployments": {"id": {"any_": [row["id"] for row in rows]}}}
            send(client, "POST", "/deployments/bulk_delete", ids)
        while rows := client.post("/flows/filter", json={}).json():
            for row in rows:
                send(client, "DELETE", f"/flows/{row['id']}")


def send(client: httpx.Client, method: str, path: str, body: Any = None) -> Any:
    """One request, as often as the server's database is locked."""
    while (answer := client.request(method, path, json=body)).status_code == 503:
        time.sleep(0.1)
    return answer.raise_for_status().json() if answer.content else None


# ---------------------------------------------------------------------------------------------------------
# A proxy that notes every request
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """One request, below /api."""

    method: str
    path: str
    body: Any

    @property
    def writes(self) -> bool:
        """Whether it changes anything; Prefect reads lists by POST."""
        return self.method != "GET" and self.path.rpartition("/")[2] not in ("filter", "count", "paginate")

    @property
    def creates(self) -> bool:
        return self.method == "POST" and self.path in ("/flows/", "/deployments/")


@dataclass
class Recorded:
    """A proxy's address, and what came through it."""

    api_url: str = ""
    requests: list[Request] = field(default_factory=list)

    @property
    def writes(self) -> list[Request]:
        return [request for request in self.requests if request.writes]


@contextmanager
def recorder(api_url: str) -> Iterator[Recorded]:
    """A proxy to a server, for the time of the block."""
    recorded = Recorded()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = urlsplit(self.path).path.removeprefix("/api")
            recorded.requests.append(Request(self.command, path, json.loads(body) if body else None))
            status, headers, answer = forwarded(api_url, self.command, self.path, dict(self.headers), body)
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any  # noqa: N815 - the library's names

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        recorded.api_url = f"http://127.0.0.1:{server.server_port}/api"
        yield recorded
        server.shutdown()


def forwarded(
    api_url: str, method: str, path: str, headers: Mapping[str, str], body: bytes
) -> tuple[int, dict[str, str], bytes]:
    """Pass one request on: status, headers and body of the answer."""
    connection = http.client.HTTPConnection(urlsplit(api_url).netloc, timeout=120)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        hop = ("content-length", "transfer-encoding", "connection")
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in hop}
        return answer.status, kept, answer.read()
    finally:
        connection.close()


# ---------------------------------------------------------------------------------------------------------
# The bare loop
# ---------------------------------------------------------------------------------------------------------


def post_one_by_one(posts: Sequence[tuple[str, Any]], api_url: str) -> None:
    """Create flows and deployments from recorded bodies, each flow before its deployment."""
    flows = {body["name"]: body for path, body in posts if path == "/flows/"}  # what was sent again counts once
    deployments = {body["flow_id"]: body for path, body in posts if path == "/deployments/"}
    if len(flows) != len(deployments):
        raise SystemExit(f"{len(flows)} flows for {len(deployments)} deployments: each should have one")
    with httpx.Client(base_url=api_url, timeout=120) as client:
        for flow, deployment in zip(flows.values(), deployments.values(), strict=True):  # the old ids are gone
            id_ = send(client, "POST", "/flows/", flow)["id"]
            send(client, "POST", "/deployments/", {**deployment, "flow_id": id_})


if __name__ == "__main__":
    post_one_by_one(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), sys.argv[2])

"""A whole system: a clone of this repository, brought up by the README's command, on ports and folders of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

REPOSITORY = Path(__file__).parents[2]
LONG_SECONDS = 900  # far more than it takes: a slow machine is no failure
WAIT_SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document on standard output: the whole of it."""
        return json.loads(self.out)

    @property
    def text(self) -> str:
        return self.out + self.err


@dataclass(frozen=True, kw_only=True)
class System:
    """A clone, and the Prefect server that it uses."""

    root: Path
    api_url: str
    environment: dict[str, str]

    def run(self, *arguments: str, at: str | None = None) -> Answer:
        """Run `python -m orchestrator` in the clone, with its own .venv; `at`: another server, or "" for none."""
        python = self.root / ".venv" / "bin" / "python"
        url = self.api_url if at is None else at
        on = ["--api-url", url] if url and arguments[0] not in ("discover", "validate", "down") else []
        return execute([str(python), "-m", "orchestrator", *arguments, *on], self.root, self.environment)

    def make(self, *arguments: str) -> Answer:
        """Run `make -C` from somewhere else."""
        command = ["make", "-C", str(self.root), f"API_URL={self.api_url}", *arguments]
        return execute(command, self.root.parent, self.environment)

    def post(self, path: str, **body: Any) -> Any:
        return self.request("POST", path, body)

    def patch(self, path: str, **body: Any) -> Any:
        return self.request("PATCH", path, body)

    def get(self, path: str) -> Any:
        return self.request("GET", path)

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the API. SQLite may be busy with another writer: then the server asks to come again."""
        answer = wait_until(lambda: self._answer(method, path, body))
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def _answer(self, method: str, path: str, body: Any) -> httpx.Response | None:
        answer = httpx.request(method, f"{self.api_url}{path}", json=body, timeout=WAIT_SECONDS, verify=False)
        return None if answer.status_code == 503 else answer

    def deployments(self) -> dict[str, dict[str, Any]]:
        """All deployments of the server by flow/deployment."""
        flows = {flow["id"]: flow["name"] for flow in self.post("/flows/filter")}
        return {f"{flows[row['flow_id']]}/{row['name']}": row for row in self.post("/deployments/filter")}

    def ended_run(self, run_id: str) -> dict[str, Any] | None:
        """A run, once it has ended."""
        run = self.get(f"/flow_runs/{run_id}")
        return run if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

    def stamps(self) -> dict[str, str]:
        """When each deployment was last written."""
        return {path: row["updated"] for path, row in self.deployments().items()}

    @contextmanager
    def edited(self, path: str, old: str, new: str) -> Iterator[None]:
        """Replace a text in a file of the clone for a while; an empty `old` appends, or writes a new file."""
        file = self.root / path
        before = file.read_text() if file.exists() else None
        assert before is None or old in before
        file.write_text(before.replace(old, new, 1) if before is not None and old else (before or "") + new)
        try:
            yield
        finally:
            file.unlink() if before is None else file.write_text(before)


def execute(command: list[str], folder: Path, environment: dict[str, str]) -> Answer:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LONG_SECONDS, check=False
    )
    return Answer(code=done.returncode, out=done.stdout, err=done.stderr)


def wait_until(condition: Callable[[], Any]) -> Any:
    """What the condition gives, once it gives something; fails where it never does."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (found := condition()) is None:
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
    return found


def clone(target: Path) -> Path:
    """What a clone would hold: the files that git tracks, or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, target / name)
    return target


def install(root: Path) -> None:
    """What `make install` leaves, with the packages of this test run: the run itself has begun with a real one."""
    subprocess.run([sys._base_executable, "-m", "venv", "--without-pip", str(root / ".venv")], check=True)
    packages = sysconfig.get_path("purelib")
    inside = root / ".venv" / Path(packages).relative_to(sys.prefix)
    (inside / "shared.pth").write_text(f"{root}\n{packages}\n")
    (root / ".venv" / ".installed").touch()


def clean_environment(home: Path) -> dict[str, str]:
    """A person's shell without any Prefect settings; only pip's download cache is shared with the real home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PYTEST_", "MAKE"))}
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "MFLAGS", "ARGS", "ENVIRONMENT", "API_URL"):
        kept.pop(name, None)
    cache = os.environ.get("PIP_CACHE_DIR") or str(Path.home() / ".cache" / "pip")
    return {**kept, "HOME": str(home), "PIP_CACHE_DIR": cache, "PYTHON": sys._base_executable}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="package")
def first_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, Answer]]:
    """`make bootstrap` in a clone where nothing was started yet, from another folder, with an empty home; `down` at the
    end."""
    folder = tmp_path_factory.mktemp("person")
    home, root = folder / "home", folder / "project"
    home.mkdir()
    root.mkdir()
    system = System(
        root=clone(root), api_url=f"http://127.0.0.1:{free_port()}/api", environment=clean_environment(home)
    )
    install(system.root)
    try:
        yield system, system.make("bootstrap")
    finally:
        system.make("down")


@pytest.fixture(scope="package")
def system(first_bootstrap: tuple[System, Answer]) -> System:
    """The system that the first bootstrap brought up."""
    made, answer = first_bootstrap
    assert answer.code == 0, answer.text
    return made

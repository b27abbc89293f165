"""A repository whose flows run from images: written for one test, deployed to the test server by our own commands.

Its images are of a few bytes, made from `scratch`: what a build takes is of no interest where nothing is executed.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copytree
from typing import Any

import httpx
import pytest
import yaml
from prefect.events.worker import EventsWorker

from orchestrator.cli import run_command
from tests.unit.builders import write_files

from .api import Api, unique
from .engine import EngineEnvironment, OwnImages

POOL = "shop-containers"
PYTHON_POOL = "shop-processes"
FLOW = """
    from prefect import flow


    @flow(name="shop-{name}")
    def {name}() -> None:
        '''Does its work.'''
"""
VARIABLES = {
    "image": {"type": "string"},
    "env": {"type": "object", "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
    "image_pull_policy": {"type": "string"},
}
TEMPLATE = {
    "job_configuration": {name: f"{{{{ {name} }}}}" for name in VARIABLES},
    "variables": {"type": "object", "properties": VARIABLES},
}


@dataclass(frozen=True)
class Said:
    """What a command has said."""

    code: int
    out: str
    error: str

    @property
    def document(self) -> Any:
        """The one document on standard output."""
        return json.loads(self.out)

    @property
    def all(self) -> str:
        return self.out + self.error

    @property
    def images(self) -> dict[str, dict[str, Any]]:
        """The images of a document, by the last part of their names without the project."""
        return {image["name"].rpartition("-")[2]: image for image in self.document["images"]}

    @property
    def actions(self) -> dict[str, str]:
        return {name: image["action"] for name, image in self.images.items()}

    @property
    def became(self) -> dict[str, str]:
        return {name: image["status"] for name, image in self.images.items()}

    def reason(self, flow: str) -> str:
        """Why an apply left the deployment of a flow out."""
        (result,) = [each for each in self.document["results"] if each["deployment"].startswith(f"shop-{flow}/")]
        assert result["status"] in ("skipped", "failed"), result
        return str(result["error"])


@dataclass
class Shop:
    """The repository, its environment, and where its images go."""

    root: Path
    api: Api
    own: OwnImages
    capsys: pytest.CaptureFixture[str]
    registry: str = ""  # host:port; empty: its images stay in the engine
    environment: str = field(default_factory=lambda: unique("dev"))

    @property
    def project(self) -> str:
        return self.own.mark

    # ----- what it consists of ---------------------------------------------------------------------------

    def write(self, files: Mapping[str, str]) -> None:
        write_files(self.root, files)

    def add(self, name: str, *lines: str, base: str = "scratch") -> None:
        """A flow with a Dockerfile of its own, which copies `data/<name>` and runs some lines."""
        copied = f"COPY flows/{name}.py data/{name} /srv/flows/"
        self.write(
            {
                f"flows/{name}.py": FLOW.format(name=name),
                f"flows/{name}.Dockerfile": self.own.dockerfile(copied, *lines, base=base),
                f"data/{name}": "1\n",
            }
        )

    def change(self, name: str, text: str = "2\n") -> None:
        """Change what the image of a flow is built from."""
        (self.root / "data" / name).write_text(text)

    def declare(self, name: str, *, pool: str = POOL, **fields: Any) -> None:
        """A deployment in a prefect.yaml beside those that are there, named after the environment."""
        file = self.root / "prefect.yaml"
        there = yaml.safe_load(file.read_text())["deployments"] if file.exists() else []
        entry = {"name": self.environment, "entrypoint": f"flows/{name}.py:{name}", "work_pool": {"name": pool}}
        self.write({"prefect.yaml": yaml.safe_dump({"deployments": [*there, {**entry, **fields}]}, sort_keys=False)})

    def declare_plain(self) -> None:
        """A flow `plain` that needs no image."""
        self.api.ensure_pool(PYTHON_POOL)
        self.write({"flows/plain.py": FLOW.format(name="plain")})
        self.declare("plain", pool=PYTHON_POOL)

    def configure(self, environment: str = "", **changes: Any) -> None:
        """The environment's file, with what differs from a plain one."""
        plain = {
            "prefect_api_url": self.api.url,
            "work_pools": {"docker": {"name": POOL, "type": "docker"}},
            "templates": {"docker": {"name": "{environment.name}"}},
            **({"docker_registry": self.prefix} if self.registry else {}),
        }
        file = f"environments/{environment or self.environment}.yaml"
        self.write({file: yaml.safe_dump({**plain, **changes})})

    @property
    def prefix(self) -> str:
        """What the names of images start with on the registry."""
        return f"{self.registry}/orchestrator"

    def repository(self, name: str) -> str:
        """The name of the image of a flow."""
        image = f"{self.project}-flows-{name}"
        return f"{self.prefix}/{image}" if self.registry else image

    def commit(self, remote: str = "") -> str:
        """Commit everything to git, in a repository that comes from somewhere or from nowhere."""
        self.git("init", "--quiet")
        if remote:
            self.git("remote", "add", "origin", remote)
        self.git("add", "--all")
        self.git("-c", "user.name=Me", "-c", "user.email=me@example.com", "commit", "--quiet", "-m", "More")
        return self.git("rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        found = subprocess.run(["git", *arguments], cwd=self.root, check=True, capture_output=True, text=True)
        return found.stdout.strip()

    # ----- what is done with it --------------------------------------------------------------------------

    def run(self, *arguments: str, environment: str = "") -> Said:
        """Run a command about the environment, in this process."""
        return self.run_plainly(*arguments, "--env", environment or self.environment)

    def run_plainly(self, *arguments: str) -> Said:
        """Run a command that is about all environments."""
        self.capsys.readouterr()
        code = run_command([*arguments, "--root", str(self.root)])
        return Said(code, *self.capsys.readouterr())

    def json(self, *arguments: str, environment: str = "") -> Said:
        return self.run(*arguments, "--output", "json", environment=environment)

    def plan(self, *arguments: str, environment: str = "") -> Said:
        return self.json("plan", *arguments, environment=environment)

    def apply(self, *arguments: str, environment: str = "") -> Said:
        return self.json("apply", "--yes", *arguments, environment=environment)

    def applied(self, *arguments: str, environment: str = "") -> Said:
        """Apply, which has to go well."""
        said = self.apply(*arguments, environment=environment)
        assert said.code == 0, said.all
        return said

    # ----- what became of it -----------------------------------------------------------------------------

    def deployment(self, name: str, environment: str = "") -> dict[str, Any]:
        return self.api.deployment(f"shop-{name}/{environment or self.environment}")

    def pinned(self, name: str, environment: str = "") -> str:
        """The image that runs of a flow start from."""
        return str(self.deployment(name, environment)["job_variables"]["image"])

    def deployed(self) -> set[str]:
        """The flows that are deployed, without `shop-`."""
        tag = f"orchestrator:{self.project}:{self.environment}"
        rows = self.api.post("/deployments/filter", deployments={"tags": {"all_": [tag]}})
        return {row["entrypoint"].rpartition(":")[2] for row in rows}

    def digest(self, name: str, tag: str) -> str | None:
        """By which digest the registry has an image; None where it has none."""
        return registry_digest(self.repository(name), tag)

    def in_engine(self, name: str, tag: str) -> dict[str, Any] | None:
        """What the engine says of an image."""
        return inspected(self.own, f"{self.repository(name)}:{tag}")


def inspected(own: OwnImages, reference: str) -> dict[str, Any] | None:
    found = [image for image in own.client.api.images() if reference in (image["RepoTags"] or ())]
    return own.client.api.inspect_image(found[0]["Id"]) if found else None


def registry_digest(repository: str, tag: str) -> str | None:
    """The Docker-Content-Digest of a registry without TLS."""
    host, _, path = repository.partition("/")
    accepted = "application/vnd.docker.distribution.manifest.v2+json"
    answer = httpx.head(f"http://{host}/v2/{path}/manifests/{tag}", headers={"Accept": accepted}, timeout=30)
    assert answer.status_code in (200, 404), answer.status_code
    return answer.headers["Docker-Content-Digest"] if answer.is_success else None


async def image_runs(shop: Shop, run_id: str, count: int) -> dict[str, dict[str, Any]]:
    """The task runs of images, by what their names end in. They come to the server some time after they have ended."""
    async with asyncio.timeout(60):
        while True:
            found = shop.api.post("/task_runs/filter", flow_runs={"id": {"any_": [run_id]}})
            runs = [run for run in found if "-flows-" in run["name"] and run["state_type"] in ("COMPLETED", "FAILED")]
            if len(runs) == count:
                return {run["name"].rpartition("-")[2].partition(":")[0]: run for run in runs}
            await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
def events_sent() -> Iterator[None]:
    """Prefect sends what its tasks tell in the background; once the server is gone, it would try for a minute."""
    yield
    EventsWorker.drain_all(timeout=30)


@pytest.fixture(scope="session")
def known_schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forms of parameters: those of the same flows are worked out once."""
    return tmp_path_factory.mktemp("known-schemas")


@pytest.fixture
def local_shop(
    api: Api,
    engine_environment: EngineEnvironment,
    own_images: OwnImages,
    tmp_path: Path,
    known_schemas: Path,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Shop]:
    """A shop with one flow, `etl`, and no registry."""
    api.ensure_pool(POOL, "docker", TEMPLATE)
    shop = Shop(tmp_path / "shop", api, own_images, capsys)
    shop.write({"pyproject.toml": f'[tool.orchestrator]\nproject = "{shop.project}"\n'})
    shop.configure()
    shop.add("etl")
    cache = shop.root / ".orchestrator" / "cache"
    copytree(known_schemas, cache)
    yield shop
    for file in cache.glob("schemas.json"):
        (known_schemas / file.name).write_bytes(file.read_bytes())


@pytest.fixture
def shop(local_shop: Shop, registry: str) -> Shop:
    """A shop with one flow, `etl`, whose images go to the registry."""
    local_shop.registry = registry
    local_shop.configure()
    return local_shop

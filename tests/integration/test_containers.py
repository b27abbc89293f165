"""Flows in containers: built, pushed, deployed by digest, and run to Completed by a docker worker.

One repository with this project's own flows, in the shape in which they are shipped, and one flow with a Dockerfile of
its own and a dependency that nothing else has. The base images are stand-ins without a network, so what is to be
installed lies beside them as wheels.
"""

from __future__ import annotations

import json
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from io import BytesIO
from pathlib import Path
from shutil import copytree
from subprocess import run
from typing import Any

import pytest
import yaml

from flows import warehouse
from tests.unit.builders import write_files

from .api import Api, unique
from .conftest import ROOT, PrefectServer, prefect_process
from .engine import TEST_LABEL, EngineEnvironment, OwnImages, build_context

pytestmark = pytest.mark.docker

TABLE = 7
PREFECT_IMAGE = "prefecthq/prefect:3-python3.11"
CONTAINER_FLOW = """
    import os

    import shopkit
    from prefect import flow


    @flow
    def priced(amount: int = 2) -> str:
        return f"{shopkit.price(amount)} {os.environ['STAGE']}"
"""
ITS_DOCKERFILE = f"""
    FROM {PREFECT_IMAGE}
    LABEL {TEST_LABEL}=@mark@
    WORKDIR /srv/shop
    COPY wheels /wheels
    RUN pip install --no-index --find-links /wheels shopkit
    COPY flows/priced flows/priced
"""


@dataclass(frozen=True)
class Shop:
    """The repository, and what of it was deployed."""

    root: Path
    api: Api
    pool: str
    applied: dict[str, Any]
    environment: dict[str, str]

    def orchestrator(self, *arguments: str) -> dict[str, Any]:
        return orchestrator(self.root, self.environment, *arguments)


@pytest.fixture(scope="module")
def shop(
    prefect_server: PrefectServer,
    engine_environment: EngineEnvironment,
    registry: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Shop]:
    """The repository applied, and a worker that starts its containers."""
    root, pool = tmp_path_factory.mktemp("shop"), unique("containers")
    images = OwnImages(engine_environment.client)
    base = base_image(images, tmp_path_factory.mktemp("wheels"))
    write_repository(root, prefect_server.api_url, pool, images.repository(registry), base, images.mark)
    environment = {**prefect_server.environment, **engine_environment.variables}
    worker = ["worker", "start", "--pool", pool, "--type", "docker"]
    log = tmp_path_factory.mktemp("worker") / "worker.log"  # in the repository it would be part of the image
    api = Api(prefect_server.api_url)
    try:
        applied = orchestrator(root, environment, "apply", "--yes")
        quick = {**environment, "PREFECT_WORKER_QUERY_SECONDS": "1"}
        with prefect_process(worker, quick, log, ready=lambda: is_online(api, pool)):
            yield Shop(root, api, pool, applied, environment)
    finally:
        mine = {"label": f"{TEST_LABEL}={images.mark}"}
        for container in engine_environment.client.containers.list(all=True, filters=mine):
            container.remove(force=True)
        images.remove()


def is_online(api: Api, pool: str) -> bool:
    rows = api.post(f"/work_pools/{pool}/workers/filter")
    return any(row["status"] == "ONLINE" for row in rows)


def orchestrator(root: Path, environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    """Call a command in a process of its own, and read what it says."""
    command = [sys.executable, "-m", "orchestrator", *arguments, "--root", str(root), "--output", "json"]
    done = run(command, env={**environment, "PYTHONPATH": str(ROOT)}, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def write_repository(root: Path, api_url: str, pool: str, registry: str, base: str, mark: str) -> None:
    for name in ("flows", "orchestrator", "docker"):
        copytree(ROOT / name, root / name)
    for name in (".dockerignore", "pyproject.toml", "README.md"):
        (root / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    (root / "wheels").mkdir()
    (root / "wheels" / "shopkit-1.0-py3-none-any.whl").write_bytes(
        pure_wheel("shopkit", "def price(n): return n * 2\n")
    )
    limits = {"memory": "700Mi", "cpu": "1"}
    environment = {
        "prefect_api_url": api_url,
        "work_pools": {"docker": {"name": pool, "type": "docker"}},
        "docker_registry": registry,
        "image_pull_policy": "IfNotPresent",
        "resource_limits": limits,
        "images": {"builds": {"docker/flow.Dockerfile": {"arguments": {"BASE": base}}}},
        "select": [f"process-table-etl/{mark}", f"priced/{mark}"],
    }
    labels = {TEST_LABEL: mark}
    table = {"job_variables": {"volumes": ["./data:/opt/flows/data"], "labels": labels}, "name": pool}
    priced = {"job_variables": {"env": {"STAGE": "test"}, "labels": labels}, "name": pool}
    declared = [
        {"name": mark, "entrypoint": "flows/process_table_etl.py:process_table_etl", "work_pool": table},
        {"name": mark, "entrypoint": "flows/priced/flow.py:priced", "work_pool": priced},
    ]
    files = {
        "flows/priced/__init__.py": "",
        "flows/priced/flow.py": CONTAINER_FLOW,
        "flows/priced/Dockerfile": ITS_DOCKERFILE.replace("@mark@", mark),
        "prefect.yaml": yaml.safe_dump({"deployments": declared}),
        "environments/development.yaml": yaml.safe_dump(environment),
    }
    write_files(root, files)
    fill_source(root / "data")


def fill_source(folder: Path) -> None:
    folder.mkdir()
    with warehouse.connect(warehouse.make_url(f"sqlite:///{folder / 'source.db'}")) as engine:
        warehouse.fill_source(engine)
    with warehouse.connect(warehouse.make_url(f"sqlite:///{folder / 'target.db'}")) as engine:
        warehouse.prepare_target(engine)


def base_image(images: OwnImages, folder: Path) -> str:
    """Prefect's image with what this project needs beyond Prefect lying ready: it has no network to fetch it from."""
    wheel = folder / wheel_name(distribution("psutil"))
    wheel.write_bytes(wheel_of(distribution("psutil")))
    dockerfile = images.dockerfile(f"COPY {wheel.name} /opt/wheelhouse/", base=PREFECT_IMAGE)
    context = with_file(build_context(dockerfile), wheel)
    tag = f"{images.repository()}-base:1"
    images.client.images.build(fileobj=context, custom_context=True, tag=tag, rm=True)
    return tag


def with_file(context: BytesIO, file: Path) -> BytesIO:
    """A build context with one more file."""
    with tarfile.open(fileobj=context, mode="a") as tar:
        tar.add(file, arcname=file.name)
    context.seek(0)
    return context


def wheel_name(found: Distribution) -> str:
    """https://packaging.python.org/en/latest/specifications/binary-distribution-format/"""
    tags = [
        line.partition(": ")[2] for line in (found.read_text("WHEEL") or "").splitlines() if line.startswith("Tag: ")
    ]
    return f"{found.metadata['Name']}-{found.version}-{tags[0]}.whl"


def wheel_of(found: Distribution) -> bytes:
    """An installed distribution, packed again as the wheel that it was."""
    output = BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        for file in found.files or ():
            if not str(file).startswith("..") and "__pycache__" not in str(file):
                archive.write(Path(str(file.locate())), str(file))
    return output.getvalue()


def pure_wheel(name: str, code: str) -> bytes:
    """A wheel of one module."""
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    output = BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)
    return output.getvalue()


def pinned(shop: Shop, deployment: str) -> str:
    image: str = shop.api.deployment(deployment)["job_variables"]["image"]
    return image


def name_of(shop: Shop, flow: str) -> str:
    (deployment,) = [
        item["deployment"] for item in shop.applied["results"] if item["deployment"].startswith(f"{flow}/")
    ]
    found: str = deployment
    return found


def test_both_images_are_built_pushed_and_deployed_by_digest(shop: Shop) -> None:
    digests = {image["digest"] for image in shop.applied["images"]}
    assert [image["status"] for image in shop.applied["images"]] == ["pushed", "pushed"]
    assert all(digest.startswith("sha256:") for digest in digests)
    images = [pinned(shop, name_of(shop, flow)) for flow in ("process-table-etl", "priced")]
    assert {image.partition("@")[2] for image in images} == digests


def test_one_table_of_the_etl_is_loaded_in_a_container(shop: Shop, engine_environment: EngineEnvironment) -> None:
    deployment = name_of(shop, "process-table-etl")
    found = shop.orchestrator("run", deployment, "--parameter", f"table={TABLE}")
    assert found["state_type"] == "COMPLETED"
    with warehouse.connect(warehouse.make_url(f"sqlite:///{shop.root / 'data' / 'target.db'}")) as engine:
        assert [load.table_number for load in warehouse.check_target(engine)] == [TABLE]
    container = the_container_of(engine_environment, found["id"])
    assert container.attrs["Config"]["Image"] == pinned(shop, deployment)
    assert container.attrs["HostConfig"]["Memory"] == 700 * 1024 * 1024
    assert container.attrs["HostConfig"]["NanoCpus"] == 1_000_000_000


def test_a_flow_with_a_dockerfile_and_a_dependency_of_its_own(shop: Shop) -> None:
    found = shop.orchestrator("run", name_of(shop, "priced"))
    assert found["state_type"] == "COMPLETED"


def test_nothing_is_left_to_do(shop: Shop) -> None:
    plan = shop.orchestrator("plan")
    assert {change["action"] for change in plan["changes"]} == {"unchanged"}
    assert [image["action"] for image in plan["images"]] == ["reuse", "reuse"]


def the_container_of(engine_environment: EngineEnvironment, run_id: str) -> Any:
    filters = {"label": f"io.prefect.flow-run-id={run_id}"}
    (container,) = engine_environment.client.containers.list(all=True, filters=filters)
    return container

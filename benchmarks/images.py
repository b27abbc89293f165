"""Twenty images with nothing changed: what a plan takes to know that, against `docker build` of the same twenty.

Each flow has a folder and a Dockerfile of its own in a repository of 2,000 other files, which all images share as
their context. The engine is the one that DOCKER_HOST names, the registry ENGINE_REGISTRY (127.0.0.1:5051). The peer has
a warm layer cache, and sends the context as `docker build` does. The two sides take turns.

`python -m benchmarks.images decide ROOT REGISTRY` prints the seconds of the decision alone, without imports.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio

from benchmarks.measuring import Command, Figure
from orchestrator import pipeline
from orchestrator.images.decisions import decide
from orchestrator.images.doors import open_image_doors
from orchestrator.images.making import make_images
from orchestrator.step_outputs import needs

IMAGES = 20
OTHER_FILES = 2000
ROUNDS = 3
BASE = "python:3.11-slim"
AT_MOST_SECONDS = 0.1  # for one image
FLOW = "from prefect import flow\n\n@flow\ndef load_{number}(day: str = 'today') -> None: ...\n"
DOCKERFILE = f"FROM {BASE}\nWORKDIR /srv\nCOPY shared shared\nCOPY flows/load_{{number}} flows/load_{{number}}\n"
ENVIRONMENT = """
docker_registry: {registry}/orchestrator-bench
work_pools:
  docker: {{name: bench, type: docker}}
templates:
  docker: {{}}
images:
  parallel: 2
"""


def benchmark(folder: Path) -> Iterator[Figure]:
    """The figures; none where there is no engine."""
    if not shutil.which("docker") or subprocess.run(["docker", "version"], capture_output=True).returncode:
        sys.stderr.write("images: no Docker engine answers, nothing is measured\n")
        return
    registry = os.environ.get("ENGINE_REGISTRY", "127.0.0.1:5051")
    root = write_repository(folder, registry)
    anyio.run(_make_all, root)
    decided, built, one_changed = [], [], []
    ours = Command(line=[sys.executable, "-m", "benchmarks.images", "decide", str(root)], folder=Path.cwd())
    for _ in range(ROUNDS):
        decided.append(float(json.loads(ours.run()[1])["seconds"]))
        built.append(_docker_builds(root))
    one_changed.append(_rebuilt(root))
    seconds, peer = statistics.median(decided), statistics.median(built)
    yield Figure(name="images: 20 unchanged, decided / docker build, warm cache", ours=seconds, peer=peer, at_most=0.1)
    yield Figure(name="images: the same, for one image", ours=seconds / IMAGES, bound=AT_MOST_SECONDS)
    yield Figure(name="images: rebuilt when one of 20 flows changed", ours=one_changed[0], bound=1, unit="")


def write_repository(folder: Path, registry: str) -> Path:
    """The repository."""
    root = folder / "images"
    texts = {
        "pyproject.toml": '[tool.orchestrator]\nproject = "bench"\n',
        "environments/development.yaml": ENVIRONMENT.format(registry=registry),
        "shared/__init__.py": "",
    }
    for number in range(IMAGES):
        texts[f"flows/load_{number}/flow.py"] = FLOW.format(number=number)
        texts[f"flows/load_{number}/Dockerfile"] = DOCKERFILE.format(number=number)
    for number in range(OTHER_FILES):
        texts[f"{'shared' if number % 10 == 0 else 'docs'}/part_{number}.py"] = f"VALUE = {number}\n" * 50
    for name, text in texts.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return root


async def _decided(root: Path) -> tuple[float, int]:
    """Seconds, and how many of the images are to be built."""
    desired = pipeline.read_repository(root, "development").desired
    specs = needs(desired.deployments)
    assert len(specs) == IMAGES
    began = time.perf_counter()
    async with open_image_doors(specs) as doors:
        images = await decide(root, specs, doors)
    return time.perf_counter() - began, sum(image.action == "build" for image in images)


async def _make_all(root: Path) -> None:
    desired = pipeline.read_repository(root, "development").desired
    specs = needs(desired.deployments)
    async with open_image_doors(specs) as doors:
        images = await decide(root, specs, doors)
    results = await make_images(images, root, desired.image_terms, tell=lambda name, line: None)
    assert all(result.status != "failed" for result in results), results


def _docker_builds(root: Path) -> float:
    """Seconds of `docker build` for each image, one after another."""
    began = time.perf_counter()
    for number in range(IMAGES):
        command = ["docker", "build", "-q", "-f", f"flows/load_{number}/Dockerfile", "-t", f"bench-{number}", "."]
        environment = {**os.environ, "DOCKER_BUILDKIT": os.environ.get("DOCKER_BUILDKIT", "0")}
        subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


def _rebuilt(root: Path) -> int:
    """How many images are to be built after one flow has changed."""
    flow = root / "flows" / "load_7" / "flow.py"
    flow.write_text(flow.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    return anyio.run(_decided, root)[1]


if __name__ == "__main__":
    spent, to_build = anyio.run(_decided, Path(sys.argv[2]))
    assert to_build == 0
    sys.stdout.write(json.dumps({"seconds": spent}))

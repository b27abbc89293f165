"""The real Docker engine and a real registry for tests, and images that are removed again.

Tests that need them carry `pytest.mark.docker`. They are skipped where no engine can be had, and fail instead with
REQUIRE_DOCKER=1, or where an environment variable names an engine or a registry that does not answer.
"""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import docker
import httpx
import pytest
from docker.errors import APIError, DockerException, NotFound

from orchestrator.images.context import read_inputs
from orchestrator.images.engine import Engine, open_engine
from orchestrator.images.sent_context import SentContext
from orchestrator.model import ImageSpec
from tests.unit.builders import write_files

from .api import unique

BASE_IMAGE = "python:3.11-slim"
DEFAULT_DOCKER_HOST = "unix:///var/run/docker.sock"
DEFAULT_REGISTRY = "127.0.0.1:5051"
TEST_LABEL = "io.orchestrator.test"
ENDING_SECONDS = 60  # far more than it takes


@dataclass(frozen=True, kw_only=True)
class EngineEnvironment:
    """An engine that answers and has the base image."""

    docker_host: str
    registry: str  # host:port; the fixture `registry` sees to it that it answers
    client: docker.DockerClient = field(repr=False)

    @property
    def variables(self) -> dict[str, str]:
        """What a process needs to use them."""
        return {"DOCKER_HOST": self.docker_host, "ENGINE_REGISTRY": self.registry}


@pytest.fixture(scope="session")
def engine_environment() -> Iterator[EngineEnvironment]:
    """The engine that DOCKER_HOST names, else this machine's."""
    address = os.environ.get("DOCKER_HOST", DEFAULT_DOCKER_HOST)
    try:
        client = docker.DockerClient.from_env()
        _ensure_base_image(client)
    except DockerException as error:
        none_here(f"no Docker engine with {BASE_IMAGE} at {address}: {error}", named="DOCKER_HOST" in os.environ)
    registry = os.environ.get("ENGINE_REGISTRY", DEFAULT_REGISTRY)
    yield EngineEnvironment(docker_host=address, registry=registry, client=client)
    client.close()


@pytest.fixture(scope="session")
def registry(engine_environment: EngineEnvironment) -> str:
    """host:port of a registry to which the engine pushes without TLS."""
    address = engine_environment.registry
    try:
        httpx.get(f"http://{address}/v2/", timeout=10).raise_for_status()
    except httpx.HTTPError as error:
        none_here(f"no registry at {address}: {error}", named="ENGINE_REGISTRY" in os.environ)
    return address


def none_here(reason: str, *, named: bool) -> None:
    """Skip what cannot be had; fail where it was asked for."""
    if named or os.environ.get("REQUIRE_DOCKER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def _ensure_base_image(client: docker.DockerClient) -> None:
    try:
        client.images.get(BASE_IMAGE)
    except NotFound:
        client.images.pull(BASE_IMAGE)


@dataclass(frozen=True)
class OwnImages:
    """Names and Dockerfiles for the images of one test. What is built from them is removed at its end."""

    client: docker.DockerClient
    mark: str = field(default_factory=lambda: unique("test"))

    def repository(self, registry: str = "") -> str:
        """A name that no other test has, on a registry if one is given."""
        name = f"orchestrator/{self.mark}"
        return f"{registry}/{name}" if registry else name

    def dockerfile(self, *lines: str, base: str = BASE_IMAGE) -> str:
        """The text of a Dockerfile; the first of the given lines is its line 3."""
        return "\n".join((f"FROM {base}", f"LABEL {TEST_LABEL}={self.mark}", *lines, ""))

    def small(self) -> str:
        """The Dockerfile of an image of a few bytes, from `build_context("", copied=…)`: quick to push."""
        return self.dockerfile("COPY copied /copied", base="scratch")

    def remove(self) -> None:
        """Remove all images that carry the mark, those that failed builds have left included. The engine needs some
        time to end the containers of builds that were broken off."""
        deadline = time.monotonic() + ENDING_SECONDS
        while ids := self._ids():
            removed = [_is_removed(self.client, each) for each in ids]
            if not any(removed):
                assert time.monotonic() < deadline, f"these images cannot be removed: {ids}"
                time.sleep(0.1)

    def _ids(self) -> list[str]:
        label = f"{TEST_LABEL}={self.mark}"
        return [image["Id"] for image in self.client.api.images(all=True, filters={"label": label})]


def _is_removed(client: docker.DockerClient, image_id: str) -> bool:
    try:
        client.api.remove_image(image_id, force=True)
    except NotFound:
        return True  # with another one
    except APIError:
        return False  # others are made of it: they come first
    return True


@pytest.fixture
def own_images(engine_environment: EngineEnvironment) -> Iterator[OwnImages]:
    images = OwnImages(engine_environment.client)
    yield images
    images.remove()


@pytest.fixture
async def engine(engine_environment: EngineEnvironment) -> AsyncIterator[Engine]:
    """Our own door to the engine."""
    async with open_engine() as opened:
        yield opened


def build_context(dockerfile: str, **files: str) -> io.BytesIO:
    """A build context with a file `Dockerfile` and others; `__` in a name stands for a dot."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, text in {"Dockerfile": dockerfile, **files}.items():
            entry = tarfile.TarInfo(name.replace("__", "."))
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    stream.seek(0)
    return stream


def sent_context(root: Path, dockerfile: str, **files: str) -> SentContext:
    """The same, as our own door takes it."""
    write_files(root, {"Dockerfile": dockerfile, **files})
    spec = ImageSpec(repository="shop", dockerfile="Dockerfile", takes_whole_context=True)
    return SentContext(root, read_inputs(root, spec))

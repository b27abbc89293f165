"""The door to the Docker engine, at a real engine and a real registry."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tarfile
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from orchestrator.errors import EngineUnavailable, ImageError
from orchestrator.images import builders
from orchestrator.images import engine as images
from orchestrator.images.build_output import BuildLog
from orchestrator.images.builders import BuildRequest, build_tar
from orchestrator.images.engine import Engine, open_engine
from orchestrator.images.engine_connection import connect
from tests.unit.builders import write_files

from .conftest import free_port
from .engine import BASE_IMAGE, TEST_LABEL, EngineEnvironment, OwnImages, sent_context
from .forwarder import Forwarder, forward_port, forward_socket
from .small_servers import ClosedRegistry, served

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("no_hanging")]

SECRET = "c0rrect-horse-battery"
HOURS = 3600.0  # more than a build takes
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Build:
    """Builds a Dockerfile and keeps what it was told."""

    def __init__(self, engine: Engine, own_images: OwnImages, root: Path) -> None:
        self.engine, self.images, self.root = engine, own_images, root
        self.lines: list[str] = []
        self.when_told: Callable[[str], None] = lambda line: None

    async def __call__(self, dockerfile: str, *, tag: str = "1", **options: Any) -> str:
        values = {"timeout_seconds": HOURS, "shown_as": "flows/etl/Dockerfile", **options}
        return await self.engine.build(
            sent_context(self.root, dockerfile, copied="something\n"),
            dockerfile_text=dockerfile,
            tags=[f"{self.images.repository()}:{tag}"],
            tell=self._tell,
            **values,
        )

    async def failing(self, dockerfile: str, **options: Any) -> ImageError:
        with pytest.raises(ImageError) as caught:
            await self(dockerfile, **options)
        return caught.value

    def _tell(self, line: str) -> None:
        self.lines.append(line)
        self.when_told(line)


@pytest.fixture
def build(engine: Engine, own_images: OwnImages, tmp_path: Path) -> Build:
    return Build(engine, own_images, tmp_path / "context")


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Paths of unix sockets must be short."""
    folder = Path(tempfile.mkdtemp(prefix="o-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(params=["classic", "buildkit"])
def either_builder(request: pytest.FixtureRequest) -> str:
    """The test runs with both builders."""
    name: str = request.param
    request.getfixturevalue(name)
    return name


@pytest.fixture
def classic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")


@pytest.fixture
def buildkit(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker client that can build with BuildKit stands first on the path."""
    client = buildkit_client()
    if client is None:
        pytest.skip("no docker client here can build with BuildKit")
    monkeypatch.setenv("PATH", f"{client.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_BUILDKIT", "1")
    return client


def buildkit_client() -> Path | None:
    for folder in dict.fromkeys([*os.environ["PATH"].split(":"), "/usr/bin"]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", folder)
            if found := builders.find_buildkit_client():
                return Path(found.path)
    return None


def processes(name: str) -> list[int]:
    """Processes that sleep for this long, those in containers included."""
    return [process.pid for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == ["sleep", name]]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  nobody tells when somebody else's process ends
        await asyncio.sleep(0.05)


def a_long_time() -> str:
    """Seconds that nobody else sleeps for."""
    return f"{os.getpid()}{threading.get_native_id() % 100}"


class TestLooking:
    async def test_what_is_found(self, build: Build, engine: Engine) -> None:
        name = f"{build.images.repository()}:1"
        image_id = await build(
            build.images.dockerfile("WORKDIR /opt/flows", "ONBUILD RUN true"), labels={"a.label": "its value"}
        )

        found = await engine.find(name)
        assert found is not None
        assert (found.id, found.tags, found.digests) == (image_id, (name,), ())
        assert found.labels["a.label"] == "its value"
        assert found.on_build == ("RUN true",)
        assert found.platform == engine.facts.platform
        assert found.size > 0 and found.created.startswith("20")
        assert await engine.find(image_id) == found

    async def test_what_is_not_there(self, engine: Engine, own_images: OwnImages) -> None:
        assert await engine.find(f"{own_images.repository()}:1") is None
        assert await engine.find(f"{own_images.repository()}@sha256:{'0' * 64}") is None

    async def test_what_is_no_name(self, engine: Engine) -> None:
        with pytest.raises(ImageError, match="invalid reference format") as caught:
            await engine.find("Not A Name")
        assert caught.value.location == "Not A Name"
        assert "http" not in str(caught.value)

    async def test_by_label(self, build: Build, engine: Engine) -> None:
        mark = build.images.mark
        ids = {await build(build.images.dockerfile(f"ENV A={tag}"), tag=tag, labels={mark: tag}) for tag in "12"}

        assert {image.id for image in await engine.labelled(mark)} == ids
        (second,) = await engine.labelled(f"{mark}=2")
        assert second.labels[mark] == "2"
        assert await engine.labelled(f"{mark}=3") == ()


class TestNames:
    async def test_a_further_tag(self, build: Build, engine: Engine) -> None:
        repository = build.images.repository()
        image_id = await build(build.images.dockerfile())
        await engine.tag(image_id, repository, "latest")

        found = await engine.find(f"{repository}:latest")
        assert found is not None and set(found.tags) == {f"{repository}:1", f"{repository}:latest"}

    async def test_only_the_name_that_is_meant_goes(self, build: Build, engine: Engine) -> None:
        repository = build.images.repository()
        image_id = await build(build.images.dockerfile())
        await engine.tag(image_id, repository, "2")

        assert await engine.remove(image_id) is False, "it has two names"
        assert await engine.remove(f"{repository}:2") is True
        assert await engine.find(f"{repository}:1") is not None
        assert await engine.remove(f"{repository}:1") is True
        assert await engine.find(image_id) is None
        assert await engine.find(BASE_IMAGE) is not None
        assert await engine.remove(f"{repository}:1") is False, "it is gone"

    async def test_what_a_container_uses_stays(
        self, build: Build, engine: Engine, engine_environment: EngineEnvironment
    ) -> None:
        name = f"{build.images.repository()}:1"
        await build(build.images.dockerfile())
        container = engine_environment.client.api.create_container(name, "true")
        try:
            assert await engine.remove(name) is False
        finally:
            engine_environment.client.api.remove_container(container["Id"])
        assert await engine.remove(name) is True


class TestBuilding:
    async def test_arguments_target_and_labels(self, either_builder: str, build: Build, engine: Engine) -> None:
        text = build.images.dockerfile(
            "ARG WHO",
            "RUN echo hello $WHO",
            "FROM python:3.11-slim AS middle",
            f"LABEL io.orchestrator.test={build.images.mark}",
            "COPY copied /copied",
            f"RUN cat /copied && echo {build.images.mark}",  # BuildKit's cache knows no labels
            "FROM python:3.11-slim",
            "RUN echo never built",
        )
        image_id = await build(text, arguments={"WHO": "world"}, labels={"a": "b c"}, target="middle")

        found = await engine.find(image_id)
        assert found is not None and found.labels["a"] == "b c"
        assert found.tags == (f"{build.images.repository()}:1",)
        told = "\n".join(build.lines)
        assert "something" in told
        assert "never built" not in told

    async def test_everything_is_what_the_user_sends(self, either_builder: str, build: Build, tmp_path: Path) -> None:
        """Neither a Dockerfile that .dockerignore leaves out nor anything of ours gets into a `COPY . .`."""
        write_files(build.root, {".dockerignore": "Dockerfile\n.dockerignore\n"})
        await build(build.images.dockerfile("COPY . /all/", f"RUN echo there: $(ls -A /all) # {build.images.mark}"))

        (line,) = [line for line in build.lines if "there: " in line and "RUN" not in line]
        assert line.partition("there: ")[2] == "copied"  # the mark: BuildKit does not run again what it has run

    async def test_a_step_that_fails(self, either_builder: str, build: Build) -> None:
        text = build.images.dockerfile(
            "WORKDIR /opt",
            "RUN for i in $(seq 50); do echo line $i; done; \\",
            "  # why",
            r'  part=ear; printf "${part}ly\r\033[31m99%%\033[0m\n"; exit 3',
        )
        error = await build.failing(text)

        assert "RUN for i in $(seq 50)" in error.message and error.message.startswith("Step ")
        assert error.message.endswith("it ended with exit code 3.")
        assert error.location == "flows/etl/Dockerfile:4"
        assert len(error.output) == 30
        assert any(line.endswith("99%") for line in error.output)
        assert not any("\x1b" in line or "early" in line for line in error.output)
        assert await build.engine.find(f"{build.images.repository()}:1") is None

    @pytest.mark.parametrize(
        ("line", "remedy"),
        [
            ("COPY nothing /there", ".dockerignore"),
            ("RUN dd if=/dev/zero of=/dev/full", "docker system df"),
            ("RUN exit 137", "memory"),
            ("FROM 127.0.0.1:1/nobody:1", "does not reach the registry"),
        ],
    )
    async def test_what_to_do_about_it(self, either_builder: str, build: Build, line: str, remedy: str) -> None:
        error = await build.failing(build.images.dockerfile(line))
        assert remedy in error.remedy
        assert error.location == "flows/etl/Dockerfile:3"

    async def test_a_base_image_that_is_not_there(self, either_builder: str, build: Build, registry: str) -> None:
        error = await build.failing(build.images.dockerfile(base=f"{registry}/{build.images.mark}:1"))
        assert "name and the tag of the base image" in error.remedy
        assert error.location == "flows/etl/Dockerfile:1"

    async def test_what_is_no_dockerfile(self, either_builder: str, build: Build) -> None:
        error = await build.failing(build.images.dockerfile("NONSENSE really"))
        assert "unknown instruction" in error.message
        assert error.location == "flows/etl/Dockerfile:3"
        assert "http" not in str(error)

    async def test_another_platform_than_that_of_the_base_image(self, classic: None, build: Build) -> None:
        error = await build.failing(build.images.dockerfile("RUN true"), platform="linux/s390x")
        assert "not for linux/s390x" in error.message
        assert await build.engine.find(f"{build.images.repository()}:1") is None

    async def test_this_platform(self, classic: None, build: Build, engine: Engine) -> None:
        system, _, _ = engine.facts.platform.partition("/")
        architecture = {"amd64": "x86_64", "arm64": "aarch64"}[engine.facts.platform.partition("/")[2]]
        assert await build(build.images.dockerfile(), platform=f"{system}/{architecture}")

    async def test_what_only_buildkit_has(self, buildkit: Path, build: Build) -> None:
        await build(build.images.dockerfile("RUN --mount=type=cache,target=/cache touch /cache/kept"))

    async def test_what_only_buildkit_has_without_it(self, classic: None, build: Build) -> None:
        error = await build.failing(build.images.dockerfile("RUN --mount=type=cache,target=/cache true"))
        assert "buildx" in error.remedy

    async def test_the_classic_builder_where_no_client_speaks_buildkit(
        self, monkeypatch: pytest.MonkeyPatch, build: Build, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("DOCKER_BUILDKIT", "1")
        monkeypatch.setenv("PATH", "/nowhere")
        with caplog.at_level(logging.INFO, logger="orchestrator"):
            await build(build.images.dockerfile(), tag="1")
            await build(build.images.dockerfile(), tag="2")

        assert any(line.startswith("Step 1/") for line in build.lines)
        assert [record.message for record in caplog.records if "buildx" in record.message] == [
            "Images are built by the classic builder: BuildKit needs docker with its buildx plugin."
        ]

    async def test_buildx(self, buildkit: Path, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What buildx is told; a client without the plugin carries it out."""
        script = f"""#!/bin/sh
            echo "$BUILDX_NO_DEFAULT_ATTESTATIONS $@" >> {tmp_path}/said
            case "$1 $2" in
                "buildx version") echo v0.12; exit 0 ;;
                "buildx build") shift 5; exec {buildkit} build "$@" ;;
            esac
            exit 1
        """
        fake = tmp_path / "docker"
        fake.write_text(script)
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        image_id = await build(build.images.dockerfile("RUN true"))

        found = await build.engine.find(f"{build.images.repository()}:1")
        assert found is not None and found.id == image_id
        _, said = (tmp_path / "said").read_text().splitlines()
        assert said.startswith("1 buildx build --builder default --load --progress plain")


class TestSecrets:
    async def test_nobody_sees_them(self, either_builder: str, build: Build, caplog: pytest.LogCaptureFixture) -> None:
        text = build.images.dockerfile("ARG TOKEN", "RUN echo the token is $TOKEN; exit 1")
        caplog.set_level(logging.DEBUG)
        error = await build.failing(text, arguments={"TOKEN": SECRET, "OTHER": "seen"}, secrets=[SECRET])

        assert any("the token is ********" in line for line in build.lines), "it was passed on"
        trace = "".join(traceback.format_exception(error))
        for shown in ("\n".join(build.lines), str(error), repr(error), trace, caplog.text, "\n".join(error.output)):
            assert SECRET not in shown

    async def test_not_in_what_the_engine_refuses_either(
        self, classic: None, build: Build, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        error = await build.failing(
            build.images.dockerfile(), arguments={"TOKEN": SECRET}, secrets=[SECRET], target="nonesuch"
        )
        assert "buildargs" not in caplog.text and SECRET not in caplog.text
        assert SECRET not in "".join(traceback.format_exception(error))

    async def test_nobody_sees_them_among_the_processes(self, buildkit: Path, build: Build) -> None:
        seconds, commands = a_long_time(), list[str]()

        def look(line: str) -> None:
            commands.extend(" ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"]))

        build.when_told = look
        text = build.images.dockerfile(
            "ARG TOKEN", f"RUN test -n $TOKEN && echo {seconds} && sleep 2"
        )  # it is seen at work
        await build(text, arguments={"TOKEN": SECRET}, secrets=[SECRET])
        ours = [command for command in commands if f"{build.images.repository()}:1" in command]
        assert ours and not any(SECRET in command for command in ours)


class TestEndingABuild:
    async def test_time_is_up(self, either_builder: str, build: Build) -> None:
        seconds = a_long_time()
        error = await build.failing(build.images.dockerfile(f"RUN sleep {seconds}"), timeout_seconds=5)

        assert "did not end within 5 seconds" in error.message
        assert error.location == f"{build.images.repository()}:1"
        assert "timeout_minutes" in error.remedy
        assert error.output == tuple(build.lines[-30:])
        await until(lambda: not processes(seconds))

    async def test_who_is_cancelled_ends_it(
        self, either_builder: str, build: Build, engine_environment: EngineEnvironment
    ) -> None:
        seconds = a_long_time()
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            task = group.create_task(build(build.images.dockerfile(f"RUN sleep {seconds}")))
            await until(lambda: bool(processes(seconds)))
            task.cancel()
        assert task.cancelled()
        await until(lambda: not processes(seconds))
        filters = {"label": f"{TEST_LABEL}={build.images.mark}"}
        await until(lambda: not engine_environment.client.api.containers(all=True, filters=filters))
        assert await build.engine.find(f"{build.images.repository()}:1") is None

    async def test_before_the_context_is_sent(self, engine_environment: EngineEnvironment) -> None:
        """A context that never ends; it is not read any further once nobody waits."""
        context, connection = _Endless(), connect()
        request = BuildRequest(dockerfile_text="", shown_as="Dockerfile")
        log = BuildLog(lambda line: None)
        building = build_tar(connection, context, "Dockerfile", request, log)  # type: ignore[arg-type]
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            task = group.create_task(building)
            await until(lambda: context.reads > 1)
            task.cancel()
        assert task.cancelled()
        reads = context.reads
        await asyncio.sleep(0.1)
        assert context.reads == reads
        connection.close()

    async def test_the_engine_goes_away(
        self,
        classic: None,
        engine_environment: EngineEnvironment,
        own_images: OwnImages,
        short_folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        there = engine_environment.docker_host.removeprefix("unix://")
        forwarder = Forwarder(lambda: asyncio.open_unix_connection(there), lambda said: b"the end is near" in said)
        async with forward_socket(short_folder / "s", forwarder) as address:
            monkeypatch.setenv("DOCKER_HOST", address)
            async with open_engine() as engine:
                with pytest.raises(EngineUnavailable, match="lost") as caught:
                    await Build(engine, own_images, tmp_path)(
                        own_images.dockerfile("RUN echo the end is near; sleep 300")
                    )
        assert caught.value.location == address
        assert forwarder.hung_up


class _Endless:
    """A file without an end: the header of a member of a terabyte, then nothing but zeros."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self, size: int) -> bytes:
        self.reads += 1
        if self.reads == 1:
            entry = tarfile.TarInfo("huge")
            entry.size = 1 << 40
            return entry.tobuf(tarfile.GNU_FORMAT)
        return b"\0" * min(size, 4096)


class TestRegistry:
    async def test_the_digest_is_the_registrys(
        self, build: Build, engine: Engine, registry: str, own_images: OwnImages
    ) -> None:
        repository = own_images.repository(registry)
        image_id = await build(own_images.small())
        await engine.tag(image_id, repository, "1")
        told = list[str]()
        digest = await engine.push(repository, "1", tell=told.append)

        address = f"http://{registry}/v2/{own_images.repository()}/manifests/1"
        async with httpx.AsyncClient() as client:
            answer = await client.head(address, headers={"Accept": MANIFEST})
        assert answer.headers["Docker-Content-Digest"] == digest
        assert any(digest in line for line in told)
        found = await engine.find(f"{repository}@{digest}")
        assert found is not None and found.digests == (f"{repository}@{digest}",)

    async def test_pull_by_digest_and_by_tag(
        self, build: Build, engine: Engine, registry: str, own_images: OwnImages
    ) -> None:
        repository = own_images.repository(registry)
        image_id = await build(own_images.small())
        await engine.tag(image_id, repository, "1")
        digest = await engine.push(repository, "1", tell=lambda line: None)
        own_images.remove()
        assert await engine.find(image_id) is None

        told = list[str]()
        pulled = await engine.pull(f"{repository}@{digest}", tell=told.append)
        assert (pulled.id, pulled.tags) == (image_id, ())
        assert any("Downloaded newer image" in line for line in told)
        assert (await engine.pull(f"{repository}:1", tell=told.append)).tags == (f"{repository}:1",)

    async def test_nothing_listens(self, build: Build, engine: Engine, own_images: OwnImages) -> None:
        registry = f"127.0.0.1:{free_port()}"
        repository, told = own_images.repository(registry), list[str]()
        await engine.tag(await build(own_images.small()), repository, "1")
        with pytest.raises(ImageError, match="connection refused") as caught:
            await engine.push(repository, "1", tell=told.append)

        assert caught.value.location == f"{repository}:1"
        assert f"Check that {registry} is the registry's address" in caught.value.remedy
        assert not any("another try" in line for line in told)

    @pytest.mark.parametrize("login", [None, {"username": "somebody", "password": SECRET}])
    async def test_it_lets_nobody_in(
        self, build: Build, engine: Engine, own_images: OwnImages, login: dict[str, str] | None
    ) -> None:
        image_id = await build(own_images.small())
        with served(ClosedRegistry) as registry:
            repository, told = own_images.repository(registry), list[str]()
            await engine.tag(image_id, repository, "1")
            with pytest.raises(ImageError) as pushed:
                await engine.push(repository, "1", login=login, tell=told.append)
            with pytest.raises(ImageError) as pulled:
                await engine.pull(f"{repository}:1", login=login, tell=told.append)
        for error in (pushed.value, pulled.value):
            assert f"`docker login {registry}`" in error.remedy and "docker_registry_credentials" in error.remedy
            assert SECRET not in "".join(traceback.format_exception(error))
        assert not any("another try" in line for line in told)

    async def test_what_is_not_there(self, engine: Engine, registry: str, own_images: OwnImages) -> None:
        repository = own_images.repository(registry)
        with pytest.raises(ImageError, match="does not exist locally") as caught:
            await engine.push(repository, "1", tell=lambda line: None)
        assert caught.value.remedy == "Build the image first."
        with pytest.raises(ImageError, match="not found") as caught:
            await engine.pull(f"{repository}@sha256:{'0' * 64}", tell=lambda line: None)
        assert registry in caught.value.remedy

    async def test_a_dropped_connection_is_tried_again(
        self,
        build: Build,
        engine: Engine,
        registry: str,
        own_images: OwnImages,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(images, "RETRY_PAUSES", (0.0, 0.0, 0.0))
        host, _, port = registry.partition(":")
        image_id = await build(own_images.small())
        forwarder = Forwarder(lambda: asyncio.open_connection(host, int(port)))
        forwarder.hangs_up = lambda said: b"PUT " in said and b"/manifests/" in said and forwarder.hung_up < 1
        async with forward_port(forwarder) as address:
            repository, told = own_images.repository(address), list[str]()
            await engine.tag(image_id, repository, "1")
            digest = await engine.push(repository, "1", tell=told.append)
        assert len([line for line in told if "another try" in line]) == forwarder.hung_up == 1
        assert digest.startswith("sha256:")

    async def test_not_for_ever(
        self,
        build: Build,
        engine: Engine,
        registry: str,
        own_images: OwnImages,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(images, "RETRY_PAUSES", (0.0, 0.0, 0.0))
        host, _, port = registry.partition(":")
        image_id = await build(own_images.small())
        forwarder = Forwarder(lambda: asyncio.open_connection(host, int(port)))
        forwarder.hangs_up = lambda said: b"PUT " in said and b"/manifests/" in said
        async with forward_port(forwarder) as address:
            repository = own_images.repository(address)
            await engine.tag(image_id, repository, "1")
            with pytest.raises(ImageError, match="EOF"):
                await engine.push(repository, "1", tell=lambda line: None)
        assert forwarder.hung_up == 4

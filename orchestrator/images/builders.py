"""The two ways to build an image.

    classic     the engine's own builder, through Docker's SDK
    BuildKit    through the docker client in a child process: it needs a session with the client, which the SDK has not

Which of them is taken is what `docker build` would take: BuildKit if the engine names it as its builder or
DOCKER_BUILDKIT says so (https://docs.docker.com/build/buildkit/). The client must be able to: since version 23 it needs
the buildx plugin.
"""

from __future__ import annotations

import codecs
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol

import anyio
import anyio.to_thread
from anyio.abc import Process

from orchestrator.images.build_output import BuildLog
from orchestrator.images.engine_connection import Connection, Event, WorkFailed, chunks, engine_address

HOST_NETWORK = "host"
_ENDING_SECONDS = 1.0  # for the docker client to end by itself, which that of version 20.10 never does
_CLIENT_VERSION = re.compile(r"Docker version (\d+)\.")
_FIRST_WITHOUT_BUILDER = 23  # the client's major version in which BuildKit moved out, into the buildx plugin
_FALSE = frozenset({"0", "f", "false"})  # as Go reads it


class BuildContext(Protocol):
    """What an image is built from, in the form that each builder takes; `sent_context.SentContext` is one."""

    @property
    def dockerfile(self) -> str:
        """The Dockerfile's name in the tar."""

    @property
    def place(self) -> Path | None:
        """The folder for temporary files; None for the system's."""

    def write_tar(self, file: IO[bytes]) -> None:
        """Write it as a tar."""

    def write_folder(self, folder: Path) -> None:
        """Write it as files: `Dockerfile`, and `context` with what `COPY . .` shall see."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildRequest:
    """What to build."""

    dockerfile_text: str
    shown_as: str  # the Dockerfile's path in messages
    tags: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)  # values of arguments that nobody may see
    target: str = ""
    platform: str = ""
    network: str = ""  # of RUN; "" for the builder's default


# ---------------------------------------------------------------------------------------------------------
# Classic
# ---------------------------------------------------------------------------------------------------------


async def build_classic(connection: Connection, context: BuildContext, request: BuildRequest, log: BuildLog) -> str:
    """Build with the engine's own builder. No tags are set.

    Returns:
        The image's id.

    Raises:
        WorkFailed: it failed.
        APIError: the engine refuses to begin.
        EngineUnavailable: the engine does not answer.
        ImageError: the context cannot be written.
    """
    with tempfile.TemporaryFile() as tar:
        await anyio.to_thread.run_sync(context.write_tar, tar)
        tar.seek(0)
        return await build_tar(connection, tar, context.dockerfile, request, log)


async def build_tar(
    connection: Connection, tar: IO[bytes], dockerfile: str, request: BuildRequest, log: BuildLog
) -> str:
    """Build from a tar; `dockerfile` is a name in it. For the rest see `build_classic`."""
    ids: list[str] = []

    def take(event: Event) -> None:
        if "error" in event:
            raise WorkFailed(str(event["error"]))
        if "stream" in event:
            log.take(str(event["stream"]))
        elif "status" in event and not event.get("progressDetail"):  # a base image is pulled
            log.take(f"{event['status']}\n")
        elif image_id := (event.get("aux") or {}).get("ID"):  # of each stage; the last one counts
            ids.append(str(image_id))

    options = _options(dockerfile, request)
    # The SDK sends whatever can be iterated over.
    await connection.follow(lambda client: client.build(fileobj=chunks(tar, client), **options), take)  # type: ignore[arg-type]
    log.end()
    if not ids:
        raise WorkFailed("the engine ended the build without an image")
    return ids[-1]


def _options(dockerfile: str, request: BuildRequest) -> dict[str, Any]:
    return {
        "custom_context": True,
        "dockerfile": dockerfile,
        "rm": True,
        "forcerm": True,
        "pull": False,
        "decode": True,
        "labels": dict(request.labels),
        "buildargs": dict(request.arguments),
        "target": request.target or None,
        "platform": request.platform or None,
        "network_mode": request.network or None,
    }


# ---------------------------------------------------------------------------------------------------------
# BuildKit
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BuildKitClient:
    """A docker client that can build with BuildKit."""

    path: str
    has_buildx: bool


def wants_buildkit(engine_has_it: bool) -> bool:
    """Whether `docker build` would build with BuildKit here."""
    setting = os.environ.get("DOCKER_BUILDKIT", "")
    return setting.lower() not in _FALSE if setting else engine_has_it


def find_buildkit_client() -> BuildKitClient | None:
    """The docker client on the path, if it can build with BuildKit."""
    path = shutil.which("docker")
    if path is None:
        return None
    if _says([path, "buildx", "version"]):
        return BuildKitClient(path, has_buildx=True)
    version = _CLIENT_VERSION.match(_says([path, "--version"]))
    is_old = version is not None and int(version[1]) < _FIRST_WITHOUT_BUILDER
    return BuildKitClient(path, has_buildx=False) if is_old else None


def _says(command: Sequence[str]) -> str:
    """What a command prints; empty where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=_environment())
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


async def build_with_buildkit(
    client: BuildKitClient, context: BuildContext, request: BuildRequest, log: BuildLog
) -> str:
    """Build with BuildKit, and set the tags.

    Returns:
        The image's id.

    Raises:
        WorkFailed: it failed.
        ImageError: the context cannot be written.
    """
    async with _temporary_folder(context.place) as folder:
        await anyio.to_thread.run_sync(context.write_folder, folder)
        id_file = folder / "id"
        files = ["--file", str(folder / "Dockerfile"), "--iidfile", str(id_file)]
        code = await _run([*_command(client, request), *files, str(folder / "context")], _environment(request), log)
        log.end()
        if code != 0:
            raise WorkFailed("" if log.last_lines else f"`docker build` ended with exit code {code}")
        return await anyio.to_thread.run_sync(_text, id_file)


@asynccontextmanager
async def _temporary_folder(place: Path | None) -> AsyncIterator[Path]:
    """A folder that is gone afterwards; what lies in it may be much."""
    folder = Path(await anyio.to_thread.run_sync(partial(tempfile.mkdtemp, prefix="build-", dir=place)))
    try:
        yield folder
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))


def _text(file: Path) -> str:
    return file.read_text(encoding="ascii").strip() if file.exists() else ""


def _command(client: BuildKitClient, request: BuildRequest) -> list[str]:
    # The default builder is the engine itself, whichever builder a person has chosen for their own work.
    start = ["buildx", "build", "--builder", "default", "--load"] if client.has_buildx else ["build"]
    options = [
        ("--progress", "plain"),
        *(("--tag", tag) for tag in request.tags),
        *(("--label", f"{name}={value}") for name, value in request.labels.items()),
        *(
            ("--build-arg", name if _is_secret(name, request) else f"{name}={request.arguments[name]}")
            for name in request.arguments
        ),
        *(
            (f"--{name}", value)
            for name, value in (
                ("target", request.target),
                ("platform", request.platform),
                ("network", request.network),
            )
            if value
        ),
    ]
    return [client.path, *start, *(word for option in options for word in option)]


def _is_secret(name: str, request: BuildRequest) -> bool:
    return request.arguments[name] in request.secrets


def _environment(request: BuildRequest | None = None) -> dict[str, str]:
    """Of the docker client: the engine that we use, and secret arguments; in its command others would see them."""
    kept = {name: value for name, value in os.environ.items() if name not in ("DOCKER_CONTEXT", "BUILDX_BUILDER")}
    secrets = (
        {name: request.arguments[name] for name in request.arguments if _is_secret(name, request)} if request else {}
    )
    return {
        **kept,
        **secrets,
        "DOCKER_HOST": engine_address(),
        "DOCKER_BUILDKIT": "1",
        "DOCKER_CLI_HINTS": "false",
        # Without attestations the digest is that of one image, not of a list of images and statements about them.
        "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
    }


async def _run(command: Sequence[str], environment: Mapping[str, str], log: BuildLog) -> int:
    """Run the docker client; whatever happens, it has ended afterwards.

    Returns:
        Its exit code.
    """
    process = await anyio.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,  # Ctrl-C is for us, and we end it with its plugins
    )
    assert process.stdout is not None
    try:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        async for chunk in process.stdout:
            log.take(decoder.decode(chunk))
        return await process.wait()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)


async def _end(process: Process) -> None:
    """End it and what it started. The engine ends a build whose client is gone."""
    for signal_number, seconds in ((signal.SIGTERM, _ENDING_SECONDS), (signal.SIGKILL, float("inf"))):
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal_number)
            with anyio.move_on_after(seconds):
                await process.wait()
    await process.aclose()

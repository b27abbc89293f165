"""Connections to the Docker engine, through Docker's SDK: short calls, and streams that can be ended.

The SDK blocks, so it works in threads. A build, a push or a pull is one request whose answer goes on for as long as the
work does, and the engine gives the work up when its connection ends: so each has a connection of its own, and who no
longer waits ends that.
"""

from __future__ import annotations

import http.client
import logging
import os
import re
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import IO, Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
import docker
from docker.credentials.errors import StoreError
from docker.errors import APIError, DockerException, InvalidRepository, InvalidVersion, NullResource, TLSParameterError
from docker.utils import kwargs_from_env
from urllib3.exceptions import HTTPError

from orchestrator.errors import EngineUnavailable, ImageError
from orchestrator.masking import masked

Result = TypeVar("Result")
Event = Mapping[str, Any]

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
_SDK_ERRORS = (DockerException, StoreError, OSError, HTTPError)
GRACE_SECONDS = 10.0  # for a thread to notice that nobody waits for it any more
_CHUNK = 1 << 20
_START = "Start Docker, or say in DOCKER_HOST where its engine listens (`docker context inspect` shows it)."
_JOIN = (
    "Let this user use Docker: `sudo usermod -aG docker $USER` and log in again, or run Docker rootless and say in "
    "DOCKER_HOST where it listens."
)
_TLS = "Check DOCKER_TLS_VERIFY, DOCKER_CERT_PATH and the port: by custom 2376 with TLS, 2375 without."


def engine_address() -> str:
    """Where the engine listens; contexts of the docker client are not followed."""
    return os.environ.get("DOCKER_HOST") or DEFAULT_ADDRESS


def _without_build_arguments(record: logging.LogRecord) -> bool:
    """urllib3 logs addresses, and build arguments are part of one."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            each.partition("?")[0] if isinstance(each, str) and "buildargs=" in each else each for each in record.args
        )
    return True


logging.getLogger("urllib3.connectionpool").addFilter(_without_build_arguments)
warnings.filterwarnings("ignore", category=UserWarning, module=r"docker\.credentials")  # its error says the same


class Stopped(Exception):
    """Nobody waits for this answer any more."""


class WorkFailed(Exception):
    """The engine had begun, and has failed; the reason, where it is not among the lines that a build has written."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason)


class _Client(docker.APIClient):
    """The SDK's client, whose latest request can be ended from another thread."""

    def __init__(self, **options: Any) -> None:
        self.latest_answer: Any = None
        self.is_interrupted = False
        super().__init__(**options)

    def send(self, request: Any, **options: Any) -> Any:
        if self.is_interrupted:
            raise Stopped
        self.latest_answer = super().send(request, **options)
        if self.is_interrupted:
            self.latest_answer.close()
            raise Stopped
        return self.latest_answer

    def interrupt(self) -> None:
        """End the latest request, and let no other one begin. A thread that waits for more of its answer wakes up."""
        self.is_interrupted = True
        if self.latest_answer is not None:
            with suppress(ValueError, RuntimeError, OSError):  # it has ended by itself
                self.latest_answer.raw.shutdown()

    def hang_up(self) -> None:
        """Close the connection: what the engine does for it ends."""
        if self.latest_answer is not None:
            self.latest_answer.close()
        self.close()


class Connection:
    """What the engine is asked through; many tasks may use it at a time."""

    def __init__(self, client: _Client) -> None:
        self._client = client

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the latest answer."""
        headers: Mapping[str, str] = self._client.latest_answer.headers
        return headers

    async def call(self, request: Callable[[docker.APIClient], Result]) -> Result:
        """Make a short request.

        Raises:
            EngineUnavailable: the engine does not answer.
            APIError: it refuses.
        """
        try:
            return await anyio.to_thread.run_sync(request, self._client, abandon_on_cancel=True)
        except APIError:
            raise
        except _SDK_ERRORS as error:
            raise our_error(error) from None

    async def follow(
        self, request: Callable[[docker.APIClient], Iterable[Event]], take: Callable[[Event], None]
    ) -> None:
        """Make a request whose answer is a stream of events. Who is cancelled meanwhile ends the engine's work too.

        Args:
            request: makes it, in a thread.
            take: is given each event, in this thread. What it raises ends the request.

        Raises:
            EngineUnavailable: the engine does not answer, or ended the stream before its end.
            APIError: it refuses.
        """
        client = _connected(self._client.api_version)
        begun, ended = threading.Event(), threading.Event()

        def read() -> None:
            begun.set()
            try:
                for event in request(client):
                    anyio.from_thread.run_sync(take, event)
            finally:
                client.hang_up()
                ended.set()

        try:
            # A limiter of its own: builds take long, and other work needs threads too.
            await anyio.to_thread.run_sync(read, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
        except APIError:
            raise
        except _SDK_ERRORS as error:
            raise our_error(error) from None
        finally:
            client.interrupt()
            if begun.is_set() and not ended.is_set():
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(ended.wait, GRACE_SECONDS)

    def close(self) -> None:
        self._client.close()


def connect() -> Connection:
    """Connect to the engine that the environment names: DOCKER_HOST, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH.

    Raises:
        EngineUnavailable: none answers there, or it does not let us in.
    """
    return Connection(_connected(None))


def _connected(version: str | None) -> _Client:
    """A client for this version of the API; None: for the engine's own, which is asked for it."""
    try:
        return _Client(version=version, **kwargs_from_env())
    except (*_SDK_ERRORS, ValueError) as error:
        raise our_error(error) from None


def chunks(file: IO[bytes], client: docker.APIClient) -> Iterator[bytes]:
    """A file bit by bit, until it has been sent or nobody waits any more."""
    while chunk := file.read(_CHUNK):
        if isinstance(client, _Client) and client.is_interrupted:
            raise Stopped
        yield chunk


def explained(error: APIError) -> str:
    """Why the engine refuses, without the address of the request."""
    return str(error.explanation or getattr(error.response, "reason", "") or "it gives no reason").rstrip(".\n")


def refused(error: APIError, *, location: str) -> ImageError:
    """The engine's answer as an error of ours."""
    return ImageError(f"The engine refuses: {explained(error)}.", location=location)


def our_error(error: BaseException) -> ImageError:
    """Why the engine cannot be used, and what to do about it."""
    address = _without_secrets(engine_address())
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, StoreError):
            message = f"Docker's store of credentials gives none: {_first_line(cause)}."
            return ImageError(
                message, location="~/.docker/config.json", remedy="Repair it, or run `docker login` again."
            )
        if isinstance(cause, InvalidRepository | NullResource):
            return ImageError(f"This is no name of an image: {_first_line(cause)}.", remedy="Write REPOSITORY:TAG.")
        if known := _known(cause):
            message, remedy = known
            return EngineUnavailable(message, location=address, remedy=remedy)
    return EngineUnavailable(
        f"The Docker engine cannot be used: {_first_line(causes[0])}.", location=address, remedy=_START
    )


def _known(cause: BaseException) -> tuple[str, str] | None:
    """What has happened, and what to do, for the causes that people meet."""
    match cause:
        case PermissionError():
            return "This user may not use the Docker engine.", _JOIN
        case FileNotFoundError():
            return "No Docker engine: its socket is not there.", _START
        case ConnectionRefusedError():
            return "No Docker engine: nothing listens there.", _START
        case socket.gaierror():
            return "No Docker engine: its host is not known.", _START
        case TLSParameterError() | ssl.SSLError():
            return f"The Docker engine cannot be reached by TLS: {_first_line(cause)}.", _TLS
        case InvalidVersion():
            return f"The Docker engine speaks another version of the API: {_first_line(cause)}.", "Update Docker."
        case TimeoutError():
            return "The Docker engine does not answer.", "See whether it hangs: `docker version` should answer at once."
        case http.client.HTTPException() | ConnectionResetError() | BrokenPipeError():
            return "The connection to the Docker engine was lost.", "See in its log why it ended, and try again."
    return None


def _first_line(error: BaseException) -> str:
    return _without_secrets(str(error).strip().partition("\n")[0].rstrip("."))


def _without_secrets(text: str) -> str:
    """A text without passwords, and without what stands behind the ? of an address: build arguments do."""
    return str(masked("", re.sub(r"\?\S+", "?…", text)))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """From the innermost: the outer ones only wrap it."""
    found: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in found:
        found.append(at)
        at = at.__cause__ or at.__context__
    yield from reversed(found)

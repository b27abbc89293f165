"""The door to the Docker engine: find, build, pull, push, tag and remove images.

Nothing is ever removed or pruned that was not named.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from docker import APIClient
from docker.auth import resolve_repository_name
from docker.errors import APIError, NotFound
from docker.utils import parse_repository_tag

from orchestrator.errors import ImageError
from orchestrator.images.build_output import BuildLog
from orchestrator.images.builders import (
    HOST_NETWORK,
    BuildContext,
    BuildKitClient,
    BuildRequest,
    build_classic,
    build_with_buildkit,
    find_buildkit_client,
    wants_buildkit,
)
from orchestrator.images.engine_connection import Connection, Event, WorkFailed, connect, explained, refused
from orchestrator.images.engine_words import is_transient, transfer_remedy

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Tell = Callable[[str], None]

RETRY_PAUSES = (1.0, 2.0, 4.0)  # seconds before each further try of a push or a pull
_IN_USE = 409
_PAUSE = re.compile(r"Retrying in (\d+) second")
_MERE_PROGRESS = frozenset({"Preparing", "Waiting", "Pulling fs layer", "Verifying Checksum", "Download complete"})
_NO_IMAGE = "<none>"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # other names that Docker takes


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineImage:
    """An image that the engine has."""

    id: str
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()  # repository@sha256:…, of each registry that it was pushed to or pulled from
    labels: Mapping[str, str] = field(default_factory=dict)
    created: str = ""  # ISO 8601
    size: int = 0  # bytes, layers that it shares with others included
    on_build: tuple[str, ...] = ()  # instructions that a build on top of it begins with
    platform: str = ""  # os/architecture


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineFacts:
    """What the engine says of itself."""

    version: str
    platform: str  # os/architecture that it builds for by itself
    has_buildkit: bool  # BuildKit is its builder, as `docker build` would ask


class Engine:
    """An engine that answers; `open_engine` gives it."""

    def __init__(self, connection: Connection, facts: EngineFacts) -> None:
        self.facts = facts
        self._connection = connection
        self._builder: BuildKitClient | None = None
        self._builder_is_known = False
        self._builder_lock = anyio.Lock()

    # ----- looking ---------------------------------------------------------------------------------------

    async def find(self, reference: str) -> EngineImage | None:
        """The image that a name, a digest (`repository@sha256:…`) or an id means here; None where there is none.

        Raises:
            EngineUnavailable: the engine does not answer.
            ImageError: it does not understand the reference.
        """
        return await self._call(lambda client: _found(client, reference), location=reference)

    async def labelled(self, label: str) -> tuple[EngineImage, ...]:
        """The images that have a label, `name` or `name=value`.

        An image that somebody builds on top of one of ours inherits its labels: look at its tags too.
        """

        def look(client: APIClient) -> tuple[EngineImage, ...]:
            ids = [str(summary["Id"]) for summary in client.images(filters={"label": label})]
            return tuple(image for id_ in dict.fromkeys(ids) if (image := _found(client, id_)) is not None)

        return await self._call(look, location=label)

    # ----- building --------------------------------------------------------------------------------------

    async def build(
        self,
        context: BuildContext,
        *,
        dockerfile_text: str,
        tags: Sequence[str],
        tell: Tell,
        timeout_seconds: float,
        labels: Mapping[str, str] | None = None,
        arguments: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
        target: str = "",
        platform: str = "",
        network: str = "",
        shown_as: str = "Dockerfile",
    ) -> str:
        """Build an image. Who is cancelled meanwhile, or waits too long, ends the build in the engine as well.

        Args:
            context: what it is built from, Dockerfile included.
            dockerfile_text: the Dockerfile's text.
            tags: `repository:tag` of each name that the image gets.
            tell: is told each line that the build says, in this thread.
            timeout_seconds: how long it may take.
            labels: of the image.
            arguments: of the build.
            secrets: texts, values of arguments among them, that nobody may see. The image's own history has them.
            target: the stage to build; "" for the last one.
            platform: os/architecture; "" for the engine's own.
            network: of the steps; "" for the builder's default.
            shown_as: the Dockerfile's path in messages.

        Returns:
            The image's id.

        Raises:
            ImageError: it has failed, or taken too long; `output` has its last lines.
            EngineUnavailable: the engine does not answer.
        """
        request = BuildRequest(
            dockerfile_text=dockerfile_text,
            shown_as=shown_as,
            tags=tuple(tags),
            labels=labels or {},
            arguments=arguments or {},
            secrets=tuple(secrets),
            target=target,
            platform=platform,
            network=network,
        )
        log = BuildLog(tell, request.secrets)
        with anyio.move_on_after(timeout_seconds):
            return await self._built(context, request, log)
        raise _too_slow(request, log, timeout_seconds)

    async def _built(self, context: BuildContext, request: BuildRequest, log: BuildLog) -> str:
        """Addresses of requests hold the build's arguments: no exception that knows one goes on from here."""
        try:
            client = await self._buildkit_client()
            if client is not None:
                return await self._built_with_buildkit(client, context, request, log)
            image_id = await build_classic(self._connection, context, request, log)
            await self._check_platform(image_id, request)
            for tag in request.tags:
                repository, name = parse_repository_tag(tag)
                await self.tag(image_id, repository, name or "latest")
            return image_id
        except WorkFailed as failed:
            reason = failed.reason
        except APIError as error:
            reason = explained(error)
        raise _failed(request, log, reason)

    async def _built_with_buildkit(
        self, client: BuildKitClient, context: BuildContext, request: BuildRequest, log: BuildLog
    ) -> str:
        if not request.network and not await self._has_bridge():
            # BuildKit asks for the network `bridge`, and fails where the engine was started without one.
            request = replace(request, network=HOST_NETWORK)
        image_id = await build_with_buildkit(client, context, request, log)
        # Where images are kept by containerd an image's id is another digest than the one that the client writes.
        for reference in (image_id, *request.tags):
            if reference and (image := await self.find(reference)) is not None:
                return image.id
        raise WorkFailed("the engine has no such image after the build")

    async def _buildkit_client(self) -> BuildKitClient | None:
        """The docker client to build with; None for the classic builder."""
        if not wants_buildkit(self.facts.has_buildkit):
            return None
        async with self._builder_lock:
            if not self._builder_is_known:
                self._builder = await anyio.to_thread.run_sync(find_buildkit_client)
                self._builder_is_known = True
                if self._builder is None:
                    logger.info(
                        "Images are built by the classic builder: BuildKit needs docker with its buildx plugin."
                    )
        return self._builder

    async def _has_bridge(self) -> bool:
        networks = await self._call(lambda client: client.networks(names=["bridge"]), location="bridge")
        return any(network["Name"] == "bridge" for network in networks)

    async def _check_platform(self, image_id: str, request: BuildRequest) -> None:
        """The classic builder takes a base image that is there for any platform."""
        image = await self.find(image_id)
        if request.platform and image is not None and not _is_for(image.platform, request.platform):
            raise ImageError(
                f"Its base image here is for {image.platform}, so the image would be too, not for {request.platform}.",
                location=request.shown_as,
                remedy=f"Run `docker pull --platform {request.platform}` for the base image, or build with BuildKit.",
            )

    # ----- registries ------------------------------------------------------------------------------------

    async def pull(
        self, reference: str, *, platform: str = "", login: Mapping[str, str] | None = None, tell: Tell
    ) -> EngineImage:
        """Pull an image: `repository:tag` or `repository@sha256:…`.

        Args:
            reference: which.
            platform: os/architecture; "" for the engine's own.
            login: `username` and `password`; None: as Docker's own configuration says.
            tell: is told what the engine says, in this thread.

        Raises:
            ImageError: the registry does not give it, or does not answer.
            EngineUnavailable: the engine does not answer.
        """

        def request(client: APIClient) -> Any:
            return client.pull(reference, platform=platform or None, auth_config=_auth(login), stream=True, decode=True)

        await self._transfer("pull", request, reference, tell)
        image = await self.find(reference)
        if image is None:
            raise ImageError("The engine has pulled the image, and has it not.", location=reference)
        return image

    async def push(self, repository: str, tag: str, *, login: Mapping[str, str] | None = None, tell: Tell) -> str:
        """Push an image.

        Args:
            repository: its name, which starts with the registry.
            tag: its tag.
            login: `username` and `password`; None: as Docker's own configuration says.
            tell: is told what the engine says, in this thread.

        Returns:
            The digest that the registry has it under: `sha256:…`.

        Raises:
            ImageError: the registry does not take it, or does not answer.
            EngineUnavailable: the engine does not answer.
        """

        def request(client: APIClient) -> Any:
            return client.push(repository, tag=tag, auth_config=_auth(login), stream=True, decode=True)

        events = await self._transfer("push", request, f"{repository}:{tag}", tell)
        digests = [event["aux"]["Digest"] for event in events if "Digest" in (event.get("aux") or {})]
        if not digests:
            raise ImageError("The engine does not say under which digest.", location=f"{repository}:{tag}")
        return str(digests[-1])

    async def _transfer(
        self, action: str, request: Callable[[APIClient], Any], reference: str, tell: Tell
    ) -> list[Event]:
        """Push or pull, again if that may help. Returns the events that tell more than progress."""
        for pause in (*RETRY_PAUSES, None):
            transfer = _Transfer(tell)
            try:
                await self._connection.follow(request, transfer.take)
                return transfer.events
            except WorkFailed as failed:
                reason = failed.reason
            except APIError as error:
                reason = explained(error)
            if pause is None or transfer.engine_has_retried or not is_transient(reason):
                break
            tell(f"{reason}; another try in {pause:g} s")
            await anyio.sleep(pause)
        remedy = transfer_remedy(reason, _registry_of(reference))
        raise ImageError(f"The {action} has failed: {reason}.", location=reference, remedy=remedy)

    # ----- names -----------------------------------------------------------------------------------------

    async def tag(self, image_id: str, repository: str, tag: str) -> None:
        """Give an image a further name; another image that has it loses it."""
        await self._call(lambda client: client.tag(image_id, repository, tag), location=f"{repository}:{tag}")

    async def remove(self, reference: str) -> bool:
        """Remove a name, and with an image's last name the image and those of its own steps that nothing else needs.

        Returns:
            False if something uses it, or if it is not there.
        """

        def remove(client: APIClient) -> bool:
            try:
                client.remove_image(reference, force=False)
            except APIError as error:
                if isinstance(error, NotFound) or error.status_code == _IN_USE:
                    return False
                raise
            return True

        return await self._call(remove, location=reference)

    async def _call(self, request: Callable[[APIClient], Result], *, location: str) -> Result:
        try:
            return await self._connection.call(request)
        except APIError as error:
            raise refused(error, location=location) from None


@asynccontextmanager
async def open_engine() -> AsyncIterator[Engine]:
    """The engine that DOCKER_HOST names, or the one of this machine.

    Raises:
        EngineUnavailable: none answers, or it does not let us in.
    """
    connection = await anyio.to_thread.run_sync(connect)
    try:
        yield Engine(connection, await _facts(connection))
    finally:
        connection.close()


async def _facts(connection: Connection) -> EngineFacts:
    version = await connection.call(lambda client: client.version())
    await connection.call(lambda client: client.ping())
    return EngineFacts(
        version=str(version["Version"]),
        platform=f"{version['Os']}/{version['Arch']}",
        has_buildkit=connection.headers.get("Builder-Version") == "2",
    )


# ---------------------------------------------------------------------------------------------------------
# What the engine says
# ---------------------------------------------------------------------------------------------------------


def _found(client: APIClient, reference: str) -> EngineImage | None:
    try:
        return _image(client.inspect_image(reference))  # type: ignore[no-untyped-call]
    except NotFound:
        return None


def _image(said: Mapping[str, Any]) -> EngineImage:
    config = said.get("Config") or {}
    return EngineImage(
        id=said["Id"],
        tags=_names(said.get("RepoTags")),
        digests=_names(said.get("RepoDigests")),
        labels=config.get("Labels") or {},
        created=said.get("Created") or "",
        size=said.get("Size") or 0,
        on_build=tuple(config.get("OnBuild") or ()),
        platform=f"{said.get('Os', '')}/{said.get('Architecture', '')}",
    )


def _names(said: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(name for name in said or () if not name.startswith(_NO_IMAGE))


def _is_for(platform: str, asked: str) -> bool:
    """Whether a platform is the one that was asked for: `linux/amd64` is `linux/x86_64`; variants are not compared."""
    system, _, architecture = asked.lower().partition("/")
    architecture = architecture.partition("/")[0]
    return platform == f"{system}/{_ARCHITECTURES.get(architecture, architecture)}"


class _Transfer:
    """What the engine says of a push or a pull."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._pauses: dict[str, int] = {}  # the seconds that a layer still waits for another try
        self.events: list[Event] = []
        self.engine_has_retried = False  # it tries a layer five times, with longer and longer pauses

    def take(self, event: Event) -> None:
        if "error" in event:
            raise WorkFailed(str(event["error"]))
        status, layer = str(event.get("status", "")), str(event.get("id", ""))
        if event.get("progressDetail") or status in _MERE_PROGRESS or self._is_countdown(status, layer):
            return
        self.events.append(event)
        if status:
            self._tell(f"{layer}: {status}" if layer else status)

    def _is_countdown(self, status: str, layer: str) -> bool:
        """Whether a layer waits for another try and has told so, each second anew."""
        if (match := _PAUSE.match(status)) is None:
            return False
        self.engine_has_retried = True
        before, self._pauses[layer] = self._pauses.get(layer, 0), int(match[1])
        return self._pauses[layer] < before


def _auth(login: Mapping[str, str] | None) -> dict[str, str] | None:
    return dict(login) if login else None


def _registry_of(reference: str) -> str:
    registry, _ = resolve_repository_name(reference)
    return str(registry)


# ---------------------------------------------------------------------------------------------------------
# Builds that fail
# ---------------------------------------------------------------------------------------------------------


def _failed(request: BuildRequest, log: BuildLog, reason: str) -> ImageError:
    log.end()
    failure = log.failure(request.dockerfile_text, reason)
    line = f":{failure.line_number}" if failure.line_number else ""
    message = f"{failure.step}: {failure.reason}." if failure.step else f"The image cannot be built: {failure.reason}."
    location = f"{request.shown_as}{line}"
    return ImageError(message, location=location, remedy=failure.remedy, output=log.last_lines)


def _too_slow(request: BuildRequest, log: BuildLog, seconds: float) -> ImageError:
    log.end()
    limit = f"{seconds / 60:g} minutes" if seconds >= 60 else f"{seconds:g} seconds"
    at = f" It was at {log.step.title}." if log.step else ""
    return ImageError(
        f"The build did not end within {limit}.{at}",
        location=request.tags[0] if request.tags else request.shown_as,
        remedy="See in its last lines what takes so long, or give it more time: `images: {timeout_minutes: …}`.",
        output=log.last_lines,
    )

"""What images need of the world, opened together: the Docker engine, if there is one, and the registries.

Users of registries come from a Prefect block where the environment or a push step names one, else from Docker's own
configuration. They live as long as the doors are open, and are part of no value that goes from stage to stage.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from platform import machine
from typing import Any

from prefect.exceptions import ObjectNotFound
from prefect.utilities.templating import resolve_block_document_references
from pydantic import SecretStr

from orchestrator.errors import ConfigurationError, EngineUnavailable
from orchestrator.images.engine import Engine, open_engine
from orchestrator.images.names import parse_image
from orchestrator.images.registry import Login, Registries
from orchestrator.model import ImageSpec
from orchestrator.server import PrefectServer, open_server, our_errors

_ARCHITECTURES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64"}  # as Docker calls them


@dataclass(frozen=True, slots=True)
class ImageDoors:
    """The engine and the registries.

    Attributes:
        engine: None where there is none.
        why_none: why there is none, and what to do about it.
        registries: all of them.
        logins: the users that blocks gave, by registry.
    """

    engine: Engine | None
    why_none: EngineUnavailable | None
    registries: Registries
    logins: Mapping[str, Login]

    @property
    def platform(self) -> str:
        """os/architecture of images that name none: the engine's, or this machine's."""
        return self.engine.facts.platform if self.engine else f"linux/{_ARCHITECTURES.get(machine(), machine())}"


@asynccontextmanager
async def open_image_doors(
    specs: Iterable[ImageSpec], *, server: PrefectServer | None = None, api_url: str | None = None
) -> AsyncIterator[ImageDoors]:
    """Open what some images need.

    Args:
        specs: the images.
        server: has the blocks with users of registries; None: one is opened if there are such blocks.
        api_url: of that one; None: the server that Prefect's settings name.

    Raises:
        ConfigurationError: a block that is named is not there, or holds no user.
        ServerUnreachable, ServerError: the Prefect server did not answer.
    """
    async with AsyncExitStack() as stack:
        users = {parse_image(spec.repository).registry: spec.credentials for spec in specs if spec.credentials}
        if users and server is None:
            server = await stack.enter_async_context(open_server(api_url))
        logins = {registry: await _read_login(block, server) for registry, block in users.items()} if server else {}
        registries = await stack.enter_async_context(Registries(logins))
        try:
            engine, why = await stack.enter_async_context(open_engine()), None
        except EngineUnavailable as error:
            engine, why = None, error
        yield ImageDoors(engine, why, registries, logins)


async def _read_login(reference: str, server: PrefectServer) -> Login:
    found = await _block(reference, server)
    name, password = found.get("username"), found.get("password")
    if not isinstance(name, str) or not name or not password:
        raise ConfigurationError(
            "The block has no user name and password for a registry.",
            location=reference,
            remedy="Name a block of the type docker-registry-credentials.",
        )
    return Login(username=name, password=_plain(password))


async def _block(reference: str, server: PrefectServer) -> Mapping[str, Any]:
    with our_errors(server.api_url):
        try:
            found: Mapping[str, Any] = dict(
                await resolve_block_document_references({"block": reference}, client=server.client)
            )
        except (ObjectNotFound, ValueError, LookupError, TypeError) as error:
            raise ConfigurationError(
                "There is no such block on the server.",
                location=reference,
                remedy="Create it on the server's page of blocks, or correct its name.",
            ) from error
    value = found["block"]
    return value if isinstance(value, Mapping) else {}


def _plain(password: Any) -> str:
    return str(password.get_secret_value() if isinstance(password, SecretStr) else password)

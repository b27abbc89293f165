"""Registries for tests: a real one, what is pushed to it, and a stand-in that fails as it is told."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import yaml

from .conftest import free_port, stop, wait_until_ready
from .proxy import body_after, fields_of

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"


def digest_for(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


# ---------------------------------------------------------------------------------------------------------
# A real one
# ---------------------------------------------------------------------------------------------------------


@contextmanager
def registry_process(folder: Path, auth: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Debian's docker-registry on a free loopback port; yields host and port.

    Args:
        folder: where it keeps what is pushed.
        auth: its `auth` section; None lets everybody in.
    """
    program = shutil.which("docker-registry")
    if program is None:
        if os.environ.get("REQUIRE_DOCKER") == "1":
            pytest.fail("docker-registry is not installed")
        pytest.skip("docker-registry is not installed")
    host = f"127.0.0.1:{free_port()}"
    settings = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": host},
        **({"auth": dict(auth)} if auth else {}),
    }
    configuration, log = folder / "registry.yml", folder / "registry.log"
    configuration.write_text(yaml.safe_dump(settings))
    with log.open("w") as output:
        process = subprocess.Popen(
            [program, "serve", str(configuration)], stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_until_ready(process, lambda: is_up(host), log)
        yield host
    finally:
        stop(process)


def is_up(host: str) -> bool:
    try:
        return httpx.get(f"http://{host}/v2/", timeout=5).status_code in (200, 401)
    except httpx.TransportError:
        return False


@dataclass(frozen=True)
class Pusher:
    """Puts images into a registry, as a Docker engine does."""

    host: str
    headers: Mapping[str, str] = field(default_factory=dict)  # who pushes
    client: httpx.Client = field(default_factory=lambda: httpx.Client(verify=False, trust_env=False))

    def image(
        self, path: str, tag: str = "", *, labels: Mapping[str, str] | None = None, docker: bool = False, **more: Any
    ) -> dict[str, Any]:
        """Push an image without layers.

        Args:
            path: its repository.
            tag: its tag; empty: it has its digest only.
            labels: its labels; None: its configuration does not speak of any.
            docker: in Docker's own media types, not in those of OCI.
            more: what its configuration says beside that.

        Returns:
            Its descriptor, as an index has it.
        """
        configuration = {"architecture": "amd64", "os": "linux", "config": {"Labels": labels}, **more}
        return self.manifest(
            path,
            tag,
            {
                "schemaVersion": 2,
                "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
                "config": self.blob(path, configuration, DOCKER_CONFIG if docker else OCI_CONFIG),
                "layers": [],
            },
        )

    def index(self, path: str, tag: str, *manifests: Mapping[str, Any], docker: bool = False) -> dict[str, Any]:
        media_type = DOCKER_LIST if docker else OCI_INDEX
        content = {"schemaVersion": 2, "mediaType": media_type, "manifests": list(manifests)}
        return self.manifest(path, tag, content)

    def manifest(self, path: str, tag: str, content: Mapping[str, Any]) -> dict[str, Any]:
        body = json.dumps(content).encode()
        url = f"http://{self.host}/v2/{path}/manifests/{tag or digest_for(body)}"
        answer = self.client.put(url, content=body, headers={**self.headers, "Content-Type": content["mediaType"]})
        assert answer.status_code == 201, answer.text
        return {"mediaType": content["mediaType"], "digest": digest_for(body), "size": len(body)}

    def blob(self, path: str, content: Mapping[str, Any], media_type: str) -> dict[str, Any]:
        body = json.dumps(content).encode()
        started = self.client.post(f"http://{self.host}/v2/{path}/blobs/uploads/", headers=self.headers)
        assert started.status_code == 202, started.text
        url = httpx.URL(started.headers["Location"]).copy_merge_params({"digest": digest_for(body)})
        answer = self.client.put(url, content=body, headers=self.headers)
        assert answer.status_code == 201, answer.text
        return {"mediaType": media_type, "digest": digest_for(body), "size": len(body)}


# ---------------------------------------------------------------------------------------------------------
# A stand-in
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]  # by names in small letters
    body: bytes = b""

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")

    @property
    def form(self) -> Mapping[str, list[str]]:
        return parse_qs(self.body.decode())


HANG_UP = b""
Answering = Callable[[Asked], bytes]


def reply(status: int = 200, content: bytes | Mapping[str, Any] = b"", /, **headers: str) -> bytes:
    """An answer; names of headers are written with underscores."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    fields = {"Content-Length": str(len(body)), **{name.replace("_", "-"): text for name, text in headers.items()}}
    lines = [f"HTTP/1.1 {status} -", *(f"{name}: {text}" for name, text in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class StandIn:
    """A server on this machine that answers as it is told."""

    answer: Answering
    host: str = ""  # with its port
    asked: list[Asked] = field(default_factory=list)
    _connections: dict[asyncio.Task[Any], asyncio.StreamWriter] = field(default_factory=dict)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            while answer := self._answer(await _request(reader)):
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()
            del self._connections[task]

    async def close(self) -> None:
        """End the connections that clients keep for later."""
        for writer in self._connections.values():
            writer.close()
        while self._connections:
            await asyncio.wait(list(self._connections))

    def _answer(self, asked: Asked) -> bytes:
        self.asked.append(asked)
        answer = self.answer(asked)
        return answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if answer and asked.method == "HEAD" else answer


async def _request(reader: asyncio.StreamReader) -> Asked:
    first = await reader.readexactly(1)
    if first == b"\x16":
        raise ConnectionError("somebody wants to speak TLS")
    head = first + await reader.readuntil(b"\r\n\r\n")
    method, target, _ = head.decode("latin-1").split(" ", 2)
    url = urlsplit(target)
    return Asked(method, url.path, parse_qs(url.query), fields_of(head), await body_after(head, reader))


@asynccontextmanager
async def stand_in(
    answer: Answering, *, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[StandIn]:
    """A stand-in for the time of the block.

    Args:
        answer: gives the whole answer to each request, or HANG_UP.
        address: where it listens; 0.0.0.0 is this machine, too, but no loopback address.
        tls: its certificate; None: plain http.
    """
    server = StandIn(answer)
    listener = await asyncio.start_server(server.serve, address, 0, ssl=tls)
    server.host = f"{address}:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        await server.close()

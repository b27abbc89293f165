"""Single requests to registries and to those who give tokens for them: how long, how often, how much, and how far.

What an error says of itself may quote a header, so our errors do not repeat it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from types import TracebackType

import anyio
import httpx

from orchestrator.errors import RegistryError, RegistryUnreachable

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 15.0  # of a request, with its redirects and further tries
PAUSES = (0.2, 0.5, 1.0)  # seconds before a request is tried again
AT_ONCE = 16  # requests: registries are asked about many images at a time
MOST_REDIRECTS = 5
UNREAD_BYTES = 64 * 1024  # of an answer that nobody wants: read to its end, its connection can be used again
CLIENT = "orchestrator"

_DROPPED = (httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError)
_NO_PROXY = ("localhost", "127.0.0.1", "[::1]")  # as Docker does it


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came back."""

    status: int
    url: httpx.URL  # at the end of all redirects
    headers: httpx.Headers = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def words(self) -> str:
        """The status, as an error shows it: 503 Service Unavailable."""
        phrases = {each.value: each.phrase for each in HTTPStatus}
        return f"{self.status} {phrases.get(self.status, '')}".strip()


class Requests:
    """An HTTP client for all registries. An async context manager."""

    async def __aenter__(self) -> Requests:
        logging.getLogger("httpx").addFilter(without_query)
        self._at_once = anyio.Semaphore(AT_ONCE)
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS),
            headers={"Accept-Encoding": "identity", "User-Agent": CLIENT},  # a digest is of what is stored
            mounts={f"all://{host}": None for host in _NO_PROXY},
        )
        self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # we are no browser
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def send(
        self,
        method: str,
        url: httpx.URL,
        *,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        limit: int = UNREAD_BYTES,
        redirects: int = MOST_REDIRECTS,
    ) -> Answer:
        """The answer to a request, which is tried again where the server fails or the connection breaks.

        Args:
            method: GET, HEAD, or a POST that may be repeated.
            url: its address.
            headers: its headers. Authorization stays behind when we are sent on to another host.
            form: its body, as of a form.
            limit: how many bytes of a body may be read.
            redirects: how often we may be sent on; 0: such an answer is returned as any other.

        Raises:
            RegistryUnreachable: there was no answer.
            RegistryError: the answer was too long, or led nowhere.
        """
        request = self._client.build_request(method, url, headers=headers, data=form)
        async with self._at_once:
            try:
                with anyio.fail_after(TOTAL_SECONDS):
                    return await self._tried(request, limit, redirects)
            except (TimeoutError, httpx.TimeoutException):
                raise _unreachable(url, f"no answer within {TOTAL_SECONDS:g} s") from None
            except httpx.ConnectError as error:
                raise _unreachable(url, str(error)) from None
            except _DROPPED:
                raise _unreachable(url, "it ends the connection before its answer") from None
            except (httpx.HTTPError, ValueError) as error:  # the latter where we are sent on to what is no address
                raise _unreachable(url, type(error).__name__) from None

    async def _tried(self, request: httpx.Request, limit: int, redirects: int) -> Answer:
        for pause in PAUSES:
            try:
                answer = await self._followed(request, limit, redirects)
                if answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    return answer
            except _DROPPED:
                pass
            await anyio.sleep(pause)
        return await self._followed(request, limit, redirects)

    async def _followed(self, request: httpx.Request, limit: int, redirects: int) -> Answer:
        """The answer at the end of all redirects: many registries keep blobs elsewhere.

        httpx makes the next request, and takes Authorization out of one that goes to another host.
        """
        host = shown_host(request.url)
        for _ in range(redirects + 1):
            response = await self._client.send(request, stream=True)
            try:
                if response.next_request is None or not redirects:
                    return await _read(response, limit)
            finally:
                await response.aclose()
            if request.url.scheme == "https" and response.next_request.url.scheme != "https":
                raise RegistryError(
                    f"{host} sends us on to an address over plain http.",
                    location=host,
                    remedy="It has to be told its own https address, or by its proxy that it is asked over https.",
                )
            request = response.next_request
            if not can_be_asked(request.url):
                break
        raise RegistryError(
            f"{host} sends us on to nowhere, or more than {redirects} times.",
            location=host,
            remedy="Check that a registry is at this address.",
        )


async def _read(response: httpx.Response, limit: int) -> Answer:
    """An answer with its body, of which no more is held than may be read."""
    is_wanted = response.status_code == HTTPStatus.OK
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > (limit if is_wanted else UNREAD_BYTES):
            break
    if is_wanted and len(body) > limit:
        raise RegistryError(
            f"{shown_host(response.url)} answers with more than {limit} bytes.",
            location=shown_host(response.url),
            remedy="That is more than a manifest, a configuration or a token may have: check what is at this address.",
        )
    return Answer(status=response.status_code, url=response.url, headers=response.headers, body=bytes(body))


def can_be_asked(url: httpx.URL) -> bool:
    """Whether this is the address of something on the web."""
    return url.scheme in ("http", "https") and bool(url.host) and (url.port or 0) < 65536


def shown_host(url: httpx.URL) -> str:
    """Host and port of an address: the rest of it may be secret."""
    return url.netloc.decode("ascii")


def without_query(record: logging.LogRecord) -> bool:
    """Take the query out of addresses that httpx logs: where blobs are kept elsewhere, it holds a signature."""
    if isinstance(record.args, tuple):
        record.args = tuple(each.copy_with(query=None) if isinstance(each, httpx.URL) else each for each in record.args)
    return True


def _unreachable(url: httpx.URL, reason: str) -> RegistryUnreachable:
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        remedy = "Its certificate is not trusted here: name a file with that of its authority in SSL_CERT_FILE."
    else:
        remedy = "Check its name, and that this machine can reach it."
    host = shown_host(url)
    return RegistryUnreachable(f"Nothing answers at {host}: {reason}.", location=host, remedy=remedy)

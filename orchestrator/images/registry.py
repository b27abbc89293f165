"""The door to image registries: is an image there, by which digest, and with which labels.

No Docker engine is needed. Follows https://github.com/opencontainers/distribution-spec and Docker's token
authentication, https://distribution.github.io/distribution/spec/auth/token/; why by hand:
docs/decisions/0018-registries-over-http.md.

Passwords and tokens go to the registry that they are for, and to the address that its challenge names for tokens; over
plain http only where the registry itself is asked so. No message holds one.
"""

from __future__ import annotations

import base64
import shutil
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from types import TracebackType

import anyio
import anyio.to_thread
import httpx
from docker.auth import INDEX_URL, load_config
from docker.errors import DockerException
from docker.utils.config import find_config_file

from orchestrator.errors import RegistryError
from orchestrator.images.names import DOCKER_HUB, ImageName, is_digest, registry_host
from orchestrator.images.registry_answers import (
    MANIFEST_TYPES,
    Challenge,
    Document,
    challenge_in,
    config_digest,
    digest_for,
    document_in,
    has_digest,
    is_index,
    is_manifest,
    labels_in,
    manifest_for,
    token_in,
)
from orchestrator.images.registry_requests import CLIENT, PAUSES, UNREAD_BYTES, Answer, Requests, can_be_asked

MANIFEST_BYTES = 4 * 1024 * 1024  # what the specification asks registries to take
CONFIG_BYTES = 8 * 1024 * 1024
DEEPEST_INDEX = 3  # indexes within indexes

HUB_ADDRESS = "https://registry-1.docker.io"
IDENTITY_TOKEN = "<token>"  # what Docker writes for the user of one

_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_MALFORMED = (AttributeError, LookupError, TypeError, ValueError, OSError)  # what reading a broken configuration raises


@dataclass(frozen=True, kw_only=True, slots=True)
class Login:
    """Who we are to a registry. An identity token is the password of the user `<token>`."""

    username: str
    password: str = field(repr=False)


# ---------------------------------------------------------------------------------------------------------
# Docker's own configuration
# ---------------------------------------------------------------------------------------------------------


def docker_login(registry: str) -> Login | None:
    """The login that `docker login` has left for a registry; it blocks while a credential helper runs.

    Args:
        registry: its host, as `ImageName.registry` has it.

    Returns:
        None where Docker knows of none.

    Raises:
        RegistryError: Docker's configuration cannot be read, or its credential helper fails.
    """
    helper = ""
    try:
        configuration = load_config()  # of DOCKER_CONFIG, if that is set
        helper = configuration.get_credential_store(registry) or ""
        if helper and shutil.which(f"docker-credential-{helper}") is None:
            raise _broken_helper(registry, helper, "is not on the PATH")
        return _login_in(configuration.resolve_authconfig(registry))
    except (DockerException, *_MALFORMED):  # which may quote what the helper wrote
        raise _broken_helper(registry, helper, "has failed") if helper else _unreadable_configuration() from None


def _login_in(entry: Mapping[str, str] | None) -> Login | None:
    """A login from what the SDK found: files give it keys in small letters, helpers in mixed ones."""
    values = {name.lower(): value for name, value in (entry or {}).items()}
    if values.get("identitytoken"):
        return Login(username=IDENTITY_TOKEN, password=values["identitytoken"])
    if values.get("username") and values.get("password"):
        return Login(username=values["username"], password=values["password"])
    return None


def _unreadable_configuration() -> RegistryError:
    return RegistryError(
        "Docker's configuration cannot be read.",
        location=str(find_config_file() or ""),
        remedy="Mend it, or move it away and use `docker login` again.",
    )


def _broken_helper(registry: str, helper: str, how: str) -> RegistryError:
    program, asked = f"docker-credential-{helper}", INDEX_URL if registry == DOCKER_HUB else registry
    return RegistryError(
        f"Docker's credential helper for {registry} {how}: {program}.",
        location=str(find_config_file() or ""),
        remedy=f"Try it: `echo {asked} | {program} get`. "
        "Or take it out of credHelpers and credsStore, and use `docker login` again.",
    )


# ---------------------------------------------------------------------------------------------------------
# Registries
# ---------------------------------------------------------------------------------------------------------


class Registries:
    """Asks registries, each as the user that is known for it. An async context manager.

    Args:
        logins: by registry; they go before those in Docker's configuration.
        insecure: registries that are asked over plain http, as those on this machine's loopback addresses are.
    """

    def __init__(self, logins: Mapping[str, Login] | None = None, *, insecure: Collection[str] = ()) -> None:
        self._logins: dict[str, Login | None] = {registry_host(name): login for name, login in (logins or {}).items()}
        self._insecure = frozenset(registry_host(name) for name in insecure)
        self._authorizations: dict[tuple[str, str], str] = {}  # registry and path → what to tell it
        self._locks: defaultdict[tuple[str, str], anyio.Lock] = defaultdict(anyio.Lock)
        self._requests = Requests()

    async def __aenter__(self) -> Registries:
        await self._requests.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._requests.__aexit__(kind, error, trace)

    async def digest_of(self, name: ImageName) -> str | None:
        """The digest by which a registry has an image; None where it has none of this name.

        Raises:
            RegistryUnreachable: the registry did not answer.
            RegistryError: it refused, or answered what cannot be right.
        """
        route = f"manifests/{name.reference}"
        answer = await self._ask("HEAD", name, route)
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        digest = str(answer.headers.get("Docker-Content-Digest", ""))
        if is_digest(digest):
            if name.digest not in ("", digest):
                raise _mismatch(name, name.digest)
            return digest
        answer = await self._ask("GET", name, route, MANIFEST_BYTES)  # the header is optional
        return None if answer.status == HTTPStatus.NOT_FOUND else _digest_in(answer, name)

    async def labels_of(self, name: ImageName, digest: str, platform: str = "") -> Mapping[str, str]:
        """The labels of an image.

        Args:
            name: where the image is; its own tag and digest do not matter.
            digest: of its manifest, or of an index that lists it.
            platform: os/architecture; which image of an index. Empty, or not listed: the first one.

        Raises:
            RegistryUnreachable: the registry did not answer.
            RegistryError: it refused, has no such image, or answered what cannot be right.
        """
        manifest = await self._document(name, "manifests", digest, MANIFEST_BYTES)
        for _ in range(DEEPEST_INDEX):
            if not is_index(manifest):
                break
            listed = manifest_for(manifest, platform)
            if listed is None:
                raise _wrong_content(name, f"the index {digest} lists no image")
            manifest = await self._document(name, "manifests", listed, MANIFEST_BYTES)
        configuration = config_digest(manifest)
        if configuration is None:
            raise _wrong_content(name, f"the manifest of {digest} names no configuration")
        return labels_in(await self._document(name, "blobs", configuration, CONFIG_BYTES))

    async def _document(self, name: ImageName, kind: str, digest: str, limit: int) -> Document:
        """A manifest or a configuration, checked against the digest by which it is asked for."""
        answer = await self._ask("GET", name, f"{kind}/{digest}", limit)
        if answer.status == HTTPStatus.NOT_FOUND:
            raise RegistryError(
                f"{name.registry} does not have {digest}.", location=name.repository, remedy="Push the image again."
            )
        if not has_digest(answer.body, digest):
            raise _mismatch(name, digest)
        document = document_in(answer.body)
        if document is None:
            raise _wrong_content(name, f"{digest} is no JSON object")
        return document

    async def _ask(self, method: str, name: ImageName, route: str, limit: int = UNREAD_BYTES) -> Answer:
        """The registry's answer about an image: 200 or 404. All else is raised."""
        url = httpx.URL(f"{self._address(name)}/v2/{name.path}/{route}")
        headers = {"Accept": ", ".join(MANIFEST_TYPES)} if route.startswith("manifests/") else {}
        known = self._authorizations.get((name.registry, name.path))
        answer = await self._requests.send(method, url, headers=_signed(headers, known), limit=limit)
        # Whoever a registry sends us on to gets no password of it.
        if answer.status == HTTPStatus.UNAUTHORIZED and _origin(answer.url) == _origin(url):
            known = await self._authorization(name, answer, known)
            answer = await self._requests.send(method, url, headers=_signed(headers, known), limit=limit)
        if answer.status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
            raise _refusal(name, answer, name.registry)
        return answer

    # ----- who asks --------------------------------------------------------------------------------------

    async def _authorization(self, name: ImageName, answer: Answer, refused: str | None) -> str:
        """What to tell a registry that has answered 401: found out once, however many wait for it.

        Args:
            name: what was asked about.
            answer: the 401.
            refused: what the registry had been told, such as a token that has expired.
        """
        key = (name.registry, name.path)
        async with self._locks[key]:
            if self._authorizations.get(key) in (None, refused):
                self._authorizations[key] = await self._new_authorization(name, answer)
            return self._authorizations[key]

    async def _new_authorization(self, name: ImageName, answer: Answer) -> str:
        challenge = challenge_in(answer.headers.get_list("WWW-Authenticate"))
        if challenge is None:
            raise _wrong_content(name, "it asks who we are, but takes neither a token nor a password")
        login = await self._login(name.registry)
        if challenge.scheme == "bearer":
            return f"Bearer {await self._token(name, challenge, login)}"
        if login is None:
            raise _refusal(name, answer, name.registry)
        return _basic(login)

    async def _login(self, registry: str) -> Login | None:
        async with self._locks[registry, ""]:
            if registry not in self._logins:
                found = await anyio.to_thread.run_sync(docker_login, registry, abandon_on_cancel=True)
                self._logins[registry] = found
            return self._logins[registry]

    async def _token(self, name: ImageName, challenge: Challenge, login: Login | None) -> str:
        """A token, from the address that the registry names."""
        realm = self._realm(name, challenge)
        scope = challenge.scope or f"repository:{name.path}:pull"
        service = {"service": challenge.service} if challenge.service else {}
        refused: tuple[int, ...] = _REFUSED
        if login is not None and login.username == IDENTITY_TOKEN:
            form = {"grant_type": "refresh_token", "refresh_token": login.password, "client_id": CLIENT}
            # No redirects: the body would go along.
            answer = await self._requests.send("POST", realm, form={**form, **service, "scope": scope}, redirects=0)
            refused = (*_REFUSED, HTTPStatus.BAD_REQUEST)  # which OAuth 2 has for it
        else:
            url = realm.copy_merge_params({**service, "scope": scope.split()})
            answer = await self._requests.send("GET", url, headers=_signed({}, _basic(login) if login else None))
        if answer.status != HTTPStatus.OK:
            raise _refusal(name, answer, f"{realm.host}, which gives tokens for {name.registry},", refused)
        token = token_in(answer.body)
        if token is None:
            raise _wrong_content(name, f"{realm.host} gives no token")
        return token

    # ----- where they are --------------------------------------------------------------------------------

    def _address(self, name: ImageName) -> str:
        """The address of an image's registry."""
        if name.registry == DOCKER_HUB:
            return HUB_ADDRESS
        if not can_be_asked(_parsed(f"https://{name.registry}")):
            raise RegistryError(
                f"{name.registry} is no address.", location=name.familiar, remedy="Correct the name of the registry."
            )
        return f"{'http' if self._is_plain(name.registry) else 'https'}://{name.registry}"

    def _is_plain(self, registry: str) -> bool:
        """Whether a registry is asked over plain http."""
        return registry in self._insecure or _is_loopback(registry)

    def _realm(self, name: ImageName, challenge: Challenge) -> httpx.URL:
        """The address that gives tokens, if it may be told a password."""
        realm = _parsed(challenge.realm)
        if not can_be_asked(realm):
            raise _wrong_content(name, "it names no address that gives tokens")
        if realm.scheme == "http" and not self._is_plain(name.registry):
            raise RegistryError(
                f"{name.registry} wants to be asked for tokens over plain http, at {realm.host}.",
                location=name.familiar,
                remedy="Have it name an https address (its realm): on the way to this one a password could be read.",
            )
        return realm.copy_with(username=None, password=None)


def _parsed(address: str) -> httpx.URL:
    """An address; an empty one in place of what is none."""
    try:
        return httpx.URL(address)
    except (httpx.InvalidURL, ValueError):  # the latter for what no domain name can be
        return httpx.URL("")


def _is_loopback(registry: str) -> bool:
    host = _parsed(f"http://{registry}").host
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode("ascii")


def _signed(headers: Mapping[str, str], authorization: str | None) -> dict[str, str]:
    return {**headers, "Authorization": authorization} if authorization else dict(headers)


def _digest_in(answer: Answer, name: ImageName) -> str:
    """The digest of the manifest that an answer holds."""
    document = document_in(answer.body)
    if document is None or not is_manifest(document):
        raise _wrong_content(name, "it gives neither a digest nor a manifest")
    expected = name.digest or str(answer.headers.get("Docker-Content-Digest", ""))
    if is_digest(expected) and not has_digest(answer.body, expected):
        raise _mismatch(name, expected)
    return expected if is_digest(expected) else digest_for(answer.body)


# ---------------------------------------------------------------------------------------------------------
# Errors
# ---------------------------------------------------------------------------------------------------------


def _refusal(name: ImageName, answer: Answer, who: str, refused: Collection[int] = _REFUSED) -> RegistryError:
    """What a status means that is no answer to what was asked.

    Args:
        name: what was asked about.
        answer: the answer.
        who: whose answer it is, in words.
        refused: the statuses that stand for a user who may not.
    """
    if answer.status in refused:
        login = "docker login" if name.registry == DOCKER_HUB else f"docker login {name.registry}"
        remedy = (
            f"Use `{login}`, or correct the block that docker_registry_credentials names. "
            "Some registries answer so about what they do not have, too."
        )
    elif answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        seconds = str(answer.headers.get("Retry-After", ""))
        wait = f"in {seconds} seconds" if seconds.isdecimal() else "later"
        remedy = f"Try again {wait}. Registries often allow more to users who are logged in."
    elif answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        remedy = f"It was asked {len(PAUSES) + 1} times. Try again later; its own log says what is wrong."
    else:
        remedy = "Check that a registry is at this address."
    return RegistryError(f"{who} answers {answer.words}.", location=name.familiar, remedy=remedy)


def _wrong_content(name: ImageName, what: str) -> RegistryError:
    return RegistryError(
        f"{name.registry} answers what no registry should: {what}.",
        location=name.familiar,
        remedy="Check that a registry is at this address, and that no proxy changes what it says.",
    )


def _mismatch(name: ImageName, digest: str) -> RegistryError:
    return RegistryError(
        f"Digest mismatch: {name.registry} gives something else for {digest}.",
        location=name.familiar,
        remedy="Do not use it, and push it again: its storage is damaged, or somebody has changed what it holds.",
    )

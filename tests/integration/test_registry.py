"""Registries over HTTP: a real one, and a stand-in for what a real one does not do when it is asked to."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from orchestrator.errors import OrchestratorError, RegistryError, RegistryUnreachable
from orchestrator.images import registry_requests
from orchestrator.images.names import ImageName, parse_image
from orchestrator.images.registry import IDENTITY_TOKEN, Login, Registries, docker_login
from orchestrator.images.registry_requests import MOST_REDIRECTS, PAUSES

from .conftest import free_port
from .registries import (
    HANG_UP,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Answering,
    Asked,
    Pusher,
    StandIn,
    digest_for,
    registry_process,
    reply,
    stand_in,
)

pytestmark = pytest.mark.usefixtures("no_hanging")

PASSWORD = "open-sesame-1001"
PASSWORD_BCRYPT = "$2b$04$zY4qMuZWLih9FBxXOr9Z6uVy2J9.OZuz93D1xzyNmYPS/PH8QVKe2"
ADA = Login(username="ada", password=PASSWORD)
ADA_BASIC = "Basic " + base64.b64encode(f"ada:{PASSWORD}".encode()).decode()
LABELS = {"org.opencontainers.image.revision": "0123456789", "empty": ""}
OTHER_DIGEST = digest_for(b"something else")


def image(host: str, rest: str = "shop/etl:1") -> ImageName:
    return parse_image(f"{host}/{rest}")


async def ask(name: ImageName, **options: Any) -> str | None:
    async with Registries(**options) as registries:
        return await registries.digest_of(name)


async def labels(name: ImageName, digest: str, platform: str = "") -> Mapping[str, str]:
    async with Registries() as registries:
        return await registries.labels_of(name, digest, platform)


async def failure(name: ImageName, **options: Any) -> OrchestratorError:
    """The error that asking for a digest ends in. None tells a secret, and each says what to do."""
    with pytest.raises(RegistryError) as caught:
        await ask(name, **options)
    assert PASSWORD not in str(caught.value)
    assert base64.b64encode(f"ada:{PASSWORD}".encode()).decode() not in str(caught.value)
    assert caught.value.remedy
    return caught.value


@pytest.fixture(autouse=True)
def docker_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker's configuration of this test, empty at first: not that of whoever runs it."""
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder


def configure(folder: Path, **sections: Any) -> None:
    (folder / "config.json").write_text(json.dumps(sections))


# ---------------------------------------------------------------------------------------------------------
# A real registry
# ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pusher]:
    with registry_process(tmp_path_factory.mktemp("registry")) as host:
        yield Pusher(host)


@pytest.fixture(scope="module")
def closed_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pusher]:
    """One that lets in ada only, by her password."""
    folder = tmp_path_factory.mktemp("registry")
    (folder / "htpasswd").write_text(f"ada:{PASSWORD_BCRYPT}\n")
    auth = {"htpasswd": {"realm": "shop", "path": str(folder / "htpasswd")}}
    with registry_process(folder, auth) as host:
        pusher = Pusher(host, {"Authorization": ADA_BASIC})
        pusher.image("shop/etl", "1", labels=LABELS)
        yield pusher


class TestWhatIsThere:
    @pytest.mark.parametrize("docker", [False, True])
    async def test_a_digest_by_tag_and_by_digest(self, open_registry: Pusher, docker: bool) -> None:
        pushed = open_registry.image("shop/digests", "1", labels={"docker": str(docker)}, docker=docker)["digest"]
        assert await ask(image(open_registry.host, "shop/digests:1")) == pushed
        assert await ask(image(open_registry.host, f"shop/digests@{pushed}")) == pushed
        assert await ask(image(open_registry.host, f"shop/digests:gone@{pushed}")) == pushed, "the digest counts"

    async def test_the_tag_latest_is_what_no_tag_means(self, open_registry: Pusher) -> None:
        pushed = open_registry.image("shop/latest", "latest")["digest"]
        assert await ask(image(open_registry.host, "shop/latest")) == pushed

    async def test_no_such_tag_digest_or_repository(self, open_registry: Pusher) -> None:
        open_registry.image("shop/some", "1")
        assert await ask(image(open_registry.host, "shop/some:2")) is None
        assert await ask(image(open_registry.host, f"shop/some@{OTHER_DIGEST}")) is None
        assert await ask(image(open_registry.host, "shop/nothing:1")) is None

    async def test_a_tag_that_was_moved(self, open_registry: Pusher) -> None:
        name = image(open_registry.host, "shop/moved:1")
        async with Registries() as registries:
            first = open_registry.image("shop/moved", "1", labels={"build": "1"})["digest"]
            assert await registries.digest_of(name) == first
            second = open_registry.image("shop/moved", "1", labels={"build": "2"})["digest"]
            assert await registries.digest_of(name) == second != first

    async def test_an_index_has_a_digest_of_its_own(self, open_registry: Pusher) -> None:
        listed = open_registry.image("shop/index", labels=LABELS)
        pushed = open_registry.index("shop/index", "1", {**listed, "platform": platform("linux", "amd64")})["digest"]
        assert await ask(image(open_registry.host, "shop/index:1")) == pushed != listed["digest"]

    async def test_many_at_a_time(self, open_registry: Pusher) -> None:
        pushed = {
            str(number): open_registry.image("shop/many", str(number), n=number)["digest"] for number in range(40)
        }
        async with Registries() as registries:
            names = [image(open_registry.host, f"shop/many:{number}") for number in range(40)]
            found = await asyncio.gather(*map(registries.digest_of, names))
        assert dict(zip(pushed, found, strict=True)) == pushed


def platform(system: str, architecture: str, variant: str = "") -> dict[str, str]:
    return {"os": system, "architecture": architecture, **({"variant": variant} if variant else {})}


class TestLabels:
    @pytest.mark.parametrize("docker", [False, True])
    async def test_of_an_image(self, open_registry: Pusher, docker: bool) -> None:
        pushed = open_registry.image("shop/labels", labels=LABELS, docker=docker)["digest"]
        assert await labels(image(open_registry.host, "shop/labels"), pushed) == LABELS

    async def test_of_an_image_without_any(self, open_registry: Pusher) -> None:
        pushed = open_registry.image("shop/labels")["digest"]
        assert await labels(image(open_registry.host, "shop/labels"), pushed) == {}

    @pytest.mark.parametrize("docker", [False, True])
    @pytest.mark.parametrize(
        ("asked", "found"), [("linux/arm64/v8", "arm"), ("linux/amd64", "amd"), ("", "amd"), ("windows/amd64", "amd")]
    )
    async def test_of_an_index(self, open_registry: Pusher, docker: bool, asked: str, found: str) -> None:
        path = "shop/platforms"
        attestation = open_registry.image(path, labels={"of": "attestation"}, docker=docker)
        amd = open_registry.image(path, labels={"of": "amd"}, docker=docker)
        arm = open_registry.image(path, labels={"of": "arm"}, docker=docker)
        pushed = open_registry.index(
            path,
            "1",
            {**attestation, "platform": platform("unknown", "unknown")},
            {**amd, "platform": platform("linux", "amd64")},
            {**arm, "platform": platform("linux", "arm64", "v8")},
            docker=docker,
        )
        assert await labels(image(open_registry.host, path), pushed["digest"], asked) == {"of": found}

    async def test_of_an_index_within_an_index(self, open_registry: Pusher) -> None:
        path = "shop/nested"
        inner = open_registry.index(path, "inner", open_registry.image(path, labels=LABELS))
        outer = open_registry.index(path, "outer", inner)
        assert await labels(image(open_registry.host, path), outer["digest"]) == LABELS

    async def test_of_an_index_of_attestations_only(self, open_registry: Pusher) -> None:
        path = "shop/attested"
        listed = {**open_registry.image(path), "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
        pushed = open_registry.index(path, "1", listed)
        with pytest.raises(RegistryError, match="lists no image"):
            await labels(image(open_registry.host, path), pushed["digest"])

    async def test_of_what_is_gone(self, open_registry: Pusher) -> None:
        with pytest.raises(RegistryError, match="does not have") as caught:
            await labels(image(open_registry.host), OTHER_DIGEST)
        assert caught.value.remedy


class TestPasswords:
    async def test_nobody_is_let_in_without(self, closed_registry: Pusher) -> None:
        error = await failure(image(closed_registry.host))
        assert "401" in error.message
        assert f"docker login {closed_registry.host}" in error.remedy
        assert "docker_registry_credentials" in error.remedy

    async def test_of_a_login_that_is_given(self, closed_registry: Pusher) -> None:
        name = image(closed_registry.host)
        async with Registries({closed_registry.host: ADA}) as registries:
            digest = await registries.digest_of(name)
            assert digest is not None
            assert await registries.labels_of(name, digest) == LABELS

    async def test_a_wrong_one_is_not_told(self, closed_registry: Pusher) -> None:
        wrong = Login(username="ada", password="guess-4711")
        error = await failure(image(closed_registry.host), logins={closed_registry.host: wrong})
        assert "401" in error.message
        assert "guess-4711" not in str(error)

    async def test_what_is_given_goes_before_dockers_configuration(
        self, closed_registry: Pusher, docker_folder: Path
    ) -> None:
        configure(docker_folder, auths={closed_registry.host: {"auth": base64.b64encode(b"ada:guess").decode()}})
        assert await ask(image(closed_registry.host), logins={f"http://{closed_registry.host}/v2/": ADA})
        await failure(image(closed_registry.host))

    async def test_of_dockers_configuration(self, closed_registry: Pusher, docker_folder: Path) -> None:
        encoded = base64.b64encode(f"ada:{PASSWORD}".encode()).decode()
        configure(docker_folder, auths={closed_registry.host: {"auth": encoded}})
        assert await ask(image(closed_registry.host))

    async def test_of_a_credential_helper(
        self, closed_registry: Pusher, docker_folder: Path, helper: Callable[[str], Path]
    ) -> None:
        helper(f"""print(json.dumps({{"Username": "ada", "Secret": "{PASSWORD}"}}))""")
        configure(docker_folder, credHelpers={closed_registry.host: "shop"})
        assert await ask(image(closed_registry.host))

    async def test_a_helper_is_asked_once_for_many_images(
        self, closed_registry: Pusher, docker_folder: Path, helper: Callable[[str], Path], tmp_path: Path
    ) -> None:
        calls = tmp_path / "calls"
        helper(
            f"open({str(calls)!r}, 'a').write(asked)\n"
            f"""print(json.dumps({{"Username": "ada", "Secret": "{PASSWORD}"}}))"""
        )
        configure(docker_folder, credsStore="shop")
        async with Registries() as registries:
            names = [image(closed_registry.host, f"shop/etl-{number}:1") for number in range(8)]
            assert await asyncio.gather(*map(registries.digest_of, names)) == [None] * 8
        assert calls.read_text() == f"{closed_registry.host}"

    async def test_a_helper_that_is_broken(
        self, closed_registry: Pusher, docker_folder: Path, helper: Callable[[str], Path]
    ) -> None:
        helper(f"print('cannot open the vault of {PASSWORD}'); sys.exit(1)")
        configure(docker_folder, credHelpers={closed_registry.host: "shop"})
        error = await failure(image(closed_registry.host))
        assert "docker-credential-shop" in error.message
        assert f"echo {closed_registry.host} | docker-credential-shop get" in error.remedy


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a credential helper on the PATH, `docker-credential-shop`; `asked` is the registry that it is asked for."""

    def install(code: str) -> Path:
        program = tmp_path / "bin" / "docker-credential-shop"
        program.parent.mkdir()
        program.write_text(f"#!{sys.executable}\nimport json, sys\nasked = sys.stdin.read().strip()\n{code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")
        return program

    return install


class TestDockersConfiguration:
    def test_none_at_all(self) -> None:
        assert docker_login("registry.example.com") is None

    def test_one_without_this_registry(self, docker_folder: Path) -> None:
        configure(docker_folder, auths={"other.example.com": {"auth": "YTpi"}}, currentContext="default")
        assert docker_login("registry.example.com") is None

    def test_docker_hub_goes_by_its_old_address(self, docker_folder: Path) -> None:
        configure(docker_folder, auths={"https://index.docker.io/v1/": {"auth": "YTpi"}})
        assert docker_login("docker.io") == Login(username="a", password="b")

    def test_an_identity_token(self, docker_folder: Path) -> None:
        configure(docker_folder, auths={"registry.example.com": {"auth": "PHRva2VuPjo=", "identitytoken": "xyz"}})
        assert docker_login("registry.example.com") == Login(username=IDENTITY_TOKEN, password="xyz")

    def test_a_helper_with_an_identity_token(self, docker_folder: Path, helper: Callable[[str], Path]) -> None:
        helper("""print(json.dumps({"Username": "<token>", "Secret": "xyz"}))""")
        configure(docker_folder, credsStore="shop")
        assert docker_login("docker.io") == Login(username=IDENTITY_TOKEN, password="xyz")

    def test_a_helper_that_does_not_know_the_registry(self, docker_folder: Path, helper: Callable[[str], Path]) -> None:
        helper("print('credentials not found in native keychain'); sys.exit(1)")
        configure(docker_folder, credsStore="shop", auths={"registry.example.com": {}})
        assert docker_login("registry.example.com") is None

    def test_a_helper_that_is_not_installed(self, docker_folder: Path) -> None:
        configure(docker_folder, credsStore="nowhere-to-be-found")
        with pytest.raises(RegistryError, match="not on the PATH") as caught:
            docker_login("docker.io")
        assert "echo https://index.docker.io/v1/ | docker-credential-nowhere-to-be-found get" in caught.value.remedy
        assert caught.value.location == str(docker_folder / "config.json")

    @pytest.mark.parametrize("code", ["print('no JSON')", "print('[]')", "print('{}')", "print('\"text\"')"])
    def test_a_helper_that_answers_nonsense(
        self, docker_folder: Path, helper: Callable[[str], Path], code: str
    ) -> None:
        helper(code)
        configure(docker_folder, credsStore="shop")
        with pytest.raises(RegistryError, match="has failed"):
            docker_login("registry.example.com")

    @pytest.mark.parametrize(
        "sections", [{"auths": {"x.example.com": {"auth": "%%%"}}}, {"auths": {"x.example.com": 1}}, {"auths": [1]}]
    )
    def test_one_that_cannot_be_read(self, docker_folder: Path, sections: dict[str, Any]) -> None:
        configure(docker_folder, **sections)
        with pytest.raises(RegistryError, match="cannot be read") as caught:
            docker_login("x.example.com")
        assert caught.value.location == str(docker_folder / "config.json")

    def test_a_login_does_not_show_its_password(self) -> None:
        assert PASSWORD not in repr(ADA)


# ---------------------------------------------------------------------------------------------------------
# Tokens
# ---------------------------------------------------------------------------------------------------------


class TokenServer:
    """Gives tokens that a real registry takes: it has the certificate of their key."""

    def __init__(self, folder: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self_signed(self.key)
        self.bundle = folder / "bundle.pem"
        self.bundle.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        self.allowed: Callable[[Asked], bool] = lambda asked: True

    def answer(self, asked: Asked) -> bytes:
        if not self.allowed(asked):
            return reply(401, {"details": "incorrect username or password"})
        values = asked.form if asked.method == "POST" else asked.query
        token = self.token([scope.split(":") for scope in values["scope"]])
        return reply(200, {"access_token": token} if asked.method == "POST" else {"token": token})

    def token(self, scopes: list[list[str]]) -> str:
        """As https://distribution.github.io/distribution/spec/auth/jwt/ has it."""
        now = int(time.time())
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        claims = {
            "iss": "shop-tokens",
            "aud": "shop-registry",
            "sub": "",
            "jti": str(now),
            "iat": now,
            "nbf": now - 60,
            "exp": now + 600,
            "access": [{"type": kind, "name": name, "actions": actions.split(",")} for kind, name, actions in scopes],
        }
        signed = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"
        r, s = decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """A certificate for 0.0.0.0."""
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop")]), datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("0.0.0.0"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


class TestTokensOfARealRegistry:
    @pytest.fixture
    async def tokens(self, tmp_path: Path) -> TokenServer:
        return TokenServer(tmp_path)

    @pytest.fixture
    async def token_server(self, tokens: TokenServer) -> AsyncIterator[StandIn]:
        async with stand_in(tokens.answer) as server:
            yield server

    @pytest.fixture
    def pusher(self, tokens: TokenServer, token_server: StandIn, tmp_path: Path) -> Iterator[Pusher]:
        auth = {
            "realm": f"http://{token_server.host}/token?account=shop",
            "service": "shop-registry",
            "issuer": "shop-tokens",
            "rootcertbundle": str(tokens.bundle),
        }
        with registry_process(tmp_path, {"token": auth}) as host:
            token = tokens.token([["repository", f"shop/{name}", "pull,push"] for name in ("etl", "load")])
            yield Pusher(host, {"Authorization": f"Bearer {token}"})

    async def test_one_is_asked_for_per_repository(self, pusher: Pusher, token_server: StandIn) -> None:
        digests = [pusher.image(f"shop/{name}", "1", labels=LABELS)["digest"] for name in ("etl", "load")]
        etl, load = image(pusher.host, "shop/etl:1"), image(pusher.host, "shop/load:1")
        async with Registries() as registries:
            found = await asyncio.gather(*(registries.digest_of(name) for name in [etl] * 5 + [load]))
            assert found == [digests[0]] * 5 + [digests[1]]
            assert await registries.labels_of(etl, digests[0]) == LABELS
            assert await registries.digest_of(image(pusher.host, "shop/etl:2")) is None
        assert sorted(each.query["scope"] for each in token_server.asked) == [
            ["repository:shop/etl:pull"],
            ["repository:shop/load:pull"],
        ]
        assert all(each.query["service"] == ["shop-registry"] for each in token_server.asked)
        assert all(each.query["account"] == ["shop"] for each in token_server.asked), "the realm's own query stays"
        assert not any(each.authorization for each in token_server.asked), "nobody is logged in"

    async def test_a_user_gets_one_by_password(self, pusher: Pusher, tokens: TokenServer) -> None:
        tokens.allowed = lambda asked: asked.authorization == ADA_BASIC
        digest = pusher.image("shop/etl", "1")["digest"]
        assert await ask(image(pusher.host), logins={pusher.host: ADA}) == digest
        error = await failure(image(pusher.host), logins={pusher.host: Login(username="ada", password="guess")})
        assert "401" in error.message
        assert f"docker login {pusher.host}" in error.remedy

    async def test_an_identity_token_is_exchanged(
        self, pusher: Pusher, tokens: TokenServer, token_server: StandIn, docker_folder: Path
    ) -> None:
        tokens.allowed = lambda asked: asked.form.get("refresh_token") == [PASSWORD]
        configure(docker_folder, auths={pusher.host: {"identitytoken": PASSWORD}})
        digest = pusher.image("shop/etl", "1")["digest"]
        assert await ask(image(pusher.host)) == digest
        (asked,) = token_server.asked
        assert asked.method == "POST"
        assert asked.form["grant_type"] == ["refresh_token"]
        assert asked.form["service"] == ["shop-registry"]
        assert PASSWORD not in str(asked.query)


# ---------------------------------------------------------------------------------------------------------
# A stand-in
# ---------------------------------------------------------------------------------------------------------

CONFIG = json.dumps({"config": {"Labels": LABELS}}).encode()
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": digest_for(CONFIG), "size": len(CONFIG)},
        "layers": [],
    }
).encode()
DIGEST = digest_for(MANIFEST)


def an_image(asked: Asked) -> bytes:
    """A registry that has one image under every name."""
    if "/blobs/" in asked.path:
        return reply(200, CONFIG)
    return reply(200, MANIFEST, Docker_Content_Digest=DIGEST, Content_Type=OCI_MANIFEST)


def in_turn(*answers: bytes, then: Answering = an_image) -> Answering:
    """Answers for the first requests, and what comes then."""
    left = list(answers)
    return lambda asked: left.pop(0) if left else then(asked)


class TestFailingServers:
    async def test_what_fails_twice_is_asked_again(self) -> None:
        async with stand_in(in_turn(reply(503), reply(500))) as server:
            assert await ask(image(server.host)) == DIGEST
        assert len(server.asked) == 3

    async def test_what_fails_for_good(self) -> None:
        async with stand_in(lambda asked: reply(503)) as server:
            error = await failure(image(server.host))
        assert len(server.asked) == len(PAUSES) + 1
        assert "503 Service Unavailable" in error.message
        assert error.location == f"{server.host}/shop/etl:1"

    async def test_a_connection_that_breaks_twice(self) -> None:
        async with stand_in(in_turn(HANG_UP, HANG_UP)) as server:
            assert await ask(image(server.host)) == DIGEST

    async def test_a_connection_that_breaks_in_the_body(self) -> None:
        cut = reply(200, MANIFEST, Content_Length=str(len(MANIFEST) + 1))

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answers.pop(0))
            writer.close()

        answers = [
            cut.replace(f"Content-Length: {len(MANIFEST)}\r\n".encode(), b""),
            reply(200, MANIFEST),
            reply(200, CONFIG),
        ]
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener, Registries() as registries:
            name = image(f"127.0.0.1:{listener.sockets[0].getsockname()[1]}")
            assert await registries.labels_of(name, DIGEST) == LABELS
        assert answers == []

    async def test_a_connection_that_breaks_for_good(self) -> None:
        async with stand_in(lambda asked: HANG_UP) as server:
            error = await failure(image(server.host))
        assert isinstance(error, RegistryUnreachable)
        assert len(server.asked) == len(PAUSES) + 1

    async def test_nobody_there(self) -> None:
        error = await failure(image(f"127.0.0.1:{free_port()}"))
        assert isinstance(error, RegistryUnreachable)
        assert "Nothing answers at 127.0.0.1" in error.message

    async def test_no_such_host(self) -> None:
        assert isinstance(await failure(image("registry.invalid")), RegistryUnreachable)

    @pytest.mark.parametrize("host", ["127.0.0.1:99999", "[12345::1]", "[:::]:5000"])
    async def test_what_can_be_no_host(self, host: str) -> None:
        assert "is no address" in (await failure(image(host))).message

    @pytest.mark.parametrize("drips", [False, True])
    async def test_one_that_never_finishes_its_answer(self, drips: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """The time holds for the whole answer, not for each byte of it."""
        monkeypatch.setattr(registry_requests, "TOTAL_SECONDS", 0.5)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            while drips:
                writer.write(b"HTTP/1.1 200 -\r\nX-Long: " if not sent else b"x")
                sent.append(1)
                await asyncio.sleep(0.05)
            await reader.read()
            writer.close()

        sent: list[int] = []
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
            error = await failure(image(f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"))
            drips = False
        assert isinstance(error, RegistryUnreachable)
        assert "no answer within 0.5 s" in error.message

    @pytest.mark.parametrize(("wait", "words"), [("30", "in 30 seconds"), ("Fri, 01 Jan 2027 00:00:00 GMT", "later")])
    async def test_too_many_requests(self, wait: str, words: str) -> None:
        async with stand_in(lambda asked: reply(429, Retry_After=wait)) as server:
            error = await failure(image(server.host))
        assert len(server.asked) == 1, "asking again at once makes it worse"
        assert "429 Too Many Requests" in error.message
        assert words in error.remedy

    async def test_what_is_no_registry(self) -> None:
        async with stand_in(lambda asked: reply(418)) as server:
            assert "418" in (await failure(image(server.host))).message


class TestWhatIsAnswered:
    async def test_the_digest_is_worked_out_where_none_is_told(self) -> None:
        async with stand_in(lambda asked: reply(200, MANIFEST)) as server:
            assert await ask(image(server.host)) == DIGEST
            assert await ask(image(server.host, f"shop/etl@{DIGEST}")) == DIGEST

    async def test_none_is_told_of_what_is_gone_meanwhile(self) -> None:
        async with stand_in(in_turn(reply(200), then=lambda asked: reply(404))) as server:
            assert await ask(image(server.host)) is None

    @pytest.mark.parametrize(
        "body", [b"<html>Welcome!</html>", b"{}", b'"text"', b"\xff", b'{"schemaVersion": 1}', b"[" * 10**5]
    )
    async def test_a_web_page_is_no_manifest(self, body: bytes) -> None:
        async with stand_in(lambda asked: reply(200, body)) as server:
            assert "neither a digest nor a manifest" in (await failure(image(server.host))).message

    async def test_another_digest_than_was_asked_for(self) -> None:
        async with stand_in(an_image) as server:
            error = await failure(image(server.host, f"shop/etl@{OTHER_DIGEST}"))
        assert "Digest mismatch" in error.message

    @pytest.mark.parametrize("lie", [{}, {"Docker_Content_Digest": OTHER_DIGEST}])
    async def test_content_that_is_not_of_its_digest(self, lie: dict[str, str]) -> None:
        def answer(asked: Asked) -> bytes:
            return reply(200, b"" if asked.method == "HEAD" else MANIFEST, **(lie if asked.method == "GET" else {}))

        async with stand_in(answer) as server:
            name = image(server.host, "shop/etl:1" if lie else f"shop/etl@{OTHER_DIGEST}")
            assert "Digest mismatch" in (await failure(name)).message

    @pytest.mark.parametrize("kind", ["/manifests/", "/blobs/"])
    async def test_labels_are_of_content_that_is_right(self, kind: str) -> None:
        async with stand_in(lambda asked: reply(200, b"{}") if kind in asked.path else an_image(asked)) as server:
            with pytest.raises(RegistryError, match="Digest mismatch"):
                await labels(image(server.host), DIGEST)

    async def test_an_index_that_never_ends(self) -> None:
        body = b"{}"
        contents = {}
        for _ in range(10):
            listed = {"mediaType": OCI_INDEX, "digest": digest_for(body), "size": len(body)}
            body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [listed]}).encode()
            contents[digest_for(body)] = body
        async with stand_in(lambda asked: reply(200, contents[asked.path.rpartition("/")[2]])) as server:
            with pytest.raises(RegistryError, match="names no configuration"):
                await labels(image(server.host), digest_for(body))

    async def test_bodies_are_bounded(self) -> None:
        async with stand_in(lambda asked: reply(200, b" " * (4 * 1024 * 1024 + 1))) as server:
            with pytest.raises(RegistryError, match="more than 4194304 bytes"):
                await labels(image(server.host), DIGEST)

    async def test_a_manifest_of_the_largest_size(self) -> None:
        body = MANIFEST + b" " * (4 * 1024 * 1024 - len(MANIFEST))
        async with stand_in(lambda asked: reply(200, CONFIG if "/blobs/" in asked.path else body)) as server:
            assert await labels(image(server.host), digest_for(body)) == LABELS

    async def test_all_types_of_manifests_are_taken(self) -> None:
        async with stand_in(an_image) as server:
            await ask(image(server.host))
        (asked,) = server.asked
        assert asked.method == "HEAD"
        assert asked.headers["accept"].split(", ") == [
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.docker.distribution.manifest.list.v2+json",
            "application/vnd.docker.distribution.manifest.v2+json",
        ]

    async def test_a_proxy_is_left_out_for_this_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
        async with stand_in(an_image) as server:
            assert await ask(image(server.host)) == DIGEST


def challenged(realm: str, *, token: str = "a-token-0815", then: Answering = an_image) -> Answering:
    """A registry that wants a token."""
    challenge = f'Bearer realm="{realm}",service="shop"'

    def answer(asked: Asked) -> bytes:
        is_known = asked.authorization == f"Bearer {token}"
        return then(asked) if is_known else reply(401, WWW_Authenticate=challenge)

    return answer


class TestWhoIsTold:
    """What becomes of passwords and tokens."""

    async def test_a_token_that_is_refused_is_asked_for_once(self) -> None:
        async with (
            stand_in(lambda asked: reply(200, {"token": "wrong-0815"})) as tokens,
            stand_in(challenged(f"http://{tokens.host}/token")) as server,
        ):
            error = await failure(image(server.host), logins={server.host: ADA})
        assert len(tokens.asked) == 1
        assert "wrong-0815" not in str(error)

    async def test_a_token_that_has_expired_is_replaced(self) -> None:
        given: list[str] = []

        def give(asked: Asked) -> bytes:
            given.append(f"token-{len(given)}")
            return reply(200, {"token": given[-1]})

        def answer(asked: Asked) -> bytes:
            return challenged(f"http://{tokens.host}/", token=given[-1] if given else "")(asked)

        async with stand_in(give) as tokens, stand_in(answer) as server, Registries() as registries:
            assert await registries.digest_of(image(server.host)) == DIGEST
            given.append("something that this registry takes instead from now on")
            assert await registries.digest_of(image(server.host)) == DIGEST
        assert len(tokens.asked) == 2

    @pytest.mark.parametrize("body", [{}, {"token": ""}, {"token": 5}, {"token": "a\r\nX-Evil: b"}, {"token": "ä"}])
    async def test_what_is_no_token(self, body: Mapping[str, Any]) -> None:
        async with (
            stand_in(lambda asked: reply(200, body)) as tokens,
            stand_in(challenged(f"http://{tokens.host}/")) as server,
        ):
            assert "gives no token" in (await failure(image(server.host))).message

    @pytest.mark.parametrize("challenge", ["Negotiate abc=", 'Bearer service="shop"', 'Bearer realm="ftp://a/"', ""])
    async def test_what_is_no_challenge(self, challenge: str) -> None:
        async with stand_in(lambda asked: reply(401, WWW_Authenticate=challenge)) as server:
            assert "what no registry should" in (await failure(image(server.host))).message

    async def test_a_token_server_that_fails_twice(self) -> None:
        answers = in_turn(reply(502), HANG_UP, then=lambda asked: reply(200, {"token": "a-token-0815"}))
        async with stand_in(answers) as tokens, stand_in(challenged(f"http://{tokens.host}/")) as server:
            assert await ask(image(server.host)) == DIGEST

    async def test_an_identity_token_that_has_expired(self) -> None:
        login = Login(username=IDENTITY_TOKEN, password=PASSWORD)
        async with (
            stand_in(lambda asked: reply(400, {"error": "invalid_grant", "error_description": PASSWORD})) as tokens,
            stand_in(challenged(f"http://{tokens.host}/")) as server,
        ):
            error = await failure(image(server.host), logins={server.host: login})
        assert f"docker login {server.host}" in error.remedy

    async def test_an_identity_token_is_not_sent_on(self) -> None:
        login = Login(username=IDENTITY_TOKEN, password=PASSWORD)
        async with (
            stand_in(lambda asked: reply(200, {"token": "x"})) as elsewhere,
            stand_in(lambda asked: reply(307, Location=f"http://{elsewhere.host}/")) as tokens,
            stand_in(challenged(f"http://{tokens.host}/")) as server,
        ):
            error = await failure(image(server.host), logins={server.host: login})
        assert "307" in error.message
        assert elsewhere.asked == []

    async def test_blobs_elsewhere_are_asked_for_without_it(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        async with (
            stand_in(an_image) as storage,
            stand_in(lambda asked: reply(200, {"token": "a-token-0815"})) as tokens,
            registry_that_sends_on(storage, f"http://{tokens.host}/") as server,
            Registries({server.host: ADA}) as registries,
        ):
            assert await registries.labels_of(image(server.host), DIGEST) == LABELS
        (asked,) = storage.asked
        assert asked.query == {"signature": ["s3cret-0815"]}
        assert asked.authorization == ""
        assert all(each.authorization == ADA_BASIC for each in tokens.asked)
        assert storage.host in caplog.text, "or this shows nothing"
        assert all(secret not in caplog.text for secret in ("s3cret-0815", "a-token-0815", PASSWORD))

    async def test_another_host_gets_no_password_whatever_it_asks(self) -> None:
        """Not even if it asks as the registry would: by password, or by a token from an address of its own."""
        async with (
            stand_in(lambda asked: reply(401, WWW_Authenticate='Basic realm="shop"')) as elsewhere,
            stand_in(lambda asked: reply(302, Location=f"http://{elsewhere.host}{asked.path}")) as server,
        ):
            error = await failure(image(server.host), logins={server.host: ADA, elsewhere.host: ADA})
        assert "401" in error.message
        assert [each.authorization for each in elsewhere.asked] == [""]

    async def test_a_circle_of_redirects_ends(self) -> None:
        async with stand_in(lambda asked: reply(302, Location=asked.path)) as server:
            error = await failure(image(server.host))
        assert f"more than {MOST_REDIRECTS} times" in error.message
        assert len(server.asked) == MOST_REDIRECTS + 1

    @pytest.mark.parametrize("location", ["http://127.0.0.1:99999/", "ftp://127.0.0.1/", "http://xn--zz-.example/"])
    async def test_a_redirect_to_nowhere(self, location: str) -> None:
        async with stand_in(lambda asked: reply(302, Location=location)) as server:
            await failure(image(server.host))


@asynccontextmanager
async def registry_that_sends_on(storage: StandIn, realm: str) -> AsyncIterator[StandIn]:
    """A registry that wants a token, and keeps its blobs elsewhere, under addresses with a signature."""

    def answer(asked: Asked) -> bytes:
        if "/blobs/" not in asked.path:
            return an_image(asked)
        return reply(307, Location=f"http://{storage.host}{asked.path}?signature=s3cret-0815")

    async with stand_in(challenged(realm, then=answer)) as server:
        yield server


class TestEncryption:
    """0.0.0.0 reaches this machine, and is no loopback address: https is what is asked for there."""

    @pytest.fixture
    def tls(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
        """A server's certificate, which this process trusts by SSL_CERT_FILE."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate, private = tmp_path / "certificate.pem", tmp_path / "key.pem"
        certificate.write_bytes(self_signed(key).public_bytes(serialization.Encoding.PEM))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, private)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        return context

    async def test_a_registry_is_asked_over_https(self, tls: ssl.SSLContext) -> None:
        async with stand_in(an_image, address="0.0.0.0", tls=tls) as server:
            assert await ask(image(server.host)) == DIGEST

    async def test_not_over_plain_http(self) -> None:
        async with stand_in(an_image, address="0.0.0.0") as server:
            assert isinstance(await failure(image(server.host), logins={server.host: ADA}), RegistryUnreachable)
        assert server.asked == []

    async def test_over_plain_http_where_that_is_said(self) -> None:
        async with stand_in(an_image, address="0.0.0.0") as server:
            assert await ask(image(server.host), insecure=[server.host]) == DIGEST

    async def test_a_certificate_that_nobody_knows(self, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SSL_CERT_FILE")
        async with stand_in(an_image, address="0.0.0.0", tls=tls) as server:
            error = await failure(image(server.host))
        assert isinstance(error, RegistryUnreachable)
        assert "SSL_CERT_FILE" in error.remedy

    async def test_no_password_goes_to_a_token_server_over_plain_http(self, tls: ssl.SSLContext) -> None:
        async with stand_in(lambda asked: reply(200, {"token": "a-token-0815"})) as tokens:
            registry = challenged(f"http://{tokens.host}/token")
            async with stand_in(registry, address="0.0.0.0", tls=tls) as server:
                error = await failure(image(server.host), logins={server.host: ADA})
        assert "plain http" in error.message
        assert tokens.asked == []

    async def test_nobody_is_sent_on_to_plain_http(self, tls: ssl.SSLContext) -> None:
        async with stand_in(an_image) as elsewhere:
            sends_on = lambda asked: reply(302, Location=f"http://{elsewhere.host}{asked.path}")  # noqa: E731
            async with stand_in(sends_on, address="0.0.0.0", tls=tls) as server:
                error = await failure(image(server.host))
        assert "plain http" in error.message
        assert elsewhere.asked == []

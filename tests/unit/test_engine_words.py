"""What the messages of engines and registries mean. The texts are those of Docker 20.10 to 28."""

from __future__ import annotations

import pytest

from orchestrator.images.engine_words import FREE_SPACE, NEEDS_BUILDKIT, build_remedy, is_transient, transfer_remedy

REGISTRY = "registry.example.com:5000"


@pytest.mark.parametrize(
    "reason",
    [
        "unexpected EOF",
        'Put "https://registry.example.com/v2/a/manifests/1": EOF',
        "write tcp 10.0.0.1:4711->10.0.0.2:443: write: connection reset by peer",
        "received unexpected HTTP status: 503 Service Unavailable",
        "received unexpected HTTP status: 500 Internal Server Error",
        "net/http: TLS handshake timeout",
        'Get "https://registry.example.com/v2/": dial tcp 10.0.0.1:443: i/o timeout',
        "net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)",
        'Head "https://registry.example.com/v2/": context deadline exceeded',
    ],
)
def test_what_may_work_a_moment_later(reason: str) -> None:
    assert is_transient(reason)


@pytest.mark.parametrize(
    "reason",
    [
        "denied: requested access to the resource is denied",
        "unauthorized: authentication required",
        'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused',
        "manifest unknown: manifest unknown",
        "An image does not exist locally with the tag: a",
        "no space left on device",
        'error parsing HTTP 403 response body: unexpected end of JSON input: ""',
    ],
)
def test_what_will_not(reason: str) -> None:
    assert not is_transient(reason)


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("denied: requested access to the resource is denied", f"`docker login {REGISTRY}`"),
        ("no basic auth credentials", f"`docker login {REGISTRY}`"),
        ('error parsing HTTP 403 response body: unexpected end of JSON input: ""', f"`docker login {REGISTRY}`"),
        ("dial tcp 10.0.0.1:5000: connect: connection refused", f"{REGISTRY} is the registry's address"),
        ("dial tcp: lookup registry.example.com: no such host", f"{REGISTRY} is the registry's address"),
        ("http: server gave HTTP response to HTTPS client", "insecure-registries"),
        ("x509: certificate signed by unknown authority", f"/etc/docker/certs.d/{REGISTRY}/ca.crt"),
        ("toomanyrequests: You have reached your pull rate limit", "takes no more requests"),
        ("manifest for a:1 not found: manifest unknown: manifest unknown", "deleted"),
        ("write /var/lib/docker/tmp/x: no space left on device", FREE_SPACE),
        ("something new", ""),
    ],
)
def test_what_to_do_about_a_transfer(reason: str, remedy: str) -> None:
    found = transfer_remedy(reason, REGISTRY)
    assert remedy in found and bool(found) == bool(remedy)


def test_docker_hub_needs_no_name() -> None:
    remedy = transfer_remedy("denied: requested access to the resource is denied", "docker.io")
    assert remedy.startswith("Run `docker login` with a user")
    assert transfer_remedy("i/o timeout", "docker.io").startswith("Check that Docker Hub is")


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("failed to copy files: write: no space left on device", "docker system df"),
        ("it ended with exit code 137", "memory"),
        ("the --mount option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/", NEEDS_BUILDKIT),
        (
            "COPY failed: file not found in build context or excluded by .dockerignore: stat a: no",
            "starts from the build",
        ),
        (
            'failed to compute cache key: failed to calculate checksum of ref a::b: "/a": not found',
            "starts from the build",
        ),
        ("pull access denied for a, repository does not exist or may require 'docker login': denied", "`docker login`"),
        (
            "a:1: failed to resolve source metadata for docker.io/library/a:1: docker.io/library/a:1: not found",
            "base image",
        ),
        ("manifest for python:9 not found: manifest unknown: manifest unknown", "name and the tag of the base image"),
        ("no match for platform in manifest sha256:abc: not found", "another platform"),
        (
            'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host',
            "does not reach",
        ),
        ("failed to reach build target middle in Dockerfile", "stage"),
    ],
)
def test_what_to_do_about_a_build(reason: str, remedy: str) -> None:
    assert remedy in build_remedy(reason, ["a line"])


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("dd: error writing '/dev/full': No space left on device", "docker system df"),
        ("#9 1.02 Temporary failure in name resolution", "does not reach the network"),
        ("E: Could not resolve 'deb.debian.org'", "does not reach the network"),
        ("Killed", "memory"),
        ("Test suite Killed Bill: passed", "last lines"),
    ],
)
def test_what_the_step_itself_has_written(line: str, remedy: str) -> None:
    assert remedy in build_remedy("it ended with exit code 1", [line, "one more"])


def test_nothing_is_promised_that_is_not_there() -> None:
    assert build_remedy("who knows", []) == ""

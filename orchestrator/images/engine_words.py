"""What the messages of an engine and of a registry mean: whether another try may help, and what a person can do.

The engine hands on most errors of registries, of the network and of the disk as text only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

Meanings = Sequence[tuple[re.Pattern[str], str]]

FREE_SPACE = (
    "Make room on the engine's disk: `docker system df` shows what takes it, and `orchestrator images prune` removes "
    "old images of this project."
)

NEEDS_BUILDKIT = (
    "Install Docker's buildx plugin and set DOCKER_BUILDKIT=1, or write the step without what only BuildKit has."
)


def _meanings(*pairs: tuple[str, str]) -> Meanings:
    return tuple((re.compile(pattern, re.IGNORECASE), remedy) for pattern, remedy in pairs)


_DISK_FULL = r"no space left on device|disk quota exceeded"
_UNREACHABLE = (
    r"connection refused|no such host|server misbehaving|i/o timeout|tls handshake timeout|network is unreachable"
    r"|no route to host|connection reset by peer|context deadline exceeded|client\.timeout"
)
_DENIED = r"unauthorized|denied|authentication required|no basic auth credentials|insufficient_scope|HTTP 40[13]\b"
_PLAIN_HTTP = r"server gave HTTP response to HTTPS client"
_UNTRUSTED = r"x509:|certificate signed by unknown authority|tls: failed to verify"

_OF_BUILDS = _meanings(
    (_DISK_FULL, FREE_SPACE),
    (
        r"exit code:? 137|code: 137|signal: killed|out of memory|cannot allocate memory",
        "Exit code 137 mostly means that the step ran out of memory: give the engine more, or let the step need less.",
    ),
    (
        r"requires BuildKit|unknown flag: (?:mount|link|chmod)",
        NEEDS_BUILDKIT,
    ),
    (
        r"COPY failed|ADD failed|failed to compute cache key|failed to calculate checksum of ref",
        "Check the path: it starts from the build context, and .dockerignore may leave the file out.",
    ),
    (
        r"no match for platform|does not match the (?:specified|detected) .*platform",
        "Choose another platform, or a base image that is there for this one.",
    ),
    (
        _PLAIN_HTTP,
        "Give the registry of the base image a certificate, or name it in the engine's `insecure-registries`.",
    ),
    (_UNTRUSTED, "Let the engine trust the certificate of the base image's registry: /etc/docker/certs.d/HOST/ca.crt."),
    (r"dockerfile parse error", "Correct the Dockerfile."),
    (r"failed to reach build target|target stage .* could not be found", "Name a stage that the Dockerfile has."),
    (
        r"pull access denied|repository does not exist|manifest .*(?:unknown|not found)|manifest unknown"
        rf"|/manifests/.*not found|failed to resolve source metadata.*not found|^\S+: not found$|{_DENIED}",
        "Check the name and the tag of the base image; for a private one, `docker login` to its registry.",
    ),
    (
        _UNREACHABLE,
        "The engine does not reach the registry of the base image: check its name, the network and the engine's proxy. "
        "An image that the engine has already needs no registry.",
    ),
)
_OF_STEPS = _meanings(  # in what the step itself has written
    (_DISK_FULL, FREE_SPACE),
    (
        r"temporary failure in name resolution|could not resolve|name or service not known|network is unreachable"
        r"|no such host|failed to establish a new connection|bad address '",
        "The step does not reach the network: check the engine's DNS, and the proxy that steps get as build arguments.",
    ),
    (
        r"^(?:Killed|MemoryError)$|out of memory|cannot allocate memory",
        "The step ran out of memory: give the engine more.",
    ),
)
_OF_TRANSFERS = _meanings(
    (_DISK_FULL, FREE_SPACE),
    (_PLAIN_HTTP, "Give {host} a certificate, or name it in the engine's `insecure-registries`."),
    (_UNTRUSTED, "Let the engine trust the certificate of {host}: /etc/docker/certs.d/{host}/ca.crt."),
    (
        r"toomanyrequests|rate limit|\b429\b",
        "{host} takes no more requests for now: wait, or log in as a user with a higher limit.",
    ),
    (
        r"does not exist locally|tag does not exist",
        "Build the image first.",
    ),
    (
        r"manifest .*(?:unknown|not found)|manifest unknown|name unknown|repository .*not found",
        "Check the name; somebody may have deleted the image from {host}.",
    ),
    (
        _DENIED,
        "Run `docker login {host}` with a user who may do this, or name a block with such a user in "
        "`docker_registry_credentials`.",
    ),
    (_UNREACHABLE, "Check that {host} is the registry's address, that it is up, and that the engine reaches it."),
)
_TRANSIENT = re.compile(
    r"unexpected EOF|\bEOF$|connection reset|broken pipe|i/o timeout|tls handshake timeout|context deadline exceeded"
    r"|client\.timeout|connection timed out|HTTP status:? 5\d\d|\b50[0234] \w|use of closed network connection"
    r"|http2: server sent GOAWAY",
    re.IGNORECASE,
)


def is_transient(reason: str) -> bool:
    """Whether the same request to a registry may work a moment later: a dropped connection, a 5xx, a time-out."""
    return bool(_TRANSIENT.search(reason)) and not re.search(_DENIED, reason, re.IGNORECASE)


def build_remedy(reason: str, last_lines: Iterable[str]) -> str:
    """What to do about a build that failed, from the engine's reason, else from what the step has written."""
    lines = list(last_lines)
    written = (_remedy(_OF_STEPS, line) for line in reversed(lines))
    general = "The last lines of its output say why." if lines else ""
    return _remedy(_OF_BUILDS, reason) or next(filter(None, written), general)


def transfer_remedy(reason: str, registry: str) -> str:
    """What to do about a push or a pull that failed; empty where that is not known."""
    is_hub = registry == "docker.io"
    remedy = _remedy(_OF_TRANSFERS, reason).format(host="Docker Hub" if is_hub else registry)
    return remedy.replace("`docker login Docker Hub`", "`docker login`")


def _remedy(meanings: Meanings, text: str) -> str:
    return next((remedy for pattern, remedy in meanings if pattern.search(text)), "")

"""What image registries answer, read without asking any: challenges, tokens, digests, manifests.

Follows https://github.com/opencontainers/distribution-spec, https://github.com/opencontainers/image-spec and
https://distribution.github.io/distribution/spec/auth/token/.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.images.names import is_digest

MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
SAME_ARCHITECTURES = {
    "arm64/v8": "arm64",
    "arm": "arm/v7",
    "aarch64": "arm64",
    "x86_64": "amd64",
}
"""Other names of architectures, and those that images and people write."""

Document = Mapping[str, Any]

_CHALLENGE_PART = re.compile(
    r"""(?P<name>[\w-]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]+)) | (?P<scheme>[A-Za-z][\w-]*)""",
    re.VERBOSE | re.ASCII,
)
_TOKEN = re.compile(r"[\x21-\x7e]+")  # what a header can carry


@dataclass(frozen=True, kw_only=True, slots=True)
class Challenge:
    """How a registry wants to be told who asks: the `WWW-Authenticate` of its 401."""

    scheme: str  # in small letters: bearer, basic
    realm: str = ""  # of bearer: the address that gives tokens
    service: str = ""
    scope: str = ""


def challenge_in(headers: Iterable[str]) -> Challenge | None:
    """The challenge that we can meet, tokens before passwords; None where there is none.

    Args:
        headers: the values of all `WWW-Authenticate` headers of an answer; each may hold several challenges.
    """
    found = list(_challenges(", ".join(headers)))
    return next((each for scheme in ("bearer", "basic") for each in found if each.scheme == scheme), None)


def _challenges(header: str) -> Iterator[Challenge]:
    scheme, parameters = "", dict[str, str]()
    for part in _CHALLENGE_PART.finditer(header):
        if part["scheme"]:
            yield _challenge(scheme, parameters)
            scheme, parameters = part["scheme"], {}
        else:
            quoted = part["quoted"]
            parameters[part["name"].lower()] = part["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    yield _challenge(scheme, parameters)


def _challenge(scheme: str, parameters: Mapping[str, str]) -> Challenge:
    known = {name: parameters[name] for name in ("realm", "service", "scope") if name in parameters}
    return Challenge(scheme=scheme.lower(), **known)


def token_in(body: bytes) -> str | None:
    """The token that a token server gave; None where the answer holds none that a header can carry."""
    document = document_in(body) or {}
    token = document.get("token") or document.get("access_token")
    return token if isinstance(token, str) and _TOKEN.fullmatch(token) else None


def document_in(body: bytes) -> Document | None:
    """The JSON object that a body is; None where it is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def digest_for(body: bytes, algorithm: str = "sha256") -> str:
    """The digest of a content."""
    return f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"


def has_digest(body: bytes, digest: str) -> bool:
    """Whether this is the content that the digest stands for."""
    return is_digest(digest) and digest_for(body, digest.partition(":")[0]) == digest


def is_manifest(document: Document) -> bool:
    """Whether this is a manifest or an index, and no web page or error that somebody else answers with."""
    return document.get("schemaVersion") == 2 and (is_index(document) or config_digest(document) is not None)


def is_index(document: Document) -> bool:
    """Whether this lists manifests for several platforms."""
    return isinstance(document.get("manifests"), list)


def manifest_for(index: Document, platform: str = "") -> str | None:
    """The digest of the manifest in an index that is for a platform, else of the first that is an image.

    Args:
        index: an image index, or Docker's manifest list.
        platform: `os/architecture` or `os/architecture/variant`; empty for any.

    Returns:
        The digest, None where the index has no image.
    """
    images = [each for each in index["manifests"] if isinstance(each, dict) and not _is_attestation(each)]
    fitting = [each for each in images if platform and _platform_of(each) == _normalised(platform)]
    for descriptor in (*fitting, *images):
        digest = _digest_of(descriptor)
        if digest is not None:
            return digest
    return None


def config_digest(manifest: Document) -> str | None:
    """The digest of an image's configuration; None where the manifest names none."""
    return _digest_of(manifest.get("config"))


def labels_in(configuration: Document) -> dict[str, str]:
    """The labels of an image, from its configuration."""
    section = configuration.get("config")
    labels = section.get("Labels") if isinstance(section, dict) else None
    return {str(name): str(value) for name, value in labels.items()} if isinstance(labels, dict) else {}


def _digest_of(descriptor: Any) -> str | None:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    return digest if isinstance(digest, str) and is_digest(digest) else None


def _is_attestation(descriptor: Document) -> bool:
    """Whether this describes an image (provenance, a list of its packages), as BuildKit adds it beside the image."""
    annotations = descriptor.get("annotations")
    kind = annotations.get("vnd.docker.reference.type") if isinstance(annotations, dict) else None
    return kind == "attestation-manifest" or _platform_of(descriptor) == "unknown/unknown"


def _platform_of(descriptor: Document) -> str:
    platform = descriptor.get("platform")
    if not isinstance(platform, dict):
        return ""
    parts = (platform.get("os"), platform.get("architecture"), platform.get("variant"))
    return _normalised("/".join(part for part in parts if isinstance(part, str) and part))


def _normalised(platform: str) -> str:
    system, _, architecture = platform.lower().partition("/")
    return f"{system}/{SAME_ARCHITECTURES.get(architecture, architecture)}"

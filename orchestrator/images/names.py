"""Names of images, as Docker reads them.

Follows the grammar of https://github.com/distribution/reference, and its rules for what people leave out: `python` is
`docker.io/library/python`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from orchestrator.errors import ConfigurationError
from orchestrator.masking import concealed, masked
from orchestrator.model import ImageResult, ImageSpec, PlannedImage

DOCKER_HUB = "docker.io"
DEFAULT_TAG = "latest"
LONGEST_PATH = 255
LONGEST_SHOWN = 200  # characters of a text that an error quotes

_LEGACY_HUB = "index.docker.io"
_OFFICIAL = "library/"
_HOST = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])"
    r"(?::[0-9]+)?"
)
_PATH_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_DIGEST = r"sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128}"
_BEHIND_HOST = re.compile(
    rf"(?P<path>{_PATH_PART}(?:/{_PATH_PART})*)(?::(?P<tag>\w[\w.-]{{0,127}}))?(?:@(?P<digest>{_DIGEST}))?", re.ASCII
)
_IMAGE_ID = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageName:
    """The name of an image, in its parts: `registry.example.com:5000/team/shop-etl:tag@sha256:…`."""

    registry: str  # "docker.io" for Docker Hub
    path: str  # "library/python", "team/shop-etl"
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """Registry and path, as people write them: `python`, `registry.example.com/team/shop-etl`."""
        if self.registry != DOCKER_HUB:
            return f"{self.registry}/{self.path}"
        short = self.path.removeprefix(_OFFICIAL)
        path = self.path if "/" in short else short
        # Docker's own short form of these would be read as something else.
        is_ambiguous = _IMAGE_ID.fullmatch(path) or _split(path)[0] != DOCKER_HUB
        return f"{DOCKER_HUB}/{path}" if is_ambiguous else path

    @property
    def familiar(self) -> str:
        """The whole name, as people write it; `parse_image` reads it back."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"

    @property
    def reference(self) -> str:
        """What a registry is asked for: the digest, else the tag, else `latest`."""
        return self.digest or self.tag or DEFAULT_TAG


def parse_image(text: str) -> ImageName:
    """Read the name of an image.

    Raises:
        ConfigurationError: it is none.
    """
    registry, rest = _split(text)
    match = _BEHIND_HOST.fullmatch(rest)
    if not match or not _HOST.fullmatch(registry) or _IMAGE_ID.fullmatch(text) or len(match["path"]) > LONGEST_PATH:
        reason, remedy = _what_is_wrong(text, registry, rest)
        shown = masked("", text[:LONGEST_SHOWN])  # a URL with a password is no name either
        raise ConfigurationError(f"{shown!r} is no name of an image: {reason}.", remedy=remedy)
    return ImageName(registry=registry, path=match["path"], tag=match["tag"] or "", digest=match["digest"] or "")


def without_secrets_of(spec: ImageSpec, text: str) -> str:
    """A text without the parts of an image's name that are secret: a block gave them."""
    return str(concealed(text, spec.concealed))


def shown_name(image: PlannedImage | ImageResult) -> str:
    """An image's name as people may see it."""
    return without_secrets_of(image.spec, image.name)


def is_digest(text: str) -> bool:
    """Whether this is the digest of a content: `sha256:` and 64 hexadecimal digits, or sha384 or sha512 likewise."""
    return re.fullmatch(_DIGEST, text) is not None


def registry_host(address: str) -> str:
    """The registry that an address means, as `ImageName.registry` has it.

    Docker's configuration and people write `https://index.docker.io/v1/` and the like.
    """
    host = address.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return DOCKER_HUB if host == _LEGACY_HUB else host


def _split(text: str) -> tuple[str, str]:
    """The registry, and what comes behind it with Docker Hub's folder added where that is left out."""
    first, slash, rest = text.partition("/")
    # Capital letters are not allowed in a path, so that Docker takes `Team/etl` for a host.
    is_host = slash and (first == "localhost" or "." in first or ":" in first or first != first.lower())
    registry, rest = (registry_host(first), rest) if is_host else (DOCKER_HUB, text)
    return registry, f"{_OFFICIAL}{rest}" if registry == DOCKER_HUB and "/" not in rest else rest


def _what_is_wrong(text: str, registry: str, rest: str) -> tuple[str, str]:
    """Why a text is no name of an image, and what to do about it."""
    path, at, digest = rest.partition("@")
    path, colon, tag = path.removeprefix(_OFFICIAL).partition(":")
    if not text.strip():
        return "it is empty", "Write REPOSITORY:TAG, such as registry.example.com/team/shop-etl:1.0."
    if re.search(r"\s", text):
        return "it holds blanks", "Take them out."
    if "://" in text:
        return "it is an address", "Leave out what stands before the registry's host: https:// and the like."
    if _IMAGE_ID.fullmatch(text):
        return "it is the id of an image", "Name its repository; a digest comes behind it: REPOSITORY@sha256:…"
    if not _HOST.fullmatch(registry):
        return "what stands before the first / is no host", "Write HOST or HOST:PORT: registry.example.com:5000."
    if path != path.lower():
        return "it holds capital letters", f"Write it in small letters: {masked('', path.lower())}."
    if len(path) > LONGEST_PATH:
        return f"it is longer than {LONGEST_PATH} characters", "Shorten it."
    if at and not is_digest(digest):
        return "what stands behind the @ is no digest", "Write sha256: and 64 hexadecimal digits in small letters."
    if colon and not re.fullmatch(r"\w[\w.-]{0,127}", tag, re.ASCII):
        return "what stands behind the : is no tag", "It may have 128 letters, digits, dots, dashes and underscores."
    return (
        "its parts may hold small letters and digits, with single dots, dashes and underscores between them",
        "Write REPOSITORY:TAG, such as registry.example.com/team/shop-etl:1.0.",
    )

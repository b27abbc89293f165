"""The files of the repository that images are built from: which they are, and a digest that tells when they change.

Base images have no part in it: what they are does not lie in the repository.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path

from orchestrator.errors import OrchestratorError
from orchestrator.images.context import read_inputs
from orchestrator.images.context_files import FileDigests
from orchestrator.model import BuildInputs, ImageSpec


def image_files(root: Path, specs: Iterable[ImageSpec]) -> frozenset[str]:
    """The files that some images are built from, relative to the root; none of one that cannot be read."""
    found: set[str] = set()
    for spec, inputs in _read(root, specs):
        ignores = (f"{spec.dockerfile}.dockerignore", posixpath.join(spec.context, ".dockerignore"))
        found |= {spec.dockerfile, *ignores}
        found |= {posixpath.join(spec.context, entry.path) for entry in inputs.entries if entry.kind != "folder"}
    return frozenset(found)


def source_digests(root: Path, specs: Iterable[ImageSpec]) -> dict[ImageSpec, str]:
    """A digest over all that the repository gives to each image; none of one that cannot be read."""
    return {spec: inputs.digest for spec, inputs in _read(root, specs)}


def _read(root: Path, specs: Iterable[ImageSpec]) -> Iterator[tuple[ImageSpec, BuildInputs]]:
    cache = FileDigests(root)
    for spec in specs:
        try:
            yield spec, read_inputs(root, spec, cache=cache)
        except OrchestratorError:  # a plan tells it
            continue
    cache.save()

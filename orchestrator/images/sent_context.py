"""What an image is built from, as it is sent to a builder.

It is the same, byte for byte, where the input digest is: owners, times and the permissions of others are not those of
the disk.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tarfile import DIRTYPE, GNU_FORMAT, SYMTYPE, TarInfo
from typing import IO

from orchestrator.dockerignore import read_dockerignore
from orchestrator.errors import ImageError
from orchestrator.images.context import IGNORE_FILE, location_of_context
from orchestrator.images.context_files import blocks_of
from orchestrator.local import STATE_FOLDER
from orchestrator.model import BuildInputs, ContextEntry

DOCKERFILE_IN_CONTEXT = ".orchestrator.Dockerfile"
"""The name under which a Dockerfile is sent that is no file of what is sent: see `dockerfile_in`."""

TIME = 315_532_800  # 1980: of everything that is sent; ZIP files, wheels among them, know no earlier time

_BLOCK = 512  # bytes, of a tar


@dataclass(frozen=True, slots=True)
class SentContext:
    """What an image is built from, as builders take it: see `builders.BuildContext`.

    Attributes:
        root: the repository.
        inputs: what was read.
    """

    root: Path
    inputs: BuildInputs

    @property
    def dockerfile(self) -> str:
        """The path of the Dockerfile in the tar."""
        return dockerfile_in(self.inputs)

    @property
    def place(self) -> Path | None:
        """Where temporary files may lie that docker has to read; None: where the system has them.

        A docker client that was installed as a snap does not see the system's.
        """
        state = self.root / STATE_FOLDER
        return state if os.access(state, os.W_OK) else None

    def write_tar(self, file: IO[bytes]) -> None:
        """Write it for the classic builder: see `write_tar`."""
        _explained(lambda: write_tar(self.root, self.inputs, file), tempfile.gettempdir())

    def write_folder(self, folder: Path) -> None:
        """Write it for BuildKit: see `write_folder`."""
        _explained(lambda: write_folder(self.root, self.inputs, folder), str(folder))


def _explained(write: Callable[[], None], place: str) -> None:
    """Write something.

    Raises:
        ImageError: there is no room for it, or a file has changed.
    """
    try:
        write()
    except OSError as error:
        raise ImageError(
            f"Its build context could not be written: {error.strerror or error}.",
            location=place,
            remedy="Make room there, or name another folder in the environment variable TMPDIR.",
        ) from error


def dockerfile_in(inputs: BuildInputs) -> str:
    """The path of the Dockerfile in what is sent: what an engine's `dockerfile` has to be."""
    spec = inputs.spec
    inside = posixpath.relpath(f"/{spec.dockerfile}", f"/{spec.context}")
    digest = hashlib.sha256(_encoded(inputs.dockerfile_text)).hexdigest()
    if any(entry.path == inside and entry.content == digest for entry in inputs.entries):
        return inside
    name, paths = DOCKERFILE_IN_CONTEXT, {entry.path for entry in inputs.entries}
    while name in paths:
        name += "_"
    return name


def write_tar(root: Path, inputs: BuildInputs, file: IO[bytes]) -> None:
    """Write what an image is built from as a tar: equal inputs give equal bytes.

    Docker's classic builder sees exactly the entries in it: a Dockerfile that is none of them is removed again by a
    .dockerignore that is sent for that, as docker's own clients do it. BuildKit takes a tar as it is, and would show
    these two to a `COPY . .`: it gets a folder.

    Args:
        root: the repository.
        inputs: what was read.
        file: where to write.

    Raises:
        ImageError: a file holds something else than when it was read.
    """
    location = location_of_context(root, inputs.spec)
    added = _added(location, inputs)
    for name in sorted(added):
        file.write(_header(ContextEntry(path=name, kind="file", size=len(added[name]))))
        _write_padded(file, [added[name]])
    for entry in inputs.entries:
        if entry.path not in added:
            file.write(_header(entry))
            _write_padded(file, _content(location, entry) if entry.kind == "file" else ())
    file.write(bytes(2 * _BLOCK))


def _header(entry: ContextEntry) -> bytes:
    """GNU's form keeps names as they are, also those that are no UTF-8."""
    info = TarInfo(entry.path)
    info.mtime = TIME
    info.mode = _mode(entry)
    info.size = entry.size
    if entry.kind == "folder":
        info.type = DIRTYPE
    elif entry.kind == "link":
        info.type, info.linkname = SYMTYPE, entry.content
    return info.tobuf(GNU_FORMAT, "utf-8", "surrogateescape")


def _mode(entry: ContextEntry) -> int:
    if entry.kind == "link":
        return 0o777
    return 0o755 if entry.kind == "folder" or entry.is_executable else 0o644


def _write_padded(file: IO[bytes], blocks: Iterable[bytes]) -> None:
    size = 0
    for block in blocks:
        file.write(block)
        size += len(block)
    file.write(bytes(-size % _BLOCK))


def _content(location: str, entry: ContextEntry) -> Iterator[bytes]:
    """What a file holds, as long as that is what it held when it was read."""
    digest, left = hashlib.sha256(), entry.size
    try:
        for block in blocks_of(f"{location}/{entry.path}"):
            digest.update(block)
            left -= len(block)
            if left < 0:
                break
            yield block
    except OSError as error:
        raise _changed(entry) from error
    if left or digest.hexdigest() != entry.content:
        raise _changed(entry)


def _changed(entry: ContextEntry) -> ImageError:
    return ImageError(
        f"{entry.path!r} of the build context has changed while the image was built.",
        remedy="Build again, when nothing writes to it any more; or leave it out in .dockerignore.",
    )


def _added(location: str, inputs: BuildInputs) -> dict[str, bytes]:
    """What is sent besides the entries, or in place of one: the Dockerfile, and a .dockerignore that removes it.

    The classic builder asks the .dockerignore that it is sent about two files only, the Dockerfile and itself.
    Where an image holds the user's own, a line or two are added to it, as docker's clients do.
    """
    dockerfile = dockerfile_in(inputs)
    entries = {entry.path: entry for entry in inputs.entries}
    ignore_entry = entries.get(IGNORE_FILE)
    written = b"".join(_content(location, ignore_entry)) if ignore_entry and ignore_entry.kind == "file" else b""
    excludes = read_dockerignore(written.decode("utf-8", "surrogateescape")).excludes
    added = {} if dockerfile in entries else {dockerfile: _encoded(inputs.dockerfile_text)}
    if not added and ignore_entry is None:
        return {}
    hidden = [name for name in (IGNORE_FILE, dockerfile) if name not in entries and not excludes(name)]
    shown = [name for name in (IGNORE_FILE, dockerfile) if name in entries and excludes(name)]
    lines = [*map(_escaped, hidden), *(f"!{_escaped(name)}" for name in shown)]
    if lines:
        added[IGNORE_FILE] = b"\n".join([*([written] if written else []), *map(_encoded, lines), b""])
    return added


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[\\])", r"\\\1", name)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def write_folder(root: Path, inputs: BuildInputs, folder: Path) -> None:
    """Write what an image is built from as files: for a docker client that sends a folder itself, as to BuildKit.

    `docker build --file FOLDER/Dockerfile FOLDER/context` sees exactly the entries.

    Args:
        root: the repository.
        inputs: what was read.
        folder: an empty folder; it gets `Dockerfile`, `Dockerfile.dockerignore` and `context`.

    Raises:
        ImageError: a file holds something else than when it was read.
    """
    location = location_of_context(root, inputs.spec)
    (folder / "Dockerfile").write_bytes(_encoded(inputs.dockerfile_text))
    # It goes before a .dockerignore among the entries, which would be asked a second time.
    (folder / "Dockerfile.dockerignore").write_text("# What docker shall not see is not here.\n", encoding="utf-8")
    context = folder / "context"
    context.mkdir()
    for entry in inputs.entries:
        _make(location, entry, context / entry.path)
    for place in (*(context / entry.path for entry in reversed(inputs.entries)), context):
        os.utime(place, (TIME, TIME), follow_symlinks=False)  # of a folder, after all in it is made


def _make(location: str, entry: ContextEntry, place: Path) -> None:
    if entry.kind == "link":
        return place.symlink_to(entry.content)
    if entry.kind == "folder":
        place.mkdir()
    else:
        with place.open("xb") as file:
            file.writelines(_content(location, entry))
    return place.chmod(_mode(entry))

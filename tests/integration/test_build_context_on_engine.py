"""What a real engine makes of what we send it: its builders see exactly the entries, whichever of them builds."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import BuildError, DockerException

from orchestrator.images.context import read_inputs
from orchestrator.images.sent_context import dockerfile_in, write_folder, write_tar
from orchestrator.model import BuildInputs, ContextEntry, ImageSpec
from tests.unit.builders import write_files

pytestmark = pytest.mark.docker

ALL = "FROM scratch\nCOPY . /x\n"
BUILDKIT_MOVED_OUT = 23  # the docker client's major version from which BuildKit needs the buildx plugin

Build = Callable[[Path, BuildInputs], str]
"""Builds an image, and returns its id. Raises BuildError."""

Builder = Callable[[Path, BuildInputs], list[str]]
"""The same, with the images of other stages before it."""


def unavailable(reason: str) -> None:
    if os.environ.get("REQUIRE_DOCKER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        unavailable(f"no Docker engine answers: {error}")
    yield client
    client.close()


@pytest.fixture(params=["classic", "buildkit"])
def build(request: pytest.FixtureRequest, engine: docker.DockerClient) -> Iterator[Build]:
    """One of the engine's builders. What it has built is removed."""
    built: list[str] = []
    make = classic_builder(engine) if request.param == "classic" else buildkit_builder()

    def remembered(root: Path, inputs: BuildInputs) -> str:
        built.extend(make(root, inputs))
        return built[-1]

    yield remembered
    for id_ in reversed(dict.fromkeys(built)):
        engine.images.remove(id_, force=True)


def classic_builder(engine: docker.DockerClient) -> Builder:
    def make(root: Path, inputs: BuildInputs) -> list[str]:
        with tempfile.TemporaryFile() as tar:
            write_tar(root, inputs, tar)
            tar.seek(0)
            options: dict[str, Any] = {"custom_context": True, "rm": True, "forcerm": True, "decode": True}
            events = list(engine.api.build(fileobj=tar, dockerfile=dockerfile_in(inputs), **options))
        if errors := [event["error"] for event in events if "error" in event]:
            raise BuildError(errors[0], iter(events))
        return [str(event["aux"]["ID"]) for event in events if "ID" in event.get("aux", {})]

    return make


def buildkit_builder() -> Builder:
    client = buildkit_client()
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}

    def make(root: Path, inputs: BuildInputs) -> list[str]:
        with tempfile.TemporaryDirectory() as folder:
            write_folder(root, inputs, Path(folder))
            options = ["--file", f"{folder}/Dockerfile", "--iidfile", f"{folder}/id", "--network", "host"]
            done = subprocess.run(
                [*client, *options, f"{folder}/context"], env=environment, capture_output=True, text=True, timeout=120
            )
            if done.returncode:
                raise BuildError(done.stderr, iter(()))
            return [Path(folder, "id").read_text()]

    return make


def buildkit_client() -> list[str]:
    """A command of the first docker client on the path that can build with BuildKit."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        path = shutil.which("docker", path=folder)
        if path and said([path, "buildx", "version"]):
            return [path, "buildx", "build", "--builder", "default", "--load"]
        version = re.match(r"Docker version (\d+)", said([path, "--version"])) if path else None
        if path and version and int(version[1]) < BUILDKIT_MOVED_OUT:
            return [path, "build"]
    unavailable("no docker client here can build with BuildKit")
    return []


def said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout if done.returncode == 0 else ""


def content_of(engine: docker.DockerClient, image: str, folder: str = "x") -> list[ContextEntry]:
    """What lies in a folder of an image."""
    container = engine.containers.create(image, ["nothing"], network_mode="none")
    try:
        chunks, _ = container.get_archive(f"/{folder}")
        archive = io.BytesIO(b"".join(chunks))
    finally:
        container.remove(force=True)
    found = []
    with tarfile.open(fileobj=archive, errors="surrogateescape") as tar:
        for member in tar:
            path = member.name.partition("/")[2]
            assert member.issym() or member.mode & 0o7777 in (0o644, 0o755), oct(member.mode)
            assert (member.uid, member.gid) == (0, 0)
            if path:
                found.append(entry_of(path, member, tar))
    return sorted(found, key=lambda entry: entry.path)


def entry_of(path: str, member: tarfile.TarInfo, tar: tarfile.TarFile) -> ContextEntry:
    if member.issym():
        return ContextEntry(path=path, kind="link", content=member.linkname)
    if member.isdir():
        return ContextEntry(path=path, kind="folder")
    file = tar.extractfile(member)
    assert file is not None
    content = file.read()
    is_executable = bool(member.mode & 0o100)
    digest = hashlib.sha256(content).hexdigest()
    return ContextEntry(path=path, kind="file", is_executable=is_executable, size=len(content), content=digest)


def without_ignore_file(entries: list[ContextEntry]) -> list[ContextEntry]:
    """The classic builder is sent one with a line more, as by docker's own clients: see `write_tar`."""
    return [entry for entry in entries if entry.path != ".dockerignore"]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A repository with something of everything."""
    root = write_files(
        tmp_path / "shop",
        {
            "flows/etl.py": "x = 1",
            "flows/deep/er/a.py": "y = 1",
            "flows/run.sh": "exec true",
            "tests/a.py": "",
            "requirements.txt": "pandas",
            "requirements-dev.txt": "pytest",
            "data/big.csv": "1,2",
            "data/small.csv": "1",
            "a.log": "",
            ".git/HEAD": "",
            f"{'long' * 40}/{'name' * 40}": "",
        },
    )
    (root / "empty").mkdir()
    (root / "flows/run.sh").chmod(0o711)
    (root / "flows/etl.py").chmod(0o600)
    (root / "flows/deep").chmod(0o700)
    (root / "flows/latest").symlink_to("etl.py")
    (root / "flows/outside").symlink_to("/etc/hostname")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff.py")).write_bytes(b"odd")
    return root


IGNORING = "*.log\ndata\n!data/small.csv\n"


@pytest.mark.parametrize(
    ("files", "spec"),
    [
        ({}, {"dockerfile_text": ALL}),
        ({".dockerignore": IGNORING}, {"dockerfile_text": ALL}),
        ({".dockerignore": IGNORING, "Dockerfile": ALL}, {}),
        ({".dockerignore": f"{IGNORING}.dockerignore\n", "Dockerfile": ALL}, {}),
        ({".dockerignore": f"{IGNORING}Dockerfile\n", "Dockerfile": ALL}, {}),
        ({".dockerignore": f"{IGNORING}Dockerfile\n.dockerignore\n", "Dockerfile": ALL}, {}),
        ({".dockerignore": "*\n!flows/**/*.py\n", "Dockerfile": ALL}, {}),
        (
            {".dockerignore": "*", "a.Dockerfile": ALL, "a.Dockerfile.dockerignore": "data"},
            {"dockerfile": "a.Dockerfile"},
        ),
        (
            {"flows/.dockerignore": "deep", "docker/Dockerfile": ALL},
            {"dockerfile": "docker/Dockerfile", "context": "flows"},
        ),
        ({".orchestrator.Dockerfile": "mine"}, {"dockerfile_text": ALL}),
    ],
    ids=[
        "text",
        "text-ignore",
        "both",
        "no-ignore",
        "no-dockerfile",
        "neither",
        "exceptions",
        "own",
        "elsewhere",
        "name",
    ],
)
def test_a_builder_sees_exactly_the_entries(
    engine: docker.DockerClient, build: Build, shop: Path, files: dict[str, str], spec: dict[str, str]
) -> None:
    write_files(shop, files)
    inputs = read_inputs(shop, ImageSpec(repository="shop/etl", **{"dockerfile": "Dockerfile", **spec}))
    seen = content_of(engine, build(shop, inputs))
    assert without_ignore_file(seen) == without_ignore_file(list(inputs.entries))
    assert [entry.path for entry in seen] == [entry.path for entry in inputs.entries]


def image(*lines: str, **fields: Any) -> ImageSpec:
    text = "\n".join(["FROM scratch", *lines, ""])
    return ImageSpec(repository="shop/etl", dockerfile="Dockerfile", dockerfile_text=text, **fields)


@pytest.mark.parametrize(
    "lines",
    [
        ["COPY flows /x/"],
        ["COPY flows/deep requirements.txt /x/"],
        ["COPY flows/../flows/deep/ /x/"],
        ["COPY requirements*.txt /x/"],
        ["COPY requirements[a-z_]*.txt */a.py flows/?tl.py /x/"],
        ["COPY requirements.txt nothing*.txt /x/"],
        ['COPY ["flows", "/x/"]'],
        ["ARG WHERE=flows", "COPY ${WHERE}/deep /x/"],
        ["COPY flows/latest /x/"],
        ["COPY flows/la* /x/"],
        ["ADD flows/etl.py /x/"],
        ["COPY empty data /x/"],
        ["COPY flows /y/", "FROM scratch", "COPY --from=0 /y/deep /x/"],
    ],
)
def test_nothing_is_missing_of_what_is_copied(
    engine: docker.DockerClient, build: Build, shop: Path, lines: list[str]
) -> None:
    write_files(shop, {".dockerignore": IGNORING})
    part = read_inputs(shop, image(*lines))
    whole = read_inputs(shop, image(*lines, takes_whole_context=True))
    assert part.missing == whole.missing == ()
    assert content_of(engine, build(shop, part)) == content_of(engine, build(shop, whole)) != []


@pytest.mark.parametrize(
    ("lines", "errors", "warnings"),
    [
        (["COPY nothing /x/"], 1, 0),
        (["COPY nothing flows neither /x/"], 2, 0),
        (["COPY flows/etl.py/x /x/"], 1, 0),
        (["COPY a.log /x/"], 1, 0),
        (["COPY data/big.csv /x/"], 1, 0),
        (["COPY .git /x/"], 1, 0),
        (["COPY nothing* /x/"], 0, 1),
        (["COPY *.log /x/"], 0, 1),
    ],
)
def test_what_is_missing_fails(
    request: pytest.FixtureRequest, build: Build, shop: Path, lines: list[str], errors: int, warnings: int
) -> None:
    write_files(shop, {".dockerignore": IGNORING})
    inputs = read_inputs(shop, image(*lines))
    severities = [fault.severity for fault in inputs.missing]
    assert (severities.count("error"), severities.count("warning")) == (errors, warnings)
    if errors or "classic" in request.node.callspec.id:
        with pytest.raises(BuildError, match=r"(?i)no such file|not found|no source files|not a directory"):
            build(shop, inputs)
    else:
        build(shop, inputs)


def test_a_stage_that_is_not_needed_may_lack_something_for_buildkit(
    request: pytest.FixtureRequest, build: Build, shop: Path
) -> None:
    inputs = read_inputs(shop, image("COPY nothing /x/", "FROM scratch", "COPY flows /x/"))
    assert inputs.missing == ()
    if "classic" in request.node.callspec.id:
        with pytest.raises(BuildError):
            build(shop, inputs)
    else:
        build(shop, inputs)


@pytest.mark.parametrize("build", ["buildkit"], indirect=True)
def test_what_a_mount_shows(engine: docker.DockerClient, build: Build, shop: Path) -> None:
    text = "FROM python:3.11-slim\nRUN --mount=type=bind,source=flows,target=/f cp -r /f /x\n"
    inputs = read_inputs(shop, ImageSpec(repository="shop/etl", dockerfile="D", dockerfile_text=text))
    seen = content_of(engine, build(shop, inputs))
    assert [f"flows/{entry.path}" for entry in seen] == [entry.path for entry in inputs.entries][1:]


def test_the_same_again_comes_from_the_cache(
    engine: docker.DockerClient, build: Build, shop: Path, tmp_path: Path
) -> None:
    """Neither times nor modes of the checkout make an engine build anew."""
    inputs = read_inputs(shop, image("COPY flows /x/"))
    first = build(shop, inputs)
    other = tmp_path / "other"
    shutil.copytree(shop, other, symlinks=True)
    for path in other.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700 | 0o055)
            os.utime(path, (1, 1))
    assert build(other, read_inputs(other, inputs.spec)) == first

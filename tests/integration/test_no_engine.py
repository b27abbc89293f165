"""What the door to the Docker engine says where there is none. No engine is needed for it."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.errors import EngineUnavailable
from orchestrator.images.engine import open_engine

from .conftest import free_port
from .small_servers import ClosedRegistry, OldEngine, served


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Paths of unix sockets must be short."""
    folder = Path(tempfile.mkdtemp(prefix="o-"))
    yield folder
    shutil.rmtree(folder)


async def failing() -> EngineUnavailable:
    with pytest.raises(EngineUnavailable) as caught:
        async with open_engine():
            pass
    return caught.value


async def test_no_socket(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{short_folder}/none")
    error = await failing()
    assert "socket is not there" in error.message
    assert error.location == f"unix://{short_folder}/none"
    assert "Start Docker" in error.remedy and "DOCKER_HOST" in error.remedy


async def test_nobody_listens(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in (f"unix://{short_folder}/left", f"tcp://127.0.0.1:{free_port()}"):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(short_folder / f"left{'' if address.startswith('unix') else '2'}"))
        monkeypatch.setenv("DOCKER_HOST", address)
        error = await failing()
        assert "nothing listens there" in error.message
        assert error.location == address


async def test_no_permission(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = short_folder / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(stat.S_IRUSR)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        with without_roots_rights():
            error = await failing()
    assert "may not use" in error.message
    assert "usermod -aG docker" in error.remedy


async def test_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(OldEngine) as address:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://{address}")
        error = await failing()
    assert "another version of the API" in error.message
    assert error.remedy == "Update Docker."


async def test_no_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2376")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    error = await failing()
    assert "TLS" in error.message and "DOCKER_CERT_PATH" in error.remedy


@pytest.mark.parametrize("address", ["nonsense://here", "unix://", "tcp://somebody:password@127.0.0.1:1"])
async def test_what_is_no_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    error = await failing()
    assert "DOCKER_HOST" in error.remedy
    assert "password" not in str(error)


async def test_something_else_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(ClosedRegistry) as address:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://{address}")
        error = await failing()
    assert "cannot be used" in error.message


@contextmanager
def without_roots_rights() -> Iterator[None]:
    """As another user, where we are root: root may use any socket."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)

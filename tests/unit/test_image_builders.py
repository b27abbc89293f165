"""Which builder is taken, and which docker client can drive BuildKit."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.images.builders import BuildKitClient, BuildRequest, find_buildkit_client, wants_buildkit


@pytest.mark.parametrize(
    ("setting", "engine_has_it", "wanted"),
    [
        (None, True, True),
        (None, False, False),
        ("", True, True),
        ("1", False, True),
        ("true", False, True),
        ("0", True, False),
        ("False", True, False),
    ],
)
def test_as_docker_build_decides(
    setting: str | None, engine_has_it: bool, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_BUILDKIT", raising=False)
    if setting is not None:
        monkeypatch.setenv("DOCKER_BUILDKIT", setting)
    assert wants_buildkit(engine_has_it) is wanted


@pytest.mark.parametrize(
    ("version", "buildx", "has_buildx"),
    [
        ("Docker version 20.10.24+dfsg1, build 297e128", "", False),  # BuildKit is part of it
        ("Docker version 28.2.2, build e6534b4", "", None),
        ("Docker version 28.2.2, build e6534b4", "github.com/docker/buildx v0.24.0 d0e5e86", True),
        ("Docker version 20.10.24, build 297e128", "github.com/docker/buildx v0.10.5", True),
        ("podman version 4.3.1", "", None),
    ],
)
def test_which_client_can(
    version: str, buildx: str, has_buildx: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tmp_path / "docker"
    client.write_text(
        f"""#!/bin/sh
        case "$*" in
            "buildx version") echo "{buildx}"; test -n "{buildx}" ;;
            --version) echo "{version}" ;;
            *) exit 1 ;;
        esac
        """
    )
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    expected = None if has_buildx is None else BuildKitClient(str(client), has_buildx)
    assert find_buildkit_client() == expected


def test_no_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_buildkit_client() is None


def test_a_request_shows_no_secrets() -> None:
    request = BuildRequest(dockerfile_text="", shown_as="", arguments={"A": "geheim"}, secrets=("geheim",))
    assert "geheim" not in repr(request)

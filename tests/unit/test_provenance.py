"""Where an apply comes from."""

from __future__ import annotations

import getpass
import socket
import subprocess
from pathlib import Path

import pytest

from orchestrator.pipeline import discover_flows, load_settings
from orchestrator.provenance import deployed_files, provenance, user_at_host
from tests.unit.builders import write_files


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return write_files(
        tmp_path,
        {
            "flows/etl.py": "from prefect import flow\nfrom helpers import help\n@flow\ndef etl(): ...\n",
            "helpers.py": "def help(): ...\n",
            "other.py": "",
            "prefect.yaml": "deployments: []\n",
            "environments/base.yaml": "{}\n",
            "environments/staging.yaml": "{}\n",
            "environments/production.yaml": "{}\n",
        },
    )


def test_what_is_deployed_is_what_an_environment_is_made_of(root: Path) -> None:
    settings = load_settings(root, "staging")
    discovery = discover_flows(settings.root, settings.project, settings.declarations)
    assert deployed_files(settings, discovery) == {
        "flows/etl.py",
        "helpers.py",
        "prefect.yaml",
        "environments/base.yaml",
        "environments/staging.yaml",
    }


def test_a_file_that_is_not_deployed_makes_nothing_dirty(root: Path) -> None:
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=A", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=root, check=True, capture_output=True)
    write_files(root, {"plan.json": "{}"})
    assert provenance(root).is_dirty is True
    assert provenance(root, files={"flows/etl.py"}).is_dirty is False
    found = provenance(root, "schedule", "why", run_name="quick-fox", files={"plan.json"})
    assert (found.trigger, found.note, found.by, found.is_dirty) == ("schedule", "why", "quick-fox", True)
    assert found.commit is not None and len(found.commit) == 40


def test_without_git_only_the_person_is_known(root: Path) -> None:
    found = provenance(root)
    assert (found.commit, found.is_dirty, found.trigger) == (None, False, "command line")
    assert found.by == f"{getpass.getuser()}@{socket.gethostname()}"


def test_a_user_without_a_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 987654)
    assert user_at_host() == f"unknown@{socket.gethostname()}"

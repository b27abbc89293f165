"""A plan that a person looks at: kept in a file, and what is no such file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import Policy
from orchestrator.errors import ConfigurationError, RefusedError
from orchestrator.model import DeploymentConfig, Desired, Owner, Plan
from orchestrator.options import Scope
from orchestrator.plan import make_plan
from orchestrator.plan_report import plan_json
from orchestrator.review import read_review, write_review
from tests.unit.builders import API_URL, OWNER, deployment

SCOPE = Scope(only=("etl/*",), kind="python", adopt=("x/*",))


def plan(*wanted: DeploymentConfig, owner: Owner = OWNER) -> Plan:
    return make_plan(Desired(owner=owner, deployments=wanted), (), api_url=API_URL, policy=Policy())


def written(folder: Path, found: Plan, **changed: Any) -> Path:
    file = folder / "plan.json"
    write_review(file, plan_json(found), found, SCOPE)
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
    return file


def test_what_was_written_is_read(tmp_path: Path) -> None:
    review = read_review(written(tmp_path, plan(deployment())), Scope())
    assert review.scope == SCOPE
    review.check(plan(deployment()))


def test_another_plan_is_refused_and_says_what_moved(tmp_path: Path) -> None:
    review = read_review(written(tmp_path, plan(deployment())), Scope())
    with pytest.raises(
        RefusedError, match=r"\(etl/daily: create then, nothing now; etl/new: nothing then, create now\)"
    ):
        review.check(plan(deployment("etl/new")))


def test_another_environments_plan_is_named(tmp_path: Path) -> None:
    review = read_review(written(tmp_path, plan()), Scope())
    with pytest.raises(ConfigurationError, match="for the environment development; nothing was changed in staging"):
        review.check(plan(owner=Owner(project="shop", environment="staging")))


@pytest.mark.parametrize(
    "changed",
    [
        {"outline": {"etl/daily": {}}},
        {"outline": []},
        {"outline": {"a": {"action": 5, "fields": []}}},
        {"scope": {"only": 5}},
    ],
)
def test_what_somebody_edited_is_no_plan(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="This is no plan"):
        read_review(written(tmp_path, plan(deployment()), **changed), Scope())


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"environment": "x"}', "\x00"])
def test_what_is_no_plan(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ConfigurationError, match="This is no plan"):
        read_review(tmp_path / "plan.json", Scope())


def test_a_file_that_is_not_there_or_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_review(tmp_path / "plan.json", Scope())
    with pytest.raises(ConfigurationError, match="cannot be written there: Is a directory"):
        write_review(tmp_path, plan_json(plan()), plan(), SCOPE)


def test_a_plan_says_itself_what_it_is_about(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="says itself what it is about"):
        read_review(written(tmp_path, plan()), SCOPE)

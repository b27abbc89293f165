"""What may be promoted, and which images come along. The whole way: tests/integration/test_revisions.py."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import RefusedError
from orchestrator.model import ACTIONS, DeploymentConfig, Desired, Provenance, Revision
from orchestrator.promotion import promotable_commit, with_images
from tests.unit.builders import OWNER, deployment

A, B = "registry/etl@sha256:aaaa", "registry/etl@sha256:bbbb"


def revision(**source: Any) -> Revision:
    return Revision(
        number=12,
        owner=OWNER,
        provenance=Provenance(**source),
        applied_at="2026-11-22T06:31:59+00:00",
        status="completed",
        summary=dict.fromkeys(ACTIONS, 0),
        desired_digest="",
    )


def test_a_clean_commit_is_promotable() -> None:
    assert promotable_commit(revision(commit="abc")) == "abc"


@pytest.mark.parametrize("source", [{"commit": "abc", "is_dirty": True}, {}])
def test_what_is_no_single_commit_is_not(source: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="revision 12 of orchestrator:shop:development") as caught:
        promotable_commit(revision(**source))
    assert caught.value.remedy


def docker(path: str, image: str | None = "etl:latest") -> DeploymentConfig:
    return deployment(path, deployment_type="docker", job_variables={"image": image, "mem_limit": "2g"})


def images(desired: tuple[DeploymentConfig, ...], tried: tuple[DeploymentConfig, ...]) -> list[Any]:
    found = with_images(Desired(owner=OWNER, deployments=desired), tried)
    return [config.job_variables.get("image") for config in found.deployments]


def test_the_image_that_was_tried_is_the_one_that_runs() -> None:
    tried = (docker("etl/staging", A), docker("report/staging", B))
    assert images((docker("etl/production"), docker("report/production")), tried) == [A, B]


def test_the_rest_of_the_job_variables_stays() -> None:
    found = with_images(Desired(owner=OWNER, deployments=(docker("etl/x"),)), (docker("etl/y", A),))
    assert found.deployments[0].job_variables == {"image": A, "mem_limit": "2g"}


def test_a_deployment_of_the_same_name_settles_which_image() -> None:
    tried = (docker("etl/small", A), docker("etl/large", B))
    assert images((docker("etl/large"), docker("etl/small")), tried) == [B, A]


def test_several_images_of_one_flow_are_no_guess() -> None:
    with pytest.raises(RefusedError, match=r"2 images there \(large, small\)"):
        images((docker("etl/production"),), (docker("etl/small", A), docker("etl/large", B)))
    assert images((docker("etl/production"),), (docker("etl/small", A), docker("etl/large", A))) == [A]


def test_what_has_no_digest_or_needs_no_image_stays_as_it_is() -> None:
    assert images((docker("etl/production"),), (docker("etl/staging", "etl:v1"),)) == ["etl:latest"]
    assert images((docker("report/production"),), (docker("etl/staging", A),)) == ["etl:latest"]
    assert images((deployment("etl/production"),), (docker("etl/staging", A),)) == [None]

"""What may be promoted, and which images come along. The whole way: tests/integration/test_revisions.py."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import RefusedError
from orchestrator.model import ACTIONS, DeploymentConfig, DeployStep, Desired, Provenance, Revision
from orchestrator.promotion import promotable_commit, with_images
from orchestrator.step_outputs import images_of, open_outputs
from tests.unit.builders import OWNER, deployment, image_spec, places

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


# --- images and steps of ours -----------------------------------------------------------------------------

LOCAL = f"sha256:{'c' * 64}"
IMAGE = DeployStep(function="x", id="build-image", image=image_spec())
OWN = DeployStep(function="shop.steps.prepare", id="own")


def built(path: str, *steps: DeployStep, **fields: Any) -> DeploymentConfig:
    """A deployment as the repository asks for it: from an image that is still to be built."""
    values: dict[str, Any] = {"job_variables": {"image": "{{ build-image.image }}"}, "version": "of the code"}
    return deployment(
        path,
        deployment_type="docker",
        steps=steps or (IMAGE,),
        source="prefect.yaml:3",
        **{**values, "follows_code": True, **fields},
    )


def ran(path: str, image: str = A, version: str = "of the image", **fields: Any) -> DeploymentConfig:
    """A deployment as it was applied to the other environment."""
    values = {"job_variables": {"image": image}, "version": version, "deployment_type": "docker"}
    return deployment(path, **{**values, **fields})


def promote(wanted: DeploymentConfig, *tried: DeploymentConfig) -> Desired:
    return with_images(Desired(owner=OWNER, deployments=(wanted,)), tried)


def one(wanted: DeploymentConfig, *tried: DeploymentConfig) -> DeploymentConfig:
    found = promote(wanted, *tried)
    assert found.problems == ()
    (config,) = found.deployments
    assert (config.steps, images_of(config), open_outputs(config)) == ((), (), {})
    return config


def left_out(wanted: DeploymentConfig, *tried: DeploymentConfig) -> str:
    """Why it is left out."""
    found = promote(wanted, *tried)
    assert (found.deployments, found.skipped_paths) == ((), (wanted.deployment_path,))
    (problem,) = found.problems
    assert places((problem,)) == [("IMG006", "prefect.yaml:3")]
    assert (problem.skips, problem.declaration, problem.severity) == (True, "prefect.yaml:3", "error")
    assert problem.remediation
    return problem.message


@pytest.mark.parametrize("pinned", [A, LOCAL])
def test_an_image_is_taken_over_with_its_version_and_nothing_is_built(pinned: str) -> None:
    found = one(built("etl/production"), ran("etl/staging", pinned))
    assert (found.job_variables["image"], found.version) == (pinned, "of the image")


def test_a_version_that_is_written_stays() -> None:
    assert one(built("etl/x", version="7", follows_code=False), ran("etl/x")).version == "7"


def test_the_version_is_that_of_the_image_that_is_taken() -> None:
    tried = (ran("etl/a", A, "of a"), ran("etl/b", B, "of b"))
    assert one(built("etl/b"), *tried).version == "of b"


def test_what_is_built_by_nobody_keeps_its_version() -> None:
    assert one(built("etl/x", job_variables={"image": "etl:latest"}), ran("etl/x")).version == "of the code"


@pytest.mark.parametrize("image", ["etl:v1", "registry/etl@sha256:", "sha256:", "sha256:xyz", None, 5])
def test_an_image_that_is_not_pinned_there_was_not_tried(image: Any) -> None:
    assert "no deployment of its flow has run from an image there" in left_out(built("etl/x"), ran("etl/x", image))


@pytest.mark.parametrize("tried", [(), (ran("report/x"),)])
def test_one_that_ran_nowhere_was_not_tried(tried: tuple[DeploymentConfig, ...]) -> None:
    assert left_out(built("etl/x"), *tried).startswith("etl/x is left out: no deployment of its flow has run")


def test_the_others_go_on() -> None:
    desired = Desired(owner=OWNER, deployments=(built("etl/x"), built("report/x")), skipped_paths=("a/b",))
    found = with_images(desired, (ran("report/x"),))
    assert [config.deployment_path for config in found.deployments] == ["report/x"]
    assert found.skipped_paths == ("a/b", "etl/x")
    assert len(found.problems) == 1


def test_what_steps_have_given_there_is_taken_over() -> None:
    wanted = built("etl/x", OWN, IMAGE, version="{{ own.commit }}", parameters={"tag": "{{ build-image.tag }}", "b": 1})
    found = one(wanted, ran("etl/x", version="abc", parameters={"tag": "v1", "b": 2}))
    assert (found.version, found.parameters) == ("abc", {"tag": "v1", "b": 1})


def test_of_flows_that_run_from_no_image_too() -> None:
    wanted = deployment("etl/production", steps=(OWN,), version="{{ own.commit }}", source="prefect.yaml:3")
    assert one(wanted, deployment("etl/staging", version="abc")).version == "abc"


@pytest.mark.parametrize(
    "tried",
    [
        (),
        (deployment("report/x", version="abc"),),
        (deployment("etl/a", version="abc"), deployment("etl/b", version="def")),
    ],
)
def test_what_nobody_tells_is_left_out(tried: tuple[DeploymentConfig, ...]) -> None:
    wanted = deployment("etl/x", steps=(OWN,), version="{{ own.commit }}", source="prefect.yaml:3")
    assert "what its steps give: {{ own.commit }}" in left_out(wanted, *tried)


def test_several_that_tell_the_same_are_enough() -> None:
    wanted = deployment("etl/x", steps=(OWN,), version="{{ own.commit }}", source="prefect.yaml:3")
    assert one(wanted, deployment("etl/a", version="abc"), deployment("etl/b", version="abc")).version == "abc"


def test_a_text_that_says_something_else_there_tells_nothing() -> None:
    wanted = deployment("etl/x", steps=(OWN,), description="Production {{ own.commit }}", source="prefect.yaml:3")
    assert "{{ own.commit }}" in left_out(wanted, deployment("etl/x", description="Staging abc"))
    assert one(wanted, deployment("etl/x", description="Production abc")).description == "Production abc"


def test_steps_that_nothing_waits_for_are_not_run() -> None:
    assert one(deployment("etl/x", steps=(OWN, IMAGE))).steps == ()

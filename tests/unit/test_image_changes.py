"""What images mean for a plan, before and after they are made. Values only: nothing is built here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.config import Policy
from orchestrator.images.changes import (
    as_deployed,
    due,
    image_findings,
    with_desired,
    with_images,
    with_made_images,
    with_pinned,
)
from orchestrator.model import (
    Change,
    DeploymentConfig,
    DeployStep,
    Desired,
    Finding,
    LiveDeployment,
    Plan,
    PlannedImage,
)
from orchestrator.plan import make_plan, with_findings
from tests.unit.builders import (
    API_URL,
    DIGEST,
    INPUT_DIGEST,
    OWNER,
    deployment,
    image_result,
    image_spec,
    live,
    planned_image,
    since,
)

SPEC = image_spec()
TAG = INPUT_DIGEST[:12]
NAME, PINNED = f"{SPEC.repository}:{TAG}", f"{SPEC.repository}@{DIGEST}"
OLD = f"{SPEC.repository}@sha256:{'0' * 64}"
OTHER = image_spec(repository="registry.example.com/other")
LOCAL = image_spec(repository="shop-flow", is_pushed=False)
NO_ENGINE = Finding(message="No Docker engine answers.", remedy="Start one.")
SILENT = Finding(message="The registry does not answer.", remedy="See that it runs.")


def asked(path: str = "etl/daily", *specs: Any, **fields: Any) -> DeploymentConfig:
    """A deployment that runs from the first of some images, and speaks of the others."""
    specs = specs or (SPEC,)
    steps = tuple(DeployStep(function="x", id=f"step-{number}", image=spec) for number, spec in enumerate(specs))
    texts = [f"{{{{ step-{number}.image }}}}" for number, _ in enumerate(specs)]
    variables = {"image": texts[0], **fields.pop("variables", {})}
    values = {"steps": steps, "follows_code": True, "parameters": {"images": texts[1:]} if texts[1:] else {}}
    return deployment(path, job_variables=variables, **{**values, **fields})


def deployed(config: DeploymentConfig, image: str = PINNED, version: str = TAG, **fields: Any) -> LiveDeployment:
    """The deployment as an apply has left it."""
    variables = {**config.job_variables, "image": image}
    return live(replace(config, steps=(), follows_code=False), job_variables=variables, version=version, **fields)


def plan_of(
    images: Sequence[PlannedImage], *wanted: DeploymentConfig, there: Sequence[LiveDeployment] = (), **more: Any
) -> Plan:
    """A plan, made of what was decided about images as `live.plan_changes` makes it."""
    desired = with_images(Desired(owner=OWNER, deployments=wanted), images)
    images = as_deployed(desired, images, there)
    plan = make_plan(with_pinned(desired, images), there, api_url=API_URL, policy=Policy(), **more)
    return replace(plan, images=tuple(images))


def change(plan: Plan) -> Change:
    (found,) = plan.changes
    return found


def image_in(found: Change) -> Any:
    assert found.desired is not None
    return found.desired.job_variables["image"]


class TestNaming:
    def test_an_image_that_is_there_is_pinned_at_once(self) -> None:
        found = change(plan_of([planned_image(action="reuse", pinned=PINNED)], asked()))
        assert image_in(found) == PINNED

    def test_one_that_has_to_be_built_is_named_by_its_tag(self) -> None:
        found = change(plan_of([planned_image()], asked(), there=[deployed(asked(), OLD, "0" * 12)]))
        assert [(each.path, each.before, each.after) for each in found.fields] == [
            ("job_variables.image", OLD, NAME),
            ("version", "0" * 12, TAG),
        ]

    def test_without_images_nothing_happens(self) -> None:
        desired = Desired(owner=OWNER, deployments=(deployment(),))
        assert with_images(desired, ()) == desired
        assert with_pinned(desired, ()) == desired


class TestAsDeployed:
    """A registry that does not answer: what it has is known from the deployments that were made for it."""

    UNKNOWN = planned_image(action="unknown", findings=(SILENT,))

    def found(
        self, image: PlannedImage, *there: LiveDeployment, config: DeploymentConfig | None = None
    ) -> PlannedImage:
        desired = with_images(Desired(owner=OWNER, deployments=(config or asked(),)), [image])
        (found,) = as_deployed(desired, [image], there)
        return found

    def test_one_that_runs_from_that_very_image_tells_its_digest(self) -> None:
        found = self.found(self.UNKNOWN, deployed(asked()))
        assert (found.pinned, found.findings) == (PINNED, (replace(SILENT, severity="warning"),))
        assert found.reason.startswith("as it is deployed: ")

    def test_nothing_is_to_be_changed_then(self) -> None:
        plan = plan_of([self.UNKNOWN], asked(), there=[deployed(asked())])
        assert (change(plan).action, plan.has_changes) == ("unchanged", False)

    def test_one_of_several_is_enough(self) -> None:
        wanted = [asked("etl/new"), asked("etl/old")]
        plan = plan_of([self.UNKNOWN], *wanted, there=[deployed(wanted[1])])
        assert [image_in(each) for each in plan.changes] == [PINNED, PINNED]

    @pytest.mark.parametrize(
        "there",
        [
            deployed(asked(), version="another one"),
            deployed(asked(), "registry.example.com/other@sha256:aa"),
            deployed(asked(), NAME),
            deployed(asked(), "sha256:aa"),
            deployed(asked("etl/other")),
        ],
    )
    def test_others_tell_nothing(self, there: LiveDeployment) -> None:
        assert self.found(self.UNKNOWN, there) == self.UNKNOWN

    def test_nothing_that_nobody_has_deployed_is_known(self) -> None:
        assert self.found(self.UNKNOWN) == self.UNKNOWN

    @pytest.mark.parametrize("action", ["build", "push", "reuse"])
    def test_what_the_registry_says_counts(self, action: Any) -> None:
        image = planned_image(action=action, pinned="")
        assert self.found(image, deployed(asked())) == image

    def test_an_image_of_which_nothing_is_known(self) -> None:
        image = planned_image(action="unknown", input_digest="", findings=(SILENT,))
        assert self.found(image, deployed(asked(), version="")) == image


class TestDue:
    REUSED = planned_image(OTHER, action="reuse", pinned="other@sha256:aa")

    def due(self, plan: Plan) -> list[str]:
        return [image.spec.repository for image in due(plan)]

    def test_what_a_change_needs(self) -> None:
        assert self.due(plan_of([planned_image()], asked())) == [SPEC.repository]

    def test_what_nothing_needs_is_not_made(self) -> None:
        plan = plan_of([planned_image(), planned_image(OTHER)], asked(), deployment("b/c"))
        assert self.due(plan) == [SPEC.repository]

    def test_what_is_there_is_told(self) -> None:
        assert self.due(plan_of([planned_image(), self.REUSED], asked())) == [SPEC.repository, OTHER.repository]

    def test_not_for_what_is_left_as_it_is(self) -> None:
        unchanged = plan_of([planned_image(pinned=PINNED)], asked(), there=[deployed(asked())])
        conflict = plan_of([planned_image()], asked(), there=[deployed(asked(), owner=None)])
        gone = plan_of([planned_image()], there=[deployed(asked())])
        assert [each.changes[0].action for each in (unchanged, conflict, gone)] == ["unchanged", "conflict", "delete"]
        assert self.due(unchanged) == self.due(conflict) == self.due(gone) == []

    def test_not_for_what_cannot_be_written(self) -> None:
        plan = plan_of([planned_image()], asked("a/b"))
        assert self.due(with_findings(plan, {"a/b": (NO_ENGINE,)})) == []
        assert self.due(with_findings(plan, {"a/b": (replace(NO_ENGINE, severity="warning"),)})) == [SPEC.repository]

    def test_for_one_of_several_that_can(self) -> None:
        plan = with_findings(plan_of([planned_image()], asked("a/b"), asked("a/c")), {"a/b": (NO_ENGINE,)})
        assert self.due(plan) == [SPEC.repository]


class TestFindings:
    def test_what_keeps_an_image_from_being_had_is_told_of_each_deployment(self) -> None:
        image = planned_image(findings=(NO_ENGINE,))
        found = image_findings(plan_of([image, planned_image(OTHER)], asked("a/b"), asked("a/c"), asked("a/d", OTHER)))
        said = Finding(message=f"Its image {NAME}: No Docker engine answers.", remedy="Start one.")
        assert found == {"a/b": (said,), "a/c": (said,)}

    def test_all_images_of_a_deployment_count(self) -> None:
        images = [planned_image(findings=(NO_ENGINE,)), planned_image(OTHER, findings=(SILENT, NO_ENGINE))]
        (found,) = image_findings(plan_of(images, asked("a/b", SPEC, OTHER))).values()
        said = [each.message.rpartition(": ")[2] for each in found]
        assert said == [NO_ENGINE.message, SILENT.message, NO_ENGINE.message]

    def test_a_warning_stays_one(self) -> None:
        image = planned_image(findings=(replace(SILENT, severity="warning"),))
        (found,) = image_findings(plan_of([image], asked()))["etl/daily"]
        assert found.severity == "warning"

    def test_nothing_speaks_against_what_is_not_written(self) -> None:
        image = planned_image(action="unknown", findings=(SILENT,))
        assert image_findings(plan_of([image], asked(), there=[deployed(asked())])) == {}
        assert image_findings(plan_of([image], there=[deployed(asked())])) == {}

    def test_an_image_that_was_not_looked_at_tells_nothing(self) -> None:
        plan = plan_of([planned_image(findings=(NO_ENGINE,))], asked())
        assert image_findings(replace(plan, images=())) == {}

    @pytest.mark.parametrize("image", [planned_image(LOCAL), planned_image(LOCAL, action="reuse", pinned="sha256:aa")])
    def test_an_image_of_this_machine_cannot_be_pulled(self, image: PlannedImage) -> None:
        config = asked("a/b", LOCAL, variables={"image_pull_policy": "Always"})
        (found,) = image_findings(plan_of([image], config))["a/b"]
        assert (found.severity, "image_pull_policy: Always" in found.message) == ("error", True)
        assert "IfNotPresent" in found.remedy

    @pytest.mark.parametrize("policy", ["IfNotPresent", "Never", None])
    def test_and_need_not_be(self, policy: str | None) -> None:
        config = asked("a/b", LOCAL, variables={"image_pull_policy": policy})
        assert image_findings(plan_of([planned_image(LOCAL)], config)) == {}

    def test_one_of_a_registry_may_always_be_pulled(self) -> None:
        config = asked("a/b", variables={"image_pull_policy": "Always"})
        assert image_findings(plan_of([planned_image()], config)) == {}


class TestMade:
    def test_an_image_is_pinned_as_it_was_made(self) -> None:
        plan = plan_of([planned_image()], asked("a/b"), asked("a/c"), deployment("d/e"))
        found = with_made_images(plan, [image_result()])
        assert [image_in(each) for each in found.changes[:2]] == [PINNED, PINNED]
        assert found.changes[2] == plan.changes[2]
        assert [image.pinned for image in found.images] == [PINNED]
        assert all(not each.obstacles for each in found.changes)

    @pytest.mark.parametrize("status", ["built", "reused", "pushed"])
    def test_by_its_id_where_no_registry_has_it(self, status: Any) -> None:
        plan = plan_of([planned_image(LOCAL)], asked("a/b", LOCAL))
        found = with_made_images(plan, [image_result(planned_image(LOCAL), status=status, pinned="sha256:aa")])
        assert image_in(change(found)) == "sha256:aa"

    def test_one_that_failed_keeps_its_deployments_from_being_written(self) -> None:
        failed = image_result(
            status="failed", pinned="", error="It ended with 1.", remedy="Mend it.", location="Dockerfile:3"
        )
        plan = plan_of([planned_image(), planned_image(OTHER)], asked("a/b"), asked("a/c", OTHER))
        found = with_made_images(plan, [failed, image_result(planned_image(OTHER))])
        (obstacle,) = found.changes[0].obstacles
        assert obstacle == Finding(
            message=f"Its image {NAME} could not be made: Dockerfile:3: It ended with 1.", remedy="Mend it."
        )
        assert found.changes[1].obstacles == ()
        assert image_in(found.changes[0]) == NAME

    def test_one_of_two_that_failed_is_enough(self) -> None:
        plan = plan_of([planned_image(), planned_image(OTHER)], asked("a/b", SPEC, OTHER))
        results = [image_result(), image_result(planned_image(OTHER), status="failed", pinned="", error="No.")]
        found = change(with_made_images(plan, results))
        assert len(found.obstacles) == 1
        assert image_in(found) == PINNED

    def test_what_is_not_known_of_a_failure_is_not_said(self) -> None:
        failed = image_result(status="failed", pinned="", error="No.")
        (obstacle,) = change(with_made_images(plan_of([planned_image()], asked()), [failed])).obstacles
        assert obstacle == Finding(message=f"Its image {NAME} could not be made: No.")

    def test_earlier_findings_stay(self) -> None:
        warning = replace(SILENT, severity="warning")
        plan = with_findings(plan_of([planned_image()], asked("a/b")), {"a/b": (warning,)})
        failed = with_made_images(plan, [image_result(status="failed", pinned="", error="No.")])
        assert change(failed).findings[0] == warning and len(change(failed).findings) == 2
        assert change(with_made_images(plan, [image_result()])).findings == (warning,)

    def test_without_results_the_plan_stays(self) -> None:
        plan = plan_of([planned_image()], asked())
        assert with_made_images(plan, ()) == plan

    def test_the_version_follows_what_was_built(self) -> None:
        """Base images that nobody knew when the plan was made: the input digest is another one afterwards."""
        plan = plan_of([planned_image(knows_bases=False)], asked("a/b"), asked("a/c", version="7", follows_code=False))
        found = with_made_images(plan, [image_result(input_digest="c" * 64)])
        assert [each.desired.version for each in found.changes if each.desired] == ["c" * 12, "7"]
        assert [image_in(each) for each in found.changes] == [PINNED, PINNED]

    def test_a_build_of_which_nothing_is_known_changes_no_version(self) -> None:
        plan = plan_of([planned_image()], asked())
        found = change(with_made_images(plan, [image_result(input_digest="", status="failed", pinned="", error="No.")]))
        assert found.desired is not None and found.desired.version == TAG

    def test_what_was_pinned_before_stays_so_when_it_could_not_be_made(self) -> None:
        plan = plan_of([planned_image(action="unknown", pinned=PINNED)], asked())
        found = with_made_images(plan, [image_result(status="failed", pinned="", error="No.")])
        assert [image.pinned for image in found.images] == [image_in(change(found))] == [PINNED]

    def test_and_only_the_image_that_runs_start_from(self) -> None:
        images = [planned_image(knows_bases=False), planned_image(OTHER)]
        plan = plan_of(images, asked("a/b", SPEC, OTHER))
        other = image_result(planned_image(OTHER), input_digest="d" * 64)
        found = change(with_made_images(plan, [other, image_result(input_digest="c" * 64)]))
        assert found.desired is not None and found.desired.version == "c" * 12
        found = change(with_made_images(plan, [other]))
        assert found.desired is not None and found.desired.version == TAG

    def test_what_comes_out_as_it_was_deployed_is_no_difference(self) -> None:
        plan = plan_of([planned_image()], asked(), there=[deployed(asked())])
        assert change(plan).action == "update"
        found = change(with_made_images(plan, [image_result()]))
        assert (found.action, found.fields, found.reasons) == ("unchanged", (), ())

    def test_other_differences_stay_with_who_made_them(self) -> None:
        config = asked(description="new")
        there = deployed(config, OLD, description="old")
        plan = since(plan_of([planned_image()], config, there=[there]), replace(there.config, description="older"))
        found = change(with_made_images(plan, [image_result()]))
        assert [(each.path, each.after, each.cause) for each in found.fields] == [
            ("job_variables.image", PINNED, "repository"),
            ("description", "new", "both"),
        ]
        assert found.action == "update"

    def test_of_an_adopted_one(self) -> None:
        there = deployed(asked(), owner=None)
        found = change(
            with_made_images(plan_of([planned_image()], asked(), there=[there], adopt=["*"]), [image_result()])
        )
        assert (found.action, found.fields) == ("adopt", ())

    def test_a_conflict_stays_one(self) -> None:
        plan = plan_of([planned_image()], asked(), there=[deployed(asked(), OLD, owner=None)])
        found = change(with_made_images(plan, [image_result()]))
        assert (found.action, found.fields) == ("conflict", ())


class TestChecksum:
    """Who has reviewed a plan has reviewed it whether or not its images have been built by now."""

    def checksum(self, *images: PlannedImage, there: Sequence[LiveDeployment] = ()) -> str:
        return plan_of(images, asked(), there=there).checksum

    @pytest.mark.parametrize("there", [(), (deployed(asked(), OLD, "0" * 12),)])
    def test_is_the_same_before_and_after_a_build(self, there: tuple[LiveDeployment, ...]) -> None:
        before = plan_of([planned_image()], asked(), there=there)
        by_somebody_else = plan_of([planned_image(action="reuse", pinned=PINNED)], asked(), there=there)
        assert before.writes == 1
        assert before.checksum == by_somebody_else.checksum == with_made_images(before, [image_result()]).checksum

    def test_is_another_one_where_the_image_is_another(self) -> None:
        assert self.checksum(planned_image()) != self.checksum(planned_image(input_digest="c" * 64))
        before = plan_of([planned_image()], asked())
        after = with_made_images(before, [image_result(input_digest="c" * 64)])
        assert before.checksum != after.checksum

    def test_is_another_one_where_the_server_has_moved(self) -> None:
        one, other = (self.checksum(planned_image(), there=[deployed(asked(), pin)]) for pin in (OLD, NAME))
        assert one != other


class TestWithDesired:
    def test_what_a_person_paused_stays_told(self) -> None:
        config = asked()
        plan = plan_of([planned_image()], config, there=[deployed(config, OLD, paused=True)])
        assert change(plan).kept
        assert change(with_made_images(plan, [image_result()])).kept == change(plan).kept

    def test_a_new_one_has_no_differences(self) -> None:
        found = with_desired(change(plan_of([planned_image()], asked())), deployment(description="x"))
        assert (found.action, found.fields, found.desired) == ("create", (), deployment(description="x"))

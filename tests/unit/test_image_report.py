"""Images as people and programs read them: nothing is cut off, nothing secret is shown, and the keys stay."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from typing import Any, get_args

import pytest
from rich.console import Console, RenderableType
from rich.style import Style

from orchestrator.config import Policy
from orchestrator.images.changes import with_images
from orchestrator.images.report import (
    ACTION_COLOURS,
    ACTION_SIGNS,
    ACTION_WORDS,
    STATUS_COLOURS,
    old_images_text,
    planned_json,
    planned_rows,
    removed_text,
    result_line,
    results_json,
    results_markdown_rows,
    results_text,
)
from orchestrator.model import (
    DeploymentResult,
    DeployStep,
    Desired,
    Finding,
    ImageAction,
    ImageResult,
    ImageStatus,
    OldImage,
    Plan,
    PlannedImage,
)
from orchestrator.plan import make_plan
from orchestrator.plan_report import plan_json, plan_markdown, plan_text
from orchestrator.report import result_json, result_markdown, result_text
from tests.unit.builders import (
    API_URL,
    DIGEST,
    INPUT_DIGEST,
    OWNER,
    deployment,
    image_result,
    image_spec,
    planned_image,
)

LONG = image_spec(repository="registry.example.com/team/data/shop-process-table-etl")  # 66 columns with its tag
LOCAL = image_spec(repository="shop-flow", is_pushed=False)
ID = f"sha256:{'a' * 64}"
SECRET = "hunter2-hunter2"
FAILED = image_result(
    planned_image(LONG),
    status="failed",
    pinned="",
    seconds=3.21,
    error="The command ended with 1.",
    remedy="Look at what the step said.",
    location="docker/flow.Dockerfile:7",
    output=("ERROR: Could not find a version that satisfies the requirement nothing-like-this==9 (from: none)", "end"),
)
WIDTHS = pytest.mark.parametrize("width", [40, 80, 200])


def text_of(renderable: RenderableType, width: int = 200) -> str:
    output = StringIO()
    Console(file=output, width=width).print(renderable)
    return output.getvalue()


def lines_of(renderable: RenderableType, width: int) -> list[str]:
    lines = [line.rstrip() for line in text_of(renderable, width).splitlines()]
    assert max(map(len, lines)) <= width
    return lines


def plan_of(*images: PlannedImage, users: int = 1) -> Plan:
    """A plan that creates some deployments of each image."""
    wanted = [
        deployment(
            f"{image.spec.repository.rpartition('/')[2]}/{number}",
            job_variables={"image": "{{ image }}"},
            steps=(DeployStep(function="x", image=image.spec),),
        )
        for image in images
        for number in range(users)
    ]
    desired = with_images(Desired(owner=OWNER, deployments=tuple(wanted)), images)
    return replace(make_plan(desired, (), api_url=API_URL, policy=Policy()), images=images)


def result_of(*images: ImageResult) -> DeploymentResult:
    return DeploymentResult(environment="development", api_url=API_URL, images=images)


def test_every_action_and_status_has_its_words() -> None:
    actions = set(get_args(ImageAction))
    assert ACTION_WORDS.keys() == ACTION_SIGNS.keys() == ACTION_COLOURS.keys() == actions
    assert STATUS_COLOURS.keys() == set(get_args(ImageStatus))
    assert len(set(ACTION_SIGNS.values())) == len(actions)
    assert all(map(Style.parse, (*ACTION_COLOURS.values(), *STATUS_COLOURS.values())))


class TestPlans:
    def told(self, plan: Plan, width: int = 200) -> list[str]:
        """The lines about images."""
        lines = lines_of(plan_text(plan), width)
        return lines[: next(number for number, line in enumerate(lines) if line.startswith("+ "))]

    def test_in_one_line_where_there_is_room(self) -> None:
        image = planned_image(LONG, reason="what it is built from has changed")
        assert self.told(plan_of(image)) == [
            f"* image {LONG.repository}:b0ee9bf369e1  to build; what it is built from has changed; "
            "for shop-process-table-etl/0"
        ]

    def test_below_each_other_in_80_columns(self) -> None:
        image = planned_image(LONG, reason="what it is built from has changed")
        assert self.told(plan_of(image), 80) == [
            f"* image {LONG.repository}:b0ee9bf369e1  to",
            "        build; what it is built from has changed; for shop-process-table-etl/0",
        ]

    @pytest.mark.parametrize(
        ("action", "said"),
        [("push", "↑ image r/a:b0ee9bf369e1  to push"), ("unknown", "? image r/a:b0ee9bf369e1  not known")],
    )
    def test_what_is_to_be_done(self, action: Any, said: str) -> None:
        (line,) = self.told(plan_of(planned_image(image_spec(repository="r/a"), action=action)))
        assert line == f"{said}; for a/0"

    @pytest.mark.parametrize(("users", "said"), [(1, "for a/0"), (3, "for 3 deployments")])
    def test_for_whom(self, users: int, said: str) -> None:
        (line,) = self.told(plan_of(planned_image(image_spec(repository="r/a")), users=users))
        assert line.endswith(said)

    def test_one_that_nothing_names_is_for_nobody(self) -> None:
        image = planned_image(image_spec(repository="r/a"))
        plan = replace(plan_of(planned_image(LOCAL)), images=(image,))
        assert self.told(plan) == ["* image r/a:b0ee9bf369e1  to build"]

    @pytest.mark.parametrize(
        ("specs", "said"),
        [
            ([LONG], "= 1 image is there"),
            ([LONG, LONG], "= 2 images are there"),
            ([LOCAL], "= 1 image is there, 1 in this machine's engine only"),
            ([LONG, LOCAL], "= 2 images are there, 1 in this machine's engine only"),
        ],
    )
    def test_what_is_there_is_counted(self, specs: list[Any], said: str) -> None:
        plan = plan_of(*(planned_image(spec, action="reuse", pinned="x") for spec in specs))
        assert self.told(plan) == [said]

    def test_one_that_is_there_and_has_a_finding_is_told_too(self) -> None:
        image = planned_image(
            action="reuse", pinned="x", findings=(Finding(message="Overwritten.", severity="warning"),)
        )
        assert [line[:7] for line in self.told(plan_of(image))] == ["= image", "= 1 ima"]

    @WIDTHS
    def test_every_letter_is_shown(self, width: int) -> None:
        image = planned_image(LONG, reason="what it is built from has changed")
        said = "".join("".join(self.told(plan_of(image), width)).split())
        assert said == (
            f"*image{LONG.repository}:b0ee9bf369e1tobuild;whatitisbuiltfromhaschanged;forshop-process-table-etl/0"
        )

    def test_in_markdown(self) -> None:
        images = [
            planned_image(LONG, reason="it has changed"),
            planned_image(LOCAL, action="reuse", pinned=ID),
            planned_image(image_spec(repository="r/<b>|x"), action="unknown"),
        ]
        rows = [line for line in plan_markdown(plan_of(*images)).splitlines() if line.startswith("| `")][:3]
        assert rows == [
            "| `*` to build | shop-process-table-etl:b0ee9bf369e1 | it has changed<br>for shop-process-table-etl/0 |",
            "| `=` is there | shop-flow:b0ee9bf369e1 | for shop-flow/0<br>in this machine's engine only |",
            "| `?` not known | &lt;b&gt;\\|x:b0ee9bf369e1 | for &lt;b&gt;\\|x/0 |",
        ]

    def test_keys_of_its_json(self) -> None:
        finding = Finding(message="No.", remedy="Do.", severity="warning")
        image = planned_image(action="reuse", pinned=f"r@{DIGEST}", reason="it is there", findings=(finding,))
        assert plan_json(plan_of(image))["images"] == [
            {
                "name": "registry.example.com/shop-flow",
                "tag": "b0ee9bf369e1",
                "action": "reuse",
                "pinned": f"r@{DIGEST}",
                "input_digest": INPUT_DIGEST,
                "dockerfile": "docker/flow.Dockerfile",
                "is_pushed": True,
                "reason": "it is there",
                "findings": [{"severity": "warning", "message": "No.", "remedy": "Do."}],
            }
        ]

    def test_what_is_not_known_is_null(self) -> None:
        found = planned_json(planned_image(action="unknown", input_digest=""))
        assert (found["pinned"], found["input_digest"], found["tag"]) == (None, None, "")


class TestResults:
    PUSHED = image_result(planned_image(LONG), seconds=12.345)
    BUILT = image_result(planned_image(LOCAL), status="built", pinned=ID, seconds=1)
    SKIPPED = image_result(planned_image(image_spec(repository="r/a")), status="skipped", pinned="")

    def test_in_a_table(self) -> None:
        assert lines_of(results_text([self.PUSHED, self.BUILT, self.SKIPPED]), 200) == [
            f"pushed   {LONG.repository}:b0ee9bf369e1  sha256:6cb2de726cb2  12.3 s",
            "built    shop-flow:b0ee9bf369e1  sha256:aaaaaaaaaaaa  in this machine's engine only  1.0 s",
            "skipped  r/a:b0ee9bf369e1  0.0 s",
        ]

    def test_in_80_columns_names_are_whole(self) -> None:
        assert lines_of(results_text([self.PUSHED, self.SKIPPED]), 80) == [
            f"pushed   {LONG.repository}:b0ee9bf369e1",
            "         sha256:6cb2de726cb2  12.3 s",
            "skipped  r/a:b0ee9bf369e1  0.0 s",
        ]

    def test_one_that_failed_has_what_its_build_said_below(self) -> None:
        failed = replace(FAILED, name="r/a:1")
        assert lines_of(results_text([self.SKIPPED, failed]), 80)[1:] == [
            "failed   r/a:1  3.2 s",
            "",
            "r/a:1",
            "    ERROR: Could not find a version that satisfies the requirement",
            "    nothing-like-this==9 (from: none)",
            "    end",
            "docker/flow.Dockerfile:7: The command ended with 1.",
            "    Look at what the step said.",
        ]

    @WIDTHS
    def test_nothing_is_cut_off(self, width: int) -> None:
        said = "".join(text_of(results_text([self.PUSHED, FAILED]), width).split())
        for part in (f"{LONG.repository}:b0ee9bf369e1", *FAILED.output, FAILED.error, FAILED.remedy, FAILED.location):
            assert "".join(part.split()) in said
        assert "…" not in said

    def test_no_images(self) -> None:
        assert text_of(results_text([])) == "no images: no deployment here runs from one of ours\n"

    def test_in_a_line(self) -> None:
        assert result_line(self.PUSHED) == f"{LONG.repository}:b0ee9bf369e1 pushed, 12.3 s"
        assert result_line(self.BUILT) == "shop-flow:b0ee9bf369e1 built (in this machine's engine only), 1.0 s"
        assert result_line(FAILED) == (
            f"{LONG.repository}:b0ee9bf369e1 failed at docker/flow.Dockerfile:7: "
            "The command ended with 1. Look at what the step said."
        )
        assert result_line(replace(FAILED, location="", remedy="")).endswith(" failed: The command ended with 1.")

    @WIDTHS
    def test_of_an_apply(self, width: int) -> None:
        lines = lines_of(result_text(result_of(self.PUSHED, FAILED)), width)
        assert "".join("".join(lines).split()).startswith(f"{LONG.repository}:b0ee9bf369e1pushed,12.3s")
        assert [line for line in lines if line.startswith("    ")][-1] == "    end"

    def test_in_markdown(self) -> None:
        rows = [
            line
            for line in result_markdown(result_of(self.PUSHED, self.BUILT, FAILED)).splitlines()
            if line.startswith("| ")
        ]
        assert rows == [
            "| Image | Name | Pinned, or why not |",
            "| --- | --- | --- |",
            "| pushed | shop-process-table-etl:b0ee9bf369e1 | sha256:6cb2de726cb2 |",
            "| built | shop-flow:b0ee9bf369e1 | sha256:aaaaaaaaaaaa<br>in this machine's engine only |",
            "| failed | shop-process-table-etl:b0ee9bf369e1 | docker/flow.Dockerfile:7<br>The command ended with 1."
            "<br>Look at what the step said. |",
        ]

    def test_keys_of_its_json(self) -> None:
        pushed, built, skipped = result_json(result_of(self.PUSHED, self.BUILT, self.SKIPPED))["images"]
        assert pushed == {
            "name": LONG.repository,
            "tag": "b0ee9bf369e1",
            "digest": DIGEST,
            "input_digest": INPUT_DIGEST,
            "status": "pushed",
            "seconds": 12.345,
        }
        assert (built["digest"], skipped["digest"]) == (ID, None)

    def test_one_that_failed_says_why(self) -> None:
        (found,) = results_json([FAILED])
        assert json.loads(json.dumps(found)) == {
            "name": LONG.repository,
            "tag": "b0ee9bf369e1",
            "digest": None,
            "input_digest": INPUT_DIGEST,
            "status": "failed",
            "seconds": 3.21,
            "error": FAILED.error,
            "remedy": FAILED.remedy,
            "location": FAILED.location,
            "output": list(FAILED.output),
        }


class TestSecrets:
    SPEC = image_spec(
        arguments=(("A", "in-clear"),), secret_arguments=(("TOKEN", SECRET),), credentials="{{ prefect.blocks.x.y }}"
    )

    @pytest.mark.parametrize("action", get_args(ImageAction))
    def test_are_in_no_form_of_a_plan(self, action: Any) -> None:
        plan = plan_of(planned_image(self.SPEC, action=action, pinned="x", reason="because"))
        shown = [text_of(plan_text(plan)), plan_markdown(plan), json.dumps(plan_json(plan)), repr(plan_of())]
        shown += [str(planned_rows(plan)), repr(plan)]
        assert not [each for each in shown if SECRET in each]

    @pytest.mark.parametrize("status", get_args(ImageStatus))
    def test_are_in_no_form_of_a_result(self, status: Any) -> None:
        image = image_result(planned_image(self.SPEC), status=status, error="x" if status == "failed" else "")
        result = result_of(image)
        shown = [text_of(results_text([image])), text_of(result_text(result)), result_markdown(result), repr(result)]
        shown += [json.dumps(result_json(result)), result_line(image), str(results_markdown_rows([image]))]
        assert not [each for each in shown if SECRET in each]


@pytest.mark.parametrize("odd", ["\x1b[31m", "\u202e", "\x07"])
def test_what_moves_a_cursor_is_shown_as_text(odd: str) -> None:
    image = planned_image(image_spec(repository=f"r/a{odd}"))
    failed = image_result(image, status="failed", pinned="", error=odd, remedy=odd, output=(f"said {odd}",))
    old = OldImage(tags=(f"r/a{odd}:1",), created="2026-11-20T10:00:00Z", size=1)
    plan = replace(plan_of(planned_image(LOCAL)), images=(image,))
    shown = [plan_text(plan), results_text([failed]), old_images_text([old]), removed_text([odd], [odd])]
    assert not [each for each in map(text_of, shown) if odd in each]


class TestOldImages:
    OLD = OldImage(tags=(f"{LONG.repository}:b0ee9bf369e1", "shop:b"), created="2026-11-20T10:00:00Z", size=123_456_789)

    def test_with_all_of_their_tags(self) -> None:
        other = replace(self.OLD, tags=("shop:c",), size=400_000)
        assert lines_of(old_images_text([self.OLD, other]), 80) == [
            f"{LONG.repository}:b0ee9bf369e1",
            "shop:b  2026-11-20  123 MB",
            "shop:c  2026-11-20  0 MB",
        ]

    def test_what_was_removed_and_what_not(self) -> None:
        assert lines_of(removed_text(["a:1", "b:2"], ["c:3"]), 80) == [
            "- a:1",
            "- b:2",
            "= c:3  a container or another image uses it: left as it is",
            "2 removed",
        ]

    def test_nothing_to_remove(self) -> None:
        assert text_of(removed_text([], [])).startswith("nothing to remove: ")

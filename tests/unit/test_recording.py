"""What is recorded of an apply, and when a repository has moved on."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import DEPLOYER_FLOW, Policy
from orchestrator.desired import SET_DIRECTORY, Selection
from orchestrator.model import (
    ACTIONS,
    Action,
    ChangeResult,
    DeploymentConfig,
    DeploymentResult,
    DeployStep,
    Desired,
    Hold,
    LimitSpec,
    LiveDeployment,
    Owner,
    Plan,
    PoolSpec,
    QueueSpec,
    RecordedState,
    ResourceChange,
    ResourceResult,
    Resources,
    ResultStatus,
    ScheduleConfig,
)
from orchestrator.plan import make_plan, with_causes
from orchestrator.recording import (
    desired_digest,
    from_json,
    holds,
    packed,
    resources_after,
    runs_from_folder,
    server_name,
    state_after,
    to_json,
    unpacked,
)
from orchestrator.resources import Spec, key_of, specs_of
from tests.unit.builders import API_URL, OWNER, cron, deployment, image_spec, live, record

# --- names ------------------------------------------------------------------------------------------------

OWNERS = {
    "one name starts another": (("shop", "prod"), ("shop", "prod-eu")),
    "a dash on either side": (("a-b", "c"), ("a", "b-c")),
    "case": (("Shop", "prod"), ("shop", "prod")),
    "what a name cannot hold": (("shop.x", "prod"), ("shop_x", "prod")),
    "letters of other languages": (("größe", "prod"), ("grüße", "prod")),
    "long names": (("s" * 90, "prod"), ("s" * 90, "staging")),
}


@pytest.mark.parametrize("separator", ["-", "_"])
@pytest.mark.parametrize("case", OWNERS)
def test_owners_do_not_share_a_name(case: str, separator: str) -> None:
    one, other = (server_name(Owner(project=p, environment=e), separator) for p, e in OWNERS[case])
    assert not f"{one}{separator}".startswith(f"{other}{separator}")
    assert not f"{other}{separator}".startswith(f"{one}{separator}")


@given(st.text(min_size=1), st.text(min_size=1), st.sampled_from("-_"))
def test_a_name_is_one_that_the_server_takes(project: str, environment: str, separator: str) -> None:
    name = server_name(Owner(project=project, environment=environment), separator)
    assert set(name) <= {*"abcdefghijklmnopqrstuvwxyz0123456789", separator}
    assert name and name[0] != separator and len(name) <= 80


# --- deployments as JSON ----------------------------------------------------------------------------------

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
mappings = st.dictionaries(st.text(), plain, max_size=3)
schedules = st.builds(
    ScheduleConfig,
    cron=st.none() | st.text(),
    interval=st.none() | st.floats(0.1, 1e9),
    active=st.booleans(),
    slug=st.none() | st.text(),
    parameters=mappings,
)
configs = st.builds(
    DeploymentConfig,
    flow_name=st.text(),
    deployment_name=st.text(),
    environment=st.text(),
    deployment_type=st.sampled_from(["python", "docker"]),
    origin=st.sampled_from(["declared", "template", "deployer"]),
    source=st.text(),
    parameters=mappings,
    job_variables=mappings,
    pull_steps=st.lists(mappings, max_size=2).map(tuple),
    schedules=st.lists(schedules, max_size=2).map(tuple),
    tags=st.lists(st.text(), max_size=2).map(tuple),
    triggers=st.lists(mappings, max_size=2).map(tuple),
    concurrency_limit=st.none() | st.integers(),
    parameter_schema=mappings,
    concealed=st.lists(st.text(), max_size=2).map(tuple),
)


@given(st.lists(configs, max_size=3).map(tuple))
def test_what_is_packed_comes_back_whole(written: tuple[DeploymentConfig, ...]) -> None:
    read, resources = unpacked(packed(written, AROUND))
    assert [asdict(config) for config in read] == [asdict(config) for config in written]
    assert resources == AROUND


def test_what_another_version_wrote_is_read_as_far_as_it_is_known() -> None:
    config = deployment(schedules=(cron(slug="nightly"),), tags=("a",))
    written = {**to_json(config), "colour": "green"}
    written["schedules"] = [{**written["schedules"][0], "mood": "good"}]
    del written["triggers"], written["schedules"][0]["day_or"]

    assert from_json(written) == config


BEFORE_AN_APPLY: dict[str, Any] = {
    "steps": (DeployStep(function="x", image=image_spec(secret_arguments=(("TOKEN", "hunter2"),))),),
    "images": (("registry.example.com/shop:1", "registry.example.com/shop@sha256:aa"),),
    "follows_code": True,
}


def test_a_record_holds_what_runs_and_nothing_of_how_that_was_made() -> None:
    made = deployment(job_variables={"image": "registry.example.com/shop@sha256:aa"}, **BEFORE_AN_APPLY)
    assert not {*to_json(made)} & {*BEFORE_AN_APPLY}
    assert "hunter2" not in json.dumps(to_json(made), default=str)
    ((read,), _) = unpacked(packed((made,)))
    assert read == made
    assert (read.steps, read.images, read.follows_code) == ((), (), False)


def test_everything_else_is_in_a_record() -> None:
    assert {*to_json(deployment())} == {field.name for field in fields(DeploymentConfig)} - {*BEFORE_AN_APPLY}


def test_what_was_written_before_there_were_images_is_read() -> None:
    written = to_json(deployment(job_variables={"image": "shop:1"}))
    assert from_json(written) == deployment(job_variables={"image": "shop:1"})
    assert from_json({**written, "steps": [], "images": [], "follows_code": False}) == from_json(written)


def test_what_was_written_before_resources_were_is_read() -> None:
    text = json.dumps([to_json(deployment())], default=str)
    assert unpacked(base64.b64encode(zlib.compress(text.encode())).decode("ascii")) == ((deployment(),), Resources())


NOT_OURS = base64.b64encode(zlib.compress(b'{"deployments": []}')).decode("ascii")


@pytest.mark.parametrize("text", ["", "********", "bm8gemxpYg==", packed(())[:-4], NOT_OURS])
def test_what_is_no_record_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError):
        unpacked(text)


# --- what an environment has after an apply ---------------------------------------------------------------

OLD, NEW = "recorded before", "asked for"


def recorded(*paths: str) -> RecordedState:
    return record(1, *(deployment(path, description=OLD) for path in paths))


def plan_of(*wanted: DeploymentConfig, on_server: tuple[LiveDeployment, ...] = (), prune: bool = True) -> Plan:
    desired = Desired(owner=OWNER, deployments=wanted)
    return make_plan(desired, on_server, api_url=API_URL, policy=Policy(prune=prune))


def result_of(plan: Plan, status: ResultStatus) -> DeploymentResult:
    """Every change that writes ended this way, and what is unchanged is."""
    results = tuple(
        ChangeResult(
            deployment=change.deployment,
            action=change.action,
            status="unchanged" if change.action == "unchanged" else status,
        )
        for change in plan.changes
    )
    return DeploymentResult(environment=plan.environment, api_url=API_URL, results=results)


def after(
    plan: Plan, status: ResultStatus, before: RecordedState | None = None, selection: Selection | None = None
) -> dict[str, str]:
    state = state_after(plan, result_of(plan, status), before, selection)
    assert list(state) == sorted(state, key=lambda config: config.deployment_path)
    return {config.deployment_path: config.description for config in state}


SERVER = "as the server has it"
# action, what became of it, whether it was recorded before → what there is afterwards
OUTCOMES: list[tuple[Action, ResultStatus, bool, str | None]] = [
    ("create", "applied", False, NEW),
    ("create", "failed", False, None),
    ("create", "failed", True, OLD),
    ("create", "restored", False, None),
    ("update", "applied", True, NEW),
    ("update", "failed", True, OLD),
    ("update", "skipped", True, OLD),
    ("update", "restored", True, OLD),
    ("update", "failed", False, SERVER),
    ("unchanged", "unchanged", True, NEW),
    ("unchanged", "unchanged", False, NEW),
    ("delete", "applied", True, None),
    ("delete", "failed", True, OLD),
    ("delete", "skipped", False, SERVER),
    ("conflict", "skipped", True, OLD),
    ("conflict", "skipped", False, None),
    ("adopt", "applied", False, NEW),
    ("adopt", "failed", False, None),
]


@pytest.mark.parametrize(("action", "status", "was_recorded", "expected"), OUTCOMES)
def test_what_there_is_after_each_outcome(
    action: Action, status: ResultStatus, was_recorded: bool, expected: str | None
) -> None:
    wanted = deployment(description=NEW)
    there = {
        "create": (),
        "update": (live(wanted, description=SERVER),),
        "unchanged": (live(wanted),),
        "delete": (live(wanted, description=SERVER),),
        "conflict": (live(wanted, owner=replace(OWNER, project="bank")),),
        "adopt": (live(wanted, owner=None),),
    }
    desired = Desired(owner=OWNER, deployments=() if action == "delete" else (wanted,))
    adopt = ["*"] if action == "adopt" else []
    plan = make_plan(desired, there[action], api_url=API_URL, policy=Policy(), adopt=adopt)
    assert [change.action for change in plan.changes] == [action]

    found = after(plan, status, recorded("etl/daily") if was_recorded else None)
    assert found == ({} if expected is None else {"etl/daily": expected})


def test_every_outcome_is_in_the_table() -> None:
    assert {action for action, *_ in OUTCOMES} == set(ACTIONS)
    assert {status for _, status, *_ in OUTCOMES} == set(get_args(ResultStatus))


def test_every_plan_says_that_what_is_in_conflict_was_ours() -> None:
    """Another change is applied meanwhile: it does not make us forget."""
    lost, other = deployment("etl/lost"), deployment("etl/other", description=NEW)
    plan = plan_of(lost, other, on_server=(live(lost, owner=None), live(other, description=OLD)))
    before = recorded("etl/lost", "etl/other")
    state = state_after(plan, result_of(plan, "applied"), before)
    (again,) = with_causes(
        plan_of(lost, on_server=(live(lost, owner=None),)), replace(before, deployments=state)
    ).changes
    assert "it was ours" in again.reasons[-1]


def test_what_is_left_alone_stays_in_the_record() -> None:
    plan = plan_of(on_server=(live(deployment("etl/old", description=SERVER)),), prune=False)
    assert after(plan, "applied") == {"etl/old": SERVER}
    assert after(plan, "applied", recorded("etl/old")) == {"etl/old": OLD}


def test_what_a_change_is_not_about_is_as_it_was_recorded() -> None:
    plan = plan_of(deployment("etl/daily", description=NEW))
    before = recorded("etl/daily", "etl/weekly", "report/daily")

    selected = after(plan, "applied", before, Selection(only=("etl/daily",)))
    assert selected == {"etl/daily": NEW, "etl/weekly": OLD, "report/daily": OLD}
    assert after(plan, "applied", before, Selection(only=("etl/*",))) == {"etl/daily": NEW, "report/daily": OLD}


POOL, LIMIT, RATE = (
    PoolSpec(name="processes", type="process", concurrency_limit=4),
    LimitSpec(scope="tag", name="database", slots=3),
    LimitSpec(scope="global", name="rate", slots=1),
)
AROUND = Resources(pools=(POOL,), queues=(QueueSpec(pool="processes", name="tables", priority=2),), limits=(LIMIT,))


@pytest.mark.parametrize(
    ("status", "selection", "expected"),
    [
        ("applied", None, (POOL, LIMIT)),  # what is declared no more is forgotten
        ("unchanged", Selection(), (POOL, LIMIT)),
        ("failed", None, (replace(POOL, concurrency_limit=1),)),
        ("applied", Selection(only=("etl/*",)), (POOL, RATE, LIMIT)),
    ],
)
def test_what_there_is_of_pools_and_limits(
    status: ResultStatus, selection: Selection | None, expected: tuple[Spec, ...]
) -> None:
    changes = tuple(
        ResourceChange(action="update", resource=kind, name=name, desired=spec)
        for (kind, name), spec in ((key_of(spec), spec) for spec in (POOL, LIMIT))
    )
    results = tuple(
        ResourceResult(resource=each.resource, name=each.name, action=each.action, status=status) for each in changes
    )
    before = Resources(pools=(replace(POOL, concurrency_limit=1),), limits=(RATE,))
    found = resources_after(
        Plan(owner=OWNER, api_url=API_URL, resources=changes),
        DeploymentResult(environment="development", api_url=API_URL, resources=results),
        replace(recorded(), resources=before),
        selection,
    )
    assert set(specs_of(found)) == set(expected)


def test_what_is_gone_from_server_and_repository_is_gone_from_the_record() -> None:
    assert after(plan_of(deployment("etl/daily", description=NEW)), "applied", recorded("etl/gone")) == {
        "etl/daily": NEW
    }


def test_templates_are_outside_of_what_is_declared_only() -> None:
    before = recorded("etl/daily", "etl/weekly")
    templated = tuple(replace(config, origin="template") for config in before.deployments[1:])
    before = replace(before, deployments=(*before.deployments[:1], *templated))

    assert after(plan_of(), "applied", before, Selection(declared_only=True)) == {"etl/weekly": OLD}


def test_the_deployers_own_deployment_stays_recorded_by_a_plan_that_leaves_it_alone() -> None:
    own = f"{DEPLOYER_FLOW}/development"
    assert after(plan_of(), "applied", recorded(own, "etl/daily")) == {own: OLD}


# --- when a repository has moved on -----------------------------------------------------------------------


def digest(*configs: DeploymentConfig, root: Path | None = None, **fields: Any) -> str:
    return desired_digest(Desired(owner=OWNER, deployments=configs, **fields), root)


SAME: dict[str, dict[str, Any]] = {
    "its line in the file": {"source": "prefect.yaml:99"},
    "a schema from another machine": {"parameter_schema": {"type": "object"}},
    "which texts are concealed": {"concealed": ("secret",)},
}
OTHER: dict[str, dict[str, Any]] = {
    "code": {"version": "ffff"},
    "a parameter": {"parameters": {"a": 1}},
    "a schedule": {"schedules": (cron(),)},
    "a tag": {"tags": ("x",)},
    "its name": {"deployment_name": "hourly"},
    "paused": {"paused": True},
}


@pytest.mark.parametrize("case", SAME)
def test_the_repository_asks_for_the_same(case: str) -> None:
    assert digest(deployment(**SAME[case])) == digest(deployment())


@pytest.mark.parametrize("case", OTHER)
def test_the_repository_asks_for_something_else(case: str) -> None:
    config = deployment()
    assert digest(replace(config, **OTHER[case])) != digest(config)


def test_a_deployment_or_a_limit_more_is_something_else() -> None:
    one, two = deployment("a/a"), deployment("b/b")
    limit = Resources(limits=(LimitSpec(scope="tag", name="db", slots=2),))
    assert len({digest(one), digest(one, two), digest(), digest(one, resources=limit)}) == 4
    assert digest(one, two) == digest(two, one)


def test_another_version_of_ours_is_no_change_of_the_repository() -> None:
    own = deployment(f"{DEPLOYER_FLOW}/development", origin="deployer")
    assert digest(own, deployment()) == digest(replace(own, version="ffff"), deployment())


def with_step(image: dict[str, Any] | None = None, **fields: Any) -> DeploymentConfig:
    """A deployment with a step, of an image if one is told about."""
    spec = None if image is None else image_spec(**image)
    return deployment(steps=(DeployStep(**{"function": "x", "image": spec, **fields}),))


@pytest.mark.parametrize(
    ("image", "fields"),
    [
        ({"target": "run"}, {}),
        ({"repository": "r"}, {}),
        ({"arguments": (("A", "1"),)}, {}),
        ({"is_pushed": False}, {}),
        ({"aliases": ("dev",)}, {}),
        (None, {}),
        ({}, {"function": "y"}),
        ({}, {"inputs": {"script": "make"}}),
        ({}, {"folder": "jobs"}),
    ],
)
def test_another_step_is_something_else(image: dict[str, Any] | None, fields: dict[str, Any]) -> None:
    assert digest(with_step(image, **fields)) != digest(with_step({}))


def test_a_step_elsewhere_in_its_file_is_the_same() -> None:
    assert digest(with_step({"source": "prefect.yaml:99"})) == digest(with_step({"source": "prefect.yaml:3"}))


def in_folder(folder: str) -> DeploymentConfig:
    return deployment(pull_steps=({SET_DIRECTORY: {"directory": folder}},))


def test_another_checkout_is_no_change_of_the_repository() -> None:
    here, there = Path("/home/me/shop"), Path("/opt/shop")
    for folder in ("", "/etl"):
        assert digest(in_folder(f"{here}{folder}"), root=here) == digest(in_folder(f"{there}{folder}"), root=there)
    assert digest(in_folder("/home/me/shop2"), root=here) != digest(in_folder("/opt/shop2"), root=there)
    assert digest(in_folder(f"{here}/etl"), root=here) != digest(in_folder(str(here)), root=here)


def test_nor_is_a_volume_of_another_checkout() -> None:
    here, there = Path("/home/me/shop"), Path("/opt/shop")

    def mounted(folder: str) -> DeploymentConfig:
        return deployment(job_variables={"volumes": [f"{folder}:/data:ro"]})

    for inside in ("", "/data"):
        assert digest(mounted(f"{here}{inside}"), root=here) == digest(mounted(f"{there}{inside}"), root=there)
    assert digest(mounted("/home/me/shop2"), root=here) != digest(mounted("/opt/shop2"), root=there)


def test_a_hold_holds_until_the_repository_asks_for_something_else() -> None:
    hold = Hold(owner=OWNER, revision=3, desired_digest=digest(deployment()))
    assert holds(hold, digest(deployment()))
    assert not holds(hold, digest(deployment(version="ffff")))


# --- what runs from a folder ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "folder"),
    [
        ({"pull_steps": ({SET_DIRECTORY: {"directory": "/srv"}},)}, "/srv"),
        ({"pull_steps": ()}, None),
        ({"pull_steps": ({"prefect.deployments.steps.git_clone": {"repository": "x"}},)}, None),
        ({"pull_steps": ({"a.clone": {}}, {SET_DIRECTORY: {"directory": "/srv"}})}, None),
        ({"pull_steps": ({SET_DIRECTORY: {"directory": "/opt"}},), "deployment_type": "docker"}, None),
    ],
)
def test_code_that_is_not_rolled_back(fields: dict[str, Any], folder: str | None) -> None:
    assert runs_from_folder(deployment(**fields)) == folder

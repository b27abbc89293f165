"""The plan: what is done to each deployment, what is left alone, and what a plan may show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from orchestrator.config import Policy
from orchestrator.desired import Selection, desired_state
from orchestrator.differences import diff, pair_schedules
from orchestrator.discovery import discover
from orchestrator.errors import RefusedError
from orchestrator.masking import HIDDEN, masked
from orchestrator.model import (
    Change,
    DeploymentConfig,
    DeployStep,
    Desired,
    Finding,
    LimitSpec,
    LiveDeployment,
    LiveResources,
    Owner,
    Plan,
    ResourceChange,
    Resources,
    ScheduleConfig,
    TouchedRuns,
    ValidationError,
)
from orchestrator.plan import (
    check_deletes,
    checksum,
    is_left_alone,
    make_plan,
    out_of_sync,
    refreshed,
    touching,
    with_causes,
    with_findings,
    with_predecessors_kept,
    with_runs,
)
from orchestrator.plan_report import plan_json, plan_markdown, plan_text
from orchestrator.resources import plan_resources
from orchestrator.validation import facts_of, validate
from tests.unit.builders import API_URL, OWNER, cron, deployment, environment, image_spec, live, problem, record, since

REPOS = Path(__file__).parents[1] / "repos"
DEPLOYER = deployment("deploy-everything/development")
ANY_SPEED = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def plan_of(
    wanted: Sequence[DeploymentConfig] = (),
    there: Sequence[LiveDeployment] = (),
    *,
    policy: Policy | None = None,
    **more: Any,
) -> Plan:
    left_out = {name: more.pop(name) for name in ("skipped_paths", "skipped_files", "problems") if name in more}
    desired = Desired(owner=OWNER, deployments=tuple(wanted), **left_out)
    return make_plan(desired, there, api_url=API_URL, policy=policy or Policy(), **more)


def change(wanted: DeploymentConfig | None = None, there: LiveDeployment | None = None, **more: Any) -> Change:
    """The one change of a plan."""
    (found,) = plan_of([wanted] if wanted else [], [there] if there else [], **more).changes
    return found


def changed(**fields: Any) -> Change:
    """What happens when the live deployment has other values than the repository's: name=(live, desired)."""
    before = {name: pair[0] for name, pair in fields.items()}
    after = {name: pair[1] for name, pair in fields.items()}
    return change(deployment(**after), live(deployment(**before)))


FINDING = Finding(message="There is no pool.", remedy="Create it.")


def differing(found: Change) -> list[tuple[str, Any, Any]]:
    return [(each.path, each.before, each.after) for each in found.fields]


class TestActions:
    def test_create_what_the_server_has_not(self) -> None:
        found = change(deployment(source="prefect.yaml:3"))
        assert (found.action, found.deployment) == ("create", "etl/daily")
        assert found.reasons == ("asked for by prefect.yaml:3",)

    def test_nothing_where_nothing_differs(self) -> None:
        found = change(deployment(), live(deployment()))
        assert (found.action, found.fields, found.reasons, found.writes) == ("unchanged", (), (), False)

    def test_update_what_differs(self) -> None:
        found = changed(description=("old", "new"))
        assert found.action == "update"
        assert differing(found) == [("description", "old", "new")]

    def test_an_update_says_why(self) -> None:
        assert changed(version=("1", "2"), work_pool=("a", "b"), parameters=({}, {"a": 1, "b": 2})).reasons == (
            "its code changed",
            "work pool, parameters differ",
        )

    def test_delete_what_nothing_asks_for(self) -> None:
        found = change(None, live(deployment("old/daily")))
        assert (found.action, found.deployment) == ("delete", "old/daily")

    def test_the_order_is_creates_and_updates_then_deletes_then_the_deployer(self) -> None:
        wanted = [DEPLOYER, deployment("z/new"), deployment("b/changed")]
        there = [live(deployment("a/old")), live(deployment("b/changed"), description="x"), live(DEPLOYER)]
        found = [(each.action, each.deployment) for each in plan_of(wanted, there).changes]
        assert found == [
            ("update", "b/changed"),
            ("create", "z/new"),
            ("delete", "a/old"),
            ("unchanged", "deploy-everything/development"),
        ]

    def test_the_summary_counts_every_action(self) -> None:
        plan = plan_of([deployment("a/new"), deployment("b/same")], [live(deployment("b/same"))])
        expected = {"create": 1, "update": 0, "unchanged": 1, "delete": 0, "adopt": 0, "conflict": 0}
        assert plan.summary == expected


class TestOwnership:
    STAGING = Owner(project="shop", environment="staging")

    def test_another_owners_deployment_of_the_same_name_is_a_conflict(self) -> None:
        found = change(deployment(), live(deployment(), owner=self.STAGING, description="x"))
        assert (found.action, found.writes) == ("conflict", False)
        assert "belongs to shop in staging" in found.reasons[0]

    def test_nobodys_deployment_of_the_same_name_is_a_conflict(self) -> None:
        found = change(deployment(), live(deployment(), owner=None))
        assert found.action == "conflict"
        assert "--adopt 'etl/daily'" in found.reasons[0]

    def test_nobodys_is_adopted_on_request(self) -> None:
        found = change(deployment(), live(deployment(), owner=None, tags=("x",)), adopt=["etl/*"])
        assert found.action == "adopt"
        assert differing(found) == [("tags", ["x"], [OWNER.tag])]

    def test_another_owners_is_never_adopted(self) -> None:
        assert change(deployment(), live(deployment(), owner=self.STAGING), adopt=["*"]).action == "conflict"

    def test_only_what_the_request_names_is_adopted(self) -> None:
        assert change(deployment(), live(deployment(), owner=None), adopt=["other/*"]).action == "conflict"

    def test_a_deployer_of_the_same_name_is_renamed_by_a_key_of_the_environment(self) -> None:
        wanted = replace(DEPLOYER, source="environments/development.yaml")
        key = "name ours otherwise, by `deployer: {name: …}` in environments/development.yaml"
        other = replace(OWNER, project="bank")
        assert change(wanted, live(wanted, owner=other)).reasons[0].endswith(f"belongs to bank in development: {key}")
        (nobodys,) = change(wanted, live(wanted, owner=None)).reasons
        assert nobodys.endswith(f"{key}, or take it over with --adopt 'deploy-everything/development'")

    @pytest.mark.parametrize("owner", [None, STAGING, Owner(project="other", environment="development")])
    def test_only_what_is_ours_is_deleted(self, owner: Owner | None) -> None:
        assert plan_of([], [live(deployment("old/daily"), owner=owner)]).changes == ()


class TestPruning:
    OLD = live(deployment("old/daily", entrypoint="flows/old.py:old"))

    def kept(self, **more: Any) -> Change:
        found = change(None, self.OLD, **more)
        assert found.action == "unchanged"
        return found

    def test_never_the_deployer(self) -> None:
        assert plan_of([], [live(DEPLOYER), live(deployment("deploy-everything/other"))]).changes == ()

    def test_not_where_the_policy_says_no(self) -> None:
        assert "does not prune" in self.kept(policy=Policy(prune=False)).kept[0]

    def test_not_what_points_into_an_unreadable_file(self) -> None:
        assert self.kept(skipped_files=("flows/old.py",)).kept == ("left as it is: flows/old.py cannot be read",)

    @pytest.mark.parametrize(
        "fault",
        [
            problem(file_path="lib/db.py", line_number=7, skips=True, flows=("flows/other.py:x", "flows/old.py:old")),
            problem(file_path="lib/db.py", line_number=7, skips=True, flows=("flows/old.py:old",)),
        ],
    )
    def test_the_file_that_is_at_fault_is_named(self, fault: ValidationError) -> None:
        kept = self.kept(skipped_files=("lib/db.py", "flows/old.py"), problems=(fault,)).kept
        assert kept == ("left as it is: lib/db.py:7 has a fault (FLW001)",)

    def test_not_what_points_into_an_unreadable_file_from_its_own_folder(self) -> None:
        assert self.kept(skipped_files=("jobs/flows/old.py",)).kept

    def test_not_what_a_broken_flows_declaration_asks_for(self) -> None:
        (reason,) = self.kept(skipped_paths=("old/daily",)).kept
        assert reason == "left as it is: its declaration or its flow has a fault"

    def test_not_where_the_declared_flows_name_is_unknown(self) -> None:
        assert self.kept(skipped_paths=("*/daily",)).kept

    def test_brackets_in_names_are_no_patterns(self) -> None:
        there = live(deployment("old/[nightly]"))
        assert change(None, there, skipped_paths=("old/[nightly]",)).action == "unchanged"
        assert change(None, there, skipped_paths=("*/[nightly]",)).action == "unchanged"

    def test_another_files_fault_protects_nothing(self) -> None:
        assert change(None, self.OLD, skipped_files=("flows/b.py",), skipped_paths=("b/daily",)).action == "delete"

    @pytest.mark.parametrize(
        "selection", [Selection(only=("a/*",)), Selection(kind="docker"), Selection(declared_only=True)]
    )
    def test_not_outside_of_the_selection(self, selection: Selection) -> None:
        assert plan_of([], [self.OLD], selection=selection).changes == ()

    def test_within_the_selection(self) -> None:
        assert change(None, self.OLD, selection=Selection(only=("old/*",))).action == "delete"

    def test_a_repository_with_broken_files_loses_none_of_their_deployments(self) -> None:
        discovery = discover(REPOS / "broken_syntax", ["flows"])
        where = environment(templates={"python": {}})
        problems = validate(facts_of(REPOS, discovery)).errors
        desired = desired_state(
            root=REPOS,
            project="shop",
            environment=where,
            discovery=discovery,
            declarations=(),
            schemas={},
            problems=problems,
        )
        there = [
            live(deployment(f"{name}/development-python", entrypoint=f"flows/{name}.py:{name}"))
            for name in ("broken", "needs_broken", "gone")
        ]
        plan = make_plan(desired, there, api_url=API_URL, policy=Policy())
        assert [each.deployment for each in plan.changes if each.action == "delete"] == ["gone/development-python"]


class TestDeleteLimit:
    def plan(self, *, deletes: int, stays: int) -> Plan:
        wanted = [deployment(f"stays/{number}") for number in range(stays)]
        gone = [live(deployment(f"gone/{number}")) for number in range(deletes)]
        return plan_of([*wanted, DEPLOYER], [*map(live, wanted), *gone, live(DEPLOYER)])

    @pytest.mark.parametrize(
        ("deletes", "stays"),
        [(0, 0), (1, 1), (5, 1), (10, 5), (11, 100)],
    )
    def test_allows(self, deletes: int, stays: int) -> None:
        check_deletes(self.plan(deletes=deletes, stays=stays), Policy(delete_limit=10, delete_share=0.3))

    @pytest.mark.parametrize(("deletes", "stays"), [(11, 20), (1, 0), (2, 0), (8, 0)])
    def test_refuses_much_of_what_we_own_and_everything(self, deletes: int, stays: int) -> None:
        with pytest.raises(
            RefusedError, match=f"would delete {deletes} of the {deletes + stays} deployments"
        ) as caught:
            check_deletes(self.plan(deletes=deletes, stays=stays), Policy(delete_limit=10, delete_share=0.3))
        assert caught.value.exit_code == 5
        assert "--allow-delete" in caught.value.remedy

    def test_foreign_deployments_do_not_count(self) -> None:
        wanted = [deployment(f"theirs/{number}") for number in range(50)]
        theirs = [live(config, owner=None) for config in wanted]
        ours = [live(deployment(f"gone/{number}")) for number in range(3)]
        with pytest.raises(RefusedError):
            check_deletes(plan_of(wanted, [*theirs, *ours]), Policy())

    def test_the_only_one_may_get_another_name_but_not_all_of_many(self) -> None:
        def renamed(number: int) -> Plan:
            there = [live(deployment(f"etl/{each}")) for each in range(number)]
            return plan_of([deployment("etl/new")], there)

        assert renamed(1).summary["create"] == 1
        check_deletes(renamed(1), Policy())
        with pytest.raises(RefusedError, match="2 of the 2"):
            check_deletes(renamed(2), Policy())

    def test_what_is_taken_over_was_not_ours(self) -> None:
        wanted = [deployment(f"theirs/{number}") for number in range(50)]
        theirs = [live(config, owner=None) for config in wanted]
        gone = [live(deployment(f"gone/{number}")) for number in range(11)]
        plan = plan_of(wanted, [*theirs, *gone], adopt=["*"])
        assert plan.summary["adopt"] == 50
        with pytest.raises(RefusedError, match="11 of the 11"):
            check_deletes(plan, Policy())


class TestWhatPeopleChanged:
    def test_a_paused_deployment_stays_paused(self) -> None:
        found = change(deployment(), live(deployment(), paused=True))
        assert (found.action, found.kept) == ("unchanged", ("paused: somebody paused it",))

    def test_the_repository_may_pause(self) -> None:
        assert differing(change(deployment(paused=True), live(deployment()))) == [("paused", False, True)]

    def test_a_schedule_that_is_switched_off_stays_off(self) -> None:
        found = changed(schedules=((cron(active=False, slug="n"),), (cron(slug="n"),)))
        assert (found.action, found.kept) == ("unchanged", ("schedules[n].active: somebody switched it off",))

    def test_the_repository_may_switch_a_schedule_off(self) -> None:
        found = changed(schedules=((cron(slug="n"),), (cron(slug="n", active=False),)))
        assert differing(found) == [("schedules[n].active", True, False)]

    def test_other_differences_are_still_written(self) -> None:
        found = change(deployment(description="new"), live(deployment(), paused=True))
        assert (found.action, differing(found)) == ("update", [("description", "", "new")])


class TestSchedules:
    def pairs(self, there: Sequence[ScheduleConfig], wanted: Sequence[ScheduleConfig]) -> list[tuple[Any, Any]]:
        """Which live schedule (by number) each desired one (by number) belongs to."""
        pairs = pair_schedules(wanted, live(deployment(schedules=tuple(there))))
        number = {f"schedule-{index}": index for index in range(len(there))}
        return [
            (
                None if pair.live_id is None else number[pair.live_id],
                None if pair.desired is None else wanted.index(pair.desired),
            )
            for pair in pairs
        ]

    def test_belong_together_by_slug(self) -> None:
        there = [cron("1 * * * *", slug="a"), cron("2 * * * *", slug="b")]
        assert self.pairs(there, [cron("9 * * * *", slug="b"), cron("8 * * * *", slug="a")]) == [(1, 0), (0, 1)]

    def test_then_by_rule(self) -> None:
        there = [cron("1 * * * *"), cron("2 * * * *")]
        assert self.pairs(there, [cron("2 * * * *"), cron("1 * * * *")]) == [(1, 0), (0, 1)]

    def test_then_in_order(self) -> None:
        there = [cron("1 * * * *"), cron("2 * * * *")]
        assert self.pairs(there, [cron("3 * * * *"), cron("1 * * * *")]) == [(0, 1), (1, 0)]

    def test_what_is_left_is_created_or_deleted(self) -> None:
        there = [cron("1 * * * *", slug="a")]
        assert self.pairs(there, [cron("1 * * * *", slug="b")]) == [(None, 0), (0, None)]

    def test_a_new_one(self) -> None:
        assert differing(changed(schedules=((), (cron(slug="n"),)))) == [("schedules[n]", None, "cron 0 4 * * *")]

    def test_one_too_many(self) -> None:
        found = changed(schedules=((ScheduleConfig(interval=60),), ()))
        assert differing(found) == [("schedules[every 60 s]", "every 60 s", None)]

    def test_another_rule_and_other_parameters(self) -> None:
        before, after = cron("1 * * * *", slug="n"), cron("2 * * * *", slug="n", parameters={"full": True})
        assert differing(changed(schedules=((before,), (after,)))) == [
            ("schedules[n].cron", "1 * * * *", "2 * * * *"),
            ("schedules[n].parameters.full", None, True),
        ]

    def test_the_servers_own_anchor_is_no_difference(self) -> None:
        there = ScheduleConfig(interval=60, anchor_date="2024-01-01T00:00:00Z")
        assert changed(schedules=((there,), (ScheduleConfig(interval=60),))).action == "unchanged"

    def test_an_anchor_that_is_asked_for_is_compared(self) -> None:
        there, wanted = (
            ScheduleConfig(interval=60, slug="n", anchor_date=f"2024-01-0{day}T00:00:00Z") for day in (1, 2)
        )
        assert [path for path, *_ in differing(changed(schedules=((there,), (wanted,))))] == [
            "schedules[n].anchor_date"
        ]

    def test_the_order_makes_no_difference(self) -> None:
        one, two = cron("1 * * * *", slug="a"), cron("2 * * * *", slug="b")
        assert changed(schedules=((one, two), (two, one))).action == "unchanged"


class TestDifferences:
    def test_nested_values_are_named_by_their_path(self) -> None:
        found = changed(job_variables=({"env": {"A": "1", "B": "2"}}, {"env": {"A": "1", "B": "3", "C": "4"}}))
        assert differing(found) == [("job_variables.env.B", "2", "3"), ("job_variables.env.C", None, "4")]

    def test_a_key_that_is_gone(self) -> None:
        assert differing(changed(parameters=({"a": 1}, {}))) == [("parameters.a", 1, None)]

    def test_lists_are_one_value(self) -> None:
        assert differing(changed(tags=(("a", "b"), ("b", "a")))) == [("tags", ["a", "b"], ["b", "a"])]

    @pytest.mark.parametrize(
        ("there", "wanted"),
        [((1, 2), [1, 2]), ({"x": (1,)}, {"x": [1]}), (1.0, 1), ({"b": 1, "a": 2}, {"a": 2, "b": 1})],
    )
    def test_values_that_the_server_holds_as_equal(self, there: Any, wanted: Any) -> None:
        assert changed(parameters=({"p": there}, {"p": wanted})).action == "unchanged"

    @pytest.mark.parametrize(
        ("there", "wanted"), [(1, True), (0, False), ([1], [True]), ({"x": [0]}, {"x": [False]}), ("1", 1)]
    )
    def test_values_that_only_python_holds_as_equal(self, there: Any, wanted: Any) -> None:
        assert changed(parameters=({"p": there}, {"p": wanted})).action == "update"

    def test_where_a_deployment_comes_from_is_no_difference(self) -> None:
        wanted = deployment(source="prefect.yaml:9", origin="template", environment="development")
        assert change(wanted, live(deployment())).action == "unchanged"

    @ANY_SPEED
    @given(JSON)
    def test_nothing_differs_from_itself(self, value: Any) -> None:
        assert list(diff(value, value, "parameters")) == []

    @ANY_SPEED
    @given(JSON, JSON)
    def test_every_difference_is_between_unequal_values(self, before: Any, after: Any) -> None:
        found = list(diff(before, after, "x"))
        assert bool(found) == bool(list(diff(after, before, "x")))

    @ANY_SPEED
    @given(st.dictionaries(st.text(), JSON), st.dictionaries(st.text(), JSON))
    def test_what_is_on_the_server_already_is_unchanged(
        self, parameters: dict[str, Any], variables: dict[str, Any]
    ) -> None:
        config = deployment(parameters=parameters, job_variables=variables, schedules=(cron(parameters=parameters),))
        echoed = {name: json.loads(json.dumps(getattr(config, name))) for name in ("parameters", "job_variables")}
        assert change(config, live(config, **echoed)).action == "unchanged"


class TestSecrets:
    SECRET = "hunter2"

    @pytest.mark.parametrize(
        "value",
        [
            {"db_password": SECRET},
            {"DB_PASSWD": SECRET},
            {"pwd": SECRET},
            {"API_KEY": SECRET},
            {"x-api-key": SECRET},
            {"PREFECT_API_AUTH_STRING": f"admin:{SECRET}"},
            {"AWS_SECRET_ACCESS_KEY": SECRET},
            {"env": {"GITHUB_TOKEN": SECRET}},
            {"credentials": {"user": "me", "key": SECRET}},
            {"credentials": [SECRET]},
            {"tokens": [{"value": SECRET}]},
            {"db.password.old": SECRET},
            {"url": f"postgresql://me:{SECRET}@db.example/shop"},
            {"url": f"redis://:{SECRET}@cache.example"},
            {"url": f"postgresql://me:p@{SECRET}/x@db.example/shop"},
            {"repository": f"https://{SECRET}@github.com/shop/etl"},
            {"urls": [f"amqp://a:b@one,amqp://c:{SECRET}@two"]},
        ],
    )
    def test_show_nowhere(self, value: dict[str, Any]) -> None:
        other = json.loads(json.dumps(value).replace(self.SECRET, f"{self.SECRET}-new"))
        plan = plan_of(
            [
                deployment(job_variables=other),
                deployment("b/b", parameters=value),
                deployment("c/c", pull_steps=(other,)),
            ],
            [
                live(deployment(job_variables=value)),
                live(deployment("b/b")),
                live(deployment("c/c", pull_steps=(value,))),
            ],
        )
        assert plan.summary["update"] == 3
        shown = StringIO()
        Console(file=shown, width=500).print(plan_text(plan))
        everything = json.dumps(plan_json(plan)) + plan_markdown(plan) + shown.getvalue()
        assert self.SECRET not in everything
        assert HIDDEN in everything

    def test_a_default_in_a_schema(self) -> None:
        schema = {"properties": {"password": {"type": "string", "default": self.SECRET}}}
        assert self.SECRET not in str(changed(parameter_schema=({"properties": {"password": {}}}, schema)).fields)

    def test_a_schedules_parameters(self) -> None:
        before, after = cron(slug="n"), cron(slug="n", parameters={"token": self.SECRET})
        assert differing(changed(schedules=((before,), (after,)))) == [("schedules[n].parameters.token", None, HIDDEN)]

    def test_that_one_changed_is_seen(self) -> None:
        found = changed(parameters=({"password": "a"}, {"password": "b"}))
        assert differing(found) == [("parameters.password", HIDDEN, HIDDEN)]

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("job_variables.env.PASSWORD", "{{ prefect.blocks.secret.db }}"),
            ("parameters.url", "postgresql://db.example:5432/shop"),
            ("parameters.author", "me"),
            ("schedules[token-refresh].cron", "0 4 * * *"),
            ("parameters.password", None),
            ("parameters.use_token", True),
        ],
    )
    def test_what_is_none_is_shown(self, path: str, value: Any) -> None:
        assert masked(path, value) == value

    def test_the_rest_of_a_url_is_shown(self) -> None:
        assert masked("x", "postgresql://me:pw@db.example/shop") == f"postgresql://me:{HIDDEN}@db.example/shop"


class TestChecksum:
    PLAN = plan_of([deployment(parameters={"a": 1, "b": 2})], [live(deployment("old/x"))])

    def test_equal_plans_have_the_same(self) -> None:
        again = plan_of([deployment(parameters={"b": 2, "a": 1})], [live(deployment("old/x"))])
        assert again.checksum == self.PLAN.checksum

    @pytest.mark.parametrize(
        "other",
        [
            plan_of([deployment(parameters={"a": 1, "b": 3})], [live(deployment("old/x"))]),
            plan_of([deployment("etl/other", parameters={"a": 1, "b": 2})], [live(deployment("old/x"))]),
            plan_of([deployment(parameters={"a": 1, "b": 2})], []),
            plan_of([deployment(parameters={"a": 1, "b": 2})], [replace(live(deployment("old/x")), id="another")]),
        ],
    )
    def test_different_plans_have_different_ones(self, other: Plan) -> None:
        assert other.checksum != self.PLAN.checksum

    def test_a_server_that_moved_makes_another_plan(self) -> None:
        wanted, there = deployment(), live(deployment(), description="x", schedules=(cron(slug="n"),))
        moved = [
            replace(there, config=replace(there.config, description="y")),
            replace(there, config=replace(there.config, paused=True)),
            replace(there, config=replace(there.config, schedules=(cron("9 * * * *", slug="n"),))),
            replace(there, schedule_ids=("another",)),
            replace(there, id="another"),
        ]
        checksums = {plan_of([wanted], [each]).checksum for each in (there, *moved)}
        assert len(checksums) == 6

    def test_pools_and_limits_count(self) -> None:
        changes = [
            ResourceChange(
                action=action, resource="tag limit", name="db", desired=LimitSpec(scope="tag", name="db", slots=slots)
            )
            for action, slots in (("create", 1), ("create", 2), ("update", 2))
        ]
        assert len({plan_of(resources=[each]).checksum for each in changes} | {plan_of().checksum}) == 4
        unchanged = replace(changes[0], action="unchanged")
        assert plan_of(resources=[unchanged]).checksum == plan_of().checksum

    def test_what_is_told_about_a_plan_makes_no_difference(self) -> None:
        plan = plan_of([deployment()], [live(deployment(), description="x")])
        told = with_runs(with_findings(since(plan, deployment()), {"etl/daily": (FINDING,)}), {})
        assert checksum(told) == plan.checksum

    def test_who_moved_a_limit_makes_no_difference(self) -> None:
        wanted = LimitSpec(scope="tag", name="db", slots=3)
        live_limit = replace(wanted, slots=5)
        changes = plan_resources(Resources(limits=(wanted,)), LiveResources(limits=(live_limit,)))
        plan = plan_of(resources=changes)
        for last in (wanted, live_limit, replace(wanted, slots=4)):
            told = with_causes(plan, record(12, resources=Resources(limits=(last,))))
            assert told.resources != plan.resources
            assert checksum(told) == plan.checksum

    def test_where_a_declaration_stands_makes_no_difference(self) -> None:
        one, other = (plan_of([deployment(source=f"prefect.yaml:{line}")]) for line in (3, 9))
        assert one.checksum == other.checksum

    def test_more_that_would_be_overwritten_makes_another_plan(self) -> None:
        one = plan_of([deployment()], [live(deployment(), description="x")])
        more = plan_of([deployment()], [live(deployment(), description="x", parameters={"a": 1})])
        assert one.checksum != more.checksum

    def test_what_is_not_written_makes_no_difference(self) -> None:
        unchanged = plan_of([deployment(), deployment("b/b")], [live(deployment("b/b"))])
        assert unchanged.checksum == plan_of([deployment()], []).checksum

    def test_a_step_that_would_run_makes_another_plan(self) -> None:
        steps = [DeployStep(function="x", id="a", inputs={"script": "make"}), DeployStep(function="x", folder="jobs")]
        plans = [plan_of([deployment(steps=(step,))]) for step in steps]
        assert len({each.checksum for each in (*plans, plan_of([deployment()]))}) == 3
        unchanged = [plan_of([deployment(steps=(step,))], [live(deployment())]) for step in steps]
        assert unchanged[0].checksum == unchanged[1].checksum

    def test_how_an_image_is_built_is_in_its_tag(self) -> None:
        """What is new about a build that comes out as the same image, its user for a registry perhaps, is no change."""
        steps = [DeployStep(function="x", id=name, image=image_spec(credentials=name)) for name in ("a", "b")]
        one, other = (plan_of([deployment(steps=(step,))]).checksum for step in steps)
        assert one == other

    def test_another_server_makes_another_plan(self) -> None:
        desired = Desired(owner=OWNER, deployments=(deployment(),))
        plans = [make_plan(desired, (), api_url=url, policy=Policy()) for url in ("http://a/api", "http://b/api")]
        assert plans[0].checksum != plans[1].checksum


class TestCauses:
    def test_are_told_in_the_reasons(self) -> None:
        was = deployment(description="old", parameters={"a": 1}, tags=("x",))
        wanted = replace(was, version="2", parameters={"a": 2}, tags=("y",))
        plan = plan_of([wanted], [live(was, description="by hand", tags=("z",))])
        (found,) = since(plan, was).changes
        assert found.reasons == (
            "the repository changed: parameters, code",
            "somebody changed the server: description",
            "changed on both sides: tags",
        )

    def test_are_not_told_of_what_was_never_recorded(self) -> None:
        plan = plan_of([deployment(description="new")], [live(deployment())])
        told = since(plan, deployment("other/x"))
        assert told.changes == plan.changes
        assert told.last_revision == 12

    def test_nothing_is_told_without_a_record(self) -> None:
        plan = plan_of([deployment(description="new")], [live(deployment())])
        assert with_causes(plan, None) == plan

    def test_what_somebody_deleted_is_said(self) -> None:
        plan = plan_of([deployment(source="prefect.yaml:3"), deployment("new/x", source="prefect.yaml:9")])
        assert [change.reasons for change in since(plan, deployment()).changes] == [
            ("somebody deleted it from the server after revision 12",),
            ("asked for by prefect.yaml:9",),
        ]

    def test_a_mark_that_was_taken_away_is_said(self) -> None:
        (found,) = since(plan_of([deployment()], [live(deployment(), owner=None)]), deployment()).changes
        assert found.action == "conflict"
        assert "it was ours, as revision 12 records" in found.reasons[-1]
        (found,) = since(
            plan_of([deployment()], [live(deployment(), owner=None, tags=())], adopt=["*"]), deployment()
        ).changes
        assert found.reasons == ("taken over on request: it belonged to nobody", "somebody changed the server: tags")

    def test_another_owners_was_not_taken_from_us(self) -> None:
        theirs = live(deployment(), owner=TestOwnership.STAGING)
        (found,) = since(plan_of([deployment()], [theirs]), deployment()).changes
        assert len(found.reasons) == 1

    @ANY_SPEED
    @given(st.data())
    def test_never_change_what_is_done(self, data: st.DataObject) -> None:
        def some(label: str) -> list[DeploymentConfig]:
            paths = data.draw(st.lists(st.sampled_from(["a/x", "b/x", "c/x"]), unique=True), label=label)
            return [
                deployment(
                    path,
                    description=data.draw(st.sampled_from("12")),
                    paused=data.draw(st.booleans()),
                    schedules=data.draw(st.sampled_from([(), (cron(),), (cron("1 1 * * *", slug="n", active=False),)])),
                )
                for path in paths
            ]

        owners = st.sampled_from([OWNER, OWNER, None, TestOwnership.STAGING])
        there = [live(config, owner=data.draw(owners)) for config in some("live")]
        plan = plan_of(some("desired"), there, adopt=["a/*"])
        told = since(plan, *some("recorded"))
        actions = [(each.action, each.deployment, [diff.path for diff in each.fields]) for each in plan.changes]
        assert [(each.action, each.deployment, [diff.path for diff in each.fields]) for each in told.changes] == actions
        assert checksum(told) == plan.checksum

    @ANY_SPEED
    @given(
        st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=5), st.booleans()), unique_by=lambda each: each[0])
    )
    def test_what_is_there_already_needs_no_plan(self, drawn: list[tuple[str, str, bool]]) -> None:
        wanted = [deployment(f"{name}/x", description=text, paused=paused) for name, text, paused in drawn]
        assert not since(plan_of(wanted, list(map(live, wanted))), *wanted).has_changes


class TestRunsAndFindings:
    RUNS = TouchedRuns(scheduled=3, running=1)

    def test_runs_belong_to_what_is_written(self) -> None:
        wanted = [deployment("a/new"), deployment("b/same"), deployment("c/other", description="x")]
        there = [live(deployment(path)) for path in ("b/same", "c/other", "d/gone")]
        plan = plan_of(wanted, there)
        assert touching(plan) == ("id-of-c/other", "id-of-d/gone")
        told = with_runs(plan, {f"id-of-{path}": self.RUNS for path in ("b/same", "c/other", "d/gone")})
        assert {change.deployment for change in told.changes if change.runs == self.RUNS} == {"c/other", "d/gone"}

    def test_findings_belong_to_their_deployment(self) -> None:
        plan = with_findings(plan_of([deployment("a/x"), deployment("b/x")]), {"b/x": (FINDING,)})
        assert [change.obstacles for change in plan.changes] == [(), (FINDING,)]
        again = with_findings(plan, {"b/x": (replace(FINDING, severity="warning"),)})
        assert len(again.changes[1].findings) == 2

    def test_findings_show_no_secrets(self) -> None:
        told = Finding(message="'hunter2secret' is no number, nor is 'from a block'.", remedy="Not 'from a block'.")
        wanted = deployment(parameters={"password": "hunter2secret"}, concealed=("from a block",))
        (change,) = with_findings(plan_of([wanted]), {"etl/daily": (told,)}).changes
        assert "hunter2" not in repr(change.findings) and "from a block" not in repr(change.findings)


class TestRefreshed:
    def now(self, plan: Plan, *there: LiveDeployment, **more: Any) -> Plan:
        return refreshed(plan, there, **more)

    def test_nothing_moved(self) -> None:
        there = [live(deployment("a/x"), description="old"), live(deployment("gone/x"))]
        plan = plan_of([deployment("a/x"), deployment("new/x")], there)
        assert self.now(plan, *there) == plan

    def test_what_was_created_meanwhile_is_compared(self) -> None:
        plan = plan_of([deployment()])
        assert self.now(plan, live(deployment())).changes[0].action == "unchanged"
        assert self.now(plan, live(deployment(), description="x")).changes[0].action == "update"
        assert self.now(plan, live(deployment(), owner=None)).changes[0].action == "conflict"
        assert self.now(plan, live(deployment(), owner=None), adopt=["*"]).changes[0].action == "adopt"

    def test_what_was_deleted_meanwhile_is_created(self) -> None:
        plan = plan_of([deployment(description="new")], [live(deployment())])
        assert [change.action for change in self.now(plan).changes] == ["create"]

    def test_what_was_repaired_meanwhile_is_left_alone(self) -> None:
        plan = plan_of([deployment()], [live(deployment(), description="x")])
        assert not self.now(plan, live(deployment())).has_changes

    def test_what_changed_meanwhile_is_planned_with_what_is_there_now(self) -> None:
        plan = plan_of([deployment()], [live(deployment(), description="x")])
        there = replace(live(deployment(), description="y", tags=()), id="another")
        (found,) = self.now(plan, there).changes
        assert found.live == there
        assert [diff.path for diff in found.fields] == ["tags", "description"]

    def test_a_delete_of_what_is_gone_or_not_ours_any_more_is_left_out(self) -> None:
        plan = plan_of([], [live(deployment())])
        assert self.now(plan).changes == ()
        assert self.now(plan, live(deployment(), owner=None)).changes == ()
        again = replace(live(deployment()), id="made anew")
        assert [(each.action, each.live) for each in self.now(plan, again).changes] == [("delete", again)]

    def test_nothing_new_is_deleted(self) -> None:
        plan = plan_of([], [live(deployment("a/x"))])
        assert self.now(plan, live(deployment("b/x"))).changes == ()

    def test_what_is_kept_stays_kept(self) -> None:
        there = live(deployment("old/x"))
        plan = plan_of([], [there], policy=Policy(prune=False))
        assert self.now(plan, there).changes == plan.changes
        assert self.now(plan).changes == ()

    def test_findings_and_runs_stay(self) -> None:
        there = live(deployment(), description="x")
        plan = with_findings(plan_of([deployment()], [there]), {"etl/daily": (FINDING,)})
        plan = with_runs(plan, {there.id: TouchedRuns(running=2)})
        assert self.now(plan, there) == plan

    def test_the_checksum_tells_whether_anything_moved(self) -> None:
        there = live(deployment(), description="x")
        plan = plan_of([deployment()], [there])
        assert self.now(plan, there).checksum == plan.checksum
        assert self.now(plan, replace(there, id="another")).checksum != plan.checksum
        limit = LimitSpec(scope="tag", name="db", slots=1)
        change = ResourceChange(action="create", resource="tag limit", name="db", desired=limit)
        assert self.now(plan, there, resources=[change]).checksum != plan.checksum
        assert self.now(plan, there, resources=[change]).resources == (change,)

    def test_the_order_is_that_of_a_plan(self) -> None:
        plan = plan_of([DEPLOYER, deployment("z/x")], [live(DEPLOYER), live(deployment("a/old"))])
        found = self.now(plan, live(deployment("a/old")))
        assert [each.deployment for each in found.changes] == ["z/x", "a/old", "deploy-everything/development"]


class TestOutputsOfSteps:
    """What only a step can tell is not known before it has run, and it runs only for what is written."""

    OWN = DeployStep(function="shop.steps.prepare", id="own")
    OPEN: ClassVar[dict[str, Any]] = {
        "version": "{{ own.commit }}",
        "description": "Built at {{ own.time }}.",
        "parameters": {"a": "{{ own.a }}", "b": 1},
        "job_variables": {"image": "r/etl:{{ own.commit }}"},
    }
    THERE: ClassVar[dict[str, Any]] = {
        "version": "abc",
        "description": "Built at noon.",
        "parameters": {"a": [1], "b": 1},
        "job_variables": {"image": "r/etl:abc"},
    }

    def asked(self, **fields: Any) -> DeploymentConfig:
        return deployment(steps=(self.OWN,), **{**self.OPEN, **fields})

    def test_a_deployment_in_which_nothing_else_differs_is_unchanged(self) -> None:
        found = change(self.asked(), live(deployment(**self.THERE)))
        assert (found.action, found.fields, found.reasons) == ("unchanged", (), ())
        assert found.desired is not None
        assert {name: getattr(found.desired, name) for name in self.THERE} == self.THERE

    @pytest.mark.parametrize(
        ("fields", "path"),
        [
            ({"description": "Made at {{ own.time }}."}, "description"),
            ({"parameters": {"a": "{{ own.a }}", "b": 2}}, "parameters.b"),
            ({"job_variables": {"image": "other/etl:{{ own.commit }}"}}, "job_variables.image"),
            ({"work_pool": "other"}, "work_pool"),
        ],
    )
    def test_where_something_else_differs_the_placeholders_are_shown(self, fields: dict[str, Any], path: str) -> None:
        found = change(self.asked(**fields), live(deployment(**self.THERE)))
        assert found.action == "update"
        assert path in [each.path for each in found.fields]
        assert ("version", "abc", "{{ own.commit }}") in differing(found)
        assert found.desired == self.asked(**fields)

    def test_a_new_one_shows_them_too(self) -> None:
        found = change(self.asked())
        assert found.desired == self.asked()

    def test_one_that_was_never_given_is_a_difference(self) -> None:
        found = change(self.asked(), live(deployment(**{**self.THERE, "parameters": {"b": 1}})))
        assert ("parameters.a", None, "{{ own.a }}") in differing(found)

    def test_without_the_step_they_are_texts(self) -> None:
        found = change(deployment(**self.OPEN), live(deployment(**self.THERE)))
        assert ("version", "abc", "{{ own.commit }}") in differing(found)

    def test_of_an_image_of_ours_that_is_not_known_yet(self) -> None:
        step = DeployStep(function="x", id="build-image", image=image_spec())
        wanted = deployment(steps=(step,), job_variables={"image": "{{ build-image.image }}"})
        assert change(wanted, live(deployment(job_variables={"image": "r/etl:1"}))).action == "unchanged"
        assert change(wanted, live(deployment(job_variables={"image": "r/etl:1"}, paused=True))).kept

    def test_what_is_taken_over_is_written_in_any_case(self) -> None:
        found = change(self.asked(), live(deployment(**self.THERE), owner=None), adopt=["*"])
        assert (found.action, found.desired) == ("adopt", self.asked())

    def test_whoever_refreshes_the_plan_sees_the_same(self) -> None:
        there = live(deployment(**self.THERE))
        plan = plan_of([self.asked()], [there])
        assert refreshed(plan, [replace(there)]).changes == plan.changes


class TestOutOfSync:
    def words(self, plan: Plan) -> tuple[str, ...]:
        return out_of_sync(plan.changes[0])

    def test_is_nothing_where_nothing_differs(self) -> None:
        assert self.words(plan_of([deployment()], [live(deployment(), paused=True)])) == ()

    def test_tells_drift_from_what_is_not_applied_yet(self) -> None:
        was = deployment(parameters={"x": 1})
        plan = plan_of([replace(was, description="new")], [live(was, parameters={"x": 2})])
        assert self.words(since(plan, was)) == (
            "somebody changed parameters.x on the server: `orchestrator apply` sets it back",
            "description not as the repository says: `orchestrator apply` changes that",
        )
        assert len(self.words(plan)) == 1

    def test_many_fields_are_counted(self) -> None:
        plan = plan_of([deployment(parameters={})], [live(deployment(), parameters={str(n): n for n in range(9)})])
        assert "parameters.4 and 4 more" in self.words(plan)[0]

    def test_what_is_missing_too_much_or_not_ours(self) -> None:
        assert "`orchestrator apply` creates it" in self.words(plan_of([deployment(source="x.yaml:1")]))[0]
        assert "`orchestrator apply` deletes it" in self.words(plan_of([], [live(deployment())]))[0]
        assert "--adopt" in self.words(plan_of([deployment()], [live(deployment(), owner=None)]))[0]


class TestTriggers:
    TRIGGER: ClassVar[dict[str, Any]] = {"name": "on-file", "expect": ["file.arrived"], "enabled": True}

    def test_are_compared(self) -> None:
        assert changed(triggers=((self.TRIGGER,), (self.TRIGGER,))).action == "unchanged"
        assert differing(changed(triggers=((self.TRIGGER,), ({**self.TRIGGER, "enabled": False},)))) == [
            ("triggers.on-file.enabled", True, False)
        ]

    def test_come_and_go(self) -> None:
        assert differing(changed(triggers=((), (self.TRIGGER,)))) == [("triggers.on-file", None, self.TRIGGER)]
        assert differing(changed(triggers=((self.TRIGGER,), ()))) == [("triggers.on-file", self.TRIGGER, None)]

    def test_without_names_are_numbered(self) -> None:
        nameless = {"expect": ["a"]}
        found = changed(triggers=((nameless, nameless), (nameless, {"expect": ["b"]})))
        assert differing(found) == [("triggers.1.expect", ["a"], ["b"])]


def test_what_to_do_names_the_environment() -> None:
    (words,) = out_of_sync(Change(action="create", deployment="etl/daily", desired=deployment(environment="staging")))
    assert "`orchestrator apply --env staging` creates it" in words


class TestWhoseName:
    @pytest.mark.parametrize(
        ("holder", "words"),
        [
            (Owner(project="shop-copy", environment="development"), 'write project = "shop-copy" below'),
            (Owner(project="shop", environment="staging"), "two environments on one server need different names"),
            (None, "--adopt 'etl/daily'"),
        ],
    )
    def test_a_conflict_says_the_way_out(self, holder: Owner | None, words: str) -> None:
        plan = plan_of([deployment("etl/daily", tags=(OWNER.tag,))], [live(deployment("etl/daily"), owner=holder)])
        assert words in plan.changes[0].reasons[0]


class TestPredecessors:
    def plan(self, *obstacles: Finding) -> Plan:
        wanted, there = deployment("etl/new"), (live(deployment("etl/old")), live(deployment("other/old")))
        plan = make_plan(Desired(owner=OWNER, deployments=(wanted,)), there, api_url=API_URL, policy=Policy())
        return with_predecessors_kept(with_findings(plan, {"etl/new": obstacles} if obstacles else {}))

    def test_are_kept_while_what_comes_in_their_place_cannot_be_made(self) -> None:
        found = {change.deployment: change.obstacles for change in self.plan(Finding(message="no pool")).changes}
        assert [item.message for item in found["etl/old"]] == [
            "It is kept: etl/new, which comes in its place, cannot be made."
        ]
        assert found["other/old"] == ()

    @pytest.mark.parametrize("obstacles", [(), (Finding(message="no worker", severity="warning"),)])
    def test_go_otherwise(self, obstacles: tuple[Finding, ...]) -> None:
        assert [change.obstacles for change in self.plan(*obstacles).changes if change.action == "delete"] == [(), ()]


def test_what_has_a_fault_is_not_known_to_be_right() -> None:
    item = live(deployment())
    left = Desired(owner=OWNER, skipped_paths=("etl/daily",))
    (faulty,) = make_plan(left, [item], api_url=API_URL, policy=Policy()).changes
    (kept,) = make_plan(Desired(owner=OWNER), [item], api_url=API_URL, policy=Policy(prune=False)).changes
    assert (is_left_alone(faulty), is_left_alone(kept)) == (True, False)

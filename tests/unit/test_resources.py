"""Pools, queues and limits: what is planned, and in which order and how far it is carried out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from orchestrator.config import EnvironmentConfig
from orchestrator.errors import ServerError, ServerUnreachable
from orchestrator.model import (
    FieldDiff,
    LimitSpec,
    LivePool,
    LiveResources,
    PoolSpec,
    QueueSpec,
    ResourceChange,
    Resources,
)
from orchestrator.resources import (
    Spec,
    apply_resources,
    key_of,
    plan_resources,
    resources_of,
    undo,
    with_resource_causes,
)

POOL = PoolSpec(name="p", type="process", concurrency_limit=3)
QUEUE = QueueSpec(pool="p", name="q", priority=2, concurrency_limit=1)
TAG = LimitSpec(scope="tag", name="database", slots=3)
RATE = LimitSpec(scope="global", name="api", slots=5, decay_per_second=0.5)


def on_server(*specs: Spec) -> LiveResources:
    return LiveResources(
        pools=tuple(LivePool(spec=spec) for spec in specs if isinstance(spec, PoolSpec)),
        queues=tuple(spec for spec in specs if isinstance(spec, QueueSpec)),
        limits=tuple(spec for spec in specs if isinstance(spec, LimitSpec)),
    )


def asked(*specs: Spec) -> Resources:
    live = on_server(*specs)
    return Resources(pools=tuple(pool.spec for pool in live.pools), queues=live.queues, limits=live.limits)


@dataclass
class Notes:
    """A writer that notes what it is told, and fails as it is told."""

    fails: dict[str, Exception] = field(default_factory=dict)
    there_meanwhile: tuple[str, ...] = ()
    said: list[str] = field(default_factory=list)

    def _note(self, words: str, spec: Spec) -> None:
        _, name = key_of(spec)
        if name in self.fails:
            raise self.fails[name]
        self.said.append(f"{words} {name}")

    async def create(self, spec: Spec) -> bool:
        self._note("create", spec)
        return key_of(spec)[1] not in self.there_meanwhile

    async def update(self, spec: Spec, names: Sequence[str]) -> None:
        values = " ".join(f"{name}={getattr(spec, name)}" for name in names)
        self._note(f"set {values} of", spec)

    async def remove(self, spec: Spec) -> None:
        self._note("remove", spec)


def tag(slots: int) -> LimitSpec:
    return LimitSpec(scope="tag", name="database", slots=slots)


class TestCauses:
    def change(self, wanted: Spec, live: Spec | None, last: Spec | None, **more: Any) -> ResourceChange:
        """The change, with causes since revision 7."""
        planned = plan_resources(asked(wanted), on_server(live) if live else on_server())
        recorded = asked(last) if last else Resources()
        (change,) = with_resource_causes(planned, recorded, revision=7, **{"told": "the repository changed", **more})
        return change

    @pytest.mark.parametrize(
        ("last", "live", "wanted", "cause", "reason"),
        [
            (3, 3, 4, "repository", "the repository changed: slots"),
            (3, 5, 3, "server", "somebody changed the server: slots"),
            (3, 5, 4, "both", "changed on both sides: slots"),
        ],
    )
    def test_who_moved(self, last: int, live: int, wanted: int, cause: str, reason: str) -> None:
        change = self.change(tag(wanted), tag(live), tag(last))
        assert (change.action, change.reasons) == ("update", (reason,))
        assert [(diff.path, diff.cause) for diff in change.fields] == [("slots", cause)]
        assert change.is_drift is (cause != "repository")

    def test_of_what_is_not_recorded_nothing_is_known(self) -> None:
        for live in (tag(5), None):
            change = self.change(tag(3), live, None)
            assert ({diff.cause for diff in change.fields}, change.is_drift) == ({""}, False)

    def test_each_side_is_told_on_its_own(self) -> None:
        last = PoolSpec(name="p", type="process", description="old", concurrency_limit=3)
        live, wanted = replace(last, concurrency_limit=9), replace(last, description="new")
        assert self.change(wanted, live, last).reasons == (
            "the repository changed: description",
            "somebody changed the server: concurrency limit",
        )

    def test_what_the_environment_did_not_declare_before_it_declares_now(self) -> None:
        last = PoolSpec(name="p", type="process")
        change = self.change(POOL, replace(POOL, concurrency_limit=9), last)
        assert change.reasons == ("the repository changed: concurrency limit",)
        assert self.change(last, replace(POOL, concurrency_limit=9), POOL).action == "unchanged"

    def test_what_is_gone_from_the_server_was_deleted(self) -> None:
        for spec in (tag(3), PoolSpec(name="bare", type="process")):
            change = self.change(spec, None, spec)
            assert change.action == "create" and change.is_drift
            assert change.reasons == ("somebody deleted it from the server after revision 7",)
            assert {diff.cause for diff in change.fields} <= {"server"}

    def test_a_rollback_says_to_what_it_goes(self) -> None:
        change = self.change(tag(3), tag(5), tag(5), told="otherwise in revision 3")
        assert change.reasons == ("otherwise in revision 3: slots",)

    def test_a_pool_of_another_type_says_who_made_it_so(self) -> None:
        docker = replace(POOL, type="docker")
        assert self.change(POOL, docker, POOL).reasons[1:] == ("somebody made it anew after revision 7",)
        assert self.change(POOL, docker, docker).reasons[1:] == ("the repository changed: type",)


class TestPlan:
    def test_what_is_missing_is_created_pools_first(self) -> None:
        changes = plan_resources(asked(POOL, QUEUE, TAG, RATE), on_server())
        assert [(change.action, change.resource, change.name) for change in changes] == [
            ("create", "work pool", "p"),
            ("create", "work queue", "p/q"),
            ("create", "tag limit", "database"),
            ("create", "global limit", "api"),
        ]
        assert changes[3].fields == (FieldDiff(path="slots", after=5), FieldDiff(path="decay_per_second", after=0.5))

    def test_what_is_as_declared_is_unchanged(self) -> None:
        changes = plan_resources(asked(POOL, QUEUE, TAG, RATE), on_server(POOL, QUEUE, TAG, RATE))
        assert {change.action for change in changes} == {"unchanged"}
        assert not any(change.writes or change.fields for change in changes)

    @pytest.mark.parametrize(
        ("declared", "live", "diff"),
        [
            (POOL, PoolSpec(name="p", type="process", concurrency_limit=9), ("concurrency_limit", 9, 3)),
            (POOL, PoolSpec(name="p", type="process"), ("concurrency_limit", None, 3)),
            (QUEUE, QueueSpec(pool="p", name="q", priority=1, concurrency_limit=1), ("priority", 1, 2)),
            (TAG, LimitSpec(scope="tag", name="database", slots=4), ("slots", 4, 3)),
            (RATE, LimitSpec(scope="global", name="api", slots=5, decay_per_second=0), ("decay_per_second", 0, 0.5)),
        ],
    )
    def test_what_differs_is_updated(self, declared: Spec, live: Spec, diff: tuple[str, Any, Any]) -> None:
        (change,) = plan_resources(asked(declared), on_server(live))
        assert change.action == "update"
        assert change.fields == (FieldDiff(path=diff[0], before=diff[1], after=diff[2]),)
        assert change.reasons == (f"{diff[0].replace('_', ' ')} differ{'' if diff[0] == 'slots' else 's'}",)

    def test_where_the_environment_is_silent_the_server_decides(self) -> None:
        silent = asked(PoolSpec(name="p", type="process"), QueueSpec(pool="p", name="q"))
        live = on_server(PoolSpec(name="p", type="process", description="x", concurrency_limit=3), QUEUE)
        assert {change.action for change in plan_resources(silent, live)} == {"unchanged"}

    def test_what_nobody_declares_is_left(self) -> None:
        assert plan_resources(asked(), on_server(POOL, QUEUE, TAG, RATE)) == ()

    def test_another_type_is_a_conflict_and_so_are_the_queues_of_the_pool(self) -> None:
        changes = plan_resources(asked(POOL, QUEUE, TAG), on_server(PoolSpec(name="p", type="docker"), TAG))
        assert [change.action for change in changes] == ["conflict", "conflict", "unchanged"]
        assert changes[0].reasons == ("the pool 'p' has the type 'docker'; this environment wants 'process'",)
        assert not any(change.writes for change in changes)

    def test_a_tag_and_a_global_limit_of_one_name_are_two(self) -> None:
        both = LimitSpec(scope="tag", name="x", slots=1), LimitSpec(scope="global", name="x", slots=2)
        changes = plan_resources(asked(*both), on_server(both[1]))
        assert [change.action for change in changes] == ["create", "unchanged"]

    def test_a_queue_of_the_same_name_in_another_pool_is_another(self) -> None:
        (change,) = plan_resources(asked(QUEUE), on_server(QueueSpec(pool="other", name="q", priority=2)))
        assert change.action == "create"

    def test_queues_go_by_priority(self) -> None:
        names = {"free": None, "low": 9, "high": 1}
        queues = [QueueSpec(pool="p", name=name, priority=value) for name, value in names.items()]
        changes = plan_resources(asked(*queues), on_server())
        assert [change.name for change in changes] == ["p/high", "p/low", "p/free"]


class TestApply:
    async def test_only_what_differs_is_written(self) -> None:
        live = on_server(PoolSpec(name="p", type="process", concurrency_limit=9), QUEUE, TAG)
        notes = Notes()
        results = await apply_resources(plan_resources(asked(POOL, QUEUE, TAG, RATE), live), notes)
        assert notes.said == ["set concurrency_limit=3 of p", "create api"]
        assert [result.status for result in results] == ["applied", "unchanged", "unchanged", "applied"]

    async def test_a_failure_does_not_stop_the_others(self) -> None:
        notes = Notes(fails={"p": ServerError("No.", remedy="Try this.")})
        results = await apply_resources(plan_resources(asked(POOL, TAG), on_server()), notes)
        assert [(result.status, result.error) for result in results] == [("failed", "No. Try this."), ("applied", None)]

    async def test_a_server_that_is_gone_does(self) -> None:
        notes = Notes(fails={"p": ServerUnreachable("Gone.")})
        changes = plan_resources(asked(POOL, TAG, RATE), on_server(TAG))
        results = await apply_resources(changes, notes)
        assert [result.status for result in results] == ["failed", "unchanged", "skipped"]
        assert notes.said == []

    async def test_a_conflict_is_skipped_with_its_reason(self) -> None:
        changes = plan_resources(asked(POOL), on_server(PoolSpec(name="p", type="docker")))
        (result,) = await apply_resources(changes, Notes())
        assert (result.status, result.error) == ("skipped", changes[0].reasons[0])

    async def test_queues_behind_one_that_moves_are_put_back_to_their_place(self) -> None:
        stays, moves = QueueSpec(pool="p", name="stays", priority=3), QueueSpec(pool="p", name="moves", priority=2)
        other = QueueSpec(pool="other", name="x", priority=4)
        live = on_server(stays, QueueSpec(pool="p", name="moves", priority=9), other)
        notes = Notes()
        results = await apply_resources(plan_resources(asked(stays, moves, other), live), notes)
        assert notes.said == ["set priority=2 of p/moves", "set priority=3 of p/stays"]
        assert [result.status for result in results] == ["applied", "unchanged", "unchanged"]


class TestUndo:
    async def test_what_was_is_restored_and_what_is_new_removed_pools_last(self) -> None:
        before = LimitSpec(scope="tag", name="database", slots=9)
        changes = plan_resources(asked(POOL, QUEUE, TAG, RATE), on_server(before))
        notes = Notes()
        results = await apply_resources(changes, notes)
        notes.said.clear()
        restored = await undo(changes, results, notes)
        assert notes.said == ["remove api", "set slots=9 of database", "remove p/q", "remove p"]
        assert {result.status for result in restored} == {"restored"}

    async def test_what_somebody_else_created_meanwhile_stays(self) -> None:
        changes = plan_resources(asked(POOL), on_server())
        notes = Notes(there_meanwhile=("p",))
        results = await apply_resources(changes, notes)
        restored = await undo(changes, results, notes)
        assert notes.said == ["create p"]
        assert [result.status for result in restored] == ["applied"]

    async def test_what_was_not_applied_is_left_but_a_failed_update_may_have_been(self) -> None:
        live = on_server(LimitSpec(scope="tag", name="database", slots=9), QUEUE)
        changes = plan_resources(asked(POOL, QUEUE, TAG, RATE), live)
        lost = {name: ServerUnreachable("Gone.") for name in ("database", "p")}
        results = await apply_resources(changes, Notes(fails={"database": lost["database"], "p": ServerError("No.")}))
        assert [result.status for result in results] == ["failed", "unchanged", "failed", "skipped"]
        notes = Notes()
        restored = await undo(changes, results, notes)
        assert notes.said == ["set slots=9 of database"]
        assert [result.status for result in restored] == [result.status for result in results]

    async def test_what_cannot_be_set_back_is_said(self) -> None:
        changes = plan_resources(asked(POOL, TAG), on_server())
        results = await apply_resources(changes, Notes())
        restored = await undo(changes, results, Notes(fails={"p": ServerError("It has deployments (1).")}))
        assert [(result.status, result.error) for result in restored] == [
            ("applied", "applied; not set back: It has deployments (1)."),
            ("restored", None),
        ]

    async def test_priorities_are_given_back_in_order(self) -> None:
        live = [QueueSpec(pool="p", name=name, priority=value) for name, value in {"a": 1, "b": 2, "c": 3}.items()]
        want = [QueueSpec(pool="p", name=name, priority=value) for name, value in {"b": 1, "a": 2, "c": 3}.items()]
        changes = plan_resources(asked(*want), on_server(*live))
        notes = Notes()
        results = await apply_resources(changes, notes)
        notes.said.clear()
        await undo(changes, results, notes)
        assert notes.said == ["set priority=1 of p/a", "set priority=2 of p/b", "set priority=3 of p/c"]


class TestOfAnEnvironment:
    def test_two_kinds_may_share_a_pool(self) -> None:
        pools = {
            kind: {"name": "p", "type": "docker", "queues": {kind: {"priority": number}}}
            for number, kind in enumerate(("python", "docker"), 1)
        }
        found = resources_of(EnvironmentConfig.model_validate({"name": "x", "work_pools": pools}))
        assert found.pools == (PoolSpec(name="p", type="docker"),)
        assert [queue.name for queue in found.queues] == ["python", "docker"]

    def test_limits(self) -> None:
        written = {"concurrency_limits": {"a": 1}, "global_concurrency_limits": {"b": 2, "c": {"limit": 3}}}
        found = resources_of(EnvironmentConfig.model_validate({"name": "x", **written}))
        assert [(limit.scope, limit.name, limit.slots) for limit in found.limits] == [
            ("tag", "a", 1),
            ("global", "b", 2),
            ("global", "c", 3),
        ]

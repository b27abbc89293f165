"""The run that submits, and what makes a submission the same one when that run is retried, resumed or restarted."""

from __future__ import annotations

import hashlib
import json
import threading
import weakref
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.telemetry.run_telemetry import LABELS_TRACEPARENT_KEY

from orchestrator.errors import ConfigurationError
from orchestrator.fanout.options import ItemKey

PARENT_TAG = "parent-run"
BATCH_TAG = "batch"


@dataclass(frozen=True, kw_only=True, slots=True)
class Parent:
    """The run that submits.

    `place` says where in it, in words that are the same in its next attempt: the task that submits. Both contexts are
    Prefect's, made anew for each attempt: `attempt` belongs to the flow run, `context` to the task run, if it is one
    that submits.
    """

    flow_run_id: UUID
    deployment_id: UUID | None
    called_by: UUID | None  # the task run that stands for it in the flow run that has called it, in the same process
    task_run_id: UUID | None
    address: str  # of the flow run: the same in the next attempt of the one that it is part of
    place: str
    is_repeated: bool  # an earlier attempt may have submitted already
    labels: Mapping[str, str]
    attempt: FlowRunContext | TaskRunContext
    context: FlowRunContext | TaskRunContext
    outer: tuple[str, ...] = ()  # ids of the flow runs that it is part of, the innermost first

    @property
    def tags(self) -> tuple[str, ...]:
        """What all runs carry that this one has submitted: hooks find them by it, in another process."""
        return parent_tag(self.flow_run_id), *map(parent_tag, self.outer)


def parent_tag(flow_run_id: UUID | str) -> str:
    return f"{PARENT_TAG}:{flow_run_id}"


def current_parent() -> Parent | None:
    """The run that this is called from, None outside of one."""
    flow, task = FlowRunContext.get(), TaskRunContext.get()
    flow_run = flow.flow_run if flow else None
    if flow_run and task and task.task_run.flow_run_id != flow_run.id:
        task = None  # it has called the flow
    flow_run_id = flow_run.id if flow_run else task.task_run.flow_run_id if task else None
    context = task or flow
    if flow_run_id is None or context is None:
        return None
    # In a process of its own a task does not see what the flow's other tasks do.
    is_among_others = flow is not None and flow_run is not None and not flow.detached
    trace = (flow_run.labels if flow_run else {}).get(LABELS_TRACEPARENT_KEY)
    return Parent(
        flow_run_id=flow_run_id,
        deployment_id=flow_run.deployment_id if flow_run else None,
        called_by=flow_run.parent_task_run_id if flow_run and flow_run.deployment_id is None else None,
        address=str(flow_run_id),
        task_run_id=task.task_run.id if task else None,
        place=_place(task, is_among_others),
        is_repeated=_has_begun_before(flow_run) or (task is not None and task.task_run.run_count > 1),
        labels={LABELS_TRACEPARENT_KEY: str(trace)} if trace else {},
        attempt=flow if flow and is_among_others else context,
        context=context,
    )


def _place(task: TaskRunContext | None, is_among_others: bool) -> str:
    """Which task submits. Its run's id and number are random, others in the next attempt of its flow, and its key is
    made of its code, which may have another hash in each process."""
    if task is None:
        return ""
    return task.task.name if is_among_others else f"{task.task.name}-{task.task_run.dynamic_key}"


def _has_begun_before(flow_run: FlowRun | None) -> bool:
    """One that was suspended begins anew, too, and the server does not count that."""
    return flow_run is not None and (flow_run.run_count > 1 or bool(flow_run.empirical_policy.pause_keys))


class Keys:
    """Idempotency keys for what one submission submits.

    A key is made of the parent, the function that submits, the deployment and the item, and of nothing that depends on
    the order of calls: under asyncio.gather that differs from attempt to attempt. Items of equal content are told apart
    by an ordinal, for them the order makes no difference.

    Args:
        parent: the run that submits; outside of one all keys are new, unless `item_key` gives them.
        site: the function that submits.
        item_key: what tells one item from another, instead of its parameters.
        are_new: never find what an earlier attempt has created.
    """

    def __init__(self, parent: Parent | None, site: str, *, item_key: ItemKey | None, are_new: bool) -> None:
        self._parent, self._site, self._item_key = parent, site, item_key
        self._are_new = are_new or (parent is None and item_key is None)
        self._own: set[str] = set()

    @property
    def may_exist(self) -> bool:
        """Whether runs of these keys may have been created before."""
        return not self._are_new and (
            self._item_key is not None or (self._parent is not None and self._parent.is_repeated)
        )

    def key_of(self, deployment_id: str, parameters: Mapping[str, Any], given: Mapping[str, Any]) -> str:
        """The key of one item.

        Args:
            deployment_id: of the deployment.
            parameters: as JSON has them.
            given: the same, as people gave them: `item_key` is told these.

        Raises:
            ConfigurationError: two items have one key.
        """
        if self._are_new:
            return str(uuid4())
        if self._item_key is not None:
            return self._own_key(deployment_id, str(self._item_key(given)))
        digest = _digest(self._site, deployment_id, json.dumps(parameters, sort_keys=True), self._place)
        return f"{digest}:{self._ordinal(digest)}"

    def batch_tag(self, flow_name: str, deployment: str) -> str:
        """The tag of all runs of one submission: the same in the next attempt, another for the next submission."""
        digest = uuid4().hex
        if not self._are_new and self._parent is not None:
            digest = _digest("batch", self._site, deployment, self._place)
            digest = _digest(digest, str(self._ordinal(digest)))
        return f"{BATCH_TAG}:{flow_name}-{digest[:12]}"  # `:name:` would be an emoji in a log

    @property
    def _place(self) -> str:
        return f"{self._parent.address}:{self._parent.place}" if self._parent else ""

    def _own_key(self, deployment_id: str, key: str) -> str:
        digest = _digest(self._site if self._parent else "", deployment_id, key, self._place)
        is_taken = digest in self._own if self._parent is None else self._ordinal(digest) > 1
        self._own.add(digest)
        if is_taken:
            raise ConfigurationError(
                f"Two items have the key {key!r}: the second one would be taken for the first.",
                location="flow_submitter(idempotency=...)",
                remedy="Let the function name what tells items apart.",
            )
        return digest

    def _ordinal(self, digest: str) -> int:
        assert self._parent is not None  # else keys are new or people's own
        return ordinal(self._parent, digest)


@dataclass(slots=True)
class _Submitted:
    """What was submitted in one attempt of a run."""

    asked: Counter[str] = field(default_factory=Counter)  # how often, by content
    given: Counter[str] = field(default_factory=Counter)  # of a flow run: ordinals, to it and to its tasks
    ordinals: dict[tuple[UUID, str, int], int] = field(default_factory=dict)  # of its tasks


_submitted: dict[int, _Submitted] = {}
"""By id of a run's context, which Prefect makes anew for each attempt."""
_lock = threading.Lock()  # tasks submit in threads


def ordinal(parent: Parent, digest: str) -> int:
    """1 for the first submission of this content in this attempt of the flow run, 2 for the second, ...

    A task that is retried meanwhile gets the ordinals that its earlier attempt had.
    """
    with _lock:
        own, whole = _submitted_in(parent.context), _submitted_in(parent.attempt)
        own.asked[digest] += 1
        again = (parent.task_run_id, digest, own.asked[digest]) if parent.task_run_id else None
        if again is not None and again in whole.ordinals:
            return whole.ordinals[again]
        whole.given[digest] += 1
        if again is not None:
            whole.ordinals[again] = whole.given[digest]
        return whole.given[digest]


def _submitted_in(context: FlowRunContext | TaskRunContext) -> _Submitted:
    identity = id(context)
    if identity not in _submitted:
        _submitted[identity] = _Submitted()
        weakref.finalize(context, _submitted.pop, identity, None)
    return _submitted[identity]


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

"""The run that submits, and what makes a submission the same one when that run is retried, resumed or restarted."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from prefect.context import FlowRunContext, TaskRunContext
from prefect.telemetry.run_telemetry import LABELS_TRACEPARENT_KEY
from pydantic_core import to_jsonable_python

from orchestrator.errors import ConfigurationError
from orchestrator.fanout.options import ItemKey

PARENT_TAG = "parent-run"
BATCH_TAG = "batch"


@dataclass(frozen=True, kw_only=True, slots=True)
class Parent:
    """The run that submits.

    `place` says where in it, in words that are the same in its next attempt: the task that submits. `context` is
    Prefect's, made anew for each attempt.
    """

    flow_run_id: UUID
    deployment_id: UUID | None
    place: str
    is_repeated: bool  # an earlier attempt may have submitted already
    labels: Mapping[str, str]
    context: FlowRunContext | TaskRunContext

    @property
    def tag(self) -> str:
        """What all runs carry that this one has submitted: hooks find them by it, in another process."""
        return parent_tag(self.flow_run_id)


def parent_tag(flow_run_id: UUID | str) -> str:
    return f"{PARENT_TAG}:{flow_run_id}"


def current_parent() -> Parent | None:
    """The run that this is called from, None outside of one."""
    flow, task = FlowRunContext.get(), TaskRunContext.get()
    flow_run = flow.flow_run if flow else None
    flow_run_id = flow_run.id if flow_run else task.task_run.flow_run_id if task else None
    if flow_run_id is None:
        return None
    attempts = max(flow_run.run_count if flow_run else 0, task.task_run.run_count if task else 0)
    trace = (flow_run.labels if flow_run else {}).get(LABELS_TRACEPARENT_KEY)
    context = task or flow
    assert context is not None  # one of them named the run
    return Parent(
        flow_run_id=flow_run_id,
        deployment_id=flow_run.deployment_id if flow_run else None,
        # A task's own id differs from attempt to attempt of its flow; the name with its number in the flow does not.
        place=f"{task.task_run.task_key}-{task.task_run.dynamic_key}" if task else "",
        is_repeated=attempts > 1,
        labels={LABELS_TRACEPARENT_KEY: str(trace)} if trace else {},
        context=context,
    )


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

    @property
    def may_exist(self) -> bool:
        """Whether runs of these keys may have been created before."""
        return not self._are_new and (
            self._item_key is not None or (self._parent is not None and self._parent.is_repeated)
        )

    def key_of(self, deployment_id: str, parameters: Mapping[str, Any]) -> str:
        """The key of one item.

        Raises:
            ConfigurationError: the parameters cannot be written as JSON, or two items have one key.
        """
        if self._are_new:
            return str(uuid4())
        if self._item_key is not None:
            return self._own_key(deployment_id, self._item_key(parameters))
        digest = _digest(self._site, deployment_id, _as_json(parameters), self._place)
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
        return f"{self._parent.flow_run_id}:{self._parent.place}" if self._parent else ""

    def _own_key(self, deployment_id: str, key: str) -> str:
        digest = _digest(self._site if self._parent else "", deployment_id, key, self._place)
        if self._parent is not None and self._ordinal(digest) > 1:
            raise ConfigurationError(
                f"Two items have the key {key!r}: the second one would be taken for the first.",
                location="flow_submitter(idempotency=...)",
                remedy="Let the function name what tells items apart.",
            )
        return digest

    def _ordinal(self, digest: str) -> int:
        assert self._parent is not None  # else keys are new or people's own
        return ordinal(self._parent.context, digest)


_ordinals: dict[int, Counter[str]] = {}
"""By id of a run's context, which Prefect makes anew for each attempt: how often each content was submitted."""


def ordinal(context: FlowRunContext | TaskRunContext, digest: str) -> int:
    """1 for the first submission of this content in this attempt of the run, 2 for the second, ..."""
    identity = id(context)
    if identity not in _ordinals:
        _ordinals[identity] = Counter()
        weakref.finalize(context, _ordinals.pop, identity, None)
    _ordinals[identity][digest] += 1
    return _ordinals[identity][digest]


def _as_json(parameters: Mapping[str, Any]) -> str:
    return json.dumps(to_jsonable_python(dict(parameters)), sort_keys=True)


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

"""The words of a submission: what people read about runs that ended."""

from __future__ import annotations

from uuid import uuid4

import pytest
from prefect.client.schemas.objects import StateType

from orchestrator.submission import FlowSubmission, RunOutcome, flow_submitter


def outcome(name: str = "brave-fox", **values: object) -> RunOutcome:
    fields = {"flow_id": None, "state_type": StateType.FAILED, "state_name": "Failed", "message": "", **values}
    return RunOutcome(id=str(uuid4()), name=name, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state_type", "state_name", "succeeded"),
    [
        (StateType.COMPLETED, "Completed", True),
        (StateType.COMPLETED, "NoChanges", True),
        (StateType.FAILED, "TimedOut", False),
        (StateType.CRASHED, "Crashed", False),
        (StateType.CANCELLED, "Cancelled", False),
        (None, "Deleted", False),
    ],
)
def test_success_is_a_matter_of_the_type(state_type: StateType | None, state_name: str, succeeded: bool) -> None:
    assert outcome(state_type=state_type, state_name=state_name).succeeded is succeeded


def test_an_outcome_is_described_on_one_line() -> None:
    failed = outcome(message="Flow run encountered\n  an exception: ValueError: no")

    described = failed.describe("process-table-etl")
    assert described == (
        f"process-table-etl/brave-fox ({failed.id[:8]}): Failed: Flow run encountered an exception: ValueError: no"
    )


def test_a_submission_starts_empty() -> None:
    etl = flow_submitter("flow/deployment")

    assert isinstance(etl, FlowSubmission)
    assert (etl.deployment_path, etl.run_ids, etl.results, etl.outcomes) == ("flow/deployment", [], {}, {})


async def test_waiting_for_nothing_asks_nothing() -> None:
    etl = flow_submitter("flow/deployment")

    assert await etl.wait() == {}
    etl.raise_for_failures()

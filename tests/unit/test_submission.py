"""The words of a submission: what people read about runs that ended."""

from __future__ import annotations

from uuid import uuid4

import pytest

from orchestrator.submission import FlowSubmission, RunOutcome, flow_submitter


def outcome(name: str = "brave-fox", **values: object) -> RunOutcome:
    fields = {"state_type": "FAILED", "state_name": "Failed", "message": "", **values}
    return RunOutcome(id=str(uuid4()), name=name, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state_type", "state_name", "succeeded"),
    [
        ("COMPLETED", "Completed", True),
        ("COMPLETED", "NoChanges", True),
        ("FAILED", "TimedOut", False),
        ("CRASHED", "Crashed", False),
        ("CANCELLED", "Cancelled", False),
        (None, "Deleted", False),
    ],
)
def test_success_is_a_matter_of_the_type(state_type: str | None, state_name: str, succeeded: bool) -> None:
    assert outcome(state_type=state_type, state_name=state_name).succeeded is succeeded


def test_an_outcome_is_described_on_one_line() -> None:
    failed = outcome(message="Flow run encountered\n  an exception: ValueError: no")

    described = failed.describe("process-table-etl")
    assert described == (
        f"process-table-etl/brave-fox ({failed.id[:8]}): Failed: Flow run encountered an exception: ValueError: no"
    )


def test_parameters_are_told_without_their_secrets() -> None:
    described = outcome(parameters={"table": 3, "password": "hunter2-and-more"}).describe("etl")

    assert "[table=3, password=" in described
    assert "hunter2" not in described


def test_a_submission_starts_empty() -> None:
    etl = flow_submitter("flow/deployment")

    assert isinstance(etl, FlowSubmission)
    assert (etl.deployment_path, etl.run_ids, etl.results, etl.outcomes) == ("flow/deployment", [], {}, {})


async def test_waiting_for_nothing_asks_nothing() -> None:
    etl = flow_submitter("flow/deployment")

    assert await etl.wait() == {}
    etl.raise_for_failures()

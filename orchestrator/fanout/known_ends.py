"""Ends that were read, held against what the server counts: where the two differ, there is something to read."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import NamedTuple

from orchestrator.fanout.calls import RunRow
from orchestrator.fanout.outcomes import ENDED

OVERLAP = timedelta(seconds=15)  # an end may be stored that much later than it happened

States = Counter[tuple[str, str]]
"""How many runs are in each state, by its type and name."""


class End(NamedTuple):
    """That a run has ended, as the server says."""

    at: datetime
    state_type: str
    state_name: str


class KnownEnds:
    """What reads have told of the ends of a batch's runs; of those, too, that nobody follows yet."""

    def __init__(self) -> None:
        self._ends: dict[str, End] = {}  # by run id
        self._accepted: States = Counter()  # what the server does not count, and tells all the same when it is read

    def note(self, row: RunRow) -> None:
        self._ends[row.id] = End(row.ended or row.changed, row.state_type, row.state_name)

    def forget(self, run_id: str) -> None:
        """It runs again."""
        self._ends.pop(run_id, None)

    @property
    def states(self) -> States:
        return Counter((end.state_type, end.state_name) for end in self._ends.values())

    def contradict(self, counted: States) -> bool:
        """Whether there are more than the server counts, and reading all again may show why: some of the runs were
        started again, or deleted."""
        excess = self.states - counted
        return bool(excess) and excess != self._accepted

    def accept(self, counted: States) -> None:
        """After all were read again: what is still more than the server counts is no reason to do it once more."""
        self._accepted = self.states - counted

    def still_to_read(self) -> tuple[datetime | None, list[str]]:
        """After when ends may be unread, None for all, and the ids of those after it that were read. Ends are not
        stored in their order: it lies some seconds back."""
        if not self._ends:
            return None, []
        after = max(end.at for end in self._ends.values()) - OVERLAP
        return after, [id_ for id_, end in self._ends.items() if end.at >= after]


def ended_in(counts: States) -> States:
    """Of some counts those of ends."""
    return Counter({state: count for state, count in counts.items() if state[0] in ENDED})

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
        self._accepted: tuple[States, States] = (Counter(), Counter())  # differences that reading all does not mend

    def note(self, row: RunRow) -> None:
        self._ends[row.id] = End(row.ended or row.changed, row.state_type, row.state_name)

    def forget(self, run_id: str) -> None:
        """It runs again."""
        self._ends.pop(run_id, None)

    @property
    def states(self) -> States:
        return Counter((end.state_type, end.state_name) for end in self._ends.values())

    def contradict(self, before: States, after: States) -> bool:
        """Whether reading all again may show why the server counts something else: some of the runs were started again
        or deleted, or their ends were stored out of order.

        Args:
            before: what it counted before the ends were read: all of that must be known.
            after: what it counted after that: there must not be more.
        """
        differences = self._differences(before, after)
        return any(differences) and differences != self._accepted

    def accept(self, before: States, after: States) -> None:
        """After all were read again: differences that are still there are no reason to do it once more."""
        self._accepted = self._differences(before, after)

    def _differences(self, before: States, after: States) -> tuple[States, States]:
        return before - self.states, self.states - after

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

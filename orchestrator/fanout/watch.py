"""What became of runs: by the server's events, within moments, and by a slow poll that finds what they missed.

An end that an event tells is believed at once (`Track.outcome`) and confirmed by the next read, since events can be
lost, come twice, and come before the state can be read. A poll is one request that counts the runs in each state; only
where that differs from what is known are runs read, and then only those.

    event  ─► _hear ─┐
                     ├─► _come_to ─► Track.outcome ─► on_end
    poll   ─► _read ─┘
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial

import anyio

from orchestrator.errors import OrchestratorError
from orchestrator.fanout.calls import Calls, RunRow, Selection, chunks
from orchestrator.fanout.changes import Changes, beside
from orchestrator.fanout.ending import cancel_runs, start_again
from orchestrator.fanout.known_ends import KnownEnds, States, ended_in
from orchestrator.fanout.limits import is_grace_over, may_be_overdue, next_looks, why_overdue
from orchestrator.fanout.log import logger
from orchestrator.fanout.options import Options
from orchestrator.fanout.outcomes import DELETED, ENDED, NAMED_FAILURES, TIMED_OUT, RunOutcome
from orchestrator.fanout.stream import RunEvent, follow
from orchestrator.fanout.track import Track

SAFETY_SECONDS = 15.0  # between polls while events come
SHORTEST_SECONDS = 0.05
FIRST_SECONDS, GROWTH = 0.5, 1.3  # between polls without events: the first, and how much longer the next one is
CONNECT_SECONDS = 1.5  # that the event stream gets before we poll without it
AT_ONCE = 1000  # ids in one question
MOST_UNREAD = 1000  # ends that only events have told
MOST_DOUBTS = 3  # reads that contradict an event before they are believed


class Watch:
    """Follows runs to their ends.

    Args:
        options: of the submission.
        changes: told each time a run has ended.
        on_end: told each run that has ended, once for each time it does.
    """

    def __init__(self, options: Options, changes: Changes, on_end: Callable[[RunOutcome], None]) -> None:
        self.tag: str | None = None
        self.tracks: dict[str, Track] = {}
        self.pending: set[str] = set()
        self.failed: set[str] = set()  # of those that have ended
        self.counts: States = Counter()  # by the latest poll: how many are in which state
        self.is_live = False
        self.poll_interval = 5.0
        self.ui_url = ""
        self._options, self._changes, self._on_end = options, changes, on_end
        self._wake, self._wake_ender = Changes(), Changes()
        self._to_end: dict[str, set[str]] = {}  # why → which runs are to be cancelled
        self._must_poll = False
        self._is_in_round = False
        self._unconfirmed: set[str] = set()
        self._restarts: set[str] = set()  # asked for
        self._restarting: set[str] = set()  # those of them that are being started
        self.may_have_others = False  # an earlier attempt of the parent may have created runs that are not followed
        self._ends = KnownEnds()
        self._missing: set[str] = set()  # by the last read
        self._early: dict[str, RunEvent] = {}  # of runs of the batch that are not followed yet
        self._shortfall = 0  # runs of the batch that the server no longer knows

    # ----- what is followed ----------------------------------------------------------------------------

    def add(self, track: Track, row: RunRow | None = None) -> None:
        """Follow one more run; `row` is what is known of it already."""
        if track.id in self.tracks:
            return
        self.tracks[track.id] = track
        self.pending.add(track.id)
        self._unconfirmed.add(track.id)
        if row is not None:
            self._read(row)
        if (event := self._early.pop(track.id, None)) is not None:
            self._hear(event)

    @property
    def is_settled(self) -> bool:
        """Whether all runs have ended, and a read has confirmed it: a whole round, the end of which may correct what
        its first reads found."""
        is_open = self.pending or self._unconfirmed or self._restarts or self._restarting
        return not (is_open or self._is_in_round)

    @property
    def outcomes(self) -> Iterator[RunOutcome]:
        """Of all that have ended, in the order of submission."""
        return (track.outcome for track in self.tracks.values() if track.outcome)

    def restart(self, ids: list[str]) -> None:
        """Start runs again that have ended badly: the next round does it."""
        for id_ in ids:
            self._restarts.add(id_)
            self.tracks[id_].begin_again()
            self._reopen(self.tracks[id_])
        self.poll_soon()

    async def restart_now(self, calls: Calls, ids: list[str]) -> None:
        """The same, whether anybody follows or not."""
        self.restart(ids)
        for id_ in ids:
            self.tracks[id_].is_retried = False
        await self._start_again(calls)

    def poll_soon(self) -> None:
        self._must_poll = True
        self._wake.tell()

    # ----- the two sources -----------------------------------------------------------------------------

    async def run(self, calls: Calls) -> None:
        """Follow, until cancelled."""
        try:
            stream = partial(follow, self._selection, self._hear, self._set_live)
            await beside(partial(self._poll, calls), [stream, partial(self._end_overdue, calls)])
        finally:
            self.is_live = False

    @property
    def _selection(self) -> Selection:
        return Selection(tag=self.tag) if self.tag else Selection(ids=tuple(self.tracks))

    def _set_live(self, is_live: bool) -> None:
        self.is_live = is_live
        self.poll_soon()  # to read what happened meanwhile

    def _hear(self, event: RunEvent) -> None:
        track = self.tracks.get(event.id)
        if track is None:
            self._early[event.id] = event  # it has ended before the answer to its create has come
            return
        if event.occurred <= track.changed or track.is_left:
            return
        track.name = event.name or track.name
        if event.state_type == "RUNNING":
            track.started = track.started or event.occurred
        self._come_to(track, event.state_type, event.state_name, event.message, event.occurred)
        track.ended = event.occurred if event.state_type in ENDED else None
        track.attempts = max(track.attempts, event.attempts)
        self._conclude(track)

    def _read(self, row: RunRow) -> None:
        """What the server says now; it overrides events, which may be lost."""
        track = self.tracks.get(row.id)
        if track is None or track.is_left or self._is_outdated(track, row):
            return
        track.name, track.attempts, track.looked = row.name, row.attempts, time.monotonic()
        track.is_stray = self.tag not in row.tags
        self._come_to(track, row.state_type, row.state_name, row.message, row.changed)
        track.started, track.ended, track.is_confirmed = row.started, row.ended, row.has_ended
        if row.has_ended and not track.is_stray:
            self._ends.note(row)
        self._conclude(track)

    def _is_outdated(self, track: Track, row: RunRow) -> bool:
        """Whether an event has told more: it can come before its state can be read. A server that is killed between the
        two has forgotten the state, so a read that stays the same is right in the end."""
        track.doubts = track.doubts + 1 if row.changed < track.changed else 0
        return 0 < track.doubts <= MOST_DOUBTS

    def _come_to(self, track: Track, state_type: str, state_name: str, message: str, changed: datetime) -> None:
        track.come_to(state_type, state_name, message, changed)
        if not track.has_ended:
            self._reopen(track)

    def _reopen(self, track: Track) -> None:
        """It has not ended, or runs again: we, somebody else or its infrastructure has retried it."""
        track.reopen()
        self._ends.forget(track.id)
        self.failed.discard(track.id)
        self.pending.add(track.id)
        self._unconfirmed.add(track.id)

    def _conclude(self, track: Track) -> None:
        """Take note that a run has ended. A crashed one may come back by itself: it gets some time."""
        if not track.has_ended or track.id in self._restarts or track.id in self._restarting:
            return
        if track.state_type == "CRASHED" and not is_grace_over(track, self._options):
            self._wake.tell()
        elif track.outcome is None and track.runs_again():
            self.restart([track.id])
        else:
            self._settle(track, track.as_outcome(self.ui_url))

    def give_up(self, ids: Iterable[str], reason: str) -> None:
        """Do not start these again, however they end; where they end as cancelled, that is why."""
        for track in map(self.tracks.__getitem__, ids):
            track.give_up(reason)
            self._restarts.discard(track.id)
            self._conclude(track)  # it may have ended, and waited to be started again

    @property
    def is_restarting(self) -> bool:
        """Whether runs are being started again just now."""
        return bool(self._restarting)

    def _settle(self, track: Track, outcome: RunOutcome) -> None:
        is_new, track.outcome = track.outcome is None, outcome
        self.pending.discard(track.id)
        (self.failed.discard if outcome.succeeded else self.failed.add)(track.id)
        if track.is_confirmed:
            self._unconfirmed.discard(track.id)
        elif not self.pending:
            self.poll_soon()
        if is_new:
            self._on_end(outcome)
        self._changes.tell()

    # ----- polling -------------------------------------------------------------------------------------

    async def _poll(self, calls: Calls) -> None:
        """Subscribe first, then read everything, so that no end falls between the two."""
        with anyio.move_on_after(CONNECT_SECONDS):
            while not self.is_live:
                await self._wake.wait()
        seconds = FIRST_SECONDS
        while True:
            self._must_poll = False
            if not self.is_settled:
                with self._in_round():
                    await self._round(calls)
            await self._sleep(self._pause(min(seconds, self.poll_interval)))
            seconds = min(seconds * GROWTH, self.poll_interval)

    def _pause(self, seconds: float) -> float:
        """Until the next poll; `seconds` where there are no events, or only a read that confirms them is missing."""
        return max(SAFETY_SECONDS, self.poll_interval) if self.is_live and self.pending else seconds

    async def _sleep(self, seconds: float) -> None:
        """Until the next poll is due: in so many seconds, or earlier where something is to be looked at."""
        due = time.monotonic() + seconds
        await anyio.sleep(SHORTEST_SECONDS)
        while not self._must_poll and (left := min(due, self._next_check()) - time.monotonic()) > 0:
            with anyio.move_on_after(left):
                await self._wake.wait()

    def _next_check(self) -> float:
        """When a crashed run's grace is over, or the time of one is up."""
        pending = map(self.tracks.__getitem__, self.pending)
        return min((at for track in pending for at in next_looks(track, self._options)), default=math.inf)

    @contextmanager
    def _in_round(self) -> Iterator[None]:
        """Who waits until all is settled looks again at its end, however it ends."""
        self._is_in_round = True
        try:
            yield
        finally:
            self._is_in_round = False
            self._changes.tell()

    async def _round(self, calls: Calls) -> None:
        await self._start_again(calls)
        counts: States = Counter()
        if self.tag:
            counts += await self._look_at_batch(calls, Selection(tag=self.tag))
        strays = [id_ for id_ in self._unconfirmed if self.tracks[id_].is_stray]
        for part in chunks(strays, AT_ONCE):
            counts += await self._look_at_strays(calls, Selection(ids=tuple(part)))
        self.counts = counts
        await self._look_at_crashed(calls)
        await self._look_at_overdue(calls)

    async def _look_at_batch(self, calls: Calls, batch: Selection) -> States:
        told, heard = {id_ for id_ in self._unconfirmed if self.tracks[id_].outcome}, self._heard_ends()
        # Before the count: what is created while we ask need not be in it.
        expected = sum(not track.is_stray for track in self.tracks.values()) - self._shortfall
        counts = await calls.count_states(batch)
        if not self._has_heard_all(heard, ended_in(counts)):
            await self._read_what_differs(calls, batch, ended_in(counts), told)
        if self.may_have_others:
            await self._look_for_missing_among(calls, self._unconfirmed)
        elif counts.total() < expected:
            self._shortfall += await self._look_for_missing(calls, expected - counts.total())
        return counts

    async def _read_what_differs(self, calls: Calls, batch: Selection, ended: States, told: Collection[str]) -> None:
        """Read until what is known of ends is what the server counts.

        Args:
            calls: to the server.
            batch: our runs.
            ended: how many have ended, by the server's count.
            told: of which an event had told that, before.
        """
        if ended != self._ends.states:
            await self._read_ended(calls, batch)
        later = ended
        if self._ends.states - ended:  # ends come while we ask
            later = ended_in(await calls.count_states(batch))
        if self._ends.contradict(ended, later):
            await self._read_ended(calls, batch, again=True)
        self._ends.accept(ended, later)
        if doubtful := self._unconfirmed.intersection(told):  # an event told an end that is none, or not yet to be read
            await self._read_by_ids(calls, doubtful)

    def _has_heard_all(self, before: States, ended: States) -> bool:
        """Whether the events have told what the server counts: then reading can wait until there is more to read, or
        all have ended. Ends come while we ask, so the counts lie between what was heard before and after."""
        if not self.is_live or not self.pending or len(self._unconfirmed) - len(self.pending) >= MOST_UNREAD:
            return False
        return not (before - ended) and not (ended - self._heard_ends())

    def _heard_ends(self) -> States:
        return Counter((track.state_type, track.state_name) for track in self.tracks.values() if track.outcome)

    async def _read_ended(self, calls: Calls, batch: Selection, *, again: bool = False) -> None:
        """What has ended since the last time.

        Args:
            calls: to the server.
            batch: our runs.
            again: read all, also what was read before.
        """
        after, known = (None, []) if again else self._ends.still_to_read()
        for row in await calls.read_ended(batch, after=after, but=known):
            self._ends.note(row)  # of an earlier attempt, too, which is not adopted yet
            self._read(row)

    async def _look_for_missing_among(self, calls: Calls, ids: Collection[str]) -> None:
        """As `_look_for_missing`, where the number of all does not tell, since not all are ours."""
        lacking = 0
        for part in chunks(sorted(ids), AT_ONCE):
            lacking += len(part) - (await calls.count_states(Selection(ids=tuple(part)))).total()
        if lacking:
            await self._look_for_missing(calls, lacking)

    async def _read_by_ids(self, calls: Calls, ids: Collection[str]) -> set[str]:
        """Read runs; returns the ids of those that the server knows."""
        rows = await calls.read_by_ids(ids) if ids else {}
        for row in rows.values():
            self._read(row)
        return set(rows)

    async def _look_at_strays(self, calls: Calls, strays: Selection) -> States:
        counts = await calls.count_states(strays)
        if ended_in(counts).total():
            for row in await calls.read_ended(strays):
                self._read(row)
        if counts.total() < len(strays.ids):
            await self._look_for_missing(calls, len(strays.ids) - counts.total())
        return counts

    async def _look_for_missing(self, calls: Calls, number: int) -> int:
        """Ask for each run that has not ended by its id: one that is missing twice is gone.

        Args:
            calls: to the server.
            number: how many are missing.

        Returns:
            How many of them are explained: gone, or gone after they had ended.
        """
        missing = self._unconfirmed - await self._read_by_ids(calls, self._unconfirmed)
        gone, self._missing = missing & self._missing, missing
        if not missing:  # they were deleted after a read had confirmed their ends
            return number
        for id_ in gone:
            self._is_gone(self.tracks[id_])
        if missing - gone:
            self.poll_soon()
        return len(gone)

    def _is_gone(self, track: Track) -> None:
        track.is_confirmed = True
        if track.outcome is None:
            track.state_type, track.state_name, track.message = "", DELETED, "the server no longer knows this run"
        self._settle(track, track.outcome or track.as_outcome(self.ui_url))

    async def _look_at_crashed(self, calls: Calls) -> None:
        """Those whose grace is over: have they come back?"""
        over = [id_ for id_ in self.pending if is_grace_over(self.tracks[id_], self._options)]
        await self._read_by_ids(calls, over)

    async def _start_again(self, calls: Calls) -> None:
        ids = self._restarts - self._restarting
        if not ids:
            return
        delay = self._options.retry_delay if any(self.tracks[id_].is_retried for id_ in ids) else 0.0
        self._restarting |= ids  # who asks for it at the same time, beside us, does not do it twice
        try:
            rows = await calls.read_by_ids(ids)
            names = ", ".join(row.name for row in list(rows.values())[:NAMED_FAILURES])
            logger().warning("Starting %d runs again that have not completed: %s", len(rows), names)
            await start_again(calls, rows.values(), delay, wanted=self._restarts)
            self._restarts -= ids
            for id_ in ids:
                self.tracks[id_].since = time.monotonic()  # it may have begun since, and been heard of
            await self._read_by_ids(calls, ids)  # until then what we know of them is how they ended before
        except OrchestratorError:
            self._restarts -= ids
            raise
        finally:  # who is cancelled here leaves the rest to the next round
            self._restarting -= ids
            self._changes.tell()
        for id_ in ids:
            self._conclude(self.tracks[id_])

    # ----- time that is up -----------------------------------------------------------------------------

    async def _look_at_overdue(self, calls: Calls) -> None:
        """Runs that have waited or run for too long: cancel them, or leave them and say so."""
        others = self.pending - self._restarts - self._restarting
        suspects = [track for track in map(self.tracks.__getitem__, others) if may_be_overdue(track, self._options)]
        await self._read_by_ids(calls, [track.id for track in suspects])
        for track in suspects:
            if track.id in self.pending and (reason := why_overdue(track, self._options)):
                self._time_is_up(track, reason)

    def _time_is_up(self, track: Track, reason: str) -> None:
        name = track.name or track.id[:8]
        if self._options.on_timeout == "cancel":
            logger().warning("Run %s: %s; it is cancelled", name, reason)
            track.is_overdue = True
            self.give_up([track.id], f"{reason}.")
            self._to_end.setdefault(f"{reason}.", set()).add(track.id)
            self._wake_ender.tell()
            return
        logger().warning("Run %s: %s; it is left %s", name, reason, track.state_name)
        track.message = f"{reason}; it was left {track.state_name}"
        track.state_type, track.state_name, track.is_confirmed, track.is_left = "", TIMED_OUT, True, True
        self._settle(track, track.as_outcome(self.ui_url))

    async def _end_overdue(self, calls: Calls) -> None:
        """Beside the polls, for ever: all that are overdue for one reason are asked to end together."""
        while True:
            while not self._to_end:
                await self._wake_ender.wait()
            reason, ids = next((reason, frozenset(ids)) for reason, ids in self._to_end.items())
            await cancel_runs(calls, Selection(ids=tuple(sorted(ids))), reason)
            self._to_end[reason] -= ids  # only now: who is cancelled here leaves them to the next one
            if not self._to_end[reason]:
                del self._to_end[reason]

"""How long a run may wait, run, or be away after a crash; `time.monotonic` is the clock of all moments."""

from __future__ import annotations

import time
from collections.abc import Iterator

from orchestrator.fanout.options import Options
from orchestrator.fanout.track import Track, seconds_since


def next_looks(track: Track, options: Options) -> Iterator[float]:
    """When to look at a run: a crashed one's grace is over, or its time may be up."""
    yield track.crashed_at + options.crash_grace
    if not track.is_overdue:
        yield from _time_limits(track, options)


def is_grace_over(track: Track, options: Options) -> bool:
    """Whether it is no longer to be expected that a run which has crashed comes back by itself."""
    return track.crashed_at + options.crash_grace <= time.monotonic()


def may_be_overdue(track: Track, options: Options) -> bool:
    """Whether its time is up by what is known of it: whoever asks reads it before it is ended."""
    now = time.monotonic()
    return not track.is_overdue and any(at <= now for at in _time_limits(track, options))


def why_overdue(track: Track, options: Options) -> str:
    """Why its time is up, empty where it is not."""
    if track.running_since is None:
        limit = options.start_timeout
        waited = time.monotonic() - track.since
        return f"It had not started after {limit:g} s" if limit is not None and waited >= limit else ""
    limit = options.timeout
    ran = seconds_since(track.running_since)
    return f"It had not ended after {limit:g} s" if limit is not None and ran >= limit else ""


def _time_limits(track: Track, options: Options) -> Iterator[float]:
    if track.running_since is None and options.start_timeout is not None:
        yield track.since + options.start_timeout
    if options.timeout is not None:
        yield _asked_from(track) + options.timeout


def _asked_from(track: Track) -> float:
    """From when on its time to run counts; of a run that is not known to have started, from when we last looked."""
    if track.running_since is None:
        return max(track.since, track.looked)
    return time.monotonic() - seconds_since(track.running_since)

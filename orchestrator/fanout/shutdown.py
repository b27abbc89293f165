"""A submission ends before its runs have: they are asked to end, and waited for as long as there is time.

Last words are said to a server that may be away as well, by somebody who is being cancelled: what he has to raise goes
before what can be said here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import anyio

from orchestrator.errors import OrchestratorError
from orchestrator.fanout.calls import Calls, Selection, open_calls
from orchestrator.fanout.changes import Background
from orchestrator.fanout.creation import Feeder
from orchestrator.fanout.ending import PENDING_SECONDS, cancel_runs
from orchestrator.fanout.log import logger
from orchestrator.fanout.options import Options
from orchestrator.fanout.outcomes import NAMED_FAILURES
from orchestrator.fanout.watch import Watch
from orchestrator.interruption import undisturbed

LAST_WORDS_SECONDS = 25.0  # Prefect gives a cancelled flow 30 s
LAST_WAIT_SECONDS = 15.0  # of them for runs that were asked to end


class Shutdown:
    """Ends the runs of a submission.

    Args:
        path: of the deployment.
        options: of the submission.
        watch: who follows the runs.
        watching: that work, in the background.
        feeder: who creates them.
        summarise: says what became of all.
    """

    def __init__(
        self,
        path: str,
        options: Options,
        watch: Watch,
        watching: Background,
        feeder: Feeder,
        summarise: Callable[[], Awaitable[None]],
    ) -> None:
        self._path, self._options = path, options
        self._watch, self._watching, self._feeder = watch, watching, feeder
        self._summarise = summarise

    async def end_all(self, reason: str, grace: float) -> None:
        """Create nothing more, ask all to end that have not, and wait for them; those that are late are named.

        Args:
            reason: why, as people read it.
            grace: seconds for all of it, from when the server has been told.

        Raises:
            ServerError: the server does not answer, or refuses.
        """
        await self._feeder.stop()
        self._watch.give_up(list(self._watch.pending), reason)
        if self._watch.tag is None or not (self._watch.pending or self._feeder.was_cut):
            return
        async with self._watching.needed():
            await self._watching.until(lambda: not self._watch.is_restarting)
            async with open_calls(max(grace, LAST_WAIT_SECONDS)) as calls:
                await self._ask_to_end(calls, reason, patience=min(grace, PENDING_SECONDS))
            self._watch.poll_soon()
            with anyio.move_on_after(grace):
                await self._watching.until(lambda: self._watch.is_settled)
        if late := sorted(self._watch.pending):
            text = "[%s] %d runs have not ended %g s after they were asked to: %s"
            logger().error(text, self._path, len(late), grace, await first_names(late))

    async def _ask_to_end(self, calls: Calls, reason: str, *, patience: float) -> None:
        strays = tuple(id_ for id_ in self._watch.pending if self._watch.tracks[id_].is_stray)
        await cancel_runs(calls, Selection(tag=self._watch.tag), reason, patience=patience)
        if strays:
            await cancel_runs(calls, Selection(ids=strays), reason, patience=patience)

    async def end_as_far_as_possible(self, reason: str) -> None:
        """For somebody who has an error of his own to raise: that the server is away as well only goes to the log."""
        grace = min(self._options.cancel_grace, LAST_WAIT_SECONDS)
        try:
            await self.end_all(reason, grace)
            await self._summarise()
        except OrchestratorError as error:
            logger().error("[%s] The runs may go on, tag %s: %s", self._path, self._watch.tag, error)

    async def leave(self, error: BaseException) -> None:
        """The block of a submission is left by an error, and runs have not ended: end them too, or let them go on."""
        count, why = len(self._watch.pending), f"Its parent ended: {type(error).__name__}."
        if self._options.on_exit == "leave":
            logger().warning("[%s] %d runs go on, tag %s", self._path, count, self._watch.tag)
            return
        await undisturbed(partial(self.end_as_far_as_possible, why), seconds=LAST_WORDS_SECONDS)


async def first_names(ids: Sequence[str]) -> str:
    """The first runs of some by their names, which those that have not ended may not have told yet."""
    named = ids[:NAMED_FAILURES]
    try:
        async with open_calls(0.0) as calls:
            rows = await calls.read_by_ids(named)
    except OrchestratorError:  # a message without names is better than losing the message
        rows = {}
    names = ", ".join(rows[id_].name if id_ in rows else id_ for id_ in named)
    return f"{names} and {len(ids) - len(named)} more" if len(ids) > len(named) else names

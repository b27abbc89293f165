"""One lock per environment: who applies to it is alone, wherever the others start from.

The lock is a Prefect variable: its name is unique, so that of two creators one gets 409; who deletes it by its id is
the only one who does. The holder renews it; one that has died does not, and after a minute by the server's own clock
anybody may take the lock. Why no leased concurrency limit: docs/decisions/0013-one-lock-per-environment.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx

from orchestrator.errors import LockedError, OrchestratorError, ServerBusy, ServerError, ServerUnreachable
from orchestrator.interruption import undisturbed
from orchestrator.model import Owner
from orchestrator.server import PrefectServer, our_errors

logger = logging.getLogger(__name__)

RENEW_SECONDS = 15.0
STALE_SECONDS = 60.0  # a holder that was silent for so long is dead
PROOF_SECONDS = 30.0  # before a write, the last renewal must not be older
POLL_SECONDS = 2.0
RELEASE_SECONDS = 10.0  # a release that takes longer is left to time


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Who has the lock."""

    id: str  # of the variable
    token: str  # differs for each holding
    name: str
    since: str  # ISO 8601
    silent_seconds: float  # since it was last renewed, by the server's clock
    process: str = ""  # as `_process` gives it

    @property
    def is_dead(self) -> bool:
        return self.silent_seconds > STALE_SECONDS or _has_ended(self.process)


@asynccontextmanager
async def environment_lock(
    server: PrefectServer,
    owner: Owner,
    holder: str,
    *,
    wait: bool = True,
    tell: Callable[[str], None] = logger.info,
) -> AsyncIterator[Lock]:
    """Hold the lock of an environment for the time of the block.

    Args:
        server: the server that has the environment.
        owner: the project and its environment.
        holder: who we are, as others are to read it: user@host, or the name of a flow run.
        wait: wait until the lock is free; otherwise refuse.
        tell: is told, in words, whom we wait for.

    Yields:
        The lock; `require` before each write makes sure that it is still ours.

    Raises:
        LockedError: somebody else holds it, and `wait` is False.
        ServerUnreachable, ServerError: the server did not answer.
    """
    lock = Lock(server, owner, holder)
    try:
        await lock.acquire(wait=wait, tell=tell)
    except anyio.get_cancelled_exc_class():  # it may have been created, and nobody heard the answer
        with anyio.CancelScope(shield=True), anyio.move_on_after(RELEASE_SECONDS):
            await lock.withdraw()
        raise
    keeping = asyncio.create_task(lock.keep())  # no task group: it would wrap what the block raises
    try:
        yield lock
    finally:
        keeping.cancel()

        async def give_back() -> None:
            with anyio.move_on_after(RELEASE_SECONDS):
                await asyncio.wait([keeping])
                await lock.release()

        await undisturbed(give_back)


class Lock:
    """The lock of one environment, for one holder."""

    def __init__(self, server: PrefectServer, owner: Owner, holder: str) -> None:
        self._server, self._owner, self._holder = server, owner, holder
        self._token, self._since = uuid4().hex, datetime.now(UTC).isoformat(timespec="seconds")
        self._id = ""
        self._proven = 0.0  # when it was last known to be ours, by this machine's steady clock
        self._lost: LockedError | None = None
        self.waited = False  # somebody else had it, or left it behind

    async def acquire(self, *, wait: bool, tell: Callable[[str], None]) -> None:
        """Get the lock, waiting for it if that is wanted."""
        told = ""
        while not await self._create():
            other = await self._read()
            if other is None:  # it was released in between
                self.waited = True
                continue
            if other.token == self._token:
                self._hold(other.id)  # it was created, and the answer lost
                return
            self.waited = True
            if other.is_dead:
                tell(f"{other.name} has ended without giving its lock back: taking it")
                await self._delete(other.id)
                continue
            words = f"{other.name} applies to {self._owner.environment} since {other.since}"
            if not wait:
                raise LockedError(
                    f"{words}; nothing was changed.",
                    location=self._owner.tag,
                    remedy=f"Wait for it. If it has died, its lock is free {STALE_SECONDS:.0f} seconds after.",
                )
            if told != words:
                tell(f"{words}: waiting")
                told = words
            await anyio.sleep(POLL_SECONDS)

    async def require(self) -> None:
        """Make sure that the lock is still ours: renew it, if the last renewal is a while ago.

        Raises:
            LockedError: somebody took it, or deleted it.
            ServerUnreachable, ServerBusy: the server does not say.
        """
        if self._lost is not None:
            raise self._lost
        if time.monotonic() - self._proven > PROOF_SECONDS:
            await self._renew()

    async def keep(self) -> None:
        """Renew the lock again and again, until it is lost."""
        pause = RENEW_SECONDS
        with self._server.writing():  # tried once: the pauses between renewals are ours
            while self._lost is None:
                await anyio.sleep(pause)
                try:
                    await self._renew()
                    pause = RENEW_SECONDS
                except LockedError as error:
                    logger.error("%s", error)
                except OrchestratorError as error:
                    logger.debug("The lock was not renewed: %s", error)
                    pause = 1.0

    async def withdraw(self) -> None:
        """Give the lock back, if it is ours after all. What fails is left to time."""
        with suppress(OrchestratorError):
            other = await self._read()
            if other is not None and other.token == self._token:
                await self._delete(other.id)

    async def release(self) -> None:
        """Give the lock back. What fails is told only: time does it as well."""
        try:
            await self._delete(self._id)
        except OrchestratorError as error:
            logger.warning("The lock of %s could not be released; it frees itself: %s", self._owner.tag, error)

    def _hold(self, id_: str) -> None:
        self._id, self._proven = id_, time.monotonic()

    async def _create(self) -> bool:
        """Create the variable; False if there is one."""
        asked = time.monotonic()
        answer = await self._send("POST", "/variables/", json={**self._body(), "name": lock_name(self._owner)})
        if answer.status_code == httpx.codes.CONFLICT:
            return False
        self._hold(str(answer.json()["id"]))
        self._proven = asked
        return True

    def _body(self) -> dict[str, Any]:
        value = {"holder": self._holder, "since": self._since, "token": self._token, "process": _process()}
        return {"value": value, "tags": ["orchestrator", "lock", self._owner.tag]}

    async def _renew(self) -> None:
        asked = time.monotonic()
        answer = await self._send("PATCH", f"/variables/{self._id}", json=self._body())
        if answer.status_code == httpx.codes.NOT_FOUND:
            self._lost = LockedError(
                f"The lock of {self._owner.environment} was taken from us or deleted.",
                location=self._owner.tag,
                remedy="See who applies to it now, then plan again.",
            )
            raise self._lost
        self._proven = asked

    async def _read(self) -> Holder | None:
        answer = await self._send("GET", f"/variables/name/{lock_name(self._owner)}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        row = answer.json()
        silent = _server_time(answer) - datetime.fromisoformat(row["updated"])
        value = row["value"] if isinstance(row["value"], Mapping) else {}  # a person may have written anything
        return Holder(
            id=row["id"],
            token=str(value.get("token", "")),
            name=str(value.get("holder", "somebody")),
            since=str(value.get("since", row["created"])),
            silent_seconds=silent.total_seconds(),
            process=str(value.get("process", "")),
        )

    async def _delete(self, id_: str) -> None:
        await self._send("DELETE", f"/variables/{id_}")  # gone is fine: of two who take a dead lock one comes second

    async def _send(self, method: Any, route: Any, **arguments: Any) -> httpx.Response:
        """One request; that it is there already, or not any more, is an answer and no error."""
        try:
            with our_errors(self._server.api_url):
                return await self._server.client.request(method, route, **arguments)
        except (ServerBusy, ServerUnreachable):
            raise
        except ServerError as error:
            if isinstance(error.__cause__, httpx.HTTPStatusError):
                answer = error.__cause__.response
                if answer.status_code in (httpx.codes.NOT_FOUND, httpx.codes.CONFLICT):
                    return answer
            raise


def lock_name(owner: Owner) -> str:
    """The variable's name: readable, and with a digest, since names of variables know lower-case letters only."""
    words = re.sub(r"[^a-z0-9_-]+", "-", f"{owner.project}-{owner.environment}".lower())[:200]
    return f"orchestrator-lock-{words}-{hashlib.sha256(owner.tag.encode()).hexdigest()[:8]}"


def _process() -> str:
    """This process, as others who see the same processes find it: the machine's start, the pid namespace, the pid.
    Empty where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')} {os.getpid()}"  # noqa: PTH115 - it is no file
    except OSError:
        return ""


def _has_ended(process: str) -> bool:
    """Whether a process surely has ended. Of one that is out of sight nothing is known."""
    place, _, pid = process.rpartition(" ")
    if not place or place != _process().rpartition(" ")[0] or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def _server_time(answer: httpx.Response) -> datetime:
    """The server's clock, so that nobody's clock decides who is dead."""
    date = answer.headers.get("Date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)

"""The door to the child processes that import people's code.

Importing runs code that nobody here has read: it may fail, hang, end the process, start others, or flood its output.
So it is done elsewhere, and whatever happens there is an answer here:

    one child for each import root     two folders that each have a `helper.py` cannot share one; two for many files
    one answer after the other         who hangs or crashes is known, and the others go on in a new child
    an environment without secrets     an allow-list, and a PREFECT_HOME of its own in a temporary folder
    a session of its own               at the end, at the time limit and on Ctrl-C it is killed with all it started

Answers come through a socket of their own, so nothing that the code prints can disturb them.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

import psutil

from orchestrator.masking import masked

Task = Literal["schema", "import"]
"""What a child does with an entrypoint; see `flow_child`."""

PARALLEL_CHILDREN = 2
START_LIMIT_SECONDS = 120.0  # until a child has imported Prefect
_WORTH_ANOTHER_CHILD = 200  # entrypoints: importing as many takes longer than importing Prefect
_LARGEST_ANSWER = 16_000_000  # bytes; a schema has some thousand
_MOST_CHUNKS = 64  # at a time: who never stops sending must not keep us from looking at the clock
_KEPT_OUTPUT = 2_000  # bytes: the last words of a child that fails to start
_LONGEST_REASON, _SEARCHED_REASON = 300, 10_000  # characters: shown; searched for passwords
_LOOK_SECONDS = 0.1  # how often to look whether a child has ended while others hold its socket open
_ENVIRONMENT = re.compile(r"(PATH|HOME|LANG|LC_\w+|TMPDIR|TZ|VIRTUAL_ENV|PYTHON\w*|LD_LIBRARY_PATH|SYSTEMROOT)")


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer: the child hung, died, or never got to work.

    Attributes:
        kind: which of these.
        reason: what happens, to follow "cannot be imported:".
    """

    kind: Literal["time-out", "crash", "start"]
    reason: str


Answer: TypeAlias = "dict[str, Any] | Failure"


def ask(
    root: Path,
    task: Task,
    entrypoints: Iterable[str],
    *,
    seconds: float,
    meanwhile: Callable[[], object] | None = None,
) -> dict[str, Answer]:
    """Ask child processes about entrypoints, as `prefect` would load them in a run.

    A child that hangs or dies is blamed on the entrypoint that it was busy with, but only when that was its first
    one: whatever came before it may have left something behind, so it gets a child of its own before. All other
    entrypoints of the same file share its fate, since importing the file again would do the same again.

    Args:
        root: the folder in which the flows run; children work there.
        task: what to do with each.
        entrypoints: `path.py:name` relative to the root, or dotted module paths.
        seconds: how long one entrypoint may take.
        meanwhile: called once while the children start, which takes them a second; not at all where there is nothing
            to ask.

    Returns:
        For each entrypoint the child's answer, or why there is none.
    """
    parts = (part for group in _by_import_root(entrypoints) for part in _divided(group))
    batches = [_Batch(root, task, part, seconds) for part in parts]
    _carry_out(batches, meanwhile)
    return {entrypoint: answer for batch in batches for entrypoint, answer in batch.answers.items()}


def in_one_line(reason: str) -> str:
    """What an exception says, as a message may show it: its first line, of bearable length, without passwords."""
    line = next((line.strip() for line in reason.splitlines() if line.strip()), "")
    shown = str(masked("", line[:_SEARCHED_REASON])).rstrip(".")
    return shown if len(shown) <= _LONGEST_REASON else f"{shown[:_LONGEST_REASON]}…"


def import_root(entrypoint: str) -> str:
    """The folder that Prefect puts on the import path for an entrypoint, relative to the root."""
    return PurePosixPath(entrypoint.rpartition(":")[0]).parent.as_posix()


def _by_import_root(entrypoints: Iterable[str]) -> Iterable[list[str]]:
    groups: dict[str, list[str]] = {}
    for entrypoint in dict.fromkeys(entrypoints):
        groups.setdefault(import_root(entrypoint), []).append(entrypoint)
    return groups.values()


def _divided(group: list[str]) -> Iterator[list[str]]:
    """A large group in parts, one for each child that may run at a time."""
    number = PARALLEL_CHILDREN if len(group) >= _WORTH_ANOTHER_CHILD else 1
    size = -(-len(group) // number)
    yield from (group[start : start + size] for start in range(0, len(group), size))


class _Batch:
    """Entrypoints of one import root, and what is known of them so far."""

    def __init__(self, root: Path, task: Task, entrypoints: Sequence[str], seconds: float) -> None:
        self.root, self.task, self.seconds = root, task, seconds
        self.waiting = list(entrypoints)
        self.answers: dict[str, Answer] = {}

    def give_up(self, reason: str) -> None:
        """No child can be started at all."""
        self.answers |= dict.fromkeys(self.waiting, Failure("start", reason))
        self.waiting = []

    def settle(self, child: _Child) -> None:
        """Note the answers of a child that has ended, and whom to blame where some are missing."""
        self.answers |= child.answers
        self.waiting = [entrypoint for entrypoint in self.waiting if entrypoint not in self.answers]
        if child.failure is None:
            return
        if child.failure.kind == "start":
            self.give_up(child.failure.reason)
        elif not child.answers:
            alike = self._of_the_same_file(self.waiting[0])
            self.answers |= dict.fromkeys(alike, child.failure)
            self.waiting = [entrypoint for entrypoint in self.waiting if entrypoint not in alike]

    def _of_the_same_file(self, blamed: str) -> list[str]:
        file = blamed.rpartition(":")[0]
        return [each for each in self.waiting if each == blamed or (file and each.rpartition(":")[0] == file)]


def _carry_out(batches: Sequence[_Batch], meanwhile: Callable[[], object] | None) -> None:
    """Run children, some at a time, until every batch is done. In one thread, so that Ctrl-C ends it at once."""
    unstarted, running = list(batches), dict[_Child, _Batch]()
    stop_where_nobody_waits = _watch()
    with selectors.DefaultSelector() as selector:
        try:
            while unstarted or running:
                while unstarted and len(running) < PARALLEL_CHILDREN:
                    batch = unstarted.pop(0)
                    try:
                        running[_Child(batch, selector)] = batch
                    except OSError as error:
                        batch.give_up(f"the importing process could not be started: {error}")
                if meanwhile is not None:
                    meanwhile()
                    meanwhile = None
                for key, _ in selector.select(_LOOK_SECONDS):
                    key.data()
                for child in [child for child in running if child.is_done()]:
                    child.end()
                    batch = running.pop(child)
                    batch.settle(child)
                    unstarted += [batch] if batch.waiting else []
                stop_where_nobody_waits()
        finally:
            for child in running:
                child.end()


def _watch() -> Callable[[], None]:
    """What notices a Ctrl-C that raises nothing here: in another thread, and in an event loop.

    Returns:
        raises where the main thread has ended, or the asyncio task that asks has been cancelled since.
    """
    asyncio: Any = sys.modules.get("asyncio")  # where it is not imported no loop runs; importing it costs a scan's time
    task = asyncio.current_task() if asyncio and asyncio._get_running_loop() else None
    before = task.cancelling() if task else 0

    def stop_where_nobody_waits() -> None:
        if not threading.main_thread().is_alive():  # the interpreter waits for this thread
            raise KeyboardInterrupt
        if task and task.cancelling() > before:
            raise asyncio.CancelledError

    return stop_where_nobody_waits


class _Child:
    """One child process."""

    def __init__(self, batch: _Batch, selector: selectors.BaseSelector) -> None:
        self.answers: dict[str, Answer] = {}
        self.failure: Failure | None = None
        self._expected = list(batch.waiting)
        self._seconds, self._selector = batch.seconds, selector
        self._is_ready, self._received, self._last_words = False, bytearray(), b""
        self._deadline = time.monotonic() + START_LIMIT_SECONDS
        self._home = tempfile.TemporaryDirectory(prefix="orchestrator-", ignore_cleanup_errors=True)
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = _start(batch, self._home.name, theirs.fileno())
        except OSError:
            self._socket.close()
            self._home.cleanup()
            raise
        assert self._process.stdout is not None
        self._output = self._process.stdout.fileno()
        for descriptor, handle in ((self._socket.fileno(), self._hear), (self._output, self._drain)):
            os.set_blocking(descriptor, False)
            selector.register(descriptor, selectors.EVENT_READ, handle)

    def is_done(self) -> bool:
        """Has it answered everything, died, or taken too long? Then it is to be ended."""
        code = self._process.poll()
        if code is not None or time.monotonic() > self._deadline:
            self._hear()  # what it said before
        if code is not None:
            self._fail("crash", _how_it_ended(code))
        elif time.monotonic() > self._deadline:
            self._fail("time-out", f"it takes longer than {self._seconds:g} s")
        return not self._expected or self.failure is not None

    def end(self) -> None:
        """Kill it with everything that it started, and let go of what it held."""
        _kill(self._process, self._home.name)
        for descriptor in (self._socket.fileno(), self._output):
            with suppress(KeyError):
                self._selector.unregister(descriptor)
        self._socket.close()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._home.cleanup()

    def _fail(self, kind: Literal["time-out", "crash"], reason: str) -> None:
        if not self._expected or self.failure is not None:
            return
        if self._is_ready:
            self.failure = Failure(kind, reason)
            return
        self._drain()
        reason = f"it did not start within {START_LIMIT_SECONDS:g} s" if kind == "time-out" else reason
        last_line = self._last_words.decode(errors="replace").strip().rpartition("\n")[2]
        self.failure = Failure("start", f"the importing process failed: {last_line or reason}")

    def _drain(self) -> None:
        """What the code prints is of no interest, but it must not block the child either."""
        try:
            chunk = os.read(self._output, 1 << 16)
        except OSError:
            return
        self._last_words = (self._last_words + chunk)[-_KEPT_OUTPUT:]
        if not chunk:
            with suppress(KeyError):
                self._selector.unregister(self._output)

    def _hear(self) -> None:
        """Take in answers, as far as they have arrived."""
        for chunk in itertools.islice(iter(self._received_chunk, b""), _MOST_CHUNKS):
            self._received += chunk
            *lines, rest = self._received.split(b"\n")
            self._received = rest
            for line in lines:
                self._understand(bytes(line))
            if len(rest) > _LARGEST_ANSWER:
                self._fail("crash", f"what there is to say of it has more than {_LARGEST_ANSWER // 1_000_000} MB")
                return

    def _received_chunk(self) -> bytes:
        try:
            chunk = self._socket.recv(1 << 20)
        except OSError:  # nothing more for now, or the child's end was closed with something unread
            return b""
        if not chunk:
            with suppress(KeyError):
                self._selector.unregister(self._socket.fileno())
        return chunk

    def _understand(self, line: bytes) -> None:
        """Take a line as the answer that is expected next; anything else did not come from the child's own code."""
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return
        match said:
            case "ready" if not self._is_ready:
                self._is_ready = True
            case [str(entrypoint), dict(answer)] if self._expected and entrypoint == self._expected[0]:
                self.answers[self._expected.pop(0)] = answer
            case _:
                return
        self._deadline = time.monotonic() + self._seconds


def _start(batch: _Batch, home: str, descriptor: int) -> subprocess.Popen[bytes]:
    # -P: the folder itself is not put on the import path; Prefect adds what a run would have there.
    command = [sys.executable, "-P", "-m", "orchestrator.flow_child", batch.task, str(descriptor)]
    with _file_with(json.dumps(batch.waiting)) as questions:
        return subprocess.Popen(
            command,
            stdin=questions,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=batch.root,
            env=_environment(home),
            pass_fds=(descriptor,),
            start_new_session=True,
        )


@contextmanager
def _file_with(text: str) -> Iterator[int]:
    """A file that nobody else sees, to be read from its start: unlike a pipe, it never makes its writer wait."""
    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        yield file.fileno()


def _environment(home: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if _ENVIRONMENT.fullmatch(key)}
    return {**kept, "PREFECT_HOME": home, "PREFECT_LOGGING_LEVEL": "ERROR", "DO_NOT_TRACK": "1"}


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"it ends the process with exit code {code}"
    try:
        return f"it crashes the process ({signal.Signals(-code).name})"
    except ValueError:
        return f"it crashes the process (signal {-code})"


# ---------------------------------------------------------------------------------------------------------
# Ending a child with all its descendants
# ---------------------------------------------------------------------------------------------------------


def _kill(process: subprocess.Popen[bytes], home: str) -> None:
    """Kill a child, its process group, and those of its descendants that have left the group.

    Daemons leave the group and lose their parent, but not their environment: PREFECT_HOME is the child's own.
    """
    strays = _descendants(process.pid)
    with suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS: only zombies are
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(3):  # one that was just being started may be missed
        for stray in strays:
            with suppress(psutil.Error):
                stray.kill()
        strays = list(_processes_with(home))
        if not strays:
            return


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _processes_with(home: str) -> Iterator[psutil.Process]:
    """Living processes that were given this PREFECT_HOME."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # of other users, or gone by now
            if process.environ().get("PREFECT_HOME") == home and process.status() != psutil.STATUS_ZOMBIE:
                yield process

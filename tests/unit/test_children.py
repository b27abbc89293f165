"""Whatever the code of other people does when it is imported: there is an answer, and nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from orchestrator import children
from orchestrator.children import Answer, Failure, ask, import_root
from tests.unit.builders import write_files

LIMIT = 8.0  # seconds, for one file; only what never ends takes that long
SOUND = "from prefect import flow\n@flow\ndef f(): ...\n"
ANSWERED = {"name": "f"}
HOSTILE = {
    # One folder, so one child until it dies; in this order.
    "hostile/a_sound.py": SOUND,
    "hostile/b_exits.py": SOUND + "@flow\ndef g(): ...\nimport os\nos._exit(7)",
    "hostile/c_sound.py": SOUND,
    "hostile/d_segfault.py": SOUND + "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
    "hostile/e_system_exit.py": SOUND + "raise SystemExit(3)",
    "hostile/f_flood.py": SOUND
    + "import os, sys\nfor _ in range(200):\n  print('x' * 100_000)\n  os.write(2, b'y' * 100_000)",
    "hostile/g_input.py": SOUND + "input()",
    "hostile/h_forks.py": SOUND + "import os\nif os.fork() == 0:\n  raise SystemExit",
    "hostile/i_noise.py": SOUND
    + """
import os
for descriptor in range(3, 40):
    try:
        os.write(descriptor, b'"ready"\\n{}\\n[1]\\n["hostile/k_sound.py:f", {"name": "forged"}]\\n[[\\n\\xff\\n')
    except OSError:
        pass
""",
    "hostile/j_moves_away.py": SOUND + "import os\nos.chdir('/')",
    "hostile/k_sound.py": SOUND,
    "hostile/l_interrupts.py": SOUND + "raise KeyboardInterrupt",
    "hostile/m_closes.py": SOUND + "import os\nos.closerange(0, 100)",
    "hostile/n_text.py": SOUND + "class E(Exception):\n  def __str__(self): raise self\nraise E",
    "hostile/o_sound.py": SOUND,
    "hangs/a_hangs.py": SOUND + "@flow\ndef g(): ...\nwhile True: pass",
    "hangs/b_sound.py": SOUND,
    "chatters/a_forever.py": SOUND
    + """
import os
while True:
    for descriptor in range(3, 40):
        try:
            os.write(descriptor, b'"ready"\\n' * 10_000)
        except OSError:
            pass
""",
    "poison/a_sets.py": SOUND + "import builtins\nbuiltins.poison = 1",
    "poison/b_suffers.py": SOUND + "import builtins, os\nif hasattr(builtins, 'poison'): os._exit(1)",
    "meets/one/a.py": SOUND + "open('meeting', 'w').close()",
    "meets/two/a.py": SOUND + "open('meeting').close()",
    "starts/daemons.py": SOUND
    + """
import os, subprocess, sys, time
wait = [sys.executable, "-S", "-c", "import time; time.sleep(1000)"]
started = [subprocess.Popen(wait).pid, subprocess.Popen(wait, env={}, start_new_session=True).pid]
reading, writing = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(writing, str(os.getpid()).encode())
        time.sleep(1000)
    os._exit(0)
started.append(int(os.read(reading, 20)))
open("started", "w").write(" ".join(map(str, started)))
""",
}


def entrypoints_of(files: Mapping[str, str]) -> list[str]:
    return [f"{path}:{name}" for path, text in files.items() for name in ("f", "g") if f"def {name}()" in text]


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_files(tmp_path_factory.mktemp("repository"), HOSTILE)
    os.mkfifo(root / "meeting")
    return root


@pytest.fixture(scope="module")
def answers(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Answer]]:
    """What is said about all of them, asked at once by somebody with another home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
        yield ask(root, "import", entrypoints_of(HOSTILE), seconds=LIMIT)
        assert list(Path(tempfile.gettempdir()).iterdir()) == []
        assert list(Path(os.environ["HOME"]).iterdir()) == []


class TestAnswers:
    @pytest.mark.parametrize("path", [path for path in HOSTILE if "sound" in path])
    def test_the_others_go_on(self, answers: dict[str, Answer], path: str) -> None:
        assert answers[f"{path}:f"] == ANSWERED

    @pytest.mark.parametrize("name", ["f_flood", "h_forks", "i_noise", "j_moves_away"])
    def test_nothing_that_the_code_does_disturbs_them(self, answers: dict[str, Answer], name: str) -> None:
        assert answers[f"hostile/{name}.py:f"] == ANSWERED

    @pytest.mark.parametrize(
        ("entrypoint", "failure"),
        [
            ("hostile/b_exits.py:f", Failure("crash", "it ends the process with exit code 7")),
            ("hostile/b_exits.py:g", Failure("crash", "it ends the process with exit code 7")),
            ("hostile/d_segfault.py:f", Failure("crash", "it crashes the process (SIGSEGV)")),
            ("hostile/m_closes.py:f", Failure("crash", "it ends the process with exit code 1")),
            ("hangs/a_hangs.py:f", Failure("time-out", "it takes longer than 8 s")),
            ("chatters/a_forever.py:f", Failure("time-out", "it takes longer than 8 s")),
            ("hangs/a_hangs.py:g", Failure("time-out", "it takes longer than 8 s")),
        ],
    )
    def test_who_crashes_or_hangs_is_named(self, answers: dict[str, Answer], entrypoint: str, failure: Failure) -> None:
        assert answers[entrypoint] == failure

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("e_system_exit", "SystemExit: 3"),
            ("g_input", "EOFError: EOF when reading a line"),
            ("l_interrupts", "KeyboardInterrupt"),
            ("n_text", "E"),
        ],
    )
    def test_errors_of_every_kind_are_told(self, answers: dict[str, Answer], name: str, error: str) -> None:
        answer = answers[f"hostile/{name}.py:f"]
        assert isinstance(answer, dict)
        assert (answer["error"], answer["file"]) == (error, f"hostile/{name}.py")

    def test_nobody_is_blamed_for_what_came_before(self, answers: dict[str, Answer]) -> None:
        assert answers["poison/b_suffers.py:f"] == ANSWERED

    def test_two_children_work_at_once(self, answers: dict[str, Answer]) -> None:
        # each waits for the other one
        assert [answers[f"meets/{name}/a.py:f"] for name in ("one", "two")] == [ANSWERED, ANSWERED]

    def test_everything_asked_is_answered(self, answers: dict[str, Answer]) -> None:
        assert answers.keys() == set(entrypoints_of(HOSTILE))

    def test_nothing_asked_nothing_answered(self, tmp_path: Path) -> None:
        assert ask(tmp_path / "nowhere", "import", [], seconds=1) == {}


def test_many_of_one_folder_are_shared_by_two_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_WORTH_ANOTHER_CHILD", 2)
    # each waits for the other one
    write_files(
        tmp_path,
        {
            "flows/a.py": SOUND + "open('meeting', 'w').close()",
            "flows/b.py": SOUND + "open('meeting').close()",
            "flows/c.py": SOUND,
        },
    )
    os.mkfifo(tmp_path / "meeting")
    asked = ["flows/a.py:f", "flows/c.py:f", "flows/b.py:f"]
    assert ask(tmp_path, "import", asked, seconds=60) == dict.fromkeys(asked, ANSWERED)


def test_something_else_is_done_meanwhile_but_not_where_nobody_waits(tmp_path: Path) -> None:
    """What is done meanwhile is what the child waits for."""
    waits = "import os, time\nwhile not os.path.exists('meeting'): time.sleep(0.01)"
    write_files(tmp_path, {"flows/a.py": SOUND + waits})
    done: list[int] = []

    def meanwhile() -> None:
        done.append((tmp_path / "meeting").write_text("here I am"))

    assert ask(tmp_path, "import", ["flows/a.py:f"], seconds=60, meanwhile=meanwhile) == {"flows/a.py:f": ANSWERED}
    assert ask(tmp_path, "import", [], seconds=60, meanwhile=meanwhile) == {}
    assert done == [9]


class TestWhatIsLeft:
    def test_no_process(self, root: Path, answers: dict[str, Answer]) -> None:
        assert answers["starts/daemons.py:f"] == ANSWERED
        started = [int(pid) for pid in (root / "started").read_text().split()]
        assert len(started) == 3
        assert [pid for pid in started if is_alive(pid)] == []

    @pytest.mark.usefixtures("answers")
    def test_no_file_in_the_repository(self, root: Path) -> None:
        assert not list(root.rglob("__pycache__"))


class TestWhenItCannotStart:
    def test_the_folder_is_gone(self, tmp_path: Path) -> None:
        answer = ask(tmp_path / "nowhere", "import", ["a.py:f"], seconds=1)["a.py:f"]
        assert isinstance(answer, Failure)
        assert answer.kind == "start"
        assert "nowhere" in answer.reason

    def test_the_interpreter_fails_for_all_of_them(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        interpreter = tmp_path / "python"
        interpreter.write_text(f"#!/bin/sh\necho start >> '{tmp_path}/starts'\necho 'No prefect here' >&2\nexit 1\n")
        interpreter.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(interpreter))
        failure = Failure("start", "the importing process failed: No prefect here")
        assert ask(tmp_path, "import", ["a.py:f", "b.py:f"], seconds=1) == {"a.py:f": failure, "b.py:f": failure}
        assert (tmp_path / "starts").read_text() == "start\n"


async def test_inside_of_an_event_loop(root: Path) -> None:
    entrypoint = "hangs/b_sound.py:f"
    asked = asyncio.to_thread(ask, root, "import", [entrypoint], seconds=60)
    answers = await asyncio.gather(asked, asyncio.to_thread(ask, root, "schema", [entrypoint], seconds=60))
    assert answers[0] == {entrypoint: ANSWERED}
    assert answers[1][entrypoint]["schema"]["properties"] == {}  # type: ignore[index]
    assert ask(root, "import", [entrypoint], seconds=60) == {entrypoint: ANSWERED}


ASKING = {
    "main thread": "ask(*question, seconds=1000)",
    "event loop": "async def main(): ask(*question, seconds=1000)\nasyncio.run(main())",
    "thread": "thread = threading.Thread(target=ask, args=question, kwargs={'seconds': 1000})\n"
    "thread.start()\nthread.join()",
    "abandoned thread": "asked = functools.partial(ask, *question, seconds=1000)\n"
    "anyio.run(functools.partial(anyio.to_thread.run_sync, abandon_on_cancel=True), asked)",
}


@pytest.mark.parametrize(
    ("where", "how"),
    [*((where, signal.SIGINT) for where in ASKING), ("main thread", signal.SIGTERM), ("main thread", signal.SIGKILL)],
)
def test_the_child_ends_with_whoever_asked(tmp_path: Path, where: str, how: signal.Signals) -> None:
    text = "import os, time\nopen('pid', 'w').write(f'{os.getpid()}\\n')\nwhile True: time.sleep(1000)"
    write_files(tmp_path, {"flows/hangs.py": text})
    os.mkfifo(tmp_path / "pid")
    code = f"""
import anyio, asyncio, functools, threading
from pathlib import Path
from orchestrator.children import ask
question = Path(), "import", ["flows/hangs.py:f"]
{ASKING[where]}
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE) as asking:
        child = psutil.Process(int(first_line(tmp_path / "pid")))
        assert os.getsid(child.pid) != os.getsid(asking.pid)  # Ctrl-C in a terminal does not reach it
        asking.send_signal(how)
        _, alive = psutil.wait_procs([child, psutil.Process(asking.pid)], timeout=60)
        for process in alive:
            process.kill()
        assert alive == []
        if how is signal.SIGINT:
            assert asking.stderr and b"KeyboardInterrupt" in asking.stderr.read()


def first_line(pipe: Path) -> str:
    """What somebody writes into a named pipe, once they do."""
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert select.select([descriptor], [], [], 60)[0]
        return os.read(descriptor, 100).decode()
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("entrypoint", "folder"),
    [("flows/a.py:f", "flows"), ("a.py:A.f", "."), ("x/y/a.py:f", "x/y"), ("package.module.f", ".")],
)
def test_import_root(entrypoint: str, folder: str) -> None:
    assert import_root(entrypoint) == folder

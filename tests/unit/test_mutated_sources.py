"""Ten thousand broken sources: reading them never crashes, hangs or executes anything.

The sources are real ones (of the test repositories, the shipped flows, this package, and what the standard library has
to test Python's own grammar), mutated by a seeded generator. They are read in one child process, for an audit hook
(https://docs.python.org/3/library/sys.html#sys.addaudithook) cannot be removed again: this module run as a program.
"""

from __future__ import annotations

import ast
import codecs
import faulthandler
import importlib
import json
import marshal
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from random import Random
from typing import Any

import pytest

from orchestrator import pipeline
from orchestrator.closure import ImportGraph
from orchestrator.discovery import discover
from orchestrator.errors import ConfigurationError
from orchestrator.flow_source import FileFlows, FlowReader
from orchestrator.imports import imports_in
from orchestrator.model import ValidationResult
from orchestrator.sources import SourceFiles
from orchestrator.validation import facts_of, validate
from tests.unit.builders import write_files

PROJECT = Path(__file__).parents[2]
STANDARD_LIBRARY = Path(sysconfig.get_paths()["stdlib"])
ODD_SYNTAX = ("test_decorators", "test_fstring", "test_grammar", "test_patma", "test_pep646_syntax", "test_unparse")

COUNT = 10_000
BATCH = 100  # sources in one repository: so few are read without helping processes
LONGEST_READING = 30  # seconds for one source: nothing but a hang takes as long
LONGEST_VALIDATION = 120  # seconds for one batch

Chunk = list[str]  # lines of a few whole statements


# ---------------------------------------------------------------------------------------------------------
# Mutations
# ---------------------------------------------------------------------------------------------------------


def seeds() -> list[Path]:
    """The files to start from."""
    places = [PROJECT / "tests" / "repos", PROJECT / "flows", PROJECT / "orchestrator"]
    ours = [path for place in places for path in sorted(place.rglob("*.py")) if path.is_file()]
    theirs = [STANDARD_LIBRARY / "test" / f"{name}.py" for name in ODD_SYNTAX]
    return ours + [path for path in theirs if path.is_file()]  # some distributions leave the tests out


def chunks_of(path: Path) -> list[Chunk]:
    """The statements of a file, a few at a time, so that what is cut out still parses."""
    text = path.read_text("utf-8", errors="replace")
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError):
        return [text.splitlines()[:60]]
    lines = text.split("\n")
    starts = [min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))]) for node in body]
    return [
        lines[start - 1 : after - 1] for start, after in zip(starts[::4], [*starts[4::4], len(lines)], strict=False)
    ]


class Mutator:
    """Makes sources, the same ones in each run.

    Args:
        chunks: what to make them from: of files that speak of flows, and of any.
        seed: of the generator.
    """

    def __init__(self, flows: Sequence[Chunk], others: Sequence[Chunk], seed: int) -> None:
        self._flows, self._others = flows, others
        self._random = Random(seed)

    def source(self) -> bytes:
        """One source, mutated one to four times."""
        lines = ["from prefect import flow"] if self._random.random() < 0.6 else []
        for _ in range(self._random.randint(1, 2)):
            lines = self._of_lines(lines + self._chunk())
        text = "\n".join(lines)
        for _ in range(self._random.choice([0, 0, 0, 1, 1, 2])):
            text = self._random.choice(self._text_mutations)(text)
        content = text.encode("utf-8", "surrogatepass")
        return self._random.choice(self._byte_mutations)(content) if self._random.random() < 0.25 else content

    def _chunk(self) -> Chunk:
        chunk = self._random.choice(self._flows if self._random.random() < 0.7 else self._others)
        return chunk[:80]

    # Lines

    def _of_lines(self, lines: Chunk) -> Chunk:
        if not lines or self._random.random() < 0.5:
            return lines
        lines = list(lines)
        here, there = self._random.randrange(len(lines)), self._random.randrange(len(lines))
        match self._random.randrange(5):
            case 0:
                del lines[here]
            case 1:
                lines.insert(there, lines[here])
            case 2:
                lines[here], lines[there] = lines[there], lines[here]
            case 3:
                lines[here:here] = self._chunk()  # spliced
            case 4:
                lines[here] = self._random.choice([" ", "\t", "    ", "\f"]) + lines[here]
        return lines

    # Texts

    @property
    def _text_mutations(self) -> Sequence[Callable[[str], str]]:
        return (self._tokens, self._tokens, self._literal, self._nesting, self._unicode, self._long_line)

    def _tokens(self, text: str) -> str:
        tokens = re.findall(r"\w+|\s+|[^\w\s]", text)
        if not tokens:
            return text
        here, there = self._random.randrange(len(tokens)), self._random.randrange(len(tokens))
        match self._random.randrange(4):
            case 0:
                del tokens[here]
            case 1:
                tokens.insert(there, tokens[here])
            case 2:
                tokens[here], tokens[there] = tokens[there], tokens[here]
            case 3:
                tokens[here] = self._random.choice(TOKENS)
        return "".join(tokens)

    def _literal(self, text: str) -> str:
        return self._replaced(text, r"\"[^\"\n]*\"|'[^'\n]*'|\b\d+\b|\bNone\b", self._random.choice(LITERALS))

    def _nesting(self, text: str) -> str:
        depth = self._random.choice([3, 20, 90, 99, 190, 201, 400])
        return self._replaced(text, r"\b[a-z_]\w*\b|\b\d+\b", self._random.choice(NESTINGS)(depth))

    def _unicode(self, text: str) -> str:
        return self._replaced(text, r"\bflow\b|\bprefect\b|\bname\b|\b\w+\b", self._random.choice(NAMES))

    def _long_line(self, text: str) -> str:
        return self._replaced(text, r"\n", self._random.choice([" " * 20_000, ";" * 500, "\\\n", "\f\n", "\t", " \\"]))

    def _replaced(self, text: str, pattern: str, new: str) -> str:
        """The text with one of the matches replaced."""
        found = list(re.finditer(pattern, text))
        if not found:
            return text + "\n" + new
        match = self._random.choice(found)
        return text[: match.start()] + new + text[match.end() :]

    # Bytes

    @property
    def _byte_mutations(self) -> Sequence[Callable[[bytes], bytes]]:
        return (self._noise, self._noise, self._cookie, self._line_ends, self._cut)

    def _noise(self, content: bytes) -> bytes:
        here = self._random.randint(0, len(content))
        noise = self._random.choice([b"\0", b"\r", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\x1a", b"\x0c"])
        return content[:here] + (noise if self._random.random() < 0.7 else self._random.randbytes(9)) + content[here:]

    def _cookie(self, content: bytes) -> bytes:
        name = self._random.choice(ENCODINGS)
        cookie = b"# -*- coding: %s -*-\n" % name.encode()
        if self._random.random() < 0.5:
            try:
                return (cookie.decode() + content.decode("utf-8", "replace")).encode(name, "replace")
            except (LookupError, UnicodeError, TypeError):
                pass
        return cookie + content

    def _line_ends(self, content: bytes) -> bytes:
        return content.replace(b"\n", self._random.choice([b"\r\n", b"\r", b"\n\n", b"\n\r", b"\x0b"]))

    def _cut(self, content: bytes) -> bytes:
        return content[: self._random.randint(0, len(content))]


TOKENS = (
    *tuple("()[]{}:,;.=@#\\'\"~-+/|<>!"),
    *(":=", "==", "->", "*", "**", "'''", '"""', "f'", "0", "1e999", "0x", "b''", "...", "None", "\n", "\n\n", "_"),
    *(
        "flow",
        "@flow",
        "prefect",
        "name=",
        "**x",
        "*y",
        "__all__",
        "del",
        "lambda",
        "await",
        "async",
        "yield",
        "return",
    ),
    *("global", "nonlocal", "class", "def", "import", "from", "if", "else", "elif", "try:", "except", "except*"),
    *("finally", "with", "while", "for", "match", "case"),
    "flow(flow)",
    "@flow(name=__name__)\n",
    "from . import *\n",
    "from prefect import *\n",
    "with_options(name='x')",
    "# orchestrator: ignore[FLW004]",
    'open("executed", "w").write("!")',
    '__import__("antigravity")',
)
HEXADECIMAL = "0x" + "f" * 6000  # Python reads it, and refuses to write it in decimals
LITERALS = (
    HEXADECIMAL,
    f"{{{HEXADECIMAL}, 1}}",
    f"{{{HEXADECIMAL}: 1}}",
    f"[{HEXADECIMAL}]",
    f"f'a-{{{HEXADECIMAL}}}'",
    "9" * 4400,
    "1e999",
    "-1e999j",
    "'" + "x" * 50_000 + "'",
    "'''\n'''",
    "b'\\xff'",
    "'\\ud800'",
    "'\\0'",
    "'\\N{BULLET}'",
    "'\\N{no such}'",
    "rb'\\'",
    "{}",
    "{[]: 1}",
    "{**{'name': 'x'}}",
    "set()",
    "...",
    "''",
    "f'{1:{2}}'",
    "f'{x!r:>{10}}{{}}'",
    "'a' 'b' f'{1}'",
    "1_0",
    "__name__",
    "*[]",
)
NESTINGS: tuple[Callable[[int], str], ...] = (
    lambda n: "(" * n + "1" + ")" * n,
    lambda n: "[" * n + "flow" + "]" * n,
    lambda n: "{1:" * n + "1" + "}" * n,
    lambda n: "flow" + "()" * n,
    lambda n: "flow(" * n + ")" * n,
    lambda n: "prefect" + ".flow" * n,
    lambda n: "flow" + ".with_options(name='x')" * n,
    lambda n: "x" + "[0]" * n,
    lambda n: "-" * n + "1",
    lambda n: "not " * n + "1",
    lambda n: "lambda: " * n + "flow",
    lambda n: "1 if flow else " * n + "2",
    lambda n: " or ".join(["flow"] * n),
    lambda n: " + ".join(["'a'"] * n),
    lambda n: "**".join(["2"] * n),
    lambda n: "(x := " * n + "flow" + ")" * n,
    lambda n: "f'{" + "(" * n + "1" + ")" * n + "}'",
    lambda n: "f'''{f\"\"\"{f'{f\"{1}\"}'}\"\"\"}'''" + " f'{x!s:{y}}'" * n,
    lambda n: "\n" + "".join(f"{' ' * each}if x:\n" for each in range(n)) + f"{' ' * n}@flow\n{' ' * n}def f(): ...\n",
    lambda n: "\n" + "".join(f"{' ' * each}def f():\n" for each in range(n)) + " " * n + "return flow\n",
    lambda n: "\n" + "".join(f"{' ' * each}class A(B):\n" for each in range(n)) + " " * n + "x = flow(print)\n",
    lambda n: "\nif x: pass\n" + "elif x: flow = 1\n" * n,
    lambda n: "\n" + "@flow\n" * n + "def f(): ...\n",
    lambda n: "\ny = ['x']\n" + "y = [y, y]\n" * n + "@flow(tags=y, version=y)\ndef f(y=y): ...\n",
    lambda n: "\ny = 'x'\n" + "y = y + y\n" * n + "@flow(name=y)\ndef f(): ...\n",
    lambda n: "\ndef g(x): return g(x)\nh = g(flow)\n" * (n // 20 + 1),
    lambda n: "\n" + "".join(f"def g{i}(x): return g{i + 1}(g{i + 1}(x))\n" for i in range(n)) + "h = g0(flow)\n",
    lambda n: "\nx = " * n + "flow",
)  # fmt: skip
NAMES = (
    "ｆｌｏｗ",
    "ﬂow",
    "𝒻low",
    "prefe\u200dct",
    "ｐrefect",
    "naïve",
    "名前",
    "ªº",
    "\u202eflow",
    "fløw",
    "\ud800",
    "\ufeff",
    "Kelvin",
)
ENCODINGS = (
    *("latin-1", "utf-8", "utf8", "UTF_8-sig", "cp1252", "ascii", "utf-7", "utf-16", "utf-32", "shift_jis", "big5"),
    *("rot13", "hex", "base64", "zlib", "punycode", "idna", "unicode_escape", "raw_unicode_escape", "undefined"),
    *("no-such", "mbcs", "aliases", "__init__", "cp037", "iso2022_jp", "gb18030", "palmos", "../x", "os.path"),
)


FRAMES = (
    "x = {}\n",
    "@flow(name={}, version={})\ndef f(): ...\n",
    "@flow\ndef f(x={}) -> None: ...\n",
    "@flow\ndef f(x: {} = None): ...\n",
    "x = flow({})(len)\n",
    "x = flow(len).with_options(**{})\n",
    "if {}:\n    x = flow(len)\n",
    "def f(x):\n    return {}\nx = flow(f({}))\n",
    "class A({}):\n    @flow\n    def f(self): ...\n",
)


def hostile() -> Iterator[bytes]:
    """Every literal and every kind of nesting, in every place where it may be looked at."""
    for frame in FRAMES:
        for what in (*LITERALS, *(nesting(depth) for nesting in NESTINGS for depth in (40, 95, 180, 800))):
            yield ("from prefect import flow\n" + frame.replace("{}", what)).encode("utf-8", "surrogatepass")


def mutated(count: int, seed: int) -> Iterator[bytes]:
    """So many sources."""
    speaking, others = [], []
    for path in seeds():
        if b"@flow" in path.read_bytes():
            speaking += [*chunks_of(path), path.read_text("utf-8", errors="replace").split("\n")]
        else:
            others += chunks_of(path)
    mutator = Mutator(speaking, others, seed)
    return islice(chain(hostile(), iter(mutator.source, None)), count)


# ---------------------------------------------------------------------------------------------------------
# The child process
# ---------------------------------------------------------------------------------------------------------


class HangError(BaseException):
    """A source takes too long. It is no Exception, so that nobody handles it on the way."""


class Watch:
    """Notes what goes wrong while sources are read."""

    def __init__(self) -> None:
        self.is_armed = False
        self.place = ""
        self.forbidden: list[str] = []
        self.crashes: list[str] = []

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.is_armed and not self._is_allowed(event, arguments):
            self.forbidden.append(f"{self.place}: {event} {str(arguments[:2])[:200]}")

    @staticmethod
    def _is_allowed(event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
            return not arguments[2] & writing
        if event == "import":  # codecs.lookup, for an encoding that a file names
            return str(arguments[0]).startswith("encodings.")
        if event == "exec":  # likewise: the code of such a module
            return "encodings" in str(arguments)
        return event in ALLOWED

    @contextmanager
    def over(self, place: str, seconds: int) -> Iterator[None]:
        """While something is read that must not take as long, nor raise, nor do anything else."""
        self.place = place
        faulthandler.dump_traceback_later(seconds + 30, exit=True)  # for what never comes back to Python
        signal.alarm(seconds)
        self.is_armed = True
        try:
            yield
        except (Exception, HangError) as error:
            self.crashes.append(f"{place}: {''.join(traceback.format_exception(error)[-4:])[-1200:]}")
        finally:
            self.is_armed = False
            signal.alarm(0)
            faulthandler.cancel_dump_traceback_later()


ALLOWED = frozenset(
    {
        "builtins.id",
        "compile",  # what ast.parse raises, too; executing what was compiled raises "exec"
        "glob.glob",
        "marshal.dumps",
        "marshal.loads",  # plain values; code that is loaded so would have to be executed
        "object.__getattr__",
        "os.listdir",
        "os.scandir",
        "pathlib.Path.glob",
        "pathlib.Path.rglob",
        "sys._getframe",
        "sys._current_frames",
    }
)


def stop(signum: int, frame: Any) -> None:
    raise HangError


def read_all(folder: Path, watch: Watch) -> dict[str, Any]:
    """Read every source of every batch, each by itself, and then check the batches as repositories."""
    counts = {"sources": 0, "flows": 0, "imports": 0, "calls": 0}
    codes: dict[str, int] = {}
    for root in sorted(folder.iterdir()):
        sources = SourceFiles(root)
        graph = ImportGraph(sources)
        reader = FlowReader(sources, graph)
        for path in sorted(f"flows/{file.name}" for file in (root / "flows").iterdir()):
            with watch.over(f"{root.name}/{path}", LONGEST_READING):
                read_one(path, sources, graph, reader, counts)
        with watch.over(root.name, LONGEST_VALIDATION):
            result = validate(facts_of(root, discover(root, ["flows"])))
            for fault in (*result.errors, *result.warnings):
                codes[fault.code] = codes.get(fault.code, 0) + 1
    return {**counts, "codes": codes}


def read_one(path: str, sources: SourceFiles, graph: ImportGraph, reader: FlowReader, counts: dict[str, int]) -> None:
    found = reader.read(path)
    flows = found.flows
    assert FileFlows.from_plain(marshal.loads(marshal.dumps(found.as_plain()))) == found
    for flow in flows:
        assert 1 <= flow.line_number <= flow.end_line_number
    source = sources[path]
    assert {*imports_in(source.parse())} <= {*source.imports}
    assert path in graph.closure_of(path).paths
    assert not (flows and source.fault)
    counts["sources"] += 1
    counts["flows"] += len(flows)
    counts["imports"] += len(source.imports)
    counts["calls"] += len(source.reading.calls)


def main() -> None:
    watch, folder = Watch(), Path(sys.argv[1])
    signal.signal(signal.SIGALRM, stop)
    for repo in sorted((PROJECT / "tests" / "repos").iterdir()):  # what we import when we first need it
        validate(facts_of(repo, discover(repo, ["."])))
    for module in ("packaging.requirements", "packaging.version"):
        importlib.import_module(module)
    for name in ENCODINGS:  # what decoding imports, of Python's own
        with suppress(LookupError):
            codecs.lookup(name)
    sys.addaudithook(watch.audit)  # by now everything of ours is imported
    if len(sys.argv) > 2:
        with watch.over("self-check", 5):
            exec(sys.argv[2])
        found: dict[str, Any] = {}
    else:
        found = read_all(folder, watch)
    print(json.dumps({**found, "forbidden": watch.forbidden, "crashes": watch.crashes}))


# ---------------------------------------------------------------------------------------------------------
# Tests
# ---------------------------------------------------------------------------------------------------------


def read_in_child(folder: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.unit.test_mutated_sources", str(folder), *arguments]
    child = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=600)
    assert child.returncode == 0, child.stderr[-3000:]
    answer: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return answer


class TestSources:
    def test_ten_thousand_mutated_ones_never_crash_hang_or_execute_anything(self, tmp_path: Path) -> None:
        for number, content in enumerate(mutated(COUNT, seed=2026)):
            folder = tmp_path / f"batch_{number // BATCH:03}" / "flows"
            if not number % BATCH:
                folder.mkdir(parents=True)
                shutil.copytree(PROJECT / "tests" / "repos" / "import_forms" / "mylib", folder.parent / "mylib")
            (folder / f"m{number}.py").write_bytes(content)
        found = read_in_child(tmp_path)
        assert not found["crashes"], "\n".join(found["crashes"][:10])
        assert not found["forbidden"], "\n".join(found["forbidden"][:10])
        assert found["sources"] == COUNT
        assert not list(tmp_path.rglob("executed")) and not (PROJECT / "executed").exists()
        # Not all of it was rubbish that the parser turned away:
        assert found["flows"] > COUNT / 4 and found["imports"] > COUNT and found["calls"] > 50
        assert {"FLW001", "FLW002", "FLW003", "FLW004", "FLW005", "FLW006"} <= found["codes"].keys(), found["codes"]

    @pytest.mark.parametrize(
        ("deed", "event"),
        [
            ("import antigravity_that_is_not", "import"),
            ("eval('1')", "exec"),
            ("open('/dev/null', 'w')", "open"),
            ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
            ("import socket; socket.socket().close()", "socket.__new__"),
            ("import os; os.putenv('A', 'b')", "os.putenv"),
        ],
    )
    def test_the_hook_would_notice(self, tmp_path: Path, deed: str, event: str) -> None:
        found = read_in_child(tmp_path, deed)
        assert any(f" {event} " in each for each in found["forbidden"]), found


# Each is nested as deeply as Python's parser allows, or more deeply.
DEEP = [
    ("from prefect import flow\n" + FRAMES[0].replace("{}", nesting(depth)))
    for nesting in NESTINGS
    for depth in (95, 900)
]


class TestDeepNesting:
    def read(self, root: Path) -> tuple[int, ValidationResult]:
        found = discover(root, ["flows"])
        return len(found.flows), validate(facts_of(root, found))

    @pytest.fixture(scope="class")
    def root(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        root = tmp_path_factory.mktemp("deep")
        (root / "flows").mkdir()
        for number, source in enumerate(DEEP):
            (root / "flows" / f"deep{number}.py").write_text(source)
        return root

    def test_in_a_thread_with_a_small_stack(self, root: Path) -> None:
        """A child process, since what overflows the stack of C ends the process. Python's own parser needs 1 MB."""
        code = (
            "import sys, threading; from pathlib import Path\n"
            "from tests.unit.test_mutated_sources import TestDeepNesting\n"
            "threading.stack_size(1 << 20)\n"
            "thread = threading.Thread(target=lambda: print(TestDeepNesting().read(Path(sys.argv[1]))[0] > 0))\n"
            "thread.start(); thread.join()"
        )
        command = [sys.executable, "-c", code, str(root)]
        child = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300)
        assert (child.returncode, child.stdout.strip()) == (0, "True"), child.stderr[-2000:]

    @pytest.mark.parametrize("left", [120, 250, 500])
    def test_deep_in_a_stack_of_calls(self, root: Path, left: int) -> None:
        """What cannot be known for want of stack is a fault of one file, or unknown; the rest goes on."""

        def fall(depth: int) -> tuple[int, ValidationResult]:
            return fall(depth - 1) if depth else self.read(root)

        frames = sum(1 for _ in traceback.walk_stack(None))
        flows, result = fall(sys.getrecursionlimit() - frames - left)
        assert flows > 0
        assert {fault.code for fault in result.errors} <= {"FLW001", "FLW002", "FLW003"}


# ---------------------------------------------------------------------------------------------------------
# What people write besides Python
# ---------------------------------------------------------------------------------------------------------

WRITTEN = {
    "pyproject.toml": """
        [project]
        name = "shop"
        dependencies = ["requests>=2,<3", "pandas[excel]==2.2; python_version >= '3.10'"]
        [tool.orchestrator]
        project = "shop"
        flows = ["flows"]
        exclude = ["flows/old"]
        ignore = ["FLW004", "flows/*: DEP001"]
    """,
    "prefect.yaml": """
        name: shop
        definitions:
          tags: &tags [shop, nightly]
        deployments:
          - name: daily
            entrypoint: flows/etl.py:etl
            tags: *tags
            parameters: {day: "2024-01-01", size: 3}
            schedules:
              - cron: "0 4 * * *"
                timezone: Europe/Berlin
              - interval: 3600
                anchor_date: 2024-01-01T00:00:00Z
              - rrule: "FREQ=DAILY;COUNT=3"
            work_pool: {name: default, work_queue_name: q, job_variables: {env: {A: "1"}}}
    """,
    "environments/base.yaml": """
        work_pools:
          python: {name: processes, type: process, concurrency_limit: 3}
          docker: {name: containers, type: docker, image: "shop:{environment.name}"}
        templates:
          python: {name: "{environment.name}-{kind}", work_pool: "{environment.work_pools.python}", tags: [x]}
        default_parameters: {day: today}
    """,
    "environments/development.yaml": """
        prefect_api_url: "http://127.0.0.1:4200/api"
        concurrency_limits: {database: 3}
        deployments:
          etl/daily: {paused: true, schedules: [{cron: "1 * * * *"}]}
        policy: {prune: false}
    """,
    "flows/Dockerfile": """
        # syntax=docker/dockerfile:1
        ARG BASE=python:3.11
        FROM ${BASE} AS build
        COPY --chown=1:1 requirements.txt flows ./
        ENV TOKEN=abc PATH="/x:$PATH"
        RUN pip install -r requirements.txt \\
            && echo <<EOF
        done
        EOF
        ENTRYPOINT ["python", "-m", "x"]
    """,
    "requirements.txt": """
        requests>=2  # of the internet
        -r more.txt
        -c constraints.txt
        pandas[excel]==2.2.0 ; python_version < "3.12" --hash=sha256:00
        -e git+https://example.com/x.git@v1#egg=thing
        ./local.whl
    """,
    "more.txt": "-r requirements.txt\nrequests<2\n",
    ".dockerignore": "*\n!flows\n!requirements.txt\n",
    "flows/.env": "A=1\n",
    "flows/.env.example": "A=\nB=\n",
}
VALUES = (
    *(
        "null",
        "[]",
        "{}",
        "!!python/object:os.system x",
        "&a [*a]",
        "*a",
        "<<: *tags",
        "1e999",
        ".nan",
        "-0x1",
        "'",
        '"',
    ),
    *(
        "2024-13-45",
        "0 0 31 2 *",
        "* * * * * *",
        "FREQ=DAILY;FREQ",
        "{environment.no}",
        "{{ $X }}",
        "{",
        "}}",
        "\0",
        "\t",
    ),
    *(
        "9" * 5000,
        "x" * 20_000,
        "[" * 150 + "]" * 150,
        "[" * 3000,
        "{a: " * 200,
        "? ",
        "- - - -",
        "---",
        "...",
        "%TAG",
        "\ufeff",
    ),
    *(
        "\ud800",
        "ｆｌｏｗ",
        "..",
        "/",
        "//etc/passwd",
        "../../x",
        "a:b:c",
        "=",
        ">=",
        "==*",
        ";",
        "@ file:///x",
        "\\",
        "${A:-${B}}",
    ),
    *(
        "ignore",
        "true",
        "no",
        "0o17",
        "1:30",
        "12345678901234567890",
        "-1",
        "0",
        "~",
        "!!binary x",
        "!!set {a}",
        "\x85",
        "\u2028",
    ),
)


class TestSettings:
    @pytest.fixture(scope="class")
    def root(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        flow = "from prefect import flow\nimport requests, numpy\n@flow\ndef etl(day: str, size: int = 3): ...\n"
        return write_files(tmp_path_factory.mktemp("written"), {**WRITTEN, "flows/etl.py": flow})

    def check(self, root: Path) -> int:
        """How many faults there are; -1 where the configuration cannot be read at all."""
        try:
            settings = pipeline.read_settings(root, "development")
            discovery = pipeline.discover_flows(settings.root, settings.project, settings.declarations)
        except ConfigurationError:
            return -1
        result = pipeline.validate(settings, discovery)
        return len(result.errors) + len(result.warnings)

    def test_unchanged_ones_are_sound(self, root: Path) -> None:
        """Else mutations would be turned away at the door."""
        assert self.check(root) >= 0

    @pytest.mark.parametrize("seed", range(6))
    def test_mutated_ones_never_crash(self, root: Path, seed: int) -> None:
        random = Random(seed)
        outcomes = set()
        for _ in range(100):
            name = random.choice(list(WRITTEN)[:6])
            path = root / name
            before = path.read_bytes()
            content = mutated_text(before.decode(), random).encode("utf-8", "surrogatepass")
            path.write_bytes(content)
            try:
                outcomes.add(self.check(root))
            except Exception as error:
                raise AssertionError(f"{name}:\n{content[:3000].decode('utf-8', 'replace')}") from error
            finally:
                path.write_bytes(before)
        assert len(outcomes) > 3  # they are read, and differ


def mutated_text(text: str, random: Random) -> str:
    """One to three lines, words or characters of it changed."""
    for _ in range(random.randint(1, 3)):
        lines = text.split("\n")
        here, there = random.randrange(len(lines)), random.randrange(len(lines))
        match random.randrange(7):
            case 0:
                del lines[here]
            case 1:
                lines.insert(there, lines[here])
            case 2:
                lines[here] = " " * random.randint(0, 6) + lines[here].lstrip()
            case 3:
                lines[here] = lines[here].partition(random.choice(":=- "))[0]
            case _:
                words = re.split(r"(\W+)", lines[here])
                words[random.randrange(len(words))] = random.choice(VALUES)
                lines[here] = "".join(words)
        text = "\n".join(lines)
    return text


if __name__ == "__main__":
    main()

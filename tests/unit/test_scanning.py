"""Scans that remember, and scans that share their work."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from orchestrator import scan_cache
from orchestrator.closure import ImportGraph
from orchestrator.discovery import discover
from orchestrator.flow_source import SourceFlow
from orchestrator.forks import shared
from orchestrator.model import Discovery
from orchestrator.scanning import FILES_THAT_PAY, FlowScan
from orchestrator.sources import SourceFiles
from tests.unit.builders import write_files

FLOW = "from lib.shared import flow, PREFIX\n\n@flow(name=f'{{PREFIX}}-{number}')\ndef load(day: str = 'today'): ...\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    flows = {f"flows/load_{number}.py": FLOW.format(number=number) for number in range(5)}
    shared_module = "from prefect import flow\nPREFIX = 'acme'\n"
    return write_files(tmp_path / "repository", {**flows, "lib/shared.py": shared_module, "lib/other.py": "x = 1\n"})


def scanned(repository: Path, cache: Path | None) -> Discovery:
    return discover(repository, ["."], cache_file=cache)


def names(found: Discovery) -> list[str]:
    return [flow.name for flow in found.flows]


_OPENED: list[Counter[str]] = []


def _note_opening(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _OPENED and isinstance(arguments[0], str):
        _OPENED[-1][arguments[0]] += 1


sys.addaudithook(_note_opening)


@contextmanager
def openings() -> Iterator[Counter[str]]:
    """The files that are opened, each with how often."""
    _OPENED.append(Counter())
    try:
        yield _OPENED[-1]
    finally:
        _OPENED.pop()


@pytest.fixture
def exact_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """File times are believed at once, instead of two seconds after the file was written."""
    monkeypatch.setattr(scan_cache, "_COARSEST_CLOCK", 0)


class TestCache:
    def test_changes_nothing_about_the_result(self, repository: Path, tmp_path: Path) -> None:
        cache = tmp_path / "cache" / "scan.cache"
        assert scanned(repository, cache) == scanned(repository, cache) == scanned(repository, None)
        assert cache.is_file()

    def test_no_file_is_read_twice(self, repository: Path, tmp_path: Path) -> None:
        for _ in range(2):
            with openings() as opened:
                scanned(repository, tmp_path / "scan.cache")
            read = {path: times for path, times in opened.items() if path.startswith(f"{repository}/")}
            assert len(read) == 7 and set(read.values()) == {1}

    def test_files_that_did_not_change_are_not_read(self, repository: Path, tmp_path: Path, exact_clock: None) -> None:
        first = scanned(repository, tmp_path / "scan.cache")
        with openings() as opened:
            scanned(repository, tmp_path / "scan.cache")
        assert not [path for path in opened if path.startswith(f"{repository}/")]
        (repository / "flows/load_3.py").write_text(FLOW.format(number="new"))
        with openings() as opened:
            again = scanned(repository, tmp_path / "scan.cache")
        read = {path.removeprefix(f"{repository}/") for path in opened if path.startswith(f"{repository}/")}
        assert read == {"flows/load_3.py", "lib/shared.py"}  # and what it takes its decorator from
        assert set(names(again)) ^ set(names(first)) == {"acme-3", "acme-new"}

    def test_a_module_that_changes_changes_the_flows_that_take_from_it(
        self, repository: Path, tmp_path: Path, exact_clock: None
    ) -> None:
        scanned(repository, tmp_path / "scan.cache")
        (repository / "lib/shared.py").write_text("from prefect import flow\nPREFIX = 'zeta'\n")
        assert names(scanned(repository, tmp_path / "scan.cache")) == [f"zeta-{number}" for number in range(5)]

    def test_a_module_that_appears_changes_them_too(self, repository: Path, tmp_path: Path, exact_clock: None) -> None:
        scanned(repository, tmp_path / "scan.cache")
        write_files(repository, {"flows/lib/shared.py": "from prefect import flow\nPREFIX = 'near'\n"})
        write_files(repository, {"flows/lib/__init__.py": ""})
        assert names(scanned(repository, tmp_path / "scan.cache"))[0] == "near-0"

    def test_a_module_that_fails_for_a_new_caller_fails_with_a_cache_too(
        self, repository: Path, tmp_path: Path, exact_clock: None
    ) -> None:
        write_files(repository, {"lib/__init__.py": "", "lib/deco.py": "def make(n): return flow(name=n)(len)\n"})
        scanned(repository, tmp_path / "scan.cache")
        caller = "from prefect import flow\nfrom .deco import make\nmade = make('made')\n"
        write_files(repository, {"lib/__init__.py": caller})
        again = scanned(repository, tmp_path / "scan.cache")
        assert again == scanned(repository, None)
        assert [problem.location for problem in again.problems] == ["lib/__init__.py:3"]

    def test_a_module_does_not_fail_where_nobody_calls_it_any_more(
        self, repository: Path, tmp_path: Path, exact_clock: None
    ) -> None:
        caller = "from prefect import flow\nfrom .deco import make\nmade = make('made')\n"
        write_files(repository, {"lib/__init__.py": caller, "lib/deco.py": "def make(n): return flow(name=n)(len)\n"})
        assert scanned(repository, tmp_path / "scan.cache").problems
        write_files(repository, {"lib/__init__.py": ""})
        assert scanned(repository, tmp_path / "scan.cache") == scanned(repository, None)
        assert not scanned(repository, tmp_path / "scan.cache").problems

    @pytest.mark.parametrize(
        "damage",
        [b"", b"{}", b"garbage\n{}", b"\xff\xfe\x00", b"[" * 100_000],
        ids=["empty", "no-checksum", "wrong-checksum", "binary", "deep"],
    )
    def test_is_ignored_when_it_is_no_cache(self, repository: Path, tmp_path: Path, damage: bytes) -> None:
        cache = tmp_path / "scan.cache"
        cache.write_bytes(damage)
        assert scanned(repository, cache) == scanned(repository, None)
        assert scanned(repository, cache) == scanned(repository, None)

    def test_is_ignored_when_a_single_byte_is_wrong(self, repository: Path, tmp_path: Path, exact_clock: None) -> None:
        cache = tmp_path / "scan.cache"
        scanned(repository, cache)
        cache.write_bytes(cache.read_bytes().replace(b"acme-0", b"acme-X"))
        assert names(scanned(repository, cache))[0] == "acme-0"

    def test_does_without_a_place_to_write(self, repository: Path, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for place in ("file/scan.cache", "."):
            assert len(scanned(repository, tmp_path / place).flows) == 5

    def test_is_not_shown_to_git(self, repository: Path) -> None:
        discover(repository, ["."], cache_file=repository / ".orchestrator" / "cache" / "scan.cache")
        assert (repository / ".orchestrator/cache/.gitignore").read_text() == "*\n"

    def test_forgets_files_that_are_gone(self, repository: Path, tmp_path: Path) -> None:
        scanned(repository, tmp_path / "scan.cache")
        (repository / "flows/load_0.py").unlink()
        (repository / "lib/new.py").touch()
        scanned(repository, tmp_path / "scan.cache")
        assert b"load_0" not in (tmp_path / "scan.cache").read_bytes()

    def test_several_scans_at_once(self, repository: Path, tmp_path: Path) -> None:
        expected, found = scanned(repository, None), []

        def scan() -> None:
            for _ in range(5):
                found.append(scanned(repository, tmp_path / "scan.cache"))

        threads = [threading.Thread(target=scan) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 20
        assert all(each == expected for each in found)


def many_files(root: Path) -> list[str]:
    paths = [f"flows/flow_{number}.py" for number in range(2 * FILES_THAT_PAY)]
    write_files(root, {"lib/shared.py": "from prefect import flow\nPREFIX = 'acme'\n"})
    write_files(root, {path: FLOW.format(number=number) for number, path in enumerate(paths)})
    return paths


def read_with(root: Path, paths: list[str], processes: int) -> dict[str, tuple[SourceFlow, ...]]:
    sources = SourceFiles(root)
    scan = FlowScan(sources, ImportGraph(sources), processes)
    scan.look_at(paths)
    return {path: found.flows for path, found in scan.read(paths).items()}


class TestHelpers:
    def test_several_processes_find_what_one_finds(self, tmp_path: Path) -> None:
        paths = many_files(tmp_path)
        alone, together = read_with(tmp_path, paths, 1), read_with(tmp_path, paths, 3)
        assert together == alone
        assert list(together) == paths and together[paths[7]][0].name == "acme-7"

    def test_every_item_is_worked_on_once(self) -> None:
        here: list[int] = []
        items = [(number,) for number in range(1000)]
        there = list(shared(lambda batch: here.extend(item[0] for item in batch), items, 2, lambda name: name))
        assert sorted(here + there) == list(range(1000))

    def test_what_a_helper_leaves_when_it_dies_is_done_here(self) -> None:
        parent, here = os.getpid(), set[int]()

        def work(batch: list[tuple[int]]) -> None:
            if os.getpid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)
            here.update(item[0] for item in batch)

        items = [(number,) for number in range(1000)]
        assert list(shared(work, items, 2, lambda name: name)) == []
        assert here == set(range(1000))

    def test_no_helper_beside_other_threads(self) -> None:
        """A copy of this process would have the locks that they hold, and nobody to release them."""
        here: list[int] = []
        release = threading.Event()
        thread = threading.Thread(target=release.wait)
        thread.start()
        try:
            list(shared(lambda batch: here.extend(item[0] for item in batch), [(1,), (2,)], 2, lambda name: name))
        finally:
            release.set()
            thread.join()
        assert here == [1, 2]

    def test_no_child_is_left_behind(self, tmp_path: Path) -> None:
        paths, before = many_files(tmp_path), psutil.Process().children()
        read_with(tmp_path, paths, 3)
        assert psutil.Process().children() == before


class TestReading:
    @pytest.mark.parametrize("size", [0, 1, 1000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
    def test_every_byte_of_a_file_counts(self, tmp_path: Path, size: int) -> None:
        content = (b"# 23456\n" * (size // 8 + 1))[:size]
        (tmp_path / "a.py").write_bytes(content)
        remembering = SourceFiles(tmp_path, cache_file=tmp_path / "scan.cache")
        assert SourceFiles(tmp_path)["a.py"].content == remembering["a.py"].content == content


class TestCacheOfAnybodysRepository:
    """A repository may be hostile: nothing that comes with it makes a scan write elsewhere, or believe its cache."""

    def test_links_are_not_followed(self, repository: Path, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.write_text("mine")
        cache = repository / ".orchestrator" / "cache"
        cache.mkdir(parents=True)
        (cache / ".gitignore").symlink_to(victim)
        (cache / "scan.cache").symlink_to(victim)
        scanned(repository, cache / "scan.cache")
        assert victim.read_text() == "mine"
        assert not (cache / "scan.cache").is_symlink()

    @pytest.mark.parametrize("linked", [".orchestrator", ".orchestrator/cache"])
    def test_a_folder_that_is_a_link_is_not_written_to(self, repository: Path, tmp_path: Path, linked: str) -> None:
        elsewhere = tmp_path / "elsewhere"
        (elsewhere / "cache").mkdir(parents=True)
        (repository / linked).parent.mkdir(exist_ok=True)
        (repository / linked).symlink_to(elsewhere)
        assert len(scanned(repository, repository / ".orchestrator/cache/scan.cache").flows) == 5
        assert sorted(path.name for path in elsewhere.rglob("*")) == ["cache"]

    def test_a_cache_of_another_folder_is_not_believed(
        self, repository: Path, tmp_path: Path, exact_clock: None
    ) -> None:
        scanned(repository, tmp_path / "scan.cache")
        copy = shutil.copytree(repository, tmp_path / "copy")
        with openings() as opened:
            scanned(copy, tmp_path / "scan.cache")
        assert len([path for path in opened if path.startswith(f"{copy}/")]) == 7

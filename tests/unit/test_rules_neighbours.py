"""Environments on one server that declare the same pool, queue or limit otherwise: CFG011."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator.config import ConfigurationManager
from orchestrator.model import ValidationError
from orchestrator.pipeline import discover_flows, read_repository, read_settings, validate
from tests.unit.builders import write_files
from tests.unit.checking import marked

HERE, THERE = "http://prefect:4200/api", "http://other:4200/api"


def environments(**texts: str) -> dict[str, str]:
    """A file for each, all on one server."""
    return files_of({name: f"{text}\nprefect_api_url: {HERE}\n" if text else "" for name, text in texts.items()})


def files_of(texts: Mapping[str, str]) -> dict[str, str]:
    return {f"environments/{name}.yaml": text for name, text in texts.items()}


def found_in(root: Path, files: dict[str, str], *names: str) -> list[ValidationError]:
    """What `validate --all-environments` finds, or `validate` for some of them."""
    write_files(root, files)
    first, *others = [read_settings(root, name) for name in names or ConfigurationManager(root).environments()]
    result = validate(first, discover_flows(root, first.project, first.declarations), others)
    return [fault for fault in (*result.errors, *result.warnings) if fault.code in ("CFG011", "CFG013", "IGN001")]


def limit(slots: int, address: str = "") -> str:
    start = f"prefect_api_url: {address}\n" if address else ""
    return f"{start}concurrency_limits:\n  database: {slots}\n"


class TestWhatIsFound:
    def test_a_tag_limit_is_told_in_both_files_with_both_values(self, tmp_path: Path) -> None:
        one, other = found_in(tmp_path, environments(development=limit(3), staging=limit(5)))
        assert (one.severity, one.location, one.message) == (
            "error",
            "environments/development.yaml:2",
            "The limit of the task tag 'database' is 3 in development, but 5 in staging "
            "(environments/staging.yaml:2), on the same server.",
        )
        assert "base.yaml" in one.remediation
        assert marked(tmp_path, one) == "database"
        assert other.location == "environments/staging.yaml:2"
        assert "5 in staging, but 3 in development (environments/development.yaml:2)" in other.message

    @pytest.mark.parametrize(
        ("one", "other", "what", "lines"),
        [
            (
                "work_pools:\n  python: {name: p, type: process, concurrency_limit: 10}",
                "work_pools:\n  python: {name: p, type: process, concurrency_limit: 4}",
                "concurrency_limit of the work pool 'p' is 10 in a, but 4 in b",
                (2, 2),
            ),
            (
                "work_pools:\n  python:\n    name: p\n    type: process\n",
                "work_pools:\n  docker:\n    name: p\n    type: docker\n",
                "type of the work pool 'p' is 'process' in a, but 'docker' in b",
                (4, 4),
            ),
            (
                "work_pools:\n  python:\n    name: p\n    type: process\n    queues: {q: {priority: 1}}",
                "work_pools:\n  python:\n    name: p\n    type: process\n    queues: {q: {priority: 2}}",
                "priority of the work queue 'p/q' is 1 in a, but 2 in b",
                (5, 5),
            ),
            (
                "global_concurrency_limits:\n  api: 5",
                "global_concurrency_limits:\n  api:\n    limit: 6\n    slot_decay_per_second: 1",
                "limit of the global concurrency limit 'api' is 5 in a, but 6 in b",
                (2, 3),
            ),
        ],
    )
    def test_pools_queues_and_global_limits(
        self, tmp_path: Path, one: str, other: str, what: str, lines: tuple[int, int]
    ) -> None:
        found = found_in(tmp_path, environments(a=one, b=other))
        assert [fault.line_number for fault in found] == list(lines)
        assert what in found[0].message

    def test_what_base_says_is_told_where_it_stands(self, tmp_path: Path) -> None:
        one, other = found_in(tmp_path, environments(base=limit(3), development="", staging=limit(5)))
        assert (one.location, other.location) == ("environments/base.yaml:2", "environments/staging.yaml:2")
        assert "3 in development, but 5 in staging" in one.message

    def test_two_queues_with_one_priority(self, tmp_path: Path) -> None:
        pool = "work_pools:\n  python:\n    name: p\n    type: process\n    queues:\n      {name}: {{priority: 1}}\n"
        found = found_in(tmp_path, environments(a=pool.format(name="x"), b=pool.format(name="y")))
        assert [fault.location for fault in found] == ["environments/a.yaml:6", "environments/b.yaml:6"]
        assert found[0].message == (
            "The queues x and y of the work pool 'p' have one priority: 1 in a, and 1 in b "
            "(environments/b.yaml:6), on the same server."
        )

    def test_a_long_description_is_cut(self, tmp_path: Path) -> None:
        pool = "work_pools:\n  python:\n    name: p\n    type: process\n    description: {words}\n"
        found = found_in(tmp_path, environments(a=pool.format(words="one " * 99), b=pool.format(words="two")))
        assert len(found[0].message) < 250 and "…' in a, but 'two' in b" in found[0].message


class TestWhatIsLeftAlone:
    def test_what_is_declared_alike_or_by_one_only(self, tmp_path: Path) -> None:
        files = environments(a=limit(3), b=limit(3), c="", d="concurrency_limits:\n  other: 9")
        assert found_in(tmp_path, files) == []

    def test_what_one_is_silent_about(self, tmp_path: Path) -> None:
        pool = "work_pools:\n  python: {name: p, type: process%s}"
        assert found_in(tmp_path, environments(a=pool % ", concurrency_limit: 10", b=pool % "")) == []

    def test_one_environment_alone(self, tmp_path: Path) -> None:
        assert found_in(tmp_path, environments(a=limit(3), b=limit(5)), "a") == []

    @pytest.mark.parametrize(
        ("one", "other", "is_one_server"),
        [
            (HERE, HERE, True),
            (HERE, f"{HERE}/", True),
            ("http://localhost:4200/api", "http://127.0.0.1:4200/api", True),
            ("", "", False),
            (HERE, THERE, False),
            (HERE, "", False),
        ],
    )
    def test_another_server(self, tmp_path: Path, one: str, other: str, is_one_server: bool) -> None:
        found = found_in(tmp_path, files_of({"a": limit(3, one), "b": limit(5, other)}))
        assert len(found) == (2 if is_one_server else 0)

    def test_what_cannot_be_read_whole(self, tmp_path: Path) -> None:
        files = environments(a=limit(3), b=f"{limit(5)}policy: {{prune: sometimes}}\n")
        assert found_in(tmp_path, files) == []

    def test_it_can_be_silenced(self, tmp_path: Path) -> None:
        silent = "concurrency_limits:\n  database: {slots}  # orchestrator: ignore[CFG011]\n"
        files = environments(a=silent.format(slots=3), b=silent.format(slots=5))
        assert found_in(tmp_path, files) == []


class TestPlanning:
    """What a plan or an apply of one environment says: a warning, which stops nothing."""

    def problems(self, root: Path, files: dict[str, str]) -> list[ValidationError]:
        asked = read_repository(write_files(root, files), "a")
        return [each for each in asked.desired.problems if each.code == "CFG011"]

    def test_it_is_a_warning(self, tmp_path: Path) -> None:
        files = {**environments(a=limit(3), b=limit(5)), "flows/etl.py": ""}
        (warning,) = self.problems(tmp_path, files)
        assert (warning.severity, warning.location) == ("warning", "environments/a.yaml:2")
        assert "but 5 in b (environments/b.yaml:2)" in warning.message

    def test_environments_with_faults_are_left_to_themselves(self, tmp_path: Path) -> None:
        files = environments(a=limit(3), b=f"{limit(5)}plicy: {{}}\n", c="concurrency_limits: [")
        assert self.problems(tmp_path, {**files, "flows/etl.py": ""}) == []

    def test_it_can_be_silenced(self, tmp_path: Path) -> None:
        silent = "concurrency_limits:\n  database: 3  # orchestrator: ignore[CFG011]\n"
        assert self.problems(tmp_path, {**environments(a=silent, b=limit(5)), "flows/etl.py": ""}) == []


class TestDeployments:
    DECLARED = "deployments:\n" + "".join(
        f"  - {{name: {name}, entrypoint: 'flows/etl.py:etl'}}\n" for name in ("daily", "b-daily")
    )
    FLOW = "from prefect import flow\n@flow(name='shop')\ndef etl(): ...\n"

    def found(self, root: Path, a: str, b: str) -> list[ValidationError]:
        files = {"prefect.yaml": self.DECLARED, "flows/etl.py": self.FLOW}
        return found_in(root, {**environments(a=a, b=b), **files})

    def test_of_two_environments_are_told_in_both_files(self, tmp_path: Path) -> None:
        one, other = self.found(tmp_path, "select:\n  - 'shop/*'", "policy: {prune: true}")
        assert (one.code, one.location, one.severity) == ("CFG013", "environments/a.yaml:1", "error")
        assert one.message == "shop/daily and 1 more would belong to a and b, on the same server."
        assert other.file_path == "environments/b.yaml"

    def test_that_each_has_of_its_own_are_fine(self, tmp_path: Path) -> None:
        assert self.found(tmp_path, "select: ['*/daily']", "select: ['*/b-*']") == []

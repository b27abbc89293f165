"""Rules about the images that flows run from: each provoked by a repository, with the near misses that are none.

IMG006 is met by a promotion: test_promotion.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.model import ValidationError
from tests.unit.builders import places
from tests.unit.checking import faults_of, marked

ETL = "from prefect import flow\nfrom shared.rows import count\n\n@flow\ndef etl(): pass\n"
REPORT = "from prefect import flow\nfrom shared.rows import count\n\n@flow\ndef report(): pass\n"
SHOP = {
    "flows/etl.py": ETL,
    "shared/rows.py": "def count(): pass\n",
    "docker/flow.Dockerfile": "FROM python:3.11-slim\n",
}
DOCKER = "templates: {docker: {}}\n"


class TestUnknownDockerfile:
    def faults(self, root: Path, builds: str, base: str = "{}", **files: str) -> tuple[ValidationError, ...]:
        environments = {"environments/base.yaml": base, "environments/development.yaml": builds}
        return faults_of(root, {**SHOP, **environments, **files}, "IMG007")

    def test_that_belongs_to_no_flow(self, tmp_path: Path) -> None:
        (fault,) = self.faults(tmp_path, "images:\n  builds:\n    docker/flow.Dockerfil: {target: run}\n")
        assert places((fault,)) == [("IMG007", "environments/development.yaml:3")]
        assert (fault.severity, fault.skips) == ("warning", False)
        assert fault.message == "No flow has the Dockerfile 'docker/flow.Dockerfil'."
        assert "Did you mean docker/flow.Dockerfile?" in fault.remediation
        assert marked(tmp_path, fault) == "docker/flow.Dockerfil"

    def test_each_is_told_where_it_stands(self, tmp_path: Path) -> None:
        base = "images: {builds: {x: {}, docker/flow.Dockerfile: {}}}"
        found = self.faults(tmp_path, "images:\n  builds:\n    y/Dockerfile: {}\n", base)
        assert places(found) == [("IMG007", "environments/base.yaml:1"), ("IMG007", "environments/development.yaml:3")]

    def test_what_there_is_is_named_where_nothing_is_near(self, tmp_path: Path) -> None:
        (fault,) = self.faults(tmp_path, "images: {builds: {zzz: {}}}")
        assert fault.remediation == "Dockerfiles of flows here: docker/flow.Dockerfile."

    def test_none_at_all(self, tmp_path: Path) -> None:
        files = {"flows/etl.py": ETL, "environments/development.yaml": "images: {builds: {Dockerfile: {}}}"}
        (fault,) = faults_of(tmp_path, files, "IMG007")
        assert fault.remediation == "Dockerfiles of flows here: none."

    @pytest.mark.parametrize(
        ("dockerfile", "files"),
        [
            ("docker/flow.Dockerfile", {}),
            ("flows/etl.Dockerfile", {"flows/etl.Dockerfile": "FROM python:3.11-slim\n"}),
            ("Dockerfile", {"Dockerfile": "FROM python:3.11-slim\n"}),
        ],
    )
    def test_that_of_a_flow(self, tmp_path: Path, dockerfile: str, files: dict[str, str]) -> None:
        assert self.faults(tmp_path, f"images: {{builds: {{{dockerfile}: {{}}}}}}", **files) == ()

    def test_one_that_exists_and_is_no_flows(self, tmp_path: Path) -> None:
        files = {"other/Dockerfile": "FROM python:3.11-slim\n"}
        assert len(self.faults(tmp_path, "images: {builds: {other/Dockerfile: {}}}", **files)) == 1


class TestIncompleteImage:
    def faults(
        self, root: Path, dockerfile: str, where: str = DOCKER, *, at: str = "docker/flow.Dockerfile", **files: str
    ) -> tuple[ValidationError, ...]:
        written = {**SHOP, at: dockerfile, "environments/development.yaml": where}
        return faults_of(root, {**written, "requirements.txt": "", **files}, "IMG008")

    def lacking(self, root: Path, *lines: str, **files: str) -> list[str]:
        """The files that an image does not hold."""
        found = self.faults(root, "\n".join(("FROM python:3.11-slim", *lines, "")), **files)
        return [fault.message.split(" ")[5].rstrip(",") for fault in found]

    def test_what_it_says(self, tmp_path: Path) -> None:
        text = "FROM python:3.11-slim AS base\nFROM base\nWORKDIR /app\nCOPY flows flows\n"
        (fault,) = self.faults(tmp_path, text)
        assert places((fault,)) == [("IMG008", "docker/flow.Dockerfile:2")]
        assert (fault.severity, fault.skips) == ("warning", False)
        assert fault.message == "The image does not hold shared/rows.py, which is needed by flows/etl.py:etl."
        assert fault.remediation == "Copy it: `COPY shared ...`."

    @pytest.mark.parametrize(
        ("lines", "lacking"),
        [
            (("COPY requirements.txt .",), ["flows/etl.py", "shared/rows.py"]),
            (("COPY flows flows",), ["shared/rows.py"]),
            (("COPY flows/etl.py shared/rows.py /app/",), []),
            (("COPY flows flows", "COPY shared shared"), []),
            (("COPY . .",), []),
            (("COPY requirements.txt .", "COPY --from=x / /"), []),
            (("RUN git clone https://example.com/shop",), []),
            ((), []),
        ],
    )
    def test_what_is_lacking(self, tmp_path: Path, lines: tuple[str, ...], lacking: list[str]) -> None:
        assert self.lacking(tmp_path, *lines) == lacking

    @pytest.mark.parametrize(
        ("ignored", "lacking"),
        [
            ("shared", ["shared/rows.py"]),
            ("**/*.py\n!flows", ["shared/rows.py"]),
            ("*.md", []),
            ("shared\n!shared/rows.py", []),
            ("[\nshared", []),
        ],
    )
    def test_what_is_ignored(self, tmp_path: Path, ignored: str, lacking: list[str]) -> None:
        assert self.lacking(tmp_path, "COPY . .", **{".dockerignore": f"{ignored}\n"}) == lacking

    def test_says_which_line_removes_it(self, tmp_path: Path) -> None:
        files = {".dockerignore": "*.md\nshared\n"}
        (fault,) = self.faults(tmp_path, "FROM python:3.11-slim\nCOPY . .\n", **files)
        assert fault.remediation == "Take it out of .dockerignore: line 2 removes it ('shared')."

    def test_the_dockerfiles_own_ignore_file_counts(self, tmp_path: Path) -> None:
        files = {".dockerignore": "shared\n", "docker/flow.Dockerfile.dockerignore": "flows\n"}
        assert self.lacking(tmp_path, "COPY . .", **files) == ["flows/etl.py"]

    def test_all_flows_that_need_a_file_are_named(self, tmp_path: Path) -> None:
        (fault,) = self.faults(tmp_path, "FROM python:3.11-slim\nCOPY flows flows\n", **{"flows/report.py": REPORT})
        assert fault.message.endswith("which is needed by flows/etl.py:etl and 1 more.")

    def test_each_dockerfile_is_about_its_own_flows(self, tmp_path: Path) -> None:
        files = {"flows/report.py": REPORT, "flows/report.Dockerfile": "FROM python:3.11-slim\nCOPY . .\n"}
        (fault,) = self.faults(tmp_path, "FROM python:3.11-slim\nCOPY flows flows\n", **files)
        assert fault.message.endswith("by flows/etl.py:etl.")

    @pytest.mark.parametrize("where", [DOCKER, "work_pools: {docker: {name: containers, type: docker}}\n"])
    def test_where_flows_run_from_images(self, tmp_path: Path, where: str) -> None:
        assert len(self.faults(tmp_path, "FROM python:3.11-slim\nCOPY flows flows\n", where)) == 1

    @pytest.mark.parametrize(
        "where", ["{}", "templates: {python: {}}\n", "work_pools: {python: {name: a, type: process}}"]
    )
    def test_not_where_none_does(self, tmp_path: Path, where: str) -> None:
        assert self.faults(tmp_path, "FROM python:3.11-slim\nCOPY flows flows\n", where) == ()

    @pytest.mark.parametrize(
        "text", ["", "COPY flows flows\n", "FROM python:3.11-slim\nCOPYY flows flows\nCOPY flows x\n"]
    )
    def test_a_dockerfile_with_faults_is_told_elsewhere(self, tmp_path: Path, text: str) -> None:
        assert self.faults(tmp_path, text) == ()

    def test_a_language_that_is_not_dockers_is_not_read(self, tmp_path: Path) -> None:
        files = {".dockerignore": "shared\n"}
        assert self.faults(tmp_path, "# syntax=example.com/mine\nCOPY . .\n", **files) == ()

    def test_the_stage_that_is_built_counts(self, tmp_path: Path) -> None:
        text = "FROM python:3.11-slim AS run\nCOPY . .\nFROM python:3.11-slim\nCOPY flows flows\n"
        where = DOCKER + "images: {builds: {docker/flow.Dockerfile: {target: run}}}\n"
        assert self.faults(tmp_path, text, where) == ()
        assert len(self.faults(tmp_path, text)) == 1

    def test_a_context_below_the_root(self, tmp_path: Path) -> None:
        where = DOCKER + "images: {builds: {docker/flow.Dockerfile: {context: flows}}}\n"
        (fault,) = self.faults(tmp_path, "FROM python:3.11-slim\nCOPY . .\n", where)
        assert "shared/rows.py" in fault.message

    def test_an_ignore_file_says_nothing_of_what_lies_outside_of_the_context(self, tmp_path: Path) -> None:
        where = DOCKER + "images: {builds: {docker/flow.Dockerfile: {context: flows}}}\n"
        files = {"flows/.dockerignore": "**/*.py\n"}
        found = self.faults(tmp_path, "FROM python:3.11-slim\nCOPY *.py .\n", where, **files)
        assert [fault.message.split(" ")[5] for fault in found] == ["flows/etl.py,"]

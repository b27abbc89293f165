"""Rules about Dockerfiles: each provoked by a repository, with the near misses that are none."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.discovery import discover
from orchestrator.model import ValidationError
from orchestrator.repository import Repository
from orchestrator.rules import Facts, images
from tests.unit.builders import flow, write_files

REPO = Path(__file__).parents[1] / "repos" / "images"
BUILD = "prefect_docker.deployments.steps.build_docker_image"


def findings(facts: Facts, code: str = "") -> list[ValidationError]:
    found = [fault for rule in images.RULES for fault in rule.apply(facts)]
    return [fault for fault in found if fault.code.startswith(code)]


def of_dockerfile(root: Path, text: str, *, at: str = "Dockerfile", **files: str) -> list[ValidationError]:
    """What is wrong with the Dockerfile of a flow; names of files are written with `__` for `/` and `_dot_` for `.`."""
    others = {name.replace("__", "/").replace("_dot_", "."): content for name, content in files.items()}
    repository = Repository(write_files(root, {at: text, **others}))
    return findings(Facts(repository=repository, flows=[flow(dockerfile_path=at)]))


def of_step(
    root: Path, inputs: str, *, before: str = "", at: str = "prefect.yaml", **files: str
) -> list[ValidationError]:
    """What is wrong with a build step that has these inputs."""
    others = {name.replace("__", "/").replace("_dot_", "."): content for name, content in files.items()}
    step = f"build:\n{before}  - {BUILD}: {{image_name: shop/etl, {inputs}}}\n"
    repository = Repository(write_files(root, {at: step, **others}))
    return findings(Facts(repository=repository, prefect_files=[at]))


def seen(faults: list[ValidationError]) -> list[tuple[str, str]]:
    return [(fault.code, fault.location) for fault in faults]


class TestRepository:
    @pytest.fixture(scope="class")
    def faults(self) -> list[ValidationError]:
        found = discover(REPO, ["flows"])
        facts = Facts(repository=Repository(REPO), flows=found.flows, prefect_files=["prefect.yaml"])
        return findings(facts)

    def test_all_that_is_wrong_and_nothing_else(self, faults: list[ValidationError]) -> None:
        assert seen(faults) == [
            ("IMG001", "prefect.yaml:8"),
            ("IMG002", "flows/own/Dockerfile:6"),
            ("IMG003", "flows/own/Dockerfile:13"),
            ("IMG004", "docker/report.Dockerfile:1"),
            ("IMG005", "docker/report.Dockerfile:3"),
        ]

    def test_what_they_say(self, faults: list[ValidationError]) -> None:
        missing, source, ignored, base, word = faults
        assert "Did you mean report.Dockerfile?" in missing.remediation
        assert (missing.severity, missing.skips) == ("error", True)
        assert "Did you mean requirements.txt?" in source.remediation
        assert "'data' (.dockerignore:3)" in ignored.message
        assert "the tag `latest`" in base.message
        assert "Did you mean WORKDIR?" in word.remediation

    def test_carets(self, faults: list[ValidationError]) -> None:
        for fault, text in zip(
            faults,
            ["docker/reports.Dockerfile", "requirement.txt", "data/seed.csv", "prefecthq/prefect:latest", "WORKDIRR"],
            strict=True,
        ):
            assert fault.file_path and fault.line_number and fault.column_number and fault.end_column_number
            line = (REPO / fault.file_path).read_text().splitlines()[fault.line_number - 1]
            assert line[fault.column_number - 1 : fault.end_column_number - 1] == text


class TestMissingDockerfile:
    @pytest.mark.parametrize("inputs", ["dockerfile: none.Dockerfile", "tag: x", "dockerfile: x/Dockerfile, path: sub"])
    def test_img001(self, tmp_path: Path, inputs: str) -> None:
        assert seen(of_step(tmp_path, inputs, x__Dockerfile="FROM a:1")) == [("IMG001", "prefect.yaml:2")]

    def test_img001_of_a_deployment(self, tmp_path: Path) -> None:
        text = f"deployments:\n  - name: a\n    build:\n      - {BUILD}:\n          dockerfile: gone\n"
        facts = Facts(
            repository=Repository(write_files(tmp_path, {"prefect.yaml": text})), prefect_files=["prefect.yaml"]
        )
        assert seen(findings(facts)) == [("IMG001", "prefect.yaml:5")]

    @pytest.mark.parametrize(
        "inputs",
        [
            "dockerfile: docker/etl.Dockerfile",
            "dockerfile: ./docker/../docker/etl.Dockerfile",
            "dockerfile: etl.Dockerfile, path: docker",
            "dockerfile: docker/etl.Dockerfile, path: sub, build_backend: buildx",
            "dockerfile: auto",
            'dockerfile: "{{ $DOCKERFILE }}"',
            'dockerfile: gone, path: "{{ clone.directory }}"',
            "dockerfile: gone, path: 'https://github.com/shop/etl.git'",
            "dockerfile: gone, path: ../elsewhere",
            "dockerfile: /etc/Dockerfile",
            "dockerfile: 1",
            "dockerfile: [a]",
        ],
    )
    def test_what_is_there_or_cannot_be_known(self, tmp_path: Path, inputs: str) -> None:
        assert of_step(tmp_path, inputs, docker__etl_dot_Dockerfile="FROM a:1") == []

    def test_a_prefect_yaml_may_be_called_from_the_root_or_its_folder(self, tmp_path: Path) -> None:
        for name in ("team__Dockerfile", "Dockerfile"):
            root = tmp_path / name
            assert of_step(root, "tag: x", at="team/prefect.yaml", **{name: "FROM a:1"}) == []

    @pytest.mark.parametrize(
        ("before", "codes"),
        [
            ("  - prefect.deployments.steps.run_shell_script: {script: make dockerfile}\n", []),
            ("  - team.steps.render: {}\n", []),
            ("  - prefect.deployments.steps.run_shell_script: {script: git rev-parse HEAD}\n", ["IMG001"]),
            ("  - prefect.deployments.steps.run_shell_script: {script: git log > gone}\n", []),
            ("  - 17\n", ["IMG001"]),
        ],
    )
    def test_a_step_before_may_write_it(self, tmp_path: Path, before: str, codes: list[str]) -> None:
        assert [fault.code for fault in of_step(tmp_path, "dockerfile: gone", before=before)] == codes

    @pytest.mark.parametrize(
        "text", ["build: 1", "build: [1, {a: 2}]", "- build_docker_image", "deployments: {a: 1}", "{"]
    )
    def test_other_shapes_are_somebody_elses(self, tmp_path: Path, text: str) -> None:
        root = write_files(tmp_path, {"prefect.yaml": f"{text} # build_docker_image"})
        assert findings(Facts(repository=Repository(root), prefect_files=["prefect.yaml", "gone.yaml"])) == []


class TestMissingSource:
    @pytest.mark.parametrize(
        "line",
        [
            "COPY gone.txt /x",
            "ADD gone/ /x",
            'COPY ["gone file", "/x"]',
            "COPY --chown=1:1 --link here.txt gone /x",
            "ENV D=gone\nCOPY $D/a /x",
        ],
    )
    def test_img002(self, tmp_path: Path, line: str) -> None:
        (fault,) = of_dockerfile(tmp_path, f"FROM a:1\n{line}\n", here_dot_txt="")
        assert fault.code == "IMG002"
        assert "gone" in fault.message or "$D" in fault.message

    @pytest.mark.parametrize(
        "line",
        [
            "COPY here.txt sub/ /x",
            "COPY /here.txt ./sub/../here.txt ../here.txt /x",
            "COPY . /x",
            "COPY --from=build gone /x",
            "COPY --from=python:3.11 gone /x",
            "ADD https://example.com/gone /x",
            "COPY gone*.txt /x",
            "ARG D=gone\nCOPY $D /x",
            "COPY $FROM_BASE/gone /x",
            "COPY <<EOF /x\ngone\nEOF",
            "ONBUILD COPY gone /x",
            "# COPY gone /x",
            "COPY build/app.whl /x",
            "COPY sub/f /x",
        ],
    )
    def test_what_is_there_or_cannot_be_known(self, tmp_path: Path, line: str) -> None:
        files = {"here_dot_txt": "", "sub__f": "", "_dot_gitignore": "build/\n"}
        assert of_dockerfile(tmp_path, f"FROM a:1 AS build\n{line}\n", **files) == []

    def test_the_context_may_be_any_folder_down_to_the_dockerfile(self, tmp_path: Path) -> None:
        text = "FROM a:1\nCOPY root.txt team.txt own.txt gone.txt /x"
        files = {"root_dot_txt": "", "team__team_dot_txt": "", "team__own__own_dot_txt": ""}
        (fault,) = of_dockerfile(tmp_path, text, at="team/own/Dockerfile", **files)
        assert (
            "'gone.txt', but there is no such path in the root of the repository or team or team/own" in fault.message
        )

    def test_a_build_step_says_which(self, tmp_path: Path) -> None:
        faults = of_step(tmp_path, "path: sub", sub__Dockerfile="FROM a:1\nCOPY root.txt /x", root_dot_txt="")
        assert seen(faults) == [("IMG002", "sub/Dockerfile:2")]

    def test_a_step_before_may_write_it(self, tmp_path: Path) -> None:
        before = "  - prefect.deployments.steps.run_shell_script: {script: uv export -o requirements.txt}\n"
        assert of_step(tmp_path, "tag: x", before=before, Dockerfile="FROM a:1\nCOPY requirements.txt /x") == []


class TestIgnoredSource:
    @pytest.mark.parametrize(
        ("ignore", "source"),
        [
            ("data", "data/seed.csv"),
            ("data", "data"),
            ("data/**", "data/"),
            ("*.csv", "*.csv"),
            ("*\n!flows", "data"),
            ("**/*.csv", "data"),
        ],
    )
    def test_img003(self, tmp_path: Path, ignore: str, source: str) -> None:
        files = {"_dot_dockerignore": ignore, "data__seed_dot_csv": "", "a_dot_csv": "", "flows__f": ""}
        (fault,) = of_dockerfile(tmp_path, f"FROM a:1\nCOPY {source} /x\n", **files)
        assert (fault.code, fault.line_number) == ("IMG003", 2)

    @pytest.mark.parametrize(
        ("ignore", "source"),
        [
            ("data\n!data/seed.csv", "data/seed.csv"),
            ("data\n!data/seed.csv", "data"),
            ("data/*.txt", "data"),
            ("# data", "data"),
            ("data", "."),
            ("b.csv", "*.csv"),
            ("Dockerfile\n.dockerignore", "Dockerfile .dockerignore"),
            ("*", "--from=other data"),
        ],
    )
    def test_what_is_kept(self, tmp_path: Path, ignore: str, source: str) -> None:
        files = {"_dot_dockerignore": ignore, "data__seed_dot_csv": "", "data__notes_dot_txt": "", "a_dot_csv": ""}
        files["b_dot_csv"] = ""
        assert of_dockerfile(tmp_path, f"FROM a:1\nCOPY {source} /x\n", **files) == []

    def test_the_one_beside_the_dockerfile_goes_first(self, tmp_path: Path) -> None:
        files = {"_dot_dockerignore": "data", "Dockerfile_dot_dockerignore": "other", "data__x": ""}
        assert of_dockerfile(tmp_path, "FROM a:1\nCOPY data /x\n", **files) == []

    def test_only_where_it_is_removed_from_each_possible_context(self, tmp_path: Path) -> None:
        files = {"_dot_dockerignore": "f", "f": "", "team__f": ""}
        assert of_dockerfile(tmp_path, "FROM a:1\nCOPY f /x\n", at="team/Dockerfile", **files) == []

    def test_links_that_lead_round_in_circles(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"data/a.csv": "", ".dockerignore": "**/*.csv"})
        (tmp_path / "data" / "again").symlink_to(tmp_path / "data")
        assert of_dockerfile(tmp_path, "FROM a:1\nCOPY data /x\n") == []  # the link itself is left


class TestBaseWithoutTag:
    @pytest.mark.parametrize(
        "text",
        [
            "FROM python",
            "FROM python:latest",
            "FROM registry.internal:5000/shop/base",
            "FROM --platform=linux/amd64 python AS x",
            "ARG BASE=python\nFROM $BASE",
            "ARG TAG=latest\nFROM python:${TAG}",
        ],
    )
    def test_img004(self, tmp_path: Path, text: str) -> None:
        assert [fault.code for fault in of_dockerfile(tmp_path, text)] == ["IMG004"]

    @pytest.mark.parametrize(
        "text",
        [
            "FROM python:3.11-slim",
            "FROM registry.internal:5000/shop/base:1",
            "FROM python@sha256:0123456789abcdef",
            "FROM scratch",
            "FROM python:3.11 AS base\nFROM base\nFROM BASE",
            "ARG BASE\nFROM $BASE",
            "ARG TAG\nFROM python:$TAG",
            "ARG TAG=3.11\nFROM python:$TAG",
            "FROM $UNKNOWN",
            "FROM prefecthq/prefect:3-latest",
        ],
    )
    def test_what_is_pinned_or_cannot_be_known(self, tmp_path: Path, text: str) -> None:
        assert of_dockerfile(tmp_path, text) == []

    def test_a_build_argument_of_the_step_may_pin_it(self, tmp_path: Path) -> None:
        text = "ARG TAG=latest\nFROM python:$TAG"
        assert of_step(tmp_path / "a", "buildargs: {TAG: '3.11'}", Dockerfile=text) == []
        assert seen(of_step(tmp_path / "b", "tag: x", Dockerfile=text)) == [("IMG004", "Dockerfile:2")]


class TestFaultyDockerfile:
    def test_img005(self, tmp_path: Path) -> None:
        faults = of_dockerfile(tmp_path, "FROM a:1\nCOPPY a b\nCOPY a\n")
        assert seen(faults) == [("IMG005", "Dockerfile:2"), ("IMG005", "Dockerfile:3")]
        assert faults[0].remediation == "Did you mean COPY?"
        assert (faults[0].column_number, faults[0].end_column_number) == (1, 6)

    def test_img005_of_the_dockerignore(self, tmp_path: Path) -> None:
        faults = of_dockerfile(tmp_path, "FROM a:1\nCOPY x /y", _dot_dockerignore="ok\na[", x="")
        assert seen(faults) == [("IMG005", ".dockerignore:2")]

    def test_a_file_that_is_not_utf8_is_said_to_be_unchecked(self, tmp_path: Path) -> None:
        (tmp_path / "Dockerfile").write_bytes(b"FROM a:1\n# sch\xf6n\nCOPY \x00 y")
        (fault,) = findings(Facts(repository=Repository(tmp_path), flows=[flow(dockerfile_path="Dockerfile")]))
        assert (fault.code, fault.location, fault.severity) == ("IMG005", "Dockerfile:2", "warning")
        assert "not UTF-8" in fault.message

    def test_null_bytes(self, tmp_path: Path) -> None:
        assert of_dockerfile(tmp_path, "FROM a:1\nCOPY a\0b /x\n") == []

    def test_two_flows_of_one_dockerfile_have_its_faults_once(self, tmp_path: Path) -> None:
        root = write_files(tmp_path, {"Dockerfile": "FROM python"})
        flows = [flow("a", dockerfile_path="Dockerfile"), flow("b", dockerfile_path="Dockerfile")]
        assert len(findings(Facts(repository=Repository(root), flows=flows))) == 1

    def test_severities(self) -> None:
        """A Dockerfile concerns deployments of images only: nothing here stops an apply."""
        assert {rule.code: rule.severity for rule in images.RULES if rule.severity == "error"} == {"IMG001": "error"}


LINES = st.one_of(
    st.tuples(st.sampled_from(["COPY", "ADD", "FROM", "ENV", "ARG", "RUN"]), st.text(max_size=20)).map(" ".join),
    st.text(string.printable, max_size=20),
)


class TestHostileInput:
    @settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(text=st.lists(LINES, max_size=8).map("\n".join), ignore=st.text("a*?[]!/.\\\n", max_size=20))
    def test_random_files_never_crash_a_rule(self, tmp_path: Path, text: str, ignore: str) -> None:
        files = {"Dockerfile": f"FROM a:1\n{text}", ".dockerignore": ignore, "a/b": ""}
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(content, encoding="utf-8")
        facts = Facts(repository=Repository(tmp_path), flows=[flow(dockerfile_path="Dockerfile")])
        for fault in findings(facts):
            assert fault.file_path and fault.line_number and fault.remediation

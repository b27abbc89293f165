"""Rules about secrets and env files: each provoked by a repository, with the near misses that are none."""

from __future__ import annotations

import io
import string
from pathlib import Path

import pytest
import yaml
from dotenv import dotenv_values
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from orchestrator.discovery import discover
from orchestrator.masking import masked_line
from orchestrator.model import ValidationError
from orchestrator.repository import Repository
from orchestrator.rules import RULES, Facts, secrets
from tests.unit.builders import flow, write_files

REPO = Path(__file__).parents[1] / "repos" / "images"
TOKEN = "ghp" + "_" + "zQ4mX9bT2kL7vR1nW8cJ5hY3gF6dS0pAqB1x"  # put together: no scanner shall find it here


def findings(facts: Facts) -> list[ValidationError]:
    return [fault for rule in secrets.RULES for fault in rule.apply(facts)]


def seen(faults: list[ValidationError]) -> list[tuple[str, str]]:
    return [(fault.code, fault.location) for fault in faults]


class TestRepository:
    @pytest.fixture(scope="class")
    def faults(self) -> list[ValidationError]:
        found = discover(REPO, ["flows"])
        return findings(Facts(repository=Repository(REPO), flows=found.flows, prefect_files=["prefect.yaml"]))

    def test_all_that_is_wrong_and_nothing_else(self, faults: list[ValidationError]) -> None:
        assert seen(faults) == [
            ("ENV001", "flows/.env.production:1"),
            ("SEC001", "prefect.yaml:18"),
            ("SEC002", "flows/own/Dockerfile:17"),
        ]
        assert {fault.severity for fault in faults} == {"warning"}

    def test_the_key_is_named_and_the_value_never(self, faults: list[ValidationError]) -> None:
        assert "DB_NAME" in faults[0].message
        assert "'DB_PASSWORD'" in faults[1].message
        assert "'DB_PASSWORD'" in faults[2].message
        assert "hunter2" not in repr(faults)

    def test_carets_stand_under_the_value(self, faults: list[ValidationError]) -> None:
        for fault in faults[1:]:
            assert fault.file_path and fault.line_number and fault.column_number and fault.end_column_number
            line = (REPO / fault.file_path).read_text().splitlines()[fault.line_number - 1]
            assert line[fault.column_number - 1 : fault.end_column_number - 1] == "hunter2"
            assert "hunter2" not in masked_line(line)


class TestConfiguration:
    def test_sec001_of_environments_and_pyproject(self, tmp_path: Path) -> None:
        files = {
            "environments/production.yaml": f"docker_registry: https://{TOKEN}@registry.internal\n",
            "pyproject.toml": '[tool.x]\npassword = "hunter2"\n',
            "prefect.yaml": "name: x\n",
        }
        repository = Repository(write_files(tmp_path, files))
        names = ["environments/production.yaml", "pyproject.toml", "gone.yaml"]
        faults = findings(Facts(repository=repository, configuration_files=names, prefect_files=["prefect.yaml"]))
        assert seen(faults) == [("SEC001", "environments/production.yaml:1"), ("SEC001", "pyproject.toml:2")]
        assert "GitHub token" in faults[0].message

    def test_a_file_in_two_lists_is_read_once(self, tmp_path: Path) -> None:
        repository = Repository(write_files(tmp_path, {"prefect.yaml": "password: hunter2\n"}))
        names = ["prefect.yaml"]
        assert len(findings(Facts(repository=repository, configuration_files=names, prefect_files=names))) == 1

    def test_references_are_none(self, tmp_path: Path) -> None:
        text = 'pull:\n  - git_clone:\n      access_token: "{{ prefect.blocks.secret.github-token1 }}"\n'
        repository = Repository(write_files(tmp_path, {"prefect.yaml": text}))
        assert findings(Facts(repository=repository, prefect_files=["prefect.yaml"])) == []


class TestDockerfile:
    @pytest.mark.parametrize(
        "line",
        [
            "ENV DB_PASSWORD=hunter2",
            "ENV DB_PASSWORD hunter2",
            "ARG API_TOKEN=zQ4mX9bT2kL7vR1n",
            f"RUN git clone https://{TOKEN}@github.com/shop/etl",
            "RUN pip install --index-url https://etl:hunter2@pypi.internal/simple etl",
            'LABEL token="zQ4mX9bT2kL7vR1n"',
            f"RUN <<EOF\nexport GITHUB={TOKEN}\nEOF",
            f"# {TOKEN}",
        ],
    )
    def test_sec002(self, tmp_path: Path, line: str) -> None:
        repository = Repository(write_files(tmp_path, {"Dockerfile": f"FROM python:3.11-slim\n{line}\n"}))
        (fault,) = findings(Facts(repository=repository, flows=[flow(dockerfile_path="Dockerfile")]))
        assert fault.code == "SEC002"
        assert TOKEN not in repr(fault)
        assert "hunter2" not in repr(fault)

    @pytest.mark.parametrize(
        "line",
        [
            "ARG API_TOKEN",
            "ENV API_TOKEN=$API_TOKEN",
            "ENV API_TOKEN=${API_TOKEN:-}",
            "RUN --mount=type=secret,id=token1,env=TOKEN pip install x",
            "ENV GPG_KEY=E3FF2839C048B25C084DEBE9B26995E310250568",
            "ENV PYTHON_SHA256=24887b92e2afd4a2ac602419ad4b596372f67ac9b077190f459aba390faf5550",
            "LABEL org.opencontainers.image.revision=9fceb02d0ae598e95dc970b74767f19372d61af8",
            "COPY secrets/token1.txt /x",
        ],
    )
    def test_what_is_none(self, tmp_path: Path, line: str) -> None:
        repository = Repository(write_files(tmp_path, {"Dockerfile": f"FROM python:3.11-slim\n{line}\n"}))
        assert findings(Facts(repository=repository, flows=[flow(dockerfile_path="Dockerfile")])) == []


def env_faults(root: Path, **files: str) -> list[ValidationError]:
    """What is wrong with the env files beside a flow; `_` at the start of a name stands for `.`, `__` for others."""
    names = {name.replace("__", ".").replace("_", ".", 1): text for name, text in files.items()}
    repository = Repository(write_files(root, {f"flows/{name}": text for name, text in names.items()}))
    env_files = tuple(f"flows/{name}" for name in sorted(names))
    return findings(
        Facts(repository=repository, flows=[flow("a", env_files=env_files), flow("b", env_files=env_files)])
    )


class TestMissingVariable:
    @pytest.mark.parametrize("ending", ["example", "sample", "template", "dist"])
    def test_env001(self, tmp_path: Path, ending: str) -> None:
        (fault,) = env_faults(tmp_path, _env="A=hunter2\n", **{f"_env__{ending}": "A=\nB=secret1\nC=\n"})
        assert (fault.code, fault.location) == ("ENV001", "flows/.env:1")
        assert "B, C" in fault.message
        assert "secret1" not in repr(fault)
        assert "hunter2" not in repr(fault)

    def test_what_is_complete(self, tmp_path: Path) -> None:
        given_values = "export A='1'\nB = \"two\nlines C=\"\n# C=1\nC=\nEXTRA=1\n"
        assert env_faults(tmp_path, _env=given_values, _env__example="A=\nB=\nC=\n#D=\n") == []

    def test_an_example_alone_is_none(self, tmp_path: Path) -> None:
        assert env_faults(tmp_path, _env__example="A=\n", _env__sample="B=\n") == []

    def test_what_is_written_over_another(self, tmp_path: Path) -> None:
        files = {"_env": "A=1\nB=1\n", "_env__production": "B=2\n", "_env__example": "A=\nB=\n"}
        assert env_faults(tmp_path / "over", **files) == []
        del files["_env"]
        assert seen(env_faults(tmp_path / "alone", **files)) == [("ENV001", "flows/.env.production:1")]

    def test_an_example_of_its_own(self, tmp_path: Path) -> None:
        files = {"_env": "A=1\n", "_env__production": "B=2\n", "_env__production__example": "A=\nB=\nC=\n"}
        (fault,) = env_faults(tmp_path, **files)
        assert fault.location == "flows/.env.production:1"
        assert "for C," in fault.message

    @pytest.mark.parametrize(
        "text",
        [
            "A=1\nB=2",
            "export A=1 # why\n  B : 2\nC",
            "A='x\nB=not a key'\nC=1",
            'A="x\nB=not \\" a key"\nC=1',
            "'QUOTED'=1\n= 2\n\n#X=1\nA=#\nB=a#b\r\nC=d\r\n",
            "A=1=2\nB==\nC='x' # y\nD=\"\"",
            "A=\nB=1",
            "A= \n B=1",
            "A B=1\nC=2",
        ],
    )
    def test_read_as_python_dotenv_does(self, text: str) -> None:
        expected = [name for name, value in dotenv_values(stream=io.StringIO(text)).items() if value is not None]
        assert list(secrets.variables(text)) == expected

    def test_a_quote_without_end_is_given_the_benefit_of_the_doubt(self) -> None:
        assert secrets.variables("A='unclosed\nB=1") == ("A", "B")

    def test_what_may_be_a_secret_is_no_name(self) -> None:
        assert secrets.variables("KEY=-----BEGIN\nMIIEpAIBAAKCAQEA0Zq=\n9zQ4mX9bT2kL7v==\n") == ("KEY",)


PLANTED = st.text(string.ascii_letters + string.digits + "!%&+-./=?@^_~", min_size=12, max_size=40)


class TestNothingIsRepeated:
    """A secret, wherever it is planted, is in no finding of any rule, and in no masked line."""

    @settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(secret=PLANTED, key=st.sampled_from(["password", "API_TOKEN", "client_secret", "access_key"]))
    @example(secret=TOKEN, key="password")
    def test_of_all_rules(self, tmp_path: Path, secret: str, key: str) -> None:
        assume(any(letter.isdigit() for letter in secret) and any(letter.isalpha() for letter in secret))
        variables = {key: secret}
        document = {
            "deployments": [
                {
                    "name": "x",
                    "entrypoint": "a.py:b",
                    "work_pool": {"job_variables": {"env": variables, "more": [{"name": key, "value": secret}]}},
                    **variables,
                }
            ]
        }
        files = {
            "prefect.yaml": yaml.safe_dump(document),
            "Dockerfile": f"FROM a:1\nENV {key}={secret}\nARG {key}='{secret}'\nRUN x --{key} {secret}\n{secret}\n",
            ".env": "OTHER=1\n",
            ".env.example": f"{key}={secret}\n{secret}\n",
        }
        for name, text in files.items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        facts = Facts(
            repository=Repository(tmp_path),
            flows=[flow(dockerfile_path="Dockerfile", env_files=(".env", ".env.example"))],
            prefect_files=["prefect.yaml"],
            configuration_files=["prefect.yaml"],
        )
        faults = [fault for rule in RULES for fault in rule.apply(facts)]
        assert {fault.code for fault in faults} >= {"ENV001", "IMG005"}
        assert secret.upper() not in repr(faults).upper()
        for fault in faults:
            lines = (tmp_path / (fault.file_path or "")).read_text(encoding="utf-8").splitlines()
            number = (fault.line_number or 1) - 1
            if fault.code in ("SEC001", "SEC002"):
                assert secret not in masked_line(lines[number], lines[max(number - 1, 0) : number + 2])

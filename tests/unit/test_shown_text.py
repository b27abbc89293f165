"""What reports show of text that other people wrote: no secret, nothing that moves a cursor, any file name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from orchestrator.cli import run_command
from orchestrator.errors import ConfigurationError
from orchestrator.fault_report import error_json, error_line, fault_json, problem_line, problems_markdown
from orchestrator.masking import masked_default, masked_document, masked_text
from orchestrator.model import Change, Plan
from orchestrator.plain_text import one_line, visible
from orchestrator.plan_report import plan_text
from orchestrator.terminal import Terminal
from tests.unit.builders import OWNER, problem, write_files

SARIF_SCHEMA = json.loads((Path(__file__).parents[1] / "data" / "sarif-2.1.0.json").read_text(encoding="utf-8"))
TOKEN = "ghp_" + "aB3dE5gH7jK9mN1pQ3sT5vX7zA9cE1gI3kM5"  # put together: a scanner would call this file leaky
SECRETS = ("hunter2secret", "aB3dE5gH7", "s3cr3tpassw", "correcthorse9")

PLANTED = {
    "flows/etl.py": f'''
        import missing_of_hunter
        from prefect import flow
        from prefect.deployments import run_deployment

        @flow(name="etl {TOKEN}more", description="password=hunter2secret", retries="--token hunter2secret",
              version="https://user:s3cr3tpassw@host/x", tags=["{TOKEN}"])
        def etl(password: list = ["hunter2secret"], token: str = "correcthorse9", rows: int = 5,
                options={{"api_key": "correcthorse9"}}, url="https://user:s3cr3tpassw@host/x"):
            run_deployment("etl/{TOKEN}")

        @flow(name=print("password=hunter2secret"))
        def second(secret: dict = {{"x": "hunter2secret"}}): ...
    ''',
    "flows/broken.py": 'password = "hunter2secret\nfrom prefect import flow\n',
    "flows/undefined.py": f"""
        from prefect import flow
        @missing("{TOKEN}", password="hunter2secret")
        @flow
        def a(): ...
    """,
    "prefect.yaml": f"""
        deployments:
          - name: daily-{TOKEN}
            entrypoint: https://user:s3cr3tpassw@host/x.py:etl
            parameters: {{password: hunter2secret}}
            work_pool: {{name: "{TOKEN}", passwrod: hunter2secret}}
          - name: other
            entrypoint: flows/etl.py:second
            parameters: {{secret: hunter2secret, token: hunter2secret, "{TOKEN}": 1}}
            schedules: [{{cron: "password=hunter2secret"}}]
            tags: 5
            description: {{password: hunter2secret}}
    """,
    "environments/development.yaml": f"""
        prefect_api_url: https://user:s3cr3tpassw@host/api
        default_parameters: {{password: hunter2secret, rows: "password=hunter2secret"}}
        work_pools: {{python: {{name: "{TOKEN}", password: hunter2secret}}}}
        "{TOKEN}": 5
    """,
    "requirements.txt": f"""
        --index-url https://user:s3cr3tpassw@host/simple
        -r https://user:s3cr3tpassw@host/other.txt
        broken == == password=hunter2secret
        git+https://{TOKEN}@github.com/x/y
        -r ../https:/user:s3cr3tpassw@host/x.txt
    """,
    "Dockerfile": f"""
        FROM https://user:s3cr3tpassw@host/image
        ENV PASSWORD hunter2secret
        ARG TOKEN={TOKEN}
        COPY https:/user:s3cr3tpassw@host/x hunter.txt
        RUN pip install --password hunter2secret
    """,
    "pyproject.toml": f"""
        [project]
        name = "x"
        dependencies = ["x @ https://user:s3cr3tpassw@host/x", "not valid password=hunter2secret"]
        [tool.orchestrator]
        ignore = ["{TOKEN}"]
        per_file_ignores = {{ "{TOKEN}" = ["NOPE", "FLW009"] }}
    """,
    "flows/.env": f"DB_PASSWORD=hunter2secret\nTOKEN={TOKEN}\n",
}


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    run_command(arguments)
    captured = capsys.readouterr()
    return captured.out + captured.err


class TestSecrets:
    @pytest.mark.parametrize(
        "command",
        [
            *(("validate", "--output", form) for form in ("text", "json", "sarif", "github")),
            *(("discover", "--output", form) for form in ("text", "json")),
        ],
        ids=" ".join,
    )
    @pytest.mark.parametrize("left_out", [(), ("pyproject.toml",), ("prefect.yaml", "environments/development.yaml")])
    def test_no_format_shows_one(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], left_out: tuple[str, ...]
    ) -> None:
        write_files(tmp_path, {name: text for name, text in PLANTED.items() if name not in left_out})
        text = shown(capsys, *command, "--root", str(tmp_path))
        assert "etl" in text
        assert [secret for secret in SECRETS if secret in text] == []

    def test_a_default_is_hidden_by_its_name(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_files(tmp_path, {"flows/etl.py": PLANTED["flows/etl.py"]})
        flows = json.loads(shown(capsys, "discover", "--root", str(tmp_path), "--output", "json"))["flows"]
        defaults = {each["name"]: each["default"] for each in flows[0]["parameters"]}
        assert defaults["password"] == defaults["token"] == "********"
        assert defaults["rows"] == "5"
        assert flows[0]["deployment_calls"][0] == {
            "deployment": "etl/********",
            "function": "run_deployment",
            "file_path": "flows/etl.py",
            "line_number": 9,
        }

    def test_reports_of_single_faults(self) -> None:
        fault = problem(message=f"It failed: password=hunter2secret, {TOKEN}", remediation="token: correcthorse9")
        error = ConfigurationError("password=hunter2secret", remedy="--token correcthorse9", faults=[fault])
        forms = (fault_json(fault), problem_line(fault), problems_markdown([fault]), error_line(error))
        text = json.dumps([*forms, error_json(error)])
        assert [secret for secret in SECRETS if secret in text] == []

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("RuntimeError: refused; password=hunter2 for x", "RuntimeError: refused; password=******** for x"),
            ("{'token': 'abc', 'x': 1}", "{'token': ********, 'x': 1}"),
            ("secret: list = ['a', 'b'] is", "secret: list = ******** is"),
            ("password: hunter2", "password: ********"),
            ("--api-key abc x", "--api-key ******** x"),
            ("pip install git+https:/user:pw@host/x", "pip install git+https:/user:********@host/x"),
            (f"see {TOKEN}more.", "see ********."),
        ],
    )
    def test_what_is_hidden_in_messages(self, text: str, expected: str) -> None:
        assert masked_text(text) == expected
        assert masked_text(expected) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "deployments.0.env.DB_PASSWORD: Input should be a valid string.",
            "Unknown key 'token': did you mean 'tokens'?",
            "The flow 'token' (flows/token.py:12) is named twice: flows/refresh_token.py:refresh_token.",
            "Use `password=None` and create the value in the flow.",
            "`token == x` compares.",
            "Give values for password, token.",
            "Write `password: {{ $PASSWORD }}`.",
        ],
    )
    def test_what_only_speaks_of_secrets_stays(self, text: str) -> None:
        assert masked_text(text) == text

    def test_defaults_that_hold_nothing_are_shown(self) -> None:
        assert [masked_default("password", text) for text in ("None", "''", "True")] == ["None", "''", "True"]
        assert [masked_default("max_tokens", text) for text in ("100_000", "-1", "0.5")] == ["100_000", "-1", "0.5"]
        assert masked_default("token", "'12345678'") == "********"

    def test_documents_are_json_whatever_they_hold(self) -> None:
        odd = {1: {b"x"}, "a": (float("inf"), ..., 2j), "password": "x", "b": None}
        assert json.loads(json.dumps(masked_document("", odd), allow_nan=False)) == {
            "1": ["b'x'"],
            "a": ["inf", "Ellipsis", "2j"],
            "password": "********",
            "b": None,
        }


FLOW = '@flow(name="a\\x1b[2Jb\\nc\\u202e")\ndef etl(x=[]): ...\n'


@pytest.fixture
def odd_names(tmp_path: Path) -> Path:
    """Flows in a file whose name is not UTF-8, and in one whose name colours terminals."""
    (tmp_path / "flows").mkdir()
    for name in (b"\xff\xfe.py", b"esc\x1b[31m\n.py"):
        path = tmp_path / "flows" / os.fsdecode(name)
        path.write_text("from prefect import flow\n" + FLOW, encoding="utf-8")
    return tmp_path


def printed(*arguments: str, **variables: str) -> str:
    """What a process of its own prints, on a strict terminal."""
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict", **variables}
    command = [sys.executable, "-m", "orchestrator", *arguments]
    finished = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert b"Traceback" not in finished.stderr
    return finished.stdout.decode("utf-8")


class TestOddNames:
    def test_text_has_them_escaped(self, odd_names: Path) -> None:
        text = printed("validate", "--root", str(odd_names))
        assert r"flows/\xff\xfe.py:3:11: warning FLW006" in text
        assert r"flows/esc\x1b[31m\n.py:3:11: warning FLW006" in text
        assert r"'a\x1b[2Jb\nc\u202e'" in text
        assert "\x1b" not in text

    def test_discover(self, odd_names: Path) -> None:
        text = printed("discover", "--root", str(odd_names))
        assert r"flows/\xff\xfe.py:etl" in text
        assert "\x1b" not in text
        assert len(text.splitlines()) == 4

    def test_github(self, odd_names: Path) -> None:
        text = printed("validate", "--root", str(odd_names), "--output", "github")
        assert r"file=flows/\xff\xfe.py,line=3" in text
        assert "\x1b" not in text

    def test_sarif(self, odd_names: Path) -> None:
        document = json.loads(printed("validate", "--root", str(odd_names), "--output", "sarif"))
        places = [each["locations"][0]["physicalLocation"] for each in document["runs"][0]["results"]]
        uris = {place["artifactLocation"]["uri"] for place in places}
        assert uris >= {"flows/%FF%FE.py", "flows/esc%1B%5B31m%0A.py"}

    @pytest.mark.parametrize("command", ["validate", "discover"])
    def test_json(self, odd_names: Path, command: str) -> None:
        text = printed(command, "--root", str(odd_names), "--output", "json")
        assert text.isascii()
        assert "flows/\udcff\udcfe.py" in json.dumps(json.loads(text, strict=True), ensure_ascii=False)

    def test_an_ascii_terminal_shows_what_it_can(self) -> None:
        ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
        assert "M\\xfcller" in printed("rules", "FLW002", **ascii_only)

    def test_a_plan(self) -> None:
        change = Change(action="create", deployment="etl/a\nb\x1b[2J", reasons=("new",))
        terminal = Terminal()
        with terminal.out.capture() as captured:
            terminal.out.print(plan_text(Plan(owner=OWNER, api_url="", changes=(change,))))
        assert captured.get().splitlines()[0] == r"+ etl/a\nb\x1b[2J  new"

    def test_characters(self) -> None:
        assert visible("a\tb\nc\x1b\x7f\x9b\r\u202e\udcff\ud800é👩\u200d👩") == (
            "a\tb\nc\\x1b\\x7f\\x9b\\x0d\\u202e\\xff\\ud800é👩\u200d👩"
        )
        assert one_line("a\nb\tc") == r"a\nb\tc"


class TestNothingWasChecked:
    @pytest.fixture(params=[("--root", "nope"), ("nope.py",)], ids=" ".join)
    def arguments(self, request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, ...]:
        given: tuple[str, ...] = request.param
        return ("--root", str(tmp_path / "nope")) if given[0] == "--root" else (*given, "--root", str(tmp_path))

    def test_sarif_says_so(self, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
        assert run_command(["validate", *arguments, "--output", "sarif"]) == 2
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        jsonschema.validate(document, SARIF_SCHEMA)
        (invocation,) = document["runs"][0]["invocations"]
        assert not invocation["executionSuccessful"]
        assert "There is no " in invocation["toolExecutionNotifications"][0]["message"]["text"]

    def test_github_says_so(self, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
        assert run_command(["validate", *arguments, "--output", "github"]) == 2
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith("::error title=orchestrator::")
        assert "There is no " in line


class TestPathsOfACommand:
    @pytest.mark.parametrize("form", ["{root}/flows/etl.py", "flows/../flows/etl.py", "./flows/etl.py", "{root}"])
    def test_any_form_finds_the_faults_of_declarations(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
    ) -> None:
        declared = "deployments:\n  - {name: a, entrypoint: 'flows/etl.py:etl', parameters: {nope: 1}}\n"
        flow = "from prefect import flow\n@flow\ndef etl(): ...\n"
        root = write_files(tmp_path, {"flows/etl.py": flow, "prefect.yaml": declared})
        assert "DPL003" in shown(capsys, "validate", form.format(root=root), "--root", str(root))

"""The command line: one JSON document, exit codes, and no Prefect where none is needed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator.cli import run_command
from orchestrator.errors import (
    ConfigurationError,
    OrchestratorError,
    RefusedError,
    ServerMismatch,
    ServerUnreachable,
)
from orchestrator.pipeline import same_server
from orchestrator.rules import RULES
from tests.unit.builders import write_files

REPOS = Path(__file__).parents[1] / "repos"
NOBODY_LISTENS = "http://127.0.0.1:9/api"
FLOW = """
    from prefect import flow
    @flow(name="{name}")
    def etl(rows: int = 5): ...
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A repository with one flow, one environment and one declared deployment."""
    files = {
        "flows/etl.py": FLOW.format(name="etl [main]"),
        "environments/development.yaml": f"prefect_api_url: {NOBODY_LISTENS}\n",
        "prefect.yaml": "deployments:\n  - {name: daily, entrypoint: 'flows/etl.py:etl'}\n",
    }
    return write_files(tmp_path, files)


@pytest.fixture
def broken(shop: Path) -> Path:
    """The same with something wrong in every kind of file."""
    files = {
        "flows/etl.py": "from prefect import flow\n@flow\ndef etl(rows=[]): ...\n",
        "flows/broken.py": "from prefect import flow\n@flow(\n",
        "environments/development.yaml": "policy:\n  prunne: true\n",
        "prefect.yaml": "deployments: [\n",
    }
    return write_files(shop, files)


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    code = run_command([str(each) for each in arguments])
    return code, *capsys.readouterr()


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, Any]:
    """Exit code, and the one document on standard output."""
    code, output, _ = run(capsys, *arguments, "--output", "json")
    return code, json.loads(output)


class TestDiscover:
    def test_lists_flows(self, capsys: pytest.CaptureFixture[str], shop: Path) -> None:
        code, output, _ = run(capsys, "discover", "--root", shop)
        assert code == 0
        assert "flows/etl.py:etl" in output and "1 flows" in output

    def test_drops_no_brackets(self, capsys: pytest.CaptureFixture[str], shop: Path) -> None:
        assert "etl [main]" in run(capsys, "discover", "--root", shop)[1]

    def test_as_json(self, capsys: pytest.CaptureFixture[str], shop: Path) -> None:
        code, document = run_json(capsys, "discover", "--root", shop)
        assert (code, document["problems"]) == (0, [])
        assert [each["entrypoint"] for each in document["flows"]] == ["flows/etl.py:etl"]

    def test_of_given_paths_only(self, capsys: pytest.CaptureFixture[str], shop: Path) -> None:
        write_files(shop, {"jobs/other.py": FLOW.format(name="other")})
        _, document = run_json(capsys, "discover", "jobs", "--root", shop)
        assert [each["name"] for each in document["flows"]] == ["other"]

    def test_unreadable_files_fail(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, document = run_json(capsys, "discover", "--root", REPOS / "broken_syntax")
        assert code == 1
        assert "good" in [each["name"] for each in document["flows"]]
        assert {each["code"] for each in document["problems"]} == {"FLW001"}

    def test_does_not_read_environments(self, capsys: pytest.CaptureFixture[str], shop: Path) -> None:
        write_files(shop, {"environments/development.yaml": "broken: [", "prefect.yaml": "broken: ["})
        assert run(capsys, "discover", "--root", shop)[0] == 0


class TestValidate:
    def test_a_sound_repository(self, capsys: pytest.CaptureFixture[str], shop: Path) -> None:
        code, document = run_json(capsys, "validate", "--root", shop)
        assert (code, document) == (0, {"is_valid": True, "errors": [], "warnings": []})

    def test_faults_of_flows_fail(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, document = run_json(capsys, "validate", "--root", REPOS / "duplicate_names")
        assert (code, document["is_valid"]) == (1, False)

    def test_warnings_do_not_fail(self, capsys: pytest.CaptureFixture[str], shop: Path) -> None:
        (shop / "environments" / "development.yaml").unlink()
        code, document = run_json(capsys, "validate", "--root", shop)
        assert (code, [each["code"] for each in document["warnings"]]) == (0, ["CFG007"])

    def test_warnings_fail_where_that_is_asked_for(self, capsys: pytest.CaptureFixture[str], shop: Path) -> None:
        assert run(capsys, "validate", "--root", shop, "--strict")[0] == 0
        (shop / "environments" / "development.yaml").unlink()
        _, usual, _ = run(capsys, "validate", "--root", shop)
        assert run(capsys, "validate", "--root", shop, "--strict") == (1, usual, "")

    def test_an_error_whose_fault_says_the_same_is_told_once(
        self, capsys: pytest.CaptureFixture[str], shop: Path
    ) -> None:
        _, _, error = run(capsys, "validate", "--root", shop, "--env", "developement")
        assert error.count("There is no environment 'developement'.") == 1
        assert "CFG004" in error

    def test_nothing_says_that_nothing_was_changed(self, capsys: pytest.CaptureFixture[str], shop: Path) -> None:
        write_files(shop, {"pyproject.toml": "[tool.orchestrator]\nflow = 1"})
        code, _, error = run(capsys, "validate", "--root", shop)
        assert (code, "changed" in error) == (2, False)

    @pytest.mark.parametrize("command", ["discover", "validate"])
    def test_a_folder_of_flows_that_is_not_there(
        self, capsys: pytest.CaptureFixture[str], shop: Path, command: str
    ) -> None:
        write_files(shop, {"pyproject.toml": '[tool.orchestrator]\nflows = ["flow"]'})
        code, _, error = run(capsys, command, "--root", shop)
        assert code == 2
        assert "pyproject.toml:2: error CFG003: flows: there is no folder 'flow'.\n    Did you mean 'flows'?" in error

    def test_a_fault_is_told_with_file_line_and_remedy(self, capsys: pytest.CaptureFixture[str], shop: Path) -> None:
        write_files(shop, {"environments/development.yaml": "policy:\n  prunne: true\n"})
        code, output, error = run(capsys, "validate", "--root", shop)
        assert (code, error) == (2, "")
        assert "environments/development.yaml:2:3: error CFG002: Unknown key 'policy.prunne'.\n" in output
        assert "Did you mean 'prune'?" in output

    def test_faults_of_all_kinds_come_together(self, capsys: pytest.CaptureFixture[str], broken: Path) -> None:
        code, document = run_json(capsys, "validate", "--root", broken)
        assert code == 2
        assert [(each["code"], each["file_path"]) for each in document["errors"]] == [
            ("CFG002", "environments/development.yaml"),
            ("FLW001", "flows/broken.py"),
            ("CFG001", "prefect.yaml"),
        ]
        assert [(each["code"], each["file_path"]) for each in document["warnings"]] == [("FLW006", "flows/etl.py")]

    @pytest.mark.parametrize("output", ["text", "github", "sarif"])
    def test_faults_of_all_kinds_come_together_in_any_form(
        self, capsys: pytest.CaptureFixture[str], broken: Path, output: str
    ) -> None:
        code, text, error = run(capsys, "validate", "--root", broken, "--output", output)
        assert (code, error) == (2, "")
        assert all(found in text for found in ("CFG002", "FLW001", "CFG001", "FLW006"))

    def test_of_given_paths_tells_what_concerns_them(self, capsys: pytest.CaptureFixture[str], broken: Path) -> None:
        code, document = run_json(capsys, "validate", "flows/etl.py", "--root", broken)
        assert (code, [each["code"] for each in document["warnings"]]) == (2, ["FLW006"])
        assert [each["code"] for each in document["errors"]] == ["CFG002", "CFG001"]  # the configuration concerns all

    def test_what_no_file_gives_is_no_fault_while_it_cannot_be_read(
        self, capsys: pytest.CaptureFixture[str], shop: Path
    ) -> None:
        scheduled = "deployments:\n  - {name: daily, entrypoint: 'flows/etl.py:etl', schedule: {cron: '0 4 * * *'}}\n"
        flow = "from prefect import flow\n@flow\ndef etl(day): ...\n"
        broken = {"environments/development.yaml": "default_parameters: {day: today}\npolcy: {}\n"}
        write_files(shop, {"flows/etl.py": flow, "prefect.yaml": scheduled, **broken})
        for paths in ([], ["flows"]):
            code, document = run_json(capsys, "validate", *paths, "--root", shop)
            assert (code, [each["code"] for each in document["errors"]]) == (2, ["CFG002"])

    @pytest.mark.parametrize("output", ["github", "sarif"])
    def test_code_hosts_hear_of_a_broken_project_file_too(
        self, capsys: pytest.CaptureFixture[str], shop: Path, output: str
    ) -> None:
        write_files(shop, {"pyproject.toml": "[tool.orchestrator]\nflow = []\n"})
        code, text, error = run(capsys, "validate", "--root", shop, "--output", output)
        assert (code, error) == (2, "")
        assert "CFG002" in text and "pyproject.toml" in text

    def test_several_environments_in_one_go(self, capsys: pytest.CaptureFixture[str], shop: Path) -> None:
        write_files(shop, {"environments/production.yaml": "polcy: {}\n", "environments/base.yaml": ""})
        assert run_json(capsys, "validate", "--root", shop)[0] == 0
        for arguments in (["--env", "development", "--env", "production"], ["--all-environments"]):
            code, document = run_json(capsys, "validate", *arguments, "--root", shop)
            assert (code, [each["file_path"] for each in document["errors"]]) == (2, ["environments/production.yaml"])

    def test_all_environments_of_a_repository_without_any(self, capsys: pytest.CaptureFixture[str], shop: Path) -> None:
        (shop / "environments" / "development.yaml").unlink()
        code, document = run_json(capsys, "validate", "--all-environments", "--root", shop)
        assert (code, [each["code"] for each in document["warnings"]]) == (0, ["CFG007"])

    def test_an_import_is_tried_where_it_is_asked_for(self, capsys: pytest.CaptureFixture[str], shop: Path) -> None:
        raising = 'from prefect import flow\n\nTABLE = {}["no table"]\n\n@flow\ndef load(): ...\n'
        write_files(shop, {"flows/load.py": raising})
        assert run_json(capsys, "validate", "--root", shop)[0] == 0
        code, document = run_json(capsys, "validate", "--isolated-import", "--root", shop)
        assert (code, [each["code"] for each in document["errors"]]) == (1, ["FLW010"])
        (error,) = document["errors"]
        assert (error["file_path"], error["line_number"]) == ("flows/load.py", 3)
        assert "flows/load.py:load" in error["message"] and "no table" in error["message"]

    def test_what_an_import_says_may_be_silenced(self, capsys: pytest.CaptureFixture[str], shop: Path) -> None:
        raising = 'from prefect import flow\nTABLE = {}["table"]  # orchestrator: ignore[FLW010]\n@flow\ndef a(): ...\n'
        write_files(shop, {"flows/load.py": raising})
        for option in ([], ["--isolated-import"]):
            code, document = run_json(capsys, "validate", *option, "--root", shop)
            assert (code, document["errors"], document["warnings"]) == (0, [], [])

    def test_what_is_installed_counts_where_it_is_asked_for(
        self, capsys: pytest.CaptureFixture[str], shop: Path
    ) -> None:
        source = "import pytest, no_such_package\nfrom prefect import flow\n@flow\ndef etl(): ...\n"
        write_files(shop, {"flows/etl.py": source})
        for option, expected in (([], ["no_such_package", "pytest"]), (["--installed"], ["no_such_package"])):
            warnings = run_json(capsys, "validate", *option, "--root", shop)[1]["warnings"]
            assert [each["code"] for each in warnings] == ["DEP001"] * len(expected)
            assert all(name in each["message"] for name, each in zip(expected, warnings, strict=True))

    def test_a_silenced_fault_is_not_told(self, capsys: pytest.CaptureFixture[str], shop: Path) -> None:
        silent = "from prefect import flow\n@flow\ndef etl(a=[]): ...  # orchestrator: ignore[FLW006]\n"
        write_files(shop, {"flows/etl.py": silent})
        assert run_json(capsys, "validate", "--root", shop)[1]["warnings"] == []


class TestRules:
    def test_lists_all(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, output, _ = run(capsys, "rules")
        assert code == 0
        assert [line.split()[0] for line in output.splitlines()[1:-1]] == [rule.code for rule in RULES]

    def test_as_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, document = run_json(capsys, "rules")
        assert (code, [each["code"] for each in document["rules"]]) == (0, [rule.code for rule in RULES])
        assert run_json(capsys, "rules", "FLW001")[1]["title"] == "Syntax error"

    @pytest.mark.parametrize("code", ["FLW006", "flw006"])
    def test_explains_one(self, capsys: pytest.CaptureFixture[str], code: str) -> None:
        exit_code, output, _ = run(capsys, "rules", code)
        assert exit_code == 0
        assert output.startswith("FLW006 (warning): Mutable default\n")
        assert "ignore[FLW006]" in output and "docs/rules.md#flw006" in output

    def test_of_an_unknown_code_names_the_nearest(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, output, error = run(capsys, "rules", "FLW06")
        assert (code, output) == (2, "")
        assert "There is no rule 'FLW06'." in error and "FLW006" in error
        assert run_json(capsys, "rules", "nonsense")[1]["error"]["exit_code"] == 2

    def test_the_page_of_the_documentation_is_current(self, capsys: pytest.CaptureFixture[str]) -> None:
        _, output, _ = run(capsys, "rules", "--output", "markdown")
        page = Path(__file__).parents[2] / "docs" / "rules.md"
        assert page.read_text(encoding="utf-8") == output, "make docs"
        assert all(f'<a id="{rule.code.lower()}"></a>' in output for rule in RULES)


class TestErrorsAsJson:
    def test_of_the_configuration(self, capsys: pytest.CaptureFixture[str], shop: Path) -> None:
        code, document = run_json(capsys, "validate", "--root", shop, "--env", "stagging")
        assert (code, document["error"]["type"]) == (2, "ConfigurationError")
        assert [each["code"] for each in document["error"]["faults"]] == ["CFG004"]

    @pytest.mark.parametrize("arguments", [["nonsense"], ["discover", "--nonsense"], ["validate", "--env"]])
    def test_of_usage(self, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
        code, document = run_json(capsys, *arguments)
        assert (code, document["error"]["exit_code"]) == (2, 2)

    def test_of_usage_names_what_is_not_understood(self, capsys: pytest.CaptureFixture[str], shop: Path) -> None:
        _, document = run_json(capsys, "plan", "--only", "a/*", "token/*", "--root", shop)
        assert document["error"]["message"].startswith("Not understood: token/*.")

    def test_in_either_spelling_of_the_option(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, output, _ = run(capsys, "nonsense", "--output=json")
        assert (code, set(json.loads(output))) == (2, {"error"})

    def test_of_a_server_that_does_not_answer(self, capsys: pytest.CaptureFixture[str], shop: Path) -> None:
        code, document = run_json(capsys, "plan", "--root", shop)
        assert (code, document["error"]["type"]) == (1, "ServerUnreachable")
        assert document["error"]["location"] == NOBODY_LISTENS


class TestExitCodes:
    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (OrchestratorError, 1),
            (ServerUnreachable, 1),
            (ConfigurationError, 2),
            (ServerMismatch, 2),
            (RefusedError, 5),
        ],
    )
    def test_of_each_family_of_errors(self, error: type[OrchestratorError], code: int) -> None:
        assert error("x").exit_code == code

    def test_usage_without_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, output, error = run(capsys, "discover", "--output", "xml")
        assert (code, output) == (2, "")
        assert "xml" in error
        assert "See `orchestrator discover --help`." in error

    def test_usage_of_no_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "See `orchestrator --help`." in run(capsys, "nonsense")[2]

    def test_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, output, _ = run(capsys, "--help")
        assert code == 0
        for command in (
            "discover",
            "validate",
            "rules",
            "plan",
            "apply",
            "status",
            "clean",
            "bootstrap",
            "run",
            "down",
        ):
            assert f" {command} " in output

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(capsys, "--version")[:2] == (0, f"{orchestrator.__version__}\n")


class TestWhichServer:
    @pytest.mark.parametrize("command", [["apply", "--yes"], ["clean", "*", "--yes"], ["run", "etl/daily"]])
    def test_a_writing_command_stops_where_two_are_named(
        self, capsys: pytest.CaptureFixture[str], shop: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
    ) -> None:
        monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere.example/api")
        code, document = run_json(capsys, *command, "--root", shop)
        assert (code, document["error"]["type"]) == (2, "ServerMismatch")
        assert "--api-url" in document["error"]["remediation"]

    def test_the_option_settles_it(
        self, capsys: pytest.CaptureFixture[str], shop: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere.example/api")
        code, document = run_json(capsys, "clean", "*", "--yes", "--root", shop, "--api-url", NOBODY_LISTENS)
        assert (code, document["error"]["type"]) == (1, "ServerUnreachable")

    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ("http://localhost:4270/api", "http://127.0.0.1:4270/api/", True),
            ("https://prefect.example/api", "https://prefect.example:443/api", True),
            ("http://localhost:4270/api", "http://localhost:4271/api", False),
            ("http://a.example/api", "http://b.example/api", False),
            ("http://a.example/one/api", "http://a.example/two/api", False),
        ],
    )
    def test_two_names_of_one_server(self, one: str, other: str, same: bool) -> None:
        assert same_server(one, other) is same


class TestDown:
    def test_with_nothing_running(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert run_json(capsys, "down", "--root", tmp_path) == (0, {"stopped": []})
        assert "nothing of ours is running" in run(capsys, "down", "--root", tmp_path)[1]

    def test_leaves_nothing_behind(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        run(capsys, "down", "--root", tmp_path)
        assert list(tmp_path.iterdir()) == []


class TestWithoutPrefect:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["--help"],
            ["--version"],
            ["discover"],
            ["validate"],
            ["rules"],
            ["rules", "FLW001"],
            ["discover", "--nonsense"],
        ],
    )
    def test_commands_that_only_read_source_import_none_of_it(self, shop: Path, arguments: list[str]) -> None:
        command = [sys.executable, "-X", "importtime", "-m", "orchestrator", *arguments]
        child = subprocess.run(command, cwd=shop, capture_output=True, text=True)
        lines = [line.rpartition("|")[2].strip() for line in child.stderr.splitlines() if "import time:" in line]
        assert "orchestrator.cli" in lines
        assert {line.partition(".")[0] for line in lines} & {"prefect", "httpx", "docker", "sqlalchemy"} == set()

    def test_importing_the_package_imports_none_of_it(self) -> None:
        code = "import sys, orchestrator; dir(orchestrator); print('prefect' in sys.modules, 'pydantic' in sys.modules)"
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert child.stdout == "False False\n"

    @pytest.mark.parametrize("name", orchestrator.__all__)
    def test_public_names_are_there_when_asked_for(self, name: str) -> None:
        assert getattr(orchestrator, name) is not None
        assert name in dir(orchestrator)

    def test_other_names_are_not(self) -> None:
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
            orchestrator.nonsense  # noqa: B018


class TestAsAProgram:
    def test_standard_output_holds_one_document(self, shop: Path) -> None:
        command = [sys.executable, "-m", "orchestrator", "validate", "--output", "json"]
        child = subprocess.run(command, cwd=shop, capture_output=True, text=True)
        assert (child.returncode, child.stderr) == (0, "")
        assert json.loads(child.stdout)["is_valid"] is True

    @pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_an_interruption_is_told_and_has_its_code(self, shop: Path, how: signal.Signals, code: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
            command = [sys.executable, "-m", "orchestrator", "plan", "--output", "json", "--api-url", url]
            with subprocess.Popen(command, cwd=shop, stdout=subprocess.PIPE, text=True) as child:
                connection, _ = silent.accept()
                connection.recv(1)  # it asks, and never gets an answer
                child.send_signal(how)
                document = json.loads(child.communicate()[0])
        assert (child.returncode, document["error"]["message"]) == (code, "Interrupted.")

    def test_a_reader_that_goes_away_is_no_crash(self, shop: Path) -> None:
        command = f"{sys.executable} -m orchestrator discover --output json | true"
        child = subprocess.run(["bash", "-c", command], cwd=shop, capture_output=True, text=True)
        assert "Traceback" not in child.stderr

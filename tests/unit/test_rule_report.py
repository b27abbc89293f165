"""The table of rules as people read it, and that each rule's example is one."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from textwrap import indent

import pytest
from rich.console import Console

from orchestrator.config import ConfigurationManager
from orchestrator.pipeline import discover_flows, read_settings, validate
from orchestrator.rule_report import (
    example_files,
    explanation,
    language_of,
    rule_json,
    rule_text,
    rules_markdown,
)
from orchestrator.rules import RULES, Rule
from tests.unit.builders import write_files

# Rules whose example is none for a test that reads, and why.
NOT_BY_READING = {
    "CFG004": "a command, not a file: TestErrorsAsJson in test_cli.py",
    "CFG007": "the absence of files: TestValidate in test_cli.py",
    "FLW002": "in an encoding that a docstring cannot have: test_validation.py",
    "FLW010": "found by --isolated-import only",
    "FLW011": "found by --isolated-import only",
    "DPL016": "met on a server: test_templating.py",
    "DPL017": "met when Prefect reads the trigger: test_templating.py",
    "IMG006": "met when another environment is promoted: test_promotion.py",
    "SCH001": "met when schemas are read, which depends on what is installed: test_schemas.py",
}
READ = [rule for rule in RULES if rule.code not in NOT_BY_READING]

FLOW = "@flow\ndef etl(): ...\n"
FILE_OF = {"python": "flows/etl.py", "yaml": "prefect.yaml", "docker": "Dockerfile", "text": "flows/.env"}
DEPLOYMENT = "deployments:\n  - name: daily\n    entrypoint: flows/etl.py:etl\n"

# What an example takes for granted: files that lie around it.
AROUND: dict[str, dict[str, str]] = {
    "CFG012": {"prefect.yaml": DEPLOYMENT.replace("daily", "staging-daily")},
    "DEP002": {"shared/__init__.py": "", "shared/cleaning.py": "def clean(): ...\n"},
    "DPL011": {"prefect.yaml": DEPLOYMENT},
    "DPL012": {"Dockerfile": "FROM python:3.11-slim\n"},
    "ENV001": {"flows/.env.example": "DB_HOST=\nDB_NAME=\n"},
    "IMG001": {"docker/etl.Dockerfile": "FROM python:3.11-slim\n"},
    "IMG002": {"requirements.txt": "prefect\n"},
    "IMG003": {".dockerignore": "data\n", "data/seed.csv": "1\n"},
    "IMG007": {"docker/flow.Dockerfile": "FROM python:3.11-slim AS run\nCOPY flows flows\n"},
    "IMG008": {"requirements.txt": "prefect\n", "environments/development.yaml": "templates: {docker: {}}\n"},
}

# What a better version says in words or in part.
BETTER = {
    "DPL012": {"prefect.yaml": ("{{ build_image.image }}", "{{ build-image.image }}")},
    "IMG003": {".dockerignore": ("data\n", "data/*\n!data/seed.csv\n")},
}


def repository(rule: Rule, source: str) -> dict[str, str]:
    """An example, which shows only what matters, completed to a repository that holds nothing else to find."""
    files = {"environments/development.yaml": "", **AROUND.get(rule.code, {})}
    for path, text in example_files(source).items():
        path = path or FILE_OF[language_of(path, text)]
        files[path] = completed(path, text)
    files.setdefault("flows/etl.py", completed("flows/etl.py", FLOW))
    return files


def improved(rule: Rule) -> dict[str, str]:
    """The repository of the example with what its better version shows."""
    if rule.code == "CFG010":  # it is the file's name that is better
        return repository(rule, rule.better)
    files = repository(rule, rule.example)
    if rule.code in BETTER:
        return files | {path: files[path].replace(*change) for path, change in BETTER[rule.code].items()}
    shown = {path or FILE_OF[language_of(path, text)] for path, text in example_files(rule.better).items()}
    return files | {path: text for path, text in repository(rule, rule.better).items() if path in shown}


def completed(path: str, text: str) -> str:
    """A file of an example with the lines that it leaves out."""
    if path.endswith(".py"):
        text = text if "@flow" in text or "def " in text else f"{text}\n\n{FLOW}"
        return f"import os\nfrom prefect import flow\nfrom prefect.deployments import run_deployment\n\n{text}\n"
    if path == "prefect.yaml" and re.match(r"(schedules|parameters|job_variables|image):", text):
        text = f"work_pool:\n  job_variables:\n{indent(text, '    ')}" if text.startswith("image:") else text
        text = f"work_pool:\n{indent(text, '  ')}" if text.startswith("job_variables:") else text
        return DEPLOYMENT + indent(text, "    ") + "\n"
    return f"{text}\n"


def codes_in(root: Path, files: dict[str, str]) -> set[str]:
    """What `orchestrator validate` finds in a repository."""
    write_files(root, files)
    settings, *others = [read_settings(root, env) for env in ConfigurationManager(root).environments()]
    result = validate(settings, discover_flows(root, settings.project, settings.declarations), others)
    return {fault.code for fault in (*result.errors, *result.warnings)}


class TestExamples:
    def test_every_rule_has_one_and_a_better_version(self) -> None:
        assert [rule.code for rule in RULES if not (rule.example.strip() and rule.better.strip())] == []

    def test_exceptions_are_rules(self) -> None:
        assert {*NOT_BY_READING, *AROUND} <= {rule.code for rule in RULES}

    @pytest.mark.parametrize("rule", READ, ids=lambda rule: rule.code)
    def test_it_provokes_its_rule_and_no_other(self, tmp_path: Path, rule: Rule) -> None:
        found = codes_in(tmp_path, repository(rule, rule.example))
        assert found == {rule.code}

    @pytest.mark.parametrize("rule", READ, ids=lambda rule: rule.code)
    def test_the_better_version_has_no_fault(self, tmp_path: Path, rule: Rule) -> None:
        assert codes_in(tmp_path, improved(rule)) == set()


class TestFilesOfAnExample:
    def test_each_starts_with_its_path(self) -> None:
        source = "\n# flows/etl.py\nx = 1  # a comment\n# another one\n\n# prefect.yaml\na: b\n\n# Dockerfile\nFROM x\n"
        assert example_files(source) == {
            "flows/etl.py": "x = 1  # a comment\n# another one",
            "prefect.yaml": "a: b",
            "Dockerfile": "FROM x",
        }

    def test_without_a_path_it_is_a_part_of_one(self) -> None:
        assert example_files("\n# saved as Latin-1\nx = 1\n") == {"": "# saved as Latin-1\nx = 1"}

    @pytest.mark.parametrize(
        ("path", "source", "language"),
        [
            ("a/b.py", "", "python"),
            ("a.yaml", "", "yaml"),
            ("Dockerfile", "", "docker"),
            ("docker/etl.Dockerfile", "", "docker"),
            (".env", "", "text"),
            ("", "@flow\ndef etl(): ...", "python"),
            ("", "# why\nFROM python", "docker"),
            ("", "schedules:\n  - cron: x", "yaml"),
            ("", "orchestrator validate", "sh"),
            ("", "DB_HOST=x", "text"),
        ],
    )
    def test_their_language_goes_by_name_or_first_line(self, path: str, source: str, language: str) -> None:
        assert language_of(path, source) == language


class TestText:
    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
    @pytest.mark.parametrize("width", [40, 200])
    def test_of_a_rule_says_all_of_it_at_any_width(self, rule: Rule, width: int) -> None:
        output = StringIO()
        Console(file=output, width=width, soft_wrap=True).print(rule_text(rule))
        words = " ".join(output.getvalue().split())
        assert rule.title in words
        assert " ".join(explanation(rule).split()) in words
        for source in (rule.example, rule.better):
            for text in example_files(source).values() if source.strip() else ():
                assert "".join(text.split()) in re.sub(r"\s+", "", output.getvalue())

    def test_lines_end_between_words(self) -> None:
        output = StringIO()
        Console(file=output, width=40, soft_wrap=True).print(rule_text(next(iter(RULES))))
        lines = output.getvalue().split("\n\n")[1].splitlines()
        assert len(lines) > 1 and all(len(line) <= 40 for line in lines)


class TestMarkdown:
    def test_names_every_rule_once_under_its_anchor(self) -> None:
        page = rules_markdown()
        assert re.findall(r'<a id="(\w+)"></a>', page) == [rule.code.lower() for rule in RULES]
        assert re.findall(r"(?m)^## (\w+):", page) == [rule.code for rule in RULES]
        assert all(f"#{rule.code.lower()})" in page for rule in RULES)

    def test_fences_are_closed(self) -> None:
        assert len(re.findall(r"(?m)^```", rules_markdown())) % 2 == 0

    def test_anchors_are_what_rules_link_to(self) -> None:
        assert {rule.anchor for rule in RULES} == {f"docs/rules.md#{rule.code.lower()}" for rule in RULES}


def test_json_of_a_rule_holds_what_explains_it() -> None:
    (rule,) = (rule for rule in RULES if rule.code == "IGN001")
    document = rule_json(rule)
    assert (document["code"], document["severity"], document["ignorable"]) == ("IGN001", "warning", False)
    assert document["example"].startswith("# flows/etl.py") and document["explanation"]

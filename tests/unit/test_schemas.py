"""Parameter schemas: the same as Prefect's, asked of child processes, kept by digest, and never a reason to crash."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import schemas
from orchestrator.deployer import parameter_schema
from orchestrator.desired import DEPLOYER_ENTRYPOINT
from orchestrator.discovery import discover
from orchestrator.model import ValidationError
from orchestrator.schemas import Subject, read_schemas, static_schema
from tests.unit.builders import flow, write_files

TYPED = '''
    from typing import Literal
    from prefect import flow
    from pydantic import BaseModel, Field

    class Table(BaseModel):
        name: str = Field(description="Of the table.")
        rows: int = 5

    @flow
    def typed(table: Table, mode: Literal["plan", "apply"] = "plan", tags: list[str] | None = None):
        """Loads.

        Args:
            mode: What to do.
        """

    class Jobs:
        @flow
        @staticmethod
        def method(n: int): ...
'''
FILES = {
    "flows/typed.py": TYPED,
    "flows/prints.py": """
        import os
        from prefect import flow
        print("[1, 2")
        os.write(1, b"{]")
        @flow
        def prints(a: int): ...
    """,
    "flows/spies.py": """
        import json, os, pathlib
        from prefect import flow
        pathlib.Path("environment.json").write_text(json.dumps(dict(os.environ)))
        @flow
        def spies(): ...
    """,
    "flows/exits.py": """
        import sys
        from prefect import flow
        @flow
        def exits(a: int = 1): ...
        sys.exit("no server here")
    """,
    "flows/raises.py": """
        from prefect import flow
        @flow
        def raises(a: int = 1): ...
        raise RuntimeError("no database here: postgresql://admin:hunter2@db")
    """,
    "flows/missing.py": """
        import not_installed_anywhere
        from prefect import flow
        @flow
        def missing(rows: int, when: not_installed_anywhere.Date, name: str = "x"): ...
    """,
    "one/helper.py": "MODES = ('first',)",
    "two/helper.py": "MODES = ('second',)",
    **{
        f"{folder}/job.py": f"""
            from typing import Literal
            from prefect import flow
            from helper import MODES
            @flow(name="{folder}")
            def job(mode: Literal[MODES]): ...
        """
        for folder in ("one", "two")
    },
}
PREFECTS_OWN = """
    import json
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema
    names = ["flows/typed.py:typed", "flows/typed.py:Jobs.method"]
    schemas = [parameter_schema(load_flow_from_entrypoint(name)) for name in names]
    print(json.dumps([schema.model_dump(exclude_unset=True) for schema in schemas]))
"""


@dataclass(frozen=True)
class Answers:
    """What read_schemas says about a repository with all sorts of flows."""

    root: Path
    cache_file: Path
    subjects: tuple[Subject, ...]
    schemas: Mapping[str, Any]
    warnings: tuple[ValidationError, ...]

    def warning(self, path: str) -> ValidationError:
        (found,) = [each for each in self.warnings if each.file_path == path]
        return found


def unimported(reason: str) -> str:
    return f"The flow could not be imported ({reason}); its parameter form comes from its source."


def subjects_of(root: Path) -> tuple[Subject, ...]:
    flows = discover(root, ["."]).flows
    return tuple(Subject(entrypoint=each.entrypoint, digest=each.closure_digest, flow=each) for each in flows)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answers]:
    root = write_files(tmp_path_factory.mktemp("repository"), FILES)
    cache_file = root / "cache" / "schemas.json"
    with pytest.MonkeyPatch.context() as patch:
        for key in ("DATABASE_PASSWORD", "PREFECT_API_KEY", "AWS_SESSION_TOKEN", "PREFECT_API_URL"):
            patch.setenv(key, "hunter2")
        subjects = subjects_of(root)
        found, warnings = read_schemas(root, subjects, cache_file=cache_file)
    yield Answers(root, cache_file, subjects, found, warnings)


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The interpreter is a program that fails, and writes this file when it is started."""
    started = tmp_path / "started"
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!/bin/sh\ntouch '{started}'\nexit 1\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    return started


class TestImportedFlows:
    def test_have_the_schema_that_prefect_makes(self, answers: Answers) -> None:
        code = "\n".join(line.strip() for line in PREFECTS_OWN.splitlines())
        command = [sys.executable, "-c", code]
        child = subprocess.run(command, cwd=answers.root, capture_output=True, text=True, check=True)
        assert [answers.schemas[name] for name in ("flows/typed.py:typed", "flows/typed.py:Jobs.method")] == json.loads(
            child.stdout
        )

    def test_bring_types_and_descriptions(self, answers: Answers) -> None:
        schema = answers.schemas["flows/typed.py:typed"]
        assert schema["properties"]["mode"]["enum"] == ["plan", "apply"]
        assert schema["properties"]["mode"]["description"] == "What to do."
        assert schema["definitions"]["Table"]["properties"]["rows"]["default"] == 5

    def test_may_print_what_they_like(self, answers: Answers) -> None:
        assert answers.schemas["flows/prints.py:prints"]["required"] == ["a"]

    def test_of_two_folders_have_each_their_own_helper(self, answers: Answers) -> None:
        modes = [answers.schemas[f"{folder}/job.py:job"]["properties"]["mode"] for folder in ("one", "two")]
        assert [mode.get("const") or mode.get("enum") for mode in modes] == ["first", "second"]

    def test_do_not_see_the_callers_secrets(self, answers: Answers) -> None:
        seen = json.loads((answers.root / "environment.json").read_text())
        assert "hunter2" not in seen.values()
        assert seen["PREFECT_HOME"] != str(Path.home() / ".prefect")

    def test_sound_flows_bring_no_warning(self, answers: Answers) -> None:
        assert sorted(each.file_path or "" for each in answers.warnings) == [
            "flows/exits.py",
            "flows/missing.py",
            "flows/raises.py",
        ]


class TestFlowsThatCannotBeImported:
    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("flows/missing.py", "ModuleNotFoundError: No module named 'not_installed_anywhere'"),
            ("flows/exits.py", "SystemExit: no server here"),
            ("flows/raises.py", "RuntimeError: no database here: postgresql://admin:********@db"),
        ],
    )
    def test_are_warned_about_with_the_reason(self, answers: Answers, path: str, reason: str) -> None:
        found = answers.warning(path)
        assert (found.code, found.severity) == ("SCH001", "warning")
        assert reason in found.message
        assert found.line_number and found.remediation

    @pytest.mark.parametrize("name", ["exits", "raises"])
    def test_still_have_the_schema_that_can_be_read(self, answers: Answers, name: str) -> None:
        schema = answers.schemas[f"flows/{name}.py:{name}"]
        assert schema["properties"]["a"]["default"] == 1

    def test_have_their_parameters_even_where_a_type_is_missing(self, answers: Answers) -> None:
        schema = answers.schemas["flows/missing.py:missing"]
        assert list(schema["properties"]) == ["rows", "when", "name"]
        assert schema["required"] == ["rows", "when"]
        assert schema["properties"]["name"]["default"] == "x"

    def test_a_child_that_dies_or_hangs_costs_only_the_flow_that_did_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(schemas, "TIME_LIMIT_SECONDS", 5.0)
        text = "import os\nfrom prefect import flow\n@flow\ndef f(a: list[int]): ...\n"
        ends = {"a_dies": "os._exit(3)", "b_hangs": "while True: pass", "c_sound": ""}
        root = write_files(tmp_path, {f"flows/{name}.py": text + end for name, end in ends.items()})
        found, warnings = read_schemas(root, subjects_of(root), cache_file=tmp_path / "cache.json")
        assert all(schema["required"] == ["a"] for schema in found.values())
        assert found["flows/c_sound.py:f"]["properties"]["a"]["items"] == {"type": "integer"}
        assert [(each.location, each.message) for each in warnings] == [
            ("flows/a_dies.py:4", unimported("it ends the process with exit code 3")),
            ("flows/b_hangs.py:4", unimported("it takes longer than 5 s")),
        ]


class TestOurOwnFlow:
    OURS = Subject(entrypoint="ours.flow", digest="1", here=lambda: {"title": "Ours"})

    def test_is_asked_in_this_process_once(self, tmp_path: Path, children: Path) -> None:
        called: list[str] = []
        for _ in range(2):
            found, warnings = read_schemas(
                tmp_path, [self.OURS], cache_file=tmp_path / "c.json", meanwhile=lambda: called.append("meanwhile")
            )
            assert (found, warnings) == ({"ours.flow": {"title": "Ours"}}, ())
        assert called == ["meanwhile"]
        assert not children.exists()

    def test_is_asked_while_children_are_at_work(self, answers: Answers, tmp_path: Path) -> None:
        typed = [each for each in answers.subjects if "typed" in each.entrypoint]
        found, _ = read_schemas(answers.root, [*typed, self.OURS], cache_file=tmp_path / "cache.json")
        assert found["ours.flow"] == {"title": "Ours"}
        assert found["flows/typed.py:typed"] == answers.schemas["flows/typed.py:typed"]

    def test_says_the_same_there_as_a_child_would(self, tmp_path: Path) -> None:
        asked = Subject(entrypoint=DEPLOYER_ENTRYPOINT, digest="1")
        found, warnings = read_schemas(tmp_path, [asked], cache_file=tmp_path / "cache.json")
        assert warnings == ()
        assert found[DEPLOYER_ENTRYPOINT] == parameter_schema()


@pytest.mark.usefixtures("children")
class TestCache:
    def test_an_unchanged_flow_starts_no_child(self, answers: Answers, children: Path) -> None:
        sound = [each for each in answers.subjects if "typed" in each.entrypoint]
        found, warnings = read_schemas(answers.root, sound, cache_file=answers.cache_file)
        assert warnings == ()
        assert found["flows/typed.py:typed"] == answers.schemas["flows/typed.py:typed"]
        assert not children.exists()

    def test_changed_code_is_asked_again(self, answers: Answers, children: Path) -> None:
        changed = [replace(each, digest="other") for each in answers.subjects if "typed" in each.entrypoint]
        (warning,) = read_schemas(answers.root, changed, cache_file=answers.cache_file)[1]
        assert warning.message.startswith("flows/typed.py:typed and 1 more could not be imported (")
        assert children.exists()

    def test_what_failed_is_asked_again(self, answers: Answers) -> None:
        missing = [each for each in answers.subjects if "missing" in each.entrypoint]
        (warning,) = read_schemas(answers.root, missing, cache_file=answers.cache_file)[1]
        assert "the importing process failed" in warning.message

    @pytest.mark.parametrize("damage", ["", "{", "[]", '"x"', '{"KEY": 5}', '{"KEY": {}}', '{"KEY": null}', "\x00"])
    def test_a_damaged_one_is_worked_without(self, tmp_path: Path, damage: str) -> None:
        subject = Subject(entrypoint="flows/etl.py:etl", digest="1", flow=flow(parameters="a"))
        write_files(tmp_path, {"cache.json": damage.replace("KEY", subject.key)})
        found, warnings = read_schemas(tmp_path, [subject], cache_file=tmp_path / "cache.json")
        assert list(found["flows/etl.py:etl"]["properties"]) == ["a"]
        assert [each.code for each in warnings] == ["SCH001"]

    def test_is_shared_by_nothing_that_differs(self) -> None:
        subject = Subject(entrypoint="flows/etl.py:etl", digest="1")
        others = [replace(subject, digest="2"), replace(subject, entrypoint="flows/b.py:etl")]
        assert len({each.key for each in (subject, *others)}) == 3


class TestWritingTheCache:
    def test_where_it_cannot_be_written_the_answer_is_the_same(self, answers: Answers, tmp_path: Path) -> None:
        write_files(tmp_path, {"file": ""})
        sound = [each for each in answers.subjects if "prints" in each.entrypoint]
        found, warnings = read_schemas(answers.root, sound, cache_file=tmp_path / "file" / "schemas.json")
        assert found["flows/prints.py:prints"] == answers.schemas["flows/prints.py:prints"]
        assert warnings == ()

    def test_leaves_nothing_but_the_cache(self, answers: Answers) -> None:
        assert {path.name for path in answers.cache_file.parent.iterdir()} == {"schemas.json", ".gitignore"}


class TestFromSource:
    def test_names_simple_types_and_literal_defaults(self, tmp_path: Path) -> None:
        text = """
            from prefect import flow
            @flow
            def etl(a, n: int, rows: list[int] = [1], path: "str | None" = None, when=today()): ...
        """
        (subject,) = subjects_of(write_files(tmp_path, {"flows/etl.py": text}))
        assert static_schema(subject.flow) == {
            "title": "Parameters",
            "type": "object",
            "required": ["a", "n"],
            "properties": {
                "a": {"position": 0, "title": "a"},
                "n": {"position": 1, "title": "n", "type": "integer"},
                "rows": {"position": 2, "title": "rows", "type": "array", "default": [1]},
                "path": {"position": 3, "title": "path", "default": None},
                "when": {"position": 4, "title": "when"},
            },
        }

    def test_of_an_unknown_flow_is_empty(self) -> None:
        assert static_schema(None)["properties"] == {}

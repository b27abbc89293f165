"""Rules about secrets, and about the files that hold them: SEC, ENV."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator

from orchestrator.repository import Repository
from orchestrator.rules.images import builds_of
from orchestrator.rules.rule import Facts, Finding, Rule
from orchestrator.secret_scan import SecretSpan, scan_text, scan_yaml

EXAMPLE_ENDINGS = (".example", ".sample", ".template", ".dist")

# How python-dotenv reads a line: `export`, quoted keys, quoted values over several lines, comments.
_BINDING = re.compile(
    r"""[^\S\n]*(?:export[^\S\n]+)?(?:'(?P<quoted>[^'\n]+)'|(?P<plain>[^=#\s']+))[^\S\n]*="""
    r"""[^\S\n]*(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^\n]*)""",
    re.DOTALL,
)
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}|[a-z_][a-z0-9_]{0,99}")  # what is neither may be a part of a secret


def secret_in_configuration(facts: Facts) -> Iterator[Finding]:
    """A prefect.yaml, an environment file or pyproject.toml holds a secret in clear.

    Who can read the repository, or its history, has it; deleting the line does not take it back. Change the secret at
    its source, put it into a Prefect block or a variable of the worker's environment, and refer to it:
    `{{ prefect.blocks.secret.db-password }}`. A warning, since half of the secrets are known by a guess; a false one
    is silenced on its line.
    """
    for path in dict.fromkeys((*facts.prefect_files, *facts.configuration_files)):
        scan = scan_yaml if path.endswith((".yaml", ".yml")) else scan_text
        remedy = (
            "Change it at its source, keep it in a Prefect block, and refer to that: {{ prefect.blocks.secret.NAME }}."
        )
        yield from _findings(path, scan(facts.repository.text(path) or ""), remedy)


def secret_in_dockerfile(facts: Facts) -> Iterator[Finding]:
    """A Dockerfile holds a secret in clear.

    It stays in the image, in a layer or in its history, for everybody who can pull it, even where a later instruction
    deletes it. Change the secret at its source; give it to the build with `RUN --mount=type=secret`, or to the run
    with a Prefect block or a job variable.
    """
    for build in builds_of(facts):
        text = facts.repository.text(build.dockerfile) or ""
        remedy = "Change it at its source; give it to the build with `RUN --mount=type=secret`, or only to the run."
        yield from _findings(build.dockerfile, scan_text(text), remedy)


def _findings(path: str, spans: Iterable[SecretSpan], remedy: str) -> Iterator[Finding]:
    for span in spans:
        what = f"the value of {span.key!r}" if span.key else span.kind
        message = f"A secret stands here in clear: {what}."
        yield Finding(path, span.line_number, message, remedy, span=(span.start, span.end))


def missing_variable(facts: Facts) -> Iterator[Finding]:
    """An env file misses a variable that its example has.

    Somebody added the variable to the example; what runs with this file goes without it. Add it to the file, or take
    it out of the example. The example of `.env` is `.env.example` (or .sample, .template, .dist) in the same folder.
    `.env.production` counts as written over `.env`, where there is one.
    """
    for path in sorted({path for flow in facts.flows for path in flow.env_files}):
        example = _example_of(path, facts.repository)
        if example is None:
            continue
        base = posixpath.join(posixpath.dirname(path), ".env")
        given = {*variables(facts.repository.text(path) or ""), *variables(facts.repository.text(base) or "")}
        missing = [name for name in variables(facts.repository.text(example) or "") if name not in given]
        if missing and facts.repository.text(path) is not None:
            yield Finding(
                path,
                1,
                f"{path} has no value for {', '.join(missing)}, which {example} has.",
                f"Give it a value in {path}, or take it out of {example}.",
            )


def _example_of(path: str, repository: Repository) -> str | None:
    """The example that an env file should agree with; None for an example itself."""
    if path.endswith(EXAMPLE_ENDINGS):
        return None
    base = posixpath.join(posixpath.dirname(path), ".env")
    # What is written over a `.env` needs only what differs: the common example is for the `.env`.
    names = [path] if base in repository else [path, base]
    return next((file for name in names for end in EXAMPLE_ENDINGS if (file := name + end) in repository), None)


def variables(text: str) -> tuple[str, ...]:
    """The names that a text in the form of a .env file sets, once each, in their order."""
    found: list[str] = []
    position = 0
    while position < len(text):
        match = _BINDING.match(text, position)
        if match:
            name = match["quoted"] or match["plain"]
            found += [name] if _VARIABLE.fullmatch(name) else []
        end_of_line = text.find("\n", match.end() if match else position)
        position = end_of_line + 1 if end_of_line >= 0 else len(text)
    return tuple(dict.fromkeys(found))


RULES: tuple[Rule, ...] = (
    Rule(
        "ENV001",
        "Env file misses a variable of its example",
        "warning",
        missing_variable,
        example="# .env.example: DB_HOST=\n#               DB_NAME=\n# .env:\nDB_HOST=localhost\n",
        better="# .env:\nDB_HOST=localhost\nDB_NAME=shop\n",
    ),
    Rule(
        "SEC001",
        "Secret in clear in a configuration file",
        "warning",
        secret_in_configuration,
        example="job_variables:\n  env:\n    DB_PASSWORD: hunter2\n",
        better='job_variables:\n  env:\n    DB_PASSWORD: "{{ prefect.blocks.secret.db-password }}"\n',
    ),
    Rule(
        "SEC002",
        "Secret in clear in a Dockerfile",
        "warning",
        secret_in_dockerfile,
        example="FROM python:3.11-slim\nENV DB_PASSWORD=hunter2\n",
        better="FROM python:3.11-slim\nRUN --mount=type=secret,id=db_password ./load.sh\n",
    ),
)

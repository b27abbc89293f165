"""Parameter schemas of flows: what the server checks parameters against and draws its form from.

A schema needs the flow's imports, and importing people's code is done in child processes (`children`). Answers are
kept by the digest of all code that they depend on, so an unchanged flow costs nothing. A flow that cannot be imported
gets the schema that its source tells, and a warning.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orchestrator.cache_file import write_cache
from orchestrator.children import Failure, ask, in_one_line
from orchestrator.model import FlowMetadata, ValidationError

Schema = Mapping[str, Any]

TIME_LIMIT_SECONDS = 120.0  # for one flow
FORM = "2"  # of the answers in the cache: another one makes them worthless
_SIMPLE_TYPES = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """Something whose schema is asked for."""

    entrypoint: str  # relative to the root, or a dotted module path
    digest: str  # of all code that the schema depends on
    flow: FlowMetadata | None = None  # for the schema from source
    here: Callable[[], Schema] | None = None  # says it in this process: for code of our own

    @property
    def key(self) -> str:
        """The name of the answer in the cache."""
        parts = (FORM, self.entrypoint, self.digest, _prefect_version(), sys.version)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@cache
def _prefect_version() -> str:
    return version("prefect")  # reads and parses a file


def read_schemas(
    root: Path, subjects: Sequence[Subject], *, cache_file: Path, meanwhile: Callable[[], object] | None = None
) -> tuple[dict[str, Schema], tuple[ValidationError, ...]]:
    """Find the parameter schema of each subject.

    Args:
        root: the folder in which the flows run.
        subjects: whose schemas.
        cache_file: where answers are kept; a damaged or unwritable one is worked without.
        meanwhile: called once while children are asked; not at all where all answers are kept.

    Returns:
        Schemas by entrypoint, and a warning (SCH001) for each reason why some could not be had by importing the flow.
    """
    cache = _read_cache(cache_file)
    missing = [subject for subject in subjects if subject.key not in cache]
    answers = _answers(root, missing, meanwhile)
    # An answer with a reason may be better next time, when what the flow imports has been installed.
    learned = {item.key: answers[item.entrypoint] for item in missing if not _reason(answers[item.entrypoint])}
    if learned:
        write_cache(cache_file, json.dumps({**cache, **learned}).encode())
    known = {item.entrypoint: cache.get(item.key) or answers[item.entrypoint] for item in subjects}
    causes: dict[str, list[Subject]] = {}
    for item in subjects:
        if reason := _reason(known[item.entrypoint]):
            causes.setdefault(in_one_line(reason), []).append(item)
    warnings = tuple(_warning(items, cause) for cause, items in causes.items())
    return {
        item.entrypoint: known[item.entrypoint].get("schema") or static_schema(item.flow) for item in subjects
    }, warnings


def _answers(
    root: Path, subjects: Sequence[Subject], meanwhile: Callable[[], object] | None
) -> dict[str, dict[str, Any]]:
    """By entrypoint: from children, and from this process while they are at work."""
    here = {subject.entrypoint: subject.here for subject in subjects if subject.here}
    asked = [subject.entrypoint for subject in subjects if not subject.here]
    ours: dict[str, dict[str, Any]] = {}

    def in_the_meantime() -> None:
        if meanwhile is not None:
            meanwhile()
        ours.update({entrypoint: {"schema": schema()} for entrypoint, schema in here.items()})

    if here and not asked:
        in_the_meantime()
    answers = ask(root, "schema", asked, seconds=TIME_LIMIT_SECONDS, meanwhile=in_the_meantime)
    theirs = {
        entrypoint: {"error": answer.reason} if isinstance(answer, Failure) else answer
        for entrypoint, answer in answers.items()
    }
    return {**theirs, **ours}


def static_schema(flow: FlowMetadata | None) -> dict[str, Any]:
    """The schema as far as the flow's source tells it, in the form of Prefect's."""
    parameters = flow.parameters if flow else ()
    properties = {}
    for position, parameter in enumerate(parameters):
        described: dict[str, Any] = {"position": position, "title": parameter.name}
        base = re.split(r"[\[| ]", parameter.annotation or "")[0]
        if base in _SIMPLE_TYPES and "|" not in (parameter.annotation or ""):
            described["type"] = _SIMPLE_TYPES[base]
        if parameter.default is not None:
            described |= _default_of(parameter.default)
        properties[parameter.name] = described
    required = [parameter.name for parameter in parameters if parameter.required or parameter.variadic]
    schema = {"title": "Parameters", "type": "object", "properties": properties}
    return {**schema, "required": required} if required else schema


def _default_of(source: str) -> dict[str, Any]:
    try:
        return {"default": json.loads(json.dumps(ast.literal_eval(source)))}
    except (ValueError, SyntaxError, TypeError):
        return {}


def _reason(answer: Mapping[str, Any]) -> str:
    return str(answer.get("error") or answer.get("warning") or "")


def _warning(subjects: Sequence[Subject], reason: str) -> ValidationError:
    """One for all flows with one cause: a package that is not installed concerns many."""
    first, number = subjects[0], len(subjects)
    message = f"The flow could not be imported ({reason}); its parameter form comes from its source."
    if number > 1:
        message = f"{first.entrypoint} and {number - 1} more could not be imported ({reason}); "
        message += "their parameter forms come from their source."
    return ValidationError(
        code="SCH001",
        message=message,
        file_path=first.entrypoint.rpartition(":")[0] or None,
        line_number=first.flow.line_number if first.flow else None,
        remediation="Install what the flow imports beside the orchestrator, or leave it: the flow still deploys.",
        severity="warning",
    )


# ---------------------------------------------------------------------------------------------------------
# Cache
# ---------------------------------------------------------------------------------------------------------


def _read_cache(file: Path) -> dict[str, dict[str, Any]]:
    try:
        cache = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    entries = cache.items() if isinstance(cache, dict) else ()
    return {key: answer for key, answer in entries if isinstance(answer, dict) and "schema" in answer}

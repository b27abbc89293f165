"""Faults → what code hosts show beside the source: SARIF and GitHub's annotations."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

from orchestrator import __version__
from orchestrator.errors import OrchestratorError
from orchestrator.fault_report import by_place, told
from orchestrator.model import ValidationError, ValidationResult
from orchestrator.plain_text import one_line
from orchestrator.rule_report import explanation, rule_markdown
from orchestrator.rules import RULES, Rule

# ---------------------------------------------------------------------------------------------------------
# SARIF 2.1.0 (OASIS), which code hosts show beside the source
# ---------------------------------------------------------------------------------------------------------

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
SOURCE_ROOT = "%SRCROOT%"
_RULE_INDEX = {rule.code: index for index, rule in enumerate(RULES)}


def sarif(result: ValidationResult) -> dict[str, Any]:
    """A run of all rules, and what they found."""
    return _sarif_log(result, {"executionSuccessful": True})


def sarif_of_error(error: OrchestratorError) -> dict[str, Any]:
    """A run that found nothing since it could not be carried out (SARIF 2.1.0, 3.20.21)."""
    notification = {"level": "error", "message": {"text": _text_of(error)}}
    invocation = {"executionSuccessful": False, "toolExecutionNotifications": [notification]}
    return _sarif_log(ValidationResult(), {**invocation, "exitCode": error.exit_code})


def _sarif_log(result: ValidationResult, invocation: dict[str, Any]) -> dict[str, Any]:
    driver = {
        "name": "orchestrator",
        "version": __version__,
        "semanticVersion": __version__,
        "rules": [_sarif_rule(rule) for rule in RULES],
    }
    run = {
        "tool": {"driver": driver},
        "invocations": [invocation],
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {SOURCE_ROOT: {"description": {"text": "The root of the repository."}}},
        "results": list(_sarif_results(by_place(result))),
    }
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    text = explanation(rule)
    return {
        "id": rule.code,
        "name": "".join(word[:1].upper() + word[1:] for word in re.findall(r"\w+", rule.title)) or rule.code,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": text.partition("\n\n")[0]},
        "help": {"text": text, "markdown": rule_markdown(rule)},
        "defaultConfiguration": {"level": rule.severity},
    }


def _sarif_results(faults: Iterable[ValidationError]) -> Iterator[dict[str, Any]]:
    seen: Counter[str] = Counter()
    for fault in faults:
        print_of_fault = _fingerprint(fault)
        seen[print_of_fault] += 1
        yield _sarif_result(fault, f"{print_of_fault}:{seen[print_of_fault]}")


def _sarif_result(fault: ValidationError, fingerprint: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ruleId": fault.code,
        "level": fault.severity,
        "message": {"text": _both(fault)},
        "partialFingerprints": {"orchestratorFault/v1": fingerprint},
    }
    if fault.code in _RULE_INDEX:
        found["ruleIndex"] = _RULE_INDEX[fault.code]
    if fault.file_path is None:
        return found
    place: dict[str, Any] = {"artifactLocation": {"uri": _uri(fault.file_path), "uriBaseId": SOURCE_ROOT}}
    if region := _region(fault):
        place["region"] = region
    return {**found, "locations": [{"physicalLocation": place}]}


def _uri(path: str) -> str:
    """A path as a relative reference (RFC 3986): the bytes that the file system has, whatever they are."""
    return quote(os.fsencode(path))


def _region(fault: ValidationError) -> dict[str, int]:
    columns = {"startLine": fault.line_number, "startColumn": fault.column_number}
    if fault.column_number:
        columns["endColumn"] = fault.end_column_number
    return {name: value for name, value in columns.items() if value} if fault.line_number else {}


def _fingerprint(fault: ValidationError) -> str:
    """What stays the same when lines above are added or removed: the rule, the file and what its line says."""
    identity = "\0".join((fault.code, fault.file_path or "", " ".join(fault.excerpt.split()) or fault.message))
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]


# ---------------------------------------------------------------------------------------------------------
# GitHub's workflow commands (docs.github.com, "workflow commands")
# ---------------------------------------------------------------------------------------------------------

_TITLES = {rule.code: rule.title for rule in RULES}


def github_annotations(result: ValidationResult) -> str:
    """Faults as annotations, one line each."""
    return "\n".join(_annotation(each) for each in by_place(result))


def github_error(error: OrchestratorError) -> str:
    """An error because of which nothing was checked, as an annotation."""
    return f"::error title=orchestrator::{_escaped(_text_of(error))}"


def _text_of(error: OrchestratorError) -> str:
    where = f"{one_line(error.location)}: " if error.location else ""
    return f"{where}{told(error.message)}\n{told(error.remedy)}".strip()


def _annotation(fault: ValidationError) -> str:
    properties = {
        "file": fault.file_path and one_line(fault.file_path),
        "line": fault.line_number,
        "endLine": fault.line_number,
        "col": fault.column_number,
        "endColumn": fault.end_column_number,
        "title": f"{fault.code} {_TITLES.get(fault.code, '')}".strip(),
    }
    written = ",".join(f"{name}={_escaped(str(value), ':,')}" for name, value in properties.items() if value)
    return f"::{fault.severity} {written}::{_escaped(_both(fault))}"


def _both(fault: ValidationError) -> str:
    """What is wrong, and on the next line what to do."""
    return f"{told(fault.message)}\n{told(fault.remediation)}".strip()


def _escaped(text: str, also: str = "") -> str:
    """A text as a workflow command takes it: percent signs, line ends and what separates properties encoded."""
    for character in ("%", "\r", "\n", *also):
        text = text.replace(character, f"%{ord(character):02X}")
    return text

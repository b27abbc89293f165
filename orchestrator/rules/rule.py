"""What a rule is: a function from `Facts` to findings, under a code that never changes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from orchestrator.config import EnvironmentConfig
from orchestrator.model import Declaration, FlowMetadata, OutsideImport, Severity, ValidationError
from orchestrator.repository import Repository


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """All that a rule may look at.

    Attributes:
        repository: its files; rules read through it what no earlier stage reads (Dockerfiles, requirements, .env).
        flows: the flows that were discovered.
        problems: faults that reading met: files, configuration, imports that were tried.
        declarations: the deployments that prefect.yaml files declare.
        outside_imports: the imports of the flows' closures that lead out of the repository, or nowhere.
        environment: the environment that the repository is checked for.
        neighbours: other environments that are on its server, as far as they are looked at.
        prefect_files: the prefect.yaml files that were read.
        configuration_files: the environment files that were read, and pyproject.toml.
        installed: top-level import names of the installed environment, where it is asked for; else None.
    """

    repository: Repository = field(default_factory=lambda: Repository(Path()))
    flows: Sequence[FlowMetadata] = ()
    problems: Sequence[ValidationError] = ()
    declarations: Sequence[Declaration] = ()
    outside_imports: Sequence[OutsideImport] = ()
    environment: EnvironmentConfig = field(default_factory=lambda: EnvironmentConfig(name=""))
    neighbours: Sequence[EnvironmentConfig] = ()
    prefect_files: Sequence[str] = ()
    configuration_files: Sequence[str] = ()
    installed: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found; code and severity come from the rule.

    Attributes:
        file_path, line_number: where; the line is 1-based.
        message: what is wrong, one sentence. Never holds a secret.
        remedy: what to do.
        skips: takes out the file, or the flows or declaration named, and lets the rest go on. See `ValidationError`.
        flows: the entrypoints of the flows that it takes out.
        declaration: the location of the declaration that it takes out.
        span: the text on that line which is at fault, for the caret; or its columns (1-based, end excluded).
    """

    file_path: str | None
    line_number: int | None
    message: str
    remedy: str
    skips: bool = False
    flows: tuple[str, ...] = ()
    span: str | tuple[int, int] | None = None
    declaration: str | None = None


Check = Callable[[Facts], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of fault.

    Attributes:
        code: never changes and is never used again for something else.
        title: a few words.
        severity: of its findings.
        check: finds the faults; its docstring says what is wrong with them and what to do about it.
        example: a few lines that have the fault, each in the language of its file.
        better: the same lines without it.
        ignorable: whether `# orchestrator: ignore[CODE]` and `ignore` in pyproject.toml may silence it. Not where
            later stages could not go on: who silences a syntax error has still no flow.
    """

    code: str
    title: str
    severity: Severity
    check: Check
    example: str = ""
    better: str = ""
    ignorable: bool = True

    @property
    def explanation(self) -> str:
        """What the fault is and what to do about it."""
        return (self.check.__doc__ or "").strip()

    @property
    def anchor(self) -> str:
        """Where the documentation explains it."""
        return f"docs/rules.md#{self.code.lower()}"

    def apply(self, facts: Facts) -> Iterator[ValidationError]:
        """The rule's findings, stamped with its code and severity."""
        for finding in self.check(facts):
            start, end = _columns(finding, facts.repository)
            yield ValidationError(
                code=self.code,
                message=finding.message,
                file_path=finding.file_path,
                line_number=finding.line_number,
                remediation=finding.remedy,
                severity=self.severity,
                skips=finding.skips and self.severity == "error",  # a warning takes nothing out
                flows=finding.flows,
                declaration=finding.declaration,
                column_number=start,
                end_column_number=end,
            )


def _columns(finding: Finding, repository: Repository) -> tuple[int | None, int | None]:
    """Where on its line a finding lies, as far as that is known."""
    if not isinstance(finding.span, str):
        return finding.span or (None, None)
    start = repository.line(finding.file_path, finding.line_number).find(finding.span)
    return (start + 1, start + 1 + len(finding.span)) if start >= 0 else (None, None)


def reported(facts: Facts, code: str) -> Iterator[Finding]:
    """The faults of one code that reading has met already, as findings."""
    for problem in facts.problems:
        if problem.code == code:
            start, end = problem.column_number, problem.end_column_number
            yield Finding(
                problem.file_path,
                problem.line_number,
                problem.message,
                problem.remediation,
                problem.skips,
                problem.flows,
                None if start is None else (start, end or start + 1),
                problem.declaration,
            )


def suggestion(wanted: str, known: Iterable[str]) -> str:
    """`Did you mean a or b?` for the nearest known names, empty where none is near."""
    near = difflib.get_close_matches(wanted, list(dict.fromkeys(known)), n=3)
    return f"Did you mean {' or '.join(near)}?" if near else ""


def in_words(flows: Sequence[FlowMetadata]) -> str:
    """Some flows, shortly: `flows/a.py:a and 7 more`."""
    more = f" and {len(flows) - 1} more" if len(flows) > 1 else ""
    return f"{flows[0].entrypoint}{more}"


_Item = TypeVar("_Item")


def grouped(items: Iterable[_Item], key: Callable[[_Item], str]) -> dict[str, list[_Item]]:
    """Items by a key of theirs, in their order."""
    groups: dict[str, list[_Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups

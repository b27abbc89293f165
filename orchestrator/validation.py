"""Check what was discovered, declared and configured, without a server and without Prefect.

    Facts ─► rules ─► what nobody silenced ─► + ignores that silence nothing ─► with the lines they are about

Rules collect; none stops at the first fault. What there is to check, and each rule, is in `rules`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.discovery import discover
from orchestrator.ignores import Ignore, comment_ignores, silenced, source_text, unused
from orchestrator.masking import masked_line, masked_text, without_secrets_of
from orchestrator.model import LONGEST_EXCERPT, Discovery, ValidationError, ValidationResult
from orchestrator.repository import Repository
from orchestrator.rules import RULES, Facts, Rule, ignored

OF_ANY_ENVIRONMENT = ("FLW", "DEP")
"""Families of rules that find the same, whatever environment the repository is checked for."""
NOT_ALWAYS_ASKED = ("FLW010", "FLW011", "SCH001")
"""Rules about what an import shows: without the import nobody knows what an ignore of theirs is good for."""
IGNORABLE = {rule.code: rule.ignorable for rule in RULES}

NEAR = 3  # lines around one, which may say that its value is a secret


def validate(
    facts: Facts,
    *others: Facts,
    entries: Sequence[Ignore] = (),
    doubtful: Collection[str] = (),
    whole: bool = True,
    everywhere: bool = True,
) -> ValidationResult:
    """Apply every rule, and leave out what people silenced.

    Args:
        facts: what was read.
        others: the same repository with its other environments.
        entries: what pyproject.toml silences; comments are read here.
        doubtful: codes of rules that are not to be believed here, since what would contradict them was not read.
        whole: the whole repository was read. What was read in part, or has faults in the reading, cannot tell that an
            ignore silences nothing.
        everywhere: so for environments: all of them are checked.

    Returns:
        All faults, sorted by file and line, each once.
    """
    views = (facts, *others)
    found = dict.fromkeys(fault for view in views for fault in _applied(RULES, view) if fault.code not in doubtful)
    ignores = (*entries, *comment_ignores(_places(found, views), facts.repository))
    kept, used = silenced(found, ignores, IGNORABLE)
    all_read = whole and not any(problem.severity == "error" for view in views for problem in view.problems)
    unasked = NOT_ALWAYS_ASKED if facts.installed is None else (*NOT_ALWAYS_ASKED, "DEP")

    def is_known(ignore: Ignore) -> bool:
        return (
            all_read
            and (everywhere or ignore.code.startswith(OF_ANY_ENVIRONMENT))
            and not ignore.code.startswith((*unasked, *doubtful))
        )

    idle = unused(ignores, used, IGNORABLE, is_known)
    kept += _applied(ignored.RULES, replace(facts, problems=tuple(idle)))
    return as_result(_with_excerpts(kept, facts.repository))


def not_silenced(
    faults: Iterable[ValidationError], entries: Sequence[Ignore], repository: Repository
) -> list[ValidationError]:
    """The faults of a later stage that nobody silenced.

    Args:
        faults: what it met.
        entries: what pyproject.toml silences.
        repository: whose files may have comments.
    """
    met = list(faults)
    comments = comment_ignores({fault.file_path for fault in met if fault.file_path}, repository)
    return silenced(met, (*entries, *comments), IGNORABLE)[0]


def _applied(rules: Iterable[Rule], facts: Facts) -> Iterator[ValidationError]:
    return (fault for rule in rules for fault in rule.apply(facts))


def _places(faults: Iterable[ValidationError], views: Iterable[Facts]) -> list[str]:
    """The files that were read, and those in which something was found."""
    read = {fault.file_path for fault in faults if fault.file_path}
    for facts in views:
        read.update(facts.prefect_files, facts.configuration_files)
        for flow in facts.flows:
            read.update((flow.path, *flow.closure), [flow.dockerfile_path] if flow.dockerfile_path else [])
    return sorted(read)


def _with_excerpts(faults: Iterable[ValidationError], repository: Repository) -> Iterator[ValidationError]:
    """The faults with the line that each is about; secrets in it are masked."""
    lines: dict[str, list[str]] = {}
    for fault in faults:
        path = fault.file_path or ""
        if path not in lines:
            lines[path] = (source_text(repository, path) or "").split("\n") if path else []
        has_line = fault.line_number is not None and 0 < fault.line_number <= len(lines[path])
        yield _with_excerpt(fault, lines[path]) if has_line else fault


def _with_excerpt(fault: ValidationError, lines: Sequence[str]) -> ValidationError:
    index = (fault.line_number or 1) - 1
    line, near = lines[index], (*lines[max(0, index - NEAR) : index], *lines[index + 1 : index + 1 + NEAR])
    shown = masked_line(line, near)
    finished = replace(
        fault,
        message=without_secrets_of(fault.message, line, near),
        remediation=without_secrets_of(fault.remediation, line, near),
        excerpt=shown,
    )
    if len(shown) != min(len(line), LONGEST_EXCERPT):  # a very short secret: columns would point beside what they mean
        return replace(finished, column_number=None, end_column_number=None)
    return finished


class FlowValidator:
    """Checks single flow files of a repository.

    Args:
        root: the repository.
    """

    def __init__(self, root: str | Path = ".") -> None:
        self.root = Path(root)

    def validate_flow(self, flow_path: str) -> ValidationResult:
        """Check the flows of one file.

        Args:
            flow_path: the file, relative to the root.

        Returns:
            All faults of the file, and of the modules of the repository that it imports.

        Raises:
            ConfigurationError: the file does not exist or lies outside the repository.
        """
        return validate(facts_of(self.root, discover(self.root, (), paths=[flow_path])), whole=False)


def facts_of(root: Path, discovery: Discovery) -> Facts:
    """The facts of flows alone, without declarations and environment."""
    return Facts(
        repository=Repository(root),
        flows=discovery.flows,
        problems=discovery.problems,
        outside_imports=discovery.outside_imports,
    )


def as_result(faults: Iterable[ValidationError]) -> ValidationResult:
    """Sort faults by file and line into errors and warnings.

    Args:
        faults: from any stages.

    Returns:
        The result that holds them all, without the secrets that their texts quote.
    """
    finished = (
        replace(fault, message=masked_text(fault.message), remediation=masked_text(fault.remediation))
        for fault in faults
    )
    ordered = sorted(finished, key=lambda fault: (fault.file_path or "", fault.line_number or 0, fault.code))
    return ValidationResult(
        errors=tuple(fault for fault in ordered if fault.severity == "error"),
        warnings=tuple(fault for fault in ordered if fault.severity == "warning"),
    )

"""Check what was discovered, declared and configured, without a server and without Prefect.

Rules collect; none stops at the first fault. What there is to check, and each rule, is in `rules`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from orchestrator.discovery import discover
from orchestrator.model import Discovery, ValidationError, ValidationResult
from orchestrator.repository import Repository
from orchestrator.rules import RULES, Facts


def validate(facts: Facts) -> ValidationResult:
    """Apply every rule.

    Args:
        facts: what was read.

    Returns:
        All faults, sorted by file and line.
    """
    return as_result(fault for rule in RULES for fault in rule.apply(facts))


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
        return validate(facts_of(self.root, discover(self.root, (), paths=[flow_path])))


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
        The result that holds them all.
    """
    ordered = sorted(faults, key=lambda fault: (fault.file_path or "", fault.line_number or 0, fault.code))
    return ValidationResult(
        errors=tuple(fault for fault in ordered if fault.severity == "error"),
        warnings=tuple(fault for fault in ordered if fault.severity == "warning"),
    )

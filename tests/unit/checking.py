"""Check a small repository on disk the way `orchestrator validate` does."""

from __future__ import annotations

from pathlib import Path

from orchestrator.model import ValidationError
from orchestrator.pipeline import discover_flows, read_settings, validate
from tests.unit.builders import write_files


def faults_of(root: Path, files: dict[str, str], code: str) -> tuple[ValidationError, ...]:
    """The faults of one code, sorted by place."""
    return tuple(fault for fault in all_faults(root, files) if fault.code == code)


def all_faults(root: Path, files: dict[str, str]) -> tuple[ValidationError, ...]:
    """Every fault of a repository with these files, in the environment `development`."""
    settings = read_settings(write_files(root, files), "development")
    result = validate(settings, discover_flows(settings.root, settings.project, settings.declarations))
    return (*result.errors, *result.warnings)


def marked(root: Path, fault: ValidationError) -> str:
    """The text that a caret stands under; empty where there is none."""
    if fault.file_path is None or fault.line_number is None or fault.column_number is None:
        return ""
    line = (root / fault.file_path).read_text(encoding="utf-8").splitlines()[fault.line_number - 1]
    return line[fault.column_number - 1 : (fault.end_column_number or 0) - 1]

"""What importing says about flows that were found by reading: asked for by `--isolated-import`.

Each flow's file is imported in a child process (`children`), where Prefect would import it: with the flow's folder
and the root on the import path. No flow is run.
"""

from __future__ import annotations

import posixpath
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.children import Answer, Failure, ask, in_one_line
from orchestrator.closure import import_roots
from orchestrator.model import FlowMetadata, ValidationError
from orchestrator.rules.imports import IMPORT_FAILS, OTHER_FLOW
from orchestrator.rules.rule import in_words

TIME_LIMIT_SECONDS = 60.0  # for one file


def import_problems(
    root: Path, flows: Sequence[FlowMetadata], *, seconds: float = TIME_LIMIT_SECONDS
) -> tuple[ValidationError, ...]:
    """Import the file of each flow in a child process, and see whether the flow is there.

    Flows with faults that reading has found already are left out.

    Args:
        root: the repository, where the flows run.
        flows: which flows.
        seconds: how long one file may take.

    Returns:
        An error (FLW010) for each cause at each place why flows cannot be imported; a warning (FLW011) for each
        entrypoint at which there is a flow of another name, or no flow.
    """
    readable = [flow for flow in flows if flow.is_valid]
    answers = ask(root, "import", [flow.entrypoint for flow in readable], seconds=seconds)
    failures: dict[_Failed, list[FlowMetadata]] = {}
    others: list[ValidationError] = []
    for flow in readable:
        judged = _judge(root, flow, answers[flow.entrypoint])
        if isinstance(judged, _Failed):
            failures.setdefault(judged, []).append(flow)
        elif judged is not None:
            others.append(judged)
    return (*(failed.problem(flows) for failed, flows in failures.items()), *others)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Failed:
    """Why an import fails, and where: often the same for many flows."""

    reason: str
    remedy: str
    file: str
    line: int | None

    def problem(self, flows: Sequence[FlowMetadata]) -> ValidationError:
        noun = "flow" if len(flows) == 1 else "flows"
        return ValidationError(
            code=IMPORT_FAILS,
            message=f"The {noun} {in_words(flows)} cannot be imported: {self.reason}.",
            file_path=self.file,
            line_number=self.line,
            remediation=self.remedy,
            skips=True,
            flows=tuple(flow.entrypoint for flow in flows),
        )


def _judge(root: Path, flow: FlowMetadata, answer: Answer) -> _Failed | ValidationError | None:
    match answer:
        case Failure():
            return _failed(flow, answer.reason, _remedy_for(answer))
        case {"error": str(reason)}:
            return _failed(flow, reason, _remedy(root, flow, answer), answer.get("file"), answer.get("line"))
        case {"instead": str(instead)}:
            return _differs(
                flow, f"there is no flow but {instead}", "Let the name hold the flow whenever it is imported."
            )
        case {"name": str(name)} if flow.name_is_static and name != flow.name:
            return _differs(
                flow, f"the flow there is called {name!r}, not {flow.name!r}", 'Write its name out: @flow(name="…").'
            )
    return None


def _failed(flow: FlowMetadata, reason: str, remedy: str, file: str | None = None, line: int | None = None) -> _Failed:
    return _Failed(
        reason=in_one_line(reason),
        remedy=remedy,
        file=file or flow.path,
        line=line or (None if file else flow.line_number),
    )


def _differs(flow: FlowMetadata, difference: str, remedy: str) -> ValidationError:
    return ValidationError(
        code=OTHER_FLOW,
        message=f"Once {flow.entrypoint} is imported, {in_one_line(difference)}.",
        file_path=flow.path,
        line_number=flow.line_number,
        remediation=remedy,
        severity="warning",
    )


# ---------------------------------------------------------------------------------------------------------
# What to do about it
# ---------------------------------------------------------------------------------------------------------


def _remedy_for(failure: Failure) -> str:
    if failure.kind == "start":
        return "See that Prefect can be imported by the interpreter that runs the orchestrator."
    if failure.kind == "time-out":
        return "Move what waits or computes at import into the flow or a task, or allow more time."
    return "Move what ends the process at import into the flow, or behind `if __name__ == '__main__':`."


def _remedy(root: Path, flow: FlowMetadata, answer: Mapping[str, Any]) -> str:
    missing = answer.get("missing")
    if not missing:
        return "Correct it; what needs a connection, a secret or the worker's environment belongs into the flow."
    top = str(missing).split(".")[0]
    if place := _in_repository(root, flow, top):
        return _remedy_for_own(place, posixpath.dirname(place), posixpath.dirname(flow.path), str(missing))
    if top in sys.stdlib_module_names:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return f"Python {version} has no {missing} here: import it only where it exists, or use something else."
    return f"{top} is not installed here: install it beside the orchestrator, or do not use --isolated-import."


def _in_repository(root: Path, flow: FlowMetadata, top: str) -> str | None:
    """Where the repository has a module, even where a run would not find it."""
    places = (posixpath.join(base, top) for base in import_roots(posixpath.dirname(flow.path)))
    return next((place for place in places if (root / place).is_dir() or (root / f"{place}.py").is_file()), None)


def _remedy_for_own(place: str, base: str, folder: str, missing: str) -> str:
    if base in ("", folder):  # what Prefect puts on the import path
        return f"Correct the name: {place} is in the repository, but there is no {missing}."
    return (
        f"{place} is in the repository, but a run looks only in the flow's folder and the root: install the "
        f"repository beside the orchestrator (`pip install -e .`), or put {base} on PYTHONPATH."
    )

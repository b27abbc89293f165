"""A plan that a person looks at: written to a file, read again, and held against the plan of the moment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from orchestrator.errors import ConfigurationError
from orchestrator.model import Plan
from orchestrator.moved import Outline, has_moved, outline
from orchestrator.options import Scope

_DECISIVE = ("environment", "scope", "checksum", "outline")


@dataclass(frozen=True, kw_only=True)
class Review:
    """What is kept of such a plan: which one it was, what it was about, and what it did."""

    environment: str
    scope: Scope
    checksum: str
    outline: Outline

    def check(self, found: Plan) -> None:
        """Refuse another plan than the one that was looked at.

        Raises:
            ConfigurationError: it is another environment's.
            RefusedError: the checksums differ.
        """
        if found.environment != self.environment:
            raise ConfigurationError(
                f"This plan is for the environment {self.environment}; nothing was changed in {found.environment}.",
                remedy=f"Say --env {self.environment}.",
            )
        if found.checksum != self.checksum:
            raise has_moved("The server or the repository has", self.outline, found)


def write_review(file: Path, document: Mapping[str, Any], plan: Plan, scope: Scope) -> None:
    """Write a plan for `read_review`.

    Args:
        file: where to.
        document: the plan as programs read it.
        plan: the same.
        scope: what it is about.

    Raises:
        ConfigurationError: it cannot be written there.
    """
    try:
        more = {"scope": asdict(scope), "outline": {label: asdict(each) for label, each in outline(plan).items()}}
        text = json.dumps({**document, **more}, indent=2)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"The plan cannot be written there: {error.strerror}.", location=str(file), remedy="Correct --out."
        ) from error


def read_review(file: Path, given: Scope) -> Review:
    """Read what `write_review` wrote.

    Args:
        file: where from.
        given: the scope of the command: none, for the plan says it.

    Raises:
        ConfigurationError: it is no plan, or the command says another scope.
    """
    if given != Scope():
        raise ConfigurationError(
            "A reviewed plan says itself what it is about.",
            location=str(file),
            remedy="Leave out --only, --kind, --declared-only and --adopt, or plan anew with them.",
        )
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        return TypeAdapter(Review).validate_python({name: document[name] for name in _DECISIVE})
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigurationError(
            f"The plan cannot be read: {error.strerror}." if isinstance(error, OSError) else "This is no plan.",
            location=str(file),
            remedy="Write one with `orchestrator plan --out FILE`.",
        ) from error

"""Rules about what flows import and what the repository declares to install: DEP."""

from __future__ import annotations

from orchestrator.rules.rule import Rule

RULES: tuple[Rule, ...] = ()

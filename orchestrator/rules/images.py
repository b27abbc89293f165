"""Rules about Dockerfiles and build contexts: IMG."""

from __future__ import annotations

from orchestrator.rules.rule import Rule

RULES: tuple[Rule, ...] = ()

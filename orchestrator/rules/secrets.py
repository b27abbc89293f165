"""Rules about secrets written in clear: SEC."""

from __future__ import annotations

from orchestrator.rules.rule import Rule

RULES: tuple[Rule, ...] = ()

"""All rules, one module for each family of codes. The table is what `orchestrator rules` lists."""

from __future__ import annotations

from orchestrator.rules import (
    configuration,
    declarations,
    dependencies,
    flow_images,
    flows,
    ignored,
    images,
    imports,
    neighbours,
    parameters,
    schedules,
    secrets,
)
from orchestrator.rules.rule import Facts, Finding, Rule

__all__ = ["RULES", "Facts", "Finding", "Rule"]

RULES: tuple[Rule, ...] = tuple(
    sorted(
        (
            *flows.RULES,
            *dependencies.RULES,
            *declarations.RULES,
            *schedules.RULES,
            *parameters.RULES,
            *images.RULES,
            *flow_images.RULES,
            *imports.RULES,
            *configuration.RULES,
            *neighbours.RULES,
            *secrets.RULES,
            *ignored.RULES,
        ),
        key=lambda rule: rule.code,
    )
)
"""Every rule, sorted by code."""

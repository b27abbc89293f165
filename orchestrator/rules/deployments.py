"""Which deployments there will be, as far as reading tells: for rules about calls and about what templates give."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.config import DEPLOYER_FLOW, fill, template_values
from orchestrator.entrypoints import Resolver
from orchestrator.model import FlowMetadata, Kind
from orchestrator.placeholders import has_placeholder
from orchestrator.rules.rule import Facts

_ANYTHING = "\0"
"""Stands for a part of a name that is not known here."""


@dataclass(frozen=True, slots=True)
class Known:
    """A deployment that will be there.

    Attributes:
        flow: the name of its flow, None where it cannot be known.
        name: its own name.
    """

    flow: str | None
    name: str

    @property
    def path(self) -> str:
        """As people would write it."""
        return f"{self.flow or '*'}/{self.name.replace(_ANYTHING, '*')}"

    def is_called(self, flow: str, name: str) -> bool:
        """Does a call by `flow/name` mean it?"""
        pattern = ".*".join(map(re.escape, self.name.split(_ANYTHING)))
        return self.flow in (None, flow) and re.fullmatch(pattern, name, re.DOTALL) is not None


def templated(facts: Facts) -> Iterator[tuple[Kind, FlowMetadata]]:
    """The flows that the environment's templates give a deployment to: those that no prefect.yaml mentions, except for
    methods, which cannot run."""
    if not facts.environment.templates:
        return
    mentioned = {flow.entrypoint for flow in map(Resolver(facts.flows), facts.declarations) if flow}
    for kind in facts.environment.templates:
        for flow in facts.flows:
            if flow.entrypoint in mentioned or flow.needs_instance:
                continue
            if kind == "python" or flow.dockerfile_path is not None:
                yield kind, flow


def declared_paths(facts: Facts) -> list[str]:
    """`flow/deployment` of each declaration; nothing at all where not all of them are known."""
    resolve, paths = Resolver(facts.flows), []
    for declaration in facts.declarations:
        flow = resolve(declaration)
        name = _name_of(flow) if flow else None
        if name is None or has_placeholder(declaration.name):
            return []
        paths.append(f"{name}/{declaration.name}")
    return paths


def known_deployments(facts: Facts) -> Iterator[Known]:
    """The deployments that somebody declares, that templates give, and the deployer's own."""
    resolve = Resolver(facts.flows)
    for declaration in facts.declarations:
        flow = resolve(declaration)
        yield Known(_name_of(flow) if flow else declaration.flow_name, declaration.name)
    for kind, flow in templated(facts):
        yield Known(_name_of(flow), template_name(facts, kind, flow))
    yield Known(DEPLOYER_FLOW, facts.environment.deployer_name)


def template_name(facts: Facts, kind: Kind, flow: FlowMetadata) -> str:
    """The name of the deployment that a template gives to a flow."""
    values = template_values(facts.environment, flow, kind, project=_ANYTHING)
    try:
        return str(fill(facts.environment.templates[kind].name, values))
    except KeyError:  # an unknown placeholder, which CFG005 reports
        return _ANYTHING


def _name_of(flow: FlowMetadata) -> str | None:
    return flow.name if flow.name_is_static else None

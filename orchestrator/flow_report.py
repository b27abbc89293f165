"""Flows → what people and programs read. Apart from the other reports, since `discover` needs none of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.fault_report import fault_json, problems_text, told
from orchestrator.masking import masked_default, masked_document
from orchestrator.model import Discovery, FlowMetadata, Parameter
from orchestrator.plain_text import one_line


def flows_text(discovery: Discovery) -> RenderableType:
    """The flows found, as a table; those that cannot be used are marked, with the reason."""
    table = Table(box=None, pad_edge=False)
    for heading in ("FLOW", "ENTRYPOINT", "LINE", "PARAMETERS"):
        table.add_column(heading, overflow="fold")
    for flow in discovery.flows:
        parameters = ", ".join(parameter.name for parameter in flow.parameters)
        name, about = Text(told(flow.name)), Text(one_line(parameters))
        if not flow.is_valid:
            name = Text(f"! {told(flow.name)}", style="red")
            about = Text(told(flow.validation_errors[0]), style="red")
        table.add_row(name, Text(one_line(flow.entrypoint)), str(flow.line_number), about)
    return Group(table, Text(_count(discovery.flows), style="bold"), problems_text(discovery.problems))


def _count(flows: Sequence[FlowMetadata]) -> str:
    broken = sum(not flow.is_valid for flow in flows)
    return f"{len(flows)} flows" + (f", {broken} of them (!) cannot be used" if broken else "")


_INTERNAL = {"option_places"}  # places of faults


def flow_json(flow: FlowMetadata) -> dict[str, Any]:
    fields = {each.name: getattr(flow, each.name) for each in dataclasses.fields(flow) if each.name not in _INTERNAL}
    special = {
        "parameters": [_parameter_json(parameter) for parameter in flow.parameters],
        "deployment_calls": [masked_document("", dataclasses.asdict(call)) for call in flow.deployment_calls],
    }
    plain = {name: masked_document(name, value) for name, value in fields.items() if name not in special}
    document = {name: special.get(name, plain.get(name)) for name in fields}
    return {**document, "entrypoint": flow.entrypoint, "is_valid": flow.is_valid}


def _parameter_json(parameter: Parameter) -> dict[str, Any]:
    default = None if parameter.default is None else masked_default(parameter.name, parameter.default)
    return {**masked_document("", dataclasses.asdict(parameter)), "default": default}


def discovery_json(discovery: Discovery) -> dict[str, Any]:
    flows = [flow_json(flow) for flow in discovery.flows]
    return {"flows": flows, "problems": [fault_json(problem) for problem in discovery.problems]}

"""Flows → what people and programs read. Apart from the other reports, since `discover` needs none of them."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.fault_report import fault_json, problems_text
from orchestrator.model import Discovery, FlowMetadata


def flows_text(discovery: Discovery) -> RenderableType:
    """The flows found, as a table."""
    table = Table(box=None, pad_edge=False)
    for heading in ("FLOW", "ENTRYPOINT", "LINE", "PARAMETERS"):
        table.add_column(heading, overflow="fold")
    for flow in discovery.flows:
        parameters = ", ".join(parameter.name for parameter in flow.parameters)
        table.add_row(Text(flow.name), Text(flow.entrypoint), str(flow.line_number), Text(parameters))
    return Group(table, Text(f"{len(discovery.flows)} flows", style="bold"), problems_text(discovery.problems))


def flow_json(flow: FlowMetadata) -> dict[str, Any]:
    fields = {field.name: getattr(flow, field.name) for field in dataclasses.fields(flow)}
    parameters = [dataclasses.asdict(parameter) for parameter in flow.parameters]
    return {**fields, "parameters": parameters, "entrypoint": flow.entrypoint, "is_valid": flow.is_valid}


def discovery_json(discovery: Discovery) -> dict[str, Any]:
    flows = [flow_json(flow) for flow in discovery.flows]
    return {"flows": flows, "problems": [fault_json(problem) for problem in discovery.problems]}

"""Rules about flows: FLW."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from orchestrator.closure import SYNTAX_ERROR, UNREADABLE
from orchestrator.model import Parameter
from orchestrator.rules.rule import Facts, Finding, Rule, grouped, reported


def syntax_error(facts: Facts) -> Iterator[Finding]:
    """A file that should hold flows, or that a flow imports, is not valid Python.

    Correct the syntax. Until then the flows of this file cannot be known: their deployments are left as they are,
    and all other flows go on.
    """
    return reported(facts, SYNTAX_ERROR)


def unreadable_file(facts: Facts) -> Iterator[Finding]:
    """A file that should hold flows, or that a flow imports, cannot be read or decoded.

    Make it readable; save it as UTF-8, or name its encoding in the first line (PEP 263). Until then the deployments
    of its flows are left as they are, and all other flows go on.
    """
    return reported(facts, UNREADABLE)


def duplicate_flow_name(facts: Facts) -> Iterator[Finding]:
    """Two flows have the same name.

    Prefect tells flows apart by nothing but their name: their deployments and runs would be mixed up, and one would
    overwrite the other. Give one of them another name: `@flow(name="…")`.
    """
    for name, flows in grouped(facts.flows, lambda flow: flow.name if flow.name_is_static else "").items():
        for flow in flows[1:] if name else ():
            first = flows[0]
            yield Finding(
                flow.path,
                flow.line_number,
                f"The flow name {name!r} is taken twice: {first.path}:{first.line_number} ({first.function_name}) and "
                f"{flow.path}:{flow.line_number} ({flow.function_name}).",
                'Give one of them another name: @flow(name="…").',
            )


def dynamic_flow_name(facts: Facts) -> Iterator[Finding]:
    """The name of a flow cannot be known by reading the source.

    It is worked out when the module runs, so it may differ between machines, and deployments of it cannot be planned
    with certainty. Write the name out, or put it together from constants of the same file.
    """
    for flow in facts.flows:
        if not flow.name_is_static:
            yield Finding(
                flow.path,
                flow.line_number,
                f"The name of the flow {flow.function_name} cannot be known without running the file; "
                f"taken for {flow.name!r}.",
                'Write the name out, @flow(name="…"), or make it of constants of the same file.',
            )


def variadic_parameters(facts: Facts) -> Iterator[Finding]:
    """A flow takes `*args` or `**kwargs`.

    Prefect makes one parameter of each, named after it and required: a run that is started without `args: []` or
    `kwargs: {}` is refused as long as the deployment enforces its parameter schema, and a value under a name that the
    signature does not spell out is refused always. Where `*args` follows a parameter with a default, even a run that
    has a value for it fails. Spell the parameters out, or give the deployment a value such as `kwargs: {}`.
    """
    for flow in facts.flows:
        for position, parameter in enumerate(flow.parameters):
            if parameter.variadic:
                defaults_before = any(earlier.default is not None for earlier in flow.parameters[:position])
                yield Finding(
                    flow.path,
                    flow.line_number,
                    f"The flow {flow.name!r} takes {parameter.variadic}{parameter.name}, of which Prefect makes a "
                    f"required parameter {parameter.name!r}: runs started without it are refused.",
                    _variadic_remedy(parameter, usable=parameter.variadic == "**" or not defaults_before),
                )


def _variadic_remedy(parameter: Parameter, *, usable: bool) -> str:
    if not usable:
        return "Spell the parameters out: Prefect fails with a value for it as well, since a default comes before it."
    empty = "[]" if parameter.variadic == "*" else "{}"
    return f"Spell the parameters out, or declare `{parameter.name}: {empty}` in the deployment's parameters."


def mutable_default(facts: Facts) -> Iterator[Finding]:
    """The default of a parameter is a list, dictionary or set.

    Runs that share a process share the value: what one run changes, the next one finds. Use None (or a tuple) as the
    default and create the value in the flow.
    """
    for flow in facts.flows:
        for parameter in flow.parameters:
            if _is_mutable(parameter.default):
                yield Finding(
                    flow.path,
                    flow.line_number,
                    f"The default of parameter {parameter.name!r} of the flow {flow.name!r} is mutable: "
                    f"{parameter.default}.",
                    f"Use `{parameter.name}=None` and create the value in the flow.",
                )


def _is_mutable(source: str | None) -> bool:
    try:
        node = ast.parse(source or "None", mode="eval").body
    except (SyntaxError, RecursionError, MemoryError):
        return False
    match node:
        case ast.Call(func=ast.Name(id="list" | "dict" | "set")):
            return True
    return isinstance(node, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)


RULES: tuple[Rule, ...] = (
    Rule(SYNTAX_ERROR, "Syntax error", "error", syntax_error, ignorable=False),
    Rule(UNREADABLE, "File cannot be read", "error", unreadable_file, ignorable=False),
    Rule("FLW003", "Two flows with the same name", "error", duplicate_flow_name, ignorable=False),
    Rule("FLW004", "Flow name not known without running the file", "warning", dynamic_flow_name),
    Rule("FLW005", "Flow takes *args or **kwargs", "warning", variadic_parameters),
    Rule("FLW006", "Mutable default", "warning", mutable_default),
)

"""Rules about flows: FLW."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from orchestrator.annotations import cast_misfit, described
from orchestrator.model import FlowMetadata, Parameter
from orchestrator.rules.places import columns_of
from orchestrator.rules.rule import Facts, Finding, Rule, grouped, reported, suggestion
from orchestrator.rules.signatures import misfit, option_line, parameter_line
from orchestrator.sources import SYNTAX_ERROR, UNREADABLE

OPTIONS = (
    "cache_result_in_memory",
    "description",
    "flow_run_name",
    "log_prints",
    "name",
    "on_cancellation",
    "on_completion",
    "on_crashed",
    "on_failure",
    "on_running",
    "persist_result",
    "result_serializer",
    "result_storage",
    "retries",
    "retry_delay_seconds",
    "task_runner",
    "timeout_seconds",
    "validate_parameters",
    "version",
)
"""The arguments of `@flow` and `with_options`, which are the same; see `prefect.flow`."""

BANNED = ("/", "%", "&", ">", "<")
"""Characters that no name may hold; see BANNED_CHARACTERS in `prefect.types.names`."""

LONGEST_DEFAULT = 10_000
"""Characters of a default that is still read."""


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
                span=_own_name(flow),
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
                span=_own_name(flow),
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
                yield _about_parameter(
                    facts,
                    flow,
                    parameter,
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
                yield _about_parameter(
                    facts,
                    flow,
                    parameter,
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


def unfit_default(facts: Facts) -> Iterator[Finding]:
    """The default of a parameter does not fit its annotation.

    Prefect holds defaults against the annotations too: a run that is started without a value for the parameter fails.
    Correct the one or the other; where None is the default, write `int | None`.
    """
    for flow in facts.flows:
        if flow.metadata.get("validate_parameters") is False or "**" in flow.metadata:
            continue
        for parameter in flow.parameters:
            is_known, value = _literal(parameter)
            if is_known and (reason := misfit(facts.repository, flow, parameter, value, cast_misfit)):
                yield _about_parameter(
                    facts,
                    flow,
                    parameter,
                    f"The default of parameter {parameter.name!r} of the flow {flow.name!r} is {described(value)}, but "
                    f"its annotation is `{parameter.annotation}`: {reason}.",
                    _default_remedy(parameter, value),
                )


def _literal(parameter: Parameter) -> tuple[bool, object]:
    """Whether the default is written out, and its value."""
    text = parameter.default
    if text is None or parameter.annotation is None or parameter.variadic or len(text) > LONGEST_DEFAULT:
        return False, None
    try:
        value = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False, None
    return value is not ..., value


def _default_remedy(parameter: Parameter, value: object) -> str:
    if value is None:
        return f"Write `{parameter.name}: {parameter.annotation} | None = None`, or another default."
    return f"Write a default of the type `{parameter.annotation}`, or correct the annotation."


def unknown_option(facts: Facts) -> Iterator[Finding]:
    """A flow is made with an argument that Prefect's `@flow` does not have.

    Python refuses the file as soon as it is imported, so the flow cannot run. Correct the name; the nearest one is
    suggested. The flow is left out, and its deployments on the server are left as they are.
    """
    for flow in facts.flows:
        for option in flow.metadata:
            if option not in OPTIONS and option != "**":
                line = option_line(facts.repository, flow, option)
                yield Finding(
                    flow.path,
                    line,
                    f"@flow has no argument {option!r}: the file of the flow {flow.name!r} cannot be imported.",
                    suggestion(option, OPTIONS) or f"Remove it; there are: {', '.join(OPTIONS)}.",
                    skips=True,
                    flow=flow.entrypoint,
                    span=columns_of(facts.repository, flow.path, line, option),
                )


def invalid_name(facts: Facts) -> Iterator[Finding]:
    """The name of a flow holds a character that Prefect does not allow in names: / % & < >.

    Prefect raises InvalidNameError as soon as the file is imported, so the flow cannot run. Choose another name. The
    flow is left out, and its deployments on the server are left as they are.
    """
    for flow in facts.flows:
        banned = [character for character in BANNED if character in flow.name]
        if flow.name_is_static and banned:
            line = option_line(facts.repository, flow, "name")
            yield Finding(
                flow.path,
                line,
                f"The flow name {flow.name!r} holds {banned[0]!r}, which Prefect does not allow.",
                f"Leave out {' '.join(BANNED)}; a dash is a good stand-in.",
                skips=True,
                flow=flow.entrypoint,
                span=columns_of(facts.repository, flow.path, line, flow.name) or "name",
            )


def _about_parameter(facts: Facts, flow: FlowMetadata, parameter: Parameter, message: str, remedy: str) -> Finding:
    line = parameter_line(facts.repository, flow, parameter.name)
    span = columns_of(facts.repository, flow.path, line, parameter.name)
    return Finding(flow.path, line, message, remedy, span=span)


def _own_name(flow: FlowMetadata) -> str:
    return flow.function_name.rpartition(".")[2]


RULES: tuple[Rule, ...] = (
    Rule(
        SYNTAX_ERROR,
        "Syntax error",
        "error",
        syntax_error,
        example="@flow\ndef etl(:\n    ...",
        better="@flow\ndef etl():\n    ...",
        ignorable=False,
    ),
    Rule(
        UNREADABLE,
        "File cannot be read",
        "error",
        unreadable_file,
        example='# saved as Latin-1\n@flow(name="Müller")\ndef etl(): ...',
        better='# -*- coding: latin-1 -*-\n@flow(name="Müller")\ndef etl(): ...',
        ignorable=False,
    ),
    Rule(
        "FLW003",
        "Two flows with the same name",
        "error",
        duplicate_flow_name,
        example='@flow(name="etl")\ndef one(): ...\n\n@flow(name="etl")\ndef two(): ...',
        better='@flow(name="etl-one")\ndef one(): ...\n\n@flow(name="etl-two")\ndef two(): ...',
        ignorable=False,
    ),
    Rule(
        "FLW004",
        "Flow name not known without running the file",
        "warning",
        dynamic_flow_name,
        example='@flow(name=os.environ["NAME"])\ndef etl(): ...',
        better='@flow(name="etl")\ndef etl(): ...',
    ),
    Rule(
        "FLW005",
        "Flow takes *args or **kwargs",
        "warning",
        variadic_parameters,
        example="@flow\ndef etl(**options): ...",
        better="@flow\ndef etl(day: str, rows: int = 10): ...",
    ),
    Rule(
        "FLW006",
        "Mutable default",
        "warning",
        mutable_default,
        example="@flow\ndef etl(tables: list[str] = []): ...",
        better="@flow\ndef etl(tables: list[str] | None = None): ...",
    ),
    Rule(
        "FLW007",
        "Default that does not fit its annotation",
        "warning",
        unfit_default,
        example='@flow\ndef etl(rows: int = "many", day: str = None): ...',
        better="@flow\ndef etl(rows: int = 10, day: str | None = None): ...",
    ),
    Rule(
        "FLW008",
        "Unknown argument of @flow",
        "error",
        unknown_option,
        example="@flow(retrys=3)\ndef etl(): ...",
        better="@flow(retries=3)\ndef etl(): ...",
    ),
    Rule(
        "FLW009",
        "Flow name that Prefect refuses",
        "error",
        invalid_name,
        example='@flow(name="etl/daily")\ndef etl(): ...',
        better='@flow(name="etl-daily")\ndef etl(): ...',
    ),
)

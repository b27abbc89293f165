"""Rules about flows: FLW."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from orchestrator.annotations import cast_misfit, described
from orchestrator.discovery import ENDS_EARLY, NO_FUNCTION, UNDEFINED_NAME
from orchestrator.model import FlowMetadata, Parameter
from orchestrator.rules.places import columns_of
from orchestrator.rules.rule import Facts, Finding, Rule, grouped, in_words, reported, suggestion
from orchestrator.rules.signatures import default_place, misfit, parameter_line
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

MOST_NAMED = 3
"""Flows that a message names; of more it says the number."""

Place = tuple[str, int]
"""File and line."""


def syntax_error(facts: Facts) -> Iterator[Finding]:
    """A file that should hold flows, or that a flow imports, is not valid Python.

    Correct the syntax. Until then the flows of this file cannot be known: their deployments, and those of the flows
    that need the file, are left as they are, and all other flows go on.
    """
    return _of_file(facts, SYNTAX_ERROR, "Correct the syntax.")


def unreadable_file(facts: Facts) -> Iterator[Finding]:
    """A file that should hold flows, or that a flow imports, cannot be read or decoded.

    Make it readable; save it as UTF-8, or name its encoding in the first line (PEP 263). Until then the deployments
    of its flows, and of the flows that need it, are left as they are, and all other flows go on.
    """
    return _of_file(facts, UNREADABLE)


def undefined_name(facts: Facts) -> Iterator[Finding]:
    """A name that is used when the file is imported, for a decorator perhaps, is not defined.

    Python refuses the file as soon as it is imported, so none of its flows can run; where a decorator was meant to be
    `@flow`, the flow is not even seen. Correct the name, or import it. Until then the deployments of the file's flows,
    and of the flows that need it, are left as they are, and all other flows go on.
    """
    return _of_file(facts, UNDEFINED_NAME)


def no_function(facts: Facts) -> Iterator[Finding]:
    """A flow is made of something that is no function: `@flow("name")`.

    The first argument of `flow` is the function, so Prefect refuses the file as soon as it is imported. Give the name
    by keyword, `@flow(name="…")`. Until then the deployments of the file's flows, and of the flows that need it, are
    left as they are, and all other flows go on.
    """
    return _of_file(facts, NO_FUNCTION)


def ends_early(facts: Facts) -> Iterator[Finding]:
    """A file ends with `raise` before its flows are reached.

    Importing it fails, and Prefect sees none of the flows below. Remove the statement, or put it behind a condition.
    Until then the deployments of the file's flows, and of the flows that need it, are left as they are, and all other
    flows go on.
    """
    return _of_file(facts, ENDS_EARLY)


def _of_file(facts: Facts, code: str, remedy: str = "") -> Iterator[Finding]:
    """The faults of whole files, with the flows that need the file.

    Args:
        facts: what was read.
        code: of the faults.
        remedy: what to do, where the fault's own words are about the flows of the file alone.
    """
    for finding in reported(facts, code):
        blocked = [flow for flow in facts.flows if finding.file_path in (flow.path, *flow.closure)]
        others = [flow for flow in blocked if flow.path != finding.file_path]
        text = f"{remedy or finding.remedy} {_who_needs_it(others)}" if others else finding.remedy
        named = re.search(r"(?:The name|made of|ends with) (.+?)(?: is not|, which|, above)", finding.message)
        span = columns_of(facts.repository, finding.file_path, finding.line_number, named[1] if named else "")
        entrypoints = tuple(flow.entrypoint for flow in blocked)
        yield replace(finding, remedy=text, flows=entrypoints, span=finding.span or span)


def _who_needs_it(flows: Sequence[FlowMetadata]) -> str:
    named = ", ".join(flow.entrypoint for flow in flows[:MOST_NAMED]) + (", …" if len(flows) > MOST_NAMED else ".")
    if len(flows) == 1:
        return f"One flow needs it and is left as it is until then: {named}"
    return f"{len(flows)} flows need it and are left as they are until then: {named}"


def duplicate_flow_name(facts: Facts) -> Iterator[Finding]:
    """Two flows have the same name.

    Prefect tells flows apart by nothing but their name: their deployments and runs would be mixed up, and one would
    overwrite the other. Give one of them another name: `@flow(name="…")`. A copy that `with_options` makes of a flow
    may have its name: it is the same flow.
    """
    named = [flow for flow in facts.flows if flow.name_is_static and not flow.is_copy]
    for name, flows in grouped(named, lambda flow: flow.name).items():
        for flow in flows[1:]:
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
    with certainty. Write the name out, or put it together from constants, of this file or of other modules of the
    repository. Where a module that the flow needs is broken, its names are not judged: repair that first.
    """
    remedy = 'Write the name out (`name="…"`), or put it together from constants, of this file or of other modules of '
    remedy += "the repository."
    unknown = [flow for flow in facts.flows if not flow.name_is_static and flow.is_valid]
    for (path, line), flows in _by_place(unknown, _place_of_name).items():
        subject = f"flow {flows[0].function_name}" if len(flows) == 1 else f"flows {in_words(flows)}"
        guess = f"taken for {flows[0].name!r}" + (" and so on" if len(flows) > 1 else "")
        span = _own_name(flows[0]) if path == flows[0].path else columns_of(facts.repository, path, line, "name")
        message = f"The name of the {subject} cannot be known without running the file; {guess}."
        yield Finding(path, line, message, remedy, span=span)


def _place_of_name(flow: FlowMetadata) -> Place:
    """Where a flow's name is written: a shared decorator may give it to many; else the flow itself is the place."""
    own = (flow.path, flow.line_number)
    place = flow.option_places.get("name", own)
    return own if place[0] == flow.path else place


def _by_place(
    flows: Iterable[FlowMetadata], place_of: Callable[[FlowMetadata], Place]
) -> dict[Place, list[FlowMetadata]]:
    places: dict[Place, list[FlowMetadata]] = {}
    for flow in flows:
        places.setdefault(place_of(flow), []).append(flow)
    return places


def instance_method(facts: Facts) -> Iterator[Finding]:
    """A flow is a method that takes `self`.

    Prefect loads it from its class, without an instance: every run of a deployment fails, since nothing is given for
    `self`. It runs only where Python code calls it on an instance. Make it a static method (`@staticmethod` above
    `@flow`) or a plain function. It gets no deployment by template.
    """
    for flow in facts.flows:
        if flow.needs_instance:
            yield Finding(
                flow.path,
                flow.line_number,
                f"The flow {flow.function_name} is an instance method: a run of a deployment has nothing to give for "
                "`self` and fails.",
                "Make it a static method (`@staticmethod` above `@flow`) or a plain function.",
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

    Python makes the value once, for all calls. A parameter without an annotation gets that very value in each run:
    what one run changes, the next one in the same process finds. Of an annotated parameter Prefect makes a copy for
    each run, as long as it validates parameters; but whoever calls the function itself (`etl.fn()`, in a test
    perhaps) shares the value. Use None (or a tuple) as the default and create the value in the flow.
    """
    for flow in facts.flows:
        for parameter in flow.parameters:
            if _is_mutable(parameter.default):
                line, span = default_place(facts.repository, flow, parameter.name)
                yield Finding(
                    flow.path,
                    line,
                    f"The default of parameter {parameter.name!r} of the flow {flow.name!r} is mutable: "
                    f"{parameter.default}. {_who_shares_it(flow, parameter)}",
                    f"Use `{parameter.name}=None` and create the value in the flow.",
                    span=span,
                )


def _who_shares_it(flow: FlowMetadata, parameter: Parameter) -> str:
    if parameter.annotation and flow.metadata.get("validate_parameters") is not False:
        return "Runs get a copy of it, but calls of `.fn` share it."
    return "Runs in one process share it."


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
    suggested. The flow is left out, and its deployments on the server are left as they are. The argument may be
    written in a decorator of yours, which many flows share.
    """
    written: dict[tuple[str, Place], list[FlowMetadata]] = {}
    for flow in facts.flows:
        for option in flow.metadata:
            if option not in OPTIONS and option != "**":
                written.setdefault((option, _option_place(flow, option)), []).append(flow)
    for (option, (path, line)), flows in written.items():
        yield Finding(
            path,
            line,
            f"@flow has no argument {option!r}: {in_words(flows)} cannot be imported.",
            suggestion(option, OPTIONS) or f"Remove it; there are: {', '.join(OPTIONS)}.",
            skips=True,
            flows=tuple(flow.entrypoint for flow in flows),
            span=columns_of(facts.repository, path, line, option),
        )


def _option_place(flow: FlowMetadata, option: str) -> Place:
    """Where an argument of a flow is written, or the flow where that is not known."""
    return flow.option_places.get(option, (flow.path, flow.line_number))


def invalid_name(facts: Facts) -> Iterator[Finding]:
    """The name of a flow holds a character that Prefect does not allow in names: / % & < >.

    Prefect raises InvalidNameError as soon as the file is imported, so the flow cannot run. Choose another name. The
    flow is left out, and its deployments on the server are left as they are.
    """
    refused = [flow for flow in facts.flows if flow.name_is_static and banned_in(flow.name)]
    for (path, line), flows in _by_place(refused, lambda flow: _option_place(flow, "name")).items():
        name = flows[0].name
        more = f" (and those of {len(flows) - 1} more flows)" if len(flows) > 1 else ""
        yield Finding(
            path,
            line,
            f"The flow name {name!r}{more} holds {banned_in(name)!r}, which Prefect does not allow.",
            f"Leave out {' '.join(BANNED)}; a dash is a good stand-in.",
            skips=True,
            flows=tuple(flow.entrypoint for flow in flows),
            span=columns_of(facts.repository, path, line, name) or "name",
        )


def banned_in(name: str) -> str:
    """The first character of a name that Prefect does not allow; empty where all are good."""
    return next((character for character in name if character in BANNED), "")


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
        example="@flow\ndef etl(tables=[]): ...",
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
    Rule(
        UNDEFINED_NAME,
        "Name that is not defined",
        "error",
        undefined_name,
        example="@flwo\ndef etl(): ...",
        better="@flow\ndef etl(): ...",
        ignorable=False,
    ),
    Rule(
        NO_FUNCTION,
        "No function for @flow",
        "error",
        no_function,
        example='@flow("daily")\ndef etl(): ...',
        better='@flow(name="daily")\ndef etl(): ...',
        ignorable=False,
    ),
    Rule(
        "FLW014",
        "Flow is an instance method",
        "warning",
        instance_method,
        example="class Sales:\n    @flow\n    def etl(self): ...",
        better="class Sales:\n    @staticmethod\n    @flow\n    def etl(): ...",
    ),
    Rule(
        ENDS_EARLY,
        "File ends above its flows",
        "error",
        ends_early,
        example='raise SystemExit("moved to flows/sales.py")\n\n@flow\ndef etl(): ...',
        better="@flow\ndef etl(): ...",
        ignorable=False,
    ),
)

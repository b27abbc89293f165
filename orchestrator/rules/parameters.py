"""Rules about the values that deployments give to flows. They belong to the DPL codes."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from orchestrator.annotations import cast_misfit, described, schema_misfit
from orchestrator.config import PLACEHOLDER
from orchestrator.entrypoints import Resolver
from orchestrator.model import Declaration, FlowMetadata, Parameter
from orchestrator.rules.deployments import templated
from orchestrator.rules.places import columns_of
from orchestrator.rules.rule import Facts, Finding, Rule, suggestion
from orchestrator.rules.signatures import misfit

DEEPEST = 50
"""How far values may be nested; YAML from machines goes further than anybody checks."""


@dataclass(frozen=True, slots=True)
class _Given:
    """One value that somebody gives to a parameter."""

    name: str
    value: Any
    flow: FlowMetadata
    giver: str  # how a message calls who gives it
    path: str | None
    line: int | None
    is_enforced: bool  # the server checks it as soon as the deployment is made
    declaration: str | None = None  # the location of the one declaration that gives it

    def finding(self, facts: Facts, message: str, remedy: str) -> Finding:
        span = columns_of(facts.repository, self.path, self.line, self.name)
        text = f"{self.giver} {message}."
        skips = self.declaration is not None
        return Finding(self.path, self.line, text, remedy, skips, span=span, declaration=self.declaration)


def resolved(facts: Facts) -> Iterator[tuple[Declaration, FlowMetadata]]:
    """The declarations whose flow, and its signature, are known."""
    resolve = Resolver(facts.flows)
    for declaration in facts.declarations:
        flow = resolve(declaration)
        if flow is not None and flow.signature_is_static:
            yield declaration, flow


def _declared(facts: Facts) -> Iterator[_Given]:
    """What declarations and their schedules give."""
    for declaration, flow in resolved(facts):
        giver = f"The deployment {declaration.name!r}"
        yield from _values(declaration, flow, giver, declaration.parameters, ("parameters",))
        for index, schedule in enumerate(declaration.schedules):
            of_schedule = f"{giver}, in its schedule {schedule.label!r},"
            yield from _values(declaration, flow, of_schedule, schedule.parameters, ("schedules", index, "parameters"))


def _values(
    declaration: Declaration,
    flow: FlowMetadata,
    giver: str,
    values: Mapping[str, Any],
    place: tuple[str | int, ...],
) -> Iterator[_Given]:
    enforced = declaration.enforce_parameter_schema is not False
    for name, value in values.items():
        line = declaration.line(*place, name)
        yield _Given(name, value, flow, giver, declaration.file_path, line, enforced, declaration.location)


def _of_environment(facts: Facts) -> Iterator[_Given]:
    """What the environment gives: its defaults, its templates, its overrides."""
    environment = facts.environment
    for kind, flow in templated(facts):
        if flow.signature_is_static:
            template = environment.templates[kind]
            written = template.parameters if isinstance(template.parameters, Mapping) else {}
            yield from _from(facts, flow, environment.default_parameters, ("default_parameters",), written)
            yield from _from(facts, flow, written, ("templates", kind, "parameters"))
    for declaration, flow in resolved(facts):
        path = f"{flow.name}/{declaration.name}"
        if any(fnmatchcase(path, pattern) for pattern in environment.select):
            stronger = declaration.parameters
            yield from _from(facts, flow, environment.default_parameters, ("default_parameters",), stronger)
            for pattern, override in environment.deployments.items():
                if fnmatchcase(path, pattern):
                    yield from _from(facts, flow, override.parameters, ("deployments", pattern, "parameters"))


def _from(
    facts: Facts,
    flow: FlowMetadata,
    values: Mapping[str, Any],
    place: tuple[str | int, ...],
    stronger: Container[str] = (),
) -> Iterator[_Given]:
    """What one section of the environment gives to a flow, except for what something `stronger` gives."""
    for name, value in values.items():
        if name in stronger:
            continue
        path, line = facts.environment.place(*place, name)
        giver = f"The environment, under {'.'.join(map(str, place))},"
        yield _Given(name, value, flow, giver, path, line, is_enforced=True)


# ---------------------------------------------------------------------------------------------------------
# Rules
# ---------------------------------------------------------------------------------------------------------


def unknown_parameter(facts: Facts) -> Iterator[Finding]:
    """A declaration, or one of its schedules, gives a parameter that the flow does not have.

    Prefect refuses such a run, even where the flow takes `**kwargs` (values for those go under the parameter's own
    name, `kwargs: {…}`). Correct the name or remove the value.
    """
    for declaration, flow in resolved(facts):
        known = [parameter.name for parameter in flow.parameters]
        for place, location, values in _parameter_places(declaration):
            for name in values:
                if name not in known:
                    line = declaration.line(*location, name)
                    yield Finding(
                        declaration.file_path,
                        line,
                        f"The deployment {declaration.name!r} cannot be used: {place} gives {name!r}, but the flow "
                        f"{flow.name!r} ({flow.path}:{flow.line_number}) has no such parameter.",
                        _unknown_parameter_remedy(name, flow),
                        skips=True,
                        span=columns_of(facts.repository, declaration.file_path, line, str(name)),
                        declaration=declaration.location,
                    )


def _parameter_places(
    declaration: Declaration,
) -> Iterator[tuple[str, tuple[str | int, ...], Mapping[str, object]]]:
    yield "`parameters`", ("parameters",), declaration.parameters
    for index, schedule in enumerate(declaration.schedules):
        yield f"the schedule {schedule.label!r}", ("schedules", index, "parameters"), schedule.parameters


def _unknown_parameter_remedy(name: str, flow: FlowMetadata) -> str:
    known = [parameter.name for parameter in flow.parameters]
    if near := suggestion(name, known):
        return near
    catch_all = next((parameter.name for parameter in flow.parameters if parameter.variadic == "**"), None)
    if catch_all:
        return f"Put it under `{catch_all}:`, the one parameter that Prefect makes of **{catch_all}."
    return f"Remove it; the flow has: {', '.join(known)}." if known else "Remove it; the flow takes no parameters."


def missing_parameter(facts: Facts) -> Iterator[Finding]:
    """A deployment runs by schedule, but a required parameter has no value.

    Every scheduled run would fail. Give the value under `parameters` of the deployment or the schedule, in the
    environment's `default_parameters`, or give the parameter a default in the flow. `*args` and `**kwargs` count as
    required, since Prefect's parameter schema says so: give an empty list or mapping, or write parameters out.
    """
    for declaration, flow in resolved(facts):
        given = {*declaration.parameters, *facts.environment.default_parameters}
        required = [each for each in flow.parameters if each.required or each.variadic]
        for index, schedule in enumerate(() if declaration.paused else declaration.schedules):
            missing = [each for each in required if each.name not in given and each.name not in schedule.parameters]
            is_active = schedule.active and "active" not in schedule.placeholders
            if is_active and missing:
                names = ", ".join(each.name for each in missing)
                key = "cron" if schedule.cron else "interval" if schedule.interval else "rrule"
                line = declaration.line("schedules", index, key)
                yield Finding(
                    declaration.file_path,
                    line,
                    f"The deployment {declaration.name!r} cannot be used: its schedule {schedule.label!r} is active, "
                    f"but the flow {flow.name!r} requires {names}.",
                    _missing_remedy(missing, flow),
                    span=columns_of(facts.repository, declaration.file_path, line, schedule.cron or key),
                )


def _missing_remedy(missing: Sequence[Parameter], flow: FlowMetadata) -> str:
    if empty := [f"`{each.name}: {'[]' if each.variadic == '*' else '{}'}`" for each in missing if each.variadic]:
        rest = ", and values for the others" if len(empty) < len(missing) else ""
        return f"Write {', '.join(empty)} under `parameters`{rest}: Prefect requires what stars gather, too."
    names = ", ".join(each.name for each in missing)
    return f"Give values for {names} under `parameters`, or defaults in {flow.path}:{flow.line_number}."


def unfit_value(facts: Facts) -> Iterator[Finding]:
    """A value does not fit the annotation of the parameter that it is given to.

    A server that enforces the parameter schema refuses the deployment, and it casts nothing: `"5"` is no `int`. Where
    it does not enforce it, the runs fail. Correct the value, or the annotation. Types of the repository itself, values
    with a `{{ … }}` and references to blocks are not judged.
    """
    seen: set[tuple[str | None, int | None, str]] = set()
    for given in (*_declared(facts), *_of_environment(facts)):
        parameter = _parameter_of(given)
        key = (given.path, given.line, given.name)
        if parameter is None or key in seen or not _is_plain(given.value):
            continue
        if reason := _why_unfit(facts, given, parameter):
            seen.add(key)
            yield given.finding(
                facts,
                f"gives {given.name!r} {described(given.value)}, but the flow {given.flow.name!r} "
                f"({given.flow.path}:{given.flow.line_number}) takes `{parameter.annotation}`: {reason}",
                _unfit_remedy(given.value, parameter, is_castable=reason == _CASTABLE),
            )


def _parameter_of(given: _Given) -> Parameter | None:
    return next((each for each in given.flow.parameters if each.name == given.name and not each.variadic), None)


def _why_unfit(facts: Facts, given: _Given, parameter: Parameter) -> str:
    try:
        value = to_jsonable_python(given.value)
    except (PydanticSerializationError, ValueError, RecursionError):
        return ""
    casts = given.flow.metadata.get("validate_parameters") is not False and "**" not in given.flow.metadata
    if casts and (reason := misfit(facts.repository, given.flow, parameter, value, cast_misfit)):
        return reason
    if given.is_enforced and misfit(facts.repository, given.flow, parameter, value, schema_misfit):
        return _CASTABLE
    return ""


_CASTABLE = "a run would cast it, but the server casts nothing and refuses it"


def _unfit_remedy(value: Any, parameter: Parameter, *, is_castable: bool) -> str:
    is_quoted = is_castable and isinstance(value, str) and parameter.annotation in ("int", "float", "bool")
    hint = ", without quotes" if is_quoted else ""  # YAML would have read `20` as a number
    return f"Write a value for `{parameter.annotation}`{hint}, or correct the annotation."


def _is_plain(value: Any, depth: int = DEEPEST) -> bool:
    """Is a value what it seems: no template, no reference to a block, no value made on the server?"""
    if depth == 0:
        return False
    if isinstance(value, str):
        return "{{" not in value and PLACEHOLDER.search(value) is None
    if isinstance(value, Mapping):
        marked = "$ref" in value or "__prefect_kind" in value
        return not marked and all(_is_plain(inner, depth - 1) for inner in value.values())
    if isinstance(value, list | tuple):
        return all(_is_plain(inner, depth - 1) for inner in value)
    return True


RULES: tuple[Rule, ...] = (
    Rule(
        "DPL003",
        "Unknown parameter",
        "error",
        unknown_parameter,
        example="""
# flows/etl.py
@flow
def etl(day: str): ...

# prefect.yaml
deployments:
  - name: daily
    entrypoint: flows/etl.py:etl
    parameters:
      dya: monday
""".strip(),
        better="parameters:\n  day: monday",
    ),
    Rule(
        "DPL004",
        "Scheduled without a required parameter",
        "error",
        missing_parameter,
        example="""
# flows/etl.py
@flow
def etl(day: str): ...

# prefect.yaml
deployments:
  - name: daily
    entrypoint: flows/etl.py:etl
    schedules:
      - cron: 0 6 * * *
""".strip(),
        better="schedules:\n  - cron: 0 6 * * *\n    parameters: {day: monday}",
    ),
    Rule(
        "DPL005",
        "Value that does not fit its parameter",
        "error",
        unfit_value,
        example="""
# flows/etl.py
@flow
def etl(rows: int = 10): ...

# prefect.yaml
deployments:
  - name: daily
    entrypoint: flows/etl.py:etl
    parameters:
      rows: "20"
""".strip(),
        better="parameters:\n  rows: 20",
    ),
)

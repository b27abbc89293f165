"""Rules about declared deployments: DPL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from orchestrator.entrypoints import normal_entrypoint, possible_files, resolve
from orchestrator.model import Declaration, FlowMetadata
from orchestrator.rules.rule import Facts, Finding, Rule, grouped, suggestion


def unknown_flow(facts: Facts) -> Iterator[Finding]:
    """A declared deployment points to a flow that does not exist.

    Correct its entrypoint (`path/to/file.py:function`, the path from the folder of the prefect.yaml) or its
    flow_name. Where the file exists but is broken, the deployment on the server is left as it is.
    """
    broken = {problem.file_path: problem for problem in facts.problems}
    for declaration in facts.declarations:
        if resolve(declaration, facts.flows) is not None:
            continue
        faulty = next((broken[path] for path in possible_files(declaration) if path in broken), None)
        if faulty is not None:
            message = f"the file of its flow cannot be used ({faulty.code} at {faulty.location})"
            remedy = f"Correct {faulty.file_path}; until then the deployment is left as it is."
        else:
            message, remedy = _missing_flow(declaration, facts.flows)
        yield _at(declaration, message, remedy, skips=faulty is not None)


def _missing_flow(declaration: Declaration, flows: Sequence[FlowMetadata]) -> tuple[str, str]:
    """What is wrong with the reference to a flow, and the nearest thing that would be right."""
    if declaration.entrypoint is None and declaration.flow_name is None:
        return "it names neither an entrypoint nor a flow_name", "Add `entrypoint: path/to/file.py:function`."
    if declaration.entrypoint is None:
        known, wanted = [flow.name for flow in flows], declaration.flow_name or ""
        message = f"there is no flow named {wanted!r}"
    else:
        known, wanted = [flow.entrypoint for flow in flows], normal_entrypoint(declaration.entrypoint)
        message = f"there is no flow at {declaration.entrypoint}"
        path = wanted.rpartition(":")[0]
        here = [flow.entrypoint for flow in flows if flow.path == path]
        if here:
            return message, f"{path} has: {', '.join(here)}."
    return message, suggestion(wanted, known) or "List the flows there are with `orchestrator discover`."


def duplicate_deployment(facts: Facts) -> Iterator[Finding]:
    """Two declarations stand for the same deployment.

    A deployment is known by the name of its flow and its own name: the second would overwrite the first. Rename or
    remove one of them.
    """

    def path_of(declaration: Declaration) -> str:
        flow = resolve(declaration, facts.flows)
        flow_name = flow.name if flow else declaration.flow_name or declaration.entrypoint or ""
        return f"{flow_name}/{declaration.name}"

    for path, declarations in grouped(facts.declarations, path_of).items():
        for declaration in declarations[1:]:
            yield _at(
                declaration,
                f"{path} is already declared at {declarations[0].location}",
                "Rename or remove one of the two.",
            )


def unknown_parameter(facts: Facts) -> Iterator[Finding]:
    """A declaration, or one of its schedules, gives a parameter that the flow does not have.

    Prefect refuses such a run, even where the flow takes `**kwargs` (values for those go under the parameter's own
    name, `kwargs: {…}`). Correct the name or remove the value.
    """
    for declaration, flow in _resolved(facts):
        known = [parameter.name for parameter in flow.parameters]
        for place, values in _parameter_places(declaration):
            for name in values:
                if name not in known:
                    yield _at(
                        declaration,
                        f"{place} gives {name!r}, but the flow {flow.name!r} ({flow.path}:{flow.line_number}) has no "
                        "such parameter",
                        _unknown_parameter_remedy(name, flow),
                    )


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
    environment's `default_parameters`, or give the parameter a default in the flow.
    """
    for declaration, flow in _resolved(facts):
        given = {*declaration.parameters, *facts.environment.default_parameters}
        required = [parameter.name for parameter in flow.parameters if parameter.required]
        for schedule in () if declaration.paused else declaration.schedules:
            missing = [name for name in required if name not in given and name not in schedule.parameters]
            if schedule.active and missing:
                names = ", ".join(missing)
                yield _at(
                    declaration,
                    f"its schedule {schedule.label!r} is active, but the flow {flow.name!r} requires {names}",
                    f"Give values for {names} under `parameters`, or defaults in {flow.path}:{flow.line_number}.",
                )


def _parameter_places(declaration: Declaration) -> Iterator[tuple[str, Mapping[str, object]]]:
    yield "`parameters`", declaration.parameters
    for schedule in declaration.schedules:
        yield f"the schedule {schedule.label!r}", schedule.parameters


def _resolved(facts: Facts) -> Iterator[tuple[Declaration, FlowMetadata]]:
    """The declarations whose flow, and its signature, are known."""
    for declaration in facts.declarations:
        flow = resolve(declaration, facts.flows)
        if flow is not None and flow.signature_is_static:
            yield declaration, flow


def _at(declaration: Declaration, message: str, remedy: str, skips: bool = False) -> Finding:
    text = f"The deployment {declaration.name!r} cannot be used: {message}."
    return Finding(declaration.file_path, declaration.line_number, text, remedy, skips)


RULES: tuple[Rule, ...] = (
    Rule("DPL001", "Declared deployment of an unknown flow", "error", unknown_flow, ignorable=False),
    Rule("DPL002", "Deployment declared twice", "error", duplicate_deployment, ignorable=False),
    Rule("DPL003", "Unknown parameter", "error", unknown_parameter),
    Rule("DPL004", "Scheduled without a required parameter", "error", missing_parameter),
)

"""Check what was discovered and declared, without a server and without Prefect.

A rule is a function from `Facts` to findings, listed in `RULES` under a code that never changes. Its docstring tells
a person what the fault is and what to do about it. Rules collect; none stops at the first fault.

    validate                the rules about flows         (FLW…)
    validate_declarations   the rules about prefect.yaml  (DPL…)
"""

from __future__ import annotations

import ast
import difflib
import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from orchestrator.closure import SYNTAX_ERROR, UNREADABLE
from orchestrator.discovery import discover
from orchestrator.model import (
    Declaration,
    Discovery,
    FlowMetadata,
    Parameter,
    Severity,
    ValidationError,
    ValidationResult,
)

# ---------------------------------------------------------------------------------------------------------
# What rules see and say
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """All that a rule may look at.

    Attributes:
        flows: the flows that were discovered.
        problems: the files that could not be read.
        declarations: the deployments that prefect.yaml files declare.
        provided: names of parameters for which the environment has a value.
    """

    flows: Sequence[FlowMetadata] = ()
    problems: Sequence[ValidationError] = ()
    declarations: Sequence[Declaration] = ()
    provided: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found; code and severity come from the table. See `ValidationError` for `skips`."""

    file_path: str | None
    line_number: int | None
    message: str
    remedy: str
    skips: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table of rules."""

    code: str
    title: str
    severity: Severity
    check: Callable[[Facts], Iterator[Finding]]

    @property
    def explanation(self) -> str:
        """What the fault is and what to do about it."""
        return (self.check.__doc__ or "").strip()

    def apply(self, facts: Facts) -> Iterator[ValidationError]:
        """The rule's findings, stamped with its code and severity."""
        for finding in self.check(facts):
            yield ValidationError(
                code=self.code,
                message=finding.message,
                file_path=finding.file_path,
                line_number=finding.line_number,
                remediation=finding.remedy,
                severity=self.severity,
                skips=finding.skips,
            )


# ---------------------------------------------------------------------------------------------------------
# Validating
# ---------------------------------------------------------------------------------------------------------


def validate(discovery: Discovery) -> ValidationResult:
    """Check the flows of a repository.

    Args:
        discovery: what was discovered.

    Returns:
        All faults, sorted by file and line.
    """
    return as_result(_apply("FLW", Facts(flows=discovery.flows, problems=discovery.problems)))


def validate_declarations(
    flows: Sequence[FlowMetadata],
    problems: Sequence[ValidationError],
    declarations: Sequence[Declaration],
    provided: Collection[str] = (),
) -> tuple[ValidationError, ...]:
    """Check the deployments that prefect.yaml files declare against the flows.

    Args:
        flows: the flows that were discovered.
        problems: the files that could not be read.
        declarations: what prefect.yaml files declare.
        provided: names of parameters for which the environment has a value.

    Returns:
        All faults, sorted by file and line.
    """
    facts = Facts(flows=flows, problems=problems, declarations=declarations, provided=provided)
    return tuple(sorted(_apply("DPL", facts), key=_place))


class FlowValidator:
    """Checks single flow files of a repository.

    Args:
        root: the repository.
    """

    def __init__(self, root: str | Path = ".") -> None:
        self.root = Path(root)

    def validate_flow(self, flow_path: str) -> ValidationResult:
        """Check the flows of one file.

        Args:
            flow_path: the file, relative to the root.

        Returns:
            All faults of the file, and of the modules of the repository that it imports.

        Raises:
            ConfigurationError: the file does not exist or lies outside the repository.
        """
        return validate(discover(self.root, (), paths=[flow_path]))


def as_result(faults: Iterable[ValidationError]) -> ValidationResult:
    """Sort faults by file and line into errors and warnings.

    Args:
        faults: from any stages.

    Returns:
        The result that holds them all.
    """
    ordered = sorted(faults, key=_place)
    return ValidationResult(
        errors=tuple(fault for fault in ordered if fault.severity == "error"),
        warnings=tuple(fault for fault in ordered if fault.severity == "warning"),
    )


def _apply(family: str, facts: Facts) -> Iterator[ValidationError]:
    for rule in RULES:
        if rule.code.startswith(family):
            yield from rule.apply(facts)


def _place(fault: ValidationError) -> tuple[str, int, str]:
    return fault.file_path or "", fault.line_number or 0, fault.code


# ---------------------------------------------------------------------------------------------------------
# Which flow a declaration means
# ---------------------------------------------------------------------------------------------------------


def resolve(declaration: Declaration, flows: Iterable[FlowMetadata]) -> FlowMetadata | None:
    """The flow that a declaration points to, by its entrypoint or else by the flow's name.

    Args:
        declaration: of a prefect.yaml.
        flows: those that were discovered.

    Returns:
        The flow, or None.
    """
    if declaration.entrypoint is None:
        return next((flow for flow in flows if flow.name == declaration.flow_name), None)
    wanted = _normal(declaration.entrypoint)
    return next((flow for flow in flows if wanted in _entrypoints(flow, declaration.folder)), None)


def declared_files(declarations: Iterable[Declaration]) -> tuple[str, ...]:
    """The files that entrypoints name, for `discover(also=…)`: they may lie outside the configured folders.

    Args:
        declarations: of prefect.yaml files.

    Returns:
        Paths relative to the root, sorted; they need not exist.
    """
    return tuple(sorted({path for declaration in declarations for path in _possible_files(declaration)}))


def _normal(entrypoint: str) -> str:
    """`./flows/a.py:main` and `flows/a.py:main` are one; `pkg.module:main` is `pkg.module.main`."""
    path, colon, function = entrypoint.rpartition(":")
    if path.endswith(".py"):
        return f"{posixpath.normpath(path)}:{function}"
    return f"{path}.{function}" if colon else entrypoint


def _entrypoints(flow: FlowMetadata, folder: str) -> Iterator[str]:
    """All ways to name a flow in a prefect.yaml in `folder`: modules are looked for from there and from the root."""
    yield flow.entrypoint
    module = f"{flow.module_path}.{flow.function_name}"
    yield module
    if folder != ".":
        yield module.removeprefix(folder.replace("/", ".") + ".")


def _possible_files(declaration: Declaration) -> Iterator[str]:
    if declaration.entrypoint is None:
        return
    target = _normal(declaration.entrypoint)
    path, _, _ = target.rpartition(":")
    if path:
        yield path
        return
    module = target.rpartition(".")[0].replace(".", "/")
    for base in dict.fromkeys((declaration.folder, ".", "src")):
        for suffix in (".py", "/__init__.py"):
            yield posixpath.normpath(posixpath.join(base, module + suffix))


# ---------------------------------------------------------------------------------------------------------
# Rules about flows
# ---------------------------------------------------------------------------------------------------------


def syntax_error(facts: Facts) -> Iterator[Finding]:
    """A file that should hold flows, or that a flow imports, is not valid Python.

    Correct the syntax. Until then the flows of this file cannot be known: their deployments are left as they are,
    and all other flows go on.
    """
    return _reported(facts, SYNTAX_ERROR)


def unreadable_file(facts: Facts) -> Iterator[Finding]:
    """A file that should hold flows, or that a flow imports, cannot be read or decoded.

    Make it readable; save it as UTF-8, or name its encoding in the first line (PEP 263). Until then the deployments
    of its flows are left as they are, and all other flows go on.
    """
    return _reported(facts, UNREADABLE)


def _reported(facts: Facts, code: str) -> Iterator[Finding]:
    for problem in facts.problems:
        if problem.code == code:
            yield Finding(problem.file_path, problem.line_number, problem.message, problem.remediation, problem.skips)


def duplicate_flow_name(facts: Facts) -> Iterator[Finding]:
    """Two flows have the same name.

    Prefect tells flows apart by nothing but their name: their deployments and runs would be mixed up, and one would
    overwrite the other. Give one of them another name: `@flow(name="…")`.
    """
    for name, flows in _grouped(facts.flows, lambda flow: flow.name if flow.name_is_static else "").items():
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


# ---------------------------------------------------------------------------------------------------------
# Rules about declared deployments
# ---------------------------------------------------------------------------------------------------------


def unknown_flow(facts: Facts) -> Iterator[Finding]:
    """A declared deployment points to a flow that does not exist.

    Correct its entrypoint (`path/to/file.py:function`, the path from the folder of the prefect.yaml) or its
    flow_name. Where the file exists but is broken, the deployment on the server is left as it is.
    """
    broken = {problem.file_path: problem for problem in facts.problems}
    for declaration in facts.declarations:
        if resolve(declaration, facts.flows) is not None:
            continue
        faulty = next((broken[path] for path in _possible_files(declaration) if path in broken), None)
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
        known, wanted = [flow.entrypoint for flow in flows], _normal(declaration.entrypoint)
        message = f"there is no flow at {declaration.entrypoint}"
        path = wanted.rpartition(":")[0]
        here = [flow.entrypoint for flow in flows if flow.path == path]
        if here:
            return message, f"{path} has: {', '.join(here)}."
    return message, _suggestion(wanted, known) or "List the flows there are with `orchestrator discover`."


def duplicate_deployment(facts: Facts) -> Iterator[Finding]:
    """Two declarations stand for the same deployment.

    A deployment is known by the name of its flow and its own name: the second would overwrite the first. Rename or
    remove one of them.
    """

    def path_of(declaration: Declaration) -> str:
        flow = resolve(declaration, facts.flows)
        flow_name = flow.name if flow else declaration.flow_name or declaration.entrypoint or ""
        return f"{flow_name}/{declaration.name}"

    for path, declarations in _grouped(facts.declarations, path_of).items():
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
    if near := _suggestion(name, known):
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
        given = {*declaration.parameters, *facts.provided}
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


def _suggestion(wanted: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(wanted, list(dict.fromkeys(known)), n=3)
    return f"Did you mean {' or '.join(near)}?" if near else ""


_Item = TypeVar("_Item")


def _grouped(items: Iterable[_Item], key: Callable[[_Item], str]) -> dict[str, list[_Item]]:
    groups: dict[str, list[_Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


# ---------------------------------------------------------------------------------------------------------
# The table
# ---------------------------------------------------------------------------------------------------------

RULES: tuple[Rule, ...] = (
    Rule(SYNTAX_ERROR, "Syntax error", "error", syntax_error),
    Rule(UNREADABLE, "File cannot be read", "error", unreadable_file),
    Rule("FLW003", "Two flows with the same name", "error", duplicate_flow_name),
    Rule("FLW004", "Flow name not known without running the file", "warning", dynamic_flow_name),
    Rule("FLW005", "Flow takes *args or **kwargs", "warning", variadic_parameters),
    Rule("FLW006", "Mutable default", "warning", mutable_default),
    Rule("DPL001", "Declared deployment of an unknown flow", "error", unknown_flow),
    Rule("DPL002", "Deployment declared twice", "error", duplicate_deployment),
    Rule("DPL003", "Unknown parameter", "error", unknown_parameter),
    Rule("DPL004", "Scheduled without a required parameter", "error", missing_parameter),
)

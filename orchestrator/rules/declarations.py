"""Rules about declared deployments: DPL. Those about schedules and parameters have modules of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from uuid import UUID

from orchestrator.config import DEPLOYER_FLOW
from orchestrator.discovery import NO_FUNCTION, UNDEFINED_NAME
from orchestrator.entrypoints import Resolver, normal_entrypoint, possible_files
from orchestrator.model import Declaration, DeploymentCall, ValidationError
from orchestrator.placeholders import ENVIRONMENT, has_placeholder, names_in
from orchestrator.rules.deployments import Known, known_deployments, template_name, templated
from orchestrator.rules.flows import BANNED, banned_in
from orchestrator.rules.places import columns_of
from orchestrator.rules.rule import Facts, Finding, Rule, grouped, reported, suggestion
from orchestrator.rules.signatures import functions_in, is_task
from orchestrator.sources import SYNTAX_ERROR, UNREADABLE

_MAKES_DEPLOYMENTS = re.compile(r"\bserve\s*\(|\.deploy\s*\(")


def unknown_flow(facts: Facts) -> Iterator[Finding]:
    """A declared deployment points to a flow that does not exist.

    Correct its entrypoint (`path/to/file.py:function`, the path from the folder of the prefect.yaml) or its
    flow_name. Where the file exists but is broken, the deployment on the server is left as it is.
    """
    broken = _unread(facts)
    for declaration in _unresolved(facts):
        faulty = next((broken[path] for path in possible_files(declaration) if path in broken), None)
        if faulty is not None:
            message = f"the file of its flow cannot be used ({faulty.code} at {faulty.location})"
            remedy = f"Correct {faulty.file_path}; until then the deployment is left as it is."
        elif _file_without_flow(declaration, facts):
            continue
        else:
            message, remedy = _missing_flow(declaration, facts)
        yield _about_flow(facts, declaration, message, remedy, skips=faulty is not None)


def no_flow_in_file(facts: Facts) -> Iterator[Finding]:
    """A declared deployment points to a file that holds no flow at all.

    Decorate the function with `@flow`, or correct the entrypoint. The deployment on the server is left as it is.
    """
    broken = _unread(facts)
    for declaration in _unresolved(facts):
        path = _file_without_flow(declaration, facts)
        if path is None or broken.keys() & possible_files(declaration):
            continue
        wanted = normal_entrypoint(declaration.entrypoint or "").replace(":", ".").rpartition(".")[2]
        if is_task(facts.repository, path, wanted):
            message = f"{wanted} in {path} is a task, and the file holds no flow"
            remedy = "Only flows can be deployed: write a flow that calls the task, and name that."
        elif wanted in functions_in(facts.repository, path):
            message = f"{wanted} in {path} is a plain function, and the file holds no flow"
            remedy = f"Decorate it with @flow (from prefect import flow): `@flow` above `def {wanted}`."
        else:
            message = f"there is no flow in {path}"
            remedy = "Correct the entrypoint; `orchestrator discover` lists the flows there are."
        yield _about_flow(facts, declaration, message, remedy, skips=True)


def _unread(facts: Facts) -> dict[str | None, ValidationError]:
    """The files whose flows nobody knows."""
    codes = (SYNTAX_ERROR, UNREADABLE, UNDEFINED_NAME, NO_FUNCTION)
    return {each.file_path: each for each in facts.problems if each.code in codes}


def _unresolved(facts: Facts) -> Iterator[Declaration]:
    resolve = Resolver(facts.flows)
    return (item for item in facts.declarations if resolve(item) is None and not _has_open_flow(item))


def _has_open_flow(declaration: Declaration) -> bool:
    """Whether a placeholder stands in for its flow: then nobody knows which one is meant."""
    return has_placeholder(declaration.entrypoint or declaration.flow_name)


def _file_without_flow(declaration: Declaration, facts: Facts) -> str | None:
    """The file that a declaration means, if it exists and no flow was found in it."""
    if any(flow.path in possible_files(declaration) for flow in facts.flows):
        return None
    inside = (path for path in possible_files(declaration) if not path.startswith(("../", "/")))
    return next((path for path in inside if path in facts.repository), None)


def _about_flow(facts: Facts, declaration: Declaration, message: str, remedy: str, *, skips: bool) -> Finding:
    key = "entrypoint" if declaration.entrypoint else "flow_name"
    line = declaration.line(key)
    text = f"The deployment {declaration.name!r} cannot be used: {message}."
    value = declaration.entrypoint or declaration.flow_name or ""
    span = columns_of(facts.repository, declaration.file_path, line, value)
    span = span or columns_of(facts.repository, declaration.file_path, line, key)
    where = declaration.location if skips else None
    return Finding(declaration.file_path, line, text, remedy, skips, span=span, declaration=where)


def _missing_flow(declaration: Declaration, facts: Facts) -> tuple[str, str]:
    """What is wrong with the reference to a flow, and the nearest thing that would be right."""
    flows = facts.flows
    if declaration.entrypoint is None and declaration.flow_name is None:
        return "it names neither an entrypoint nor a flow_name", "Add `entrypoint: path/to/file.py:function`."
    if declaration.entrypoint is None:
        known, wanted = [flow.name for flow in flows], declaration.flow_name or ""
        message = f"there is no flow named {wanted!r}"
    else:
        known, wanted = [flow.entrypoint for flow in flows], normal_entrypoint(declaration.entrypoint)
        path, _, function = wanted.rpartition(":")
        here = [flow.entrypoint for flow in flows if flow.path == path]
        message = f"there is no flow at {declaration.entrypoint}"
        if path and not here and not path.startswith(("../", "/")):
            message = f"the file {path} does not exist"  # one without flows is another rule's
        elif here and is_task(facts.repository, path, function):
            message = f"{function} in {path} is a task, not a flow"
        elif here and function in functions_in(facts.repository, path):
            message = f"{function} in {path} is a plain function, not a flow"
        if here:
            return message, f"{path} has: {', '.join(here)}."
    return message, suggestion(wanted, known) or "List the flows there are with `orchestrator discover`."


def duplicate_deployment(facts: Facts) -> Iterator[Finding]:
    """Two declarations stand for the same deployment.

    A deployment is known by the name of its flow and its own name: the second would overwrite the first. Rename or
    remove one of them.
    """
    resolve = Resolver(facts.flows)

    def path_of(declaration: Declaration) -> str:
        flow = resolve(declaration)
        flow_name = flow.name if flow else declaration.flow_name or declaration.entrypoint or ""
        return f"{flow_name}/{declaration.name}"

    for path, declarations in grouped(facts.declarations, path_of).items():
        for declaration in declarations[1:]:
            yield Finding(
                declaration.file_path,
                declaration.line_number,
                f"The deployment {declaration.name!r} cannot be used: {path} is already declared at "
                f"{declarations[0].location}.",
                "Rename or remove one of the two.",
                span=columns_of(facts.repository, declaration.file_path, declaration.line_number, declaration.name),
            )


def invalid_name(facts: Facts) -> Iterator[Finding]:
    """The name of a deployment holds a character that Prefect does not allow in names: / % & < >.

    The server refuses the deployment; a slash would stand between flow and deployment in `run_deployment`. Choose
    another name.
    """
    remedy = f"Leave out {' '.join(BANNED)}; a dash is a good stand-in."
    for declaration in facts.declarations:
        if banned := banned_in(declaration.name):
            line = declaration.line("name")
            message = f"The name of the deployment {declaration.name!r} holds {banned!r}, which Prefect does not allow."
            span = columns_of(facts.repository, declaration.file_path, line, declaration.name)
            where = declaration.location
            yield Finding(
                declaration.file_path, line, message, remedy, skips=True, span=span or "name", declaration=where
            )
    yield from _invalid_template_names(facts, remedy)
    name = facts.environment.deployer.name or ""
    if banned := banned_in(name):
        path, place = facts.environment.place("deployer", "name")
        message = f"The name of the deployer's deployment, {name!r}, holds {banned!r}, which Prefect does not allow."
        yield Finding(path, place, message, remedy, span=name)


def _invalid_template_names(facts: Facts, remedy: str) -> Iterator[Finding]:
    """Names that templates give, each template once."""
    for kind, items in groupby(templated(facts), key=lambda item: item[0]):
        flows = (flow for _, flow in items if not banned_in(flow.name))
        names = ((flow, template_name(facts, kind, flow)) for flow in flows)
        if found := next(((flow, name) for flow, name in names if banned_in(name)), None):
            flow, name = found
            path, line = facts.environment.place("templates", kind, "name")
            message = f"The template {kind!r} names the deployment of the flow {flow.name!r} {name!r}, with a "
            message += f"{banned_in(name)!r} that Prefect does not allow."
            yield Finding(path, line, message, remedy, span=facts.environment.templates[kind].name)


# ---------------------------------------------------------------------------------------------------------
# Calls
# ---------------------------------------------------------------------------------------------------------


def undeclared_call(facts: Facts) -> Iterator[Finding]:
    """A flow calls a deployment that nothing here makes.

    The call fails when it comes to it, unless another repository or a person makes the deployment: no prefect.yaml
    declares it and no template of this environment gives it. Correct the path (`flow/deployment`), or declare the
    deployment. If it comes from elsewhere, say so with `# orchestrator: ignore[DPL011]`. Where a file that a flow needs
    makes deployments itself (`etl.serve(…)`, `etl.deploy(…)`), nothing is said.
    """
    if not _knows_all_deployments(facts):
        return
    known = tuple(known_deployments(facts))
    calls = dict.fromkeys(call for flow in facts.flows for call in flow.deployment_calls)
    unknown = [call for call in calls if not _is_uuid(call.deployment) and not _is_known(call, known, facts)]
    if unknown and not _code_makes_deployments(facts):
        for call in unknown:
            yield Finding(
                call.file_path,
                call.line_number,
                f"{call.function} calls {call.deployment!r}, but nothing here makes such a "
                f"{'deployment' if '/' in call.deployment else 'flow'}.",
                _call_remedy(call, known, facts),
                span=call.deployment,
            )


def _knows_all_deployments(facts: Facts) -> bool:
    """Do the facts hold all that makes deployments? Not where a file is broken, or where they are made elsewhere."""
    faults = (problem.code for problem in facts.problems if problem.severity == "error")
    broken = any(code.startswith("CFG") and code != "CFG002" for code in faults)  # unknown keys hide nothing else
    return not broken and bool(facts.declarations or facts.environment.templates)


def _code_makes_deployments(facts: Facts) -> bool:
    """Does a file that some flow needs make deployments by itself? Nobody can read which."""
    paths = {path for flow in facts.flows for path in (flow.path, *flow.closure)}
    return any(_MAKES_DEPLOYMENTS.search(facts.repository.text(path) or "") for path in paths)


def _is_known(call: DeploymentCall, known: Sequence[Known], facts: Facts) -> bool:
    flow, slash, name = call.deployment.partition("/")
    names = {each.name for each in facts.flows if each.name_is_static}
    # A flow whose name or file cannot be read may be the one.
    if flow not in names | {DEPLOYER_FLOW} and not _has_read_all_flows(facts):
        return True
    return any(each.is_called(flow, name) for each in known) if slash else flow in names | {DEPLOYER_FLOW}


def _has_read_all_flows(facts: Facts) -> bool:
    return not _unread(facts) and all(flow.name_is_static and not banned_in(flow.name) for flow in facts.flows)


def _call_remedy(call: DeploymentCall, known: Sequence[Known], facts: Facts) -> str:
    flows = [flow.name for flow in facts.flows if not banned_in(flow.name)]
    paths = [each.path for each in known if not banned_in(each.flow or "")]
    candidates = paths if "/" in call.deployment else flows
    return suggestion(call.deployment, candidates) or (
        "Declare it in a prefect.yaml, or correct the path; one from elsewhere is marked with "
        "`# orchestrator: ignore[DPL011]`."
    )


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------------------------------------------------
# Placeholders
# ---------------------------------------------------------------------------------------------------------


def unfillable_placeholder(facts: Facts) -> Iterator[Finding]:
    """A prefect.yaml holds a `{{ placeholder }}` that nothing fills.

    Prefect drops it in silence: an image or a folder comes out empty. It fills `{{ prefect.blocks.… }}`,
    `{{ prefect.variables.… }}`, `{{ $ENVIRONMENT_VARIABLE }}`, `{{ ctx.… }}` in job variables, and `{{ id.output }}`
    with the outputs of the build, push and pull steps that have that id.
    """
    for finding in reported(facts, "DPL012"):
        found = re.search(r"\{\{[^}]*\}\}", finding.message)
        span = columns_of(facts.repository, finding.file_path, finding.line_number, found[0] if found else "")
        yield Finding(finding.file_path, finding.line_number, finding.message, finding.remedy, span=span)


def open_reference(facts: Facts) -> Iterator[Finding]:
    """The name of a deployment, or what names its flow, holds a placeholder that nothing fills.

    An entrypoint, a `flow_name` and a work pool's name are read before any server is asked, so they take
    `{{ $ENVIRONMENT_VARIABLE }}` only; a deployment's name takes blocks and variables, too. Set the variable where the
    orchestrator runs, or write the value itself. Until then the deployment on the server is left as it is.
    """
    for declaration in facts.declarations:
        for key, value in (("entrypoint", declaration.entrypoint), ("flow_name", declaration.flow_name)):
            yield from _open_placeholders(facts, declaration, key, value, names_in(value or ""))
        of_environment = [each for each in names_in(declaration.name) if each[1].startswith(ENVIRONMENT)]
        yield from _open_placeholders(facts, declaration, "name", declaration.name, of_environment)


def _open_placeholders(
    facts: Facts, declaration: Declaration, key: str, value: str | None, found: Sequence[tuple[str, str]]
) -> Iterator[Finding]:
    for whole, name in found:
        variable = name.lstrip(ENVIRONMENT)
        reason = f"the environment variable {variable} is not set"
        remedy = f"Set {variable} where the orchestrator runs, or write the value itself."
        if "." in name:
            reason = "only environment variables are known here"
            remedy = "Write {{ $NAME }} for an environment variable, or the value itself."
        line = declaration.line(key)
        message = f"The deployment {declaration.name!r} cannot be used: its {key} holds {whole}, and {reason}."
        span = columns_of(facts.repository, declaration.file_path, line, whole)
        where = declaration.location
        yield Finding(declaration.file_path, line, message, remedy, skips=True, span=span or key, declaration=where)


def unfilled_on_server(facts: Facts) -> Iterator[Finding]:
    """A placeholder of a deployment has no value on this server or in this environment.

    Prefect would deploy without it: a variable that does not exist becomes empty text. Here the one deployment is left
    out, and stays on the server as it is. Create the block or the variable, set the environment variable, or correct
    the name. What a build or push step gives is filled in when the deployment is to be written.
    """
    return reported(facts, "DPL016")


def wrong_trigger(facts: Facts) -> Iterator[Finding]:
    """A trigger of a deployment is none that Prefect takes.

    `prefect deploy` would stop in the middle. Correct what the message names; the one deployment is left out until
    then, and stays on the server as it is.
    """
    return reported(facts, "DPL017")


RULES: tuple[Rule, ...] = (
    Rule(
        "DPL001",
        "Declared deployment of an unknown flow",
        "error",
        unknown_flow,
        example="deployments:\n  - name: daily\n    entrypoint: flows/etl.py:elt",
        better="deployments:\n  - name: daily\n    entrypoint: flows/etl.py:etl",
        ignorable=False,
    ),
    Rule(
        "DPL002",
        "Deployment declared twice",
        "error",
        duplicate_deployment,
        example="""
deployments:
  - name: daily
    entrypoint: flows/etl.py:etl
  - name: daily
    entrypoint: flows/etl.py:etl
""".strip(),
        better="""
deployments:
  - name: daily
    entrypoint: flows/etl.py:etl
  - name: weekly
    entrypoint: flows/etl.py:etl
""".strip(),
        ignorable=False,
    ),
    Rule(
        "DPL006",
        "No flow in the declared file",
        "error",
        no_flow_in_file,
        example="""
# flows/etl.py
def etl(): ...

# prefect.yaml
deployments:
  - name: daily
    entrypoint: flows/etl.py:etl
""".strip(),
        better="# flows/etl.py\nfrom prefect import flow\n\n@flow\ndef etl(): ...",
        ignorable=False,
    ),
    Rule(
        "DPL011",
        "Call to a deployment that nobody declares",
        "warning",
        undeclared_call,
        example='run_deployment("etl/dayly")',
        better='run_deployment("etl/daily")',
    ),
    Rule(
        "DPL012",
        "Placeholder that nothing fills",
        "warning",
        unfillable_placeholder,
        example="""
build:
  - prefect_docker.deployments.steps.build_docker_image:
      id: build-image
      image_name: shop
deployments:
  - name: daily
    entrypoint: flows/etl.py:etl
    work_pool:
      name: docker
      job_variables:
        image: "{{ build_image.image }}"
""".strip(),
        better='image: "{{ build-image.image }}"',
    ),
    Rule(
        "DPL013",
        "Deployment name that Prefect refuses",
        "error",
        invalid_name,
        example="deployments:\n  - name: etl/daily\n    entrypoint: flows/etl.py:etl",
        better="deployments:\n  - name: daily\n    entrypoint: flows/etl.py:etl",
    ),
    Rule(
        "DPL015",
        "Name or entrypoint with a placeholder that nothing fills",
        "error",
        open_reference,
        example="""
deployments:
  - name: daily
    entrypoint: "{{ $FILE_THAT_IS_NOT_SET }}:etl"
""".strip(),
        better="deployments:\n  - name: daily\n    entrypoint: flows/etl.py:etl",
        ignorable=False,
    ),
    Rule(
        "DPL016",
        "Placeholder without a value",
        "error",
        unfilled_on_server,
        example='parameters:\n  day: "{{ prefect.variables.dya }}"',
        better='parameters:\n  day: "{{ prefect.variables.day }}"',
        ignorable=False,
    ),
    Rule(
        "DPL017",
        "Trigger that Prefect refuses",
        "error",
        wrong_trigger,
        example="""
deployments:
  - name: daily
    entrypoint: flows/etl.py:etl
    triggers:
      - expect: [orders.arrived]
        within: soon
""".strip(),
        better="""
deployments:
  - name: daily
    entrypoint: flows/etl.py:etl
    triggers:
      - expect: [orders.arrived]
        within: 60
""".strip(),
        ignorable=False,
    ),
)

"""Calls to deployments by a path that is written out: what a flow depends on at the server."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from orchestrator.model import DeploymentCall

CALLING = frozenset({"run_deployment", "arun_deployment", "trigger_subflow", "flow_submitter", "FlowSubmission"})
"""Functions whose first argument (or `name`, `deployment_path`) is the path of a deployment."""

_KEYWORDS = frozenset({"name", "deployment", "deployment_path", "path"})


def may_call_deployments(content: bytes) -> bool:
    """Is a source worth a look? Reading it dismisses most."""
    return any(name.encode() in content for name in CALLING)


def deployment_calls_in(tree: ast.Module, path: str) -> list[DeploymentCall]:
    """The deployments that a module calls, wherever in it.

    Args:
        tree: the parsed module.
        path: of its file, relative to the repository's root.

    Returns:
        One record for each call whose deployment is a literal or a constant of the module, in the order of lines.
    """
    constants, names = _texts(tree), _aliases(tree)
    found = [
        DeploymentCall(deployment=deployment, function=function, file_path=path, line_number=call.lineno)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and (function := _function(call, names)) in CALLING
        for deployment in _deployment(call, constants)
    ]
    return sorted(found, key=lambda call: (call.line_number, call.deployment))


def _texts(tree: ast.Module) -> dict[str, str]:
    """The names that a module binds once, at its top level, to a text."""
    bound = [statement for statement in tree.body if isinstance(statement, ast.Assign | ast.AnnAssign)]
    texts: dict[str, str] = {}
    for statement in bound:
        for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
            match target, statement.value:
                case ast.Name(id=name), ast.Constant(value=str(text)) if name not in texts:
                    texts[name] = text
                case ast.Name(id=name), _:
                    texts.pop(name, None)
    return texts


def _aliases(tree: ast.Module) -> dict[str, str]:
    """`from prefect.deployments import run_deployment as start`: what `start` is called at home."""
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    return {alias.asname: alias.name for node in imports for alias in node.names if alias.asname}


def _function(call: ast.Call, aliases: Mapping[str, str]) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return aliases.get(call.func.id, call.func.id) if isinstance(call.func, ast.Name) else ""


def _deployment(call: ast.Call, constants: Mapping[str, str]) -> Iterator[str]:
    given = [*call.args[:1], *(word.value for word in call.keywords if word.arg in _KEYWORDS)]
    match given[:1]:
        case [ast.Constant(value=str(text))]:
            yield text
        case [ast.Name(id=name)] if name in constants:
            yield constants[name]

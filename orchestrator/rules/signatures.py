"""Where the source of a flow says what discovery found in it: read again for a finding only, which is rare."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from orchestrator.annotations import names_in, type_of
from orchestrator.model import FlowMetadata, Parameter
from orchestrator.repository import Repository

Misfit = Callable[[Any, Any], str]
"""Why a value does not fit a type, empty where it does."""


def misfit(repository: Repository, flow: FlowMetadata, parameter: Parameter, value: Any, check: Misfit) -> str:
    """Why a value does not fit a parameter's annotation, empty where it fits or nothing can be said.

    Names count for what they usually mean, since that takes no reading; only a fault found so is tried again with what
    the file imports, so that a `date` of its own is not taken for Python's.
    """
    if not check(type_of(parameter.annotation), value):
        return ""
    tree = _tree(repository.text(flow.path) or "")
    return check(type_of(parameter.annotation, names_in(tree)), value)


def parameter_line(repository: Repository, flow: FlowMetadata, name: str) -> int:
    """The line of a flow's parameter, or of the flow where its signature lies elsewhere."""
    for node in _definitions(repository, flow):
        arguments = node.args
        listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        for argument in listed:
            if argument is not None and argument.arg == name:
                return argument.lineno
    return flow.line_number


def option_line(repository: Repository, flow: FlowMetadata, name: str) -> int:
    """The line of an argument to the decorator or call that makes a flow, or of the flow where that is not found."""
    for node in ast.walk(_tree(repository.text(flow.path) or "")):
        calls = [node] if isinstance(node, ast.Call) else getattr(node, "decorator_list", [])
        if getattr(node, "lineno", 0) != flow.line_number:
            continue
        for call in calls:
            for keyword in call.keywords if isinstance(call, ast.Call) else ():
                if keyword.arg == name:
                    return keyword.lineno
    return flow.line_number


def functions_in(repository: Repository, path: str) -> list[str]:
    """The functions that a file defines at its top level."""
    body = _tree(repository.text(path) or "").body
    return [node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def _definitions(repository: Repository, flow: FlowMetadata) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(_tree(repository.text(flow.path) or "")):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.lineno == flow.line_number:
            yield node


@lru_cache(maxsize=8)
def _tree(text: str) -> ast.Module:
    """A parsed file; an empty one where the text is no Python."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module(body=[], type_ignores=[])

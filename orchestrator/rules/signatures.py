"""Where the source of a flow says what discovery found in it: read again for a finding only, which is rare."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from orchestrator.annotations import names_in, type_of
from orchestrator.model import FlowMetadata, Parameter
from orchestrator.repository import Repository
from orchestrator.rules.places import Columns

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


def default_place(repository: Repository, flow: FlowMetadata, name: str) -> tuple[int, Columns | None]:
    """The line of a parameter's default, and its columns there; the flow's line where its signature lies elsewhere."""
    for node in _definitions(repository, flow):
        arguments = node.args
        positional = [*arguments.posonlyargs, *arguments.args]
        named = [*positional[len(positional) - len(arguments.defaults) :], *arguments.kwonlyargs]
        for argument, default in zip(named, (*arguments.defaults, *arguments.kw_defaults), strict=True):
            if argument.arg == name and default is not None:
                return default.lineno, _columns(repository.line(flow.path, default.lineno), default)
    return flow.line_number, None


def _columns(line: str, node: ast.expr) -> Columns:
    """The columns of an expression, 1-based, as far as it lies on its first line; Python counts bytes."""
    data = line.encode()
    end = node.end_col_offset if node.end_lineno == node.lineno else len(data)
    return len(data[: node.col_offset].decode("utf-8", "replace")) + 1, len(data[:end].decode("utf-8", "replace")) + 1


def is_task(repository: Repository, path: str, name: str) -> bool:
    """Is a function of a file's top level one of Prefect's tasks?"""
    tree = _tree(repository.text(path) or "")
    tasks, modules = set(), set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module in ("prefect", "prefect.tasks"):
            tasks |= {alias.asname or alias.name for alias in node.names if alias.name == "task"}
        elif isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == "prefect"}
    known = tasks | {f"{module}.task" for module in modules}
    return any(
        ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator) in known
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
        for decorator in node.decorator_list
    )


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

"""The names that a module binds: what can be imported from it, and what may be called in it."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

_DYNAMIC = (b"globals(", b"vars(", b"locals(", b"setattr(", b"exec(", b"__dict__", b"__getattr__", b"sys.modules")
"""What in a source may bind names that no statement shows."""


def names_bound_by(tree: ast.Module, content: bytes) -> frozenset[str] | None:
    """The names that a module has once it has been imported.

    Args:
        tree: the parsed module.
        content: its source.

    Returns:
        The names, rather too many: those of all branches, and those that functions declare as global. None where they
        cannot be known: it imports a star, or binds names by other means than statements.
    """
    if any(sign in content for sign in _DYNAMIC):
        return None
    names = {name for statement in tree.body for name in _bound_in(statement, in_module=True)}
    return None if "*" in names else frozenset(names)


def names_anywhere_in(tree: ast.Module, content: bytes) -> frozenset[str] | None:
    """The names that a module binds anywhere, in functions and classes too, and the builtin ones.

    Args:
        tree: the parsed module.
        content: its source.

    Returns:
        The names; None where they cannot be known. A name that is not among them is an error wherever it is used.
    """
    if any(sign in content for sign in _DYNAMIC):
        return None
    names = {name for node in ast.walk(tree) for name in _bound_by(node)}
    return None if "*" in names else frozenset(names | set(dir(builtins)) | {"__file__"})


def _bound_in(node: ast.AST, *, in_module: bool) -> Iterator[str]:
    """What a statement binds in the module, and what functions in it declare as global."""
    if isinstance(node, ast.Global):
        yield from node.names
    if in_module:
        yield from _bound_by(node)
    opens_scope = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from _bound_in(child, in_module=in_module and not opens_scope)


def _bound_by(node: ast.AST) -> Iterator[str]:
    """What one node binds by itself."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Import(names=aliases):
            yield from (alias.asname or alias.name.split(".")[0] for alias in aliases)
        case ast.ImportFrom(names=aliases):
            yield from (alias.asname or alias.name for alias in aliases)
        case ast.arg(arg=name):
            yield name
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case ast.MatchMapping(rest=str(name)):
            yield name

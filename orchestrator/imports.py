"""Imports, as one file states them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Import(NamedTuple):
    """One import: `from ..module import names` has level 2, `import module` level 0 and no names.

    A named tuple, as what else is noted of each file: there are ten thousand, and a frozen dataclass takes five times
    as long to make.
    """

    module: str
    level: int = 0
    names: tuple[str, ...] = ()
    line: int = 0  # 1-based
    is_optional: bool = False  # its failure is handled, or it is for type checkers only

    @property
    def parts(self) -> list[str]:
        return self.module.split(".") if self.module else []


def imports_of(tree: ast.Module, content: bytes) -> list[Import]:
    """Everything that a module imports, by statement or by a call with a literal.

    Args:
        tree: the parsed module.
        content: its source.

    Returns:
        In no particular order; the same thing more than once where it is imported more than once.
    """
    statements = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    # Most modules have no import inside of anything, and say the word nowhere else.
    is_all = content.count(b"import") == len(statements)
    found = imports_in(ast.Module(list[ast.stmt](statements), []) if is_all else tree)
    if b"import_module" in content or b"__import__" in content:
        found += dynamic_imports_in(tree)
    return found


def imports_in(tree: ast.Module) -> list[Import]:
    """All import statements of a module, wherever they stand: those in functions run as well.

    Args:
        tree: the parsed module.

    Returns:
        `import` and `from … import`, in no particular order.
    """
    found = []
    waiting: list[tuple[ast.AST, bool]] = [(node, False) for node in tree.body]
    while waiting:  # only through statements: several times as fast as ast.walk
        node, optional = waiting.pop()
        if isinstance(node, ast.Import):
            found += [Import(alias.name, 0, (), node.lineno, optional) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = tuple([alias.name for alias in node.names])
            found.append(Import(node.module or "", node.level, names, node.lineno, optional))
        elif not isinstance(node, _WITHOUT_BLOCKS):
            guarded = _guarded_blocks(node)
            for block in _BLOCKS:
                within = getattr(node, block, None)
                if within:
                    is_optional = optional or block in guarded
                    waiting += [(each, is_optional) for each in within]
    return found


_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
_WITHOUT_BLOCKS = (ast.Expr, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return, ast.Assert, ast.Raise, ast.Pass)
_IMPORT_FAILURES = ("ImportError", "ModuleNotFoundError", "Exception", "BaseException")
_PLATFORMS = ("version_info", "platform", "PY2", "PY3")


def _guarded_blocks(node: ast.AST) -> Sequence[str]:
    """The blocks of a statement in which an import may fail, or never runs, without harm."""
    if isinstance(node, ast.Try | ast.TryStar):  # the handlers, too: what they import is needed on other machines only
        return ("body", "handlers", "orelse") if any(map(_handles_imports, node.handlers)) else ()
    if isinstance(node, ast.With):
        return ("body",) if any(_suppresses_imports(item.context_expr) for item in node.items) else ()
    return _guarded_branches(node.test) if isinstance(node, ast.If) else ()


def _handles_imports(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or _names_import_failure(handler.type)


def _names_import_failure(node: ast.expr) -> bool:
    kinds = node.elts if isinstance(node, ast.Tuple) else [node]
    return any(_last_name(kind) in _IMPORT_FAILURES for kind in kinds)


def _suppresses_imports(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and _callee(node) == "suppress" and any(map(_names_import_failure, node.args))


def _guarded_branches(test: ast.expr) -> Sequence[str]:
    """`if TYPE_CHECKING`, or a question about the interpreter or the platform: each branch is for some only."""
    if _last_name(test) == "TYPE_CHECKING":
        return ("body",)
    if isinstance(test, ast.UnaryOp) and _last_name(test.operand) == "TYPE_CHECKING":
        return ("orelse",)
    if any(isinstance(node, ast.Call) and _callee(node) == "find_spec" for node in ast.walk(test)):
        return ("body", "orelse")
    asks = isinstance(test, ast.Compare) and any(_last_name(node) in _PLATFORMS for node in ast.walk(test))
    return ("body", "orelse") if asks or _last_name(test) in _PLATFORMS else ()


def _last_name(node: ast.AST) -> str:
    """`b` of `a.b`, or of `b`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def dynamic_imports_in(tree: ast.Module) -> list[Import]:
    """The modules that `importlib.import_module` or `__import__` are called with, where that is a literal.

    Args:
        tree: the parsed module.

    Returns:
        What they import.
    """
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [
        found for call in calls if _callee(call) in ("import_module", "__import__") for found in _dynamic_import(call)
    ]


def _callee(call: ast.Call) -> str:
    """The last part of what is called: `import_module` for `importlib.import_module(…)`."""
    return _last_name(call.func)


def _dynamic_import(call: ast.Call) -> Iterator[Import]:
    """`import_module(name)` or `import_module(".name", package)`, where name is a literal.

    They count as optional: who imports by call is often prepared for a failure, in ways that are not read here.
    """
    package = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "package")]
    match call.args[:1]:
        case [ast.Constant(value=str(name))] if _is_dotted_name(module := name.lstrip(".")):
            level = len(name) - len(module)
            match package:
                case [ast.Constant(value=str(base))] if level == 1 and _is_dotted_name(base):
                    yield Import(f"{base}.{module}", 0, (), call.lineno, True)
                case _:
                    yield Import(module, level, (), call.lineno, True)


def _is_dotted_name(text: str) -> bool:
    """Guards the file system: text in a program may be anything, a path out of the repository too."""
    return all(part.isidentifier() for part in text.split("."))

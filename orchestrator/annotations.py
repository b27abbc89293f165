"""What a parameter's annotation allows, worked out from its source text. Nothing is imported or evaluated.

What the text may say: builtin types, `typing` and `collections.abc` generics, `Optional`, `Union`, `|`, `Literal`,
`Annotated` (its metadata is left aside), dates and times, Decimal, UUID, Path. All else, such as a model or enum of the
repository, counts as Any: then every value fits, and nobody is told a fault that is none.

A value has to pass twice. While a deployment enforces its parameter schema, the server holds values against the JSON
schema that Prefect makes of the signature with pydantic; and a run holds them against the signature itself, where
pydantic casts what it can. Both are done here with the same tools on the same type.
"""

from __future__ import annotations

import ast
import builtins
import collections.abc
import datetime
import decimal
import pathlib
import uuid
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal, Union

from pydantic import TypeAdapter
from pydantic import ValidationError as PydanticError
from pydantic.errors import PydanticUserError
from pydantic_core import SchemaError

LONGEST = 1_000
"""Characters of an annotation; nobody writes more by hand."""

DEEPEST = 12
"""How far annotations may be nested."""

_PLAIN: Mapping[str, Any] = {
    **{f"builtins.{each.__name__}": each for each in (bool, bytes, dict, float, frozenset, int, list, set, str, tuple)},
    "datetime.date": datetime.date,
    "datetime.datetime": datetime.datetime,
    "datetime.time": datetime.time,
    "datetime.timedelta": datetime.timedelta,
    "decimal.Decimal": decimal.Decimal,
    "pathlib.Path": pathlib.Path,
    "uuid.UUID": uuid.UUID,
    "typing.Dict": dict,
    "typing.FrozenSet": frozenset,
    "typing.List": list,
    "typing.Mapping": collections.abc.Mapping,
    "typing.Sequence": collections.abc.Sequence,
    "typing.Set": set,
    "typing.Tuple": tuple,
    "collections.abc.Mapping": collections.abc.Mapping,
    "collections.abc.Sequence": collections.abc.Sequence,
}
"""Types by their dotted names."""

_FORMATS = ("date", "date-time", "time", "uuid")
"""What a server checks in any case: rfc3339-validator is a requirement of Prefect, packages for other formats not."""

_SPECIAL = frozenset(f"typing.{name}" for name in ("Annotated", "Any", "Literal", "Optional", "Union"))
_BY_LAST_NAME = {name.rpartition(".")[2]: name for name in (*_PLAIN, *_SPECIAL)}
_MAPPINGS = (dict, collections.abc.Mapping)
_ONE_ARGUMENT = (list, set, frozenset, collections.abc.Sequence)

_NOT_KNOWN = (
    PydanticUserError,
    SchemaError,
    TypeError,
    ValueError,
    KeyError,
    AttributeError,
    RecursionError,
    MemoryError,
)
"""What odd annotations and values make pydantic and the parser raise: then nothing can be said."""


# ---------------------------------------------------------------------------------------------------------
# Text → type
# ---------------------------------------------------------------------------------------------------------


def type_of(annotation: str | None, names: Mapping[str, str] | None = None) -> Any:
    """The type that an annotation means.

    Args:
        annotation: its source text.
        names: what the names of its module stand for, from `names_in`. Without them every name is taken for the best
            known thing of that name, `date` for `datetime.date`.

    Returns:
        A type that pydantic knows, or Any.
    """
    if annotation is None or len(annotation) > LONGEST:
        return Any
    try:
        return _Reader(names).read(ast.parse(annotation.strip(), mode="eval").body, DEEPEST)
    except (SyntaxError, *_NOT_KNOWN):
        return Any


def names_in(tree: ast.Module) -> dict[str, str]:
    """What the names that a module binds stand for.

    Args:
        tree: the parsed module.

    Returns:
        Dotted names for what is imported, "" for all that the module makes itself.
    """
    names: dict[str, str] = {}
    for statement in _statements(tree.body):
        match statement:
            case ast.Import(names=aliases):
                for alias in aliases:
                    first = alias.name.partition(".")[0]
                    names[alias.asname or first] = alias.name if alias.asname else first
            case ast.ImportFrom(names=aliases, module=module, level=level):
                names.update({alias.asname or alias.name: f"{'.' * level}{module}.{alias.name}" for alias in aliases})
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names[name] = ""
            case _:
                stored = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
                names.update({node.id: "" for node in stored if isinstance(node.ctx, ast.Store)})
    return names


def _statements(body: Iterable[ast.stmt]) -> Iterable[ast.stmt]:
    """The statements of a module, those under `if`, `try` and `with` too, without what functions and classes hold."""
    waiting = list(body)
    while waiting:
        statement = waiting.pop(0)
        match statement:
            case ast.If() | ast.For() | ast.While() | ast.AsyncFor():
                waiting[:0] = [*statement.body, *statement.orelse]
            case ast.Try() | ast.TryStar():
                handled = [inner for handler in statement.handlers for inner in handler.body]
                waiting[:0] = [*statement.body, *handled, *statement.orelse, *statement.finalbody]
            case ast.With() | ast.AsyncWith():
                waiting[:0] = statement.body
            case _:
                yield statement


class _Reader:
    """Reads annotations of one module."""

    def __init__(self, names: Mapping[str, str] | None) -> None:
        self.names = names

    def read(self, node: ast.expr, depth: int) -> Any:
        """The type of an expression, Any where it is beyond us."""
        if depth == 0:
            return Any
        match node:
            case ast.Constant(value=None):
                return None
            case ast.Constant(value=str(text)) if len(text) <= LONGEST:  # a forward reference
                return self.read(ast.parse(text.strip(), mode="eval").body, depth - 1)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return _union([self.read(left, depth - 1), self.read(right, depth - 1)])
            case ast.Subscript(value=value, slice=index):
                arguments = index.elts if isinstance(index, ast.Tuple) else [index]
                return self._generic(self._dotted(value), arguments, depth - 1)
            case ast.Name() | ast.Attribute():
                return _PLAIN.get(self._dotted(node), Any)
        return Any

    def _dotted(self, node: ast.expr) -> str:
        """The full name of what a name or attribute stands for, "" where that cannot be told."""
        match node:
            case ast.Attribute(attr=last) | ast.Name(id=last) if self.names is None:
                return _BY_LAST_NAME.get(last, "")
            case ast.Attribute(value=value, attr=last):
                owner = self._dotted(value)
                return _normal(f"{owner}.{last}") if owner else ""
            case ast.Name(id=name):
                usual = f"builtins.{name}" if hasattr(builtins, name) else ""
                return _normal((self.names or {}).get(name, usual))
        return ""

    def _generic(self, dotted: str, arguments: list[ast.expr], depth: int) -> Any:
        match dotted.removeprefix("typing."):
            case "Optional":
                return _union([self.read(arguments[0], depth), None])
            case "Union":
                return _union([self.read(argument, depth) for argument in arguments])
            case "Annotated":
                return self.read(arguments[0], depth)
            case "Literal":
                return Literal[tuple(ast.literal_eval(argument) for argument in arguments)]
        kind = _PLAIN.get(dotted, Any)
        if kind is tuple:
            return self._tuple(arguments, depth)
        inner = [self.read(argument, depth) for argument in arguments]
        if kind in _MAPPINGS and len(inner) == 2:
            return kind[inner[0], inner[1]]
        return kind[inner[0]] if kind in _ONE_ARGUMENT and len(inner) == 1 else Any

    def _tuple(self, arguments: list[ast.expr], depth: int) -> Any:
        match arguments:
            case [item, ast.Constant(value=end)] if end is ...:
                return tuple.__class_getitem__((self.read(item, depth), ...))
        return tuple.__class_getitem__(tuple(self.read(argument, depth) for argument in arguments))


def _normal(dotted: str) -> str:
    return dotted.replace("typing_extensions.", "typing.", 1) if dotted.startswith("typing_extensions.") else dotted


def _union(members: list[Any]) -> Any:
    return Any if Any in members else Union[tuple(members)]  # noqa: UP007  # the members are known only now


# ---------------------------------------------------------------------------------------------------------
# Value ↔ type
# ---------------------------------------------------------------------------------------------------------


def schema_misfit(kind: Any, value: Any) -> str:
    """Why a server that enforces the parameter schema refuses a value.

    Args:
        kind: from `type_of`.
        value: in terms of JSON.

    Returns:
        A clause that does not show the value; empty where it fits or nothing can be said.
    """
    if kind is Any:
        return ""
    try:
        fault = next(_schema_validator(kind).iter_errors(value), None)
    except _NOT_KNOWN:
        return ""
    return f"it is {described(value)}, of which the server casts nothing" if fault else ""


@lru_cache(maxsize=512)
def _schema_validator(kind: Any) -> Any:
    """What the server checks with: the JSON schema of the type."""
    # Imported here: it costs more than a scan of a small repository, and few deployments have parameters.
    from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]

    formats = FormatChecker(())
    formats.checkers = {name: Draft202012Validator.FORMAT_CHECKER.checkers[name] for name in _FORMATS}
    return Draft202012Validator(TypeAdapter(kind).json_schema(), format_checker=formats)


def cast_misfit(kind: Any, value: Any) -> str:
    """Why a run fails to take a value for a parameter of some type.

    Args:
        kind: from `type_of`.
        value: any Python value.

    Returns:
        pydantic's reason, which does not show the value; empty where it fits or nothing can be said.
    """
    if kind is Any:
        return ""
    try:
        _adapter(kind).validate_python(value)
    except PydanticError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return first["msg"][:1].lower() + first["msg"][1:]
    except _NOT_KNOWN:
        return ""
    return ""


@lru_cache(maxsize=512)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def described(value: Any) -> str:
    """What kind of value it is, in words and without showing it."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int():
            return "a whole number"
        case float():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "a mapping"
    return f"a {type(value).__name__}"

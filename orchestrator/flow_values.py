"""The few kinds of values that reading source can know, and what a module's bindings are made of."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from orchestrator.model import Parameter

FLOW_MAKERS = frozenset(
    f"prefect.{name}" for name in ("flow", "flows.flow", "main.flow", "Flow", "flows.Flow", "main.Flow")
)
"""What turns a function into a flow, by its dotted name in Prefect."""

MOST_BITS = 4000
"""Of a whole number that is shown as one: Python, and so JSON, writes no more than 4300 digits."""

FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


# ---------------------------------------------------------------------------------------------------------
# Scopes
# ---------------------------------------------------------------------------------------------------------


class Modules(Protocol):
    """Where an interpreter asks for what other modules of the repository hold."""

    def value_of(self, imported: Imported, module: ModulePlace) -> Value:
        """What an imported name stands for; the name itself where it leads out of the repository."""
        ...

    def public_names(self, imported: Imported, module: ModulePlace) -> Sequence[str]:
        """What `from imported import *` binds; nothing where it leads out of the repository."""
        ...

    def call(self, caller: Scope, line_number: int) -> AbstractContextManager[bool]:
        """Around the call of a function, in a line of the caller: whether one more may be followed."""
        ...

    def perhaps(self) -> AbstractContextManager[None]:
        """Around what a run may leave out: one of several alternatives."""
        ...

    def doubt(self, kind: DoubtKind, name: str, line_number: int, scope: Scope) -> None:
        """Note what fails in a line of a scope, for the module whose import comes there."""
        ...


DoubtKind: TypeAlias = Literal["undefined", "no-function", "not-in-prefect", "raises"]


class Doubt(NamedTuple):
    """Something in a module that fails when it is imported, so that flows are lost.

    Attributes:
        kind: something is called, or used as a decorator, whose name nothing seems to bind; `flow` is called with
            something that is no function; a name is taken from Prefect that it has not; the file ends with a `raise`
            above its flows.
        name: that name; the argument's source text; the statement's.
        line_number: 1-based; where the module calls what fails, if that is a function of another file.
        cause: file and line of what fails in that function.
    """

    kind: DoubtKind
    name: str
    line_number: int
    cause: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class ModulePlace:
    """Where a module lies, which says what its imports mean."""

    modules: Modules
    path: str  # relative to the root
    entry_folder: str  # of the flow's file that it is loaded for: where absolute imports start
    scopes: list[Scope] = field(default_factory=list, compare=False)  # all that were opened in it
    doubts: list[Doubt] = field(default_factory=list, compare=False)  # what may be wrong with it

    def forget(self) -> None:
        """Let go of everything: functions and their scopes hold one another, and the whole syntax tree."""
        for scope in self.scopes:
            scope.names.clear()
        self.scopes.clear()


@dataclass(slots=True)
class Scope:
    """The names that are bound in a module, a class or the call of a function, and around it."""

    place: ModulePlace
    outer: Scope | None = None
    names: dict[str, Value] = field(default_factory=dict)
    returned: list[Value] = field(default_factory=list)  # by a function's body, whichever branch it takes

    def __post_init__(self) -> None:
        self.place.scopes.append(self)

    def has(self, name: str) -> bool:
        return name in self.names or (self.outer is not None and self.outer.has(name))

    def get(self, name: str) -> Value:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.outer
        return UNKNOWN

    def inner(self, names: dict[str, Value] | None = None) -> Scope:
        """The scope of something that stands in this one."""
        return Scope(self.place, self, {} if names is None else names)

    def branch(self) -> Scope:
        """A copy in which one of several alternatives can be carried out."""
        return Scope(self.place, self.outer, dict(self.names), self.returned)


# ---------------------------------------------------------------------------------------------------------
# Values
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unknown:
    """Anything else."""


UNKNOWN = Unknown()


@dataclass(frozen=True, slots=True)
class Imported:
    """Something that an import brought, by its dotted name and, for a relative import, its leading dots."""

    dotted: str
    level: int = 0


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that is written out in the source."""

    value: Any


@dataclass(frozen=True, slots=True, eq=False)
class Several:
    """A tuple or list that holds more than constants."""

    items: tuple[Value, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A function of the repository.

    `wraps` is the function whose name and signature it took over by functools.wraps.
    """

    node: FunctionNode
    scope: Scope
    wraps: Function | None = None

    @property
    def shown(self) -> FunctionNode:
        """The function whose name, signature and docstring Prefect sees."""
        return self.wraps.shown if self.wraps else self.node


@dataclass(frozen=True, slots=True)
class Wrapping:
    """What functools.wraps(function) returns: a decorator."""

    function: Value


@dataclass(frozen=True, slots=True, eq=False)
class Class:
    names: Mapping[str, Value]
    has_bases: bool  # then its constants may be something else, as in an Enum


@dataclass(frozen=True, slots=True)
class Option:
    """An argument of a call: what is known of its value, and how metadata shows it."""

    value: Value
    shown: Any  # the literal, else the source text
    place: tuple[str, int] | None = None  # file and line where it is written

    @property
    def text(self) -> str:
        """The value where it is text, else ""."""
        return self.value.value if isinstance(self.value, Constant) and isinstance(self.value.value, str) else ""

    @property
    def is_empty(self) -> bool:
        """Prefect takes None and "" for no argument at all."""
        return isinstance(self.value, Constant) and not self.value.value


Options: TypeAlias = Mapping[str, Option]


@dataclass(frozen=True, slots=True, eq=False)
class Keywords:
    """What a function got as **keywords; `**` in it stands for those that are not known."""

    options: Options


@dataclass(frozen=True, slots=True)
class Partial:
    """functools.partial of something that can be called."""

    callee: Value
    arguments: tuple[Value, ...]
    options: Options


@dataclass(frozen=True, slots=True, eq=False)
class Maker:
    """Prefect's `flow`, or what `flow(...)` returns when it is given options but no function yet."""

    options: Options = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class FoundFlow:
    """A flow.

    Attributes:
        fallback_name: what Prefect calls it by default; a guess where the function comes from elsewhere.
        options: the arguments of `flow` and `with_options`, by name; `**` for an unpacked mapping.
        parameters: of the function behind it; None where that comes from elsewhere.
        docstring: of the function, cleaned.
        is_async: whether the function is.
        takes_self: whether its first parameter is called `self`.
        line_number, end_line_number: of the function, or of the call that makes the flow.
        is_copy: whether it was made of another flow by with_options, and goes by the same name.
    """

    fallback_name: str
    options: Options
    parameters: tuple[Parameter, ...] | None
    docstring: str
    is_async: bool
    takes_self: bool
    line_number: int
    end_line_number: int
    is_copy: bool = False

    @property
    def name(self) -> str:
        return self._text("name") or self.fallback_name

    @property
    def name_is_static(self) -> bool:
        if (option := self.options.get("name")) is not None:
            return (option.is_empty and self.parameters is not None) or self._text("name") != ""
        return self.parameters is not None and "**" not in self.options

    @property
    def description(self) -> str:
        return self._text("description") or self.docstring

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags, as far as they are written out."""
        value = self._constant("tags")
        items = value if isinstance(value, list | tuple | set | frozenset) else ()
        return tuple(dict.fromkeys(item for item in items if isinstance(item, str)))

    @property
    def retries(self) -> int | None:
        value = self._constant("retries")
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return value if is_number and value.bit_length() <= MOST_BITS else None

    def _text(self, name: str) -> str:
        option = self.options.get(name)
        return option.text if option else ""

    def _constant(self, name: str) -> Any:
        option = self.options.get(name)
        return option.value.value if option and isinstance(option.value, Constant) else None


Value: TypeAlias = (
    Unknown | Imported | Constant | Several | Function | Wrapping | Class | Keywords | Partial | Maker | FoundFlow
)


# ---------------------------------------------------------------------------------------------------------
# Signatures
# ---------------------------------------------------------------------------------------------------------


def parameters_of(arguments: ast.arguments) -> Iterator[Parameter]:
    """The parameters of a signature. `self` and `cls` are left out by name, as Prefect does."""
    positional = [*arguments.posonlyargs, *arguments.args]
    without_default: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    yield from _named(positional, [*without_default, *arguments.defaults])
    if arguments.vararg:
        yield _variadic(arguments.vararg, "*")
    yield from _named(arguments.kwonlyargs, arguments.kw_defaults)
    if arguments.kwarg:
        yield _variadic(arguments.kwarg, "**")


def _named(arguments: Sequence[ast.arg], defaults: Sequence[ast.expr | None]) -> Iterator[Parameter]:
    for argument, default in zip(arguments, defaults, strict=True):
        if argument.arg not in ("self", "cls"):
            yield Parameter(
                name=argument.arg,
                annotation=source_text(argument.annotation),
                default=source_text(default),
                required=default is None,
            )


def _variadic(argument: ast.arg, stars: Literal["*", "**"]) -> Parameter:
    annotation = source_text(argument.annotation)
    return Parameter(name=argument.arg, annotation=annotation, required=False, variadic=stars)


def source_text(node: ast.expr | None) -> str | None:
    """An expression as Python writes it."""
    if isinstance(node, ast.Name):
        return node.id  # most are; unparsing takes twenty times as long
    try:
        return None if node is None else ast.unparse(node)
    except (RecursionError, ValueError):  # thousands of terms; a hexadecimal number of thousands of digits
        return "…"


def plain(value: Any) -> Any:
    """The value in terms of JSON; what JSON does not have, as text."""
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        return hex(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key_text(key): plain(item) for key, item in value.items()}
    return _shown(value, repr)


def key_text(key: Any) -> str:
    """A key as JSON has it: a text."""
    return _shown(key, str)


def _shown(value: Any, show: Callable[[Any], str]) -> str:
    try:
        return show(value)
    except ValueError:  # it holds a number of thousands of digits, which Python does not write
        return "…"

"""The flows that one module's source makes, found by a small interpreter of its module-level bindings.

The interpreter runs over a module's statements the way Python would, but knows few kinds of values: what came from an
import, constants, functions, classes, Prefect's `flow` and the flows that it makes. All else is unknown. Function
bodies are never entered, so what a function defines for itself is no flow. Whatever cannot be known by reading is
said to be unknown (`name_is_static`, `signature_is_static`), never guessed.
"""

from __future__ import annotations

import ast
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from orchestrator.model import Parameter

# ---------------------------------------------------------------------------------------------------------
# Values that reading can know
# ---------------------------------------------------------------------------------------------------------

FLOW_MAKERS = frozenset(
    f"prefect.{name}" for name in ("flow", "flows.flow", "main.flow", "Flow", "flows.Flow", "main.Flow")
)
"""What turns a function into a flow, by its dotted name in Prefect."""

FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True, slots=True)
class _Unknown:
    """Anything else."""


@dataclass(frozen=True, slots=True)
class _Imported:
    """Something that an import brought, by its dotted name."""

    dotted: str


@dataclass(frozen=True, slots=True)
class _Constant:
    """A value that is written out in the source."""

    value: Any


@dataclass(frozen=True, slots=True)
class _Function:
    node: FunctionNode


@dataclass(frozen=True, slots=True)
class _Class:
    names: Mapping[str, _Value]
    has_bases: bool  # then its constants may be something else, as in an Enum


@dataclass(frozen=True, slots=True)
class _Option:
    """An argument given to Prefect's `flow`: what is known of its value, and how metadata shows it."""

    value: _Constant | _Unknown
    shown: Any  # the literal, else the source text

    @property
    def text(self) -> str:
        """The value where it is text, else ""."""
        return self.value.value if isinstance(self.value, _Constant) and isinstance(self.value.value, str) else ""

    @property
    def is_empty(self) -> bool:
        """Prefect takes None and "" for no argument at all."""
        return isinstance(self.value, _Constant) and not self.value.value


@dataclass(frozen=True, slots=True)
class _Maker:
    """Prefect's `flow`, or what `flow(...)` returns when it is given options but no function yet."""

    options: Mapping[str, _Option] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class FoundFlow:
    """A flow as one file's source states it. It keeps nothing of the syntax tree.

    Attributes:
        fallback_name: what Prefect calls it by default; a guess where the function comes from elsewhere.
        options: the arguments of `flow` and `with_options`, by name; `**` for an unpacked mapping.
        parameters: of the function behind it; None where that comes from elsewhere.
        docstring: of the function, cleaned.
        is_async: whether the function is.
        line_number, end_line_number: of the function, or of the call that makes the flow.
    """

    fallback_name: str
    options: Mapping[str, _Option]
    parameters: tuple[Parameter, ...] | None
    docstring: str
    is_async: bool
    line_number: int
    end_line_number: int

    @property
    def name(self) -> str:
        return self._text("name") or self.fallback_name

    @property
    def name_is_static(self) -> bool:
        if (option := self.options.get("name")) is not None:
            return option.is_empty or self._text("name") != ""
        return self.parameters is not None and "**" not in self.options

    @property
    def description(self) -> str:
        return self._text("description") or self.docstring

    def _text(self, name: str) -> str:
        option = self.options.get(name)
        return option.text if option else ""


_Value: TypeAlias = _Unknown | _Imported | _Constant | _Function | _Class | _Maker | FoundFlow
_Scope: TypeAlias = ChainMap[str, _Value]

_UNKNOWN = _Unknown()


def _parameters(arguments: ast.arguments) -> Iterator[Parameter]:
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
                annotation=_source_text(argument.annotation),
                default=_source_text(default),
                required=default is None,
            )


def _variadic(argument: ast.arg, stars: Literal["*", "**"]) -> Parameter:
    annotation = _source_text(argument.annotation)
    return Parameter(name=argument.arg, annotation=annotation, required=False, variadic=stars)


def _source_text(node: ast.expr | None) -> str | None:
    try:
        return None if node is None else ast.unparse(node)
    except RecursionError:  # an expression of thousands of terms
        return "…"


# ---------------------------------------------------------------------------------------------------------
# The interpreter
# ---------------------------------------------------------------------------------------------------------


def flows_in(tree: ast.Module) -> dict[str, FoundFlow]:
    """The flows that a module binds at its top level or in its classes.

    Args:
        tree: the parsed module.

    Returns:
        Flows by what they are bound to (`name`, `Class.method`); one that has several names by its first.
    """
    scope: _Scope = ChainMap({})
    _run(tree.body, scope)
    found: dict[str, FoundFlow] = {}
    _collect(scope.maps[0], "", found)
    return found


def _collect(names: Mapping[str, _Value], prefix: str, found: dict[str, FoundFlow]) -> None:
    for name, value in names.items():
        if isinstance(value, FoundFlow) and value not in found.values():
            found[prefix + name] = value
        elif isinstance(value, _Class):
            _collect(value.names, f"{prefix}{name}.", found)


def _run(body: Sequence[ast.stmt], scope: _Scope) -> None:
    """Carry out statements: bind in `scope` what they bind."""
    for statement in body:
        if handler := _STATEMENTS.get(type(statement)):
            handler(statement, scope)


def _import(statement: ast.Import, scope: _Scope) -> None:
    for alias in statement.names:
        # `import a.b` binds `a`; `import a.b as c` binds a.b
        name, dotted = (alias.asname, alias.name) if alias.asname else [alias.name.split(".")[0]] * 2
        scope[name] = _Imported(dotted)


def _import_from(statement: ast.ImportFrom, scope: _Scope) -> None:
    module = "." * statement.level + (statement.module or "")
    for alias in statement.names:
        if alias.name != "*":
            scope[alias.asname or alias.name] = _Imported(f"{module}.{alias.name}")
        elif module in ("prefect", "prefect.flows"):
            scope.update({name: _Imported(f"prefect.{name}") for name in ("flow", "Flow")})


def _assign(statement: ast.Assign | ast.AnnAssign, scope: _Scope) -> None:
    if statement.value is None:
        return  # an annotation alone binds nothing
    value = evaluate(statement.value, scope)
    for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
        if isinstance(target, ast.Name):
            scope[target.id] = value
        else:
            _forget(target, scope)


def _forget(node: ast.AST, scope: _Scope) -> None:
    """All names that `node` binds hold something unknown from now on."""
    for child in ast.walk(node):
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            scope[child.id] = _UNKNOWN


def _augment(statement: ast.AugAssign, scope: _Scope) -> None:
    _forget(statement.target, scope)


def _delete(statement: ast.Delete, scope: _Scope) -> None:
    for target in statement.targets:
        if isinstance(target, ast.Name):
            scope.maps[0].pop(target.id, None)


def _define_function(statement: ast.FunctionDef | ast.AsyncFunctionDef, scope: _Scope) -> None:
    makers = (_as_maker(evaluate(decorator, scope)) for decorator in statement.decorator_list)
    maker = next((maker for maker in makers if maker), None)
    function = _Function(statement)
    scope[statement.name] = function if maker is None else _make_flow(maker, function, statement, statement)


def _define_class(statement: ast.ClassDef, scope: _Scope) -> None:
    inner = scope.new_child()
    _run(statement.body, inner)
    scope[statement.name] = _Class(inner.maps[0], bool(statement.bases or statement.keywords))


def _branch(statement: ast.If, scope: _Scope) -> None:
    bodies: list[Sequence[ast.stmt]] = []
    rest: Sequence[ast.stmt] = [statement]
    while len(rest) == 1 and isinstance(step := rest[0], ast.If):  # a loop, since `elif` may go on for hundreds
        if not _never_on_import(step.test):
            bodies.append(step.body)
        rest = step.orelse
    _choose(scope, *bodies, rest)


def _never_on_import(test: ast.expr) -> bool:
    """`if __name__ == "__main__":` and `if TYPE_CHECKING:`: Prefect never sees what they define."""
    match test:
        case ast.Compare(left=ast.Name(id="__name__"), ops=[ast.Eq()], comparators=[ast.Constant(value="__main__")]):
            return True
        case ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
            return True
    return False


def _attempt(statement: ast.Try | ast.TryStar, scope: _Scope) -> None:
    _choose(scope, [*statement.body, *statement.orelse], *(handler.body for handler in statement.handlers))
    _run(statement.finalbody, scope)


def _match(statement: ast.Match, scope: _Scope) -> None:
    _choose(scope, *(case.body for case in statement.cases), [])


def _with(statement: ast.With | ast.AsyncWith, scope: _Scope) -> None:
    for item in statement.items:
        if item.optional_vars is not None:
            _forget(item.optional_vars, scope)
    _run(statement.body, scope)


def _loop(statement: ast.For | ast.AsyncFor | ast.While, scope: _Scope) -> None:
    _forget(statement, scope)  # what a round leaves for the next one is unknown to the first
    _run([*statement.body, *statement.orelse], scope)


def _choose(scope: _Scope, *bodies: Sequence[ast.stmt]) -> None:
    """Carry out alternatives, of which a run takes one, and keep what can be said whichever it takes.

    A name that one of them binds to something of Prefect's keeps that: people write `except ImportError: flow = None`
    and mean the other branch. Constants count only where all alternatives agree.
    """
    outcomes = []
    for body in bodies:
        outcome: _Scope = ChainMap(dict(scope.maps[0]), *scope.maps[1:])
        _run(body, outcome)
        outcomes.append(outcome.maps[0])
    for name in dict.fromkeys(name for outcome in outcomes for name in outcome):
        scope[name] = _settle([outcome[name] for outcome in outcomes if name in outcome])


def _settle(values: Sequence[_Value]) -> _Value:
    known = [value for value in values if not isinstance(value, _Unknown | _Constant)]
    of_prefect = (value for value in known if isinstance(value, FoundFlow) or _as_maker(value))
    return next(of_prefect, None) or next(iter(known), None) or _agreed(values)


def _agreed(values: Sequence[_Value]) -> _Value:
    return values[0] if all(value == values[0] for value in values) else _UNKNOWN


_STATEMENTS: Mapping[type[ast.stmt], Callable[[Any, _Scope], None]] = {
    ast.Import: _import,
    ast.ImportFrom: _import_from,
    ast.Assign: _assign,
    ast.AnnAssign: _assign,
    ast.AugAssign: _augment,
    ast.Delete: _delete,
    ast.FunctionDef: _define_function,
    ast.AsyncFunctionDef: _define_function,
    ast.ClassDef: _define_class,
    ast.If: _branch,
    ast.Try: _attempt,
    ast.TryStar: _attempt,
    ast.Match: _match,
    ast.With: _with,
    ast.AsyncWith: _with,
    ast.For: _loop,
    ast.AsyncFor: _loop,
    ast.While: _loop,
}


def evaluate(node: ast.expr, scope: _Scope) -> _Value:
    """What an expression is worth, as far as reading can tell.

    Args:
        node: the expression.
        scope: the names that are bound where it stands.

    Returns:
        Its value, or unknown.
    """
    try:
        return _evaluate(node, scope)
    except RecursionError:  # a chain of hundreds of calls or terms
        return _UNKNOWN


def _evaluate(node: ast.expr, scope: _Scope) -> _Value:
    match node:
        case ast.Name(id=name):
            return scope.get(name, _UNKNOWN)
        case ast.Attribute(value=owner, attr=name):
            return _attribute(evaluate(owner, scope), name)
        case ast.Call():
            return _call(node, scope)
        case ast.Lambda():
            return _Function(node)
        case ast.JoinedStr(values=parts):
            return _joined([_f_string_part(part, scope) for part in parts])
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _joined([evaluate(left, scope), evaluate(right, scope)])
    return _literal(node)


def _literal(node: ast.expr) -> _Value:
    try:
        return _Constant(ast.literal_eval(node))
    except (ValueError, TypeError, SyntaxError, MemoryError):
        return _UNKNOWN


def _attribute(owner: _Value, name: str) -> _Value:
    if isinstance(owner, _Imported):
        return _Imported(f"{owner.dotted}.{name}")
    if isinstance(owner, _Class):
        value = owner.names.get(name, _UNKNOWN)
        return _UNKNOWN if owner.has_bases and isinstance(value, _Constant) else value
    return _UNKNOWN


def _f_string_part(part: ast.expr, scope: _Scope) -> _Value:
    match part:
        case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
            return evaluate(value, scope)
        case ast.Constant():
            return _Constant(part.value)
    return _UNKNOWN


def _joined(parts: Sequence[_Value]) -> _Value:
    texts = [part.value for part in parts if isinstance(part, _Constant) and isinstance(part.value, str)]
    return _Constant("".join(texts)) if len(texts) == len(parts) else _UNKNOWN


def _call(call: ast.Call, scope: _Scope) -> _Value:
    if isinstance(call.func, ast.Attribute) and call.func.attr == "with_options":
        return _with_options(evaluate(call.func.value, scope), call, scope)
    if isinstance(call.func, ast.Name) and call.func.id in ("staticmethod", "classmethod") and call.args:
        return evaluate(call.args[0], scope)
    maker = _as_maker(evaluate(call.func, scope))
    if maker is None:
        return _UNKNOWN
    maker = _Maker({**maker.options, **_options(call, scope)})
    functions = [*call.args, *(word.value for word in call.keywords if word.arg == "fn")]
    return _make_flow(maker, evaluate(functions[0], scope), functions[0], call) if functions else maker


def _as_maker(value: _Value) -> _Maker | None:
    if isinstance(value, _Imported) and value.dotted in FLOW_MAKERS:
        return _Maker()
    return value if isinstance(value, _Maker) else None


def _make_flow(maker: _Maker, value: _Value, written: ast.AST, node: ast.stmt | ast.expr) -> FoundFlow:
    """The flow that `maker` makes of `value`; `written` is how the source names it, `node` where that happens."""
    function = value.node if isinstance(value, _Function) else None
    return FoundFlow(
        fallback_name=_default_name(function or written),
        options=maker.options,
        parameters=tuple(_parameters(function.args)) if function else None,
        docstring="" if function is None or isinstance(function, ast.Lambda) else ast.get_docstring(function) or "",
        is_async=isinstance(function, ast.AsyncFunctionDef),
        line_number=node.lineno,
        end_line_number=node.end_lineno or node.lineno,
    )


def _default_name(node: ast.AST) -> str:
    """The name that Prefect gives to a flow by its function."""
    match node:
        case (
            ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.Name(id=name) | ast.Attribute(attr=name)
        ):
            return name.replace("_", "-")
    return "unknown-lambda"


def _with_options(base: _Value, call: ast.Call, scope: _Scope) -> _Value:
    """A copy of a flow with other options. An empty name or description leaves the old one."""
    if not isinstance(base, FoundFlow):
        return _UNKNOWN
    options = _options(call, scope)
    if "**" in options:
        options.setdefault("name", replace(options["**"], value=_UNKNOWN))
    changed = {
        name: option for name, option in options.items() if not (name in ("name", "description") and option.is_empty)
    }
    end = call.end_lineno or call.lineno
    return replace(base, options={**base.options, **changed}, line_number=call.lineno, end_line_number=end)


def _options(call: ast.Call, scope: _Scope) -> dict[str, _Option]:
    """The keyword arguments of a call; a mapping that is written out is unpacked."""
    options: dict[str, _Option] = {}
    for word in call.keywords:
        value = evaluate(word.value, scope)
        if word.arg is not None:
            known = value if isinstance(value, _Constant) else _UNKNOWN
            options[word.arg] = _Option(known, _shown(word.value))
        elif isinstance(value, _Constant) and isinstance(value.value, dict):
            options |= {str(name): _Option(_Constant(item), _plain(item)) for name, item in value.value.items()}
        else:
            options["**"] = _Option(_UNKNOWN, _source_text(word.value))
    options.pop("fn", None)
    return options


def _shown(node: ast.expr) -> Any:
    """An argument as metadata shows it: the literal, else the source text."""
    literal = _literal(node)
    return _plain(literal.value) if isinstance(literal, _Constant) else _source_text(node)


def _plain(value: Any) -> Any:
    """The value in terms of JSON; what JSON does not have, as text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return repr(value)

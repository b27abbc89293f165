"""A small interpreter of what a module binds at its top level, for one question: which of it are flows?

It runs over a module's statements the way Python would, but knows few kinds of values (`flow_values`): what came from
an import, constants, functions, classes, Prefect's `flow` and the flows that it makes. All else is unknown. Functions
of the repository are followed when they are called at the top level, since a factory or a decorator of one's own may
make a flow; what a function defines for itself is no flow. Nothing is imported or executed.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from orchestrator.flow_values import (
    FLOW_MAKERS,
    MOST_BITS,
    UNKNOWN,
    Class,
    Constant,
    FoundFlow,
    Function,
    Imported,
    Keywords,
    Maker,
    Option,
    Options,
    Partial,
    Scope,
    Several,
    Unknown,
    Value,
    Wrapping,
    key_text,
    parameters_of,
    plain,
    source_text,
)

LONGEST_TEXT = 1000  # characters; a source that doubles a text line by line fills the memory otherwise
_RESOLVED_OPTIONS = frozenset({"name", "description", "tags", "retries"})
_CONTAINERS = (list, tuple, dict, set)  # one by name within another, doubled line by line, would fill the memory, too
_WITH_FLOW = ("prefect", "prefect.flows")
_FUNCTOOLS = frozenset({"functools.partial", "functools.wraps"})
_WITH_OWN_NAMES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_TEXT_METHODS = frozenset(
    {"lower", "upper", "title", "capitalize", "strip", "lstrip", "rstrip", "replace", "removeprefix", "removesuffix"}
)

# ---------------------------------------------------------------------------------------------------------
# Statements
# ---------------------------------------------------------------------------------------------------------


def run(body: Sequence[ast.stmt], scope: Scope) -> bool:
    """Carry out statements: bind in `scope` what they bind.

    Args:
        body: the statements.
        scope: where they stand.

    Returns:
        Whether they surely end with `return` or `raise`, so that what follows them is never reached.
    """
    for statement in body:
        handler = _STATEMENTS.get(type(statement))
        if handler and handler(statement, scope):
            return True
    return False


def _import(statement: ast.Import, scope: Scope) -> None:
    for alias in statement.names:
        # `import a.b` binds `a`; `import a.b as c` binds a.b
        name, dotted = (alias.asname, alias.name) if alias.asname else [alias.name.split(".")[0]] * 2
        scope.names[name] = Imported(dotted)


def _import_from(statement: ast.ImportFrom, scope: Scope) -> None:
    prefix = f"{statement.module}." if statement.module else ""
    for alias in statement.names:
        if alias.name == "*":
            names = _names_of_star(statement, scope)
            scope.names.update({name: Imported(prefix + name, statement.level) for name in names})
        else:
            scope.names[alias.asname or alias.name] = Imported(prefix + alias.name, statement.level)
            if statement.module in _WITH_FLOW and not statement.level and _is_misspelt_flow(alias.name):
                scope.place.modules.doubt("not-in-prefect", alias.name, alias.lineno, scope)


def _is_misspelt_flow(name: str) -> bool:
    """Is this surely no name of Prefect's, but nearly the one that makes flows? What else Prefect has, its versions
    differ in."""
    return name.lower() not in ("flow", "flows") and bool(get_close_matches(name, ["flow"], cutoff=0.7))


def _names_of_star(statement: ast.ImportFrom, scope: Scope) -> Sequence[str]:
    if statement.module in _WITH_FLOW:
        return ("flow", "Flow")
    module = Imported(statement.module or "", statement.level)
    return scope.place.modules.public_names(module, scope.place)


def _assign(statement: ast.Assign | ast.AnnAssign, scope: Scope) -> None:
    if statement.value is None:
        return  # an annotation alone binds nothing
    value = evaluate(statement.value, scope)
    for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
        _bind(target, value, scope)


def _bind(target: ast.expr, value: Value, scope: Scope) -> None:
    if isinstance(target, ast.Name):
        scope.names[target.id] = value
    elif isinstance(target, ast.Tuple | ast.List) and (parts := _dealt(_items(value), target.elts)):
        for element, part in zip(target.elts, parts, strict=True):
            _bind(element.value if isinstance(element, ast.Starred) else element, part, scope)
    else:
        _forget(target, scope)


def _dealt(parts: tuple[Value, ...], targets: Sequence[ast.expr]) -> tuple[Value, ...]:
    """What each of several targets gets; nothing where they do not match. A starred one takes what is left over."""
    starred = next((index for index, target in enumerate(targets) if isinstance(target, ast.Starred)), None)
    if starred is None:
        return parts if len(parts) == len(targets) else ()
    left_over = len(parts) - len(targets) + 1
    if left_over < 0:
        return ()
    return (*parts[:starred], Several(parts[starred : starred + left_over]), *parts[starred + left_over :])


def _items(value: Value) -> tuple[Value, ...]:
    """The members of a sequence whose members are known."""
    if isinstance(value, Several):
        return value.items
    if isinstance(value, Constant) and isinstance(value.value, tuple | list):
        return tuple(Constant(item) for item in value.value)
    return ()


def _forget(node: ast.AST, scope: Scope) -> None:
    """All names that `node` binds hold something unknown from now on; not those inside functions and classes."""
    waiting = [node]
    while waiting:
        child = waiting.pop()
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            scope.names[child.id] = UNKNOWN
        if not isinstance(child, _WITH_OWN_NAMES):
            waiting += ast.iter_child_nodes(child)


def _augment(statement: ast.AugAssign, scope: Scope) -> None:
    _forget(statement.target, scope)


def _delete(statement: ast.Delete, scope: Scope) -> None:
    for target in statement.targets:
        if isinstance(target, ast.Name):
            scope.names.pop(target.id, None)


def _return(statement: ast.Return, scope: Scope) -> bool:
    scope.returned.append(evaluate(statement.value, scope) if statement.value else Constant(None))
    return True


def _raise(statement: ast.Raise, scope: Scope) -> bool:
    return True


def _define_function(statement: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope) -> None:
    value: Value = Function(statement, scope)
    for decorator in reversed(statement.decorator_list):
        found = known(evaluate(decorator, scope), scope)
        if isinstance(found, Unknown):
            _doubt(decorator, scope)
        value = _decorated(value, found, statement, scope)
    scope.names[statement.name] = value


def _doubt(called: ast.expr, scope: Scope) -> None:
    """Note something that is called, or used as a decorator, whose name nothing binds that has been read so far."""
    root = called
    while isinstance(root, ast.Call | ast.Attribute):
        root = root.func if isinstance(root, ast.Call) else root.value
    if isinstance(root, ast.Name) and not scope.has(root.id):
        scope.place.modules.doubt("undefined", root.id, root.lineno, scope)


def _decorated(value: Value, decorator: Value, statement: ast.stmt, scope: Scope) -> Value:
    """What a decorator makes of a function. One that is unknown is taken for one that changes nothing of interest."""
    if not isinstance(decorator, Maker | Wrapping | Function | Partial):
        return value
    made = _apply(decorator, (value,), {}, scope, written=statement)
    return value if isinstance(made, Unknown) else _placed(made, statement)


def _placed(value: Value, node: ast.stmt | ast.expr) -> Value:
    """A flow that a function made belongs to the line that called the function."""
    lines = node.lineno, node.end_lineno or node.lineno
    if isinstance(value, FoundFlow) and (value.line_number, value.end_line_number) != lines:
        return replace(value, line_number=lines[0], end_line_number=lines[1])
    return value


def _define_class(statement: ast.ClassDef, scope: Scope) -> None:
    inner = scope.inner()
    run(statement.body, inner)
    scope.names[statement.name] = Class(inner.names, bool(statement.bases or statement.keywords))


def _branch(statement: ast.If, scope: Scope) -> bool:
    bodies: list[Sequence[ast.stmt]] = []
    rest: Sequence[ast.stmt] = [statement]
    while len(rest) == 1 and isinstance(step := rest[0], ast.If):  # a loop, since `elif` may go on for hundreds
        _bind_inside(step.test, scope)
        holds = _truth(step.test, scope)
        if holds is not False:
            bodies.append(step.body)
        rest = () if holds else step.orelse
        if holds:
            break
    else:
        bodies.append(rest)
    return _choose(scope, *bodies)


def _bind_inside(test: ast.expr, scope: Scope) -> None:
    """The names that a condition binds: `if found := flow(work):`."""
    parts = [test.left, *test.comparators] if isinstance(test, ast.Compare) else [test]
    for part in parts:
        if not isinstance(part, ast.Name | ast.Attribute | ast.Constant):
            for node in ast.walk(part):
                if isinstance(node, ast.NamedExpr):
                    evaluate(node, scope)


def _expression(statement: ast.Expr, scope: Scope) -> None:
    if isinstance(statement.value, ast.NamedExpr):
        evaluate(statement.value, scope)


def _truth(test: ast.expr, scope: Scope) -> bool | None:
    """Whether a condition holds, as far as reading can tell."""
    match test:
        case ast.Compare(left=ast.Name(id="__name__"), ops=[ast.Eq()], comparators=[ast.Constant(value="__main__")]):
            return False  # Prefect never runs a flow's file as __main__
        case ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
            return False
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            holds = _truth(operand, scope)
            return None if holds is None else not holds
        case ast.Compare(left=left, ops=[ast.Is() | ast.IsNot() as operator], comparators=[ast.Constant(value=None)]):
            value = known(evaluate(left, scope), scope)
            if isinstance(value, Unknown | Imported):
                return None
            is_none = isinstance(value, Constant) and value.value is None
            return is_none if isinstance(operator, ast.Is) else not is_none
        case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq() as operator], comparators=[right]) if scope.outer:
            one, other = (known(evaluate(side, scope), scope) for side in (left, right))
            if isinstance(one, Constant) and isinstance(other, Constant):
                return (one == other) is isinstance(operator, ast.Eq)
            return None
    # At the top level a constant is a switch that people turn: both sides count.
    return _truth_of(evaluate(test, scope)) if scope.outer else None


def _truth_of(value: Value) -> bool | None:
    if isinstance(value, Constant):
        return bool(value.value)
    return True if isinstance(value, Function | Maker | Partial | FoundFlow | Class) else None


def _attempt(statement: ast.Try | ast.TryStar, scope: Scope) -> bool:
    ends = _choose(scope, [*statement.body, *statement.orelse], *(handler.body for handler in statement.handlers))
    return run(statement.finalbody, scope) or ends


def _match(statement: ast.Match, scope: Scope) -> bool:
    return _choose(scope, *(case.body for case in statement.cases), [])


def _with(statement: ast.With | ast.AsyncWith, scope: Scope) -> bool:
    for item in statement.items:
        if item.optional_vars is not None:
            _forget(item.optional_vars, scope)
    return run(statement.body, scope)


def _loop(statement: ast.For | ast.AsyncFor | ast.While, scope: Scope) -> None:
    before = {*scope.names}
    _forget(statement, scope)  # what a round leaves for the next one is unknown to the first
    for name in scope.names.keys() - before if scope.outer is None else ():
        del scope.names[name]  # its place among the names is where it is bound: the first name of a flow counts
    run([*statement.body, *statement.orelse], scope)


def _choose(scope: Scope, *bodies: Sequence[ast.stmt]) -> bool:
    """Carry out alternatives, of which a run takes one, and keep what can be said whichever it takes.

    A name that one of them binds to something of Prefect's keeps that: people write `except ImportError: flow = None`
    and mean the other branch. Constants count only where all alternatives agree. Says whether all of them end with
    `return` or `raise`; what such an alternative binds does not count.
    """
    if len(bodies) == 1:
        return run(bodies[0], scope)
    outcomes = []
    for body in bodies:
        outcome = scope.branch()
        with scope.place.modules.perhaps():
            ends = run(body, outcome)
        if not ends:
            outcomes.append(outcome.names)
    for name in dict.fromkeys(name for outcome in outcomes for name in outcome):
        scope.names[name] = _settle([outcome[name] for outcome in outcomes if name in outcome], scope)
    return not outcomes


def _settle(values: Sequence[Value], scope: Scope) -> Value:
    if all(value is values[0] for value in values):
        return values[0]
    candidates = [value for value in values if not isinstance(value, Unknown | Constant)]
    of_prefect = (value for value in candidates if isinstance(known(value, scope), FoundFlow | Maker))
    return next(of_prefect, None) or next(iter(candidates), None) or _agreed(values)


def _agreed(values: Sequence[Value]) -> Value:
    return values[0] if all(value == values[0] for value in values) else UNKNOWN


_STATEMENTS: Mapping[type[ast.stmt], Callable[[Any, Scope], bool | None]] = {
    ast.Import: _import,
    ast.ImportFrom: _import_from,
    ast.Assign: _assign,
    ast.AnnAssign: _assign,
    ast.AugAssign: _augment,
    ast.Delete: _delete,
    ast.Expr: _expression,
    ast.Return: _return,
    ast.Raise: _raise,
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

# ---------------------------------------------------------------------------------------------------------
# Expressions
# ---------------------------------------------------------------------------------------------------------


def evaluate(node: ast.expr, scope: Scope) -> Value:
    """What an expression is worth, as far as reading can tell.

    Args:
        node: the expression.
        scope: the names that are bound where it stands.

    Returns:
        Its value, or unknown. What is imported stays a name: `known` looks behind it.
    """
    try:
        return _evaluate(node, scope)
    except RecursionError:  # a chain of hundreds of calls or terms
        return UNKNOWN


def known(value: Value, scope: Scope) -> Value:
    """The value behind an imported name, where it is Prefect's `flow` or something of the repository."""
    if isinstance(value, Imported):
        value = scope.place.modules.value_of(value, scope.place)
    if isinstance(value, Imported) and not value.level and value.dotted in FLOW_MAKERS:
        return Maker()
    return value


def _evaluate(node: ast.expr, scope: Scope) -> Value:
    match node:
        case ast.Constant(value=value):
            return Constant(value)
        case ast.Name(id=name):
            return scope.get(name)
        case ast.Attribute(value=owner, attr=name):
            return attribute_of(evaluate(owner, scope), name)
        case ast.Call():
            return _call(node, scope)
        case ast.Lambda():
            return Function(node, scope)
        case ast.JoinedStr(values=parts):
            return _joined([_f_string_part(part, scope) for part in parts])
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _joined([known(evaluate(left, scope), scope), known(evaluate(right, scope), scope)])
        case ast.BoolOp(op=operator, values=operands):
            return _either(operands, scope, stops_at=isinstance(operator, ast.Or))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _chosen(_truth(test, scope), body, orelse, scope)
        case ast.NamedExpr(target=ast.Name(id=name), value=value):
            scope.names[name] = bound = evaluate(value, scope)
            return bound
        case ast.Subscript(value=container, slice=key):
            return _item(known(evaluate(container, scope), scope), known(evaluate(key, scope), scope))
    literal = _literal(node)
    if isinstance(literal, Unknown) and isinstance(node, ast.Tuple | ast.List | ast.Set):
        return _collected(node, scope)
    if isinstance(literal, Unknown) and isinstance(node, ast.Dict):
        return _mapping(node, scope)
    return literal


def _mapping(node: ast.Dict, scope: Scope) -> Value:
    """A dictionary that is not a literal as a whole: `{"retries": 2, **more}`."""
    options: dict[str, Option] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        inner = known(evaluate(value, scope), scope)
        if key is None:
            options |= _unpacked(inner, value)
        elif isinstance(key, ast.Constant) and isinstance(key.value, str):
            options[key.value] = Option(inner, _shown(value, inner))
        else:
            options["**"] = Option(UNKNOWN, source_text(key))
    return Keywords(options)


def _unpacked(value: Value, written: ast.expr) -> dict[str, Option]:
    """What `**value` gives; `**` stands for what is not known."""
    if isinstance(value, Keywords):
        return dict(value.options)
    if isinstance(value, Constant) and isinstance(value.value, dict):
        return {key_text(name): Option(Constant(item), plain(item)) for name, item in value.value.items()}
    return {"**": Option(UNKNOWN, source_text(written))}


def _collected(node: ast.Tuple | ast.List | ast.Set, scope: Scope) -> Value:
    """A tuple, list or set that is not a literal as a whole; its members may still be known."""
    items = tuple(known(evaluate(item, scope), scope) for item in node.elts)
    scalars = [item.value for item in items if isinstance(item, Constant) and not isinstance(item.value, _CONTAINERS)]
    return Constant(scalars) if len(scalars) == len(items) else Several(items)


def _literal(node: ast.expr) -> Value:
    try:
        return Constant(ast.literal_eval(node))
    except (ValueError, TypeError, SyntaxError, MemoryError):
        return UNKNOWN


def attribute_of(owner: Value, name: str) -> Value:
    """What a class of the repository, or something imported, holds under a name."""
    if isinstance(owner, Imported):
        return Imported(f"{owner.dotted}.{name}" if owner.dotted else name, owner.level)
    if isinstance(owner, Function) and name == "__name__" and not isinstance(owner.shown, ast.Lambda):
        return Constant(owner.shown.name)
    if isinstance(owner, Class):
        value = owner.names.get(name, UNKNOWN)
        return UNKNOWN if owner.has_bases and isinstance(value, Constant) else value
    return UNKNOWN


def _f_string_part(part: ast.expr, scope: Scope) -> Value:
    match part:
        case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
            inner = known(evaluate(value, scope), scope)
            if isinstance(inner, Constant) and isinstance(inner.value, int):
                return Constant(str(inner.value)) if inner.value.bit_length() <= MOST_BITS else UNKNOWN
            return inner
        case ast.Constant():
            return Constant(part.value)
    return UNKNOWN


def _joined(parts: Sequence[Value]) -> Value:
    texts = [part.value for part in parts if isinstance(part, Constant) and isinstance(part.value, str)]
    if len(texts) != len(parts) or sum(map(len, texts)) > LONGEST_TEXT:
        return UNKNOWN
    return Constant("".join(texts))


def _either(operands: Sequence[ast.expr], scope: Scope, *, stops_at: bool) -> Value:
    """`a or b` (stops at the first true one) and `a and b` (at the first false one)."""
    for operand in operands[:-1]:
        value = known(evaluate(operand, scope), scope)
        holds = _truth_of(value)
        if holds is None:
            return UNKNOWN
        if holds is stops_at:
            return value
    return known(evaluate(operands[-1], scope), scope)


def _chosen(holds: bool | None, body: ast.expr, orelse: ast.expr, scope: Scope) -> Value:
    if holds is None:
        with scope.place.modules.perhaps():
            return _settle([evaluate(body, scope), evaluate(orelse, scope)], scope)
    return evaluate(body if holds else orelse, scope)


def _item(container: Value, key: Value) -> Value:
    if not isinstance(key, Constant):
        return UNKNOWN
    if isinstance(container, Keywords):
        return _keyword(container, key, UNKNOWN)
    if isinstance(container, Constant):
        try:
            return Constant(container.value[key.value])
        except (TypeError, LookupError, ValueError):
            return UNKNOWN
    items = _items(container)
    inside = isinstance(key.value, int) and -len(items) <= key.value < len(items)
    return items[key.value] if inside else UNKNOWN


# ---------------------------------------------------------------------------------------------------------
# Calls
# ---------------------------------------------------------------------------------------------------------


def _call(call: ast.Call, scope: Scope) -> Value:
    if isinstance(call.func, ast.Attribute):
        owner = evaluate(call.func.value, scope)  # once: chains of calls would take exponential time
        special = _call_method(known(owner, scope), call.func.attr, call, scope)
        if special is not None:
            return special
        callee = known(attribute_of(owner, call.func.attr), scope)
    else:
        callee = known(evaluate(call.func, scope), scope)
    if isinstance(callee, Unknown):
        _doubt(call.func, scope)
    if isinstance(callee, Unknown) and isinstance(call.func, ast.Name):
        return _call_builtin(call.func.id, call, scope)
    foreign = isinstance(callee, Imported) and callee.dotted not in _FUNCTOOLS
    if foreign or isinstance(callee, Unknown | Constant | Class):
        return UNKNOWN
    arguments = tuple(UNKNOWN if isinstance(each, ast.Starred) else evaluate(each, scope) for each in call.args)
    made = _apply(callee, arguments, options_of(call, scope), scope, written=call)
    return _placed(made, call)


def _call_method(owner: Value, name: str, call: ast.Call, scope: Scope) -> Value | None:
    """The methods of values that are known here; None for any other call."""
    if name == "with_options":
        return _with_options(owner, call, scope)
    if isinstance(owner, Constant) and isinstance(owner.value, str):
        return _text_method(owner.value, name, call, scope)
    if isinstance(owner, Keywords) and name in ("get", "pop") and call.args:
        default = evaluate(call.args[1], scope) if len(call.args) > 1 else Constant(None)
        return _keyword(owner, evaluate(call.args[0], scope), default)
    return None


def _call_builtin(name: str, call: ast.Call, scope: Scope) -> Value:
    """The few builtins that people put between a function and a flow."""
    if name in ("staticmethod", "classmethod") and call.args:
        return evaluate(call.args[0], scope)
    return Keywords(options_of(call, scope)) if name == "dict" and not call.args else UNKNOWN


def _keyword(keywords: Keywords, key: Value, default: Value) -> Value:
    """`kwargs.get(key, default)`."""
    if not isinstance(key, Constant) or not isinstance(key.value, str):
        return UNKNOWN
    if option := keywords.options.get(key.value):
        return option.value
    return UNKNOWN if "**" in keywords.options else default


def _apply(
    callee: Value, arguments: tuple[Value, ...], options: Options, scope: Scope, written: ast.stmt | ast.expr
) -> Value:
    """Call something with arguments; `written` is where that happens."""
    match callee:
        case Maker():
            return _call_maker(callee, arguments, options, scope, written)
        case Partial():
            given = {**callee.options, **options}
            return _apply(known(callee.callee, scope), (*callee.arguments, *arguments), given, scope, written)
        case Function():
            return _call_function(callee, arguments, options, scope, written)
        case Wrapping() if arguments:
            return _wrapped(arguments[0], known(callee.function, scope))
        case Imported(dotted="functools.partial", level=0) if arguments:
            return Partial(arguments[0], arguments[1:], options)
        case Imported(dotted="functools.wraps", level=0) if arguments:
            return Wrapping(arguments[0])
    return UNKNOWN


def _wrapped(value: Value, original: Value) -> Value:
    if isinstance(value, Function) and isinstance(original, Function):
        return replace(value, wraps=original)
    return value


def _call_maker(
    maker: Maker, arguments: Sequence[Value], options: Options, scope: Scope, written: ast.stmt | ast.expr
) -> Value:
    """`flow(function, …)` makes a flow; `flow(…)` alone waits for the function, whatever it is called with."""
    given = {**maker.options, **options}
    function = arguments[0] if arguments else given.pop("fn", Option(UNKNOWN, None)).value
    has_function = bool(arguments) or "fn" in maker.options or "fn" in options
    if isinstance(function, Constant) and function.value is None:
        has_function = False  # how a decorator that may be called with or without brackets passes on "not yet"
    if not has_function:
        return Maker(given)
    if isinstance(function, Constant):
        scope.place.modules.doubt("no-function", repr(plain(function.value)), written.lineno, scope)
        return UNKNOWN
    return _make_flow(given, known(function, scope), written)


def _make_flow(options: Options, value: Value, written: ast.stmt | ast.expr) -> Value:
    """The flow that `flow` makes of a function, which is unknown where it comes from elsewhere."""
    function = value.shown if isinstance(value, Function) else None
    return FoundFlow(
        fallback_name=_default_name(function or _named_in(written)),
        options=options,
        parameters=tuple(parameters_of(function.args)) if function else None,
        docstring="" if function is None or isinstance(function, ast.Lambda) else ast.get_docstring(function) or "",
        is_async=isinstance(value, Function) and isinstance(value.node, ast.AsyncFunctionDef),
        takes_self=function is not None and [each.arg for each in _positional(function.args)[:1]] == ["self"],
        line_number=written.lineno,
        end_line_number=written.end_lineno or written.lineno,
    )


def _positional(signature: ast.arguments) -> list[ast.arg]:
    return [*signature.posonlyargs, *signature.args]


def _named_in(written: ast.stmt | ast.expr) -> ast.AST:
    """What a call names as the function, for the guess at the flow's name."""
    if isinstance(written, ast.Call):
        named = [*written.args, *(word.value for word in written.keywords if word.arg == "fn")]
        return named[0] if named else written
    return written


def _default_name(node: ast.AST) -> str:
    """The name that Prefect gives to a flow by its function."""
    match node:
        case (
            ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.Name(id=name) | ast.Attribute(attr=name)
        ):
            return name.replace("_", "-")
    return "unknown-lambda"


def _call_function(
    function: Function, arguments: Sequence[Value], options: Options, caller: Scope, written: ast.stmt | ast.expr
) -> Value:
    """What a function of the repository returns: a flow or a decorator, if anything that counts here."""
    with caller.place.modules.call(caller, written.lineno) as may_follow:
        if not may_follow or isinstance(function.node, ast.AsyncFunctionDef):
            return UNKNOWN
        inner = function.scope.inner(_bound(function, arguments, options))
        if isinstance(function.node, ast.Lambda):
            return known(evaluate(function.node.body, inner), inner)
        if _is_generator(function.node):
            return UNKNOWN
        run(function.node.body, inner)
        return _returned([known(value, inner) for value in inner.returned])


def _is_generator(function: ast.FunctionDef) -> bool:
    statements = (statement for statement in function.body if isinstance(statement, ast.Expr))
    return any(isinstance(statement.value, ast.Yield | ast.YieldFrom) for statement in statements)


def _returned(values: Sequence[Value]) -> Value:
    """The one value that matters of those that a function may return. Flows of different names are one flow whose
    name is not known."""
    flows = [value for value in values if isinstance(value, FoundFlow)]
    if flows:
        same = all((flow.name, flow.name_is_static) == (flows[0].name, flows[0].name_is_static) for flow in flows)
        unknown_name = {**flows[0].options, "name": Option(UNKNOWN, None)}
        return flows[0] if same else replace(flows[0], options=unknown_name)
    callables = (value for value in values if isinstance(value, Function | Maker | Partial))
    return next(callables, None) or (_agreed(values) if values else UNKNOWN)


def _bound(function: Function, arguments: Sequence[Value], options: Options) -> dict[str, Value]:
    """A function's parameters with what a call gives them, else their defaults."""
    signature = function.node.args
    positional = [parameter.arg for parameter in (*signature.posonlyargs, *signature.args)]
    names = dict(_defaults(function))
    names.update(zip(positional, arguments, strict=False))
    accepted = {*positional, *(parameter.arg for parameter in signature.kwonlyargs)}
    names.update({name: option.value for name, option in options.items() if name in accepted})
    if signature.vararg:
        names[signature.vararg.arg] = Several(tuple(arguments[len(positional) :]))
    if signature.kwarg:
        names[signature.kwarg.arg] = Keywords({n: option for n, option in options.items() if n not in accepted})
    return {**dict.fromkeys(accepted, UNKNOWN), **names}


def _defaults(function: Function) -> Iterator[tuple[str, Value]]:
    signature = function.node.args
    positional = [*signature.posonlyargs, *signature.args]
    with_default = positional[len(positional) - len(signature.defaults) :]
    for parameter, default in zip(with_default, signature.defaults, strict=True):
        yield parameter.arg, evaluate(default, function.scope)
    for parameter, keyword_default in zip(signature.kwonlyargs, signature.kw_defaults, strict=True):
        if keyword_default is not None:
            yield parameter.arg, evaluate(keyword_default, function.scope)


def _with_options(base: Value, call: ast.Call, scope: Scope) -> Value:
    """A copy of a flow with other options. An empty name or description leaves the old one."""
    if not isinstance(base, FoundFlow):
        return UNKNOWN
    options = options_of(call, scope)
    if "**" in options:
        options.setdefault("name", replace(options["**"], value=UNKNOWN))
    changed = {
        name: option for name, option in options.items() if not (name in ("name", "description") and option.is_empty)
    }
    return _placed(replace(base, options={**base.options, **changed}, is_copy="name" not in changed), call)


def _text_method(text: str, name: str, call: ast.Call, scope: Scope) -> Value:
    """A method of a text that is known, as people use them to put names together."""
    values = [known(evaluate(each, scope), scope) for each in call.args]
    texts = [each.value for each in values if isinstance(each, Constant) and isinstance(each.value, str)]
    if name not in _TEXT_METHODS or call.keywords or len(texts) != len(call.args) or len(text) > LONGEST_TEXT:
        return UNKNOWN
    try:
        return _joined([Constant(getattr(text, name)(*texts))])
    except TypeError:  # the wrong number of arguments
        return UNKNOWN


def options_of(call: ast.Call, scope: Scope) -> dict[str, Option]:
    """The keyword arguments of a call; a mapping that is written out is unpacked."""
    options: dict[str, Option] = {}
    for word in call.keywords:
        value = evaluate(word.value, scope)
        if word.arg is not None:
            value = known(value, scope) if word.arg in _RESOLVED_OPTIONS else value
            options[word.arg] = Option(value, _shown(word.value, value), (scope.place.path, word.lineno))
            continue
        options |= _unpacked(known(value, scope), word.value)
    return options


def _shown(node: ast.expr, value: Value) -> Any:
    """An argument as metadata shows it: its value where that is known, else the source text."""
    return plain(value.value) if isinstance(value, Constant) else source_text(node)

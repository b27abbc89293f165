"""The flows of one file, found by reading it and, where it takes names from them, other files of the repository.

    FlowReader.flows_of   a file → the flows that it binds at its top level or in its classes

Whatever cannot be known by reading is said to be unknown (`name_is_static`, `signature_is_static`), never guessed.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from orchestrator.bindings import names_anywhere_in
from orchestrator.closure import ImportGraph
from orchestrator.flow_values import (
    UNKNOWN,
    Class,
    Constant,
    Doubt,
    DoubtKind,
    FoundFlow,
    Imported,
    ModulePlace,
    Scope,
    Unknown,
    Value,
    source_text,
)
from orchestrator.interpreter import attribute_of, run
from orchestrator.model import Parameter
from orchestrator.repository import folder_of
from orchestrator.sources import SourceFiles

MOST_CALLS = 5000  # of functions that are followed for one module; no module of people's needs as many
DEEPEST_CALLS = 12  # of functions by functions, for one module
DEEPEST_NESTED_CALLS = 36  # with modules that are first read amid a call; the stack is far from its end then
LONGEST_TRAIL = 30  # imports that lead to imports


class SourceFlow(NamedTuple):
    """A flow as one file's source states it. It keeps nothing of the syntax tree."""

    name: str
    function_name: str  # what it is bound to: `name`, `Class.method`
    line_number: int
    end_line_number: int
    name_is_static: bool
    signature_is_static: bool
    is_async: bool
    description: str
    tags: tuple[str, ...]
    retries: int | None
    needs_instance: bool  # a method that takes `self`
    is_copy: bool  # of another flow, by with_options, under the same name
    metadata: Mapping[str, Any]
    option_places: Mapping[str, tuple[str, int]]  # file and line of each argument
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True)
class FileFlows:
    """What was read of one file.

    Attributes:
        flows: in the order of their lines.
        doubts: what fails when the file is imported, so that flows of it may be lost.
    """

    flows: tuple[SourceFlow, ...] = ()
    doubts: tuple[Doubt, ...] = ()

    def as_plain(self) -> tuple[Any, ...]:
        """In plain values: tuples, dictionaries, texts and numbers."""
        return tuple(map(_plain_flow, self.flows)), tuple(map(tuple, self.doubts))

    @classmethod
    def from_plain(cls, values: tuple[Any, ...]) -> FileFlows:
        """What `as_plain` has made."""
        flows, doubts = values
        return cls(tuple(map(_flow_from, flows)), tuple(map(Doubt._make, doubts)))


def _plain_flow(flow: SourceFlow) -> tuple[Any, ...]:
    *others, parameters = flow
    plain = [(each.name, each.annotation, each.default, each.required, each.variadic) for each in parameters]
    return *others, tuple(plain)


def _flow_from(values: tuple[Any, ...]) -> SourceFlow:
    *others, plain = values
    parameters = [
        Parameter(name=name, annotation=annotation, default=default, required=required, variadic=variadic)
        for name, annotation, default, required, variadic in plain
    ]
    return SourceFlow._make((*others, tuple(parameters)))


class _Call(NamedTuple):
    """A call that is being followed."""

    path: str
    line_number: int
    is_sure: bool  # the function that it stands in has not perhaps returned before


@dataclass(slots=True)
class _Run:
    """The interpretation of one module, which says the same of it whoever asks for the module.

    Attributes:
        place: of the module; keeps what fails while the module is imported, wherever that is written.
        calls_left: that may be followed for it.
        calls: that are being followed, the innermost last.
        undecided: how many alternatives are open around what is being interpreted.
    """

    place: ModulePlace
    calls_left: int = MOST_CALLS
    calls: list[_Call] = field(default_factory=list)
    undecided: int = 0

    def may_skip(self, scope: Scope) -> bool:
        """Whether an import of the module perhaps never comes to where a called function has got to.

        At the top level of a module both sides of a switch count; a function decides by its arguments.
        """
        doubtful = self.undecided or scope.returned or not all(call.is_sure for call in self.calls)
        return bool(self.calls and doubtful)

    def line_that_led_to(self, path: str, line_number: int) -> int:
        """The line of the module from which a line of some file was reached."""
        calls = (call.line_number for call in reversed(self.calls) if call.path == self.place.path)
        return line_number if path == self.place.path else next(calls)


class FlowReader:
    """Reads the flows of a repository's files. Modules that several of them import are interpreted once.

    Args:
        sources: the repository's files.
        graph: their imports.
    """

    def __init__(self, sources: SourceFiles, graph: ImportGraph) -> None:
        self._sources, self._graph = sources, graph
        self._trees: dict[str, ast.Module] = {}
        self._scopes: dict[tuple[str, str], Scope] = {}
        self._consulted: set[tuple[str, str]] = set()
        self._values: dict[tuple[Imported, str, str], Value] = {}
        self._running: set[tuple[str, str]] = set()
        self._met_circle = False
        self._following: list[tuple[str, str, Imported]] = []
        self._runs: list[_Run] = []
        self._depth = 0

    def flows_of(self, path: str) -> tuple[SourceFlow, ...]:
        """The flows that a file binds, in the order of their lines. See `read`."""
        return self.read(path).flows

    def read(self, path: str) -> FileFlows:
        """What a file binds at its top level and in its classes.

        Args:
            path: relative to the root.

        Returns:
            Each flow once; one that has several names by its first. Nothing where the file cannot be parsed.
        """
        key = (path, folder_of(path))
        self._met_circle, scopes, values = False, len(self._scopes), len(self._values)
        tree = self._trees[path] if path in self._trees else self._sources[path].parse()
        scope = self._scopes.get(key) or self._run(tree, ModulePlace(self, *key))
        found: dict[str, FoundFlow] = {}
        _collect(scope.names, "", found)
        flows = sorted((_described(name, flow) for name, flow in found.items()), key=lambda flow: flow.line_number)
        doubts = self._justified(scope.place.doubts, path, tree)
        if key not in self._consulted:  # nobody imports it: a thousand trees would fill the memory
            self._scopes.pop(key, None)
            scope.place.forget()
        if self._met_circle:
            _cut(self._scopes, scopes)
            _cut(self._values, values)
        return FileFlows(tuple(flows), doubts)

    def _run(self, tree: ast.Module, place: ModulePlace) -> Scope:
        """Interpret a module, with calls of its own to spend."""
        key = (place.path, place.entry_folder)
        scope = self._scopes.setdefault(key, Scope(place))
        self._running.add(key)
        self._runs.append(_Run(place))
        try:
            _run_module(tree.body, scope)
        finally:
            self._runs.pop()
            self._running.discard(key)
        return scope

    def _justified(self, doubts: Sequence[Doubt], path: str, tree: ast.Module) -> tuple[Doubt, ...]:
        """The doubts that hold when whole modules are looked at: the interpreter does not follow every binding."""
        files = {each.cause[0] if each.cause else path for each in doubts if each.kind == "undefined"}
        names = {file: self._names_in(file, tree if file == path else self._tree_of(file)) for file in files}
        return _first_of_each([each for each in doubts if not _is_bound(each, names, path)])

    def _names_in(self, path: str, tree: ast.Module) -> frozenset[str] | None:
        return names_anywhere_in(tree, self._sources[path].content)

    # What an interpreter asks for: see flow_values.Modules.

    @contextmanager
    def call(self, caller: Scope, line_number: int) -> Iterator[bool]:
        run = self._runs[-1]
        run.calls_left -= 1
        run.calls.append(_Call(caller.place.path, line_number, is_sure=not caller.returned))
        self._depth += 1
        try:
            yield run.calls_left >= 0 and len(run.calls) <= DEEPEST_CALLS and self._depth <= DEEPEST_NESTED_CALLS
        finally:
            self._depth -= 1
            run.calls.pop()

    @contextmanager
    def perhaps(self) -> Iterator[None]:
        run = self._runs[-1]
        run.undecided += 1
        try:
            yield
        finally:
            run.undecided -= 1

    def doubt(self, kind: DoubtKind, name: str, line_number: int, scope: Scope) -> None:
        run, path = self._runs[-1], scope.place.path
        if not run.may_skip(scope):
            cause = None if path == run.place.path else (path, line_number)
            run.place.doubts.append(Doubt(kind, name, run.line_that_led_to(path, line_number), cause))

    def value_of(self, imported: Imported, module: ModulePlace) -> Value:
        if not imported.level and imported.dotted.partition(".")[0] in _FOREIGN:
            return imported
        key = (imported, module.path if imported.level else "", module.entry_folder)
        if key in self._values:
            return self._values[key]
        value = self._follow(imported, module)
        if not (self._following and isinstance(value, Unknown)):  # amid a circle, more may be known later
            self._values[key] = value
        return value

    def public_names(self, imported: Imported, module: ModulePlace) -> Sequence[str]:
        found = self._locate(imported, module)
        if found is None or found[1]:
            return ()
        names = self._scope_of(found[0], module.entry_folder).names
        listed = names.get("__all__")
        if isinstance(listed, Constant) and isinstance(listed.value, list | tuple):
            return [name for name in listed.value if isinstance(name, str)]
        return [name for name in names if not name.startswith("_")]

    def _follow(self, imported: Imported, module: ModulePlace) -> Value:
        """The value behind a name; unknown where it leads in circles."""
        step = (module.path, module.entry_folder, imported)
        if step in self._following or len(self._following) > LONGEST_TRAIL:
            return UNKNOWN
        found = self._locate(imported, module)
        if found is None:
            return imported
        self._following.append(step)
        try:
            if found[1]:
                return self._attribute(self._scope_of(found[0], module.entry_folder), found[1])
            return self._instead_of_module(imported, module) or imported
        finally:
            self._following.pop()

    def _instead_of_module(self, imported: Imported, module: ModulePlace) -> Value | None:
        """What a package itself binds to the name of one of its modules: it hides the module."""
        package, _, name = imported.dotted.rpartition(".")
        found = self._locate(replace(imported, dotted=package), module) if package or imported.level else None
        if found is None or found[1] or found[0] == module.path:
            return None
        scope = self._scope_of(found[0], module.entry_folder)
        value = self._known(scope.names.get(name, UNKNOWN), scope.place)
        return None if isinstance(value, Unknown | Imported) else value

    def _attribute(self, scope: Scope, attributes: Sequence[str]) -> Value:
        value = scope.names.get(attributes[0], UNKNOWN)
        for name in attributes[1:]:
            inner = self.value_of(value, scope.place) if isinstance(value, Imported) else value
            value = attribute_of(inner, name)
        return self._known(value, scope.place)

    def _known(self, value: Value, place: ModulePlace) -> Value:
        if not isinstance(value, Imported):
            return value
        behind = self.value_of(value, place)
        if isinstance(behind, Imported) and behind.level:
            return UNKNOWN  # a relative name means something else to who imports it
        return behind

    def _locate(self, imported: Imported, module: ModulePlace) -> tuple[str, tuple[str, ...]] | None:
        return self._graph.locate(imported.dotted, imported.level, module.path, module.entry_folder)

    def _scope_of(self, path: str, entry_folder: str) -> Scope:
        """What a module binds; of one that is being interpreted (they import one another), what it has bound yet."""
        key = (path, entry_folder)
        self._consulted.add(key)
        self._met_circle |= key in self._running
        if key not in self._scopes:
            self._run(self._tree_of(path), ModulePlace(self, path, entry_folder))
        return self._scopes[key]

    def _tree_of(self, path: str) -> ast.Module:
        if path not in self._trees:
            self._trees[path] = self._sources[path].parse()
        return self._trees[path]


_FOREIGN = sys.stdlib_module_names | {"prefect"}


def _run_module(body: Sequence[ast.stmt], scope: Scope) -> None:
    """Interpret a module's statements; where one of them surely ends it, say so if flows stand below it."""
    for index, statement in enumerate(body):
        if run([statement], scope):
            below = scope.branch()
            run(body[index + 1 :], below)
            if any(isinstance(value, FoundFlow) and name not in scope.names for name, value in below.names.items()):
                raised = source_text(statement.exc) if isinstance(statement, ast.Raise) else None
                text = f"raise {raised}" if raised else "raise"
                scope.place.doubts.append(Doubt("raises", text, statement.lineno))
            return


def _is_bound(doubt: Doubt, names_of: Mapping[str, frozenset[str] | None], path: str) -> bool:
    """Whether the name of a doubt in a file may be bound after all; None stands for names that cannot be known."""
    if doubt.kind != "undefined":
        return False
    names = names_of[doubt.cause[0] if doubt.cause else path]
    return names is None or doubt.name in names


def _first_of_each(doubts: Sequence[Doubt]) -> tuple[Doubt, ...]:
    first = {(each.kind, each.name, each.cause): each for each in sorted(doubts, key=lambda each: -each.line_number)}
    return tuple(sorted(first.values(), key=lambda each: (each.line_number, each.name)))


def _cut(known: dict[Any, Any], length: int) -> None:
    """Forget what was added last. What modules that import one another bind depends on which of them is read first, so
    it counts for the one file that was read."""
    for key in list(known)[length:]:
        del known[key]


def _collect(names: Mapping[str, Value], prefix: str, found: dict[str, FoundFlow]) -> None:
    for name, value in names.items():
        if isinstance(value, FoundFlow) and value not in found.values():
            found[prefix + name] = value
        elif isinstance(value, Class):
            _collect(value.names, f"{prefix}{name}.", found)


def _described(function_name: str, flow: FoundFlow) -> SourceFlow:
    return SourceFlow(
        name=flow.name,
        function_name=function_name,
        line_number=flow.line_number,
        end_line_number=flow.end_line_number,
        name_is_static=flow.name_is_static,
        signature_is_static=flow.parameters is not None,
        is_async=flow.is_async,
        description=flow.description,
        parameters=flow.parameters or (),
        tags=flow.tags,
        retries=flow.retries,
        is_copy=flow.is_copy,
        needs_instance=flow.takes_self and "." in function_name,
        option_places={name: option.place for name, option in flow.options.items() if option.place},
        metadata={name: option.shown for name, option in flow.options.items() if name != "fn"},
    )

"""YAML files read with the line of every key, so that a fault can say file:line.

Only plain data is constructed (PyYAML's safe loader): loading a file never runs code. What comes of it is what JSON
has, since that is what a server gets: a date is its ISO 8601 text, as `prefect deploy` sends it.
"""

from __future__ import annotations

import codecs
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from orchestrator.errors import ConfigurationError
from orchestrator.model import ValidationError

_DEEPEST = 4000  # levels; the C loader ends the process somewhere beyond

Location = tuple[str | int, ...]
"""The way to a value: ("work_pools", "python", "name"), with indexes for list items."""


class _Constructor(yaml.constructor.SafeConstructor):
    """Knows where a value stands that has the form of a number or a date and is none (`2024-13-45`)."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise yaml.MarkedYAMLError(problem=_no_value(node, error), problem_mark=node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Keys are text, as JSON has them."""
        return {_as_key(key): value for key, value in super().construct_mapping(node, deep).items()}

    def construct_moment(self, node: yaml.ScalarNode) -> str:
        """A date or time as ISO 8601 text, in the form of pydantic's JSON encoder."""
        moment: date = self.construct_yaml_timestamp(node)
        return moment.isoformat().replace("+00:00", "Z")

    def construct_bytes(self, node: yaml.ScalarNode) -> str:
        return str(self.construct_yaml_binary(node), "utf-8")

    def construct_members(self, node: yaml.MappingNode) -> list[Hashable]:
        """A set as the list of its members."""
        return list(self.construct_mapping(node))


class _Loader(_Constructor, yaml.SafeLoader):
    """In Python: its messages are the ones that people know."""


if yaml.__with_libyaml__ or TYPE_CHECKING:

    class _FastLoader(_Constructor, yaml.CSafeLoader):
        """In C: ten times as fast. It has no guard of its own against what nests too deep."""

else:
    _FastLoader = _Loader


def _add_constructors(loader: type[_Loader | _FastLoader]) -> None:
    loader.add_constructor("tag:yaml.org,2002:timestamp", loader.construct_moment)  # type: ignore[type-var]
    loader.add_constructor("tag:yaml.org,2002:binary", loader.construct_bytes)  # type: ignore[type-var]
    loader.add_constructor("tag:yaml.org,2002:set", loader.construct_members)  # type: ignore[type-var]


_add_constructors(_Loader)
_add_constructors(_FastLoader)


def _as_key(key: Hashable) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return "null" if key is None else str(key)


def _no_value(node: yaml.Node, error: Exception) -> str:
    kind = node.tag.rpartition(":")[2]
    return f"this is no {kind}: {error}; put it in quotes if it is text"


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """A parsed file: its data, and the line of each value."""

    path: str
    data: Any
    lines: Mapping[Location, int]

    def line(self, location: Sequence[str | int]) -> int:
        """The 1-based line of a value, or of the nearest thing around it that has one."""
        place = tuple(location)
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def has(self, location: Sequence[str | int]) -> bool:
        return tuple(location) in self.lines


def read_yaml(path: Path, *, shown_as: str) -> YamlDocument:
    """Read one YAML file.

    Args:
        path: the file.
        shown_as: how messages name it (relative to the repository's root).

    Returns:
        Its data and the line of every key. An empty file gives an empty mapping.

    Raises:
        ConfigurationError: it cannot be read, is no YAML, has a key twice or a date that is none (fault CFG001).
    """
    try:
        text = _text_of(path, shown_as)
        if _is_flat(text):
            with suppress(yaml.YAMLError, ValueError, RecursionError):  # the other one says better what is wrong
                return _read(_FastLoader(text), shown_as)
        return _read(_Loader(text), shown_as)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _unreadable(shown_as, error.problem or str(error), mark.line + 1 if mark else None) from error
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise _unreadable(shown_as, str(error) or type(error).__name__, None) from error


def _is_flat(text: str) -> bool:
    """Whether a text surely does not nest deep: every level takes a bracket, or another column of a line."""
    return max(map(len, text.splitlines()), default=0) + text.count("[") + text.count("{") < _DEEPEST


def _read(loader: _Loader | _FastLoader, shown_as: str) -> YamlDocument:
    node = loader.get_single_node()
    lines: dict[Location, int] = {}
    if node is None:
        return YamlDocument(shown_as, {}, lines)
    _refuse_explosion(node)
    _collect_lines(node, (), lines)
    return YamlDocument(shown_as, loader.construct_document(node), lines)


def _text_of(path: Path, shown_as: str) -> str:
    data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"it is not UTF-8 (byte 0x{data[error.start]:02x})"
        line = data.count(b"\n", 0, error.start) + 1
        raise _unreadable(shown_as, reason, line, "Save the file as UTF-8.") from error


MOST_BY_ALIASES = 100_000  # values


def _refuse_explosion(root: yaml.Node) -> None:
    """Raise where aliases (`*name`) stand for more values than anybody means, or for what holds them.

    Some lines of `a1: &a1 [*a0, *a0, *a0, *a0]` stand for more than fits into any memory. What is counted here is each
    value once, whatever leads to it, so counting does not meet them.
    """
    sizes: dict[yaml.Node, int] = {}  # by identity; of all that a node stands for
    waiting: list[tuple[yaml.Node, bool]] = [(root, False)]
    open_nodes: set[yaml.Node] = set()
    while waiting:
        node, inner_known = waiting.pop()
        if inner_known:
            open_nodes.discard(node)
            sizes[node] = 1 + sum(sizes[inner] for inner in _inner(node))
            if sizes[node] - len(sizes) > MOST_BY_ALIASES:
                problem = f"its aliases expand to more than {MOST_BY_ALIASES} values"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        elif node in open_nodes:
            raise yaml.MarkedYAMLError(problem="an alias stands in what it names", problem_mark=node.start_mark)
        elif node not in sizes:
            open_nodes.add(node)
            waiting.append((node, True))
            waiting += ((inner, False) for inner in _inner(node))


def _inner(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _collect_lines(node: yaml.Node, place: Location, lines: dict[Location, int]) -> None:
    """Note the line of every key and item below `node`; a key written twice is an error, not a silent loss."""
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _collect_lines(item, (*place, index), lines)
    elif isinstance(node, yaml.MappingNode):
        _collect_mapping(node, place, lines)


def _collect_mapping(node: yaml.MappingNode, place: Location, lines: dict[Location, int]) -> None:
    seen: set[Hashable] = set()
    merged: list[yaml.Node] = []
    for key, value in node.value:
        if key.tag == "tag:yaml.org,2002:merge":
            merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            continue
        if not isinstance(key, yaml.ScalarNode):
            continue  # a list or mapping as a key: PyYAML refuses it, with its place
        if key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands here twice", problem_mark=key.start_mark)
        seen.add(key.value)
        lines.setdefault((*place, str(key.value)), key.start_mark.line + 1)
        _collect_lines(value, (*place, str(key.value)), lines)
    for source in merged:  # an anchor's keys count as written where the anchor stands, unless they are overridden
        _collect_lines(source, place, lines)


def _unreadable(
    shown_as: str, reason: str, line: int | None, remedy: str = "Correct the YAML at this place."
) -> ConfigurationError:
    fault = ValidationError(
        code="CFG001",
        message=f"The file cannot be read: {reason}.",
        file_path=shown_as,
        line_number=line,
        remediation=remedy,
    )
    return ConfigurationError(f"{shown_as} cannot be read.", location=fault.location, faults=[fault])

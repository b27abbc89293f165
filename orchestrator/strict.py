"""Strict reading: data from a file into a typed section, or a fault with file, line and remedy for each mistake."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, TypeGuard, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic import ValidationError as PydanticError

from orchestrator.faults import did_you_mean, faulty
from orchestrator.model import ValidationError
from orchestrator.yaml_source import Location, YamlDocument


class Section(BaseModel):
    """A part of a configuration file: frozen, and strict about keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    given_by_file_name: ClassVar[frozenset[str]] = frozenset()  # fields that nobody may write as a key


class WrongValue(ValueError):
    """What a validator says about a value: what it must be, and what to do."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


def matching(pattern: str, meaning: str, remedy: str) -> AfterValidator:
    """A validator of texts that says in words what is asked for.

    Args:
        pattern: a regular expression that the whole text must match.
        meaning: what such a text is: `a size`.
        remedy: how to write one.
    """

    def check(text: str | None) -> str | None:
        if text is not None and re.fullmatch(pattern, text) is None:
            raise WrongValue(f"must be {meaning}", remedy)
        return text

    return AfterValidator(check)


S = TypeVar("S", bound=Section)


def validated(section: type[S], data: Any, *documents: YamlDocument) -> S:
    """Turn `data` into a section.

    Args:
        section: the type to make.
        data: what the file (or the files, merged) says.
        documents: the files it came from, the one that wins last: where faults are located.

    Raises:
        ConfigurationError: with one fault for each unknown key (CFG002) and each wrong value (CFG003).
    """
    found, faults = as_far_as_known(section, data, *documents)
    if found is None or faults:
        raise faulty(faults)
    return found


def as_far_as_known(
    section: type[S], data: Any, *documents: YamlDocument
) -> tuple[S | None, tuple[ValidationError, ...]]:
    """Turn `data` into a section as if its unknown keys were not there.

    Args:
        section: the type to make.
        data: what the file (or the files, merged) says.
        documents: the files it came from, as for `validated`.

    Returns:
        The section, None where more is wrong with it than unknown keys; and every fault.
    """
    found, details = _attempt(section, data)
    faults = [_from_pydantic(section, each, data, documents) for each in details]
    unknown = [each["loc"] for each in details if each["type"] == "extra_forbidden"]
    if unknown:
        found, _ = _attempt(section, _without(data, unknown))
    seen = {each["loc"] for each in details}
    strange = [place for place in _not_for_json(data) if place not in seen]
    faults += [_no_json(place, data, documents) for place in strange]
    return (None if strange else found), tuple(faults)


def _attempt(section: type[S], data: Any) -> tuple[S | None, list[Any]]:
    try:
        return section.model_validate(data), []
    except PydanticError as error:
        return None, list(error.errors())


def _without(data: Any, places: Sequence[Location]) -> Any:
    """A copy of `data` without what stands at some places."""
    below: dict[str | int, list[Location]] = {}
    for place in places:
        below.setdefault(place[0], []).append(place[1:])
    if isinstance(data, Mapping):
        gone = {key for key, rests in below.items() if () in rests}
        return {key: _without(value, below.get(key, ())) for key, value in data.items() if key not in gone}
    if isinstance(data, list):
        return [_without(value, below.get(index, ())) for index, value in enumerate(data)]
    return data


_HALF = re.compile("[\ud800-\udfff]")


def _not_for_json(value: Any, place: Location = ()) -> Iterator[Location]:
    """Where YAML has something that JSON has not: `.nan`, `.inf`, and half of a surrogate pair."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place
    elif isinstance(value, str):
        yield from [place] if _HALF.search(value) else []
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from [place] if _HALF.search(str(key)) else []
            yield from _not_for_json(inner, (*place, key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _not_for_json(inner, (*place, index))


def _no_json(place: Location, data: Any, documents: Sequence[YamlDocument]) -> ValidationError:
    message = f"{_shown(place, data)}: the server cannot be sent this value: JSON has no such number or character."
    return fault("CFG003", message, written_in(place, documents), place, "Write a finite number, or null, or text.")


# ---------------------------------------------------------------------------------------------------------
# Faults, in words
# ---------------------------------------------------------------------------------------------------------


def _from_pydantic(
    section: type[Section], details: Any, data: Any, documents: Sequence[YamlDocument]
) -> ValidationError:
    location = _place_in_files(details["loc"], documents)
    document = written_in(location, documents)
    name = _shown(location, data)
    if details["type"] == "extra_forbidden":
        known = sorted(_keys_at(section, location[:-1]))
        remedy = f"{did_you_mean(str(location[-1]), known)}Known: {', '.join(known)}."
        return fault("CFG002", f"Unknown key {name!r}.", document, location, remedy)
    reason, remedy = _in_words(details)
    return fault("CFG003", f"{name or 'the file'}: {reason}.", document, location, remedy)


def _shown(location: Location, data: Any) -> str:
    """A place in people's words: `deployments[orders-daily].parameters`; without a name, items count from one."""
    shown = ""
    for step in location:
        if isinstance(step, int):
            data = data[step] if isinstance(data, list) and step < len(data) else None
            name = data.get("name") if isinstance(data, Mapping) else None
            shown += f"[{name}]" if isinstance(name, str) and name else f"[{step + 1}]"
        else:
            data = data.get(step) if isinstance(data, Mapping) else None
            shown += f".{step}" if shown else step
    return shown


_IN_QUOTES = "Put it in quotes."
_AS_MAPPING = ("must be a mapping", "Write `key: value` pairs, indented below the key.")
_AS_LIST = ("must be a list", "Write its items in brackets, `[a, b]`, or each on a line behind a dash.")
_AS_INTEGER = ("must be a whole number", "Write digits only, without quotes.")
_AS_NUMBER = ("must be a number", "Write a number, without quotes.")
_AS_TRUTH = ("must be true or false", "Write `true` or `false`, without quotes.")
_BY_TYPE: Mapping[str, tuple[str, str]] = {
    "missing": ("it is missing", "Add this key."),
    "string_type": ("must be text", "Write text."),
    "string_too_short": ("must not be empty", "Write a text, or remove the key."),
    "dict_type": _AS_MAPPING,
    "model_type": _AS_MAPPING,
    "model_attributes_type": _AS_MAPPING,
    "list_type": _AS_LIST,
    "tuple_type": _AS_LIST,
    "int_type": _AS_INTEGER,
    "int_parsing": _AS_INTEGER,
    "int_from_float": _AS_INTEGER,
    "float_type": _AS_NUMBER,
    "float_parsing": _AS_NUMBER,
    "bool_type": _AS_TRUTH,
    "bool_parsing": _AS_TRUTH,
}
_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def _in_words(details: Any) -> tuple[str, str]:
    """What is wrong with a value, and what to do. The value itself is not shown: it may be a secret."""
    kind, context, value = details["type"], details.get("ctx") or {}, details.get("input")
    if kind in _BY_TYPE:
        reason, remedy = _BY_TYPE[kind]
        if kind == "string_type" and isinstance(value, int | float):
            remedy = _IN_QUOTES
        got = _kind_of(value)
        return (f"{reason}, not {got}" if kind.endswith(("_type", "_parsing")) and got else reason), remedy
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        bound = f"{context[name]:g}"
        return f"must be {words} {bound}", f"Write a number that is {words} {bound}."
    if kind == "literal_error":
        expected = re.sub(r"'([^']*)'", r"\1", context["expected"])
        near = did_you_mean(str(value)[:100], re.findall(r"[^\s,]+", expected))
        return f"must be {expected}", f"{near}Write {expected}."
    error = context.get("error")
    remedy = error.remedy if isinstance(error, WrongValue) else "Correct the value."
    return details["msg"].removeprefix("Value error, "), remedy


def _kind_of(value: Any) -> str:
    kinds = {
        str: "text",
        bool: "true or false",
        int: "a whole number",
        float: "a number with a fraction",
        list: "a list",
    }
    return "empty" if value is None else kinds.get(type(value), "a mapping" if isinstance(value, Mapping) else "")


def written_in(location: Location, documents: Sequence[YamlDocument]) -> YamlDocument | None:
    """The last document that holds `location`, or the nearest thing around it."""
    for depth in range(len(location), 0, -1):
        for document in reversed(documents):
            if document.has(location[:depth]):
                return document
    return documents[-1] if documents else None


def _place_in_files(steps: Sequence[str | int], documents: Sequence[YamlDocument]) -> Location:
    """pydantic's location without the names of union branches, unless a file has a key of that name."""
    place: Location = ()
    for step in steps:
        written = any(document.has((*place, step)) for document in documents)
        place = (*place, step) if written or not _is_branch(step) else place
    return place


def _is_branch(step: str | int) -> bool:
    return isinstance(step, str) and (step in ("str", "constrained-str", "int", "float") or "[" in step)


def _keys_at(section: type[Section], location: Location) -> set[str]:
    """The keys that a file may have at `location`."""
    current: Any = section
    for step in location:
        current = _inside(current, step)
    if not _is_section(current):
        return set()
    return {field.alias or name for name, field in current.model_fields.items()} - current.given_by_file_name


def _inside(annotation: Any, step: str | int) -> Any:
    """The type of what stands at one key or index of a type."""
    if _is_section(annotation):
        fields = (field for name, field in annotation.model_fields.items() if step in (name, field.alias))
        return _bare(next((field.annotation for field in fields), None))
    position = {dict: 1, list: 0, tuple: 0}.get(get_origin(annotation))
    return None if position is None else _bare(get_args(annotation)[position])


def _bare(annotation: Any) -> Any:
    """`S` of `S | None` and of `Annotated[S, …]`."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return _bare(next(inner for inner in get_args(annotation) if inner is not NoneType))
    return annotation


def _is_section(candidate: Any) -> TypeGuard[type[Section]]:
    return isinstance(candidate, type) and issubclass(candidate, Section)


def fault(
    code: str, message: str, document: YamlDocument | None, location: Location, remedy: str = ""
) -> ValidationError:
    """A fault at a place of a document."""
    return ValidationError(
        code=code,
        message=message,
        file_path=document.path if document else None,
        line_number=document.line(location) if document else None,
        remediation=remedy,
    )

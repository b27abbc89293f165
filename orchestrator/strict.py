"""Strict reading: data from a file into a typed section, or a fault with file, line and remedy for each mistake."""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, TypeGuard, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict
from pydantic import ValidationError as PydanticError

from orchestrator.faults import did_you_mean, faulty
from orchestrator.model import ValidationError
from orchestrator.yaml_source import Location, YamlDocument


class Section(BaseModel):
    """A part of a configuration file: frozen, and strict about keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    given_by_file_name: ClassVar[frozenset[str]] = frozenset()  # fields that nobody may write as a key


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
    try:
        return section.model_validate(data)
    except PydanticError as error:
        faults = [_from_pydantic(section, details, documents) for details in error.errors()]
        raise faulty(faults) from error


def _from_pydantic(section: type[Section], details: Any, documents: Sequence[YamlDocument]) -> ValidationError:
    location = _place_in_files(details["loc"], documents)
    document = written_in(location, documents)
    name = ".".join(map(str, location))
    if details["type"] == "extra_forbidden":
        known = sorted(_keys_at(section, location[:-1]))
        remedy = f"{did_you_mean(str(location[-1]), known)}Known: {', '.join(known)}."
        return fault("CFG002", f"Unknown key {name!r}.", document, location, remedy)
    reason = details["msg"].removeprefix("Value error, ")
    return fault("CFG003", f"{name or 'the file'}: {reason}.", document, location, "Correct the value.")


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

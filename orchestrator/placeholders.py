"""`{{ placeholders }}` of a prefect.yaml: where they stand, those of the environment, and those that nothing can fill.

Prefect's templating is no Jinja (`prefect.utilities.templating`): a placeholder is a dotted name, and one without a
value is dropped in silence. It is filled from blocks, variables, environment variables and the outputs of build, push
and pull steps, by the step's id or, for the latest step, without one. A name without a dot may always be an environment
variable, and a step of one's own may give anything: only what surely stays empty is told.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.yaml_source import Location

_PLACEHOLDER = re.compile(r"\{\{\s*([\w.\-\[\]$]+)\s*\}\}")
ENVIRONMENT = "$"
_FILLED = ("prefect.blocks.", "prefect.variables.", "ctx.", "$")

_TEXTS = frozenset({"stdout", "stderr"})
_IMAGE = frozenset({"image_name", "tag", "image", "additional_tags"})
_PULLED = frozenset({"directory"})
OUTPUTS: Mapping[str, frozenset[str]] = {
    "prefect.deployments.steps.git_clone": _PULLED,
    "prefect.deployments.steps.pull_from_remote_storage": _PULLED,
    "prefect.deployments.steps.pull_with_block": _PULLED,
    "prefect.deployments.steps.set_working_directory": _PULLED,
    "prefect.deployments.steps.run_shell_script": _TEXTS,
    "prefect.deployments.steps.pip_install_requirements": _TEXTS,
    "prefect_docker.deployments.steps.build_docker_image": _IMAGE | {"image_id"},
    "prefect_docker.deployments.steps.push_docker_image": _IMAGE,
}
"""What the steps of Prefect and its Docker collection give, as their documentation says."""


def has_placeholder(value: Any) -> bool:
    """Whether a value is a text that holds a placeholder."""
    return isinstance(value, str) and _PLACEHOLDER.search(value) is not None


def texts_of(value: Any, place: Location = ()) -> Iterator[tuple[Location, str]]:
    """Every text in a value that holds placeholders, with its place; keys of mappings are none."""
    if isinstance(value, str):
        if has_placeholder(value):
            yield place, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from texts_of(inner, (*place, str(key)))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from texts_of(inner, (*place, index))


def names_in(text: str) -> tuple[tuple[str, str], ...]:
    """The placeholders of a text: as it holds them (`{{ $HOME }}`), and their names (`$HOME`)."""
    return tuple(dict.fromkeys((found[0], found[1]) for found in _PLACEHOLDER.finditer(text)))


def environment_value(name: str) -> str | None:
    """What the environment gives for a placeholder. Like Prefect, it is asked with and without the dollar."""
    return os.environ.get(name.lstrip(ENVIRONMENT))


def with_environment(text: str | None) -> str | None:
    """A text with the environment variables that are set; every other placeholder stays."""
    for whole, name in names_in(text or ""):
        value = environment_value(name)
        if text is not None and value is not None:
            text = text.replace(whole, value)
    return text


def filled(value: Any, values: Mapping[str, Any]) -> Any:
    """A value with its placeholders replaced, as far as `values` has them.

    Args:
        value: text, or a list or mapping of values.
        values: by the placeholder as it is written: `{{ $HOME }}`. One that is the whole text keeps its value's type.
    """
    if isinstance(value, str):
        if value in values:
            return values[value]
        for whole, _ in names_in(value):
            value = value.replace(whole, str(values[whole])) if whole in values else value
        return value
    if isinstance(value, Mapping):
        return {key: filled(inner, values) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [filled(inner, values) for inner in value]
    return value


@dataclass(frozen=True, slots=True)
class Unfillable:
    """A placeholder that stays empty: where it stands, its text, and what was probably meant."""

    place: Location
    text: str
    remedy: str


@dataclass(slots=True)
class Outputs:
    """What the steps of a file give.

    Attributes:
        by_id: the outputs of steps that have an id; None where they are not known.
        are_all_known: no step of a kind that we do not know.
    """

    by_id: dict[str, frozenset[str] | None] = field(default_factory=dict)
    are_all_known: bool = True

    def add(self, step: Mapping[str, Any]) -> None:
        """Take in one step: `{function: {id: …, inputs}}`."""
        for function, inputs in step.items():
            outputs = OUTPUTS.get(str(function))
            self.are_all_known &= outputs is not None
            if isinstance(inputs, Mapping) and isinstance(inputs.get("id"), str):
                known = self.by_id.get(inputs["id"], frozenset())
                self.by_id[inputs["id"]] = None if outputs is None or known is None else known | outputs


def unfillable(value: Any, place: Location, outputs: Outputs) -> Iterator[Unfillable]:
    """The placeholders in a value that nothing fills.

    Args:
        value: of a prefect.yaml: text, or a list or mapping of values.
        place: where it stands in the file.
        outputs: what all steps of the file give.

    Yields:
        Each with its place.
    """
    if isinstance(value, str):
        for found in _PLACEHOLDER.finditer(value):
            if remedy := _remedy(found[1], outputs):
                yield Unfillable(place, found[0], remedy)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from unfillable(inner, (*place, str(key)), outputs)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from unfillable(inner, (*place, index), outputs)


def _remedy(name: str, outputs: Outputs) -> str:
    """What to write instead, empty where the placeholder may be filled."""
    first, _, rest = name.partition(".")
    if name.startswith(_FILLED) or not rest or "[" in name:
        return ""
    if first in outputs.by_id:
        given = outputs.by_id[first]
        output = rest.partition(".")[0]
        if given is None or output in given:
            return ""
        return f"{_nearest(output, given, prefix=f'{first}.')}The step {first} gives: {', '.join(sorted(given))}."
    if first == "prefect":
        kind, _, named = rest.partition(".")
        near = _nearest(kind, ("blocks", "variables"), prefix="prefect.", suffix=f".{named}")
        return f"{near}There are prefect.blocks.… and prefect.variables.…."
    if not outputs.are_all_known:
        return ""
    ids = ", ".join(outputs.by_id) or "none"
    return f"{_nearest(first, outputs.by_id, suffix=f'.{rest}')}Ids of steps in this file: {ids}."


def _nearest(written: str, known: Iterable[str], *, prefix: str = "", suffix: str = "") -> str:
    close = difflib.get_close_matches(written, list(known), n=1)
    return f"Did you mean {{{{ {prefix}{close[0]}{suffix} }}}}? " if close else ""

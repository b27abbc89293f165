"""YAML with lines: the fast reader and the other one give the same, and nothing that nests deep ends the process."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import yaml_source
from orchestrator.errors import ConfigurationError
from orchestrator.yaml_source import read_yaml

NESTED = {"lists": "[", "mappings": "{a: ", "items": "- ", "keys": "? "}


@pytest.mark.parametrize("depth", [3_000, 200_000])
@pytest.mark.parametrize("opening", NESTED.values(), ids=NESTED)
def test_what_nests_deep_is_a_fault(tmp_path: Path, opening: str, depth: int) -> None:
    file = tmp_path / "deep.yaml"
    file.write_text(opening * depth + "1")
    with pytest.raises(ConfigurationError):
        read_yaml(file, shown_as="deep.yaml")


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a: 1", "b: [x, 'y']", "c: {d: 2024-01-01}", "  e: yes", "- f", "a: 1", "# g"])))
def test_both_readers_give_the_same(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    file = tmp_path_factory.getbasetemp() / "same.yaml"
    file.write_text("\n".join(parts))
    with pytest.MonkeyPatch.context() as patch:
        outcomes = [outcome(file)]
        patch.setattr(yaml_source, "_DEEPEST", 0)
        outcomes.append(outcome(file))
    assert outcomes[0] == outcomes[1]


def outcome(file: Path) -> object:
    try:
        document = read_yaml(file, shown_as="same.yaml")
    except ConfigurationError as error:
        return str(error), error.faults
    return document.data, document.lines

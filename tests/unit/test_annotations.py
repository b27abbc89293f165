"""What annotations allow: read from text, and the same as the server's and the runs' own checks."""

from __future__ import annotations

import ast
import collections.abc
import datetime
import logging
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect import flow
from prefect.exceptions import ParameterTypeError
from prefect.utilities.callables import get_call_parameters
from prefect.utilities.schema_tools import validate

from orchestrator.annotations import cast_misfit, described, names_in, schema_misfit, type_of

MODULE = """
import collections.abc
import datetime
import typing
import typing as t
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Dict, List, Literal, Mapping, Optional, Sequence, Union
from uuid import UUID
"""
ANNOTATIONS = (
    *("int", "float", "str", "bool", "bytes", "list", "dict", "set", "tuple", "None", "Any", "Path", "Decimal", "UUID"),
    *("datetime.datetime", "date", "time", "timedelta", "list[int]", "List[int]", "dict[str, int]", "dict[int, str]"),
    *("tuple[int, str]", "tuple[int, ...]", "tuple[()]", "set[int]", "frozenset[str]", "Dict[str, Any]"),
    *("Optional[int]", "int | None", "Union[int, str]", "int | str | None", "list[Optional[date]]"),
    *("Literal['a', 'b']", "Literal[1, None]", "Sequence[str]", "collections.abc.Sequence[int]", "Mapping[str, int]"),
    *("Annotated[int, 'rows']", "'int'", "list['int']", "t.List[t.Dict[str, float]]"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 5, -3, 5.0, 5.5, 10**30),
    *("", "5", "5.0", "a", "b", "true", "soon", "/tmp/x", "05:00", "05:00:00", "PT5M", "00:05:00", "05:00:00Z"),
    *("2024-01-01", "2024-01-01T00:00:00", "2024-01-01T05:00:00Z", "2024-01-01 05:00", "2024-13-45"),
    *("12345678-1234-5678-1234-567812345678", "12345678123456781234567812345678"),
    *([], [1], ["1"], [1, 1], [1, "a"], ["a"], [1, 2, 3], [None], ["2024-01-01"]),
    *({}, {"a": 1}, {"1": "a"}, {"a": "x"}),
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Prefect logs every refusal."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def in_module(annotation: str) -> Any:
    return type_of(annotation, names_in(ast.parse(MODULE)))


class TestAgreementWithPrefect:
    @pytest.mark.parametrize("annotation", ANNOTATIONS)
    def test_over_annotations_and_values(self, annotation: str) -> None:
        namespace: dict[str, Any] = {}
        exec(f"{MODULE}\ndef work(x: {annotation}): ...", namespace)
        made = flow(namespace["work"])
        schema = made.parameters.model_dump_for_openapi()
        kind = in_module(annotation)
        for value in VALUES:
            assert bool(schema_misfit(kind, value)) is bool(validate({"x": value}, schema)), (annotation, value)
            assert bool(cast_misfit(kind, value)) is fails_to_run(made, value), (annotation, value)

    @pytest.mark.parametrize(("annotation", "default"), [("int", None), ("int", "big"), ("int", "5"), ("str", 5)])
    def test_a_run_holds_defaults_against_annotations(self, annotation: str, default: Any) -> None:
        """What the engine does before a run: it fills in the defaults, then validates all. FLW007 relies on it."""
        namespace: dict[str, Any] = {}
        exec(f"def work(x: {annotation} = {default!r}): ...", namespace)
        made = flow(namespace["work"])
        (filled,) = get_call_parameters(made.fn, (), {}).values()
        assert bool(cast_misfit(type_of(annotation), default)) is fails_to_run(made, filled)


def fails_to_run(made: Any, value: Any) -> bool:
    try:
        made.validate_parameters({"x": value})
    except ParameterTypeError:
        return True
    return False


class TestReading:
    @pytest.mark.parametrize(
        ("annotation", "kind"),
        [
            ("int", int),
            ("Optional[date]", datetime.date | None),
            ("t.Optional[int]", int | None),
            ("Union[int, UUID]", int | UUID),
            ("dict[str, Decimal]", dict[str, Decimal]),
            ("Literal['a', -1]", Literal["a", -1]),
            ("Annotated[list[Path], 'files']", list[Path]),
            ("collections.abc.Mapping[str, int]", collections.abc.Mapping[str, int]),
            ("'datetime.datetime'", datetime.datetime),
            ("None", None),
        ],
    )
    def test_what_is_understood(self, annotation: str, kind: Any) -> None:
        assert in_module(annotation) == kind

    @pytest.mark.parametrize(
        "annotation",
        [
            *(
                "Model",
                "Color",
                "pydantic.SecretStr",
                "conint(gt=3)",
                "list[Model]['x']",
                "type",
                "Callable[[int], str]",
            ),
            *("int | Model", "Optional[Model]", "Literal[Color.RED]", "dict[int]", "list[int, str]", "Iterable[int]"),
            *("", "1 +", "lambda: 0", "x := int", "'", "'1 +'", "int\x00", "list[", "()", "*a", "..."),
        ],
    )
    def test_what_is_not_counts_as_anything(self, annotation: str) -> None:
        assert in_module(annotation) is Any

    @pytest.mark.parametrize(
        "annotation",
        ["list[" * 5000 + "int" + "]" * 5000, "int | " * 5000 + "int", "(" * 900 + "int" + ")" * 900, "x." * 400 + "x"],
    )
    def test_nor_what_goes_too_far(self, annotation: str) -> None:
        assert in_module(annotation) is Any

    def test_nothing_is_evaluated(self) -> None:
        assert in_module("list[print('here')]") == list[Any]
        assert in_module("__import__('os').getcwd()") is Any

    def test_a_name_of_the_module_itself_is_not_taken_for_another(self) -> None:
        for source in ("class date: ...", "from shop import date", "date = object", "def date(): ...", ""):
            assert type_of("date", names_in(ast.parse(source))) is Any, source
        assert type_of("date") is datetime.date  # the first guess, made before the module is read

    @pytest.mark.parametrize("source", ["class int: ...", "from numbers import Integral as int", "if x:\n  int = str"])
    def test_nor_is_a_builtin_that_is_taken_for_something_else(self, source: str) -> None:
        assert type_of("int", names_in(ast.parse(source))) is Any

    def test_imports_for_type_checkers_count(self) -> None:
        source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from datetime import date as day"
        assert type_of("day", names_in(ast.parse(source))) is datetime.date

    @settings(max_examples=200, deadline=None)
    @given(text=st.text(max_size=40) | st.text("intlsrdc[]|,. '\"()", max_size=40))
    def test_any_text_gives_a_type(self, text: str) -> None:
        kind = type_of(text)
        assert {type(cast_misfit(kind, 1)), type(schema_misfit(kind, 1))} == {str}


class TestMisfits:
    @pytest.mark.parametrize("value", ["hunter2-secret", ["hunter2-secret"], {"a": {"b": "hunter2-secret"}}])
    @pytest.mark.parametrize("annotation", ["int", "dict[str, int]", "list[bool]", "Literal['a']", "date", "UUID"])
    def test_no_reason_shows_the_value(self, annotation: str, value: Any) -> None:
        kind = in_module(annotation)
        assert "hunter2" not in cast_misfit(kind, value) + schema_misfit(kind, value) + described(value)

    def test_deep_and_odd_values_are_no_trouble(self) -> None:
        deep: Any = 1
        for _ in range(5000):
            deep = [deep]
        for value in (deep, float("nan"), float("inf"), object(), b"\xff", 10**5000):
            assert len(schema_misfit(list[list[int]], value)) < 100
            assert isinstance(cast_misfit(list[list[int]], value), str)

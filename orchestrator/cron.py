"""Whether a Prefect server accepts a cron expression, and where it is at fault if not.

The server asks a copy of croniter (`prefect._vendor.croniter`) that says yes or no, and importing it means importing
Prefect. This is croniter's grammar by itself, with the field that breaks it; a test holds the two against each other.
Five fields are usual; a sixth holds seconds and a seventh years. Names of months and days, `L` (the last day of a
month, `L5` the last Friday), `5#2` (the second Friday), `?`, backward ranges (`Fri-Mon`) and `@daily` are all known.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAY_NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_WEEKDAYS = {name: number for number, name in enumerate(_DAY_NAMES)}


@dataclass(frozen=True, slots=True)
class _Field:
    """One column of an expression."""

    name: str
    low: int
    high: int
    names: Mapping[str, int] = field(default_factory=dict)


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 6, _WEEKDAYS),
    _Field("second", 0, 59),
    _Field("year", 1970, 2099),
)
_DAY, _WEEKDAY = _FIELDS[2], _FIELDS[4]
ALIASES = ("@midnight", "@hourly", "@daily", "@weekly", "@monthly", "@yearly", "@annually")

_DIGITS = re.compile(r"\d+$")
_RANGE = re.compile(r"([^-]+)-([^-/]+)(?:/(\d+))?$")
_STEPS = re.compile(r"^(.+)/(.+)$")
_DAY_NAME, _MONTH_NAME = "|".join(_DAY_NAMES), "|".join(_MONTH_NAMES)
_DAY_OR_MONTH = rf"(?:{_DAY_NAME})(?:-(?:{_DAY_NAME}))?|(?:{_MONTH_NAME})(?:-(?:{_MONTH_NAME}))?"
_NTH = re.compile(rf"(?:(?P<day>{_DAY_OR_MONTH}|\w+)#|l)(?P<last>\d+)$")
_RANDOM = re.compile(r"r(?:\((?P<begin>\d+)-(?P<end>\d+)\))?(?:/(?P<divisor>\d+))?$")


@dataclass(frozen=True, slots=True)
class CronFault:
    """What is wrong with an expression.

    Attributes:
        reason: one clause that names the field: `the minute 61 lies outside 0-59`.
        part: the text of the expression that is at fault; "" where it is the expression as a whole.
    """

    reason: str
    part: str = ""


class _Refused(Exception):
    """croniter would refuse this item."""


def cron_fault(expression: str) -> CronFault | None:
    """What is wrong with a cron expression.

    Args:
        expression: as written.

    Returns:
        The first fault, None where the server accepts it.
    """
    lowered = expression.lower()
    if lowered in ALIASES:
        return None
    columns = lowered.split()
    if not 5 <= len(columns) <= 7:
        return CronFault(_count_reason(lowered, len(columns)))
    fault = _column_fault(columns)
    if fault is None:
        return None
    place, reason = fault
    return CronFault(f"{reason}{_order(columns)}", expression.split()[place])


def _column_fault(columns: Sequence[str]) -> tuple[int, str] | None:
    """The first column that is at fault, and why."""
    for place, column in enumerate(columns):
        try:
            _check_column(_FIELDS[place], column, len(columns))
        except (_Refused, ValueError) as refusal:
            reason = str(refusal) if isinstance(refusal, _Refused) else "it holds a number of thousands of digits"
            return place, f"the {_FIELDS[place].name} {_short(column)}: {reason}"
    return None


def _order(columns: Sequence[str]) -> str:
    """What to say about more than five fields: Quartz and others put the seconds first."""
    if len(columns) == 5:
        return ""
    said = f"; of {len(columns)} fields, the sixth holds the seconds"
    moved = [*columns[1:], columns[0]]
    meant = len(columns) == 6 and _column_fault(moved) is None
    return f"{said}: {_short(' '.join(moved))}" if meant else said


def never_comes(expression: str, *, day_or: bool = True) -> bool:
    """Whether a cron expression that the server accepts names only days that no year has: 30 February.

    Args:
        expression: as written.
        day_or: whether a day of month or a day of week is enough where both are given (cron's own way).
    """
    columns = expression.lower().split()
    if cron_fault(expression) is not None or len(columns) < 5 or (day_or and columns[4] not in ("*", "?")):
        return False
    days, months = (_values(_FIELDS[place], columns[place], len(columns)) for place in (2, 3))
    return bool(days) and bool(months) and min(days) > max(_LONGEST[month] for month in months)


_LONGEST = dict(enumerate((31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), 1))


def _values(column: _Field, text: str, count: int) -> set[int]:
    """The numbers of a column; none where it may hold others too."""
    if "?" in text or text.startswith(("h", "r")):
        return set()
    reader = _Column(column, count)
    reader.read(text)
    numbers = {value for value in reader.values if isinstance(value, int)}
    return numbers if len(numbers) == len(reader.values) else set()


def _count_reason(expression: str, count: int) -> str:
    if expression.strip().startswith("@"):
        near = difflib.get_close_matches(expression.strip(), ALIASES, n=1)
        return f"{_short(expression)} is none of the short forms; {f'did you mean {near[0]}' if near else _aliases()}"
    fields = "one field" if count == 1 else f"{count} fields"
    return f"it has {fields} where five are needed: minute, hour, day of month, month, day of week"


def _aliases() -> str:
    return f"they are {', '.join(ALIASES)}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def _check_column(column: _Field, text: str, count: int) -> None:
    if text.startswith(("h", "r")) and _is_hashed(text):
        return
    if "?" in text:
        if text != "?":
            raise _Refused("a question mark stands alone")
        if column not in (_DAY, _WEEKDAY):
            raise _Refused("a question mark may stand for a day of month or a day of week only")
        return
    _Column(column, count).read(text)


def _is_hashed(text: str) -> bool:
    """`R(0-10)` draws a number, which the server lets pass; `H` and a bare `R` it refuses."""
    if text in ("h", "r") or text.startswith(("h(", "h/")):
        raise _Refused("hashed and random fields (H, R) are unknown to Prefect")
    return bool(_RANDOM.match(text))


class _Column:
    """Reads the items of one column."""

    def __init__(self, column: _Field, count: int) -> None:
        self.column, self.count = column, count
        self.values: set[int | str] = set()
        self.numbered: set[int | str] = set()  # those of them that have a number: the second Friday

    def read(self, text: str) -> None:
        """Check all items, and whether they go together.

        Raises:
            _Refused: croniter would refuse the column.
        """
        for item in text.split(","):
            self._item(item)
        plain = self.values - self.numbered - {"*"}
        if self.numbered and plain and len(self.values) != len(_WEEKDAYS):
            raise _Refused("days by name or number do not go together with `#` or `L` days")

    def _item(self, item: str) -> None:
        item, is_numbered = self._without_number(item)
        normal = item
        if item.startswith("*/") and len(item) > 2:
            normal = f"{self.column.low}-{self.column.high}{item[1:]}"
        found = _RANGE.match(normal)
        if found is None:
            normal = _STEPS.sub(rf"\g<1>-{self.column.high}/\g<2>", item)
            found = _RANGE.match(normal)
        values = set(self._single(normal)) if found is None else set(self._range(*found.groups()))
        self.values |= values
        if is_numbered:
            self.numbered |= values

    def _without_number(self, item: str) -> tuple[str, bool]:
        """`fri` of `fri#2` and `5` of `l5`, and whether there was such a number."""
        found = _NTH.match(item) if self.column is _WEEKDAY else None
        if found is None:
            return item, False
        if not found["day"]:
            return found["last"], True
        if not 1 <= int(found["last"]) <= 5:
            raise _Refused("the number behind # is 1 to 5")
        return found["day"], True

    def _single(self, item: str) -> Iterator[int | str]:
        if item == "*" or (item == "l" and self.column is _DAY):
            yield item
            return
        value = self._aliased(self._number(item))
        self._within(value)
        yield value

    def _range(self, first: str, last: str, step: str | None) -> Iterator[int]:
        last = "31" if self.column is _DAY and last == "l" else last
        low, high = self._aliased(self._number(first)), self._aliased(self._number(last))
        if max(low, high) > self.column.high:
            self._within(max(low, high))
        stride = 1 if step is None else int(step)
        if stride == 0:
            raise _Refused("a step of 0 leads nowhere")
        for value in self._steps(low, high, stride):
            self._within(value)
            yield value

    def _steps(self, low: int, high: int, stride: int) -> Iterator[int]:
        """The values of a range; one that ends before it begins goes on from the start."""
        if low == high:
            yield from range(self.column.low, self.column.high + 1, stride)
        elif low < high:
            yield from range(low, high + 1, stride)
        else:
            up = range(low, self.column.high + 1, stride)
            left = self.column.high - up[-1]
            skipped = stride - left if up[-1] - self.column.low + stride > self._size and left < stride else 0
            yield from (*up, *range(self.column.low + skipped, high + 1, stride))

    @property
    def _size(self) -> int:
        return self.column.high - self.column.low + 1

    def _number(self, text: str) -> int:
        if text in self.column.names:
            return self.column.names[text]
        if not _DIGITS.match(text):
            known = f", nor one of {', '.join(self.column.names)}" if self.column.names else ""
            raise _Refused(f"{_short(text)} is no number{known}" if text else "a value is missing")
        return int(text)

    def _aliased(self, value: int) -> int:
        """Sunday may be written as 7 among five fields; croniter takes a day 0 among six for the first."""
        if self.column is _WEEKDAY and self.count == 5 and value == 7:
            return 0
        return 1 if self.column is _DAY and self.count == 6 and value == 0 else value

    def _within(self, value: int) -> None:
        if not self.column.low <= value <= self.column.high:
            raise _Refused(f"{value} lies outside {self.column.low}-{self.column.high}")

"""Flows whose parameters need all kinds of schemas."""

from __future__ import annotations

from datetime import date, timedelta
from enum import Enum
from typing import Literal, Optional

from prefect import flow
from prefect.utilities.annotations import freeze
from pydantic import BaseModel, Field


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Address(BaseModel):
    """Where something goes."""

    street: str
    number: int = Field(default=1, ge=1, description="The house.")


class Order(BaseModel):
    address: Address
    sizes: list[Size] = [Size.SMALL]


@flow(name="conformance-orders", description="Said in the decorator.", version="flow-7")
def orders(
    order: Order,
    size: Size = Size.LARGE,
    region: Literal["eu", "us"] = "eu",
    since: Optional[date] = None,
    wait: timedelta = timedelta(minutes=5),
    rows: int = Field(default=10, gt=0, description="How many."),
    names: list[str] = ["a", "b"],  # noqa: B006
    options: dict[str, int] | None = None,
) -> None:
    """Load orders.

    Args:
        order: which one.
        region: where it is.
    """


@flow(name="conformance-async")
async def in_background(*numbers: int, factor: float = 1.5, **more: str) -> None:
    """Work in the background.

    In more than one line.
    """


@flow(name="conformance-silent")
def silent():
    pass


class Jobs:
    @flow(name="conformance-method")
    @staticmethod
    def nightly(day: str = "monday") -> None:
        """Of a class."""


@flow(name="conformance-frozen")
def frozen(value=freeze("x"), untyped=None, *, keyword: bool = True):  # noqa: B008
    ...

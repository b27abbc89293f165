from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prefect import flow

if TYPE_CHECKING:
    from flows.daily import daily as daily_type

team_flow = partial(flow, retries=2)


def describe(one: daily_type) -> str:
    return one.name

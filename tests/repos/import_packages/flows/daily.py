"""Imports the package that it lies in, both ways."""

from flows.common import team_flow
from .common import team_flow as relative_flow
from . import common


@team_flow
def daily(day: str):
    pass


@relative_flow(name="daily-relative")
def by_relative_import(day: str):
    pass


@common.team_flow(name="daily-by-module")
def by_relative_module(day: str):
    pass

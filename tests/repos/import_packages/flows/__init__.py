"""The package gathers what its modules make: none of it is made here."""

from flows.common import team_flow
from flows.daily import daily
from flows.sub import nightly

__all__ = ["daily", "nightly", "team_flow"]

"""Gathers flows that are defined elsewhere."""

from factories import daily
from mylib.ready import *  # noqa: F403
from mylib.ready import ready as again
from partials import bare

__all__ = ["again", "bare", "daily"]

"""A team's own library. Its `__init__` passes on what its modules make."""

from mylib.decorators import flow as package_flow
from mylib.decorators import quiet

from .names import TEAM as TEAM_NAME

__all__ = ["TEAM_NAME", "package_flow", "quiet"]

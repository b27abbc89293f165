"""Passes on what another module passes on."""

from mylib import package_flow as chained_flow
from mylib.decorators import *  # noqa: F403
from mylib.decorators import our_flow

from . import decorators as tools

relative = tools.retrying

"""Makes a flow in an `__init__`."""

from flows.common import team_flow

from .deep import making


@team_flow
def nightly(a: int = 0):
    pass


from_init = making.make("from-init")

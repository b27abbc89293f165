"""Takes flows and makers from a package's `__init__`."""

from flows import daily, nightly, team_flow
from flows.sub import deep

again = daily.with_options(name="daily-again")
nightly_again = nightly.with_options(name="nightly-again")


@team_flow(name="gathered")
def gathered(x):
    pass


made_deep = deep.making.make("deep")

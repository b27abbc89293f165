"""Flows under conditions at module level."""

import os
import sys

from prefect import flow

try:
    import tomllib as toml
except ImportError:
    toml = None

if sys.version_info >= (3, 9):

    @flow(name="conditional-if")
    def in_if(a):
        pass

else:

    @flow(name="conditional-if")
    def in_if(a):
        pass


if os.name == "nowhere":
    pass
elif toml is None:
    pass
else:

    @flow
    def in_else(b):
        pass


try:

    @flow(name="conditional-try")
    def in_try(c):
        pass

except ValueError:
    in_try = None

try:
    from not_installed_anywhere import flow as special_flow
except ImportError:
    special_flow = flow


@special_flow
def with_fallback(d):
    pass


try:
    pass
finally:

    @flow
    async def in_finally(e):
        pass


with open(os.devnull) as nothing:

    @flow
    def in_with(f):
        pass


for _ in range(1):

    @flow(name="conditional-for")
    def in_for(g):
        pass


match sys.platform:
    case _:

        @flow
        def in_match(h):
            pass


if sys.platform == "nowhere":

    @flow
    def on_another_system(i):
        pass


if __name__ == "__main__":

    @flow
    def only_as_a_script():
        pass

"""Flows under statements of the module."""

import contextlib
import functools
import sys

try:
    from prefect import flow
except ImportError:
    flow = None


if sys.version_info >= (3, 8):

    @flow
    def under_if():
        pass

else:

    @flow(name="never")
    def under_if():
        pass


if sys.version_info < (3, 8):
    pass
elif flow:

    @flow
    def under_elif():
        pass


try:

    @flow
    def under_try():
        pass

except Exception:
    under_try = None
finally:

    @flow
    def under_finally():
        pass


with contextlib.suppress(Exception):

    @flow
    def under_with():
        pass


for _ in range(1):

    @flow
    def under_for():
        pass


match sys.platform:
    case "none":
        pass
    case _:

        @flow
        def under_match():
            pass


def noisy(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@flow(name="stacked")
@noisy
@noisy
def stacked(x=1):
    pass

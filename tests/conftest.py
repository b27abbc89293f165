"""What is true of all tests: which of them share a process when they run side by side, and that what they start hears
signals."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# What is ignored is inherited: a job in the background of a script would start commands that hear no Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# How fast this machine makes up examples says nothing about us.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

ONE_JOURNEY = "tests/system"  # its files follow each other on one system
ONE_ENGINE = "docker"  # one builds on the layers that another one would remove
ANOTHER_SYSTEM = "tests/system/test_scaled_out.py"  # but for this one, which has its own


@pytest.hookimpl(wrapper=True)  # xdist reads the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Keep the tests of a file together (pytest-xdist's `loadgroup`): they share servers and worked-out answers.

    Those of Docker's engine share that, whatever their file.
    """
    for item in items:
        file = item.nodeid.partition("::")[0]
        is_on_the_journey = file.startswith(ONE_JOURNEY) and file != ANOTHER_SYSTEM
        group = ONE_JOURNEY if is_on_the_journey else file
        item.add_marker(pytest.mark.xdist_group(ONE_ENGINE if item.get_closest_marker("docker") else group))
    yield

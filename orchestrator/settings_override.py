"""Prefect's settings, with one of them changed for the time of a block.

`prefect.settings.temporary_settings` does the same, and works the whole set out anew each time, which takes 20 to 50
ms. A command opens its server several times, and a fan-out for each call: here each set is worked out once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from prefect.context import SettingsContext, get_settings_context
from prefect.settings import Settings

Name = Literal["api.url", "client.max_retries"]

_MOST = 16  # sets that are kept; a process has two or three

# By what they are made from. The settings at the beginning are kept with the result: no other may get their id.
_known: dict[tuple[Any, ...], tuple[Settings, Settings]] = {}


@contextmanager
def overridden(name: Name, value: Any) -> Iterator[None]:
    """Let a setting of Prefect have another value in the block.

    Args:
        name: which.
        value: as `temporary_settings` takes it.
    """
    context = get_settings_context()
    settings = _with(context.settings, name, value)
    with SettingsContext(profile=context.profile, settings=settings):
        yield


def _with(settings: Settings, name: Name, value: Any) -> Settings:
    environment = frozenset(pair for pair in os.environ.items() if pair[0].startswith("PREFECT_"))  # is read again
    key = (id(settings), name, value, environment)
    if key not in _known:
        while len(_known) >= _MOST:
            _known.pop(next(iter(_known)), None)  # the oldest; another thread may have been quicker
        _known[key] = (settings, settings.copy_with_update({name: value}))
    return _known[key][1]

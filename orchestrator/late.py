"""Modules that take long to import, loaded when they are first used.

As importlib's documentation has it under "Implementing lazy imports"; Python 3.15 has it in the language (PEP 810).
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType


def late(name: str) -> ModuleType:
    """A module that is loaded when one of its names is asked for.

    Args:
        name: its dotted name.

    Raises:
        ModuleNotFoundError: there is none of that name.
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module

"""Modules that are loaded when they are first used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from orchestrator.late import late

CODE = """
import sys
from orchestrator.late import late
module = late("tests.data.slow_module")
assert "tests.data.slow_module" in sys.modules and not hasattr(sys, "was_loaded")
assert module.VALUE == 5 and sys.was_loaded == 1
assert late("tests.data.slow_module") is module and sys.was_loaded == 1
"""


def test_nothing_is_loaded_before_it_is_used_and_then_once() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_does_not_exist_is_said_at_once() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"orchestrator\.nothing"):
        late("orchestrator.nothing")

"""Modules that are loaded when they are first used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.late import late

ROOT = Path(__file__).parents[2]
CODE = """
import sys
from orchestrator.late import late
module = late("tests.data.slow_module")
assert "tests.data.slow_module" in sys.modules and not hasattr(sys, "was_loaded")
assert module.VALUE == 5 and sys.was_loaded == 1
assert late("tests.data.slow_module") is module and sys.was_loaded == 1
"""


def test_nothing_is_loaded_before_it_is_used_and_then_once() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_commands_that_go_to_the_server_import_prefect_when_its_turn_comes() -> None:
    code = "import sys, orchestrator.deploy_commands; print('prefect' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False\n"


def test_what_does_not_exist_is_said_at_once() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"orchestrator\.nothing"):
        late("orchestrator.nothing")

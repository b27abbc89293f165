"""Asking a person before something is written."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

CODE = """
from orchestrator.confirmation import ask
from orchestrator.errors import RefusedError
from orchestrator.terminal import Terminal
try:
    ask(Terminal(), "what will be done", "Apply this plan?")
    print("confirmed")
except RefusedError as error:
    print("refused:", error.message)
"""


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (b"y\n", "confirmed"),
        (b"YES\n", "confirmed"),
        (b"\n", "refused: Not confirmed"),
        (b"n\n", "refused: Not confirmed"),
        (b"\x04", "refused: Not confirmed"),  # Ctrl-D
    ],
)
def test_a_person_sees_the_choices_and_silence_means_no(typed: bytes, said: str) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", CODE], stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(ours, 1000)
        os.write(ours, typed)
        while said.encode() not in shown:
            shown += os.read(ours, 1000)
    os.close(ours)
    assert b"Apply this plan? [y/N] " in shown and b"Traceback" not in shown

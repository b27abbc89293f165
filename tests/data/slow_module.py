"""Loaded by tests of `orchestrator.late`, and counts how often."""

import sys

sys.was_loaded = getattr(sys, "was_loaded", 0) + 1  # type: ignore[attr-defined]
VALUE = 5

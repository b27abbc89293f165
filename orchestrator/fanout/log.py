"""Where the lines of a submission go."""

from __future__ import annotations

import logging
from typing import Any

from prefect import get_run_logger
from prefect.exceptions import MissingContextError

NAME = "orchestrator.submission"


def logger() -> logging.Logger | logging.LoggerAdapter[Any]:
    """The run's own logger inside a run, so that the lines appear in the UI; that of the public module outside."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(NAME)

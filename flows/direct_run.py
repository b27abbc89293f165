"""Running a flow by hand: `python -m flows.main_etl`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from prefect.settings import get_current_settings

SHOWN_KEY_CHARACTERS = 4


def run_directly(flow: Callable[[], Any]) -> None:
    """Say which server the flow reports to, then run it in this process with its default parameters."""
    api = get_current_settings().api
    print(f"Prefect server: {_without_credentials(api.url)}")
    if api.key is not None:
        print(f"Using API key: {shown_part(api.key.get_secret_value())}")
    result = flow()
    if inspect.isawaitable(result):
        result = asyncio.run(_awaited(result))
    print(result)


def shown_part(key: str) -> str:
    """The first four characters of a key at most, and never more than a quarter of it."""
    return f"{key[: min(SHOWN_KEY_CHARACTERS, len(key) // 4)]}..."


def _without_credentials(url: str | None) -> str:
    if not url:
        return "a temporary one, started for this run"
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


async def _awaited(result: Any) -> Any:
    return await result

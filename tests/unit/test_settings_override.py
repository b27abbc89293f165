"""One of Prefect's settings changed for the time of a block, as `prefect.settings.temporary_settings` does it."""

from __future__ import annotations

import pytest
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    get_current_settings,
    temporary_settings,
)

from orchestrator import settings_override
from orchestrator.settings_override import overridden

ONE, OTHER = "http://one.example.com/api", "http://other.example.com/api"


def test_it_holds_in_the_block_only() -> None:
    before = PREFECT_API_URL.value()
    with overridden("api.url", ONE):
        assert PREFECT_API_URL.value() == ONE
        with overridden("api.url", OTHER):
            assert PREFECT_API_URL.value() == OTHER
        assert PREFECT_API_URL.value() == ONE
    assert PREFECT_API_URL.value() == before


def test_one_within_another_keeps_both() -> None:
    with overridden("api.url", ONE), overridden("client.max_retries", 0):
        assert (PREFECT_API_URL.value(), PREFECT_CLIENT_MAX_RETRIES.value()) == (ONE, 0)
    with overridden("client.max_retries", 0):
        assert PREFECT_API_URL.value() != ONE


def test_it_is_worked_out_once() -> None:
    with overridden("api.url", ONE):
        first = get_current_settings()
    with overridden("api.url", ONE):
        assert get_current_settings() is first
    with overridden("api.url", OTHER):
        assert get_current_settings() is not first


def test_other_settings_around_it_count() -> None:
    for seconds in (7.0, 8.0):
        with temporary_settings({PREFECT_API_REQUEST_TIMEOUT: seconds}), overridden("api.url", ONE):
            assert PREFECT_API_REQUEST_TIMEOUT.value() == seconds


def test_a_variable_that_was_set_since_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for Prefect's own way, which reads the environment each time."""
    for seconds in ("7", "8"):
        monkeypatch.setenv("PREFECT_API_REQUEST_TIMEOUT", seconds)
        with overridden("api.url", ONE):
            mine = PREFECT_API_REQUEST_TIMEOUT.value()
        with temporary_settings({PREFECT_API_URL: ONE}):
            assert mine == PREFECT_API_REQUEST_TIMEOUT.value()


def test_it_keeps_no_more_than_a_few() -> None:
    for number in range(40):
        with overridden("api.url", f"http://{number}.example.com/api"):
            assert PREFECT_API_URL.value() == f"http://{number}.example.com/api"
    assert len(settings_override._known) <= settings_override._MOST

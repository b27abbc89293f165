"""What a submission is told, checked when it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.errors import ConfigurationError

Link = Literal["auto"] | bool
OnFailure = Literal["collect", "raise", "cancel"]
Rest = Literal["cancel", "leave"]  # what becomes of runs that have not ended
ItemKey = Callable[[Mapping[str, Any]], str]
Idempotency = Literal["adopt", "retry-failed", "none"] | ItemKey

CHOICES: Mapping[str, tuple[object, ...]] = {
    "link": ("auto", True, False),
    "on_failure": ("collect", "raise", "cancel"),
    "on_timeout": ("cancel", "leave"),
    "on_exit": ("cancel", "leave"),
}
SECONDS = ("retry_delay", "timeout", "start_timeout", "cancel_grace", "crash_grace")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """All settings of a submission; times in seconds. `submission.flow_submitter` says what each does."""

    max_in_flight: int | None = None
    retries: int = 0
    retry_delay: float = 10.0
    tags: tuple[str, ...] = ()
    job_variables: Mapping[str, Any] = field(default_factory=dict)
    work_queue: str | None = None
    timeout: float | None = None
    start_timeout: float | None = None
    on_timeout: Rest = "cancel"
    on_failure: OnFailure = "collect"
    on_exit: Rest = "cancel"
    cancel_grace: float = 60.0
    crash_grace: float = 5.0
    link: Link = "auto"
    idempotency: Idempotency = "adopt"

    def __post_init__(self) -> None:
        """
        Raises:
            ConfigurationError: names every setting that cannot be meant.
        """
        if faults := list(self._faults()):
            raise ConfigurationError("; ".join(faults) + ".", location="flow_submitter")

    def _faults(self) -> Iterator[str]:
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                yield f"{name}={value!r}: one of {', '.join(map(repr, choices))}"
        for name in SECONDS:
            if (seconds := getattr(self, name)) is not None and seconds < 0:
                yield f"{name}={seconds!r}: seconds, not negative"
        if self.max_in_flight is not None and self.max_in_flight < 1:
            yield f"max_in_flight={self.max_in_flight!r}: at least 1, or None for no window"
        if self.retries < 0:
            yield f"retries={self.retries!r}: how often a run is started again, at least 0"
        if not callable(self.idempotency) and self.idempotency not in ("adopt", "retry-failed", "none"):
            yield f"idempotency={self.idempotency!r}: 'adopt', 'retry-failed', 'none', or a function of the parameters"

"""What a submission is told, checked when it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
SECONDS: Mapping[str, bool] = {  # whether None is allowed, for no limit
    "retry_delay": False,
    "timeout": True,
    "start_timeout": True,
    "cancel_grace": False,
    "crash_grace": False,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """All settings of a submission; times in seconds. `orchestrator.submission.flow_submitter` says what each does."""

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
        for name, may_be_none in SECONDS.items():
            value = getattr(self, name)
            if not (_is_number(value) and value >= 0) and not (value is None and may_be_none):
                yield f"{name}={value!r}: seconds, not negative{', or None' if may_be_none else ''}"
        if self.max_in_flight is not None and not _is_count(self.max_in_flight, 1):
            yield f"max_in_flight={self.max_in_flight!r}: at least 1, or None for no window"
        if not _is_count(self.retries, 0):
            yield f"retries={self.retries!r}: how often a run is started again, at least 0"
        if not callable(self.idempotency) and self.idempotency not in ("adopt", "retry-failed", "none"):
            yield f"idempotency={self.idempotency!r}: 'adopt', 'retry-failed', 'none', or a function of the parameters"
        yield from self._faults_of_runs()

    def _faults_of_runs(self) -> Iterator[str]:
        """Of what each run gets."""
        if not isinstance(self.tags, tuple) or not all(isinstance(tag, str) and tag for tag in self.tags):
            yield f"tags={self.tags!r}: texts"
        if not isinstance(self.job_variables, Mapping):
            yield "job_variables: a mapping of names to values"
        if self.work_queue is not None and (not isinstance(self.work_queue, str) or not self.work_queue):
            yield f"work_queue={self.work_queue!r}: a queue's name, or None for the deployment's own"


def as_texts(given: Iterable[str]) -> tuple[str, ...]:
    """What may be one text or several; anything else as it is, for `Options` to name."""
    if isinstance(given, str):
        return (given,)
    return tuple(given) if isinstance(given, Iterable) else given


def as_mapping(given: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """A copy, empty where nothing is given; anything else as it is, for `Options` to name."""
    return dict(given or {}) if isinstance(given, Mapping | None) else given


def _is_number(value: object) -> bool:
    """Whether it counts something: True and False do not, though they are numbers in Python."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least

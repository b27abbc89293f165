"""Everything that can go wrong, on one screen.

    OrchestratorError              exit code 1: something failed
    ├── ConfigurationError         2: what a person wrote is wrong; carries every fault found, not just the first
    │   └── ServerMismatch         2: two settings name different Prefect servers
    ├── ServerError                1: the Prefect server refused or broke a request
    │   ├── ServerUnreachable      1: it did not answer at all
    │   └── ServerBusy             1: it answered that it cannot do it now; the same request may work later
    ├── ImageError                 1: an image could not be built, pushed, pulled or removed
    │   └── EngineUnavailable      1: no Docker engine answers here, or it does not let us in
    ├── RegistryError              1: an image registry refused a request or failed while serving it
    │   └── RegistryUnreachable    1: it did not answer at all
    ├── LocalProcessError          1: a server or worker of ours could not be started or stopped
    │   └── PortTaken              1: something that is no Prefect server holds the address
    ├── RunFailed                  1: a flow run that we started or waited for did not complete
    │   └── RunsTimedOut           1: flow runs had not ended when the time to wait was up
    └── RefusedError               5: a safety rule forbids it
        ├── HeldError              5: scheduled sync waits, since somebody went back to an older revision
        └── LockedError            5: somebody else applies to the environment

Work that was done in part is no error but a result (exit code 4, "degraded").

Every error says what happened (`message`), where (`location`: file:line or the object's name) and how to get out
(`remedy`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Fault(Protocol):
    """What a configuration error carries of each single fault (`model.ValidationError` is one)."""

    @property
    def code(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def file_path(self) -> str | None: ...
    @property
    def line_number(self) -> int | None: ...
    @property
    def remediation(self) -> str: ...


class OrchestratorError(Exception):
    """The root of the tree: catch this to catch all of ours.

    Args:
        message: what happened, one sentence.
        location: where, as `file:line` or as the name of the object on the server.
        remedy: what to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, location: str = "", remedy: str = "") -> None:
        self.message, self.location, self.remedy = message, location, remedy
        super().__init__(message)

    def __str__(self) -> str:
        where = f"{self.location}: " if self.location else ""
        remedy = f" {self.remedy}" if self.remedy else ""
        return f"{where}{self.message}{remedy}"


class ConfigurationError(OrchestratorError):
    """What a person wrote cannot be used. `faults` holds every fault found."""

    exit_code = 2

    def __init__(self, message: str, *, location: str = "", remedy: str = "", faults: Sequence[Fault] = ()) -> None:
        super().__init__(message, location=location, remedy=remedy)
        self.faults = tuple(faults)


class ServerMismatch(ConfigurationError):
    """Two settings name different Prefect servers and nothing says which one is meant."""


class ServerError(OrchestratorError):
    """The Prefect server refused a request or failed while serving it."""


class ServerUnreachable(ServerError):
    """Nothing answers at the Prefect server's address."""


class ServerBusy(ServerError):
    """The server answered that it cannot do it now. `retry_after`: the seconds that it asks for, 0 if it names none."""

    def __init__(self, message: str, *, location: str = "", remedy: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message, location=location, remedy=remedy)
        self.retry_after = retry_after


class ImageError(OrchestratorError):
    """An image could not be built, pushed, pulled or removed. `output`: the last lines of what the build said."""

    def __init__(self, message: str, *, location: str = "", remedy: str = "", output: Sequence[str] = ()) -> None:
        super().__init__(message, location=location, remedy=remedy)
        self.output = tuple(output)


class EngineUnavailable(ImageError):
    """No Docker engine answers, or this user may not use it."""


class RegistryError(OrchestratorError):
    """An image registry refused a request, or failed while serving it."""


class RegistryUnreachable(RegistryError):
    """Nothing answers at the registry's address."""


class LocalProcessError(OrchestratorError):
    """A background process of ours (server, worker) could not be started or stopped."""


class PortTaken(LocalProcessError):
    """Something that is no Prefect server listens where the server should."""


class RunFailed(OrchestratorError):
    """A flow run that was started or waited for did not complete."""


class RunsTimedOut(RunFailed, TimeoutError):
    """Flow runs had not ended when the time to wait for them was up."""


class RefusedError(OrchestratorError):
    """A safety rule forbids what was asked."""

    exit_code = 5


class HeldError(RefusedError):
    """Scheduled sync waits, since somebody went back to an older revision."""


class LockedError(RefusedError):
    """Somebody else holds the lock of the environment, or took it from us."""

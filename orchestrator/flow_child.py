"""The child process that imports flows. Started by `children`, in the folder where the flows would run.

`python -P -m orchestrator.flow_child TASK DESCRIPTOR` reads a JSON list of entrypoints from standard input. Through
the socket it sends one JSON line when it is ready, and one for each entrypoint as soon as it is done: the entrypoint
and the answer. No flow's function is ever called.
"""

# ruff: noqa: E402 - collecting garbage takes a sixth of the time of importing Prefect, and finds none
from __future__ import annotations

import gc

USUAL_COLLECTION = gc.get_threshold()
gc.set_threshold(100_000, 50, 100)

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from prefect import Flow
from prefect.exceptions import ScriptError
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema_from_entrypoint
from prefect.utilities.importtools import load_module, load_script_as_module

gc.freeze()
gc.set_threshold(*USUAL_COLLECTION)

ROOT = Path.cwd().resolve()

# ---------------------------------------------------------------------------------------------------------
# What can be asked
# ---------------------------------------------------------------------------------------------------------


def schema_of(entrypoint: str) -> dict[str, Any]:
    """The schema that `prefect deploy` would store, or the reason why there is none.

    Returns:
        `schema`; or `schema` and `warning`, where Prefect had to leave out what fails; or `error`.
    """
    try:
        return {
            "schema": load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False).parameters.model_dump(
                exclude_unset=True
            )
        }
    except BaseException as error:  # a flow's module may raise anything, SystemExit included
        reason = _described(error.__cause__ or error)
    try:  # Prefect's reading that leaves out what fails
        schema = parameter_schema_from_entrypoint(entrypoint).model_dump(exclude_unset=True)
        return {"schema": schema, "warning": reason}
    except BaseException:  # as above
        return {"error": reason}


def import_of(entrypoint: str) -> dict[str, Any]:
    """What is at an entrypoint, once its file has been run as Prefect's runs do it.

    Returns:
        `name`, of the flow; or `instead`, what is there that is no flow; or `error` with the exception's text,
        `missing` with the module that was not found, and the `file` and `line` of the repository where it happened.
    """
    file, _, bound = entrypoint.rpartition(":")
    outcome = _outcome_of(file)
    if isinstance(outcome, BaseException):
        return {"error": _described(outcome), "missing": _missing_module(outcome), **_place(outcome)}
    found: Any = outcome
    try:
        for part in bound.split("."):
            found = getattr(found, part)
        return {"name": found.name} if isinstance(found, Flow) else {"instead": type(found).__name__}
    except BaseException as error:
        return {"instead": "nothing" if isinstance(error, AttributeError) else _described(error)}


TASKS: Mapping[str, Callable[[str], dict[str, Any]]] = {"schema": schema_of, "import": import_of}

# ---------------------------------------------------------------------------------------------------------
# Importing, and what to say of a failure
# ---------------------------------------------------------------------------------------------------------

_outcomes: dict[str, ModuleType | BaseException] = {}


def _outcome_of(file: str) -> ModuleType | BaseException:
    """The module that a file makes, or what it raised. A file is run once, however many flows it has."""
    if file not in _outcomes:
        try:
            _outcomes[file] = load_script_as_module(file) if file.endswith(".py") else load_module(file)
        except ScriptError as error:
            _outcomes[file] = error.user_exc
        except BaseException as error:  # Prefect wraps no SystemExit
            _outcomes[file] = error
    return _outcomes[file]


def _described(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException:  # people write __str__ too
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _missing_module(error: BaseException) -> str | None:
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    return name if isinstance(name, str) else None


def _place(error: BaseException) -> dict[str, Any]:
    """The last place inside the repository that led to the failure."""
    places = [(file, line) for file, line in _frames(error.__traceback__) if not file.startswith("<")]
    if isinstance(error, SyntaxError) and isinstance(error.filename, str):
        places.append((error.filename, error.lineno or 1))
    ours = [(path, line) for file, line in places if (path := _in_repository(file))]
    return {"file": ours[-1][0], "line": ours[-1][1]} if ours else {}


def _frames(trace: TracebackType | None) -> Iterator[tuple[str, int]]:
    while trace is not None:
        yield trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next


def _in_repository(file: str) -> str | None:
    """The path relative to the root; None outside of it, and in an environment that lies in it."""
    path = (ROOT / file).resolve()
    in_environment = path.is_relative_to(Path(sys.prefix).resolve()) or "site-packages" in path.parts
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) and not in_environment else None


# ---------------------------------------------------------------------------------------------------------
# Asked and answered
# ---------------------------------------------------------------------------------------------------------


def main() -> None:
    task, descriptor = TASKS[sys.argv[1]], int(sys.argv[2])
    entrypoints = json.load(sys.stdin)
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())  # who waits for input gets none
    os.set_inheritable(descriptor, False)
    sys.dont_write_bytecode = True  # from here on it is other people's folders that would be written to
    threading.Thread(target=_end_with_parent, args=(descriptor,), daemon=True).start()
    me = os.getpid()
    _send(descriptor, "ready")
    for entrypoint in entrypoints:
        answer = task(entrypoint)
        if os.getpid() != me:  # a fork, made by the code and come back here
            os._exit(0)
        _send(descriptor, [entrypoint, answer])
        os.chdir(ROOT)


def _send(descriptor: int, value: Any) -> None:
    left = json.dumps(value, default=str).encode() + b"\n"
    while left:
        left = left[os.write(descriptor, left) :]


def _end_with_parent(descriptor: int) -> None:
    """Nothing ever comes through the socket but its end: whoever asked is gone, and nobody else would end this."""
    with suppress(ConnectionError):  # the end, with something left unread
        while os.read(descriptor, 1):
            pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()

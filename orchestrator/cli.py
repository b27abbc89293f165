"""The command line: `orchestrator COMMAND` and `python -m orchestrator COMMAND`.

Commands are registered by their import path and loaded when called, so that none pays for what another imports: help
and `discover` start in a fraction of the time that importing Prefect takes.
"""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from collections.abc import Sequence
from itertools import pairwise

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from orchestrator import __version__
from orchestrator.errors import OrchestratorError
from orchestrator.fault_report import error_json, error_text
from orchestrator.terminal import EXIT_INTERRUPTED, EXIT_USAGE, Terminal

app = App(
    name="orchestrator",
    help="GitOps for Prefect, run by Prefect itself: deploy every flow of a repository, and only what changed.",
    version=__version__,
    help_flags=["--help", "-h"],
    suppress_keyboard_interrupt=False,  # `main` says what to do next
    default_parameter=Parameter(negative=""),  # no --no-yes; where a "no" means something, the command says so
)

_COMMANDS = {
    "discover_command:discover": "List the flows of the repository, by reading source only.",
    "validate_command:validate": "Check flows, prefect.yaml and environment files without the server.",
    "validate_command:rules": "List all rules of `validate`, or explain one.",
    "run_commands:bootstrap": "From nothing to a running deployer: server, pools, limits, worker, first sync.",
    "deploy_commands:plan": "Show what would change on the server, and write nothing.",
    "deploy_commands:apply": "Change what differs between the repository and the server.",
    "deploy_commands:status": "Compare the live server with the repository: in sync, ready, and what is wrong.",
    "build_commands:build": "Build the images that are missing, and push none.",
    "build_commands:push": "Build the images that are missing, and push them to the registry.",
    "build_commands:pull": "Pull the environment's images into this machine's engine.",
    "revision_commands:history": "List what was applied: when, from which commit, by whom, and what changed.",
    "revision_commands:rollback": "Apply an older revision again; scheduled sync waits until the repository moves on.",
    "revision_commands:promote": "Take the commit and images of one environment into another one.",
    "run_commands:run": "Run one deployment, follow it, and show what its child runs did.",
    "deploy_commands:clean": "Delete deployments of ours that match a pattern.",
    "run_commands:down": "Stop the server and the worker that bootstrap started, and only those.",
}
_WRITING = ("apply", "rollback", "promote", "clean")
_AFTER_INTERRUPTION = "`orchestrator history` tells whether anything was done; the same command goes on from there."
_COLLECT_RARELY = (100_000, 50, 100)  # importing makes hundreds of thousands of objects, and none of them is garbage
for _place, _help in _COMMANDS.items():
    app.command(f"orchestrator.{_place}", name=_place.partition(":")[2], help=_help)
_images = App(name="images", help="Look after the images of this machine's engine.")
_images.command("orchestrator.build_commands:prune", name="prune", help="Remove old images that nothing uses.")
app.command(_images)


def run_command(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code that the contract in docs/architecture.md names."""
    terminal = Terminal("json" if _asks_for_json(arguments) else "text")
    try:
        code = app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        usage = OrchestratorError(_words(error), remedy=f"See `{_called(arguments)} --help`.")
        usage.exit_code = EXIT_USAGE
        return _fail(usage, terminal)
    except OrchestratorError as error:
        return _fail(error, terminal)
    return code if isinstance(code, int) else 0


def _words(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError):  # its own words would be masked: they read like a key and its value
        return (
            f"Not understood: {' '.join(error.unused_tokens or ())}. An option takes one value each time it is given."
        )
    return str(error)


def _called(arguments: Sequence[str]) -> str:
    """The command that was called, as people write it."""
    names = {place.partition(":")[2] for place in _COMMANDS}
    return f"orchestrator {arguments[0]}" if arguments and arguments[0] in names else "orchestrator"


def _fail(error: OrchestratorError, terminal: Terminal) -> int:
    if terminal.is_json:
        terminal.show("", error_json(error))
    else:
        terminal.error.print(error_text(error))
    return error.exit_code


def _asks_for_json(arguments: Sequence[str]) -> bool:
    documents = ("json", "sarif")
    return any(f"--output={form}" in arguments or ("--output", form) in pairwise(arguments) for form in documents)


def _end_like_ctrl_c(number: int, received: list[int]) -> None:
    """Whatever ends us politely gets the same report, and leaves as little behind, as a person's Ctrl-C.

    Only the first counts: a second Ctrl-C would end everything at once, and a closed terminal sends SIGHUP twice.
    """
    received.append(number)
    if len(received) == 1:
        signal.raise_signal(signal.SIGINT)


def main() -> None:
    """The console script."""
    gc.set_threshold(*_COLLECT_RARELY)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what an ASCII terminal cannot show must not stop a report
    os.environ.setdefault("DO_NOT_TRACK", "1")  # Prefect's usage statistics, and its notice about them, are not ours
    terminated: list[int] = []
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's `&` ignores it, and SIGTERM goes its way
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
            signal.signal(number, lambda number, _: _end_like_ctrl_c(number, terminated))
    try:
        code = run_command(sys.argv[1:])
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
        terminal = Terminal("json" if _asks_for_json(sys.argv[1:]) else "text")
        remedy = _AFTER_INTERRUPTION if sys.argv[1:2] and sys.argv[1] in _WRITING else ""
        _fail(OrchestratorError("Interrupted.", remedy=remedy), terminal)
    except BrokenPipeError:  # the reader went away (`| head`): nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    if code == EXIT_INTERRUPTED and terminated:
        code = 128 + terminated[0]
    gc.freeze()  # what is left ends with the process: nobody has to look through it
    sys.exit(code)

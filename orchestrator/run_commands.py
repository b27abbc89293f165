"""The commands about what runs: bootstrap, run, down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import anyio
from rich.console import Group, RenderableType
from rich.markdown import Markdown
from rich.text import Text

from orchestrator import fault_report, pipeline, report
from orchestrator.bootstrap import Progress, Request, run_and_follow
from orchestrator.bootstrap import bootstrap as bring_up
from orchestrator.errors import ConfigurationError, RunFailed
from orchestrator.local import LocalProcess, LocalState
from orchestrator.model import BootstrapResult, RunReport, Step
from orchestrator.server import open_server
from orchestrator.terminal import EXIT_DEGRADED, EXIT_FAILED, Common, Doing, OnServer, Terminal


def bootstrap(
    *,
    server: OnServer = OnServer(),  # noqa: B008 - frozen
    run: str | None = None,
    again: bool = False,
) -> int:
    """From nothing to a running deployer: server, pools, limits, worker, first sync.

    Every step does only what is missing: on a running system nothing changes.

    Args:
        run: A flow/deployment to run at the end, unless its present version has completed before.
        again: Run it even then.
    """
    terminal = Terminal(server.output)
    request = Request(root=server.root.resolve(), environment=server.env, api_url=server.api_url, run=run, again=again)
    terminal.tell(Text(f"bootstrap: environment {server.env} of {request.root.name}", style="bold"))
    result = _with_steps(terminal, request)
    parts: list[RenderableType] = [fault_report.problems_text(result.problems)]
    if result.sync is not None:
        parts.append(Markdown(result.sync.artifact))
    if result.run is not None:
        parts.append(report.run_text(result.run))
    parts.append(Text(f"Prefect UI: {result.ui_url}", style="bold green"))
    terminal.show(Group(*parts), report.bootstrap_json(result))
    return _exit_code(result)


def _exit_code(result: BootstrapResult) -> int:
    if result.run is not None and not result.run.succeeded:
        return EXIT_FAILED
    return EXIT_DEGRADED if any(problem.severity == "error" for problem in result.problems) else 0


def _with_steps(terminal: Terminal, request: Request) -> BootstrapResult:
    """Run bootstrap and tell each step; if it ends early, say what is running now."""
    try:
        with LocalState(request.root).alone(), terminal.working("bootstrap") as doing:
            return anyio.run(bring_up, request, Progress(Teller(terminal, doing)))
    except BaseException as error:
        _say_what_runs(terminal, LocalState(request.root), interrupted=isinstance(error, KeyboardInterrupt))
        raise


def _say_what_runs(terminal: Terminal, state: LocalState, *, interrupted: bool) -> None:
    """After an early end: which processes of ours there are now."""
    running = [process for process in state.processes() if process.find() is not None]
    if running or interrupted:
        left = ", ".join(f"{process.role} (pid {process.pid})" for process in running) or "nothing"
        words = f"bootstrap did not finish; running now: {left}. `orchestrator down` stops it."
        terminal.tell(Text(words, style="yellow"))


class Teller:
    """Tells on a terminal how bootstrap, or one run, goes."""

    def __init__(self, terminal: Terminal, doing: Doing) -> None:
        self._terminal = terminal
        self.starting, self.doing = doing.now, doing.tell

    def done(self, step: Step) -> None:
        self._terminal.tell(_step_line(step))

    def left(self, words: str) -> None:
        self._terminal.tell(Text(words, style="yellow"))


def _step_line(step: Step) -> Text:
    mark = "+" if step.changed else "="
    style = "green" if step.changed else "dim"
    line = Text(f"{mark} {step.name:<20} ", style=style)
    return line.append(step.outcome, style="default").append(f"  {step.seconds:.1f} s", style="dim")


def run(
    deployment: str,
    *,
    server: OnServer = OnServer(),  # noqa: B008 - frozen
    parameter: tuple[str, ...] = (),
) -> int:
    """Run one deployment, follow it, and show what its child runs did.

    Args:
        deployment: Which one, as flow/deployment.
        parameter: A parameter as name=value, the value in JSON or plain text. May be given several times.
    """
    terminal = Terminal(server.output)
    settings = pipeline.load_settings(server.root, server.env)
    api_url = pipeline.server_address(settings.environment, server.api_url, writes=True)
    with terminal.working(f"{deployment}: starting") as doing:
        found = anyio.run(_run, deployment, api_url, _parameters(parameter), Teller(terminal, doing))
    terminal.show(report.run_text(found), report.run_json(found))
    return 0 if found.succeeded else RunFailed.exit_code


async def _run(deployment: str, api_url: str | None, parameters: dict[str, Any], teller: Teller) -> RunReport:
    async with open_server(api_url) as server:
        return await run_and_follow(server, deployment, parameters, teller)


def _parameters(written: Sequence[str]) -> dict[str, Any]:
    for item in written:
        if "=" not in item:
            raise ConfigurationError(f"--parameter {item} has no value.", remedy="Write --parameter name=value.")
    return {name: _value(text) for name, _, text in (item.partition("=") for item in written)}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def down(*, common: Common = Common()) -> int:  # noqa: B008 - frozen
    """Stop the server and the worker that bootstrap started, and only those."""
    terminal = Terminal(common.output)
    state = LocalState(common.root.resolve())
    stopped: list[LocalProcess] = []
    if state.processes():
        with state.alone():
            stopped = [process for process in state.processes() if state.stop(process)]
    lines = [Text(f"stopped {process.role} {process.name} (pid {process.pid})") for process in stopped]
    text = Group(*lines) if lines else Text("nothing of ours is running")
    terminal.show(text, {"stopped": [_process_json(process) for process in stopped]})
    return 0


def _process_json(process: LocalProcess) -> dict[str, Any]:
    return {"role": process.role, "name": process.name, "pid": process.pid}

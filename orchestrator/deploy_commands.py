"""The commands that take a repository to its server: plan, apply, status, clean.

Prefect is imported when the server's turn comes. Where child processes import flows before that, both happen at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import anyio
from cyclopts import Parameter
from rich.console import Group
from rich.text import Text

from orchestrator import fault_report, pipeline, plan_report, report
from orchestrator.apply import untouched
from orchestrator.applying import carried_out, exit_code, prepared
from orchestrator.confirmation import ask
from orchestrator.late import late
from orchestrator.model import DEFAULT_ENVIRONMENT, Plan
from orchestrator.options import Manner, Scope
from orchestrator.pipeline import Asked
from orchestrator.plan import check_deletes
from orchestrator.recording import desired_digest
from orchestrator.review import read_review, write_review
from orchestrator.revision_report import hold_line
from orchestrator.terminal import (
    EXIT_CHANGES_PENDING,
    EXIT_DEGRADED,
    EXIT_FAILED,
    ApiUrl,
    Env,
    OnServer,
    Root,
    Terminal,
    Wait,
)
from orchestrator.terms import cleaning_terms, terms_of

if TYPE_CHECKING:
    from orchestrator import deployer, live
else:
    deployer, live = late("orchestrator.deployer"), late("orchestrator.live")


@Parameter(name="*")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ForReview:
    """Options of `plan`, which writes for a pull request as well."""

    root: Root = Path()
    output: Annotated[
        Literal["text", "json", "markdown"],
        Parameter(help="json: one document on standard output. markdown: for a comment on a pull request."),
    ] = "text"
    env: Env = DEFAULT_ENVIRONMENT
    api_url: ApiUrl = None


def plan(
    *,
    server: ForReview = ForReview(),
    scope: Scope = Scope(),  # noqa: B008
    out: Path | None = None,
    detailed_exitcode: bool = False,
) -> int:
    """Show what would change on the server, and write nothing.

    Args:
        out: Also write the plan to this file, for `apply --plan`.
        detailed_exitcode: Exit with 3 if there are changes.
    """
    terminal = Terminal(server.output)
    asked = read_repository(server, terminal)
    api_url = pipeline.server_address(asked.settings.environment, server.api_url, writes=False)
    found = anyio.run(_plan, asked, api_url, scope)
    _say_where(terminal, found, scope)
    document = plan_report.plan_json(found)
    if out is not None:
        write_review(out, document, found, scope)
    if server.output == "markdown":
        terminal.lines(plan_report.plan_markdown(found, with_links=False, longest=plan_report.LONGEST_COMMENT))
    else:
        terminal.show(Group(fault_report.problems_text(found.problems), plan_report.plan_text(found)), document)
    if _is_broken(found):
        return EXIT_DEGRADED
    return EXIT_CHANGES_PENDING if detailed_exitcode and found.has_changes else 0


def apply(
    *,
    server: OnServer = OnServer(),  # noqa: B008 - frozen
    scope: Scope = Scope(),  # noqa: B008
    reviewed: Annotated[Path | None, Parameter(name="--plan")] = None,
    yes: bool = False,
    prune: Annotated[bool | None, Parameter(negative="--no-prune")] = None,
    manner: Manner = Manner(),  # noqa: B008
) -> int:
    """Change what differs between the repository and the server.

    Args:
        reviewed: Apply exactly this plan, written by `plan --out`; refuse if anything has moved since.
        yes: Do not ask.
        prune: Delete what nothing asks for any more; default: the environment's policy.
    """
    terminal = Terminal(server.output)
    asked = _with_prune(read_repository(server, terminal), prune)
    api_url = pipeline.server_address(asked.settings.environment, server.api_url, writes=True)
    review = None if reviewed is None else read_review(reviewed, scope)
    scope = review.scope if review else scope
    found = anyio.run(_plan, asked, api_url, scope)
    _say_where(terminal, found, scope)
    if review is not None:
        review.check(found)
    if not manner.allow_delete:
        check_deletes(found, asked.settings.environment.policy)
    asks = found.has_changes and not yes and review is None
    if asks:
        ask(terminal, plan_report.plan_text(found), "Apply this plan?")
    if found.has_changes or found.hold is not None:
        seen = asks or review is not None
        terms = terms_of(
            asked, "command line", selection=scope.selection, adopt=scope.adopt, is_reviewed=seen, **manner.terms
        )
        ready, images = prepared(terminal, found, api_url)
        result = carried_out(terminal, partial(live.apply_changes, ready, api_url=api_url, terms=terms))
        result = replace(result, images=images)
    else:
        result = untouched(found)
    if result.ends_hold:
        terminal.tell(Text("scheduled sync goes on: the rollback is over", style="magenta"))
    text = Group(fault_report.problems_text(result.problems), report.result_text(result))
    terminal.show(text, report.result_json(result))
    return exit_code(result.status)


def status(*, server: OnServer = OnServer()) -> int:  # noqa: B008 - frozen
    """Compare the live server with the repository: in sync, ready, and what is wrong."""
    terminal = Terminal(server.output)
    asked = read_repository(server, terminal)
    environment = asked.settings.environment
    api_url = pipeline.server_address(environment, server.api_url, writes=False)
    digest = desired_digest(asked.desired, asked.settings.root)
    found = anyio.run(live.read_status, asked.desired, environment.policy, digest, api_url)
    hold = hold_line(found.hold) if found.hold else ""
    text = Group(fault_report.problems_text(found.problems), report.status_text(found, hold=hold))
    terminal.show(text, report.status_json(found, hold=hold))
    healthy = all(item.in_sync and item.ready for item in found.deployments) and not found.resources
    whole = not any(problem.severity == "error" for problem in found.problems)
    return 0 if healthy and whole else EXIT_FAILED


def clean(
    pattern: str,
    *,
    server: OnServer = OnServer(),  # noqa: B008 - frozen
    yes: bool = False,
    wait: Wait = True,
) -> int:
    """Delete deployments of ours that match a pattern.

    Args:
        pattern: A pattern on flow/deployment, such as `sub-etl-job/*`.
        yes: Do not ask.
        wait: Wait for an apply to the environment to end; --no-wait says who is at it, and ends.
    """
    terminal = Terminal(server.output)
    settings = pipeline.load_settings(server.root, server.env)
    api_url = pipeline.server_address(settings.environment, server.api_url, writes=True)
    owner = pipeline.owner_of(settings)
    ours, foreign = anyio.run(live.find_deployments, owner, pattern, api_url)
    if ours and not yes:
        names = "\n".join(f"- {item.config.deployment_path}" for item in ours)
        ask(terminal, Text(names), f"Delete these {len(ours)} deployments?")
    terms = cleaning_terms(settings, "command line", pattern, waits=wait)
    delete = partial(live.delete_deployments, owner, ours, foreign, pattern, api_url=api_url, terms=terms)
    result = carried_out(terminal, delete, doing="deleting")
    terminal.show(report.cleanup_text(result), report.cleanup_json(result))
    return exit_code(result.status)


def read_repository(server: OnServer | ForReview, terminal: Terminal) -> Asked:
    """Every stage before the server: configuration, discovery, validation, desired state."""
    with terminal.working("reading the repository"):
        return pipeline.read_repository(
            server.root, server.env, meanwhile=_load_prefect, deployer_schema=_deployer_schema
        )


def _load_prefect() -> None:
    live.make_ready()


def _deployer_schema() -> Mapping[str, Any]:
    return deployer.parameter_schema()


async def _plan(asked: Asked, api_url: str | None, scope: Scope) -> Plan:
    policy = asked.settings.environment.policy
    return await live.plan_changes(asked.desired, policy, api_url=api_url, selection=scope.selection, adopt=scope.adopt)


def _with_prune(asked: Asked, prune: bool | None) -> Asked:
    if prune is None:
        return asked
    environment = asked.settings.environment
    policy = environment.policy.model_copy(update={"prune": prune})
    environment = environment.model_copy(update={"policy": policy})
    return dataclasses.replace(asked, settings=dataclasses.replace(asked.settings, environment=environment))


def _say_where(terminal: Terminal, found: Plan, scope: Scope) -> None:
    terminal.tell(Text(f"environment {found.environment} on {found.api_url}", style="dim"))
    if scope.only and not found.changes:
        terminal.tell(Text(f"no deployment matches --only {' --only '.join(scope.only)}", style="yellow"))


def _is_broken(found: Plan) -> bool:
    conflicts = found.summary["conflict"] + found.resource_summary["conflict"]
    return bool(conflicts) or any(problem.severity == "error" for problem in found.problems)

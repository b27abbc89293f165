"""The commands about images: build, push, pull, and images prune."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import anyio
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Group

from orchestrator import fault_report, pipeline
from orchestrator.applying import making
from orchestrator.config import ConfigurationManager, EnvironmentConfig
from orchestrator.confirmation import ask
from orchestrator.errors import ConfigurationError
from orchestrator.faults import did_you_mean
from orchestrator.images.report import old_images_text, removed_text, results_json, results_text
from orchestrator.late import late
from orchestrator.model import DEFAULT_ENVIRONMENT, ImageResult, Owner, PlannedImage
from orchestrator.pipeline import Asked
from orchestrator.terminal import EXIT_DEGRADED, Common, OnServer, Terminal

if TYPE_CHECKING:
    from orchestrator.images import stages, upkeep
else:
    stages, upkeep = late("orchestrator.images.stages"), late("orchestrator.images.upkeep")

Dockerfiles = Annotated[tuple[str, ...], Parameter(help="Only the images of these Dockerfiles; default: all.")]


@dataclass(frozen=True, slots=True)
class _Images:
    """The images of an environment, and where they were read."""

    asked: Asked
    api_url: str | None
    images: tuple[PlannedImage, ...]


def build(*, server: OnServer = OnServer(), dockerfile: Dockerfiles = ()) -> int:  # noqa: B008 - frozen
    """Build the images that deployments of the environment run from, as far as they are not there; push none."""
    return _make(server, dockerfile, pushes=False, doing="building")


def push(*, server: OnServer = OnServer(), dockerfile: Dockerfiles = ()) -> int:  # noqa: B008
    """Build the images that are missing, and push them to the registry."""
    return _make(server, dockerfile, pushes=True, doing="pushing")


def pull(*, server: OnServer = OnServer(), dockerfile: Dockerfiles = ()) -> int:  # noqa: B008
    """Pull the images of the environment into this machine's engine, so that runs need not wait for that."""
    terminal = Terminal(server.output)
    found = _read(server, terminal, dockerfile)
    with terminal.working("pulling") as working:
        results = anyio.run(upkeep.pull_images, found.images, found.api_url, working.tell)
    return _show(terminal, found, results)


def prune(
    *,
    common: Common = Common(),  # noqa: B008
    keep: Annotated[int, Parameter(validator=Number(gte=0), help="How many of each image stay, the newest.")] = 3,
    api_url: str | None = None,
    yes: bool = False,
) -> int:
    """Remove old images of this project from this machine's engine: those that no deployment and no revision uses.

    All environments of the repository are looked at, each on its own server. Nothing else is ever removed, and nothing
    in a registry.

    Args:
        api_url: A server that is looked at besides those of the environments' files.
        yes: Do not ask.
    """
    terminal = Terminal(common.output)
    manager = ConfigurationManager(common.root)
    manager.require_project()
    project = manager.load_project().project
    names = manager.environments() or (DEFAULT_ENVIRONMENT,)
    environments = [manager.load_environment_config(name) for name in names]
    places = [place for environment in environments for place in _places(environment, project, api_url)]
    old = anyio.run(upkeep.find_old_images, project, places, keep)
    if old and not yes:
        ask(terminal, old_images_text(old), f"Remove these {len(old)} images?")
    removed, kept = anyio.run(upkeep.remove_images, old) if old else ([], [])
    terminal.show(removed_text(removed, kept), {"removed": removed, "in_use": kept})
    return 0


def _places(environment: EnvironmentConfig, project: str, api_url: str | None) -> list[upkeep.Place]:
    """The servers on which an environment may be: that of its file, and the one that was given."""
    owner = Owner(project=project, environment=environment.name)
    addresses = dict.fromkeys(address for address in (environment.prefect_api_url, api_url) if address)
    return [(owner, environment, address) for address in addresses or (None,)]


def _make(server: OnServer, dockerfiles: Sequence[str], *, pushes: bool, doing: str) -> int:
    terminal = Terminal(server.output)
    found = _read(server, terminal, dockerfiles)
    desired = found.asked.desired
    with terminal.working(doing) as working:
        make = making(terminal, working, found.api_url, pushes=pushes)
        results = anyio.run(make, found.images, found.asked.settings.root, desired.image_terms)
    return _show(terminal, found, results)


def _read(server: OnServer, terminal: Terminal, dockerfiles: Sequence[str]) -> _Images:
    with terminal.working("reading the repository"):
        asked = pipeline.read_repository(server.root, server.env)
        api_url = pipeline.server_address(asked.settings.environment, server.api_url, writes=False)
        images = anyio.run(stages.decide_images, asked.desired, api_url)
    return _Images(asked, api_url, _chosen(images, dockerfiles))


def _chosen(images: Sequence[PlannedImage], dockerfiles: Sequence[str]) -> tuple[PlannedImage, ...]:
    """The images of some Dockerfiles, or all of them.

    Raises:
        ConfigurationError: no image has such a Dockerfile.
    """
    known = {image.spec.dockerfile for image in images}
    for path in dockerfiles:
        if path not in known:
            raise ConfigurationError(
                f"No deployment here runs from an image of the Dockerfile {path!r}.",
                remedy=f"{did_you_mean(path, known)}There are {', '.join(sorted(known)) or 'none'}.",
            )
    return tuple(image for image in images if not dockerfiles or image.spec.dockerfile in dockerfiles)


def _show(terminal: Terminal, found: _Images, results: Sequence[ImageResult]) -> int:
    problems = found.asked.desired.problems
    document = {"images": results_json(results), "problems": [fault_report.fault_json(each) for each in problems]}
    terminal.show(Group(fault_report.problems_text(problems), results_text(results)), document)
    broken = any(result.status == "failed" for result in results)
    return EXIT_DEGRADED if broken or any(each.severity == "error" for each in problems) else 0

"""Rules about Dockerfiles and build contexts: IMG.

A Dockerfile is known from a flow that it belongs to, or from a build step of a prefect.yaml. The context of a build is
not always written down: then each folder is thought of from which people build, and only what is wrong in all of
them is a finding.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from orchestrator.deploy_steps import BUILD_STEPS
from orchestrator.dockerfile import INSTRUCTIONS, Dockerfile, Source, Stage, read_dockerfile
from orchestrator.dockerignore import DockerIgnore, dockerignore_of, matching_names
from orchestrator.errors import ConfigurationError
from orchestrator.images.specs import possible_contexts
from orchestrator.repository import Repository, line_of_fault
from orchestrator.rules.rule import Facts, Finding, Rule, suggestion
from orchestrator.yaml_source import Location, YamlDocument, read_yaml

_READS_ONLY = re.compile(r"\s*(?:#.*|(?:git (?:rev-parse|describe|log|branch|show)|date|echo|printf|pwd)\b[^>|;&]*)?")
LARGEST_FOLDER = 20_000  # entries looked at to know whether anything of a folder is left


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """A Dockerfile and how it is built, as far as that is written down."""

    dockerfile: str  # relative to the repository
    contexts: tuple[str, ...]  # folders that may be the context; empty text for the root
    gives_arguments: bool = False
    is_prepared: bool = False  # something runs before the build that may write files


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildStep:
    """A build step of a prefect.yaml: the paths at which its Dockerfile may lie, one for each possible context."""

    file_path: str
    line_number: int
    written: str
    builds: tuple[Build, ...]  # the first is the most likely


def builds_of(facts: Facts) -> tuple[Build, ...]:
    """Every Dockerfile that is known, once, with all contexts from which it may be built.

    Args:
        facts: what was read.

    Returns:
        The builds whose Dockerfile exists, in the order of their paths.
    """
    known: dict[str, Build] = {}
    from_flows = [_build_of_flow(flow.dockerfile_path) for flow in facts.flows if flow.dockerfile_path]
    from_steps = [build for step in build_steps(facts) for build in step.builds]
    for build in (*from_flows, *from_steps):
        earlier = known.get(build.dockerfile, build)
        known[build.dockerfile] = replace(
            build,
            contexts=tuple(dict.fromkeys((*earlier.contexts, *build.contexts))),
            gives_arguments=earlier.gives_arguments or build.gives_arguments,
            is_prepared=earlier.is_prepared or build.is_prepared,
        )
    return tuple(build for path, build in sorted(known.items()) if path in facts.repository)


def _build_of_flow(dockerfile: str) -> Build:
    return Build(dockerfile=dockerfile, contexts=possible_contexts(dockerfile))


def build_steps(facts: Facts) -> Iterator[BuildStep]:
    """The steps of all prefect.yaml files that build an image from a Dockerfile whose path is written out."""
    for path in facts.prefect_files:
        text = facts.repository.text(path) or ""
        if "build_docker_image" in text:
            yield from _steps_of_file(facts.repository.root, path, text)


@lru_cache(maxsize=64)
def _steps_of_file(root: Path, path: str, text: str) -> tuple[BuildStep, ...]:
    """The steps of one file; several rules ask for them. `text` makes sure that it is still the same file."""
    try:
        document = read_yaml(root / path, shown_as=path)
    except ConfigurationError:
        return ()  # reported by who reads it for its deployments
    lists = _step_lists(document.data)
    return tuple(step for place, steps in lists for step in _in_list(document, place, steps))


def _step_lists(data: Any) -> Iterator[tuple[Location, Sequence[Any]]]:
    """`build` of the file and of each deployment."""
    if not isinstance(data, Mapping):
        return
    deployments = data.get("deployments")
    sections = [((), data), *((("deployments", index), each) for index, each in _enumerated(deployments))]
    for place, section in sections:
        steps = section.get("build") if isinstance(section, Mapping) else None
        if isinstance(steps, Mapping):
            steps = [steps]
        if isinstance(steps, list):
            yield (*place, "build"), steps


def _enumerated(value: Any) -> list[tuple[int, Any]]:
    return list(enumerate(value)) if isinstance(value, list) else []


def _in_list(document: YamlDocument, place: Location, steps: Sequence[Any]) -> Iterator[BuildStep]:
    is_prepared = False
    for index, step in enumerate(steps):
        for name, inputs in step.items() if isinstance(step, Mapping) else ():
            if name not in BUILD_STEPS:
                is_prepared = is_prepared or not _only_reads(str(name), inputs)
            elif isinstance(inputs, Mapping):
                line = document.line((*place, index, name, "dockerfile"))
                yield from _build_step(document.path, line, inputs, is_prepared)


def _only_reads(name: str, inputs: Any) -> bool:
    """Is it a step that surely writes no file, such as one that asks git for the commit?"""
    if name.rpartition(".")[2] in ("push_docker_image", "pip_install_requirements"):
        return True
    script = inputs.get("script") if isinstance(inputs, Mapping) else None
    return isinstance(script, str) and all(_READS_ONLY.fullmatch(line) for line in script.splitlines())


def _build_step(path: str, line: int, inputs: Mapping[Any, Any], is_prepared: bool) -> Iterator[BuildStep]:
    dockerfile, context = inputs.get("dockerfile", "Dockerfile"), inputs.get("path", "")
    if not isinstance(dockerfile, str) or not isinstance(context, str) or dockerfile == "auto":
        return
    if any(mark in dockerfile + context for mark in ("{", "$", "://", "\0")) or context.startswith("git@"):
        return  # put together when the step runs, or elsewhere
    starts = dict.fromkeys(("", posixpath.dirname(path)))  # people call `prefect deploy` in either
    places = [(_inside(start, context, dockerfile), _inside(start, context)) for start in starts]
    if inputs.get("build_backend") == "buildx":  # takes the path from the working directory, and not from the context
        places += [(_inside(start, dockerfile), _inside(start, context)) for start in starts]
    if any(place is None or folder is None for place, folder in places):
        return  # outside of the repository
    builds = tuple(
        Build(
            dockerfile=place,
            contexts=(folder,),
            gives_arguments=bool(inputs.get("buildargs") or inputs.get("build_args")),
            is_prepared=is_prepared,
        )
        for place, folder in dict.fromkeys(places)
        if place is not None and folder is not None
    )
    yield BuildStep(file_path=path, line_number=line, written=dockerfile, builds=builds)


def _inside(*parts: str) -> str | None:
    """Parts of a path as one, relative to the repository; empty for its root, None outside of it."""
    joined = posixpath.normpath(posixpath.join("", *parts))
    if joined.startswith(("/", "../")) or joined == "..":
        return None
    return "" if joined == "." else joined


# ---------------------------------------------------------------------------------------------------------
# The rules
# ---------------------------------------------------------------------------------------------------------


def missing_dockerfile(facts: Facts) -> Iterator[Finding]:
    """A build step of a prefect.yaml names a Dockerfile that does not exist.

    The image cannot be built, so that nothing that runs in it can be deployed. Correct `dockerfile`: its path starts at
    the build context, which is `path`, or else the folder in which the deploying command is called. Or write
    `dockerfile: auto`, and Prefect makes one up. Deployments that need no image go on.
    """
    for step in build_steps(facts):
        here = [build.dockerfile for build in step.builds]
        if any(path in facts.repository for path in here) or step.builds[0].is_prepared:
            continue
        names = facts.repository.names(posixpath.dirname(here[0]))
        near = suggestion(posixpath.basename(here[0]), [name for name in names if "ockerfile" in name])
        yield Finding(
            step.file_path,
            step.line_number,
            f"The Dockerfile {step.written!r} of this build step does not exist ({' or '.join(here)}).",
            near or "Correct the path, write the file, or let Prefect make one up: `dockerfile: auto`.",
            skips=True,
            span=step.written,
        )


def missing_source(facts: Facts) -> Iterator[Finding]:
    """A Dockerfile copies a file or folder that is not in its build context.

    The build fails at this line. Paths start at the build context, which is the root of the repository unless the
    build says otherwise, and not at the Dockerfile. Correct the path, or add the file. Nothing is said about what git
    ignores or a step before the build may write, about wildcards, other stages, and paths that hold a build argument.
    """
    for build, number, source in _copied(facts):
        places = [place for context in build.contexts for place in _paths_of(facts.repository, context, source)]
        if places or build.is_prepared or source.has_wildcards or _is_ignored_by_git(facts.repository, build, source):
            continue
        folders = " or ".join(context or "the root of the repository" for context in build.contexts)
        yield Finding(
            build.dockerfile,
            number,
            f"The Dockerfile copies {source.written!r}, but there is no such path in {folders}.",
            _nearest(facts.repository, build, source) or "Correct the path (it starts at the build context).",
            span=source.written,
        )


def ignored_source(facts: Facts) -> Iterator[Finding]:
    """A Dockerfile copies what .dockerignore removes from the build context.

    The build fails at this line, or copies an empty folder, although the file is there. Remove the pattern, or
    add an exception behind it (`!path`). A `<Dockerfile>.dockerignore` beside the Dockerfile goes before .dockerignore.
    """
    for build, number, source in _copied(facts):
        found = [(context, _paths_of(facts.repository, context, source)) for context in build.contexts]
        reasons = [_removal(facts.repository, build, context, paths) for context, paths in found if paths]
        if not reasons or None in reasons:
            continue
        yield Finding(
            build.dockerfile,
            number,
            f"The Dockerfile copies {source.written!r}, which {reasons[0]} removes from the build context.",
            "Remove this pattern, or add an exception behind it: `!` and the path from the build context.",
            span=source.written,
        )


def base_without_tag(facts: Facts) -> Iterator[Finding]:
    """The base image of a Dockerfile has neither a tag nor a digest, or the tag `latest`.

    What is built then depends on the day on which it is built: a new Python or Prefect arrives unasked, on one
    machine and not on the other. Name a version, `python:3.11-slim`, or a digest.
    """
    for build, dockerfile in _dockerfiles(facts):
        for stage in dockerfile.stages:
            tag = _moving_tag(stage)
            if tag is None or (stage.base.from_argument and build.gives_arguments):
                continue
            what = "the tag `latest`" if tag else "no tag"
            yield Finding(
                build.dockerfile,
                stage.line_number,
                f"The base image {stage.base_written!r} has {what}: what is built depends on the day.",
                "Name a version, such as `python:3.11-slim`, or a digest.",
                span=stage.base_written,
            )


def faulty_dockerfile(facts: Facts) -> Iterator[Finding]:
    """A Dockerfile or .dockerignore has a line that docker does not understand.

    The build fails before it begins. Correct the line; the nearest instruction is suggested. Instructions are described
    at docs.docker.com/reference/dockerfile. One that is not UTF-8 is not checked at all: save it as UTF-8.
    """
    for build in builds_of(facts):
        if line_number := line_of_fault(facts.repository.undecoded(build.dockerfile)):
            message = "The Dockerfile is not UTF-8: nothing in it is checked."
            yield Finding(build.dockerfile, line_number, message, "Save the file as UTF-8.")
    known_ignores: set[str] = set()
    for build, dockerfile in _dockerfiles(facts):
        for fault in dockerfile.faults:
            near = (
                suggestion(fault.word.upper()[:40], sorted(INSTRUCTIONS))
                if fault.word.upper() not in INSTRUCTIONS
                else ""
            )
            remedy = near or "See docs.docker.com/reference/dockerfile."
            word = fault.word or None
            yield Finding(build.dockerfile, fault.line_number, fault.message, remedy, span=word)
        for context in build.contexts:
            ignore = dockerignore_of(facts.repository, build.dockerfile, context)
            for line in ignore.faults if ignore.path not in known_ignores else ():
                message = f"The pattern {line.written[:80]!r} is malformed."
                remedy = "Close its brackets and finish its escapes; `!` needs a pattern behind it."
                yield Finding(ignore.path, line.line_number, message, remedy, span=line.written)
            known_ignores.add(ignore.path)


def _dockerfiles(facts: Facts) -> Iterator[tuple[Build, Dockerfile]]:
    """The Dockerfiles whose text can be read."""
    for build in builds_of(facts):
        text = facts.repository.text(build.dockerfile)
        if text is not None:
            yield build, read_dockerfile(text)


def _copied(facts: Facts) -> Iterator[tuple[Build, int, Source]]:
    """What Dockerfiles copy from their context, with its line, where the path is surely known."""
    for build, dockerfile in _dockerfiles(facts):
        for copy in dockerfile.copies if not dockerfile.faults else ():
            for source in copy.sources if copy.is_from_context else ():
                is_known = source.path.text and not source.path.from_argument and not source.is_remote
                if is_known and "\0" not in source.written and _relative(source) not in ("", build.dockerfile):
                    yield build, _line_of(facts, build, copy.instruction.line_number, source), source


def _line_of(facts: Facts, build: Build, line_number: int, source: Source) -> int:
    """The line on which a source stands: a COPY may go over several."""
    lines = (facts.repository.text(build.dockerfile) or "").split("\n")
    for number in range(line_number, min(line_number + 50, len(lines) + 1)):
        if source.written in lines[number - 1]:
            return number
    return line_number


def _relative(source: Source) -> str:
    """The path of a source as docker looks it up: from the context, out of which `..` does not lead."""
    return posixpath.normpath(f"/{source.path.text}").lstrip("/")


def _paths_of(repository: Repository, context: str, source: Source) -> list[str]:
    """What a source stands for in a context: paths that exist, relative to the context."""
    found = [""]
    for part in _relative(source).split("/"):
        deeper = []
        for folder in found:
            names = repository.names(posixpath.join(context, folder))
            here = matching_names(part, sorted(names)) if source.has_wildcards else [part] if part in names else []
            deeper += [posixpath.join(folder, name) for name in here]
        found = deeper[:LARGEST_FOLDER]
    return found


def _removal(repository: Repository, build: Build, context: str, paths: Sequence[str]) -> str | None:
    """What removes all of these paths, as `pattern (file:line)`; None where something is left."""
    ignore = dockerignore_of(repository, build.dockerfile, context)
    if not ignore.patterns or ignore.faults or not all(_is_removed(repository, ignore, context, p) for p in paths):
        return None
    reason = ignore.reason(paths[0])
    return f"{reason.written!r} ({ignore.path}:{reason.line_number})" if reason else ignore.path


def _is_removed(repository: Repository, ignore: DockerIgnore, context: str, path: str) -> bool:
    """Is nothing of a file or folder left in the context?"""
    if path == ".dockerignore":
        return False  # docker's own clients bring it back
    budget, waiting, met_a_file = LARGEST_FOLDER, [path], False
    while waiting and budget > 0:
        current = waiting.pop()
        location = posixpath.join(context, current)
        is_folder = (repository.root / location).is_dir() and not (repository.root / location).is_symlink()
        if not is_folder and not ignore.excludes(current):
            return False
        met_a_file = met_a_file or not is_folder or ignore.excludes_all_below(current)
        if is_folder and not ignore.excludes_all_below(current):
            names = repository.names(location)
            budget -= len(names)
            waiting += [posixpath.join(current, name) for name in names]
    return met_a_file and budget > 0


def _is_ignored_by_git(repository: Repository, build: Build, source: Source) -> bool:
    """Is it something that git does not keep, and that is made on the machine where the image is built?"""
    paths = [posixpath.normpath(posixpath.join(context, _relative(source))) for context in build.contexts]
    # It may be meant as a file or as a folder: a folder is ignored if a file in it is.
    return any(repository.is_ignored(form) for path in paths for form in (path, f"{path}/file"))


def _nearest(repository: Repository, build: Build, source: Source) -> str:
    """The nearest names in the same folder of a context, or the place below the Dockerfile where the file is."""
    folder, name = posixpath.split(_relative(source))
    names = [each for context in build.contexts for each in repository.names(posixpath.join(context, folder))]
    return suggestion(name, sorted(names))


def _moving_tag(stage: Stage) -> str | None:
    """`latest`, or an empty text where there is no tag; None where the image is pinned, not known, or a stage."""
    base = stage.base.text
    if not base or stage.parent is not None or base.lower() == "scratch" or "@" in base:
        return None
    _, colon, tag = base.rpartition("/")[2].partition(":")
    return tag if not colon or tag in ("", "latest") else None


RULES: tuple[Rule, ...] = (
    Rule(
        "IMG001",
        "Missing Dockerfile",
        "error",
        missing_dockerfile,
        example="""\
# prefect.yaml
build:
  - prefect_docker.deployments.steps.build_docker_image:
      image_name: shop/etl
      dockerfile: docker/etl.Dokcerfile
""",
        better="""\
# prefect.yaml
build:
  - prefect_docker.deployments.steps.build_docker_image:
      image_name: shop/etl
      dockerfile: docker/etl.Dockerfile
""",
    ),
    Rule(
        "IMG002",
        "Dockerfile copies what is not there",
        "warning",
        missing_source,
        example="FROM python:3.11-slim\nCOPY requirement.txt .\n",
        better="FROM python:3.11-slim\nCOPY requirements.txt .\n",
    ),
    Rule(
        "IMG003",
        "Dockerfile copies what .dockerignore removes",
        "warning",
        ignored_source,
        example="# .dockerignore: data\nFROM python:3.11-slim\nCOPY data/seed.csv /data/\n",
        better="# .dockerignore: data/*, then !data/seed.csv\nFROM python:3.11-slim\nCOPY data/seed.csv /data/\n",
    ),
    Rule(
        "IMG004",
        "Base image without a version",
        "warning",
        base_without_tag,
        example="FROM python\n",
        better="FROM python:3.11-slim\n",
    ),
    Rule(
        "IMG005",
        "Dockerfile or .dockerignore that docker does not understand",
        "warning",
        faulty_dockerfile,
        example="FROM python:3.11-slim\nRUNN pip install pandas\n",
        better="FROM python:3.11-slim\nRUN pip install pandas\n",
    ),
)

"""Rules about the images that flows run from: IMG006 and those behind it.

What is wrong with a Dockerfile in itself, wherever it is used, is told by `images`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence

from orchestrator.dockerignore import dockerignore_of
from orchestrator.images.specs import FlowImage, flow_images, is_known_to_lack
from orchestrator.rules.rule import Facts, Finding, Rule, grouped, in_words, reported, suggestion


def untried_image(facts: Facts) -> Iterator[Finding]:
    """A promotion meets a flow that has not run from an image in the environment that is promoted.

    To build its image now would be to deploy what nobody has tried. The one deployment is left out, and stays as it is.
    Deploy the flow from an image there first, and promote then.
    """
    return reported(facts, "IMG006")


def unknown_dockerfile(facts: Facts) -> Iterator[Finding]:
    """The environment says how to build a Dockerfile that belongs to no flow.

    What is written for it has no effect: it is misspelt, or the Dockerfile has moved. Name it by its path from the
    repository's root.
    """
    known = sorted({flow.dockerfile_path for flow in facts.flows if flow.dockerfile_path})
    for path in facts.environment.images.builds:
        if path not in known:
            file, line = facts.environment.place("images", "builds", path)
            near = suggestion(path, known)
            remedy = near or f"Dockerfiles of flows here: {', '.join(known) or 'none'}."
            yield Finding(file, line, f"No flow has the Dockerfile {path!r}.", remedy, span=path)


def incomplete_image(facts: Facts) -> Iterator[Finding]:
    """The image of a flow does not hold a file that the flow needs.

    The image is built, and each run fails: its flow, or a module that the flow imports, is not there. Copy the file, or
    the folder that it lies in, or take it out of .dockerignore. Only what the Dockerfile copies from the repository is
    looked at, and only where the environment runs flows from images.
    """
    if "docker" not in {*facts.environment.templates, *facts.environment.work_pools}:
        return
    flows = [flow for flow in facts.flows if flow.dockerfile_path]
    by_dockerfile = grouped(flows, lambda flow: flow.dockerfile_path or "")
    for dockerfile, image in flow_images(facts.repository, facts.environment, "", by_dockerfile).items():
        if not image.dockerfile.stages or image.dockerfile.faults:
            continue
        users = by_dockerfile[dockerfile]
        for path, remedy in _lacking(facts, image, sorted({path for flow in users for path in flow.closure})):
            line = image.dockerfile.stages[-1].line_number
            needing = in_words([flow for flow in users if path in flow.closure])
            yield Finding(dockerfile, line, f"The image does not hold {path}, which is needed by {needing}.", remedy)


def _lacking(facts: Facts, image: FlowImage, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Those of some files that an image surely does not hold, and what to do about each."""
    ignore = dockerignore_of(facts.repository, image.spec.dockerfile, image.spec.context)
    for path in paths:
        inside = posixpath.relpath(path, image.spec.context or ".")
        if is_known_to_lack(image, path):
            yield path, f"Copy it: `COPY {posixpath.dirname(path) or path} ...`."
        elif not inside.startswith("../") and not ignore.faults and (pattern := ignore.reason(inside)):
            yield path, f"Take it out of {ignore.path}: line {pattern.line_number} removes it ({pattern.written!r})."


RULES: tuple[Rule, ...] = (
    Rule(
        "IMG006",
        "Image that was not tried",
        "error",
        untried_image,
        example="orchestrator promote --from staging --env production  # staging runs the flow from no image",
        better="orchestrator apply --env staging  # from an image, and then promote",
        ignorable=False,
    ),
    Rule(
        "IMG007",
        "Build of an unknown Dockerfile",
        "warning",
        unknown_dockerfile,
        example="# environments/development.yaml\nimages:\n  builds:\n    docker/flow.Dokcerfile: {target: run}",
        better="# environments/development.yaml\nimages:\n  builds:\n    docker/flow.Dockerfile: {target: run}",
    ),
    Rule(
        "IMG008",
        "Image without a file that its flow needs",
        "warning",
        incomplete_image,
        example="""\
# flows/Dockerfile
FROM prefecthq/prefect:3-python3.11
WORKDIR /app
COPY requirements.txt .
""",
        better="""\
# flows/Dockerfile
FROM prefecthq/prefect:3-python3.11
WORKDIR /app
COPY requirements.txt .
COPY flows flows
""",
    ),
)

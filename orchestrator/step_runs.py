"""Build and push steps of a prefect.yaml that Prefect itself runs (`prefect.deployments.steps.core.run_steps`).

They run when a deployment of theirs is to be written, once for all deployments that have the same steps, in the folder
of their file, as `prefect deploy` called there would run them. Steps before an image's come before it is built, the
others after.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from prefect.deployments.steps.core import StepExecutionError, run_steps
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.templating import resolve_block_document_references
from pydantic import SecretStr

from orchestrator.images.changes import with_desired
from orchestrator.masking import concealed, masked
from orchestrator.model import Change, DeploymentConfig, DeployStep, Finding, ImageSpec, Plan, PlannedImage
from orchestrator.placeholders import environment_value, filled, names_in, texts_of
from orchestrator.plan import checksum
from orchestrator.step_outputs import open_outputs, output_values, with_outputs

_SHORTEST_SECRET = 3  # characters: hiding what is shorter would hide letters everywhere

Tell = Callable[[str, str], None]
"""Is told a line that a step prints: the step's name, and the line."""


class StepRuns:
    """The steps of the deployments that a plan writes.

    Args:
        plan: the plan; images in it may still have to be made.
        tell: is told each line that a step prints, behind the step's name.
        api_url: the server that has the blocks and variables which steps name; None: as Prefect's settings say.
    """

    def __init__(self, plan: Plan, tell: Tell, api_url: str | None = None) -> None:
        self._place = _Place(Path(plan.root), api_url, tell)
        self._configs = list(_due(plan))
        self._groups: dict[str, _Group] = {}
        for config in self._configs:
            if any(step.image is None for step in config.steps):
                self._groups.setdefault(_key(config.steps), _Group(config.steps))

    async def before_images(self, images: Sequence[PlannedImage]) -> tuple[PlannedImage, ...]:
        """Run what stands before the steps of images.

        Returns:
            The images with the tags that these steps gave them; one that only deployments need whose steps failed has
            a finding.
        """
        for group in self._groups.values():
            await group.run(self._place, until_image=True)
        return tuple(self._with_tags(image) for image in images)

    async def after_images(self, plan: Plan) -> Plan:
        """Run the others, and fill in what all of them gave. Nothing runs behind an image that could not be made.

        Args:
            plan: with its images made.

        Returns:
            The plan; a change whose step failed, or does not give what it needs, has a finding.
        """
        references = {image.spec: image for image in plan.images}
        needed = {_key(config.steps) for config in _due(plan)}
        for key, group in self._groups.items():
            if key in needed:
                group.give(references)
                await group.run(self._place, until_image=False)
        now = replace(plan, changes=tuple(self._filled(change) for change in plan.changes))
        return replace(now, checksum=checksum(now))

    def _with_tags(self, image: PlannedImage) -> PlannedImage:
        users = [config for config in self._configs if image.name in dict(config.images)]
        groups = [self._groups.get(_key(config.steps)) for config in users]
        failures = [group.failure for group in groups if group is not None and group.failure is not None]
        if users and len(failures) == len(users) and image.action != "reuse":
            return replace(image, findings=(*image.findings, failures[0]))
        values: dict[str, Any] = {}
        for group in groups:
            values |= group.values(image.spec.aliases) if group is not None else {}
        aliases = filled(list(image.spec.aliases), values)
        return replace(image, spec=replace(image.spec, aliases=tuple(map(str, aliases))))

    def _filled(self, change: Change) -> Change:
        config = change.desired
        group = self._groups.get(_key(config.steps)) if config is not None and _is_due(change) else None
        if group is None or config is None:
            return change
        if group.failure is not None:
            return replace(change, findings=(*change.findings, group.failure))
        names = open_outputs(config)
        values = group.values(names)
        missing = tuple(_not_given(name) for name in names if name not in values)
        config = replace(config, concealed=(*config.concealed, *group.secrets))
        known = with_desired(change, with_outputs(config, values))
        return replace(known, findings=(*known.findings, *missing))


def _due(plan: Plan) -> Iterator[DeploymentConfig]:
    """The deployments that are to be written."""
    return (change.desired for change in plan.changes if change.desired is not None and _is_due(change))


def _is_due(change: Change) -> bool:
    return change.writes and not change.obstacles


@dataclass(frozen=True, slots=True)
class _Place:
    """Where steps run, and whose blocks and variables they see."""

    root: Path
    api_url: str | None
    tell: Tell

    @contextlib.contextmanager
    def entered(self, step: DeployStep, secrets: Sequence[str] = ()) -> Iterator[None]:
        """What is printed in the block is told, without secrets: standard output may be one JSON document."""
        settings = {PREFECT_API_URL: self.api_url} if self.api_url else {}
        lines = _Lines(lambda line: self.tell(_name(step), str(concealed(line, secrets))), sys.stdout)
        with contextlib.chdir(self.root / step.folder), temporary_settings(settings), contextlib.redirect_stdout(lines):
            try:
                yield
            finally:
                lines.flush()


class _Group:
    """Steps that several deployments share."""

    def __init__(self, steps: tuple[DeployStep, ...]) -> None:
        self._waiting = list(steps)
        self._outputs: dict[str, Any] = {}
        self.failure: Finding | None = None
        self.secrets: tuple[str, ...] = ()  # texts that blocks and the environment gave to the steps: never shown

    async def run(self, place: _Place, *, until_image: bool) -> None:
        while self._waiting and self.failure is None:
            step = self._waiting[0]
            if step.image is not None and until_image:
                return
            self._waiting.pop(0)
            if step.image is None:
                await self._run(step, place)

    async def _run(self, step: DeployStep, place: _Place) -> None:
        self.secrets = tuple(sorted({*self.secrets, *await _secrets_of(step, place)}, key=len, reverse=True))
        try:
            with place.entered(step, self.secrets):
                written = {step.function: dict(step.inputs)}
                self._outputs = await run_steps([written], self._outputs, print_function=lambda *words, **_: None)
        except StepExecutionError as error:
            why = str(concealed(str(error.__cause__ or error), self.secrets)).strip().rstrip(".")
            where = "the repository's root" if step.folder == "." else step.folder
            self.failure = Finding(
                message=f"Its step {_name(step)} failed: {why}.",
                remedy=f"Run it by hand in {where}, and correct what it says.",
            )

    def give(self, images: Mapping[ImageSpec, PlannedImage]) -> None:
        """Take in what the steps of images gave: these are made by now."""
        for step in self._waiting:
            if step.image is not None and step.image in images:
                given = output_values(images[step.image])
                self._outputs |= {**given, **({step.id: given} if step.id else {})}

    def values(self, texts: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
        """What the placeholders in some texts stand for, as they are written."""
        found = {}
        for whole, name in (pair for text in texts for pair in names_in(text)):
            with contextlib.suppress(LookupError, TypeError):
                found[whole] = _at(self._outputs, name)
        return found


async def _secrets_of(step: DeployStep, place: _Place) -> set[str]:
    """The texts that a step gets from blocks and from secret environment variables."""
    found = set()
    for whole, name in (pair for _, text in texts_of(step.inputs) for pair in names_in(text)):
        if name.startswith("prefect.blocks."):
            with contextlib.suppress(Exception), place.entered(step):  # what is wrong with it, the step itself says
                given: Mapping[str, Any] = dict(await resolve_block_document_references({"value": whole}))
                found |= {text for text in _plain_texts(given["value"]) if len(text) >= _SHORTEST_SECRET}
        elif (value := environment_value(name)) is not None and masked(name, value) != value:
            found.add(value)
    return found


def _plain_texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _plain_texts(inner)
    elif isinstance(value, SecretStr | str):
        yield value.get_secret_value() if isinstance(value, SecretStr) else value


def _at(outputs: Mapping[str, Any], name: str) -> Any:
    value: Any = outputs
    for part in name.split("."):
        value = value[part]
    return value


def _name(step: DeployStep) -> str:
    return step.id or step.function.rpartition(".")[2]


def _key(steps: Sequence[DeployStep]) -> str:
    return json.dumps([(step.function, step.id, step.folder, step.inputs) for step in steps], default=str)


def _not_given(name: str) -> Finding:
    return Finding(
        message=f"No step has given {name}.",
        remedy="Correct the step's id or the output's name; the log has what the step said.",
    )


class _Lines(io.TextIOBase):
    """In place of standard output: tells somebody each line, who may write it to the real one."""

    def __init__(self, tell: Callable[[str], None], real: TextIO) -> None:
        self._tell, self._real, self._rest = tell, real, ""

    def write(self, text: str) -> int:
        *lines, self._rest = f"{self._rest}{text}".split("\n")
        for line in lines:
            self._tell_one(line)
        return len(text)

    def flush(self) -> None:
        if self._rest:
            self._tell_one(self._rest)
            self._rest = ""

    def _tell_one(self, line: str) -> None:
        with contextlib.redirect_stdout(self._real):
            self._tell(line)

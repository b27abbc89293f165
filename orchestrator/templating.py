"""Prefect's `{{ placeholders }}` in desired deployments → the values that the server and the environment have for them.

What is filled, from where and in which order follows `prefect deploy` (`prefect.cli.deploy._core._run_single_deploy`):
blocks, then variables, then environment variables, each on what the one before gave. A placeholder that is the whole
text keeps the type of its value. Pull steps get environment variables only, since the worker fills in the rest;
`{{ ctx.… }}`, and `{{ event.… }}` in the parameters of triggers, are filled when a run starts.

Prefect drops what nothing fills in silence. Here the one deployment is left out, with a fault for each such
placeholder: half a name or no image is what nobody meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_DEFAULT_DOCKER_BUILD_NAMESPACE
from prefect.utilities.dockerutils import get_prefect_image_name
from prefect.utilities.templating import resolve_block_document_references
from pydantic import ValidationError as PydanticError

from orchestrator.automations import WrongTrigger, normal_triggers
from orchestrator.deploy_steps import BUILD_STEPS, WRITTEN_BY_PREFECT, output_of
from orchestrator.errors import ConfigurationError
from orchestrator.images.names import parse_image
from orchestrator.masking import concealed, masked
from orchestrator.model import DeploymentConfig, DeployStep, Desired, ImageSpec, ScheduleConfig, ValidationError
from orchestrator.placeholders import ENVIRONMENT, environment_value, filled, names_in, texts_of
from orchestrator.prefect_yaml import DeclaredSchedule
from orchestrator.server import PrefectServer, our_errors
from orchestrator.step_outputs import open_outputs
from orchestrator.yaml_source import Location

UNFILLED = "DPL016"
WRONG_TRIGGER = "DPL017"
TWICE = "DPL002"

_BLOCK, _VARIABLE, _CONTEXT = "prefect.blocks.", "prefect.variables.", "ctx."
_TEXTS = ("deployment_name", "version", "description", "work_pool", "work_queue")
_FILLED = (*_TEXTS, "tags", "parameters", "job_variables", "schedules", "triggers")
_MAY_WAIT = ("version", "description", "tags", "parameters", "job_variables", "triggers")  # for a step
_SHORTEST_CONCEALED = 3  # characters: hiding what is shorter would hide letters everywhere


@dataclass(frozen=True, slots=True)
class _Source:
    """What one kind of placeholder stands for: values by the placeholder's text, and why others have none."""

    values: Mapping[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, _Reason] = field(default_factory=dict)
    is_secret: bool = False


@dataclass(frozen=True, slots=True)
class _Reason:
    """Why a deployment is left out, and what to do about it."""

    text: str
    remedy: str
    code: str = UNFILLED


@dataclass(slots=True)
class _Draft:
    """A deployment whose placeholders are being filled."""

    config: DeploymentConfig
    fields: dict[str, Any]
    is_templated: bool
    concealed: list[str] = field(default_factory=list)
    faults: dict[_Reason, list[Location]] = field(default_factory=dict)  # where each of them was met

    def report(self, place: Location, reason: _Reason) -> None:
        self.faults.setdefault(reason, []).append(place)

    def problems(self) -> Iterator[ValidationError]:
        """One for each reason, however many fields it concerns."""
        config = self.config
        path, _, line = config.source.rpartition(":")
        for reason, (first, *others) in self.faults.items():
            where = f"{_shown(first)} and {len(others)} more" if others else _shown(first)
            yield ValidationError(
                code=reason.code,
                message=f"The deployment {config.deployment_path} is left out: {where}: {reason.text}.",
                file_path=path or config.source or None,
                line_number=int(line) if line.isdigit() else None,
                remediation=reason.remedy,
                skips=True,
                flows=(config.entrypoint,) if config.entrypoint else (),
                declaration=config.source or None,
            )


def asks_server(desired: Desired) -> bool:
    """Whether the server has to be asked for what some placeholder stands for."""
    drafts = [_draft(config) for config in desired.deployments]
    credentials = any(step.image and step.image.credentials for draft in drafts for step in draft.config.steps)
    return credentials or bool(_wanted(drafts, _BLOCK) or _wanted(drafts, _VARIABLE))


async def resolve(desired: Desired, server: PrefectServer | None) -> Desired:
    """Fill in the placeholders of all deployments, and bring their triggers into the form that is compared.

    Each block and each variable is read once for all of them; without placeholders nothing is asked of the server.

    Args:
        desired: what was worked out from the repository.
        server: whose blocks and variables count; None where `asks_server` says that there are none.

    Returns:
        The same, filled. `concealed` of a deployment holds what must not be shown of it. A deployment with a
        placeholder that nothing fills, or with a wrong trigger, is left out and never pruned; `problems` say why.

    Raises:
        ServerUnreachable, ServerError: the server did not answer.
    """
    drafts = [_draft(config) for config in desired.deployments]
    open_ones = [draft for draft in drafts if draft.is_templated]
    for prefix, read in ((_BLOCK, _read_blocks), (_VARIABLE, _read_variables)):
        if wanted := _wanted(open_ones, prefix):
            assert server is not None, "asks_server has said so"
            source = await read(wanted, server)
            for draft in open_ones:
                _fill(draft, source)
    for draft in open_ones:
        _fill_from_environment(draft)
        _report_unfilled(draft)
    finished = [(draft, _finished(draft, Path(desired.root))) for draft in drafts]
    _report_twins(finished)
    return _without_faulty(desired, finished)


def _draft(config: DeploymentConfig) -> _Draft:
    fields = {name: getattr(config, name) for name in _FILLED}
    fields["schedules"] = [_schedule_fields(schedule) for schedule in config.schedules]
    fields["build"] = [_image_fields(step.image) if step.image else None for step in config.steps]
    is_templated = any(texts_of([*fields.values(), config.pull_steps]))
    return _Draft(config=config, fields=fields, is_templated=is_templated)


def _schedule_fields(schedule: ScheduleConfig) -> dict[str, Any]:
    names = (
        "cron",
        "interval",
        "rrule",
        "timezone",
        "anchor_date",
        "day_or",
        "active",
        "parameters",
        "slug",
        "replaces",
    )
    return {**{name: getattr(schedule, name) for name in names}, **schedule.placeholders}


def _image_fields(image: ImageSpec) -> dict[str, Any]:
    """What of an image may hold placeholders. Its credentials stay one: they are looked up when they are needed."""
    names = ("repository", "dockerfile", "target", "platform", "aliases")
    return {**{name: getattr(image, name) for name in names}, "arguments": dict(image.arguments)}


# ---------------------------------------------------------------------------------------------------------
# Values
# ---------------------------------------------------------------------------------------------------------


def _wanted(drafts: Iterable[_Draft], prefix: str) -> dict[str, str]:
    """The placeholders of one kind in all drafts: as they are written, and their names."""
    texts = (text for draft in drafts for _, text in texts_of(draft.fields))
    return {whole: name for text in texts for whole, name in names_in(text) if name.startswith(prefix)}


async def _read_variables(wanted: Mapping[str, str], server: PrefectServer) -> _Source:
    values, reasons = {}, {}
    known: dict[str, Any] = {}
    for whole, name in wanted.items():
        variable = name.removeprefix(_VARIABLE)
        if variable not in known:
            with our_errors(server.api_url):
                known[variable] = await server.client.read_variable_by_name(variable)
        if known[variable] is None:
            reasons[whole] = _Reason(
                f"there is no variable {variable!r} on the server",
                f"Set it with `prefect variable set {variable} VALUE`, or correct its name.",
            )
        else:
            values[whole] = known[variable].value
    return _Source(values, reasons)


async def _read_blocks(wanted: Mapping[str, str], server: PrefectServer) -> _Source:
    """Values of blocks, by Prefect's own reading of what a name like `secret.token.value.key` means."""
    by_block: dict[str, dict[str, str]] = {}
    for whole, name in wanted.items():
        block = ".".join(name.removeprefix(_BLOCK).split(".", 2)[:2])
        by_block.setdefault(block, {})[whole] = whole
    values: dict[str, Any] = {}
    reasons: dict[str, _Reason] = {}
    for block, placeholders in by_block.items():
        found = await _values_of_block(placeholders, server)
        if isinstance(found, Mapping):
            values |= found
            continue
        for whole in placeholders:  # one of them is wrong: the others are not to suffer from it
            one = await _values_of_block({whole: whole}, server) if len(placeholders) > 1 else found
            if isinstance(one, Mapping):
                values |= one
            else:
                reasons[whole] = _why_no_block(block, one)
    return _Source(values, reasons, is_secret=True)


async def _values_of_block(placeholders: dict[str, Any], server: PrefectServer) -> Mapping[str, Any] | Exception:
    with our_errors(server.api_url):
        try:
            return dict(await resolve_block_document_references(placeholders, client=server.client))
        except (ObjectNotFound, ValueError, LookupError, TypeError) as error:
            return error


def _why_no_block(block: str, error: Exception) -> _Reason:
    type_, _, name = block.partition(".")
    if isinstance(error, ObjectNotFound):
        text = f"there is no block {name!r} of the type {type_!r} on the server"
        return _Reason(text, "Create it in the UI under Blocks, or correct its name.")
    if not name:
        return _Reason("a block has a type and a name", "Write {{ prefect.blocks.TYPE.NAME }}.")
    return _Reason(f"the block {block!r} holds no such value", "Correct what stands behind the block's name.")


# ---------------------------------------------------------------------------------------------------------
# Filling
# ---------------------------------------------------------------------------------------------------------


def _fill(draft: _Draft, source: _Source) -> None:
    for place, text in list(texts_of(draft.fields)):
        for whole, _ in names_in(text):
            if whole in source.reasons:
                draft.report(place, source.reasons[whole])
            elif whole in source.values:
                value = source.values[whole]
                if source.is_secret:
                    draft.concealed += _texts_in(value)
                    if whole != text and isinstance(value, Mapping | list):
                        text_needed = _Reason(f"{whole} is no text, and stands inside of one", "Name a value in it.")
                        draft.report(place, text_needed)
    draft.fields = filled(draft.fields, source.values)


def _fill_from_environment(draft: _Draft) -> None:
    """Environment variables, in all fields and in the pull steps, where those that are not set stay."""
    pull_steps = list(draft.config.pull_steps)
    values: dict[str, Any] = {}
    for _, text in texts_of([*draft.fields.values(), pull_steps]):
        for whole, name in names_in(text):
            if (value := environment_value(name)) is not None:
                values[whole] = value
                if masked(name, value) != value:
                    draft.concealed.append(value)
    draft.fields = filled(draft.fields, values)
    draft.config = replace(draft.config, pull_steps=tuple(filled(pull_steps, values)))


def _texts_in(value: Any) -> Iterator[str]:
    """The texts and numbers in a value that must not be shown."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts_in(inner)
    elif value is not None and not isinstance(value, bool) and len(str(value)) >= _SHORTEST_CONCEALED:
        yield str(value)


# ---------------------------------------------------------------------------------------------------------
# What is left open
# ---------------------------------------------------------------------------------------------------------


def _report_unfilled(draft: _Draft) -> None:
    told = bool(draft.faults)  # of blocks and variables that are missing
    written = {whole for _, text in texts_of(_draft(draft.config).fields) for whole, _ in names_in(text)}
    for place, text in texts_of(draft.fields):
        for whole, name in names_in(text):
            if name.startswith(_CONTEXT) or (place[0] == "triggers" and "parameters" in place[2:3]):
                continue
            if output_of(name, _steps_before(place, draft.config.steps)) is not None:
                continue
            if told and name.startswith((_BLOCK, _VARIABLE)):
                continue
            shown = whole if whole in written else "a placeholder in the value of another"  # which may be secret
            draft.report(place, _why_unfilled(shown, name))


def _steps_before(place: Location, steps: Sequence[DeployStep]) -> Sequence[DeployStep]:
    """The steps that have run by the time that a value is needed. Of an image that is so of its further tags only."""
    match place:
        case ("build", int(index), "aliases", *_):
            return steps[:index]
        case (str(field), *_) if field in _MAY_WAIT:
            return steps
    return ()


def _why_unfilled(shown: str, name: str) -> _Reason:
    if name.startswith(ENVIRONMENT):
        variable = name.lstrip(ENVIRONMENT)
        return _Reason(
            f"the environment variable {variable} is not set", f"Set {variable} where the orchestrator runs."
        )
    if name.startswith((_BLOCK, _VARIABLE)):
        return _Reason(
            "a value that fills a placeholder holds another one", "Write the whole value into the first one."
        )
    if "." in name:
        return _Reason(
            f"{shown} can only be the output of a build or push step, and none gives it here",
            "Correct the step's id or the output's name, or write the value itself.",
        )
    return _Reason(f"nothing fills {shown}", "Write {{ $NAME }} for an environment variable, or the value itself.")


def _shown(place: Location) -> str:
    """A place in a deployment: `job_variables.env.X`, `schedules[0].cron`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")


# ---------------------------------------------------------------------------------------------------------
# Back to deployments
# ---------------------------------------------------------------------------------------------------------


def _finished(draft: _Draft, root: Path) -> DeploymentConfig:
    """The deployment with what was filled in; where that is of no use, the draft has a fault more."""
    config = _with_fields(draft) if draft.is_templated and not draft.faults else draft.config
    config = _with_images(draft, config, root) if config.steps and not draft.faults else config
    if draft.faults or not config.triggers:
        return config
    try:
        return replace(config, triggers=normal_triggers(config.triggers, config.deployment_name))
    except WrongTrigger as error:
        remedy = "Write it as docs.prefect.io has it under triggers."
        draft.report(("triggers",), _Reason(str(error), remedy, WRONG_TRIGGER))
        return config


def _with_fields(draft: _Draft) -> DeploymentConfig:
    fields, config = draft.fields, draft.config
    for name in _TEXTS:
        if not isinstance(fields[name], str | None):
            text = f"its value is {_kind_of(fields[name])}, and a text is needed"
            draft.report((name,), _Reason(text, "Make it a text."))
    schedules = [
        _schedule(draft, index, schedule, fields["schedules"][index]) for index, schedule in enumerate(config.schedules)
    ]
    return replace(
        config,
        **{name: fields[name] for name in (*_TEXTS, "parameters", "job_variables")},
        tags=tuple(dict.fromkeys(_tags(fields["tags"]))),
        triggers=tuple(fields["triggers"]),
        schedules=tuple(schedules),
        concealed=tuple(sorted({*draft.config.concealed, *draft.concealed}, key=len, reverse=True)),
    )


def _with_images(draft: _Draft, config: DeploymentConfig, root: Path) -> DeploymentConfig:
    """The deployment with what its build steps say, as `prefect deploy` would take it."""
    steps = []
    for step, fields in zip(config.steps, draft.fields["build"], strict=True):
        image = _image(step, fields, config.concealed, root) if fields else None
        if image and (wrong := _why_no_name(image.repository)):
            texts = (*config.concealed, *map(str.lower, config.concealed))  # a remedy has it in small letters
            draft.report(("build",), _Reason(*(str(concealed(text, texts)) for text in wrong)))
        steps.append(replace(step, image=image))
    config = replace(config, steps=tuple(steps))
    secret = [whole for whole, (step, _) in open_outputs(config).items() if _knows_blocks(step)]
    return replace(config, concealed=(*config.concealed, *secret))


def _knows_blocks(step: DeployStep) -> bool:
    """Whether what a step gives may hold a secret of a block: what the server has in its place is hidden then."""
    texts = (text for _, text in texts_of(step.inputs))
    return step.image is None and any(name.startswith(_BLOCK) for text in texts for _, name in names_in(text))


def _why_no_name(repository: str) -> tuple[str, str] | None:
    """Why an image cannot be called so, and what to do about it."""
    try:
        name = parse_image(repository)
    except ConfigurationError as error:
        return error.message.rstrip("."), error.remedy
    more = "a digest" if name.digest else "a tag" if name.tag else ""
    remedy = f"Name {name.repository}: its tag is made of what it is built from; further ones are `tag` of a step."
    return (f"the name of its image, {repository!r}, has {more}", remedy) if more else None


def _image(step: DeployStep, fields: Mapping[str, Any], secrets: Sequence[str], root: Path) -> ImageSpec:
    image = step.image
    assert image is not None
    name = str(fields["repository"])
    arguments = [(argument, str(value)) for argument, value in fields["arguments"].items()]
    secret = [pair for pair in arguments if any(text in pair[1] for text in secrets) or masked(*pair) != pair[1]]
    is_auto = fields["dockerfile"] == WRITTEN_BY_PREFECT
    return replace(
        image,
        repository=_with_namespace(name) if step.function in BUILD_STEPS else name,
        dockerfile="Dockerfile" if is_auto else fields["dockerfile"],
        dockerfile_text=_as_prefect_writes_it(root / step.folder) if is_auto else None,
        target=str(fields["target"]),
        platform=str(fields["platform"]),
        aliases=tuple(str(alias) for alias in fields["aliases"]),
        arguments=tuple(sorted(pair for pair in arguments if pair not in secret)),
        secret_arguments=tuple(sorted(secret)),
        concealed=_secret_parts(image, fields, secrets),
    )


def _secret_parts(written: ImageSpec, fields: Mapping[str, Any], secrets: Sequence[str]) -> tuple[str, ...]:
    """The secrets that placeholders have brought into what everyone reads of an image: its name and tags."""
    before = "\n".join((written.repository, *written.aliases))
    after = "\n".join((str(fields["repository"]), *map(str, fields["aliases"])))
    found = [secret for secret in secrets if secret in after and secret not in before]
    behind_host = [secret.partition("/")[2] for secret in found]  # engines name an image without its registry, too
    return (*found, *(path for path in behind_host if path))


def _as_prefect_writes_it(folder: Path) -> str:
    """The Dockerfile of `dockerfile: auto`, as `prefect_docker.deployments.steps.build_docker_image` has it."""
    place = f"/opt/prefect/{folder.resolve().name}"
    lines = [f"FROM {get_prefect_image_name()}"]
    if (folder / "requirements.txt").exists():
        lines.append(f"COPY requirements.txt {place}/requirements.txt")
        lines.append(f"RUN uv pip install -r {place}/requirements.txt")
    return "\n".join([*lines, f"COPY . {place}/", f"WORKDIR {place}/", ""])


def _with_namespace(name: str) -> str:
    """An image's name as Prefect's build step completes it."""
    namespace = PREFECT_DEFAULT_DOCKER_BUILD_NAMESPACE.value()
    return name if "/" in name or not namespace else f"{namespace}/{name}"


def _tags(values: Iterable[Any]) -> Iterator[str]:
    """Every tag as text; a placeholder for a list gives its members."""
    for value in values:
        members = value if isinstance(value, list) else [value]
        yield from (str(member) for member in members if str(member).strip())


def _schedule(draft: _Draft, index: int, schedule: ScheduleConfig, fields: Mapping[str, Any]) -> ScheduleConfig:
    if not any(texts_of(_schedule_fields(schedule))):
        return schedule
    try:
        return DeclaredSchedule.model_validate(fields).to_schedule()
    except PydanticError as error:
        for each in error.errors(include_url=False, include_input=False, include_context=False):
            place = ("schedules", index, *each["loc"])
            text = each["msg"].removeprefix("Value error, ")
            draft.report(place, _Reason(text, "Correct the value that fills it."))
        return schedule


def _kind_of(value: Any) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return kinds.get(type(value), "a mapping")


def _report_twins(finished: Sequence[tuple[_Draft, DeploymentConfig]]) -> None:
    """Two deployments whose names turned out to be one: nobody knows which is meant, so neither is deployed."""
    by_path: dict[str, list[_Draft]] = {}
    for draft, config in finished:
        if not draft.faults:
            by_path.setdefault(config.deployment_path, []).append(draft)
    for path, drafts in by_path.items():
        for draft in drafts if len(drafts) > 1 else ():
            others = ", ".join(other.config.source for other in drafts if other is not draft)
            twice = _Reason(f"{path} is declared at {others}, too", "Rename one of them.", TWICE)
            draft.report(("deployment_name",), twice)


def _without_faulty(desired: Desired, finished: Sequence[tuple[_Draft, DeploymentConfig]]) -> Desired:
    faulty = [(draft, config) for draft, config in finished if draft.faults]
    nameless = [draft.config for draft, config in faulty if any(texts_of(config.deployment_name))]
    return replace(
        desired,
        deployments=tuple(config for draft, config in finished if not draft.faults),
        skipped_paths=(*desired.skipped_paths, *(config.deployment_path for _, config in faulty)),
        skipped_files=(*desired.skipped_files, *(file for config in nameless if (file := _file_of(config)))),
        problems=(*desired.problems, *(problem for draft, _ in faulty for problem in draft.problems())),
    )


def _file_of(config: DeploymentConfig) -> str:
    """The flow's file: it keeps a deployment from being pruned of which not even the name is known."""
    return (config.entrypoint or "").rpartition(":")[0]

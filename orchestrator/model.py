"""The nouns: frozen values that pass from one stage to the next.

Nothing here knows Prefect, a file system or a server, and nothing here imports the rest of the package. A value
holds data only; what is done with it lives in the stage that does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["python", "docker"]
"""`python` runs from source on a worker, `docker` from an image (whatever container type the pool has)."""

KINDS: tuple[Kind, ...] = ("python", "docker")

Action = Literal["create", "update", "unchanged", "delete", "adopt", "conflict"]
ACTIONS: tuple[Action, ...] = ("create", "update", "unchanged", "delete", "adopt", "conflict")

Origin = Literal["declared", "template", "deployer"]
"""What asks for a deployment: a prefect.yaml, a template of the environment, or the deployer for itself."""

Severity = Literal["error", "warning"]

DEFAULT_ENVIRONMENT = "development"

TAG_LENGTH = 12
"""Characters of an input digest in the tag of an image and in the version of a deployment."""

LONGEST_EXCERPT = 2000
"""Characters of a line that a fault shows; what is longer is cut."""

# ---------------------------------------------------------------------------------------------------------
# What is in the repository
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationError:
    """One fault: what, where, and what to do.

    `code` is stable (`FLW001`, `CFG002`, …). A fault that `skips` takes out the flows, the declaration or the file that
    it is about and lets the rest go on; any other error stops an apply before it begins.
    """

    code: str
    message: str
    file_path: str | None = None  # relative to the repository's root, with forward slashes
    line_number: int | None = None  # 1-based
    remediation: str = ""
    severity: Severity = "error"
    skips: bool = False
    flows: tuple[str, ...] = ()  # entrypoints of the flows that a fault which `skips` takes out; none: the whole file
    declaration: str | None = None  # location of the one declaration that it takes out, instead of flows or file
    column_number: int | None = None  # 1-based, in characters
    end_column_number: int | None = None  # behind the last character
    excerpt: str = ""  # the line of the source, with secrets masked

    @property
    def location(self) -> str:
        """`file:line`, as far as known."""
        if self.file_path is None:
            return ""
        return self.file_path if self.line_number is None else f"{self.file_path}:{self.line_number}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationResult:
    """All faults of one run, sorted by file and line."""

    errors: tuple[ValidationError, ...] = ()
    warnings: tuple[ValidationError, ...] = ()

    @property
    def is_valid(self) -> bool:
        return not self.errors

    @property
    def stopping(self) -> tuple[ValidationError, ...]:
        """The errors that forbid an apply altogether."""
        return tuple(error for error in self.errors if not error.skips)


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One parameter of a flow, as its source says it."""

    name: str
    annotation: str | None = None  # source text
    default: str | None = None  # source text
    required: bool = True
    variadic: Literal["", "*", "**"] = ""  # never required by the function, but Prefect's schema requires it


@dataclass(frozen=True, kw_only=True, slots=True)
class DeploymentCall:
    """A call to a deployment whose path is written out: `run_deployment("etl/daily")`."""

    deployment: str  # as written: flow/deployment, or a flow alone where the sibling deployment is meant
    function: str  # what is called: run_deployment, trigger_subflow, flow_submitter, …
    file_path: str
    line_number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class OutsideImport:
    """An import, in a file that some flow needs, which leads out of the repository or to nothing in it."""

    module: str  # dotted, as written: pandas.io, .helpers
    file_path: str
    line_number: int
    is_optional: bool = False  # in a `try` that handles its failure, or for type checkers only
    is_missing: bool = False  # it starts inside the repository and leads nowhere: it fails whatever is installed
    nearest: str = ""  # a name that is there, where one is missing

    @property
    def top_level(self) -> str:
        """The first part of the name; empty for a relative import."""
        return self.module.split(".")[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowMetadata:
    """A flow found by reading source.

    `name` is Prefect's flow name; where it cannot be worked out from the source, `name_is_static` is False and
    `name` holds the default that Prefect would derive from the function.
    """

    name: str
    path: str  # of the file, relative to the root, with forward slashes
    module_path: str  # dotted: flows.main_etl
    function_name: str  # what the flow is bound to; Class.method where it applies
    line_number: int  # of the `def` or the binding, 1-based
    end_line_number: int
    is_async: bool = False
    name_is_static: bool = True
    description: str = ""  # the docstring, cleaned as inspect.getdoc does
    parameters: tuple[Parameter, ...] = ()
    signature_is_static: bool = True  # False: the function is not in this file, `parameters` is empty
    tags: tuple[str, ...] = ()  # none where they are not written out
    retries: int | None = None
    needs_instance: bool = False  # a method that takes `self`: Prefect has none to give it
    is_copy: bool = False  # of another flow, by with_options, under the same name
    option_places: Mapping[str, tuple[str, int]] = field(default_factory=dict)  # file and line of each argument
    dependencies: tuple[str, ...] = ()  # third-party distributions that the closure needs, by normalised name
    deployment_calls: tuple[DeploymentCall, ...] = ()
    dockerfile_path: str | None = None
    env_files: tuple[str, ...] = ()
    closure: tuple[str, ...] = ()  # paths of the flow's file and of every repository file that it imports
    closure_digest: str = ""  # hex sha256 over names and contents of the closure
    validation_errors: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)  # decorator arguments: literals, else source text

    @property
    def entrypoint(self) -> str:
        """`path:function_name`, as Prefect names it."""
        return f"{self.path}:{self.function_name}"

    @property
    def is_valid(self) -> bool:
        return not self.validation_errors


@dataclass(frozen=True, kw_only=True, slots=True)
class Discovery:
    """What a scan found: the flows, the files that could not be read, and what the flows' files import."""

    flows: tuple[FlowMetadata, ...] = ()
    problems: tuple[ValidationError, ...] = ()
    outside_imports: tuple[OutsideImport, ...] = ()  # of the files of all closures, sorted by file and line


# ---------------------------------------------------------------------------------------------------------
# What a deployment is
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """One schedule of a deployment: exactly one of cron, interval (seconds) and rrule."""

    cron: str | None = None
    interval: float | None = None
    rrule: str | None = None
    timezone: str | None = None
    anchor_date: str | None = None  # ISO 8601, for intervals
    day_or: bool = True  # for cron
    active: bool = True
    parameters: Mapping[str, Any] = field(default_factory=dict)
    slug: str | None = None
    replaces: str | None = field(default=None, compare=False)  # the slug that it had before
    placeholders: Mapping[str, str] = field(default_factory=dict, compare=False)  # `active`, `day_or` as {{ … }}

    @property
    def rule(self) -> str:
        """The rule in words: how a person recognises the schedule."""
        if self.cron is not None:
            text = f"cron {self.cron}"
        elif self.interval is not None:
            text = f"every {self.interval:g} s"
        else:
            text = f"rrule {self.rrule}"
        return f"{text} {self.timezone}" if self.timezone else text

    @property
    def label(self) -> str:
        """What a field path calls it: `schedules[nightly]`."""
        return self.slug or self.rule


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """A deployment as a prefect.yaml declares it, before an environment has been applied.

    Exactly what the file says: None means that the file is silent. Paths are relative to the repository's root.
    """

    name: str
    file_path: str
    line_number: int
    folder: str  # of the prefect.yaml, "." for the root: entrypoints and pull steps start there
    entrypoint: str | None = None  # relative to the root, or a dotted module path
    written_entrypoint: str | None = field(default=None, compare=False)  # as the file says it, relative to `folder`
    flow_name: str | None = None
    description: str | None = None
    version: str | None = None
    tags: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    work_pool: str | None = None
    work_queue: str | None = None
    job_variables: Mapping[str, Any] = field(default_factory=dict)
    schedules: tuple[ScheduleConfig, ...] = ()
    paused: bool | None = None
    concurrency_limit: int | None = None
    concurrency_options: Mapping[str, Any] = field(default_factory=dict)
    enforce_parameter_schema: bool | None = None
    build_steps: tuple[Mapping[str, Any], ...] = ()
    push_steps: tuple[Mapping[str, Any], ...] = ()
    pull_steps: tuple[Mapping[str, Any], ...] | None = None
    triggers: tuple[Mapping[str, Any], ...] = ()
    lines: Mapping[tuple[str | int, ...], int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def location(self) -> str:
        return f"{self.file_path}:{self.line_number}"

    def line(self, *place: str | int) -> int:
        """The line of a value of the declaration (`"schedules", 0, "cron"`), or of the nearest thing around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, self.line_number)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSpec:
    """An image of ours: its name, and what it is built from. Equal ones are one image.

    Paths are relative to the repository's root, with forward slashes.
    """

    repository: str  # its name without a tag: registry.example.com/team/shop-etl
    dockerfile: str
    dockerfile_text: str | None = None  # of one that is no file of the repository
    context: str = ""  # the folder that COPY starts from; "" for the root
    target: str = ""  # the stage to build; "" for the last one
    platform: str = ""  # os/architecture; "" for the engine's own
    arguments: tuple[tuple[str, str], ...] = ()  # --build-arg, sorted by name
    secret_arguments: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # the same; only their names count
    takes_whole_context: bool = False  # it needs files that no COPY of its Dockerfile names
    # To the registry that its name starts with, else it stays in the engine; and the block with the registry's user,
    # as a placeholder ("" for Docker's own configuration). What one deployment pushes, others have no other image of.
    is_pushed: bool = field(default=False, compare=False)
    credentials: str = field(default="", compare=False)
    aliases: tuple[str, ...] = field(default=(), compare=False)  # further tags that people asked for
    closures: tuple[tuple[str, str], ...] = field(
        default=(), compare=False
    )  # flows that run in it, their code's digest
    source: str = field(default="", compare=False)  # file:line that asks for it
    concealed: tuple[str, ...] = field(default=(), compare=False, repr=False)  # parts of its name that are never shown


@dataclass(frozen=True, kw_only=True, slots=True)
class DeployStep:
    """A build or push step of a prefect.yaml, or the build that a template stands for.

    Texts of the deployment speak of what it gives as `{{ id.output }}`, or of the latest step's as `{{ output }}`.
    """

    function: str
    id: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)  # as they are written
    folder: str = "."  # where it runs, relative to the root
    image: ImageSpec | None = None  # we build and push it ourselves; None: Prefect runs the step


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextEntry:
    """A file, folder or link of a build context, as it is sent to the engine."""

    path: str  # relative to the context
    kind: Literal["file", "folder", "link"]
    is_executable: bool = False
    size: int = 0  # bytes, of a file
    content: str = ""  # of a file the hex sha256 of what it holds, of a link its target


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildInputs:
    """All that an image is built from, read from the disk, and the digest over it."""

    spec: ImageSpec
    digest: str  # hex sha256
    dockerfile_text: str
    entries: tuple[ContextEntry, ...] = ()  # sorted by path
    bases: tuple[tuple[str, str], ...] = ()  # base images and what they were resolved to; "" where that is not known
    missing: tuple[ValidationError, ...] = ()  # what a COPY names and nobody has


@dataclass(frozen=True, kw_only=True, slots=True)
class DeploymentConfig:
    """A deployment, desired or live: only what the server echoes back, so that equality is `==`.

    `environment`, `deployment_type`, `origin` and `source` say where a desired deployment comes from; the server does
    not hold them, so they take no part in a comparison.
    """

    flow_name: str
    deployment_name: str
    environment: str = field(default="", compare=False)
    deployment_type: Kind = field(default="python", compare=False)
    origin: Origin = field(default="declared", compare=False)
    source: str = field(default="", compare=False)  # file:line that asks for it
    entrypoint: str | None = None
    path: str | None = None
    work_pool: str | None = None
    work_queue: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    job_variables: Mapping[str, Any] = field(default_factory=dict)
    pull_steps: tuple[Mapping[str, Any], ...] = ()
    schedules: tuple[ScheduleConfig, ...] = ()
    paused: bool = False
    tags: tuple[str, ...] = ()
    description: str = ""
    version: str = ""
    concurrency_limit: int | None = None
    concurrency_options: Mapping[str, Any] = field(default_factory=dict)
    enforce_parameter_schema: bool = True
    parameter_schema: Mapping[str, Any] = field(default_factory=dict)
    triggers: tuple[Mapping[str, Any], ...] = ()  # automations that start it, in the words of prefect.yaml
    concealed: tuple[str, ...] = field(default=(), compare=False, repr=False)  # texts from blocks: never shown
    steps: tuple[DeployStep, ...] = field(default=(), compare=False, repr=False)  # before it can be applied
    follows_code: bool = field(default=False, compare=False)  # its version is the digest of what it runs
    # Of each image of ours that it speaks of: repository:tag, and what stands for that in its texts.
    images: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @property
    def deployment_path(self) -> str:
        """`flow/deployment`, the name that `run_deployment` takes."""
        return f"{self.flow_name}/{self.deployment_name}"

    @property
    def schedule(self) -> str | None:
        """The schedules in words, None where there are none."""
        return ", ".join(schedule.rule for schedule in self.schedules) or None


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """Who a deployment belongs to: one project in one environment."""

    project: str
    environment: str

    PREFIX = "orchestrator"

    @property
    def tag(self) -> str:
        """The mark on the server. A tag, since tags can be filtered and patched."""
        return f"{self.PREFIX}:{self.project}:{self.environment}"

    @classmethod
    def from_tags(cls, tags: tuple[str, ...]) -> Owner | None:
        """The owner that a deployment's tags name, None for an orphan."""
        for tag in tags:
            prefix, _, rest = tag.partition(":")
            project, _, environment = rest.rpartition(":")
            if prefix == cls.PREFIX and project and environment:
                return cls(project=project, environment=environment)
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveDeployment:
    """A deployment as the server has it, with the ids that changing it needs."""

    id: str
    config: DeploymentConfig
    owner: Owner | None = None
    schedule_ids: tuple[str, ...] = ()  # in the order of config.schedules
    changed_at: str = ""  # when it or one of its schedules was last written, ISO 8601


# ---------------------------------------------------------------------------------------------------------
# What deployments need around them
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolSpec:
    """A work pool. None: the environment is silent about it, and the server decides."""

    name: str
    type: str
    description: str | None = None
    concurrency_limit: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueSpec:
    """A work queue of a pool. None: the environment is silent about it, and the server decides."""

    pool: str
    name: str
    priority: int | None = None
    concurrency_limit: int | None = None
    description: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitSpec:
    """A concurrency limit: of all tasks with a tag, or a global one by its name."""

    scope: Literal["tag", "global"]
    name: str
    slots: int
    decay_per_second: float | None = None  # global only: slots that free themselves, which makes it a rate limit


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """The pools, queues and limits that an environment declares."""

    pools: tuple[PoolSpec, ...] = ()
    queues: tuple[QueueSpec, ...] = ()
    limits: tuple[LimitSpec, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LivePool:
    """A work pool as the server has it."""

    spec: PoolSpec
    job_template: Mapping[str, Any] = field(default_factory=dict)
    is_paused: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveResources:
    """All pools, queues and limits of a server."""

    pools: tuple[LivePool, ...] = ()
    queues: tuple[QueueSpec, ...] = ()
    limits: tuple[LimitSpec, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTerms:
    """How the images of an environment are built."""

    project: str = ""  # whose they are
    parallel: int = 2  # builds at a time
    timeout_seconds: float = 1800.0  # for one build


@dataclass(frozen=True, kw_only=True, slots=True)
class Desired:
    """What an environment should have, and what was left out of it and why."""

    owner: Owner
    deployments: tuple[DeploymentConfig, ...] = ()
    resources: Resources = Resources()
    root: str = ""  # the folder that it was worked out from: images are built of it
    image_terms: ImageTerms = ImageTerms()
    skipped_paths: tuple[str, ...] = ()  # deployments left out because they, or their flow, have a fault: never pruned
    skipped_files: tuple[str, ...] = ()  # unreadable files: deployments that point into them are never pruned
    problems: tuple[ValidationError, ...] = ()


# ---------------------------------------------------------------------------------------------------------
# What is to be done, and what became of it
# ---------------------------------------------------------------------------------------------------------


Cause = Literal["", "repository", "server", "both"]
"""Who moved since the last apply: the repository, somebody on the server, both; empty where nothing is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldDiff:
    """One difference: where (`job_variables.env.X`, `schedules[nightly].cron`), live value, desired value."""

    path: str
    before: Any = None
    after: Any = None
    cause: Cause = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that the server says against a change, or about what was changed, and what to do about it."""

    message: str
    remedy: str = ""
    severity: Severity = "error"  # an error keeps the change from being made


@dataclass(frozen=True, kw_only=True, slots=True)
class TouchedRuns:
    """The runs that a change concerns."""

    scheduled: int = 0  # waiting for their time: an update gives them the new settings, a delete removes them
    running: int = 0  # pending, running, paused: they go on with the settings that they have
    next_start: str | None = None  # of the scheduled ones, ISO 8601
    is_more: bool = False  # there are more than were counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What is to happen to one deployment, and why."""

    action: Action
    deployment: str  # flow/deployment
    kind: Kind = "python"
    reasons: tuple[str, ...] = ()
    fields: tuple[FieldDiff, ...] = ()
    kept: tuple[str, ...] = ()  # what a person changed on the server and we leave as it is
    runs: TouchedRuns = TouchedRuns()
    findings: tuple[Finding, ...] = ()
    desired: DeploymentConfig | None = None
    live: LiveDeployment | None = None
    is_lost: bool = False  # the last revision has it, the server has not: somebody deleted it

    @property
    def writes(self) -> bool:
        return self.action in ("create", "update", "delete", "adopt")

    @property
    def is_drift(self) -> bool:
        """Whether somebody changed it on the server since the last apply."""
        return self.is_lost or any(diff.cause in ("server", "both") for diff in self.fields)

    @property
    def obstacles(self) -> tuple[Finding, ...]:
        """The findings that keep the change from being made."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


ResourceKind = Literal["work pool", "work queue", "tag limit", "global limit"]


ResourceAction = Literal["create", "update", "unchanged", "conflict"]
RESOURCE_ACTIONS: tuple[ResourceAction, ...] = ("create", "update", "unchanged", "conflict")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceChange:
    """What is to happen to a pool, queue or limit. None is ever deleted: others may use it."""

    action: ResourceAction
    resource: ResourceKind
    name: str  # of a queue: pool/queue
    reasons: tuple[str, ...] = ()
    fields: tuple[FieldDiff, ...] = ()
    desired: PoolSpec | QueueSpec | LimitSpec
    is_lost: bool = False  # the last revision has it, the server has not: somebody deleted it

    @property
    def label(self) -> str:
        return f"{self.resource} {self.name}"

    @property
    def writes(self) -> bool:
        return self.action in ("create", "update")

    @property
    def is_drift(self) -> bool:
        """Whether somebody changed it on the server since the last apply."""
        return self.is_lost or any(diff.cause in ("server", "both") for diff in self.fields)


ImageAction = Literal["reuse", "push", "build", "unknown"]
"""What an image needs: nothing, a push of what the engine has, a build, or nobody can say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedImage:
    """What was decided about an image, without building it."""

    spec: ImageSpec
    input_digest: str  # hex sha256 over all that it is built from; empty where that cannot be read
    action: ImageAction
    pinned: str = ""  # what deployments name: repository@sha256:…, or the id in this machine's engine; once known
    knows_bases: bool = True  # each base image was resolved; else the input digest is another one when it is built
    reason: str = ""
    findings: tuple[Finding, ...] = ()  # an error keeps the deployments that need it from being written

    @property
    def tag(self) -> str:
        return self.input_digest[:TAG_LENGTH]

    @property
    def name(self) -> str:
        """`repository:tag`: the tag says what it is built from."""
        return f"{self.spec.repository}:{self.tag or 'unknown'}"

    @property
    def reference(self) -> str:
        """What a deployment names: the pinned image, as long as that is not known the tag."""
        return self.pinned or self.name


ImageStatus = Literal["built", "reused", "pushed", "pulled", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageResult:
    """What became of an image."""

    name: str  # repository:tag
    spec: ImageSpec
    input_digest: str
    status: ImageStatus
    pinned: str = ""
    seconds: float = 0.0
    error: str = ""
    remedy: str = ""
    location: str = ""  # Dockerfile:line of the step that failed
    output: tuple[str, ...] = ()  # the last lines of a build that failed

    @property
    def tag(self) -> str:
        return self.input_digest[:TAG_LENGTH]


@dataclass(frozen=True, kw_only=True, slots=True)
class OldImage:
    """An image that nothing needs: its tags are removed, and it goes with the last of them."""

    tags: tuple[str, ...]
    created: str  # ISO 8601
    size: int  # bytes, layers that others share included


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """Scheduled sync waits: somebody went back to an older revision."""

    owner: Owner
    revision: int  # the one that was gone back to
    desired_digest: str  # of the repository then; empty where it had faults and could not be worked out
    by: str = ""
    at: str = ""  # ISO 8601, UTC


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A read-only list of changes for one environment on one server, in the order in which they are applied."""

    owner: Owner
    api_url: str
    changes: tuple[Change, ...] = ()
    resources: tuple[ResourceChange, ...] = ()  # they are applied first: deployments need them
    images: tuple[PlannedImage, ...] = ()  # that the deployments need
    image_terms: ImageTerms = ImageTerms()
    root: str = ""  # where images are built from
    problems: tuple[ValidationError, ...] = ()
    checksum: str = ""
    last_revision: int | None = None  # the revision against which causes were told
    read_after: int | None = None  # the last revision when the reading of the server began
    hold: Hold | None = None  # what applying all of this would end; not looked for in a plan for a part
    too_much: str = ""  # what it would delete, if the environment's policy forbids that

    @property
    def environment(self) -> str:
        return self.owner.environment

    @property
    def summary(self) -> dict[Action, int]:
        """How many changes of each action; every action is present."""
        return {action: sum(change.action == action for change in self.changes) for action in ACTIONS}

    @property
    def writes(self) -> int:
        """How many changes are to be made, those of pools and limits included."""
        return sum(change.writes for change in self.changes) + sum(change.writes for change in self.resources)

    @property
    def resource_summary(self) -> dict[ResourceAction, int]:
        """The same for pools, queues and limits."""
        return {action: sum(change.action == action for change in self.resources) for action in RESOURCE_ACTIONS}

    @property
    def has_changes(self) -> bool:
        return self.writes > 0


ResultStatus = Literal["applied", "unchanged", "failed", "skipped", "restored"]
"""`restored`: it was applied, and then set back because an --atomic apply failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangeResult:
    """What became of one change. `skipped` was not tried; `error` says why."""

    deployment: str
    action: Action
    status: ResultStatus
    error: str | None = None

    @property
    def label(self) -> str:
        return self.deployment


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceResult:
    """What became of the change of a pool, queue or limit."""

    resource: ResourceKind
    name: str
    action: ResourceAction
    status: ResultStatus
    error: str | None = None

    @property
    def label(self) -> str:
        return f"{self.resource} {self.name}"


ResultState = Literal["no-changes", "completed", "degraded", "interrupted"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeploymentResult:
    """What an apply did."""

    environment: str
    api_url: str
    results: tuple[ChangeResult, ...] = ()
    resources: tuple[ResourceResult, ...] = ()
    findings: Mapping[str, tuple[Finding, ...]] = field(default_factory=dict)  # by deployment: what reading back showed
    problems: tuple[ValidationError, ...] = ()
    revision: int | None = None
    is_interrupted: bool = False
    ends_hold: bool = False  # scheduled sync, which waited since a rollback, goes on
    is_half_set_back: bool = False  # an atomic apply has failed, and so has setting it back
    images: tuple[ImageResult, ...] = ()  # that were needed for it

    @property
    def summary(self) -> dict[Action, int]:
        """How many changes of each action were carried out (or, for unchanged and conflict, found)."""
        done = [result for result in self.results if result.status in ("applied", "unchanged")]
        counts = {action: sum(result.action == action for result in done) for action in ACTIONS}
        return {**counts, "conflict": sum(result.action == "conflict" for result in self.results)}

    @property
    def resource_summary(self) -> dict[ResourceAction, int]:
        """The same for pools, queues and limits."""
        done = [result for result in self.resources if result.status in ("applied", "unchanged")]
        counts = {action: sum(result.action == action for result in done) for action in RESOURCE_ACTIONS}
        return {**counts, "conflict": sum(result.action == "conflict" for result in self.resources)}

    @property
    def outcomes(self) -> tuple[ChangeResult | ResourceResult, ...]:
        """What became of everything, pools and limits first."""
        return (*self.resources, *self.results)

    @property
    def failed(self) -> tuple[ChangeResult | ResourceResult, ...]:
        bad = ("failed", "skipped", "restored")
        return tuple(outcome for outcome in self.outcomes if outcome.status in bad)

    @property
    def status(self) -> ResultState:
        if self.is_interrupted:
            return "interrupted"
        severities = {problem.severity for problem in self.problems}
        severities |= {finding.severity for findings in self.findings.values() for finding in findings}
        if self.failed or "error" in severities:
            return "degraded"
        return "completed" if self.wrote else "no-changes"

    @property
    def wrote(self) -> bool:
        """Whether anything was written, and stands."""
        return any(outcome.status == "applied" for outcome in self.outcomes)


# ---------------------------------------------------------------------------------------------------------
# What was applied before
# ---------------------------------------------------------------------------------------------------------

Trigger = Literal["command line", "run", "schedule", "bootstrap", "rollback", "promotion", "code"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Where an apply comes from."""

    commit: str | None = None  # full hash; None where there is no git
    is_dirty: bool = False  # something that is deployed differs from the commit
    by: str = ""  # user@host, or the name of the flow run
    trigger: Trigger = "command line"
    note: str = ""  # rollback to 3, promoted from staging 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Revision:
    """One recorded apply, as `history` lists it."""

    number: int  # counts up by one for each environment of a project
    owner: Owner
    provenance: Provenance
    applied_at: str  # ISO 8601, UTC
    status: Literal["completed", "degraded", "interrupted"]
    summary: Mapping[Action, int]
    desired_digest: str  # of what the repository asked for: tells whether it has moved on since
    failed: int = 0  # changes that were not made, or were set back
    resource_summary: Mapping[ResourceAction, int] = field(default_factory=dict)  # empty in what older versions wrote


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedState:
    """A revision with all that the environment had after it, as far as we know."""

    revision: Revision
    deployments: tuple[DeploymentConfig, ...] = ()
    resources: Resources = Resources()  # pools, queues and limits that the environment declared


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanupResult:
    """What deleting by pattern did: deleted, left because they are not ours, failed with the reason."""

    status: ResultState
    pattern: str
    deleted: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    findings: Mapping[str, tuple[Finding, ...]] = field(default_factory=dict)  # as of an apply


@dataclass(frozen=True, kw_only=True, slots=True)
class DeploymentStatus:
    """How one deployment stands: as the repository says, able to run, and what is wrong."""

    deployment: str
    in_sync: bool
    ready: bool  # a worker polls for its runs, and its active schedules have runs
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvironmentStatus:
    """How all deployments of an environment stand."""

    environment: str
    api_url: str
    deployments: tuple[DeploymentStatus, ...] = ()
    resources: tuple[ResourceChange, ...] = ()  # pools, queues and limits that are not as the environment says
    problems: tuple[ValidationError, ...] = ()  # of the repository, and of what fills its placeholders
    hold: Hold | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport:
    """How a run ended."""

    id: str
    name: str
    flow: str
    state_type: str
    state_name: str
    message: str = ""
    seconds: float = 0.0  # of running, waiting not counted
    depth: int = 0  # 0: the run itself, 1: its children, 2: theirs
    descendants: tuple[RunReport, ...] = ()
    artifact: str = ""  # the markdown of its latest artifact

    @property
    def succeeded(self) -> bool:
        return self.state_type == "COMPLETED"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step, done: what it was about, what came of it, and how long it took."""

    name: str
    outcome: str
    seconds: float
    changed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class BootstrapResult:
    """Everything that bootstrap did."""

    environment: str
    api_url: str
    ui_url: str
    steps: tuple[Step, ...] = ()
    sync: RunReport | None = None  # None: nothing had to be synced
    run: RunReport | None = None
    problems: tuple[ValidationError, ...] = ()  # of the repository: what they concern was left out

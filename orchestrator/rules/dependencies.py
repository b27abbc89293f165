"""Rules about what flows import and what the repository declares to install: DEP.

`packaging` judges names, versions and markers. It is imported where it is used: it takes as long as the rest of a
command's start, and `orchestrator discover` loads this module without using it.
"""

from __future__ import annotations

import difflib
import posixpath
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from orchestrator.closure import import_roots
from orchestrator.distributions import declared_provider, distribution_of, is_shared_package
from orchestrator.masking import masked
from orchestrator.model import FlowMetadata, OutsideImport
from orchestrator.repository import Repository
from orchestrator.requirements import (
    Requirement,
    RequirementFiles,
    Requirements,
    normalised,
)
from orchestrator.rules.rule import Facts, Finding, Rule, grouped, in_words, suggestion

if TYPE_CHECKING:
    from packaging.requirements import Requirement as ParsedRequirement
    from packaging.specifiers import Specifier
    from packaging.version import Version

# Where a flow runs there is Prefect, and with it what every Prefect of our range needs by its own metadata.
_PREFECT_BRINGS = (
    "prefect anyio apprise asgi-lifespan cachetools click cloudpickle cryptography cyclopts dateparser docker fastapi "
    "fsspec graphviz griffe httpcore httpx humanize jinja2 jsonpatch jsonschema opentelemetry-api orjson packaging "
    "pathspec pluggy pydantic pydantic-core pydantic-extra-types pydantic-settings python-dateutil python-slugify pytz "
    "pyyaml rich ruamel-yaml semver sniffio sqlalchemy starlette toml typing-extensions uvicorn websockets"
)
PREFECT_BRINGS = frozenset(_PREFECT_BRINGS.split())
MOST_CLAUSES = 100  # that are compared for one distribution; nobody writes more by hand
LONGEST_REQUIREMENT = 2000  # characters


# ---------------------------------------------------------------------------------------------------------
# Imports
# ---------------------------------------------------------------------------------------------------------


def undeclared_import(facts: Facts) -> Iterator[Finding]:
    """A flow imports something that nothing declares to install.

    It is not in the repository, not in the standard library, and not among the requirements that count for the flow:
    its PEP 723 block, or the requirements.txt, pyproject.toml or setup.cfg of the nearest folder. The flow may run
    where somebody happened to install it, and fails on a new worker or in a new image. What only comes along with
    something else is missing as soon as that no longer needs it. Declare what is imported; where the import may
    fail, handle ImportError around it. What Prefect itself always needs (pydantic, httpx, …) counts as declared.
    """
    flows_of = _flows_by_file(facts.flows)
    declared_for = _declared(facts)
    seen: set[tuple[str, str]] = set()
    answers: dict[tuple[object, ...], bool] = {}  # many flows share their requirements

    def is_lacking(entry: OutsideImport, flow: FlowMetadata) -> bool:
        counting = declared_for[flow.path], *_of_another_project(entry, flow, facts.repository)
        key = (entry.module, flow.dockerfile_path, *map(id, counting))
        if key not in answers:
            answers[key] = not _is_declared(entry.module, flow, counting, facts.repository)
        return answers[key]

    for entry in facts.outside_imports:
        place = (entry.file_path, distribution_of(entry.module))
        if place in seen or not _may_be_undeclared(entry, facts.installed):
            continue
        lacking = [flow for flow in flows_of.get(entry.file_path, ()) if is_lacking(entry, flow)]
        if lacking:
            seen.add(place)
            yield _undeclared(entry, lacking, declared_for[lacking[0].path], facts.repository)


def _may_be_undeclared(entry: OutsideImport, installed: frozenset[str] | None) -> bool:
    if entry.is_optional or entry.is_missing or not entry.top_level or entry.top_level == "__main__":
        return False
    if entry.top_level in sys.stdlib_module_names or entry.top_level in (installed or ()):
        return False
    return distribution_of(entry.module) not in PREFECT_BRINGS


def _of_another_project(entry: OutsideImport, flow: FlowMetadata, repository: Repository) -> Iterator[Requirements]:
    """What the importing file's project declares, where that is not one around the flow: a library of the repository
    that is installed brings what it needs."""
    own = _files_of(repository).for_file(entry.file_path)
    folder = posixpath.dirname(own.files[0]) if own.files else ""
    if folder and not flow.path.startswith(f"{folder}/"):
        yield own


def _is_declared(module: str, flow: FlowMetadata, counting: Iterable[Requirements], repository: Repository) -> bool:
    """Where part of what is declared cannot be known, everything may be."""
    for declared in counting:
        if not declared.is_complete or declared_provider(module, declared) is not None:
            return True
        if any(_holds(folder, module, repository) for folder in declared.folders):
            return True
    return flow.dockerfile_path is not None and _is_installed_by(flow.dockerfile_path, module, repository)


def _holds(folder: str, module: str, repository: Repository) -> bool:
    """Is the module in a project that is installed from a folder of the repository?"""
    top = module.partition(".")[0]
    return any({top, f"{top}.py"} & repository.names(posixpath.join(folder, source)) for source in ("", "src"))


def _is_installed_by(dockerfile: str, module: str, repository: Repository) -> bool:
    """Does a Dockerfile name it: `RUN pip install pandas`, `uv add`, `conda install`?"""
    text = (repository.text(dockerfile) or "").replace("\\\n", " ")
    commands = (line for line in text.splitlines() if re.search(r"\b(install|add)\s", line))
    words = {word for line in commands for word in re.findall(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)}
    entries = tuple(
        Requirement(name=normalised(word), text=word, file_path=dockerfile, line_number=1) for word in words
    )
    return declared_provider(module, Requirements(entries=entries)) is not None


def _undeclared(
    entry: OutsideImport, flows: Sequence[FlowMetadata], declared: Requirements, repository: Repository
) -> Finding:
    name = distribution_of(entry.module)
    wanted = "the distribution that provides it" if is_shared_package(entry.module) else f"`{name}`"
    message = f"The import of {entry.module} (needed by {in_words(flows)}) is not declared"
    if declared.files:
        message += f" in {' or '.join(declared.files)}."
        remedy = f"Add {wanted} to {_best_file(declared.files)}."
    else:
        message += ": the repository declares nothing to install."
        remedy = f"Write a requirements.txt that holds {wanted}, or a pyproject.toml with `dependencies`."
    if any(entry.top_level in repository.names(root) for root in import_roots(posixpath.dirname(flows[0].path))):
        near = suggestion(*_nearest_modules(entry, flows[0].path, repository))
        remedy = f"{near} Else: {remedy}" if near else remedy  # a folder of the repository has that name
    return Finding(entry.file_path, entry.line_number, message, remedy, span=_import_span(entry, repository))


def _best_file(files: Sequence[str]) -> str:
    """The one that people most likely want to add a line to."""
    return next((file for file in files if posixpath.basename(file) == "requirements.txt"), files[0])


def _import_span(entry: OutsideImport, repository: Repository) -> str:
    """As much of the name as its line holds: `from google.cloud import storage` imports `google.cloud.storage`."""
    line = repository.line(entry.file_path, entry.line_number)
    parts = entry.module.split(".")
    names = [*(".".join(parts[:length]) for length in range(len(parts), 0, -1)), parts[-1]]
    return next((name for name in names if name.strip(".") and name in line), entry.module)


def missing_module(facts: Facts) -> Iterator[Finding]:
    """A flow imports a module of the repository that does not exist.

    The import begins in the repository and leads nowhere, so it fails whatever is installed, and the flow cannot be
    loaded. Correct the name, or add the file (perhaps .gitignore keeps it out of git). Where the import may fail,
    handle ImportError around it. Until then the flow's deployments are left as they are, and all other flows go on.
    """
    flows_of = _flows_by_file(facts.flows)
    for entry in facts.outside_imports:
        if not entry.is_missing or entry.is_optional:
            continue
        flows = flows_of.get(entry.file_path, ())  # none where the import itself would have made them
        yield Finding(
            entry.file_path,
            entry.line_number,
            f"The import of {entry.module} leads nowhere: {in_words(flows) if flows else 'the file'} cannot be loaded.",
            _nearest(entry, facts) or "Correct the name, add the module, or handle ImportError around the import.",
            skips=True,
            flows=tuple(flow.entrypoint for flow in flows),
            span=entry.module.rpartition(".")[2] if entry.nearest else _import_span(entry, facts.repository),
        )


def _nearest(entry: OutsideImport, facts: Facts) -> str:
    """`Did you mean x?` for a name of the module that is there, else for a module that is."""
    if entry.nearest:
        return f"Did you mean {entry.nearest}?"
    script = next((flow.path for flow in facts.flows if entry.file_path in flow.closure), entry.file_path)
    return suggestion(*_nearest_modules(entry, script, facts.repository))


def _nearest_modules(entry: OutsideImport, script: str, repository: Repository) -> tuple[str, list[str]]:
    """The name as far as it leads and one part further, and the names like it that could stand there."""
    module = entry.module.lstrip(".")
    dots = entry.module[: len(entry.module) - len(module)]
    if dots:
        around = ["", *posixpath.dirname(entry.file_path).split("/")] if "/" in entry.file_path else [""]
        folders = ["/".join(around[1 : len(around) - len(dots) + 1])] if len(dots) <= len(around) else []
    else:
        folders = list(import_roots(posixpath.dirname(script)))
    parts = module.split(".")
    known = 0
    while known < len(parts) - 1 and (inside := _subfolders(folders, parts[known], repository)):
        folders, known = inside, known + 1
    prefix = dots + "".join(f"{part}." for part in parts[:known])
    near = difflib.get_close_matches(parts[known], _modules_in(folders, repository))
    return prefix + parts[known], [prefix + name for name in near]


def _subfolders(folders: Iterable[str], name: str, repository: Repository) -> list[str]:
    inside = [posixpath.join(folder, name) for folder in folders]
    return [folder for folder in inside if repository.names(folder)]


def _modules_in(folders: Iterable[str], repository: Repository) -> list[str]:
    names = {name.removesuffix(".py") for folder in folders for name in repository.names(folder)}
    return sorted(name for name in names if name.isidentifier() and not name.startswith("__"))


def _flows_by_file(flows: Iterable[FlowMetadata]) -> dict[str, list[FlowMetadata]]:
    """The flows whose closure holds a file."""
    needed_by: dict[str, list[FlowMetadata]] = {}
    for flow in flows:
        for path in flow.closure or (flow.path,):
            needed_by.setdefault(path, []).append(flow)
    return needed_by


def _declared(facts: Facts) -> Mapping[str, Requirements]:
    """What counts for each file with flows, by its path."""
    files = _files_of(facts.repository)
    paths = {flow.path for flow in facts.flows}
    return {path: files.for_file(path, facts.repository.text(path)) for path in paths}


@lru_cache(maxsize=1)
def _files_of(repository: Repository) -> RequirementFiles:
    """All rules read through one, so that a folder is read once."""
    return RequirementFiles(repository)


# ---------------------------------------------------------------------------------------------------------
# Declarations
# ---------------------------------------------------------------------------------------------------------


def contradicting_requirements(facts: Facts) -> Iterator[Finding]:
    """No version of a distribution fits all that is required of it.

    The requirements that count for a flow (with the files that they include, and constraints) exclude one another, so
    they cannot be installed and the flow cannot run. Loosen one of them. Requirements whose environment markers do
    not hold here, or differ from one another, are not compared. Until then the flow's deployments are left as they
    are, and all other flows go on.
    """
    declared_for = _declared(facts)
    found = _for_each(
        declared_for.values(), lambda declared: [core for core in _contradictions(declared) if core.stops]
    )
    taken_out: dict[Contradiction, list[FlowMetadata]] = {}
    for flow in facts.flows:
        for core in found[id(declared_for[flow.path])]:
            taken_out.setdefault(core, []).append(flow)
    for core, flows in taken_out.items():
        entrypoints = tuple(flow.entrypoint for flow in flows)
        yield core.finding(f"The requirements of {in_words(flows)} cannot be installed", skips=True, flows=entrypoints)


def contradicting_group(facts: Facts) -> Iterator[Finding]:
    """An optional group of requirements contradicts the others, or itself.

    Flows run without it: an extra, a dependency group or another requirements file. But whoever installs the group,
    for tests perhaps, meets requirements that exclude one another. Loosen one of them.
    """
    declared = _declared(facts).values()
    found = _for_each(declared, lambda each: [core for core in _contradictions(each) if not core.stops])
    cores = dict.fromkeys(core for cores in found.values() for core in cores)
    for core in cores:
        own_last = sorted(core.entries, key=lambda entry: entry.file_path == core.group)  # the file that is marked
        name = f"The {core.group}" if core.group.partition(" ")[0] in _KINDS_OF_GROUP else core.group
        yield replace(core, entries=tuple(own_last)).finding(f"{name} cannot be installed")


_KINDS_OF_GROUP = ("extra", "group", "environment", "feature")  # else it is a file


def malformed_requirement(facts: Facts) -> Iterator[Finding]:
    """A requirement is not what PEP 508 allows, or a requirements file cannot be read.

    pip and other tools refuse the whole file; so they do if it is not UTF-8, or includes a file that does not exist.
    A requirement is a name, perhaps with versions (`pandas>=2,<3`), extras (`dask[dataframe]`), an address
    (`pkg @ https://…`) and a marker (`; python_version < "3.12"`).
    """
    entries = dict.fromkeys(entry for declared in _declared(facts).values() for entry in declared.entries)
    places = dict.fromkeys(
        (entry.file_path, entry.line_number, entry.text) for entry in entries if not _is_valid(entry)
    )
    yield from _unread(facts)
    for path, line, text in places:
        shown = str(masked("", text))  # before it is cut: the half of a secret does not look like one
        shown = shown if len(shown) <= 100 else f"{shown[:100]}…"
        yield Finding(
            path,
            line,
            f"`{shown}` is not a requirement (PEP 508).",
            _repaired(text) or "Write a name and versions: `name>=1.2,<2`.",
            span=text,
        )


def _unread(facts: Facts) -> Iterator[Finding]:
    """Requirements files that pip cannot read."""
    for each in dict.fromkeys(each for declared in _declared(facts).values() for each in declared.unread):
        if each.missing:
            message, remedy = f"The file {each.missing!r} does not exist.", "Correct the path, or add the file."
        else:
            message, remedy = f"{each.file_path} is not UTF-8: nothing in it is known.", "Save the file as UTF-8."
        yield Finding(each.file_path, each.line_number, message, remedy, span=each.missing or None)


def _is_valid(entry: Requirement) -> bool:
    return entry.is_reference or len(entry.text) > LONGEST_REQUIREMENT or _parsed(entry.text) is not None


def _repaired(text: str) -> str:
    """What was probably meant, where that is a requirement."""
    for pattern, correct in (("=>", ">="), ("=<", "<="), (r"(?<![=<>!~])=(?!=)", "==")):
        repaired = re.sub(pattern, correct, text, count=1)
        if repaired != text and len(text) < 100 and _parsed(repaired) is not None:
            return f"Did you mean `{masked('', repaired)}`?"
    return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contradiction:
    """The fewest requirements of one distribution that no version fits; `group` is the optional one among theirs."""

    name: str
    entries: tuple[Requirement, ...]
    group: str = ""

    @property
    def stops(self) -> bool:
        return not self.group

    def finding(self, consequence: str, **fields: Any) -> Finding:
        last = self.entries[-1]
        listed = " and ".join(f"`{entry.text}` ({entry.location})" for entry in self.entries)
        return Finding(
            last.file_path,
            last.line_number,
            f"{consequence}: no version of {self.name} fits {listed}.",
            "Loosen one of them, so that a version fits them all." if len(self.entries) > 1 else "Loosen it.",
            span=last.text,
            **fields,
        )


def _for_each(
    declared: Iterable[Requirements], judge: Callable[[Requirements], list[Contradiction]]
) -> dict[int, list[Contradiction]]:
    """A judgement of each set of requirements, once, by its identity: many flows share one."""
    return {number: judge(each) for number, each in {id(each): each for each in declared}.items()}


def _contradictions(declared: Requirements) -> Iterator[Contradiction]:
    """Of what is always installed; and of each optional group, with that (another requirements file stands alone)."""
    by_group = grouped((entry for entry in declared.entries if entry.name), lambda entry: entry.group)
    main = grouped(by_group.pop("", []), lambda entry: entry.name)
    broken = set()
    for name, entries in main.items():
        if core := _core(entries):
            broken.add(name)
            yield Contradiction(name=name, entries=core)
    for group, members in by_group.items():
        for name, entries in grouped(members, lambda entry: entry.name).items():
            others = [] if group in declared.files or name in broken else main.get(name, [])
            places = {entry.location for entry in main.get(name, [])}
            core = _core([*others, *entries])
            if core and not places.issuperset(entry.location for entry in core):
                yield Contradiction(name=name, entries=core, group=group)


def _core(entries: Sequence[Requirement]) -> tuple[Requirement, ...]:
    """The fewest of some requirements of one distribution that no version fits; none where one fits all.

    A marker that does not hold here takes its requirement out. Two that differ may never hold together elsewhere, so
    each is judged with what has no marker, and not with the other.
    """
    if all(entry.is_constraint for entry in entries) or (len(entries) == 1 and "," not in entries[0].text):
        return ()
    judged = [(entry, parsed) for entry in entries if (parsed := _applicable(entry)) is not None]
    for marker in dict.fromkeys(str(parsed.marker) for _, parsed in judged):
        together = [(entry, parsed) for entry, parsed in judged if str(parsed.marker) in ("None", marker)]
        clauses = {entry: tuple(parsed.specifier) for entry, parsed in together}
        if _fits(clauses.values()):
            continue
        for entry in tuple(clauses):
            rest = {other: clauses[other] for other in clauses if other is not entry}
            if not _fits(rest.values()):
                clauses = rest
        return tuple(clauses)
    return ()


def _applicable(entry: Requirement) -> ParsedRequirement | None:
    """A requirement that says something about versions here."""
    if entry.is_reference or len(entry.text) > LONGEST_REQUIREMENT:
        return None
    parsed = _parsed(entry.text)
    if parsed is None or parsed.url or not len(parsed.specifier):
        return None
    try:
        holds = parsed.marker is None or parsed.marker.evaluate({"extra": ""})
    except (ValueError, KeyError, TypeError):  # packaging has several errors for markers that mean nothing
        return None
    return parsed if holds else None


@lru_cache(maxsize=4096)
def _parsed(text: str) -> ParsedRequirement | None:
    """A text as PEP 508 reads it; None where it is no requirement."""
    from packaging.requirements import Requirement as ParsedRequirement

    try:
        return ParsedRequirement(text)
    except (ValueError, RecursionError):  # InvalidRequirement is a ValueError; so is what numbers of 5,000 digits meet
        return None


# ---------------------------------------------------------------------------------------------------------
# Versions
# ---------------------------------------------------------------------------------------------------------


def _fits(clauses: Iterable[Iterable[Specifier]]) -> bool:
    """Is there a version that fits all clauses? Exact (PEP 440), pre-releases included; yes where it cannot be known.

    Clauses are intervals of versions, so what fits them all, if anything, begins where one of them begins: it is
    enough to try those versions.
    """
    together = list(dict.fromkeys(clause for each in clauses for clause in each))
    if len(together) > MOST_CLAUSES:
        return True
    try:
        depth = max((clause.version.count(".") for clause in together), default=0) + 2
        begun = (version for clause in together for version in _beginnings(clause, depth))
        # Before packaging 26, `<1.post3` left out all pre-releases of 1: what begins without `.dev0` is tried too.
        tried = (each for version in begun for each in (version, version.removesuffix(".dev0")))
        return any(
            all(clause.contains(version, prereleases=True) for clause in together)
            for version in dict.fromkeys(("0.dev0", *tried))
        )
    except ValueError:  # `===` takes any text, and numbers have no bound
        return True


def _beginnings(clause: Specifier, depth: int) -> Iterator[str]:
    """The versions at which what a clause allows, or allows again, can begin."""
    from packaging.version import Version

    version = Version(clause.version.removesuffix(".*"))
    if clause.operator == "===" and clause.version.lower() != str(version):
        raise ValueError(clause.version)  # compared letter by letter: none of the versions that are tried is written so
    epoch = f"{version.epoch}!"
    base = epoch + ".".join(str(part) for part in version.release)
    yield from (str(version), base, f"{base}.dev0")
    *parents, last = version.release
    yield epoch + ".".join(str(part) for part in (*parents, last + 1)) + ".dev0"  # behind all that begins with base
    yield f"{base}{'.0' * (depth - len(version.release))}.1.dev0"  # behind all post-releases of base
    yield from _successors(version, base)


def _successors(version: Version, base: str) -> Iterator[str]:
    """The very next version; behind a pre-release also the next that is no post-release of it."""
    pre = "".join(str(part) for part in version.pre or ())
    post = "" if version.post is None else f".post{version.post}"
    if version.dev is not None:
        yield f"{base}{pre}{post}.dev{version.dev + 1}"
    elif version.post is not None:
        yield f"{base}{pre}.post{version.post + 1}.dev0"
    else:
        yield f"{base}{pre}.post0.dev0"
    if version.pre is not None:
        kind, number = version.pre
        yield f"{base}{kind}{number + 1}.dev0"


RULES: tuple[Rule, ...] = (
    Rule(
        "DEP001",
        "Import that nothing declares to install",
        "warning",
        undeclared_import,
        example="""# requirements.txt
prefect>=3
# flows/etl.py
import pandas""",
        better="""# requirements.txt
prefect>=3
pandas>=2
# flows/etl.py
import pandas""",
    ),
    Rule(
        "DEP002",
        "Import of a module that does not exist",
        "error",
        missing_module,
        example="""# shared/cleaning.py is there
from shared.cleanning import clean""",
        better="""# shared/cleaning.py is there
from shared.cleaning import clean""",
    ),
    Rule(
        "DEP003",
        "Requirements that exclude one another",
        "error",
        contradicting_requirements,
        example="""# requirements.txt
pandas>=2
pandas<2""",
        better="""# requirements.txt
pandas>=2,<3""",
    ),
    Rule(
        "DEP004",
        "Requirement that no tool can read",
        "warning",
        malformed_requirement,
        example="""# requirements.txt
pandas=>2""",
        better="""# requirements.txt
pandas>=2""",
    ),
    Rule(
        "DEP005",
        "Optional group that excludes the other requirements",
        "warning",
        contradicting_group,
        example="""# pyproject.toml
[project]
dependencies = ["pandas>=2"]
[project.optional-dependencies]
test = ["pandas<2"]""",
        better="""# pyproject.toml
[project]
dependencies = ["pandas>=2"]
[project.optional-dependencies]
test = ["pytest"]""",
    ),
)

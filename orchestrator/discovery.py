"""Find the flows of a repository by reading its source. Nothing is imported or executed.

Repository.files   which files to look at       (ignored folders pruned, links not followed)
may_hold_flows     which of them to parse       (reading dismisses most)
FlowReader         source of one file → flows   (flow_source: an interpreter of module-level bindings)
discover           all of it, and what surrounds a flow: closure, dependencies, Dockerfile, env files
"""

from __future__ import annotations

import gc
import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path

from orchestrator.closure import Closure, ImportGraph
from orchestrator.distributions import distribution_of
from orchestrator.errors import ConfigurationError
from orchestrator.flow_source import SourceFlow
from orchestrator.flow_values import Doubt
from orchestrator.model import Discovery, FlowMetadata, ValidationError
from orchestrator.repository import Repository, folder_of
from orchestrator.requirements import RequirementFiles, Requirements
from orchestrator.scanning import FlowScan
from orchestrator.sources import Reading, SourceFiles

UNDEFINED_NAME = "FLW012"
NO_FUNCTION = "FLW013"
ENDS_EARLY = "FLW015"

# ---------------------------------------------------------------------------------------------------------
# Finding flows
# ---------------------------------------------------------------------------------------------------------


class FlowDiscovery:
    """Finds the flows of one repository.

    Args:
        root: the repository.
        folders: where flows are, relative to the root; by default `flows` where there is one, else everywhere.
        exclude: patterns of what to leave out, as in a .gitignore; added to the repository's own .gitignore.
    """

    def __init__(
        self, root: str | Path = ".", folders: Sequence[str] | None = None, exclude: Sequence[str] = ()
    ) -> None:
        self.root = Path(root).resolve()
        self.folders = tuple(folders) if folders is not None else _default_folders(self.root)
        self.exclude = tuple(exclude)

    def discover(self, paths: Sequence[str] | None = None) -> Discovery:
        """Find all flows.

        Args:
            paths: files or folders to look at instead of the configured folders.

        Returns:
            The flows, sorted by file and line, and the files that could not be read.

        Raises:
            ConfigurationError: a folder or path does not exist or lies outside the repository.
        """
        return discover(self.root, self.folders, self.exclude, paths, cache_file=cache_file_of(self.root))

    def discover_flows(self, base_path: str = "flows") -> list[FlowMetadata]:
        """The flows of one folder (or file), without the problems.

        Args:
            base_path: relative to the root.

        Returns:
            The flows, sorted by file and line.

        Raises:
            ConfigurationError: the folder does not exist.
        """
        return list(self.discover([base_path]).flows)

    def get_flow_dependencies(self, flow_path: str) -> list[str]:
        """What a flow's file imports from third parties, directly or through other files of the repository.

        Args:
            flow_path: the file, relative to the root.

        Returns:
            Distributions by normalised name, sorted.

        Raises:
            ConfigurationError: the file does not exist.
        """
        path = relative_path(self.root, flow_path)
        sources = SourceFiles(self.root)
        graph = ImportGraph(sources)
        return list(_Surroundings(sources, graph).dependencies(path, graph.closure_of(path)))


def discover(
    root: Path,
    folders: Sequence[str],
    exclude: Sequence[str] = (),
    paths: Sequence[str] | None = None,
    also: Sequence[str] = (),
    cache_file: Path | None = None,
) -> Discovery:
    """Find the flows of a repository.

    Args:
        root: the repository.
        folders: where flows are, relative to the root; "." is the whole repository.
        exclude: patterns of what to leave out, as in a .gitignore.
        paths: files or folders to look at instead of `folders`, relative to the root.
        also: files to look at besides, where they exist: those that declarations point to.
        cache_file: where what is learned is kept for the next time; None keeps nothing.

    Returns:
        The flows, sorted by file and line, and the files that could not be read.

    Raises:
        ConfigurationError: a folder or path does not exist or lies outside the repository.
    """
    root = root.resolve()
    repository = Repository(root)
    sources = SourceFiles(root, repository, cache_file)
    starts = [relative_path(root, path) for path in (folders if paths is None else paths)]
    declared = [path for path in also if path in sources]
    files = {*declared, *repository.files(starts, (".py",), exclude)}
    named = _those_under([*declared, *(start for start in starts if start)], files)
    with without_garbage_collection():
        return _discover(sources, files, named)


def _discover(sources: SourceFiles, files: Set[str], named: Set[str]) -> Discovery:
    """Find the flows of some files, of which somebody has `named` a part as files of flows."""
    graph = ImportGraph(sources)
    scan, makers, surroundings = FlowScan(sources, graph), _Makers(sources, graph), _Surroundings(sources, graph)
    scan.look_at(sorted(files), also_parse=named.__contains__)  # files of one folder in a row: reading them is faster
    found = scan.read(sorted(path for path in files - sources.dull if makers.may_make_flows(path)))
    doubts = {path: [_fault(path, doubt) for doubt in here.doubts] for path, here in found.items()}
    flows = [surroundings.describe(path, flow, doubts[path]) for path, here in found.items() for flow in here.flows]
    # A broken module that a flow imports breaks the flow, wherever the module lies. Elsewhere in a repository broken
    # files may well be templates, test data or Python 2, unless they speak of Prefect.
    relevant = {path for flow in flows for path in flow.closure} | named
    relevant |= {path for path in found if sources[path].glance.speaks_of_prefect}
    problems = [fault for path in sorted(relevant) if (fault := sources[path].fault)]
    problems += [fault for path in found if path in relevant for fault in doubts[path]]
    sources.remember()
    outside = tuple([each for each in graph.outside_imports() if each.file_path in relevant])
    return Discovery(flows=tuple(flows), problems=tuple(problems), outside_imports=outside)


_DOUBTS = {
    "undefined": (
        UNDEFINED_NAME,
        "The name {} is not defined",
        "Correct the name, or import {}; until then the deployments of this file are left as they are.",
    ),
    "not-in-prefect": (
        UNDEFINED_NAME,
        "The name {} is not in Prefect",
        "Did you mean flow? Until it is corrected the deployments of this file are left as they are.",
    ),
    "no-function": (
        NO_FUNCTION,
        "A flow is made of {}, which is no function",
        "Give a name by keyword, @flow(name={}), or a function as the first argument.",
    ),
    "raises": (
        ENDS_EARLY,
        "The file ends with {}, above its flows",
        "Remove it, or put it behind a condition; until then the deployments of this file are left as they are.",
    ),
}


def _fault(path: str, doubt: Doubt) -> ValidationError:
    """What fails when a file is imported. Its flows may not all be known, so the whole file is left as it is."""
    code, message, remedy = _DOUBTS[doubt.kind]
    return ValidationError(
        code=code,
        message=f"{_told(message.format(doubt.name), doubt.cause)}: importing the file fails.",
        file_path=path,
        line_number=doubt.line_number,
        remediation=remedy.format(doubt.name),
        skips=True,
    )


def _told(message: str, cause: tuple[str, int] | None) -> str:
    if cause is None:
        return message
    path, line_number = cause
    return f"In {path}:{line_number}, which is called here, {message[0].lower()}{message[1:]}"


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """A scan makes a hundred thousand values that all stay: looking through them for cycles again and again takes a
    quarter of its time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on and not gc.get_freeze_count():
            gc.freeze()  # both together: all that there is counts as old, and is not looked through at once
            gc.unfreeze()
        if was_on:
            gc.enable()


def cache_file_of(root: Path) -> Path:
    """Where the scans of a repository keep what they learn."""
    return root / ".orchestrator" / "cache" / "scan.cache"


def _default_folders(root: Path) -> tuple[str, ...]:
    return ("flows",) if (root / "flows").is_dir() else (".",)


def relative_path(root: Path, path: str) -> str:
    """A path as it is known in the repository: relative to the root, forward slashes, "" for the root itself."""
    location = Path(os.path.normpath(root / path))
    if not location.is_relative_to(root):
        raise ConfigurationError(
            f"{path} lies outside the repository {root}.",
            remedy="Name a path inside it, or choose another repository with --root.",
        )
    if not location.exists():
        raise ConfigurationError(
            f"There is no {path} in {root}.",
            remedy="Name an existing file or folder, or correct `flows` under [tool.orchestrator] in pyproject.toml.",
        )
    relative = location.relative_to(root).as_posix()
    return "" if relative == "." else relative


def _those_under(places: Sequence[str], files: Set[str]) -> Set[str]:
    """The files in the places that somebody named: they are parsed, and reported when broken, whatever they hold."""
    folders = tuple(f"{place}/" for place in places)
    return {path for path in files if path.startswith(folders)} | (files & set(places)) if places else set()


class _Makers:
    """Says which files are worth parsing: those in which a flow can be made.

    Whatever makes a flow contains the word, or takes something from a module of the repository that does: reading
    dismisses the rest.
    """

    def __init__(self, sources: SourceFiles, graph: ImportGraph) -> None:
        self._sources, self._graph = sources, graph
        self._known: dict[str, bool] = {}

    def may_make_flows(self, path: str) -> bool:
        """Whether a file may hold flows. One that is not plain text may, too: parsing tells what is wrong with it."""
        glance = self._sources[path].glance
        return glance.speaks_of_flows or glance.is_odd or (bool(glance.imports) and self._takes_from_makers(path))

    def _takes_from_makers(self, path: str) -> bool:
        met, waiting = {path}, [path]
        while waiting:  # no recursion: chains of imports are as long as people make them, and may be circles
            for target in self._targets(waiting.pop()) - met:
                if self._is_maker(target):
                    self._known[path] = True
                    return True
                if target not in self._known:  # else it is none, and takes from none
                    met.add(target)
                    waiting.append(target)
        self._known.update(dict.fromkeys(met, False))
        return False

    def _is_maker(self, target: str) -> bool:
        glance = self._sources[target].glance
        return (glance.speaks_of_prefect and glance.speaks_of_flows) or self._known.get(target, False)

    def _targets(self, path: str) -> set[str]:
        """The repository files that a file seems to import."""
        folder = folder_of(path)
        imports = self._sources[path].glance.imports
        places = (self._graph.locate(module, level, path, folder) for module, level in imports)
        return {place[0] for place in places if place}


# ---------------------------------------------------------------------------------------------------------
# What surrounds a flow
# ---------------------------------------------------------------------------------------------------------

SHARED_DOCKERFILE = "docker/flow.Dockerfile"  # of the flows that have none of their own and none above them


class _Surroundings:
    """What a flow's place in the repository says about it."""

    def __init__(self, sources: SourceFiles, graph: ImportGraph) -> None:
        self._sources, self._graph = sources, graph
        self._requirements = RequirementFiles(sources.repository)
        self._env_files_of: dict[str, tuple[str, ...]] = {}
        self._dockerfile_of: dict[str, str | None] = {}
        self._noted: dict[str, Reading | None] = {}
        self._distributions: dict[tuple[str, frozenset[str]], tuple[str, ...]] = {}

    def describe(self, path: str, flow: SourceFlow, doubts: Sequence[ValidationError] = ()) -> FlowMetadata:
        closure = self._graph.closure_of(path)
        notable = [noted for member in closure.paths if (noted := self._noted_of(member))]
        faults = [*doubts, *(noted.fault for noted in notable if noted.fault)]
        return FlowMetadata(
            name=flow.name,
            path=path,
            module_path=module_path(path),
            function_name=flow.function_name,
            line_number=flow.line_number,
            end_line_number=flow.end_line_number,
            is_async=flow.is_async,
            name_is_static=flow.name_is_static,
            description=flow.description,
            parameters=flow.parameters,
            signature_is_static=flow.signature_is_static,
            tags=flow.tags,
            retries=flow.retries,
            needs_instance=flow.needs_instance,
            is_copy=flow.is_copy,
            option_places=flow.option_places,
            dependencies=self.dependencies(path, closure),
            deployment_calls=tuple([call for noted in notable for call in noted.calls]),
            dockerfile_path=self._dockerfile(path, flow.name),
            env_files=self._env_files(folder_of(path)),
            closure=closure.paths,
            closure_digest=closure.digest,
            validation_errors=tuple(f"{fault.location}: {fault.message}" for fault in faults),
            metadata=flow.metadata,
        )

    def _noted_of(self, path: str) -> Reading | None:
        """What was read of a file, if it says anything about the flows that need it: most say nothing."""
        if path not in self._noted:
            reading = self._sources[path].reading
            self._noted[path] = reading if reading.fault or reading.calls else None
        return self._noted[path]

    def dependencies(self, path: str, closure: Closure) -> tuple[str, ...]:
        """The distributions that a file needs, its whole closure considered."""
        source = self._sources[path]
        text = source.content.decode("utf-8", "replace") if source.reading.is_script else None
        declared = self._requirements.for_file(path, text)
        modules = frozenset([each.module for each in closure.outside if not each.is_missing]) - {"__main__"}
        if text is not None:
            return _distributions_of(modules, declared)
        key = (folder_of(path), modules)  # the flows of a folder need much the same
        if key not in self._distributions:
            self._distributions[key] = _distributions_of(modules, declared)
        return self._distributions[key]

    def _dockerfile(self, path: str, flow_name: str) -> str | None:
        """The flow's own Dockerfile (beside its file, or under its name in docker/), else that of its folder or of the
        nearest one above, else the one that all share."""
        names = () if "/" in flow_name else (flow_name, flow_name.replace("-", "_"))
        own = (f"{path.removesuffix('.py')}.Dockerfile", *(f"docker/{name}.Dockerfile" for name in names))
        above = self._dockerfile_above(folder_of(path))
        candidates = (*own, *([above] if above else []), SHARED_DOCKERFILE)
        return next((candidate for candidate in candidates if candidate in self._sources), None)

    def _dockerfile_above(self, folder: str) -> str | None:
        if folder not in self._dockerfile_of:
            here = posixpath.join(folder, "Dockerfile")
            above = self._dockerfile_above(folder_of(folder)) if folder else None
            self._dockerfile_of[folder] = here if here in self._sources else above
        return self._dockerfile_of[folder]

    def _env_files(self, folder: str) -> tuple[str, ...]:
        """The .env files of the folders from the root down to the flow's own: what lies nearer comes later."""
        if folder not in self._env_files_of:
            names = sorted(self._sources.repository.names(folder))
            paths = (posixpath.join(folder, name) for name in names if name == ".env" or name.startswith(".env."))
            above = self._env_files(folder_of(folder)) if folder else ()
            self._env_files_of[folder] = (*above, *(path for path in paths if path in self._sources))
        return self._env_files_of[folder]


def _distributions_of(modules: Iterable[str], declared: Requirements) -> tuple[str, ...]:
    return tuple(sorted({distribution_of(module, declared) for module in modules}))


def module_path(path: str) -> str:
    """The dotted name under which a file can be imported from the root (or from `src`).

    Args:
        path: of the file, relative to the root.

    Returns:
        `flows.main_etl` for `flows/main_etl.py`.
    """
    parts = path.removesuffix(".py").removeprefix("src/").split("/")
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)

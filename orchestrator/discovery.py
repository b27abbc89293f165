"""Find the flows of a repository by reading its source. Nothing is imported or executed.

Repository.files   which files to look at       (ignored folders pruned, links not followed)
may_hold_flows     which of them to parse       (reading dismisses most)
FlowReader         source of one file → flows   (flow_source: an interpreter of module-level bindings)
discover           all of it, and what surrounds a flow: closure, dependencies, Dockerfile, env files
"""

from __future__ import annotations

import os
import posixpath
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pathspec import GitIgnoreSpec

from orchestrator.closure import ImportGraph, SourceFiles
from orchestrator.deployment_calls import deployment_calls_in, may_call_deployments
from orchestrator.errors import ConfigurationError
from orchestrator.flow_source import FlowReader, SourceFlow
from orchestrator.model import DeploymentCall, Discovery, FlowMetadata

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
        return discover(self.root, self.folders, self.exclude, paths)

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
            Top-level import names, sorted.

        Raises:
            ConfigurationError: the file does not exist.
        """
        path = _relative(self.root, flow_path)
        return list(ImportGraph(SourceFiles(self.root)).closure_of(path).dependencies)


def discover(
    root: Path,
    folders: Sequence[str],
    exclude: Sequence[str] = (),
    paths: Sequence[str] | None = None,
    also: Sequence[str] = (),
) -> Discovery:
    """Find the flows of a repository.

    Args:
        root: the repository.
        folders: where flows are, relative to the root; "." is the whole repository.
        exclude: patterns of what to leave out, as in a .gitignore.
        paths: files or folders to look at instead of `folders`, relative to the root.
        also: files to look at besides, where they exist: those that declarations point to.

    Returns:
        The flows, sorted by file and line, and the files that could not be read.

    Raises:
        ConfigurationError: a folder or path does not exist or lies outside the repository.
    """
    root = root.resolve()
    sources = SourceFiles(root)
    starts = [_relative(root, path) for path in (folders if paths is None else paths)]
    declared = [path for path in also if not path.startswith(("/", "../")) and path in sources]
    files = {*declared, *python_files(root, starts, _ignored(root, exclude))}
    named = [*declared, *(start for start in starts if start)]
    graph = ImportGraph(sources)
    makers = _Makers(sources, graph)
    candidates = [path for path in sorted(files) if _is_under(path, named) or makers.may_make_flows(path)]
    reader = FlowReader(sources, graph)
    found = [(path, reader.flows_of(path)) for path in candidates if makers.may_make_flows(path)]
    surroundings = _Surroundings(sources, graph)
    flows = [surroundings.describe(path, flow) for path, flows_here in found for flow in flows_here]
    # A broken module that a flow imports breaks the flow, wherever the module lies. Elsewhere in a repository broken
    # files may well be templates, test data or Python 2, unless they speak of Prefect.
    relevant = {path for flow in flows for path in flow.closure}
    relevant |= {path for path in candidates if _is_under(path, named) or b"prefect" in sources[path].content}
    problems = [fault for path in sorted(relevant) if (fault := sources[path].fault)]
    return Discovery(flows=tuple(flows), problems=tuple(problems))


def _default_folders(root: Path) -> tuple[str, ...]:
    return ("flows",) if (root / "flows").is_dir() else (".",)


def _relative(root: Path, path: str) -> str:
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


def _is_under(path: str, named: Sequence[str]) -> bool:
    """Is the file in a place that somebody named? Then it is parsed, and reported when broken, whatever it holds."""
    return any(path == place or path.startswith(f"{place}/") for place in named)


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
        content = self._sources[path].content
        return _speaks_of_flows(content) or b"\0" in content or not content or self._takes_from_makers(path)

    def _takes_from_makers(self, path: str) -> bool:
        if path not in self._known:
            self._known[path] = False  # where modules import one another
            self._known[path] = any(self._is_maker(target, path) for target in self._targets(path))
        return self._known[path]

    def _is_maker(self, target: str, importer: str) -> bool:
        content = self._sources[target].content
        return (b"prefect" in content and _speaks_of_flows(content)) or self._takes_from_makers(target)

    def _targets(self, path: str) -> set[str]:
        """The repository files that a file seems to import."""
        folder = posixpath.dirname(path)
        imports = rough_imports(self._sources[path].content)
        places = (self._graph.locate(module, level, path, folder) for module, level in imports)
        return {place[0] for place in places if place}


def _speaks_of_flows(content: bytes) -> bool:
    return b"flow" in content or b"Flow" in content


_IMPORT = re.compile(
    rb"^[ \t]*(?:from[ \t]+(\.*)([\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n#]*)|import[ \t]+([^\n#]+))", re.M
)
_NAME = re.compile(rb"[A-Za-z_][\w.]*")


def rough_imports(content: bytes) -> set[tuple[str, int]]:
    """What a source seems to import, without parsing it: more rather than less.

    Args:
        content: of the file.

    Returns:
        Dotted names, each with the number of leading dots; names of the standard library are left out.
    """
    found: set[tuple[str, int]] = set()
    for dots, module, names, plain in _IMPORT.findall(content):
        if plain:
            found |= {(name, 0) for name in _names(plain)}
            continue
        prefix = f"{module.decode('ascii', 'replace')}." if module else ""
        found |= {(prefix + name, len(dots)) for name in (*_names(names), "*")}
    return {(name, level) for name, level in found if level or name.partition(".")[0] not in sys.stdlib_module_names}


def _names(text: bytes) -> list[str]:
    return [name.decode("ascii", "replace") for name in _NAME.findall(text)]


# ---------------------------------------------------------------------------------------------------------
# Which files
# ---------------------------------------------------------------------------------------------------------


def python_files(root: Path, starts: Iterable[str], ignored: GitIgnoreSpec) -> Iterator[str]:
    """The Python files at and under some places of a repository.

    Virtual environments, hidden folders, `__pycache__` and `node_modules` are left out. Links to folders are not
    followed: they would show a flow twice, and may lead in circles.

    Args:
        root: the repository.
        starts: files or folders, relative to the root. What is named here is taken even if ignored.
        ignored: what to leave out.

    Returns:
        Paths relative to the root, in no particular order; a path may come twice where places overlap.
    """
    for start in starts:
        if (root / start).is_file():
            yield start
            continue
        for folder, folders, files in os.walk(root / start):
            base = Path(folder).relative_to(root).as_posix()
            folders[:] = [name for name in folders if _worth_entering(root, posixpath.join(base, name), ignored)]
            paths = (posixpath.normpath(posixpath.join(base, name)) for name in files if name.endswith(".py"))
            yield from (path for path in paths if not ignored.match_file(path) and _is_readable(root / path))


def _worth_entering(root: Path, folder: str, ignored: GitIgnoreSpec) -> bool:
    folder = posixpath.normpath(folder)
    name = posixpath.basename(folder)
    if name.startswith(".") or name in ("__pycache__", "node_modules") or ignored.match_file(f"{folder}/"):
        return False
    return not (root / folder / "pyvenv.cfg").is_file()


def _is_readable(location: Path) -> bool:
    """A file, or a link to nothing, which is worth a report. Not a pipe or socket: reading it would wait forever."""
    return location.is_file() or not location.exists()


def _ignored(root: Path, exclude: Sequence[str]) -> GitIgnoreSpec:
    try:
        lines = (root / ".gitignore").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return GitIgnoreSpec.from_lines([*lines, *exclude])


# ---------------------------------------------------------------------------------------------------------
# What surrounds a flow
# ---------------------------------------------------------------------------------------------------------


class _Surroundings:
    """What a flow's place in the repository says about it."""

    def __init__(self, sources: SourceFiles, graph: ImportGraph) -> None:
        self._sources, self._graph = sources, graph
        self._env_files_of: dict[str, tuple[str, ...]] = {}
        self._calls_of: dict[str, tuple[DeploymentCall, ...]] = {}

    def describe(self, path: str, flow: SourceFlow) -> FlowMetadata:
        closure = self._graph.closure_of(path)
        faults = [fault for member in closure.paths if (fault := self._sources[member].fault)]
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
            dependencies=closure.dependencies,
            deployment_calls=tuple(call for member in closure.paths for call in self._calls(member)),
            dockerfile_path=self._dockerfile(path, flow.name),
            env_files=self._env_files(posixpath.dirname(path)),
            closure=closure.paths,
            closure_digest=closure.digest,
            validation_errors=tuple(f"{fault.location}: {fault.message}" for fault in faults),
            metadata=flow.metadata,
        )

    def _calls(self, path: str) -> tuple[DeploymentCall, ...]:
        if path not in self._calls_of:
            source = self._sources[path]
            worth_it = may_call_deployments(source.content)
            self._calls_of[path] = tuple(deployment_calls_in(source.parse(), path)) if worth_it else ()
        return self._calls_of[path]

    def _dockerfile(self, path: str, flow_name: str) -> str | None:
        """The nearest Dockerfile: of the flow's folder, of those above it, or under the flow's name in docker/."""
        folder = posixpath.dirname(path)
        candidates = [posixpath.join(folder, "Dockerfile")]
        while folder:
            folder = posixpath.dirname(folder)
            candidates.append(posixpath.join(folder, "Dockerfile"))
        if "/" not in flow_name:
            candidates += [f"docker/{name}.Dockerfile" for name in (flow_name, flow_name.replace("-", "_"))]
        return next((candidate for candidate in candidates if candidate in self._sources), None)

    def _env_files(self, folder: str) -> tuple[str, ...]:
        if folder not in self._env_files_of:
            names = sorted(entry.name for entry in (self._sources.root / folder).iterdir())
            paths = (posixpath.join(folder, name) for name in names if name == ".env" or name.startswith(".env."))
            self._env_files_of[folder] = tuple(path for path in paths if path in self._sources)
        return self._env_files_of[folder]


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

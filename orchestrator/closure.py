"""The import graph of a repository, read from source: which of its files does a flow need?

    ImportGraph   follows imports from a flow's file → its closure and its third-party dependencies

Nothing is imported or executed, and `sys.path` plays no part: an absolute import is looked for where a Prefect run
would find it, in the folder of the flow's file, the folders above it up to the repository's root, and `src` in each;
then in the repository's own packages (workspaces). What is not found there belongs to the standard library or to a
third party, or is missing.

Packages are told apart as Python does it (https://docs.python.org/3/reference/import.html#packages): one with an
`__init__.py` shadows whatever else has its name; a plain folder is a namespace package, and yields to any other.
"""

from __future__ import annotations

import hashlib
import posixpath
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from itertools import chain
from typing import NamedTuple

from orchestrator.distributions import is_shared_package
from orchestrator.imports import Import
from orchestrator.model import OutsideImport
from orchestrator.repository import folder_of
from orchestrator.sources import SourceFiles
from orchestrator.workspaces import package_roots


@dataclass(frozen=True, slots=True)
class Closure:
    """What one file needs.

    Attributes:
        paths: the file and every repository file that it imports, directly or not; sorted.
        digest: hex sha256 over paths and contents. It does not depend on where the repository lies.
        outside: the imports of all these files that lead out of the repository and the standard library, or that
            start in the repository and lead nowhere; sorted by file and line.
    """

    paths: tuple[str, ...]
    digest: str
    outside: tuple[OutsideImport, ...] = ()


@dataclass(frozen=True, slots=True)
class _Trail:
    """How far a dotted name goes in the repository, from one folder.

    Attributes:
        files: those that the import runs, each with the number of parts that lead to it.
        reached: how many parts lead to something: a package, a module, a folder, compiled code.
        end: the folder that the last of them is, in which more may be found; None for a module.
        is_open: whether more may follow than reading can tell: compiled code.
    """

    files: tuple[tuple[int, str], ...]
    reached: int
    end: str | None
    is_open: bool = False

    @property
    def paths(self) -> Iterator[str]:
        return (path for _, path in self.files)


@dataclass(frozen=True, slots=True)
class _Missing:
    """What an import names that is not there: dotted, as written; and the nearest name that is."""

    module: str
    nearest: str = ""


@dataclass(frozen=True, slots=True)
class _Answer:
    """Where one import leads: to files of the repository, outside, or nowhere."""

    files: tuple[str, ...] = ()
    missing: tuple[_Missing, ...] = ()
    is_outside: bool = False


_OUTSIDE = _Answer(is_outside=True)


class _Needs(NamedTuple):
    """What one file needs by its own imports."""

    files: tuple[str, ...]
    outside: tuple[OutsideImport, ...]


class ImportGraph:
    """Follows imports through the files of a repository. Answers are remembered for the time of a scan.

    Args:
        sources: the repository's files.
    """

    def __init__(self, sources: SourceFiles) -> None:
        self._sources = sources
        self._repository = sources.repository
        self._closures: dict[str, Closure] = {}
        # By the folder of the script that runs, for it decides where absolute imports start:
        self._reached: dict[tuple[str, str], frozenset[str]] = {}
        self._needs: dict[tuple[str, str], _Needs] = {}
        self._bases: dict[tuple[str, str], tuple[str, ...]] = {}
        # By the folder in which an import starts to be looked for:
        self._answers: dict[tuple[str, int, str, tuple[str, ...]], _Answer] = {}
        self._trails: dict[tuple[str, str], _Trail] = {}
        self._chunks: dict[str, bytes] = {}

    # Closures

    def closure_of(self, path: str) -> Closure:
        """What a flow's file needs when Prefect loads it as a script.

        Args:
            path: the file, relative to the repository's root.

        Returns:
            Its closure. Cycles are followed once; files that cannot be parsed are in it without imports of their own.
        """
        if path not in self._closures:
            self._closures[path] = self._follow(path)
        return self._closures[path]

    def outside_imports(self) -> tuple[OutsideImport, ...]:
        """The imports that lead outside, or nowhere, of all files of all closures asked for so far.

        Returns:
            Each once, sorted by file and line.
        """
        found = {each for needs in self._needs.values() for each in needs.outside}
        return tuple(sorted(found, key=lambda each: (each.file_path, each.line_number, each.module)))

    def _follow(self, entry: str) -> Closure:
        folder = folder_of(entry)
        paths = {entry}.union(*(self._reach(folder, path) for path in self._needs_of(folder, entry).files))
        ordered = tuple(sorted(paths))
        needs = [self._needs_of(folder, path) for path in ordered]
        return Closure(
            paths=ordered,
            digest=self._digest(ordered),
            outside=tuple(chain.from_iterable([each.outside for each in needs])),
        )

    def _reach(self, folder: str, start: str) -> frozenset[str]:
        """A file and all that it imports, directly or not. Many flows share it, so it is worked out once."""
        key = (folder, start)
        if key not in self._reached:
            paths, waiting = {start}, [start]
            while waiting:
                path = waiting.pop()
                known = self._reached.get((folder, path))
                if known is not None:
                    paths |= known
                    continue
                new = set(self._needs_of(folder, path).files) - paths
                paths |= new
                waiting += new
            self._reached[key] = frozenset(paths)
        return self._reached[key]

    def _digest(self, paths: Iterable[str]) -> str:
        return hashlib.sha256(b"".join([self._chunk(path) for path in paths])).hexdigest()

    def _chunk(self, path: str) -> bytes:
        """A file's part of the digests."""
        if path not in self._chunks:
            name = path.encode("utf-8", "surrogateescape")
            self._chunks[path] = b"%d:%s" % (len(name), name) + bytes.fromhex(self._sources[path].digest)
        return self._chunks[path]

    def _needs_of(self, folder: str, path: str) -> _Needs:
        key = (folder, path)
        if key not in self._needs:
            self._needs[key] = self._read_needs(folder, path)
        return self._needs[key]

    def _read_needs(self, folder: str, path: str) -> _Needs:
        files: dict[str, None] = {}
        outside: dict[tuple[int, str], OutsideImport] = {}  # by line and name: in what order they are told
        own_folder = folder_of(path)
        for request in self._sources[path].imports:
            answer = self._resolve(request, own_folder if request.level else folder)
            for target in answer.files:
                files[target] = None
            for missing in answer.missing:
                outside[request.line, missing.module] = _outside(request, path, missing.module, missing)
            if answer.is_outside and request.module.partition(".")[0] not in sys.stdlib_module_names:
                for name in _modules(request):
                    outside[request.line, name] = _outside(request, path, name)
        return _Needs(tuple(files), tuple([outside[place] for place in sorted(outside)]))

    # Where a name leads

    def locate(self, module: str, level: int, importer: str, entry_folder: str) -> tuple[str, tuple[str, ...]] | None:
        """The repository file that a dotted name leads to, as far as modules go, and the attributes that remain.

        Args:
            module: dotted: `mylib.decorators.flow`; after the dots where it is relative.
            level: how many dots the import has.
            importer: the file in which the import stands.
            entry_folder: of the script that runs: absolute imports start there and above.

        Returns:
            `("mylib/decorators.py", ("flow",))`, or `("mylib/__init__.py", ("flow",))` for `mylib.flow`; None where the
            name leads out of the repository, or only to folders.
        """
        if level:
            folder = _ancestor(folder_of(importer), level - 1)
            return None if folder is None else self._farthest(folder, module) or self._package_itself(folder, module)
        found = (self._farthest(base, module) for base in self._bases_of(module.partition(".")[0], entry_folder))
        return next((place for place in found if place), None)

    def _farthest(self, base: str, module: str) -> tuple[str, tuple[str, ...]] | None:
        """How far a dotted name goes in files that start in `base`."""
        files = self._trail(base, module).files
        if not files:
            return None
        count, path = files[-1]
        return path, tuple(module.split(".")[count:])

    def _package_itself(self, folder: str, module: str) -> tuple[str, tuple[str, ...]] | None:
        """`from . import name`, where name is no module: an attribute of the package."""
        init = posixpath.join(folder, "__init__.py")
        return (init, tuple(module.split(".")) if module else ()) if init in self._sources else None

    def _resolve(self, request: Import, folder: str) -> _Answer:
        """Where an import leads that starts in the folder of its file, if relative, or of the script, if absolute."""
        key = (folder, request.level, request.module, request.names)
        answer = self._answers.get(key)
        if answer is None:
            resolve = self._resolve_relative if request.level else self._resolve_absolute
            answer = self._answers[key] = resolve(request, folder)
        return answer

    def _resolve_relative(self, request: Import, folder: str) -> _Answer:
        start = _ancestor(folder, request.level - 1)
        if start is None:  # beyond the repository
            return _Answer(missing=() if "__init__.py" in self._sources else _as_written(request))
        files = (*self._packages_around(start), *self._files_of(start, request))
        return _Answer(files, tuple(self._missing(start, request, files)))

    def _resolve_absolute(self, request: Import, entry_folder: str) -> _Answer:
        bases = self._bases_of(request.module.partition(".")[0], entry_folder)
        answers = [self._answer_from(base, request, entry_folder) for base in bases]
        found = [answer for answer in answers if answer.files]
        complete = (answer for answer in found if not answer.missing)
        return next(complete, found[0] if found else _OUTSIDE)

    def _answer_from(self, base: str, request: Import, entry_folder: str) -> _Answer:
        files = self._files_of(base, request)
        missing = self._missing(base, request, files) if self._is_sure(base, request, entry_folder) else ()
        return _Answer(files, tuple(missing))

    def _is_sure(self, base: str, request: Import, entry_folder: str) -> bool:
        """Does an absolute import surely take what it finds in `base`, rather than an installed package?

        The folders between the script's and the root are searched because people start flows there; whether they do
        is not known. A module next to the script shadows everything; one elsewhere may be just a file of that name.
        """
        if base == entry_folder:
            return True
        likely = (posixpath.join(entry_folder, "src"), "", "src", *self._package_roots)
        return base in likely and bool(self._trail(base, request.module.partition(".")[0]).end)

    @cached_property
    def _package_roots(self) -> tuple[str, ...]:
        return package_roots(self._repository)

    def _bases_of(self, head: str, entry_folder: str) -> tuple[str, ...]:
        """Where the first part of an absolute import exists: as package or module, then the plain folders."""
        key = (entry_folder, head)
        if key not in self._bases:
            installed = () if head in sys.stdlib_module_names else self._package_roots
            roots = dict.fromkeys((*import_roots(entry_folder), *installed))
            existing = [root for root in roots if self._trail(root, head).reached] if head else []
            proper = [root for root in existing if self._trail(root, head).files]
            self._bases[key] = (*proper[:1], *(root for root in existing if root not in proper))
        return self._bases[key]

    def _packages_around(self, folder: str) -> Iterator[str]:
        """The `__init__.py` of a folder and of the packages that it lies in: importing from it runs them."""
        while (init := posixpath.join(folder, "__init__.py")) in self._sources:
            yield init
            if not folder:
                return
            folder = folder_of(folder)

    def _files_of(self, base: str, request: Import) -> tuple[str, ...]:
        """The files that an import runs when it starts in the folder `base`."""
        branches = [request.module, *(_dotted(request.module, name) for name in request.names)]
        return tuple(dict.fromkeys(path for name in branches for path in self._trail(base, name).paths))

    def _trail(self, base: str, module: str) -> _Trail:
        """`a.b.c`: a/__init__.py, a/b/__init__.py and a/b/c.py, those that exist. A folder without `__init__.py` is
        a namespace package: it holds nothing to run itself."""
        key = (base, module)
        if key not in self._trails:
            self._trails[key] = self._walk(base, module.split(".") if module else [])
        return self._trails[key]

    def _walk(self, base: str, parts: Sequence[str]) -> _Trail:
        files = []
        for count, part in enumerate(parts, 1):
            listing = self._repository.listing(base)
            path = f"{base}/{part}" if base else part
            if part in listing.folders and "__init__.py" in self._repository.listing(path).files:
                files.append((count, f"{path}/__init__.py"))
            elif f"{part}.py" in listing.files:
                return _Trail((*files, (count, f"{path}.py")), count, None)
            elif part not in listing.folders:
                if any(name.startswith(f"{part}.") for name in listing.names):  # .so, .pyd, .pyx, .pyi
                    return _Trail(tuple(files), count, None, is_open=True)
                return _Trail(tuple(files), count - 1, base)
            base = path
        return _Trail(tuple(files), len(parts), base)

    # What leads nowhere

    def _missing(self, base: str, request: Import, files: Sequence[str]) -> Iterator[_Missing]:
        """What an import names below `base` that surely is not there, whatever is installed.

        A plain folder alone does not prove it: an installed package of its name comes first.
        """
        trail = self._trail(base, request.module)
        if trail.is_open or not (request.level or trail.files) or any(map(self._is_inventive, files)):
            return
        parts = request.parts
        if trail.reached == len(parts):
            yield from self._missing_names(trail, request)
        elif not self._is_generated(posixpath.join(base, *parts[: trail.reached + 1])):
            yield _Missing(_written(request))

    def _missing_names(self, trail: _Trail, request: Import) -> Iterator[_Missing]:
        """The names that an import takes from a module or a folder which has none of them."""
        init = None if trail.end is None else posixpath.join(trail.end, "__init__.py")
        module = trail.files[-1][1] if init is None else init if init in self._sources else None
        bound = self._sources[module].names if module else frozenset[str]()
        for name in request.names if bound is not None else ():
            is_module = trail.end is not None and self._trail(trail.end, name).reached
            if name == "*" or is_module or name in (bound or ()) or (name.startswith("__") and name.endswith("__")):
                continue
            if trail.end is None or not self._is_generated(posixpath.join(trail.end, name)):
                yield _Missing(_written(request, name), next(iter(get_close_matches(name, bound or (), n=1)), ""))

    def _is_inventive(self, path: str) -> bool:
        """Does a module meddle with the import system? Then it may make modules from anything."""
        return self._sources[path].reading.makes_modules

    def _is_generated(self, path: str) -> bool:
        """A module that git ignores, like a `_version.py`, is made by a build."""
        return self._repository.is_ignored(f"{path}.py") or self._repository.is_ignored(f"{path}/__init__.py")


def _dotted(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


def _modules(request: Import) -> tuple[str, ...]:
    """What an import from outside names: of a package that many distributions share, what it takes from it."""
    if request.names and is_shared_package(request.module):
        return tuple(f"{request.module}.{name}" for name in request.names)
    return (request.module,)


def _as_written(request: Import) -> tuple[_Missing, ...]:
    names = () if request.module else request.names
    return tuple(_Missing(_written(request, name)) for name in names) or (_Missing(_written(request)),)


def _written(request: Import, name: str = "") -> str:
    return "." * request.level + (_dotted(request.module, name) if name else request.module)


def _outside(request: Import, path: str, module: str, missing: _Missing | None = None) -> OutsideImport:
    return OutsideImport(
        module=module,
        file_path=path,
        line_number=request.line,
        is_optional=request.is_optional,
        is_missing=missing is not None,
        nearest=missing.nearest if missing else "",
    )


def _ancestor(folder: str, steps: int) -> str | None:
    """The folder so many steps above; None beyond the repository."""
    for _ in range(steps):
        if not folder:
            return None
        folder = folder_of(folder)
    return folder


@cache
def import_roots(folder: str) -> tuple[str, ...]:
    """Where absolute imports of a script in `folder` may start, nearest first.

    Args:
        folder: of the script, relative to the repository's root; "" is the root.

    Returns:
        The folder and those above it, each followed by its `src`.
    """
    above = [folder]
    while above[-1]:
        above.append(folder_of(above[-1]))
    return tuple(root for base in above for root in (base, posixpath.join(base, "src")))

"""The import graph of a repository, read from source: which of its files does a flow need?

    SourceFiles   reads and parses each file once
    ImportGraph   follows imports from a flow's file → its closure and its third-party dependencies

Nothing is imported or executed, and `sys.path` plays no part: an absolute import is looked for where a Prefect run
would find it, in the folder of the flow's file, the folders above it up to the repository's root, and `src` in each.
What is not found there belongs to the standard library or to a third party.
"""

from __future__ import annotations

import ast
import hashlib
import io
import posixpath
import sys
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from orchestrator.model import ValidationError

SYNTAX_ERROR = "FLW001"
UNREADABLE = "FLW002"


# ---------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------


class SourceFile:
    """One Python file of the repository, read at most once, when first asked for.

    A file that cannot be used has a `fault` and looks empty: whoever needs the reason reads `fault`.
    """

    def __init__(self, root: Path, path: str) -> None:
        self.path = path
        self._location = root / path
        self._noted: tuple[tuple[Import, ...], ValidationError | None] | None = None

    @property
    def content(self) -> bytes:
        return self._read[0]

    @property
    def imports(self) -> tuple[Import, ...]:
        return self._notes[0]

    @property
    def fault(self) -> ValidationError | None:
        """Why the file cannot be used: unreadable, undecodable, or not Python."""
        return self._notes[1]

    @cached_property
    def digest(self) -> bytes:
        return hashlib.sha256(self.content).digest()

    def parse(self) -> ast.Module:
        """The syntax tree, empty where there is a fault.

        Parsing notes `imports` and `fault`; the tree is not kept. A thousand trees fill the memory, and the garbage
        collector going through them takes longer than parsing. Who wants the tree asks for it before the notes.
        """
        tree, fault = self._parsed()
        found = imports_in(tree)
        if b"import_module" in self.content or b"__import__" in self.content:
            found = [*found, *dynamic_imports_in(tree)]
        self._noted = tuple(dict.fromkeys(found)), fault
        return tree

    @property
    def _notes(self) -> tuple[tuple[Import, ...], ValidationError | None]:
        if self._noted is None:
            self.parse()
        assert self._noted is not None
        return self._noted

    @cached_property
    def _read(self) -> tuple[bytes, ValidationError | None]:
        try:
            return self._location.read_bytes(), None
        except OSError as error:
            return b"", self._unreadable(f"cannot be read: {error.strerror or error}")

    def _decoded(self) -> tuple[str, ValidationError | None]:
        """The text, by the encoding that a BOM or a PEP 263 comment names, else UTF-8."""
        content, fault = self._read
        if fault is not None:
            return "", fault
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
            return content.decode(encoding), None
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            return "", self._unreadable(f"is not valid {error.encoding}", line)
        except (SyntaxError, LookupError, ValueError) as error:  # SyntaxError: tokenize's word for a bad cookie
            return "", self._unreadable(f"cannot be decoded: {error}", 1)

    def _parsed(self) -> tuple[ast.Module, ValidationError | None]:
        empty = ast.Module(body=[], type_ignores=[])
        text, fault = self._decoded()
        if fault is not None:
            return empty, fault
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of doubtful escapes: the concern of a linter
                return ast.parse(text), None
        except (SyntaxError, ValueError) as error:  # ValueError: null bytes, before Python 3.12
            return empty, self._syntax_error(error)
        except (RecursionError, MemoryError):  # how the parser gives up on deep nesting
            return empty, self._unreadable("is nested too deeply to be parsed")

    def _syntax_error(self, error: SyntaxError | ValueError) -> ValidationError:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        return ValidationError(
            code=SYNTAX_ERROR,
            message=f"{self.path} is not valid Python: {reason}",
            file_path=self.path,
            line_number=getattr(error, "lineno", None),
            remediation="Correct the syntax; until then the flows of this file are left as they are.",
            skips=True,
        )

    def _unreadable(self, reason: str, line: int | None = None) -> ValidationError:
        return ValidationError(
            code=UNREADABLE,
            message=f"{self.path} {reason}",
            file_path=self.path,
            line_number=line,
            remediation="Make the file readable and save it as UTF-8, or name its encoding in the first line "
            "(`# -*- coding: … -*-`).",
            skips=True,
        )


class SourceFiles:
    """The files of one scan of one repository, by their path relative to its root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: dict[str, SourceFile] = {}
        self._present: dict[str, bool] = {}

    def __getitem__(self, path: str) -> SourceFile:
        if path not in self._files:
            self._files[path] = SourceFile(self.root, path)
        return self._files[path]

    def __contains__(self, path: str) -> bool:
        """Is there such a file?"""
        if path not in self._present:
            self._present[path] = (self.root / path).is_file()
        return self._present[path]


# ---------------------------------------------------------------------------------------------------------
# Imports, as one file states them
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Import:
    """One import: `from ..module import names` has level 2, `import module` level 0 and no names."""

    module: str
    level: int = 0
    names: tuple[str, ...] = ()

    @property
    def parts(self) -> list[str]:
        return self.module.split(".") if self.module else []


def imports_in(tree: ast.Module) -> list[Import]:
    """All import statements of a module, wherever they stand: those in functions run as well.

    Args:
        tree: the parsed module.

    Returns:
        `import` and `from … import`, in no particular order.
    """
    found = []
    waiting: list[ast.AST] = [*tree.body]
    while waiting:  # only through statements: several times as fast as ast.walk
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found += [Import(alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(Import(node.module or "", node.level, tuple(alias.name for alias in node.names)))
        else:
            for block in ("body", "orelse", "finalbody", "handlers", "cases"):
                waiting += getattr(node, block, ())
    return found


def dynamic_imports_in(tree: ast.Module) -> list[Import]:
    """The modules that `importlib.import_module` or `__import__` are called with, where that is a literal.

    Args:
        tree: the parsed module.

    Returns:
        What they import.
    """
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [
        found for call in calls if _callee(call) in ("import_module", "__import__") for found in _dynamic_import(call)
    ]


def _callee(call: ast.Call) -> str:
    """The last part of what is called: `import_module` for `importlib.import_module(…)`."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _dynamic_import(call: ast.Call) -> Iterator[Import]:
    """`import_module(name)` or `import_module(".name", package)`, where name is a literal."""
    package = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "package")]
    match call.args[:1]:
        case [ast.Constant(value=str(name))] if _is_dotted_name(module := name.lstrip(".")):
            level = len(name) - len(module)
            match package:
                case [ast.Constant(value=str(base))] if level == 1 and _is_dotted_name(base):
                    yield Import(f"{base}.{module}")
                case _:
                    yield Import(module, level)


def _is_dotted_name(text: str) -> bool:
    """Guards the file system: text in a program may be anything, a path out of the repository too."""
    return all(part.isidentifier() for part in text.split("."))


# ---------------------------------------------------------------------------------------------------------
# The graph
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Closure:
    """What one file needs.

    Attributes:
        paths: the file and every repository file that it imports, directly or not; sorted.
        digest: hex sha256 over paths and contents. It does not depend on where the repository lies.
        dependencies: import names from outside the repository and the standard library; sorted.
    """

    paths: tuple[str, ...]
    digest: str
    dependencies: tuple[str, ...]


class ImportGraph:
    """Follows imports through the files of a repository. Answers are remembered for the time of a scan.

    Args:
        sources: the repository's files.
    """

    def __init__(self, sources: SourceFiles) -> None:
        self._sources = sources
        self._closures: dict[str, Closure] = {}
        self._targets: dict[tuple[str, Import], tuple[str, ...]] = {}

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

    def _follow(self, entry: str) -> Closure:
        folder = posixpath.dirname(entry)
        paths, waiting, outside = {entry}, [entry], set[str]()
        while waiting:
            path = waiting.pop()
            for request in self._sources[path].imports:
                targets = self._resolve(request, path, folder)
                if not targets and not request.level:
                    outside.add(request.parts[0])
                waiting += set(targets) - paths
                paths.update(targets)
        ordered = tuple(sorted(paths))
        dependencies = tuple(sorted(outside - sys.stdlib_module_names))
        return Closure(ordered, self._digest(ordered), dependencies)

    def _digest(self, paths: Iterable[str]) -> str:
        total = hashlib.sha256()
        for path in paths:
            name = path.encode("utf-8", "surrogateescape")
            total.update(b"%d:%s" % (len(name), name) + self._sources[path].digest)
        return total.hexdigest()

    def _resolve(self, request: Import, path: str, entry_folder: str) -> tuple[str, ...]:
        """The repository files that an import in `path` runs; none where it leads outside."""
        if request.level:
            return self._resolve_relative(request, posixpath.dirname(path))
        key = (entry_folder, request)
        if key not in self._targets:
            found = (self._files_of(base, request) for base in import_roots(entry_folder))
            self._targets[key] = next((files for files in found if files), ())
        return self._targets[key]

    def _resolve_relative(self, request: Import, folder: str) -> tuple[str, ...]:
        for _ in range(request.level - 1):
            if not folder:
                return ()  # beyond the repository
            folder = posixpath.dirname(folder)
        return (*self._packages_around(folder), *self._files_of(folder, request))

    def _packages_around(self, folder: str) -> Iterator[str]:
        """The `__init__.py` of a folder and of the packages that it lies in: importing from it runs them."""
        while (init := posixpath.join(folder, "__init__.py")) in self._sources:
            yield init
            if not folder:
                return
            folder = posixpath.dirname(folder)

    def _files_of(self, base: str, request: Import) -> tuple[str, ...]:
        """The files that an import runs when it starts in the folder `base`."""
        module = request.parts
        branches = [module, *([*module, name] for name in request.names)]
        return tuple(dict.fromkeys(path for parts in branches for path in self._walk(base, parts)))

    def _walk(self, base: str, parts: Sequence[str]) -> Iterator[str]:
        """`a.b.c`: a/__init__.py, a/b/__init__.py and a/b/c.py, those that exist. A folder without `__init__.py` is
        a namespace package: it holds nothing to run itself."""
        for part in parts:
            base = posixpath.join(base, part)
            if (package := f"{base}/__init__.py") in self._sources:
                yield package
            elif (module := f"{base}.py") in self._sources:
                yield module
                return


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
        above.append(posixpath.dirname(above[-1]))
    return tuple(root for base in above for root in (base, posixpath.join(base, "src")))

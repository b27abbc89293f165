"""The Python files of a repository: each read at most once, parsed only where it must be, and noted.

    SourceFile.glance    what reading alone tells: may flows be made here?
    SourceFile.reading   what parsing tells: imports, calls to deployments, what is wrong with the file
    SourceFiles          the files of one scan, with what the last scan remembers of them

No syntax tree is kept: a thousand trees fill the memory, and the garbage collector going through them takes longer than
parsing.
"""

from __future__ import annotations

import ast
import hashlib
import io
import re
import sys
import time
import tokenize
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from orchestrator.deployment_calls import deployment_calls_in, may_call_deployments
from orchestrator.imports import Import, imports_of
from orchestrator.model import DeploymentCall, ValidationError
from orchestrator.repository import Repository
from orchestrator.scan_cache import Entry, ScanCache, Signature, signature_of

SYNTAX_ERROR = "FLW001"
UNREADABLE = "FLW002"


@dataclass(frozen=True, slots=True)
class Glance:
    """What reading a file tells without parsing it.

    Attributes:
        speaks_of_flows: whether it holds the word. What makes a flow does, or takes something from a file that does.
        speaks_of_prefect: likewise.
        is_odd: empty or not plain text: only parsing tells what is wrong with it.
        makes_modules: whether it meddles with the import system, so that it may make modules from anything.
        is_script: whether it may hold script metadata (PEP 723).
        imports: what it seems to import, rather more than less: dotted names, each with its number of leading dots.
    """

    speaks_of_flows: bool
    speaks_of_prefect: bool
    is_odd: bool
    makes_modules: bool
    is_script: bool
    imports: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What parsing a file tells. One that cannot be used has a `fault` and looks empty."""

    imports: tuple[Import, ...] = ()
    calls: tuple[DeploymentCall, ...] = ()
    fault: ValidationError | None = None


class SourceFile:
    """One Python file.

    Args:
        root: the repository, as text: thousands of files are opened, and joining paths takes as long.
        path: relative to it.
        entry: what the last scan remembers of the file.
    """

    def __init__(self, root: str, path: str, entry: Entry | None = None) -> None:
        self.path = path
        self._location = f"{root}/{path}"
        self._entry = entry

    @property
    def content(self) -> bytes:
        return self._read[0]

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of the file's bytes."""
        if self._entry and self._entry.signature and self._entry.signature == self._signature:
            return self._entry.digest
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def glance(self) -> Glance:
        known = self.notes.get("glance")
        return _glance_from(known) if known else _glance(self.content)

    @cached_property
    def reading(self) -> Reading:
        known = self.notes.get("reading")
        return _reading_from(known, self.path) if known else self._parse()[1]

    @property
    def imports(self) -> tuple[Import, ...]:
        return self.reading.imports

    @property
    def fault(self) -> ValidationError | None:
        """Why the file cannot be used: unreadable, undecodable, or not Python."""
        return self.reading.fault

    def parse(self) -> ast.Module:
        """The syntax tree, empty where there is a fault. What it tells is noted in `reading` at the same time."""
        tree, reading = self._parse()
        self.__dict__["reading"] = reading
        return tree

    # What is remembered

    @cached_property
    def notes(self) -> dict[str, Any]:
        """What is remembered of the file as it is now, in terms of JSON; who learns more adds to it."""
        return dict(self._entry.notes) if self._entry and self._entry.digest == self.digest else {}

    def adopt(self, digest: str, notes: Mapping[str, Any]) -> None:
        """Take over what another process has noted of the file, if it has read the same bytes."""
        if digest == self.digest:
            self.notes.update(notes)
            self.__dict__.pop("reading", None)

    def to_entry(self) -> Entry:
        """What the next scan may want to know. Of a file that cannot be read: nothing that could be believed."""
        signature = None if self._read_fault else self._signature
        return Entry(signature, self.digest, self.noted())

    def noted(self) -> dict[str, Any]:
        """The notes with all that is known by now."""
        if "reading" in self.__dict__ and "reading" not in self.notes:
            self.notes["reading"] = _reading_json(self.reading)
        if "glance" not in self.notes:
            self.notes["glance"] = _glance_json(self.glance)
        return self.notes

    @cached_property
    def _signature(self) -> Signature | None:
        return signature_of(self._location, time.time_ns())

    # Reading and parsing

    @cached_property
    def _read(self) -> tuple[bytes, ValidationError | None]:
        self._signature  # noqa: B018 - before reading: what is written later has another one
        try:
            with open(self._location, "rb") as file:  # noqa: PTH123 - as with the root
                return file.read(), None
        except (OSError, ValueError) as error:
            return b"", self._unreadable(f"cannot be read: {getattr(error, 'strerror', None) or error}")

    @property
    def _read_fault(self) -> ValidationError | None:
        return self._read[1] if "_read" in self.__dict__ else None

    def _parse(self) -> tuple[ast.Module, Reading]:
        tree, fault = self._parsed()
        calls = deployment_calls_in(tree, self.path) if may_call_deployments(self.content) else ()
        return tree, Reading(tuple(imports_of(tree, self.content)), tuple(calls), fault)

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
            column_number=getattr(error, "offset", None) or None,
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
    """The files of one scan of one repository, by their path relative to its root.

    Args:
        root: the repository.
        repository: the door to it, where the caller has one already.
        cache_file: where the next scan finds what this one learns; None remembers nothing.
    """

    def __init__(self, root: Path, repository: Repository | None = None, cache_file: Path | None = None) -> None:
        self.root = root
        self.repository = repository or Repository(root)
        self._root = str(root)
        self._cache = ScanCache(root, cache_file)
        self._files: dict[str, SourceFile] = {}

    def __getitem__(self, path: str) -> SourceFile:
        if path not in self._files:
            self._files[path] = SourceFile(self._root, path, self._cache.entry(path))
        return self._files[path]

    def __contains__(self, path: str) -> bool:
        """Is there such a file?"""
        folder, _, name = path.rpartition("/")
        return name in self.repository.listing(folder).files

    def remember(self) -> None:
        """Keep what is known of the files for the next scan."""
        for path, source in self._files.items():
            self._cache.keep(path, source.to_entry())
        self._cache.save()


# ---------------------------------------------------------------------------------------------------------
# A glance
# ---------------------------------------------------------------------------------------------------------

_IMPORT = re.compile(
    rb"^[ \t]*(?:from[ \t]+(\.*)([\w.]*)[ \t]+import[ \t]*(\([^)]*\)|[^\n#]*)|import[ \t]+([^\n#]+))", re.M
)
_NAME = re.compile(rb"[A-Za-z_][\w.]*")


def _glance(content: bytes) -> Glance:
    return Glance(
        speaks_of_flows=b"flow" in content or b"Flow" in content,
        speaks_of_prefect=b"prefect" in content,
        is_odd=not content or b"\0" in content,
        makes_modules=b"__path__" in content or b"sys.modules" in content or b"meta_path" in content,
        is_script=b"# /// " in content,
        imports=tuple({target for statement in _IMPORT.findall(content) for target in _rough_targets(*statement)}),
    )


@lru_cache(maxsize=10_000)  # most files of a repository import the same few modules
def _rough_targets(dots: bytes, module: bytes, names: bytes, plain: bytes) -> tuple[tuple[str, int], ...]:
    """What one import statement seems to import; not of the standard library."""
    if plain:
        dotted = _names(plain)
    else:
        prefix = f"{module.decode('ascii', 'replace')}." if module else ""
        dotted = [prefix + name for name in (*_names(names), "*")]
    foreign = () if dots else sys.stdlib_module_names
    return tuple((name, len(dots)) for name in dotted if name.partition(".")[0] not in foreign)


def _names(text: bytes) -> list[str]:
    return [name.decode("ascii", "replace") for name in _NAME.findall(text)]


# ---------------------------------------------------------------------------------------------------------
# Notes in terms of JSON
# ---------------------------------------------------------------------------------------------------------


def _glance_json(glance: Glance) -> list[Any]:
    return [getattr(glance, name) for name in Glance.__slots__]


def _glance_from(known: Sequence[Any]) -> Glance:
    flows, prefect, odd, modules, script, imports = known
    return Glance(flows, prefect, odd, modules, script, tuple((name, level) for name, level in imports))


def _reading_json(reading: Reading) -> dict[str, Any]:
    return {
        "imports": [[each.module, each.level, each.names, each.line, each.is_optional] for each in reading.imports],
        "calls": [[call.deployment, call.function, call.line_number] for call in reading.calls],
        "fault": asdict(reading.fault) if reading.fault else None,
    }


def _reading_from(known: Mapping[str, Any], path: str) -> Reading:
    return Reading(
        imports=tuple(
            Import(module, level, tuple(names), line, optional)
            for module, level, names, line, optional in known["imports"]
        ),
        calls=tuple(
            DeploymentCall(deployment=deployment, function=function, file_path=path, line_number=line)
            for deployment, function, line in known["calls"]
        ),
        fault=ValidationError(**known["fault"]) if known["fault"] else None,
    )

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
import os
import re
import sys
import tokenize
import unicodedata
import warnings
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.bindings import names_bound_by
from orchestrator.deployment_calls import deployment_calls_in, may_call_deployments
from orchestrator.imports import Import, imports_of
from orchestrator.model import DeploymentCall, ValidationError
from orchestrator.repository import Repository
from orchestrator.scan_cache import Entry, ScanCache, Signature, signature_of

SYNTAX_ERROR = "FLW001"
UNREADABLE = "FLW002"
_FLATTEN = "Split the expression, or the blocks that stand inside one another."
_NOT_ASKED = frozenset({"?"})
_SIGNS_OF_MAKING_MODULES = (b"__path__", b"sys.modules", b"meta_path")


class Glance(NamedTuple):
    """What reading a file tells without parsing it.

    Attributes:
        speaks_of_flows: whether it holds the word. What makes a flow does, or takes something from a file that does.
        speaks_of_prefect: likewise.
        is_odd: empty or not plain text: only parsing tells what is wrong with it.
        imports: what it seems to import, rather more than less: dotted names, each with its number of leading dots.
    """

    speaks_of_flows: bool
    speaks_of_prefect: bool
    is_odd: bool
    imports: tuple[tuple[str, int], ...]

    @property
    def is_dull(self) -> bool:
        """Whether no flow can be made here, whatever other files hold."""
        return not (self.speaks_of_flows or self.is_odd or self.imports)


class Reading(NamedTuple):
    """What is noted of a file that is parsed. One that cannot be used has a `fault` and looks empty.

    Attributes:
        imports, calls: in it.
        fault: what is wrong with it.
        makes_modules: whether it meddles with the import system, so that it may make modules from anything.
        is_script: whether it may hold script metadata (PEP 723).
    """

    imports: tuple[Import, ...] = ()
    calls: tuple[DeploymentCall, ...] = ()
    fault: ValidationError | None = None
    makes_modules: bool = False
    is_script: bool = False


class SourceFile:
    """One Python file.

    Args:
        root: the repository, as text: thousands of files are opened, and joining paths takes as long.
        path: relative to it.
    """

    def __init__(self, root: str, path: str) -> None:
        self.path = path
        self._location = f"{root}/{path}"
        self._signature: Signature | None = None
        self._notes: dict[str, Any] = {}
        self._has_news = False  # for the cache
        # Worked out when first asked for (by hand: there are thousands of files, and cached_property takes a lock):
        self._content: bytes | None = None
        self._read_fault: ValidationError | None = None
        self._digest = ""
        self._glance: Glance | None = None
        self._reading: Reading | None = None
        self._names: frozenset[str] | None = _NOT_ASKED

    @property
    def content(self) -> bytes:
        if self._content is None:
            try:
                self._content = _read(self._location, self._signature[0] if self._signature else 0)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                self._content, self._read_fault = b"", self._unreadable(f"cannot be read: {reason}")
        return self._content

    @property
    def digest(self) -> str:
        """Hex sha256 of the file's bytes."""
        if not self._digest:
            self._digest = hashlib.sha256(self.content).hexdigest()
        return self._digest

    @property
    def glance(self) -> Glance:
        if self._glance is None:
            known = self._notes.get("glance")
            self._glance = Glance._make(known) if known else _glance(self.content)
        return self._glance

    @property
    def reading(self) -> Reading:
        if self._reading is None:
            known = self._notes.get("reading")
            self._reading = _reading_from(known, self.path) if known else self._parse()[1]
        return self._reading

    @property
    def names(self) -> frozenset[str] | None:
        """The names that can be imported from the file; None where that cannot be known."""
        if self._names is _NOT_ASKED:
            if "names" not in self._notes:
                tree = self.parse()
                found = None if self.fault else names_bound_by(tree, self.content)
                self._notes["names"] = None if found is None else sorted(found)
                self._has_news = True
            noted = self._notes["names"]
            self._names = None if noted is None else frozenset(noted)
        return self._names

    @property
    def imports(self) -> tuple[Import, ...]:
        return self.reading.imports

    @property
    def fault(self) -> ValidationError | None:
        """Why the file cannot be used: unreadable, undecodable, or not Python."""
        return self.reading.fault

    def parse(self) -> ast.Module:
        """The syntax tree, empty where there is a fault. What it tells is noted in `reading` at the same time."""
        tree, self._reading = self._parse()
        return tree

    # What is remembered

    @property
    def is_remembered(self) -> bool:
        """Has somebody looked at the file as it is now?"""
        return bool(self._notes)

    def recall(self, entry: Entry | None) -> None:
        """Take over what the last scan has noted, if the file is still the same."""
        self._signature = signature_of(self._location)
        if entry is None:
            return
        if entry.signature and entry.signature == self._signature:
            self._digest, self._notes = entry.digest, entry.notes or {}
        elif entry.digest and entry.digest == self.digest:
            self._notes, self._has_news = entry.notes or {}, True

    def adopt(self, signature: Signature | None, digest: str, notes: dict[str, Any]) -> None:
        """Take over what another process has noted."""
        self._signature = signature
        self._digest, self._notes, self._has_news = digest, notes, True

    def to_tell(self) -> tuple[Signature | None, str, dict[str, Any]]:
        """What this process has noted, for another one to adopt."""
        return self._signature, self.noted_digest, self.noted()

    @property
    def flows(self) -> tuple[str, tuple[Any, ...]] | None:
        """What the flow reader has noted: the digest of the closure that it looked at, and flows in plain values."""
        return self._notes.get("flows")

    def note_flows(self, closure_digest: str, flows: tuple[Any, ...]) -> None:
        self._notes["flows"] = (closure_digest, flows)
        self._has_news = True

    def noted(self) -> dict[str, Any]:
        """The notes with all that is known by now, in plain values."""
        if "glance" not in self._notes:
            self._notes["glance"] = tuple(self.glance)
        if self._reading is not None and "reading" not in self._notes:
            self._notes["reading"] = _plain_reading(self._reading)
        return self._notes

    def to_entry(self) -> Entry | None:
        """What the next scan should know; None where it is what the last one knew, or cannot be believed."""
        has_glance = self._glance is not None and "glance" not in self._notes
        has_reading = self._reading is not None and "reading" not in self._notes
        if self._read_fault or not (self._has_news or has_glance or has_reading):
            return None
        is_dull = self._reading is None and self.glance.is_dull
        return Entry(self._signature, self.noted_digest, None if is_dull else self.noted())

    @property
    def noted_digest(self) -> str:
        """The digest, where it is worth having: a file that was only glanced at is as soon glanced at again."""
        return self.digest if self._reading is not None else self._digest

    # Reading and parsing

    def _parse(self) -> tuple[ast.Module, Reading]:
        tree, fault = self._parsed()
        calls = deployment_calls_in(tree, self.path) if may_call_deployments(self.content) else ()
        return tree, Reading(
            imports=tuple(imports_of(tree, self.content)),
            calls=tuple(calls),
            fault=fault,
            makes_modules=any(sign in self.content for sign in _SIGNS_OF_MAKING_MODULES),
            is_script=b"# /// " in self.content,
        )

    def _decoded(self) -> tuple[str, ValidationError | None]:
        """The text, by the encoding that a BOM or a PEP 263 comment names, else UTF-8."""
        content = self.content
        if self._read_fault is not None:
            return "", self._read_fault
        try:
            encoding = "utf-8"
            if content.startswith(b"\xef\xbb\xbf") or b"coding" in content[:500]:  # else there is none to detect
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
            return empty, replace(self._unreadable("is nested too deeply to be parsed"), remediation=_FLATTEN)

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


def _read(location: str, size: int) -> bytes:
    """The bytes of a file that has about `size` bytes. A file object would take as long again for each of thousands."""
    descriptor = os.open(location, os.O_RDONLY)
    try:
        asked = size + 1
        parts = [os.read(descriptor, asked)]
        while len(parts[-1]) == asked:
            asked = 1 << 20
            parts.append(os.read(descriptor, asked))
        return b"".join(parts)
    finally:
        os.close(descriptor)


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
        self.dull: set[str] = set()  # files in which, as the last scan knows, no flow can be made

    def __getitem__(self, path: str) -> SourceFile:
        if path not in self._files:
            self._files[path] = SourceFile(self._root, path)
            if self._cache.is_kept:
                self._files[path].recall(self._cache.entry(path))
        return self._files[path]

    def __contains__(self, path: str) -> bool:
        """Is there such a file?"""
        folder, _, name = path.rpartition("/")
        return name in self.repository.listing(folder).files

    def not_remembered(self, paths: Iterable[str]) -> list[str]:
        """Those of some files that nobody has looked at since they were written. New ones are not touched."""
        unknown = []
        was_dull = self._cache.dull
        for path in paths:  # one loop over thousands of files, without a call for each
            if path in was_dull and path not in self._files and was_dull[path] == signature_of(f"{self._root}/{path}"):
                self.dull.add(path)
            elif not ((path in self._files or self._cache.knows(path)) and self[path].is_remembered):
                unknown.append(path)
        return unknown

    def adopt(self, path: str, signature: Signature | None, digest: str, notes: dict[str, Any]) -> None:
        """Take over what another process has noted of a file."""
        self._files[path] = SourceFile(self._root, path)
        self._files[path].adopt(signature, digest, notes)

    def remember(self) -> None:
        """Keep what is known of the files for the next scan."""
        if self._cache.is_kept:
            entries = ((path, source.to_entry()) for path, source in self._files.items())
            self._cache.save({path: entry for path, entry in entries if entry})


# ---------------------------------------------------------------------------------------------------------
# A glance
# ---------------------------------------------------------------------------------------------------------

_IMPORT = re.compile(rb"\n[ \t]*(?:from[ \t]+(\.*)([\w.]*)[ \t]+import[ \t]*(\([^)]*\)|[^\n#]*)|import[ \t]+([^\n#]+))")
"""Begins with the end of the line before, which is searched for three times as fast as the beginning of a line."""
_GAP = rb"(?:[ \t\f]|\\\r?\n)"
_UNUSUAL_IMPORT = re.compile(
    rb"(?:^|[;:\r\f])[ \t]*(?:from" + _GAP + rb"*(\.*)" + _GAP + rb"*([\w.\x80-\xff]*)" + _GAP + rb"*import" + _GAP
    + rb"*(\([^)]*\)|[^\r\n#;]*)|import" + _GAP + rb"+([^\r\n#;]+))",
    re.M,
)  # fmt: skip
_NAME = re.compile(rb"[A-Za-z_\x80-\xff][\w.\x80-\xff]*")


def _glance(content: bytes) -> Glance:
    names = content if content.isascii() else _as_python_reads(content)
    of_flows, of_prefect = b"flow" in names or b"Flow" in names, b"prefect" in names
    # Of a maker nobody asks from whom it takes anything.
    statements = () if of_flows and of_prefect else _import_statements(content)
    return Glance(
        speaks_of_flows=of_flows,
        speaks_of_prefect=of_prefect,
        is_odd=not content or b"\0" in content,
        imports=tuple({target for statement in statements for target in _rough_targets(*statement)}),
    )


def _import_statements(content: bytes) -> list[tuple[bytes, bytes, bytes, bytes]]:
    """The imports of a source, in the parts that `_rough_targets` takes."""
    statements = _IMPORT.findall(b"\n" + content)
    goes_on = b"\\" in content and (b"\\\n" in content or b"\\\r" in content)
    if content.isascii() and not goes_on and content.count(b"import") == len(statements):
        return statements
    # The word is somewhere else, too, in a text perhaps; or a statement begins amid a line or goes on on the next one.
    return _UNUSUAL_IMPORT.findall(content)


@lru_cache(maxsize=10_000)  # most files of a repository import the same few modules
def _rough_targets(dots: bytes, module: bytes, names: bytes, plain: bytes) -> tuple[tuple[str, int], ...]:
    """What one import statement seems to import; not of the standard library."""
    if plain:
        dotted = _names(plain)
    else:
        prefix = f"{_text(module)}." if module else ""
        dotted = [prefix + name for name in (*_names(names), "*")]
    foreign = () if dots else sys.stdlib_module_names
    return tuple((name, len(dots)) for name in dotted if name.partition(".")[0] not in foreign)


def _names(text: bytes) -> list[str]:
    return [_text(name) for name in _NAME.findall(text)]


def _text(name: bytes) -> str:
    return name.decode() if name.isascii() else _as_python_reads(name).decode()


def _as_python_reads(content: bytes) -> bytes:
    """With names in the form in which Python compares them: `ｆｌｏｗ` is `flow`
    (https://docs.python.org/3/reference/lexical_analysis.html#identifiers)."""
    return unicodedata.normalize("NFKC", content.decode("utf-8", "replace")).encode()


# ---------------------------------------------------------------------------------------------------------
# Notes in plain values
# ---------------------------------------------------------------------------------------------------------


def _plain_reading(reading: Reading) -> tuple[Any, ...]:
    calls = [(call.deployment, call.function, call.line_number) for call in reading.calls]
    fault = asdict(reading.fault) if reading.fault else None
    return tuple(map(tuple, reading.imports)), calls, fault, reading.makes_modules, reading.is_script


def _reading_from(known: tuple[Any, ...], path: str) -> Reading:
    imports, calls, fault, makes_modules, is_script = known
    return Reading(
        imports=tuple(map(Import._make, imports)),
        calls=tuple(
            [
                DeploymentCall(deployment=deployment, function=function, file_path=path, line_number=line)
                for deployment, function, line in calls
            ]
        ),
        fault=ValidationError(**fault) if fault else None,
        makes_modules=makes_modules,
        is_script=is_script,
    )

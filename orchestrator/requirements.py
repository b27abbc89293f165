"""What a repository declares to install for a flow.

Read are PEP 723 script blocks, pip's requirements files, pyproject.toml (PEP 621, PEP 735, Poetry, uv, PDM, Hatch,
pixi) and setup.cfg. Nothing is installed, asked of an index or executed.

Discovery uses this module, so it is cheap to import: names are found by the grammar of PEP 508. What needs the whole of
it (versions, markers) lies with the rules.
"""

from __future__ import annotations

import codecs
import configparser
import posixpath
import re
import tomllib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from orchestrator.repository import Repository, folder_of, line_of_fault

# Bounds for hostile files; people write far less, and what exceeds them counts as not known.
MOST_FILES = 500  # that the declarations of one folder include
MOST_ENTRIES = 3000  # that they hold together

# Declarations of other tools, which this module cannot read: what they declare is not known.
UNREAD_FILES = ("setup.py", "Pipfile", "environment.yml", "environment.yaml", "conda.yml", "conda.yaml", "pixi.toml")


def normalised(name: str) -> str:
    """A distribution's name as PEP 503 compares it: `Foo_Bar.baz` is `foo-bar-baz`."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirement:
    """One entry of a declaration.

    Attributes:
        name: of the distribution, normalised by PEP 503; empty where the entry does not tell it.
        text: PEP 508, as it is written; without comments and pip's options.
        file_path, line_number: where it stands. The line in a TOML file is found by searching for the text.
        group: empty for what is always installed; else what it belongs to: `extra test`, `group dev`, a file.
        extras: of the distribution, normalised.
        is_constraint: it installs nothing, but limits the versions (`-c constraints.txt`).
        is_reference: a URL, a path or a tool's own notation: not PEP 508, and nothing is known of versions.
    """

    name: str
    text: str
    file_path: str
    line_number: int
    group: str = ""
    extras: tuple[str, ...] = ()
    is_constraint: bool = False
    is_reference: bool = False

    @property
    def location(self) -> str:
        return f"{self.file_path}:{self.line_number}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Unread:
    """A place where a requirements file cannot be read.

    Attributes:
        file_path, line_number: where.
        missing: the file that this line includes and that does not exist; empty: the file itself is not UTF-8.
    """

    file_path: str
    line_number: int
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What is declared to install, together.

    Attributes:
        entries: in the order in which they were read.
        files: that they come from. Empty: nothing is declared anywhere.
        folders: of the repository that are installed as well (`-e ./libs/common`).
        is_complete: False where part of it cannot be known by reading: a missing file, an address without a name,
            a tool that this module does not read.
        unread: what pip could not read either.
    """

    entries: tuple[Requirement, ...] = ()
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    is_complete: bool = True
    unread: tuple[Unread, ...] = ()

    @cached_property
    def names(self) -> frozenset[str]:
        """The normalised names of all distributions that are declared, in whatever group."""
        return frozenset(entry.name for entry in self.entries if entry.name and not entry.is_constraint)

    @cached_property
    def extras(self) -> frozenset[str]:
        """Each extra behind its distribution: `prefect-aws` for `prefect[aws]`."""
        return frozenset(f"{entry.name}-{extra}" for entry in self.entries for extra in entry.extras)


# ---------------------------------------------------------------------------------------------------------
# Which declaration counts
# ---------------------------------------------------------------------------------------------------------


class RequirementFiles:
    """The declarations of a repository. Each folder is read once.

    Args:
        repository: its files.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._nearest: dict[str, Requirements] = {}

    def for_file(self, path: str, source: str | None = None) -> Requirements:
        """What is declared for one file.

        Args:
            path: the file, relative to the root.
            source: its text; None where a PEP 723 block in it should not count.

        Returns:
            Its PEP 723 block, which stands alone; else the declarations in the nearest folder that has some, from its
            own folder up to the root; else nothing.
        """
        if source is not None and (script := script_requirements(path, source)) is not None:
            return script
        passed = []
        folder = folder_of(path)
        while folder not in self._nearest:
            passed.append(folder)
            found = _FolderReader(self._repository, folder).read()
            if found.files or not folder:
                self._nearest[folder] = found
                break
            folder = folder_of(folder)
        for each in passed:
            self._nearest[each] = self._nearest[folder]
        return self._nearest[folder]


def script_requirements(path: str, source: str) -> Requirements | None:
    """The dependencies that a script declares in a comment block, by PEP 723.

    Args:
        path: of the script, relative to the root.
        source: its text.

    Returns:
        What the block declares; incomplete where it is not valid TOML, or where there are several blocks, which the
        PEP forbids. None where there is no block.
    """
    if "# /// script" not in source:
        return None
    blocks = list(_script_blocks(source))
    if not blocks:
        return None
    start, content = blocks[0]
    table = _toml(content)
    if table is None or len(blocks) > 1:
        return Requirements(files=(path,), is_complete=False)
    lines = _Lines("\n" * start + content)
    entries = (
        _entry(text, path, lines.of("dependencies", *_quoted(text))) for text in _texts(table.get("dependencies"))
    )
    return Requirements(entries=tuple(entries), files=(path,))


def _script_blocks(source: str) -> Iterator[tuple[int, str]]:
    """The `script` blocks: how many lines come before the content, and the content.

    It finds what the regular expression of PEP 723 finds, in one pass: hostile text makes that expression start over
    at every line.
    """
    lines = source.replace("\r\n", "\n").split("\n")
    position = 0
    while position < len(lines):
        opening = re.fullmatch(r"# /// ([a-zA-Z0-9-]+)", lines[position])
        position += 1
        if opening is None:
            continue
        end = position
        while end < len(lines) and (lines[end] == "#" or lines[end].startswith("# ")):
            end += 1
        closing = next((at for at in range(end - 1, position, -1) if lines[at] == "# ///"), None)
        if closing is not None and opening[1] == "script":
            yield position, "\n".join(line[2:] for line in lines[position:closing])
        position = end if closing is None else closing + 1


# ---------------------------------------------------------------------------------------------------------
# Reading one folder
# ---------------------------------------------------------------------------------------------------------

_OPTION = re.compile(r"(-r|-c|-e|--requirement|--constraint|--editable)(?:\s*=\s*|\s+|(?<=^-[rce]))(.+)")
_CODING = re.compile(rb"[ \t\f]*#.*?coding[:=]")
_BYTE_ORDER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # UTF-32 LE begins as UTF-16 LE
_NAME = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[([^\[\]]*)\])?")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_ARCHIVE = re.compile(r"\.(whl|zip|tar|tgz|tar\.(gz|bz2|xz|lzma))$")

# Tables of a pyproject.toml whose keys are the names of distributions: tools with notations of their own. Behind each
# what it is a group of; `*` stands for every key there is, and is the group's name.
_KEYED = (
    ("tool.poetry.dependencies", ""),
    ("tool.poetry.dev-dependencies", "group dev"),
    ("tool.poetry.group.*.dependencies", "group"),
    ("tool.pixi.dependencies", ""),
    ("tool.pixi.pypi-dependencies", ""),
    ("tool.pixi.feature.*.dependencies", "feature"),
    ("tool.pixi.feature.*.pypi-dependencies", "feature"),
)
# Arrays of PEP 508 texts.
_LISTED = (
    ("project.dependencies", ""),
    ("project.optional-dependencies.*", "extra"),
    ("dependency-groups.*", "group"),
    ("tool.uv.dev-dependencies", "group dev"),
    ("tool.pdm.dev-dependencies.*", "group"),
    ("tool.hatch.envs.*.dependencies", "environment"),
    ("tool.hatch.envs.*.extra-dependencies", "environment"),
)


class _FolderReader:
    """Collects what the files of one folder, and those that they include, declare."""

    def __init__(self, repository: Repository, folder: str) -> None:
        self._repository = repository
        self._folder = folder
        self._entries: list[Requirement] = []
        self._files: dict[str, None] = {}
        self._folders: list[str] = []
        self._is_complete = True
        self._unread: list[Unread] = []
        self._waiting: list[tuple[str, str, bool]] = []  # pip's files: path, group, is it for constraints
        self._seen: set[tuple[str, str, bool]] = set()

    def read(self) -> Requirements:
        self._read_projects(self._folder)
        self._waiting += self._pip_files()
        while self._waiting:
            self._read_pip_file(*self._waiting.pop(0))
        if not self._files:
            self._note_what_is_not_read()
        return Requirements(
            entries=tuple(self._entries),
            files=tuple(self._files),
            folders=tuple(self._folders),
            is_complete=self._is_complete,
            unread=tuple(self._unread),
        )

    def _at(self, name: str) -> str:
        return posixpath.join(self._folder, name)

    def _pip_files(self) -> Iterator[tuple[str, str, bool]]:
        """requirements.txt, and the files beside it for other occasions, each a group of its own."""
        names = self._repository.names(self._folder)
        if "requirements.txt" in names:
            yield self._at("requirements.txt"), "", False
        beside = [name for name in names if re.fullmatch(r"requirements[-_.].+\.txt|.+[-_.]requirements\.txt", name)]
        if "requirements" in names:
            inside = self._repository.names(self._at("requirements"))
            beside += [f"requirements/{name}" for name in inside if name.endswith(".txt")]
        for name in sorted(beside):
            yield self._at(name), self._at(name), False

    def _note_what_is_not_read(self) -> None:
        unread = [self._at(name) for name in UNREAD_FILES if name in self._repository.names(self._folder)]
        self._files.update(dict.fromkeys(unread))
        self._is_complete = self._is_complete and not unread

    def _note_unknown(self, path: str) -> None:
        """A file that declares something which cannot be known."""
        self._files[path] = None
        self._is_complete = False

    # pip

    def _read_pip_file(self, path: str, group: str, is_constraint: bool) -> None:
        """A requirements file, by https://pip.pypa.io/en/stable/reference/requirements-file-format/."""
        key = (path, group, is_constraint)
        if key in self._seen:
            return
        self._seen.add(key)
        text = self._repository.text(path) if len(self._seen) <= MOST_FILES else None
        if text is None:
            self._note_unknown(path)
            self._note_encoding(path)
            return
        self._files[path] = None
        for number, line in pip_lines(text):
            if self._room() == 0:
                return
            self._read_pip_line(line, number, *key)

    def _note_encoding(self, path: str) -> None:
        """pip takes a byte order mark, and an encoding that a comment in the first two lines names; else UTF-8."""
        data = self._repository.undecoded(path)
        named = data.startswith(_BYTE_ORDER_MARKS) or any(map(_CODING.match, data.split(b"\n", 2)[:2]))
        if not named and (line := line_of_fault(data)) is not None:
            self._unread.append(Unread(file_path=path, line_number=line))

    def _read_pip_line(self, line: str, number: int, path: str, group: str, is_constraint: bool) -> None:
        if not line.startswith("-"):
            text = re.split(r"\s-", line, maxsplit=1)[0].strip()  # behind it: --hash and other options
            self._add(_pip_entry(text, path, number, group, is_constraint))
        elif option := _OPTION.fullmatch(line):
            kind, value = option[1].lstrip("-")[0], option[2].strip().strip("\"'")
            if kind == "e":
                self._add(_reference(value, path, number, group))
            elif (included := _inside(folder_of(path), value)) is not None:
                self._waiting.append((included, group, is_constraint or kind == "c"))
                if included not in self._repository and not self._repository.is_ignored(included):
                    self._unread.append(Unread(file_path=path, line_number=number, missing=value))
            else:
                self._is_complete = False

    def _room(self) -> int:
        """How many entries may still come; once there are too many, not all are known."""
        room = MOST_ENTRIES - len(self._entries)
        self._is_complete = self._is_complete and room > 0
        return room

    def _add(self, entry: Requirement) -> None:
        self._entries.append(entry)
        if entry.is_reference and not entry.name and not entry.is_constraint:
            self._follow_path(entry)

    def _follow_path(self, entry: Requirement) -> None:
        """A folder of the repository that is installed brings what it declares itself."""
        path = entry.text.partition("[")[0].removeprefix("file:")
        folder = _inside(folder_of(entry.file_path), path)
        if folder is None or not self._repository.names(folder):
            self._is_complete = False
        elif folder not in self._folders:
            self._folders.append(folder)
            self._read_projects(folder, is_followed=True)
            is_known = any(posixpath.join(folder, name) in self._files for name in ("pyproject.toml", "setup.cfg"))
            if not is_known and "setup.py" in self._repository.names(folder):
                self._is_complete = False

    # pyproject.toml and setup.cfg

    def _read_projects(self, folder: str, *, is_followed: bool = False) -> None:
        """pyproject.toml and setup.cfg; of a folder that another declaration installs, only what is always needed."""
        known = len(self._entries)
        names = self._repository.names(folder)
        for name, read in (("pyproject.toml", self._read_pyproject), ("setup.cfg", self._read_setup_cfg)):
            path = posixpath.join(folder, name)
            if name not in names or path in self._files:
                continue
            if (text := self._repository.text(path)) is not None:
                read(path, text)
            else:
                self._note_unknown(path)
        if is_followed:
            self._entries[known:] = [entry for entry in self._entries[known:] if not entry.group]

    def _read_pyproject(self, path: str, text: str) -> None:
        project = _toml(text)
        if project is None:
            self._note_unknown(path)  # whoever reads the file for its settings reports it
            return
        lines = _Lines(text)
        for heading, group, value in _places(project, _LISTED):
            self._files[path] = None
            entries = (_entry(each, path, lines.of(heading, *_quoted(each)), group) for each in _texts(value))
            self._entries += islice(entries, self._room())
        for heading, group, value in _places(project, _KEYED):
            self._files[path] = None
            names = [name for name in value if name != "python"] if isinstance(value, dict) else []
            entries = (_named(name, path, lines.of(heading, *_as_key(name)), group) for name in names)
            self._entries += islice(entries, self._room())
        self._read_dynamic(path, project)

    def _read_dynamic(self, path: str, project: dict[str, Any]) -> None:
        """`dynamic = ["dependencies"]`: setuptools can take them from requirements files."""
        if not any("dependencies" in _texts(value) for _, _, value in _values(project, "project.dynamic")):
            return
        self._files[path] = None
        sources = [value for _, _, value in _values(project, "tool.setuptools.dynamic.dependencies.file")]
        names = [name for value in sources for name in ([value] if isinstance(value, str) else _texts(value))]
        self._include(path, names)

    def _include(self, path: str, names: list[str]) -> None:
        """The requirements files that a project at `path` takes its dependencies from."""
        included = [_inside(folder_of(path), name) for name in names]
        self._waiting += [(each, "", False) for each in included if each is not None]
        self._is_complete = self._is_complete and bool(names) and None not in included

    def _read_setup_cfg(self, path: str, text: str) -> None:
        """The declarative configuration of setuptools."""
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(text)
        except configparser.Error:
            self._note_unknown(path)
            return
        lines = _Lines(text)
        places = [("install_requires", "", parser.get("options", "install_requires", fallback=None))]
        if parser.has_section("options.extras_require"):
            places += [(key, f"extra {key}", value) for key, value in parser.items("options.extras_require")]
        for key, group, value in places:
            if value is not None:
                self._files[path] = None
                self._read_setup_list(path, value.strip(), lines, key, group)

    def _read_setup_list(self, path: str, value: str, lines: _Lines, key: str, group: str) -> None:
        """One line for each, or all on one line between semicolons; or the file that holds them."""
        if value.startswith("file:"):
            self._include(path, [name.strip() for name in value.removeprefix("file:").split(",")])
            return
        texts = [each.strip() for each in (value.splitlines() if "\n" in value else value.split(";"))]
        kept = [each for each in texts if each and not each.startswith("#")]
        self._entries += islice((_entry(each, path, lines.of(key, each), group) for each in kept), self._room())


def pip_lines(text: str) -> Iterator[tuple[int, str]]:
    """The logical lines of a requirements file, as pip reads them.

    Args:
        text: of the file.

    Yields:
        The number of the first physical line, and the text: continued lines joined, without comments, never empty.
    """
    parts: list[str] = []
    first = 1
    for number, line in enumerate(text.splitlines(), 1):
        is_comment = re.match(r"\s*#", line) is not None
        first = first if parts else number
        if line.endswith("\\") and not is_comment:
            parts.append(line[:-1])
            continue
        parts.append(f" {line}" if is_comment and parts else line)  # a comment ends what is continued
        if joined := _without_comment("".join(parts)):
            yield first, joined
        parts = []
    if joined := _without_comment("".join(parts)):
        yield first, joined


def _without_comment(line: str) -> str:
    return re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()


# ---------------------------------------------------------------------------------------------------------
# Reading one entry
# ---------------------------------------------------------------------------------------------------------


def _entry(text: str, path: str, line: int, group: str = "", is_constraint: bool = False) -> Requirement:
    """An entry that should be PEP 508; without a name where it does not even begin like that."""
    text = text.strip()
    match = _NAME.match(text)
    return Requirement(
        name=normalised(match[1]) if match else "",
        text=text,
        file_path=path,
        line_number=line,
        group=group,
        extras=tuple(normalised(each.strip()) for each in (match[2] or "").split(",") if each.strip()) if match else (),
        is_constraint=is_constraint,
    )


def _pip_entry(text: str, path: str, line: int, group: str, is_constraint: bool) -> Requirement:
    """An entry of a requirements file: PEP 508, an address or a path."""
    head = re.split(r"[;\[]| @ |@", text, maxsplit=1)[0].strip()
    is_path = head.startswith(".") or "/" in head or "\\" in head or _ARCHIVE.search(head) is not None
    if is_path or "${" in text or _ADDRESS.match(head):
        return _reference(text, path, line, group, is_constraint)
    return _entry(text, path, line, group, is_constraint)


def _reference(text: str, path: str, line: int, group: str, is_constraint: bool = False) -> Requirement:
    """An address or a path; what stands before `@`, `#egg=` and the names of archives tell the distribution."""
    patterns = (
        r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s?(?:\[[^\]]*\])?\s?@",
        r"[#&]egg=([A-Za-z0-9._-]+)",
        r"(?:^|[/\\])([A-Za-z0-9._]+(?:-[A-Za-z_.][A-Za-z0-9._]*)*)-\d[^/\\]*$",
    )
    head = re.split(r"[?;\s]", text, maxsplit=1)[0] if _ARCHIVE.search(text) else text
    found = (re.search(pattern, head) for pattern in patterns) if len(text) < 1000 else ()
    match = next((match for match in found if match), None)
    name = normalised(match[1]) if match else ""
    return _named(text, path, line, group, name=name, is_constraint=is_constraint)


def _named(
    text: str, path: str, line: int, group: str, *, name: str | None = None, is_constraint: bool = False
) -> Requirement:
    """An entry in another notation than PEP 508; its text is its name where no other is given."""
    return Requirement(
        name=normalised(text) if name is None else name,
        text=text,
        file_path=path,
        line_number=line,
        group=group,
        is_constraint=is_constraint,
        is_reference=True,
    )


def _inside(folder: str, path: str) -> str | None:
    """A path that is relative to a folder, relative to the root; None where it leads out of the repository."""
    if "\0" in path or "${" in path or _ADDRESS.match(path) or posixpath.isabs(path):
        return None
    joined = posixpath.normpath(posixpath.join(folder, path.replace("\\", "/").strip()))
    if joined == ".." or joined.startswith("../"):
        return None
    return "" if joined == "." else joined


# ---------------------------------------------------------------------------------------------------------
# TOML
# ---------------------------------------------------------------------------------------------------------


class _Lines:
    """Finds the lines of a TOML or INI file that values stand on: best effort, since the parsers do not tell them."""

    _BEGINNING = re.compile(r"""\s*(?:\[([^\]]+)\]|["']?([A-Za-z0-9_.-]+)["']?\s*=)""")

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._tables: dict[str, int] = {}
        self._keys: dict[str, list[int]] = {}
        self._reached: dict[str, int] = {}  # by heading: values come in the order of the lines
        self._misses = 0
        for position, line in enumerate(self._lines):
            if match := self._BEGINNING.match(line):
                if match[1]:
                    self._tables.setdefault(match[1], position)
                else:
                    self._keys.setdefault(match[2], []).append(position)

    def of(self, heading: str, *texts: str) -> int:
        """The next line from the heading on that holds one of the texts; the heading's where none does."""
        start = self._reached.get(heading, self._line_with(heading))
        if self._misses < 100:  # a bound for hostile files: each miss reads the file to its end
            for position in range(start, len(self._lines)):
                line = self._lines[position]
                if any(text in line for text in texts) and not line.lstrip().startswith("#"):
                    self._reached[heading] = position
                    return position + 1
        self._misses += 1
        return start + 1

    def _line_with(self, heading: str) -> int:
        """The line of `[heading]`, or of the key that is its last part: behind `[table]`, else wherever it is."""
        if heading in self._tables:
            return self._tables[heading]
        table, _, key = heading.rpartition(".")
        positions = self._keys.get(key, [0])
        behind = bisect_left(positions, self._tables.get(table, 0))
        return positions[behind] if behind < len(positions) else positions[0]


def _toml(text: str) -> dict[str, Any] | None:
    """What a TOML text holds; None where it is not valid."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):  # TOMLDecodeError is a ValueError; so is what a number of 5,000 digits meets
        return None


def _places(table: Mapping[str, Any], places: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, Any]]:
    """The values at several places: where each was found, the group that it belongs to, and the value."""
    for place, kind in places:
        for found_at, key, value in _values(table, place):
            yield found_at, f"{kind} {key}" if key else kind, value


def _values(table: Mapping[str, Any], place: str) -> Iterator[tuple[str, str, Any]]:
    """The values at a dotted place: where each was found, the key that `*` stood for, and the value."""
    found: list[tuple[str, str, Any]] = [("", "", table)]
    for part in place.split("."):
        found = [
            (f"{path}.{key}".lstrip("."), key if part == "*" else star, value[key])
            for path, star, value in found
            if isinstance(value, dict)
            for key in (value if part == "*" else [part] if part in value else [])
        ]
    yield from found


def _as_key(name: str) -> tuple[str, str, str]:
    return f"{name} =", f"{name}=", f'"{name}"'


def _quoted(text: str) -> tuple[str, str]:
    """How a text stands in a TOML file, as long as nothing in it is escaped."""
    return f'"{text}"', f"'{text}'"


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []

"""How people silence faults, and which of their words silence nothing.

    # orchestrator: ignore[FLW006, DEP001]                     on the line of the fault
    ignore = ["FLW006"]                                        [tool.orchestrator]: in all files
    per_file_ignores = {"flows/legacy/**" = ["FLW004"]}        [tool.orchestrator]: in the files that match

A comment speaks for its own line; one that stands alone, for the next line that holds something. In Python it speaks
for the first line of its statement as well; beside a decorator, a `def` or the end of its signature for the whole of
it, and beside a parameter for that parameter.
"""

from __future__ import annotations

import ast
import difflib
import io
import re
import tokenize
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath

import yaml

from orchestrator.gitignore import Patterns
from orchestrator.model import ValidationError
from orchestrator.project import ProjectConfig
from orchestrator.repository import Repository

UNUSED = "IGN001"
PROJECT_FILE = "pyproject.toml"
_MARK = re.compile(r"#[^\S\n]*orchestrator:[^\S\n]*ignore\b(?:[^\S\n]*\[(?P<codes>[^]\n]*)\]?)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ignore:
    """One code that a person wants silenced in one place.

    Attributes:
        code: as written; empty where a comment names none.
        file_path, line_number, columns: where it is written.
        lines: the lines of that file which a comment speaks for.
        pattern: the files which an entry of pyproject.toml speaks for, in gitignore's pattern language; None for a
            comment.
    """

    code: str
    file_path: str
    line_number: int | None = None
    columns: tuple[int, int] | None = None
    lines: frozenset[int] = frozenset()
    pattern: str | None = None

    @property
    def is_comment(self) -> bool:
        return self.pattern is None

    def speaks_for(self, fault: ValidationError) -> bool:
        if self.code != fault.code:
            return False
        if self.pattern is None:
            return fault.file_path == self.file_path and fault.line_number in self.lines
        return self.pattern == _EVERYWHERE or (fault.file_path is not None and _matches(self.pattern, fault.file_path))


_EVERYWHERE = "**"


@cache
def _patterns(pattern: str) -> Patterns:
    return Patterns([pattern])


def _matches(pattern: str, path: str) -> bool:
    return _patterns(pattern).cover(path)


# ---------------------------------------------------------------------------------------------------------
# Silencing
# ---------------------------------------------------------------------------------------------------------


def silenced(
    faults: Iterable[ValidationError], ignores: Iterable[Ignore], rules: Mapping[str, bool]
) -> tuple[list[ValidationError], frozenset[Ignore]]:
    """Take out the faults that somebody silenced.

    Args:
        faults: what the rules found.
        ignores: what people wrote.
        rules: the codes there are, and whether they may be silenced.

    Returns:
        The faults that remain, and the ignores that silenced one.
    """
    written: dict[tuple[str, str | None], list[Ignore]] = {}
    for ignore in ignores:
        written.setdefault((ignore.code, ignore.file_path if ignore.is_comment else None), []).append(ignore)
    kept: list[ValidationError] = []
    used: set[Ignore] = set()
    for fault in faults:
        near = [*written.get((fault.code, fault.file_path), ()), *written.get((fault.code, None), ())]
        heard = [each for each in near if each.speaks_for(fault)]
        if heard and rules.get(fault.code):
            used.update(heard)
        else:
            kept.append(fault)
    return kept, frozenset(used)


def unused(
    ignores: Iterable[Ignore],
    used: Collection[Ignore],
    rules: Mapping[str, bool],
    is_known: Callable[[Ignore], bool] = lambda ignore: True,
) -> Iterator[ValidationError]:
    """The ignores that silence nothing, as faults.

    Args:
        ignores: what people wrote.
        used: those that silenced a fault.
        rules: the codes there are, and whether they may be silenced.
        is_known: whether enough was checked to be sure that an ignore silences nothing.
    """
    for ignore in ignores:
        if ignore in used:
            continue
        reason = _never(ignore, rules)
        if reason is None and is_known(ignore):
            reason = f"There is no {ignore.code} {_where(ignore)}.", "Remove it."
        if reason is not None:
            yield _fault(ignore, *reason)


def _never(ignore: Ignore, rules: Mapping[str, bool]) -> tuple[str, str] | None:
    """Why an ignore can never silence anything, and what to do; None where it can."""
    if not ignore.code:
        return "The comment names no rule.", "Name what it silences: `# orchestrator: ignore[CODE]`."
    if ignore.code not in rules:
        near = difflib.get_close_matches(ignore.code.upper(), rules, n=1)
        remedy = f"Did you mean {near[0]}?" if near else "`orchestrator rules` lists what there is."
        return f"There is no rule {ignore.code!r}.", remedy
    if not rules[ignore.code]:
        return f"{ignore.code} cannot be silenced.", f"Remove it; `orchestrator rules {ignore.code}` says what to do."
    return None


def _where(ignore: Ignore) -> str:
    if ignore.is_comment:
        return "on this line"
    return "in this repository" if ignore.pattern == _EVERYWHERE else f"in {ignore.pattern}"


def _fault(ignore: Ignore, reason: str, remedy: str) -> ValidationError:
    start, end = ignore.columns or (None, None)
    return ValidationError(
        code=UNUSED,
        message=f"This ignore silences nothing. {reason}",
        file_path=ignore.file_path,
        line_number=ignore.line_number,
        remediation=remedy,
        severity="warning",
        column_number=start,
        end_column_number=end,
    )


# ---------------------------------------------------------------------------------------------------------
# Entries in pyproject.toml
# ---------------------------------------------------------------------------------------------------------


def project_ignores(project: ProjectConfig, repository: Repository) -> tuple[Ignore, ...]:
    """What [tool.orchestrator] silences.

    Args:
        project: what it says.
        repository: where pyproject.toml lies; its text tells the lines.
    """
    text = repository.text(PROJECT_FILE) or ""
    written = [("ignore", _EVERYWHERE, code) for code in project.ignore]
    written += [(pattern, pattern, code) for pattern, codes in project.per_file_ignores.items() for code in codes]
    return tuple(_entry(text, key, pattern, code) for key, pattern, code in dict.fromkeys(written))


def _entry(text: str, key: str, pattern: str, code: str) -> Ignore:
    """An entry with its place: the first such code behind its key, in our part of the file."""
    table = re.search(r"(?m)^[^\S\n]*\[tool\.orchestrator\b", text)
    start = table.start() if table else 0
    head = re.compile(rf"(?m)^[^\S\n]*{key}[^\S\n]*=" if key == "ignore" else rf"[\"']{re.escape(key)}[\"'][^\S\n]*=")
    found = head.search(text, start)
    value = re.compile(rf"[\"']{re.escape(code)}[\"']").search(text, found.end() if found else start)
    if value is None:
        return Ignore(code=_as_code(code), file_path=PROJECT_FILE, pattern=pattern)
    line, column = next(_positions(text, [value.start() + 1]))
    return Ignore(
        code=_as_code(code),
        file_path=PROJECT_FILE,
        line_number=line,
        columns=(column, column + len(code)),
        pattern=pattern,
    )


def _as_code(written: str) -> str:
    """What has the form of a code in capitals, as codes are: `dep001` is DEP001."""
    return written.upper() if re.fullmatch(r"[A-Za-z]{3}\d{3}", written) else written


def _positions(text: str, offsets: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Line and column of ascending offsets, both 1-based."""
    line, last = 1, 0
    for offset in offsets:
        line, last = line + text.count("\n", last, offset), offset
        yield line, offset - text.rfind("\n", 0, offset)


# ---------------------------------------------------------------------------------------------------------
# Comments
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Comment:
    """A comment in a file: line and column, 1-based, and its text from `#` on."""

    line: int
    column: int
    text: str


def comment_ignores(paths: Iterable[str], repository: Repository) -> Iterator[Ignore]:
    """What comments in some files silence.

    Args:
        paths: the files.
        repository: where they lie.
    """
    for path in paths:
        text = source_text(repository, path)
        if text is not None and _MARK.search(text):
            yield from _ignores_in(path, text)


def source_text(repository: Repository, path: str) -> str | None:
    """The text of a file, Python in the encoding that it names for itself (PEP 263); None where there is none."""
    text = repository.text(path)
    if text is not None or not path.endswith(".py"):
        return text
    try:
        with tokenize.open(repository.root / path) as file:
            return file.read()
    except (OSError, SyntaxError, ValueError, LookupError):
        return None


def _ignores_in(path: str, text: str) -> Iterator[Ignore]:
    is_python = path.endswith(".py")
    lines = text.split("\n")
    around = _statements(text) if is_python else {}
    for comment in _comments(path, text):
        target = _target(comment, lines)
        for mark in _MARK.finditer(comment.text):
            for code, start, end in _codes(mark):
                yield Ignore(
                    code=code,
                    file_path=path,
                    line_number=comment.line,
                    columns=(comment.column + start, comment.column + end),
                    lines=frozenset({comment.line, target, *around.get(target, ())}),
                )


def _codes(mark: re.Match[str]) -> Iterator[tuple[str, int, int]]:
    """Each code of a comment with its place; one without a code for the whole comment where it names none."""
    named = list(re.finditer(r"[^,\s]+", mark["codes"] or ""))
    offset = mark.start("codes")
    for code in named:
        yield _as_code(code[0]), offset + code.start(), offset + code.end()
    if not named:
        yield "", mark.start(), mark.end()


def _target(comment: _Comment, lines: Sequence[str]) -> int:
    """The line that a comment is about: its own, or for one that stands alone the next that holds something."""
    if lines[comment.line - 1][: comment.column - 1].strip():
        return comment.line
    below = enumerate(lines[comment.line :], comment.line + 1)
    return next((number for number, line in below if line.strip() and not line.lstrip().startswith("#")), comment.line)


def _comments(path: str, text: str) -> Iterator[_Comment]:
    """The real comments of a file; a `#` in a string is none."""
    name = PurePosixPath(path)
    if name.suffix == ".py":
        return _python_comments(text)
    if name.suffix in (".yaml", ".yml"):
        return _yaml_comments(text)
    if name.suffix == ".toml":
        return _toml_comments(text)
    # requirements files take comments behind a value (pip); Dockerfiles and env files on lines of their own only
    behind_values = name.suffix in (".txt", ".in")
    return _found(text, r"(?m)(?:^|(?<=\s))#[^\n]*" if behind_values else r"(?m)^[^\S\n]*#[^\n]*")


def _found(text: str, pattern: str) -> Iterator[_Comment]:
    """What a pattern matches, from its `#` on."""
    pieces = {match.start() + match[0].index("#"): match[0].lstrip() for match in re.finditer(pattern, text)}
    for (line, column), piece in zip(_positions(text, pieces), pieces.values(), strict=True):
        yield _Comment(line, column, piece)


def _python_comments(text: str) -> Iterator[_Comment]:
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                yield _Comment(token.start[0], token.start[1] + 1, token.string)
    except (tokenize.TokenError, SyntaxError, ValueError, RecursionError):
        return  # not Python from here on, which is a fault of its own


def _yaml_comments(text: str) -> Iterator[_Comment]:
    without_scalars = list(text)
    try:
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            if isinstance(token, yaml.ScalarToken) and not token.plain:
                start, end = _body(token, text), token.end_mark.index
                without_scalars[start:end] = re.sub(r"[^\n]", "_", text[start:end])
    except (yaml.YAMLError, ValueError):
        return iter(())  # no YAML, which is a fault of its own
    return _found("".join(without_scalars), r"(?m)(?:^|(?<=\s))#[^\n]*")


def _body(token: yaml.ScalarToken, text: str) -> int:
    """Where the content of a scalar starts: for a block, below the line of its `|`, which may have a comment."""
    start = int(token.start_mark.index)
    return text.find("\n", start) if token.style in ("|", ">") else start


_TOML_PIECE = re.compile(
    r'"""(?:\\.|[^\\])*?"""' + r"|'''.*?'''" + r'|"(?:\\.|[^"\\\n])*"' + r"|'[^'\n]*'" + r"|#[^\n]*", re.DOTALL
)


def _toml_comments(text: str) -> Iterator[_Comment]:
    """`#` outside of strings (toml.io, "Comment")."""
    pieces = [piece for piece in _TOML_PIECE.finditer(text) if piece[0].startswith("#")]
    for (line, column), piece in zip(_positions(text, (piece.start() for piece in pieces)), pieces, strict=True):
        yield _Comment(line, column, piece[0])


# ---------------------------------------------------------------------------------------------------------
# Statements of Python
# ---------------------------------------------------------------------------------------------------------


def _statements(text: str) -> dict[int, Collection[int]]:
    """For each line, the other lines of its statement that a comment beside it speaks for."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found: dict[int, Collection[int]] = {}
    waiting: list[ast.AST] = [*tree.body]
    for node in waiting:  # what lies inside comes later, and counts
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting += getattr(node, block, ())
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.update(_signature(node))
        elif isinstance(node, ast.stmt):
            is_simple = not hasattr(node, "body") and not hasattr(node, "cases")
            last = node.end_lineno if is_simple else None
            found.update(dict.fromkeys(range(node.lineno, (last or node.lineno) + 1), (node.lineno,)))
    return found


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[int, Collection[int]]:
    """A function from its first decorator to where its body starts."""
    header = range(_start(node), max(node.lineno + 1, _start(node.body[0])))
    inside = [(each.lineno, each.end_lineno) for each in ast.walk(node.args) if isinstance(each, ast.expr | ast.arg)]
    parameters = {line for first, last in inside for line in range(first, (last or first) + 1)} - {node.lineno}
    return {line: (node.lineno,) if line in parameters else header for line in header}


def _start(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])

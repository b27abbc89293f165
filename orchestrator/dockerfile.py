r"""A Dockerfile, read without building it.

Follows https://docs.docker.com/reference/dockerfile/: parser directives, continuation lines, comments, heredocs, the
exec form, and the values of ARG and ENV as far as the file tells them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

INSTRUCTIONS = frozenset(
    {
        *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER"),
        *("ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    }
)
_WITH_HEREDOC = frozenset({"ADD", "COPY", "RUN"})
_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*$")
_WORD = re.compile(r"""(?:"(?:\\.|[^"\\])*"|'[^']*'|\\.|\S)+""", re.DOTALL)
_HEREDOC = re.compile(r"""\d*<<(-?)(["']?)([A-Za-z_][\w.-]*)\2""")
_FLAG = re.compile(r"--([a-z][a-z-]*)(?:=(\S*))?(?:\s+|$)")
_PAIR = re.compile(r"""([^\s=]+)=((?:"(?:\\.|[^"\\])*"|'[^']*'|\\.|[^\s"'\\])*)""", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?:(:?[-+])([^{}$]*))?\})")
_REMOTE = re.compile(r"(?i)^(?:https?|ftp|git|ssh)://|^git@|^github\.com/")
_MAY_BE_NAMED = re.compile(r"[A-Za-z]{1,14}")  # what is no word may be part of a secret
_OFFICIAL_SYNTAX = re.compile(r"^(?:docker\.io/)?docker/dockerfile(?:-upstream)?(?:[:@]|$)")


@dataclass(frozen=True, slots=True)
class Value:
    """A text after substitution: None where it is not known, and whether a build argument has a say in it."""

    text: str | None
    from_argument: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Instruction:
    """One instruction: continuation lines joined, comments between them left out."""

    name: str  # upper case
    written: str  # the name as it stands there
    line_number: int
    end_line_number: int  # of its last line, heredocs included
    arguments: str  # behind the flags
    flags: tuple[tuple[str, str], ...] = ()
    heredocs: tuple[str, ...] = ()  # their texts

    def flag(self, name: str) -> str | None:
        """The value of `--name=value`, None where it is not given."""
        return next((value for key, value in self.flags if key == name), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One build stage: from a FROM to the next."""

    line_number: int
    base_written: str
    base: Value  # with the defaults of ARGs filled in
    name: str = ""  # lower case, as docker compares it
    platform: str | None = None
    parent: int | None = None  # the index of the earlier stage that it starts from


@dataclass(frozen=True, slots=True)
class Source:
    """What a COPY or ADD takes."""

    written: str
    path: Value

    @property
    def is_remote(self) -> bool:
        return bool(_REMOTE.match(self.written))

    @property
    def has_wildcards(self) -> bool:
        return bool(re.search(r"[*?\[]", self.path.text or ""))


@dataclass(frozen=True, kw_only=True, slots=True)
class Copy:
    """A COPY or ADD; texts that stand in heredocs are none of its sources."""

    instruction: Instruction
    sources: tuple[Source, ...]
    destination: str
    stage: int  # the index of the stage that it stands in

    @property
    def is_from_context(self) -> bool:
        """Does it copy from the build context, and not from a stage, an image or a named context?"""
        return self.instruction.flag("from") is None


@dataclass(frozen=True, slots=True)
class DockerfileFault:
    """What docker would refuse; `word` is the text on the line that is at fault."""

    line_number: int
    message: str
    word: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dockerfile:
    """All of a Dockerfile that reading tells."""

    instructions: tuple[Instruction, ...] = ()
    stages: tuple[Stage, ...] = ()
    copies: tuple[Copy, ...] = ()
    faults: tuple[DockerfileFault, ...] = ()
    directives: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_foreign_syntax(self) -> bool:
        """Does another frontend than docker's read it? What the file says is not known then."""
        syntax = self.directives.get("syntax")
        return syntax is not None and not _OFFICIAL_SYNTAX.match(syntax)


def read_dockerfile(text: str, arguments: Mapping[str, str] | None = None) -> Dockerfile:
    """Read the text of a Dockerfile.

    Args:
        text: its text.
        arguments: build arguments that are given (`--build-arg`); others have the default that the file gives them.

    Returns:
        Its instructions, stages, copies and faults. Never raises: what cannot be understood is a fault. Where another
        frontend than docker's is named (`# syntax=`), there are no faults, as the language is not known.
    """
    lines = [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]
    directives = _directives(lines)
    escape = "`" if directives.get("escape") == "`" else "\\"
    faults: list[DockerfileFault] = []
    instructions = tuple(_instructions(lines, escape, faults))
    evaluation = _Evaluation(escape, arguments or {}, faults)
    for instruction in instructions:
        evaluation.take(instruction)
    if not evaluation.stages:
        faults.append(DockerfileFault(1, "It has no FROM, so it builds nothing."))
    dockerfile = Dockerfile(
        instructions=instructions,
        stages=tuple(evaluation.stages),
        copies=tuple(evaluation.copies),
        faults=tuple(sorted(faults, key=lambda fault: fault.line_number)),
        directives=directives,
    )
    return replace(dockerfile, faults=()) if dockerfile.has_foreign_syntax else dockerfile


def _directives(lines: list[str]) -> dict[str, str]:
    """`# escape=`, `# syntax=`, `# check=`: only in the first lines, before anything else."""
    found: dict[str, str] = {}
    for line in lines:
        match = _DIRECTIVE.match(line)
        if match is None or match[1].lower() not in ("escape", "syntax", "check") or match[1].lower() in found:
            break
        found[match[1].lower()] = match[2]
    return found


def _instructions(lines: list[str], escape: str, faults: list[DockerfileFault]) -> Iterator[Instruction]:
    position = 0
    while position < len(lines):
        if _is_blank_or_comment(lines[position]):
            position += 1
            continue
        start = position
        joined, position = _joined(lines, position, escape)
        name, rest = (*joined.split(maxsplit=1), "", "")[:2]
        if not name:
            continue
        flags, rest = _flags(rest.strip())
        heredocs: list[str] = []
        for terminator, strips_tabs in _announced(name.upper(), rest):
            body, position = _heredoc(lines, position, terminator, strips_tabs=strips_tabs)
            if body is None:
                message = "A heredoc has no end: no line holds only the word behind `<<`."
                faults.append(DockerfileFault(start + 1, message, terminator))
            heredocs.append(body or "")
        yield Instruction(
            name=name.upper(),
            written=name,
            line_number=start + 1,
            end_line_number=position,
            arguments=rest,
            flags=flags,
            heredocs=tuple(heredocs),
        )


def _is_blank_or_comment(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _joined(lines: list[str], position: int, escape: str) -> tuple[str, int]:
    """A line with those that continue it, and the position behind them."""
    parts: list[str] = []
    while position < len(lines):
        line = lines[position]
        position += 1
        if parts and _is_blank_or_comment(line):
            continue
        stripped = line.rstrip(" \t")
        if not stripped.endswith(escape) or stripped.endswith(escape * 2):
            return "".join([*parts, line]), position
        parts.append(stripped[:-1])
    return "".join(parts), position


def _flags(rest: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """`--from=builder --link …` → the flags, and what comes behind them."""
    found: list[tuple[str, str]] = []
    while match := _FLAG.match(rest):
        found.append((match[1], match[2] or ""))
        rest = rest[match.end() :]
    return tuple(found), rest


def _announced(name: str, rest: str) -> list[tuple[str, bool]]:
    """The ends of the heredocs that an instruction opens, and whether leading tabs are stripped from them."""
    name = rest.partition(" ")[0].upper() if name == "ONBUILD" else name
    found = (_HEREDOC.fullmatch(word) for word in (_WORD.findall(rest) if name in _WITH_HEREDOC else ()))
    return [(match[3], bool(match[1])) for match in found if match]


def _heredoc(lines: list[str], position: int, terminator: str, *, strips_tabs: bool) -> tuple[str | None, int]:
    """The text of a heredoc, None where it has no end, and the position behind it."""
    body: list[str] = []
    for number in range(position, len(lines)):
        line = lines[number].lstrip("\t") if strips_tabs else lines[number]
        if line == terminator:
            return "".join(f"{each}\n" for each in body), number + 1
        body.append(line)
    return None, len(lines)


class _Evaluation:
    """Takes the instructions in their order: stages, the values of variables, and what is copied.

    `ENV` wins over `ARG`. An `ARG` before the first FROM holds for FROM lines, and in a stage that repeats it.
    """

    def __init__(self, escape: str, given: Mapping[str, str], faults: list[DockerfileFault]) -> None:
        self.stages: list[Stage] = []
        self.copies: list[Copy] = []
        self._faults = faults
        self._escape = escape
        self._given = given
        self._before_from: dict[str, Value] = {}
        self._scopes: list[tuple[dict[str, Value], dict[str, Value]]] = []  # of each stage: arguments, environment

    def take(self, instruction: Instruction) -> None:
        name = instruction.name
        if name not in INSTRUCTIONS:
            said = f"There is no instruction {name}." if _MAY_BE_NAMED.fullmatch(name) else "This is no instruction."
            self._fault(instruction, said, instruction.written)
        elif name == "FROM":
            self._from(instruction)
        elif name == "ARG":
            self._arg(instruction)
        elif not self.stages:
            self._fault(instruction, f"{name} stands before the first FROM; only ARG may.", instruction.written)
        elif name == "ENV":
            self._env(instruction)
        elif name in ("COPY", "ADD"):
            self._copy(instruction)

    def _fault(self, instruction: Instruction, message: str, word: str) -> None:
        self._faults.append(DockerfileFault(instruction.line_number, message, word))

    def _from(self, instruction: Instruction) -> None:
        words = instruction.arguments.split()
        if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
            self._fault(instruction, "FROM takes one image: `FROM image` or `FROM image AS name`.", instruction.written)
        written = words[0] if words else ""
        base = self._filled(written, self._before_from)
        names = {stage.name: index for index, stage in enumerate(self.stages) if stage.name}
        parent = names.get((base.text or "").lower())
        arguments, environment = self._scopes[parent] if parent is not None else ({}, {})
        self._scopes.append((dict(arguments), dict(environment)))
        self.stages.append(
            Stage(
                line_number=instruction.line_number,
                base_written=written,
                base=base,
                name=words[2].lower() if len(words) >= 3 else "",
                platform=instruction.flag("platform"),
                parent=parent,
            )
        )

    def _arg(self, instruction: Instruction) -> None:
        scope = self._scopes[-1][0] if self._scopes else self._before_from
        for word in _WORD.findall(instruction.arguments):
            name, equals, default = word.partition("=")
            if name in self._given:
                scope[name] = Value(self._given[name], from_argument=True)
            elif equals:
                scope[name] = Value(self._filled(default, self._visible()).text, from_argument=True)
            else:
                scope[name] = self._before_from.get(name, Value(None, from_argument=True))

    def _env(self, instruction: Instruction) -> None:
        pairs = _PAIR.findall(instruction.arguments)
        if not re.match(r"[^\s=]+=", instruction.arguments):  # the old form, ENV key value
            key, _, value = instruction.arguments.partition(" ")
            pairs = [(key, value.strip())]
        before = self._visible()  # an ENV sees what held before it
        self._scopes[-1][1].update({key: self._filled(value, before) for key, value in pairs})

    def _copy(self, instruction: Instruction) -> None:
        words = _exec_form(instruction.arguments) or instruction.arguments.split()
        if len(words) < 2:
            message = f"{instruction.name} takes at least one source and a destination."
            return self._fault(instruction, message, instruction.written)
        scope = self._visible()
        written = [word for word in words[:-1] if not _HEREDOC.fullmatch(word)]
        sources = tuple(Source(word, self._filled(word, scope)) for word in written)
        stage = len(self.stages) - 1
        self.copies.append(Copy(instruction=instruction, sources=sources, destination=words[-1], stage=stage))
        return None

    def _visible(self) -> dict[str, Value]:
        if not self._scopes:
            return self._before_from
        arguments, environment = self._scopes[-1]
        return {**arguments, **environment}

    def _filled(self, text: str, scope: Mapping[str, Value]) -> Value:
        """A word without its quotes and with its variables replaced; a variable nobody sets may be the base image's."""
        parts: list[str | None] = []
        from_argument, quote, position = False, "", 0
        while position < len(text):
            character = text[position]
            if character == self._escape and quote != "'" and position + 1 < len(text):
                parts.append(text[position + 1])
                position += 2
            elif character in "\"'" and quote in ("", character):
                quote = "" if quote else character
                position += 1
            elif character == "$" and quote != "'":
                match = _VARIABLE.match(text, position)
                value = _variable(match, scope) if match else Value(None if text[position + 1 :] else "$")
                from_argument |= value.from_argument
                parts.append(value.text)
                position = match.end() if match else position + 1
            else:
                parts.append(character)
                position += 1
        known = [part for part in parts if part is not None]
        return Value("".join(known) if len(known) == len(parts) else None, from_argument)


def _variable(match: re.Match[str], scope: Mapping[str, Value]) -> Value:
    """`$name`, `${name}`, `${name:-default}`, `${name:+instead}`."""
    value = scope.get(match[1] or match[2], Value(None))
    operator, word = match[3] or "", match[4] or ""
    if operator.endswith("-") and match[2] in scope and value.text is not None:
        return Value(value.text or word, value.from_argument) if operator == ":-" else value
    if operator.endswith("-") and value.from_argument:  # an ARG without a default
        return Value(word, from_argument=True)
    return Value(None, value.from_argument) if operator else value


def _exec_form(arguments: str) -> list[str] | None:
    """`["a b", "c"]`; None where it is no such list, as docker takes it for plain words then."""
    if not arguments.startswith("["):
        return None
    try:
        words = json.loads(arguments)
    except (ValueError, RecursionError):
        return None
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None

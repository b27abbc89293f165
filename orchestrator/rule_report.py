"""The table of rules → terminal text, markdown (docs/rules.md), JSON."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from orchestrator.markdown import cell, fenced, table
from orchestrator.rules import RULES, Rule

_FILE_NAME = re.compile(r"(?m)^# (?P<path>[\w.][\w./-]*)$")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}
_SNIPPETS = {"sh": r"orchestrator ", "docker": r"FROM ", "yaml": r"(- )?[\w-]+:( |$)", "text": r"[A-Z_]+="}

HEAD = """\
# Rules

What `orchestrator validate` finds. `orchestrator rules CODE` tells the same on a terminal.

An error takes out the flow, declaration or file that it is about, or forbids an apply where it makes the whole
repository ambiguous; a warning does neither. Where a rule is wrong for you, silence it: `# orchestrator: ignore[CODE]`
on the line, or above it on a line of its own (several codes: `ignore[FLW006, DEP001]`); in pyproject.toml for all
files, or for some:

```toml
[tool.orchestrator]
ignore = ["FLW006"]
per_file_ignores = { "flows/legacy/**" = ["FLW004"] }
```

Ignores that silence nothing are reported (IGN001). Some rules cannot be silenced, since nothing could go on.

<!-- Generated from the rules: make docs -->
"""


def example_files(source: str) -> dict[str, str]:
    """The files of an example.

    A line `# flows/etl.py` that holds nothing but a path starts a file, so that one example may show several.

    Args:
        source: `example` or `better` of a rule.

    Returns:
        Texts by path; one without a path, which is a part of a file, under "".
    """
    source = source.strip("\n")
    heads = [match for match in _FILE_NAME.finditer(source) if _is_path(match["path"])]
    if not heads or heads[0].start():
        return {"": source}
    ends = [*(match.start() for match in heads[1:]), len(source)]
    return {match["path"]: source[match.end() : end].strip("\n") for match, end in zip(heads, ends, strict=True)}


def _is_path(text: str) -> bool:
    return "/" in text or "." in text or text == "Dockerfile"


def language_of(path: str, source: str) -> str:
    """The language of a file or of a part of one, by the name that highlighters know."""
    name = PurePosixPath(path)
    if name.name.startswith("Dockerfile") or name.suffix == ".Dockerfile":
        return "docker"
    if path:
        return _LANGUAGES.get(name.suffix, "text")
    first = next((line for line in source.splitlines() if line and not line.startswith("#")), "")
    return next((language for language, start in _SNIPPETS.items() if re.match(start, first)), "python")


# ---------------------------------------------------------------------------------------------------------
# Terminal
# ---------------------------------------------------------------------------------------------------------


def rules_text(rules: Sequence[Rule] = RULES) -> RenderableType:
    """All rules, one line each."""
    lines = Table(box=None, pad_edge=False)
    for heading in ("CODE", "SEVERITY", "TITLE", "IGNORABLE"):
        lines.add_column(heading, no_wrap=heading != "TITLE")
    for rule in rules:
        severity = Text(rule.severity, style=_style(rule))
        lines.add_row(rule.code, severity, Text(rule.title), "yes" if rule.ignorable else "no")
    return Group(lines, Text("`orchestrator rules CODE` explains one.", style="dim"))


@dataclass(frozen=True, slots=True)
class Paragraphs:
    """Text wrapped at words, in lines that are comfortable to read."""

    text: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        for paragraph in self.text.split("\n"):
            width = min(options.max_width, LINE)
            yield Text(textwrap.fill(paragraph, width, break_long_words=False, break_on_hyphens=False))


LINE = 100  # characters


def rule_text(rule: Rule) -> RenderableType:
    """One rule: what is wrong, why it matters, what to do, and an example."""
    ignore = f"Silence it with `# orchestrator: ignore[{rule.code}]`." if rule.ignorable else "It cannot be silenced."
    parts: list[RenderableType] = [
        Text(f"{rule.code} ({rule.severity}): ", style=_style(rule)).append(rule.title, style="bold default"),
        Paragraphs(f"\n{explanation(rule)}\n\n{ignore}"),
    ]
    for title, source in (("Wrong", rule.example), ("Better", rule.better)):
        if source.strip():
            parts += [Text(f"\n{title}:\n", style="bold"), *_highlighted(source)]
    return Group(*parts, Text(f"\n{rule.anchor}", style="dim"))


def _highlighted(source: str) -> Iterator[RenderableType]:
    for path, text in example_files(source).items():
        if path:
            yield Text(f"    # {path}", style="dim")
        syntax = Syntax("", language_of(path, text), theme="ansi_dark", background_color="default")
        shown = syntax.highlight(textwrap.indent(text, "    "))  # as text: a terminal wraps what it would cut
        shown.rstrip()
        yield shown


def _style(rule: Rule) -> str:
    return "red" if rule.severity == "error" else "yellow"


def explanation(rule: Rule) -> str:
    """What a rule's docstring says, with its paragraphs as such: for a reader of any width."""
    paragraphs = re.split(r"\n\s*\n", textwrap.dedent("    " + rule.explanation))
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


# ---------------------------------------------------------------------------------------------------------
# Markdown and JSON
# ---------------------------------------------------------------------------------------------------------


def rules_markdown(rules: Sequence[Rule] = RULES) -> str:
    """The page docs/rules.md: a table, and a section for each rule under an anchor of its own."""
    rows = [
        (f"[{rule.code}](#{rule.code.lower()})", cell(rule.title), rule.severity, "" if rule.ignorable else "no")
        for rule in rules
    ]
    sections = [
        f'<a id="{rule.code.lower()}"></a>\n\n## {rule.code}: {rule.title}\n\n{rule_markdown(rule)}' for rule in rules
    ]
    return "\n\n".join([HEAD.strip(), table(("Code", "Fault", "Severity", "Ignorable"), rows), *sections]) + "\n"


def rule_markdown(rule: Rule) -> str:
    """One rule, without its heading."""
    ignore = f"Silence it with `# orchestrator: ignore[{rule.code}]`." if rule.ignorable else "It cannot be silenced."
    parts = [explanation(rule), f"{rule.severity.capitalize()}. {ignore}"]
    for title, source in (("Wrong:", rule.example), ("Better:", rule.better)):
        if source.strip():
            parts += [title, *_fences(source)]
    return "\n\n".join(parts)


def _fences(source: str) -> list[str]:
    return [
        fenced(f"# {path}\n{text}" if path else text, language_of(path, text))
        for path, text in example_files(source).items()
    ]


def rule_json(rule: Rule) -> Mapping[str, Any]:
    return {
        "code": rule.code,
        "title": rule.title,
        "severity": rule.severity,
        "ignorable": rule.ignorable,
        "explanation": explanation(rule),
        "example": rule.example.strip("\n"),
        "better": rule.better.strip("\n"),
        "documentation": rule.anchor,
    }


def rules_json(rules: Sequence[Rule] = RULES) -> Mapping[str, Any]:
    return {"rules": [rule_json(rule) for rule in rules]}

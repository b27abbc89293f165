"""What may be shown: values without the secrets that their key, a key around them or their form betrays."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.model import LONGEST_EXCERPT, DeploymentConfig
from orchestrator.secret_scan import is_secret_value, tokens_in

HIDDEN = "********"
_SECRET_KEY = re.compile(
    r"(?i)(passw|passphrase|pwd|secret|token|auth(?!or)|credential|(api|access|account|private)[_-]?key)"
)
# A password may hold any character, even those that a URL should escape: rather too much is hidden than too little.
# A normalised path may have made one slash of two.
_URL_PASSWORD = re.compile(r"((?<=[A-Za-z0-9]):/{1,2}[^:/?#@\s]*:)\S+@")
_URL_TOKEN = re.compile(r"(https?:/{1,2})[^:/?#@\s]+@")
_TOKEN_START = re.compile(
    r"(?:gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-)[\w-]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16}\w*"
    r"|(?<![A-Za-z0-9])(?:pn[ub]_|npm_|hf_)[A-Za-z0-9]{24,}"
)
"""What starts like a token is hidden to its end, whether or not it has the length that services give theirs."""
_SCHEDULE_LABEL = re.compile(r"^schedules\[.*?\]")


def masked(path: str, value: Any) -> Any:
    """A value as a plan may show it: what its key, a key around it or its form betrays as a secret is hidden."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return {key: masked(inner_path, inner) for key, inner_path, inner in _items(path, value)}
    if isinstance(value, list | tuple) and any(isinstance(inner, Mapping) for inner in value):
        return [masked(path, inner) for inner in value]  # the names of what is hidden in them may be shown
    if _SECRET_KEY.search(_SCHEDULE_LABEL.sub("", path)) and "{{" not in str(value):
        return HIDDEN
    if isinstance(value, str):
        document = _json_in(value)
        if document is not None and (hidden := masked(path, document)) != document:
            return json.dumps(hidden)
        return _without_tokens(value)
    return [masked(path, inner) for inner in value] if isinstance(value, list | tuple) else value


def _items(path: str, value: Mapping[Any, Any]) -> Iterator[tuple[Any, str, Any]]:
    """Keys and values with their paths; the value of `{name: X, value: …}`, as Kubernetes writes it, goes by X."""
    name = value.get("name") or value.get("key")
    for key, inner in value.items():
        yield key, f"{path}.{name if key == 'value' and isinstance(name, str) else key}", inner


def _json_in(text: str) -> Any:
    """The mapping or list that a text holds as JSON, None where it holds none."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _without_tokens(text: str) -> str:
    """A text without what its form betrays as a secret."""
    text = _URL_TOKEN.sub(rf"\1{HIDDEN}@", _URL_PASSWORD.sub(rf"\1{HIDDEN}@", text))
    text = _TOKEN_START.sub(HIDDEN, text)
    lines = text.split("\n")
    for number, line in enumerate(lines):
        for _, start, end in sorted(tokens_in(line), key=lambda found: found[1], reverse=True):
            if line[start:end].strip("*"):
                line = line[:start] + HIDDEN + line[end:]
        lines[number] = line
    return "\n".join(lines)


def without_secrets(text: str, config: DeploymentConfig) -> str:
    """A text about a deployment, such as the server's reason to refuse it, without the secrets that it quotes."""
    fields = ("parameters", "job_variables", "pull_steps")
    for secret in sorted({each for name in fields for each in _secrets(name, getattr(config, name))}, key=len)[::-1]:
        text = text.replace(secret, HIDDEN)
    return str(masked("", concealed(text, config.concealed)))


def concealed(value: Any, texts: Sequence[str]) -> Any:
    """A value without texts that must not be shown whatever their form: they came from a block or the environment.

    Args:
        value: a plain value; mappings and lists are entered.
        texts: what to hide, wherever it stands. What is very short is hidden only where it stands alone: it would
            cut words.
    """
    if not texts or value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return {concealed(key, texts): concealed(inner, texts) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [concealed(inner, texts) for inner in value]
    if str(value) in texts:
        return HIDDEN if str(value) else value
    return _without_texts(value, texts) if isinstance(value, str) else value


def _without_texts(text: str, secrets: Sequence[str]) -> str:
    """A text without others, as they are or as JSON writes them; the longest first: one may be part of another."""
    forms = {form for secret in secrets if len(secret) > 3 for form in (secret, json.dumps(secret)[1:-1])}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    return text


def hidden_beside(value: Any, other: Any, texts: Sequence[str]) -> Any:
    """A value without what stands where `other`, the value that takes its place, has a text that must not be shown.

    A block's text that has changed is on the server in its old form, which nobody knows any more.
    """
    if concealed(other, texts) == other or value is None:
        return value
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        return {key: hidden_beside(inner, other.get(key), texts) for key, inner in value.items()}
    if isinstance(value, list) and isinstance(other, list):
        return [inner if inner in other else HIDDEN for inner in value]
    return HIDDEN


def _secrets(path: str, value: Any) -> Iterator[str]:
    """The values in a field that a plan would hide; what is very short hides nothing and would cut words."""
    document = _json_in(value) if isinstance(value, str) else value
    if isinstance(document, Mapping):
        for _, inner_path, inner in _items(path, document):
            yield from _secrets(inner_path, inner)
    elif isinstance(document, list | tuple):
        for inner in document:
            yield from _secrets(path, inner)
    if not isinstance(value, Mapping | list | tuple) and masked(path, value) == HIDDEN and len(str(value)) > 3:
        yield str(value)


def shown_url(url: str) -> str:
    """An address without the credentials that it may hold."""
    return str(masked("", url.partition("?")[0]))


# ---------------------------------------------------------------------------------------------------------
# Messages
# ---------------------------------------------------------------------------------------------------------

_STRING = r"""(?:"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
_SAID = re.compile(rf"""{_STRING}|\{{\{{[^{{}}\n]*\}}\}}|[\[({{][^\n]*?[\])}}]|[^\s,;)\]}}`"']+""")
_EQUALS = re.compile(r"""["']?\s*(?::\s*[\w.\[\], |]{1,80}?)?(?<![!<>=])=(?!=)>?\s*""")
_COLON = re.compile(r"""(["']\s*:\s*|:\s+)""")
_BLANKS = re.compile(r"\s+")


def masked_text(text: str) -> str:
    """A message, a remedy or another text for people without the secrets that it quotes.

    What has the form of a secret is hidden, and what a secret key is given: `password=…`, `'token': …`,
    `secret: list = […]`. Prose that only speaks of one (`password: Input should be text`) stays.
    """
    text = _without_tokens(text)
    for start, end in _joined(list(_said_of_secrets(text)))[::-1]:
        if text[start:end].strip("*\"'"):
            text = text[:start] + HIDDEN + text[end:]
    return text


def _said_of_secrets(text: str) -> Iterator[tuple[int, int]]:
    for word in _WORD.finditer(text):
        if not _SECRET_KEY.search(word[0]) or _is_file(text, word):
            continue
        given = _EQUALS.match(text, word.end())
        if given is None and word[0].startswith("--"):
            given = _BLANKS.match(text, word.end())
        before = given or _COLON.match(text, word.end())
        value = _SAID.match(text, before.end()) if before else None
        if value is None or _HARMLESS.fullmatch(value[0]):
            continue
        if given or value[0][0] in "\"'[({" or _is_no_prose(text, value):
            yield value.span()


def _is_no_prose(text: str, value: re.Match[str]) -> bool:
    """Whether a word behind `password:` is the password rather than the first word of a sentence."""
    behind = text[value.end() :].partition("\n")[0]
    alone = not behind.strip(" .,;)`'\"") or behind[0] in ",}])"
    return alone or bool(len(value[0]) >= 6 and re.search(r"\d", value[0]) and re.search(r"[^\W\d]", value[0]))


def _is_file(text: str, word: re.Match[str]) -> bool:
    """Whether a word is part of a path: what follows `flows/token.py:` is a line or a function."""
    return text[: word.start()].endswith("/") or word[0].endswith((".py", ".yaml", ".yml", ".toml", ".txt", ".json"))


def masked_document(path: str, value: Any) -> Any:
    """A value as JSON has it, with the secrets that keys, forms and texts in it betray hidden."""
    return _with_masked_texts(masked(path, _as_json(value)))


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted(map(_as_json, value), key=repr)
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    return value if value is None or isinstance(value, str | int) else repr(value)


def _with_masked_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {masked_text(key): _with_masked_texts(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_masked_texts(inner) for inner in value]
    return masked_text(value) if isinstance(value, str) else value


def masked_default(name: str, default: str) -> str:
    """The source text of a parameter's default as it may be shown. Numbers may: `max_tokens` is no secret."""
    is_number = re.fullmatch(r"-?\d[\d_]{0,8}(\.\d+)?", default)
    if _SECRET_KEY.search(name) and not is_number and not _HARMLESS.fullmatch(default):
        return HIDDEN
    return masked_text(default)


def without_secrets_of(text: str, line: str, near: Sequence[str] = ()) -> str:
    """A message without what its line of source has in secret, however the message quotes it.

    Args:
        text: the message.
        line, near: as for `masked_line`.
    """
    line = line[: 2 * LONGEST_EXCERPT]
    for secret in sorted({each for span in _spans(line, near) for each in _quoted(line[slice(*span)])}, key=len)[::-1]:
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    return text


def _quoted(source: str) -> Iterator[str]:
    """What a message may quote of a secret part of a line: its strings, or all of it where it looks like a secret."""
    bare = source.strip().strip("\"',;")
    if is_secret_value("password", bare):
        yield bare
    for string in re.findall(_STRING, source):
        if len(string) > 5 and not _HARMLESS.fullmatch(string):
            yield string[1:-1]


# ---------------------------------------------------------------------------------------------------------
# Lines of source
# ---------------------------------------------------------------------------------------------------------

_WORD = re.compile(r"[\w.-]+")
_GIVES = re.compile(r"""["']?\s*[:=!]=*\s*""")
_OPENING = {"(": ")", "[": "]", "{": "}"}
_HARMLESS = re.compile(
    r"""["']?(?:\{\{[^{}]*\}\}|\$\{\w+\}|\$[A-Z_][A-Z0-9_]*|null|None|[Tt]rue|[Ff]alse|~)?["']?|[|>][-+\d]*"""
    r"""|(?:(?:str|int|float|bool|bytes|dict|list|Any|None|Secret|SecretStr)(?:\s*\|\s*)?)+\s*(?:=\s*None)?:?"""
)
_PAIR_NAME = re.compile(r"""(?i)(?<!\w)(?:name|key)["']?\s*[:=]\s*["']?([\w.-]+)""")
_OPENS_BLOCK = re.compile(r"""^[\s-]*["']?([\w.-]+)["']?\s*:\s*[|>]?[-+\d]*\s*$""")
_LONG_BASE64 = re.compile(r"""^[\s"']*([A-Za-z0-9+/=_-]{40,})["'\s,\\]*$""")


def masked_line(text: str, near: Sequence[str] = ()) -> str:
    """A line of source with every secret in it blanked out, for excerpts in reports.

    Rather too much is hidden than too little: whatever a secret key is given, whatever has the form of a secret, and
    long lines of base64, as private keys consist of them. Stars take the place of each character (at least four), so
    that columns stay what they are.

    Args:
        text: the line, in any language.
        near: the lines before and after it, where they are known: they may say what its value is
            (`name: DB_PASSWORD` above `value: …`, `password: |` above the text itself).

    Returns:
        The line to show.
    """
    spans = [(start, end) for _, start, end in tokens_in(text)]
    text = text[: 2 * LONGEST_EXCERPT]
    for start, end in _joined([*spans, *_spans(text, near)])[::-1]:
        text = text[:start] + "*" * max(4, end - start) + text[end:]
    return text[:LONGEST_EXCERPT]


def _spans(text: str, near: Sequence[str]) -> list[tuple[int, int]]:
    """Where secrets stand in a line."""
    spans = [(start, end) for _, start, end in tokens_in(text)]
    spans += [match.span(1) for match in [_LONG_BASE64.match(text)] if match]
    spans += [match.span() for match in _TOKEN_START.finditer(text)]
    spans += [(match.end(1), match.end() - 1) for match in _URL_PASSWORD.finditer(text)]
    spans += [(match.end(1), match.end() - 1) for match in _URL_TOKEN.finditer(text)]
    return [*spans, *_given_to_secrets(text, near)]


def _given_to_secrets(text: str, near: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where the values stand that keys betray."""
    pair = any(_SECRET_KEY.search(name) for line in (text, *near) for name in _PAIR_NAME.findall(line))
    if any(_SECRET_KEY.search(match[1]) for line in near if (match := _OPENS_BLOCK.match(line))) and text.strip():
        yield len(text) - len(text.lstrip()), len(text.rstrip())
    for word in _WORD.finditer(text):
        is_key = _SECRET_KEY.search(word[0]) and not _is_file(text, word)
        if not (is_key or (pair and word[0].strip("-").lower() == "value")):
            continue
        given = _GIVES.match(text, word.end()) or _by_blanks(text, word)
        if given:
            start, end = _value_at(text, given.end())
            if not _HARMLESS.fullmatch(text, start, end):
                yield start, end


def _by_blanks(text: str, word: re.Match[str]) -> re.Match[str] | None:
    """The gap in `--password value` and in a Dockerfile's `ENV PASSWORD value`."""
    is_option = word[0].startswith("--")
    is_old_env = re.fullmatch(r"(?i)\s*(?:env|arg|label)\s+", text[: word.start()])
    return re.compile(r"\s+").match(text, word.end()) if is_option or is_old_env else None


def _value_at(text: str, start: int) -> tuple[int, int]:
    """Where a value ends: with the line, or, inside of brackets, before the next item or the closing bracket."""
    closing: list[str] = []
    for character in text[:start]:
        if character in _OPENING:
            closing.append(_OPENING[character])
        elif closing and character == closing[-1]:
            closing.pop()
    if not closing:
        return start, len(text.rstrip())
    end, depth = start, 0
    while end < len(text):
        quoted = re.compile(r""""(?:\\.|[^"\\])*(?:"|$)|'[^']*(?:'|$)""").match(text, end)
        if quoted:
            end = quoted.end()
            continue
        depth += (text[end] in _OPENING) - (text[end] in _OPENING.values())
        if (text[end] == closing[-1] and depth < 0) or (depth <= 0 and re.compile(r""",(?=[\s"'])""").match(text, end)):
            break
        end += 1
    return start, end


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in their order, those that overlap made one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined

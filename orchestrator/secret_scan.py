"""Secrets in clear: where they stand in a text and of which kind they are, never what they say.

Two ways to know one: by its form (the prefixes that services give their tokens, as their documentation and public
scanners list them), or by a key such as `password` before a value that looks like a secret. The second is a guess,
so references, placeholders, digests, ids, paths and plain words count as none: who is warned in vain stops reading.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml

LONGEST_LINE = 20_000  # characters looked at; what is longer is no source that somebody wrote
LARGEST_YAML = 500_000  # characters; PyYAML takes a second for so much


@dataclass(frozen=True, order=True, slots=True)
class SecretSpan:
    """Where a secret stands. Holds no part of it.

    Attributes:
        line_number: 1-based.
        start, end: columns, 1-based, the end excluded.
        kind: what it is, in words.
        key: the name that it is given to, empty where there is none.
    """

    line_number: int
    start: int
    end: int
    kind: str
    key: str = ""


# ---------------------------------------------------------------------------------------------------------
# By form
# ---------------------------------------------------------------------------------------------------------

# kind, expression; the group `secret` is the secret, without it the whole match.
_FORMS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(expression))
    for kind, expression in (
        ("private key", r"-----BEGIN (?:[A-Z0-9]{2,10} ){0,2}PRIVATE KEY(?: BLOCK)?-----"),
        ("AWS access key id", r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
        ("GitHub token", r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})"),
        ("GitLab token", r"(?<![A-Za-z0-9])gl(?:pat|ptt|cbt|rt|dt|soat|oas|ft|imt|agent)-[\w-]{20,255}"),
        ("Slack token", r"(?<![A-Za-z0-9])xox[abeoprs]-(?:\d-)?[A-Za-z0-9-]{10,255}"),
        ("Slack webhook", r"hooks\.slack\.com/services/(?P<secret>T\w{6,20}/B\w{6,20}/\w{16,40})"),
        ("Stripe key", r"(?<![A-Za-z0-9])[sr]k_live_[A-Za-z0-9]{16,255}"),
        ("Google API key", r"(?<![\w-])AIza[\w-]{35}(?![\w-])"),
        ("Google client secret", r"(?<![\w-])GOCSPX-[\w-]{28}(?![\w-])"),
        ("JSON web token", r"(?<![\w-])eyJ[\w-]{10,4000}\.eyJ[\w-]{10,8000}\.[\w-]{10,4000}"),
        ("Prefect API key", r"(?<![A-Za-z0-9])pn[ub]_[A-Za-z0-9]{24,255}"),
        ("Anthropic key", r"(?<![A-Za-z0-9])sk-ant-[\w-]{32,255}"),
        ("OpenAI key", r"(?<![\w-])sk-(?:proj-|svcacct-|admin-)?(?!ant-)[\w-]{32,255}"),
        ("npm token", r"(?<![A-Za-z0-9])npm_[A-Za-z0-9]{36}(?![A-Za-z0-9])"),
        ("PyPI token", r"(?<![\w-])pypi-AgE[\w-]{32,4000}"),
        ("Hugging Face token", r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{34}(?![A-Za-z0-9])"),
        ("SendGrid key", r"(?<![\w.])SG\.[\w-]{16,32}\.[\w-]{16,64}"),
        ("DigitalOcean token", r"(?<![A-Za-z0-9])do[opr]_v1_[0-9a-f]{64}"),
        ("Docker token", r"(?<![A-Za-z0-9])dckr_[po]at_[\w-]{24,64}"),
        ("Vault token", r"(?<![\w.])hv[sb]\.[\w-]{24,255}"),
        ("Databricks token", r"(?<![A-Za-z0-9])dapi[0-9a-f]{32}(?![A-Za-z0-9])"),
        ("Azure key", r"(?i)(?:Account|SharedAccess)Key=(?P<secret>[A-Za-z0-9+/]{40,255}={0,2})"),
        ("Azure signature", r"(?i)[?&]sig=(?P<secret>[A-Za-z0-9%+/]{40,255})"),
        (
            "password in a URL",
            r"(?i)(?<![a-z0-9])[a-z][a-z0-9+.-]{0,30}://[^\s:/?#@'\"]{0,255}:(?P<secret>[^\s'\"/?#]{1,255})@(?!sha\d)",
        ),
        (
            "authorization header",
            r"(?i)authorization[\"']?\s{0,9}[:=,]\s{0,9}[\"']?(?:basic|bearer|token)\s{1,9}(?P<secret>[\w.~+/=-]{8,4000})",
        ),
    )
)
_AWS_SECRET_KEY = re.compile(r"(?<![A-Za-z0-9+/])(?P<secret>[A-Za-z0-9+/]{40})(?![A-Za-z0-9+/=])")


def _forms_in(text: str) -> list[tuple[str, re.Pattern[str]]]:
    """The forms that occur in a text at all: it is faster to ask once than for each line."""
    return [form for form in _FORMS if form[1].search(text)]


def tokens_in(line: str, forms: Sequence[tuple[str, re.Pattern[str]]] = _FORMS) -> Iterator[tuple[str, int, int]]:
    """The secrets that their form betrays.

    Args:
        line: one line of any text.
        forms: those to look for.

    Yields:
        Their kind, and where they begin and end (0-based, the end excluded).
    """
    line = line[:LONGEST_LINE]
    for kind, expression in forms:
        for match in expression.finditer(line):
            start, end = match.span("secret" if "secret" in expression.groupindex else 0)
            if _is_example(line[start:end], kind):
                continue
            yield kind, start, end
            if kind == "AWS access key id":
                for other in _AWS_SECRET_KEY.finditer(line):
                    if not is_placeholder(other[0]):
                        yield "AWS secret access key", *other.span("secret")


def _is_example(secret: str, kind: str) -> bool:
    """Is it a form to fill in rather than a secret?"""
    if kind == "private key":
        return False
    if kind == "password in a URL":
        return is_reference(secret) or is_placeholder(secret)
    body = secret.rpartition("_")[2] if "_" in secret[:12] else secret  # without its prefix
    return is_placeholder(secret[:100]) or len(set(body)) < 6 or _is_made_of_words(secret)


# ---------------------------------------------------------------------------------------------------------
# By key
# ---------------------------------------------------------------------------------------------------------

_PASSWORD_KEY = re.compile(r"(?:^|_)(?:password|passwd|passphrase|pass|pwd)(?:_?\d+)?$|password$")
_SECRET_KEY = re.compile(
    r"(?:^|_)(?:secrets?|tokens?|credentials?|(?:api|access|secret|private|auth|account|signing|encryption|master)_?key)"
    r"(?:_?\d+)?$|(?:secret|token|apikey)$"
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_REFERENCE = re.compile(
    r"""\{\{|\$\{|\$\(|^\$+[A-Za-z_]\w*$|^%\w+%$|^%\(|^%s$|^`|^<|^\{.*\}$|^\*+$|^ENC\["""
    r"""|^(?:env|vault|op|ssm|arn|file|ref|secrets?|aws-?sm|gcp-?sm|keyring|projects)[:/]"""
)
_PLACEHOLDER = re.compile(
    r"(?i)change[-_ ]?(?:me|it|this)|replace|example|dummy|placeholder|sample|redact|insert|x{4}|\*{3}|\.{3}|…"
    r"|(?:^|[-_ ])your|your[-_ ]|(?<![a-z])(?:xxx|todo|fixme)(?![a-z])|<[^>]*>"
    r"|^(?:my[-_]?)?(?:pass(?:word|wd|phrase)?|pwd|secret|token|(?:api[-_]?)?key|user(?:name)?|value|string|none|null|nil"
    r"|true|false|yes|no|default|empty|unset|test|testing|fake|mock|hidden|masked)$"
)
_KNOWN_FORM = re.compile(
    r"(?i)^(?:sha\d{1,3}[:-]\S+"  # digests, with and without what they belong to
    r"|[\w./:-]+@sha256:[0-9a-f]+"
    r"|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"  # UUIDs
    r"|[+-]?[\d_.,:]+(?:[smhdwkg]|ms)?"  # numbers, durations
    r"|v?\d+(?:\.\d+){1,3}(?:[-+.](?:\w+))?(?:(?:a|b|rc|dev|post)\d+)?"  # versions
    r"|\d{4}-\d\d-\d\d\S*"  # dates
    r"|data:\S*"
    r"|[a-z_]\w*=[^=].*"  # options of a command: id=token,src=…
    r"|[a-z][a-z0-9+.-]*://\S*"  # addresses, S3 paths
    r"|[~.]{0,2}(?:/[\w@.-]+)+/?"  # paths
    r"|(?:[a-z0-9-]+\.){2,}[a-z]{2,}(?::\d+)?)$"  # host names
)
_WORDS = re.compile(r"^[A-Za-z]{2,}\d{0,2}(?:[-_./:@ ](?:[A-Za-z]{2,}\d{0,2}|v?\d{1,4}))+$")


def is_secret_key(key: str) -> bool:
    """Does a key name a secret itself? `db_password` does; `password_file`, `token_url` and `max_retries` do not."""
    normal = _normal(key)
    return bool(_PASSWORD_KEY.search(normal) or _SECRET_KEY.search(normal))


def _normal(key: str) -> str:
    """`DB-Password`, `dbPassword` → `db_password`."""
    return re.sub(r"[-. ]", "_", _CAMEL.sub("_", key[-100:])).lower()


def is_reference(value: str) -> bool:
    """Does a value name the place of a secret: a block, a variable, a vault?"""
    return bool(_REFERENCE.search(value.strip()))


def is_placeholder(value: str) -> bool:
    """Is a value one that somebody is to replace?"""
    return bool(_PLACEHOLDER.search(value))


def is_secret_value(key: str, value: str) -> bool:
    """Does a value under a secret key look like the secret itself?

    Passwords are made by people: letters with digits or signs, from six characters on. Other secrets are made by
    machines: from twelve characters on, letters and digits, and of high entropy.
    """
    value = value.strip()
    if not 6 <= len(value) <= 4096 or re.search(r"\s", value):
        return False
    if is_reference(value) or is_placeholder(value) or _KNOWN_FORM.match(value) or _is_made_of_words(value):
        return False
    has_letter, has_digit = bool(re.search(r"[^\W\d_]", value)), bool(re.search(r"\d", value))
    if _PASSWORD_KEY.search(_normal(key)):
        return has_letter and (has_digit or bool(re.search(r"[^\w\s]", value)))
    return has_letter and has_digit and len(value) >= 12 and entropy(value) >= 3


def _is_made_of_words(value: str) -> bool:
    return bool(_WORDS.match(value))


def entropy(text: str) -> float:
    """Shannon's entropy of the characters of a text, in bits for each; 0 for an empty text."""
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)


_MAY_NAME_A_SECRET = re.compile(r"(?i)pass|pwd|secret|token|credential|key")
_ASSIGNMENT = re.compile(
    r"""(?<![\w.$-])-{0,2}(?P<key>[A-Za-z_][\w.-]{0,99})(?:\s?:?=\s?|["']\s?:\s?(?=["']))"""
    r"""(?:"(?P<double>(?:\\.|[^"\\])*)"|'(?P<single>[^']*)'|(?P<bare>[^\s"',;)\]}&|]+))"""
)
_OPTION = re.compile(r"""(?<!\S)--(?P<key>[a-z][\w-]{0,99})\s+["']?(?P<bare>[^\s"'-][^\s"']*)""")
_OLD_ENV = re.compile(r"""(?i)^\s*ENV\s+(?P<key>\w{1,100})\s+["']?(?P<bare>[^\s"'=]+)["']?\s*$""")


def _given_in(line: str) -> Iterator[tuple[str, int, int]]:
    """`key=value`, `"key": "value"`, `--key value` and `ENV key value` where the value looks like a secret."""
    for expression in (_ASSIGNMENT, _OPTION, _OLD_ENV):
        for match in expression.finditer(line[:LONGEST_LINE]):
            group = next(name for name in ("double", "single", "bare") if match.groupdict().get(name) is not None)
            if is_secret_key(match["key"]) and is_secret_value(match["key"], match[group]):
                yield match["key"], *match.span(group)


# ---------------------------------------------------------------------------------------------------------
# Whole texts
# ---------------------------------------------------------------------------------------------------------


def scan_text(text: str) -> tuple[SecretSpan, ...]:
    """The secrets in a text of any language, line by line.

    Args:
        text: a Dockerfile, a TOML file, a shell script, …

    Returns:
        Where they stand, in their order.
    """
    found: list[SecretSpan] = []
    forms = _forms_in(text)
    for number, line in enumerate(text.splitlines(), 1):
        found += [SecretSpan(number, start + 1, end + 1, kind) for kind, start, end in tokens_in(line, forms)]
        if _MAY_NAME_A_SECRET.search(line):
            found += [SecretSpan(number, start + 1, end + 1, _GIVEN, key) for key, start, end in _given_in(line)]
    return _once(found)


def scan_yaml(text: str) -> tuple[SecretSpan, ...]:
    """The secrets in a YAML file: those of its lines, and those that a key or a `{name: …, value: …}` pair betrays.

    Args:
        text: its text; where it is no YAML, only its lines are looked at.

    Returns:
        Where they stand, in their order.
    """
    spans = list(scan_text(text))
    try:
        # Not the loader in C, although it is eight times as fast: deep nesting ends it with a segmentation fault.
        root = yaml.compose(text, Loader=yaml.SafeLoader) if _names_secrets(text) else None
        if root is not None:
            spans += _in_node(root, "", set())
    except (yaml.YAMLError, RecursionError, ValueError):
        pass  # who reads the file for what it says reports that
    lines = text.splitlines()
    return _once([span for span in spans if span.line_number <= len(lines)])


_GIVEN = "secret"
_NAMES = re.compile(r"""(?<![\w.-])(?:(?:name|key)["']?:\s*["']?([\w.-]+)|([\w.-]+)["']?\s*:)""")


def _names_secrets(text: str) -> bool:
    """Is there a key at all that makes it worth to parse the text?"""
    if len(text) > LARGEST_YAML:
        return False
    names = {name for pair in _NAMES.findall(text) for name in pair if name}
    return any(is_secret_key(name) for name in names)


def _in_node(node: yaml.Node, key: str, seen: set[int]) -> Iterator[SecretSpan]:
    if id(node) in seen:  # an anchor, used again
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _in_node(item, key, seen)
    elif isinstance(node, yaml.MappingNode):
        named = _name_of_pair(node)
        for inner, value in node.value:
            inner_key = str(inner.value) if isinstance(inner, yaml.ScalarNode) else ""
            yield from _in_node(value, named if named and inner_key == "value" else inner_key, seen)
    elif is_secret_key(key) and is_secret_value(key, str(node.value)):
        start, end = node.start_mark, node.end_mark
        width = end.column - start.column if end.line == start.line else 1
        yield SecretSpan(start.line + 1, start.column + 1, start.column + 1 + max(width, 1), _GIVEN, key)


def _name_of_pair(node: yaml.MappingNode) -> str:
    """X of `{name: X, value: …}`, as Kubernetes writes variables; else nothing."""
    values = {
        key.value: value.value
        for key, value in node.value
        if isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)
    }
    name = values.get("name") or values.get("key") or ""
    return str(name) if "value" in values else ""


def _once(spans: Sequence[SecretSpan]) -> tuple[SecretSpan, ...]:
    """Of spans that overlap, one: that with the more telling kind."""
    kept: list[SecretSpan] = []
    for span in sorted(spans, key=lambda span: (span.line_number, span.kind == _GIVEN, span.start)):
        overlapping = (
            other.line_number == span.line_number and other.start < span.end and span.start < other.end
            for other in kept[-50:]
        )
        if not any(overlapping):
            kept.append(span)
    return tuple(sorted(kept))

"""What may be shown: values without the secrets that their key, a key around them or their form betrays."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.model import DeploymentConfig

HIDDEN = "********"
_SECRET_KEY = re.compile(
    r"(?i)(passw|passphrase|pwd|secret|token|auth(?!or)|credential|(api|access|account|private)[_-]?key)"
)
# A password may hold any character, even those that a URL should escape: rather too much is hidden than too little.
_URL_PASSWORD = re.compile(r"(://[^:/?#@\s]*:)\S+@")
_URL_TOKEN = re.compile(r"(https?://)[^:/?#@\s]+@")
_SCHEDULE_LABEL = re.compile(r"^schedules\[.*?\]")


def masked(path: str, value: Any) -> Any:
    """A value as a plan may show it: what its key, a key around it or its form betrays as a secret is hidden."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return {key: masked(f"{path}.{key}", inner) for key, inner in value.items()}
    if _SECRET_KEY.search(_SCHEDULE_LABEL.sub("", path)) and "{{" not in str(value):
        return HIDDEN
    if isinstance(value, str):
        return _URL_TOKEN.sub(rf"\1{HIDDEN}@", _URL_PASSWORD.sub(rf"\1{HIDDEN}@", value))
    return [masked(path, inner) for inner in value] if isinstance(value, list | tuple) else value


def without_secrets(text: str, config: DeploymentConfig) -> str:
    """A text about a deployment, such as the server's reason to refuse it, without the secrets that it quotes."""
    fields = ("parameters", "job_variables", "pull_steps")
    for secret in sorted({each for name in fields for each in _secrets(name, getattr(config, name))}, key=len)[::-1]:
        text = text.replace(secret, HIDDEN)
    return str(masked("", text))


def _secrets(path: str, value: Any) -> Iterator[str]:
    """The values in a field that a plan would hide; what is very short hides nothing and would cut words."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _secrets(f"{path}.{key}", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _secrets(path, inner)
    elif masked(path, value) == HIDDEN and len(str(value)) > 3:
        yield str(value)


def shown_url(url: str) -> str:
    """An address without the credentials that it may hold."""
    return str(masked("", url.partition("?")[0]))

"""Rules about configuration files: CFG, and the one about schemas, SCH.

Most of them are met while reading: the rule gives such a fault its name and explanation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase

from orchestrator.rules.deployments import declared_paths
from orchestrator.rules.places import columns_of
from orchestrator.rules.rule import Facts, Finding, Rule, reported, suggestion

POOL_TYPES = (
    "process",
    "docker",
    "kubernetes",
    "ecs",
    "azure-container-instance",
    "cloud-run",
    "cloud-run-v2",
    "vertex-ai",
    "prefect-agent",
    "prefect:managed",
    "azure-container-instance:push",
    "cloud-run:push",
    "cloud-run-v2:push",
    "coiled:push",
    "ecs:push",
    "modal:push",
)
"""The workers of Prefect and its collections, and the pools that Prefect Cloud runs by itself (`:push`, `:managed`)."""


_DAILY = "deployments:\n  - name: daily\n    entrypoint: flows/etl.py:etl\n"


def unreadable_file(facts: Facts) -> Iterator[Finding]:
    """A configuration file cannot be read: it is missing, not UTF-8, or no YAML or TOML.

    Correct it at the line that is named.
    """
    return reported(facts, "CFG001")


def unknown_key(facts: Facts) -> Iterator[Finding]:
    """A configuration file holds a key that means nothing.

    A misspelt key would otherwise be dropped in silence. Correct or remove it; the nearest known key is suggested.
    """
    return _marked(facts, "CFG002")


def wrong_value(facts: Facts) -> Iterator[Finding]:
    """A value in a configuration file has the wrong type or is out of range.

    Correct the value; the message says what it should be.
    """
    return _marked(facts, "CFG003")


def unknown_environment(facts: Facts) -> Iterator[Finding]:
    """The environment that a command names has no file, but others have.

    Correct the name given with `--env`, or write the file.
    """
    return reported(facts, "CFG004")


def unknown_placeholder(facts: Facts) -> Iterator[Finding]:
    """A template of an environment holds a `{placeholder}` that nobody fills.

    Correct the name; those that there are, are listed with the fault.
    """
    return _marked(facts, "CFG005")


def not_carried_out(facts: Facts) -> Iterator[Finding]:
    """A prefect.yaml asks for something that this version does not do.

    Nothing is dropped in silence: run `prefect deploy` for this part until then.
    """
    return _marked(facts, "CFG006")


def defaults_hold(facts: Facts) -> Iterator[Finding]:
    """The repository has no environment files.

    There is no work pool and no template, so flows that no prefect.yaml declares are listed, but not deployed. Write
    `environments/<name>.yaml`.
    """
    return reported(facts, "CFG007")


def schema_from_source(facts: Facts) -> Iterator[Finding]:
    """A flow cannot be imported here, so that the form for its parameters comes from its source only.

    Install what the flow imports beside the orchestrator, or leave it: the flow still deploys. Types that only an
    import can tell are missing from the form.
    """
    return reported(facts, "SCH001")


def unknown_kind(facts: Facts) -> Iterator[Finding]:
    """An environment has a work pool or a template of a kind that there is not.

    A deployment is of the kind `python` (it runs from source) or `docker` (it runs from an image). Correct the kind;
    what infrastructure the runs get is the pool's `type`.
    """
    return _marked(facts, "CFG008")


def unknown_pool_type(facts: Facts) -> Iterator[Finding]:
    """A work pool has a type that neither Prefect nor one of its collections knows.

    No worker of theirs serves it, so its runs would wait for ever. Correct the type. If you have workers of your own
    type, say so with `# orchestrator: ignore[CFG009]`.
    """
    for kind, pool in facts.environment.work_pools.items():
        if pool.type not in POOL_TYPES:
            path, line = facts.environment.place("work_pools", kind, "type")
            yield Finding(
                path,
                line,
                f"The work pool {pool.name!r} has the type {pool.type!r}, which Prefect does not know.",
                suggestion(pool.type, POOL_TYPES) or f"Known: {', '.join(POOL_TYPES)}.",
                span=columns_of(facts.repository, path, line, pool.type) or "type",
            )


def other_extension(facts: Facts) -> Iterator[Finding]:
    """A file looks like configuration, but its name ends in .yml.

    Only `prefect.yaml` and `environments/<name>.yaml` are read, as `prefect deploy` reads only `prefect.yaml`. Rename
    the file, or name it in `prefect_files` of pyproject.toml.
    """
    return reported(facts, "CFG010")


def selects_nothing(facts: Facts) -> Iterator[Finding]:
    """A pattern of an environment's `select` matches no deployment that a prefect.yaml declares.

    A misspelt one leaves deployments out of the environment without a word, and there they are deleted. Patterns are on
    `flow/deployment`, with the flow's name, not its function's.
    """
    paths = declared_paths(facts)
    for index, pattern in enumerate(facts.environment.select):
        if not paths or pattern == "*" or any(fnmatchcase(path, pattern) for path in paths):
            continue
        path, line = facts.environment.place("select", index)
        yield Finding(
            path,
            line,
            f"The pattern {pattern!r} matches no declared deployment.",
            suggestion(pattern, paths) or "Correct or remove it.",
            span=columns_of(facts.repository, path, line, pattern),
        )


def _marked(facts: Facts, code: str) -> Iterator[Finding]:
    """The faults of one code that reading has met, with the columns of the key that they name."""
    for finding in reported(facts, code):
        for name in _named(finding.message) if finding.span is None else ():
            span = columns_of(facts.repository, finding.file_path, finding.line_number, name)
            finding = replace(finding, span=finding.span or span)
        yield finding


def _named(message: str) -> Iterator[str]:
    """What a fault's message names: `Unknown key 'a.b'` the key b, `a.b: reason` too, a placeholder itself."""
    if found := re.search(r"\{[^{}]*\}", message):
        yield found[0]
    if found := re.match(r"([^':]+): ", message) or re.search(r"'([^']+)'", message):
        yield found[1]
        yield re.sub(r"\[[^]]*\]$", "", found[1].rpartition(".")[2])


RULES: tuple[Rule, ...] = (
    Rule(
        "CFG001",
        "File cannot be read",
        "error",
        unreadable_file,
        example="# prefect.yaml\ndeployments: [",
        better="# prefect.yaml\ndeployments: []",
        ignorable=False,
    ),
    Rule(
        "CFG002",
        "Unknown key",
        "error",
        unknown_key,
        example="# environments/base.yaml\nplicy:\n  prune: false",
        better="# environments/base.yaml\npolicy:\n  prune: false",
        ignorable=False,
    ),
    Rule(
        "CFG003",
        "Wrong value",
        "error",
        wrong_value,
        example="# environments/base.yaml\npolicy:\n  prune: sometimes",
        better="# environments/base.yaml\npolicy:\n  prune: false",
        ignorable=False,
    ),
    Rule(
        "CFG004",
        "No such environment",
        "error",
        unknown_environment,
        example="orchestrator validate --env prodution",
        better="orchestrator validate --env production",
        ignorable=False,
    ),
    Rule(
        "CFG005",
        "Unknown placeholder",
        "error",
        unknown_placeholder,
        example='# environments/base.yaml\ntemplates:\n  python:\n    name: "{flow.nme}"',
        better='# environments/base.yaml\ntemplates:\n  python:\n    name: "{flow.name}"',
        ignorable=False,
    ),
    Rule(
        "CFG006",
        "Read, but not carried out",
        "warning",
        not_carried_out,
        example=f"# prefect.yaml\n{_DAILY}    sla: [{{name: late}}]",
        better=f"# prefect.yaml\n{_DAILY}",
    ),
    Rule(
        "CFG007",
        "No environment files",
        "warning",
        defaults_hold,
        example="# a repository without environments/",
        better="# environments/development.yaml\nwork_pools:\n  python: {name: processes, type: process}",
    ),
    Rule(
        "CFG008",
        "Unknown kind of work pool or template",
        "error",
        unknown_kind,
        example="# environments/base.yaml\nwork_pools:\n  pyton: {name: processes, type: process}",
        better="# environments/base.yaml\nwork_pools:\n  python: {name: processes, type: process}",
        ignorable=False,
    ),
    Rule(
        "CFG009",
        "Unknown type of work pool",
        "warning",
        unknown_pool_type,
        example="# environments/base.yaml\nwork_pools:\n  python: {name: processes, type: proces}",
        better="# environments/base.yaml\nwork_pools:\n  python: {name: processes, type: process}",
    ),
    Rule(
        "CFG010",
        "Configuration that is not read",
        "warning",
        other_extension,
        example="# environments/staging.yml\npolicy:\n  prune: false",
        better="# environments/staging.yaml\npolicy:\n  prune: false",
    ),
    Rule(
        "CFG012",
        "Pattern that selects nothing",
        "warning",
        selects_nothing,
        example="# environments/staging.yaml\nselect: ['*/stagin-*']",
        better="# environments/staging.yaml\nselect: ['*/staging-*']",
    ),
    Rule(
        "SCH001",
        "Flow cannot be imported for its schema",
        "warning",
        schema_from_source,
        example="# a package that is not installed beside the orchestrator\nimport pandas\n\n@flow\ndef etl(): ...",
        better="# pip install pandas\nimport pandas\n\n@flow\ndef etl(): ...",
    ),
)

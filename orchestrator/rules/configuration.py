"""Rules about configuration files: CFG, and the one about schemas, SCH.

Most of them are met while reading: the rule gives such a fault its name and explanation.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.rules.rule import Facts, Finding, Rule, reported


def unreadable_file(facts: Facts) -> Iterator[Finding]:
    """A configuration file cannot be read: it is missing, not UTF-8, or no YAML or TOML.

    Correct it at the line that is named.
    """
    return reported(facts, "CFG001")


def unknown_key(facts: Facts) -> Iterator[Finding]:
    """A configuration file holds a key that means nothing.

    A misspelt key would otherwise be dropped in silence. Correct or remove it; the nearest known key is suggested.
    """
    return reported(facts, "CFG002")


def wrong_value(facts: Facts) -> Iterator[Finding]:
    """A value in a configuration file has the wrong type or is out of range.

    Correct the value; the message says what it should be.
    """
    return reported(facts, "CFG003")


def unknown_environment(facts: Facts) -> Iterator[Finding]:
    """The environment that a command names has no file, but others have.

    Correct the name given with `--env`, or write the file.
    """
    return reported(facts, "CFG004")


def unknown_placeholder(facts: Facts) -> Iterator[Finding]:
    """A template of an environment holds a `{placeholder}` that nobody fills.

    Correct the name; those that there are, are listed with the fault.
    """
    return reported(facts, "CFG005")


def not_carried_out(facts: Facts) -> Iterator[Finding]:
    """A prefect.yaml asks for something that this version does not do.

    Nothing is dropped in silence: run `prefect deploy` for this part until then.
    """
    return reported(facts, "CFG006")


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


RULES: tuple[Rule, ...] = (
    Rule("CFG001", "File cannot be read", "error", unreadable_file, ignorable=False),
    Rule("CFG002", "Unknown key", "error", unknown_key, ignorable=False),
    Rule("CFG003", "Wrong value", "error", wrong_value, ignorable=False),
    Rule("CFG004", "No such environment", "error", unknown_environment, ignorable=False),
    Rule("CFG005", "Unknown placeholder", "error", unknown_placeholder, ignorable=False),
    Rule("CFG006", "Read, but not carried out", "warning", not_carried_out),
    Rule("CFG007", "No environment files", "warning", defaults_hold),
    Rule("SCH001", "Flow cannot be imported for its schema", "warning", schema_from_source),
)

"""The child process that imports flows to learn their parameter schemas.

Run as `python -m orchestrator.schema_child` in the folder where the flows would run. Reads a JSON list of entrypoints
from standard input; writes one JSON object to standard output: entrypoint → {"schema": …} or {"error": …}. What the
flows themselves print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema, parameter_schema_from_entrypoint


def schema_of(entrypoint: str) -> dict[str, Any]:
    """The schema that `prefect deploy` would store, or the reason why there is none."""
    try:
        return {
            "schema": parameter_schema(
                load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
            ).model_dump_for_openapi()
        }
    except BaseException as error:  # a flow's module may raise anything, SystemExit included
        reason = f"{type(error.__cause__ or error).__name__}: {error.__cause__ or error}"
    try:  # Prefect's reading that leaves out what fails
        return {"schema": parameter_schema_from_entrypoint(entrypoint).model_dump_for_openapi(), "warning": reason}
    except BaseException:  # as above
        return {"error": reason}


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    json.dump({entrypoint: schema_of(entrypoint) for entrypoint in json.load(sys.stdin)}, answers)
    answers.close()


if __name__ == "__main__":
    main()

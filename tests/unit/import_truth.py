"""What importing says: the flows that each file makes, printed as JSON. Run by test_against_imports, not imported.

Reads `[[root, [file, …]], …]` from standard input. Each file is imported in a process of its own, the way a run does
it: Prefect's loader in the root of the repository. Projects with a `src` folder are there as if they were installed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from prefect import Flow
from prefect.utilities.importtools import load_script_as_module


def flows_of_file(root: str, file: str) -> dict[str, Any]:
    """The flows of one file by their entrypoint, or why it cannot be imported."""
    os.chdir(root)
    sys.path += [str(folder) for pattern in ("src", "packages/*/src") for folder in sorted(Path(root).glob(pattern))]
    sys.dont_write_bytecode = True
    try:
        module = load_script_as_module(file)
    except BaseException as error:
        return {"error": repr(error.__cause__ or error)}
    here = list(reachable(module, module.__name__))  # kept: a bound method's flow is made anew, where another one was
    others = [flow for other in modules_of(Path(root), module) for _, flow in reachable(other, other.__name__)]
    elsewhere = {id(flow) for flow in others}
    seen: dict[int, str] = {}
    for name, flow in here:
        if id(flow) not in elsewhere:
            seen.setdefault(id(flow), name)
    return {"flows": {f"{file}:{name}": about(flow_at(module, name)) for name in seen.values()}}


def reachable(holder: Any, module: str, prefix: str = "") -> Iterator[tuple[str, Flow[..., Any]]]:
    """Flows that are attributes of a module, or of a class that it defines."""
    for name in list(vars(holder)):
        value = getattr(holder, name, None)
        if isinstance(value, Flow):
            yield prefix + name, value
        elif isinstance(value, type) and value.__module__ == module and value is not holder:
            yield from reachable(value, module, f"{prefix}{name}.")


def modules_of(root: Path, but: ModuleType) -> Iterator[ModuleType]:
    """The other modules of the repository that were imported on the way: what they bind belongs to them."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if module is not but and file and Path(file).is_relative_to(root) and "site-packages" not in file:
            yield module


def flow_at(module: ModuleType, name: str) -> Flow[..., Any]:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    assert isinstance(found, Flow)
    return found


def about(flow: Flow[..., Any]) -> dict[str, Any]:
    return {"name": flow.name, "is_async": flow.isasync, "parameters": list(flow.parameters.properties)}


def main() -> None:
    questions = [(root, file) for root, files in json.load(sys.stdin) for file in files]
    # Forked, so that Prefect is imported once; each file in a process that nothing was imported into before.
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        answers = pool.starmap(flows_of_file, questions, chunksize=1)
    json.dump([[*question, answer] for question, answer in zip(questions, answers, strict=True)], sys.__stdout__)


if __name__ == "__main__":
    main()

"""Which flow a declaration means, and which files its entrypoint may lie in."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from orchestrator.model import Declaration, FlowMetadata


def resolve(declaration: Declaration, flows: Iterable[FlowMetadata]) -> FlowMetadata | None:
    """The flow that a declaration points to, by its entrypoint or else by the flow's name.

    Args:
        declaration: of a prefect.yaml.
        flows: those that were discovered.

    Returns:
        The flow, or None.
    """
    if declaration.entrypoint is None:
        return next((flow for flow in flows if flow.name == declaration.flow_name), None)
    wanted = normal_entrypoint(declaration.entrypoint)
    return next((flow for flow in flows if wanted in _entrypoints(flow, declaration.folder)), None)


def declared_files(declarations: Iterable[Declaration]) -> tuple[str, ...]:
    """The files that entrypoints name, for `discover(also=…)`: they may lie outside the configured folders.

    Args:
        declarations: of prefect.yaml files.

    Returns:
        Paths relative to the root, sorted; they need not exist.
    """
    return tuple(sorted({path for declaration in declarations for path in possible_files(declaration)}))


def normal_entrypoint(entrypoint: str) -> str:
    """`./flows/a.py:main` and `flows/a.py:main` are one; `pkg.module:main` is `pkg.module.main`."""
    path, colon, function = entrypoint.rpartition(":")
    if path.endswith(".py"):
        return f"{posixpath.normpath(path)}:{function}"
    return f"{path}.{function}" if colon else entrypoint


def _entrypoints(flow: FlowMetadata, folder: str) -> Iterator[str]:
    """All ways to name a flow in a prefect.yaml in `folder`: modules are looked for from there and from the root."""
    yield flow.entrypoint
    module = f"{flow.module_path}.{flow.function_name}"
    yield module
    if folder != ".":
        yield module.removeprefix(folder.replace("/", ".") + ".")


def possible_files(declaration: Declaration) -> Iterator[str]:
    if declaration.entrypoint is None:
        return
    target = normal_entrypoint(declaration.entrypoint)
    path, _, _ = target.rpartition(":")
    if path:
        yield path
        return
    module = target.rpartition(".")[0].replace(".", "/")
    for base in dict.fromkeys((declaration.folder, ".", "src")):
        for suffix in (".py", "/__init__.py"):
            yield posixpath.normpath(posixpath.join(base, module + suffix))

"""Which flow a declaration means, and which files its entrypoint may lie in."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from orchestrator.model import Declaration, FlowMetadata


class Resolver:
    """Finds the flow that a declaration points to, among many at once.

    Args:
        flows: those that were discovered; where two go by one name, the first counts.
    """

    def __init__(self, flows: Iterable[FlowMetadata]) -> None:
        self._by_flow_name: dict[str, FlowMetadata] = {}
        self._by_entrypoint: dict[str, FlowMetadata] = {}
        for flow in flows:
            self._by_flow_name.setdefault(flow.name, flow)
            for entrypoint in (flow.entrypoint, f"{flow.module_path}.{flow.function_name}"):
                self._by_entrypoint.setdefault(entrypoint, flow)

    def __call__(self, declaration: Declaration) -> FlowMetadata | None:
        """The flow that a declaration points to, by its entrypoint or else by the flow's name.

        A module is looked for from the root and from the folder of the prefect.yaml.
        """
        if declaration.entrypoint is None:
            return self._by_flow_name.get(declaration.flow_name or "")
        wanted = normal_entrypoint(declaration.entrypoint)
        below = f"{declaration.folder.replace('/', '.')}.{wanted}"
        return self._by_entrypoint.get(wanted) or self._by_entrypoint.get(below)


def resolve(declaration: Declaration, flows: Iterable[FlowMetadata]) -> FlowMetadata | None:
    """The flow that one declaration points to; for many of them, keep a `Resolver`.

    Args:
        declaration: of a prefect.yaml.
        flows: those that were discovered.

    Returns:
        The flow, or None.
    """
    return Resolver(flows)(declaration)


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


def possible_files(declaration: Declaration) -> Iterator[str]:
    """The files that a declaration's entrypoint may lie in, relative to the root; they need not exist."""
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

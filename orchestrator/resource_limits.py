"""Resource limits of an environment → the job variables of a pool's type.

Each type has names and units of its own; they are those of the job templates that Prefect's integrations bring. A type
that is not listed (a process has no limits) gets none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

_UNITS: Mapping[str, int] = {
    "": 1,
    **{unit: 1000**power for power, unit in enumerate(("k", "M", "G", "T"), start=1)},
    **{unit: 1024**power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti"), start=1)},
}


def limit_variables(
    pool_type: str | None, *, memory: str | None, cpu: str | None, image_pull_policy: str | None = None
) -> dict[str, Any]:
    """What a job needs to be told so that it stays within limits.

    Args:
        pool_type: of the work pool; the `:push` ones take what their workers take.
        memory: a size as Kubernetes writes it, `512Mi` or `2G`.
        cpu: cores or thousandths of one, `0.5` or `500m`.
        image_pull_policy: for the types whose worker pulls an image.

    Returns:
        Job variables; none for what is not limited.
    """
    type_ = (pool_type or "").removesuffix(":push")
    variables: dict[str, Any] = {}
    if memory and type_ in _MEMORY:
        variables |= _MEMORY[type_](memory)
    if cpu and type_ in _CPU:
        variables |= _CPU[type_](cpu)
    if image_pull_policy and type_ in ("docker", "kubernetes"):
        variables["image_pull_policy"] = image_pull_policy
    return variables


def _bytes(size: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", size).groups()  # type: ignore[union-attr]  # config has checked it
    return float(number) * _UNITS["k" if unit == "K" else unit]


def _cores(cpu: str) -> float:
    return float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu)


def _mebibytes(size: str) -> int:
    return math.ceil(_bytes(size) / _UNITS["Mi"])


def _for_cloud_run(size: str) -> str:
    return size if re.fullmatch(r"\d+(G|Gi|M|Mi)", size) else f"{_mebibytes(size)}Mi"


_MEMORY: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "docker": lambda size: {"mem_limit": size.removesuffix("i").lower()},  # its units are powers of 1024
    "kubernetes": lambda size: {"memory_limit": size.replace("K", "k") if size.endswith("K") else size},
    "ecs": lambda size: {"memory": _mebibytes(size)},
    "azure-container-instance": lambda size: {"memory": round(_bytes(size) / _UNITS["Gi"], 3)},
    "cloud-run": lambda size: {"memory": _for_cloud_run(size)},
    "cloud-run-v2": lambda size: {"memory": _for_cloud_run(size)},
}
_CPU: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "docker": lambda cpu: {"container_create_kwargs": {"nano_cpus": int(_cores(cpu) * 1_000_000_000)}},
    "kubernetes": lambda cpu: {"cpu_limit": cpu},
    "ecs": lambda cpu: {"cpu": int(_cores(cpu) * 1024)},
    "azure-container-instance": lambda cpu: {"cpu": _cores(cpu)},
    "cloud-run": lambda cpu: {"cpu": f"{int(_cores(cpu) * 1000)}m"},
    "cloud-run-v2": lambda cpu: {"cpu": f"{int(_cores(cpu) * 1000)}m"},
}

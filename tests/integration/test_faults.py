"""Killed, cut off and doubled applies: applying again reaches exactly what the repository asks for.

Five rounds of what `make soak` does fifty times (tests/soak), one for each kind of fault. Each round starts where the
one before has ended, on a server of their own, since one of them kills it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.soak.convergence import Snapshot, differences
from tests.soak.faults import FAULTS
from tests.soak.rounds import all_scheduled, soaking
from tests.soak.world import DEPLOYER, OWNER_TAG, Wanted, World, world_before

SEED = 4


async def test_applying_again_reaches_exactly_the_desired_state(tmp_path: Path, empty_database: Path) -> None:
    (tmp_path / "prefect").mkdir()
    shutil.copy(empty_database, tmp_path / "prefect")
    async with soaking(tmp_path, SEED, hurries=True) as soak:
        await soak.begin()
        world = world_before(SEED, 1)
        _require_that_every_difference_is_told(all_scheduled(soak.server, world), world)
        for number, fault in enumerate(FAULTS, start=1):
            print(await soak.run(number, fault))  # shown where one fails; so is its seed
        await soak.require_runs()


def _require_that_every_difference_is_told(right: Snapshot, world: World) -> None:
    """A check that finds nothing proves nothing unless it finds what is wrong."""
    assert differences(right, world, right, world) == []
    for words, spoil in SPOILED.items():
        rows = deepcopy(dict(right.rows))
        path, wrong = spoil(rows, world), replace(right, rows=rows)
        assert any(words in found and path in found for found in differences(right, world, wrong, world)), words


Rows = dict[str, dict[str, Any]]


def _running(world: World) -> Wanted:
    """A deployment with schedules that fire."""
    return next(wanted for path, wanted in sorted(world.wanted.items()) if world.fires(path))


def _gone(rows: Rows, world: World) -> str:
    path = _running(world).path
    del rows[path]
    return path


def _kept(rows: Rows, world: World) -> str:
    rows["flow-1/stale"] = {**rows[_running(world).path], "id": "other"}
    return "flow-1/stale"


def _paused(rows: Rows, world: World) -> str:
    path = _running(world).path
    rows[path]["paused"] = True
    return path


def _switched_off(rows: Rows, world: World) -> str:
    path = _running(world).path
    for schedule in rows[path]["schedules"]:
        schedule["active"] = False
    return path


def _doubled(rows: Rows, world: World) -> str:
    path = _running(world).path
    rows[path]["schedules"].append({**rows[path]["schedules"][0], "id": "other"})
    return path


def _remade(rows: Rows, world: World) -> str:
    path = _running(world).path
    rows[path]["schedules"][0]["id"] = "other"
    return path


def _made_anew(rows: Rows, world: World) -> str:
    path = _running(world).path
    rows[path]["id"] = "other"
    return path


def _edited(field: str, value: Any) -> Callable[[Rows, World], str]:
    def edit(rows: Rows, world: World) -> str:
        path = _running(world).path
        rows[path][field] = value
        return path

    return edit


def _of_others(rows: Rows, world: World) -> str:
    path = next(path for path in rows if OWNER_TAG not in rows[path]["tags"])
    rows[path]["description"] = "ours now"
    return path


def _deployer(rows: Rows, world: World) -> str:
    rows[DEPLOYER]["paused"] = True
    return DEPLOYER


SPOILED: dict[str, Callable[[Rows, World], str]] = {
    "missing": _gone,
    "still there": _kept,
    "paused: True instead of False": _paused,
    "active: False instead of True": _switched_off,
    "doubled": _doubled,
    ": made anew": _remade,
    "it was made anew": _made_anew,
    "description:": _edited("description", "x"),
    "parameters:": _edited("parameters", {"x": 1}),
    "tags:": _edited("tags", [OWNER_TAG, "x"]),
    "queue:": _edited("work_queue_name", "x"),
    "limit:": _edited("global_concurrency_limit", {"limit": 77}),
    "version:": _edited("version", None),
    "changed in updated": _edited("updated", "x"),
    "scheduled runs are lost": _made_anew,
    "not ours, and changed in description": _of_others,
    "changed in paused": _deployer,
}

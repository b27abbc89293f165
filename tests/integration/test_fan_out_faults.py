"""Whatever is killed, cut or refused: there is one run for each item, it ends once, and its parent knows how.

One round for each kind of fault of what `make soak` does fifty times (tests/soak/fan_out), on a server of their own,
since some of them kill it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.soak.fan_out.faults import FAULTS
from tests.soak.fan_out.rounds import fanning_out

SEED = 3
MOST_ITEMS = 6


async def test_every_run_is_accounted_for_exactly_once(tmp_path: Path, empty_database: Path) -> None:
    (tmp_path / "prefect").mkdir()
    shutil.copy(empty_database, tmp_path / "prefect")
    async with fanning_out(tmp_path, SEED, MOST_ITEMS) as fan_out:
        for number, fault in enumerate(FAULTS, start=1):
            done = await fan_out.run(number, fault)
            found = done.found
            assert found.faults == (), str(done)
            assert (found.runs, found.ended, found.told) == (found.items,) * 3, str(done)

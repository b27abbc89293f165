"""`make soak`: rounds of faults on a real server, and a table of them.

python -m tests.soak --rounds 50 --seed 4                    # applies, then fan-outs
python -m tests.soak applies --seed 4 --first 17 --rounds 1  # one round again
python -m tests.soak fan-out --fault "stream cut"
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from . import faults as of_applies
from .fan_out import faults as of_fan_outs
from .fan_out.rounds import fanning_out
from .rounds import NotConverged, soaking

RunRound = Callable[[int, str], Awaitable[tuple[str, str]]]
"""Runs a round, by number and fault: its line in the table, and what was said in it."""


class NotAccounted(AssertionError):
    """A run is lost, doubled, or not known to its parent as it is."""


@dataclass(frozen=True)
class Kind:
    """What is hit.

    Args:
        head: of the table.
        faults: the ways.
        running: with a folder, the seed and the number of the first round: what runs rounds from there on.
    """

    head: str
    faults: tuple[str, ...]
    running: Callable[[Path, int, int], AbstractAsyncContextManager[RunRound]]


@asynccontextmanager
async def applies(folder: Path, seed: int, first: int) -> AsyncIterator[RunRound]:
    """Applies, each on what the one before has left."""
    async with soaking(folder, seed) as soak:
        await soak.begin(first)

        async def run(number: int, fault: str) -> tuple[str, str]:
            done = await soak.run(number, fault)
            await soak.require_runs()
            codes = " ".join(map(str, done.codes))
            what = f"{number:>5}  {fault:<15} {codes:<11} {done.tries:>5}"
            return f"{what} {done.seconds:>8.1f}  {done.detail}", done.told

        yield run


@asynccontextmanager
async def fan_outs(folder: Path, seed: int, first: int) -> AsyncIterator[RunRound]:
    """Fan-outs, none of which knows of another."""
    async with fanning_out(folder, seed) as fan_out:

        async def run(number: int, fault: str) -> tuple[str, str]:
            done = await fan_out.run(number, fault)
            if done.found.faults:
                raise NotAccounted(str(done))
            codes = " ".join(map(str, done.codes))
            what = f"{number:>5}  {fault:<24} {done.way:<10} {done.found.runs:>4} {done.retries:>7} {codes:<10}"
            return f"{what} {done.seconds:>8.1f}  {done.detail}", done.said

        yield run


KINDS = {
    "applies": Kind(
        f"{'round':>5}  {'fault':<15} {'exit codes':<11} {'tries':>5} {'seconds':>8}  what happened",
        tuple(of_applies.FAULTS),
        applies,
    ),
    "fan-out": Kind(
        f"{'round':>5}  {'fault':<24} {'way':<10} {'runs':>4} {'retries':>7} {'exit codes':<10} {'seconds':>8}"
        "  what happened",
        tuple(of_fan_outs.FAULTS),
        fan_outs,
    ),
}


async def soak(name: str, rounds: int, seed: int, first: int, fault: str | None, *, verbose: bool) -> bool:
    """Run rounds until all are done or one fails; tell each."""
    kind = KINDS[name]
    print(f"{name}, seed {seed}\n{kind.head}", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        async with kind.running(Path(folder), seed, first) as run:
            for number in range(first, first + rounds):
                this = fault or kind.faults[(number - 1) % len(kind.faults)]
                try:
                    line, told = await run(number, this)
                except (NotConverged, NotAccounted) as error:
                    again = f'{name} --seed {seed} --first {number} --rounds 1 --fault "{this}"'
                    print(f"{error}\n\nagain: python -m tests.soak {again}")
                    return False
                print(line, *([told, ""] if verbose else []), sep="\n", flush=True)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kind", nargs="?", choices=KINDS, help="default: one after the other")
    parser.add_argument("--rounds", type=int, default=50, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=1, help="the number of the first round")
    parser.add_argument("--fault", help="always this one; default: all in turn")
    parser.add_argument("--verbose", action="store_true", help="what the applies or the parents said, too")
    given = parser.parse_args()
    names = [given.kind] if given.kind else list(KINDS)
    if given.fault and (not given.kind or given.fault not in KINDS[given.kind].faults):
        ways = "; ".join(f"{name}: {', '.join(kind.faults)}" for name, kind in KINDS.items())
        parser.error(f"--fault needs a kind, and one of its own ({ways})")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server that we have started ends with us
    how = (given.rounds, given.seed, given.first, given.fault)
    done = [asyncio.run(soak(name, *how, verbose=given.verbose)) for name in names]
    sys.exit(0 if all(done) else 1)


if __name__ == "__main__":
    main()

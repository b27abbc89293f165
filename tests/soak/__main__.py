"""`make soak`: rounds of faults on a real server, and a table of them.

python -m tests.soak --rounds 50 --seed 4
python -m tests.soak --seed 4 --first 17 --rounds 1   # one round again
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path

from .faults import FAULTS
from .rounds import NotConverged, Round, soaking

HEAD = f"{'round':>5}  {'fault':<15} {'exit codes':<11} {'tries':>5} {'seconds':>8}  what happened"


async def soak(rounds: int, seed: int, first: int, fault: str | None, *, verbose: bool) -> bool:
    """Run rounds until all are done or one does not converge; tell each."""
    print(f"seed {seed}\n{HEAD}", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        async with soaking(Path(folder), seed) as soak:
            await soak.begin(first)
            for number in range(first, first + rounds):
                kind = fault or list(FAULTS)[(number - 1) % len(FAULTS)]
                try:
                    done = await soak.run(number, kind)
                    await soak.require_runs()
                except NotConverged as error:
                    print(f"{error}\n\nagain: python -m tests.soak --seed {seed} --first {number} --rounds 1")
                    return False
                print(_line(done), *([done.told, ""] if verbose else []), sep="\n", flush=True)
    return True


def _line(done: Round) -> str:
    codes = " ".join(map(str, done.codes))
    return f"{done.number:>5}  {done.fault:<15} {codes:<11} {done.tries:>5} {done.seconds:>8.1f}  {done.detail}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=1, help="the number of the first round")
    parser.add_argument("--fault", choices=FAULTS, help="always this one; default: all in turn")
    parser.add_argument("--verbose", action="store_true", help="what the applies said, too")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server that we have started ends with us
    done = asyncio.run(soak(given.rounds, given.seed, given.first, given.fault, verbose=given.verbose))
    sys.exit(0 if done else 1)


if __name__ == "__main__":
    main()

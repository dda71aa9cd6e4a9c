"""A nightly and an hourly process that score at the same time, round after round, on one warehouse.

    python tests/paired_lists.py MODE SETTINGS FOLDER ROUNDS

Both wait for each other before each round. One is turned away where the other holds the tables; it says so, and comes again.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import shop
import stub_lists

from jobs import score
from jobs.cli import Context
from jobs.errors import BusyError

MOMENTS = {"nightly": shop.NEXT, "hourly": shop.NEXT + timedelta(hours=6)}
_PATIENCE = 900.0


def one_round(context: Context, mode: str, number: int) -> str:
    """Score; returns ``ok``, or ``busy`` where it was turned away, untouched."""
    with stub_lists.scoring(f"{mode} {number}"):
        try:
            score.score(replace(context, as_of=MOMENTS[mode], mode=mode))
        except BusyError:
            return "busy"
    return "ok"


def meet(folder: Path, mode: str, step: str) -> None:
    """Wait until both are here."""
    (folder / f"{step} {mode}").touch()
    until = time.monotonic() + _PATIENCE
    while not all((folder / f"{step} {other}").exists() for other in MOMENTS):
        if time.monotonic() > until:
            raise TimeoutError(f"the other process did not come to {step}")
        time.sleep(0.005)


def play(context: Context, mode: str, folder: Path, rounds: int) -> None:
    """All rounds; how each went is left in a file of that round."""
    for number in range(rounds):
        meet(folder, mode, f"begin {number}")
        told = one_round(context, mode, number)
        meet(folder, mode, f"done {number}")
        if told == "busy" and one_round(context, mode, number) != "ok":
            told = "busy again"
        (folder / f"told {number} {mode}").write_text(told)
        meet(folder, mode, f"end {number}")


if __name__ == "__main__":
    from conf.load import load
    from conf.settings import Spark
    from jobs.spark.session import open_session

    _, asked, settings, where, many = sys.argv
    session = open_session(Spark(master="local[1]", driver_memory="1g", shuffle_partitions=2), f"kairos-{asked}")
    play(shop.context(session, load(Path(settings))), asked, Path(where), int(many))
    session.stop()

"""Scoring with the re-rank and reasons: users a second, in one process with one thread.

    python tests/benchmarks/scoring.py                            # 50,000 users, 20,000 items, width 64, slates of about 100
    python tests/benchmarks/scoring.py --profile                  # and where the time goes
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
import typer

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "benchmarks"), str(TESTS), str(TESTS.parent)]

import scoring_world as world  # noqa: E402

from model.predict import Scorer  # noqa: E402

#: Slates of about 100 in this shop.
SLATE = {"retrieved": 32, "repeats": 24, "audience": 10, "trending": 10, "released": 10, "neighbors": 28}


def main(
    users: Annotated[int, typer.Option()] = 2_560,
    items: Annotated[int, typer.Option()] = 20_000,
    width: Annotated[int, typer.Option()] = 64,
    batch: Annotated[int, typer.Option()] = 512,
    top: Annotated[int, typer.Option()] = 20,
    profile: Annotated[bool, typer.Option("--profile")] = False,
    out: Annotated[Path | None, typer.Option(help="write the lists here")] = None,
    folder: Annotated[Path | None, typer.Option(help="keep the world here")] = None,
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        here = folder or Path(scratch)
        here.mkdir(parents=True, exist_ok=True)
        file = here / "users.parquet"
        if not (here / "prepared" / "prepared.json").exists():
            sample = pa.concat_tables(world.blocks(10_000, items))
            world.prepared(here, items, world.settings(width, SLATE), sample, top)
            pq.write_table(sample, file)
        rows = pq.read_table(file).slice(0, users).combine_chunks()
        scorer = Scorer(here / "prepared")
        scorer.score(rows.slice(0, batch))
        profiler = cProfile.Profile(time.process_time)
        tick = time.process_time()
        if profile:
            profiler.enable()
        parts = [scorer.score(rows.slice(at, batch)) for at in range(0, users, batch)]
        profiler.disable()
        seconds = time.process_time() - tick
    print(f"{users / seconds:,.0f} users a second ({seconds:.2f} s)")
    lists = pa.concat_tables(parts)
    print(f"{len(lists):,} rows")
    if out:
        pq.write_table(lists, out)
    if profile:
        pstats.Stats(profiler).sort_stats("cumtime").print_stats(60)


if __name__ == "__main__":
    typer.run(main)

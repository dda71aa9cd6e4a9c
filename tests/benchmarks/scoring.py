"""Scoring with the re-rank and reasons, through the scorer by itself and through Spark: users a second, and the driver's memory.

    python tests/benchmarks/scoring.py one                                   # one process with one thread; --profile: where time goes
    python tests/benchmarks/scoring.py spark --users 50000                   # on local[2], to parquet
    python tests/benchmarks/scoring.py scale --users 10000 --users 100000    # seconds, and growth of the driver, per number of users

A generated shop (scoring_world.py): 20,000 items, vectors 64 wide, slates of 100 on the average. A warm-up is not counted: a tenth of
the users, so that session and Python workers are there. ``--lists-only`` leaves out all but retrieval. Fewer ``--cores`` than there are
means no more than these for all that runs, the JVM included: local[1] alone would keep a second one busy with compiling and writing.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "benchmarks"), str(TESTS), str(TESTS.parent)]

import scoring_world as world  # noqa: E402

from model.predict import Scorer, score_batches  # noqa: E402

#: What each source gives, so that slates are 100 on the average in this shop.
SLATE = {"retrieved": 30, "repeats": 24, "audience": 9, "trending": 10, "released": 10, "neighbors": 26}
_DISTINCT = 20_000
"""Users that are different; more are these again under other names."""
app = typer.Typer(add_completion=False)
Items = Annotated[int, typer.Option(help="of the catalogue")]
Width = Annotated[int, typer.Option(help="of the vectors; the default of the settings is 48")]
Folder = Annotated[Path | None, typer.Option(help="keep the shop here, and use it if it is here")]


def shop(folder: Path, items: int, width: int) -> Path:
    """The prepared moment and ``users.parquet`` in the folder."""
    if not (folder / "prepared" / "prepared.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        users = pa.concat_tables(world.blocks(_DISTINCT, items))
        world.prepared(folder, items, world.settings(width, SLATE), users, 20)
        pq.write_table(users, folder / "users.parquet", row_group_size=world.BLOCK)
    return folder / "prepared"


@app.command()
def one(
    users: int = 4_096, items: Items = 20_000, width: Width = 64, batch: int = 1_024, folder: Folder = None,
    profile: Annotated[bool, typer.Option("--profile")] = False, out: Annotated[Path | None, typer.Option(help="write the lists here")] = None,
) -> None:  # fmt: skip
    """Users a second of processor time, in this process with one thread."""
    with tempfile.TemporaryDirectory() as scratch:
        here = folder or Path(scratch)
        scorer = Scorer(shop(here, items, width))
        rows = pq.read_table(here / "users.parquet").slice(0, users).combine_chunks()
        scorer.score(rows.slice(0, batch))
        profiler = cProfile.Profile(time.process_time)
        tick = time.process_time()
        if profile:
            profiler.enable()
        lists = pa.concat_tables([scorer.score(rows.slice(at, batch)) for at in range(0, users, batch)])
        profiler.disable()
        seconds = time.process_time() - tick
    print(f"{users:,} users, {items:,} items, {width} wide: {users / seconds:,.0f} users a second on one core")
    if out:
        pq.write_table(lists, out)
    if profile:
        pstats.Stats(profiler).sort_stats("cumtime").print_stats(60)


def scored(prepared: Path) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The body of the UDF, as jobs/score.py has it."""
    root, folder = str(TESTS.parent), str(prepared)

    def body(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sys.path.insert(0, root)
        yield from score_batches(batches, folder)

    return body


def retrieved(prepared: Path, width: int, most: int) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Only the top of the catalogue, for a vector drawn for each user."""
    folder = str(prepared)

    def body(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from model.slate.retrieval import top_of_catalogue

        torch.set_num_threads(1)
        y = torch.from_numpy(np.load(f"{folder}/y.npy", mmap_mode="c", allow_pickle=False))
        nothing = torch.zeros(len(y))
        for batch in batches:
            x = torch.randn(len(batch), width, generator=torch.Generator().manual_seed(len(batch)))
            flat = np.concatenate([top_of_catalogue(part, y, nothing, None, None, most) for part in x.split(256)]).astype(np.int32).ravel()
            lists = pa.ListArray.from_arrays(pa.array(np.arange(0, len(flat) + 1, most), pa.int32()), pa.array(flat))
            yield pa.RecordBatch.from_arrays([batch["user_id"], lists], ["user_id", "items"])

    return body


class Bench:
    """A session with so many cores, and the users in it."""

    def __init__(self, folder: Path, items: int, width: int, cores: int, lists_only: bool):
        from conf.settings import Spark
        from jobs.spark.session import open_session

        prepared = shop(folder, items, width)
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])  # the JVM and Python's workers inherit it
        self.spark = open_session(Spark(master=f"local[{cores}]", driver_memory="3g", shuffle_partitions=cores), "kairos-scoring")
        self.spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", 1_024)
        self.users = self.spark.read.parquet(str(folder / "users.parquet"))
        self.cores = cores
        body, schema = scored(prepared), "user_id STRING, rank INT, item_id STRING, score DOUBLE, reason STRING, cold BOOLEAN"
        if lists_only:
            body, schema = retrieved(prepared, width, 100), "user_id STRING, items ARRAY<INT>"
        self._lists = lambda rows: rows.mapInArrow(body, schema)

    def seconds(self, users: int, out: str) -> float:
        """Of one run over so many users, to parquet."""
        from pyspark.sql import functions as F

        times = -(-users // _DISTINCT)
        rows = self.users.where(F.substring("user_id", 2, 7).cast("int") < users)
        if times > 1:
            again = self.spark.range(times).withColumnRenamed("id", "again")
            rows = rows.crossJoin(F.broadcast(again)).withColumn("user_id", F.concat("user_id", F.lit("-"), "again")).drop("again")
        rows = rows.repartition(self.cores, "user_id").sortWithinPartitions("user_id")  # as jobs/score.py does
        tick = time.monotonic()
        self._lists(rows).write.mode("overwrite").parquet(out)
        return time.monotonic() - tick

    def driver(self) -> dict[str, float]:
        """MiB that live in the driver: the heap of its JVM after a collection, and its Python."""
        runtime: Any = self.spark.sparkContext._jvm.java.lang.Runtime.getRuntime()
        runtime.gc()
        return {"heap": (runtime.totalMemory() - runtime.freeMemory()) / 2**20, "python": psutil.Process().memory_info().rss / 2**20}


@app.command()
def spark(users: int = 50_000, items: Items = 20_000, width: Width = 64, cores: int = 2, folder: Folder = None) -> None:
    """Users a second on Spark."""
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(folder or Path(scratch), items, width, cores, False)
        bench.seconds(users // 10, f"{scratch}/warm")
        seconds = bench.seconds(users, f"{scratch}/lists")
        bench.spark.stop()
    print(f"{users:,} users, {items:,} items, {width} wide, local[{cores}]: {users / seconds:,.0f} users a second ({seconds:.1f} s)")


@app.command()
def scale(
    users: Annotated[list[int], typer.Option()], items: Items = 50_000, width: Width = 64, cores: int = 2, folder: Folder = None,
    lists_only: Annotated[bool, typer.Option("--lists-only", help="retrieval of the top 100 and nothing else")] = False,
) -> None:  # fmt: skip
    """Seconds and the driver's memory by number of users, in one session."""
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(folder or Path(scratch), items, width, cores, lists_only)
        bench.seconds(min(users) // 2, f"{scratch}/warm")
        before = bench.driver()
        print(f"{items:,} items, {width} wide, local[{cores}], {'retrieval only' if lists_only else 'with re-rank and reasons'}")
        for many in users:
            seconds, now = bench.seconds(many, f"{scratch}/lists"), bench.driver()
            grown = "  ".join(f"{name} {now[name] - before[name]:+.0f} MiB" for name in now)
            print(f"  {many:>9,} users {seconds:8.1f} s  {many / seconds:9,.0f} a second  driver since the warm-up: {grown}")
        bench.spark.stop()


if __name__ == "__main__":
    app()

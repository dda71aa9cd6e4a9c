"""What features cost: beside DuckDB, as a log grows, in the hour after a night, and where one user or one item has it all.

    python tests/benchmarks/feature_costs.py                       # everything at 2 M events
    python tests/benchmarks/feature_costs.py duckdb --events 20000000
    python tests/benchmarks/feature_costs.py sizes --events 2000000 --events 20000000 --events 60000000
    python tests/benchmarks/feature_costs.py hour --events 20000000
    python tests/benchmarks/feature_costs.py skew --events 20000000

Worlds are made once under --scratch (40 events a user, 200 an item, 30 days, uniform, seed 0). Each measurement is a process
of its own with two cores; seconds are those of the work, without the start of Spark. Compare ratios of one run.
"""

from __future__ import annotations

import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

import duck  # noqa: E402
import worlds_spark as worlds  # noqa: E402
from measured import Measured, measure, tell  # noqa: E402

from conf import columns as c  # noqa: E402

DAYS, LENGTH, GAP = 30, 200, timedelta(minutes=30)
AS_OF = worlds.START + timedelta(days=DAYS)
MEMORY = "6g"
KINDS = {"uniform": {}, "hot-user": {"hot_user": 1_000_000}, "hot-item": {"hot_item": 0.5}}
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Scratch = Annotated[Path, typer.Option(help="where worlds and results are kept")]
Events = Annotated[list[int], typer.Option(help="events of the log; may be said several times")]
SCRATCH, TWO_MILLION = Path("warehouse/benchmarks"), [2_000_000]


# -- what is measured; each in a process of its own ------------------------------------------------------------------


def session():
    from conf.settings import Spark
    from jobs.spark.session import open_session

    return open_session(Spark(master="local[2]", driver_memory=MEMORY, shuffle_partitions=8), "kairos-benchmark")


def settings(folder: Path):
    from conf.load import from_tree

    source = {"path": "-", "columns": {"user_id": "u", "item_id": "i", "event_ts": "t"}}
    tree = {
        "domain": "benchmark", "warehouse": str(folder / "warehouse"), "source": {"events": source},
        # As conf/ecommerce.yaml has it: in a long catalogue two items that met once met by chance.
        "features": {"sequence_length": LENGTH, "session_gap": "30m", "neighbor_min_together": 2},
        "spark": {"shuffle_partitions": 8},
    }  # fmt: skip
    return from_tree(tree)


@app.command(hidden=True)
def world(out: Path, events: int, kind: str) -> None:
    spark = session()
    users, items = events // 40, events // 200
    log = worlds.events(spark, events, users, items, DAYS, 0, partitions=max(4, events // 2_500_000), **KINDS[kind])
    log.write.mode("overwrite").parquet(str(out / "events"))
    worlds.items(spark, items, DAYS, 0, **KINDS[kind]).coalesce(1).write.mode("overwrite").parquet(str(out / "items"))
    spark.stop()


@app.command(hidden=True)
def spark_features(folder: Path, out: Path) -> None:
    """Sequences and all item features by the transforms that the job runs."""
    from features.item_sums import item_sums
    from features.item_temporal import item_temporal
    from features.sequences import user_sequences

    spark, chosen = session(), settings(folder)
    events, items = (spark.read.parquet(str(folder / name)) for name in ("events", "items"))
    spark.range(1_000).repartition(2).count()  # the JVM is warm for both parts
    tick = time.monotonic()
    user_sequences(events, [AS_OF], chosen).write.mode("overwrite").parquet(str(out / "sequences"))
    tock = time.monotonic()
    sums = item_sums(events, [AS_OF])
    item_temporal(sums, items, [AS_OF]).write.mode("overwrite").parquet(str(out / "items"))
    tell(sequences=tock - tick, items=time.monotonic() - tock)
    spark.stop()


@app.command(hidden=True)
def duckdb_features(folder: Path, out: Path) -> None:
    """The same rows by DuckDB, from the same files."""
    out.mkdir(parents=True, exist_ok=True)
    database = duck.connect(str(folder / "events"), str(folder / "items"), 2, MEMORY + "ib", str(out))
    tick = time.monotonic()
    duck.write(database, duck.SEQUENCES, str(out / "sequences.parquet"), AS_OF, length=LENGTH, gap="INTERVAL 30 MINUTE")
    tock = time.monotonic()
    duck.write(database, duck.ITEMS, str(out / "items.parquet"), AS_OF)
    tell(sequences=tock - tick, items=time.monotonic() - tock)


def moment(hours: int) -> datetime:
    """as_of so many hours after the night."""
    return AS_OF - timedelta(hours=1) + timedelta(hours=hours)


@app.command(hidden=True)
def chain(folder: Path, mode: str, hours: list[int]) -> None:
    """The job on Delta tables: full nights, or hours after one, each so many hours after the night, in one session; told is the last."""
    from features.contracts import EVENTS, ITEMS
    from jobs.build_features import build
    from jobs.cli import Context
    from jobs.store.table_io import Warehouse

    spark, chosen = session(), settings(folder)
    warehouse = Warehouse(spark, chosen)
    if not warehouse.exists(EVENTS):
        raw = [spark.read.parquet(str(folder / name)) for name in ("events", "items")]
        warehouse.append(EVENTS, raw[0].sortWithinPartitions(c.EVENT_TS, c.EVENT_ID))  # as ingest leaves them
        warehouse.overwrite(ITEMS, raw[1])
    for number in hours:
        tick = time.monotonic()
        build(Context(spark, chosen, warehouse, moment(number), mode, False), backfill=False)
        seconds = time.monotonic() - tick
    tell(**{mode: seconds})
    spark.stop()


# -- what is printed -------------------------------------------------------------------------------------------------


def made(scratch: Path, events: int, kind: str = "uniform") -> Path:
    folder = scratch.absolute() / f"{kind}-{events}"
    if not (folder / "items" / "_SUCCESS").exists():
        print(f"making {folder.name} ...", flush=True)
        measure(__file__, "world", folder, str(events), kind)
    return folder


def line(name: str, found: Measured, events: int) -> None:
    parts = "  ".join(f"{part} {seconds:7.1f} s" for part, seconds in found.work.items())
    each = sum(found.work.values()) / events * 1e6
    print(f"{name:28s} {parts}  {each:6.2f} us an event  CPU {found.cpu_s:6.0f} s  peak {found.peak_gib:5.2f} GiB", flush=True)


@app.command()
def duckdb(events: Events = TWO_MILLION, scratch: Scratch = SCRATCH) -> None:
    """Sequences of 200 and all item features, beside DuckDB doing the same on the same files."""
    for n in events:
        folder = made(scratch, n)
        ours = measure(__file__, "spark-features", folder, folder / "spark")
        theirs = measure(__file__, "duckdb-features", folder, folder / "duck")
        line(f"{n:,} Spark", ours, n)
        line(f"{n:,} DuckDB", theirs, n)
        print(f"{'':28s} Spark / DuckDB = {sum(ours.work.values()) / sum(theirs.work.values()):.2f}")
        compare(folder)


def compare(folder: Path) -> None:
    for table, key in (("sequences", "user_id"), ("items", "item_id")):
        rows, columns, bad = duck.compare(f"{folder}/spark/{table}/*.parquet", f"{folder}/duck/{table}.parquet", key)
        print(f"{'':28s} {table}: {rows:,} rows, {columns} columns compared, {bad} rows differ")


@app.command()
def sizes(events: Events = TWO_MILLION, scratch: Scratch = SCRATCH) -> None:
    """The same work as the log grows: the time an event takes must not."""
    for n in events:
        folder = made(scratch, n)
        line(f"{n:,} events", measure(__file__, "spark-features", folder, folder / "spark"), n)


@app.command()
def hour(events: Events = TWO_MILLION, scratch: Scratch = SCRATCH) -> None:
    """All feature tables by the job: a full build, the hour after it (1/720 of the events are new), and three hours in one session."""
    for n in events:
        folder = made(scratch, n)
        full = measure(__file__, "chain", folder, "nightly", "0")
        then = measure(__file__, "chain", folder, "hourly", "1")
        line(f"{n:,} full build", full, n)
        line(f"{n:,} hour after", then, n)
        ratio, cpu = then.work["hourly"] / full.work["nightly"], then.cpu_s / full.cpu_s
        print(f"{'':28s} hour / full = {ratio:.3f} of the time, {cpu:.3f} of the processor with start-up")
        stays = measure(__file__, "chain", folder, "hourly", "1", "2", "3")
        ratio = stays.work["hourly"] / full.work["nightly"]
        print(f"{'':28s} third hour of a session {stays.work['hourly']:.1f} s: {ratio:.3f} of the full build's time")


@app.command()
def skew(events: Events = TWO_MILLION, scratch: Scratch = SCRATCH) -> None:
    """One user with a million events, one item with half of all, and the uniform log of the same size."""
    for n in events:
        found = {}
        for kind in KINDS:
            folder = made(scratch, n, kind)
            found[kind] = measure(__file__, "spark-features", folder, folder / "spark")
            line(f"{n:,} {kind}", found[kind], n)
        base = sum(found["uniform"].work.values())
        print(" " * 28, ", ".join(f"{k} / uniform = {sum(m.work.values()) / base:.2f}" for k, m in found.items()))


@app.callback(invoke_without_command=True)
def everything(context: typer.Context) -> None:
    """Everything, at 2 M events."""
    if context.invoked_subcommand is None:
        for measurement in (duckdb, sizes, hour, skew):
            print(f"-- {measurement.__name__}: {measurement.__doc__}")
            measurement(TWO_MILLION, SCRATCH)


if __name__ == "__main__":
    app()

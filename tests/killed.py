"""A night and an hour of ingest and features that dies after a given commit; without one, it goes through.

    python tests/killed.py FOLDER COMMIT     # FOLDER holds log/1.csv and later/2.csv; COMMIT 0: never
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import shop
from pyspark.sql import SparkSession

from conf.load import from_tree
from features.contracts import EVENTS, EVENTS_REJECTED, FEATURE_TABLES, ITEMS
from jobs.build_features import build
from jobs.cli import Context
from jobs.ingest import ingest
from jobs.store.table_io import Warehouse

TABLES = (EVENTS, EVENTS_REJECTED, ITEMS, *FEATURE_TABLES)
#: Commits of the chain: see the tests, which count them.
COMMITS = 20


def files(folder: Path) -> None:
    """The log of a night, with bad rows, and what arrives in the hour after it."""
    log = shop.events(n=600)
    night, hour = (moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in (shop.NIGHT, shop.HOUR))
    log.loc[log.index[::50], "when"] = "soon"
    past = log[(log.when < night) | (log.when == "soon")]
    for name, rows in (("log/1.csv", past.iloc[20:]), ("later/2.csv", log[(log.when >= night) & (log.when < hour)]), ("later/3.csv", past.iloc[:20])):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        rows.to_csv(folder / name, index=False)


def chain(spark: SparkSession, folder: Path, committed: Callable[[int], None], features: bool = True) -> Context:
    """Run it; ``committed`` is called with the number of each commit after it was made. Not ``features``: ingest alone."""
    tree = shop.settings(folder).resolved()
    tree["source"]["events"]["path"] = str(folder / "log")
    context = shop.context(spark, from_tree(tree))
    made, commits = Warehouse._committed, []

    def counted(self, table):
        found = made(self, table)
        commits.append(table.name)
        committed(len(commits))
        return found

    Warehouse._committed = counted
    try:
        ingest(context)
        if features:
            build(context, backfill=False)
        for late in sorted((folder / "later").glob("*.csv")):
            shutil.copy2(late, folder / "log" / late.name)
        hour = replace(context, as_of=shop.HOUR, mode="hourly")
        ingest(hour)
        if features:
            build(hour, backfill=False)
    finally:
        Warehouse._committed = made
    return context


def state(context: Context) -> dict[str, list[str]]:
    """All rows of all tables that are there, without the ids of runs and the numbers of versions."""
    out = {}
    for table in filter(context.warehouse.exists, TABLES):
        names = [name for name in table.column_names if name not in ("run_id", "events_version")]
        out[table.name] = sorted(map(str, context.warehouse.read(table).select(*names).collect()))
    return out


if __name__ == "__main__":
    from conf.settings import Spark
    from jobs.spark.session import open_session

    last = int(sys.argv[2])
    session = open_session(Spark(master="local[2]", shuffle_partitions=2), "kairos-killed")
    chain(session, Path(sys.argv[1]), lambda n: os.kill(os.getpid(), signal.SIGKILL) if n == last else None)
    session.stop()

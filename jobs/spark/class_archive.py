"""Spark's classes, read and checked once at installation: without that, each new JVM spends seconds on it.

This is the JVM's own class data sharing (https://openjdk.org/jeps/350). The archive lies in the Python environment, because
it holds for one class path; a JVM of another version, or with other jars, passes it over and starts as ever.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from pyspark import SparkContext
from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as F

from conf import columns as c
from conf.load import from_tree
from features.contracts import ITEM_NEIGHBORS
from jobs.store.table_io import Warehouse

ARCHIVE = Path(sys.prefix) / "kairos-spark.jsa"
_MAKING = ARCHIVE.with_suffix(".new")
_PATIENCE_S = 180


def use() -> str:
    """The JVM options that use the archive; empty where there is none."""
    return f'"-XX:SharedArchiveFile={ARCHIVE}" -Xshare:auto -Xlog:disable -Xlog:all=error:stderr' if ARCHIVE.exists() else ""


def make() -> str:
    """The JVM options that write the classes it has loaded when it ends, to a file that ``finish`` puts in place."""
    return f'"-XX:ArchiveClassesAtExit={_MAKING}" -Xlog:disable -Xlog:all=error:stderr'


def rehearse(spark: SparkSession) -> None:
    """Use what jobs use: aggregates, windows, joins and arrays; a table written, replaced in part and read."""
    with tempfile.TemporaryDirectory() as folder:
        columns = {name: name for name in (c.USER_ID, c.ITEM_ID, c.EVENT_TS)}
        tree = {"domain": "rehearsal", "warehouse": folder, "source": {"events": {"path": "-", "columns": columns}}}
        warehouse = Warehouse(spark, from_tree(tree))
        rows = spark.range(1_000).select((F.col("id") % 7).alias("k"), F.timestamp_seconds(F.col("id") % 2).alias("t"), "id")
        order = Window.partitionBy("t", "k").orderBy("id")
        ranked = rows.withColumn("rank", F.row_number().over(order.rowsBetween(Window.unboundedPreceding, Window.currentRow))).persist()
        sums = ranked.groupBy("t", "k").agg(F.sum("id").alias("sum"), F.sort_array(F.collect_list("id")).alias("ids"))
        near = sums.join(F.broadcast(ranked), ["t", "k"]).unionByName(ranked.join(sums, ["t", "k"]).select("t", "k", "sum", "ids", "id", "rank"))
        values = [F.col("t"), F.col("k").cast("string"), F.col("id").cast("string"), F.col("sum") / F.size("ids"), F.col("rank")]
        named = near.select(*[v.alias(name) for v, name in zip(values, ITEM_NEIGHBORS.column_names, strict=True)])
        for _ in range(2):
            told = named.repartition(2, c.ITEM_ID).sortWithinPartitions(*ITEM_NEIGHBORS.key)
            warehouse.replace(ITEM_NEIGHBORS, told, f"{c.AS_OF_TS} >= TIMESTAMP '1970-01-01T00:00:00+00:00'")
        warehouse.moments(ITEM_NEIGHBORS)
        ranked.unpersist()


def finish(spark: SparkSession) -> None:
    """End the JVM, wait until it has written, and put the archive where sessions look for it."""
    jvm = SparkContext._gateway.proc  # type: ignore[union-attr]
    spark.stop()
    jvm.stdin.close()  # what Spark's JVM waits for to end
    jvm.wait(_PATIENCE_S)
    _MAKING.replace(ARCHIVE)

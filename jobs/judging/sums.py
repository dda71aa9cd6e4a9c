"""Metrics of judged rows as sums that add up over workers and windows.

The workers give each user's metrics a weight in every draw of the bootstrap and return sums; the driver gets one row a
recommender, segment and metric, which does not grow with users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from model import metrics
from model.metrics import Draws

#: Recommender, segment, metric.
Key: TypeAlias = tuple[str, str, str]
Sums: TypeAlias = dict[Key, Draws]
#: (rows) -> what was measured, which of the rows it is of, and a value for each of these.
Measure: TypeAlias = Callable[[pa.Table], Iterable[tuple[Key, np.ndarray, np.ndarray]]]
#: Whose lists, and which part of what was judged.
KAIROS, SERVED, ALL = "kairos", "kairos as served", "all"
#: How many places of a list are looked at, at most and where nothing else is said.
DEPTH, TOP = 20, 10
_SUMS = "recommender STRING, segment STRING, metric STRING, total ARRAY<DOUBLE>, weight ARRAY<DOUBLE>"


def sums(rows: DataFrame, measure: Measure, draws: int, *order: str) -> Sums:
    """What ``measure`` finds in ``rows`` (user_id and what it needs), summed; ``order`` tells rows of a user apart."""
    every = (
        rows.withColumn("key", F.xxhash64(c.USER_ID))
        # In an order of its own, so that sums of floating point are the same in every run.
        .repartition(rows.sparkSession.sparkContext.defaultParallelism, c.USER_ID)
        .sortWithinPartitions(c.USER_ID, *order)
    )
    parts = every.mapInArrow(_adder(measure, draws), _SUMS)
    totals = parts.groupBy("recommender", "segment", "metric").agg(*[_add_up(k, draws) for k in ("total", "weight")])
    return {tuple(row[:3]): Draws(np.array(row["total"]), np.array(row["weight"])) for row in totals.collect()}


def added(parts: Iterable[tuple[Key, Draws]]) -> Sums:
    """The sums of each key. A user's weights are the same in every window, so intervals of several are of users, not of lists."""
    found: Sums = {}
    for key, one in parts:
        found[key] = found[key] + one if key in found else one
    return found


def _add_up(column: str, draws: int) -> Column:
    """The arrays of a group added, number by number; sorted first, so that the sum is the same in every run."""
    none = F.array_repeat(F.lit(0.0), draws + 1)
    parts = F.sort_array(F.collect_list(column))
    return F.reduce(parts, none, lambda total, part: F.zip_with(total, part, lambda a, b: a + b)).alias(column)


def _adder(measure: Measure, draws: int) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The body of the UDF: the sums of a partition, once all of it was read."""

    def weighed(table: pa.Table) -> Iterator[tuple[Key, Draws]]:
        weights = metrics.poisson_weights(table["key"].to_numpy(), draws)
        for key, rows, values in measure(table):
            yield key, Draws.of(values, weights[rows])

    def body(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        tables = (pa.Table.from_batches([batch]) for batch in batches)
        found = added(part for table in tables for part in weighed(table))
        rows = [(*key, one.total.tolist(), one.weight.tolist()) for key, one in found.items()]
        columns = ["recommender", "segment", "metric", "total", "weight"]
        if rows:
            yield pa.RecordBatch.from_arrays([pa.array(column) for column in zip(*rows, strict=True)], names=columns)

    return body

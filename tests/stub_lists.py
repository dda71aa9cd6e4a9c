"""Scoring without a model, for tests of what is done with lists: repeatable lists of available items, in an order that ``salt`` decides."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from features.contracts import ITEM_TEMPORAL
from jobs import score
from jobs.lists.models import UsableModel


@contextlib.contextmanager
def scoring(salt: str = "1", spoil: Callable[[DataFrame], DataFrame] = lambda lists: lists) -> Iterator[None]:
    """``score`` within this block makes such lists; model version is the salt. ``spoil`` plants a fault in them."""

    @contextlib.contextmanager
    def prepared(context, model, asked=None):
        items = context.warehouse.partition(ITEM_TEMPORAL, context.as_of).where("item_available").select("item_id")
        yield items, context.settings.top_k

    def scored(users, catalogue):
        items, most = catalogue
        points = (F.pmod(F.xxhash64("user_id", "item_id", F.lit(salt)), F.lit(1000)) / 1000).alias("score")
        rows = users.select("user_id").crossJoin(items).select("user_id", "item_id", points)
        place = F.row_number().over(Window.partitionBy("user_id").orderBy(F.desc("score"), "item_id"))
        rows = rows.withColumn("rank", place).where(F.col("rank") <= most)
        said, cold = F.lit("because").alias("reason"), (F.col("user_id") == "*").alias("cold")
        return spoil(rows.select("user_id", "rank", "item_id", "score", said, cold))

    kept = score.usable, score.prepared, score.scored
    score.usable = lambda settings, as_of: UsableModel(salt, Path())
    score.prepared, score.scored = prepared, scored
    try:
        yield
    finally:
        score.usable, score.prepared, score.scored = kept

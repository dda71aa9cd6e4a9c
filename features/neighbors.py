"""``item_neighbors``: items that come one soon after the other in people's histories, decayed by age.

An event meets the ``neighbor_reach`` events before it, so the cost is linear in events, also for items in half of all baskets.
Events are taken in the order in which they became known: what a moment sees is then a prefix of that order, and no pair of an
earlier moment depends on a later event. Source: item-to-item collaborative filtering (Linden et al., 2003), with decay.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import Settings
from features.contracts import ITEM_NEIGHBORS
from features.sums import exact_sum
from features.windows import BUCKET, EVENT_US, MOMENT_US, bucket_us, decay, to_moments, with_bucket

SHRINKAGE = 1.0


def item_neighbors(events: DataFrame, moments: Sequence[datetime], settings: Settings) -> DataFrame:
    """One row a (moment, item, neighbour): the ``neighbors`` heaviest of each item with ``neighbor_min_events`` events."""
    half_life = settings.features.neighbor_half_life.total_seconds()
    marked = with_bucket(events, moments).withColumn("w", decay(bucket_us(moments) - F.col(EVENT_US), half_life))
    items = _item_sums(marked, moments, settings, half_life).persist()
    frequent = items.select(c.ITEM_ID).distinct()
    pairs = _pairs(marked.join(frequent, on=c.ITEM_ID, how="left_semi"), settings)
    waited = F.col(MOMENT_US) - F.col("ref")
    summed = (
        to_moments(pairs.withColumn("ref", bucket_us(moments)), moments)
        .groupBy(c.AS_OF_TS, "a", "b")
        .agg(exact_sum(F.col("w") * decay(waited, half_life)).alias("w"))
    )
    sides = F.explode(
        F.array(
            F.struct(F.col("a").alias("x"), F.col("b").alias("y")),
            F.struct(F.col("b").alias("x"), F.col("a").alias("y")),
        )
    )
    both = summed.select(c.AS_OF_TS, sides.alias("pair"), "w").select(
        c.AS_OF_TS, F.col("pair.x").alias(c.ITEM_ID), F.col("pair.y").alias(c.NEIGHBOR_ID), "w"
    )
    theirs = items.select(c.AS_OF_TS, F.col(c.ITEM_ID).alias(c.NEIGHBOR_ID), F.col("weight").alias("their_weight"))
    weight = F.col("w") / (F.sqrt(F.col("weight") * F.col("their_weight")) + F.lit(SHRINKAGE))
    nearest = Window.partitionBy(c.AS_OF_TS, c.ITEM_ID).orderBy(
        F.desc_nulls_last("neighbor_weight"), F.asc_nulls_last(c.NEIGHBOR_ID)
    )
    return (
        both.join(items, on=[c.AS_OF_TS, c.ITEM_ID], how="inner")
        .join(theirs, on=[c.AS_OF_TS, c.NEIGHBOR_ID], how="inner")
        .withColumn("neighbor_weight", weight)
        .withColumn("neighbor_rank", F.row_number().over(nearest))
        .where(F.col("neighbor_rank") <= settings.features.neighbors)
        .select(*ITEM_NEIGHBORS.column_names)
    )


def _item_sums(marked: DataFrame, moments: Sequence[datetime], settings: Settings, half_life: float) -> DataFrame:
    """(as_of_ts, item_id, weight): decayed events of items with enough of them at the moment."""
    increments = marked.groupBy(c.ITEM_ID, BUCKET).agg(F.count("*").alias("n"), exact_sum("w").alias("w"))
    rows = to_moments(increments.withColumn("ref", bucket_us(moments)), moments)
    summed = rows.groupBy(c.AS_OF_TS, c.ITEM_ID).agg(
        F.sum("n").alias("n"), exact_sum(F.col("w") * decay(F.col(MOMENT_US) - F.col("ref"), half_life)).alias("weight")
    )
    return summed.where(F.col("n") >= settings.features.neighbor_min_events).select(c.AS_OF_TS, c.ITEM_ID, "weight")


def _pairs(marked: DataFrame, settings: Settings) -> DataFrame:
    """(a, b, bucket, w): summed weights of pairs of different items, a < b; nearer events weigh more."""
    known_us = F.greatest(F.col(EVENT_US), F.unix_micros(c.AVAILABLE_TS))
    reach = settings.features.neighbor_reach
    before = (
        Window.partitionBy(c.USER_ID)
        .orderBy(F.asc_nulls_last("known_us"), F.asc_nulls_last(EVENT_US), F.asc_nulls_last(c.EVENT_ID))
        .rowsBetween(-reach, -1)
    )
    met = (
        marked.withColumn("known_us", known_us)
        .withColumn("earlier", F.reverse(F.collect_list(c.ITEM_ID).over(before)))
        .select(c.ITEM_ID, BUCKET, "w", F.posexplode("earlier").alias("steps", "other"))
    )
    return (
        met.where(F.col("other") != F.col(c.ITEM_ID))
        .groupBy(F.least(c.ITEM_ID, "other").alias("a"), F.greatest(c.ITEM_ID, "other").alias("b"), BUCKET)
        .agg(exact_sum(F.col("w") / F.sqrt(F.col("steps") + 1.0)).alias("w"))
    )

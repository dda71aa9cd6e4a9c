"""``item_neighbors``: items that come one soon after the other in people's histories, decayed by age.

An event meets the ``neighbor_reach`` events before it, so the cost is linear in events, also for items in half of all baskets.
Events are taken in the order in which they became known: what a moment sees is then a prefix of that order, and no pair of an
earlier moment depends on a later event. Source: item-to-item collaborative filtering (Linden et al., 2003), with decay.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import Settings
from features.contracts import ITEM_NEIGHBORS
from features.sums import decay, exact_sum
from features.windows import AT, SEEN_FROM, US, Moments

SHRINKAGE = 1.0
_KNOWN_US, _HASH = "known_us", "item_hash"


def item_neighbors(events: DataFrame, moments: list[datetime], settings: Settings) -> DataFrame:
    """One row a (moment, item, neighbour): the ``neighbors`` heaviest of each item with ``neighbor_min_events`` events.

    Two items must have met ``neighbor_min_together`` times by the moment.
    """
    times = Moments.of(moments)
    known = F.greatest(F.unix_micros(c.EVENT_TS), F.unix_micros(c.AVAILABLE_TS))
    # Pairs are of 64-bit hashes: a fraction of the bytes of two names. Names return with the few rows that are kept.
    log = times.log(events.withColumns({_KNOWN_US: known, _HASH: F.xxhash64(c.ITEM_ID)}))
    half_life = settings.features.neighbor_half_life // timedelta(seconds=1)
    items = _weights(log, times, settings, half_life)
    frequent = log.join(F.broadcast(items.select(_HASH).distinct()), on=_HASH, how="left_semi")
    pairs = _pairs(frequent, times, settings, half_life)
    mine = items.select(AT, F.col(_HASH).alias("x"), c.ITEM_ID, "weight")
    theirs = items.select(
        AT, F.col(_HASH).alias("y"), F.col(c.ITEM_ID).alias(c.NEIGHBOR_ID), F.col("weight").alias("their_weight")
    )
    similar = F.col("met") / (F.sqrt(F.col("weight") * F.col("their_weight")) + SHRINKAGE)
    nearest = Window.partitionBy(AT, c.ITEM_ID).orderBy(
        F.desc_nulls_last("neighbor_weight"), F.asc_nulls_last(c.NEIGHBOR_ID)
    )
    return (
        pairs.join(F.broadcast(mine), on=[AT, "x"], how="inner")
        .join(F.broadcast(theirs), on=[AT, "y"], how="inner")
        .withColumn("neighbor_weight", similar)
        .withColumn("neighbor_rank", F.row_number().over(nearest))
        .where(F.col("neighbor_rank") <= settings.features.neighbors)
        .select(times.as_of(AT), c.ITEM_ID, c.NEIGHBOR_ID, "neighbor_weight", "neighbor_rank")
        .select(*ITEM_NEIGHBORS.column_names)
    )


def _weights(log: DataFrame, times: Moments, settings: Settings, half_life: int) -> DataFrame:
    """(at, item_hash, item_id, weight): decayed events of the items that have enough of them at the moment."""
    key, reference = (AT, _HASH, c.ITEM_ID), times.us_of(SEEN_FROM)
    increments = log.groupBy(*key[1:], SEEN_FROM).agg(
        F.count("*").alias("n"), exact_sum(decay(US, reference, half_life)).alias("weight")
    )
    carried = F.col("weight") * decay(reference, times.us_of(AT), half_life)
    summed = times.spread(increments).groupBy(*key).agg(F.sum("n").alias("n"), exact_sum(carried).alias("weight"))
    return summed.where(F.col("n") >= settings.features.neighbor_min_events).select(*key, "weight")


def _pairs(log: DataFrame, times: Moments, settings: Settings, half_life: int) -> DataFrame:
    """(at, x, y, met), hashes, both ways: summed weights of meetings; nearer ones weigh more."""
    before = (
        Window.partitionBy(c.USER_ID)
        .orderBy(*[F.asc_nulls_last(name) for name in (_KNOWN_US, US, c.EVENT_ID)])
        .rowsBetween(-settings.features.neighbor_reach, -1)
    )
    reference = times.us_of(SEEN_FROM)
    met = (
        log.withColumn("earlier", F.reverse(F.collect_list(_HASH).over(before)))
        .select(
            _HASH,
            SEEN_FROM,
            decay(US, reference, half_life).alias("w"),
            F.posexplode("earlier").alias("steps", "other"),
        )
        .where(F.col("other") != F.col(_HASH))
        .select(
            F.least(_HASH, "other").alias("a"),
            F.greatest(_HASH, "other").alias("b"),
            SEEN_FROM,
            (F.col("w") / F.sqrt(F.col("steps") + 1.0)).alias("w"),
        )
    )
    # One shuffle serves both sums: what is one pair lies in one partition.
    increments = (
        met.repartition("a", "b").groupBy("a", "b", SEEN_FROM).agg(F.count("*").alias("n"), exact_sum("w").alias("w"))
    )
    grown = F.sort_array(F.collect_list(F.struct(SEEN_FROM, "n", "w"))).alias("grown")
    together = settings.features.neighbor_min_together
    often = increments.groupBy("a", "b").agg(grown, F.sum("n").alias("n")).where(F.col("n") >= together)
    states = F.explode(F.array(*[_state(index, times, half_life) for index in range(len(times.us))])).alias("state")
    sides = F.explode(
        F.array(
            F.struct(F.col("a").alias("x"), F.col("b").alias("y")),
            F.struct(F.col("b").alias("x"), F.col("a").alias("y")),
        )
    )
    at_each = often.select("a", "b", states).where((F.col("state.n") >= together) & (F.col("state.met") > 0))
    both = at_each.select("state", sides.alias("side"))
    return both.select(F.col("state.at").alias(AT), F.col("side.x").alias("x"), F.col("side.y").alias("y"), "state.met")


def _state(index: int, times: Moments, half_life: int) -> Column:
    """(at, n, met) of a pair at one moment, from its increments in their order."""
    mine = F.filter("grown", lambda g: g[SEEN_FROM] <= index)
    n = F.aggregate(mine, F.lit(0).cast("bigint"), lambda total, g: total + g["n"])

    def carried(total: Column, g: Column) -> Column:
        return total + g["w"] * decay(times.us_of(g[SEEN_FROM]), F.lit(times.us[index]), half_life)

    return F.struct(F.lit(index).alias("at"), n.alias("n"), F.aggregate(mine, F.lit(0.0), carried).alias("met"))

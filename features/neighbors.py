"""``item_neighbors``: items that come one soon after the other in people's sessions and histories, decayed by age.

An event meets the ``neighbor_reach`` events before it, so the cost is linear in events, also for items in half of all baskets.
A meeting inside one session counts ``neighbor_session_weight`` times: the two events have the same session of the source or,
where neither has one, are no more than ``session_gap`` apart. That is known of the two alone, whatever becomes known later.
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
_KNOWN_US, _HASH, _SESSION = "known_us", "item_hash", "session_hash"


def item_neighbors(events: DataFrame, moments: list[datetime], settings: Settings) -> DataFrame:
    """One row a (moment, item, neighbour): the ``neighbors`` heaviest of each item with ``neighbor_min_events`` events.

    Two items must have met ``neighbor_min_together`` times by the moment.
    """
    times = Moments.of(moments)
    known = F.greatest(F.unix_micros(c.EVENT_TS), F.unix_micros(c.AVAILABLE_TS))
    # Pairs are of 64-bit hashes: a fraction of the bytes of two names. Names return with the few rows that are kept.
    session = F.when(F.col(c.SESSION_ID).isNotNull(), F.xxhash64(c.SESSION_ID))
    log = times.log(events.withColumns({_KNOWN_US: known, _HASH: F.xxhash64(c.ITEM_ID), _SESSION: session}))
    half_life = settings.features.neighbor_half_life // timedelta(seconds=1)
    items = _weights(log, times, settings, half_life)
    # Frequent at any moment, which only spares work: the joins below ask for the moment itself.
    frequent = F.broadcast(items.select(_HASH).distinct())
    pairs = _pairs(log, frequent, times, settings, half_life)
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
    key = (AT, _HASH, c.ITEM_ID)
    weight = exact_sum(decay(US, times.us_of(AT), half_life)).alias("weight")
    seen = times.spread(log.select(_HASH, c.ITEM_ID, US, SEEN_FROM))
    summed = seen.groupBy(*key).agg(F.count("*").alias("n"), weight)
    return summed.where(F.col("n") >= settings.features.neighbor_min_events).select(*key, "weight")


def _pairs(log: DataFrame, frequent: DataFrame, times: Moments, settings: Settings, half_life: int) -> DataFrame:
    """(at, x, y, met), hashes, both ways: summed weights of meetings; nearer ones weigh more, and those in one session."""
    order = Window.partitionBy(c.USER_ID).orderBy(*[F.asc_nulls_last(name) for name in (_KNOWN_US, US, c.EVENT_ID)])
    reach, in_session = settings.features.neighbor_reach, settings.features.neighbor_session_weight
    event = F.struct(_HASH, _SESSION, US) if in_session != 1 else F.struct(_HASH)
    # Asked once an event and not once a meeting; the others stay, because they take up their places in the order.
    told = log.join(frequent.withColumn("frequent", F.lit(True)), on=_HASH, how="left")
    told = told.withColumn("event", F.when(F.col("frequent"), event))
    earlier = F.array(*[F.lag("event", step).over(order) for step in range(1, reach + 1)])
    near = F.lit(1.0) / F.sqrt(F.col("steps") + 1.0)
    if in_session != 1:
        near = near * F.when(_same_session(settings.features.session_gap), F.lit(in_session)).otherwise(1.0)
    met = (
        told.withColumn("earlier", earlier)
        .where("frequent")
        .select(_HASH, _SESSION, SEEN_FROM, US, F.posexplode("earlier").alias("steps", "other"))
        .where(F.col(f"other.{_HASH}") != F.col(_HASH))
        .select(
            F.least(_HASH, f"other.{_HASH}").alias("a"), F.greatest(_HASH, f"other.{_HASH}").alias("b"),
            SEEN_FROM, US, near.alias("near"),
        )
        # There are reach times as many meetings as events, most pairs meet once, and all of a part's are held at a time.
        .repartition(reach * settings.spark.shuffle_partitions, "a", "b")
    )  # fmt: skip
    together = settings.features.neighbor_min_together
    states = [
        state
        for index, us in enumerate(times.us)
        for state in _states(index, times.last, F.col("near") * decay(US, F.lit(us), half_life))
    ]
    often = met.groupBy("a", "b").agg(*states).where(F.col(f"n_{times.last}") >= together)
    each = F.explode(
        F.array(
            *[
                F.struct(F.lit(k).alias(AT), F.col(f"n_{k}").alias("n"), F.col(f"met_{k}").alias("met"))
                for k in range(len(times.us))
            ]
        )
    ).alias("state")
    at_each = often.select("a", "b", each).where((F.col("state.n") >= together) & (F.col("state.met") > 0))
    there, back = (
        F.struct(F.col("a").alias("x"), F.col("b").alias("y")),
        F.struct(F.col("b").alias("x"), F.col("a").alias("y")),
    )
    both = at_each.select("state", F.explode(F.array(there, back)).alias("side"))
    return both.select(f"state.{AT}", "side.x", "side.y", "state.met")


def _same_session(gap: timedelta) -> Column:
    mine, theirs = F.col(_SESSION), F.col(f"other.{_SESSION}")
    apart = F.abs(F.col(US) - F.col(f"other.{US}")) <= gap // timedelta(microseconds=1)
    return F.coalesce(mine == theirs, mine.isNull() & theirs.isNull() & apart)


def _states(index: int, last: int, weight: Column) -> tuple[Column, Column]:
    """How often a pair has met by the moment, and the summed weights."""
    if last == 0:  # the only moment sees all there is
        return F.count("*").alias("n_0"), exact_sum(weight).alias("met_0")
    seen = F.col(SEEN_FROM) <= index
    return F.count_if(seen).alias(f"n_{index}"), exact_sum(F.when(seen, weight)).alias(f"met_{index}")

"""``user_item_repeats``: what a user keeps coming back to, how often, how lately and how regularly."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import Settings
from features.contracts import USER_ITEM_REPEATS
from features.history import GAP_US, INCREMENT, SEVERAL, at_moments, history
from features.sums import VALUE, decay, exact_sum
from features.windows import AT, DAY_US, SEEN_FROM, US, Moments

#: Whoever has too many items keeps those with the most of this.
_ORDER = c.repeat_decayed("90d")
_PAIR = (*INCREMENT, c.ITEM_ID)


def user_item_repeats(
    events: DataFrame, moments: list[datetime], settings: Settings, users: DataFrame | None = None
) -> DataFrame:
    """Rows of ``user_item_repeats`` at every moment, ``features.repeats_per_user`` a user. ``events`` may be their ``history``."""
    times = Moments.of(moments)
    log = history(events, times, settings, users)
    states = _grown(log.where(~F.col(SEVERAL)), times).unionByName(_added_up(log.where(SEVERAL), times))
    best = Window.partitionBy(AT, c.USER_ID).orderBy(F.col(_ORDER).desc_nulls_last(), F.col(c.ITEM_ID).asc_nulls_last())
    kept = states.withColumn("place", F.row_number().over(best)).where(
        F.col("place") <= settings.features.repeats_per_user
    )
    return kept.select(
        times.as_of(AT),
        c.USER_ID,
        c.ITEM_ID,
        "repeat_count",
        "repeat_value",
        F.timestamp_micros("first_us").alias("repeat_first_ts"),
        F.timestamp_micros("last_us").alias("repeat_last_ts"),
        (F.col("median_us") / DAY_US).alias("repeat_gap_days"),
        *map(c.repeat_decayed, c.REPEAT_HALF_LIVES),
    ).select(*USER_ITEM_REPEATS.column_names)


def _grown(log: DataFrame, times: Moments) -> DataFrame:
    """States of the pairs with all events in one increment, most of them: nothing is to be added to it."""
    medians = _gaps(log).select(*_PAIR, _median("part").alias("median_us"))
    # The medians come as rows of their own: adding them up with the rest spares a join of two large tables.
    return _carried(_increments(log.unionByName(medians, allowMissingColumns=True), times), times)


def _added_up(log: DataFrame, times: Moments) -> DataFrame:
    """States of the other pairs: the sums of the increments up to each moment."""
    parts = at_moments(_gaps(log), times).groupBy(AT, c.USER_ID, c.ITEM_ID).agg(F.collect_list("part").alias("parts"))
    medians = parts.select(AT, c.USER_ID, c.ITEM_ID, _median(F.flatten("parts")).alias("median_us"))
    increments = _carried(_increments(log.withColumn("median_us", F.lit(None).cast("double")), times), times)
    return increments.unionByName(medians, allowMissingColumns=True).groupBy(AT, c.USER_ID, c.ITEM_ID).agg(
        F.sum("repeat_count").alias("repeat_count"),
        exact_sum("repeat_value", VALUE).alias("repeat_value"),
        F.min("first_us").alias("first_us"),
        F.max("last_us").alias("last_us"),
        F.max("median_us").alias("median_us"),
        *(exact_sum(c.repeat_decayed(name)).alias(c.repeat_decayed(name)) for name in c.REPEAT_HALF_LIVES),
    )  # fmt: skip


def _increments(log: DataFrame, times: Moments) -> DataFrame:
    """What each (user, item) gained between two moments; decayed counts refer to the later one."""
    reference = times.us_of(SEEN_FROM)
    weights = {name: decay(US, reference, seconds) for name, seconds in c.REPEAT_HALF_LIVES.items()}
    return log.groupBy(*_PAIR).agg(
        F.count(US).alias("repeat_count"),
        exact_sum(c.VALUE, VALUE).alias("repeat_value"),
        F.min(US).alias("first_us"),
        F.max(US).alias("last_us"),
        F.max("median_us").alias("median_us"),
        *(exact_sum(weight).alias(c.repeat_decayed(name)) for name, weight in weights.items()),
    )


def _carried(increments: DataFrame, times: Moments) -> DataFrame:
    """The increments at each moment, decayed counts carried from their reference to it."""
    later, earlier = times.us_of(AT), times.us_of(SEEN_FROM)
    decayed = (
        (F.col(c.repeat_decayed(name)) * decay(earlier, later, seconds)).alias(c.repeat_decayed(name))
        for name, seconds in c.REPEAT_HALF_LIVES.items()
    )
    kept = (AT, c.USER_ID, c.ITEM_ID, "repeat_count", "repeat_value", "first_us", "last_us", "median_us")
    return at_moments(increments, times).select(*kept, *decayed)


def _gaps(log: DataFrame) -> DataFrame:
    """The gaps of each (user, item) in each increment. Events at the same time are one active moment, with no gap."""
    return log.where(F.col(GAP_US) > 0).groupBy(*_PAIR).agg(F.collect_list(GAP_US).alias("part"))


def _median(gaps: Column | str) -> Column:
    """The median of an array; NULL if it is empty."""
    ordered = F.sort_array(gaps)
    size = F.size(ordered)
    lower, upper = F.get(ordered, F.floor((size - 1) / 2).cast("int")), F.get(ordered, F.floor(size / 2).cast("int"))
    return (lower + upper) / 2

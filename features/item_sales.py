"""How an item sells: totals, decayed sums, series, distinct users, and the gap until the same user takes it again."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.item_cycle import cycle_parts
from features.sums import decay, exact_parts
from features.windows import AT, HOUR_US, SECOND_US, SEEN_FROM, US, Moments, day_end_us

_KEY = (AT, c.ITEM_ID)
_HOURS_KEPT = 24 * c.DAY_BUCKETS
MONTH_US = c.WINDOWS["28d"] * SECOND_US


def totals(log: DataFrame, times: Moments) -> DataFrame:
    """One row a (moment, item): sums over all visible history. ``log`` is ``Moments.log(events)``.

    Each event is weighed at each moment itself: a sum carried from one moment to the next would differ in its last bits from
    the sum that a night alone makes, and a night that is run again must give the same bytes.
    """
    ends = day_end_us(times.us_of(AT))
    decayed = [part for s in c.ITEM_HALF_LIVES.values() for part in exact_parts(decay(US, ends, s))]
    return times.spread(log.select(c.ITEM_ID, US, SEEN_FROM)).groupBy(*_KEY).agg(
        F.count("*").alias("sum_events"),
        F.min(US).alias("sum_first_us"),
        F.max(US).alias("sum_last_us"),
        F.array(*decayed).alias("sum_decayed"),
        F.array(*cycle_parts()).alias("sum_cycle"),
    )  # fmt: skip


def series(log: DataFrame, times: Moments) -> DataFrame:
    """One row a (moment, item with a sale in the last 56 days): sum_hours and sum_days.

    Hour k ago is ``[moment - (k + 1) h, moment - k h)``. Events are counted by hour once, and hours are dealt to moments.
    Raises ValueError when moments are not whole hours apart.
    """
    newest, oldest = times.us[-1], times.us[0] - _HOURS_KEPT * HOUR_US
    if any((newest - us) % HOUR_US for us in times.us):
        raise ValueError("moments must be whole hours apart")
    hour = F.floor((F.lit(newest) - F.col(US) - 1) / HOUR_US)
    recent = log.where(F.col(US) >= oldest)
    counted = recent.groupBy(c.ITEM_ID, SEEN_FROM, hour.alias("hour")).agg(F.count("*").alias("n"))
    shift = F.floor((F.lit(newest) - times.us_of(AT)) / HOUR_US)
    hourly = (
        times.spread(counted)
        .withColumn("hour", (F.col("hour") - shift).cast("int"))
        .where(F.col("hour") < _HOURS_KEPT)
        .withColumn("day", F.floor(F.col("hour") / 24).cast("int"))
    )
    days = hourly.groupBy(*_KEY).agg(buckets("day", c.DAY_BUCKETS).alias("sum_days"))
    # Few items sell in any two days: their hours are summed on their own.
    newest_hours = hourly.where(F.col("hour") < c.HOUR_BUCKETS)
    hours = newest_hours.groupBy(*_KEY).agg(buckets("hour", c.HOUR_BUCKETS).alias("sum_hours"))
    return days.join(hours, on=list(_KEY), how="left")


def buckets(ago: str, most: int, count: str = "n") -> Column:
    """Sums of a count by buckets ago, as a series of ints, oldest first."""
    summed = (F.sum(F.when(F.col(ago) == k, F.col(count)).otherwise(0)) for k in reversed(range(most)))
    return F.array(*[one.cast("int") for one in summed])


def buyers(log: DataFrame, times: Moments) -> DataFrame:
    """One row a (moment, item): distinct users in the last 28 days, and the gaps between sales to the same user.

    All gaps between consecutive sales to a user sum up to last - first; there are n - 1 of them.
    """
    by_moment = []
    for k in range(len(times.us)):
        us = F.when(F.col(SEEN_FROM) <= k, F.col(US))
        state = F.struct(F.lit(k).alias(AT), F.count(us).alias("n"), F.min(us).alias("first"), F.max(us).alias("last"))
        by_moment.append(state)
    pairs = log.groupBy(c.USER_ID, c.ITEM_ID).agg(F.array(*by_moment).alias("states"))
    at = pairs.select(c.ITEM_ID, F.explode("states").alias("s")).where(F.col("s.n") > 0).select(c.ITEM_ID, "s.*")
    return at.groupBy(*_KEY).agg(
        F.count_if(F.col("last") >= times.us_of(AT) - MONTH_US).alias("sum_users_28d"),
        F.sum(F.col("n") - 1).alias("sum_gaps"),
        F.sum(F.col("last") - F.col("first")).alias("sum_span_us"),
    )

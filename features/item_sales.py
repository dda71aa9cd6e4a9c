"""How an item sells: windows, decayed sums, series, distinct users, and the gap until the same user takes it again."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.item_cycle import cycle_sums
from features.sums import decay, exact_sum
from features.windows import AT, DAY_US, HOUR_US, SECOND_US, SEEN_FROM, US, Moments

_KEY = (AT, c.ITEM_ID)
_HOURS_KEPT = 24 * c.DAY_BUCKETS


def totals(log: DataFrame, times: Moments) -> DataFrame:
    """One row a (moment, item): sums over all visible history. ``log`` is ``Moments.log(events)``.

    Each event is weighed at each moment itself: a sum carried from one moment to the next would differ in its last bits from
    the sum that a night alone makes, and a night that is run again must give the same bytes.
    """
    now = times.us_of(AT)
    return times.spread(log.select(c.ITEM_ID, US, SEEN_FROM)).groupBy(*_KEY).agg(
        F.count("*").alias("item_sales_all"),
        F.min(US).alias("first_us"),
        F.max(US).alias("last_us"),
        *cycle_sums(),
        *[exact_sum(decay(US, now, s)).alias(c.item_decayed(h)) for h, s in c.ITEM_HALF_LIVES.items()],
    )  # fmt: skip


def series(log: DataFrame, times: Moments) -> DataFrame:
    """One row a (moment, item with a sale in the last 56 days): item_hours, item_days and windowed sales.

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
    windows = [
        F.sum(F.when(F.col("hour") * 3_600 < s, F.col("n")).otherwise(0)).alias(c.item_sales(w))
        for w, s in c.WINDOWS.items()
    ]
    days = hourly.groupBy(*_KEY).agg(*windows, _dense("day", c.DAY_BUCKETS).alias("item_days"))
    # Few items sell in any two days: their hours are summed on their own.
    newest_hours = hourly.where(F.col("hour") < c.HOUR_BUCKETS)
    hours = newest_hours.groupBy(*_KEY).agg(_dense("hour", c.HOUR_BUCKETS).alias("item_hours"))
    return days.join(hours, on=list(_KEY), how="left")


def _dense(bucket: str, buckets: int) -> Column:
    """Sums of ``n`` by buckets ago, as a series of ints, oldest first."""
    ago = range(buckets - 1, -1, -1)
    return F.array(*[F.sum(F.when(F.col(bucket) == k, F.col("n")).otherwise(0)).cast("int") for k in ago])


def buyers(log: DataFrame, times: Moments) -> DataFrame:
    """One row a (moment, item): distinct users in the last 28 days, and mean days between two sales to the same user.

    The mean of all gaps between consecutive sales to a user is (last - first) over (n - 1), summed over users.
    """
    by_moment = []
    for k in range(len(times.us)):
        us = F.when(F.col(SEEN_FROM) <= k, F.col(US))
        state = F.struct(F.lit(k).alias(AT), F.count(us).alias("n"), F.min(us).alias("first"), F.max(us).alias("last"))
        by_moment.append(state)
    pairs = log.groupBy(c.USER_ID, c.ITEM_ID).agg(F.array(*by_moment).alias("states"))
    at = pairs.select(c.ITEM_ID, F.explode("states").alias("s")).where(F.col("s.n") > 0).select(c.ITEM_ID, "s.*")
    recent = F.col("last") >= times.us_of(AT) - c.WINDOWS["28d"] * SECOND_US
    gaps, span = F.sum(F.col("n") - 1), F.sum(F.col("last") - F.col("first"))
    return at.groupBy(*_KEY).agg(
        F.count_if(recent).alias("item_users_28d"),
        F.when(gaps > 0, span / gaps / DAY_US).alias("item_repurchase_days"),
    )

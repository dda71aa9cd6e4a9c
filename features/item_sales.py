"""How an item sells: windows, decayed sums, series, distinct users, and the gap until the same user takes it again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.item_cycle import cycle_sums
from features.sums import exact_sum
from features.windows import (
    BUCKET,
    DAY_US,
    EVENT_US,
    HOUR_US,
    MOMENT_US,
    bucket_us,
    decay,
    in_window,
    micros,
    to_moments,
    with_bucket,
)

_KEY = (c.AS_OF_TS, c.ITEM_ID)
_HOURS_KEPT = 24 * c.DAY_BUCKETS


def totals(events: DataFrame, moments: Sequence[datetime]) -> DataFrame:
    """One row a (moment, item): sums over all visible history, by increments a bucket and running sums over buckets."""
    age = bucket_us(moments) - F.col(EVENT_US)
    increments = with_bucket(events, moments).groupBy(c.ITEM_ID, BUCKET).agg(
        F.count("*").alias("n"),
        F.min(EVENT_US).alias("first_us"),
        F.max(EVENT_US).alias("last_us"),
        *cycle_sums(),
        *[exact_sum(decay(age, s)).alias(c.item_decayed(h)) for h, s in c.ITEM_HALF_LIVES.items()],
    )  # fmt: skip
    waited = F.col(MOMENT_US) - F.col("ref")
    return to_moments(increments.withColumn("ref", bucket_us(moments)), moments).groupBy(*_KEY, MOMENT_US).agg(
        F.sum("n").alias("item_sales_all"),
        F.min("first_us").alias("first_us"),
        F.max("last_us").alias("last_us"),
        *[exact_sum(name).alias(name) for name in ("day_cos", "day_sin", "week_cos", "week_sin")],
        *[exact_sum(F.col(c.item_decayed(h)) * decay(waited, s)).alias(c.item_decayed(h)) for h, s in c.ITEM_HALF_LIVES.items()],
    )  # fmt: skip


def series(events: DataFrame, moments: Sequence[datetime]) -> DataFrame:
    """One row a (moment, item with a sale in the last 56 days): item_hours, item_days and windowed sales.

    Hour k ago is ``[moment - (k + 1) h, moment - k h)``. Events are counted by hour once, and hours are dealt to moments.
    Raises ValueError when moments are not whole hours apart.
    """
    newest = micros(moments[-1])
    if any((newest - micros(m)) % HOUR_US for m in moments):
        raise ValueError("moments must be whole hours apart")
    hour = F.floor((F.lit(newest) - F.col(EVENT_US) - 1) / F.lit(HOUR_US))
    counted = with_bucket(events, moments).groupBy(c.ITEM_ID, BUCKET, hour.alias("hour")).agg(F.count("*").alias("n"))
    shift = F.floor((F.lit(newest) - F.col(MOMENT_US)) / F.lit(HOUR_US))
    hourly = (
        to_moments(counted, moments)
        .withColumn("ago", (F.col("hour") - shift).cast("int"))
        .where(F.col("ago") < _HOURS_KEPT)
        .groupBy(*_KEY, "ago")
        .agg(F.sum("n").alias("n"))
    )
    sums = [
        F.sum(F.when(F.col("ago") * 3_600 < s, F.col("n")).otherwise(F.lit(0))).alias(c.item_sales(w))
        for w, s in c.WINDOWS.items()
    ]
    hours = F.collect_list(F.when(F.col("ago") < c.HOUR_BUCKETS, F.struct("ago", F.col("n").cast("int"))))
    daily = hourly.groupBy(*_KEY, F.floor(F.col("ago") / F.lit(24)).cast("int").alias("ago")).agg(
        F.sum("n").cast("int").alias("n")
    )
    days = daily.groupBy(*_KEY).agg(F.collect_list(F.struct("ago", "n")).alias("days"))
    return (
        hourly.groupBy(*_KEY)
        .agg(*sums, hours.alias("hours"))
        .join(days, on=list(_KEY), how="inner")
        .select(
            *_KEY,
            *[c.item_sales(w) for w in c.WINDOWS],
            _dense(F.col("hours"), c.HOUR_BUCKETS).alias("item_hours"),
            _dense(F.col("days"), c.DAY_BUCKETS).alias("item_days"),
        )
    )


def _dense(entries: Column, buckets: int) -> Column:
    """Sparse (buckets ago, n) as a dense series of ints, oldest first."""
    n_of = F.map_from_entries(entries)
    return F.transform(
        F.sequence(F.lit(buckets - 1), F.lit(0)), lambda ago: F.coalesce(F.try_element_at(n_of, ago), F.lit(0))
    )


def buyers(events: DataFrame, moments: Sequence[datetime]) -> DataFrame:
    """One row a (moment, item): distinct users in the last 28 days, and mean days between two sales to the same user.

    The mean of all gaps between consecutive sales to a user is (last - first) over (n - 1), summed over users.
    """
    pairs = with_bucket(events, moments).groupBy(c.USER_ID, c.ITEM_ID, BUCKET).agg(
        F.count("*").alias("n"), F.min(EVENT_US).alias("first"), F.max(EVENT_US).alias(EVENT_US)
    )  # fmt: skip
    at = to_moments(pairs, moments).groupBy(*_KEY, MOMENT_US, c.USER_ID).agg(
        F.sum("n").alias("n"), F.min("first").alias("first"), F.max(EVENT_US).alias(EVENT_US)
    )  # fmt: skip
    gaps, span = F.sum(F.col("n") - 1), F.sum(F.col(EVENT_US) - F.col("first"))
    return at.groupBy(*_KEY).agg(
        F.count_if(in_window(c.WINDOWS["28d"])).alias("item_users_28d"),
        F.when(gaps > 0, span / gaps / F.lit(float(DAY_US))).alias("item_repurchase_days"),
    )

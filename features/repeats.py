"""``user_item_repeats``: how often, how lately and how regularly a user takes an item."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import Settings
from features.contracts import USER_ITEM_REPEATS
from features.sums import VALUE, exact_sum
from features.windows import BUCKET, DAY_US, EVENT_US, MOMENT_US, bucket_us, decay, to_moments, with_bucket


def pair_increments(events: DataFrame, moments: Sequence[datetime]) -> DataFrame:
    """One row a (user, item, bucket): count, value, first and last, the distinct times, and decayed counts at the bucket's moment."""
    age = bucket_us(moments) - F.col(EVENT_US)
    marked = with_bucket(events, moments)
    sums = [exact_sum(decay(age, s)).alias(f"d_{h}") for h, s in c.REPEAT_HALF_LIVES.items()]
    return marked.groupBy(c.USER_ID, c.ITEM_ID, BUCKET).agg(
        F.count("*").alias("n"),
        exact_sum(c.VALUE, VALUE).alias("value"),
        F.min(EVENT_US).alias("first"),
        F.max(EVENT_US).alias("last"),
        F.collect_set(EVENT_US).alias("times"),
        *sums,
    )


def user_item_repeats(
    events: DataFrame, moments: Sequence[datetime], settings: Settings, users: DataFrame
) -> DataFrame:
    """One row a (moment, user of ``users``, item), the ``repeats_per_user`` heaviest by decayed count."""
    joined = events.join(users.select(c.USER_ID).distinct(), on=c.USER_ID, how="left_semi")
    rows = to_moments(pair_increments(joined, moments).withColumn("ref", bucket_us(moments)), moments).join(
        users, on=[c.AS_OF_TS, c.USER_ID], how="left_semi"
    )
    waited = F.col(MOMENT_US) - F.col("ref")
    combined = rows.groupBy(c.AS_OF_TS, c.USER_ID, c.ITEM_ID).agg(
        F.sum("n").alias("repeat_count"),
        exact_sum("value", VALUE).alias("repeat_value"),
        F.min("first").alias("first"),
        F.max("last").alias("last"),
        F.collect_list("times").alias("times"),
        *[
            exact_sum(F.col(f"d_{h}") * decay(waited, s)).alias(c.repeat_decayed(h))
            for h, s in c.REPEAT_HALF_LIVES.items()
        ],
    )
    heaviest = Window.partitionBy(c.AS_OF_TS, c.USER_ID).orderBy(
        F.desc_nulls_last(c.repeat_decayed("90d")), F.asc_nulls_last(c.ITEM_ID)
    )
    kept = combined.withColumn("place", F.row_number().over(heaviest)).where(
        F.col("place") <= settings.features.repeats_per_user
    )
    times = F.sort_array(F.array_distinct(F.flatten("times")))
    return (
        kept.withColumn("times", times)
        .withColumn("repeat_gap_days", _median_gap(F.col("times")))
        .withColumn("repeat_first_ts", F.timestamp_micros("first"))
        .withColumn("repeat_last_ts", F.timestamp_micros("last"))
        .select(*USER_ITEM_REPEATS.column_names)
    )


def _median_gap(times):
    """Median days between the sorted distinct times; NULL with fewer than two."""
    gaps = F.sort_array(
        F.transform(F.sequence(F.lit(1), F.size(times) - 1), lambda i: F.get(times, i) - F.get(times, i - 1))
    )
    n = F.size(gaps)
    low, high = F.get(gaps, F.floor((n - 1) / 2).cast("int")), F.get(gaps, F.floor(n / 2).cast("int"))
    return F.when(F.size(times) > 1, (low + high) / F.lit(2.0) / F.lit(float(DAY_US)))

"""``user_item_repeats``: what a user keeps coming back to, how often, how lately and how regularly."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import Settings
from features.contracts import USER_ITEM_REPEATS
from features.history import GAP_US, at_moments, history
from features.sums import VALUE, decay, exact_sum
from features.windows import AT, DAY_US, US, Moments

#: Whoever has too many items keeps those with the most of this.
_ORDER = c.repeat_decayed("90d")


def user_item_repeats(
    events: DataFrame, moments: list[datetime], settings: Settings, users: DataFrame | None = None
) -> DataFrame:
    """Rows of ``user_item_repeats`` at every moment, ``features.repeats_per_user`` a user. ``events`` may be their ``history``."""
    times = Moments.of(moments)
    log = history(events, times, settings, users)
    states = _states(at_moments(log, times), times)
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


def _states(log: DataFrame, times: Moments) -> DataFrame:
    """One row a (moment, user, item).

    Each event is weighed at each moment itself: a sum carried from one moment to the next would differ in its last bits from
    the sum that a night alone makes, and a night that is run again must give the same bytes.
    """
    now = times.us_of(AT)
    # Events at the same time are one active moment, with no gap.
    gaps = F.collect_list(F.when(F.col(GAP_US) > 0, F.col(GAP_US)))
    return (
        log.groupBy(AT, c.USER_ID, c.ITEM_ID)
        .agg(
            F.count("*").alias("repeat_count"),
            exact_sum(c.VALUE, VALUE).alias("repeat_value"),
            F.min(US).alias("first_us"),
            F.max(US).alias("last_us"),
            gaps.alias("gaps"),
            *[exact_sum(decay(US, now, s)).alias(c.repeat_decayed(h)) for h, s in c.REPEAT_HALF_LIVES.items()],
        )
        .withColumn("median_us", _median("gaps"))
    )


def _median(gaps: Column | str) -> Column:
    """The median of an array; NULL if it is empty."""
    ordered = F.sort_array(gaps)
    size = F.size(ordered)
    lower, upper = F.get(ordered, F.floor((size - 1) / 2).cast("int")), F.get(ordered, F.floor(size / 2).cast("int"))
    return (lower + upper) / 2

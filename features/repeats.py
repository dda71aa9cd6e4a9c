"""``user_item_repeats``: what a user keeps coming back to, how often, how lately and how regularly."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import Settings
from features.contracts import USER_ITEM_REPEATS
from features.history import GAP_US, TIMELINE, WANTED, history, wanted_at
from features.sums import VALUE, decay, exact_sum
from features.windows import AT, DAY_US, SEEN_FROM, SEEN_TO, US, Moments

#: Whoever has too many items keeps those with the most of this.
_ORDER = c.repeat_decayed("90d")


def user_item_repeats(
    events: DataFrame, moments: list[datetime], settings: Settings, users: DataFrame | None = None
) -> DataFrame:
    """Rows of ``user_item_repeats`` at every moment, ``settings.repeats_per_user`` a user. ``events`` may be their ``history``."""
    times = Moments.of(moments)
    states = _states(history(events, times, settings, users), times)
    best = Window.partitionBy(*TIMELINE, AT).orderBy(F.col(_ORDER).desc_nulls_last(), F.col(c.ITEM_ID).asc_nulls_last())
    kept = states.withColumn("place", F.row_number().over(best)).where(F.col("place") <= settings.repeats_per_user)
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
    """One row a (timeline, item, moment ``at``): a column a moment first, so that no event is copied, then a row a moment.

    Each event is weighed at each moment itself: a sum carried from one moment to the next would differ in its last bits from
    the sum that a night alone makes, and a night that is run again must give the same bytes.
    """
    pair, indexes = [*TIMELINE, c.ITEM_ID], range(len(times.us))
    # WANTED and SEEN_TO are the timeline's: all its rows have the same.
    sums = log.groupBy(*pair, WANTED, SEEN_TO).agg(
        F.min(US).alias("first_us"), *[column for k in indexes for column in _at(k, times.us[k])]
    )
    names = ["repeat_count", "repeat_value", "last_us", "median_us", *map(c.repeat_decayed, c.REPEAT_HALF_LIVES)]
    each = [F.struct(F.lit(k).alias(AT), *[F.col(f"{name}_{k}").alias(name) for name in names]) for k in indexes]
    # Lists apart from sums: Spark adds up in compiled loops only where nothing is collected.
    pairs = sums.join(_medians(log, times).hint("shuffle_hash"), on=pair, how="left")
    at = pairs.select(*TIMELINE, c.ITEM_ID, WANTED, SEEN_TO, "first_us", F.explode(F.array(*each)).alias("state"))
    seen = (F.col("state.repeat_count") > 0) & (F.col(f"state.{AT}") <= F.col(SEEN_TO))
    return at.where(seen & wanted_at(F.col(f"state.{AT}"))).select(*TIMELINE, c.ITEM_ID, "first_us", "state.*")


def _at(index: int, moment_us: int) -> list[Column]:
    """Sums over what one moment sees."""
    seen = F.col(SEEN_FROM) <= index
    weights = {h: F.when(seen, decay(US, F.lit(moment_us), s)) for h, s in c.REPEAT_HALF_LIVES.items()}
    return [
        F.count_if(seen).alias(f"repeat_count_{index}"),
        exact_sum(F.when(seen, F.col(c.VALUE)), VALUE).alias(f"repeat_value_{index}"),
        F.max(F.when(seen, F.col(US))).alias(f"last_us_{index}"),
        *[exact_sum(weight).alias(f"{c.repeat_decayed(h)}_{index}") for h, weight in weights.items()],
    ]


def _medians(log: DataFrame, times: Moments) -> DataFrame:
    """The median gap of each (timeline, item) with one, a column ``median_us_k`` a moment; NULL where it sees no gap."""
    # Events at the same time are one active moment, with no gap.
    gaps = log.where(F.col(GAP_US) > 0).groupBy(*TIMELINE, c.ITEM_ID)
    ordered = gaps.agg(F.sort_array(F.collect_list(F.struct(GAP_US, SEEN_FROM))).alias("gaps"))
    medians = [_middle(_seen_at(k)).alias(f"median_us_{k}") for k in range(len(times.us))]
    return ordered.select(*TIMELINE, c.ITEM_ID, *medians)


def _seen_at(index: int) -> Column:
    return F.filter("gaps", lambda gap: gap[SEEN_FROM] <= index)


def _middle(ordered: Column) -> Column:
    size = F.size(ordered)
    lower, upper = F.floor((size - 1) / 2).cast("int"), F.floor(size / 2).cast("int")
    return (F.get(ordered, lower)[GAP_US] + F.get(ordered, upper)[GAP_US]) / 2

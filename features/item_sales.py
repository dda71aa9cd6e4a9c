"""How an item sells: totals, decayed sums, series, distinct users, and the gap until the same user takes it again."""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame, GroupedData
from pyspark.sql import functions as F

from conf import columns as c
from features.item_cycle import cycle_parts
from features.sums import decay, exact_parts
from features.windows import AT, DAY_US, HOUR_US, SECOND_US, SEEN_FROM, US, Moments, day_end_us

_KEY = (AT, c.ITEM_ID)
MONTH_US = c.WINDOWS["28d"] * SECOND_US


def totals(log: DataFrame, times: Moments) -> DataFrame:
    """One row a (moment, item): sums over all visible history. ``log`` is ``Moments.log(events)``.

    Each event is weighed at each moment itself: a sum carried from one moment to the next would differ in its last bits from
    the sum that a night alone makes, and a night that is run again must give the same bytes.
    """
    decayed = decayed_parts(day_end_us(times.us_of(AT)))
    return times.spread(log.select(c.ITEM_ID, US, SEEN_FROM)).groupBy(*_KEY).agg(
        F.count("*").alias("sum_events"),
        F.min(US).alias("sum_first_us"),
        F.max(US).alias("sum_last_us"),
        F.array(*decayed).alias("sum_decayed"),
        F.array(*cycle_parts()).alias("sum_cycle"),
    )  # fmt: skip


def decayed_parts(end_us: Column) -> list[Column]:
    """Exact parts (whole, rest) of the decayed sums, in the order of ``ITEM_HALF_LIVES``; NULL counts as nothing."""
    return [part for s in c.ITEM_HALF_LIVES.values() for part in exact_parts(decay(US, end_us, s))]


def series(log: DataFrame, times: Moments) -> DataFrame:
    """One row a (moment, item with a sale in the last 56 days): sum_hours and sum_days.

    Hour k ago is ``[moment - (k + 1) h, moment - k h)``. Events are counted by day once (by hour, where moments are not whole
    days apart), and these are dealt to moments. Raises ValueError when moments are not whole hours apart.
    """
    newest = times.us[-1]
    if any((newest - us) % HOUR_US for us in times.us):
        raise ValueError("moments must be whole hours apart")
    cell = HOUR_US if any((newest - us) % DAY_US for us in times.us) else DAY_US
    days = _dealt(log, times, cell, DAY_US, c.DAY_BUCKETS).agg(buckets("ago", c.DAY_BUCKETS).alias("sum_days"))
    hours = _dealt(log, times, HOUR_US, HOUR_US, c.HOUR_BUCKETS).agg(buckets("ago", c.HOUR_BUCKETS).alias("sum_hours"))
    return days.join(hours, on=list(_KEY), how="left")


def _dealt(log: DataFrame, times: Moments, cell_us: int, bucket_us: int, most: int) -> GroupedData:
    """Counts ``n`` of (moment, item), by buckets ``ago``; each bucket is a whole number of cells, in which events are counted."""
    newest, span = times.us[-1], most * bucket_us
    # Few events lie in the last two days of some moment: the others are left out before anything is counted.
    near = [(F.col(US) >= us - span) & (F.col(US) < us) for us in times.us]
    cell = F.floor((F.lit(newest) - F.col(US) - 1) / cell_us)
    counted = log.where(reduce(Column.__or__, near)).groupBy(c.ITEM_ID, SEEN_FROM, cell.alias("cell")).agg(F.count("*").alias("n"))
    age = F.col("cell") * cell_us - (F.lit(newest) - times.us_of(AT))
    ago = F.floor(age / bucket_us).cast("int")
    return times.spread(counted).withColumn("ago", ago).where(F.col("ago") < most).groupBy(*_KEY)


def buckets(ago: str, most: int) -> Column:
    """Sums of ``n`` by buckets ago, as a series of ints, oldest first."""
    summed = (F.sum(F.when(F.col(ago) == k, F.col("n")).otherwise(0)) for k in reversed(range(most)))
    return F.array(*[one.cast("int") for one in summed])


def buyers(log: DataFrame, times: Moments) -> DataFrame:
    """One row a (moment, item): distinct users in the last 28 days, and the gaps between sales to the same user.

    All gaps between consecutive sales to a user sum up to last - first; there are n - 1 of them.
    """
    at = _pairs(log, times)
    return at.groupBy(*_KEY).agg(
        F.count_if(F.col("last") >= times.us_of(AT) - MONTH_US).alias("sum_users_28d"),
        F.sum(F.col("n") - 1).alias("sum_gaps"),
        F.sum(F.col("last") - F.col("first")).alias("sum_span_us"),
    )


def _pairs(log: DataFrame, times: Moments) -> DataFrame:
    """(at, item, n, first, last): the visible events of each pair of user and item."""

    def state(us: Column) -> list[Column]:
        return [F.count(us).alias("n"), F.min(us).alias("first"), F.max(us).alias("last")]

    pair = [c.USER_ID, c.ITEM_ID]
    if times.last == 0:
        return log.groupBy(*pair).agg(*state(F.col(US))).withColumn(AT, F.lit(0))
    seen = [F.when(F.col(SEEN_FROM) <= k, F.col(US)) for k in range(len(times.us))]
    by_moment = F.array(*[F.struct(F.lit(k).alias(AT), *state(us)) for k, us in enumerate(seen)])
    states = log.groupBy(*pair).agg(by_moment.alias("states")).select(c.ITEM_ID, F.explode("states").alias("s"))
    return states.where(F.col("s.n") > 0).select(c.ITEM_ID, "s.*")

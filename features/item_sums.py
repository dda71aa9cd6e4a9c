"""``item_sums``: all that is counted about an item, at a moment from its whole history, and at an hour from the night before.

A night counts everything. An hour reads the night's sums, the events that the night did not know, and of older events only
those that change their bucket or leave a window in between. Sums are integers, so both ways give the same rows; only where the
UTC day has changed since the night are decayed sums scaled, and may differ in their last bits.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.contracts import ITEM_SUMS
from features.item_cycle import CYCLE_SUMS
from features.item_sales import MONTH_US, buyers, series, sparse_buckets, totals
from features.refresh import leaving_month
from features.sums import scaled_parts
from features.windows import AT, DAY_US, HOUR_US, SECOND_US, US, Moments, between, day_end_us, to_micros, within

_NEW = "is_new"
#: The job knows which version of the table it has read, and adds it.
SUMS = [name for name in ITEM_SUMS.column_names if name not in (c.AS_OF_TS, c.EVENTS_VERSION)]


def item_sums(events: DataFrame, moments: list[datetime]) -> DataFrame:
    """One row a (moment, item with a visible event)."""
    times = Moments.of(moments)
    log, key = times.log(events), [AT, c.ITEM_ID]
    rows = totals(log, times).join(series(log, times), on=key, how="left").join(buyers(log, times), on=key, how="inner")
    return rows.withColumns(_empty_series()).select(times.as_of(AT), *SUMS)


def refreshed_item_sums(
    sums: DataFrame, before: DataFrame, new: DataFrame, night: datetime, as_of: datetime, histories: DataFrame | None = None
) -> DataFrame:
    """What ``item_sums(before ∪ new, [as_of])`` gives, from the night's ``sums``.

    ``before`` are the events that the night counted, ``new`` the others that are visible at as_of; late ones among them are
    counted where they belong. Of ``before`` a few hours are read, and all events of the pairs of user and item that are new
    or leave the last 28 days: from ``histories`` (``asked_histories``), where these have been read already.
    """
    hour = Moments.of([as_of])
    added = totals(hour.log(new), hour).drop(AT)
    added = added.select(c.ITEM_ID, *[F.col(name).alias(f"new_{name}") for name in added.columns if name != c.ITEM_ID])
    pairs = _pairs(before if histories is None else histories, new, night, as_of)
    parts = [added, _moved(before, new, night, as_of), _newest_hours(before, new, as_of), pairs]
    known = sums.drop(c.AS_OF_TS, "sum_hours", c.EVENTS_VERSION)
    rows = known.join(_side_by_side(parts), on=c.ITEM_ID, how="full_outer")
    counts = {name: _plus(name) for name in ("sum_events", "sum_users_28d", "sum_gaps", "sum_span_us")}
    ends = [day_end_us(to_micros(moment)) for moment in (night, as_of)]
    return rows.select(
        hour.as_of(F.lit(0)),
        c.ITEM_ID,
        *[total.alias(name) for name, total in counts.items()],
        F.least("sum_first_us", "new_sum_first_us").alias("sum_first_us"),
        F.greatest("sum_last_us", "new_sum_last_us").alias("sum_last_us"),
        _added(_aged(ends[1] - ends[0]), "new_sum_decayed", 2 * len(c.ITEM_HALF_LIVES)).alias("sum_decayed"),
        _added(F.col("sum_cycle"), "new_sum_cycle", 2 * CYCLE_SUMS).alias("sum_cycle"),
        _or_zeros("sum_hours", c.HOUR_BUCKETS).alias("sum_hours"),
        _days((as_of - night) // timedelta(days=1)).alias("sum_days"),
    ).select(c.AS_OF_TS, *SUMS)


def _side_by_side(parts: list[DataFrame]) -> DataFrame:
    """One row an item with the columns of all parts. Each part has an item once: stacked they move once, joined each time."""
    stacked = reduce(lambda above, below: above.unionByName(below, allowMissingColumns=True), parts)
    columns = [name for name in stacked.columns if name != c.ITEM_ID]
    return stacked.groupBy(c.ITEM_ID).agg(*[F.first(name, ignorenulls=True).alias(name) for name in columns])


def _empty_series() -> dict[str, Column]:
    return {"sum_hours": _or_zeros("sum_hours", c.HOUR_BUCKETS), "sum_days": _or_zeros("sum_days", c.DAY_BUCKETS)}


def _or_zeros(name: str, length: int) -> Column:
    return F.coalesce(name, F.array_repeat(F.lit(0), length))


def _plus(name: str) -> Column:
    nothing = F.lit(0).cast("bigint")
    return F.coalesce(F.col(name), nothing) + F.coalesce(F.col(f"new_{name}"), nothing)


def _added(known: Column, new: str, length: int) -> Column:
    nothing = F.array_repeat(F.lit(0).cast("bigint"), length)
    return F.zip_with(F.coalesce(known, nothing), F.coalesce(F.col(new), nothing), lambda a, b: a + b)


def _aged(us: int) -> Column:
    """The night's decayed parts, referred to the end of the day of as_of."""
    if us == 0:
        return F.col("sum_decayed")
    parts: list[Column] = []
    for k, half_life in enumerate(c.ITEM_HALF_LIVES.values()):
        factor = 0.5 ** (us / (half_life * SECOND_US))
        parts += scaled_parts(F.get("sum_decayed", 2 * k), F.get("sum_decayed", 2 * k + 1), factor)
    return F.when(F.col("sum_decayed").isNotNull(), F.array(*parts))


def _moved(before: DataFrame, new: DataFrame, night: datetime, as_of: datetime) -> DataFrame:
    """(item, moved, new_days): sales that pass from a day's bucket to the next one since the night, and new sales by day.

    With as_of a whole number of days and r after the night, these are the first r of each of the night's days.
    """
    whole = (as_of - night) // timedelta(days=1)
    rest = as_of - night - whole * timedelta(days=1)
    ago_us = F.lit(to_micros(night)) - F.unix_micros(c.EVENT_TS) - 1
    day = F.floor(ago_us / DAY_US).cast("int")
    starts = [night - timedelta(days=k) for k in range(1, c.DAY_BUCKETS + 1)]
    passing = within(before, [(start, start + rest) for start in starts])
    age = F.floor((F.lit(to_micros(as_of)) - F.unix_micros(c.EVENT_TS) - 1) / DAY_US).cast("int")
    fresh = new.select(c.ITEM_ID, age.alias("day")).where(F.col("day") < c.DAY_BUCKETS)
    sides = passing.select(c.ITEM_ID, day.alias("day"), F.lit(1).alias("n"), F.lit(0).alias("m")).unionByName(
        fresh.withColumns({"n": F.lit(0), "m": F.lit(1)})
    )
    counted = sides.groupBy(c.ITEM_ID, "day").agg(F.sum("n").alias("moved"), F.sum("m").alias("new"))
    return counted.groupBy(c.ITEM_ID).agg(
        sparse_buckets("day", c.DAY_BUCKETS, "moved").alias("moved"),
        sparse_buckets("day", c.DAY_BUCKETS, "new").alias("new_days"),
    )


def _days(whole: int) -> Column:
    """The series of days at as_of. Series are oldest first: what moves in bucket i goes on to bucket i - 1 - whole."""
    size = c.DAY_BUCKETS
    night, moved, new = (_or_zeros(name, size) for name in ("sum_days", "moved", "new_days"))
    stay = F.zip_with(night, moved, lambda n, m: n - m)
    come = F.concat(F.slice(moved, 2, size - 1), F.array(F.lit(0)))
    known = F.zip_with(stay, come, lambda a, b: a + b)
    shifted = F.slice(F.concat(known, F.array_repeat(F.lit(0), min(whole, size))), -size, size)
    return F.transform(F.zip_with(shifted, new, lambda a, b: a + b), lambda n: n.cast("int"))


def _newest_hours(before: DataFrame, new: DataFrame, as_of: datetime) -> DataFrame:
    """(item, sum_hours) of the items with a sale in the last two days, counted anew: little is read."""
    start = as_of - timedelta(hours=c.HOUR_BUCKETS)
    both = reduce(DataFrame.unionByName, [between(side, start, as_of).select(c.ITEM_ID, c.EVENT_TS) for side in (before, new)])
    hour = F.floor((F.lit(to_micros(as_of)) - F.unix_micros(c.EVENT_TS) - 1) / HOUR_US).cast("int")
    counted = both.groupBy(c.ITEM_ID, hour.alias("hour")).agg(F.count("*").alias("n"))
    return counted.groupBy(c.ITEM_ID).agg(sparse_buckets("hour", c.HOUR_BUCKETS, "n").alias("sum_hours"))


def _pairs(before: DataFrame, new: DataFrame, night: datetime, as_of: datetime) -> DataFrame:
    """(item, changes of users_28d, gaps and span) by the pairs of user and item that are new or leave the 28 days."""
    pair = [c.USER_ID, c.ITEM_ID]
    asked = new.select(*pair).unionByName(leaving_month(before, night, as_of)).distinct()
    both = before.withColumn(_NEW, F.lit(False)).unionByName(new.withColumn(_NEW, F.lit(True)))
    log = both.select(*pair, F.unix_micros(c.EVENT_TS).alias(US), _NEW).join(F.broadcast(asked), on=pair, how="left_semi")
    then = F.when(~F.col(_NEW), F.col(US))
    states = log.groupBy(*pair).agg(
        F.count(then).alias("n0"), F.min(then).alias("first0"), F.max(then).alias("last0"),
        F.count("*").alias("n"), F.min(US).alias("first"), F.max(US).alias("last"),
    )  # fmt: skip
    had = F.coalesce(F.col("last0") >= to_micros(night) - MONTH_US, F.lit(False)).cast("bigint")
    has = (F.col("last") >= to_micros(as_of) - MONTH_US).cast("bigint")
    return states.groupBy(c.ITEM_ID).agg(
        F.sum(has - had).alias("new_sum_users_28d"),
        F.sum(F.col("n") - 1 - F.greatest(F.col("n0") - 1, F.lit(0))).alias("new_sum_gaps"),
        F.sum(F.col("last") - F.col("first") - F.coalesce(F.col("last0") - F.col("first0"), F.lit(0))).alias("new_sum_span_us"),
    )

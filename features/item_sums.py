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
from features.item_cycle import CYCLE_SUMS, cycle_parts
from features.item_sales import MONTH_US, buckets, buyers, decayed_parts, series, totals
from features.refresh import leaving_month
from features.sums import scaled_parts
from features.windows import AT, SECOND_US, US, Moments, day_end_us, to_micros, visible, within

_NEW = "is_new"
_SERIES = {"hours": (c.HOUR_BUCKETS, timedelta(hours=1)), "days": (c.DAY_BUCKETS, timedelta(days=1))}
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
    new = visible(new, as_of)
    pairs = _pairs(before if histories is None else histories, new, night, as_of)
    parts = [pairs, _fresh(new, as_of), *[_rebucketed(before, new, night, as_of, name) for name in _SERIES]]
    known = sums.drop(c.AS_OF_TS, c.EVENTS_VERSION)
    rows = known.join(_changes(parts), on=c.ITEM_ID, how="full_outer")
    counts = {name: _plus(name) for name in ("sum_events", "sum_users_28d", "sum_gaps", "sum_span_us")}
    ends = [day_end_us(to_micros(moment)) for moment in (night, as_of)]
    return rows.select(
        Moments.of([as_of]).as_of(F.lit(0)),
        c.ITEM_ID,
        *[total.alias(name) for name, total in counts.items()],
        F.least("sum_first_us", "new_sum_first_us").alias("sum_first_us"),
        F.greatest("sum_last_us", "new_sum_last_us").alias("sum_last_us"),
        _added(_aged(ends[1] - ends[0]), "new_sum_decayed", 2 * len(c.ITEM_HALF_LIVES)).alias("sum_decayed"),
        _added(F.col("sum_cycle"), "new_sum_cycle", 2 * CYCLE_SUMS).alias("sum_cycle"),
        *[_series(name, (as_of - night) // bucket) for name, (_, bucket) in _SERIES.items()],
    ).select(c.AS_OF_TS, *SUMS)


def _changes(parts: list[DataFrame]) -> DataFrame:
    """One row an item from parts that have one each, every column in one part only. Stacked, as joins take far longer to plan."""
    rows = reduce(lambda above, below: above.unionByName(below, allowMissingColumns=True), parts)
    return rows.groupBy(c.ITEM_ID).agg(*[F.max(name).alias(name) for name in rows.columns if name != c.ITEM_ID])


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


def _fresh(new: DataFrame, as_of: datetime) -> DataFrame:
    """The sums of what is new."""
    return Moments.of([as_of]).log(new).groupBy(c.ITEM_ID).agg(
        F.count("*").alias("new_sum_events"),
        F.min(US).alias("new_sum_first_us"),
        F.max(US).alias("new_sum_last_us"),
        F.array(*decayed_parts(F.lit(day_end_us(to_micros(as_of))))).alias("new_sum_decayed"),
        F.array(*cycle_parts()).alias("new_sum_cycle"),
    )  # fmt: skip


def _rebucketed(before: DataFrame, new: DataFrame, night: datetime, as_of: datetime, name: str) -> DataFrame:
    """(item, what to add to the night's series once that is shifted by whole buckets), oldest first.

    With as_of a whole number of buckets and r after the night, the first r of each of the night's buckets passes to the next.
    """
    size, bucket = _SERIES[name]
    whole, rest = divmod(as_of - night, bucket)
    rows = new.select(c.ITEM_ID, _entry(_ago(as_of, bucket), 1).alias("e"))
    if rest:
        starts, leaves = [night - k * bucket for k in range(1, size + 1)], _ago(night, bucket) + whole
        moves = F.explode(F.array(_entry(leaves, -1), _entry(leaves + 1, 1))).alias("e")
        rows = rows.unionByName(within(before, [(start, start + rest) for start in starts]).select(c.ITEM_ID, moves))
    rows = rows.select(c.ITEM_ID, "e.*")
    return rows.where(F.col("ago") < size).groupBy(c.ITEM_ID).agg(buckets("ago", size).alias(f"new_sum_{name}"))


def _entry(ago: Column, n: int) -> Column:
    return F.struct(ago.alias("ago"), F.lit(n).alias("n"))


def _ago(moment: datetime, bucket: timedelta) -> Column:
    us = F.lit(to_micros(moment)) - F.unix_micros(c.EVENT_TS) - 1
    return F.floor(us / (bucket // timedelta(microseconds=1))).cast("int")


def _series(name: str, whole: int) -> Column:
    """The series at as_of: the night's, shifted by whole buckets, and what is new of it."""
    size, _ = _SERIES[name]
    added = F.col(f"new_sum_{name}")
    shifted = F.slice(F.concat(_or_zeros(f"sum_{name}", size), F.array_repeat(F.lit(0), min(whole, size))), -size, size)
    return F.when(added.isNull(), shifted).otherwise(F.zip_with(shifted, added, lambda a, b: a + b)).alias(f"sum_{name}")


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

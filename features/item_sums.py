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
from features.item_sales import MONTH_US, buyers, decayed_parts, series, totals
from features.refresh import leaving_month
from features.sums import scaled_parts
from features.windows import AT, SECOND_US, US, Moments, day_end_us, to_micros, within

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
    pairs = _pairs(before if histories is None else histories, new, night, as_of)
    parts = [pairs, *_fresh(new, as_of), *_moved(before, night, as_of)]
    known = sums.drop(c.AS_OF_TS, c.EVENTS_VERSION)
    rows = known.join(_changes(parts, as_of), on=c.ITEM_ID, how="full_outer")
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
        *[_series(name, size, (as_of - night) // bucket) for name, (size, bucket) in _SERIES.items()],
    ).select(c.AS_OF_TS, *SUMS)


def _changes(parts: list[DataFrame], as_of: datetime) -> DataFrame:
    """One row an item: what is new of its sums, and by bucket of its series. Stacked and added up twice: joins take far longer
    to plan, and an hour is short."""
    rows = reduce(lambda above, below: above.unionByName(below, allowMissingColumns=True), parts)
    lists = {"new_sum_decayed": decayed_parts(F.lit(day_end_us(to_micros(as_of)))), "new_sum_cycle": cycle_parts()}
    named = {name: [f"{name}_{k}" for k in range(len(parts))] for name, parts in lists.items()}
    counts = ["new_sum_users_28d", "new_sum_gaps", "new_sum_span_us"]
    added = rows.groupBy(c.ITEM_ID, "series", "bucket").agg(
        *[F.sum(name).alias(name) for name in (*counts, "moved", "new")],
        F.count(US).alias("new_sum_events"),
        F.min(US).alias("new_sum_first_us"),
        F.max(US).alias("new_sum_last_us"),
        *[part.alias(name) for key, parts in lists.items() for name, part in zip(named[key], parts, strict=True)],
    )
    entry = F.struct("bucket", F.struct("moved", "new").alias("n"))
    return added.groupBy(c.ITEM_ID).agg(
        *[F.sum(name).alias(name) for name in (*counts, "new_sum_events")],
        F.min("new_sum_first_us").alias("new_sum_first_us"),
        F.max("new_sum_last_us").alias("new_sum_last_us"),
        *[F.array(*map(F.sum, names)).alias(key) for key, names in named.items()],
        *[
            F.map_from_entries(F.collect_list(F.when((F.col("series") == name) & (F.col("bucket") < size), entry))).alias(name)
            for name, (size, _) in _SERIES.items()
        ],
    )


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


def _fresh(new: DataFrame, as_of: datetime) -> list[DataFrame]:
    """New sales by bucket of each series; the moment of each once, as other sums need it."""
    log = Moments.of([as_of]).log(new).select(c.ITEM_ID, US)
    ago = {name: _ago(as_of, F.col(US), bucket).alias("bucket") for name, (_, bucket) in _SERIES.items()}
    counts = F.lit(0).alias("moved"), F.lit(1).alias("new")
    days = log.select(c.ITEM_ID, F.lit("days").alias("series"), ago["days"], *counts, US)
    return [days, log.select(c.ITEM_ID, F.lit("hours").alias("series"), ago["hours"], *counts)]


def _moved(before: DataFrame, night: datetime, as_of: datetime) -> list[DataFrame]:
    """Sales that pass from a bucket of a series to the next one since the night, by the bucket that they leave.

    With as_of a whole number of buckets and r after the night, these are the first r of each of the night's buckets.
    """
    parts = []
    for name, (size, bucket) in _SERIES.items():
        rest = (as_of - night) % bucket
        if rest:
            starts = [night - k * bucket for k in range(1, size + 1)]
            passing = within(before, [(start, start + rest) for start in starts])
            ago = _ago(night, F.unix_micros(c.EVENT_TS), bucket).alias("bucket")
            parts.append(passing.select(c.ITEM_ID, F.lit(name).alias("series"), ago, F.lit(1).alias("moved")))
    return parts


def _ago(moment: datetime, us: Column, bucket: timedelta) -> Column:
    return F.floor((F.lit(to_micros(moment)) - us - 1) / (bucket // timedelta(microseconds=1))).cast("int")


def _series(name: str, size: int, whole: int) -> Column:
    """A series at as_of. Series are oldest first: what moves in bucket i goes on to bucket i - 1 - whole."""
    every = F.transform(F.sequence(F.lit(size - 1), F.lit(0)), lambda k: F.element_at(name, k))
    moved, new = (F.transform(every[what], lambda n: F.coalesce(n, F.lit(0))) for what in ("moved", "new"))
    stay = F.zip_with(_or_zeros(f"sum_{name}", size), moved, lambda n, m: n - m)
    come = F.concat(F.slice(moved, 2, size - 1), F.array(F.lit(0)))
    known = F.zip_with(stay, come, lambda a, b: a + b)
    shifted = F.slice(F.concat(known, F.array_repeat(F.lit(0), min(whole, size))), -size, size)
    return F.transform(F.zip_with(shifted, new, lambda a, b: a + b), lambda n: n.cast("int")).alias(f"sum_{name}")


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

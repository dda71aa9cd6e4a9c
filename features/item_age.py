"""When an item was released, how old it is, whether it may be recommended, and the stage of its life."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.windows import AT, DAY_US, Moments

#: The moment that a row speaks for, as epoch microseconds.
MOMENT_US = "moment_us"


def known_items(items: DataFrame, times: Moments) -> DataFrame:
    """One row a (as_of_ts, catalogue item): the release the catalogue states, if at or before the moment, and availability.

    The release that ingest fills in is not used: it is computed from the whole log, with hindsight.
    """
    every = F.explode(F.array(*[F.lit(index) for index in range(len(times.us))])).alias(AT)
    rows = items.select(every, c.ITEM_ID, c.RELEASE_TS, c.RELEASE_KNOWN, c.AVAILABLE_FROM, c.AVAILABLE_UNTIL)
    now = times.us_of(AT)
    stated = F.when(F.col(c.RELEASE_KNOWN), F.unix_micros(c.RELEASE_TS))
    begun = F.coalesce(F.unix_micros(c.AVAILABLE_FROM) <= now, F.lit(True))
    not_over = F.coalesce(F.unix_micros(c.AVAILABLE_UNTIL) > now, F.lit(True))
    return rows.select(
        times.as_of(AT),
        c.ITEM_ID,
        F.when(stated <= now, stated).alias("stated_us"),
        (begun & not_over).alias("item_available"),
    )


def without_hidden(items: DataFrame, hide: str | None) -> DataFrame:
    """The catalogue, in which what ``hide`` holds for (SQL over the columns of ``items``; NULL does not hold) is never available."""
    if hide is None:
        return items
    over = F.timestamp_micros(F.lit(0))
    return items.withColumn(c.AVAILABLE_UNTIL, F.when(F.coalesce(F.expr(hide), F.lit(False)), over).otherwise(F.col(c.AVAILABLE_UNTIL)))


def age_columns() -> dict[str, Column]:
    """Release and age from ``stated_us`` (the catalogue's word) and ``first_us`` (the first visible event)."""
    release = F.least("stated_us", "first_us")  # NULLs are skipped
    known = F.coalesce(F.col("stated_us") <= F.coalesce(F.col("first_us"), F.col("stated_us")), F.lit(False))
    return {
        "item_release_ts": F.timestamp_micros(release),
        "item_release_known": known,
        "item_age_days": (F.col(MOMENT_US) - release) / F.lit(float(DAY_US)),
    }


def life_stage() -> Column:
    """new, rising, peak, falling or evergreen, by the thresholds of ``conf/columns.py``."""
    trend, since = F.col("item_trend_7d_28d"), F.col("item_days_since_peak")
    return (
        F.when(F.col("item_age_days") < c.NEW_DAYS, F.lit("new"))
        .when((trend > c.STAGE_TREND) & (since < c.PEAK_DAYS), F.lit("peak"))
        .when(trend > c.STAGE_TREND, F.lit("rising"))
        .when(trend < -c.STAGE_TREND, F.lit("falling"))
        .otherwise(F.lit("evergreen"))
    )

"""``item_temporal``: everything about an item in time, from its sums and the catalogue."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.contracts import ITEM_TEMPORAL
from features.item_age import MOMENT_US, age_columns, known_items, life_stage
from features.item_cycle import cycle_columns
from features.sums import from_parts
from features.windows import DAY_US, HOUR_US, SECOND_US, Moments, day_end_us


def item_temporal(sums: DataFrame, items: DataFrame, moments: list[datetime]) -> DataFrame:
    """One row a (moment, item that has a visible event or a stated release at or before the moment). ``sums`` are ``item_sums``."""
    rows = (
        known_items(items, Moments.of(moments))
        .join(sums, on=[c.AS_OF_TS, c.ITEM_ID], how="full_outer")
        .withColumnsRenamed({"sum_first_us": "first_us", "sum_last_us": "last_us"})
        .where(F.col("first_us").isNotNull() | F.col("stated_us").isNotNull())
        .withColumn(MOMENT_US, F.unix_micros(c.AS_OF_TS))
        .withColumn("item_available", F.coalesce("item_available", F.lit(True)))
    )
    for step in (_counts(), _windows(), _decayed(), age_columns(), _trends(), _peak(), cycle_columns()):
        rows = rows.withColumns(step)
    return rows.withColumn("item_life_stage", life_stage()).select(*ITEM_TEMPORAL.column_names)


def _counts() -> dict[str, Column]:
    """Counts and series; zero where nothing was sold."""
    zero = F.lit(0).cast("bigint")
    return {
        "item_sales_all": F.coalesce("sum_events", zero),
        "item_users_28d": F.coalesce("sum_users_28d", zero),
        "item_repurchase_days": F.when(F.col("sum_gaps") > 0, F.col("sum_span_us") / F.col("sum_gaps") / DAY_US),
        "item_hours": F.coalesce("sum_hours", F.array_repeat(F.lit(0), c.HOUR_BUCKETS)),
        "item_days": F.coalesce("sum_days", F.array_repeat(F.lit(0), c.DAY_BUCKETS)),
    }


def _windows() -> dict[str, Column]:
    """Sales in windows: each is a whole number of buckets of one of the series."""
    out = {}
    for name, seconds in c.WINDOWS.items():
        series, bucket_us = ("item_days", DAY_US) if seconds * SECOND_US >= DAY_US else ("item_hours", HOUR_US)
        newest = F.slice(series, -(seconds * SECOND_US // bucket_us), seconds * SECOND_US // bucket_us)
        out[c.item_sales(name)] = F.aggregate(newest, F.lit(0).cast("bigint"), lambda sum_, n: sum_ + n)
    return out


def _decayed() -> dict[str, Column]:
    """Sums are kept referred to the end of the day, and aged back to the moment."""
    ahead = day_end_us(F.col(MOMENT_US)) - F.col(MOMENT_US)
    out = {}
    for k, (name, seconds) in enumerate(c.ITEM_HALF_LIVES.items()):
        at_end = from_parts(F.get("sum_decayed", 2 * k), F.get("sum_decayed", 2 * k + 1))
        back = F.pow(F.lit(2.0), ahead / F.lit(float(seconds * SECOND_US)))
        out[c.item_decayed(name)] = F.coalesce(at_end * back, F.lit(0.0))
    return out


def _trends() -> dict[str, Column]:
    """Logarithms of ratios of daily rates, smoothed by what one sale in the longer window would be."""
    day, week, month = F.col(c.item_sales("1d")), F.col(c.item_sales("7d")) / 7, F.col(c.item_sales("28d")) / 28
    short = F.log((day + F.lit(1 / 7)) / (week + F.lit(1 / 7)))
    long = F.log((week + F.lit(1 / 28)) / (month + F.lit(1 / 28)))
    return {"item_trend_1d_7d": short, "item_trend_7d_28d": long, "item_acceleration": short - long}


def _peak() -> dict[str, Column]:
    """Idle time, and whole days since the best day (the newest of equals)."""
    newest_first = F.reverse("item_days")
    since = (F.array_position(newest_first, F.array_max("item_days")) - 1).cast("double")
    return {
        "item_idle_days": (F.col(MOMENT_US) - F.col("last_us")) / DAY_US,
        "item_days_since_peak": F.when(F.array_max("item_days") > 0, since),
    }

"""``item_temporal``: everything about an item in time, put together."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.contracts import ITEM_TEMPORAL
from features.item_age import MOMENT_US, age_columns, known_items, life_stage
from features.item_cycle import cycle_columns
from features.item_sales import buyers, series, totals
from features.windows import AT, DAY_US, Moments


def item_temporal(events: DataFrame, items: DataFrame, moments: list[datetime]) -> DataFrame:
    """One row a (moment, item that has a visible event or a stated release at or before the moment)."""
    times = Moments.of(moments)
    log = times.log(events)
    key = [AT, c.ITEM_ID]
    rows = (
        known_items(items, times)
        .join(totals(log, times), on=key, how="full_outer")
        .where(F.col("first_us").isNotNull() | F.col("stated_us").isNotNull())
        .join(series(log, times), on=key, how="left")
        .join(buyers(log, times), on=key, how="left")
        .withColumn(MOMENT_US, times.us_of(AT))
        .withColumn(c.AS_OF_TS, F.timestamp_micros(MOMENT_US))
        .withColumn("item_available", F.coalesce("item_available", F.lit(True)))
    )
    for step in (_no_sales(), age_columns(), _trends(), _peak(), cycle_columns()):
        rows = rows.withColumns(step)
    return rows.withColumn("item_life_stage", life_stage()).select(*ITEM_TEMPORAL.column_names)


def _no_sales() -> dict[str, Column]:
    """Zero where nothing was sold."""
    counts = ["item_sales_all", "item_users_28d", *[c.item_sales(w) for w in c.WINDOWS]]
    filled = {name: F.coalesce(name, F.lit(0).cast("bigint")) for name in counts}
    filled |= {c.item_decayed(h): F.coalesce(c.item_decayed(h), F.lit(0.0)) for h in c.ITEM_HALF_LIVES}
    for name, buckets in (("item_hours", c.HOUR_BUCKETS), ("item_days", c.DAY_BUCKETS)):
        filled[name] = F.coalesce(name, F.array_repeat(F.lit(0), buckets))
    return filled


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

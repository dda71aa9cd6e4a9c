"""``user_profiles``: how much, how often, when and what, for a user at each moment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import Settings
from features.contracts import USER_PROFILES
from features.sums import VALUE, exact_sum
from features.windows import (
    DAY_US,
    EVENT_US,
    MOMENT_US,
    decay,
    in_window,
    per_user,
    starts_session,
    to_moments,
    with_bucket,
)

_KEY = (c.AS_OF_TS, c.USER_ID)
_LONG_HALF_LIFE = c.ITEM_HALF_LIVES["28d"]


def user_profiles(
    events: DataFrame, items: DataFrame, moments: Sequence[datetime], settings: Settings, users: DataFrame
) -> DataFrame:
    """One row a (moment, user) of ``users``. A session in progress is only what was visible of it."""
    rows = _numbered(events, items, moments, settings, users).persist()
    sessions = _sessions(rows)
    return (
        rows.groupBy(*_KEY, MOMENT_US)
        .agg(*_counts())
        .join(sessions, on=list(_KEY), how="inner")
        .join(_categories(rows, settings), on=list(_KEY), how="left")
        .transform(_finish)
        .select(*USER_PROFILES.column_names)
    )


def _numbered(
    events: DataFrame, items: DataFrame, moments: Sequence[datetime], settings: Settings, users: DataFrame
) -> DataFrame:
    """The visible events of each (moment, user), with their category and the running number of their session."""
    joined = events.join(users.select(c.USER_ID).distinct(), on=c.USER_ID, how="left_semi")
    category = items.select(c.ITEM_ID, c.CATEGORY)
    rows = to_moments(with_bucket(joined, moments), moments).join(users, on=list(_KEY), how="left_semi")
    order = per_user()
    running = order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    return (
        rows.withColumn("starts", starts_session(settings.features.session_gap, order))
        .withColumn("session", F.sum(F.col("starts").cast("int")).over(running))
        .join(category, on=c.ITEM_ID, how="left")
        .select(*_KEY, MOMENT_US, EVENT_US, c.ITEM_ID, c.EVENT_TYPE, c.CATEGORY, "starts", "session")
    )


def _counts() -> list[Column]:
    """Every count that is a sum over events."""
    windows: dict[str, Column] = {w: in_window(s) for w, s in c.WINDOWS.items()} | {"all": F.lit(True)}
    hour = F.pmod(F.floor(F.col(EVENT_US) / F.lit(DAY_US / 24)), F.lit(24))
    weekday = F.pmod(F.floor(F.col(EVENT_US) / F.lit(DAY_US)) + 3, F.lit(7))  # 1970-01-01 was a Thursday
    active_days = F.count_distinct(F.floor(F.col(EVENT_US) / F.lit(DAY_US)))
    return [
        *[F.count_if(inside).alias(c.user_events(w)) for w, inside in windows.items()],
        *[
            F.count_if((F.col(c.EVENT_TYPE) == t) & windows[w]).alias(c.user_type_events(t, w))
            for t in c.EVENT_TYPES
            for w in ("1d", "7d", "28d", "all")
        ],
        F.count_distinct(c.ITEM_ID).alias("user_items_all"),
        F.count_if(F.col("starts") & windows["28d"]).alias("user_sessions_28d"),
        F.count_if("starts").alias("user_sessions_all"),
        F.max(EVENT_US).alias("last_us"),
        F.min(EVENT_US).alias("first_us"),
        active_days.alias("active_days"),
        F.array(*[F.count_if(hour == h) for h in range(24)]).alias("hours"),
        F.array(*[F.count_if(weekday == d) for d in range(7)]).alias("weekdays"),
    ]


def _sessions(rows: DataFrame) -> DataFrame:
    """Means and sums over a user's sessions."""
    each = rows.groupBy(*_KEY, MOMENT_US, "session").agg(
        F.min(EVENT_US).alias("first"),
        F.max(EVENT_US).alias("last"),
        F.count_distinct(c.ITEM_ID).alias("n_items"),
        F.count_distinct(c.CATEGORY).alias("n_categories"),
    )
    recent = F.col("first") >= F.col(MOMENT_US) - F.lit(c.WINDOWS["28d"] * 1_000_000)
    seconds = (F.col("last") - F.col("first")) / F.lit(1e6)
    return each.groupBy(*_KEY).agg(
        exact_sum(F.when(recent, seconds), VALUE).alias("user_dwell_seconds_28d"),
        F.avg("n_items").alias("user_depth_items"),
        F.avg("n_categories").alias("user_depth_categories"),
    )


def _categories(rows: DataFrame, settings: Settings) -> DataFrame:
    """Long-term (decayed) and short-term (last session) interest, each the top categories with their shares."""
    last = Window.partitionBy(*_KEY).rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
    weighed = (
        rows.withColumn("in_last", F.col("session") == F.max("session").over(last))
        .where(F.col(c.CATEGORY).isNotNull())
        .groupBy(*_KEY, c.CATEGORY)
        .agg(
            exact_sum(decay(F.col(MOMENT_US) - F.col(EVENT_US), _LONG_HALF_LIFE)).alias("long"),
            F.count_if("in_last").cast("double").alias("short"),
        )
    )
    top = settings.features.categories_per_user

    def best(name: str) -> Column:
        pairs = F.collect_list(
            F.when(F.col(name) > 0, F.struct((-F.col(name)).alias("order"), F.col(c.CATEGORY).alias("category")))
        )
        return F.slice(F.sort_array(pairs), 1, top).alias(name)

    return weighed.groupBy(*_KEY).agg(
        best("long"), best("short"), exact_sum("long").alias("long_sum"), exact_sum("short").alias("short_sum")
    )


def _finish(frame: DataFrame) -> DataFrame:
    """Rates, shares and arrays from sums."""
    day = F.lit(float(DAY_US))
    total = F.col(c.user_events("all"))
    span = (F.floor(F.col("last_us") / F.lit(DAY_US)) - F.floor(F.col("first_us") / F.lit(DAY_US))).cast("double")
    for name, column in {
        "user_recency_days": (F.col(MOMENT_US) - F.col("last_us")) / day,
        "user_tenure_days": (F.col(MOMENT_US) - F.col("first_us")) / day,
        "user_cadence_days": F.when(F.col("active_days") > 1, span / (F.col("active_days") - 1)),
        "user_hour_habit": F.transform("hours", lambda n: n / total),
        "user_weekday_habit": F.transform("weekdays", lambda n: n / total),
    }.items():
        frame = frame.withColumn(name, column)
    for name in ("long", "short"):
        pairs = F.coalesce(F.col(name), F.array().cast("array<struct<order:double,category:string>>"))
        share = F.lit(-1.0) / F.col(f"{name}_sum")
        frame = frame.withColumn(f"user_{name}_categories", pairs["category"]).withColumn(
            f"user_{name}_weights",
            F.coalesce(_scaled(pairs["order"], share), F.array().cast("array<double>")),
        )
    return frame


def _scaled(values: Column, factor: Column) -> Column:
    return F.transform(values, lambda x: x * factor)

"""``user_profiles``: how much, how often, when and what a user does; long-term interest beside the last session."""

from __future__ import annotations

from datetime import datetime
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import Settings
from features.contracts import USER_PROFILES
from features.history import (
    AGAIN,
    GAP_US,
    INCREMENT,
    NEW_DAY,
    SESSION_US,
    STARTS,
    STEP_US,
    TIMELINE,
    VERSION,
    at_moments,
    history,
)
from features.interests import best_categories, interests
from features.sums import VALUE, exact_sum
from features.windows import AT, DAY_US, HOUR_US, SECOND_US, SEEN_FROM, SEEN_TO, US, Moments

_MONTH_US = c.WINDOWS["28d"] * SECOND_US
#: 1970-01-01 was a Thursday: three days after a Monday.
_MONDAY_SHIFT = 3


def user_profiles(
    events: DataFrame, items: DataFrame, moments: list[datetime], settings: Settings, users: DataFrame | None = None
) -> DataFrame:
    """Rows of ``user_profiles`` at every moment. ``events`` may be their ``history``; ``items`` gives the categories."""
    times = Moments.of(moments)
    log = history(events, times, settings, users)
    known = items.where(F.col(c.CATEGORY).isNotNull()).select(c.ITEM_ID, c.CATEGORY)
    named = log.join(known, on=c.ITEM_ID, how="inner")
    profiles = _counts(log, times, settings.features.dwell).join(interests(named, times), on=[AT, c.USER_ID], how="left")
    best = best_categories(settings.features.categories_per_user)
    return profiles.select(times.as_of(AT), c.USER_ID, *_ratios(times), *best).select(*USER_PROFILES.column_names)


def _counts(log: DataFrame, times: Moments, dwell: str) -> DataFrame:
    """One row a (moment, user): everything that is counted."""
    if times.last == 0:  # what the only moment sees is not told apart: one pass over the history where it lies
        return at_moments(log, times).groupBy(AT, *TIMELINE).agg(*_totals(), *_windows(times, dwell)).drop(VERSION)
    counted = log.groupBy(*INCREMENT).agg(*_totals())
    # An event goes to the few moments whose longest window it lies in.
    recent = log.withColumn(SEEN_TO, F.least(SEEN_TO, times.last_within(US, _MONTH_US)))
    recent = at_moments(recent.where(F.col(SEEN_FROM) <= F.col(SEEN_TO)), times)
    parts = [at_moments(counted, times).drop(*INCREMENT[1:]), recent.groupBy(AT, c.USER_ID).agg(*_windows(times, dwell))]
    stacked = reduce(lambda above, below: above.unionByName(below, allowMissingColumns=True), parts)
    sums = [name for name in stacked.columns if name not in (AT, c.USER_ID, "first_us", "last_us")]
    return stacked.groupBy(AT, c.USER_ID).agg(
        *(F.coalesce(F.sum(name), F.lit(0)).alias(name) for name in sums),
        F.min("first_us").alias("first_us"),
        F.max("last_us").alias("last_us"),
    )


def _totals() -> list[Column]:
    """What only adds up: counts over all history."""
    hour, day = F.floor(F.pmod(F.col(US), F.lit(DAY_US)) / HOUR_US), F.floor(F.col(US) / DAY_US)
    weekday = F.pmod(day + _MONDAY_SHIFT, F.lit(7))
    return [
        F.count(F.lit(1)).alias(c.user_events("all")),
        *(F.count_if(F.col(c.EVENT_TYPE) == t).alias(c.user_type_events(t, "all")) for t in c.EVENT_TYPES),
        *(F.count_if(hour == h).alias(f"hour_{h}") for h in range(24)),
        *(F.count_if(weekday == d).alias(f"weekday_{d}") for d in range(7)),
        F.count_if(F.col(GAP_US).isNull()).alias("user_items_all"),
        F.count_if(STARTS).alias("user_sessions_all"),
        F.count_if(~F.col(AGAIN)).alias("session_items"),
        F.count_if(NEW_DAY).alias("active_days"),
        F.min(US).alias("first_us"),
        F.max(US).alias("last_us"),
    ]


def _windows(times: Moments, dwell: str) -> list[Column]:
    """Counts in recent windows. A session counts if it began in the window; its length is that of its visible part."""
    spent_us, spent_s = F.col(STEP_US), F.greatest(F.col(c.VALUE), F.lit(0.0))
    now = times.us_of(AT)
    inside = {w: now - F.col(US) <= seconds * SECOND_US for w, seconds in c.WINDOWS.items()}
    begun = F.col(SESSION_US) >= now - _MONTH_US
    return [
        *(F.count_if(inside[w]).alias(c.user_events(w)) for w in c.WINDOWS),
        *(
            F.count_if(inside[w] & (F.col(c.EVENT_TYPE) == t)).alias(c.user_type_events(t, w))
            for t in c.EVENT_TYPES
            for w in c.WINDOWS
        ),
        F.count_if(F.col(STARTS) & begun).alias("user_sessions_28d"),
        (
            exact_sum(F.when(begun, spent_s), VALUE)
            if dwell == "value"
            else F.sum(F.when(begun, spent_us).otherwise(0)) / SECOND_US
        ).alias("user_dwell_seconds_28d"),
    ]


def _ratios(times: Moments) -> list[Column]:
    now = times.us_of(AT)
    windows = [c.user_events(w) for w in (*c.WINDOWS, "all")]
    windows += [c.user_type_events(t, w) for t in c.EVENT_TYPES for w in (*c.WINDOWS, "all")]
    days = F.col("active_days") - 1
    span = F.floor(F.col("last_us") / DAY_US) - F.floor(F.col("first_us") / DAY_US)
    return [
        *(F.col(name) for name in (*windows, "user_items_all", "user_sessions_28d", "user_sessions_all", "user_dwell_seconds_28d")),
        (F.col("session_items") / F.col("user_sessions_all")).alias("user_depth_items"),
        (F.coalesce("session_categories", F.lit(0)) / F.col("user_sessions_all")).alias("user_depth_categories"),
        ((now - F.col("last_us")) / DAY_US).alias("user_recency_days"),
        ((now - F.col("first_us")) / DAY_US).alias("user_tenure_days"),
        F.when(days > 0, span / days).alias("user_cadence_days"),
        F.array(*[F.col(f"hour_{h}") / F.col(c.user_events("all")) for h in range(24)]).alias("user_hour_habit"),
        F.array(*[F.col(f"weekday_{d}") / F.col(c.user_events("all")) for d in range(7)]).alias("user_weekday_habit"),
    ]

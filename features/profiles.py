"""``user_profiles``: how much, how often, when and what a user does; long-term interest beside the last session."""

from __future__ import annotations

from datetime import datetime
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import Settings
from features.contracts import USER_PROFILES
from features.history import (
    AGAIN,
    GAP_US,
    INCREMENT,
    LAST_SESSION,
    NEW_DAY,
    SESSION,
    SESSION_US,
    STARTS,
    STEP_US,
    at_moments,
    history,
)
from features.sums import decay, exact_sum
from features.windows import AT, DAY_US, HOUR_US, SECOND_US, SEEN_FROM, SEEN_TO, US, Moments

_TYPE_WINDOWS = ("1d", "7d", "28d")
_LONG_HALF_LIFE_S = c.REPEAT_HALF_LIVES["28d"]
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
    counts = _at_users([_totals(log, times), _windows(log, times), _depth(named, times)])
    interests = _interests(named, times, settings.features.categories_per_user)
    profiles = counts.join(interests, on=[AT, c.USER_ID], how="left")
    return profiles.select(times.as_of(AT), c.USER_ID, *_ratios(times)).select(*USER_PROFILES.column_names)


def _at_users(parts: list[DataFrame]) -> DataFrame:
    """Counts of several parts side by side: stacked and added up, which is cheaper than joins."""
    stacked = reduce(lambda above, below: above.unionByName(below, allowMissingColumns=True), parts)
    sums = [name for name in stacked.columns if name not in (AT, c.USER_ID, "first_us", "last_us")]
    return stacked.groupBy(AT, c.USER_ID).agg(
        *(F.coalesce(F.sum(name), F.lit(0)).alias(name) for name in sums),
        F.min("first_us").alias("first_us"),
        F.max("last_us").alias("last_us"),
    )


def _ratios(times: Moments) -> list[Column]:
    now = times.us_of(AT)
    nothing = F.array()
    windows = [c.user_events(w) for w in (*c.WINDOWS, "all")]
    windows += [c.user_type_events(t, w) for t in c.EVENT_TYPES for w in (*_TYPE_WINDOWS, "all")]
    days = F.col("active_days") - 1
    span = F.floor(F.col("last_us") / DAY_US) - F.floor(F.col("first_us") / DAY_US)
    return [
        *(F.col(name) for name in (*windows, "user_items_all", "user_sessions_28d", "user_sessions_all")),
        (F.col("dwell_us") / SECOND_US).alias("user_dwell_seconds_28d"),
        (F.col("session_items") / F.col("user_sessions_all")).alias("user_depth_items"),
        (F.col("session_categories") / F.col("user_sessions_all")).alias("user_depth_categories"),
        ((now - F.col("last_us")) / DAY_US).alias("user_recency_days"),
        ((now - F.col("first_us")) / DAY_US).alias("user_tenure_days"),
        F.when(days > 0, span / days).alias("user_cadence_days"),
        F.array(*[F.col(f"hour_{h}") / F.col(c.user_events("all")) for h in range(24)]).alias("user_hour_habit"),
        F.array(*[F.col(f"weekday_{d}") / F.col(c.user_events("all")) for d in range(7)]).alias("user_weekday_habit"),
        *(
            F.coalesce(f"user_{term}_{what}", nothing.cast(f"array<{kind}>")).alias(f"user_{term}_{what}")
            for term in ("long", "short")
            for what, kind in (("categories", "string"), ("weights", "double"))
        ),
    ]


def _totals(log: DataFrame, times: Moments) -> DataFrame:
    """What only adds up: counts over all history."""
    hour, day = F.floor(F.pmod(F.col(US), F.lit(DAY_US)) / HOUR_US), F.floor(F.col(US) / DAY_US)
    weekday = F.pmod(day + _MONDAY_SHIFT, F.lit(7))
    counted = log.withColumns({"hour": hour.cast("int"), "weekday": weekday.cast("int")}).groupBy(*INCREMENT).agg(
        F.count(F.lit(1)).alias(c.user_events("all")),
        *(F.count_if(F.col(c.EVENT_TYPE) == t).alias(c.user_type_events(t, "all")) for t in c.EVENT_TYPES),
        *(F.count_if(F.col("hour") == h).alias(f"hour_{h}") for h in range(24)),
        *(F.count_if(F.col("weekday") == d).alias(f"weekday_{d}") for d in range(7)),
        F.count_if(F.col(GAP_US).isNull()).alias("user_items_all"),
        F.count_if(STARTS).alias("user_sessions_all"),
        F.count_if(~F.col(AGAIN)).alias("session_items"),
        F.count_if(NEW_DAY).alias("active_days"),
        F.min(US).alias("first_us"),
        F.max(US).alias("last_us"),
    )  # fmt: skip
    return at_moments(counted, times).drop(*INCREMENT[1:])


def _windows(log: DataFrame, times: Moments) -> DataFrame:
    """Counts in recent windows: an event goes to the few moments whose longest window it lies in."""
    longest = c.WINDOWS["28d"] * SECOND_US
    recent = log.withColumn(SEEN_TO, F.least(SEEN_TO, times.last_within(US, longest)))
    recent = at_moments(recent.where(F.col(SEEN_FROM) <= F.col(SEEN_TO)), times).withColumn(
        "start", times.us_of(AT) - longest
    )
    age = times.us_of(AT) - F.col(US)
    inside = {w: age <= seconds * SECOND_US for w, seconds in c.WINDOWS.items()}
    # A session counts if it began in the window; its length is that of its visible part.
    begun = F.col(SESSION_US) >= F.col("start")
    return recent.groupBy(AT, c.USER_ID).agg(
        *(F.count_if(inside[w]).alias(c.user_events(w)) for w in c.WINDOWS),
        *(
            F.count_if(inside[w] & (F.col(c.EVENT_TYPE) == t)).alias(c.user_type_events(t, w))
            for t in c.EVENT_TYPES
            for w in _TYPE_WINDOWS
        ),
        F.count_if(STARTS).alias("user_sessions_28d"),
        F.sum(F.when(begun, F.col(STEP_US)).otherwise(0)).alias("dwell_us"),
    )


def _depth(named: DataFrame, times: Moments) -> DataFrame:
    """Distinct (session, category) pairs. A pair counts from the moment its first event was seen."""
    pair = [name for name in INCREMENT if name != SEEN_FROM]
    first = named.groupBy(*pair, SESSION, c.CATEGORY).agg(F.min(SEEN_FROM).alias(SEEN_FROM))
    counted = first.groupBy(*INCREMENT).agg(F.count(F.lit(1)).alias("session_categories"))
    return at_moments(counted, times).drop(*INCREMENT[1:])


def _interests(named: DataFrame, times: Moments, most: int) -> DataFrame:
    """Long-term interest (categories, decayed) and short-term interest (categories of the last session)."""
    weight = exact_sum(decay(US, times.us_of(AT), _LONG_HALF_LIFE_S)).alias("weight")
    long = at_moments(named, times).groupBy(AT, c.USER_ID, c.CATEGORY).agg(weight)
    # The last session at a moment is the last of the last increment there; an earlier increment may hold its beginning.
    ends = named.where(LAST_SESSION).groupBy(*INCREMENT, SESSION, c.CATEGORY).agg(F.count(F.lit(1)).alias("weight"))
    newest = F.max(SESSION).over(
        Window.partitionBy(AT, c.USER_ID).rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
    )
    last = at_moments(ends, times).withColumn("newest", newest).where(F.col(SESSION) == F.col("newest"))
    short = last.groupBy(AT, c.USER_ID, c.CATEGORY).agg(F.sum("weight").alias("weight"))
    return _best(long, "long", most).join(_best(short, "short", most), on=[AT, c.USER_ID], how="full_outer")


def _best(weights: DataFrame, term: str, most: int) -> DataFrame:
    """The heaviest categories and their shares of the whole, best first; ties by name. None where all of it has faded to 0."""
    ordered = F.sort_array(F.collect_list(F.struct((-F.col("weight")).alias("less"), c.CATEGORY)))
    best = weights.groupBy(AT, c.USER_ID).agg(
        F.slice(ordered, 1, most).alias("best"), exact_sum("weight").alias("whole")
    ).where("whole > 0")
    return best.select(
        AT,
        c.USER_ID,
        F.col("best").getField(c.CATEGORY).alias(f"user_{term}_categories"),
        F.transform("best", lambda b: -b["less"] / F.col("whole")).alias(f"user_{term}_weights"),
    )

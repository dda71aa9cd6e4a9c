"""Parts of the judged users and of their true items, by what was known at as_of.

A user belongs to one segment by length of history and to one by the hour of the visit. Items split each user's truth: a list
is then judged against the true items of one age, or of the head or the tail, by the users who took any such.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf import columns as c

_HEAD_SHARE = 0.2
_AGES = (("item < 1 h", 1 / 24), ("item < 1 d", 1.0), ("item < 7 d", 7.0))
_HISTORIES = (("history 1-4", 5), ("history 5-19", 20), ("history 20-99", 100))
OLDER, UNKNOWN, LONG = "item 7 d +", "item not known yet", "history 100 +"
HEAD, TAIL = "item in head", "item in tail"

HISTORY_SEGMENTS = (*(name for name, _ in _HISTORIES), LONG)
HOUR_SEGMENTS = tuple(f"visit at {hour:02d} h" for hour in range(24))
AGE_SEGMENTS = (*(name for name, _ in _AGES), OLDER, UNKNOWN)
POPULARITY_SEGMENTS = (HEAD, TAIL)
ITEM_SEGMENTS = AGE_SEGMENTS + POPULARITY_SEGMENTS


def history_segment() -> Column:
    """By how many events of the user were visible (column ``history``)."""
    return _first_below("history", _HISTORIES, LONG)


def hour_segment() -> Column:
    """By the UTC hour of the first event in the window (column ``visit_ts``)."""
    # From epoch seconds, because F.hour would take the session's time zone.
    return F.format_string("visit at %02d h", F.expr("cast(unix_seconds(visit_ts) div 3600 % 24 as int)"))


def item_facts(item_temporal: DataFrame, items: DataFrame) -> DataFrame:
    """Each item at as_of: item_id, takers (users in the last 28d), category, and the segments ``age`` and ``popularity``.

    The head are the best fifth, by sales decayed with half-life 28d, of the items that have sold.
    """
    decayed = F.col(c.item_decayed("28d"))
    bar = item_temporal.where(decayed > 0).agg(F.percentile_approx(decayed, 1 - _HEAD_SHARE).alias("bar"))
    return (
        item_temporal.crossJoin(F.broadcast(bar))
        .join(items.select(c.ITEM_ID, c.CATEGORY), on=c.ITEM_ID, how="left")
        .select(
            c.ITEM_ID,
            F.col("item_users_28d").alias("takers"),
            c.CATEGORY,
            _first_below("item_age_days", _AGES, OLDER).alias("age"),
            F.when(decayed > F.col("bar"), HEAD).otherwise(TAIL).alias("popularity"),
        )
    )


def truth_by_item(truth: DataFrame, facts: DataFrame) -> DataFrame:
    """user_id, and a column for each of ITEM_SEGMENTS: the user's true items in it, perhaps none."""
    each = truth.select(c.USER_ID, F.explode("truth").alias(c.ITEM_ID)).join(facts, on=c.ITEM_ID, how="left")
    known = each.withColumns({"age": F.coalesce("age", F.lit(UNKNOWN)), "popularity": F.coalesce("popularity", F.lit(TAIL))})
    parts = [(name, "age") for name in AGE_SEGMENTS] + [(name, "popularity") for name in POPULARITY_SEGMENTS]
    return known.groupBy(c.USER_ID).agg(
        *[F.sort_array(F.collect_set(F.when(F.col(by) == name, F.col(c.ITEM_ID)))).alias(name) for name, by in parts]
    )


def _first_below(column: str, bounds: tuple[tuple[str, float], ...], rest: str) -> Column:
    """The name of the first bound that the column lies below."""
    (name, bound), *others = bounds
    found = F.when(F.col(column) < bound, name)
    for name, bound in others:
        found = found.when(F.col(column) < bound, name)
    return found.otherwise(rest)

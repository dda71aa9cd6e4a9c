"""What a user is interested in: categories over the long run and in the last session, and how broad sessions are."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.history import INCREMENT, SEEN_FROM, SEEN_TO, SESSION, TIMELINE, VERSION, at_moments, wanted_at
from features.sums import decay, exact_parts, exact_sum, from_parts
from features.windows import AT, US, Moments

_LONG_HALF_LIFE_S = c.REPEAT_HALF_LIVES["28d"]
_WHOLE, _REST = "whole", "rest"


def interests(named: DataFrame, times: Moments) -> DataFrame:
    """One row a (moment, user): session_categories (distinct pairs of session and category), long_whole, and ``categories``.

    ``named`` is a history whose events have a category. Each of ``categories`` has its decayed count (``weight``), the newest
    session it occurs in and its events there (``newest``).
    """
    # One pass: what a session holds of a category is all that the rest is made of.
    held = named.groupBy(*INCREMENT, SESSION, c.CATEGORY).agg(
        F.count(F.lit(1)).alias("n"),
        *[
            part.alias(f"{name}_{index}")
            for index in range(len(times.us))
            for name, part in zip((_WHOLE, _REST), _weights(index, times), strict=True)
        ],
    )
    key, sessions = _key(times), _at_sessions(held, times)
    by_category = sessions.groupBy(*key, c.CATEGORY).agg(
        from_parts(F.sum(_WHOLE), F.sum(_REST)).alias("weight"),
        F.count(F.lit(1)).alias("sessions"),
        F.max(F.struct(SESSION, "n")).alias("newest"),
    )
    return by_category.groupBy(*key).agg(
        F.collect_list(F.struct(c.CATEGORY, "weight", "newest")).alias("categories"),
        exact_sum("weight").alias("long_whole"),
        F.sum("sessions").alias("session_categories"),
    ).drop(VERSION)  # fmt: skip


def best_categories(most: int) -> list[Column]:
    """user_long_… and user_short_…: the heaviest categories and their shares of the whole, best first; ties by name.

    From ``interests`` and user_sessions_all, which numbers the last session. None where all of it has faded to 0.
    """
    in_last = F.filter("categories", lambda x: x["newest"][SESSION] == F.col("user_sessions_all"))
    short_whole = F.aggregate(in_last, F.lit(0).cast("bigint"), lambda sum_, x: sum_ + x["newest"]["n"])
    long = _best(F.col("categories"), lambda x: x["weight"], F.col("long_whole"), most)
    return [*_columns("long", long), *_columns("short", _best(in_last, lambda x: x["newest"]["n"], short_whole, most))]


def _weights(index: int, times: Moments) -> tuple[Column, Column]:
    """Exact parts of the decayed count at one moment, of what it sees."""
    seen = (F.col(SEEN_FROM) <= index) & (F.col(SEEN_TO) >= index)
    weight = decay(US, F.lit(times.us[index]), _LONG_HALF_LIFE_S)
    return exact_parts(weight if times.last == 0 else F.when(seen, weight))


def _key(times: Moments) -> list[str]:
    # The only moment has one timeline, and the history lies by timelines: what is grouped by them is not moved.
    return [AT, *TIMELINE] if times.last == 0 else [AT, c.USER_ID]


def _at_sessions(held: DataFrame, times: Moments) -> DataFrame:
    """(moment, user, session, category): events and parts of the weight. Of increments, those that the moment sees are added."""
    if times.last == 0:
        return at_moments(held.withColumnsRenamed({f"{name}_0": name for name in (_WHOLE, _REST)}), times)
    each = [F.struct(F.lit(k).alias(AT), *[F.col(f"{name}_{k}").alias(name) for name in (_WHOLE, _REST)]) for k in range(len(times.us))]
    spread = held.withColumn("state", F.explode(F.array(*each))).select("*", "state.*")
    holds = (F.col(AT) >= F.col(SEEN_FROM)) & (F.col(AT) <= F.col(SEEN_TO)) & wanted_at(F.col(AT))
    return spread.where(holds).groupBy(AT, c.USER_ID, SESSION, c.CATEGORY).agg(
        *[F.sum(name).alias(name) for name in ("n", _WHOLE, _REST)]
    )  # fmt: skip


def _best(categories: Column, weight, whole: Column, most: int) -> tuple[Column, Column]:  # type: ignore[no-untyped-def]
    ordered = F.sort_array(F.transform(categories, lambda x: F.struct((-weight(x)).alias("less"), x[c.CATEGORY].alias(c.CATEGORY))))
    best = F.when(whole > 0, F.slice(ordered, 1, most))
    return best.getField(c.CATEGORY), F.transform(best, lambda b: -b["less"] / whole)


def _columns(term: str, best: tuple[Column, Column]) -> list[Column]:
    kinds = (("categories", "string"), ("weights", "double"))
    return [
        F.coalesce(column, F.array().cast(f"array<{kind}>")).alias(f"user_{term}_{what}")
        for (what, kind), column in zip(kinds, best, strict=True)
    ]

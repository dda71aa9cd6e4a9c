"""Lists of two models for the same users at the same moment, side by side: with what users then did, and without."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.contracts import EVENTS, ITEM_TEMPORAL
from features.segments import AGE_SEGMENTS, HEAD, HISTORY_SEGMENTS, OLDER, TAIL
from features.served import listed
from features.truth import judged_truth
from features.windows import visible
from jobs.cli import Context
from jobs.judging.judge import judge_made
from jobs.judging.sums import ALL, Sums
from jobs.lists.models import UsableModel, prepared
from jobs.score import known_users, scored
from model.gate import Shadow
from model.metrics import Draws

NEW, OLD = "new", "old"
_MAIN = "ndcg@10"
_TOP = 10
#: New items by age, users with little history, and the head and the tail of what sells.
_SEGMENTS = (*(age for age in AGE_SEGMENTS if age != OLDER), HISTORY_SEGMENTS[0], HEAD, TAIL)


def compared(sums: Sums, who: str) -> dict[str, tuple[Draws, Draws]]:
    """NDCG@10 of the new model and of ``who``, overall and in each segment in which anybody was judged."""
    known = [s for s in (ALL, *_SEGMENTS) if (NEW, s, _MAIN) in sums]
    return {s: (sums[NEW, s, _MAIN], sums[who, s, _MAIN]) for s in known}


def baselines(sums: Sums) -> dict[str, Draws]:
    """NDCG@10 of the recommenders that need no model."""
    return {who: one for (who, s, metric), one in sums.items() if (s, metric) == (ALL, _MAIN) and who not in (NEW, OLD)}


def judged(context: Context, moment: datetime, new: UsableModel, old: UsableModel | None) -> tuple[Sums, Shadow | None]:
    """Both models' lists at a past moment against what users did in its window, as far as it is known at as_of.

    Raises DataQualityError where there are no features at the moment.
    """
    night = replace(context, as_of=moment, mode="nightly")
    events = visible(context.warehouse.read(EVENTS), context.as_of)
    known = known_users(context.warehouse, moment)
    asked = judged_truth(events, moment, context.settings).join(known.select(c.USER_ID), on=c.USER_ID, how="left_semi")
    truth = _few(asked, context.settings.gate.users).persist()
    if truth.isEmpty():
        truth.unpersist()
        return {}, None
    models = {NEW: new} | ({} if old is None else {OLD: old})
    users = known.join(truth.select(c.USER_ID), on=c.USER_ID)
    rows = {name: _lists(night, model, users) for name, model in models.items()}
    parts = [listed(lists, c.USER_ID).withColumnsRenamed({"items": name}) for name, lists in rows.items()]
    found = judge_made(context.warehouse, context.settings, moment, truth, lambda _: (parts, list(models)))
    truth.unpersist()
    return found.sums, None if old is None else _shadow(context, moment, rows[NEW], rows[OLD])


def shadow(context: Context, new: UsableModel, old: UsableModel) -> Shadow:
    """Both models' lists at as_of, where nothing is known yet of what users will do."""
    users = _few(known_users(context.warehouse, context.as_of), context.settings.gate.users).persist()
    night = replace(context, mode="nightly")
    rows = [_lists(night, model, users) for model in (new, old)]
    users.unpersist()
    return _shadow(context, context.as_of, *rows)


def _few(users: DataFrame, most: int) -> DataFrame:
    """All of them, or about as many as are allowed: the same ones in every run."""
    found = users.count()
    return users if found <= most else users.where(F.pmod(F.xxhash64(c.USER_ID), F.lit(found)) < most)


def _lists(night: Context, model: UsableModel, users: DataFrame) -> DataFrame:
    with prepared(night, model) as catalogue:
        # Made at once, while the workers have the catalogue.
        return scored(users, catalogue).select(c.USER_ID, c.RANK, c.ITEM_ID, c.SCORE).localCheckpoint()


def _shadow(context: Context, moment: datetime, new: DataFrame, old: DataFrame) -> Shadow:
    first = [lists.where(F.col(c.RANK) <= _TOP) for lists in (new, old)]
    each = [listed(lists, c.USER_ID).withColumnsRenamed({"items": name}) for lists, name in zip(first, (NEW, OLD), strict=True)]
    shared = F.size(F.array_intersect(NEW, OLD)) / F.greatest(F.size(NEW), F.size(OLD))
    overlap = each[0].join(each[1], on=c.USER_ID).agg(F.count("*").alias("users"), F.avg(shared).alias("overlap")).first()
    offered = context.warehouse.partition(ITEM_TEMPORAL, moment).agg(F.count_if("item_available").alias("n")).first()
    spread = [
        lists.agg(F.count_distinct(c.ITEM_ID).alias("shown"), F.avg(c.SCORE).alias("mean"), F.stddev_pop(c.SCORE).alias("sd")).first()
        for lists in first
    ]
    assert overlap is not None and offered is not None  # noqa: S101 - an aggregate without groups has one row
    fresh, before = (row.asDict() if row is not None else {} for row in spread)
    catalogue = max(1, offered["n"])
    drift = (fresh["mean"] - before["mean"]) / (before["sd"] or 1.0) if overlap["users"] else 0.0
    return Shadow(
        overlap["users"], overlap["overlap"] or 0.0, fresh["shown"] / catalogue, before["shown"] / catalogue, drift
    )

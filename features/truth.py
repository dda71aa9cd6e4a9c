"""What users did after as_of, as evaluation needs it."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import Settings
from features.windows import HOUR_US, between, visible


def judged_truth(events: DataFrame, as_of: datetime, settings: Settings) -> DataFrame:
    """One row a judged user: user_id, truth (distinct items in [as_of, as_of + horizon)), seen (items before as_of),
    history (events before as_of), visit_ts (the first event in the window).

    Judged are users with a visible past and a truth that is not empty. Where items do not repeat, seen items are no truth
    and may not be recommended; where they do, ``seen`` is empty. Items never seen before as_of stay in the truth.
    """
    nothing = F.array().cast("array<string>")
    seen = nothing if settings.repeat_consumption else F.sort_array(F.collect_set(c.ITEM_ID))
    past = visible(events, as_of).groupBy(c.USER_ID).agg(F.count("*").alias("history"), seen.alias("seen"))
    after = between(events, as_of, as_of + settings.horizon).groupBy(c.USER_ID)
    took = after.agg(F.collect_set(c.ITEM_ID).alias("took"), F.min(c.EVENT_TS).alias("visit_ts"))
    truth = F.sort_array(F.array_except("took", "seen")).alias("truth")
    judged = took.join(past, on=c.USER_ID, how="inner").select(c.USER_ID, truth, "seen", "history", "visit_ts")
    return judged.where(F.size("truth") > 0)


def truth_by_hour(events: DataFrame, truth: DataFrame, as_of: datetime, settings: Settings) -> DataFrame:
    """One row an hour (UTC) in which a user of ``truth`` (``judged_truth``) took what is true: user_id, visit_ts (the hour's first
    event), truth.

    Where items do not repeat, an item is true in the first hour that has it.
    """
    came = between(events, as_of, as_of + settings.horizon).join(truth.select(c.USER_ID, "truth"), on=c.USER_ID)
    hour = F.floor(F.unix_micros(c.EVENT_TS) / HOUR_US)
    taken = F.array_contains("truth", F.col(c.ITEM_ID))
    if not settings.repeat_consumption:
        taken &= F.col("hour") == F.min("hour").over(Window.partitionBy(c.USER_ID, c.ITEM_ID))
    each = came.withColumn("hour", hour).withColumn("taken", taken)
    true = F.sort_array(F.collect_set(F.when(F.col("taken"), F.col(c.ITEM_ID)))).alias("truth")
    hours = each.groupBy(c.USER_ID, "hour").agg(F.min(c.EVENT_TS).alias("visit_ts"), true)
    return hours.where(F.size("truth") > 0).drop("hour")

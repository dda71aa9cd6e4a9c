"""The past moments that training learns from, and whose rows are kept there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import Settings
from features.windows import micros, to_moments, with_bucket


def anchors_before(as_of: datetime, settings: Settings) -> list[datetime]:
    """The training anchors before as_of, oldest first: the labels of each end at or before as_of."""
    newest = as_of - settings.horizon
    return sorted(newest - settings.anchor_every * k for k in range(settings.training.anchors))


def moments_of(first_us: int, as_of: datetime, settings: Settings) -> list[datetime]:
    """as_of and those of its anchors that come after the first visible event (epoch microseconds), oldest first."""
    return [*[a for a in anchors_before(as_of, settings) if first_us < micros(a)], as_of]


def users_at(events: DataFrame, moments: Sequence[datetime], settings: Settings) -> DataFrame:
    """(as_of_ts, user_id): at the newest moment all users with a visible past, at earlier ones those who also have a label."""
    past = (
        to_moments(with_bucket(events.select(c.USER_ID, c.EVENT_TS, c.AVAILABLE_TS), moments)
                   .groupBy(c.USER_ID).agg(F.min("bucket").alias("bucket")), moments)
        .select(c.AS_OF_TS, c.USER_ID)
    )  # fmt: skip
    newest = F.lit(moments[-1])
    kept = past.where(F.col(c.AS_OF_TS) == newest)
    if len(moments) == 1:
        return kept
    labelled = labels(events, moments[:-1], settings).select(c.AS_OF_TS, c.USER_ID).distinct()
    # A hash, not chance: the same users in every run.
    chosen = Window.partitionBy(c.AS_OF_TS).orderBy(F.xxhash64(c.USER_ID), F.asc_nulls_last(c.USER_ID))
    taught = past.join(labelled, on=[c.AS_OF_TS, c.USER_ID], how="left_semi").withColumn(
        "n", F.row_number().over(chosen)
    )
    return kept.unionByName(taught.where(F.col("n") <= settings.training.users_per_anchor).drop("n"))


def labels(events: DataFrame, anchors: Sequence[datetime], settings: Settings) -> DataFrame:
    """(as_of_ts, user_id, item_id): what each user did in ``[anchor, anchor + horizon)``. ``events`` is cut at the run's as_of."""
    inside = [
        F.when((F.col(c.EVENT_TS) >= F.lit(a)) & (F.col(c.EVENT_TS) < F.lit(a + settings.horizon)), F.lit(a))
        for a in anchors
    ]
    hit = F.explode(F.array_compact(F.array(*inside))).alias(c.AS_OF_TS)
    return events.select(hit, c.USER_ID, c.ITEM_ID).distinct()

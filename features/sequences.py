"""``user_sequences``: the last L events of a user at each moment, as aligned arrays."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import Settings
from features.contracts import USER_SEQUENCES
from features.windows import BUCKET, EVENT_US, to_moments, with_bucket

_FIELDS = (EVENT_US, c.EVENT_ID, c.ITEM_ID, c.EVENT_TYPE, c.VALUE, c.SESSION_ID)


def user_sequences(events: DataFrame, moments: Sequence[datetime], settings: Settings, users: DataFrame) -> DataFrame:
    """One row a (moment, user) of ``users``. Each bucket is cut to its last events first, so memory follows L, not history."""
    keep = settings.features.sequence_length + 1  # one more, to know whether the oldest shown begins a session
    joined = events.join(users.select(c.USER_ID).distinct(), on=c.USER_ID, how="left_semi")
    per_bucket = with_bucket(joined, moments).groupBy(c.USER_ID, BUCKET).agg(
        _last(F.sort_array(F.collect_list(F.struct(*_FIELDS))), keep).alias("tail"), F.count("*").alias("n")
    )  # fmt: skip
    combined = (
        to_moments(per_bucket, moments)
        .join(users, on=[c.AS_OF_TS, c.USER_ID], how="left_semi")
        .groupBy(c.AS_OF_TS, c.USER_ID)
        .agg(
            _last(F.sort_array(F.flatten(F.collect_list("tail"))), keep).alias("tail"),
            F.sum("n").alias("sequence_events"),
        )
    )
    starts = F.transform("tail", lambda x, i: _starts(x, F.get(F.col("tail"), i - 1), settings))
    length = settings.features.sequence_length
    shown = combined.withColumn("starts", _last(starts, length)).withColumn("tail", _last(F.col("tail"), length))
    return shown.select(
        c.AS_OF_TS,
        c.USER_ID,
        F.col("tail")[c.ITEM_ID].alias("item_ids"),
        F.col("tail")[c.EVENT_TYPE].alias("event_types"),
        F.transform(F.col("tail")[EVENT_US], F.timestamp_micros).alias("event_tss"),
        F.col("tail")[c.VALUE].alias("event_values"),
        F.col("starts").alias("session_starts"),
        "sequence_events",
    ).select(*USER_SEQUENCES.column_names)


def _last(array, n: int):  # type: ignore[no-untyped-def]
    return F.slice(array, F.greatest(F.size(array) - n + 1, F.lit(1)), n)


def _starts(now, before, settings: Settings):  # type: ignore[no-untyped-def]
    """Whether an event begins a session, given the one before it: the rule of windows.starts_session, on structs."""
    gap = int(settings.features.session_gap.total_seconds() * 1_000_000)
    both = now[c.SESSION_ID].isNotNull() & before[c.SESSION_ID].isNotNull()
    other = F.when(both, now[c.SESSION_ID] != before[c.SESSION_ID]).otherwise(
        now[EVENT_US] - before[EVENT_US] > F.lit(gap)
    )
    return before.isNull() | F.coalesce(other, F.lit(True))

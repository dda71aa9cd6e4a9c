"""``user_sequences``: the last L visible events of a user, oldest first, as aligned arrays."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import Settings
from features.contracts import USER_SEQUENCES
from features.history import INCREMENT, POSITION, RECENT, STARTS, at_moments, history
from features.windows import AT, US, Moments


def user_sequences(
    events: DataFrame, moments: list[datetime], settings: Settings, users: DataFrame | None = None
) -> DataFrame:
    """Rows of ``user_sequences`` at every moment. ``events`` may be their ``history``.

    Only the last L of each increment are kept before increments are joined, so no history is ever held as a whole.
    """
    times, length = Moments.of(moments), settings.features.sequence_length
    event = F.struct(POSITION, US, c.ITEM_ID, c.EVENT_TYPE, c.VALUE, STARTS)
    newest = (
        history(events, times, settings, users)
        .where(RECENT)
        .groupBy(*INCREMENT)
        .agg(F.collect_list(event).alias("part"), F.max(POSITION).alias("events"))
    )
    joined = (
        at_moments(newest, times)
        .groupBy(c.USER_ID, AT)
        .agg(F.flatten(F.collect_list("part")).alias("parts"), F.max("events").cast("bigint").alias("sequence_events"))
        .withColumn("kept", F.slice(F.sort_array("parts"), -F.least(F.size("parts"), F.lit(length)), F.lit(length)))
    )

    def column(name: str):  # type: ignore[no-untyped-def]
        return F.col("kept").getField(name)

    return joined.select(
        times.as_of(AT),
        c.USER_ID,
        column(c.ITEM_ID).alias("item_ids"),
        column(c.EVENT_TYPE).alias("event_types"),
        F.transform(column(US), F.timestamp_micros).alias("event_tss"),
        column(c.VALUE).alias("event_values"),
        column(STARTS).alias("session_starts"),
        "sequence_events",
    ).select(*USER_SEQUENCES.column_names)

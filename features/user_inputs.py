"""One row a user for the scorer: sequence, profile and repeats side by side, times as epoch microseconds."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.contracts import USER_PROFILES
from features.windows import to_micros

#: The user whose list is shown to whoever has no visible history.
EVERYONE_ELSE = "*"

_REPEATS = {
    "repeat_item_ids": c.ITEM_ID,
    "repeat_counts": "repeat_count",
    "repeat_values": "repeat_value",
    "repeat_first_us": "first_us",
    "repeat_last_us": "last_us",
    "repeat_gap_days": "repeat_gap_days",
} | {c.repeat_decayed(h): c.repeat_decayed(h) for h in c.REPEAT_HALF_LIVES}


def user_inputs(sequences: DataFrame, profiles: DataFrame, repeats: DataFrame) -> DataFrame:
    """as_of_ts, user_id, the sequence (``event_us`` for ``event_tss``), the profile, and repeats as aligned arrays, heaviest first."""
    heavy = (-F.col(c.repeat_decayed("90d"))).alias("order")
    rows = repeats.withColumn("first_us", F.unix_micros("repeat_first_ts")).withColumn(
        "last_us", F.unix_micros("repeat_last_ts")
    )
    fields = [F.col(name) for name in dict.fromkeys(_REPEATS.values())]
    grouped = rows.groupBy(c.USER_ID).agg(F.sort_array(F.collect_list(F.struct(heavy, *fields))).alias("r"))
    aligned = grouped.select(c.USER_ID, *[F.col("r")[field].alias(name) for name, field in _REPEATS.items()])
    profile = [name for name in USER_PROFILES.column_names if name not in (c.AS_OF_TS, c.USER_ID)]
    joined = (
        sequences.join(profiles.drop(c.AS_OF_TS), on=c.USER_ID, how="inner")
        .join(aligned, on=c.USER_ID, how="left")
        .withColumn("event_us", F.transform("event_tss", F.unix_micros))
    )
    types = dict(aligned.dtypes)
    empty = [F.coalesce(F.col(name), F.array().cast(types[name])).alias(name) for name in _REPEATS]
    sequence = ["item_ids", "event_types", "event_us", "event_values", "session_starts", "sequence_events"]
    return joined.select(c.AS_OF_TS, c.USER_ID, *sequence, *profile, *empty)


def with_everyone_else(users: DataFrame, as_of: datetime) -> DataFrame:
    """Adds the row of user ``*``: no history at all."""
    blank = []
    for name, kind in users.dtypes:
        if name == c.AS_OF_TS:
            value = F.timestamp_micros(F.lit(to_micros(as_of)))
        elif name == c.USER_ID:
            value = F.lit(EVERYONE_ELSE)
        elif kind.startswith("array"):
            value = F.array().cast(kind)
        else:
            value = F.lit(0).cast(kind)
        blank.append(value.alias(name))
    nobody = users.agg(F.count("*")).select(*blank)  # an aggregate without groups has one row
    return users.where(F.col(c.USER_ID) != EVERYONE_ELSE).unionByName(nobody)

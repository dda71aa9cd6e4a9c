"""The only place where as-of filters, half-open windows and orders of events are spelt.

At ``as_of`` an event is visible iff ``event_ts < as_of AND available_ts <= as_of``. Several moments are served by one pass over
the log: each event gets the ``bucket`` of the first moment that sees it, and a moment sees its own bucket and all earlier ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from pyspark.sql import Column, DataFrame, Window, WindowSpec
from pyspark.sql import functions as F

from conf import columns as c

BUCKET = "bucket"
MOMENT_US = "moment_us"
EVENT_US = "event_us"
SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
DAY_US = 24 * HOUR_US
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    """An aware datetime as epoch microseconds. Raises ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError(f"moment {moment} has no time zone")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def visible(events: DataFrame, as_of: datetime) -> DataFrame:
    """The events that were known at as_of."""
    return events.where(_sees(as_of))


def with_bucket(events: DataFrame, moments: Sequence[datetime]) -> DataFrame:
    """Adds ``event_us`` and ``bucket``, the index of the first of the rising moments that sees the event; drops the others."""
    first = F.lit(None).cast("int")
    for index in reversed(range(len(moments))):
        first = F.when(_sees(moments[index]), F.lit(index)).otherwise(first)
    marked = events.withColumn(EVENT_US, F.unix_micros(c.EVENT_TS)).withColumn(BUCKET, first)
    return marked.where(F.col(BUCKET).isNotNull())


def to_moments(frame: DataFrame, moments: Sequence[datetime]) -> DataFrame:
    """One row for each moment that sees the row's bucket: adds ``as_of_ts`` and ``moment_us``."""
    index = F.explode(F.sequence(F.col(BUCKET), F.lit(len(moments) - 1))).alias("_moment")
    rows = frame.select("*", index).withColumn(MOMENT_US, F.get(_all(moments), F.col("_moment")))
    return rows.withColumn(c.AS_OF_TS, F.timestamp_micros(MOMENT_US)).drop("_moment")


def bucket_us(moments: Sequence[datetime]) -> Column:
    """The moment of a row's bucket, in epoch microseconds."""
    return F.get(_all(moments), F.col(BUCKET))


def in_window(seconds: int) -> Column:
    """Whether the event lies in ``[moment - seconds, moment)``; that it is before the moment is given by its bucket."""
    return F.col(EVENT_US) >= F.col(MOMENT_US) - F.lit(seconds * SECOND_US)


def decay(age_us: Column, half_life_seconds: float) -> Column:
    """``0.5 ** (age / half_life)``."""
    return F.pow(F.lit(0.5), age_us / F.lit(float(half_life_seconds) * SECOND_US))


def per_user() -> WindowSpec:
    """A user's events at one moment, oldest first; ties by event_id, so the order is total."""
    return Window.partitionBy(c.AS_OF_TS, c.USER_ID).orderBy(F.asc_nulls_last(EVENT_US), F.asc_nulls_last(c.EVENT_ID))


def starts_session(gap: timedelta, order: WindowSpec) -> Column:
    """True where the event begins a session: another source session than the event before, or a gap where none is given."""
    before, us = F.lag(c.SESSION_ID).over(order), F.lag(EVENT_US).over(order)
    both = F.col(c.SESSION_ID).isNotNull() & before.isNotNull()
    apart = F.col(EVENT_US) - us > F.lit(gap // timedelta(microseconds=1))
    return us.isNull() | F.when(both, F.col(c.SESSION_ID) != before).otherwise(apart)


def _all(moments: Sequence[datetime]) -> Column:
    return F.array(*[F.lit(micros(m)) for m in moments])


def _sees(moment: datetime) -> Column:
    return (F.col(c.EVENT_TS) < F.lit(moment)) & (F.col(c.AVAILABLE_TS) <= F.lit(moment))

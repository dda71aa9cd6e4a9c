"""Where time becomes a filter: the law of visibility, half-open windows, window frames, and moments in one pass.

A row is visible at ``as_of`` iff ``event_ts < as_of AND available_ts <= as_of``. Windows are ``[as_of - w, as_of)``.
No other module spells these out. Inside the transforms time is a BIGINT of UTC epoch microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import TypeVar

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf import columns as c

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
DAY_US = 24 * HOUR_US

#: When an event happened, as epoch microseconds.
US = "us"
#: Range of moments (indexes into ``Moments``, both ends included) at which a row holds.
SEEN_FROM, SEEN_TO = "seen_from", "seen_to"
#: The moment from which an event would have been seen, had it been known when it happened.
ON_TIME = "on_time_from"
#: One moment, as an index into ``Moments``.
AT = "at"

_Micros = TypeVar("_Micros", int, Column)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ONE_US = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Epoch microseconds of a moment. Raises ValueError for one without a time zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone; moments are UTC, e.g. datetime(2017, 12, 1, tzinfo=UTC)")
    return (moment - _EPOCH) // _ONE_US


def from_micros(us: int) -> datetime:
    """The moment of epoch microseconds, without passing through floating point."""
    return _EPOCH + us * _ONE_US


def day_end_us(us: _Micros) -> _Micros:
    """The end of the UTC day that a moment lies in, later than the moment; epoch microseconds."""
    return us - us % DAY_US + DAY_US


def visible(events: DataFrame, as_of: datetime) -> DataFrame:
    """The rows of ``events`` that were known at ``as_of``."""
    at = F.timestamp_micros(F.lit(to_micros(as_of)))
    return events.where((F.col(c.EVENT_TS) < at) & (F.col(c.AVAILABLE_TS) <= at))


def unknown_at(events: DataFrame, as_of: datetime) -> DataFrame:
    """The rows of ``events`` that were not known at ``as_of``; spelt so that files and pages of older rows are skipped."""
    at = F.timestamp_micros(F.lit(to_micros(as_of)))
    return events.where((F.col(c.EVENT_TS) >= at) | (F.col(c.AVAILABLE_TS) > at))


def between(events: DataFrame, start: datetime, end: datetime) -> DataFrame:
    """The rows of ``events`` that happened in ``[start, end)``, whether known or not."""
    return within(events, [(start, end)])


def within(events: DataFrame, spans: Sequence[tuple[datetime, datetime]]) -> DataFrame:
    """The rows of ``events`` that happened in one of the half-open spans; spelt so that files and pages of other times are skipped."""
    at = F.col(c.EVENT_TS)
    ends = [[F.timestamp_micros(F.lit(to_micros(moment))) for moment in span] for span in spans]
    return events.where(reduce(Column.__or__, [(at >= start) & (at < end) for start, end in ends]))


@dataclass(frozen=True)
class Moments:
    """The as_of moments that one pass speaks for: rising, distinct epoch microseconds.

    An event that is visible at a moment is visible at every later one, so the first moment at which it is visible is all
    that needs to be known of it: what was counted up to there is an increment, and a moment's state is their sum.
    """

    us: tuple[int, ...]

    @classmethod
    def of(cls, moments: Iterable[datetime]) -> Moments:
        """Sort and de-duplicate. Raises ValueError when there is none."""
        found = tuple(sorted({to_micros(m) for m in moments}))
        if not found:
            raise ValueError("no as_of moment was given; pass at least one")
        return cls(found)

    @property
    def last(self) -> int:
        """Index of the newest moment."""
        return len(self.us) - 1

    def log(self, events: DataFrame) -> DataFrame:
        """Events that are visible at one of the moments, with ``us``, ``seen_from`` and ``on_time_from``; timestamps are dropped."""
        newest = F.timestamp_micros(F.lit(self.us[-1]))
        known = events.where((F.col(c.EVENT_TS) < newest) & (F.col(c.AVAILABLE_TS) <= newest))
        happened, arrived = F.unix_micros(c.EVENT_TS), F.unix_micros(c.AVAILABLE_TS)
        return known.withColumns({
            US: happened,
            SEEN_FROM: self._first(lambda at: (happened < at) & (arrived <= at)),
            ON_TIME: self._first(lambda at: happened < at),
        }).drop(c.EVENT_TS, c.AVAILABLE_TS)  # fmt: skip

    def _first(self, holds) -> Column:  # type: ignore[no-untyped-def]
        found = F.lit(self.last)
        for index in range(self.last - 1, -1, -1):
            found = F.when(holds(self.us[index]), index).otherwise(found)
        return found

    def last_within(self, us: Column | str, window_us: int) -> Column:
        """Index of the newest moment m with ``us >= m - window``; -1 if there is none."""
        at = F.col(us) if isinstance(us, str) else us
        found = F.lit(-1)
        for index, moment in enumerate(self.us):
            found = F.when(at >= moment - window_us, index).otherwise(found)
        return found

    def us_of(self, index: Column | str) -> Column:
        """Epoch microseconds of the moment with this index."""
        at = F.col(index) if isinstance(index, str) else index
        if len(self.us) == 1:
            return F.lit(self.us[0])
        return F.element_at(F.array(*[F.lit(m) for m in self.us]), at + 1)

    def as_of(self, index: Column | str) -> Column:
        """The moment with this index as the contracts' ``as_of_ts``."""
        return F.timestamp_micros(self.us_of(index)).alias(c.AS_OF_TS)

    def spread(self, increments: DataFrame) -> DataFrame:
        """One row for each moment ``at`` that sees the increment: from ``seen_from`` to the newest."""
        if self.last == 0:
            return increments.withColumn(AT, F.lit(0))
        return increments.withColumn(AT, F.explode(F.sequence(SEEN_FROM, F.lit(self.last))))

"""The moments a run speaks for: its own as_of, and the past anchors that training learns from.

At an anchor the label is what a user did in ``[anchor, anchor + horizon)``, as known at as_of. The newest anchor lies a
horizon before as_of, so that its label window has closed.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import Settings
from features.windows import AT, SEEN_FROM, US, Moments, to_micros, visible

_QUARTER = timedelta(hours=6) // timedelta(microseconds=1)


def anchors_before(as_of: datetime, settings: Settings, more: int = 0) -> list[datetime]:
    """The training anchors of a run at as_of, newest first; an anchor's horizon ends at or before as_of. ``more``: further back."""
    newest = as_of - settings.horizon
    return [newest - k * settings.anchor_every for k in range(settings.anchors + more)]


def moments_of(first_us: int, as_of: datetime, settings: Settings) -> list[datetime]:
    """as_of and those of its past anchors that come after the first visible event (epoch microseconds), oldest first."""
    return [*[a for a in sorted(anchors_before(as_of, settings)) if first_us < to_micros(a)], as_of]


def with_neighbors(anchors: list[datetime], every: timedelta) -> list[datetime]:
    """At which of these anchors (oldest first, ``every`` apart) ``item_neighbors`` is made: the first in each quarter of a day, and the oldest.

    The others use the newest before them, as an hour uses its night's: all pairs of a catalogue once an hour would be most of
    what features cost. Quarters of the calendar, so that a later training asks for the same.
    """

    def quarter(moment: datetime) -> int:
        return to_micros(moment) // _QUARTER

    return [a for a in anchors if a == anchors[0] or quarter(a) > quarter(a - every)]


def labelled_users(events: DataFrame, anchors: list[datetime], horizon: timedelta, as_of: datetime, repeat: bool) -> DataFrame:
    """How many users have a past and a label at each anchor: one row, a column an anchor, in their order.

    A label is an item that the user took in ``[anchor, anchor + horizon)``, as far as that is visible at as_of; where items do not
    repeat, for the first time. Raises ValueError for an anchor whose window ends after as_of.
    """
    open_windows = [a for a in anchors if a + horizon > as_of]
    if open_windows:
        raise ValueError(
            f"the label window of anchor {max(open_windows)} ends after as_of {as_of}; leave that anchor out"
        )
    taken = visible(events, as_of).select(c.USER_ID, c.ITEM_ID, F.unix_micros(c.EVENT_TS).alias(US))
    if not repeat:
        taken = taken.groupBy(c.USER_ID, c.ITEM_ID).agg(F.min(US).alias(US))
    spans = [(to_micros(anchor), to_micros(anchor + horizon)) for anchor in anchors]
    inside = [F.bool_or((F.col(US) >= start) & (F.col(US) < end)).alias(f"in_{start}") for start, end in spans]
    users = taken.groupBy(c.USER_ID).agg(F.min(US).alias(SEEN_FROM), *inside)
    return users.agg(*[F.count_if(F.col(f"in_{start}") & (F.col(SEEN_FROM) < start)).alias(f"users_{start}") for start, _ in spans])


def users_at(events: DataFrame, moments: list[datetime], settings: Settings) -> DataFrame:
    """Whose rows are kept at which moment: as_of_ts, user_id.

    At the newest moment everyone with a visible past; at an earlier one, of these, whoever has a label there.
    """
    times = Moments.of(moments)
    horizon_us = settings.horizon // timedelta(microseconds=1)
    log = times.log(events).groupBy(c.USER_ID).agg(
        F.min(SEEN_FROM).alias(SEEN_FROM),
        *(
            F.bool_or((F.col(US) >= us) & (F.col(US) < us + horizon_us)).alias(f"label_{index}")
            for index, us in enumerate(times.us[:-1])
        ),
    )  # fmt: skip
    kept = [F.when((F.col(SEEN_FROM) <= index) & F.col(f"label_{index}"), index) for index in range(times.last)] + [
        F.lit(times.last)
    ]
    exploded = log.select(c.USER_ID, F.explode(F.array_compact(F.array(*kept))).alias(AT))
    # A hash, not chance: the same users in every run.
    chosen = Window.partitionBy(AT).orderBy(F.xxhash64(c.USER_ID).asc_nulls_last(), F.col(c.USER_ID).asc_nulls_last())
    place = F.when(F.col(AT) < times.last, F.row_number().over(chosen)).otherwise(0)
    few = exploded.withColumn("place", place).where(F.col("place") <= settings.training.users_per_anchor)
    return few.select(times.as_of(AT), c.USER_ID)

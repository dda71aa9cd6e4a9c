"""Each user's visible events in order, made once for all that depends on the order: sequences, sessions, gaps, neighbours.

Usually a history only grows at its end, so that what an event is told by its predecessors at one moment holds at every
later one: such an event is one row, seen from its first moment to the last. A late event (one that happened before a
moment but became known after it) changes what follows it; a user who has one gets a timeline of their own at each moment.
"""

from __future__ import annotations

from datetime import timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import Settings
from features.windows import AT, DAY_US, ON_TIME, SEEN_FROM, SEEN_TO, US, Moments

#: -1: the timeline that all moments share; else the index of the one moment it is for.
VERSION = "version"
TIMELINE = (c.USER_ID, VERSION)
#: Place in the timeline, from 1, in the order (event_ts, event_id).
POSITION = "position"
#: Whether it is among the last ``features.sequence_length`` events of its increment (same timeline and ``seen_from``).
RECENT = "recent"
#: Number of the session within the timeline; whether the event begins it; when it began; time since the event before it.
SESSION, STARTS, SESSION_US, STEP_US = "session", "starts", "session_us", "step_us"
#: Whether it is the first event of the user on this UTC day.
NEW_DAY = "new_day"
#: Microseconds since this user's last event with this item; NULL at the first.
GAP_US = "gap_us"
#: Whether the user had this item in this session before.
AGAIN = "again_in_session"
#: One character a moment: "1" where this user's rows are asked for.
WANTED = "wanted"

#: What rows must share to be added up before they are told apart by moment.
INCREMENT = (*TIMELINE, WANTED, SEEN_FROM, SEEN_TO)
COLUMNS = (
    *INCREMENT, POSITION, RECENT, US, c.ITEM_ID, c.EVENT_TYPE, c.VALUE, SESSION, STARTS, SESSION_US, STEP_US,
    NEW_DAY, GAP_US, AGAIN,
)  # fmt: skip


def history(events: DataFrame, times: Moments, settings: Settings, users: DataFrame | None = None) -> DataFrame:
    """One row an event and timeline, with ``COLUMNS``. What already is a history is returned as it is.

    Every user transform begins here; a job that builds several tables makes the history once, persists it and hands it to
    each of them in place of ``events``. ``users`` with as_of_ts and user_id says whose rows are wanted at which moment;
    with user_id alone (an hour's users: few enough to be sent to every worker) whose rows are wanted at all moments.

    A session begins where the source's session id changes or, where either event has none, after
    ``features.session_gap`` without an event.
    """
    if set(COLUMNS) <= set(events.columns):
        return events
    log = _of_users(times.log(events), times, users)
    # Within a timeline seen_from never falls, so it may come first; one sort then serves timelines and increments alike.
    mine = Window.partitionBy(*TIMELINE).orderBy(SEEN_FROM, US, c.EVENT_ID)
    so_far = mine.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    same = Window.partitionBy(*TIMELINE, c.ITEM_ID)
    day_us = F.lit(DAY_US)
    return (
        log.withColumns({
            "last_us": F.lag(US).over(mine), "last_id": F.lag(c.SESSION_ID).over(mine), POSITION: F.row_number().over(mine),
            "later": F.lead(SEEN_FROM, settings.features.sequence_length).over(mine),
        })
        .withColumn(STARTS, _begins(settings.features.session_gap // timedelta(microseconds=1)))
        .withColumns({
            SESSION: F.sum(F.col(STARTS).cast("int")).over(so_far).cast("int"),
            SESSION_US: F.max(F.when(F.col(STARTS), F.col(US))).over(so_far),
        })
        # Last, so that what is persisted lies in the order of (user, item), and their sums need no sort.
        .withColumn("last_same", F.lag(US).over(same.orderBy(SEEN_FROM, US, c.EVENT_ID)))
        .withColumns({
            RECENT: F.coalesce(F.col("later") != F.col(SEEN_FROM), F.lit(True)),
            STEP_US: F.when(F.col(STARTS), 0).otherwise(F.col(US) - F.col("last_us")),
            NEW_DAY: F.coalesce(F.floor(F.col(US) / day_us) != F.floor(F.col("last_us") / day_us), F.lit(True)),
            GAP_US: F.col(US) - F.col("last_same"),
            AGAIN: F.coalesce(F.col("last_same") >= F.col(SESSION_US), F.lit(False)),
        })
        .select(*COLUMNS)
    )  # fmt: skip


def _begins(gap_us: int) -> Column:
    mine, before = F.col(c.SESSION_ID), F.col("last_id")
    rests = F.col(US) - F.col("last_us") > gap_us
    changes = F.when(mine.isNotNull() & before.isNotNull(), mine != before).otherwise(
        (mine.isNotNull() != before.isNotNull()) | rests
    )
    return F.coalesce(changes, F.lit(True)) | F.col("last_us").isNull()


def _of_users(log: DataFrame, times: Moments, users: DataFrame | None) -> DataFrame:
    everyone = F.lit("1" * len(times.us))
    if users is not None and c.AS_OF_TS not in users.columns:
        log = log.join(F.broadcast(users.select(c.USER_ID).distinct()), on=c.USER_ID, how="left_semi")
        users = None
    if users is None and times.last == 0:
        return log.withColumns({VERSION: F.lit(-1), SEEN_TO: F.lit(0), WANTED: everyone})
    about = log.groupBy(c.USER_ID).agg(F.bool_or(F.col(SEEN_FROM) > F.col(ON_TIME)).alias("late"))
    if users is None:
        about = about.withColumn(WANTED, everyone)
    else:
        asked = [F.bool_or(F.unix_micros(c.AS_OF_TS) == us) for us in times.us]
        marks = F.concat(*[F.when(flag, "1").otherwise("0") for flag in asked]).alias(WANTED)
        about = about.join(users.groupBy(c.USER_ID).agg(marks), on=c.USER_ID, how="inner")
    # The table of users is the small side, and a hash of it spares both sides a sort.
    told = log.join(about.hint("shuffle_hash"), on=c.USER_ID, how="inner")
    own = F.sequence(SEEN_FROM, F.lit(times.last))
    versions = F.when(F.col("late"), own).otherwise(F.array(F.lit(-1)))
    at, shared = F.col(VERSION), F.col(VERSION) < 0
    return told.withColumn(VERSION, F.explode(versions)).withColumns({
        SEEN_FROM: F.when(shared, F.col(SEEN_FROM)).otherwise(at),
        SEEN_TO: F.when(shared, F.lit(times.last)).otherwise(at),
    })  # fmt: skip


def at_moments(rows: DataFrame, times: Moments, wanted: bool = True) -> DataFrame:
    """One row for each moment ``at`` at which the row is seen (and its user wanted)."""
    if times.last == 0:  # one moment, which all rows of a log see
        only = rows.withColumn(AT, F.lit(0))
        return only.where(wanted_at(F.lit(0))) if wanted else only
    spread = rows.withColumn(AT, F.explode(F.array(*[F.lit(k) for k in range(len(times.us))])))
    holds = (F.col(AT) >= F.col(SEEN_FROM)) & (F.col(AT) <= F.col(SEEN_TO))
    if wanted:
        holds = holds & wanted_at(F.col(AT))
    return spread.where(holds)


def wanted_at(index: Column) -> Column:
    """Whether the user's rows are asked for at the moment with this index."""
    return F.substring(WANTED, index + 1, F.lit(1)) == "1"

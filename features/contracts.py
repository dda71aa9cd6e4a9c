"""The contract of every table: columns, nullability, key, partition, owner job and comments, as code.

All reads and writes go through these objects (``jobs/store/table_io.py``), and the README's table list is made from them.
"""

from __future__ import annotations

from dataclasses import dataclass

from conf import columns as c

MICROSECOND_UTC = "UTC, microseconds"


@dataclass(frozen=True)
class Column:
    """One column: name, Spark SQL type, whether NULL is allowed, what it means (with its unit)."""

    name: str
    type: str
    comment: str
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """One table: what a row is, its columns in order, its key, its partition columns and the job that owns it.

    ``change_feed``: whether readers may ask for the rows that were added after a version.
    """

    name: str
    row: str
    owner: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    partition_by: tuple[str, ...] = ()
    change_feed: bool = False

    @property
    def column_names(self) -> list[str]:
        """Column names in contract order."""
        return [column.name for column in self.columns]

    def ddl(self) -> str:
        """The columns as a Spark DDL string, for ``StructType.fromDDL`` and ``CREATE TABLE``."""
        return ", ".join(
            f"{column.name} {column.type}" + ("" if column.nullable else " NOT NULL") for column in self.columns
        )


def _ts(name: str, comment: str, nullable: bool = False) -> Column:
    return Column(name, "TIMESTAMP", f"{comment} ({MICROSECOND_UTC})", nullable)


_USER = Column(c.USER_ID, "STRING", "who")
_ITEM = Column(c.ITEM_ID, "STRING", "which item")
_AS_OF = _ts(c.AS_OF_TS, "the moment this row speaks for; only what was visible then is in it")

EVENTS = Table(
    "events",
    "one validated event",
    "ingest",
    (c.EVENT_ID,),
    (
        Column(c.EVENT_ID, "STRING", "the source's id if mapped, else a hash of the event's content"),
        _USER,
        _ITEM,
        Column(c.EVENT_TYPE, "STRING", "one of " + ", ".join(c.EVENT_TYPES)),
        _ts(c.EVENT_TS, "when it happened"),
        _ts(c.AVAILABLE_TS, "when it became known to us; event_ts where the source has no arrival time"),
        Column(c.VALUE, "DOUBLE", "quantity, dwell seconds or rating, as the domain has it", True),
        Column(c.SESSION_ID, "STRING", "the source's session or basket, if mapped", True),
        Column(c.SOURCE, "STRING", "name of the source it came from"),
    ),
    change_feed=True,
)

EVENTS_REJECTED = Table(
    "events_rejected",
    "one raw event that was not accepted, with every reason",
    "ingest",
    (),
    (
        Column(c.RUN_ID, "STRING", "the ingest run that rejected it"),
        Column(c.RAW, "STRING", "the raw row as JSON"),
        Column(c.REASONS, "ARRAY<STRING>", "why it was rejected; never empty"),
    ),
)

ITEMS = Table(
    "items",
    "one item of the catalogue, or seen in an event only",
    "ingest",
    (c.ITEM_ID,),
    (
        _ITEM,
        _ts(c.RELEASE_TS, "when it was released; its first event where the catalogue does not say", True),
        Column(c.RELEASE_KNOWN, "BOOLEAN", "false: release_ts is the first event, not the catalogue's word"),
        _ts(c.AVAILABLE_FROM, "may be recommended from this moment on", True),
        _ts(c.AVAILABLE_UNTIL, "may no longer be recommended from this moment on", True),
        Column(c.TITLE, "STRING", "what a person reads", True),
        Column(c.CATEGORY, "STRING", "one category", True),
        Column(c.PRICE, "DOUBLE", "price in the shop's currency", True),
        Column(c.ATTRIBUTES, "MAP<STRING,STRING>", "further attributes, as mapped", True),
        Column(c.EMBEDDING, "ARRAY<FLOAT>", "content vector made elsewhere (text, image, video)", True),
    ),
)

ITEMS_REJECTED = Table(
    "items_rejected",
    "one raw catalogue row that was not accepted, with every reason",
    "ingest",
    (),
    EVENTS_REJECTED.columns,
)

USER_SEQUENCES = Table(
    "user_sequences",
    "one user at as_of: the last L events as aligned arrays, oldest first (ties by event_id)",
    "build_features",
    (c.AS_OF_TS, c.USER_ID),
    (
        _AS_OF,
        _USER,
        Column("item_ids", "ARRAY<STRING>", "items, oldest first"),
        Column("event_types", "ARRAY<STRING>", "types, aligned with item_ids"),
        Column("event_tss", "ARRAY<TIMESTAMP>", "when each happened, aligned with item_ids"),
        Column("event_values", "ARRAY<DOUBLE>", "values (NULL where the event has none), aligned with item_ids"),
        Column("session_starts", "ARRAY<BOOLEAN>", "true where a session begins, aligned with item_ids"),
        Column("sequence_events", "BIGINT", "visible events of the user in all history, not only the last L"),
    ),
    (c.AS_OF_TS,),
)

USER_PROFILES = Table(
    "user_profiles",
    "one user at as_of: how much, how often, when and what",
    "build_features",
    (c.AS_OF_TS, c.USER_ID),
    (
        _AS_OF,
        _USER,
        *(
            Column(c.user_events(w), "BIGINT", f"events of any type in {'all history' if w == 'all' else 'the last ' + w}")
            for w in (*c.WINDOWS, "all")
        ),
        *(
            Column(c.user_type_events(t, w), "BIGINT", f"{t} events in {'all history' if w == 'all' else 'the last ' + w}")
            for t in c.EVENT_TYPES
            for w in (*c.WINDOWS, "all")
        ),
        Column("user_items_all", "BIGINT", "distinct items in all history"),
        Column("user_sessions_28d", "BIGINT", "sessions begun in the last 28d"),
        Column("user_sessions_all", "BIGINT", "sessions in all history"),
        Column("user_dwell_seconds_28d", "DOUBLE", "time spent in sessions begun in the last 28d (seconds): gaps inside them or, by features.dwell, the values of their events"),
        Column("user_depth_items", "DOUBLE", "mean distinct items a session"),
        Column("user_depth_categories", "DOUBLE", "mean distinct categories a session"),
        Column("user_recency_days", "DOUBLE", "days since the last event"),
        Column("user_tenure_days", "DOUBLE", "days since the first event"),
        Column("user_cadence_days", "DOUBLE", "mean days between active days; NULL with fewer than two", True),
        Column("user_hour_habit", "ARRAY<DOUBLE>", "share of events at each UTC hour of the day, 24 values"),
        Column("user_weekday_habit", "ARRAY<DOUBLE>", "share of events on each weekday, 7 values, Monday first"),
        Column("user_long_categories", "ARRAY<STRING>", "long-term interest: top categories by decayed count (28d), best first"),
        Column("user_long_weights", "ARRAY<DOUBLE>", "their shares, aligned"),
        Column("user_short_categories", "ARRAY<STRING>", "short-term interest: top categories of the last session, best first"),
        Column("user_short_weights", "ARRAY<DOUBLE>", "their shares, aligned"),
    ),
    (c.AS_OF_TS,),
)  # fmt: skip

USER_ITEM_REPEATS = Table(
    "user_item_repeats",
    "one (user, item) at as_of: how often, how lately, how regularly",
    "build_features",
    (c.AS_OF_TS, c.USER_ID, c.ITEM_ID),
    (
        _AS_OF,
        _USER,
        _ITEM,
        Column("repeat_count", "BIGINT", "visible events of this user with this item"),
        Column("repeat_value", "DOUBLE", "sum of values (NULL values count as 0)"),
        _ts("repeat_first_ts", "the first of them"),
        _ts("repeat_last_ts", "the last of them; decayed counts refer to as_of_ts"),
        Column(
            "repeat_gap_days", "DOUBLE", "median days between distinct active moments; NULL with fewer than two", True
        ),
        *(Column(c.repeat_decayed(h), "DOUBLE", f"count decayed with half-life {h}") for h in c.REPEAT_HALF_LIVES),
    ),
    (c.AS_OF_TS,),
)

ITEM_NEIGHBORS = Table(
    "item_neighbors",
    "one (item, neighbour) at as_of: time-decayed co-occurrence in sessions and histories, normalised against popularity",
    "build_features",
    (c.AS_OF_TS, c.ITEM_ID, c.NEIGHBOR_ID),
    (
        _AS_OF,
        _ITEM,
        Column(c.NEIGHBOR_ID, "STRING", "the neighbour"),
        Column("neighbor_weight", "DOUBLE", "similarity, 0 to about 1"),
        Column("neighbor_rank", "INT", "1 is the nearest"),
    ),
    (c.AS_OF_TS,),
)

ITEM_SUMS = Table(
    "item_sums",
    "one item with a visible event at as_of: the sums behind item_temporal, which an hour adds to",
    "build_features",
    (c.AS_OF_TS, c.ITEM_ID),
    (
        _AS_OF,
        _ITEM,
        Column("sum_events", "BIGINT", "visible sales in all history"),
        Column("sum_users_28d", "BIGINT", "distinct users in the last 28d"),
        Column("sum_gaps", "BIGINT", "gaps between two sales to the same user"),
        Column("sum_span_us", "BIGINT", "the sum of these gaps (microseconds)"),
        Column("sum_first_us", "BIGINT", "the first sale (epoch microseconds)"),
        Column("sum_last_us", "BIGINT", "the last sale (epoch microseconds)"),
        Column(
            "sum_decayed",
            "ARRAY<BIGINT>",
            f"sales decayed with half-lives {', '.join(c.ITEM_HALF_LIVES)} to the end of as_of's UTC day: for each two exact parts, 2^-30 and 2^-61",
        ),
        Column(
            "sum_cycle",
            "ARRAY<BIGINT>",
            "cosines and sines of the place in the day and in the week: for each two exact parts, 2^-30 and 2^-61",
        ),
        Column("sum_hours", "ARRAY<INT>", f"sales in each of the last {c.HOUR_BUCKETS} hours, oldest first"),
        Column("sum_days", "ARRAY<INT>", f"sales in each of the last {c.DAY_BUCKETS} days, oldest first"),
        Column(c.EVENTS_VERSION, "BIGINT", "version of table events that was counted; what came later is new to an hour"),
    ),
    (c.AS_OF_TS,),
)

ITEM_TEMPORAL = Table(
    "item_temporal",
    "one item visible at as_of: its age, sales, trend, stage and cycle",
    "build_features",
    (c.AS_OF_TS, c.ITEM_ID),
    (
        _AS_OF,
        _ITEM,
        _ts("item_release_ts", "release: the catalogue's word, else the first visible event"),
        Column("item_release_known", "BOOLEAN", "true: the catalogue's word"),
        Column("item_age_days", "DOUBLE", "days since release, >= 0"),
        Column("item_available", "BOOLEAN", "may be recommended at as_of (released, within available_from / available_until)"),
        Column("item_sales_all", "BIGINT", "visible sales in all history"),
        Column("item_users_28d", "BIGINT", "distinct users in the last 28d"),
        *(Column(c.item_sales(w), "BIGINT", f"sales in the last {w}") for w in c.WINDOWS),
        *(Column(c.item_decayed(h), "DOUBLE", f"sales decayed with half-life {h}") for h in c.ITEM_HALF_LIVES),
        Column("item_trend_1d_7d", "DOUBLE", "log((daily rate of 1d + s) / (daily rate of 7d + s)), s = 1/7"),
        Column("item_trend_7d_28d", "DOUBLE", "log((daily rate of 7d + s) / (daily rate of 28d + s)), s = 1/28"),
        Column("item_acceleration", "DOUBLE", "item_trend_1d_7d - item_trend_7d_28d"),
        Column("item_idle_days", "DOUBLE", "days since the last sale; NULL without sales", True),
        Column("item_days_since_peak", "DOUBLE", "whole days since the best of the last 56 days; NULL without sales in them", True),
        Column(
            "item_life_stage",
            "STRING",
            f"new: younger than {c.NEW_DAYS:g} days; else by item_trend_7d_28d: above {c.STAGE_TREND} peak (best day less than "
            f"{c.PEAK_DAYS:g} days ago) or rising, below -{c.STAGE_TREND} falling, between evergreen",
        ),
        Column("item_daily_strength", "DOUBLE", "strength of the cycle over the hours of the day, 0 (flat) to 1 (one hour only)"),
        Column("item_daily_phase", "DOUBLE", "hour of the day (UTC) at the centre of the cycle, 0 to 24"),
        Column("item_weekly_strength", "DOUBLE", "strength of the cycle over the weekdays, 0 (flat) to 1 (one day only)"),
        Column("item_weekly_phase", "DOUBLE", "day of the week at the centre of the cycle, 0 (Monday) to 7"),
        Column("item_repurchase_days", "DOUBLE", "mean days between two sales to the same user; NULL where none bought twice", True),
        Column("item_hours", "ARRAY<INT>", f"sales in each of the last {c.HOUR_BUCKETS} hours, oldest first"),
        Column("item_days", "ARRAY<INT>", f"sales in each of the last {c.DAY_BUCKETS} days, oldest first"),
    ),
    (c.AS_OF_TS,),
)  # fmt: skip

_LIST = (
    _ITEM,
    Column(c.SCORE, "DOUBLE", "the ranker's score; comparable within one list only"),
    Column(c.REASON, "STRING", "why it is there, in words"),
    Column(c.MODE, "STRING", "nightly or hourly"),
    Column(c.COLD, "BOOLEAN", "true: the user has no visible history, the list is the one that served newcomers best"),
    Column(c.BATCH_ID, "STRING", "the batch that wrote it: mode, as_of and model, hashed"),
    Column(c.MODEL_VERSION, "STRING", "version of the registered model"),
    _ts(c.VALID_UNTIL_TS, "as_of + horizon"),
)

RECOMMENDATIONS = Table(
    "recommendations",
    "one recommended item of one user's list made at as_of (all history)",
    "score",
    (c.AS_OF_TS, c.MODE, c.USER_ID, c.RANK),
    (_AS_OF, _USER, Column(c.RANK, "INT", "1 is the first shown"), *_LIST),
    (c.AS_OF_TS,),
)

RECOMMENDATIONS_LATEST = Table(
    "recommendations_latest",
    "one item of the list to show this user now",
    "score",
    (c.USER_ID, c.RANK),
    (_USER, Column(c.RANK, "INT", "1 is the first shown"), *_LIST, _AS_OF),
)

EVALUATIONS = Table(
    "evaluations",
    "one metric of one recommender in one segment, of one window or of several together",
    "evaluate",
    (c.RUN_ID, c.AS_OF_TS, "windows", "recommender", "segment", "metric"),
    (
        Column(c.RUN_ID, "STRING", "the evaluate run"),
        _AS_OF,
        Column("horizon_seconds", "BIGINT", "truth is what users did in [as_of, as_of + horizon)"),
        Column("windows", "INT", "1, or how many windows are taken together, as_of being the newest"),
        Column("recommender", "STRING", "kairos (the night's list), kairos as served (the newest at the visit) or a baseline"),
        Column(c.MODEL_VERSION, "STRING", "version of the registered model; NULL for a baseline", True),
        Column("segment", "STRING", "all, a part of the users (history, hour of the visit) or of their true items (age, popularity), or hour by hour"),
        Column("metric", "STRING", "e.g. ndcg@10"),
        Column("metric_value", "DOUBLE", "the mean over users (coverage and gini: of all lists of the window)"),
        Column("users", "BIGINT", "users judged; in several windows, lists judged; hour by hour, their hours"),
        Column("metric_low", "DOUBLE", "lower end of the 95 % bootstrap interval of the mean; NULL for few users", True),
        Column("metric_high", "DOUBLE", "upper end", True),
        Column("kairos_lead", "DOUBLE", "kairos' mean less this one's, over the same users; NULL for kairos", True),
        Column("kairos_lead_low", "DOUBLE", "lower end of its paired 95 % bootstrap interval", True),
        Column("kairos_lead_high", "DOUBLE", "upper end", True),
        Column("p_value", "DOUBLE", "of no lead either way, from the same draws; not corrected for many comparisons", True),
    ),
)

RUNS = Table(
    "runs",
    "one run of one job",
    "every job",
    (c.RUN_ID,),
    (
        Column(c.RUN_ID, "STRING", "identifies the run; also in Delta's userMetadata of each commit it made"),
        Column("job", "STRING", "which job"),
        Column(c.MODE, "STRING", "nightly or hourly, where the job has a mode", True),
        _ts(c.AS_OF_TS, "the moment it spoke for"),
        Column("status", "STRING", "ok or failed"),
        Column("message", "STRING", "what went wrong, or a note", True),
        _ts("started_ts", "wall clock, for people only"),
        Column("seconds", "DOUBLE", "how long it took"),
        Column("inputs", "MAP<STRING,BIGINT>", "table read -> Delta version"),
        Column("outputs", "MAP<STRING,BIGINT>", "table written -> Delta version"),
        Column("counts", "MAP<STRING,BIGINT>", "row counts by name; they add up"),
        Column(c.MODEL_VERSION, "STRING", "the model it used or made", True),
        Column("settings_hash", "STRING", "SHA-256 of the resolved settings"),
    ),
)

#: What build_features writes at an as_of.
FEATURE_TABLES = (USER_SEQUENCES, USER_PROFILES, USER_ITEM_REPEATS, ITEM_NEIGHBORS, ITEM_SUMS, ITEM_TEMPORAL)
#: Those that have rows at each night and anchor: items need not have met by then, and an anchor may use earlier neighbours. An hour
#: counts as neither, because it has no ``item_sums``.
ANCHOR_TABLES = tuple(table for table in FEATURE_TABLES if table is not ITEM_NEIGHBORS)
TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        EVENTS, EVENTS_REJECTED, ITEMS, ITEMS_REJECTED, *FEATURE_TABLES, RECOMMENDATIONS, RECOMMENDATIONS_LATEST, EVALUATIONS, RUNS,
    )
}  # fmt: skip

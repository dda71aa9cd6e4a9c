"""Spark SQL over the published tables: views and functions for a session, or for good where tables have catalog names.

    recommendations_latest            what to show now
    recommendations_asof(ts)          what was on show at a moment
    recommendations_explained         the lists of now with titles and ages
    pipeline_status(ts)               how old events, features, model and lists are at a moment, and what breaches its limit
"""

from __future__ import annotations

from datetime import timedelta

from conf.settings import Settings
from features.contracts import (
    EVENTS,
    ITEM_TEMPORAL,
    ITEMS,
    RECOMMENDATIONS,
    RECOMMENDATIONS_LATEST,
    RUNS,
    USER_ITEM_REPEATS,
    USER_PROFILES,
    Table,
)
from jobs.queries import shown_at
from jobs.store.table_io import Warehouse

_NEEDED = (EVENTS, ITEMS, USER_PROFILES, USER_ITEM_REPEATS, ITEM_TEMPORAL, RECOMMENDATIONS, RECOMMENDATIONS_LATEST, RUNS)


def register(warehouse: Warehouse) -> list[str]:
    """Make them, and tell their names. They read the tables as they are when asked.

    Without a catalog they are temporary and end with the session; with one they bear its name and stay.
    Raises DataQualityError where a table is missing.
    """
    for table in _NEEDED:
        warehouse.read(table)
    at = warehouse.sql_name
    catalog = warehouse.settings.catalog
    kind, prefix = ("", f"{catalog}.") if catalog else ("TEMPORARY ", "")
    made = []
    if not catalog:  # there the table bears this name already
        made.append(f"CREATE OR REPLACE TEMPORARY VIEW recommendations_latest AS SELECT * FROM {at(RECOMMENDATIONS_LATEST)}")
    made += [
        f"CREATE OR REPLACE {kind}VIEW {prefix}recommendations_explained AS {_explained(warehouse)}",
        f"CREATE OR REPLACE {kind}FUNCTION {prefix}recommendations_asof(ts TIMESTAMP) RETURNS TABLE ({RECOMMENDATIONS_DDL}) "
        f"COMMENT 'what was on show at ts' RETURN {shown_at(at(RECOMMENDATIONS), 'recommendations_asof.ts')}",
        f"CREATE OR REPLACE {kind}FUNCTION {prefix}pipeline_status(ts TIMESTAMP) RETURNS TABLE ({_STATUS}) "
        f"COMMENT 'how old each part of the pipeline is at ts' RETURN {_status(warehouse)}",
    ]
    for statement in made:
        warehouse.spark.sql(statement)
    return [f"{prefix}{name}" for name in ("recommendations_latest", "recommendations_explained", "recommendations_asof", "pipeline_status")]


def _columns(table: Table) -> str:
    return ", ".join(f"{column.name} {column.type}" for column in table.columns)


RECOMMENDATIONS_DDL = _columns(RECOMMENDATIONS)
_STATUS = "part STRING, newest_ts TIMESTAMP, age_hours DOUBLE, limit_hours DOUBLE, coverage DOUBLE, breached BOOLEAN"


def _explained(warehouse: Warehouse) -> str:
    at = warehouse.sql_name
    same = "x.as_of_ts = l.as_of_ts AND x.item_id = l.item_id"
    return f"""
SELECT l.user_id, l.rank, l.item_id, i.title, i.category, l.score, l.reason, l.mode, l.cold, x.item_age_days, x.item_life_stage,
  m.repeat_count AS user_times, (unix_micros(l.as_of_ts) - unix_micros(m.repeat_last_ts)) / 86400e6D AS user_last_days,
  l.as_of_ts, l.valid_until_ts, l.model_version, l.batch_id
FROM {at(RECOMMENDATIONS_LATEST)} l
LEFT JOIN {at(ITEMS)} i ON i.item_id = l.item_id
LEFT JOIN {at(ITEM_TEMPORAL)} x ON {same}
LEFT JOIN {at(USER_ITEM_REPEATS)} m ON m.as_of_ts = l.as_of_ts AND m.item_id = l.item_id AND m.user_id = l.user_id
"""


def _status(warehouse: Warehouse) -> str:
    """Limits: events by ingest.max_staleness, features and lists by the horizon they speak for, a model by the night after training.every."""
    at, settings, ts = warehouse.sql_name, warehouse.settings, "pipeline_status.ts"
    done = f"FROM {at(RUNS)} WHERE status = 'ok' AND as_of_ts <= {ts} AND job"
    night = f"SELECT max(as_of_ts) AS night {done} = 'build_features' AND mode = 'nightly'"
    known = f"SELECT count(*) AS n FROM {at(USER_PROFILES)} p JOIN ({night}) n ON p.as_of_ts = n.night"
    served = "max(as_of_ts) AS newest, count(DISTINCT CASE WHEN user_id <> '*' THEN user_id END) AS n"
    lists = f"(SELECT {served} FROM ({shown_at(at(RECOMMENDATIONS), ts)})) l CROSS JOIN ({known}) k"
    parts = [
        ("events", "max(event_ts)", "NULL", f"FROM {at(EVENTS)} WHERE event_ts < {ts} AND available_ts <= {ts}"),
        ("features", "max(as_of_ts)", "NULL", f"{done} = 'build_features'"),
        ("model", "max(as_of_ts)", "NULL", f"{done} = 'train_model'"),
        ("lists", "l.newest", "l.n / nullif(k.n, 0)", f"FROM {lists}"),
    ]
    rows = " UNION ALL ".join(
        f"SELECT '{part}' AS part, {newest} AS newest_ts, CAST({_hours(settings, part)} AS DOUBLE) AS limit_hours, "
        f"CAST({coverage} AS DOUBLE) AS coverage {source}"
        for part, newest, coverage, source in parts
    )
    age = f"(unix_micros({ts}) - unix_micros(newest_ts)) / 3600e6D"
    least = 1 - settings.scoring.max_unserved
    late = f"coalesce({age} > limit_hours, false) OR newest_ts IS NULL OR coalesce(coverage < {least}, false)"
    return f"SELECT part, newest_ts, {age} AS age_hours, limit_hours, coverage, {late} AS breached FROM ({rows})"


def _hours(settings: Settings, part: str) -> str:
    model = settings.train_every and settings.train_every + timedelta(days=1)
    limit = {"events": settings.ingest.max_staleness, "model": model}.get(part, settings.horizon)
    return "NULL" if limit is None else f"{limit.total_seconds() / 3600}"

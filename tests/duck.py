"""Sequences and item features once more, in DuckDB's SQL: what the benchmark runs beside Spark, and compares row by row."""

from __future__ import annotations

from datetime import datetime

import duckdb

HALF_LIVES = {"1h": 3_600, "6h": 21_600, "1d": 86_400, "3d": 259_200, "7d": 604_800, "28d": 2_419_200, "180d": 15_552_000}
WINDOWS = {"1h": 1, "6h": 6, "1d": 24, "7d": 168, "28d": 672}  # hours
DAY_US = 86_400_000_000

SEQUENCES = """
WITH visible AS (
    SELECT * FROM events WHERE event_ts < $as_of AND available_ts <= $as_of
), told AS (
    SELECT user_id, item_id, event_type, event_ts, value, event_id, session_id,
           lag(event_ts) OVER mine AS last_ts, lag(session_id) OVER mine AS last_session
    FROM visible WINDOW mine AS (PARTITION BY user_id ORDER BY event_ts, event_id)
), marked AS (
    SELECT *, CASE WHEN last_ts IS NULL THEN true
                   WHEN session_id IS NOT NULL AND last_session IS NOT NULL THEN session_id <> last_session
                   ELSE (session_id IS NULL) <> (last_session IS NULL) OR event_ts - last_ts > $gap END AS starts
    FROM told
), gathered AS (
    SELECT user_id, count(*) AS sequence_events,
           list({'i': item_id, 't': event_type, 'ts': event_ts, 'v': value, 's': starts} ORDER BY event_ts, event_id)[-$length:] AS e
    FROM marked GROUP BY user_id
)
SELECT user_id, list_transform(e, lambda x: x.i) AS item_ids, list_transform(e, lambda x: x.t) AS event_types,
       list_transform(e, lambda x: x.ts) AS event_tss, list_transform(e, lambda x: x.v) AS event_values,
       list_transform(e, lambda x: x.s) AS session_starts, sequence_events
FROM gathered
"""


def _items() -> str:
    decayed = ", ".join(f"sum(pow(0.5, age / {s}e6)) AS item_decayed_{h}" for h, s in HALF_LIVES.items())
    hours = ", ".join(f"coalesce(sum(n) FILTER (hour = {k}), 0)::INT" for k in reversed(range(48)))
    days = ", ".join(f"coalesce(sum(n) FILTER (hour // 24 = {k}), 0)::INT" for k in reversed(range(56)))
    windows = ", ".join(f"coalesce(sum(n) FILTER (hour < {h}), 0)::BIGINT AS item_sales_{w}" for w, h in WINDOWS.items())
    return f"""
WITH visible AS (
    SELECT user_id, item_id, epoch_us(event_ts) AS us, epoch_us($as_of) - epoch_us(event_ts) AS age,
           (epoch_us($as_of) - epoch_us(event_ts) - 1) // 3600000000 AS hour
    FROM events WHERE event_ts < $as_of AND available_ts <= $as_of
), totals AS (
    SELECT item_id, count(*) AS item_sales_all, min(us) AS first_us, max(us) AS last_us, {decayed},
           sum(cos(2 * pi() * (us % {DAY_US}) / {DAY_US})) AS dx, sum(sin(2 * pi() * (us % {DAY_US}) / {DAY_US})) AS dy,
           sum(cos(2 * pi() * ((us - 4 * {DAY_US}) % (7 * {DAY_US})) / (7 * {DAY_US}))) AS wx,
           sum(sin(2 * pi() * ((us - 4 * {DAY_US}) % (7 * {DAY_US})) / (7 * {DAY_US}))) AS wy
    FROM visible GROUP BY item_id
), hourly AS (
    SELECT item_id, hour, count(*) AS n FROM visible GROUP BY ALL
), series AS (
    SELECT item_id, {windows}, [{hours}] AS item_hours, [{days}] AS item_days FROM hourly GROUP BY item_id
), pairs AS (
    SELECT item_id, user_id, count(*) AS n, min(us) AS first, max(us) AS last FROM visible GROUP BY ALL
), buyers AS (
    SELECT item_id, count(*) FILTER (last >= epoch_us($as_of) - 28 * {DAY_US}) AS item_users_28d,
           sum(n - 1) AS gaps, sum(last - first) AS span
    FROM pairs GROUP BY item_id
), joined AS (
    SELECT t.*, s.* EXCLUDE item_id, b.* EXCLUDE item_id,
           least(epoch_us(i.release_ts), first_us) AS release_us,
           coalesce(epoch_us(i.available_until) > epoch_us($as_of), true) AS item_available
    FROM totals t LEFT JOIN series s USING (item_id) LEFT JOIN buyers b USING (item_id) LEFT JOIN items i USING (item_id)
), trends AS (
    SELECT *, (epoch_us($as_of) - release_us) / {DAY_US} AS item_age_days,
           ln((item_sales_1d + 1 / 7) / (item_sales_7d / 7 + 1 / 7)) AS item_trend_1d_7d,
           ln((item_sales_7d / 7 + 1 / 28) / (item_sales_28d / 28 + 1 / 28)) AS item_trend_7d_28d,
           (epoch_us($as_of) - last_us) / {DAY_US} AS item_idle_days,
           CASE WHEN list_max(item_days) > 0
                THEN list_position(list_reverse(item_days), list_max(item_days)) - 1.0 END AS item_days_since_peak,
           least(sqrt(dx * dx + dy * dy) / item_sales_all, 1) AS item_daily_strength,
           least(sqrt(wx * wx + wy * wy) / item_sales_all, 1) AS item_weekly_strength,
           (atan2(dy, dx) / (2 * pi()) + 1) % 1 * 24 AS item_daily_phase,
           (atan2(wy, wx) / (2 * pi()) + 1) % 1 * 7 AS item_weekly_phase,
           CASE WHEN gaps > 0 THEN span / gaps / {DAY_US} END AS item_repurchase_days
    FROM joined
)
SELECT * EXCLUDE (dx, dy, wx, wy, gaps, span, first_us, last_us, release_us),
       item_trend_1d_7d - item_trend_7d_28d AS item_acceleration,
       CASE WHEN item_age_days < 7 THEN 'new'
            WHEN item_trend_7d_28d > 0.2 THEN CASE WHEN item_days_since_peak < 2 THEN 'peak' ELSE 'rising' END
            WHEN item_trend_7d_28d < -0.2 THEN 'falling' ELSE 'evergreen' END AS item_life_stage
FROM trends
"""


ITEMS = _items()


def connect(events: str, items: str, threads: int, memory: str, scratch: str) -> duckdb.DuckDBPyConnection:
    """A database in memory with the parquet files as ``events`` and ``items``."""
    database = duckdb.connect(config={"threads": threads, "memory_limit": memory, "temp_directory": scratch})
    database.execute("SET TimeZone = 'UTC'")
    for name, files in (("events", events), ("items", items)):
        database.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{files}/*.parquet')")
    return database


def write(database: duckdb.DuckDBPyConnection, query: str, out: str, as_of: datetime, **values: object) -> None:
    """Run a query and write its rows as parquet."""
    for name, value in {"as_of": f"TIMESTAMPTZ '{as_of.isoformat()}'", **values}.items():
        query = query.replace(f"${name}", str(value))
    database.execute(f"COPY ({query}) TO '{out}' (FORMAT parquet)")


def compare(ours: str, theirs: str, key: str) -> tuple[int, int, int]:
    """Rows, columns compared, and rows that differ, of two sets of parquet files: integers, text and lists exactly, doubles to
    1e-9 of the larger or of 1."""
    database = duckdb.connect()
    a, b = f"read_parquet('{ours}')", f"read_parquet('{theirs}')"
    kinds = {row[0]: row[1] for row in database.execute(f"DESCRIBE SELECT * FROM {b}").fetchall()}

    def differs(name: str, kind: str) -> str:
        if kind != "DOUBLE":
            return f"a.{name} IS DISTINCT FROM b.{name}"
        apart = f"abs(a.{name} - b.{name}) > 1e-9 * greatest(1, abs(a.{name}))"
        return f"({apart} OR (a.{name} IS NULL) <> (b.{name} IS NULL))"

    any_differs = " OR ".join(differs(name, kind) for name, kind in kinds.items())
    query = f"SELECT count(*), count(*) FILTER ({any_differs}) FROM {a} a FULL JOIN {b} b USING ({key})"
    rows, bad = database.execute(query).fetchone()
    return rows, len(kinds), bad

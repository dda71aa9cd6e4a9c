"""SQL over the published tables that Spark and DuckDB both know. Without a clock: the moment asked about is always said."""

from __future__ import annotations

from features.contracts import RECOMMENDATIONS


def shown_at(table: str, ts: str) -> str:
    """The query of features/served.py's ``shown_at``: the lists on show at ``ts``, an SQL expression, from a table of this name.

    Each user's newest list since the newest night; whom that night does not know is shown the list of ``*``.
    """
    columns = ", ".join(RECOMMENDATIONS.column_names)
    # Spark hands a function's parameter to derived tables, but not to a subquery inside of one.
    night = f"SELECT max(as_of_ts) AS night FROM {table} WHERE mode = 'nightly' AND as_of_ts <= {ts}"
    ranked = f"SELECT r.*, rank() OVER (PARTITION BY user_id ORDER BY as_of_ts DESC, mode) AS age FROM {table} r"
    return f"SELECT {columns} FROM ({ranked} JOIN ({night}) n ON r.as_of_ts >= n.night WHERE r.as_of_ts <= {ts}) WHERE age = 1"

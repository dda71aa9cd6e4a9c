"""Query the published lists without Spark: deltalake reads the tables, DuckDB answers SQL over them.

Usage: ``python -m jobs.show --warehouse ./warehouse "SELECT * FROM recommendations_latest WHERE user_id = '1'"``
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import duckdb
import typer
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from rich.table import Table as Grid

from features.contracts import RECOMMENDATIONS, TABLES
from jobs.errors import JobError, UsageError
from jobs.progress import console, fail
from jobs.queries import shown_at

LIST_OF_USER = """
SELECT l.rank, coalesce(i.title, l.item_id) AS title, l.reason, l.mode, l.as_of_ts, l.valid_until_ts
FROM recommendations_latest l LEFT JOIN items i USING (item_id)
WHERE l.user_id = coalesce((SELECT any_value(user_id) FROM recommendations_latest WHERE user_id = $user), '*')
ORDER BY l.rank
"""


def connect(warehouse: str) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with every table of the warehouse as a view, and ``recommendations_asof(ts)``.

    Raises UsageError when there is no table.
    """
    found = duckdb.connect()
    found.execute("SET TimeZone = 'UTC'")
    for name in TABLES:
        try:
            table = DeltaTable(f"{warehouse.rstrip('/')}/{name}")
        except TableNotFoundError:
            continue
        found.register(name, table.to_pyarrow_dataset())
    if not found.execute("SHOW TABLES").fetchall():
        raise UsageError(f"no table in warehouse {Path(warehouse).absolute()}; run jobs/nightly.py first")
    if found.execute("SELECT 1 FROM duckdb_views() WHERE view_name = ?", [RECOMMENDATIONS.name]).fetchone():
        found.execute(f"CREATE MACRO recommendations_asof(ts) AS TABLE {shown_at(RECOMMENDATIONS.name, 'ts')}")
    return found


def main(
    query: Annotated[str | None, typer.Argument(help="SQL; without it, the list of --user")] = None,
    warehouse: Annotated[str, typer.Option(help="the folder of the tables")] = "./warehouse",
    user: Annotated[str, typer.Option(help="whose list; '*' is the list for everyone without history")] = "*",
) -> None:
    """Print a query's result, or one user's list."""
    try:
        tables = connect(warehouse)
        result = tables.execute(query) if query else tables.execute(LIST_OF_USER, {"user": user})
    except JobError as error:
        sys.exit(fail("show", error))
    except duckdb.Error as error:
        sys.exit(fail("show", UsageError(str(error).splitlines()[0])))
    grid = Grid(*[column[0] for column in result.description or []])
    for row in result.fetchall():
        grid.add_row(*[str(value) for value in row])
    console.print(grid)


if __name__ == "__main__":
    typer.run(main)

"""Why was this user shown that item? The chain from the list back: run, model, features, events. Without Spark.

Usage: ``python -m jobs.why --warehouse ./warehouse --user 1 --item 995242 --as-of 2017-12-01T03:00:00Z``
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import duckdb
import typer
from rich.table import Table as Grid

from jobs import cli
from jobs.errors import JobError, UsageError
from jobs.progress import console, fail
from jobs.show import connect

#: What each step asks. $made is the list's own as_of: what was known then decided. A night's neighbours serve the hours after it.
STEPS = {
    "list": "SELECT rank, item_id, score, reason, mode, cold, as_of_ts, valid_until_ts, batch_id, model_version "
    "FROM recommendations_asof($asked) WHERE user_id = $user AND item_id = $item",
    "run": "SELECT run_id, started_ts, seconds, inputs, outputs, settings_hash FROM runs "
    "WHERE job = 'score' AND status = 'ok' AND mode = $mode AND as_of_ts = $made ORDER BY started_ts DESC LIMIT 1",
    "model": "SELECT model_version, as_of_ts AS trained_as_of, run_id, inputs, counts FROM runs "
    "WHERE job = 'train_model' AND status = 'ok' AND model_version = $version ORDER BY started_ts DESC LIMIT 1",
    "features: user and item": "SELECT * FROM user_item_repeats WHERE as_of_ts = $made AND user_id = $user AND item_id = $item",
    "features: user": "SELECT user_events_1d, user_events_7d, user_events_28d, user_events_all, user_recency_days, user_cadence_days, "
    "user_long_categories, user_long_weights, user_short_categories, user_short_weights "
    "FROM user_profiles WHERE as_of_ts = $made AND user_id = $user",
    "features: item": "SELECT item_available, item_age_days, item_life_stage, item_sales_1d, item_sales_7d, item_sales_28d, "
    "item_decayed_1d, item_decayed_7d, item_trend_1d_7d, item_idle_days, item_repurchase_days "
    "FROM item_temporal WHERE as_of_ts = $made AND item_id = $item",
    "events": "SELECT e.event_ts, e.event_type, e.item_id, i.title, e.value, n.neighbor_weight, e.event_id FROM events e "
    "LEFT JOIN items i USING (item_id) LEFT JOIN (SELECT item_id AS of_item, neighbor_weight FROM item_neighbors WHERE neighbor_id = $item "
    "AND as_of_ts = (SELECT max(as_of_ts) FROM item_neighbors WHERE as_of_ts <= $made)) n ON n.of_item = e.item_id "
    "WHERE e.user_id = $user AND e.event_ts < $made AND e.available_ts <= $made AND (e.item_id = $item OR n.of_item IS NOT NULL) "
    "ORDER BY e.event_ts DESC, e.event_id DESC LIMIT 20",
}
_WHOSE = "SELECT max(as_of_ts), max(mode), max(model_version) FROM recommendations_asof($asked) WHERE user_id = $user"


def chain(tables: duckdb.DuckDBPyConnection, user: str, item: str, as_of: str) -> dict[str, list[dict[str, Any]]]:
    """Step -> rows, in order. A user without a list is answered for ``*``. Empty ``list``: the item was not in it.

    Raises UsageError when nothing was on show at as_of.
    """
    asked = {"asked": cli.parse_as_of(as_of)}
    for whose in (user, "*"):
        made, mode, version = tables.execute(_WHOSE, asked | {"user": whose}).fetchone() or (None, None, None)
        if made is not None:
            break
    else:
        raise UsageError(f"no list was on show at {as_of}: the first night on record is later; choose a later --as-of or run jobs/nightly.py")
    known = asked | {"user": whose, "item": item, "made": made, "mode": mode, "version": version}
    out = {}
    for step, query in STEPS.items():
        rows = tables.execute(query, {name: value for name, value in known.items() if f"${name}" in query})
        names = [column[0] for column in rows.description or []]
        out[step] = [dict(zip(names, row, strict=True)) for row in rows.fetchall()]
    return out


def main(
    user: Annotated[str, typer.Option(help="who")],
    item: Annotated[str, typer.Option(help="which item")],
    as_of: Annotated[str, typer.Option(help="the moment it was shown, e.g. 2017-12-01T03:00:00Z")],
    warehouse: Annotated[str, typer.Option(help="the folder of the tables")] = "./warehouse",
) -> None:
    """Print the chain run, model, features, events behind one place of one list.

    Exit codes: 0 ok · 2 usage
    """
    try:
        steps = chain(connect(warehouse), user, item, as_of)
    except JobError as error:
        sys.exit(fail("why", error))
    except duckdb.Error as error:
        sys.exit(fail("why", UsageError(f"a table is missing or unreadable: {str(error).splitlines()[0]}; run jobs/nightly.py first")))
    for step, rows in steps.items():
        console.print(f"[bold]{step}[/bold]" + ("" if rows else ": " + ("the item was not in the list" if step == "list" else "nothing")))
        if step == "events" and rows:
            grid = Grid(*rows[0])
            for row in rows:
                grid.add_row(*[str(value) for value in row.values()])
            console.print(grid)
        else:
            for row in rows:
                for name, value in row.items():
                    console.print(f"  {name}: {value}", markup=False)


if __name__ == "__main__":
    typer.run(main)

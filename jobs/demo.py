"""One night and two hours on real data (groceries of 2017): what ``make demo`` runs.

Everything goes through the jobs that production runs; this file only chooses the moments and prints the outcome.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pyspark.sql import functions as F
from rich.table import Table as Grid

from conf import columns as c
from conf.load import load
from features.contracts import EVENTS, ITEMS, RECOMMENDATIONS_LATEST
from jobs.cli import Context
from jobs.errors import JobError
from jobs.evaluate import evaluate
from jobs.hourly import hourly
from jobs.nightly import nightly
from jobs.progress import console, fail
from jobs.spark.session import open_session
from jobs.store.table_io import Warehouse

NIGHT = datetime(2017, 12, 1, tzinfo=UTC)
HOURS = (NIGHT + timedelta(hours=15), NIGHT + timedelta(hours=16))
SETTINGS = Path(__file__).parents[1] / "conf" / "completejourney.yaml"


def main() -> int:
    """Run the demo on a fresh warehouse. Returns the exit code."""
    tick = time.monotonic()
    settings = load(SETTINGS).model_copy(update={"warehouse": "./warehouse/demo"})
    shutil.rmtree(settings.warehouse, ignore_errors=True)
    spark = open_session(settings.spark, "kairos-demo")
    try:
        context = Context(spark, settings, Warehouse(spark, settings), NIGHT, "nightly", False)
        nightly(context)
        shoppers = _shoppers(context)
        before = _show_lists(context, "Tonight's lists", shoppers)
        for hour in HOURS:
            hourly(replace(context, as_of=hour, mode="hourly"))
        after = _show_lists(context, "The same households after two hourly refreshes", shoppers)
        changed = sum(before[user] != after[user] for user in shoppers)
        console.print(f"{changed} of these {len(shoppers)} lists changed with what their households bought that day.\n")
        evaluate(context)
    except JobError as error:
        return fail("demo", error)
    finally:
        spark.stop()
    root = Path(settings.warehouse).absolute()
    console.print(f"\nTables (Delta): {root}")
    console.print(f"Models and curves: mlflow ui --backend-store-uri sqlite:///{root}/mlflow.db")
    console.print(f"One list: .venv/bin/python -m jobs.show --warehouse {settings.warehouse} --user {shoppers[0]}")
    console.print(f"The whole demo took {time.monotonic() - tick:.0f} s.")
    return 0


def _shoppers(context: Context) -> list[str]:
    """Two households that shop before the first refresh, one before the second, one not at all that day."""
    events = context.warehouse.read(EVENTS)
    day = events.where((F.col(c.EVENT_TS) >= F.lit(NIGHT)) & (F.col(c.EVENT_TS) < F.lit(HOURS[1])))
    first = day.groupBy(c.USER_ID).agg(
        F.count_if(F.col(c.EVENT_TS) < F.lit(HOURS[0])).alias("early"), F.count("*").alias("n")
    )
    known = context.warehouse.read(RECOMMENDATIONS_LATEST).where(F.col(c.RANK) == 1).select(c.USER_ID)
    seen = known.join(first, on=c.USER_ID, how="left").na.fill(0)
    order = [F.desc("n"), F.asc(c.USER_ID)]
    early = seen.where("early > 0").orderBy(*order).limit(2).collect()
    late = seen.where("early = 0 AND n > 0").orderBy(*order).limit(1).collect()
    idle = seen.where(F.col("n") == 0).where(F.col(c.USER_ID) != "*").orderBy(c.USER_ID).limit(1).collect()
    return [row[c.USER_ID] for row in (*early, *late, *idle)]


def _show_lists(context: Context, title: str, users: list[str]) -> dict[str, list[str]]:
    """Print the first five of each list, with titles and reasons; return the item ids shown."""
    latest = context.warehouse.read(RECOMMENDATIONS_LATEST).where(F.col(c.USER_ID).isin(users))
    items = context.warehouse.read(ITEMS).select(c.ITEM_ID, c.TITLE)
    when = F.date_format(c.AS_OF_TS, "MM-dd HH:mm").alias("made")
    rows = (
        latest.join(items, on=c.ITEM_ID, how="left")
        .select(c.USER_ID, c.RANK, c.ITEM_ID, c.TITLE, c.REASON, c.MODE, when)
        .orderBy(c.USER_ID, c.RANK)
        .collect()
    )
    grid = Grid(title=title, title_justify="left")
    for name in ("household", "#", "product", "why", "made"):
        grid.add_column(name)
    for user in users:
        for row in (r for r in rows if r[c.USER_ID] == user and r[c.RANK] <= 5):
            made = f"{row['made']} {row[c.MODE]}" if row[c.RANK] == 1 else ""
            grid.add_row(
                user if row[c.RANK] == 1 else "", str(row[c.RANK]), row[c.TITLE] or row[c.ITEM_ID], row[c.REASON], made
            )
        grid.add_section()
    console.print(grid)
    return {user: [r[c.ITEM_ID] for r in rows if r[c.USER_ID] == user] for user in users}


if __name__ == "__main__":
    sys.exit(main())

"""Shows an earlier batch again: ``recommendations_latest`` becomes what it was when that batch had been published.

Users served by later batches get back the list they had then; whoever was first served later is shown the list of ``*``. The later
batches stay in ``recommendations``; nothing is taken from the record. The next hour or night goes on as ever: it lists anew whom
it always would, and those whose list from back then holds an item that is withdrawn by now.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.contracts import RECOMMENDATIONS, RECOMMENDATIONS_LATEST
from features.served import shown_at
from features.windows import from_micros
from jobs import cli
from jobs.build_features import sorted_by_key
from jobs.cli import Context
from jobs.errors import UsageError
from jobs.progress import console, step
from jobs.store.run_log import recorded

_BATCH_ID = re.compile(r"[0-9a-f]{16}")
_TOLD = 5


@dataclass(frozen=True)
class Batch:
    """A batch on record."""

    batch_id: str
    as_of: datetime
    mode: str
    model_version: str


def rollback(context: Context, to: str) -> None:
    """Show batch ``to`` again. Raises UsageError for one that is not in ``recommendations``."""
    warehouse = context.warehouse
    if not _BATCH_ID.fullmatch(to):
        raise UsageError(f"--to {to!r} is not a batch_id: 16 hexadecimal digits, as in table {RECOMMENDATIONS.name}")
    batch = _find(context, to)
    if context.dry_run:
        console.print(f"rollback would show batch {to} again: {batch.mode}, as of {batch.as_of:%Y-%m-%dT%H:%MZ}, model {batch.model_version}")
        return
    with (
        warehouse.lease([RECOMMENDATIONS, RECOMMENDATIONS_LATEST]),
        recorded(warehouse, "rollback", batch.mode, batch.as_of) as run,
        step(context.spark, "show the batch again"),
    ):
        run.model_version = batch.model_version
        rows = sorted_by_key(RECOMMENDATIONS_LATEST, after(warehouse.read(RECOMMENDATIONS), batch))
        run.counts["rows"] = warehouse.overwrite(RECOMMENDATIONS_LATEST, rows)
        run.message = f"batch {to} is shown again"


def after(recommendations: DataFrame, batch: Batch) -> DataFrame:
    """The rows that were on show when the batch had been published."""
    same = F.col(c.AS_OF_TS) == F.lit(batch.as_of)
    until = (F.col(c.AS_OF_TS) < F.lit(batch.as_of)) | (same & ((F.col(c.MODE) == "nightly") | F.lit(batch.mode == "hourly")))
    return shown_at(recommendations.where(until), batch.as_of)


def _find(context: Context, to: str) -> Batch:
    rows = context.warehouse.read(RECOMMENDATIONS).where(F.col(c.RANK) == 1)
    rows = rows.select(c.BATCH_ID, F.unix_micros(c.AS_OF_TS).alias("us"), c.MODE, c.MODEL_VERSION)
    found = rows.where(F.col(c.BATCH_ID) == to).first()
    if found is None:
        newest = rows.distinct().orderBy(F.desc("us"), c.MODE).limit(_TOLD).collect()
        told = "; ".join(f"{r[c.BATCH_ID]} ({r[c.MODE]}, {from_micros(r['us']):%Y-%m-%dT%H:%MZ}, model {r[c.MODEL_VERSION]})" for r in newest)
        raise UsageError(f"batch {to} is not in table {RECOMMENDATIONS.name}; the newest there: {told or 'none'}")
    return Batch(to, from_micros(found["us"]), found[c.MODE], found[c.MODEL_VERSION])


def main(
    settings: Annotated[Path, typer.Option(help="settings file, e.g. conf/completejourney.yaml")],
    to: Annotated[str, typer.Option(help="batch_id of the batch to show again, from table recommendations")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be done; write nothing")] = False,
) -> None:
    """Show an earlier batch again.

    Exit codes: 0 ok · 2 usage · 3 data quality · 75 busy
    """
    sys.exit(cli.run(lambda context: rollback(context, to), "rollback", settings, None, "nightly", dry_run))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()

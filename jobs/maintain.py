"""Looks after the tables: ``optimize`` joins small files, ``vacuum`` deletes files no version needs, ``retain`` deletes old rows.

Kept by ``retain``, whatever their age: features since the oldest moment that training at ``--as-of`` learns from, and since the
newest night; lists since the night that is on show; both for the nights that are judged. Rows are deleted, files only by a later
``vacuum``. Every command holds a table while it works on it.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from conf import columns as c
from conf.settings import Duration
from features.anchors import anchors_before
from features.contracts import EVENTS, FEATURE_TABLES, RECOMMENDATIONS, TABLES, Table
from jobs import cli
from jobs.build_features import needed_anchors
from jobs.cli import Context
from jobs.errors import UsageError
from jobs.evaluate import listed_nights
from jobs.progress import console, step
from jobs.store.nights import nights
from jobs.store.run_log import Run, recorded


class Care(str, enum.Enum):
    """What may be done."""

    optimize = "optimize"
    vacuum = "vacuum"
    retain = "retain"


def maintain(context: Context, care: Care, older_than: timedelta | None = None, names: Sequence[str] = ()) -> None:
    """Do it on every table there is, or on those named.

    Raises UsageError for an unknown table, and for a ``vacuum`` below the retention of the settings.
    """
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        raise UsageError(f"--table {unknown[0]!r} is no table; there are {', '.join(TABLES)}")
    tables = [t for t in TABLES.values() if (not names or t.name in names) and context.warehouse.exists(t)]
    least = context.settings.maintenance.vacuum_retention
    if care == Care.vacuum and older_than is not None and older_than < least:
        raise UsageError(
            f"--older-than {older_than} is below maintenance.vacuum_retention = {least}: readers and runs that are under way may need these "
            "files, and so does a look at an earlier version; raise it, or lower the setting"
        )
    work = {Care.optimize: _optimize, Care.vacuum: _vacuum, Care.retain: _retain}[care]
    if context.dry_run:
        return work(context, tables, None, older_than)
    with recorded(context.warehouse, f"maintain {care.value}", None, context.as_of) as run:
        work(context, tables, run, older_than)


def _optimize(context: Context, tables: list[Table], run: Run | None, _: timedelta | None) -> None:
    for table in tables:
        if run is None:
            console.print(f"optimize would join the small files of {table.name}")
            continue
        with context.warehouse.lease([table]), step(context.spark, f"optimize {table.name}"):
            run.counts[table.name] = context.warehouse.optimize(table)


def _vacuum(context: Context, tables: list[Table], run: Run | None, older_than: timedelta | None) -> None:
    age = older_than or context.settings.maintenance.vacuum_retention
    for table in tables:
        if run is None:
            console.print(f"vacuum would delete {context.warehouse.vacuum(table, age, dry_run=True)} files of {table.name}")
            continue
        with context.warehouse.lease([table]), step(context.spark, f"vacuum {table.name}"):
            run.counts[table.name] = context.warehouse.vacuum(table, age)


def _retain(context: Context, tables: list[Table], run: Run | None, _: timedelta | None) -> None:
    keep, listed = context.settings.maintenance, listed_nights(context.warehouse, cli.NO_MOMENT)
    # A night that is judged needs its lists and its features; so does what is on show, which may be older than any limit.
    judged = context.as_of - (context.settings.evaluation.windows + 1) * context.settings.horizon
    shown = max((night for night in listed if night <= context.as_of), default=context.as_of)
    needed = min(judged, shown)
    built = max((night for night in nights(context.warehouse) if night <= context.as_of), default=context.as_of)
    ages = dict.fromkeys(FEATURE_TABLES, min(context.as_of - keep.features, needed, built, _oldest_anchor(context)))
    for table, since in (ages | {RECOMMENDATIONS: min(context.as_of - keep.recommendations, needed)}).items():
        if table not in tables:
            continue
        old = sorted(moment for moment in context.warehouse.moments(table) if moment < since)
        if run is None:
            told = f": {old[0]:%Y-%m-%dT%H:%MZ} to {old[-1]:%Y-%m-%dT%H:%MZ}" if old else ""
            console.print(f"retain would delete {len(old)} moments of {table.name}{told}", markup=False)
            continue
        run.counts[table.name] = len(old)
        if old:
            with context.warehouse.lease([table]), step(context.spark, f"delete {len(old)} moments of {table.name}"):
                context.warehouse.delete(table, f"{c.AS_OF_TS} < TIMESTAMP {since.isoformat()!r}")


def _oldest_anchor(context: Context) -> datetime:
    """Later trainings have later anchors; one that wants an older one, because labels have become few, has it built again."""
    anchors = sorted(anchors_before(context.as_of, context.settings))
    if not context.warehouse.exists(EVENTS):
        return anchors[0]
    return needed_anchors(context, context.warehouse.read(EVENTS), anchors)[0]


def _duration(text: str) -> timedelta:
    try:
        return TypeAdapter(Duration).validate_python(text)
    except ValidationError:
        raise UsageError(f"--older-than {text!r} is not a duration; write e.g. 14d") from None


def main(
    care: Annotated[Care, typer.Argument(help="what to do")],
    settings: Annotated[Path, typer.Option(help="settings file, e.g. conf/completejourney.yaml")],
    as_of: Annotated[str, typer.Option(help="what is old is older than this, e.g. 2017-12-01T00:00:00Z")],
    table: Annotated[list[str] | None, typer.Option(help="only this table; may be said again")] = None,
    older_than: Annotated[str | None, typer.Option(help="vacuum only: age of files to delete, e.g. 14d; maintenance.vacuum_retention if not said")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be done; write nothing")] = False,
) -> None:
    """Look after the tables.

    Exit codes: 0 ok · 2 usage · 3 data quality · 75 busy
    """

    def body(context: Context) -> None:
        maintain(context, care, None if older_than is None else _duration(older_than), table or ())

    sys.exit(cli.run(body, f"maintain {care.value}", settings, as_of, "nightly", dry_run))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()

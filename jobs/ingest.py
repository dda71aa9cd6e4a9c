"""Raw events and raw items -> ``events``, ``items`` and what was rejected. Files that were read before are left alone.

All valid events are kept, also those later than ``--as-of``: the time law is applied where events are read. An event that
came late never changes what an earlier run knew: where the source has no arrival time, it became known at this run.
"""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features import events as rules
from features.contracts import EVENTS, EVENTS_REJECTED, ITEMS, ITEMS_REJECTED, Table
from features.quality import EVENT_CHECKS, ITEM_CHECKS, judges, tally
from jobs import cli
from jobs.cli import Context
from jobs.errors import DataQualityError
from jobs.progress import console, step
from jobs.store import quality, sources
from jobs.store.run_log import Run, finished, recorded
from jobs.store.table_io import Warehouse


def ingest(context: Context) -> None:
    """Read what is new, validate, split, write, and check that every row went somewhere."""
    quality.require_known_checks(context)
    warehouse, source = context.warehouse, context.settings.source
    found = sources.files(context.spark, source.events)
    catalogue = sources.files(context.spark, source.items) if source.items else {}
    if context.dry_run:
        new = sources.unread(warehouse, found | catalogue)
        console.print(
            f"ingest would read {len(new)} of {len(found | catalogue)} files: {', '.join(sorted(new)) or 'none'}"
        )
        return
    with (
        warehouse.lease([EVENTS, EVENTS_REJECTED, ITEMS, ITEMS_REJECTED]),
        recorded(warehouse, "ingest", None, context.as_of) as run,
    ):
        new_events, new_items = sources.unread(warehouse, found), sources.unread(warehouse, catalogue)
        if new_events:
            _ingest_events(context, run, new_events)
        else:
            # A dead feed brings no file, and must be noticed all the same.
            quality.check_fresh(context, None)
            quality.check_volume(context, None)
        if new_items or (new_events and not _grow_items(context, run)):
            _ingest_items(context, run, catalogue)
        if not (new_events or new_items):
            run.message = "no new file"
        run.sources = new_events | new_items


def _ingest_events(context: Context, run: Run, new: dict[str, int]) -> None:
    spark, settings, warehouse = context.spark, context.settings, context.warehouse
    source = settings.source.events
    raw = sources.read(spark, source, new)
    asked = judges(EVENT_CHECKS, source, settings.ingest)
    looked = quality.looked(context)
    known = warehouse.read(EVENTS).select(c.EVENT_ID) if warehouse.exists(EVENTS) else None
    # What is known already is not too late; only that check needs to ask, and the join is dear.
    too_late_asked = any(judge.check.id == "too_late" for judge in asked) and (looked or source.columns.available_ts)
    with step(spark, f"validate events of {source.name}"):
        # Not persisted: to judge rows anew costs less than to keep them all, and counting needs few of their columns.
        rows = rules.read_events(raw, source, settings.ingest, looked, known if too_late_asked else None)
        row = tally(rows, asked, newest_us=quality.newest_visible(asked, context.as_of)).first().asDict()  # type: ignore[union-attr]
    checked = rules.judged(rows, asked)
    quality.check_share(context, row, asked, checked)
    good, rejected = rules.split(checked)
    quality.check_fresh(context, row["newest_us"])
    quality.check_volume(context, good)
    fresh = rules.first_available(good)
    with step(spark, "write events"):
        fresh = fresh if known is None else fresh.join(known, c.EVENT_ID, "left_anti")
        written = warehouse.append(EVENTS, fresh.sortWithinPartitions(c.EVENT_TS, c.EVENT_ID))
    with step(spark, "write rejected events"):
        lost = _write_rejected(warehouse, EVENTS_REJECTED, rejected, run) if row["rejected"] else 0
    duplicate = row["read"] - row["rejected"] - written
    run.counts |= {
        "events_read": row["read"],
        "events_written": written,
        "events_rejected": lost,
        "events_duplicate": duplicate,
    }
    quality.report(run, row, asked, "events")
    if lost != row["rejected"] or duplicate < 0:
        raise DataQualityError(
            f"events do not add up: read {row['read']}, written {written}, rejected {lost} of {row['rejected']}, duplicate "
            f"{duplicate}; the source changed while it was read; run ingest again"
        )


def _grow_items(context: Context, run: Run) -> bool:
    """Where the catalogue is as it was: add what the new events tell of items. False if only a reading of everything can."""
    warehouse = context.warehouse
    version = warehouse.had_read(ITEMS, EVENTS) if warehouse.exists(ITEMS) else None
    if version is None:
        return False
    try:
        added = warehouse.added_since(EVENTS, version)
    except DataQualityError:  # events were erased: what they told of items is found in those that are left
        return False
    with step(context.spark, "write items"):
        grown = rules.complete_items(warehouse.read(ITEMS), added)
        run.counts["items_written"] = warehouse.overwrite(ITEMS, grown.coalesce(2))
    return True


def _ingest_items(context: Context, run: Run, catalogue: dict[str, int]) -> None:
    spark, settings, warehouse = context.spark, context.settings, context.warehouse
    events = warehouse.read(EVENTS)
    row = {"read": 0, "rejected": 0}
    known = rejected = rows = None
    if settings.source.items:
        raw = sources.read(spark, settings.source.items, catalogue)
        asked = judges(ITEM_CHECKS, settings.source.items, settings.ingest)
        rows = rules.read_items(raw, settings.source.items, settings.ingest).persist()
        row = tally(rows, asked).first().asDict()  # type: ignore[union-attr]
        known, rejected = rules.split_items(rules.judged_items(rows, asked))
        quality.report(run, row, asked, "items", "items_")
    try:
        with step(spark, "write items"):
            written = warehouse.overwrite(ITEMS, rules.complete_items(known, events).coalesce(2))
        if rejected is not None and row["rejected"]:
            _write_rejected(warehouse, ITEMS_REJECTED, rejected, run)
    finally:
        if rows is not None:
            # Else a later reading in this session, of files that were changed in place, would be given these rows again.
            rows.unpersist()
    run.counts |= {"items_read": row["read"], "items_rejected": row["rejected"], "items_written": written}


def _write_rejected(warehouse: Warehouse, table: Table, rows: DataFrame, run: Run) -> int:
    """Add the rows. What a run left there that did not finish, and whose files are read again now, goes in the same commit."""
    mine = rows.select(F.lit(run.run_id).alias(c.RUN_ID), c.RAW, c.REASONS)
    left = _unfinished(warehouse, table)
    if not left:
        return warehouse.append(table, mine)
    either = ", ".join(f"'{run_id}'" for run_id in [run.run_id, *left])
    warehouse.replace(table, mine, f"{c.RUN_ID} IN ({either})")
    return warehouse.read(table).where(F.col(c.RUN_ID) == run.run_id).count()


def _unfinished(warehouse: Warehouse, table: Table) -> list[str]:
    if not warehouse.exists(table):
        return []
    there = warehouse.read(table).select(c.RUN_ID).distinct()
    warehouse.inputs.pop(table.name)  # bookkeeping, not an input
    done = finished(warehouse, "ingest")
    if done is not None:
        there = there.join(done.select(c.RUN_ID), c.RUN_ID, "left_anti")
    return sorted(row[0] for row in there.collect())


if __name__ == "__main__":
    cli.main("ingest", ingest, "Raw events and items to validated Delta tables.")

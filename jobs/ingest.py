"""Raw events and items -> ``events``, ``items`` and what was rejected. Files that were read before are left alone.

All valid events are kept, also those later than ``--as-of``: the time law is applied where events are read.
"""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features import events as rules
from features.contracts import EVENTS, EVENTS_REJECTED, ITEMS, ITEMS_REJECTED
from jobs import cli, sources
from jobs.cli import Context
from jobs.errors import DataQualityError
from jobs.progress import console, step
from jobs.run_log import Run, recorded


def ingest(context: Context) -> None:
    """Read what is new, validate, split, write, and check that every row went somewhere."""
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
        if new_events or new_items:
            _ingest_items(context, run, catalogue)
        if not (new_events or new_items):
            run.message = "no new file"
        run.sources = new_events | new_items


def _ingest_events(context: Context, run: Run, new: dict[str, int]) -> None:
    spark, settings, warehouse = context.spark, context.settings, context.warehouse
    raw = sources.read(spark, settings.source.events, new)
    with step(spark, f"validate events of {settings.source.events.name}"):
        # Not persisted: to judge rows anew costs less than to keep them all, and counting needs few of their columns.
        checked = rules.validate_events(raw, settings.source.events, settings.ingest)
        row = checked.agg(F.count("*").alias("n"), F.count_if(F.size(c.REASONS) > 0).alias("bad")).first()
        read, bad = int(row["n"]), int(row["bad"])  # type: ignore[index]
    _check_share(context, read, bad, checked)
    good, rejected = rules.split(checked)
    known = warehouse.read(EVENTS).select(c.EVENT_ID) if warehouse.exists(EVENTS) else None
    fresh = rules.first_available(good)
    with step(spark, "write events"):
        fresh = fresh if known is None else fresh.join(known, c.EVENT_ID, "left_anti")
        written = warehouse.append(EVENTS, fresh.sortWithinPartitions(c.EVENT_TS, c.EVENT_ID))
    with step(spark, "write rejected events"):
        lost = warehouse.append(EVENTS_REJECTED, _rejected(rejected, run)) if bad else 0
    duplicate = read - bad - written
    run.counts |= {
        "events_read": read,
        "events_written": written,
        "events_rejected": lost,
        "events_duplicate": duplicate,
    }
    if lost != bad or duplicate < 0:
        raise DataQualityError(
            f"events do not add up: read {read}, written {written}, rejected {lost} of {bad}, duplicate {duplicate}; "
            "the source changed while it was read; run ingest again"
        )


def _ingest_items(context: Context, run: Run, catalogue: dict[str, int]) -> None:
    spark, settings, warehouse = context.spark, context.settings, context.warehouse
    events = warehouse.read(EVENTS)
    read = bad = 0
    known = rejected = None
    if settings.source.items:
        checked = rules.validate_items(
            sources.read(spark, settings.source.items, catalogue), settings.source.items
        ).persist()
        row = checked.agg(F.count("*").alias("n"), F.count_if(F.size(c.REASONS) > 0).alias("bad")).first()
        read, bad = int(row["n"]), int(row["bad"])  # type: ignore[index]
        known, rejected = rules.split_items(checked)
    with step(spark, "write items"):
        written = warehouse.overwrite(ITEMS, rules.complete_items(known, events).coalesce(2))
    if rejected is not None and bad:
        warehouse.append(ITEMS_REJECTED, _rejected(rejected, run))
    run.counts |= {"items_read": read, "items_rejected": bad, "items_written": written}


def _rejected(rows: DataFrame, run: Run) -> DataFrame:
    return rows.select(F.lit(run.run_id).alias(c.RUN_ID), c.RAW, c.REASONS)


def _check_share(context: Context, read: int, bad: int, checked: DataFrame) -> None:
    where = sources.locate(context.settings.source.events)
    if read == 0:
        raise DataQualityError(f"the event log at {where} is empty; check source.events.path in the settings")
    limit = context.settings.ingest.max_rejected_share
    if bad / read > limit:
        reasons = checked.select(F.explode(c.REASONS).alias("reason")).groupBy("reason").count()
        told = ", ".join(
            f"{r['reason']} {r['count']:,}" for r in reasons.orderBy(F.desc("count"), "reason").limit(5).collect()
        )
        sample = checked.where(F.size(c.REASONS) > 0).select(c.RAW).first()[0]  # type: ignore[index]
        raise DataQualityError(
            f"{bad:,} of {read:,} events at {where} are not usable ({told}), more than ingest.max_rejected_share = {limit:g}; "
            f"e.g. {sample[:300]}; mend the source or source.events.columns; nothing was written"
        )


if __name__ == "__main__":
    cli.main("ingest", ingest, "Raw events and items to validated Delta tables.")

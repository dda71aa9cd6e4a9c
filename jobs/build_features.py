"""``events`` and ``items`` -> the feature tables at an as_of, and at past anchors where training needs them.

Nightly: every user with a visible history. Hourly: users with events that the newest full night did not see, and all
items, since they age. ``build(…, backfill=True)`` adds the past anchors that are not there yet, in the same pass.
"""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.anchors import moments_of, users_at
from features.contracts import (
    EVENTS,
    FEATURE_TABLES,
    ITEM_NEIGHBORS,
    ITEM_TEMPORAL,
    ITEMS,
    USER_ITEM_REPEATS,
    USER_PROFILES,
    USER_SEQUENCES,
    Table,
)
from features.history import history
from features.item_temporal import item_temporal
from features.neighbors import item_neighbors
from features.profiles import user_profiles
from features.repeats import user_item_repeats
from features.sequences import user_sequences
from features.windows import Moments, visible
from jobs import cli
from jobs.cli import Context
from jobs.errors import DataQualityError, UsageError
from jobs.progress import console, step
from jobs.run_log import Run, recorded


def build_features(context: Context) -> None:
    """The job on its own builds the past anchors too, so that training can follow."""
    build(context, backfill=context.mode == "nightly")


def build(context: Context, backfill: bool) -> None:
    """Write the feature tables' partitions at as_of (and at missing past anchors)."""
    warehouse, settings = context.warehouse, context.settings
    if context.dry_run:
        console.print(
            f"build_features would write {', '.join(t.name for t in FEATURE_TABLES)} at {context.as_of:%Y-%m-%dT%H:%MZ}"
        )
        return
    with (
        warehouse.lease(FEATURE_TABLES),
        recorded(warehouse, "build_features", context.mode, context.as_of) as run,
    ):
        events, items = warehouse.read(EVENTS), warehouse.read(ITEMS)
        _need_history(context, events)
        moments = [context.as_of]
        if backfill:
            first = visible(events, context.as_of).agg(F.min(F.unix_micros(c.EVENT_TS))).first()
            past = moments_of(first[0], context.as_of, settings)  # type: ignore[index]
            done = warehouse.moments(*FEATURE_TABLES)
            moments = sorted({m for m in past if m not in done} | {context.as_of})
        # No later event is read at all: the time law holds even for a transform that forgets it.
        events = visible(events, context.as_of)
        run.counts["moments"] = len(moments)
        changed = _changed_users(context, events) if context.mode == "hourly" else None
        _write_all(context, run, events, items, moments, changed)


def _write_all(
    context: Context, run: Run, events: DataFrame, items: DataFrame, moments: list[datetime], changed: DataFrame | None
) -> None:
    settings = context.settings
    times = Moments.of(moments)
    users = users_at(events, moments, settings) if changed is None else changed
    with step(context.spark, "order histories"):
        log = history(events, times, settings, users).persist()
    plans = {
        USER_SEQUENCES: user_sequences(log, moments, settings),
        USER_PROFILES: user_profiles(log, items, moments, settings),
        USER_ITEM_REPEATS: user_item_repeats(log, moments, settings),
        ITEM_TEMPORAL: item_temporal(events, items, moments),
    }
    if context.mode == "nightly":
        plans[ITEM_NEIGHBORS] = item_neighbors(events, moments, settings)
    try:
        for table, plan in plans.items():
            with step(context.spark, f"write {table.name}"):
                run.counts[table.name] = context.warehouse.replace(table, sorted_by_key(table, plan), at(moments))
    finally:
        log.unpersist()


def sorted_by_key(table: Table, plan: DataFrame) -> DataFrame:
    """Few files with rows in key order: re-runs give the same bytes, and readers can skip."""
    return plan.repartition(2, *table.key[:2]).sortWithinPartitions(*table.key)


def at(moments: list[datetime]) -> str:
    """The predicate of exactly these as_of partitions."""
    return f"{c.AS_OF_TS} IN ({', '.join(f'TIMESTAMP {m.isoformat()!r}' for m in moments)})"


def _need_history(context: Context, events: DataFrame) -> None:
    if visible(events, context.as_of).isEmpty():
        first = events.agg(F.date_format(F.min(c.EVENT_TS), "yyyy-MM-dd'T'HH:mm:ss'Z'")).first()[0]  # type: ignore[index]
        raise DataQualityError(
            f"no event is visible at --as-of {context.as_of:%Y-%m-%dT%H:%M:%SZ}: the first of table events "
            + (f"happened {first}; choose a later --as-of" if first else "is missing, the table is empty; run ingest")
        )


def _changed_users(context: Context, events: DataFrame) -> DataFrame:
    """Users with an event that became visible after the newest full night."""
    nights = [m for m in context.warehouse.moments(ITEM_NEIGHBORS) if m <= context.as_of]
    if context.as_of in nights:
        raise UsageError(
            f"a full night was built at {context.as_of:%Y-%m-%dT%H:%M:%SZ}; an hour there would replace it: use another --as-of"
        )
    if not nights:
        raise DataQualityError("no nightly features at or before --as-of to refresh; run jobs/nightly.py first")
    before = (F.col(c.EVENT_TS) < F.lit(max(nights))) & (F.col(c.AVAILABLE_TS) <= F.lit(max(nights)))
    return events.where(~before).select(c.USER_ID).distinct()


if __name__ == "__main__":
    cli.main("build_features", build_features, "Feature tables at an as_of and at past anchors.", modes=True)

"""``events`` and ``items`` -> the feature tables at an as_of, and at past anchors where training needs them.

Nightly: every user with a visible history. ``build(…, backfill=True)`` adds the past anchors that are not there yet, in the
same pass. Hourly: the users with events that the newest full night did not know and those whose shown lists are stale
(jobs/lists/stale.py), from their whole histories; and all items, since they age, from the night's sums and what is new (features/item_sums.py). An hour is a partition of its own that is
replaced in one commit, so that it can be run again at any time, before or after other hours.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features.anchors import labelled_users, moments_of, users_at, with_neighbors
from features.contracts import (
    ANCHOR_TABLES,
    EVENTS,
    FEATURE_TABLES,
    ITEM_NEIGHBORS,
    ITEM_SUMS,
    ITEM_TEMPORAL,
    ITEMS,
    USER_ITEM_REPEATS,
    USER_PROFILES,
    USER_SEQUENCES,
    Table,
)
from features.history import history
from features.item_age import without_hidden
from features.item_sums import item_sums, refreshed_item_sums
from features.item_temporal import item_temporal
from features.neighbors import item_neighbors
from features.profiles import user_profiles
from features.refresh import asked_histories, leaving_month
from features.repeats import user_item_repeats
from features.sequences import user_sequences
from features.windows import Moments, visible
from jobs import cli
from jobs.cli import Context
from jobs.errors import DataQualityError
from jobs.lists.stale import stale_users
from jobs.progress import console, step
from jobs.store.house_rules import need_condition
from jobs.store.nights import since_night
from jobs.store.run_log import Run, recorded
from jobs.store.table_io import Warehouse

#: So many user ids are sent whole to each executor, and no more.
_FEW = 1_000_000


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
        items = _catalogue(context)
        if context.mode == "hourly":
            return _write_hour(context, run, items)
        events = warehouse.read(EVENTS)
        _need_history(context, events)
        anchors = []
        if backfill:
            first = visible(events, context.as_of).agg(F.min(F.unix_micros(c.EVENT_TS))).first()
            *past, _ = moments_of(first[0], context.as_of, settings)  # type: ignore[index]
            anchors = needed_anchors(context, events, past)
        moments = [*_missing(warehouse, anchors), context.as_of]
        near = {*with_neighbors(anchors, settings.anchor_every), context.as_of}
        # No later event is read at all: the time law holds even for a transform that forgets it.
        events = visible(events, context.as_of)
        run.counts["moments"] = len(moments)
        _write_night(context, run, events, items, moments, [m for m in moments if m in near])


def _missing(warehouse: Warehouse, anchors: list[datetime]) -> list[datetime]:
    """Those that are not built; and the oldest, whose neighbours must not be missed, where no earlier ones are on record."""
    if not anchors:
        return []
    done, near = warehouse.moments(*ANCHOR_TABLES), warehouse.moments(ITEM_NEIGHBORS)
    oldest = anchors[0]
    bare = not any(moment <= oldest for moment in near)
    return [m for m in anchors if m not in done or (bare and m == oldest)]


def needed_anchors(context: Context, events: DataFrame, past: list[datetime]) -> list[datetime]:
    """Of these anchors, oldest first, the newest that training will learn from."""
    settings = context.settings
    if len(past) <= settings.least_anchors:
        return past
    with step(context.spark, "count labelled users"):
        users = labelled_users(events, past[::-1], settings.horizon, context.as_of, settings.repeat_consumption).first()
    return past[len(past) - settings.training.enough_anchors(users, settings.least_anchors) :]  # type: ignore[arg-type]


def _write_night(context: Context, run: Run, events: DataFrame, items: DataFrame, moments: list[datetime], near: list[datetime]) -> None:
    """``near``: those of the moments that get neighbours. An anchor counts as built once ``item_temporal`` has it, so that comes last."""
    _write_users(context, run, events, items, moments, users_at(events, moments, context.settings))
    # Beside the sums and not in the run's record alone: a run that is killed in between leaves no sums of unknown version.
    version = F.lit(context.warehouse.inputs[EVENTS.name]).cast("bigint")
    sums = item_sums(events, moments).withColumn(c.EVENTS_VERSION, version)
    _write(context, run, ITEM_SUMS, sums, moments)
    _write(context, run, ITEM_NEIGHBORS, item_neighbors(events, near, context.settings), near)
    sums = context.warehouse.read(ITEM_SUMS).where(at(moments))
    _write(context, run, ITEM_TEMPORAL, item_temporal(sums, items, moments), moments)


def _write_hour(context: Context, run: Run, items: DataFrame) -> None:
    hour = since_night(context.warehouse, context.as_of)
    moments, span, new = [context.as_of], (hour.night, context.as_of), hour.new.persist()
    hour = replace(hour, new=new)
    leaving = leaving_month(hour.before, *span).persist()
    stale = stale_users(context, hour, items).persist()
    kept = [new, leaving, stale]
    try:
        with step(context.spark, "read what is new"):
            run.counts |= {"new_events": new.count(), "stale_lists": stale.count()}
        users = new.select(c.USER_ID).unionByName(stale).distinct()
        few = run.counts["new_events"] + run.counts["stale_lists"] <= _FEW
        histories = asked_histories(hour.before, users, leaving, few).persist()
        kept.append(histories)
        _write_users(context, run, histories.unionByName(new), items, moments, users)
        sums = refreshed_item_sums(hour.sums, hour.before, new, *span, histories)
        _write(context, run, ITEM_TEMPORAL, item_temporal(sums, items, moments), moments)
    finally:
        for frame in kept:
            frame.unpersist()


def _write_users(
    context: Context, run: Run, events: DataFrame, items: DataFrame, moments: list[datetime], users: DataFrame
) -> None:
    settings = context.settings
    with step(context.spark, "order histories"):
        log = history(events, Moments.of(moments), settings, users).persist()
    try:
        _write(context, run, USER_SEQUENCES, user_sequences(log, moments, settings), moments)
        _write(context, run, USER_PROFILES, user_profiles(log, items, moments, settings), moments)
        _write(context, run, USER_ITEM_REPEATS, user_item_repeats(log, moments, settings), moments)
    finally:
        log.unpersist()


def _write(context: Context, run: Run, table: Table, plan: DataFrame, moments: list[datetime]) -> None:
    with step(context.spark, f"write {table.name}"):
        run.counts[table.name] = context.warehouse.replace(table, sorted_by_key(table, plan), at(moments))


def sorted_by_key(table: Table, plan: DataFrame) -> DataFrame:
    """Few files with rows in key order: re-runs give the same bytes, and readers can skip."""
    return plan.repartition(2, *table.key[:2]).sortWithinPartitions(*table.key)


def at(moments: list[datetime]) -> str:
    """The predicate of exactly these as_of partitions."""
    return f"{c.AS_OF_TS} IN ({', '.join(f'TIMESTAMP {m.isoformat()!r}' for m in moments)})"


def _catalogue(context: Context) -> DataFrame:
    """Table ``items`` with what the house hides as over. Raises UsageError where the rule is no condition on an item."""
    items, hide = context.warehouse.read(ITEMS), context.settings.scoring.hide
    need_condition(items, "scoring.hide", hide)
    return without_hidden(items, hide)


def _need_history(context: Context, events: DataFrame) -> None:
    if visible(events, context.as_of).isEmpty():
        first = events.agg(F.date_format(F.min(c.EVENT_TS), "yyyy-MM-dd'T'HH:mm:ss'Z'")).first()[0]  # type: ignore[index]
        raise DataQualityError(
            f"no event is visible at --as-of {context.as_of:%Y-%m-%dT%H:%M:%SZ}: the first of table events "
            + (f"happened {first}; choose a later --as-of" if first else "is missing, the table is empty; run ingest")
        )


if __name__ == "__main__":
    cli.main("build_features", build_features, "Feature tables at an as_of and at past anchors.", modes=True)

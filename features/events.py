"""Raw events and raw items -> rows of the contracts, or the reasons why not. No bad row ends the job; none is lost.

A row is good iff its ``reasons`` are empty. Values are read with ``try_`` functions (ANSI casts would end the job), and
the split is null-safe: every row is on exactly one side.
"""

from __future__ import annotations

from datetime import timedelta
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import EventSource, Ingest, ItemSource
from features.contracts import EVENTS, ITEMS
from features.raw_values import number, raw_json, text, timestamp, vector

#: Beyond this a value is a fault, and sums of it would overflow.
LARGEST_VALUE = 1e12


def validate_events(raw: DataFrame, source: EventSource, ingest: Ingest) -> DataFrame:
    """The columns of ``events``, ``reasons`` (empty: good) and ``raw`` (the source's row as JSON; NULL for a good row)."""
    names = source.columns
    read = raw.select(
        F.struct("*").alias("_row"),
        text(raw, names.user_id).alias(c.USER_ID),
        text(raw, names.item_id).alias(c.ITEM_ID),
        _event_type(raw, source).alias(c.EVENT_TYPE),
        timestamp(raw, names.event_ts).alias(c.EVENT_TS),
        timestamp(raw, names.available_ts or names.event_ts).alias(c.AVAILABLE_TS),
        (number(raw, names.value) if names.value else F.lit(None).cast("double")).alias("_value"),
        (text(raw, names.value) if names.value else F.lit(None).cast("string")).alias("_value_text"),
        (text(raw, names.session_id) if names.session_id else F.lit(None).cast("string")).alias(c.SESSION_ID),
        (text(raw, names.event_id) if names.event_id else F.lit(None).cast("string")).alias("_event_id"),
    )
    cap = F.lit(ingest.value_cap).cast("double")
    capped = read.withColumn(c.VALUE, F.when(F.col("_value") > cap, cap).otherwise(F.col("_value")))
    judged = capped.withColumn(c.REASONS, _because(_event_faults(source, ingest)))
    return judged.select(
        _event_id(source).alias(c.EVENT_ID), c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TS, c.AVAILABLE_TS, c.VALUE,
        c.SESSION_ID, F.lit(source.name).alias(c.SOURCE), c.REASONS,
        F.when(F.size(c.REASONS) > 0, raw_json("_row")).alias(c.RAW),
    )  # fmt: skip


def _event_faults(source: EventSource, ingest: Ingest) -> dict[str, Column]:
    value, happened, arrived = F.col("_value"), F.col(c.EVENT_TS), F.col(c.AVAILABLE_TS)
    earliest, latest = (F.lit(t).cast("timestamp") for t in (ingest.earliest, ingest.latest))
    tolerance_us = ingest.clock_tolerance // timedelta(microseconds=1)
    faults = {
        "user_id_missing": F.col(c.USER_ID).isNull(),
        "item_id_missing": F.col(c.ITEM_ID).isNull(),
        "event_ts_unreadable": happened.isNull(),
        "event_ts_out_of_range": (happened < earliest) | (happened >= latest),
        "value_unreadable": value.isNull() & F.col("_value_text").isNotNull(),
        "value_not_finite": F.isnan(value) | (F.abs(value) == float("inf")),
        "value_out_of_range": (F.abs(c.VALUE) > LARGEST_VALUE) & ~F.isnan(value) & (F.abs(value) < float("inf")),
    }
    if ingest.value_floor is not None:
        faults["value_at_or_below_floor"] = value <= ingest.value_floor
    if source.columns.event_id:
        faults["event_id_missing"] = F.col("_event_id").isNull()
    if source.columns.available_ts:
        ahead = F.unix_micros(happened) - F.unix_micros(arrived)
        faults |= {
            "available_ts_unreadable": arrived.isNull(),
            "available_ts_out_of_range": (arrived < earliest) | (arrived >= latest),
            "event_ts_after_available": ahead > tolerance_us,
        }
    return faults


def _because(faults: dict[str, Column]) -> Column:
    """The names of those faults that are true, in order; a fault that cannot be judged (NULL) is none."""
    names = F.array_compact(F.array(*[F.when(holds, F.lit(name)) for name, holds in faults.items()]))
    # Most rows are good: they are spared the making of an array.
    any_fault = reduce(Column.__or__, (F.coalesce(holds, F.lit(False)) for holds in faults.values()))
    return F.when(any_fault, names).otherwise(F.array().cast("array<string>"))


def _event_type(raw: DataFrame, source: EventSource) -> Column:
    if source.columns.event_type is None:
        return F.lit(source.default_type)
    found = text(raw, source.columns.event_type)
    kept = F.when(found.isin(*c.EVENT_TYPES), found).otherwise("other")
    for raw_type, event_type in source.event_types.items():
        kept = F.when(found == raw_type, event_type).otherwise(kept)
    return F.when(found.isNull(), source.default_type).otherwise(kept)


def _event_id(source: EventSource) -> Column:
    """The source's own id, else a hash of what makes the event, so that a second delivery has the same id."""
    if source.columns.event_id:
        return F.col("_event_id")
    parts = (c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, F.unix_micros(c.EVENT_TS), c.VALUE, c.SESSION_ID)
    # NULL and the empty string must differ, and no two rows of parts may join to one text.
    spelt = [F.coalesce(F.col(p) if isinstance(p, str) else p, F.lit(None)).cast("string") for p in parts]
    return F.md5(F.concat_ws("\u001f", F.lit(source.name), *(F.coalesce(p, F.lit("\u0000")) for p in spelt)))


def split(validated: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Good rows with the columns of ``events``; rejected rows with ``raw`` and ``reasons``."""
    good, bad = _sides(validated)
    return good.select(*EVENTS.column_names), bad.select(c.RAW, c.REASONS)


def first_available(good: DataFrame) -> DataFrame:
    """One row an event_id: the one that was available first; ties by the rest of the row, so any order gives the same."""
    rest = [name for name in EVENTS.column_names if name not in (c.EVENT_ID, c.AVAILABLE_TS)]
    # The hash comes first because numbers sort faster than text. The first of its id has no row before it; lag says so
    # without the extra sort that Spark plans for a row_number that is compared with a limit.
    order = [F.col(name).asc_nulls_first() for name in (c.AVAILABLE_TS, *rest)]
    same = Window.partitionBy("_mark", c.EVENT_ID).orderBy(*order)
    marked = good.withColumn("_mark", F.xxhash64(c.EVENT_ID)).withColumn("_earlier", F.lag(F.lit(1)).over(same))
    return marked.where(F.col("_earlier").isNull()).select(*EVENTS.column_names)


def validate_items(raw: DataFrame, source: ItemSource) -> DataFrame:
    """The columns of ``items``, ``reasons`` and ``raw``. Of rows with the same id one is kept, the others are rejected."""
    names = source.columns
    times = {
        c.RELEASE_TS: names.release_ts,
        c.AVAILABLE_FROM: names.available_from,
        c.AVAILABLE_UNTIL: names.available_until,
    }
    nothing = F.lit(None)
    read = raw.select(
        raw_json(F.struct("*")).alias(c.RAW),
        text(raw, names.item_id).alias(c.ITEM_ID),
        *((timestamp(raw, name) if name else nothing.cast("timestamp")).alias(as_) for as_, name in times.items()),
        *((text(raw, name) if name else nothing.cast("string")).alias(f"_{as_}_text") for as_, name in times.items()),
        *(
            (text(raw, name) if name else nothing.cast("string")).alias(as_)
            for as_, name in ((c.TITLE, names.title), (c.CATEGORY, names.category), ("_price_text", names.price))
        ),
        (number(raw, names.price) if names.price else nothing.cast("double")).alias(c.PRICE),
        _attributes(raw, names.attributes).alias(c.ATTRIBUTES),
        (vector(raw, names.embedding) if names.embedding else nothing.cast("array<float>")).alias(c.EMBEDDING),
        (F.col(f"`{names.embedding}`").isNotNull() if names.embedding else F.lit(False)).alias("_has_embedding"),
    )
    faults = {
        "item_id_missing": F.col(c.ITEM_ID).isNull(),
        **{f"{name}_unreadable": F.col(name).isNull() & F.col(f"_{name}_text").isNotNull() for name in times},
        "price_unreadable": F.col(c.PRICE).isNull() & F.col("_price_text").isNotNull(),
        "price_not_finite": F.isnan(c.PRICE) | (F.abs(c.PRICE) == float("inf")),
        "embedding_unreadable": F.col("_has_embedding") & F.col(c.EMBEDDING).isNull(),
    }
    judged = read.withColumn("_faults", _because(faults)).withColumn(c.RELEASE_KNOWN, F.col(c.RELEASE_TS).isNotNull())
    # Good rows come first, then the order of their text: which one stays does not depend on the order of files.
    same = Window.partitionBy(c.ITEM_ID).orderBy(F.size("_faults").asc_nulls_last(), F.col(c.RAW).asc_nulls_last())
    again = (F.row_number().over(same) > 1) & F.col(c.ITEM_ID).isNotNull() & (F.size("_faults") == 0)
    reasons = F.when(again, F.array(F.lit("item_id_duplicate"))).otherwise(F.col("_faults"))
    return judged.withColumn(c.REASONS, reasons).select(*ITEMS.column_names, c.REASONS, c.RAW)


def _attributes(raw: DataFrame, names: tuple[str, ...]) -> Column:
    if not names:
        return F.lit(None).cast("map<string,string>")
    pairs = F.array(*[F.struct(F.lit(name).alias("key"), text(raw, name).alias("value")) for name in names])
    return F.map_from_entries(F.filter(pairs, lambda pair: pair["value"].isNotNull()))


def split_items(validated: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Good rows with the columns of ``items``; rejected rows with ``raw`` and ``reasons``."""
    good, bad = _sides(validated)
    return good.select(*ITEMS.column_names), bad.select(c.RAW, c.REASONS)


def complete_items(catalogue: DataFrame | None, events: DataFrame) -> DataFrame:
    """``items``: the catalogue's rows and one for each item that occurs in events only.

    An unknown release is filled with the item's first event and flagged; it is hindsight, and features do not use it.
    """
    seen = events.groupBy(c.ITEM_ID).agg(F.min(c.EVENT_TS).alias("_first"))
    if catalogue is None:
        known = {column.name: F.lit(None).cast(column.type) for column in ITEMS.columns if column.name != c.ITEM_ID}
        both = seen.withColumns(known)
    else:
        both = catalogue.join(seen, on=c.ITEM_ID, how="full")
    filled = both.withColumns({
        c.RELEASE_TS: F.coalesce(c.RELEASE_TS, "_first"),
        c.RELEASE_KNOWN: F.coalesce(c.RELEASE_KNOWN, F.lit(False)),
    })  # fmt: skip
    return filled.select(*ITEMS.column_names)


def _sides(validated: DataFrame) -> tuple[DataFrame, DataFrame]:
    good = F.coalesce(F.size(c.REASONS) == 0, F.lit(False))
    return validated.where(good), validated.where(~good)

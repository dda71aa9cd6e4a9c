"""Raw events and raw items -> rows of the contracts, or the reasons why not. No bad row ends the job; none is lost.

A row is good iff its ``reasons`` (features/quality.py) are empty. Values are read with ``try_`` functions (ANSI casts would
end the job), and the split is null-safe: every row is on exactly one side.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import StringType

from conf import columns as c
from conf.sources import EventSource, Ingest, ItemSource
from features.contracts import EVENTS, ITEMS
from features.quality import EVENT_CHECKS, ITEM_CHECKS, Judge, is_rejected, judges, reasons
from features.raw_values import epoch_unit, number, raw_json, text, timestamp, vector
from features.windows import to_micros


@dataclass(frozen=True)
class Looked:
    """When the source was last looked at, and when this look's news became known. Neither moment is the wall clock's."""

    before: datetime
    known: datetime


def read_events(
    raw: DataFrame, source: EventSource, ingest: Ingest, looked: Looked | None = None, known: DataFrame | None = None
) -> DataFrame:
    """One row a raw row, readable or not: the columns of ``events`` and, with an underscore, what checks ask for.

    ``looked`` is for a source that does not say when a row arrived: what happened before the last look at it, and was not
    there then, was not known then either. ``known`` has the ids of ``events``; its rows are marked.
    """
    names = source.columns
    read = raw.select(
        F.struct("*").alias("_row"),
        text(raw, names.user_id).alias(c.USER_ID),
        text(raw, names.item_id).alias(c.ITEM_ID),
        _blanks(raw, names.user_id, names.item_id).alias("_blanks"),
        (text(raw, names.event_type) if names.event_type else F.lit(None).cast("string")).alias("_raw_type"),
        timestamp(raw, names.event_ts).alias(c.EVENT_TS),
        epoch_unit(raw, names.event_ts).alias("_unit"),
        (timestamp(raw, names.available_ts) if names.available_ts else F.lit(None).cast("timestamp")).alias("_arrival"),
        (number(raw, names.value) if names.value else F.lit(None).cast("double")).alias("_value"),
        (text(raw, names.value) if names.value else F.lit(None).cast("string")).alias("_value_text"),
        (text(raw, names.session_id) if names.session_id else F.lit(None).cast("string")).alias(c.SESSION_ID),
        (text(raw, names.event_id) if names.event_id else F.lit(None).cast("string")).alias("_event_id"),
    )
    cap = F.lit(ingest.value_cap).cast("double")
    typed = read.withColumns({
        c.EVENT_TYPE: _event_type(source),
        c.VALUE: F.when(F.col("_value") > cap, cap).otherwise(F.col("_value")),
        c.AVAILABLE_TS: F.col("_arrival") if names.available_ts else _first_seen(looked),
        c.SOURCE: F.lit(source.name),
    })  # fmt: skip
    whole = typed.withColumn(c.EVENT_ID, _event_id(source))
    if known is None:
        return whole.withColumn("_known", F.lit(False))
    marked = known.select(c.EVENT_ID).withColumn("_is_known", F.lit(True))
    return whole.join(marked, c.EVENT_ID, "left").withColumn("_known", F.col("_is_known").isNotNull())


def judged(rows: DataFrame, asked: tuple[Judge, ...]) -> DataFrame:
    """Rows of ``read_events`` -> the columns of ``events``, ``reasons`` (empty: good) and ``raw`` (JSON; NULL for a good row)."""
    return rows.select(
        *EVENTS.column_names, reasons(asked).alias(c.REASONS), F.when(is_rejected(asked), raw_json("_row")).alias(c.RAW)
    )


def validate_events(raw: DataFrame, source: EventSource, ingest: Ingest, looked: Looked | None = None) -> DataFrame:
    """Raw rows -> the columns of ``events``, ``reasons`` and ``raw``."""
    return judged(read_events(raw, source, ingest, looked), judges(EVENT_CHECKS, source, ingest))


def _first_seen(looked: Looked | None) -> Column:
    happened = F.col(c.EVENT_TS)
    if looked is None:
        return happened
    before, known = (F.timestamp_micros(F.lit(to_micros(m))) for m in (looked.before, looked.known))
    return F.when(happened < before, known).otherwise(happened)


def _blanks(raw: DataFrame, *names: str) -> Column:
    """Whether blanks around an id are cut off. Only text has any."""
    cut = F.lit(False)
    for name in names:
        if isinstance(raw.schema[name].dataType, StringType):
            cut = cut | (F.length(F.col(f"`{name}`")) != F.length(text(raw, name)))
    return cut


def _event_type(source: EventSource) -> Column:
    if source.columns.event_type is None:
        return F.lit(source.default_type)
    found = F.col("_raw_type")
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


def validate_items(raw: DataFrame, source: ItemSource, ingest: Ingest | None = None) -> DataFrame:
    """The columns of ``items``, ``reasons`` and ``raw``."""
    ingest = ingest or Ingest()  # type: ignore[call-arg]
    asked = judges(ITEM_CHECKS, source, ingest)
    return judged_items(read_items(raw, source, ingest), asked)


def read_items(raw: DataFrame, source: ItemSource, ingest: Ingest) -> DataFrame:
    """One row a raw row: the columns of ``items`` and what checks ask for. Of good rows with the same id one is the first."""
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
        _blanks(raw, names.item_id).alias("_blanks"),
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
    alone = judges([check for check in ITEM_CHECKS if check.id != "item_id_duplicate"], source, ingest)
    marked = read.withColumn("_faulty", is_rejected(alone)).withColumn(c.RELEASE_KNOWN, F.col(c.RELEASE_TS).isNotNull())
    # Good rows come first, then the order of their text: which one stays does not depend on the order of files.
    same = Window.partitionBy(c.ITEM_ID).orderBy("_faulty", F.col(c.RAW).asc_nulls_last())
    return marked.withColumn("_again", (F.row_number().over(same) > 1) & ~F.col("_faulty"))


def judged_items(rows: DataFrame, asked: tuple[Judge, ...]) -> DataFrame:
    """Rows of ``read_items`` -> the columns of ``items``, ``reasons`` (empty: good) and ``raw``."""
    return rows.select(*ITEMS.column_names, reasons(asked).alias(c.REASONS), c.RAW)


def _attributes(raw: DataFrame, names: tuple[str, ...]) -> Column:
    if not names:
        return F.lit(None).cast("map<string,string>")
    pairs = F.array(*[F.struct(F.lit(name).alias("key"), text(raw, name).alias("value")) for name in names])
    return F.map_from_entries(F.filter(pairs, lambda pair: pair["value"].isNotNull()))


def split_items(validated: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Good rows with the columns of ``items``; rejected rows with ``raw`` and ``reasons``."""
    good, bad = _sides(validated)
    return good.select(*ITEMS.column_names), bad.select(c.RAW, c.REASONS)


def complete_items(items: DataFrame | None, events: DataFrame) -> DataFrame:
    """``items`` with what ``events`` tell: a row for each item that occurs in events only, and an unknown release filled in.

    An unknown release is the item's first event, and flagged; it is hindsight, and features do not use it. ``items`` are the
    catalogue and ``events`` the whole log, or the table as it was and the events that were added since: both give the same.
    """
    seen = events.groupBy(c.ITEM_ID).agg(F.min(c.EVENT_TS).alias("_first"))
    if items is None:
        known = {column.name: F.lit(None).cast(column.type) for column in ITEMS.columns if column.name != c.ITEM_ID}
        both = seen.withColumns(known)
    else:
        both = items.join(seen, on=c.ITEM_ID, how="full")
    stated = F.coalesce(c.RELEASE_KNOWN, F.lit(False))
    filled = both.withColumns({
        c.RELEASE_TS: F.when(stated, F.col(c.RELEASE_TS)).otherwise(F.least(c.RELEASE_TS, "_first")),
        c.RELEASE_KNOWN: stated,
    })  # fmt: skip
    return filled.select(*ITEMS.column_names)


def _sides(validated: DataFrame) -> tuple[DataFrame, DataFrame]:
    good = F.coalesce(F.size(c.REASONS) == 0, F.lit(False))
    return validated.where(good), validated.where(~good)

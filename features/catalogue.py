"""Raw catalogue rows -> items, completed by those that only events know."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import ItemSource
from features.contracts import ITEMS
from features.events import read_moment

_MOMENTS = (c.RELEASE_TS, c.AVAILABLE_FROM, c.AVAILABLE_UNTIL)


def validate_items(raw: DataFrame, source: ItemSource) -> DataFrame:
    """The contract's columns, ``reasons`` (empty: accepted) and ``raw``. Of rows with one item_id, one is accepted."""
    names = source.columns.model_dump()
    types = {column.name: column.type for column in ITEMS.columns}
    attributes = names.pop("attributes")
    columns: dict[str, Column] = {}
    unreadable: dict[str, Column] = {}
    for target, name in names.items():
        if name is None:
            columns[target] = F.lit(None).cast(types[target])
            continue
        cell = F.col(f"`{name}`")
        if target in _MOMENTS:
            columns[target] = read_moment(raw, name)
        elif target == c.EMBEDDING:
            columns[target] = cell.cast(types[target])
        else:
            text = F.trim(cell.cast("string"))
            columns[target] = F.when(text != "", text).try_cast(types[target])
        if target not in (c.ITEM_ID, c.EMBEDDING):
            given = F.trim(cell.cast("string")) != ""
            unreadable[f"{target}_unreadable"] = given & columns[target].isNull()
    pairs = [part for name in attributes for part in (F.lit(name), F.col(f"`{name}`").cast("string"))]
    columns[c.ATTRIBUTES] = (F.create_map(*pairs) if pairs else F.lit(None)).cast(types[c.ATTRIBUTES])
    columns[c.RELEASE_KNOWN] = columns[c.RELEASE_TS].isNotNull()
    columns[c.RAW] = F.to_json(F.struct(*[F.col(f"`{name}`") for name in raw.columns]))
    rules = {"item_id_missing": columns[c.ITEM_ID].isNull()} | unreadable
    first = Window.partitionBy(c.ITEM_ID).orderBy(F.asc_nulls_last("_bad"), F.asc_nulls_last(c.RAW))
    typed = raw.select(
        *[column.alias(name) for name, column in columns.items()],
        F.array_compact(F.array(*[F.when(rule, F.lit(name)) for name, rule in rules.items()])).alias(c.REASONS),
    )
    again = F.col(c.ITEM_ID).isNotNull() & (F.row_number().over(first) > 1) & (F.size(c.REASONS) == 0)
    return (
        typed.withColumn("_bad", F.size(c.REASONS) > 0)
        .withColumn(c.REASONS, F.when(again, F.array(F.lit("item_id_duplicate"))).otherwise(F.col(c.REASONS)))
        .select(*ITEMS.column_names, c.REASONS, c.RAW)
    )


def split_items(validated: DataFrame) -> tuple[DataFrame, DataFrame]:
    """(accepted, rejected with raw and reasons). Every row is in exactly one."""
    bad = F.coalesce(F.size(c.REASONS) > 0, F.lit(True))
    return validated.where(~bad).select(*ITEMS.column_names), validated.where(bad).select(c.RAW, c.REASONS)


def complete_items(catalogue: DataFrame | None, events: DataFrame) -> DataFrame:
    """The catalogue and the items that only events know. A missing release is filled by the first event, and flagged."""
    first = events.groupBy(c.ITEM_ID).agg(F.min(c.EVENT_TS).alias("first_ts"))
    if catalogue is None:
        blank = [F.lit(None).cast(k.type).alias(k.name) for k in ITEMS.columns if k.name != c.ITEM_ID]
        catalogue = first.select(c.ITEM_ID, *blank)
    joined = catalogue.join(first, on=c.ITEM_ID, how="full_outer")
    return joined.withColumns({
        c.RELEASE_TS: F.coalesce(c.RELEASE_TS, "first_ts"),
        c.RELEASE_KNOWN: F.coalesce(c.RELEASE_KNOWN, F.lit(False)),
    }).select(*ITEMS.column_names)  # fmt: skip

"""Raw rows -> validated events, with every reason why a row is not accepted. Nothing raises on a bad cell."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import DateType, NumericType, StringType, TimestampNTZType, TimestampType

from conf import columns as c
from conf.settings import EventSource, Ingest
from features.contracts import EVENTS

#: Epoch numbers below this are seconds, below the next milliseconds, else microseconds (seconds until the year 5138).
_SECONDS_BELOW, _MILLIS_BELOW = 100_000_000_000, 100_000_000_000_000


def validate_events(raw: DataFrame, source: EventSource, ingest: Ingest) -> DataFrame:
    """The contract's columns (NULL where unusable), ``reasons`` (empty: accepted) and ``raw`` (the row as JSON)."""
    names = source.columns
    event_ts = read_moment(raw, names.event_ts)
    available = read_moment(raw, names.available_ts) if names.available_ts else event_ts
    value = F.col(f"`{names.value}`").try_cast("double") if names.value else F.lit(None).cast("double")
    session = _text(names.session_id) if names.session_id else F.lit(None).cast("string")
    typed = raw.select(
        F.to_json(F.struct(*[F.col(f"`{name}`") for name in raw.columns])).alias(c.RAW),
        _text(names.user_id).alias(c.USER_ID),
        _text(names.item_id).alias(c.ITEM_ID),
        _event_type(source).alias(c.EVENT_TYPE),
        event_ts.alias(c.EVENT_TS),
        available.alias(c.AVAILABLE_TS),
        value.alias("read_value"),
        (F.col(f"`{names.value}`").isNotNull() if names.value else F.lit(False)).alias("has_value"),
        session.alias(c.SESSION_ID),
        F.lit(source.name).alias(c.SOURCE),
        (_text(names.event_id) if names.event_id else F.lit(None).cast("string")).alias("stated_id"),
    )
    capped = F.col("read_value") if ingest.value_cap is None else F.least("read_value", F.lit(float(ingest.value_cap)))
    return (
        typed.withColumn(c.REASONS, _reasons(ingest))
        .withColumn(c.VALUE, F.when(F.col("read_value").isNotNull(), capped))
        .withColumn(c.EVENT_ID, F.coalesce("stated_id", _content_id()))
        .select(*EVENTS.column_names, c.REASONS, c.RAW)
    )


def _reasons(ingest: Ingest) -> Column:
    """All reasons that apply. A condition that is NULL does not apply: NULLs have conditions of their own."""
    tolerance = F.make_dt_interval(secs=F.lit(ingest.clock_tolerance.total_seconds()))
    earliest, latest = F.to_timestamp(F.lit(ingest.earliest)), F.to_timestamp(F.lit(ingest.latest))
    value = F.col("read_value")
    rules = {
        "user_id_missing": F.col(c.USER_ID).isNull(),
        "item_id_missing": F.col(c.ITEM_ID).isNull(),
        "event_ts_unreadable": F.col(c.EVENT_TS).isNull(),
        "event_ts_out_of_range": (F.col(c.EVENT_TS) < earliest) | (F.col(c.EVENT_TS) >= latest),
        "available_ts_unreadable": F.col(c.EVENT_TS).isNotNull() & F.col(c.AVAILABLE_TS).isNull(),
        "event_ts_after_available": F.col(c.EVENT_TS) > F.col(c.AVAILABLE_TS) + tolerance,
        "value_unreadable": F.col("has_value") & value.isNull(),
        "value_not_finite": F.isnan(value) | (F.abs(value) == float("inf")),
    }
    if ingest.value_floor is not None:
        rules["value_at_or_below_floor"] = value <= F.lit(float(ingest.value_floor))
    return F.array_compact(F.array(*[F.when(rule, F.lit(name)) for name, rule in rules.items()]))


def split(validated: DataFrame) -> tuple[DataFrame, DataFrame]:
    """(accepted with the contract's columns, rejected with raw and reasons). Every row is in exactly one."""
    bad = F.coalesce(F.size(c.REASONS) > 0, F.lit(True))
    return validated.where(~bad).select(*EVENTS.column_names), validated.where(bad).select(c.RAW, c.REASONS)


def first_available(events: DataFrame) -> DataFrame:
    """One row an event_id: the first that became available; of equals, the least in all other columns."""
    rest = [name for name in EVENTS.column_names if name not in (c.EVENT_ID, c.AVAILABLE_TS)]
    order = Window.partitionBy(c.EVENT_ID).orderBy(
        F.asc_nulls_last(c.AVAILABLE_TS), *[F.asc_nulls_last(name) for name in rest]
    )
    kept = events.withColumn("_place", F.row_number().over(order)).where(F.col("_place") == 1)
    return kept.select(*EVENTS.column_names)


def read_moment(raw: DataFrame, name: str) -> Column:
    """A column of any type as TIMESTAMP in UTC, NULL where unreadable. Numbers are seconds, milli- or microseconds by size."""
    column, kind = F.col(f"`{name}`"), raw.schema[name].dataType
    if isinstance(kind, TimestampType):
        return column
    if isinstance(kind, TimestampNTZType | DateType):
        return column.cast("timestamp")  # the session is in UTC
    if isinstance(kind, NumericType):
        return _epoch(column.try_cast("double"), column)
    if isinstance(kind, StringType):
        number = F.trim(column).try_cast("double")
        return F.when(number.isNotNull(), _epoch(number, F.trim(column))).otherwise(
            F.trim(column).try_cast("timestamp")
        )
    return F.lit(None).cast("timestamp")


def _epoch(number: Column, exact: Column) -> Column:
    unit = F.when(F.abs(number) < _SECONDS_BELOW, 1_000_000).when(F.abs(number) < _MILLIS_BELOW, 1_000).otherwise(1)
    whole = exact.try_cast("decimal(38,6)") * unit
    return F.timestamp_micros(F.floor(whole).try_cast("bigint"))


def _text(name: str) -> Column:
    """A column as text; blank is missing."""
    text = F.trim(F.col(f"`{name}`").cast("string"))
    return F.when(text != "", text)


def _event_type(source: EventSource) -> Column:
    if source.columns.event_type is None:
        return F.lit(source.default_type)
    raw = _text(source.columns.event_type)
    kind = F.when(raw.isNull(), F.lit(source.default_type))
    for name, standard in source.event_types.items():
        kind = kind.when(raw == name, F.lit(standard))
    return kind.when(raw.isin(*c.EVENT_TYPES), raw).otherwise(F.lit("other"))


def _content_id() -> Column:
    """A hash of what the event says: the same delivery twice is the same event."""
    us, value = F.unix_micros(c.EVENT_TS).cast("string"), F.col("read_value").cast("string")
    names = (c.SOURCE, c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.SESSION_ID)
    parts = [*[F.col(name) for name in names], us, value]
    return F.md5(F.to_json(F.array(*[F.coalesce(part, F.lit("")) for part in parts])))

"""Reads one raw column of whatever type into text, a number, a moment or a vector; NULL where it cannot be read."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    DateType,
    DecimalType,
    FractionalType,
    IntegralType,
    StringType,
    TimestampNTZType,
    TimestampType,
)

_BLANKS = " \t\r\n\u00a0"
#: Below this many a unit of epoch time is not yet exhausted: seconds up to the year 5138, then ms, µs, ns.
_SECONDS_BELOW, _MILLIS_BELOW, _MICROS_BELOW = 10**11, 10**14, 10**17
_DIGITS = r"^[+-]?\d{9,18}$"


def _column(name: str) -> Column:
    return F.col(f"`{name}`")


def text(raw: DataFrame, name: str) -> Column:
    """Trimmed text; blank is NULL. A float that is a whole number reads as one, as pandas turns ids with gaps into floats."""
    column = _column(name)
    spelt = column.cast("string")
    if isinstance(raw.schema[name].dataType, FractionalType) and not isinstance(raw.schema[name].dataType, DecimalType):
        whole = (F.floor(column) == column) & (F.abs(column) < 2.0**53)
        spelt = (
            F.when(F.isnan(column), F.lit(None))
            .when(whole, column.cast("double").try_cast("bigint").cast("string"))
            .otherwise(spelt)
        )
    return F.nullif(F.btrim(spelt, F.lit(_BLANKS)), F.lit(""))


def number(raw: DataFrame, name: str) -> Column:
    """A double."""
    column = _column(name)
    if isinstance(raw.schema[name].dataType, StringType):
        column = F.btrim(column, F.lit(_BLANKS))
    return column.try_cast("double")


def timestamp(raw: DataFrame, name: str) -> Column:
    """A moment: timestamps, dates and ISO text (without a zone: UTC), epoch numbers as seconds, ms, µs or ns by magnitude."""
    column, kind = _column(name), raw.schema[name].dataType
    if isinstance(kind, TimestampType):
        return column
    if isinstance(kind, TimestampNTZType | DateType):
        return column.cast("timestamp")
    if isinstance(kind, IntegralType):
        return _from_epoch(column.cast("bigint"))
    if isinstance(kind, FractionalType):
        return _from_fraction(column.try_cast("double"))
    if isinstance(kind, StringType):
        trimmed = F.btrim(column, F.lit(_BLANKS))
        return F.when(trimmed.rlike(_DIGITS), _from_epoch(trimmed.try_cast("bigint"))).otherwise(
            F.try_to_timestamp(trimmed)
        )
    return F.lit(None).cast("timestamp")


def _from_epoch(number: Column) -> Column:
    size = F.abs(number)
    micros = (
        F.when(size < _SECONDS_BELOW, number * 1_000_000)
        .when(size < _MILLIS_BELOW, number * 1_000)
        .when(size < _MICROS_BELOW, number)
        .otherwise(F.floor(number / 1_000))
    )
    return F.timestamp_micros(micros)


def _from_fraction(number: Column) -> Column:
    size = F.abs(number)
    scale = (
        F.when(size < _SECONDS_BELOW, 1e6)
        .when(size < _MILLIS_BELOW, 1e3)
        .when(size < _MICROS_BELOW, 1.0)
        .when(size < 1e19, 1e-3)
    )
    return F.timestamp_micros(F.round(number * scale).try_cast("bigint"))


def vector(raw: DataFrame, name: str) -> Column:
    """An array of floats, from an array of numbers or its JSON text; NULL if an element is missing or not finite."""
    column, kind = _column(name), raw.schema[name].dataType
    if isinstance(kind, ArrayType):
        read = column.try_cast("array<float>")
    elif isinstance(kind, StringType):
        read = F.from_json(column, "array<float>")
    else:
        read = F.lit(None).cast("array<float>")
    bad = F.exists(read, lambda x: x.isNull() | F.isnan(x) | (F.abs(x) == float("inf")))
    return F.when(~bad & (F.size(read) > 0), read)


def raw_json(row: Column | str) -> Column:
    """The whole raw row, missing values included."""
    return F.to_json(row, {"ignoreNullFields": "false"})

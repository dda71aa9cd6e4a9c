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
_UNITS_OF_EPOCH = ((_SECONDS_BELOW, "s"), (_MILLIS_BELOW, "ms"), (_MICROS_BELOW, "us"))
#: The units in which a source may count epoch time.
EPOCH_UNITS = ("s", "ms", "us", "ns")
#: Text that is an epoch number. Fewer digits may be a date without its dashes, and are none.
_DIGITS = r"^[+-]?\d{9,19}$"
_FRACTION = r"^[+-]?(\d{9,19}\.\d*|\d(\.\d+)?[eE]\+?\d{1,2})$"
#: Text without a date would be read as a time of today: by the wall clock.
_DATED = r"^[+-]?\d{4}"


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
        return (
            F.when(trimmed.rlike(_DIGITS), _from_epoch(trimmed.try_cast("bigint")))
            .when(trimmed.rlike(_FRACTION), _from_fraction(trimmed.try_cast("double")))
            .when(trimmed.rlike(_DATED), F.try_to_timestamp(trimmed))
        )
    return F.lit(None).cast("timestamp")


def epoch_unit(raw: DataFrame, name: str) -> Column:
    """In which unit an epoch number was taken to be: one of ``EPOCH_UNITS``; NULL for what is no epoch number."""
    column, kind = _column(name), raw.schema[name].dataType
    if isinstance(kind, IntegralType | FractionalType):
        number = column.try_cast("double")
    elif isinstance(kind, StringType):
        trimmed = F.btrim(column, F.lit(_BLANKS))
        number = F.when(trimmed.rlike(_DIGITS) | trimmed.rlike(_FRACTION), trimmed.try_cast("double"))
    else:
        return F.lit(None).cast("string")
    unit = F.when(F.isnan(number), None)
    for below, name_ in _UNITS_OF_EPOCH:
        unit = unit.when(F.abs(number) < below, name_)
    return unit.when(number.isNotNull(), "ns")


def _from_epoch(number: Column) -> Column:
    micros = (
        F.when(_within(number, _SECONDS_BELOW), number * 1_000_000)
        .when(_within(number, _MILLIS_BELOW), number * 1_000)
        .when(_within(number, _MICROS_BELOW), number)
        # Whole numbers all the way: a double of this size steps by 256 ns.
        .otherwise(F.call_function("div", number, F.lit(1_000)))
    )
    return F.timestamp_micros(micros)


def _within(number: Column, bound: int) -> Column:
    # Not abs(): the smallest BIGINT has none, and would end the job.
    return (number > -bound) & (number < bound)


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

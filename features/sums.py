"""Decayed sums, and sums of doubles that do not depend on the order of the rows, so that a re-run gives the same bytes.

Floating-point addition is not associative, and Spark adds in the order in which blocks arrive. A number is therefore split
into whole units and the rest in units of 2^-31 of these; both are added as integers, exactly and in any order.
"""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

from features.windows import SECOND_US

_REST = float(2**31)
#: A weight between 0 and 1 is counted in units of 2^-30: 8e9 of them fit, to 2^-61 each.
WEIGHT = 2.0**-30
#: A value (|value| <= 1e12) is counted in units of 1: 9e6 of the largest fit, to 2^-31 each.
VALUE = 1.0


def exact_parts(number: Column | str, unit: float = WEIGHT) -> tuple[Column, Column]:
    """The sums of the two integer parts of a double column, NULL counting as 0: whole units, and 2^-31 of them."""
    whole, rest = _split(F.coalesce(F.col(number) if isinstance(number, str) else number, F.lit(0.0)), unit)
    return F.sum(whole), F.sum(rest)


def from_parts(whole: Column, rest: Column, unit: float = WEIGHT) -> Column:
    """The double that two summed parts stand for."""
    return (whole + rest / _REST) * unit


def exact_sum(number: Column | str, unit: float = WEIGHT) -> Column:
    """The sum of a double column, NULL counting as 0. ``unit`` is ``WEIGHT`` or ``VALUE``."""
    return from_parts(*exact_parts(number, unit), unit)


def scaled_parts(whole: Column, rest: Column, factor: float) -> tuple[Column, Column]:
    """The parts of a sum of weights times a factor; no longer exact, but as near as a double."""
    return _split(from_parts(whole, rest) * F.lit(factor), WEIGHT)


def _split(number: Column, unit: float) -> tuple[Column, Column]:
    value = number * (1 / unit)
    return F.floor(value), F.floor((value - F.floor(value)) * _REST + 0.5)


def decay(us: Column | str, reference_us: Column, half_life_seconds: int) -> Column:
    """The weight at the reference of what happened at ``us``: 0.5 ** (age / half-life)."""
    at = F.col(us) if isinstance(us, str) else us
    return F.pow(F.lit(0.5), (reference_us - at) / F.lit(float(half_life_seconds * SECOND_US)))

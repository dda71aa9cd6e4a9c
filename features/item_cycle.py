"""Daily and weekly cycles: the mean direction of sales on the circle of the day and of the week.

Source: Mardia and Jupp, "Directional Statistics" (2000): the mean resultant length is 0 for a flat spread and 1 for one point.
"""

from __future__ import annotations

import math

from pyspark.sql import Column
from pyspark.sql import functions as F

from features.sums import exact_parts, from_parts
from features.windows import DAY_US, US

_WEEK_US = 7 * DAY_US
_MONDAY_US = 4 * DAY_US  # 1970-01-05, the first Monday


#: Cosine and sine of the place in the day, then of that in the week.
CYCLE_SUMS = 4


def cycle_parts() -> list[Column]:
    """Exact parts (whole, rest) of the sums of cosines and sines of the events' places in the day and in the week."""
    day = _angle(F.pmod(F.col(US), F.lit(DAY_US)), DAY_US)
    week = _angle(F.pmod(F.col(US) - F.lit(_MONDAY_US), F.lit(_WEEK_US)), _WEEK_US)
    sums = (F.cos(day), F.sin(day), F.cos(week), F.sin(week))
    return [part for value in sums for part in exact_parts(value)]


def cycle_columns() -> dict[str, Column]:
    """Strength (0 to 1) and phase (hours 0 to 24; days 0 to 7, Monday first) of both cycles, from ``sum_cycle``; 0 without sales."""
    columns = {}
    for name, first, period in (("daily", 0, 24.0), ("weekly", 2, 7.0)):
        cos, sin = (from_parts(F.get("sum_cycle", 2 * k), F.get("sum_cycle", 2 * k + 1)) for k in (first, first + 1))
        length = F.sqrt(cos * cos + sin * sin) / F.col("item_sales_all")
        turn = F.pmod(F.atan2(sin, cos) / F.lit(2 * math.pi), F.lit(1.0))
        columns[f"item_{name}_strength"] = F.coalesce(F.least(length, F.lit(1.0)), F.lit(0.0))
        columns[f"item_{name}_phase"] = F.coalesce(turn * F.lit(period), F.lit(0.0))
    return columns


def _angle(place: Column, period: int) -> Column:
    return place / F.lit(float(period)) * F.lit(2 * math.pi)

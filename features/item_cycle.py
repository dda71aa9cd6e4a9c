"""Daily and weekly cycles: the mean direction of sales on the circle of the day and of the week.

Source: Mardia and Jupp, "Directional Statistics" (2000): the mean resultant length is 0 for a flat spread and 1 for one point.
"""

from __future__ import annotations

import math

from pyspark.sql import Column
from pyspark.sql import functions as F

from features.sums import exact_sum
from features.windows import DAY_US, US

_WEEK_US = 7 * DAY_US
_MONDAY_US = 4 * DAY_US  # 1970-01-05, the first Monday


def cycle_sums() -> list[Column]:
    """Sums of cosines and sines of the events' places in the day and in the week."""
    day = _angle(F.pmod(F.col(US), F.lit(DAY_US)), DAY_US)
    week = _angle(F.pmod(F.col(US) - F.lit(_MONDAY_US), F.lit(_WEEK_US)), _WEEK_US)
    parts = {"day_cos": F.cos(day), "day_sin": F.sin(day), "week_cos": F.cos(week), "week_sin": F.sin(week)}
    return [exact_sum(value).alias(name) for name, value in parts.items()]


def cycle_columns() -> dict[str, Column]:
    """Strength (0 to 1) and phase (hours 0 to 24; days 0 to 7, Monday first) of both cycles; 0 without sales."""
    columns = {}
    for name, part, period in (("daily", "day", 24.0), ("weekly", "week", 7.0)):
        cos, sin = F.col(f"{part}_cos"), F.col(f"{part}_sin")
        length = F.sqrt(cos * cos + sin * sin) / F.col("item_sales_all")
        turn = F.pmod(F.atan2(sin, cos) / F.lit(2 * math.pi), F.lit(1.0))
        columns[f"item_{name}_strength"] = F.coalesce(F.least(length, F.lit(1.0)), F.lit(0.0))
        columns[f"item_{name}_phase"] = F.coalesce(turn * F.lit(period), F.lit(0.0))
    return columns


def _angle(place: Column, period: int) -> Column:
    return place / F.lit(float(period)) * F.lit(2 * math.pi)

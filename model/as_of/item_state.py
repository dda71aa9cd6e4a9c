"""What is known of every item at a moment, as arrays aligned with the catalogue.

Read from one ``item_temporal`` partition. An item that is not in it (released later, or never seen) is not available
and has zeros. Counts are logged, so that a hit and a niche item live on one scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf import columns as c
from model.as_of.catalogue import Catalogue
from model.data import index_of

_FLOOR = 0.02
"""Added to decayed sums before the logarithm: a sale five to six half-lives ago still differs from none."""
DAY_PATCH, HOUR_PATCH = 7, 6
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US

DECAYED = tuple(c.item_decayed(h) for h in c.ITEM_HALF_LIVES)
_COUNTS = ("item_sales_all", "item_users_28d", *(c.item_sales(w) for w in c.WINDOWS))
_PLAIN = ("item_trend_1d_7d", "item_trend_7d_28d", "item_acceleration")
_DAYS = ("item_age_days", "item_idle_days", "item_days_since_peak", "item_repurchase_days")
_CYCLES = (("daily", 24.0), ("weekly", 7.0))
COLUMNS = (
    c.ITEM_ID, "item_available", *_COUNTS, *DECAYED, *_PLAIN, *_DAYS, "item_release_known", "item_life_stage",
    *(f"item_{cycle}_{part}" for cycle, _ in _CYCLES for part in ("strength", "phase")), "item_hours", "item_days",
)  # fmt: skip

#: Names of the columns of ``ItemState.features``.
FEATURES = (
    *DECAYED, *_COUNTS, *_PLAIN, *_DAYS, *(f"{name}_known" for name in _DAYS[1:]), "item_release_known",
    *(f"item_stage_{stage}" for stage in c.LIFE_STAGES), "item_daily_match", "item_daily_strength",
    "item_weekly_match", "item_weekly_strength", "item_freshness", "item_log_price",
)  # fmt: skip
FEATURE_AT = {name: j for j, name in enumerate(FEATURES)}


@dataclass(frozen=True)
class ItemState:
    """State of the items at ``as_of_us``; all arrays are aligned with the catalogue."""

    as_of_us: int
    available: np.ndarray
    """May be recommended at as_of."""
    features: np.ndarray
    """(items, len(FEATURES)) float32."""
    days: np.ndarray
    """(items, 56) sales a day, oldest first, int16 (capped)."""
    hours: np.ndarray
    """(items, 48) sales an hour, oldest first, int16 (capped)."""
    sales: np.ndarray
    """(items,) visible sales in all history."""

    def column(self, name: str) -> np.ndarray:
        """One feature of all items."""
        return self.features[:, FEATURE_AT[name]]


def calendar(us: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """Hour of the day (0 to 24) and day of the week (0, Monday, to 7) as fractions, UTC."""
    us = np.asarray(us, np.int64)
    return (us % DAY_US) / HOUR_US, ((us + 3 * DAY_US) % (7 * DAY_US)) / DAY_US


def build_item_state(table: pa.Table, catalogue: Catalogue, as_of_us: int) -> ItemState:
    """Arrange one ``item_temporal`` partition by the catalogue's order."""
    at = index_of(table[c.ITEM_ID], catalogue.item_ids)
    rows = np.flatnonzero(at >= 0)
    at = at[rows]
    n = len(catalogue)

    def spread(values: np.ndarray, dtype: type = np.float32) -> np.ndarray:
        out = np.zeros((n, *values.shape[1:]), dtype)
        out[at] = values[rows]
        return out

    def number(name: str) -> np.ndarray:
        return pc.fill_null(table[name].cast(pa.float64()), np.nan).to_numpy(zero_copy_only=False)

    parts = [np.log(number(name) + _FLOOR) for name in DECAYED]
    parts += [np.log1p(number(name)) for name in _COUNTS]
    parts += [number(name) for name in _PLAIN]
    days = {name: number(name) for name in _DAYS}
    parts += [np.log1p(np.nan_to_num(days[name], nan=0.0)) for name in _DAYS]
    parts += [np.isfinite(days[name]) for name in _DAYS[1:]]
    parts.append(number("item_release_known"))
    stage = index_of(table["item_life_stage"], pa.array(c.LIFE_STAGES))
    parts += [stage == j for j in range(len(c.LIFE_STAGES))]
    for now, (cycle, period) in zip(calendar(as_of_us), _CYCLES, strict=True):
        strength = np.nan_to_num(number(f"item_{cycle}_strength"))
        phase = np.nan_to_num(number(f"item_{cycle}_phase"))
        parts += [strength * np.cos(2 * np.pi * (now - phase) / period), strength]
    parts.append(np.exp2(-days["item_age_days"]))
    features = spread(np.stack([np.asarray(p, np.float32) for p in parts], axis=1))
    features = np.concatenate([features, catalogue.log_price[:, None]], axis=1)
    return ItemState(
        as_of_us=as_of_us,
        available=spread(table["item_available"].to_numpy(), bool),
        features=features,
        days=spread(_series(table["item_days"], c.DAY_BUCKETS), np.int16),
        hours=spread(_series(table["item_hours"], c.HOUR_BUCKETS), np.int16),
        sales=spread(number("item_sales_all"), np.float32),
    )


def _series(column: pa.ChunkedArray, length: int) -> np.ndarray:
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    if len(flat) != length * len(column):
        raise ValueError(f"item series must have {length} buckets each, found {len(flat)} in {len(column)} rows")
    return np.minimum(flat, 30_000).astype(np.int16).reshape(-1, length)

"""Encodings of time: gaps on a log scale, moments as positions in the day and the week (UTC)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from model.as_of.item_state import DAY_US, HOUR_US

#: Width of ``gap_features`` and of ``calendar_features``.
GAP_WIDTH, CALENDAR_WIDTH = 4, 6
_SCALES_US = (60_000_000, HOUR_US, DAY_US, 28 * DAY_US)
"""A minute, an hour, a day, four weeks: log(1 + gap / scale) tells gaps apart around each."""


def gap_features(gap_us: Tensor) -> Tensor:
    """(…,) int64 microseconds >= 0 to (…, GAP_WIDTH) float32. Differences are taken in int64 before this."""
    gap = gap_us.clamp(min=0).double()
    return torch.stack([torch.log1p(gap / s) / (3 + 9 * (s < DAY_US)) for s in _SCALES_US], dim=-1).float()


def calendar_features(us: Tensor) -> Tensor:
    """(…,) int64 microseconds to (…, CALENDAR_WIDTH): sine and cosine over the day (two harmonics) and the week."""
    day = (us % DAY_US).double() / DAY_US
    week = ((us + 3 * DAY_US) % (7 * DAY_US)).double() / (7 * DAY_US)
    angles = [2 * math.pi * day, 4 * math.pi * day, 2 * math.pi * week]
    return torch.cat([torch.stack([a.sin(), a.cos()], dim=-1) for a in angles], dim=-1).float()

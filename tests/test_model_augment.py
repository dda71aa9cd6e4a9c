"""Histories that might have been: targets stay what they were, and what is off changes nothing."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import torch

from conf.training import Augment
from model.as_of.events import Events
from model.training.augment import cropped
from model.training.windows import WindowBatch, collate, make_windows

HOUR = 3_600_000_000
USERS, EACH = 40, 30


def made(**how: object) -> WindowBatch:
    us = np.tile(np.arange(EACH) * HOUR, USERS) + np.repeat(np.arange(USERS), EACH)
    item = (np.arange(USERS * EACH) % 7).astype(np.int32)
    zero = np.zeros(USERS * EACH)
    events = Events(
        users=pa.array([f"u{k:02d}" for k in range(USERS)]), user=np.repeat(np.arange(USERS), EACH).astype(np.int32), item=item, us=us,
        kind=zero.astype(np.int8), value=zero.astype(np.float32), available_us=us,
    )  # fmt: skip
    windows = make_windows(events, -(2**62), 2**62, length=EACH, most=EACH)
    return collate(events, windows, np.arange(len(windows)), HOUR, torch.Generator().manual_seed(0), Augment(**how))  # type: ignore[arg-type]


def pairs(batch: WindowBatch) -> set[tuple[int, int, int]]:
    """(window, moment of the event before the target, target)."""
    return set(zip(batch.row.tolist(), batch.us[batch.row, batch.place].tolist(), batch.target.tolist(), strict=True))


def test_masked_items_are_unknown_to_the_encoder_and_still_targets() -> None:
    plain, masked = made(), made(mask=0.3)
    hidden = masked.item != plain.item
    assert set(masked.item[hidden].tolist()) == {-1}
    assert 0.25 < hidden.float().mean() < 0.35
    assert pairs(masked) == pairs(plain)


def test_a_cropped_window_keeps_its_newest_events() -> None:
    plain, crop = made(), made(crop=0.5)
    assert pairs(crop) < pairs(plain)
    assert len(pairs(crop)) < 0.9 * len(pairs(plain))
    last = crop.us.max(dim=1).values
    assert torch.equal(last, plain.us.max(dim=1).values)


def test_a_crop_leaves_two_events_of_the_shortest_window() -> None:
    start = cropped(np.zeros(1_000, np.int64), np.full(1_000, 2), Augment(crop=1.0), torch.Generator().manual_seed(0))
    assert start.max() == 0


def test_a_window_moves_as_a_whole() -> None:
    plain, moved = made(), made(shift=timedelta(hours=3))
    by = moved.us - plain.us
    assert (by == by[:, :1]).all()
    assert by.abs().max() <= 3 * HOUR and len(by[:, 0].unique()) > USERS // 2
    assert torch.equal(moved.moment - plain.moment, by[plain.row, 0])
    assert torch.equal(moved.target, plain.target) and torch.equal(moved.session, plain.session)

"""Training windows: pieces of users' histories with a prediction at every position, as SASRec is trained.

A window holds up to L events of one user; the state after each event predicts the next. The moment of prediction is
drawn between the two events (the model is asked at moments that no event marks), never after the target.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from conf.training import Augment
from model.as_of.events import Events
from model.machine.distributed import World, seeded
from model.training.augment import cropped, masked, moved

_AS_IT_WAS = Augment()  # type: ignore[call-arg]


@dataclass(frozen=True)
class Windows:
    """``start`` and ``stop`` rows of events; targets are the events after the first that happen at or after ``since``."""

    start: np.ndarray
    stop: np.ndarray
    since_us: int

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True)
class WindowBatch:
    """Padded windows, (W, L), and the positions to predict from."""

    item: Tensor
    kind: Tensor
    us: Tensor
    value: Tensor
    session: Tensor
    row: Tensor
    """(P,) window of each position, ordered by the time of the target."""
    place: Tensor
    """(P,) place of the event before the target."""
    target: Tensor
    """(P,) item chosen next."""
    moment: Tensor
    """(P,) microseconds: the drawn moment of prediction, between the event and the target."""


def make_windows(events: Events, since_us: int, until_us: int, length: int, most: int) -> Windows:
    """Windows over the newest ``most`` events before ``until_us`` of users with a target since ``since_us``."""
    if not len(events.us):
        return Windows(np.zeros(0, np.int64), np.zeros(0, np.int64), since_us)
    users = len(events.users)
    first = np.concatenate([[0], np.cumsum(events.counted("user", users))[:-1]])
    early = events.counted("user", users, lambda part: events.us[part] < until_us)
    # Rows of one user are adjacent and in time order, so the visible ones are a prefix of them.
    start, stop = first[early > 0], (first + early)[early > 0]
    starts, stops = [], []
    for back in range(-(-most // length)):
        end = stop - back * length
        begin = np.maximum(start, end - length - 1)
        keep = (end - begin >= 2) & (events.us[np.maximum(end - 1, 0)] >= since_us)
        starts.append(begin[keep])
        stops.append(end[keep])
    return Windows(np.concatenate(starts), np.concatenate(stops), since_us)


def window_batches(windows: Windows, world: World, positions: int, parts: tuple[int, ...]) -> Iterator[dict[int, np.ndarray]]:
    """One epoch: windows of like length together, about ``positions`` positions a step over all shards, steps shuffled."""
    shards = world.all_shards
    size = windows.stop - windows.start
    jitter = torch.rand(len(size), generator=seeded(*parts)).numpy()
    order = np.argsort(size + jitter, kind="stable")
    padded = np.maximum.accumulate(size[order])
    steps: list[np.ndarray] = []
    at = 0
    while at < len(order):
        most = max(positions // max(int(padded[at]), 1), 1)  # they grow: no more than so many of the next can fit
        room = np.searchsorted(np.arange(1, min(len(order) - at, most) + 1) * padded[at : at + most], positions, side="right")
        take = max(int(room), shards)
        steps.append(order[at : at + take])
        at += take
    for step in torch.randperm(len(steps), generator=seeded(*parts, 1)).tolist():
        yield {shard: steps[step][shard::shards] for shard in world.shards}


def collate(
    events: Events, windows: Windows, rows: np.ndarray, session_gap_us: int, generator: torch.Generator, how: Augment = _AS_IT_WAS
) -> WindowBatch:
    """Arrays of some windows, changed as ``how`` says. Events of items outside the catalogue are read as unknown and never targets."""
    stop = windows.stop[rows]
    start = cropped(windows.start[rows], stop, how, generator)
    width = int((stop - start).max())
    at = start[:, None] + np.arange(width)
    real = at < stop[:, None]
    at = np.where(real, at, start[:, None])
    item, us = np.where(real, events.item[at], -1), np.where(real, events.us[at], 0)
    gap = np.diff(us, axis=1, prepend=us[:, :1])
    session = (gap > session_gap_us) & real
    session[:, 0] = True
    target_ok = real[:, 1:] & (item[:, 1:] >= 0) & (us[:, 1:] >= windows.since_us)
    row, place = np.nonzero(target_ok)
    when = us[row, place + 1]
    order = np.lexsort((place, row, when))
    row, place, when = row[order], place[order], when[order]
    before = us[row, place]
    share = torch.rand(len(row), generator=generator, dtype=torch.float64).numpy()
    moment = before + ((when - before) * share).astype(np.int64)
    by = moved(len(rows), how, generator)
    tensor = torch.from_numpy
    return WindowBatch(
        item=tensor(masked(item, how, generator).astype(np.int64)),
        kind=tensor(np.where(real, events.kind[at], 0).astype(np.int64)),
        us=tensor(np.where(real, us + by, 0)),
        value=tensor(np.where(real, events.value[at], 0).astype(np.float32)),
        session=tensor(session),
        row=tensor(row),
        place=tensor(place),
        target=tensor(item[row, place + 1].astype(np.int64)),
        moment=tensor(moment + by[row, 0]),
    )

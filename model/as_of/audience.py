"""Who chose an item, and how like a user they are: a taste vector for users, an audience vector for items.

A user's taste is the direction of the user's events in a basis of items; an item's audience is the decayed sum of the
tastes of those who chose it. Their product says how many people like this user chose the item, which is known
of an item from its first event on, long before its id or its neighbours tell anything.

The basis is a truncated SVD of who chose what, columns divided by the root of the item's popularity (as in Nikolakopoulos
et al., "EigenRec", 2019), so that the taste is not the fashion. A basis may only be used at moments at or after its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from scipy.sparse import csr_matrix

from conf import columns as c
from conf.settings import SHORT_HORIZON
from model.as_of.events import Events
from model.as_of.item_state import DAY_US
from model.data import dataset, index_of, micros, moment
from model.spec import PredictSpec

WIDTH = 64
#: An audience is counted thrice, with these three half-lives in turn.
SPANS = ("short", "middle", "long")
_WINDOW = 10
"""Half-lives after which a choice is no longer counted: a thousandth is left of it."""
_UNIT = 2.0**15
"""Sums are of integers (exact in float64 below 2^53), so that they do not depend on the order in which users come."""
_BLOCK = 20_000
_PRIOR = 0.5


def half_lives(horizon: timedelta) -> tuple[float, ...]:
    """Days, of each of SPANS: what is wanted tomorrow was found today, what is wanted in a week by people of a year."""
    return (0.25, 2.0, 28.0) if horizon <= SHORT_HORIZON else (2.0, 28.0, 365.0)


@dataclass(frozen=True)
class Audience:
    """``basis`` (I, K) float32; ``sums`` (SPANS, I, K) float32 decayed tastes of those who chose; ``weight`` (SPANS, I)."""

    basis: np.ndarray
    sums: np.ndarray
    weight: np.ndarray

    def affinity(self, taste_BK: np.ndarray, item_BN: np.ndarray) -> np.ndarray:
        """How many like the user chose each candidate, and how like those who chose it are, (B, N, 2 * SPANS)."""
        safe = np.maximum(item_BN, 0)
        alike = np.stack([np.einsum("bk,bnk->bn", taste_BK, sums[safe]) for sums in self.sums], axis=2)
        weight = self.weight[:, safe].transpose(1, 2, 0)
        return np.concatenate([np.maximum(alike, 0), alike / (weight + _PRIOR)], axis=2).astype(np.float32)


def item_basis(seen: Events, items: int, seed: int) -> np.ndarray:
    """The basis of tastes from what a moment has seen, (items, WIDTH) float32; zeros where little is known."""
    # A second of imports, which whoever only scores does not need.
    from sklearn.utils.extmath import randomized_svd

    user, item = seen.distinct(items)
    users = int(user.max(initial=0)) + 1
    width = min(WIDTH, users - 1, items - 1)
    basis = np.zeros((items, WIDTH), np.float32)
    if width < 1 or not len(user):
        return basis
    scale = 1 / np.sqrt(np.maximum(np.bincount(item, minlength=items), 1))
    value = scale[item]
    length = np.sqrt(np.bincount(user, value**2, minlength=users))
    chosen = csr_matrix(((value / length[user]).astype(np.float32), (user, item)), (users, items))
    _, _, axes = randomized_svd(chosen, width, n_iter=4, random_state=seed)
    basis[:, :width] = axes.T * scale[:, None]
    return basis


def tastes(basis: np.ndarray, item_BL: np.ndarray) -> np.ndarray:
    """Direction of each user's events, each item once, (B, WIDTH) float32; zeros for a user without known items."""
    return _tastes(basis, item_BL, *_each_once(item_BL))


def _tastes(basis: np.ndarray, item_BL: np.ndarray, row: np.ndarray, place: np.ndarray) -> np.ndarray:
    stop = np.searchsorted(row, np.arange(len(item_BL) + 1))
    sums = csr_matrix((np.ones(len(row), basis.dtype), item_BL[row, place], stop), (len(item_BL), len(basis))) @ basis
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def _each_once(item_BL: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and place of the last event with each item in each row, by row and item."""
    length = item_BL.shape[1]
    ordered = np.sort(item_BL.astype(np.int64) * length + np.arange(length), axis=1)
    item = ordered // length
    last = item >= 0
    last[:, :-1] &= item[:, 1:] != item[:, :-1]
    row, at = np.nonzero(last)
    return row, ordered[row, at] % length


def audience(
    basis: np.ndarray, users: Iterable[tuple[np.ndarray, np.ndarray]], as_of_us: int, days: Sequence[float]
) -> Audience:
    """Add up blocks of users: items (B, L), -1 padded, and the microseconds of their events, oldest first, all before as_of.

    ``days``: the half-life of each of SPANS. People are counted and not their events: who chose an item time and again counts
    once, by the last time.
    """
    items, width = basis.shape
    sums = np.zeros((len(days), items, width))
    weight = np.zeros((len(days), items))
    for item_BL, us_BL in users:
        row, place = _each_once(item_BL)
        taste = np.rint(_tastes(basis, item_BL, row, place) * _UNIT).astype(np.float64)
        item, age = item_BL[row, place], (as_of_us - us_BL[row, place]) / DAY_US
        for h, half_life in enumerate(days):
            counted = age < _WINDOW * half_life
            decay = np.rint(np.exp2(-age[counted] / half_life) * _UNIT)
            sums[h] += csr_matrix((decay, (item[counted], row[counted])), (items, len(item_BL))) @ taste
            weight[h] += np.bincount(item[counted], decay, minlength=items)
    return Audience(basis, (sums / _UNIT**2).astype(np.float32), (weight / _UNIT).astype(np.float32))


def histories(seen: Events, length: int) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Blocks of users' last ``length`` events of what a moment has seen, as ``audience`` takes them."""
    stop = np.cumsum(seen.counted("user", len(seen.users))) if len(seen.user) else np.zeros(0, np.int64)
    start = np.concatenate([[0], stop[:-1]])
    for at in range(0, len(stop), _BLOCK):
        yield _last(seen.item, seen.us, start[at : at + _BLOCK], stop[at : at + _BLOCK], length)


def stored_histories(spec: PredictSpec, item_ids: pa.Array, length: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same for everyone, from ``user_sequences``: who changed since the night at as_of, all others at the night."""
    source = dataset(spec.table("user_sequences"))
    at = ds.field(c.AS_OF_TS) == moment(spec.as_of_us)
    parts = [(at, None)]
    if spec.night_us is not None:
        changed = source.to_table(columns=[c.USER_ID], filter=at)[c.USER_ID]
        parts.append((ds.field(c.AS_OF_TS) == moment(spec.night_us), changed))
    for where, without in parts:
        batches = source.to_batches(columns=[c.USER_ID, "item_ids", "event_tss"], filter=where, batch_size=_BLOCK)
        for batch in batches:
            kept = batch if without is None else batch.filter(pc.invert(pc.is_in(batch[c.USER_ID], value_set=without)))
            if kept.num_rows:
                yield _padded(kept, item_ids, length)


def _padded(batch: pa.RecordBatch, item_ids: pa.Array, length: int) -> tuple[np.ndarray, np.ndarray]:
    counts = pc.fill_null(pc.list_value_length(batch["item_ids"]), 0).to_numpy(zero_copy_only=False)
    stop = np.cumsum(counts)
    item, us = index_of(batch["item_ids"].flatten(), item_ids), micros(batch["event_tss"].flatten())
    return _last(item, us, stop - counts, stop, length)


def _last(
    item: np.ndarray, us: np.ndarray, start_B: np.ndarray, stop_B: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """The last ``length`` of the rows [start, stop) of each user, oldest first; item -1 and time 0 where there are fewer."""
    place = stop_B[:, None] - length + np.arange(length)
    real = place >= start_B[:, None]
    if not real.any():
        return np.full(place.shape, -1), np.zeros(place.shape, np.int64)
    place = np.where(real, place, 0)
    return np.where(real, item[place], -1), np.where(real, us[place], 0)

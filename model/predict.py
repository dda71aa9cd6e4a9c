"""Makes lists: ``prepare`` once on the driver, then a ``Scorer`` per worker process, inside an Arrow iterator UDF."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pandas.util import hash_array

from conf import columns as c
from model.as_of.users import UserBatch
from model.machine.device import accelerator, batch_on
from model.machine.memory import keep_freed
from model.scoring import reasons, rules
from model.scoring.prepared import open_prepared, prepare
from model.slate import newcomers
from model.slate.candidates import Candidates
from model.slate.signals import signal_names
from model.slate.slate import PINNED

__all__ = ["OUTPUT", "Scorer", "prepare", "score_batches"]

#: Columns of ``Scorer.score``, in order.
OUTPUT = pa.schema([
    pa.field(c.USER_ID, pa.string(), nullable=False),
    pa.field(c.RANK, pa.int32(), nullable=False),
    pa.field(c.ITEM_ID, pa.string(), nullable=False),
    pa.field(c.SCORE, pa.float64(), nullable=False),
    pa.field(c.REASON, pa.string(), nullable=False),
    pa.field(c.COLD, pa.bool_(), nullable=False),
])  # fmt: skip
_BLOCK = 256
_ODD = np.uint64(0x9E3779B97F4A7C15)
"""Spreads what two hashes have in common over all bits (Fibonacci hashing)."""
_SPARE = 20
"""The newcomers' ranking is this many times longer than a list where rules may take items out."""
_RANKED = 64
"""Users a time in the ranker: what it keeps of them stays in a processor's cache."""
_EXPLORED = 4
"""Places are drawn from so many times a list's length; from twice its length it costs as much NDCG and covers less (model/LOG.md)."""
_POINTS = 10_000
"""Scores are rounded to one over this before they are ordered: below, they differ by the order of additions only."""
_PLACE_BITS = 16
_PINNED_SAYS = "picked by the shop"


_scorers: dict[str, Scorer] = {}


def score_batches(batches: Iterable[pa.RecordBatch], prepared_dir: str) -> Iterator[pa.RecordBatch]:
    """The body of an Arrow iterator UDF: lists for each batch of users. The model is opened once per process."""
    if prepared_dir not in _scorers:
        _scorers.clear()
        _scorers[prepared_dir] = Scorer(prepared_dir)
    for batch in batches:
        yield from _scorers[prepared_dir].score(batch).combine_chunks().to_batches()


class Scorer:
    """Holds a prepared moment and scores batches of users."""

    def __init__(self, prepared_dir: str | Path, threads: int = 1):
        """``threads``: torch threads of this process; Spark runs one such process per core."""
        torch.set_num_threads(threads)
        keep_freed()
        self.folder = Path(prepared_dir)
        self.device = accelerator()
        if self.device is not None:
            # A GPU's lists are a processor's, but for the order of additions.
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = False
        self.prepared = open_prepared(self.folder, self.device)
        self.category = self.prepared.moment.catalogue.facet_code[:, 0]
        self.pinned = self.prepared.moment.shared.get(PINNED, np.zeros(0, np.int64))
        self.item_hash = _hashes(self.prepared.moment.catalogue.item_ids) if self.prepared.explore_places else np.zeros(0, np.uint64)
        self.cold = _cold_list(self)

    def score(self, rows: pa.RecordBatch | pa.Table) -> pa.Table:
        """Lists for users in the input format of ``model/as_of/users.py``: top_k rows a user (fewer only if the catalogue
        has fewer), ranks from 1, ties by item_id. Users without history get the newcomers' list, marked cold.
        """
        table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
        catalogue, features = self.prepared.moment.catalogue, self.prepared.bundle.settings.features
        users = UserBatch.from_table(table, catalogue, features.sequence_length, features.categories_per_user)
        blocks = [np.arange(at, min(at + _BLOCK, len(users))) for at in range(0, len(users), _BLOCK)]
        parts = [self._block(users.take(block)) for block in blocks]
        return pa.concat_tables(parts) if parts else OUTPUT.empty_table()

    @torch.no_grad()
    def _block(self, users: UserBatch) -> pa.Table:
        p = self.prepared
        settings, moment = p.bundle.settings, p.moment
        made = moment.candidates(p.bundle.encoder, p.table, users, settings, p.repeat)
        item = made.slates.item
        points = self._points(users, made)
        order = rules.pinned_first(_best_places(points, item), item, self.pinned, p.pin_places)
        order = rules.first(order, item, p.top_k * (_EXPLORED if p.explore_places else 1), self.category, p.category_cap)
        if p.explore_places:
            order = rules.explored(order, self._draw(users, item), p.top_k, p.explore_places)
        item, points = rules.taken(item, order, -1), rules.taken(points, order, 0)
        names = signal_names(moment.catalogue.facet_names)
        strength = {
            said: rules.taken(made.signals[..., names.index(name)], order, 0)
            for said, name in (("neighbor", "neighbor_next_std"), ("together", "ease_std"), ("taste", "retrieval_taste_std"), ("audience", "audience_middle_std"))
        }
        cold = (users.length == 0) & (np.bincount(users.repeats.user, minlength=len(users)) == 0)
        item[cold] = -1
        why = reasons.explain(users, item, strength, moment.state, moment.catalogue, moment.neighbors, moment.ease)
        if len(self.pinned):
            first = np.isin(item, self.pinned)
            first &= np.cumsum(first, axis=1) <= p.pin_places
            why = pc.if_else(pa.array(first[item >= 0]), _PINNED_SAYS, why)
        return self._rows(users, item, points / _POINTS, why, cold)

    def _points(self, users: UserBatch, made: Candidates) -> np.ndarray:
        """The ranker's scores in whole points, (B, N): those of slates of a like size together, so that little is padded."""
        item = made.slates.item
        size = (item >= 0).sum(axis=1)
        out = np.zeros(item.shape, np.int64)
        for rows in np.array_split(np.argsort(size, kind="stable"), math.ceil(len(size) / _RANKED)):
            rows, width = np.sort(rows), max(int(size[rows].max(initial=0)), 1)
            inputs = self.prepared.moment.ranker_inputs(users.take(rows), item[rows, :width], made.signals[rows, :width], made.x[rows])
            inputs = inputs if self.device is None else batch_on(self.device, inputs)
            score = self.prepared.bundle.ranker(**inputs).cpu().numpy().astype(np.float64)
            out[rows, :width] = np.rint(np.where(item[rows, :width] >= 0, score, 0) * _POINTS)
        return out

    def _draw(self, users: UserBatch, item: np.ndarray) -> np.ndarray:
        """A number for each candidate of each user, (B, N) uint64: the same whenever and with whomever they are scored."""
        return (_hashes(users.user_ids)[:, None] ^ self.item_hash[np.maximum(item, 0)]) * _ODD

    def _rows(self, users: UserBatch, item: np.ndarray, score: np.ndarray, why: pa.Array, cold: np.ndarray) -> pa.Table:
        """``why``: of each item that is there, row by row. The newcomers' list stands in the rows that are cold."""
        fresh, fresh_score, fresh_why = self.cold
        shape = (len(users), max(item.shape[1], len(fresh)))
        items, scores, said = np.full(shape, -1), np.zeros(shape), np.zeros(shape, np.int64)
        items[:, : item.shape[1]], scores[:, : item.shape[1]] = item, score
        said[items >= 0] = np.arange(len(why))
        for grid, shared in ((items, fresh), (scores, fresh_score), (said, len(why) + np.arange(len(fresh)))):
            grid[np.ix_(cold, np.arange(len(fresh)))] = shared
        row, place = np.nonzero(items >= 0)
        catalogue = self.prepared.moment.catalogue
        return pa.table(
            [
                users.user_ids.cast(pa.string()).take(pa.array(row)),
                pa.array(place + 1, pa.int32()),
                catalogue.item_ids.cast(pa.string()).take(pa.array(items[row, place])),
                pa.array(scores[row, place]),
                pa.concat_arrays([why, fresh_why]).take(pa.array(said[row, place])),
                pa.array(cold[row]),
            ],
            schema=OUTPUT,
        )


def _hashes(ids: pa.Array) -> np.ndarray:
    return hash_array(ids.cast(pa.string()).to_numpy(zero_copy_only=False), categorize=False)


def _best_places(points: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Places of each row by falling points, ties by item (a slate's items rise), the padded ones last."""
    place = np.arange(points.shape[1])
    key = np.where(item >= 0, points, np.iinfo(np.int64).min >> _PLACE_BITS) << _PLACE_BITS | (len(place) - 1 - place)
    return len(place) - 1 - (np.sort(key, axis=1)[:, ::-1] & ((1 << _PLACE_BITS) - 1))


def _cold_list(scorer: Scorer) -> tuple[np.ndarray, np.ndarray, pa.Array]:
    """Items, scores and reasons of the ranking that served newcomers best where the model was trained."""
    prepared = scorer.prepared
    state, most = prepared.moment.state, prepared.top_k
    deep = most if prepared.category_cap is None else most * _SPARE
    item, score = newcomers.ranking(prepared.bundle.newcomers, prepared.moment.shared, state, deep)
    left_out = np.setdiff1d(scorer.pinned, item)
    item, score = np.concatenate([item, left_out]), np.concatenate([score, np.zeros(len(left_out))])
    order = rules.pinned_first(np.arange(len(item))[None], item[None], scorer.pinned, prepared.pin_places)
    order = rules.first(order, item[None], most, scorer.category, prepared.category_cap)
    item, score = item[order[order >= 0]], score[order[order >= 0]]
    today, week = (np.expm1(state.column(c.item_sales(w))) for w in ("1d", "7d"))
    new = np.expm1(state.column("item_age_days")) < 7
    said = np.char.add(np.where(new[item], "new and ", ""), reasons.popular(today[item], week[item]))
    pinned = np.isin(item, scorer.pinned) & (np.arange(len(item)) < prepared.pin_places)
    return item, score, pa.array(np.where(pinned, _PINNED_SAYS, said), pa.string())

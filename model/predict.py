"""Makes lists: ``prepare`` once on the driver, then a ``Scorer`` per worker process, inside an Arrow iterator UDF."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from conf import columns as c
from model import newcomers, reasons, rules
from model.prepared import open_prepared, prepare
from model.signals import signal_names
from model.users import UserBatch

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
_SPARE = 20
"""The newcomers' ranking is this many times longer than a list where rules may take items out."""
_DECIMALS = 4
"""Scores are rounded before they are ordered: below this, they differ by the order of additions only."""


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
        self.folder = Path(prepared_dir)
        self.prepared = open_prepared(self.folder)
        self.category = self.prepared.moment.catalogue.facet_code[:, 0]
        self.cold = _cold_list(self)

    def score(self, rows: pa.RecordBatch | pa.Table) -> pa.Table:
        """Lists for users in the input format of ``model/users.py``: top_k rows a user (fewer only if the catalogue
        has fewer), ranks from 1, ties by item_id. Users without history get the newcomers' list, marked cold.
        """
        table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
        parts = [self._block(table.slice(at, _BLOCK)) for at in range(0, len(table), _BLOCK)]
        return pa.concat_tables(parts) if parts else OUTPUT.empty_table()

    @torch.no_grad()
    def _block(self, table: pa.Table) -> pa.Table:
        p = self.prepared
        settings, moment = p.bundle.settings, p.moment
        features = settings.features
        users = UserBatch.from_table(table, moment.catalogue, features.sequence_length, features.categories_per_user)
        made = moment.candidates(p.bundle.encoder, p.table, users, settings, p.repeat)
        item = made.slates.item
        score = p.bundle.ranker(**moment.ranker_inputs(users, item, made.signals, made.x)).numpy()
        score = np.round(score.astype(np.float64), _DECIMALS)
        order = rules.first(np.lexsort((item, -score), axis=1), item, p.top_k, self.category, p.category_cap)
        item, score = rules.taken(item, order, -1), rules.taken(score, order, 0)
        names = signal_names(moment.catalogue.facet_names)
        strength = {
            said: rules.taken(made.signals[..., names.index(name)], order, 0)
            for said, name in (("neighbor", "neighbor_next_std"), ("taste", "retrieval_taste_std"), ("audience", "audience_2d_std"))
        }
        cold = (users.length == 0) & (np.bincount(users.repeats.user, minlength=len(users)) == 0)
        item[cold] = -1
        why = np.full(item.shape, None, object)
        why[item >= 0] = reasons.explain(users, item, strength, moment.state, moment.catalogue, moment.neighbors)
        return self._rows(users, item, score, why, cold)

    def _rows(self, users: UserBatch, item: np.ndarray, score: np.ndarray, why: np.ndarray, cold: np.ndarray) -> pa.Table:
        fresh, fresh_score, fresh_why = self.cold
        width = max(item.shape[1], len(fresh))
        grid = [np.full((len(users), width), fill, kind) for fill, kind in ((-1, np.int64), (0, np.float64), (None, object))]
        for target, warm, shared in zip(grid, (item, score, why), (fresh, fresh_score, fresh_why), strict=True):
            target[:, : item.shape[1]] = warm
            target[np.ix_(cold, np.arange(len(fresh)))] = shared
        row, place = np.nonzero(grid[0] >= 0)
        catalogue = self.prepared.moment.catalogue
        return pa.table(
            [
                users.user_ids.cast(pa.string()).take(pa.array(row)),
                pa.array(place + 1, pa.int32()),
                catalogue.item_ids.cast(pa.string()).take(pa.array(grid[0][row, place])),
                pa.array(grid[1][row, place]),
                pa.array(grid[2][row, place], pa.string()),
                pa.array(cold[row]),
            ],
            schema=OUTPUT,
        )


def _cold_list(scorer: Scorer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Items, scores and reasons of the ranking that served newcomers best where the model was trained."""
    prepared = scorer.prepared
    state, most = prepared.moment.state, prepared.top_k
    deep = most if prepared.category_cap is None else most * _SPARE
    item, score = newcomers.ranking(prepared.bundle.newcomers, prepared.moment.shared, state, deep)
    order = rules.first(np.arange(len(item))[None], item[None], most, scorer.category, prepared.category_cap)
    item, score = item[order[order >= 0]], score[order[order >= 0]]
    today, week = (np.expm1(state.column(c.item_sales(w))) for w in ("1d", "7d"))
    new = np.expm1(state.column("item_age_days")) < 7
    why = [("new and " if new[i] else "") + reasons.popular(today[i], week[i]) for i in item]
    return item, score, np.array(why, object)

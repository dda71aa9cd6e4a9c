"""Shrinks a trained ranker towards the plain signal that ranks best by itself: what a few hundred users teach is noisy.

Among all signals, rising or falling, the one of the highest NDCG@10 at the anchors is found, and the ranker's straight path takes
more of it: as if it had spoken for ``training.signal_prior`` users where the ranker heard N, and never as much as to drown what the ranker
found. One of ten thousand users is left as it is. It costs nothing when lists are made. Shrinkage as in James and Stein 1961; what it
gains, and where, is in model/LOG.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from model.training.ranker_training import AnchorSlates, RankerTrainer, ndcg_each

_LEAST = 0.01
"""A weight below this changes no list and is not worth the search."""
_MOST = 0.3
"""With more, forty users' ranker no longer showed an item that rises for everyone."""
_JUDGED = 1_000
"""Users of all anchors together by whom signals are judged."""


@dataclass(frozen=True)
class BestSignal:
    """``sign``: -1 where the lowest is the best. ``weight``: the spread that it was given in a slate, the ranker's being 1."""

    name: str
    sign: int
    ndcg: float
    weight: float


def lean_on_best_signal(trainer: RankerTrainer, anchors: list[AnchorSlates], names: Sequence[str]) -> BestSignal | None:
    """Add the best signal to the ranker, in place; ``names`` of the last axis of the signals. None where it would change nothing."""
    heard = sum(len(a.useful) for a in anchors)
    weight = min(_MOST, trainer.settings.training.signal_prior / max(heard, 1))
    if weight < _LEAST:
        return None
    every = -(-sum(len(a.item) for a in anchors) // _JUDGED)
    some = [a.take(np.arange(0, len(a.item), every)) for a in anchors]
    column, sign, ndcg = _best(some)
    ranker = trainer.ranker
    ratio = []
    for anchor in some:
        signal = ranker.scale(torch.from_numpy(anchor.signals.astype(np.float32)).to(ranker.straight.weight.device))[..., column].cpu().numpy()
        ratio.append(_spread(trainer.scores(anchor), anchor.item) / max(_spread(signal, anchor.item), 1e-6))
    with torch.no_grad():
        ranker.straight.weight[0, column] += sign * weight * float(np.mean(ratio))
    return BestSignal(names[column], sign, ndcg, weight)


def _best(anchors: list[AnchorSlates]) -> tuple[int, int, float]:
    """(column, sign, NDCG@10) of the signal that orders the users' slates best; the first of equals."""
    found = {
        (column, sign): float(np.concatenate([
            ndcg_each(np.where(a.item >= 0, sign * a.signals[..., column].astype(np.float32), -np.inf), a.target, a.labels) for a in anchors
        ]).mean())
        for column in range(anchors[0].signals.shape[2]) for sign in (1, -1)
    }  # fmt: skip
    (column, sign), ndcg = max(found.items(), key=lambda one: one[1])
    return column, sign, ndcg


def _spread(scores: np.ndarray, item: np.ndarray) -> float:
    """The mean standard deviation of scores (B, N) within the slates."""
    real = item >= 0
    many = np.maximum(real.sum(axis=1, keepdims=True), 1)
    known = np.where(real, scores, 0)
    off = np.where(real, known - known.sum(axis=1, keepdims=True) / many, 0)
    return float(np.sqrt((off**2).sum(axis=1, keepdims=True) / many).mean())

"""What people may want to see of a training: its curves, how fast it was, and how the ranker does on its newest anchor.

The figures at the anchor are seen in training: they show what was learned, and not how good it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from model.training.progress import Progress
from model.training.ranker_training import AnchorSlates

#: Suffix of the file beside the bundle.
REPORT = ".report.json"
_AGES = {"below 1 day": 1.0, "1 to 7 days": 7.0, "7 to 28 days": 28.0, "28 days or more": np.inf}
_TOP, _BINS = 10, 10


def report(progress: Progress, newest: AnchorSlates, scores: np.ndarray) -> dict[str, Any]:
    """Plain JSON; ``scores`` of the newest anchor's slates."""
    return {
        "curve": progress.curve,
        "epochs": progress.epochs,
        "recall_by_age": recall_by_age(newest, scores),
        "calibration": calibration(newest.target, scores),
    }


def recall_by_age(newest: AnchorSlates, scores: np.ndarray) -> dict[str, dict[str, float]]:
    """Of the chosen candidates of each age, the share among the first ten of a slate; with their number."""
    order = np.argsort(-scores, axis=1, kind="stable")
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(order.shape[1])[None, :], 1)
    chosen = (newest.target > 0) & (newest.item >= 0)
    age = np.expm1(newest.moment.state.column("item_age_days"))[newest.item[chosen]]
    shown = place[chosen] < _TOP
    found, since = {}, 0.0
    for name, until in _AGES.items():
        mine = (age >= since) & (age < until)
        if mine.any():
            found[name] = {"recall": float(shown[mine].mean()), "chosen": int(mine.sum())}
        since = until
    return found


def calibration(target: np.ndarray, scores: np.ndarray) -> list[dict[str, float]]:
    """Candidates by the chance that the slate's softmax gives them, in tenths of equal size: that chance, and how many were chosen.

    The softmax is over one choice: of a user who chose several, it is multiplied by their number.
    """
    useful = target.sum(axis=1) > 0
    raised = np.exp(scores[useful] - scores[useful].max(axis=1, keepdims=True, initial=-np.inf))
    expected = raised / raised.sum(axis=1, keepdims=True) * target[useful].sum(axis=1, keepdims=True)
    real = np.isfinite(scores[useful])
    chance, chosen = np.minimum(expected[real], 1.0), target[useful][real]
    parts = np.array_split(np.argsort(chance, kind="stable"), _BINS) if len(chance) else []
    return [{"expected": float(chance[p].mean()), "chosen": float(chosen[p].mean())} for p in parts if len(p)]

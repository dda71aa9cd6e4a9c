"""The metrics of lists that fit into memory, in one call."""

from __future__ import annotations

from collections.abc import Sequence

from model.metrics.coverage import coverage
from model.metrics.hits import find_hits
from model.metrics.lists import Lists
from model.metrics.mrr import mrr
from model.metrics.ndcg import ndcg
from model.metrics.recall import recall


def measure(lists: Lists, truth: Lists, catalogue: int, ks: Sequence[int] = (10, 20)) -> dict[str, float]:
    """Means over users, ``ndcg@k``, ``recall@k``, ``mrr@k``, and ``coverage@k``, for each k."""
    hits = find_hits(lists, truth, max(ks))
    found: dict[str, float] = {}
    for k in ks:
        found[f"ndcg@{k}"] = float(ndcg(hits, k).mean())
        found[f"recall@{k}"] = float(recall(hits, k).mean())
        found[f"mrr@{k}"] = float(mrr(hits, k).mean())
        found[f"coverage@{k}"] = coverage(lists, k, catalogue)
    return found

"""Metrics over the whole catalogue, with binary gains: one a file, each with its source. No negatives are sampled anywhere.

Shapes: U users, K places of a list, D draws. Each metric of a list gives one value a user, so that intervals can be
bootstrapped and users split into segments; ``measure`` gives the means. ``Hits`` is made once and cut at any k up to its K.
"""

from model.metrics.bootstrap import (
    FEWEST,
    Difference,
    Draws,
    Interval,
    bootstrap_interval,
    poisson_weights,
    reality_check,
)
from model.metrics.coverage import coverage
from model.metrics.diversity import diversity
from model.metrics.hits import Hits, find_hits
from model.metrics.lists import Lists
from model.metrics.measure import measure
from model.metrics.mrr import mrr
from model.metrics.ndcg import ndcg
from model.metrics.novelty import novelty
from model.metrics.popularity_bias import average_popularity, gini
from model.metrics.recall import recall

__all__ = [
    "FEWEST", "Difference", "Draws", "Hits", "Interval", "Lists", "average_popularity", "bootstrap_interval", "coverage",
    "diversity", "find_hits", "gini", "measure", "mrr", "ndcg", "novelty", "poisson_weights", "reality_check", "recall",
]  # fmt: skip

"""How far a mean over users, or a difference of two, would move with other users like them.

Where the users fit into memory, ``bootstrap_interval`` draws them. Where they are spread over machines, each user's weight in
each draw is a Poisson(1) number made from the user's key (``poisson_weights``): machines need not talk, every recommender and
every window sees the same weights, and only one sum a draw travels (``Draws``). Differences of two recommenders are thus
paired by user, and a user's windows stay together (a cluster bootstrap).
Sources: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 (percentile intervals) and 15 (p-values
from intervals); Chamandy, Muralidharan, Najmi and Naidu, "Estimating uncertainty for massive data streams", 2012 (Poisson).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, factorial
from typing import NamedTuple

import numpy as np

#: Fewer users than this have no interval: so few draws of so few people say nothing.
FEWEST = 10
#: P(weight <= w) of a Poisson(1) number; beyond 12 it is below 2^-32.
_CDF = np.cumsum([exp(-1) / factorial(w) for w in range(13)])


def poisson_weights(key_U: np.ndarray, draws: int, seed: int = 0) -> np.ndarray:
    """Each user's weight as observed (always 1) and in each draw, [U, 1 + draws] float64. The same key has the same weights.

    ``key_U``: int64 hashes of the users. Draw d of user u is the d-th number of the generator SplitMix64 started at
    u's key (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
    """
    step = np.arange(1, draws + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    start = key_U.astype(np.int64).view(np.uint64) ^ np.uint64(seed)
    z = start[:, None] + step[None, :]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    uniform = ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
    return np.hstack([np.ones((len(key_U), 1)), np.searchsorted(_CDF, uniform, side="right")])


class Interval(NamedTuple):
    """What a number may well be, at 95 % unless said otherwise."""

    low: float
    high: float


class Difference(NamedTuple):
    """One mean less another over the same users: its interval, and the p-value of "no difference" (two-sided)."""

    value: float
    interval: Interval
    p: float


@dataclass(frozen=True)
class Draws:
    """A metric's weighted sum over users, and the sum of the weights: [0] as observed, [1:] in each draw. They add up."""

    total: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, values_U: np.ndarray, weights_UD: np.ndarray) -> Draws:
        """The sums of users with these values; users whose value is NaN are left out."""
        known_U = ~np.isnan(values_U)
        weights_UD = weights_UD[known_U]
        return cls(values_U[known_U] @ weights_UD, weights_UD.sum(0))

    def __add__(self, other: Draws) -> Draws:
        return Draws(self.total + other.total, self.weight + other.weight)

    @property
    def users(self) -> int:
        """How many users have a value."""
        return int(self.weight[0])

    @property
    def mean(self) -> float:
        """The mean over the users as they are. Raises ValueError for nobody."""
        if not self.users:
            raise ValueError("no user has a value")
        return float(self.total[0] / self.weight[0])

    def interval(self, level: float = 0.95) -> Interval | None:
        """Percentile interval of the mean; None for fewer than FEWEST users."""
        return _percentiles(_means(self), level) if self.users >= FEWEST else None

    def less(self, other: Draws, level: float = 0.95) -> Difference | None:
        """This mean less the other's, paired by user; None for fewer than FEWEST users.

        The p-value is the smallest level at which the percentile interval still holds 0; it is at least 2 / (1 + draws).
        Raises ValueError when the users are not the same.
        """
        if not np.array_equal(self.weight, other.weight):
            raise ValueError(f"{self.users} users here and {other.users} there: a paired difference needs the same ones")
        if self.users < FEWEST:
            return None
        drawn = _means(self) - _means(other)
        beyond = 1 + min((drawn <= 0).sum(), (drawn >= 0).sum())
        return Difference(self.mean - other.mean, _percentiles(drawn, level), float(min(1, 2 * beyond / (1 + len(drawn)))))


def reality_check(first: Draws, others: Sequence[Draws]) -> float:
    """The p-value of "none of the others is better than the first", seen in the best of them, which was picked for being best.

    In each draw each lead strays from what it is; p is how often the farthest of them strays as far as the best lead is long.
    Source: White, "A reality check for data snooping", Econometrica 2000.
    """
    leads_N = np.array([other.mean - first.mean for other in others])
    drawn_ND = np.array([_means(other) - _means(first) for other in others])
    farthest_D = (drawn_ND - leads_N[:, None]).max(axis=0)
    return float((1 + (farthest_D >= leads_N.max()).sum()) / (1 + len(farthest_D)))


def _means(draws: Draws) -> np.ndarray:
    # With FEWEST users a draw of nobody has a chance of e^-10; it says nothing and is left out.
    drawn = draws.weight[1:] > 0
    return draws.total[1:][drawn] / draws.weight[1:][drawn]


def _percentiles(values: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def bootstrap_interval(
    values_U: np.ndarray, seed: int, level: float = 0.95, draws: int = 1000
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over users, which are drawn with replacement.

    For two recommenders judged on the same users, give the differences: the interval is then a paired one.
    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    values_U = np.asarray(values_U, np.float64)
    if values_U.ndim != 1 or not len(values_U) or not 0 < level < 1:
        raise ValueError(f"values of shape {values_U.shape}, level {level}: values of at least one user and 0 < level < 1 are needed")
    random = np.random.default_rng(seed)
    means = [values_U[random.integers(0, len(values_U), len(values_U))].mean() for _ in range(draws)]
    return _percentiles(np.array(means), level)

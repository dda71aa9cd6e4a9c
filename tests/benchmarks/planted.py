"""Generated worlds whose choice probabilities are known, so that the best possible ranker is known too.

A user comes at moments of a Poisson process, by day only, and takes one of the items on offer with the chance that a softmax
over utilities gives: taste times item, plus the item's popularity, plus what a world plants (``World.lift``, the worlds are
in ``planted_effects.py``). Where items do not repeat, what a user had is no longer on offer to this user.

Because chances are known, nothing hangs on the one future that happened to come true: lists are judged on many futures
drawn at as_of, and the oracle ranks by the mean chance over other such futures. Times are days since START.
"""

from __future__ import annotations

import copy
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import pandas as pd

START = pd.Timestamp("2024-01-01")  # a Monday
DEPTH = 20
_MORNING, _EVENING = 8 / 24, 22 / 24
_DISCOUNT = 1 / np.log2(np.arange(2, 12))


@dataclass
class Past:
    """What users did so far: the last events, newest in the last place (item -1: none), and what each ever had."""

    item: np.ndarray
    when: np.ndarray
    had: np.ndarray

    def add(self, rows: np.ndarray, item: np.ndarray, when: np.ndarray) -> None:
        """One event more for each of these users."""
        for array, value in ((self.item, item), (self.when, when)):
            array[rows, :-1] = array[rows, 1:]
            array[rows, -1] = value
        self.had[rows, item] = True


class World:
    """Users with latent tastes, categories, popularity, and a catalogue in which items come and go; nothing else."""

    name: ClassVar[str] = "base"
    #: Switches of conf.settings.Model whose effect is planted here.
    planted: ClassVar[tuple[str, ...]] = ()
    repeats: ClassVar[bool] = False
    #: Whether the catalogue tells the categories.
    categories_told: ClassVar[bool] = True
    users: ClassVar[int] = 1600
    items: ClassVar[int] = 1000
    categories: ClassVar[int] = 20
    as_of: ClassVar[int] = 60
    memory: ClassVar[int] = 120

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        random = self._random(0)
        centre = random.normal(size=(self.categories, 8)) / np.sqrt(8)
        self.category = random.integers(self.categories, size=self.items)
        self.released = random.uniform(-self.as_of, self.as_of + 1, self.items)
        self.until = np.maximum(self.released, 0) + random.exponential(80, self.items)
        self.popularity = random.normal(0, 1.2, self.items)
        self.since = np.zeros(self.users)
        self.rate = np.clip(random.gamma(2, 0.375, self.users), 0.1, 3)
        self.plant(random)
        vector = centre[self.category] + random.normal(0, 0.25, (self.items, 8)) / np.sqrt(8)
        self.utility = (random.normal(0, 1.5, (self.users, 8)) @ vector.T + self.popularity).astype(np.float32)
        shape = self.users, self.memory
        self.past = Past(np.full(shape, -1), np.full(shape, -np.inf), np.zeros((self.users, self.items), bool))
        user, item, when, _ = self._run(self.past, 0, self.as_of, random)
        self.log = pd.DataFrame({"user": user, "item": item, "when": when})

    # -- what a world may change -------------------------------------------------------------------------------------

    def plant(self, random: np.random.Generator) -> None:
        """Draw what the effect needs, or change the catalogue."""

    def lift(self, rows: np.ndarray, now: np.ndarray, past: Past) -> np.ndarray | float:
        """What the effect adds to the utilities of users ``rows`` at moments ``now``, [rows, items]."""
        return 0.0

    # -- how it runs -------------------------------------------------------------------------------------------------

    def chances(self, rows: np.ndarray, now: np.ndarray, past: Past) -> np.ndarray:
        """The chance of each item to be taken by users ``rows`` at moments ``now``, [rows, items]."""
        value = self.utility[rows] + self.lift(rows, now, past)
        value = np.where(self.on_offer(now[:, None]), value, -np.inf)
        if not self.repeats:
            value[past.had[rows]] = -np.inf
        value = np.exp(value - value.max(axis=1, keepdims=True))
        return value / value.sum(axis=1, keepdims=True)

    def on_offer(self, now: np.ndarray | float) -> np.ndarray:
        """Which items may be taken at a moment."""
        return (self.released <= now) & (now < self.until)

    def futures(self, count: int, stream: int) -> tuple[np.ndarray, np.ndarray]:
        """(what was taken [count, users, items], mean chance of each item to be [users, items]) in the day from as_of."""
        taken, chance = np.zeros((count, self.users, self.items), bool), np.zeros((self.users, self.items))
        random = self._random(stream)
        for future in range(count):
            user, item, _, missed = self._run(copy.deepcopy(self.past), self.as_of, self.as_of + 1, random)
            taken[future, user, item] = True
            chance += 1 - missed
        return taken, chance / count

    @cached_property
    def truth(self) -> np.ndarray:
        """20 futures by which lists are judged, [futures, users, items]."""
        return self.futures(20, 1)[0]

    @cached_property
    def oracle(self) -> np.ndarray:
        """Lists by the chances themselves, [users, DEPTH]; from other futures than those that judge."""
        return self._best(self.futures(40, 2)[1] + 1e-9 * self.utility)

    @property
    def blind(self) -> np.ndarray:
        """Lists by taste and popularity as they truly are, without what is planted, [users, DEPTH]."""
        return self._best(np.where(self.past.had & (not self.repeats), -np.inf, self.utility))

    def _best(self, score: np.ndarray) -> np.ndarray:
        return np.argsort(-np.where(self.on_offer(self.as_of), score, -np.inf), axis=1, kind="stable")[:, :DEPTH]

    def _run(self, past: Past, start: float, end: float, random: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Events (user, item, when) of [start, end), and the chance of each item to be missed throughout it, [users, items].

        All users take their first step together, then all their second; ``past`` is carried along.
        """
        count = random.poisson(self.rate * (end - start))
        shape = self.users, count.max()
        times = start + random.integers(end - start, size=shape) + random.uniform(_MORNING, _EVENING, shape)
        times[(np.arange(count.max()) >= count[:, None]) | (times < self.since[:, None])] = np.inf
        times.sort(axis=1)
        missed = np.ones((self.users, self.items)) if end - start <= 1 else None
        found = []
        for step in range(times.shape[1]):
            rows = np.flatnonzero(np.isfinite(times[:, step]))
            now = times[rows, step]
            chance = self.chances(rows, now, past)
            item = np.minimum((chance.cumsum(axis=1) < random.random((len(rows), 1))).sum(axis=1), self.items - 1)
            past.add(rows, item, now)
            found.append((rows, item, now))
            if missed is not None:
                missed[rows] *= 1 - chance
        return (*(np.concatenate(column) for column in zip(*found, strict=True)), missed)  # type: ignore[return-value]

    def _random(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(self.name.encode()), stream])


def ndcg(lists: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Each user's mean NDCG@10 over the futures [futures, users, items] in which there is a truth; NaN without any."""
    found = _found(lists[:, :10], truth)
    ideal = np.concatenate([[np.nan], np.cumsum(_DISCOUNT)])[np.minimum(truth.sum(axis=2), 10)]
    return _mean((found * _DISCOUNT[: found.shape[2]]).sum(axis=2) / ideal)


def recall(lists: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Each user's mean Recall over the futures in which there is a truth, of the whole list; NaN without any."""
    wanted = truth.sum(axis=2)
    return _mean(_found(lists, truth).sum(axis=2) / np.where(wanted > 0, wanted, np.nan))


def _found(lists: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.take_along_axis(truth, np.maximum(lists, 0)[None], axis=2) & (lists >= 0)


def _mean(each: np.ndarray) -> np.ndarray:
    """Over futures, NaN left out."""
    known = np.isfinite(each)
    return np.where(known, each, 0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)

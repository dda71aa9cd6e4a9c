"""A ranker over the union of what the other peers would show: the peer to beat.

Candidates of a user (about 140): what is popular at three half-lives, what the user had (where items repeat), ItemKNN and iALS.
The ranker learns on the windows before the cutoff, whose truth is known at it. Sources: Burges, "From RankNet to LambdaRank to
LambdaMART", MSR-TR-2010-82, by LightGBM (Ke et al., NeurIPS 2017); two stages as in Covington et al., "Deep neural networks for
YouTube recommendations", RecSys 2016.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
import pandas as pd
from peers import Score, counts, decay, ials_score, item_knn_score, same_for_all
from protocol import DEPTH, Choice, Lists, MissingError, Recommender, Split

WINDOWS = 4
POPULAR, OWN, NEAR = 40, 60, 40  # candidates of each source
KNN = {"neighbours": None, "shrink": 10}
ALS = {"factors": 64, "alpha": 10, "ridge": 0.05}
NEVER = -1.0


class Candidates(NamedTuple):
    """Pairs of a judged user and an item, user by user: places in split.users and in coded.items, and what is known of each."""

    user: np.ndarray
    item: np.ndarray
    inputs: pd.DataFrame


def candidates(split: Split) -> Candidates:
    """The pairs and their inputs, made once for a split."""
    if "candidates" not in split.kept:
        split.kept["candidates"] = _candidates(split)
    return split.kept["candidates"]


def _candidates(split: Split) -> Candidates:
    coded, half_lives = split.coded, split.log.half_lives
    popular = np.stack([counts(split, half_life) for half_life in half_lives])
    scores = {"knn": item_knn_score(split, KNN), "als": ials_score(split, ALS)}
    own = coded.matrix(decay(coded.age, half_lives[-1]))
    places = [split.ranked(same_for_all(value), POPULAR) for value in popular[:3]]
    places += [split.ranked(score, NEAR) for score in scores.values()]
    if split.log.repeats:
        places.append(split.ranked(lambda rows: _positive(own[rows].toarray()), OWN))
    wide = np.hstack(places)
    pairs = np.unique(np.repeat(np.arange(len(wide)), wide.shape[1]) * (len(coded.items) + 1) + wide.ravel() + 1)
    user, item = pairs // (len(coded.items) + 1), pairs % (len(coded.items) + 1) - 1
    user, item = user[item >= 0], item[item >= 0]
    scored = {name: _at(score, split.rows, user, item) for name, score in scores.items()}
    inputs = {**_of_items(split, popular, item), **_of_users(split, user), **_of_pairs(split, user, item), **scored}
    return Candidates(user, item, pd.DataFrame(inputs).astype(np.float32))


def _of_items(split: Split, popular: np.ndarray, item: np.ndarray) -> dict[str, np.ndarray]:
    """Decayed counts, their ranks and trends, and when an item was first and last seen."""
    age, i, items = split.coded.age, split.coded.i, len(split.coded.items)
    born, last = np.zeros(items), np.full(items, np.inf)
    np.maximum.at(born, i, age)
    np.minimum.at(last, i, age)
    found = {"born": born[item], "last": last[item], "count": counts(split, None)[item]}
    for place, value in enumerate(popular):
        found[f"popular_{place}"] = value[item]
        found[f"rank_{place}"] = (-value).argsort(kind="stable").argsort()[item]
        if place:
            found[f"trend_{place}"] = (popular[place - 1] / (value + 1e-9))[item]
    return found


def _of_users(split: Split, user: np.ndarray) -> dict[str, np.ndarray]:
    """How active a user is, and was last."""
    coded = split.coded
    last = np.full(len(coded.users), np.inf)
    np.minimum.at(last, coded.u, coded.age)
    short = np.bincount(coded.u, decay(coded.age, split.log.half_lives[0]), len(coded.users))
    values = {"events": np.bincount(coded.u, minlength=len(coded.users)), "active": short, "seen": last}
    return {f"user_{name}": value[split.rows[user]] for name, value in values.items()}


def _of_pairs(split: Split, user: np.ndarray, item: np.ndarray) -> dict[str, np.ndarray]:
    """How often and how lately this user had this item; nothing where items do not repeat."""
    if not split.log.repeats:
        return {}
    coded, (short, *_, long) = split.coded, split.log.half_lives
    key = coded.u.astype(np.int64) * len(coded.items) + coded.i
    known = pd.DataFrame({"age": coded.age, "short": decay(coded.age, short), "long": decay(coded.age, long)}).groupby(key)
    had = pd.DataFrame({"times": known["age"].size(), "last": known["age"].min(), "first": known["age"].max()})
    had["short"], had["long"] = known["short"].sum(), known["long"].sum()
    had["gap"] = (had["first"] - had["last"]) / (had["times"] - 1).clip(lower=1)  # the usual time between two
    wanted = split.rows[user].astype(np.int64) * len(coded.items) + item
    found = had.reindex(wanted)
    return {f"own_{name}": found[name].fillna(NEVER).to_numpy() for name in had}


def _at(score: Score, rows: np.ndarray, user: np.ndarray, item: np.ndarray, batch: int = 512) -> np.ndarray:
    """A score at pairs that are sorted by user."""
    out = []
    for start in range(0, len(rows), batch):
        first, after = np.searchsorted(user, [start, start + batch])
        out.append(score(rows[start : start + batch])[user[first:after] - start, item[first:after]])
    return np.maximum(np.concatenate(out), -1e6)  # an item without a score is below every other


def _positive(scores: np.ndarray) -> np.ndarray:
    scores[scores <= 0] = -np.inf
    return scores


def _labels(split: Split, pairs: Candidates) -> np.ndarray:
    true = split.truth.explode()
    place = pd.Index(split.coded.items).get_indexer(true.to_numpy())
    width = len(split.coded.items)
    keys = np.searchsorted(split.users.astype(str), true.index.to_numpy(str)) * width + place
    return np.isin(pairs.user * width + pairs.item, keys[place >= 0])


def lambdamart(split: Split, choice: Choice) -> Lists:
    """Lists by the ranker, trained on the truths of the four windows before the cutoff."""
    try:
        import lightgbm
    except ImportError as missing:
        raise MissingError(f"LightGBM needs {missing.name}: pip install 'kairos-rec[peers]'") from None
    inputs, labels, groups = [], [], []
    for step in range(1, WINDOWS + 1):
        window = split.earlier(step)
        pairs = candidates(window)
        label = _labels(window, pairs)
        hit = np.bincount(pairs.user, label, len(window.users)) > 0  # a user without a hit teaches no order
        inputs.append(pairs.inputs[hit[pairs.user]])
        labels.append(label[hit[pairs.user]])
        groups.append(np.bincount(pairs.user, minlength=len(window.users))[hit])
    ranker = lightgbm.LGBMRanker(
        objective="lambdarank",
        num_leaves=choice["leaves"],
        learning_rate=choice["rate"],
        n_estimators=choice["trees"],
        lambdarank_truncation_level=DEPTH,
        min_child_samples=50,
        colsample_bytree=0.8,
        subsample=0.8,
        subsample_freq=1,
        random_state=choice.get("seed", 0),
        n_jobs=int(os.environ.get("OMP_NUM_THREADS", "1")),
        deterministic=True,
        force_row_wise=True,
        verbose=-1,
    )
    ranker.fit(pd.concat(inputs), np.concatenate(labels).astype(int), group=np.concatenate(groups))
    pairs = candidates(split)
    value = np.asarray(ranker.predict(pairs.inputs))
    order = np.lexsort((-value, pairs.user))
    starts = np.searchsorted(pairs.user[order], np.arange(len(split.users) + 1))
    items = split.coded.items[pairs.item[order]]
    return {
        user: items[start : min(after, start + DEPTH)].tolist()
        for user, start, after in zip(split.users, starts[:-1], starts[1:], strict=True)
    }


RECOMMENDERS = (
    Recommender(
        "LightGBM",
        lambdamart,
        lambda log: [
            {"leaves": 31, "rate": 0.05, "trees": 200},
            {"leaves": 15, "rate": 0.05, "trees": 200},
            {"leaves": 31, "rate": 0.02, "trees": 200},
            {"leaves": 63, "rate": 0.05, "trees": 100},
        ],
        seeded=True,
    ),
)

"""What everybody could have instead: counts, neighbours and factors, as ``(split, choice) -> lists``.

Scores are functions of rows of ``split.coded.users``, so that the ranker in ``peers_lightgbm`` can take them as inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp
from protocol import TIME, Choice, Lists, Log, MissingError, Recommender, Split
from scipy.linalg import lapack

#: score(rows) -> [rows, items]
Score: TypeAlias = Callable[[np.ndarray], np.ndarray]
#: Rows of a dense item-by-item matrix: 12,000 of them take 0.6 GB. Rarer items are left to other methods.
MOST_ITEMS, MOST_EASE = 12_000, 8_000


def decay(age: np.ndarray, half_life: float | None) -> np.ndarray:
    """The weight of events that old, in days; 1 without a half-life."""
    return np.ones(len(age)) if half_life is None else 0.5 ** (age / half_life)


# -- counts ----------------------------------------------------------------------------------------------------------


def counts(split: Split, half_life: float | None) -> np.ndarray:
    """Events of each item, each halved as often as half_life has passed since, [items].

    Source: Ji et al., "A re-visit of the popularity baseline in recommender systems", SIGIR 2020 (recent popularity), with
    exponential in place of windowed forgetting (Ding and Li, "Time weight collaborative filtering", CIKM 2005).
    """
    coded = split.coded
    return np.bincount(coded.i, decay(coded.age, half_life), len(coded.items))


def popularity(split: Split, choice: Choice) -> Lists:
    """The same list for everyone, of (decayed) counts."""
    return split.best(same_for_all(counts(split, choice.get("half_life"))))


def same_for_all(value: np.ndarray) -> Score:
    """One value of each item as the score of everybody."""
    return lambda rows: np.broadcast_to(value, (len(rows), len(value)))


def personal(split: Split, choice: Choice) -> Lists:
    """What this user did most, decayed; the rest of the list is what is popular.

    Source: Li et al., "A next basket recommendation reality check", TOIS 41(4), 2023 (personal top frequency, P-TopFreq and
    GP-TopFreq), with exponential forgetting.
    """
    own = split.coded.matrix(decay(split.coded.age, choice["half_life"]))
    everyone = counts(split, split.log.half_lives[0])
    tie = 1e-4 * everyone / everyone.max()
    return split.best(lambda rows: own[rows].toarray() + tie)


# -- neighbours ------------------------------------------------------------------------------------------------------


def item_knn_score(split: Split, choice: Choice) -> Score:
    """Sums of the cosines between an item and the user's items; what is not among the commonest has no score.

    Choices: neighbours (None: all of them) kept for each item, and a shrinkage that distrusts rare pairs.
    Source: Deshpande and Karypis, "Item-based top-N recommendation algorithms", TOIS 22(1), 2004; the shrinkage as in Ferrari
    Dacrema et al., "A troubling analysis of reproducibility and progress in recommender systems research", TOIS 39(2), 2021.
    """
    own, keep = _commonest(split, MOST_ITEMS)
    had = own.copy()
    had.data[:] = 1
    together = (had.T @ had).toarray()
    size = np.sqrt(together.diagonal())
    np.fill_diagonal(together, 0)
    together /= np.outer(size, size) + choice["shrink"]
    most = choice["neighbours"]
    if most is not None and most < len(keep):
        least = -np.partition(-together, most - 1, axis=0)[most - 1]
        together[together < least] = 0
    return _spread(lambda rows: own[rows] @ together, keep, len(split.coded.items))


def item_knn(split: Split, choice: Choice) -> Lists:
    """Lists of ``item_knn_score``."""
    return split.best(item_knn_score(split, choice))


def baskets(split: Split, choice: Choice) -> sp.csr_matrix:
    """Each user's vector over items: what was in the baskets, newer ones and newer groups of them heavier.

    A basket is what a user had on one day, for logs tell no baskets.
    """
    coded, size = split.coded, choice["group"]
    day = split.past[TIME].dt.floor("D").to_numpy()
    each = pd.DataFrame({"u": coded.u, "i": coded.i, "day": day}).drop_duplicates()
    newest = each.groupby("u")["day"].rank(method="dense", ascending=False).astype(int).to_numpy() - 1
    of_user = (each.groupby("u")["day"].transform("nunique")).to_numpy()
    group = newest // size
    # Groups are counted from the newest, so the oldest is the one that may be short.
    in_group = np.minimum(size, of_user - group * size)
    weight = choice["within"] ** (newest % size) / in_group * choice["across"] ** group / np.ceil(of_user / size)
    shape = len(coded.users), len(coded.items)
    return sp.csr_matrix((weight.astype(np.float32), (each["u"], each["i"])), shape)


def tifu_knn(split: Split, choice: Choice) -> Lists:
    """The user's own vector of ``baskets`` mixed with the mean of those of the nearest users (Euclid).

    Source: Hu et al., "Modeling personalized item frequency information for next-basket recommendation", SIGIR 2020.
    """
    vectors = baskets(split, choice)
    squares = np.asarray(vectors.multiply(vectors).sum(1)).ravel()
    most, alpha = min(choice["neighbours"], len(squares) - 1), choice["alpha"]

    def score(rows: np.ndarray) -> np.ndarray:
        own = vectors[rows]
        distance = squares - 2 * (own @ vectors.T).toarray()  # the user's own square changes no order
        distance[np.arange(len(rows)), rows] = np.inf
        near = np.argpartition(distance, most - 1, axis=1)[:, :most]
        shares = np.full(near.size, 1 / most, np.float32)
        mean = sp.csr_matrix((shares, near.ravel(), np.arange(0, near.size + 1, most)), (len(rows), len(squares))) @ vectors
        return (alpha * own + (1 - alpha) * mean).toarray()

    return split.best(score)


# -- linear models and factors -----------------------------------------------------------------------------------------


def ease(split: Split, choice: Choice) -> Lists:
    """A linear model from the user's items to every other item, in closed form, on the commonest items.

    Source: Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019.
    """
    had, keep = _commonest(split, MOST_EASE)
    had.data[:] = 1
    gram = np.asfortranarray((had.T @ had).toarray())
    gram[np.diag_indices_from(gram)] += choice["ridge"]
    # The inverse of a positive definite matrix by Cholesky: a third of the work of a general one.
    factor, bad = lapack.spotrf(gram, lower=1, overwrite_a=1)
    inverse, worse = lapack.spotri(factor, lower=1, overwrite_c=1)
    if bad or worse:
        raise ArithmeticError(f"EASE: a ridge of {choice['ridge']} is too small for single precision")
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    weights = inverse / -inverse.diagonal()
    np.fill_diagonal(weights, 0)
    return split.best(_spread(lambda rows: had[rows] @ weights, keep, len(split.coded.items)))


def ials_score(split: Split, choice: Choice) -> Score:
    """Products of factors of users and items, fitted to counts as confidence.

    Source: Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008; by the library implicit.
    """
    try:
        from implicit.als import AlternatingLeastSquares
    except ImportError as missing:
        raise MissingError(f"iALS needs {missing.name}: pip install 'kairos-rec[peers]'") from None
    model = AlternatingLeastSquares(
        factors=choice["factors"],
        alpha=choice["alpha"],
        regularization=choice["ridge"],
        iterations=15,
        random_state=choice.get("seed", 0),
        num_threads=1,  # the order of sums is then the same in every run
    )
    model.fit(split.coded.matrix(), show_progress=False)
    return lambda rows: model.user_factors[rows] @ model.item_factors.T


def ials(split: Split, choice: Choice) -> Lists:
    """Lists of ``ials_score``."""
    return split.best(ials_score(split, choice))


def _commonest(split: Split, most: int) -> tuple[sp.csr_matrix, np.ndarray]:
    """(counts of users by the commonest items, the places of these)."""
    keep = np.sort(np.argsort(-counts(split, None), kind="stable")[:most])
    return split.coded.matrix()[:, keep], keep


def _spread(score: Score, keep: np.ndarray, items: int) -> Score:
    """A score of some items as one of all; the others stand in no list."""

    def spread(rows: np.ndarray) -> np.ndarray:
        out = np.full((len(rows), items), -np.inf, np.float32)
        out[:, keep] = score(rows)
        return out

    return spread


# -- what is chosen between --------------------------------------------------------------------------------------------


def _each(**values: Sequence) -> list[Choice]:
    """Choices from columns of values: the first of each, the second of each, ..."""
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _neighbourhoods(log: Log) -> list[Choice]:
    same = {"group": (7, 7, 7, 7), "within": (0.9, 0.9, 0.9, 0.9)}
    return _each(**same, across=(0.7, 0.7, 0.9, 0.9), neighbours=(300, 100, 300, 100), alpha=(0.7, 0.9, 0.7, 0.9))


RECOMMENDERS = (
    Recommender("popularity, all time", popularity, lambda log: [{}]),
    Recommender("popularity, decayed", popularity, lambda log: _each(half_life=log.half_lives)),
    Recommender("personal, decayed", personal, lambda log: _each(half_life=(30, 90, 120, 365)) if log.repeats else []),
    Recommender("TIFU-kNN", tifu_knn, _neighbourhoods),
    Recommender("ItemKNN", item_knn, lambda log: _each(neighbours=(None, None, 100, 100), shrink=(0, 10, 0, 10))),
    Recommender("EASE", ease, lambda log: _each(ridge=(50, 200, 800, 3200))),
    Recommender(
        "iALS",
        ials,
        lambda log: _each(factors=(64, 64, 128, 32), alpha=(10, 1, 10, 10), ridge=(0.05, 0.05, 0.05, 1.0)),
        seeded=True,
    ),
)

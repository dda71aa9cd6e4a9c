"""The plain signals of a candidate: what simple, strong recommenders would rank by, as inputs of the ranker.

Each main signal comes three times: logged, standardised within the slate, and as its reciprocal rank within the slate,
because what counts is how a candidate compares with those beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conf import columns as c
from model.audience import HALF_LIVES
from model.catalogue import Catalogue
from model.item_state import DAY_US, DECAYED, FEATURES, ItemState
from model.pairs import Pairs
from model.slate import SOURCES, Slates
from model.users import PROFILE_AT, UserBatch

_FLOOR = 0.02
_REPEATS = tuple(c.repeat_decayed(h) for h in c.REPEAT_HALF_LIVES)
_PERSONAL = (*_REPEATS, "repeat_count", "repeat_value", "repeat_recency", "repeat_gap", "repeat_due", "repeat_known",
             "repeat_regular")  # fmt: skip
_AUDIENCE = (*(f"audience_{h}" for h in HALF_LIVES), *(f"audience_share_{h}" for h in HALF_LIVES))
_RETRIEVAL = ("retrieval_score", "retrieval_taste", "retrieval_popularity", "retrieval_repeat")
_AFFINITY = ("category_long", "category_short")
_USER = (c.user_events("all"), "user_recency_days", "user_items_all", "user_repeat_share")


@dataclass(frozen=True)
class RetrievalParts:
    """The retrieval score of each candidate and its parts, (B, N) float32 each."""

    taste: np.ndarray
    popularity: np.ndarray
    repeat: np.ndarray


def signal_names(facets: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the last axis of ``build_signals`` for a catalogue with these facets."""
    plain = _plain_names(facets)
    main = _main_names(facets)
    return (*plain, *(f"{n}_std" for n in main), *(f"{n}_rank" for n in main))


def _plain_names(facets: tuple[str, ...]) -> tuple[str, ...]:
    own = [f"facet_{j}_{way}" for j in range(len(facets)) for way in ("long", "short")]
    sources = [f"source_{s}" for s in SOURCES]
    return (*FEATURES, *_PERSONAL, "neighbor_next", "neighbor_like", *_AUDIENCE, *_RETRIEVAL, *_AFFINITY, *own, *sources, *_USER)


def _main_names(facets: tuple[str, ...]) -> tuple[str, ...]:
    own = [f"facet_{j}_{way}" for j in range(len(facets)) for way in ("long", "short")]
    return (*DECAYED, "item_age_days", *_REPEATS, "repeat_recency", "repeat_due", "neighbor_next", "neighbor_like",
            *_AUDIENCE, *_RETRIEVAL[:2], *own)  # fmt: skip


def build_signals(
    users: UserBatch,
    slates: Slates,
    state: ItemState,
    catalogue: Catalogue,
    neighbors: Pairs,
    audience: np.ndarray,
    retrieval: RetrievalParts,
    repeats: bool = True,
) -> np.ndarray:
    """Signals as (B, N, len(signal_names)) float32; zeros at padded candidates. ``repeats`` False: nothing tells what
    the user had of the candidate itself.
    """
    real = slates.item >= 0
    safe = np.where(real, slates.item, 0)
    parts = [state.features[safe]]
    parts.append(_personal(users, slates.item, state) * np.float32(repeats))
    near = np.log(neighbors.look_up(slates.item) + 0.01) - np.log(0.01)
    parts.append(near.astype(np.float32))
    many = len(HALF_LIVES)
    parts.append(np.concatenate([np.log(audience[..., :many] + _FLOOR) - np.log(_FLOOR), audience[..., many:]], axis=2))
    score = retrieval.taste + retrieval.popularity + retrieval.repeat
    parts.append(np.stack([score, retrieval.taste, retrieval.popularity, retrieval.repeat], axis=2))
    category = catalogue.facet_code[safe, 0]
    parts.append(np.stack([_share(category, users.long_code, users.long_weight),
                           _share(category, users.short_code, users.short_weight)], axis=2))  # fmt: skip
    parts.append(_facets(users, safe, state.as_of_us, catalogue))
    told = np.array([repeats or s != "repeats" for s in SOURCES])
    parts.append(((slates.source[..., None] >> np.arange(len(SOURCES))) & told).astype(np.float32))
    parts.append(np.broadcast_to(_context(users)[:, None, :], (*safe.shape, len(_USER))))
    plain = np.concatenate(parts, axis=2, dtype=np.float32)
    names = _plain_names(catalogue.facet_names)
    main = plain[:, :, [names.index(n) for n in _main_names(catalogue.facet_names)]]
    out = np.concatenate([plain, _standardise(main, real), _reciprocal_rank(main, real)], axis=2)
    out[~real] = 0
    return out


def _personal(users: UserBatch, item_bn: np.ndarray, state: ItemState) -> np.ndarray:
    mine = users.repeats
    days = np.maximum(state.as_of_us - mine.last_us, 0) / DAY_US
    regular = np.isfinite(mine.gap_days)
    gap = np.where(regular, mine.gap_days, 0)
    due = np.where(regular, np.clip(np.log((days + 0.5) / (gap + 0.5)), -3, 3), 0)
    values = np.column_stack([
        np.log(mine.decayed + _FLOOR) - np.log(_FLOOR), np.log1p(mine.count), np.log1p(np.maximum(mine.value, 0)),
        1 / (1 + days / 7), np.log1p(gap), due, np.ones(len(days)), regular,
    ]).astype(np.float32)  # fmt: skip
    return Pairs.gather(mine.user, mine.item, values, len(state.available)).look_up(item_bn)


def _share(category_bn: np.ndarray, code_bc: np.ndarray, weight_bc: np.ndarray) -> np.ndarray:
    """Weight of each candidate's category in the user's list of categories."""
    out = np.zeros(category_bn.shape, np.float32)
    for j in range(code_bc.shape[1]):
        match = (category_bn == code_bc[:, j : j + 1]) & (code_bc[:, j : j + 1] >= 0)
        out += match * weight_bc[:, j : j + 1]
    return out


def _facets(users: UserBatch, item_bn: np.ndarray, as_of_us: int, catalogue: Catalogue) -> np.ndarray:
    """How much of the user's history shares each facet value with the candidate: in months, and in the last events."""
    mine = users.repeats
    row, at = np.nonzero(users.item >= 0)
    chosen = users.item[row, at]
    recent = 0.9 ** (users.length[row] - 1 - at)
    long = mine.decayed[:, list(c.REPEAT_HALF_LIVES).index("90d")]
    user = np.concatenate([mine.user, row])
    zeros = np.zeros(len(mine.user)), np.zeros(len(row))
    values = np.stack([np.concatenate([long, zeros[1]]), np.concatenate([zeros[0], recent])], axis=1)
    item = np.concatenate([mine.item, chosen])
    parts = []
    for j in range(catalogue.facet_code.shape[1]):
        code = catalogue.facet_code[:, j]
        known = code[item] >= 0
        pairs = Pairs.add_up(user[known], code[item][known], values[known], int(code.max(initial=0)) + 1)
        parts.append(np.log(pairs.look_up(code[item_bn]) + _FLOOR) - np.log(_FLOOR))
    return np.concatenate(parts, axis=2).astype(np.float32)


def _context(users: UserBatch) -> np.ndarray:
    return users.profile[:, [PROFILE_AT[name] for name in _USER]]


def _standardise(main: np.ndarray, real: np.ndarray) -> np.ndarray:
    weight = real[..., None].astype(np.float32)
    count = np.maximum(weight.sum(axis=1, keepdims=True), 1)
    mean = (main * weight).sum(axis=1, keepdims=True) / count
    centred = main - mean
    deviation = np.sqrt((centred**2 * weight).sum(axis=1, keepdims=True) / count)
    return np.clip(centred / np.maximum(deviation, 1e-3), -5, 5)


def _reciprocal_rank(main: np.ndarray, real: np.ndarray) -> np.ndarray:
    """1 / (1 + number of candidates of the slate with a greater value); equals share a rank."""
    value = np.where(real[..., None], main, -np.inf).transpose(0, 2, 1)
    order = np.argsort(-value, axis=2, kind="stable")
    ordered = np.take_along_axis(value, order, 2)
    place = np.arange(value.shape[2])
    fresh = np.concatenate([np.ones((*value.shape[:2], 1), bool), ordered[..., 1:] != ordered[..., :-1]], axis=2)
    first = np.maximum.accumulate(np.where(fresh, place, 0), axis=2)
    rank = np.empty_like(first)
    np.put_along_axis(rank, order, first, 2)
    return (1 / (1 + rank)).transpose(0, 2, 1).astype(np.float32)

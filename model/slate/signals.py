"""The plain signals of a candidate: what simple, strong recommenders would rank by, as inputs of the ranker.

Each main signal comes three times: logged, standardised within the slate, and as its reciprocal rank within the slate,
because what counts is how a candidate compares with those beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conf import columns as c
from conf.settings import Model as ModelSettings
from model.as_of.ages_taken import AGES_TAKEN, ages_taken
from model.as_of.audience import SPANS
from model.as_of.catalogue import Catalogue
from model.as_of.item_state import DECAYED, FEATURES, ItemState
from model.as_of.neighbors import Near
from model.as_of.own_history import PERSONAL, REPEATS, Own, own_names, personal, share
from model.as_of.users import PROFILE_AT, UserBatch
from model.slate.slate import SOURCES, Slates
from model.slate.within_slate import compare, standings

_FLOOR = 0.02
_AUDIENCE = (*(f"audience_{span}" for span in SPANS), *(f"audience_share_{span}" for span in SPANS))
_RETRIEVAL = ("retrieval_score", "retrieval_taste", "retrieval_popularity", "retrieval_repeat")
_AFFINITY = ("category_long", "category_short")
_STANDS = ("newest", "best")
"""Of those on the slate that share a facet."""
_USER = (c.user_events("all"), "user_recency_days", "user_items_all", "user_repeat_share")


@dataclass(frozen=True)
class RetrievalParts:
    """The retrieval score of each candidate and its parts, (B, N) float32 each."""

    taste: np.ndarray
    popularity: np.ndarray
    repeat: np.ndarray


def signal_names(facets: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the last axis of ``build_signals`` for a catalogue with these facets."""
    plain, main = _plain_names(facets), _main_names(facets)
    return (*plain, *(f"{n}_std" for n in main), *(f"{n}_rank" for n in main))


def _plain_names(facets: tuple[str, ...]) -> tuple[str, ...]:
    sources = [f"source_{s}" for s in SOURCES]
    stands = [f"facet_{j}_{way}" for j in range(len(facets)) for way in _STANDS]
    return (*FEATURES, *PERSONAL, "neighbor_next", "neighbor_like", "ease", *_AUDIENCE, *_RETRIEVAL, *_AFFINITY, *own_names(facets),
            *sources, *stands, *AGES_TAKEN, *_USER)  # fmt: skip


def _main_names(facets: tuple[str, ...]) -> tuple[str, ...]:
    return (*DECAYED, "item_age_days", *REPEATS, "repeat_recency", "repeat_due", "neighbor_next", "neighbor_like",
            "ease", *_AUDIENCE, *_RETRIEVAL[:2], *own_names(facets), *AGES_TAKEN)  # fmt: skip


def build_signals(
    users: UserBatch,
    slates: Slates,
    state: ItemState,
    catalogue: Catalogue,
    neighbors: Near,
    ease: np.ndarray,
    audience: np.ndarray,
    retrieval: RetrievalParts,
    horizon_us: int,
    settings: ModelSettings,
) -> np.ndarray:
    """Signals as (B, N, len(signal_names)) float32; zeros at padded candidates. Without
    ``use_repeats`` nothing tells what the user had of the candidate itself, without ``use_time_gaps`` nothing of habits in time,
    without ``use_slate`` nothing of who beside it shares a facet, without ``use_item_time`` nothing of the ages that the user likes.
    """
    real = slates.item >= 0
    safe = np.where(real, slates.item, 0)
    parts = [state.features[safe]]
    parts.append(personal(users, slates.item, state) * np.float32(settings.use_repeats))
    near = np.log(neighbors.look_up(slates.item) + 0.01) - np.log(0.01)
    parts.append(near.astype(np.float32))
    parts.append((np.log(np.maximum(ease, 0) + _FLOOR) - np.log(_FLOOR))[..., None])
    many = len(SPANS)
    parts.append(np.concatenate([np.log(audience[..., :many] + _FLOOR) - np.log(_FLOOR), audience[..., many:]], axis=2))
    score = retrieval.taste + retrieval.popularity + retrieval.repeat
    parts.append(np.stack([score, retrieval.taste, retrieval.popularity, retrieval.repeat], axis=2))
    category = catalogue.facet_code[safe, 0]
    parts.append(np.stack([share(category, users.long_code, users.long_weight),
                           share(category, users.short_code, users.short_weight)], axis=2))  # fmt: skip
    own = Own.of(users, state.as_of_us, horizon_us, settings.use_time_gaps)
    parts += [own.habits_of_items(slates.item, catalogue) * np.float32(settings.use_repeats), own.of_facets(safe, catalogue)]
    told = np.array([settings.use_repeats or s != "repeats" for s in SOURCES])
    parts.append(((slates.source[..., None] >> np.arange(len(SOURCES))) & told).astype(np.float32))
    stands = np.stack([-state.column("item_age_days")[safe], score], axis=2)
    parts.append(standings(catalogue.facet_code[safe], stands, real) * np.float32(settings.use_slate))
    parts.append(ages_taken(own, safe, state) * np.float32(settings.use_item_time))
    parts.append(np.broadcast_to(_context(users)[:, None, :], (*safe.shape, len(_USER))))
    names = _plain_names(catalogue.facet_names)
    main = [names.index(n) for n in _main_names(catalogue.facet_names)]
    out = np.empty((*safe.shape, len(names) + 2 * len(main)), np.float32)
    plain, standard, rank = np.split(out, [len(names), len(names) + len(main)], axis=2)
    np.concatenate(parts, axis=2, out=plain, casting="unsafe")
    compare(plain[:, :, main], real, standard, rank)
    out[~real] = 0
    return out


def _context(users: UserBatch) -> np.ndarray:
    return users.profile[:, [PROFILE_AT[name] for name in _USER]]

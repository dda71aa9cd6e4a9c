"""Why an item is in a list, in words, from the sources and signals that the ranker saw."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf import columns as c
from model.as_of.catalogue import Catalogue
from model.as_of.ease import Ease
from model.as_of.item_state import DAY_US, FEATURE_AT, HOUR_US, ItemState
from model.as_of.neighbors import Neighbors
from model.as_of.pairs import Pairs
from model.as_of.users import Repeats, UserBatch
from model.scoring.cited import cited

MINUTE_US = 60_000_000
_WORDS = {"view": "viewed", "click": "clicked", "play": "played", "cart": "put in the cart", "purchase": "bought",
          "rate": "rated", "share": "shared", "other": "chosen"}  # fmt: skip
_VERBS = np.array([_WORDS[kind] for kind in c.EVENT_TYPES])
_NEW_DAYS = 2.0
_REGULAR_DAYS = 0.5
_LAPSED = 3
_RISING, _RISING_SALES = 1.5, 5
_EVENTS = 20
_STRONG = 0.5
"""Standard deviations above the slate's mean at which a signal is a reason."""


def explain(
    users: UserBatch, item_bk: np.ndarray, strength: dict[str, np.ndarray], state: ItemState, catalogue: Catalogue,
    neighbors: Neighbors, ease: Ease,
) -> pa.Array:  # fmt: skip
    """One reason per entry of ``item_bk`` (B, K), row by row, without the padded ones.

    ``strength``: the slate-standardised signals "neighbor", "together", "taste" and "audience" of the same shape.
    """
    mine = users.repeats
    row, place = np.nonzero(item_bk >= 0)
    item = item_bk[row, place]
    neighbor, together, taste, audience = (strength[name][row, place] for name in ("neighbor", "together", "taste", "audience"))
    pairs = Pairs.gather(mine.user, mine.item, np.arange(len(mine.item)), len(catalogue))
    at, had = (found[row, place] for found in pairs.find(item_bk))
    at = pairs.values[at] if len(pairs.values) else at
    age, today, week, month = (
        np.expm1(state.features[item, FEATURE_AT[name]]) for name in ("item_age_days", *(c.item_sales(w) for w in ("1d", "7d", "28d")))
    )
    released = state.features[item, FEATURE_AT["item_release_known"]] > 0
    new = ~had & (age < _NEW_DAYS) & ((week > 0) | released)
    beside, goes = np.full(len(item), -1), np.full(len(item), -1)
    asked = np.flatnonzero(~had & ~new)
    beside[asked] = _best_event(users, row[asked], item[asked], neighbors.weight_of, _EVENTS, 0.95)
    asked = asked[(together > np.maximum.reduce([neighbor, taste, audience]).clip(min=_STRONG))[asked]]
    goes[asked] = _best_event(users, row[asked], item[asked], ease.weight_of, users.item.shape[1], 1.0)
    usual = week * 4 / np.maximum(month, 1)
    kinds = {
        "again": had,
        "new": new,
        "goes": goes >= 0,
        "beside": (beside >= 0) & (neighbor > np.maximum(_STRONG, taste)),
        "audience": audience > np.maximum(_STRONG, taste),
        "taste": taste > _STRONG,
        "rising": (week >= _RISING_SALES) & (usual > _RISING),
        "beside at least": beside >= 0,
    }
    kind = np.select(list(kinds.values()), np.arange(len(kinds)), len(kinds))
    said = {
        "again": lambda which: _again(mine, at[which], state.as_of_us, pa.array(_VERBS[_usual_kind(users)][row[which]])),
        "new": lambda which: _new(age[which], released[which]),
        "goes": lambda which: _joined("goes with ", _titles(catalogue, goes[which])),
        "beside": lambda which: _beside(catalogue, beside[which]),
        "audience": lambda which: _always("chosen lately by people with your taste", len(which)),
        "taste": lambda which: _fits(catalogue, users, row[which], item[which], neighbors),
        "rising": lambda which: pa.array([f"rising: {times:.1f}x its usual week" for times in usual[which]], pa.string()),
        "beside at least": lambda which: _beside(catalogue, beside[which]),
        "popular": lambda which: pa.array(popular(today[which], week[which]), pa.string()),
    }
    parts = [np.flatnonzero(kind == j) for j in range(len(said))]
    phrases = [say(which) for say, which in zip(said.values(), parts, strict=True) if len(which)]
    if not phrases:
        return pa.array([], pa.string())
    return pa.concat_arrays(phrases).take(pa.array(np.argsort(np.concatenate(parts), kind="stable")))


def popular(today: np.ndarray, week: np.ndarray) -> np.ndarray:
    """The reasons of items that are there because they sell."""
    return np.select([(today * 7 >= week) & (week > 0), week > 0], ["popular today", "popular this week"], "popular of late")


def _always(text: str, times: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), times)


def _joined(*parts: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")


def _again(mine: Repeats, at: np.ndarray, as_of_us: int, verb: pa.Array) -> pa.Array:
    gap, since = mine.gap_days[at].astype(np.float64), as_of_us - mine.last_us[at]
    again = np.isfinite(gap) & (gap >= _REGULAR_DAYS) & (since / DAY_US >= 0.8 * gap)
    due = again & (since / DAY_US <= _LAPSED * gap)
    ago, every = _ago(since), _ago(np.where(again, gap, 1.0) * DAY_US)
    ends = pa.array([" ago", " ago, due again (every ", " ago, used to be every "])
    end = ends.take(pa.array(np.where(due, 1, np.where(again, 2, 0))))
    nothing = pa.array(["", ")"])
    habit = pc.if_else(pa.array(again), _joined(every, nothing.take(pa.array(due.astype(np.int8)))), "")
    times = pa.array(mine.count[at].astype(np.int64))
    often = _joined(verb, " ", times.cast(pa.string()), " times, last ", ago, end, habit)
    return pc.if_else(pc.equal(times, 1), _joined(verb, " once, ", ago, " ago"), often)


def _new(age_days: np.ndarray, released: np.ndarray) -> pa.Array:
    return _joined(pa.array(["new: first seen ", "just released "]).take(pa.array(released.astype(np.int8))), _ago(age_days * DAY_US), " ago")


def _beside(catalogue: Catalogue, item: np.ndarray) -> pa.Array:
    return _joined("often chosen with ", _titles(catalogue, item))


def _fits(catalogue: Catalogue, users: UserBatch, row: np.ndarray, item: np.ndarray, neighbors: Neighbors) -> pa.Array:
    event = cited(users, row, item, neighbors, catalogue)[:, 0]
    said = _joined("fits what you chose lately, such as ", _titles(catalogue, np.maximum(users.item[row, event], 0)))
    return pc.if_else(pa.array(event >= 0), said, "fits what you chose lately")


def _titles(catalogue: Catalogue, item: np.ndarray) -> pa.Array:
    title = catalogue.titles.take(pa.array(item)).cast(pa.string())
    named = pc.fill_null(pc.greater(pc.binary_length(title), 0), False)
    return pc.if_else(named, title, catalogue.item_ids.take(pa.array(item)).cast(pa.string()))


def _ago(us: np.ndarray) -> pa.Array:
    """Lengths of time in words. There are few different ones: each is put into words once."""
    days, hours = np.rint(us / DAY_US), np.rint(us / HOUR_US)
    unit = np.where(us >= DAY_US, 0, np.where((us >= HOUR_US) | (hours > 0), 1, 2))
    count = np.select([unit == 0, unit == 1], [days, hours], np.maximum(np.rint(us / MINUTE_US), 1)).astype(np.int64)
    different, which = np.unique(count * 3 + unit, return_inverse=True)
    words = [f"{n} {'min' if u == 2 else ('day', 'hour')[u] + 's' * (n != 1)}" for n, u in (divmod(int(code), 3) for code in different)]
    return pa.array(words, pa.string()).take(pa.array(which))


def _usual_kind(users: UserBatch) -> np.ndarray:
    """Each user's commonest event type; the first of equals."""
    real = users.item >= 0
    counts = np.stack([((users.kind == k) & real).sum(axis=1) for k in range(len(c.EVENT_TYPES))], axis=1)
    return np.where(counts.sum(axis=1) > 0, counts.argmax(axis=1), len(c.EVENT_TYPES) - 1)


def _best_event(
    users: UserBatch, row: np.ndarray, item: np.ndarray, weight_of: Callable[[np.ndarray, np.ndarray], np.ndarray], most: int, fades: float
) -> np.ndarray:
    """For each (row, item) the item of the user's ``most`` newest events that speaks for it most, less by ``fades`` the older; -1 if none does."""
    back = np.arange(1, min(most, users.item.shape[1]) + 1)
    at = users.length[row, None] - back
    event = np.where(at >= 0, users.item[row[:, None], np.maximum(at, 0)], -1)
    weight = weight_of(event, item[:, None]) * np.float32(fades) ** back
    best = weight.argmax(axis=1)[:, None]
    found = np.take_along_axis(weight, best, 1)[:, 0] > 0
    return np.where(found, np.take_along_axis(event, best, 1)[:, 0], -1)

"""Why an item is in a list, in words, from the sources and signals that the ranker saw."""

from __future__ import annotations

import numpy as np

from conf import columns as c
from model.catalogue import Catalogue
from model.item_state import DAY_US, HOUR_US, ItemState
from model.neighbors import Neighbors
from model.pairs import Pairs
from model.users import Repeats, UserBatch

MINUTE_US = 60_000_000
_VERBS = {"view": "viewed", "click": "clicked", "play": "played", "cart": "put in the cart", "purchase": "bought",
          "rate": "rated", "share": "shared", "other": "chosen"}  # fmt: skip
_NEW_DAYS = 2.0
_REGULAR_DAYS = 0.5
_LAPSED = 3
_RISING, _RISING_SALES = 1.5, 5
_STRONG = 0.5
"""Standard deviations above the slate's mean at which a signal is a reason."""


def explain(
    users: UserBatch, item_bk: np.ndarray, strength: dict[str, np.ndarray], state: ItemState, catalogue: Catalogue,
    neighbors: Neighbors,
) -> list[str]:  # fmt: skip
    """One reason per entry of ``item_bk`` (B, K), row by row, without the padded ones.

    ``strength``: the slate-standardised signals "neighbor", "taste" and "audience" of the same shape.
    """
    mine = users.repeats
    pairs = Pairs.gather(mine.user, mine.item, np.arange(len(mine.item)), len(catalogue))
    at, had = pairs.find(item_bk)
    row_of = pairs.values[at] if len(pairs.values) else at
    beside = _nearest_event(users, item_bk, neighbors, len(catalogue))
    verbs = [_VERBS[c.EVENT_TYPES[k]] for k in _usual_kind(users)]
    age = np.expm1(state.column("item_age_days"))
    week, month = (np.expm1(state.column(c.item_sales(w))) for w in ("7d", "28d"))
    today = np.expm1(state.column(c.item_sales("1d")))
    released = state.column("item_release_known") > 0
    reasons = []
    for b, k in zip(*np.nonzero(item_bk >= 0), strict=True):
        item = item_bk[b, k]
        if had[b, k]:
            reasons.append(_again(mine, row_of[b, k], state.as_of_us, verbs[b]))
        elif age[item] < _NEW_DAYS and (week[item] > 0 or released[item]):
            reasons.append(f"just released {_ago(age[item] * DAY_US)} ago" if released[item] else f"new: first seen {_ago(age[item] * DAY_US)} ago")
        elif beside[b, k] >= 0 and strength["neighbor"][b, k] > max(_STRONG, strength["taste"][b, k]):
            reasons.append(f"often chosen with {_title(catalogue, beside[b, k])}")
        elif strength["audience"][b, k] > max(_STRONG, strength["taste"][b, k]):
            reasons.append("chosen lately by people with your taste")
        elif strength["taste"][b, k] > _STRONG:
            reasons.append("fits what you chose lately")
        elif week[item] >= _RISING_SALES and week[item] * 4 > _RISING * max(month[item], 1):
            reasons.append(f"rising: {week[item] * 4 / max(month[item], 1):.1f}x its usual week")
        elif beside[b, k] >= 0:
            reasons.append(f"often chosen with {_title(catalogue, beside[b, k])}")
        else:
            reasons.append(popular(today[item], week[item]))
    return reasons


def popular(today: float, week: float) -> str:
    """The reason of an item that is there because it sells."""
    return "popular today" if today * 7 >= week > 0 else "popular this week" if week > 0 else "popular of late"


def _again(mine: Repeats, at: int, as_of_us: int, verb: str) -> str:
    times, gap = int(mine.count[at]), float(mine.gap_days[at])
    since = as_of_us - int(mine.last_us[at])
    if times == 1:
        return f"{verb} once, {_ago(since)} ago"
    said = f"{verb} {times} times, last {_ago(since)} ago"
    if np.isfinite(gap) and gap >= _REGULAR_DAYS and since / DAY_US >= 0.8 * gap:
        due = since / DAY_US <= _LAPSED * gap
        said += f", due again (every {_ago(gap * DAY_US)})" if due else f", used to be every {_ago(gap * DAY_US)}"
    return said


def _ago(us: float) -> str:
    for unit, size in (("day", DAY_US), ("hour", HOUR_US)):
        count = round(us / size)
        if us >= size or (unit == "hour" and count):
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return f"{max(round(us / MINUTE_US), 1)} min"


def _title(catalogue: Catalogue, item: int) -> str:
    title = catalogue.titles[int(item)].as_py()
    return title if title else str(catalogue.item_ids[int(item)].as_py())


def _usual_kind(users: UserBatch) -> np.ndarray:
    """Each user's commonest event type; the first of equals."""
    real = users.item >= 0
    counts = np.stack([((users.kind == k) & real).sum(axis=1) for k in range(len(c.EVENT_TYPES))], axis=1)
    return np.where(counts.sum(axis=1) > 0, counts.argmax(axis=1), len(c.EVENT_TYPES) - 1)


def _nearest_event(users: UserBatch, item_bk: np.ndarray, neighbors: Neighbors, items: int) -> np.ndarray:
    """For each entry the item of the user's events that it is the nearest neighbour of; -1 if of none. (B, K)."""
    source = np.repeat(np.arange(items), np.diff(neighbors.offsets))
    keys = source.astype(np.int64) * items + neighbors.item
    best = np.zeros(item_bk.shape, np.float32)
    nearest = np.full(item_bk.shape, -1, np.int64)
    if not len(keys):
        return nearest
    for back in range(1, min(20, users.item.shape[1]) + 1):
        at = users.length - back
        event = np.where(at >= 0, np.take_along_axis(users.item, np.maximum(at, 0)[:, None], 1)[:, 0], -1)
        want = event[:, None].astype(np.int64) * items + item_bk
        place = np.minimum(np.searchsorted(keys, want), len(keys) - 1)
        weight = np.where((keys[place] == want) & (event >= 0)[:, None], neighbors.weight[place], 0) * 0.95**back
        better = weight > best
        best, nearest = np.where(better, weight, best), np.where(better, event[:, None], nearest)
    return nearest



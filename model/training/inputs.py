"""What a training was fed: how much, how much of it new, and the spread of each input; and how far two trainings differ in it.

A spread is kept as quantiles, so the population stability index against an older model needs nothing of its data: its deciles are
the bins, and both shares of each are read off the quantiles. Rules of thumb: below 0.1 alike, above 0.25 another population.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from conf.gate import Gate
from model.as_of.events import Events
from model.as_of.item_state import FEATURES, ItemState
from model.as_of.users import PROFILE_AT, UserBatch

_QUANTILES = np.linspace(0, 1, 101)
_BINS = 10
_LEAST = 0.005
"""Least share of a bin: an empty one must not decide alone."""
#: What moves with the calendar alone: a week later everybody is with us for a week more. Logged, and never complained of.
_CALENDAR = frozenset({"item item_age_days", "item item_freshness", "item item_daily_match", "item item_weekly_match", "user user_tenure_days"})
#: Names in the card of a model.
VOLUME, SPREADS = "volume", "inputs"


def volume(events: Events, anchor_us: int, items: int) -> dict[str, float]:
    """Rows, users and items, and the share of each that was first seen in the newest anchor's window or later."""
    users = len(events.users)
    everyone, before = events.counted("user", users), events.counted("user", users, lambda part: events.us[part] < anchor_us)
    sold = events.counted("item", items, lambda part: events.item[part] >= 0)
    then = events.counted("item", items, lambda part: (events.item[part] >= 0) & (events.us[part] < anchor_us))
    known = {"users": (everyone > 0, before > 0), "items": (sold > 0, then > 0)}
    new = {f"new_{name}": float((now & ~past).sum() / max(now.sum(), 1)) for name, (now, past) in known.items()}
    return {"events": float(len(events.us)), "users": float((everyone > 0).sum()), "items": float((sold > 0).sum())} | new


def spreads(state: ItemState, users: UserBatch) -> dict[str, list[float]]:
    """Quantiles of each input of the items on offer and of the users, at the newest anchor."""
    columns = {f"item {name}": state.column(name)[state.available] for name in FEATURES}
    columns |= {f"user {name}": users.profile[:, at] for name, at in PROFILE_AT.items()}
    return {
        name: [float(f"{value:.6g}") for value in np.quantile(column, _QUANTILES, method="inverted_cdf")]
        for name, column in columns.items()
        if len(column)
    }


def stability(mine: Sequence[float], theirs: Sequence[float]) -> float:
    """Population stability index of one input against another model's."""
    edges = np.unique(np.asarray(theirs)[:: len(theirs) // _BINS][1:-1])
    shares = [np.maximum(np.diff([0.0, *_below(one, edges), 1.0]), _LEAST) for one in (np.asarray(mine), np.asarray(theirs))]
    new, old = (share / share.sum() for share in shares)
    return float(((new - old) * np.log(new / old)).sum())


def _below(quantiles: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of the values that are at most each edge."""
    at = np.searchsorted(quantiles, edges, side="right")
    return np.where(at > 0, _QUANTILES[np.maximum(at, 1) - 1], 0.0)


def differences(mine: Mapping[str, Any], theirs: Mapping[str, Any] | None) -> dict[str, float]:
    """Volume of a model's card, and the index of each input against another's, where both have it."""
    found = {f"{VOLUME} {name}": float(value) for name, value in mine.get(VOLUME, {}).items()}
    if theirs is None:
        return found
    before = theirs.get(VOLUME, {}).get("events")
    if before:
        found["events against the champion's"] = mine.get(VOLUME, {}).get("events", 0.0) / before
    old = theirs.get(SPREADS, {})
    return found | {f"psi {name}": stability(one, old[name]) for name, one in mine.get(SPREADS, {}).items() if name in old}


def complaints(found: Mapping[str, float], gate: Gate) -> tuple[list[str], list[str]]:
    """What of ``differences`` is worth a word, and what must stop the model."""
    warned: list[str] = []
    stopped: list[str] = []
    indices = {name.removeprefix("psi "): value for name, value in found.items() if name.startswith("psi ")}
    drifted = sorted(((value, name) for name, value in indices.items() if name not in _CALENDAR), reverse=True)
    for told, limit in ((warned, gate.drift_warn), (stopped, gate.drift_stop)):
        far = [f"{name} (PSI {value:.2f})" for value, name in drifted if limit is not None and value > limit]
        if far:
            told.append(f"{len(far)} inputs are spread otherwise than in the champion's data: {', '.join(far[:3])}")
    share = found.get("events against the champion's")
    for told, limit in ((warned, gate.volume_warn), (stopped, gate.volume_stop)):
        if share is not None and limit is not None and share < limit:
            told.append(f"learned from {share:.0%} of the events that the champion learned from, less than {limit:.0%}")
    for told, limit in ((warned, gate.new_warn), (stopped, gate.new_stop)):
        for who in ("users", "items"):
            new = found.get(f"{VOLUME} new_{who}", 0.0)
            if limit is not None and new > limit:
                told.append(f"{new:.0%} of the {who} were first seen in the newest window or later, more than {limit:.0%}")
    return warned, stopped

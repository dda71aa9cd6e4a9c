"""Volume and drift of what a model learned from: the index against a plain computation, and what is told or stopped."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from conf.gate import Gate
from model.as_of.events import Events
from model.as_of.item_state import FEATURES
from model.as_of.users import PROFILE_AT
from model.training import inputs
from model.training.inputs import complaints, differences, stability, volume

QUANTILES = np.linspace(0, 1, 101)


def spread(values: np.ndarray) -> list[float]:
    return np.quantile(values, QUANTILES, method="inverted_cdf").tolist()


def plain_index(mine: np.ndarray, theirs: np.ndarray) -> float:
    """From all values: the bins are the older data's deciles."""
    edges = np.unique(np.quantile(theirs, np.linspace(0, 1, 11), method="inverted_cdf")[1:-1])
    shares = []
    for values in (mine, theirs):
        share = np.maximum(np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1) / len(values), 0.005)
        shares.append(share / share.sum())
    return float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5, 2.0, 50.0])
@pytest.mark.parametrize("many_zeros", [False, True])
def test_the_index_from_quantiles_is_that_from_all_values(shift: float, many_zeros: bool) -> None:
    rng = np.random.default_rng(0)
    theirs, mine = rng.normal(size=20_000), rng.normal(shift, size=20_000)
    if many_zeros:
        theirs[:12_000], mine[:9_000] = 0, 0
    assert stability(spread(mine), spread(theirs)) == pytest.approx(plain_index(mine, theirs), abs=0.02, rel=0.12)
    assert stability(spread(theirs), spread(theirs)) == 0


def card(events: float, shift: float = 0.0, new: float = 0.1) -> dict:
    values = np.random.default_rng(1).normal(size=5_000)
    told = {"events": events, "users": 10.0, "items": 5.0, "new_users": new, "new_items": 0.1}
    return {"volume": told, "inputs": {"item age": spread(values + shift), "user events": spread(values)}}


@pytest.mark.parametrize(
    ("mine", "limits", "warned", "stopped"),
    [
        (card(900), {}, [], []),
        (card(900, shift=3), {}, ["1 inputs are spread otherwise than in the champion's data: item age (PSI "], []),
        (card(900, shift=3), {"drift_stop": 1.0}, ["1 inputs"], ["1 inputs"]),
        (card(900, shift=3), {"drift_warn": None}, [], []),
        (card(400), {}, ["learned from 40% of the events that the champion learned from, less than 50%"], []),
        (card(400), {"volume_stop": 0.45}, ["learned from 40%"], ["learned from 40%"]),
        (card(900, new=0.8), {}, ["80% of the users were first seen"], []),
        (card(900, new=0.8), {"new_stop": 0.7, "new_warn": None}, [], ["80% of the users"]),
    ],
)
def test_what_is_told_and_what_stops(mine: dict, limits: dict, warned: list[str], stopped: list[str]) -> None:
    found = complaints(differences(mine, card(1_000)), Gate(**limits))
    for told, expected in zip(found, (warned, stopped), strict=True):
        assert len(told) == len(expected) and all(one.startswith(start) for one, start in zip(told, expected, strict=True))


def test_what_moves_with_the_calendar_is_logged_and_not_complained_of() -> None:
    """Each week everybody is with us for a week more: a limit that this breaks would refuse every version."""
    moved, still = ({"inputs": {"user user_tenure_days": spread(np.arange(500) + later)}} for later in (400, 0))
    found = differences(moved, still)
    assert found["psi user user_tenure_days"] > 1
    assert complaints(found, Gate(drift_stop=0.5)) == ([], [])
    assert all(name.split()[1] in {*FEATURES, *PROFILE_AT} for name in inputs._CALENDAR), "a name that no card has"


def test_a_champion_of_an_older_release_has_nothing_to_compare_with() -> None:
    assert complaints(differences(card(10, shift=9), {}), Gate()) == ([], [])
    assert complaints(differences({}, card(10)), Gate())[1] == []


def test_volume_counts_what_is_there() -> None:
    rng = np.random.default_rng(0)
    us, user, item = rng.integers(0, 1_000, 300), rng.integers(0, 120, 300).astype(np.int32), rng.integers(-1, 90, 300).astype(np.int32)
    user.sort()
    plain = np.zeros(300, np.int8), np.zeros(300, np.float32)
    events = Events(pa.array([f"u{k}" for k in range(120)]), user, item, us, *plain, us)
    middle = int(np.median(events.us))
    found = volume(events, middle, int(events.item.max()) + 1)
    users = {u for u, t in zip(events.user.tolist(), events.us.tolist(), strict=True)}
    old = {u for u, t in zip(events.user.tolist(), events.us.tolist(), strict=True) if t < middle}
    items = set(events.item[events.item >= 0].tolist())
    sold = set(events.item[(events.item >= 0) & (events.us < middle)].tolist())
    assert found == {
        "events": len(events.us), "users": len(users), "items": len(items),
        "new_users": len(users - old) / len(users), "new_items": len(items - sold) / len(items),
    }  # fmt: skip

"""The simple lists: by hand on a shop of five items, and against plain Python on generated shops."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import baselines
from model.baselines import personal_lists, popularity_lists


def items(*rows: tuple[str, float, bool]) -> pa.Table:
    ids, decayed, available = zip(*rows, strict=True)
    return pa.table({"item_id": ids, "item_decayed_7d": decayed, "item_available": available})


def repeats(*rows: tuple[str, str, float]) -> pa.Table:
    users, ids, decayed = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {"user_id": pa.array(users, pa.string()), "item_id": pa.array(ids, pa.string()),
         "repeat_decayed_90d": pa.array(decayed, pa.float64())}
    )  # fmt: skip


SHOP = items(
    ("bread", 5.0, True),
    ("milk", 9.0, True),
    ("gone", 99.0, False),
    ("tea", 5.0, True),
    ("salt", 0.0, True),
)
USERS = pa.array(["anna", "ben"])


def test_popularity_is_the_decayed_order_with_ties_by_item_id_and_without_what_is_gone() -> None:
    assert popularity_lists(SHOP, USERS, "7d", 3).to_pylist() == [["milk", "bread", "tea"]] * 2


def test_popularity_leaves_out_what_each_user_has_seen() -> None:
    seen = pa.table({"user_id": ["anna", "anna", "zoe"], "item_id": ["milk", "tea", "bread"]})
    assert popularity_lists(SHOP, USERS, "7d", 3, seen).to_pylist() == [["bread", "salt"], ["milk", "bread", "tea"]]


def test_personal_is_own_frequency_then_popularity_without_repeating_an_item() -> None:
    own = repeats(("anna", "salt", 0.5), ("anna", "tea", 2.0), ("zoe", "milk", 7.0))
    assert personal_lists(own, SHOP, USERS, "90d", "7d", 3).to_pylist() == [
        ["tea", "salt", "milk"],
        ["milk", "bread", "tea"],
    ]


def test_personal_ties_go_to_the_more_popular_item() -> None:
    own = repeats(("anna", "salt", 1.0), ("anna", "tea", 1.0), ("anna", "bread", 1.0), ("anna", "milk", 1.0))
    assert personal_lists(own, SHOP, USERS, "90d", "7d", 3)[0].as_py() == ["milk", "bread", "tea"]


def test_what_may_no_longer_be_recommended_is_not_repeated() -> None:
    own = repeats(("anna", "gone", 9.0), ("anna", "bread", 1.0))
    assert personal_lists(own, SHOP, USERS, "90d", "7d", 2)[0].as_py() == ["bread", "milk"]


def test_two_moments_in_one_table_are_refused() -> None:
    two = SHOP.append_column("as_of_ts", pa.array([1, 1, 1, 1, 2]))
    with pytest.raises(ValueError, match="several as_of"):
        popularity_lists(two, USERS, "7d", 3)


def oracle(own: dict, shop: dict, k: int) -> list[str]:
    """Own items by (count, popularity, id), then the rest by (popularity, id)."""
    mine = sorted((i for i in own if i in shop), key=lambda i: (-own[i], -shop[i], i))
    rest = sorted((i for i in shop if i not in own), key=lambda i: (-shop[i], i))
    return (mine + rest)[:k]


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.integers(0, 25), st.integers(0, 4), min_size=1),
    st.lists(st.dictionaries(st.integers(0, 25), st.integers(1, 3)), min_size=1, max_size=7),
    st.integers(1, 9),
)
def test_lists_equal_plain_python_over_any_shop(shop: dict, users: list, k: int) -> None:
    named = {f"i{i}": float(score) for i, score in shop.items()}
    owns = [{f"i{i}": float(n) for i, n in own.items()} for own in users]
    ids = pa.array([f"u{u}" for u in range(len(users))])
    table = items(*((i, score, True) for i, score in named.items()))
    pairs = repeats(*((f"u{u}", i, n) for u, own in enumerate(owns) for i, n in own.items()))
    found = personal_lists(pairs, table, ids, "90d", "7d", k).to_pylist()
    assert found == [oracle(own, named, k) for own in owns]
    fresh = popularity_lists(table, ids, "7d", k, pairs).to_pylist()
    assert fresh == [sorted((i for i in named if i not in own), key=lambda i: (-named[i], i))[:k] for own in owns]


def test_blocks_of_users_do_not_change_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    table = items(*((f"i{i}", float(random.integers(5)), True) for i in range(40)))
    ids = pa.array([f"u{u}" for u in range(23)])
    rows = {(int(random.integers(23)), int(random.integers(40))): float(random.integers(1, 4)) for _ in range(200)}
    pairs = repeats(*((f"u{u}", f"i{i}", n) for (u, i), n in rows.items()))
    whole = personal_lists(pairs, table, ids, "90d", "7d", 12), popularity_lists(table, ids, "7d", 12, pairs)
    monkeypatch.setattr(baselines, "_BLOCK", 4)
    assert (personal_lists(pairs, table, ids, "90d", "7d", 12), popularity_lists(table, ids, "7d", 12, pairs)) == whole

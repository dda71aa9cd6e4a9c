"""The protocol and the simple peers of the quality benchmark, by hand, on logs of a few events."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

# After the tests' own folder: nothing there is hidden.
sys.path.append(str(Path(__file__).parent / "benchmarks"))

import peers
import peers_lightgbm
import quality
from protocol import ITEM, LOGS, TIME, USER, Log, MissingError, Recommender, Split, load
from results import KAIROS, Results, Run

T = pd.Timestamp("2026-01-31")


def log(repeats: bool) -> Log:
    return Log("toy", ("2026-01-31",), pd.Timedelta("7D"), repeats, (1, 7))


def events(*rows: tuple[str, str, float]) -> pd.DataFrame:
    """Events of (user, item, days after T)."""
    frame = pd.DataFrame(rows, columns=[USER, ITEM, TIME])
    return frame.assign(**{TIME: T + pd.to_timedelta(frame[TIME], unit="D")}).sort_values(TIME, ignore_index=True)


TOY = events(
    ("ann", "a", -10), ("ann", "a", -9), ("ann", "b", -1), ("ben", "a", -8), ("ben", "c", -7.5), ("cat", "d", -0.5),
    ("ann", "a", 0), ("ann", "new", 6.9), ("ann", "c", 7), ("ben", "c", 3), ("ben", "c", 4), ("eve", "a", 1),
)  # fmt: skip


def test_the_truth_is_what_known_users_did_from_the_cutoff_up_to_the_horizon() -> None:
    split = Split.at(log(repeats=True), TOY, T)
    assert len(split.past) == 6 and split.past[TIME].max() < T
    # T itself counts, T + 7 days does not; items nobody had before stay; eve has no past, cat no truth.
    assert split.truth.to_dict() == {"ann": ["a", "new"], "ben": ["c"]}


def test_where_items_do_not_repeat_what_was_had_is_no_truth_and_in_no_list() -> None:
    split = Split.at(log(repeats=False), TOY, T)
    assert split.truth.to_dict() == {"ann": ["new"]}
    assert peers.popularity(split, {}) == {"ann": ["c", "d"]}


def test_choices_are_made_one_horizon_earlier_from_the_past_alone() -> None:
    split = Split.at(log(repeats=True), TOY, T)
    dev = split.dev()
    assert dev.cutoff == T - pd.Timedelta("7D") and dev.past[TIME].max() < dev.cutoff
    assert dev.truth.to_dict() == {"ann": ["b"]}
    assert dev.earlier(1) is split.earlier(2)  # one split for one moment: what was computed for it is kept


def test_judging_is_by_the_projects_metrics_and_an_absent_list_counts_as_nothing() -> None:
    split = Split.at(log(repeats=True), TOY, T)
    found, each = split.judge({"ann": ["x", "a"]})
    assert each == pytest.approx([(1 / np.log2(3)) / (1 + 1 / np.log2(3)), 0])
    assert found["recall@10"] == pytest.approx((1 / 2 + 0) / 2)
    assert found["mrr@10"] == pytest.approx((1 / 2 + 0) / 2)
    assert found["coverage@10"] == pytest.approx(2 / 4)


def test_popularity_counts_and_forgets() -> None:
    split = Split.at(log(repeats=True), TOY, T)
    # All time: a 3, then b, c, d with 1 each. Half-life a day: d 2^-.5, b 2^-1, c 2^-7.5, a about 2^-8 + 2^-9 + 2^-10.
    assert peers.popularity(split, {})["ann"][0] == "a"
    assert peers.counts(split, 1) == pytest.approx([2**-8 + 2**-9 + 2**-10, 2**-1, 2**-7.5, 2**-0.5])
    assert peers.popularity(split, {"half_life": 1})["ann"] == ["d", "b", "a", "c"]


def test_personal_frequency_decays_and_is_filled_with_what_is_popular() -> None:
    split = Split.at(log(repeats=True), TOY, T)
    # ann: a twice, b once and later; ben has neither b nor d, and d is more popular of late.
    assert peers.personal(split, {"half_life": 365}) == {"ann": ["a", "b", "d", "c"], "ben": ["c", "a", "d", "b"]}
    assert peers.personal(split, {"half_life": 1})["ann"][:2] == ["b", "a"]


def test_item_knn_is_the_sum_of_cosines() -> None:
    split = Split.at(log(repeats=True), TOY, T)
    # a: ann, ben; b: ann; c: ben; d: cat. cos(a, b) = cos(a, c) = 1 / sqrt(2), all others 0. ann had a twice and b once.
    score = peers.item_knn_score(split, {"neighbours": None, "shrink": 0})(np.array([0, 1]))
    near = 1 / np.sqrt(2)
    assert score == pytest.approx(np.array([[near, 2 * near, 2 * near, 0], [near, near, near, 0]]))
    # The shrinkage stands in the denominator.
    score = peers.item_knn_score(split, {"neighbours": None, "shrink": 1})(np.array([1]))
    assert score[0, 1] == pytest.approx(1 / (np.sqrt(2) + 1))


def test_tifu_knn_weighs_groups_of_baskets_and_mixes_in_neighbours() -> None:
    split = Split.at(log(repeats=True), TOY, T)
    choice = {"group": 2, "within": 0.5, "across": 0.25, "neighbours": 1, "alpha": 0.75}
    # ann: days -10 (a), -9 (a), -1 (b). Groups from the newest: {b, a} and {a}. ben: day -8 has a and c, -7.5 is the same day.
    # (newest group) / 2 groups: b 1/2 / 2, a .5/2 / 2; older: a 1 * .25 / 2
    ann = [0.5 / 2 / 2 + 0.25 / 2, 1 / 2 / 2, 0, 0]
    ben = [1, 0, 1, 0]
    cat = [0, 0, 0, 1]
    assert peers.baskets(split, choice).toarray() == pytest.approx(np.array([ann, ben, cat]))
    # Nearest to ben is ann (squared distance .75^2 + .25^2 + 1 < 3), to ann cat (.25^2 + .25^2 + 1 < .75^2 + .25^2 + 1).
    # ann: d .25, a and b .75 * .25. ben: a .75 + .25 * .25, c .75, b .25 * .25.
    assert peers.tifu_knn(split, choice) == {"ann": ["d", "a", "b", "c"], "ben": ["a", "c", "b", "d"]}


@pytest.mark.parametrize("repeats", [True, False])
@pytest.mark.parametrize("peer", [*peers.RECOMMENDERS, *peers_lightgbm.RECOMMENDERS], ids=lambda peer: peer.name)
def test_nothing_that_happens_from_the_cutoff_on_changes_a_list(peer: Recommender, repeats: bool) -> None:
    for module in {"iALS": ("implicit",), "LightGBM": ("implicit", "lightgbm")}.get(peer.name, ()):
        pytest.importorskip(module)
    random, one = np.random.default_rng(0), log(repeats)
    n = 2_000
    rows = [
        (f"u{u}", f"i{i}", day)
        for u, i, day in zip(random.integers(0, 40, n), random.integers(0, 60, n), random.uniform(-60, 7, n), strict=True)
    ]
    # Everything from T on happens to another item; users stay, so that somebody is judged in both worlds.
    other = [(u, i if day < 0 else f"i{random.integers(0, 90)}", day) for u, i, day in rows]
    here, there = (Split.at(one, events(*each), T) for each in (rows, other))
    both = set(here.users) & set(there.users)
    assert len(both) > 20
    for choice in peer.choices(one):
        lists, others = peer.make(here, choice), peer.make(there, choice)
        assert {user: lists[user] for user in both} == {user: others[user] for user in both}


def test_a_log_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="memetracker_blogs: there is no"):
        load("memetracker_blogs", tmp_path)


def test_finished_runs_are_found_again_and_compared_user_by_user(tmp_path: Path) -> None:
    users = np.array(["ann", "ben"])
    means = dict.fromkeys(("ndcg@10", "recall@10", "recall@20", "mrr@10", "coverage@10"), 0.5)
    ours = Run("toy", "2026-01-31", KAIROS, "test", 0, "{}")
    theirs = Run("toy", "2026-01-31", "ItemKNN", "test", 0, Run.text({"shrink": 0, "neighbours": None}))
    results = Results(tmp_path)
    results.add(ours, means, 1.0, users, np.array([0.5, 0.7]))
    results.add(theirs, means, 1.0, users, np.array([0.4, 0.6]))
    again = Results(tmp_path)
    assert again.find(theirs) == results.rows[1] and again.find(Run(*["x"] * 4, 0, "{}")) is None
    assert again.ahead("toy", "ItemKNN") == pytest.approx((0.1, 0.1, 0.1))
    assert again.ahead("toy", "EASE") is None


def test_leads_are_of_the_cutoffs_that_both_have(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for log, cutoff, method, ndcg in [
        ("toy", "2026-01-31", KAIROS, 0.6), ("toy", "2026-01-31", "ItemKNN", 0.5), ("toy", "2026-02-28", KAIROS, 0.9),
        ("other", "2026-01-31", KAIROS, 0.3), ("other", "2026-01-31", "EASE", 0.4), ("third", "2026-01-31", "iALS", 0.4),
        ("other", "2026-01-31", "kairos, exploring", 0.2),
    ]:  # fmt: skip
        means = dict.fromkeys(("recall@10", "recall@20", "mrr@10", "coverage@10"), 0.5) | {"ndcg@10": ndcg}
        results.add(Run(log, cutoff, method, "test", 0, "{}"), means, 1.0, np.array(["ann"]), np.array([ndcg]))
    leads = results.leads()
    assert sorted(leads.index) == ["EASE", "ItemKNN"]
    assert leads.loc["ItemKNN"].dropna().to_dict() == pytest.approx({"toy": 0.2}) and leads.loc["EASE"].dropna().to_dict() == pytest.approx({"other": -0.25})


def test_a_small_log_has_all_events_of_some_users(tmp_path: Path) -> None:
    times = pd.date_range("2024-01-01", periods=600, freq="1h", tz="UTC")
    events = pd.DataFrame({"user_id": [f"u{n % 60}" for n in range(600)], "item_id": [f"i{n % 7}" for n in range(600)], "event_time": times})
    (tmp_path / "toy").mkdir()
    events.to_parquet(tmp_path / "toy/events.parquet")
    few = replace(LOGS["memetracker_small"], of="toy", users=0.3)
    found = few.events(tmp_path)
    assert 5 < found["user_id"].nunique() < 40 and (found.groupby("user_id").size() == 10).all()
    pd.testing.assert_frame_equal(found, few.events(tmp_path))


def test_a_window_in_which_nobody_is_judged_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAIROS_LOGS", str(tmp_path))
    (tmp_path / "movietweetings_100k").mkdir()
    TOY.to_parquet(tmp_path / "movietweetings_100k" / "events.parquet")
    asked = {"log": ["movietweetings_100k"], "peer": ["popularity, decayed"], "scratch": tmp_path}
    quality.run(cutoff=[T + pd.Timedelta("60D")], **asked)
    assert "skipped: nobody" in capsys.readouterr().out
    quality.run(cutoff=[T], **asked)
    assert "skipped" not in capsys.readouterr().out

"""Lists: complete, repeatable, within the rules, and finding what is planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from model_world import START, settings, shop, spec, write_tables

from conf import columns as c
from model import data, predict, train
from model.as_of.item_state import DAY_US
from model.as_of.users import UserBatch, join_user_tables
from model.machine.distributed import World
from model.slate import falling, retrieval
from model.slate.slate import seen_pairs
from model.spec import PredictSpec, TrainSpec
from model.versions import checkpoint

MOMENTS = [START + day * DAY_US for day in (39, 46, 53)]
RISING = "i999"


def surging() -> list:
    """The shop, and an item that did not exist before the last two days and that many now buy."""
    late = [(f"u{n:03d}", RISING, MOMENTS[-1] - DAY_US - n * 10_000_000) for n in range(0, 24)]
    early = [(f"u{n:03d}", "i998", MOMENTS[1] - DAY_US - n * 10_000_000) for n in range(0, 24)]
    wave = [(f"u{n:03d}", "i998", MOMENTS[1] + 2 * DAY_US + n * 10_000_000) for n in range(24, 40)]
    return sorted([*shop(), *late, *early, *wave], key=lambda r: (r[2], r[0], r[1]))


def scorer(folder: Path, repeat: bool) -> tuple[predict.Scorer, TrainSpec, pa.Table]:
    torch.set_num_threads(1)
    write_tables(folder, surging(), MOMENTS, 7 * DAY_US)
    made = spec(folder, MOMENTS, settings(), folder / "bundle", repeat)
    digest = checkpoint.save(train.train(made, World(0, 1)), made)
    told = PredictSpec(tables=made.tables, as_of_us=MOMENTS[-1], repeat_consumption=repeat, top_k=5)
    predict.prepare(folder / "bundle", told, folder / "prepared", digest)
    names = ("user_sequences", "user_profiles", "user_item_repeats")
    rows = join_user_tables(*(data.read_table(made, name, MOMENTS[-1]) for name in names))
    return predict.Scorer(folder / "prepared"), made, rows


@pytest.fixture(scope="module")
def repeating(tmp_path_factory: pytest.TempPathFactory) -> tuple[predict.Scorer, TrainSpec, pa.Table]:
    return scorer(tmp_path_factory.mktemp("repeating"), repeat=True)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[predict.Scorer, TrainSpec, pa.Table]:
    return scorer(tmp_path_factory.mktemp("once"), repeat=False)


def nobody(rows: pa.Table, user: str = "*") -> pa.Table:
    """A row of a user without history, in the scorer's input format."""

    def empty(field: pa.Field) -> object:
        if field.name == "user_id":
            return user
        return [] if pa.types.is_list(field.type) else 0

    return pa.table({f.name: pa.array([empty(f)], f.type) for f in rows.schema})


def test_every_user_gets_top_k_distinct_items_with_ranks_from_one(repeating: tuple) -> None:
    scoring, _, rows = repeating
    lists = scoring.score(rows).to_pandas()
    assert lists.columns.tolist() == ["user_id", "rank", "item_id", "score", "reason", "cold"]
    for _, mine in lists.groupby("user_id"):
        assert mine["rank"].tolist() == [1, 2, 3, 4, 5]
        assert mine.item_id.nunique() == 5
        assert mine.score.is_monotonic_decreasing
    assert lists.user_id.nunique() == len(rows)
    assert (lists.reason.str.len() > 0).all() and not lists.cold.any()


def test_lists_do_not_depend_on_how_users_are_batched(repeating: tuple) -> None:
    scoring, _, rows = repeating
    whole = scoring.score(rows)
    pieces = pa.concat_tables([scoring.score(rows.slice(at, 7)) for at in range(0, len(rows), 7)])
    assert whole.equals(pieces)
    through_udf = pa.Table.from_batches(
        list(predict.score_batches(rows.to_batches(max_chunksize=11), str(_folder(scoring))))
    )
    assert whole.equals(through_udf)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here: what runs on CUDA is not tested")
def test_a_gpu_makes_the_lists_of_a_processor(repeating: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the order of additions: scores agree to a hundredth, and next to all places."""
    scoring, _, rows = repeating
    for module in (predict, retrieval, falling):
        monkeypatch.setattr(module, "accelerator", lambda: None)
    plain = predict.Scorer(scoring.folder).score(rows).to_pandas()
    monkeypatch.undo()
    there = scoring.score(rows).to_pandas()
    assert next(scoring.prepared.bundle.ranker.parameters()).device.type == "cuda"
    assert (plain.item_id == there.item_id).mean() > 0.98
    both = plain.merge(there, on=["user_id", "item_id"])
    assert (both.score_x - both.score_y).abs().max() < 0.01


def _folder(scoring: predict.Scorer) -> Path:
    return scoring.folder


def test_a_planted_habit_is_found(repeating: tuple) -> None:
    scoring, _, rows = repeating
    lists = scoring.score(rows).to_pandas()
    found = []
    for user, items, counts in zip(
        *(rows[n].to_pylist() for n in ("user_id", "repeat_item_ids", "repeat_counts")), strict=True
    ):
        habit = {item for _, item in sorted(zip(counts, items, strict=True))[-4:]}
        found.append(len(habit & set(lists[lists.user_id == user].item_id)) / 4)
    assert sum(found) / len(found) > 0.7
    assert lists.reason.str.contains(r"bought \d+ times").any()


def test_a_rising_item_reaches_those_who_never_had_it(repeating: tuple) -> None:
    scoring, _, rows = repeating
    had = [RISING in items.as_py() for items in rows["repeat_item_ids"]]
    lists = scoring.score(rows.filter(pc.invert(pa.array(had)))).to_pandas()
    share = lists.groupby("user_id").item_id.apply(lambda items: RISING in set(items)).mean()
    assert share >= 0.5
    assert lists[lists.item_id == RISING].reason.str.contains("new: first seen").all()


def test_what_goes_with_what_a_user_had_is_named(once: tuple) -> None:
    scoring, _, rows = once
    ids, ease = scoring.prepared.moment.catalogue.item_ids.to_pylist(), scoring.prepared.moment.ease
    had = dict(zip(rows["user_id"].to_pylist(), rows["item_ids"].to_pylist(), strict=True))
    lists = scoring.score(rows).to_pandas()
    named = lists[lists.reason.str.startswith("goes with ")]
    assert len(named) > 5, "the test would prove nothing"
    for row in named.itertuples():
        mine = np.array([ids.index(item) for item in had[row.user_id]])
        weight = ease.weight_of(mine, np.array(ids.index(row.item_id)))
        assert row.reason == f"goes with title of {ids[mine[len(mine) - 1 - weight[::-1].argmax()]]}"
        assert weight.max() > 0


def test_seen_items_never_return_where_items_do_not_repeat(once: tuple) -> None:
    scoring, _, rows = once
    lists = scoring.score(rows).to_pandas().groupby("user_id").item_id.apply(set)
    for user, items, repeats in zip(rows["user_id"], rows["item_ids"], rows["repeat_item_ids"], strict=True):
        assert not lists.get(user.as_py(), set()) & (set(items.as_py()) | set(repeats.as_py()))
    assert lists.map(len).min() == 5


def test_seen_items_do_not_even_enter_a_slate_where_items_do_not_repeat(once: tuple, repeating: tuple) -> None:
    for (scoring, _, rows), may in ((once, False), (repeating, True)):
        p = scoring.prepared
        users = UserBatch.from_table(rows, p.moment.catalogue, 30)
        slates = p.moment.candidates(p.bundle.encoder, p.table, users, p.bundle.settings, p.repeat).slates
        assert seen_pairs(users, len(p.moment.catalogue)).find(slates.item)[1].any() == may


def test_whoever_has_no_history_gets_the_fresh_and_popular_list(repeating: tuple) -> None:
    scoring, _, rows = repeating
    both = pa.concat_tables([nobody(rows), rows.slice(0, 1), nobody(rows, "newcomer")])
    lists = scoring.score(both).to_pandas()
    star, new = (lists[lists.user_id == user] for user in ("*", "newcomer"))
    assert star.cold.all() and star["rank"].tolist() == [1, 2, 3, 4, 5]
    assert star.item_id.tolist() == new.item_id.tolist()
    assert RISING in star.item_id.tolist()
    assert not lists[lists.user_id == rows["user_id"][0].as_py()].cold.any()


def test_the_last_places_are_drawn_from_what_would_follow_too_and_always_alike(repeating: tuple, tmp_path: Path) -> None:
    _, made, rows = repeating

    def scorer(most: int, places: int) -> predict.Scorer:
        told = PredictSpec(tables=made.tables, as_of_us=MOMENTS[-1], top_k=most, explore_places=places)
        return predict.Scorer(predict.prepare(made.output, told, tmp_path / f"{most}-{places}"))

    exploring = scorer(6, 2)
    lists, long = exploring.score(rows).to_pandas(), scorer(24, 0).score(rows).to_pandas()
    whole = {user: one.item_id.tolist() for user, one in long.groupby("user_id")}
    drawn = []
    for user, one in lists.groupby("user_id"):
        place = [whole[user].index(item) for item in one.item_id]
        assert place[:4] == [0, 1, 2, 3] and place == sorted(set(place)) and len(place) == 6
        assert one.score.is_monotonic_decreasing
        drawn += place[4:]
    assert set(drawn) <= set(range(4, 24)) and len(set(drawn)) > 15, "those that would follow have their turn with somebody"
    pd.testing.assert_frame_equal(lists[lists.user_id == lists.user_id[0]], exploring.score(rows.slice(0, 1)).to_pandas())


def test_no_list_has_more_of_a_category_than_the_cap(repeating: tuple, tmp_path: Path) -> None:
    _, made, rows = repeating
    told = PredictSpec(tables=made.tables, as_of_us=MOMENTS[-1], top_k=5, category_cap=1)
    both = pa.concat_tables([rows, nobody(rows)])
    capped = predict.Scorer(predict.prepare(made.output, told, tmp_path / "capped")).score(both).to_pandas()
    free = repeating[0].score(both).to_pandas()
    category = {f"i{n:03d}": n % 5 for n in range(1000)}
    most = lambda lists: lists.assign(kind=lists.item_id.map(category)).groupby(["user_id", "kind"]).size().max()  # noqa: E731
    assert most(capped) == 1 and most(free) > 1
    for _, mine in capped.groupby("user_id"):
        assert mine["rank"].tolist() == list(range(1, len(mine) + 1)) and mine.score.is_monotonic_decreasing
    first = [lists[lists["rank"] == 1].set_index("user_id").item_id for lists in (capped, free)]
    assert first[0].equals(first[1])  # the best of all is always the best of its category


def test_the_best_pinned_item_stands_first_in_every_list_and_the_rest_is_as_it_was(repeating: tuple, tmp_path: Path) -> None:
    _, made, rows = repeating
    pinned = ("i003", "i007", "nowhere")
    told = PredictSpec(tables=made.tables, as_of_us=MOMENTS[-1], top_k=5, pinned=pinned)
    both = pa.concat_tables([rows, nobody(rows)])
    lists = predict.Scorer(predict.prepare(made.output, told, tmp_path / "pinned")).score(both).to_pandas()
    assert set(lists[lists["rank"] == 1].item_id) <= set(pinned) and set(lists[lists["rank"] == 1].user_id) == set(both["user_id"].to_pylist())
    assert (lists[lists["rank"] == 1].reason == "picked by the shop").all() and (lists[lists["rank"] > 1].reason != "picked by the shop").all()
    assert (lists.groupby("user_id")["rank"].agg(list).map(lambda r: r == [1, 2, 3, 4, 5])).all()
    free = repeating[0].score(both).to_pandas().groupby("user_id").item_id.agg(list)
    moved = sum([i for i in mine if i not in pinned] != [i for i in free[user] if i not in pinned][:4] for user, mine in lists[lists["rank"] > 1].groupby("user_id").item_id.agg(list).items())
    assert moved <= len(free) // 10  # two candidates more in a slate may turn a near tie


def test_a_pinned_item_that_its_user_had_is_left_out_where_items_do_not_repeat(once: tuple, tmp_path: Path) -> None:
    _, made, rows = once
    had = rows["repeat_item_ids"].to_pylist()
    popular = max({i for mine in had for i in mine}, key=lambda i: sum(i in mine for mine in had))
    told = PredictSpec(tables=made.tables, as_of_us=MOMENTS[-1], repeat_consumption=False, top_k=5, pinned=(popular,))
    lists = predict.Scorer(predict.prepare(made.output, told, tmp_path / "pinned")).score(rows).to_pandas()
    first = lists[lists["rank"] == 1].set_index("user_id").item_id
    for user, mine in zip(rows["user_id"].to_pylist(), had, strict=True):
        assert (first[user] == popular) == (popular not in mine)


def test_events_of_unknown_items_do_not_stop_a_list(repeating: tuple) -> None:
    scoring, _, rows = repeating
    one = rows.slice(0, 1)
    unknown = pa.array([["nowhere"] * len(one["item_ids"][0])], pa.list_(pa.string()))
    lists = scoring.score(one.set_column(one.column_names.index("item_ids"), "item_ids", unknown))
    assert len(lists) == 5


def test_no_users_give_no_rows(repeating: tuple) -> None:
    scoring, _, rows = repeating
    assert scoring.score(rows.slice(0, 0)).schema == predict.OUTPUT


def test_a_later_moment_asked_about_makes_events_older_and_knows_no_more(repeating: tuple, tmp_path: Path) -> None:
    scoring, made, rows = repeating
    moments = {}
    for name, asked in (("same", MOMENTS[-1]), ("later", MOMENTS[-1] + 3 * DAY_US)):
        told = PredictSpec(tables=made.tables, as_of_us=MOMENTS[-1], asked_us=asked, top_k=5)
        moments[name] = predict.Scorer(predict.prepare(made.output, told, tmp_path / name)).prepared.moment
    assert predict.Scorer(tmp_path / "same").score(rows).equals(scoring.score(rows))
    now, later = moments["same"].state, moments["later"].state
    assert later.as_of_us - now.as_of_us == 3 * DAY_US
    for known in (c.item_sales("7d"), "item_decayed_28d", "item_age_days"):
        assert (later.column(known) == now.column(known)).all()

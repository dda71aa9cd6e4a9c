"""A log that is streamed to mapped columns is the one that is read into memory; every example comes once, whoever trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from model.as_of import event_store, events
from model.as_of.event_store import stored_events
from model.as_of.events import COLUMNS, Events, read_events
from model.machine.distributed import World, batches
from model.spec import TableRef, TablesSpec
from model.training.labels import anchor_labels, labelled_users
from model.training.windows import make_windows, window_batches

UTC = pa.timestamp("us", tz="UTC")
NOW, N = 5_000, 3_000
ITEMS = pa.array([f"i{k:02d}" for k in range(40)])
ALONE = World(0, 1)


def log(seed: int = 0) -> pa.Table:
    """Many ties, late rows, users of very different size, items outside the catalogue, NULLs."""
    rng = np.random.default_rng(seed)
    us = rng.integers(0, 6_000, N)
    kinds = np.array(["play", "purchase", "nonsense"])[rng.integers(0, 3, N)]
    value = pa.array(rng.random(N), pa.float64(), mask=rng.random(N) < 0.2)
    return pa.table({
        "event_id": [f"e{k}" for k in rng.permutation(N)], "user_id": [f"u{int(k):03d}" for k in rng.pareto(0.8, N) * 3 % 500],
        "item_id": [f"i{k:02d}" for k in rng.integers(0, 50, N)], "event_type": kinds, "event_ts": pa.array(us).cast(UTC),
        "available_ts": pa.array(us + rng.integers(0, 3_000, N) * (rng.random(N) < 0.3)).cast(UTC), "value": value,
    })  # fmt: skip


@pytest.fixture(params=["parquet", "delta"])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> TablesSpec:
    path = str(tmp_path / "events")
    if request.param == "parquet":
        pq.write_table(log(), path + ".parquet", row_group_size=700)
        return TablesSpec(tables={"events": TableRef(path=path + ".parquet", format="parquet")})
    for part in range(3):
        write_deltalake(path, log().slice(part * 1000, 1000), mode="append")
    write_deltalake(path, log(1), mode="append")  # a later version, which is not asked for
    return TablesSpec(tables={"events": TableRef(path=path, version=2)})


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (events, event_store):
        monkeypatch.setattr(module, "BLOCK", 257)


def same(one: Events, two: Events) -> bool:
    return one.users.equals(two.users) and all(np.array_equal(getattr(one, n), getattr(two, n)) for n in COLUMNS)


def test_what_is_streamed_is_what_is_read(spec: TablesSpec, small: None, tmp_path: Path) -> None:
    read = read_events(spec, NOW, ITEMS)
    assert 2_000 < len(read.us) < N and (np.diff(read.us)[np.diff(read.user) == 0] == 0).any()
    stored = stored_events(spec, NOW, ITEMS, tmp_path, ALONE, few=0)
    assert same(read, stored)
    assert all(isinstance(getattr(stored, name), np.memmap) and getattr(stored, name).dtype == kind for name, kind in COLUMNS.items())
    assert sorted(p.name for p in (tmp_path / "events" if (tmp_path / "events" / "about.json").exists() else tmp_path).glob("part-*")) == []
    for moment in (0, 10, 2_500, NOW):
        seen, streamed = read.seen_at(moment), stored.seen_at(moment)
        assert same(seen, streamed)
        assert isinstance(streamed.us, np.memmap) == (len(seen.us) > 0)
        for since in (0, 2_000):
            plain, mapped = (make_windows(one, since, 4_000, 10, 20) for one in (read, stored))
            assert np.array_equal(plain.start, mapped.start) and np.array_equal(plain.stop, mapped.stop)
    assert all(np.array_equal(a, b) for a, b in zip(read.window(1_000, 3_000), stored.window(1_000, 3_000), strict=True))


def test_a_store_that_is_there_is_not_written_again_and_an_unfinished_one_is(spec, small, tmp_path, monkeypatch) -> None:
    written = []
    original = event_store._write
    monkeypatch.setattr(event_store, "_write", lambda *a: (written.append(1), original(*a)))
    folder = tmp_path / "kept"
    first = stored_events(spec, NOW, ITEMS, folder, ALONE, few=0)
    assert same(first, stored_events(spec, NOW, ITEMS, folder, ALONE, few=0)) and len(written) == 1
    (folder / "events" / "about.json").unlink()
    assert same(first, stored_events(spec, NOW, ITEMS, folder, ALONE, few=0)) and len(written) == 2


def test_few_events_are_read_into_memory(spec: TablesSpec, tmp_path: Path) -> None:
    assert not isinstance(stored_events(spec, NOW, ITEMS, tmp_path / "none", ALONE).us, np.memmap)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("cut", [0, 3])
def test_every_window_and_user_comes_once_an_epoch_for_any_number_of_processes(spec, size: int, cut: int) -> None:
    """``cut``: steps done by an earlier run of one process; what these lack is done by ``size`` others."""
    windows = make_windows(read_events(spec, NOW, ITEMS), 0, NOW, 10, 50)
    pieces = 4

    def done(number: int, steps: slice) -> tuple[list[int], list[int]]:
        of_windows, of_users = [], []
        for rank in range(number):
            world = World(rank, number, pieces)
            for step in list(window_batches(windows, world, 200, (1, 2, 3)))[steps]:
                of_windows += [int(row) for rows in step.values() for row in rows]
            for step in list(batches(101, world, 16, (1, 2, 3)))[steps]:
                of_users += [int(row) for rows in step.values() for row in rows]
        return of_windows, of_users

    before, after = done(1, slice(0, cut)), done(size, slice(cut, None))
    assert sorted(before[0] + after[0]) == list(range(len(windows)))
    assert sorted(before[1] + after[1]) == list(range(101))
    assert len(windows) > 150


def test_labels_are_those_of_the_window(spec: TablesSpec, small: None, tmp_path: Path) -> None:
    read, stored = read_events(spec, NOW, ITEMS), stored_events(spec, NOW, ITEMS, tmp_path, ALONE, few=0)

    class Users:
        user_ids = read.users.slice(0, 30)

    one, two = (anchor_labels(e, Users, 1_000, 500, len(ITEMS), True) for e in (read, stored))  # type: ignore[arg-type]
    assert len(one.keys) > 10 and np.array_equal(one.keys, two.keys)


@pytest.mark.parametrize("repeat", [True, False])
def test_labelled_users_have_a_past_and_a_label_that_is_new_where_items_do_not_repeat(spec: TablesSpec, small: None, tmp_path: Path, repeat: bool) -> None:
    read, stored = read_events(spec, NOW, ITEMS), stored_events(spec, NOW, ITEMS, tmp_path, ALONE, few=0)
    wanted = []
    for anchor in (400, 2_000, 3_500):
        taken: dict[int, set[int]] = {}
        past: dict[int, set[int]] = {}
        for user, item, us in zip(read.user.tolist(), read.item.tolist(), read.us.tolist(), strict=True):
            if us < anchor:
                past.setdefault(user, set()).add(item)
            elif us < anchor + 500 and item >= 0:
                taken.setdefault(user, set()).add(item)
        wanted.append(sum(bool(items - (set() if repeat else past[user])) for user, items in taken.items() if user in past))
    assert all(labelled_users(e, (400, 2_000, 3_500), 500, repeat).tolist() == wanted for e in (read, stored))
    assert min(wanted) > 10 and len(set(wanted)) == 3

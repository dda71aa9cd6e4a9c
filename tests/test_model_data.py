"""Reading under the time law, from parquet and from Delta at a pinned version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from model.as_of.events import read_events
from model.data import DataError, newest_partition, read_table, require_partition
from model.spec import TRAIN_TABLES, TableRef, TablesSpec, TrainSpec
from model.training.windows import collate, make_windows

UTC = pa.timestamp("us", tz="UTC")
NOW = 1_000_000_000


def ts(us: list[int]) -> pa.Array:
    return pa.array(us, pa.int64()).cast(UTC)


def events(rows: list[tuple[str, str, str, int, int]]) -> pa.Table:
    """(event_id, user, item, event time, available time)."""
    return pa.table({
        "event_id": [r[0] for r in rows], "user_id": [r[1] for r in rows], "item_id": [r[2] for r in rows],
        "event_type": ["play"] * len(rows), "event_ts": ts([r[3] for r in rows]), "available_ts": ts([r[4] for r in rows]),
        "value": pa.nulls(len(rows), pa.float64()),
    })  # fmt: skip


def parquet(folder: Path, name: str, table: pa.Table) -> TablesSpec:
    pq.write_table(table, folder / f"{name}.parquet")
    return TablesSpec(tables={name: TableRef(path=str(folder / f"{name}.parquet"), format="parquet")})


def test_only_what_had_happened_and_was_known_is_read(tmp_path: Path) -> None:
    table = events([
        ("a", "u", "x", NOW - 1, NOW - 1), ("b", "u", "x", NOW, NOW), ("c", "u", "x", NOW - 2, NOW), ("d", "u", "x", NOW - 3, NOW + 1),
    ])  # fmt: skip
    read = read_events(parquet(tmp_path, "events", table), NOW, pa.array(["x"]))
    assert read.us.tolist() == [NOW - 2, NOW - 1]


def test_events_are_ordered_by_user_time_and_event_id(tmp_path: Path) -> None:
    table = events(
        [
            ("9", "v", "y", 5, 5),
            ("2", "u", "z", 7, 7),
            ("1", "u", "x", 7, 7),
            ("3", "u", "y", 6, 6),
            ("0", "v", "gone", 5, 5),
        ]
    )
    read = read_events(parquet(tmp_path, "events", table), NOW, pa.array(["x", "y", "z"]))
    assert read.users.to_pylist() == ["u", "v"]
    assert list(zip(read.user.tolist(), read.item.tolist(), strict=True)) == [(0, 1), (0, 0), (0, 2), (1, -1), (1, 1)]


def test_a_delta_table_is_read_at_its_pinned_version_and_partition(tmp_path: Path) -> None:
    def part(moment: int, item: str) -> pa.Table:
        return pa.table({"as_of_ts": ts([moment]), "item_id": [item]})

    path = str(tmp_path / "items")
    write_deltalake(path, part(10, "old"), partition_by=["as_of_ts"])
    write_deltalake(path, part(20, "new"), mode="append")
    write_deltalake(path, part(20, "later"), mode="append")
    spec = TablesSpec(tables={"item_temporal": TableRef(path=path, version=1)})
    assert read_table(spec, "item_temporal", 20)["item_id"].to_pylist() == ["new"]
    assert newest_partition(spec, "item_temporal", 19)["item_id"].to_pylist() == ["old"]
    assert newest_partition(spec, "item_temporal", 9).num_rows == 0
    with pytest.raises(DataError, match="no rows at as_of 1970"):
        require_partition(spec, "item_temporal", 15)


def test_windows_predict_each_event_once_and_never_from_after_it(tmp_path: Path) -> None:
    rows = [(f"{k:03d}", "u", "x", 100 * k, 100 * k) for k in range(1, 24)]
    read = read_events(parquet(tmp_path, "events", events(rows)), NOW, pa.array(["x"]))
    windows = make_windows(read, -(2**62), NOW, length=10, most=30)
    import torch

    batch = collate(read, windows, np.arange(len(windows)), 10**9, torch.Generator().manual_seed(0))
    targets = batch.us[batch.row, batch.place + 1]
    assert sorted(targets.tolist()) == [100 * k for k in range(2, 24)]
    assert (batch.us[batch.row, batch.place] <= batch.moment).all() and (batch.moment <= targets).all()


def test_windows_of_a_period_have_targets_in_it_only(tmp_path: Path) -> None:
    rows = [(f"{k:03d}", "u", "x", 100 * k, 100 * k) for k in range(1, 24)]
    read = read_events(parquet(tmp_path, "events", events(rows)), NOW, pa.array(["x"]))
    import torch

    windows = make_windows(read, 1500, 2000, length=10, most=30)
    batch = collate(read, windows, np.arange(len(windows)), 10**9, torch.Generator().manual_seed(0))
    assert sorted(batch.us[batch.row, batch.place + 1].tolist()) == [1500, 1600, 1700, 1800, 1900]
    assert batch.us.max() == 1900


def test_a_label_window_may_close_at_as_of_and_not_a_microsecond_later() -> None:
    tables = {name: TableRef(path=name) for name in TRAIN_TABLES}

    def spec(anchors: tuple[int, ...], horizon_us: int) -> TrainSpec:
        return TrainSpec(tables=tables, as_of_us=NOW, anchors_us=anchors, horizon_us=horizon_us, settings={}, output="out")

    assert spec((NOW - 200, NOW - 100), 100).anchors_us[-1] == NOW - 100
    with pytest.raises(ValueError, match="labels would lie after as_of"):
        spec((NOW - 200, NOW - 100), 101)
    with pytest.raises(ValueError, match="must rise strictly"):
        spec((NOW - 100, NOW - 200), 100)

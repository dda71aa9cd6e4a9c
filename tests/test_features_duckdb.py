"""Sequences and item features of a lively log against another engine: DuckDB, from the same files."""

from __future__ import annotations

from datetime import timedelta

import duck
import pytest
import worlds_spark as worlds

from conf.load import from_tree
from features.item_sums import item_sums
from features.item_temporal import item_temporal
from features.sequences import user_sequences

pytestmark = pytest.mark.spark
DAYS, LENGTH = 100, 50
AS_OF = worlds.START + timedelta(days=95)  # 2024-04-05: after a leap day, and the DST days of two continents
EFFECTS = worlds.LIVELY | {"late": 0.2, "hot_user": 400, "hot_item": 0.2}
SOURCE = {"path": "-", "columns": {"user_id": "u", "item_id": "i", "event_ts": "t"}}
SETTINGS = from_tree({"domain": "world", "source": {"events": SOURCE}, "features": {"sequence_length": LENGTH, "session_gap": "2h"}})


def test_duckdb_finds_the_same_sequences_and_item_features(spark, tmp_path):
    made = worlds.events(spark, 12_000, 150, 200, DAYS, 0, **EFFECTS), worlds.items(spark, 200, DAYS, 0, **EFFECTS)
    for name, frame in zip(("events", "items"), made, strict=True):
        frame.write.parquet(str(tmp_path / name))
    events, items = (spark.read.parquet(str(tmp_path / name)) for name in ("events", "items"))
    assert events.where("available_ts > event_ts + INTERVAL 1 HOUR").count() > 1_000, "nothing comes late"
    user_sequences(events, [AS_OF], SETTINGS).write.parquet(str(tmp_path / "ours" / "sequences"))
    # Items that nobody took are only in Kairos' table: the catalogue alone speaks for them.
    sold = item_temporal(item_sums(events, [AS_OF]), items, [AS_OF]).where("item_sales_all > 0")
    sold.write.parquet(str(tmp_path / "ours" / "items"))
    database = duck.connect(str(tmp_path / "events"), str(tmp_path / "items"), 2, "1GB", str(tmp_path))
    values = {"length": LENGTH, "gap": "INTERVAL 2 HOUR"}
    for name, query, key, least in (("sequences", duck.SEQUENCES, "user_id", 140), ("items", duck.ITEMS, "item_id", 150)):
        duck.write(database, query, str(tmp_path / f"{name}.parquet"), AS_OF, **values)
        rows, _, bad = duck.compare(f"{tmp_path}/ours/{name}/*.parquet", f"{tmp_path}/{name}.parquet", key)
        assert rows > least
        assert bad == 0, name

"""Other logs by mapping alone: films tweeted when they were rated, no code touched."""

from pathlib import Path

import pandas as pd
import pytest

from conf.load import from_tree
from features.contracts import RECOMMENDATIONS_LATEST
from jobs.cli import Context, parse_as_of
from jobs.nightly import nightly
from jobs.store.table_io import Warehouse

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.soak]
FILMS = Path(__file__).parents[2] / "shared" / "data" / "movietweetings_100k"


@pytest.mark.skipif(not FILMS.exists(), reason=f"the log is not here: {FILMS}")
def test_films_get_lists_without_what_was_seen_by_mapping_alone(spark, tmp_path):
    tree = {
        "domain": "films",
        "warehouse": str(tmp_path / "warehouse"),
        "source": {
            "events": {
                "path": str(FILMS / "events.parquet"),
                "columns": {
                    "user_id": "user_id", "item_id": "item_id", "event_ts": "event_time", "event_type": "event_type", "value": "value",
                },
                "event_types": {"rating": "rate"},
            },
            "items": {
                "path": str(FILMS / "items.parquet"),
                "columns": {"item_id": "item_id", "title": "title", "category": "category", "release_ts": "release_time"},
            },
        },
        "repeat_consumption": False,
        "top_k": 5,
        "model": {"width": 16},
        "training": {"anchors": 1, "retrieval_epochs": 1, "epochs": 1, "users_per_anchor": 300, "threads": 1},
    }  # fmt: skip
    settings = from_tree(tree)
    context = Context(
        spark, settings, Warehouse(spark, settings), parse_as_of("2013-03-20T00:00:00Z"), "nightly", False
    )
    nightly(context)
    lists = context.warehouse.read(RECOMMENDATIONS_LATEST).toPandas()
    log = pd.read_parquet(FILMS / "events.parquet")
    past = log[log.event_time < "2013-03-20T00:00:00Z"]
    assert set(lists.user_id) == set(past.user_id) | {"*"}
    assert (lists.groupby("user_id")["rank"].max() == 5).all()
    seen = set(zip(past.user_id, past.item_id, strict=True))
    assert not seen & set(zip(lists.user_id, lists.item_id, strict=True))
    assert set(lists.item_id) <= set(pd.read_parquet(FILMS / "items.parquet").item_id)

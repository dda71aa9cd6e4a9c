"""Each domain's settings on a small log of that shape: columns, types, sessions and repeats come out as they say."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
import worlds_spark as worlds

from conf.load import load
from features.contracts import (
    EVENTS,
    ITEM_NEIGHBORS,
    ITEM_TEMPORAL,
    ITEMS,
    RECOMMENDATIONS_LATEST,
    USER_PROFILES,
    USER_SEQUENCES,
)
from features.truth import judged_truth
from jobs.build_features import build
from jobs.cli import Context
from jobs.hourly import hourly
from jobs.ingest import ingest
from jobs.nightly import nightly
from jobs.store.table_io import Warehouse

pytestmark = [pytest.mark.spark, pytest.mark.slow]
CONF = Path(__file__).parents[1] / "conf"
AS_OF = worlds.START + timedelta(days=10)
N, USERS, ITEMS_N, DAYS, BUSY = 1_500, 40, 120, 18, 500
#: domain -> what makes its log. User u0 has more events than any sequence holds.
SHAPES = {
    "ecommerce": {"popularity": 0.6, "activity": 0.4, "churn": True, "release_decay": 15.0},
    "video": {"popularity": 0.6, "release_decay": 8.0, "churn": True},
    "music": {"popularity": 0.5, "repeats": 0.4, "daily": 0.4},
    "news": {"release_decay": 1.0, "trends": True, "churn": True},
    "social": {"drift": 0.8, "activity": 0.5, "late": 0.1, "release_decay": 5.0},
}


def write_log(spark, folder: Path, domain: str) -> None:
    """The raw log and catalogue with the very columns and types that the domain's settings map."""
    source = load(CONF / f"{domain}.yaml", {}).source
    log = worlds.events(spark, N, USERS, ITEMS_N, DAYS, 0, hot_user=BUSY, **SHAPES[domain]).toPandas()
    gap = load(CONF / f"{domain}.yaml", {}).features.session_gap
    minute, begin = timedelta(minutes=1), worlds.START + timedelta(days=5)
    # Two events that lie just within the gap, one just beyond it; after as_of one old item and one new.
    moments = [begin, begin + gap - minute, begin + 2 * gap, AS_OF + minute, AS_OF + 2 * minute]
    probe = pd.DataFrame({"user_id": "probe", "item_id": ["i0", "i1", "i2", "i0", "i4"], "event_ts": moments})
    probe["available_ts"] = probe.event_ts
    log = pd.concat([log, probe], ignore_index=True)
    raw_types = [*source.events.event_types, "view", "never heard of"]
    log["event_type"] = [raw_types[k % len(raw_types)] for k in range(len(log))]
    _write(log, source.events.columns, folder / "events.parquet")
    catalogue = worlds.items(spark, ITEMS_N, DAYS, 0, **SHAPES[domain]).toPandas()
    catalogue["available_from"] = catalogue.release_ts
    _write(catalogue, source.items.columns, folder / "items.parquet")


def _write(frame: pd.DataFrame, columns, path: Path) -> None:
    names = {ours: theirs for ours, theirs in columns.model_dump(exclude_none=True).items() if ours != "attributes"}
    frame[list(names)].rename(columns=names).to_parquet(path)


#: Features of news are built every time; its lists, and the others' features, by make soak.
SOAK = {"ecommerce", "video", "music", "social"}
DOMAINS = [pytest.param(name, marks=pytest.mark.soak if name in SOAK else ()) for name in SHAPES]


@pytest.fixture(scope="module", params=DOMAINS)
def built(request, spark, tmp_path_factory):
    """(domain, context) with features at AS_OF."""
    domain = request.param
    folder = tmp_path_factory.mktemp(domain)
    write_log(spark, folder, domain)
    changes = {
        "WAREHOUSE": folder / "warehouse", "SOURCE__EVENTS__PATH": folder / "events.parquet",
        "SOURCE__ITEMS__PATH": folder / "items.parquet", "TOP_K": 5, "MODEL__WIDTH": 16, "TRAINING__ANCHORS": 1,
        "TRAINING__RETRIEVAL_EPOCHS": 1, "TRAINING__EPOCHS": 1, "TRAINING__NEGATIVES": 32, "TRAINING__THREADS": 1,
    }  # fmt: skip
    settings = load(CONF / f"{domain}.yaml", {f"KAIROS__{key}": str(value) for key, value in changes.items()})
    context = Context(spark, settings, Warehouse(spark, settings), AS_OF, "nightly", False)
    ingest(context)
    build(context, backfill=False)
    return domain, context


def test_a_domain_reads_its_log(built):
    domain, context = built
    source = context.settings.source.events
    raw = pd.read_parquet(source.path)[source.columns.event_type]
    known = dict(source.event_types) | {"view": "view"}
    expected = raw.map(lambda kind: known.get(kind, "other")).value_counts()
    events = context.warehouse.read(EVENTS).toPandas()
    assert events.event_type.value_counts().to_dict() == expected.to_dict()
    assert set(source.event_types.values()) <= set(expected.index)
    assert events.value.notna().any() == (source.columns.value is not None)
    items = context.warehouse.read(ITEMS).toPandas()
    mapped = context.settings.source.items.columns.model_dump(exclude_none=True).keys() - {"attributes"}
    assert items[list(mapped)].notna().any().all()

    # Sessions end after the domain's silence, also where the source has a session id but this user has none.
    user = context.warehouse.partition(USER_SEQUENCES, AS_OF).where("user_id = 'probe'").first()
    assert user.session_starts == [True, False, True]
    profile = context.warehouse.partition(USER_PROFILES, AS_OF).where("user_id = 'probe'").first()
    assert profile.user_sessions_all == 2

    # As many events as the domain's memory is long.
    longest = context.warehouse.partition(USER_SEQUENCES, AS_OF).selectExpr("max(size(item_ids))").first()[0]
    assert longest == context.settings.features.sequence_length
    ranks = context.warehouse.partition(ITEM_NEIGHBORS, AS_OF).selectExpr("max(neighbor_rank)").first()[0]
    assert 1 <= ranks <= context.settings.features.neighbors

    # Only where items repeat is the old item something to predict.
    truth = judged_truth(context.warehouse.read(EVENTS), AS_OF, context.settings).where("user_id = 'probe'").first()
    assert truth.truth == (["i0", "i4"] if domain in ("ecommerce", "music", "social") else ["i4"])

    # What is withdrawn by as_of may not be shown.
    gone = set(items[items.available_until <= pd.Timestamp(AS_OF).tz_localize(None)].item_id)
    temporal = context.warehouse.partition(ITEM_TEMPORAL, AS_OF).toPandas()
    assert bool(gone) == ("churn" in SHAPES[domain])
    assert not set(temporal[temporal.item_available].item_id) & gone


@pytest.mark.soak
@pytest.mark.parametrize("built", ["news"], indirect=True)
def test_news_have_lists_of_a_night_and_of_an_hour(built):
    _, context = built
    nightly(context)
    events = context.warehouse.read(EVENTS).toPandas()
    temporal = context.warehouse.partition(ITEM_TEMPORAL, AS_OF).toPandas()
    available = set(temporal[temporal.item_available].item_id)
    lists = context.warehouse.read(RECOMMENDATIONS_LATEST).toPandas()
    past = events[events.event_ts < pd.Timestamp(AS_OF).tz_localize(None)]
    assert set(lists.user_id) == set(past.user_id) | {"*"}
    assert (lists.groupby("user_id")["rank"].max() == 5).all()
    assert set(lists.item_id) <= available
    assert not set(zip(past.user_id, past.item_id, strict=True)) & set(zip(lists.user_id, lists.item_id, strict=True))
    assert ((lists.valid_until_ts - lists.as_of_ts) == timedelta(days=1)).all()
    hourly(replace(context, as_of=AS_OF + timedelta(hours=1), mode="hourly"))
    fresh = context.warehouse.read(RECOMMENDATIONS_LATEST).where("mode = 'hourly'").toPandas()
    assert "probe" in set(fresh.user_id)
    assert ((fresh.valid_until_ts - fresh.as_of_ts) == timedelta(hours=1)).all()

"""Every feature table against its oracle at several moments of one pass, and against a rewritten future."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from datetime import timedelta

import oracles
import pytest
import worlds
from pyspark.sql import DataFrame

from conf.load import from_tree
from features.contracts import EVENTS, ITEMS, TABLES
from features.history import history
from features.item_sums import item_sums
from features.item_temporal import item_temporal
from features.neighbors import item_neighbors
from features.profiles import user_profiles
from features.repeats import user_item_repeats
from features.sequences import user_sequences
from features.windows import Moments, from_micros, to_micros
from jobs.store.table_io import schema

pytestmark = pytest.mark.spark

NAMES = ("user_sequences", "user_profiles", "user_item_repeats", "item_temporal", "item_neighbors")
NIGHT = worlds.START + timedelta(days=50)
MOMENTS = [NIGHT - timedelta(days=14), NIGHT - timedelta(days=7), NIGHT]
SETTINGS = from_tree(
    {
        "domain": "world",
        "source": {"events": {"path": "-", "columns": {"user_id": "u", "item_id": "i", "event_ts": "t"}}},
        "features": {
            "sequence_length": 12, "repeats_per_user": 5, "categories_per_user": 2, "session_gap": "2h", "neighbors": 4,
            "neighbor_reach": 3, "neighbor_min_events": 8, "neighbor_min_together": 8, "neighbor_session_weight": 2.5,
        },
    }
)  # fmt: skip
F = SETTINGS.features


def frames(spark, events, items) -> tuple[DataFrame, DataFrame]:
    logs = [tuple(getattr(e, name) for name in EVENTS.column_names) for e in events]
    catalogue = [tuple(getattr(i, name, None) for name in ITEMS.column_names) for i in items]
    return spark.createDataFrame(logs, schema(EVENTS)), spark.createDataFrame(catalogue, schema(ITEMS))


def tables(spark, events, items, moments) -> dict[str, DataFrame]:
    log, catalogue = frames(spark, events, items)
    known = history(log, Moments.of(moments), SETTINGS)
    return {
        "user_sequences": user_sequences(known, moments, SETTINGS),
        "user_profiles": user_profiles(known, catalogue, moments, SETTINGS),
        "user_item_repeats": user_item_repeats(known, moments, SETTINGS),
        "item_temporal": item_temporal(item_sums(log, moments), catalogue, moments),
        "item_neighbors": item_neighbors(log, moments, SETTINGS),
    }


def collected(spark, events, items, moments) -> dict[str, dict]:
    """Per table {(as_of micros, *key): row}, with timestamps as epoch microseconds."""
    out = {}
    for name, frame in tables(spark, events, items, moments).items():
        key = TABLES[name].key
        plain = frame.selectExpr(*[_plain(field) for field in frame.schema.fields])
        rows = [row.asDict() for row in plain.collect()]
        out[name] = {tuple(row[k] for k in key): row for row in rows}
        assert len(out[name]) == len(rows), f"{name}: a key occurs twice"
    return out


def _plain(field) -> str:
    kind = field.dataType.simpleString()
    if kind == "timestamp":
        return f"unix_micros({field.name}) AS {field.name}"
    if kind == "array<timestamp>":
        return f"transform({field.name}, x -> unix_micros(x)) AS {field.name}"
    return field.name


def expected(name: str, events, items, as_of) -> dict:
    match name:
        case "user_sequences":
            return oracles.sequences(events, as_of, F.sequence_length, F.session_gap)
        case "user_profiles":
            return oracles.profiles(events, items, as_of, F.session_gap, F.categories_per_user)
        case "user_item_repeats":
            return oracles.repeats(events, as_of, SETTINGS.repeats_per_user)
        case "item_temporal":
            return oracles.temporal(events, items, as_of)
    return oracles.neighbors(
        events,
        as_of,
        F.neighbor_reach,
        F.neighbor_half_life,
        F.neighbor_min_events,
        F.neighbor_min_together,
        F.neighbors,
        F.neighbor_session_weight,
        F.session_gap,
    )


def same(found, wanted, where: str) -> None:
    """Integers, text and times exactly; doubles to 1e-9."""
    if hasattr(wanted, "tzinfo"):
        wanted = to_micros(wanted)
    if isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
            same(one, other, f"{where}[{place}]")
    elif isinstance(wanted, float):
        assert math.isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-9), f"{where}: {found} for {wanted}"
    else:
        assert found == wanted, f"{where}: {found!r} for {wanted!r}"


@pytest.fixture(scope="module")
def world():
    events, items = worlds.shop()
    return events + worlds.edges(MOMENTS), items


@pytest.fixture(scope="module")
def found(spark, world):
    return collected(spark, *world, MOMENTS)


def test_the_world_has_what_the_tests_are_about(world):
    events, _ = world
    seen = oracles.known(events, NIGHT)
    assert any(a.event_ts == b.event_ts and a.user_id == b.user_id for a in seen for b in seen if a is not b), "no tie"
    assert any(e.event_ts < MOMENTS[0] < e.available_ts <= NIGHT for e in seen), "nothing late between moments"
    assert any(e.event_ts < NIGHT < e.available_ts for e in events), "nothing late after the night"
    assert any(e.event_ts >= NIGHT for e in events), "no future"


@pytest.mark.parametrize("name", NAMES)
def test_every_feature_is_what_its_definition_says_at_every_moment(found, world, name):
    for moment in MOMENTS:
        wanted = expected(name, *world, moment)
        at = {
            key[1:] if len(key) > 2 else key[1]: row for key, row in found[name].items() if key[0] == to_micros(moment)
        }
        assert set(at) == set(wanted), f"{name} at {moment}"
        for key, row in wanted.items():
            assert set(row) == set(TABLES[name].column_names) - set(TABLES[name].key)
            for column, value in row.items():
                same(at[key][column], value, f"{name}.{column} of {key} at {moment}")


@pytest.mark.parametrize("moments", [MOMENTS, MOMENTS[-1:]], ids=["many", "one"])
def test_time_spent_is_what_the_events_say_where_their_values_are_seconds(spark, world, moments):
    events, items = world
    events = [replace(e, value=-e.value) if e.value and place % 5 == 0 else e for place, e in enumerate(events)]  # refunds
    assert any(e.value is None for e in events)
    log, catalogue = frames(spark, events, items)
    spent = from_tree(SETTINGS.resolved() | {"features": SETTINGS.resolved()["features"] | {"dwell": "value"}})
    rows = user_profiles(log, catalogue, moments, spent).selectExpr("unix_micros(as_of_ts)", "user_id", "user_dwell_seconds_28d")
    found = {(at, user): seconds for at, user, seconds in rows.collect()}
    for moment in moments:
        wanted = oracles.profiles(events, items, moment, F.session_gap, F.categories_per_user, "value")
        assert {user for at, user in found if at == to_micros(moment)} == set(wanted)
        for user, row in wanted.items():
            same(found[to_micros(moment), user], row["user_dwell_seconds_28d"], f"time spent by {user} at {moment}")


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_a_rewritten_future_changes_no_feature_by_a_byte(spark, world, found, seed):
    """Three moments are asked; everything that the first did not see is rewritten, which may change only the later two."""
    events, items = world
    first = MOMENTS[0]
    now = collected(spark, worlds.poisoned(events, first, seed), items, MOMENTS)
    for name in NAMES:
        before = {k: v for k, v in found[name].items() if k[0] == to_micros(first)}
        after = {k: v for k, v in now[name].items() if k[0] == to_micros(first)}
        assert before == after, name
        assert before
        assert now[name] != found[name], f"{name}: the poison changed nothing anywhere, the test proves nothing"


@pytest.mark.parametrize("moment", [MOMENTS[0], MOMENTS[-1]])
def test_many_moments_in_one_pass_give_the_rows_of_each_alone_to_the_last_byte(spark, world, found, moment):
    alone = collected(spark, *world, [moment])
    for name in NAMES:
        assert alone[name] == {k: v for k, v in found[name].items() if k[0] == to_micros(moment)}, name


def test_the_order_of_rows_is_irrelevant_to_the_last_byte(spark, world, found):
    events, items = world
    shuffled = random.Random(3).sample(events, len(events))
    again = collected(spark, shuffled, items, MOMENTS)
    assert again == found


@pytest.mark.parametrize(("repeat", "rows"), [(True, 300), (False, 320)])
def test_where_items_do_not_repeat_all_that_a_user_had_is_kept(spark, repeat, rows):
    """What has no row there would be recommended again; where items repeat, the favourites are enough."""
    had = [(f"e{k}", "u", f"i{k}", "view", NIGHT - timedelta(hours=k + 1), NIGHT - timedelta(hours=k + 1), None, None, "s") for k in range(320)]
    settings = from_tree(SETTINGS.resolved() | {"repeat_consumption": repeat, "features": {}})
    found = user_item_repeats(spark.createDataFrame(had, schema(EVENTS)), [NIGHT], settings)
    assert {row.item_id for row in found.collect()} == {f"i{k}" for k in range(rows)}


def test_micros_survive_the_way_through_python():
    assert to_micros(from_micros(1_512_086_400_000_001)) == 1_512_086_400_000_001

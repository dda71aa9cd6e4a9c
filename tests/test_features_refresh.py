"""An hour from the sums of the night before it gives the rows that the whole history gives."""

from __future__ import annotations

from datetime import timedelta

import pytest
import test_features as whole
import worlds

from features.contracts import ITEM_TEMPORAL
from features.item_sums import SUMS, item_sums, refreshed_item_sums
from features.item_temporal import item_temporal
from features.windows import visible

pytestmark = pytest.mark.spark
NIGHT = whole.NIGHT  # 13:00 UTC


@pytest.fixture(scope="module")
def log():
    events, items = worlds.shop(seed=5, n=700)
    hours = [NIGHT + timedelta(hours=h) for h in (0, 1, 5, 12, 30)]
    return events + worlds.edges(hours), items


def sides(events, as_of):
    """Before: what the night counted. New: what became visible since, and a few that were delivered after the night only."""
    late = {e.event_id for e in events[::37]}

    def counted(e):
        return e.event_id not in late and e.event_ts < NIGHT and e.available_ts <= NIGHT

    now = [e for e in events if e.event_ts < as_of and e.available_ts <= as_of]
    return [e for e in events if counted(e)], [e for e in now if not counted(e)]


def plain(frame):
    return sorted(frame.selectExpr(*[whole._plain(field) for field in frame.schema.fields]).collect())


@pytest.mark.parametrize(
    ("hours", "same_day"),
    [(5.5, True), (30, False), *(pytest.param(*each, marks=pytest.mark.soak) for each in [(1, True), (12, False), (24, False)])],
    ids=lambda x: str(x),
)
def test_an_hour_from_the_night_equals_the_whole_history(spark, log, hours, same_day):
    events, items = log
    as_of = NIGHT + timedelta(hours=hours)
    past, now = sides(events, as_of)
    assert any(e.event_ts < NIGHT for e in now), "nothing came late, the test proves less"
    before, catalogue = whole.frames(spark, past, items)
    new, _ = whole.frames(spark, now, items)
    everything, _ = whole.frames(spark, events, items)
    refreshed = refreshed_item_sums(item_sums(before, [NIGHT]), before, new, NIGHT, as_of).cache()
    full = item_sums(visible(everything, as_of), [as_of]).cache()
    if same_day:
        assert plain(refreshed) == plain(full)
    integers = [name for name in SUMS if name != "sum_decayed"]
    assert plain(refreshed.select(*integers)) == plain(full.select(*integers))
    assert plain(full) != plain(item_sums(before, [NIGHT]))
    features = [item_temporal(sums, catalogue, [as_of]) for sums in (refreshed, full)]
    for one, other in zip(*map(plain, features), strict=True):
        for name in ITEM_TEMPORAL.column_names:
            found, wanted = one[name], other[name]
            whole.same(found, wanted, f"{name} of {one.item_id}")


def test_what_an_hour_cannot_see_yet_changes_nothing(spark, log):
    """The rows handed over as new may hold the future: what happens, or becomes known, after as_of."""
    events, items = log
    as_of = NIGHT + timedelta(hours=5.5)
    past, now = sides(events, as_of)
    unseen = [e for e in events if e not in past and e not in now]
    assert any(e.event_ts < as_of for e in unseen) and any(e.event_ts >= as_of for e in unseen)
    before, _ = whole.frames(spark, past, items)
    sums = item_sums(before, [NIGHT]).cache()
    new, more = (whole.frames(spark, rows, items)[0] for rows in (now, now + unseen))
    assert plain(refreshed_item_sums(sums, before, new, NIGHT, as_of)) == plain(refreshed_item_sums(sums, before, more, NIGHT, as_of))

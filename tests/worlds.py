"""Small generated worlds, seeded: release-age decay, a rising item, weekly and daily habits, repeat buyers, ties, late and
out-of-order arrivals, a leap over a DST day, and events that lie in the future of every moment that is asked about.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

START = datetime(2024, 2, 20, 13, tzinfo=UTC)  # 2024-03-31 is the DST day of Europe
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Event:
    """One event, as the contract has it."""

    event_id: str
    user_id: str
    item_id: str
    event_type: str
    event_ts: datetime
    available_ts: datetime
    value: float | None
    session_id: str | None
    source: str = "world"


@dataclass(frozen=True)
class Item:
    """One item; the rest of the contract's columns is NULL."""

    item_id: str
    release_ts: datetime | None
    release_known: bool
    available_from: datetime | None
    available_until: datetime | None
    category: str | None


def shop(
    seed: int = 0, users: int = 7, items: int = 12, days: int = 70, n: int = 420
) -> tuple[list[Event], list[Item]]:
    """Events of ``days`` days from START, and a catalogue in which some items lack a release, a category or a row."""
    random = np.random.default_rng(seed)
    events = []
    for number in range(n):
        user = int(random.integers(users))
        day = int(random.integers(days)) // 7 * 7 + user % 7 if random.random() < 0.4 else int(random.integers(days))
        hour = (9 + user) % 24 if random.random() < 0.5 else int(random.integers(24))
        # A rising item, and favourites that a person takes again and again.
        draw = random.random()
        item = 0 if draw < 0.3 * day / days else user if draw < 0.6 else int(random.integers(items))
        when = START + timedelta(days=day, hours=hour, minutes=int(random.integers(0, 60, 1)[0] // 15 * 15))
        if random.random() < 0.2:
            when += timedelta(microseconds=int(random.integers(1_000_000)))
        late = timedelta(0) if random.random() < 0.7 else timedelta(hours=float(random.choice([0.5, 5, 30, 200])))
        kind = str(random.choice(["view", "purchase", "click"]))
        value = None if random.random() < 0.2 else round(float(random.random() * 5), 3)
        session = (
            f"s{user}-{day}"
            if user % 3 == 0
            else None
            if user % 3 == 1 or random.random() < 0.5
            else f"t{user}-{day // 2}"
        )
        events.append(Event(f"e{number:04d}", f"u{user}", f"i{item}", kind, when, when + late, value, session))
    # Someone who was here a generation ago, and whose interest has faded to less than any number.
    events += [Event(f"old{k}", "old", "i2", "view", datetime(1993, 5, 1 + k, tzinfo=UTC), datetime(1993, 5, 1 + k, tzinfo=UTC), 1.0, None) for k in range(2)]
    first = {e.item_id: e.event_ts for e in sorted(events, key=lambda e: e.event_ts, reverse=True)}
    catalogue = [
        Item(
            f"i{k}",
            # As ingest fills a release that the catalogue lacks: with the first event of the whole log, flagged.
            START + timedelta(days=5 * k - 10) if k % 3 else first.get(f"i{k}", START),
            bool(k % 3),
            START + timedelta(days=30) if k == 4 else None,
            START + timedelta(days=35) if k == 5 else None,
            f"c{k % 4}" if k % 5 else None,
        )
        for k in range(1, items + 2)
    ]
    return events, catalogue


def edges(moments: list[datetime]) -> list[Event]:
    """At each moment: one event that happens at it (not visible), one just before it that is known at it (visible), and one
    just before it that is known just after it (not visible)."""
    tick = timedelta(microseconds=1)
    out = []
    for number, moment in enumerate(moments):
        for kind, happened, known in (("at", moment, moment), ("in", moment - tick, moment), ("out", moment - tick, moment + tick)):
            out.append(Event(f"{kind}{number}", "u1", "i2", "purchase", happened, known, 2.0, None))
    return out


def poisoned(events: list[Event], as_of: datetime, seed: int = 1) -> list[Event]:
    """The same log as it was known at as_of, with another future: what was not visible is rewritten, deleted, or joined by more."""
    random = np.random.default_rng(seed)
    out = []
    for event in events:
        if event.event_ts < as_of and event.available_ts <= as_of:
            out.append(event)
        elif random.random() < 0.6:
            known = max(as_of + MINUTE, event.available_ts)
            out.append(Event(event.event_id, "u0", "i1", "click", event.event_ts, known, 999.0, "poison"))
    extra = [
        Event(f"p{k}", f"u{k % 9}", f"i{k % 20}", "purchase", as_of + k * MINUTE, as_of + k * MINUTE, 7.0, None)
        for k in range(40)
    ]
    # The sharpest cases: at as_of itself, and a moment before but known a moment after.
    edge = as_of - timedelta(microseconds=1)
    extra.append(Event("q0", "u1", "i2", "purchase", edge, as_of + timedelta(microseconds=1), 7.0, None))
    out += extra
    random.shuffle(out)  # type: ignore[arg-type]
    return out

"""Every feature once more, in plain Python and by the definition: slow, short, and independent of Spark.

Each function takes all events and one as_of, and returns rows as {key: {column: value}}.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median

from worlds import Event, Item

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WINDOWS = {"1h": HOUR, "6h": 6 * HOUR, "1d": DAY, "7d": 7 * DAY, "28d": 28 * DAY}
ITEM_HALF_LIVES = {**WINDOWS, "3d": 3 * DAY, "180d": 180 * DAY}
REPEAT_HALF_LIVES = {"1d": DAY, "7d": 7 * DAY, "28d": 28 * DAY, "90d": 90 * DAY, "365d": 365 * DAY}
TYPES = ("view", "click", "play", "cart", "purchase", "rate", "share", "other")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def known(events: list[Event], as_of: datetime) -> list[Event]:
    seen = [e for e in events if e.event_ts < as_of and e.available_ts <= as_of]
    return sorted(seen, key=lambda e: (e.event_ts, e.event_id))


def by(events: list[Event], *names: str) -> dict:
    groups = defaultdict(list)
    for event in events:
        key = tuple(getattr(event, name) for name in names)
        groups[key[0] if len(key) == 1 else key].append(event)
    return groups


def decayed(events: list[Event], as_of: datetime, half_life: timedelta) -> float:
    return math.fsum(0.5 ** ((as_of - e.event_ts) / half_life) for e in events)


def begins(mine: list[Event], gap: timedelta) -> list[bool]:
    """A session begins where the source's session changes or, where either has none, after a gap or with the change."""
    out = [True]
    for a, b in pairwise(mine):
        if a.session_id is not None and b.session_id is not None:
            out.append(a.session_id != b.session_id)
        else:
            out.append((a.session_id is None) != (b.session_id is None) or b.event_ts - a.event_ts > gap)
    return out


def sequences(events: list[Event], as_of: datetime, length: int, gap: timedelta) -> dict:
    rows = {}
    for user, mine in by(known(events, as_of), "user_id").items():
        tail, starts = mine[-length:], begins(mine, gap)[-length:]
        rows[user] = {
            "item_ids": [e.item_id for e in tail],
            "event_types": [e.event_type for e in tail],
            "event_tss": [e.event_ts for e in tail],
            "event_values": [e.value for e in tail],
            "session_starts": starts,
            "sequence_events": len(mine),
        }
    return rows


def repeats(events: list[Event], as_of: datetime, most: int) -> dict:
    rows = {}
    for user, theirs in by(known(events, as_of), "user_id").items():
        pairs = by(theirs, "item_id")
        order = sorted(pairs, key=lambda item: (-decayed(pairs[item], as_of, 90 * DAY), item))
        for item in order[:most]:
            mine = pairs[item]
            times = sorted({e.event_ts for e in mine})
            rows[user, item] = {
                "repeat_count": len(mine),
                "repeat_value": math.fsum(e.value or 0 for e in mine),
                "repeat_first_ts": times[0],
                "repeat_last_ts": times[-1],
                "repeat_gap_days": median((b - a) / DAY for a, b in pairwise(times)) if len(times) > 1 else None,
                **{f"repeat_decayed_{h}": decayed(mine, as_of, x) for h, x in REPEAT_HALF_LIVES.items()},
            }
    return rows


def profiles(
    events: list[Event], items: list[Item], as_of: datetime, gap: timedelta, most: int, dwell: str = "gaps"
) -> dict:
    category = {i.item_id: i.category for i in items if i.category is not None}
    rows = {}
    for user, mine in by(known(events, as_of), "user_id").items():
        row: dict = {}
        windows = {**WINDOWS, "all": timedelta(days=100_000)}
        for w, span in windows.items():
            row[f"user_events_{w}"] = sum(e.event_ts >= as_of - span for e in mine)
            for t in TYPES:
                row[f"user_{t}_{w}"] = sum(e.event_ts >= as_of - span and e.event_type == t for e in mine)
        sessions: list[list[Event]] = []
        for event, start in zip(mine, begins(mine, gap), strict=True):
            if start:
                sessions.append([])
            sessions[-1].append(event)

        def spent(session: list[Event]) -> float:
            if dwell == "value":
                return math.fsum(max(e.value or 0, 0) for e in session)
            return (session[-1].event_ts - session[0].event_ts).total_seconds()

        recent = [s for s in sessions if s[0].event_ts >= as_of - 28 * DAY]
        days = {e.event_ts.date() for e in mine}
        long = Counter()
        for event in mine:
            if event.item_id in category:
                long[category[event.item_id]] += 0.5 ** ((as_of - event.event_ts) / (28 * DAY))
        short = Counter(category[e.item_id] for e in sessions[-1] if e.item_id in category)
        row |= {
            "user_items_all": len({e.item_id for e in mine}),
            "user_sessions_28d": len(recent),
            "user_sessions_all": len(sessions),
            "user_dwell_seconds_28d": sum(map(spent, recent)),
            "user_depth_items": sum(len({e.item_id for e in s}) for s in sessions) / len(sessions),
            "user_depth_categories": sum(
                len({category[e.item_id] for e in s if e.item_id in category}) for s in sessions
            )
            / len(sessions),
            "user_recency_days": (as_of - mine[-1].event_ts) / DAY,
            "user_tenure_days": (as_of - mine[0].event_ts) / DAY,
            "user_cadence_days": (max(days) - min(days)).days / (len(days) - 1) if len(days) > 1 else None,
            "user_hour_habit": [sum(e.event_ts.hour == h for e in mine) / len(mine) for h in range(24)],
            "user_weekday_habit": [sum(e.event_ts.weekday() == d for e in mine) / len(mine) for d in range(7)],
        }
        for name, weights in (("long", long), ("short", short)):
            if sum(weights.values()) < 2.0**-62:  # 62 half-lives ago: less than the smallest number that is kept
                weights = Counter()
            best = sorted(weights, key=lambda k: (-weights[k], k))[:most]
            row[f"user_{name}_categories"] = best
            row[f"user_{name}_weights"] = [weights[k] / sum(weights.values()) for k in best]
        rows[user] = row
    return rows


def temporal(events: list[Event], items: list[Item], as_of: datetime) -> dict:
    catalogue = {i.item_id: i for i in items}
    sold = by(known(events, as_of), "item_id")
    stated = {k: i.release_ts for k, i in catalogue.items() if i.release_known and i.release_ts <= as_of}
    rows = {}
    for item in set(sold) | set(stated):
        mine, meta = sold.get(item, []), catalogue.get(item)
        first = mine[0].event_ts if mine else None
        release = min(t for t in (first, stated.get(item)) if t is not None)
        ago = [as_of - e.event_ts for e in mine]
        days = [sum((k - 1) * DAY < a <= k * DAY for a in ago) for k in range(56, 0, -1)]
        hours = [sum((k - 1) * HOUR < a <= k * HOUR for a in ago) for k in range(48, 0, -1)]
        rate = {w: sum(a <= WINDOWS[w] for a in ago) / (WINDOWS[w] / DAY) for w in ("1d", "7d", "28d")}
        short = math.log((rate["1d"] + 1 / 7) / (rate["7d"] + 1 / 7))
        long = math.log((rate["7d"] + 1 / 28) / (rate["28d"] + 1 / 28))
        age = (as_of - release) / DAY
        since = float(days[::-1].index(max(days))) if max(days) else None
        gaps = [b.event_ts - a.event_ts for theirs in by(mine, "user_id").values() for a, b in pairwise(theirs)]
        begun = meta is None or meta.available_from is None or meta.available_from <= as_of
        over = meta is not None and meta.available_until is not None and meta.available_until <= as_of
        rows[item] = {
            "item_release_ts": release,
            "item_release_known": item in stated and (first is None or stated[item] <= first),
            "item_age_days": age,
            "item_available": begun and not over,
            "item_sales_all": len(mine),
            "item_users_28d": len({e.user_id for e in mine if e.event_ts >= as_of - 28 * DAY}),
            **{f"item_sales_{w}": sum(a <= span for a in ago) for w, span in WINDOWS.items()},
            **{f"item_decayed_{h}": decayed(mine, as_of, x) for h, x in ITEM_HALF_LIVES.items()},
            "item_trend_1d_7d": short,
            "item_trend_7d_28d": long,
            "item_acceleration": short - long,
            "item_idle_days": min(ago) / DAY if ago else None,
            "item_days_since_peak": since,
            "item_life_stage": stage(age, long, since),
            **cycle("daily", mine, DAY, EPOCH, 24),
            **cycle("weekly", mine, 7 * DAY, EPOCH + 4 * DAY, 7),
            "item_repurchase_days": sum(gaps, timedelta()) / len(gaps) / DAY if gaps else None,
            "item_hours": hours,
            "item_days": days,
        }
    return rows


def stage(age: float, trend: float, since: float | None) -> str:
    if age < 7:
        return "new"
    if trend > 0.2:
        return "peak" if since is not None and since < 2 else "rising"
    return "falling" if trend < -0.2 else "evergreen"


def cycle(name: str, mine: list[Event], period: timedelta, origin: datetime, units: float) -> dict:
    angles = [2 * math.pi * (((e.event_ts - origin) % period) / period) for e in mine]
    x, y = math.fsum(map(math.cos, angles)), math.fsum(map(math.sin, angles))
    return {
        f"item_{name}_strength": min(1.0, math.hypot(x, y) / len(mine)) if mine else 0.0,
        f"item_{name}_phase": math.atan2(y, x) / (2 * math.pi) % 1 * units if mine else 0.0,
    }


def neighbors(
    events: list[Event], as_of: datetime, reach: int, half_life: timedelta, least: int, together: int, most: int,
    in_session: float, gap: timedelta,
) -> dict:  # fmt: skip
    """Meetings of an event with the ``reach`` before it, in the order in which they became known."""

    def same_session(a: Event, b: Event) -> bool:
        if a.session_id is None and b.session_id is None:
            return abs(a.event_ts - b.event_ts) <= gap
        return a.session_id == b.session_id

    seen = known(events, as_of)
    counts = Counter(e.item_id for e in seen)
    weight = {
        item: decayed(mine, as_of, half_life) for item, mine in by(seen, "item_id").items() if counts[item] >= least
    }
    met: Counter = Counter()
    times: Counter = Counter()
    for mine in by(seen, "user_id").values():
        mine = sorted(mine, key=lambda e: (max(e.event_ts, e.available_ts), e.event_ts, e.event_id))
        for place, event in enumerate(mine):
            for steps, other in enumerate(reversed(mine[max(0, place - reach) : place])):
                if other.item_id != event.item_id and {event.item_id, other.item_id} <= set(weight):
                    pair = frozenset((event.item_id, other.item_id))
                    near = (in_session if same_session(event, other) else 1) / math.sqrt(steps + 1)
                    met[pair] += near * 0.5 ** ((as_of - event.event_ts) / half_life)
                    times[pair] += 1
    beside = defaultdict(list)
    for pair, total in met.items():
        if times[pair] >= together:
            a, b = sorted(pair)
            similar = total / (math.sqrt(weight[a] * weight[b]) + 1)
            beside[a].append((-similar, b))
            beside[b].append((-similar, a))
    return {
        (item, other): {"neighbor_weight": -less, "neighbor_rank": rank}
        for item, others in beside.items()
        for rank, (less, other) in enumerate(sorted(others)[:most], start=1)
    }

"""Generated worlds of any size: each column is a function of the row's number and the seed, so that a log of 60 million
events needs no shuffle and is the same however it is partitioned. The small worlds that oracles read are in worlds.py.

    python tests/worlds_spark.py --out worlds --events 20000000 --users 500000 --items 100000 --days 30 --uniform
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from conf import columns as c
from conf.settings import Spark
from features.contracts import EVENTS, ITEMS

START = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday
START_US = int(START.timestamp()) * 1_000_000
HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000
CATEGORIES = 10
VANISHES = (7, 3)  # items with number % 7 == 3 may vanish; their neighbour before never does
FAVOURITES = 3
TRIES = 3


@dataclass(frozen=True)
class Effects:
    """What is planted; by default nothing is: every user, item and moment is as likely as any other."""

    popularity: float = 0.0  # an item's chance falls with its rank to the power of this; 0 to below 1
    activity: float = 0.0  # the same for users
    release_decay: float | None = None  # items are released all the time; mean age (days) of what is taken
    trends: bool = False  # a third of the items rises from nothing, a third falls to nothing
    item_hours: bool = False  # items are taken near their own hour of the day
    daily: float = 0.0  # share of events in the user's own hour
    weekly: float = 0.0  # share of events on the user's own weekday
    drift: float = 0.0  # share of events in the user's own category, which changes over the log
    churn: bool = False  # one item in seven vanishes and is not taken afterwards
    repeats: float = 0.0  # share of events that are a favourite, taken at regular gaps
    repeaters: float = 0.2  # share of users who have favourites
    bots: int = 0  # users who take something at machine-regular gaps ...
    bot_events: float = 0.1  # ... and make this share of all events
    late: float = 0.0  # share of events that become known up to two days later
    duplicates: float = 0.0  # share of rows that are a second delivery of another row's event
    hot_user: int = 0  # events of user u0, beside what chance gives
    hot_item: float = 0.0  # share of the other events that go to item i0


#: All effects of people and items; without delivery faults and without the extremes that benchmarks ask for.
LIVELY: dict[str, Any] = {
    "popularity": 0.7, "activity": 0.5, "release_decay": 10.0, "trends": True, "item_hours": True, "daily": 0.4,
    "weekly": 0.3, "drift": 0.5, "churn": True, "repeats": 0.15, "bots": 5, "bot_events": 0.02,
}  # fmt: skip


def events(
    spark: SparkSession,
    n: int,
    users: int,
    items: int,
    days: int,
    seed: int,
    partitions: int | None = None,
    **effects: Any,
) -> DataFrame:
    """``n`` rows of the contract ``events``, roughly in the order of time."""
    world = _World(n, users, items, days, seed, Effects(**effects))
    return world.events(spark.range(0, n, 1, partitions or max(2, n // 2_000_000)))


def items(spark: SparkSession, n: int, days: int, seed: int, **effects: Any) -> DataFrame:
    """The ``n`` rows of the contract ``items`` that belong to ``events`` with the same numbers and effects."""
    return _World(1, 1, n, days, seed, Effects(**effects)).catalogue(spark.range(0, n, 1, 2))


@dataclass(frozen=True)
class _World:
    n: int
    users: int
    items: int
    days: int
    seed: int
    effects: Effects

    # Row numbers tell what kind of event a row is: [0, repeat) favourites, then bots, then the hot user, then the rest.
    @property
    def _ends(self) -> tuple[int, int, int]:
        e = self.effects
        favourites = int(self.n * e.repeats)
        bots = favourites + (int(self.n * e.bot_events) if e.bots else 0)
        return favourites, bots, bots + e.hot_user

    @property
    def _people(self) -> int:
        return self.users - self.effects.bots

    def events(self, rows: DataFrame) -> DataFrame:
        key = F.col("key")
        again = self._draw("again", F.col("id")) < self.effects.duplicates
        known = rows.withColumn("key", F.when(again, F.greatest(F.col("id") - 1, F.lit(0))).otherwise(F.col("id")))
        what = self._with_item(self._with_time(known.withColumn("user", self._user())))
        delay = F.floor(self._draw("delay") * 2 * DAY_US)
        late = F.when(self._draw("late") < self.effects.late, delay).otherwise(F.lit(0))
        second = F.when(F.col("id") != key, F.lit(60_000_000)).otherwise(F.lit(0))
        kind = self._draw("type")
        purchase = kind >= 0.9
        columns = {
            c.EVENT_ID: F.concat(F.lit("e"), key),
            c.USER_ID: F.concat(F.lit("u"), F.col("user")),
            c.ITEM_ID: F.concat(F.lit("i"), F.col("item")),
            c.EVENT_TYPE: F.when(purchase, "purchase")
            .when(kind >= 0.8, "cart")
            .when(kind >= 0.5, "click")
            .otherwise("view"),
            c.EVENT_TS: F.timestamp_micros(F.col("us") + START_US),
            c.AVAILABLE_TS: F.timestamp_micros(F.col("us") + START_US + late + second),
            c.VALUE: F.when(purchase, F.floor(self._draw("value") * 5) + 1.0),
            c.SESSION_ID: F.concat(F.lit("u"), F.col("user"), F.lit("-"), F.expr(f"us div {DAY_US}")),
            c.SOURCE: F.lit("world"),
        }  # fmt: skip
        return what.select(*[columns[name.name].cast(name.type).alias(name.name) for name in EVENTS.columns])

    def catalogue(self, rows: DataFrame) -> DataFrame:
        number = F.col("id")
        gone = F.timestamp_micros(self._vanish_us(number) + START_US)
        known = {
            c.ITEM_ID: F.concat(F.lit("i"), number),
            c.RELEASE_TS: F.timestamp_micros(self._release_us(number) + START_US),
            c.RELEASE_KNOWN: F.lit(True),
            c.AVAILABLE_UNTIL: F.when(_may_vanish(number), gone) if self.effects.churn else F.lit(None),
            c.TITLE: F.concat(F.lit("Item "), number),
            c.CATEGORY: F.concat(F.lit("c"), number % CATEGORIES),
            c.PRICE: F.round(1 + 99 * self._draw("price", number), 2),
        }
        return rows.select(*[known.get(k.name, F.lit(None)).cast(k.type).alias(k.name) for k in ITEMS.columns])

    def _draw(self, what: str, *key: Column) -> Column:
        """A number in [0, 1) that depends on the seed, on what it is for, and on the key (the event, if not said)."""
        hashed = F.xxhash64(*(key or (F.col("key"),)), F.lit(self.seed), F.lit(what))
        return F.shiftrightunsigned(hashed, 11) * F.lit(2.0**-53)

    def _kind(self, favourite: Column, bot: Column, hot: Column, other: Column) -> Column:
        """One of four columns, by the row's number."""
        choice = None
        for end, before, column in zip(self._ends, (0, *self._ends[:2]), (favourite, bot, hot), strict=True):
            if end > before:
                holds = F.col("key") < end
                choice = F.when(holds, column) if choice is None else choice.when(holds, column)
        return other if choice is None else choice.otherwise(other)

    @property
    def _repeaters(self) -> int:
        return max(1, int(self._people * self.effects.repeaters))

    def _user(self) -> Column:
        favourites = self._ends[0]
        other = F.floor(self._people * _skew(self._draw("user"), self.effects.activity))
        bot = self._people + (F.col("key") - favourites) % max(1, self.effects.bots)
        return self._kind(F.col("key") % self._repeaters, bot, F.lit(0), other).cast("bigint")

    def _with_time(self, rows: DataFrame) -> DataFrame:
        """``us``: microseconds since START, in [0, days). Habits move a moment within its week or its day."""
        e, user, us, span = self.effects, F.col("user"), F.col("us"), self.days * DAY_US
        favourites, bots, hot = self._ends
        place = (F.col("key") - hot + self._draw("moment")) / max(1, self.n - hot)
        rows = rows.withColumn("us", F.floor(place * span))
        if e.weekly:
            own = us - us % (7 * DAY_US) + F.floor(self._draw("weekday", user) * 7) * DAY_US + us % DAY_US
            chosen = (self._draw("weekly") < e.weekly) & (own < span)
            rows = rows.withColumn("us", F.when(chosen, own).otherwise(us))
        if e.daily:
            own = us - us % DAY_US + F.floor(self._draw("hour", user) * 24) * HOUR_US + us % HOUR_US
            rows = rows.withColumn("us", F.when(self._draw("daily") < e.daily, own).otherwise(us))
        if not hot:
            return rows
        # The k-th time of a favourite and the j-th event of a bot come at regular gaps, from a phase of their own.
        each = max(1, favourites // (self._repeaters * FAVOURITES))
        gap = span * 0.9 / (each + 1) * (0.6 + 0.4 * self._draw("gap", user, self._favourite))
        wobble = 0.05 * self._draw("wobble") + 0.5 * self._draw("phase", user, self._favourite)
        often = F.floor(gap * (F.expr(f"key div {self._repeaters * FAVOURITES}") + wobble))
        step = span // (max(1, bots - favourites) // max(1, e.bots) + 2)
        tick = F.expr(f"(key - {favourites}) div {max(1, e.bots)}") * step + F.floor(self._draw("phase", user) * step)
        return rows.withColumn("us", self._kind(often, tick, F.floor(self._draw("moment") * span), us).cast("bigint"))

    @property
    def _favourite(self) -> Column:
        return F.expr(f"key div {self._repeaters}") % FAVOURITES

    def _with_item(self, rows: DataFrame) -> DataFrame:
        """``item``: the first candidate that passes, or the last; what has vanished gives way to its neighbour."""
        e, item = self.effects, F.col("item")
        last = TRIES - 1 if e.trends or e.item_hours else 0
        for attempt in range(last + 1):
            rows = self._with_candidate(rows, f"try_{attempt}")
        other = F.col(f"try_{last}")
        for attempt in reversed(range(last)):
            candidate = F.col(f"try_{attempt}")
            other = F.when(self._draw(f"pass {attempt}") < self._weight(candidate), candidate).otherwise(other)
        if e.hot_item:
            other = F.when(self._draw("hot item") < e.hot_item, F.lit(0)).otherwise(other)
        # Favourites are of the first tenth of the catalogue, which was released before the log begins.
        favourite = F.floor(self._draw("favourite", F.col("user"), self._favourite) * max(1, self.items // 10))
        rows = rows.withColumn("item", self._kind(favourite, F.col("try_0"), F.col("try_0"), other).cast("bigint"))
        gone = _may_vanish(item) & (self._vanish_us(item) <= F.col("us"))
        return rows.withColumn("item", F.when(gone, item - 1).otherwise(item)) if e.churn else rows

    def _with_candidate(self, rows: DataFrame, name: str) -> DataFrame:
        """An item that is there at that moment, before trends and hours have their say."""
        e, us, found = self.effects, F.col("us"), F.col(name)
        skewed = _skew(self._draw(f"item {name}"), e.popularity)
        if e.release_decay is None:
            rows = rows.withColumn(name, F.floor(skewed * self.items))
        else:
            since = us + self._before_us
            age = F.floor(-F.log(1 - self._draw(f"age {name}")) * (e.release_decay * DAY_US))
            born = F.floor((since - age % since) / self._block_us)
            rows = rows.withColumn("block", F.least(born, F.lit(self._blocks - 1)))
            first = F.floor(F.col("block") * self.items / self._blocks)
            size = F.floor((F.col("block") + 1) * self.items / self._blocks) - first
            rows = rows.withColumn(name, first + F.floor(skewed * size))
        if not e.drift:
            return rows
        early, later = (F.floor(self._draw(what, F.col("user")) * CATEGORIES) for what in ("taste", "later taste"))
        taste = F.when(self._draw("taste when") * (self.days * DAY_US) < us, later).otherwise(early)
        own = found - F.pmod(found - taste, F.lit(CATEGORIES))  # never a later item, which might not be released yet
        chosen = (self._draw("drift") < e.drift) & (own >= 0)
        return rows.withColumn(name, F.when(chosen, own).otherwise(found))

    def _weight(self, item: Column) -> Column:
        weight = F.lit(1.0)
        if self.effects.trends:
            place = F.col("us") / (self.days * DAY_US)
            kind = trend(item)
            weight = weight * F.when(kind == 1, place).when(kind == 2, 1 - place).otherwise(0.5)
        if self.effects.item_hours:
            off = F.abs(F.expr(f"us div {HOUR_US}") % 24 - self.item_hour(item))
            weight = weight * F.when(F.least(off, 24 - off) <= 3, 1.0).otherwise(0.2)
        return weight

    def item_hour(self, item: Column) -> Column:
        return F.floor(self._draw("item hour", item) * 24)

    @property
    def _before_us(self) -> int:
        """The catalogue begins as long before the log as the log is long."""
        return self.days * DAY_US

    @property
    def _blocks(self) -> int:
        """Items are released in blocks, one an hour where there are enough of them."""
        return min(self.items, 2 * self.days * 24)

    @property
    def _block_us(self) -> int:
        return 2 * self.days * DAY_US // self._blocks

    def _release_us(self, item: Column) -> Column:
        if self.effects.release_decay is None:
            return F.floor(item * (self._before_us / self.items)) - self._before_us
        return F.floor(((item + 1) * self._blocks - 1) / self.items) * self._block_us - self._before_us

    def _vanish_us(self, item: Column) -> Column:
        alive = F.floor(self._draw("life", item) * self.days * DAY_US)
        return F.greatest(self._release_us(item), F.lit(0)) + alive


def trend(item: Column) -> Column:
    """0: level, 1: rising, 2: falling; where trends are planted."""
    return item % 3


def _may_vanish(item: Column) -> Column:
    every, which = VANISHES
    return item % every == which


def _skew(uniform: Column, exponent: float) -> Column:
    """A number in [0, 1) whose density falls as x to the power of -exponent."""
    return F.pow(uniform, F.lit(1 / (1 - exponent))) if exponent else uniform


def main(arguments: list[str] | None = None) -> None:
    """Write a world as parquet: FOLDER/events with the columns of a raw log, FOLDER/items."""
    from jobs.spark.session import open_session

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True)
    for name, default in (("events", 1_000_000), ("users", 20_000), ("items", 10_000), ("days", 30), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--uniform", action="store_true", help="no effect of people and items")
    parser.add_argument("--hot-user", type=int, default=0, help="events of user u0")
    parser.add_argument("--hot-item", action="store_true", help="half of the events go to item i0")
    parser.add_argument("--memory", default="2g", help="of Spark's driver")
    given = parser.parse_args(arguments)
    effects = ({} if given.uniform else LIVELY) | {"hot_user": given.hot_user, "hot_item": 0.5 * given.hot_item}
    spark = open_session(Spark(driver_memory=given.memory), "kairos-world")
    log = events(spark, given.events, given.users, given.items, given.days, given.seed, **effects)
    raw = log.select("user_id", "item_id", "event_ts", "event_type", "value", "session_id")
    raw.write.mode("overwrite").parquet(str(given.out / "events"))
    catalogue = items(spark, given.items, given.days, given.seed, **effects)
    known = catalogue.select("item_id", "title", "category", "price", "release_ts", "available_until")
    known.write.mode("overwrite").parquet(str(given.out / "items"))
    spark.stop()


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(f"written in {time.monotonic() - began:.0f} s")

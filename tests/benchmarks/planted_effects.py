"""The worlds: each is the base world with one effect that one component of the model is meant for."""

from __future__ import annotations

import numpy as np
from planted import Past, World


class Freshness(World):
    """Half of the users chase what was just released, the other half wait until it has settled.

    What an item is worth depends on its age, and to each user in another way: its vector must move with time.
    """

    name, planted = "freshness", ("use_item_time",)

    def plant(self, random: np.random.Generator) -> None:
        self.released = random.uniform(-20, self.as_of + 1, self.items)
        self.until = np.maximum(self.released, 0) + random.exponential(80, self.items)
        self.lean = random.choice([-3.0, 3.0], self.users)

    def lift(self, rows: np.ndarray, now: np.ndarray, past: Past) -> np.ndarray:
        age = np.maximum(now[:, None] - self.released, 0)
        return self.lean[rows, None] * np.exp(-age / 4)


class Tired(World):
    """Whoever took of a category is tired of it for two and a half days, and longs for it from the fourth to the eighth."""

    name, planted = "tired", ("use_interaction", "use_time_gaps")

    def lift(self, rows: np.ndarray, now: np.ndarray, past: Past) -> np.ndarray:
        age = now[:, None] - past.when[rows]
        who, at = np.nonzero(age < 8)
        category = self.category[past.item[rows[who], at]]
        tired, longing = (np.zeros((len(rows), self.categories), bool) for _ in range(2))
        for told, fits in ((tired, age[who, at] < 2.5), (longing, age[who, at] >= 4)):
            told[who[fits], category[fits]] = True
        return (2.5 * longing - 3.0 * tired)[:, self.category]


class Editions(World):
    """The items of a category are editions of one thing, and only the newest is wanted.

    New ones come late in the evening, so that at midnight nobody has taken one: only what is beside an edition on the slate
    tells that it is out of date.
    """

    name, planted = "editions", ("use_slate",)
    categories, items = 24, 700

    def plant(self, random: np.random.Generator) -> None:
        self.category = np.sort(random.integers(self.categories, size=self.items))
        night = random.integers(-11, self.as_of + 1, self.items)
        self.released = np.where(night < -1, night, night + 23 / 24 + random.uniform(0, 1 / 48, self.items))
        self.until = np.full(self.items, np.inf)
        self.popularity = random.normal(0, 0.5, self.categories)[self.category]
        order = np.lexsort((self.released, self.category))
        after = np.append(order[1:], order[0])
        self.replaced = np.full(self.items, np.inf)
        same = self.category[order] == self.category[after]
        self.replaced[order[same]] = self.released[after[same]]

    def lift(self, rows: np.ndarray, now: np.ndarray, past: Past) -> np.ndarray:
        return np.where(now[:, None] >= self.replaced, -5.0, 0.0)


class Refills(World):
    """Each user has four things that are used up, each after a time of its own, and are then bought again."""

    name, planted = "refills", ("use_repeats",)
    repeats = True

    def plant(self, random: np.random.Generator) -> None:
        self.own = random.random((self.users, self.items)).argsort(axis=1)[:, :4]
        self.released, self.until = np.full(self.items, -1.0), np.full(self.items, np.inf)  # what is used up stays on offer
        self.gap = random.uniform(4, 14, (self.users, 4))
        self.first = random.uniform(0, 14, (self.users, 4))

    def lift(self, rows: np.ndarray, now: np.ndarray, past: Past) -> np.ndarray:
        same = past.item[rows][:, None, :] == self.own[rows][:, :, None]
        last = np.where(same, past.when[rows][:, None, :], -np.inf).max(axis=2)
        due = np.where(np.isfinite(last), last + self.gap[rows], self.first[rows])
        out = np.zeros((len(rows), self.items))
        np.put_along_axis(out, self.own[rows], np.where(now[:, None] >= due, 6.0, -6.0), axis=1)
        return out


class Weekdays(World):
    """Each user takes of one category on Mondays, of another on Tuesdays, and so on; item by item all days are alike."""

    name, planted = "weekdays", ("use_interaction", "use_time_gaps")

    def plant(self, random: np.random.Generator) -> None:
        self.habit = random.integers(self.categories, size=(self.users, 7))

    def lift(self, rows: np.ndarray, now: np.ndarray, past: Past) -> np.ndarray:
        today = self.habit[rows, now.astype(int) % 7]
        return 3.0 * (self.category == today[:, None])


class News(World):
    """Thirty items a day, of which little is wanted after two; no categories; users join all the time, some after as_of."""

    name = "news"
    categories_told = False
    items = 2000

    def plant(self, random: np.random.Generator) -> None:
        self.released = np.sort(random.uniform(-5, self.as_of + 1, self.items))
        self.until = np.full(self.items, np.inf)
        late = random.random(self.users)
        self.since = np.select([late < 0.05, late < 0.2], [self.as_of, random.uniform(self.as_of - 3, self.as_of, self.users)])
        self.rate = np.where(self.since > 0, 1.5, self.rate)

    def lift(self, rows: np.ndarray, now: np.ndarray, past: Past) -> np.ndarray:
        return -1.5 * np.maximum(now[:, None] - self.released, 0)


WORLDS: dict[str, type[World]] = {world.name: world for world in (World, Freshness, Tired, Editions, Refills, Weekdays)}

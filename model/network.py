"""Puts the parts together: the encoder (x̂, ŷ and the retrieval score) and the ranker (g, h)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from conf.settings import Model as ModelSettings
from model.catalogue import Catalogue
from model.item_state import DECAYED, FEATURE_AT, FEATURES, ItemState
from model.item_temporal import ItemTable, ItemTower
from model.pairs import Pairs
from model.user_interest import UserInterest
from model.users import Repeats, UserBatch

_POPULAR = (*DECAYED, "item_age_days", "item_freshness", "item_idle_days")
_FLOOR = 0.02


class Encoder(nn.Module):
    """Retrieval: score(user, item) = x̂·ŷ + popularity(item, now) + repeat(user, item)."""

    def __init__(self, vocabulary: int, content_width: int, settings: ModelSettings):
        super().__init__()
        self.settings = settings
        self.items = ItemTower(vocabulary, content_width, settings)
        self.users = UserInterest(settings)
        # x̂·ŷ is a lift over the popularity of the time, so the term starts as the mean of the logged decayed sums.
        weight = torch.zeros(len(_POPULAR))
        weight[: len(DECAYED)] = 1 / len(DECAYED)
        self.popularity_weight = nn.Parameter(weight)
        self.repeat_weight = nn.Parameter(torch.full((6,), 0.3))

    def popularity(self, state: ItemState, rows: np.ndarray | slice = slice(None)) -> Tensor:
        """The popularity term of items at a moment, (items,)."""
        columns = state.features[rows][:, [FEATURE_AT[name] for name in _POPULAR]]
        return torch.from_numpy(columns) @ self.popularity_weight

    def repeat(self, repeats: Repeats) -> Tensor:
        """The repeat term of (user, item) pairs, (pairs,)."""
        logs = np.log(repeats.decayed + _FLOOR) - np.log(_FLOOR)
        rows = torch.from_numpy(np.column_stack([logs, np.log1p(repeats.count)]).astype(np.float32))
        return (rows @ self.repeat_weight) * self.settings.use_repeats

    @torch.no_grad()
    def repeat_pairs(self, repeats: Repeats, items: int) -> Pairs:
        """The repeat term as pairs with one channel."""
        return Pairs.gather(repeats.user, repeats.item, self.repeat(repeats).numpy()[:, None], items)

    def interest(self, users: UserBatch, table: ItemTable, catalogue: Catalogue, as_of_us: int) -> Tensor:
        """x̂ of users at a moment, (B, D)."""
        item = torch.from_numpy(users.item.astype(np.int64))
        vectors = self.items.what(table, item.clamp(min=0)) * (item >= 0)[..., None]
        us = torch.from_numpy(users.us)
        length = torch.from_numpy(users.length)
        states = self.users.states(
            vectors,
            torch.from_numpy(users.kind.astype(np.int64)),
            us,
            torch.from_numpy(users.value),
            torch.from_numpy(users.start),
        )
        last_us = us[torch.arange(len(us)), (length - 1).clamp(min=0)]
        now = torch.full_like(last_us, as_of_us)
        age = torch.where(length > 0, now - last_us, 0)
        return self.users.query(self.users.last(states, length), age, now, self._long(users, table, catalogue))

    def _long(self, users: UserBatch, table: ItemTable, catalogue: Catalogue) -> Tensor:
        mine = users.repeats
        weight = torch.from_numpy(mine.decayed[:, -2].astype(np.float32))
        user = torch.from_numpy(mine.user)
        total = torch.zeros(len(users)).index_add_(0, user, weight).clamp(min=1e-6)
        vectors = self.items.what(table, torch.from_numpy(mine.item))
        vectors = vectors * (weight / total[user])[:, None]
        habit = torch.zeros(len(users), vectors.shape[1]).index_add_(0, user, vectors)
        bucket = torch.from_numpy(np.append(catalogue.category_bucket, 0).astype(np.int64)[users.long_code])
        share = torch.from_numpy(users.long_weight)[..., None]
        category = (self.items.facet(bucket) * share).sum(dim=1)
        return self.users.profile(torch.from_numpy(users.profile), habit, category)

    @torch.no_grad()
    def fit_scales(self, state: ItemState, users: UserBatch) -> None:
        """Fix the scales of inputs from the oldest anchor's items and users."""
        if self.settings.use_item_time:
            self.items.series.scale.fit(torch.from_numpy(state.features[state.available]))
        self.users.scale.fit(torch.from_numpy(users.profile))


def feature_count() -> int:
    """Width of an item's statistics; part of the schema of a stored model."""
    return len(FEATURES)

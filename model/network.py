"""Puts the parts together: the encoder (x̂, ŷ and the retrieval score) and the ranker (g, h)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from conf.settings import Model as ModelSettings
from model.as_of.catalogue import Catalogue
from model.as_of.item_state import DECAYED, FEATURE_AT, FEATURES, ItemState
from model.as_of.pairs import Pairs
from model.as_of.users import Repeats, UserBatch
from model.layers.item_temporal import ItemTable, ItemTower
from model.layers.user_interest import UserInterest
from model.machine.device import on

_POPULAR = (*DECAYED, "item_age_days", "item_freshness", "item_idle_days")
_FLOOR = 0.02
_TOGETHER = 64


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

    @property
    def device(self) -> torch.device:
        """Where the encoder computes."""
        return self.popularity_weight.device

    def popularity(self, state: ItemState, rows: np.ndarray | slice = slice(None)) -> Tensor:
        """The popularity term of items at a moment, (items,)."""
        columns = state.features[rows][:, [FEATURE_AT[name] for name in _POPULAR]]
        return on(self.device, columns) @ self.popularity_weight

    def repeat(self, repeats: Repeats) -> Tensor:
        """The repeat term of (user, item) pairs, (pairs,)."""
        logs = np.log(repeats.decayed + _FLOOR) - np.log(_FLOOR)
        rows = on(self.device, np.column_stack([logs, np.log1p(repeats.count)]).astype(np.float32))
        return (rows @ self.repeat_weight) * self.settings.use_repeats

    @torch.no_grad()
    def repeat_pairs(self, repeats: Repeats, items: int) -> Pairs:
        """The repeat term as pairs with one channel."""
        return Pairs.gather(repeats.user, repeats.item, self.repeat(repeats).cpu().numpy()[:, None], items)

    def interest(self, users: UserBatch, table: ItemTable, catalogue: Catalogue, as_of_us: int) -> Tensor:
        """x̂ of users at a moment, (B, D)."""
        device = self.device
        length = on(device, users.length)
        state, last_us = torch.zeros(len(users), self.users.start.shape[0], device=device), torch.zeros_like(length)
        for rows in self._of_like_length(users.length):
            width, own = max(int(users.length[rows].max(initial=0)), 1), on(device, rows)
            item, kind, us, value, start = (a[rows, :width] for a in (users.item, users.kind, users.us, users.value, users.start))
            at, moments = on(device, item.astype(np.int64)), on(device, us)
            vectors = self.items.what(table, at.clamp(min=0)) * (at >= 0)[..., None]
            told = on(device, kind.astype(np.int64)), moments, on(device, value), on(device, start)
            state = state.index_copy(0, own, self.users.last(self.users.states(vectors, *told), length[own]).float())
            last_us[own] = moments[torch.arange(len(rows), device=device), (length[own] - 1).clamp(min=0)]
        now = torch.full_like(last_us, as_of_us)
        age = torch.where(length > 0, now - last_us, 0)
        return self.users.query(state, age, now, self._long(users, table, catalogue))

    def _of_like_length(self, length: np.ndarray) -> list[np.ndarray]:
        """Rows of users, those with sequences of a like length together, so that little padding is read; in training all of them."""
        if self.training or not len(length):
            return [np.arange(len(length))]
        return np.array_split(np.argsort(length, kind="stable"), math.ceil(len(length) / _TOGETHER))

    def _long(self, users: UserBatch, table: ItemTable, catalogue: Catalogue) -> Tensor:
        mine = users.repeats
        device = self.device
        weight = on(device, mine.decayed[:, -2].astype(np.float32))
        user = on(device, mine.user)
        total = torch.zeros(len(users), device=device).index_add_(0, user, weight).clamp(min=1e-6)
        vectors = self.items.what(table, on(device, mine.item))
        vectors = vectors * (weight / total[user])[:, None]
        habit = torch.zeros(len(users), vectors.shape[1], device=device).index_add_(0, user, vectors)
        bucket = on(device, np.append(catalogue.category_bucket, 0).astype(np.int64)[users.long_code])
        share = on(device, users.long_weight)[..., None]
        category = (self.items.facet(bucket) * share).sum(dim=1)
        return self.users.profile(on(device, users.profile), habit, category)

    @torch.no_grad()
    def fit_scales(self, state: ItemState, users: UserBatch) -> None:
        """Fix the scales of inputs from the oldest anchor's items and users."""
        if self.settings.use_item_time:
            self.items.series.scale.fit(torch.from_numpy(state.features[state.available]))
        self.users.scale.fit(torch.from_numpy(users.profile))


def feature_count() -> int:
    """Width of an item's statistics; part of the schema of a stored model."""
    return len(FEATURES)

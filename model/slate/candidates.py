"""A moment, ready to be asked: the catalogue's vectors, popularity and shared lists; and what it gives for users.

The one path from users to slates and signals, taken in training at each anchor and in scoring at as_of.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor

from conf.settings import Settings
from model.as_of.audience import Audience, tastes
from model.as_of.catalogue import Catalogue
from model.as_of.ease import Ease
from model.as_of.item_state import ItemState
from model.as_of.neighbors import Neighbors, neighbor_scores
from model.as_of.pairs import Pairs
from model.as_of.users import UserBatch
from model.layers.interaction import EVENTS
from model.layers.item_temporal import ItemTable
from model.network import Encoder
from model.slate.falling import Falling, top_by_length
from model.slate.retrieval import top_of_catalogue
from model.slate.signals import RetrievalParts, build_signals
from model.slate.slate import Slates, build_slates, seen_pairs, shared_lists

_NEIGHBOR_EVENTS = 50


@dataclass(frozen=True)
class Candidates:
    """Slates of B users with what the ranker reads beside the users themselves."""

    slates: Slates
    signals: np.ndarray
    x: Tensor


@dataclass(frozen=True)
class Moment:
    """Everything known at ``state.as_of_us`` that does not depend on the user."""

    catalogue: Catalogue
    state: ItemState
    neighbors: Neighbors
    y: Tensor
    """(I, D) item vectors."""
    popularity: Tensor
    """(I,) popularity term."""
    shared: dict[str, np.ndarray]
    audience: Audience
    ease: Ease

    @classmethod
    @torch.no_grad()
    def prepare(
        cls, encoder: Encoder, table: ItemTable, state: ItemState, neighbors: Neighbors, catalogue: Catalogue,
        audience: Audience, ease: Ease, settings: Settings,
    ) -> Moment:  # fmt: skip
        """Compute the vectors of the whole catalogue with the encoder as it is."""
        encoder.eval()
        y = encoder.items.all(table.at(state)).cpu()
        popularity = encoder.popularity(state).cpu()
        encoder.train()
        return cls(catalogue, state, neighbors, y, popularity, shared_lists(state, catalogue, settings.slate), audience, ease)

    @torch.no_grad()
    def candidates(
        self, encoder: Encoder, table: ItemTable, users: UserBatch, settings: Settings, repeat: bool
    ) -> Candidates:
        """Slates and signals of users; ``encoder`` is in eval mode. ``repeat``: items may repeat."""
        items = len(self.catalogue)
        x = encoder.interest(users, table, self.catalogue, self.state.as_of_us).cpu()
        bias = torch.where(torch.from_numpy(self.state.available), self.popularity, -torch.inf)
        term = encoder.repeat_pairs(users.repeats, items)
        had = seen_pairs(users, items)
        barred = None if repeat else had
        retrieved = top_of_catalogue(x, self.y, bias, term, barred, max(settings.slate.retrieved, settings.top_k))
        near = neighbor_scores(users, self.neighbors, self.state.as_of_us, items, _NEIGHBOR_EVENTS)
        taste = tastes(self.audience.basis, users.item)
        alike = self._alike(taste, barred, settings)
        slates = build_slates(users, self.state, self.shared, near, retrieved, alike, barred, settings.slate)
        safe = torch.from_numpy(np.maximum(slates.item, 0))
        parts = RetrievalParts(
            taste=torch.einsum("bd,bnd->bn", x, self.y[safe]).numpy(),
            popularity=self.popularity[safe].numpy(),
            repeat=term.look_up(slates.item)[..., 0],
        )
        together = self.ease.look_up(self.ease.scores(had, len(users)), slates.item)
        affinity = self.audience.affinity(taste, slates.item)
        horizon_us = settings.horizon // timedelta(microseconds=1)
        signals = build_signals(
            users, slates, self.state, self.catalogue, near, together, affinity, parts, horizon_us, settings.model
        )
        return Candidates(slates, signals, x)

    def _alike(self, taste: np.ndarray, barred: Pairs | None, settings: Settings) -> np.ndarray:
        """What people like the user chose, best first, for each half-life; -1 where nobody is like the user."""
        x = torch.from_numpy(taste)
        lists = [
            top_by_length(x, sums, falling, barred, settings.slate.audience) for sums, falling in self._falling
        ]
        return np.concatenate(lists, axis=1)

    @functools.cached_property
    def _falling(self) -> list[tuple[Tensor, Falling]]:
        """The audiences of each half-life, and their order by length."""
        return [(torch.from_numpy(sums), Falling.of(sums, self.state.available)) for sums in self.audience.sums]

    def ranker_inputs(self, users: UserBatch, item_bn: np.ndarray, signals: np.ndarray, x: Tensor) -> dict:
        """Arguments of ``Ranker.forward`` for slates ``item_bn`` of these users."""
        back = np.maximum(users.length[:, None] - EVENTS, 0) + np.arange(min(EVENTS, users.item.shape[1]) + 1)
        real = back < users.length[:, None]  # never the last place, which stands for none of the events
        back = np.minimum(back, users.item.shape[1] - 1)
        chosen = np.take_along_axis(users.item, back, 1)
        real &= chosen >= 0
        safe, chosen = np.maximum(item_bn, 0), np.maximum(chosen, 0)
        age = np.where(real, self.state.as_of_us - np.take_along_axis(users.us, back, 1), 0)
        return {
            "signals_BNF": torch.from_numpy(signals),
            "x_BD": x,
            "y_BND": self.y[torch.from_numpy(safe)],
            "real_BN": torch.from_numpy(item_bn >= 0),
            "events": {
                "e_BLD": self.y[torch.from_numpy(chosen.astype(np.int64))],
                "kind_BL": torch.from_numpy(np.where(real, np.take_along_axis(users.kind, back, 1), 0).astype(np.int64)),
                "age_BL": torch.from_numpy(age),
                "real_BL": torch.from_numpy(real),
                "same_BMLN": torch.from_numpy(self._same(safe, np.where(real, chosen, -1))),
            },
        }

    def _same(self, item_bn: np.ndarray, event_bl: np.ndarray) -> np.ndarray:
        """(B, M, L, N) float32: 1 where event l (-1: none) is candidate n, then where they share each facet."""
        facet = self.catalogue.facet_code
        marks = 1 + facet.shape[1]
        of_item = np.empty((len(item_bn), marks, item_bn.shape[1]), np.int32)
        of_event = np.empty((len(event_bl), marks, event_bl.shape[1]), np.int32)
        of_item[:, 0], of_event[:, 0] = item_bn, event_bl
        of_item[:, 1:] = facet[item_bn].transpose(0, 2, 1)
        of_event[:, 1:] = np.where(event_bl >= 0, facet[event_bl].transpose(2, 0, 1), -1).transpose(1, 0, 2)
        of_event[of_event < 0] = -2  # what has no value is like nothing
        return (of_event[..., None] == of_item[:, :, None, :]).astype(np.float32)

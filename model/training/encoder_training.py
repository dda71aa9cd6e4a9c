"""Trains the encoder: on every position of the histories, and on the labels of an anchor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch

from conf.settings import Settings
from model.as_of.catalogue import Catalogue
from model.as_of.events import Events
from model.as_of.item_state import ItemState
from model.as_of.pairs import Pairs
from model.as_of.users import UserBatch
from model.layers.item_temporal import ItemTable
from model.machine.device import on
from model.machine.distributed import batches, seeded
from model.network import Encoder
from model.training.loop import Loop, Place, Task
from model.training.losses import local_softmax, sampled_softmax
from model.training.optimizers import Group, Optimizers
from model.training.windows import WindowBatch, collate, make_windows, window_batches

NETWORK = "encoder"
_TERMS = ("popularity_weight", "repeat_weight")
_TERM_RATE = 5.0
"""The few weights of the popularity and repeat terms learn this much faster than the network."""


@dataclass(frozen=True)
class AnchorBatch:
    """Users of an anchor, what they did in its window, and what they are to be told apart from."""

    users: UserBatch
    user: np.ndarray
    """Row of ``users`` of each label, with ``item`` and ``weight`` aligned."""
    item: np.ndarray
    weight: np.ndarray
    negative: np.ndarray
    log_q: torch.Tensor


@dataclass
class EncoderTrainer:
    """Holds the encoder, its optimizers and what it reads. Each ``fit_*`` returns the mean loss of each epoch."""

    encoder: Encoder
    table: ItemTable
    catalogue: Catalogue
    settings: Settings
    loop: Loop
    optimizers: Optimizers = field(init=False)

    def __post_init__(self) -> None:
        training, ids = self.settings.training, self.encoder.items.id
        ids.sparse = ids.num_embeddings > training.sparse_rows
        rate = training.learning_rate
        sparse = [ids.weight] if ids.sparse else []
        slow = [p for n, p in self.encoder.named_parameters() if n not in _TERMS and not (ids.sparse and p is ids.weight)]
        fast = [p for n, p in self.encoder.named_parameters() if n in _TERMS]
        groups, rows = [Group(slow, rate), Group(fast, rate * _TERM_RATE)], [Group(sparse, rate)] if sparse else []
        self.optimizers = Optimizers(groups, rows, training.weight_decay, self.loop.world.cuda)
        if self.loop.checkpoints is not None:
            self.loop.checkpoints.add(NETWORK, self.encoder, self.optimizers)

    def fit_positions(self, events: Events, since_us: int, until_us: int, epochs: int, phase: int) -> list[float]:
        """Predict the next event at each position with a target in [since, until)."""
        length, training = self.settings.features.sequence_length, self.settings.training
        windows = make_windows(events, since_us, until_us, length, 2 * length)
        gap_us = int(self.settings.features.session_gap.total_seconds() * 1e6)

        def steps(epoch: int) -> Iterator[Mapping[int, np.ndarray]]:
            return window_batches(windows, self.loop.world, training.batch_users * length, (training.seed, phase, epoch))

        def prepare(rows: np.ndarray, place: Place) -> WindowBatch:
            return collate(events, windows, rows, gap_us, place.generator(1), training.augment)

        return self.loop.fit(Task(NETWORK, phase, steps, prepare, self._positions_loss), self.optimizers, epochs)

    def _positions_loss(self, batch: WindowBatch) -> tuple[torch.Tensor, int]:
        encoder = self.encoder
        vectors = encoder.items.what(self.table, batch.item.clamp(min=0)) * (batch.item >= 0)[..., None]
        states = encoder.users.states(vectors, batch.kind, batch.us, batch.value, batch.session)
        state = states[batch.row, batch.place]
        age = batch.moment - batch.us[batch.row, batch.place]
        x = encoder.users.query(state, age, batch.moment, None)
        unique, inverse = torch.unique(batch.target, return_inverse=True)
        return local_softmax(x, encoder.items(self.table, unique)[inverse], batch.target)

    def fit_anchor(self, users: UserBatch, labels: Pairs, state: ItemState, epochs: int, phase: int) -> list[float]:
        """Predict what each user did in the anchor's window, against items that were available at the anchor."""
        training = self.settings.training
        rows = np.unique(labels.user)
        weight = 1.0 / np.bincount(labels.user, minlength=len(users))[labels.user]
        able, q = _proposal(state)

        @lru_cache(1)
        def negatives(of_step: tuple[int, ...]) -> tuple[np.ndarray, torch.Tensor]:
            """Drawn, and log of how often each was to be expected; the same for all shards of a step."""
            count = min(training.negatives, len(able))
            drawn = torch.multinomial(q, count, replacement=True, generator=seeded(*of_step, 2))
            return able[drawn.numpy()], torch.log(q[drawn] * count).float()

        def steps(epoch: int) -> Iterator[Mapping[int, torch.Tensor]]:
            return batches(len(rows), self.loop.world, training.batch_users, (training.seed, phase, epoch))

        def prepare(picked: torch.Tensor, place: Place) -> AnchorBatch:
            mine = np.sort(rows[picked.numpy()])
            has = np.isin(labels.user, mine)
            return AnchorBatch(users.take(mine), np.searchsorted(mine, labels.user[has]), labels.item[has], weight[has], *negatives(place.of_step))

        task = Task(NETWORK, phase, steps, prepare, lambda batch: (self._anchor_loss(batch, state), len(batch.users)))
        return self.loop.fit(task, self.optimizers, epochs)

    def _anchor_loss(self, batch: AnchorBatch, state: ItemState) -> torch.Tensor:
        encoder, items, users, negative = self.encoder, len(self.catalogue), batch.users, batch.negative
        device = encoder.device
        x = encoder.interest(users, self.table, self.catalogue, state.as_of_us)
        needed, inverse = np.unique(np.concatenate([batch.item, negative]), return_inverse=True)
        y = encoder.items(self.table, on(device, needed))
        popular = encoder.popularity(state, needed)
        at = on(device, inverse)
        positive_at, negative_at = at[: len(batch.item)], at[len(batch.item) :]
        user = on(device, batch.user)
        repeats = Pairs.gather(users.repeats.user, users.repeats.item, np.arange(len(users.repeats.item)), items)
        term = encoder.repeat(users.repeats)
        positive = (x[user] * y[positive_at]).sum(dim=1) + popular[positive_at]
        positive = _with_term(positive, term, self._term_row(repeats, batch.user, batch.item))
        every = np.broadcast_to(negative, (len(users), len(negative)))
        against = x @ y[negative_at].T + popular[negative_at]
        where, found = repeats.find(every)
        against = _with_term(against, term, np.where(found, repeats.values[where] if len(term) else 0, -1))
        _, hit = Pairs.gather(batch.user, batch.item, np.zeros((len(batch.user), 1)), items).find(every)
        loss, _ = sampled_softmax(
            positive, against[user], on(device, batch.log_q), on(device, hit)[user], on(device, batch.weight).float()
        )
        return loss

    @staticmethod
    def _term_row(repeats: Pairs, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Row of each pair among the user's repeats; -1 where it is not one."""
        keys = user.astype(np.int64) * repeats.items + item
        if not len(repeats.keys):
            return np.full(len(keys), -1)
        at = np.minimum(np.searchsorted(repeats.keys, keys), len(repeats.keys) - 1)
        return np.where(repeats.keys[at] == keys, repeats.values[at], -1)


def _with_term(score: torch.Tensor, term: torch.Tensor, row: np.ndarray) -> torch.Tensor:
    """Scores plus the repeat term of ``row`` where there is one. Nothing is added to the others: most are, and the gradients
    of one zero for all of them would be summed up one by one on a GPU."""
    place = np.flatnonzero(row >= 0)
    own = term[on(score.device, row.ravel()[place])].to(score.dtype)
    return score.flatten().index_add(0, on(score.device, place), own).view_as(score)


def _proposal(state: ItemState) -> tuple[np.ndarray, torch.Tensor]:
    """Items available at the anchor and the chance of each to be drawn: half evenly, half by recent sales."""
    able = np.flatnonzero(state.available)
    sold = np.exp(state.column("item_decayed_7d")[able].astype(np.float64))
    return able, torch.from_numpy(0.5 / len(able) + 0.5 * sold / sold.sum())

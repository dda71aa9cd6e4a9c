"""Trains the encoder: on every position of the histories, and on the labels of an anchor."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from conf.settings import Settings
from model.budget import Budget
from model.catalogue import Catalogue
from model.data import Events
from model.distributed import World, batches, seeded
from model.item_state import ItemState
from model.item_temporal import ItemTable
from model.losses import local_softmax, sampled_softmax
from model.network import Encoder
from model.pairs import Pairs
from model.users import UserBatch
from model.windows import WindowBatch, collate, make_windows, window_batches

_TERMS = ("popularity_weight", "repeat_weight")
_TERM_RATE = 5.0
"""The few weights of the popularity and repeat terms learn this much faster than the network."""


class NonFiniteLoss(Exception):
    """The loss is no longer a number; training stops on every rank, naming phase and step."""


@dataclass
class EncoderTrainer:
    """Holds the encoder, its optimizer and what it reads. Each ``fit_*`` returns the mean loss of each epoch."""

    encoder: Encoder
    table: ItemTable
    catalogue: Catalogue
    settings: Settings
    world: World
    budget: Budget
    steps: int = 0
    targets: int = 0
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        rate = self.settings.training.learning_rate
        slow = [p for n, p in self.encoder.named_parameters() if n not in _TERMS]
        fast = [p for n, p in self.encoder.named_parameters() if n in _TERMS]
        groups = [{"params": slow, "lr": rate}, {"params": fast, "lr": rate * _TERM_RATE}]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=self.settings.training.weight_decay)

    def fit_positions(self, events: Events, since_us: int, until_us: int, epochs: int, phase: int) -> list[float]:
        """Predict the next event at each position with a target in [since, until)."""
        length = self.settings.features.sequence_length
        windows = make_windows(events, since_us, until_us, length, 2 * length)
        gap_us = int(self.settings.features.session_gap.total_seconds() * 1e6)
        positions = self.settings.training.batch_users * length
        losses = []
        for epoch in range(epochs):
            sums = [0.0, 0.0]
            for step, shards in enumerate(window_batches(windows, self.world, positions, (self._seed, phase, epoch))):
                total, count = 0.0, 0
                self.optimizer.zero_grad()
                for shard, rows in shards.items():
                    if not len(rows):
                        continue
                    parts = (self._seed, phase, epoch, step, shard)
                    torch.manual_seed(seeded(*parts).initial_seed())
                    batch = collate(events, windows, rows, gap_us, seeded(*parts, 1))
                    loss, n = self._positions_loss(batch)
                    if n:
                        loss.backward()
                    total, count = total + float(loss.detach()), count + n
                sums = self._step(total, count, sums, f"positions, phase {phase}, epoch {epoch}, step {step}")
            losses.append(sums[0] / max(sums[1], 1))
            if self.budget.spent():
                break
        return losses

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
        rows = np.unique(labels.user)
        weight = 1.0 / np.bincount(labels.user, minlength=len(users))[labels.user]
        able, log_q = _proposal(state)
        losses = []
        for epoch in range(epochs):
            sums = [0.0, 0.0]
            loop = batches(len(rows), self.world, self.settings.training.batch_users, (self._seed, phase, epoch))
            for step, shards in enumerate(loop):
                negatives = self._negatives(able, log_q, (self._seed, phase, epoch, step))
                total, count = 0.0, 0
                self.optimizer.zero_grad()
                for shard, picked in shards.items():
                    if not len(picked):
                        continue
                    torch.manual_seed(seeded(self._seed, phase, epoch, step, shard).initial_seed())
                    mine = np.sort(rows[picked.numpy()])
                    loss = self._anchor_loss(users, labels, weight, mine, state, *negatives)
                    loss.backward()
                    total, count = total + float(loss.detach()), count + len(mine)
                sums = self._step(total, count, sums, f"anchor, phase {phase}, epoch {epoch}, step {step}")
            losses.append(sums[0] / max(sums[1], 1))
            if self.budget.spent():
                break
        return losses

    def _anchor_loss(self, users: UserBatch, labels: Pairs, weight: np.ndarray, rows: np.ndarray, state: ItemState,
                     negative: np.ndarray, log_q: torch.Tensor) -> torch.Tensor:  # fmt: skip
        encoder, items = self.encoder, len(self.catalogue)
        batch = users.take(rows)
        x = encoder.interest(batch, self.table, self.catalogue, state.as_of_us)
        mine = np.isin(labels.user, rows)
        pair_user, pair_item = np.searchsorted(rows, labels.user[mine]), labels.item[mine]
        needed, inverse = np.unique(np.concatenate([pair_item, negative]), return_inverse=True)
        y = encoder.items(self.table, torch.from_numpy(needed))
        popular = encoder.popularity(state, needed)
        at = torch.from_numpy(inverse)
        positive_at, negative_at = at[: len(pair_item)], at[len(pair_item) :]
        user = torch.from_numpy(pair_user)
        repeats = Pairs.gather(batch.repeats.user, batch.repeats.item, np.arange(len(batch.repeats.item)), items)
        term = torch.cat([encoder.repeat(batch.repeats), torch.zeros(1)])
        positive = (x[user] * y[positive_at]).sum(dim=1) + popular[positive_at]
        positive = positive + term[self._term_row(repeats, pair_user, pair_item)]
        every = np.broadcast_to(negative, (len(batch), len(negative)))
        against = x @ y[negative_at].T + popular[negative_at]
        where, found = repeats.find(every)
        against = against + term[torch.from_numpy(np.where(found, repeats.values[where] if len(term) > 1 else 0, -1))]
        _, hit = Pairs.gather(pair_user, pair_item, np.zeros((len(pair_user), 1)), items).find(every)
        loss, _ = sampled_softmax(positive, against[user], log_q, torch.from_numpy(hit)[user], torch.from_numpy(weight[mine]).float())
        return loss

    @staticmethod
    def _term_row(repeats: Pairs, user: np.ndarray, item: np.ndarray) -> torch.Tensor:
        """Row of each pair among the user's repeats; -1 (a zero) where it is not one."""
        keys = user.astype(np.int64) * repeats.items + item
        if not len(repeats.keys):
            return torch.full((len(keys),), -1)
        at = np.minimum(np.searchsorted(repeats.keys, keys), len(repeats.keys) - 1)
        return torch.from_numpy(np.where(repeats.keys[at] == keys, repeats.values[at], -1))

    def _negatives(self, able: np.ndarray, q: torch.Tensor, parts: tuple[int, ...]) -> tuple[np.ndarray, torch.Tensor]:
        """Draw negatives, and log of how often each was to be expected; the same on every rank."""
        count = min(self.settings.training.negatives, len(able))
        drawn = torch.multinomial(q, count, replacement=True, generator=seeded(*parts, 2))
        return able[drawn.numpy()], torch.log(q[drawn] * count).float()

    def _step(self, total: float, count: int, sums: list[float], where: str) -> list[float]:
        total, all_count = self.world.add(total, count)
        if not np.isfinite(total):
            raise NonFiniteLoss(f"encoder: loss is {total} ({where}); lower training.learning_rate")
        if all_count:
            self.world.average_gradients(self.encoder.parameters(), all_count)
            torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), 5.0)
            self.optimizer.step()
        self.steps += 1
        self.targets += int(all_count)
        return [sums[0] + total, sums[1] + all_count]

    @property
    def _seed(self) -> int:
        return self.settings.training.seed


def _proposal(state: ItemState) -> tuple[np.ndarray, torch.Tensor]:
    """Items available at the anchor and the chance of each to be drawn: half evenly, half by recent sales."""
    able = np.flatnonzero(state.available)
    sold = np.exp(state.column("item_decayed_7d")[able].astype(np.float64))
    return able, torch.from_numpy(0.5 / len(able) + 0.5 * sold / sold.sum())

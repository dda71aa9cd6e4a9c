"""Trains the ranker (g and h) on the slates that were made at the anchors, each with an encoder that had not seen beyond.

Walk-forward: an anchor's slates and retrieval scores come from the encoder trained only on what was visible there, so
the ranker learns how far such scores can be trusted when they are as fresh as they will be in use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from conf.settings import Settings
from model.budget import Budget
from model.candidates import Moment
from model.distributed import World, batches, seeded
from model.encoder_training import NonFiniteLoss
from model.item_temporal import ItemTable
from model.losses import multi_positive_softmax
from model.network import Encoder
from model.pairs import Pairs
from model.recommend import Ranker
from model.slate import SOURCES
from model.users import UserBatch

_BLOCK = 256
_KEPT = 80
"""Candidates of a slate in one training step."""
_SCALE_USERS = 250
_LEAST_STEPS = 180
"""A small log is gone through more often than ``training.epochs``, until this many steps are taken."""
_DISCOUNT = 1 / np.log2(np.arange(2, 12))


@dataclass(frozen=True)
class AnchorSlates:
    """What the ranker learns from at one anchor; rows are users with a label, ``item`` -1 padded."""

    moment: Moment
    users: UserBatch
    item: np.ndarray
    signals: np.ndarray
    """float16: logs and ranks need no more, and they are by far the largest thing in memory."""
    target: np.ndarray
    labels: np.ndarray
    """(B,) labels of each user, inside the slate or not."""
    x: Tensor
    recall: dict[str, float]
    """Share of labels that each source, and all together, brought into the slate."""


def collect(moment: Moment, encoder: Encoder, table: ItemTable, users: UserBatch, labels: Pairs, settings: Settings,
            repeat: bool) -> AnchorSlates:  # fmt: skip
    """Build the slates of the users who have labels, with the encoder as it is now."""
    rows = np.unique(labels.user)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    xs = []
    hits = np.zeros(len(SOURCES) + 1)
    encoder.eval()
    for block in range(0, len(rows), _BLOCK):
        mine = rows[block : block + _BLOCK]
        made = moment.candidates(encoder, table, users.take(mine), settings, repeat)
        wanted = np.isin(labels.user, mine)
        here = Pairs(np.searchsorted(mine, labels.user[wanted]) * labels.items + labels.item[wanted], labels.values[wanted], labels.items)
        _, hit = here.find(made.slates.item)
        for j, name in enumerate(SOURCES):
            hits[j] += (hit & made.slates.from_source(name)).sum()
        hits[-1] += hit.sum()
        found.append((made.slates.item, made.signals.astype(np.float16), hit.astype(np.float32)))
        xs.append(made.x)
    encoder.train()
    recall = dict(zip((*SOURCES, "all"), (hits / max(len(labels.keys), 1)).round(4).tolist(), strict=True))
    width = max(item.shape[1] for item, *_ in found)
    item, signals, target = (
        np.concatenate([_widen(part[k], width, fill) for part in found]) for k, fill in ((0, -1), (1, 0), (2, 0))
    )
    counts = np.bincount(labels.user, minlength=len(users))[rows]
    return AnchorSlates(moment, users.take(rows), item, signals, target, counts, torch.cat(xs), recall)


def _widen(array: np.ndarray, width: int, fill: float) -> np.ndarray:
    if array.shape[1] == width:
        return array
    out = np.full((len(array), width, *array.shape[2:]), fill, array.dtype)
    out[:, : array.shape[1]] = array
    return out


@dataclass
class RankerTrainer:
    """Holds the ranker and what it learns from."""

    ranker: Ranker
    settings: Settings
    world: World
    budget: Budget
    targets: int = 0

    def fit_scale(self, anchors: list[AnchorSlates]) -> None:
        """Fix the scales of the signals from the candidates of some users of each anchor (the same on every rank)."""
        rows = [np.arange(0, len(a.item), math.ceil(len(a.item) / _SCALE_USERS)) for a in anchors]
        parts = [a.signals[r][a.item[r] >= 0] for a, r in zip(anchors, rows, strict=True)]
        self.ranker.scale.fit(torch.from_numpy(np.concatenate(parts)).float())

    def fit(self, anchors: list[AnchorSlates], epochs: int, phase: int) -> list[float]:
        """Train on slates with a positive, anchors mixed within an epoch; the mean loss of each epoch.

        At least ``epochs``, and as many as make ``_LEAST_STEPS`` steps.
        """
        training = self.settings.training
        useful = [np.flatnonzero(a.target.sum(axis=1) > 0) for a in anchors]
        optimizer = torch.optim.AdamW(self.ranker.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
        per_epoch = sum(len(list(batches(len(u), World(0, 1), self._batch, (0,)))) for u in useful)
        epochs = max(epochs, math.ceil(_LEAST_STEPS / max(per_epoch, 1)))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, training.learning_rate, total_steps=max(per_epoch * epochs, 2), pct_start=0.1, anneal_strategy="cos"
        )
        losses = []
        for epoch in range(epochs):
            sums = [0.0, 0.0]
            for step, (k, shards) in enumerate(self._mixed(useful, (training.seed, phase, epoch))):
                total, count = 0.0, 0
                optimizer.zero_grad()
                for shard, rows in shards.items():
                    if len(rows):
                        parts = (training.seed, phase, epoch, step, shard)
                        torch.manual_seed(seeded(*parts).initial_seed())
                        loss, n = self._loss(anchors[k], np.sort(useful[k][rows.numpy()]), seeded(*parts, 1))
                        loss.backward()
                        total, count = total + float(loss.detach()), count + n
                total, everyone = self.world.add(total, count)
                if not np.isfinite(total):
                    raise NonFiniteLoss(f"ranker: loss is {total} (phase {phase}, epoch {epoch}, step {step}); lower training.learning_rate")
                self.world.average_gradients(self.ranker.parameters(), everyone)
                torch.nn.utils.clip_grad_norm_(self.ranker.parameters(), 5.0)
                optimizer.step()
                schedule.step()
                sums = [sums[0] + total, sums[1] + everyone]
                self.targets += int(everyone)
            losses.append(sums[0] / max(sums[1], 1))
            if self.budget.spent():
                break
        return losses

    @property
    def _batch(self) -> int:
        return max(16, self.settings.training.batch_users // 2)

    def _mixed(self, useful: list[np.ndarray], parts: tuple[int, ...]) -> Iterator[tuple[int, dict[int, Tensor]]]:
        loops = [list(batches(len(u), self.world, self._batch, (*parts, k))) for k, u in enumerate(useful)]
        steps = [(k, shards) for k, loop in enumerate(loops) for shards in loop]
        for at in torch.randperm(len(steps), generator=seeded(*parts)).tolist():
            yield steps[at]

    def _loss(self, anchor: AnchorSlates, rows: np.ndarray, generator: torch.Generator) -> tuple[Tensor, int]:
        item, target = anchor.item[rows], anchor.target[rows]
        # Each pass sees another part of a slate: all that was chosen, and some of what was not.
        chance = torch.rand(item.shape, generator=generator).numpy() + 2 * target - 2 * (item < 0)
        kept = np.sort(np.argpartition(-chance, min(_KEPT, item.shape[1] - 1), axis=1)[:, :_KEPT], axis=1)
        item, target = np.take_along_axis(item, kept, 1), np.take_along_axis(target, kept, 1)
        item, signals, target = _trim(item, anchor.signals[rows[:, None], kept].astype(np.float32), target)
        inputs = anchor.moment.ranker_inputs(anchor.users.take(rows), item, signals, anchor.x[rows])
        return multi_positive_softmax(self.ranker(**inputs), torch.from_numpy(target))

    def ndcg(self, anchor: AnchorSlates, k: int = 10) -> float:
        """NDCG@k over the anchor's users, labels outside the slate counted as missed."""
        return float(self.ndcg_each(anchor, k).mean()) if len(anchor.item) else 0.0

    @torch.no_grad()
    def ndcg_each(self, anchor: AnchorSlates, k: int = 10) -> np.ndarray:
        """NDCG@k of each of the anchor's users."""
        self.ranker.eval()
        each = np.zeros(len(anchor.item))
        for block in range(0, len(anchor.item), _BLOCK):
            rows = np.arange(block, min(block + _BLOCK, len(anchor.item)))
            item, signals, target = _trim(anchor.item[rows], anchor.signals[rows].astype(np.float32), anchor.target[rows])
            inputs = anchor.moment.ranker_inputs(anchor.users.take(rows), item, signals, anchor.x[rows])
            order = np.argsort(-self.ranker(**inputs).numpy(), axis=1, kind="stable")[:, :k]
            gain = np.take_along_axis(target, order, 1)
            ideal = np.cumsum(_DISCOUNT[:k])[np.minimum(anchor.labels[rows], k) - 1]
            each[rows] = (gain * _DISCOUNT[: gain.shape[1]]).sum(axis=1) / ideal
        self.ranker.train()
        return each


def _trim(item: np.ndarray, *rest: np.ndarray) -> list[np.ndarray]:
    width = max(int((item >= 0).sum(axis=1).max(initial=0)), 1)
    return [item[:, :width], *(a[:, :width] for a in rest)]

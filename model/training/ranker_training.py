"""Trains the ranker (g and h) on the slates that were made at the anchors, each with an encoder that had not seen beyond.

Walk-forward: an anchor's slates and retrieval scores come from the encoder trained only on what was visible there, so
the ranker learns how far such scores can be trusted when they are as fresh as they will be in use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from conf.settings import Settings
from model.as_of.pairs import Pairs
from model.as_of.users import UserBatch
from model.layers.item_temporal import ItemTable
from model.layers.recommend import Ranker
from model.machine.device import batch_on
from model.machine.distributed import ALONE, World, batches, seeded
from model.network import Encoder
from model.slate.candidates import Moment
from model.slate.slate import SOURCES
from model.training.loop import Loop, Place, Task
from model.training.losses import multi_positive_softmax
from model.training.optimizers import Group, Optimizers

NETWORK = "ranker"
"""Its name among those of which checkpoints are kept."""
_BLOCK = 256
_KEPT = 80
"""Candidates of a slate in one training step."""
_SCALE_USERS = 250
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

    @property
    def useful(self) -> np.ndarray:
        """Rows of the users of whose labels one at least is in the slate: the others teach nothing."""
        return np.flatnonzero(self.target.sum(axis=1) > 0)

    def take(self, rows: np.ndarray) -> AnchorSlates:
        """Those of the users at these rows, which must rise."""
        arrays = {name: getattr(self, name)[rows] for name in ("item", "signals", "target", "labels", "x")}
        return replace(self, users=self.users.take(rows), **arrays)


def collect(moment: Moment, encoder: Encoder, table: ItemTable, users: UserBatch, labels: Pairs, settings: Settings,
            repeat: bool, world: World = ALONE) -> AnchorSlates:  # fmt: skip
    """Build the slates of the users who have labels, with the encoder as it is now; each process those of some blocks."""
    rows = np.unique(labels.user)
    blocks = [rows[at : at + _BLOCK] for at in range(0, len(rows), _BLOCK)]
    made: dict[int, list[Tensor]] = {}
    encoder.eval()
    for k in range(world.rank, len(blocks), world.size):
        found = moment.candidates(encoder, table, users.take(blocks[k]), settings, repeat)
        wanted = np.isin(labels.user, blocks[k])
        here = Pairs(np.searchsorted(blocks[k], labels.user[wanted]) * labels.items + labels.item[wanted], labels.values[wanted], labels.items)
        _, hit = here.find(found.slates.item)
        hits = [(hit & found.slates.from_source(name)).sum() for name in SOURCES]
        each = found.slates.item, found.signals.astype(np.float16), hit.astype(np.float32), np.array([*hits, hit.sum()], np.float64)
        made[k] = [*map(torch.from_numpy, each), found.x]
    encoder.train()
    parts = world.gather_rows(made, len(blocks))
    share = torch.stack([part[3] for part in parts]).sum(dim=0).numpy() / max(len(labels.keys), 1)
    recall = dict(zip((*SOURCES, "all"), share.round(4).tolist(), strict=True))
    width = max(part[0].shape[1] for part in parts)
    item, signals, target = (
        np.concatenate([_widen(part[k].numpy(), width, fill) for part in parts]) for k, fill in ((0, -1), (1, 0), (2, 0))
    )
    counts = np.bincount(labels.user, minlength=len(users))[rows]
    return AnchorSlates(moment, users.take(rows), item, signals, target, counts, torch.cat([part[4] for part in parts]), recall)


def stored(slates: AnchorSlates) -> tuple[dict[str, Tensor], dict]:
    """What of an anchor's slates cannot be made again once the encoder has learned more: tensors and JSON."""
    moment = slates.moment
    arrays = {name: torch.from_numpy(getattr(slates, name)) for name in ("item", "signals", "target")}
    return {**arrays, "x": slates.x, "y": moment.y, "popularity": moment.popularity}, {"recall": slates.recall}


def restored(kept: tuple[dict[str, Tensor], dict], moment: Moment, users: UserBatch, labels: Pairs) -> AnchorSlates:
    """The slates of which ``stored`` gave the one part; ``moment``, ``users`` and ``labels`` are read again."""
    tensors, about = kept
    rows, counts = np.unique(labels.user, return_counts=True)
    before = replace(moment, y=tensors["y"], popularity=tensors["popularity"])
    item, signals, target = (tensors[name].numpy() for name in ("item", "signals", "target"))
    return AnchorSlates(before, users.take(rows), item, signals, target, counts, tensors["x"], about["recall"])


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
    loop: Loop
    name: str = NETWORK

    def fit_scale(self, anchors: list[AnchorSlates]) -> None:
        """Fix the scales of the signals from the candidates of some users of each anchor (the same on every rank)."""
        rows = [np.arange(0, len(a.item), math.ceil(len(a.item) / _SCALE_USERS)) for a in anchors]
        parts = [a.signals[r][a.item[r] >= 0] for a, r in zip(anchors, rows, strict=True)]
        self.ranker.scale.fit(torch.from_numpy(np.concatenate(parts)).float())

    def epochs(self, anchors: list[AnchorSlates]) -> int:
        """``training.epochs``; where these are fewer than ``training.ranker_steps`` steps, more of them, up to ``training.ranker_epochs``."""
        training = self.settings.training
        return max(training.epochs, min(training.ranker_epochs, math.ceil(training.ranker_steps / max(self._steps(anchors), 1))))

    def _steps(self, anchors: list[AnchorSlates]) -> int:
        """Of an epoch."""
        world = World(0, 1, self.loop.world.all_shards)
        return sum(len(list(batches(len(a.useful), world, self._batch, (0,)))) for a in anchors)

    def fit(self, anchors: list[AnchorSlates], epochs: int, phase: int) -> list[float]:
        """Train on slates with a positive, anchors mixed within an epoch; the mean loss of each epoch."""
        training, loop = self.settings.training, self.loop
        useful = [a.useful for a in anchors]
        optimizers = Optimizers([Group(list(self.ranker.parameters()), training.learning_rate)], [], training.weight_decay, loop.world.cuda)
        optimizers.one_cycle(training.learning_rate, self._steps(anchors) * epochs)
        if loop.checkpoints is not None:
            loop.checkpoints.add(self.name, self.ranker, optimizers)

        weights = self._weights(anchors)

        def prepare(rows: tuple[int, np.ndarray], place: Place) -> tuple[dict, Tensor, float]:
            anchor, users = rows
            return *self._batch_of(anchors[anchor], np.sort(useful[anchor][users]), place.generator(1)), weights[anchor]

        def steps(epoch: int) -> Iterator[dict[int, tuple[int, np.ndarray]]]:
            return self._mixed(useful, (training.seed, phase, epoch))

        def loss(batch: tuple[dict, Tensor, float]) -> tuple[Tensor, int]:
            inputs, target, weight = batch
            total, count = multi_positive_softmax(self.ranker(**inputs), target)
            return total * weight, count  # a step is of one anchor: by the weights' sum in place of the count they would cancel out

        return loop.fit(Task(self.name, phase, steps, prepare, loss), optimizers, epochs)

    def _weights(self, anchors: list[AnchorSlates]) -> list[float]:
        """Of a user at each anchor; their mean over all users is 1, so that the learning rate means the same."""
        half_life = self.settings.training.anchor_half_life
        if half_life is None:
            return [1.0] * len(anchors)
        at, many = np.array([a.moment.state.as_of_us for a in anchors]), np.array([len(a.item) for a in anchors])
        weight = 0.5 ** ((at.max() - at) / (half_life.total_seconds() * 1e6))
        return (weight * many.sum() / (weight * many).sum()).tolist()

    @property
    def _batch(self) -> int:
        return max(16, self.settings.training.batch_users // 2)

    def _mixed(self, useful: list[np.ndarray], parts: tuple[int, ...]) -> Iterator[dict[int, tuple[int, np.ndarray]]]:
        loops = [list(batches(len(u), self.loop.world, self._batch, (*parts, k))) for k, u in enumerate(useful)]
        steps = [(k, shards) for k, loop in enumerate(loops) for shards in loop]
        for at in torch.randperm(len(steps), generator=seeded(*parts)).tolist():
            k, shards = steps[at]
            yield {shard: (k, rows.numpy()) for shard, rows in shards.items() if len(rows)}

    def _batch_of(self, anchor: AnchorSlates, rows: np.ndarray, generator: torch.Generator) -> tuple[dict, Tensor]:
        item, target = anchor.item[rows], anchor.target[rows]
        # Each pass sees another part of a slate: all that was chosen, and some of what was not.
        chance = torch.rand(item.shape, generator=generator).numpy() + 2 * target - 2 * (item < 0)
        kept = np.sort(np.argpartition(-chance, min(_KEPT, item.shape[1] - 1), axis=1)[:, :_KEPT], axis=1)
        item, target = np.take_along_axis(item, kept, 1), np.take_along_axis(target, kept, 1)
        item, signals, target = _trim(item, anchor.signals[rows[:, None], kept].astype(np.float32), target)
        inputs = anchor.moment.ranker_inputs(anchor.users.take(rows), item, signals, anchor.x[rows])
        return inputs, torch.from_numpy(target)

    def ndcg(self, anchor: AnchorSlates, k: int = 10) -> float:
        """NDCG@k over the anchor's users, labels outside the slate counted as missed."""
        return float(self.ndcg_each(anchor, k).mean()) if len(anchor.item) else 0.0

    def ndcg_each(self, anchor: AnchorSlates, k: int = 10) -> np.ndarray:
        """NDCG@k of each of the anchor's users."""
        return ndcg_each(self.scores(anchor), anchor.target, anchor.labels, k)

    @torch.no_grad()
    def scores(self, anchor: AnchorSlates) -> np.ndarray:
        """Scores of the anchor's slates, -inf at padded candidates."""
        self.ranker.eval()
        found = np.full(anchor.item.shape, -np.inf, np.float32)
        for block in range(0, len(anchor.item), _BLOCK):
            rows = np.arange(block, min(block + _BLOCK, len(anchor.item)))
            item, signals = _trim(anchor.item[rows], anchor.signals[rows].astype(np.float32))
            inputs = anchor.moment.ranker_inputs(anchor.users.take(rows), item, signals, anchor.x[rows])
            found[rows, : item.shape[1]] = self.ranker(**batch_on(self.loop.world.device, inputs)).cpu().numpy()
        self.ranker.train()
        return found


def ndcg_each(scores: np.ndarray, target: np.ndarray, labels: np.ndarray, k: int = 10) -> np.ndarray:
    """NDCG@k of each row of slates by scores (B, N), of which ``labels`` (B,) has the number of true items, inside the slate or not."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    gain = np.take_along_axis(target, order, 1)
    ideal = np.cumsum(_DISCOUNT[:k])[np.minimum(labels, k) - 1]
    return (gain * _DISCOUNT[: gain.shape[1]]).sum(axis=1) / ideal


def _trim(item: np.ndarray, *rest: np.ndarray) -> list[np.ndarray]:
    width = max(int((item >= 0).sum(axis=1).max(initial=0)), 1)
    return [item[:, :width], *(a[:, :width] for a in rest)]

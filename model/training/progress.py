"""How far a training is, as numbers that survive the process: a later one with the same spec goes on from them.

All randomness of a step comes from its place (``model/machine/distributed.seeded``), so place, weights and optimizers are the whole
state of a training: nothing of the random number generators needs to be kept.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

_MOST_POINTS = 1_000
_BY_NUMBER = "finished", "rehearsed"
"""Fields whose keys are numbers, which JSON does not have."""


@dataclass
class Progress:
    """Place in the walk. ``finished``: losses of each phase that is done; the others speak of the phase that runs."""

    finished: dict[int, list[float]] = field(default_factory=dict)
    phase: int | None = None
    losses: list[float] = field(default_factory=list)
    """Mean loss of each of its epochs that is done."""
    step: int = 0
    """Next step of the epoch that runs."""
    loss: float = 0.0
    targets: float = 0.0
    """Sums over this epoch's steps so far, of all processes."""
    steps: int = 0
    """Steps of the whole training."""
    examples: dict[str, int] = field(default_factory=dict)
    """Targets learned from, by network."""
    seconds: float = 0.0
    """Used by earlier processes of this training."""
    shards: int = 0
    """Pieces of a step, as many as when the training began, whoever goes on with it."""
    curve: list[tuple[int, str, float, float]] = field(default_factory=list)
    """(step, network, mean loss, learning rate): of every step at first, of fewer when they are many."""
    stride: int = 1
    epochs: list[dict[str, Any]] = field(default_factory=list)
    """How fast each epoch was."""
    stopped: bool = False
    """``training.max_seconds`` has passed."""
    rehearsed: dict[int, float] = field(default_factory=dict)
    """What each rehearsal of the ranker that is done has found (model/training/early_stopping.py)."""

    def enter(self, phase: int) -> None:
        """Begin a phase, or go on with it."""
        if self.phase != phase:
            self.phase, self.losses = phase, []
            self._begin_epoch()

    def stepped(self, network: str, loss: float, targets: float, rate: float) -> None:
        """A step was taken."""
        if self.steps % self.stride == 0:
            self.curve.append((self.steps, network, loss / max(targets, 1), rate))
            if len(self.curve) >= _MOST_POINTS:
                self.curve = [point for point in self.curve if point[0] % (2 * self.stride) == 0]
                self.stride *= 2
        self.step += 1
        self.steps += 1
        self.loss += loss
        self.targets += targets
        self.examples[network] = self.examples.get(network, 0) + int(targets)

    def end_epoch(self) -> None:
        """An epoch is done."""
        self.losses.append(self.loss / max(self.targets, 1))
        self._begin_epoch()

    def leave(self) -> list[float]:
        """The phase is done; its losses."""
        assert self.phase is not None  # noqa: S101 - entered before
        self.finished[self.phase] = losses = self.losses
        self.phase, self.losses = None, []
        return list(losses)

    def _begin_epoch(self) -> None:
        self.step, self.loss, self.targets = 0, 0.0, 0.0

    def tree(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self) | {name: {str(k): v for k, v in getattr(self, name).items()} for name in _BY_NUMBER}

    @classmethod
    def of(cls, tree: dict[str, Any]) -> Progress:
        """From ``tree``."""
        return cls(**(tree | {name: {int(k): v for k, v in tree[name].items()} for name in _BY_NUMBER}))

"""A network's optimizers as one: AdamW for what every step changes, SparseAdam for tables of which a step touches few rows.

Of an id table with millions of rows a step sees thousands. There a dense gradient, its exchange and AdamW's pass over all rows
would cost more than everything else, so such a table (``training.sparse_rows``) has row-sparse gradients, moments that move only
where a row is touched, and no weight decay.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer, SparseAdam
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR


@dataclass(frozen=True)
class Group:
    """Parameters that learn at one rate."""

    parameters: Sequence[Tensor]
    rate: float


class Optimizers:
    """All of ``groups``, and of tables with row-sparse gradients; ``fused``: AdamW in one CUDA kernel."""

    def __init__(self, groups: Sequence[Group], sparse: Sequence[Group], weight_decay: float, fused: bool):
        self.dense, self.sparse = ([p for g in some for p in g.parameters] for some in (groups, sparse))
        self.every: list[Optimizer] = [AdamW(_rates(groups), weight_decay=weight_decay, fused=fused or None)]
        if sparse:
            self.every.append(SparseAdam(_rates(sparse)))
        self.schedule: LRScheduler | None = None

    def one_cycle(self, rate: float, steps: int) -> None:
        """Warm up over a tenth of the steps, then fall along a cosine."""
        self.schedule = OneCycleLR(self.every[0], rate, total_steps=max(steps, 2), pct_start=0.1, anneal_strategy="cos")

    @property
    def rate(self) -> float:
        """Learning rate of the first group."""
        return float(self.every[0].param_groups[0]["lr"])

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for one in self.every:
            one.zero_grad()

    def step(self) -> None:
        """Take one step, and one of the schedule."""
        for one in self.every:
            one.step()
        if self.schedule is not None:
            self.schedule.step()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All of it as tensors by name, and as plain JSON."""
        tensors: dict[str, Tensor] = {}
        trees = []
        for k, one in enumerate(self.every):
            found = one.state_dict()
            tensors |= {f"{k}.{p}.{name}": torch.as_tensor(value) for p, state in found["state"].items() for name, value in state.items()}
            trees.append(found["param_groups"])
        return tensors, {"groups": trees, "schedule": None if self.schedule is None else self.schedule.state_dict()}

    def load(self, tensors: dict[str, Tensor], tree: dict[str, Any]) -> None:
        """Go on from what ``state`` gave."""
        for k, one in enumerate(self.every):
            state: dict[int, dict[str, Any]] = {}
            for key, tensor in tensors.items():
                at, parameter, name = key.split(".")
                if int(at) == k:
                    # SparseAdam counts steps in a plain number.
                    value = int(tensor) if name == "step" and isinstance(one, SparseAdam) else tensor
                    state.setdefault(int(parameter), {})[name] = value
            one.load_state_dict({"state": state, "param_groups": tree["groups"][k]})
        if self.schedule is not None:
            self.schedule.load_state_dict(tree["schedule"])


def _rates(groups: Sequence[Group]) -> list[dict[str, Any]]:
    return [{"params": g.parameters, "lr": g.rate} for g in groups]


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], most: float) -> float:
    """Scale all gradients so that their norm is at most ``most``, those of touched rows among them; returns what it was."""
    grads = [p.grad.values() if p.grad.is_sparse else p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    scale = torch.clamp(most / (norm + 1e-6), max=1.0)
    for grad in grads:
        grad.mul_(scale)
    return float(norm)

"""Several trainer processes as one: the work is cut into shards, gradients are added up over shards, then averaged.

The number of shards does not depend on the number of processes (as long as that is at most SHARDS), and each shard has
its own seed: one process that walks through all shards takes the same steps as two that share them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist

SHARDS = 2


@dataclass(frozen=True)
class World:
    """This process among all. ``shards``: the shards that it works on, of ``all_shards``."""

    rank: int
    size: int

    @property
    def all_shards(self) -> int:
        """Shards of all processes together."""
        return max(SHARDS, self.size)

    @property
    def shards(self) -> list[int]:
        """Shards of this process."""
        return list(range(self.rank, self.all_shards, self.size))

    @property
    def first(self) -> bool:
        """The process that writes and logs."""
        return self.rank == 0

    def add(self, *numbers: float) -> list[float]:
        """Each number summed over the processes."""
        total = torch.tensor(numbers, dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(total)
        return total.tolist()

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter], count: float) -> None:
        """Add gradients over processes and divide by the number of targets; parameters without a gradient get zeros."""
        parameters = list(parameters)
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        if self.size > 1:
            flat = torch.cat([p.grad.reshape(-1) for p in parameters])  # type: ignore[union-attr]
            dist.all_reduce(flat)
            for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                p.grad = part.view_as(p)
        for p in parameters:
            p.grad.div_(max(count, 1.0))  # type: ignore[union-attr]


def join_world() -> World:
    """Join the process group that torchrun describes in the environment; alone without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1:
        dist.init_process_group("gloo")
    return World(int(os.environ.get("RANK", "0")), size)


def leave_world(world: World) -> None:
    """Leave the process group."""
    if world.size > 1:
        dist.destroy_process_group()


def set_threads(threads: int, processes: int) -> int:
    """Set torch's threads for this process; 0: the cores it may use, divided by the processes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = threads or max(1, cores // processes)
    torch.set_num_threads(threads)
    return threads


def seeded(*parts: int) -> torch.Generator:
    """A generator whose state depends on these numbers only."""
    seed = 0
    for part in parts:
        seed = (seed * 1_000_003 + part + 1) % (2**63 - 1)
    return torch.Generator().manual_seed(seed)


def batches(rows: int, world: World, batch: int, generator_parts: tuple[int, ...]) -> Iterator[dict[int, torch.Tensor]]:
    """One epoch over row numbers. Row r belongs to shard r modulo shards; each step gives this process's shards."""
    shards = world.all_shards
    size = max(1, batch // shards)
    order = {}
    for shard in world.shards:
        mine = torch.arange(shard, rows, shards)
        order[shard] = mine[torch.randperm(len(mine), generator=seeded(*generator_parts, shard))]
    steps = math.ceil(math.ceil(rows / shards) / size)
    for step in range(steps):
        yield {shard: rows_[step * size : (step + 1) * size] for shard, rows_ in order.items()}

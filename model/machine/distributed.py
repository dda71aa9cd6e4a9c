"""Several trainer processes as one: the work is cut into shards, gradients are added up over shards, then averaged.

The number of shards does not depend on the number of processes (as long as that is at most ``training.shards``; a training that
goes on keeps the number that it began with), and each shard has its own seed: one process that walks through all shards takes the same steps as two that share them. DistributedDataParallel
is not used for that reason: it averages over processes, not over targets, exchanges in the backward pass of every shard, and
knows no row-sparse gradients beside dense ones. Here one flat all_reduce a step does what is needed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

SHARDS = 2
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """This process among all. ``all_shards``: the pieces that a step is cut into, of all processes together; with fewer of them
    than processes some have nothing to do."""

    rank: int
    size: int
    all_shards: int = SHARDS
    device: torch.device = _CPU

    @property
    def shards(self) -> list[int]:
        """Shards of this process."""
        return list(range(self.rank, self.all_shards, self.size))

    @property
    def first(self) -> bool:
        """The process that writes and logs."""
        return self.rank == 0

    @property
    def cuda(self) -> bool:
        """Whether it computes on a GPU."""
        return self.device.type == "cuda"

    def add(self, *numbers: float) -> list[float]:
        """Each number summed over the processes."""
        total = torch.tensor(numbers, dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(total)
        return total.tolist()

    def agree(self, number: int, what: str) -> None:
        """Raises RuntimeError on every process if they do not have the same number."""
        found, squares = self.add(float(number), float(number) ** 2)
        if squares * self.size != found**2:
            raise RuntimeError(f"the {self.size} processes do not have the same {what}; this one has {number}")

    def gather_rows(self, parts: dict[int, list[Tensor]], count: int) -> list[list[Tensor]]:
        """All of ``count`` parts, each made by the process ``part % size`` as the same number of CPU tensors."""
        if self.size == 1:
            return [parts[k] for k in range(count)]
        return [_spread(parts.get(k, []), k % self.size) for k in range(count)]

    def average_gradients(self, dense: Sequence[Tensor], sparse: Sequence[Tensor], count: float) -> None:
        """Add gradients over processes and divide by the number of targets; parameters without a gradient get zeros."""
        for p in dense:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        if self.size > 1 and dense:
            flat = torch.cat([p.grad.reshape(-1) for p in dense])  # type: ignore[union-attr]
            dist.all_reduce(flat)
            for p, part in zip(dense, flat.split([p.numel() for p in dense]), strict=True):
                p.grad = part.view_as(p)
        for p in sparse:
            p.grad = self._added_rows(_no_rows(p) if p.grad is None else p.grad)
        for p in (*dense, *sparse):
            p.grad.div_(max(count, 1.0))  # type: ignore[union-attr]

    def _added_rows(self, grad: Tensor) -> Tensor:
        """A row-sparse gradient added over processes: they exchange the rows that they touched, and no others."""
        grad = grad.coalesce()
        if self.size == 1:
            return grad
        rows, values = grad.indices()[0], grad.values()
        counts = torch.zeros(self.size, dtype=torch.int64, device=rows.device)
        counts[self.rank] = len(rows)
        dist.all_reduce(counts)
        most = int(counts.max())
        every_row = [rows.new_zeros(most) for _ in range(self.size)]
        every_value = [values.new_zeros(most, *values.shape[1:]) for _ in range(self.size)]
        dist.all_gather(every_row, torch.cat([rows, rows.new_zeros(most - len(rows))]))
        dist.all_gather(every_value, torch.cat([values, values.new_zeros(most - len(rows), *values.shape[1:])]))
        kept = [(r[:n], v[:n]) for r, v, n in zip(every_row, every_value, counts.tolist(), strict=True)]
        joined = torch.cat([r for r, _ in kept])[None], torch.cat([v for _, v in kept])
        return torch.sparse_coo_tensor(*joined, grad.shape, check_invariants=False).coalesce()


ALONE = World(0, 1)


def _no_rows(table: Tensor) -> Tensor:
    """A row-sparse gradient of a table of which nothing was touched."""
    at = torch.zeros(1, 0, dtype=torch.int64, device=table.device)
    return torch.sparse_coo_tensor(at, table.new_zeros(0, *table.shape[1:]), table.shape, check_invariants=False)


def _spread(mine: Sequence[Tensor], owner: int) -> list[Tensor]:
    """The tensors that one process has, on all: their number, types and shapes first."""
    number = torch.tensor([len(mine)])
    dist.broadcast(number, owner)
    found = []
    for k in range(int(number)):
        here = dist.get_rank() == owner
        about = torch.zeros(10, dtype=torch.int64)
        if here:
            about[: 2 + mine[k].ndim] = torch.tensor([_KINDS.index(mine[k].dtype), mine[k].ndim, *mine[k].shape])
        dist.broadcast(about, owner)
        kind, dimensions, *shape = about.tolist()
        tensor = mine[k].contiguous() if here else torch.empty(shape[:dimensions], dtype=_KINDS[kind])
        dist.broadcast(tensor, owner)
        found.append(tensor)
    return found


_KINDS = (torch.float16, torch.float32, torch.float64, torch.int32, torch.int64, torch.bool)


def join_world(shards: int = SHARDS, patience: timedelta = timedelta(hours=1)) -> World:
    """Join the process group that torchrun describes in the environment; alone without it.

    With a GPU for each process of this machine, each takes its own and they speak NCCL (and gloo for what lies in memory);
    else all compute on the CPU. ``patience``: how long a process waits for
    another in an exchange; long, for one may read while others wait, and one that is dead is known by its silence (model/machine/life.py).
    """
    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available() and torch.cuda.device_count() >= here
    device = torch.device("cuda", local) if cuda else _CPU
    if cuda:
        torch.cuda.set_device(device)
    if size > 1:
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=patience)
    return World(int(os.environ.get("RANK", "0")), size, max(shards, size), device)


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

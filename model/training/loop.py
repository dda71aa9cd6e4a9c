"""The one loop of training: epochs of steps of shards, on CPU or CUDA, that goes on where an earlier process was killed.

A step is the same for any number of processes: each shard's loss is a sum over its targets, gradients are added up over
shards and processes and divided by the number of all valid targets (``World.average_gradients``). So accumulation over the
shards of one process and the exchange between processes are one thing, and one process takes the same steps as many.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sized
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conf.settings import Training
from model.machine.ahead import ahead
from model.machine.device import batch_on, pinned
from model.machine.distributed import World, seeded
from model.training.budget import Budget
from model.training.checkpoints import Checkpoints
from model.training.optimizers import Optimizers, clip_gradients
from model.training.progress import Progress

_MOST_NORM = 5.0


class NonFiniteLoss(Exception):
    """The loss is no longer a number; training stops on every rank, naming network, phase and step."""


@dataclass(frozen=True)
class Place:
    """One shard of one step: what its randomness is made of."""

    seed: int
    phase: int
    epoch: int
    step: int
    shard: int

    @property
    def of_step(self) -> tuple[int, ...]:
        """The same for all shards."""
        return self.seed, self.phase, self.epoch, self.step

    def generator(self, *more: int) -> torch.Generator:
        """A generator of its own."""
        return seeded(*self.of_step, self.shard, *more)


_Step = tuple[int, list[tuple[Place, Any]]]
"""The number of a step and its batches."""


@dataclass(frozen=True)
class Task:
    """What a phase learns. ``steps``: epoch -> steps of {shard: rows}; ``prepare`` makes a batch of rows without the network,
    ``loss`` gives the sum of its losses and the number of its targets."""

    network: str
    phase: int
    steps: Callable[[int], Iterator[Mapping[int, Sized]]]
    prepare: Callable[[Any, Place], Any]
    loss: Callable[[Any], tuple[Tensor, float]]


@dataclass
class Loop:
    """What all phases share: who takes part, how long it may take, how far it is, and where that is kept."""

    training: Training
    world: World
    budget: Budget
    progress: Progress = field(default_factory=Progress)
    checkpoints: Checkpoints | None = None
    seconds: float = 0.0
    waited: float = 0.0
    """Seconds in steps, and of these waiting for batches; of this process alone."""

    def fit(self, task: Task, optimizers: Optimizers, epochs: int) -> list[float]:
        """Mean loss of each epoch. A phase that an earlier process finished is not done again."""
        progress = self.progress
        if task.phase in progress.finished:
            return list(progress.finished[task.phase])
        progress.enter(task.phase)
        while len(progress.losses) < epochs and not (progress.losses and self.budget.stopped):
            began, waited, before = time.perf_counter(), self.waited, progress.examples.get(task.network, 0)
            with closing(self._batches(task, len(progress.losses))) as steps:
                for step, batches in steps:
                    self._step(task, optimizers, step, batches)
            progress.end_epoch()
            seconds = time.perf_counter() - began
            self.seconds += seconds
            progress.epochs.append({
                "network": task.network, "phase": task.phase, "step": progress.steps, "loss": progress.losses[-1],
                "examples_per_second": (progress.examples.get(task.network, 0) - before) / max(seconds, 1e-9),
                "waited_share": (self.waited - waited) / max(seconds, 1e-9), **_used(self.world.device),
            })  # fmt: skip
            self.budget.spent()
        return progress.leave()

    def _batches(self, task: Task, epoch: int) -> Generator[_Step, None, None]:
        """The steps that are still to do, with their batches; on CUDA made by a thread while the step before is computed."""
        first, seed = self.progress.step, self.training.seed

        def made() -> Generator[_Step, None, None]:
            for step, shards in enumerate(task.steps(epoch)):
                if step >= first:
                    places = {shard: Place(seed, task.phase, epoch, step, shard) for shard in shards}
                    yield step, [(places[s], task.prepare(rows, places[s])) for s, rows in shards.items() if len(rows)]

        source = ahead(map(pinned, made())) if self.world.cuda else made()
        with closing(source):
            while True:
                asked = time.perf_counter()
                found = next(source, None)
                self.waited += time.perf_counter() - asked
                if found is None:
                    return
                yield found

    def _step(self, task: Task, optimizers: Optimizers, step: int, batches: list[tuple[Place, Any]]) -> None:
        total, count = 0.0, 0.0
        optimizers.zero_grad()
        for place, batch in batches:
            torch.manual_seed(place.generator().initial_seed())
            with torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.world.cuda):
                loss, n = task.loss(batch_on(self.world.device, batch))
            if n:
                loss.backward()
            total, count = total + float(loss.detach()), count + n
        total, everyone = self.world.add(total, count)
        if not np.isfinite(total):
            epoch = len(self.progress.losses)
            raise NonFiniteLoss(
                f"{task.network}: loss is {total} (phase {task.phase}, epoch {epoch}, step {step}); lower training.learning_rate"
            )
        if everyone:
            self.world.average_gradients(optimizers.dense, optimizers.sparse, everyone)
            clip_gradients((*optimizers.dense, *optimizers.sparse), _MOST_NORM)
            optimizers.step()
        self.progress.stepped(task.network, total, everyone, optimizers.rate)
        if self.checkpoints is not None:
            self.progress.seconds, self.progress.stopped = self.budget.used(), self.budget.stopped
            self.checkpoints.after_step(self.progress)


def _used(device: torch.device) -> dict[str, float]:
    """What this process has used so far of its machine."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {"peak_memory_gib": used.ru_maxrss / 2**20, "cpu_seconds": used.ru_utime + used.ru_stime}
    if device.type == "cuda":
        found["peak_gpu_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return found

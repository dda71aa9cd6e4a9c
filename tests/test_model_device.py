"""Nothing is left on the CPU by mistake: on a device without data each mix of devices is an error. With a GPU, whole trainings on it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from model_world import START, settings, shop, spec, write_tables

from model import train
from model.as_of.catalogue import build_catalogue
from model.as_of.events import read_events
from model.as_of.item_state import DAY_US
from model.data import read_table, require_partition
from model.layers.item_temporal import ItemTable
from model.layers.recommend import Ranker
from model.machine.ahead import ahead
from model.machine.device import batch_on, on
from model.machine.distributed import World
from model.network import Encoder
from model.slate.signals import signal_names
from model.spec import TrainSpec, write_spec
from model.training import ranker_training
from model.training.budget import Budget
from model.training.encoder_training import AnchorBatch, EncoderTrainer
from model.training.labels import anchor_labels
from model.training.loop import Loop, Task
from model.training.losses import local_softmax, multi_positive_softmax
from model.training.ranker_training import collect

MOMENTS = [START + day * DAY_US for day in (39, 46, 53)]
META = torch.device("meta")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here: what runs on CUDA is not tested")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> TrainSpec:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("device")
    write_tables(folder, shop(users=24, items=40), MOMENTS, 7 * DAY_US)
    return spec(folder, MOMENTS, settings(), folder / "bundle")


def test_the_networks_leave_nothing_on_another_device(asked: TrainSpec) -> None:
    made = asked.resolved_settings()
    ids = require_partition(asked, "item_temporal", asked.as_of_us, ["item_id"])["item_id"].combine_chunks()
    catalogue = build_catalogue(read_table(asked, "items"), ids)
    events = read_events(asked, asked.as_of_us, catalogue.item_ids)
    users, state = train.read_users(asked, MOMENTS[0], catalogue, made), train.read_state(asked, MOMENTS[0], catalogue)
    labels = anchor_labels(events, users, MOMENTS[0], asked.horizon_us, len(catalogue), True)
    vocabulary = np.arange(1, len(catalogue) + 1)

    encoder, table = Encoder(len(catalogue) + 1, 0, made.model), ItemTable(catalogue, vocabulary)
    at = train.moment_at(asked, encoder, table, events, state, catalogue, made)
    slates = collect(at, encoder, table, users, labels, made, True)
    trainer = ranker_training.RankerTrainer(Ranker(len(signal_names(catalogue.facet_names)), 5, made.model), made, Loop(made.training, World(0, 1), Budget(9, World(0, 1))))  # fmt: skip
    inputs, target = trainer._batch_of(slates, np.arange(8), torch.Generator().manual_seed(0))
    ranker = Ranker(len(signal_names(catalogue.facet_names)), len(catalogue.facet_names), made.model).to(META)
    scores = ranker(**batch_on(META, inputs))
    assert scores.device == META and scores.shape == target.shape
    scores.sum().backward()
    with pytest.raises(RuntimeError, match=r"device|meta"):
        ranker(**inputs)

    there = ItemTable(catalogue, vocabulary, META)
    there.know(np.ones(len(catalogue)))
    far = Encoder(len(catalogue) + 1, 0, made.model).to(META)
    world = World(0, 1, device=META)
    loop = Loop(made.training, world, Budget(9, World(0, 1)))
    mine = EncoderTrainer(far, there.at(None), catalogue, made, loop)
    rows = np.unique(labels.user)
    has = np.isin(labels.user, rows)
    negative, log_q = np.arange(10), torch.zeros(10)
    batch = AnchorBatch(users.take(rows), np.searchsorted(rows, labels.user[has]), labels.item[has], np.ones(int(has.sum())), negative, log_q)
    loss = mine._anchor_loss(batch, state)
    assert loss.device == META
    loss.backward()
    x = torch.zeros(40, 16, device=META, requires_grad=True)
    local_softmax(x, x, torch.zeros(40, dtype=torch.int64, device=META))[0].backward()


def test_a_batch_goes_there_whole() -> None:
    batch = {"a": torch.ones(2), "b": (torch.zeros(1), [np.ones(3)])}
    moved = batch_on(META, batch)
    assert moved["a"].device == moved["b"][0].device == META and isinstance(moved["b"][1][0], np.ndarray)
    assert batch_on(torch.device("cpu"), batch) is batch
    array = np.ones(3, np.float32)
    assert np.shares_memory(on(torch.device("cpu"), array).numpy(), array)


def test_what_is_made_ahead_comes_in_order_and_errors_where_they_belong() -> None:
    def source():
        yield from range(5)
        raise ValueError("the sixth")

    made = ahead(source())
    assert [next(made) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="the sixth"):
        next(made)
    asked: list[int] = []

    def endless():
        k = 0
        while True:
            asked.append(k)
            yield k
            k += 1

    some = ahead(endless(), most=2)
    assert next(some) == 0
    time.sleep(0.3)
    assert len(asked) <= 5, "no more than a few are made ahead"
    some.close()
    time.sleep(0.3)
    before = len(asked)
    time.sleep(0.3)
    assert len(asked) == before, "nobody makes more when nobody asks"


def test_a_loss_that_is_no_number_stops_with_its_step(asked: TrainSpec) -> None:
    from model.training.loop import NonFiniteLoss
    from model.training.optimizers import Group, Optimizers

    weight = torch.nn.Parameter(torch.ones(1))
    made = asked.resolved_settings().training

    def loss(batch: int):
        return (weight * (float("inf") if batch == 7 else 1.0)).sum(), 1

    task = Task("encoder", 3, lambda epoch: iter([{0: [k]} for k in range(10)]), lambda rows, place: rows[0], loss)
    with pytest.raises(NonFiniteLoss, match=r"encoder: loss is inf \(phase 3, epoch 0, step 7\)"):
        Loop(made, World(0, 1), Budget(99, World(0, 1))).fit(task, Optimizers([Group([weight], 0.1)], [], 0.0, False), 1)


def test_a_row_without_a_target_does_not_weigh() -> None:
    score = torch.randn(3, 4)
    target = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0]])
    loss, n = multi_positive_softmax(score, target)
    some, m = multi_positive_softmax(score[[0, 2]], target[[0, 2]])
    assert (n, m) == (2, 2) and torch.equal(loss, some)


class AsOnCuda(World):
    """Computes here, but in the precision and by the threads of a GPU."""

    cuda = True


def test_what_a_gpu_is_given_trains_here_too(asked: TrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 in the matrix products, batches made ahead, fused steps: all but the device, so that no GPU is needed to find what fails."""
    monkeypatch.setattr("model.training.loop.pinned", lambda batch: batch)
    monkeypatch.setattr("model.training.loop._used", lambda device: {})
    precision = torch.get_float32_matmul_precision()
    try:
        with torch.backends.mkldnn.flags(enabled=False):  # it has no LSTM in bf16 for processors that cannot multiply it
            plain, like = (train.train(asked, world, tell=False) for world in (World(0, 1), AsOnCuda(0, 1)))
    finally:
        torch.set_float32_matmul_precision(precision)
    one, two = (np.array(t.history["encoder"]["positions"] + t.history["ranker"]["loss"]) for t in (plain, like))
    assert 0 < np.abs(one - two).max() < 0.1
    assert not any(t.name == "batches" for t in threading.enumerate())


@needs_gpu
def test_a_training_on_the_gpu_learns_what_one_on_the_cpu_does(asked: TrainSpec) -> None:
    gpu = World(0, 1, device=torch.device("cuda", 0))
    cpu, cuda = (train.train(asked, world, tell=False) for world in (World(0, 1), gpu))
    one, two = (np.array(t.history["encoder"]["positions"] + t.history["ranker"]["loss"]) for t in (cpu, cuda))
    assert np.isfinite(two).all() and np.abs(one - two).max() < 0.1  # bf16 in the matrix products
    assert abs(cpu.metrics["train_ndcg_at_10"] - cuda.metrics["train_ndcg_at_10"]) < 0.05
    assert all(p.device.type == "cpu" for p in cuda.encoder.parameters())


@needs_gpu
def test_a_training_on_the_gpu_goes_on_from_its_checkpoint(asked: TrainSpec, tmp_path: Path) -> None:
    steps = asked.settings | {"training": asked.settings["training"] | {"checkpoint_steps": 5}}
    kept = asked.model_copy(update={"checkpoints": str(tmp_path), "settings": steps})
    gpu = World(0, 1, device=torch.device("cuda", 0))
    whole = train.train(kept, gpu, tell=False)
    again = train.train(kept, gpu, tell=False)
    assert len(again.history["ranker"]["loss"]) == len(whole.history["ranker"]["loss"])
    assert abs(again.history["ranker"]["loss"][-1] - whole.history["ranker"]["loss"][-1]) < 1e-2


@needs_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs: NCCL needs two")
def test_two_gpus_take_the_same_steps_as_one(asked: TrainSpec, tmp_path: Path) -> None:
    write_spec(asked.model_copy(update={"output": str(tmp_path / "bundle")}), tmp_path / "spec.json")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "model.train", "--spec", str(tmp_path / "spec.json")]
    subprocess.run(command, check=True, timeout=300, env=os.environ, cwd=Path(__file__).parents[1])
    assert (tmp_path / "bundle" / "manifest.json").exists()

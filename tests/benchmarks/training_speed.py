"""Training examples a second: our encoder on every position of the histories, beside RecTools' SASRec, in one run.

    python tests/benchmarks/training_speed.py run        # extra `peers`; 100,000 events, width 64, length 50, 256 sequences a step

An example is a position with a next event. Both learn the same histories (2,000 users, 2,000 items of Zipf's chances, seed 0)
with two threads, each time in a process of its own: SASRec by sampled softmax over 512 negatives, 2 blocks and 2 heads; ours as ``model.train`` does, with time
gaps, kinds of events and the moment of prediction. Only steps are timed, in turn, ``--rounds`` times, best of each.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
import typer

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from measured import measure, tell  # noqa: E402
from model_world import settings  # noqa: E402

from conf import columns as c  # noqa: E402
from model.as_of.catalogue import Catalogue, build_catalogue  # noqa: E402
from model.as_of.events import Events  # noqa: E402
from model.as_of.item_state import DAY_US  # noqa: E402
from model.layers.item_temporal import ItemTable  # noqa: E402
from model.machine.distributed import World  # noqa: E402
from model.network import Encoder  # noqa: E402
from model.training.budget import Budget  # noqa: E402
from model.training.encoder_training import EncoderTrainer  # noqa: E402
from model.training.loop import Loop  # noqa: E402

USERS, ITEMS, DAYS = 2_000, 2_000, 60
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
START_US = 1_600_000_000_000_000 // DAY_US * DAY_US


def log(events: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users, items and microseconds, by user and time."""
    rng = np.random.default_rng(0)
    user, us = rng.integers(USERS, size=events), START_US + rng.integers(DAYS * DAY_US, size=events)
    chance = 1 / np.arange(1, ITEMS + 1)
    item = rng.choice(ITEMS, events, p=chance / chance.sum())
    order = np.lexsort((us, user))
    return user[order], item[order], us[order]


def plain_catalogue(items: int) -> Catalogue:
    """Items of which nothing but the id is known."""
    ids = pa.array([f"i{k:05d}" for k in range(items)])
    nothing = {name: pa.nulls(items, kind) for name, kind in (
        ("available_from", pa.timestamp("us", tz="UTC")), ("available_until", pa.timestamp("us", tz="UTC")), ("title", pa.string()),
        ("category", pa.string()), ("price", pa.float64()), ("embedding", pa.list_(pa.float32())), ("release_ts", pa.timestamp("us", tz="UTC")),
    )}  # fmt: skip
    attributes = pa.array([[]] * items, pa.map_(pa.string(), pa.string()))
    return build_catalogue(pa.table({c.ITEM_ID: ids, "attributes": attributes, **nothing}), ids)


def ours(
    found: tuple[np.ndarray, np.ndarray, np.ndarray], width: int, length: int, batch: int, epochs: int
) -> tuple[int, float]:
    """(examples, seconds) of the encoder's walk over all positions."""
    user, item, us = found
    n = len(user)
    catalogue = plain_catalogue(ITEMS)
    chosen = settings(
        model={"width": width}, features={"sequence_length": length},
        training={"batch_users": batch, "threads": 2, "max_seconds": 10_000},
    )  # fmt: skip
    events = Events(
        pa.array([f"u{k:05d}" for k in range(USERS)]), user.astype(np.int32), item.astype(np.int32), us,
        np.zeros(n, np.int8), np.ones(n, np.float32), us,
    )  # fmt: skip
    table = ItemTable(catalogue, np.arange(1, ITEMS + 1))
    table.at(None).know(np.bincount(item, minlength=ITEMS).astype(np.float32))
    torch.manual_seed(0)
    encoder = Encoder(ITEMS + 1, 0, chosen.model)
    world = World(0, 1)
    trainer = EncoderTrainer(encoder, table, catalogue, chosen, Loop(chosen.training, world, Budget(10_000, world)))
    tick = time.monotonic()
    trainer.fit_positions(events, np.iinfo(np.int64).min, START_US + DAYS * DAY_US, epochs, phase=0)
    return trainer.loop.progress.examples["encoder"], time.monotonic() - tick


def theirs(
    found: tuple[np.ndarray, np.ndarray, np.ndarray], width: int, length: int, batch: int, epochs: int
) -> tuple[int, float]:
    """(examples, seconds) of SASRec's steps."""
    import pytorch_lightning as lightning
    from peers_rectools import _quiet
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel
    from rectools.models.nn.item_net import IdEmbeddingsItemNet

    ticks: list[float] = []  # outside the callback, of which RecTools trains a copy

    class Clock(lightning.Callback):
        def on_train_start(self, *_: Any) -> None:
            ticks.append(time.monotonic())

        def on_train_end(self, *_: Any) -> None:
            ticks.append(time.monotonic())

    _quiet(lightning, 0)
    torch.set_num_threads(2)
    user, item, us = found
    frame = pd.DataFrame(
        {Columns.User: user, Columns.Item: item, Columns.Datetime: pd.to_datetime(us, unit="us"), Columns.Weight: 1.0}
    )
    plain = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    model = SASRecModel(
        n_factors=width, n_blocks=2, n_heads=2, dropout_rate=0.1, lr=1e-3, session_max_len=length, batch_size=batch, epochs=epochs,
        loss="sampled_softmax", n_negatives=512, item_net_block_types=(IdEmbeddingsItemNet,), deterministic=False,
        get_trainer_func=lambda **_: lightning.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[Clock()], **plain),
    )  # fmt: skip
    model.fit(Dataset.construct(frame))
    return epochs * int(np.minimum(np.bincount(user) - 1, length).sum()), ticks[1] - ticks[0]


@app.command(hidden=True)
def one(name: str, events: int, width: int, length: int, batch: int, epochs: int) -> None:
    torch.set_num_threads(2)
    examples, seconds = {"ours": ours, "SASRec": theirs}[name](log(events), width, length, batch, epochs)
    tell(examples=examples, seconds=seconds)


@app.command()
def run(
    events: Annotated[int, typer.Option()] = 100_000,
    width: Annotated[int, typer.Option()] = 64,
    length: Annotated[int, typer.Option()] = 50,
    batch: Annotated[int, typer.Option(help="sequences a step")] = 256,
    epochs: Annotated[int, typer.Option()] = 2,
    rounds: Annotated[int, typer.Option()] = 3,
) -> None:
    """Both, in turn."""
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # as the trainer's job has it: threads that wait must not burn the cores
    best = {"ours": 0.0, "SASRec": 0.0}
    for _ in range(rounds):
        for name in best:
            found = measure(__file__, "one", name, *map(str, (events, width, length, batch, epochs))).work
            speed = found["examples"] / found["seconds"]
            print(
                f"{name:8s} {found['examples']:10,.0f} examples in {found['seconds']:7.1f} s: {speed:10,.0f} a second",
                flush=True,
            )
            best[name] = max(best[name], speed)
    print(f"ours / SASRec = {best['ours'] / best['SASRec']:.2f}")


if __name__ == "__main__":
    app()

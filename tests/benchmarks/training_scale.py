"""How training scales: with processes, with the size of the id table, and with the length of the log.

    python tests/benchmarks/training_scale.py processes   # examples a second, one process on one core beside two on two
    python tests/benchmarks/training_scale.py rows        # a step of the encoder with an id table of a million rows (--number 10000000 --no-dense: of ten)
    python tests/benchmarks/training_scale.py memory      # what the data path holds at 1 M and at 20 M events

Memory is what the process itself has allocated (RssAnon): pages of mapped files are the operating system's to drop.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent), str(Path(__file__).parent)]

from measured import measure, tell  # noqa: E402
from model_world import settings  # noqa: E402
from training_speed import DAYS, START_US, log, plain_catalogue  # noqa: E402

from model.as_of.event_store import stored_events  # noqa: E402
from model.as_of.events import Events  # noqa: E402
from model.layers.item_temporal import ItemTable  # noqa: E402
from model.machine.distributed import World, join_world, leave_world  # noqa: E402
from model.network import Encoder  # noqa: E402
from model.spec import TableRef, TablesSpec  # noqa: E402
from model.training.budget import Budget  # noqa: E402
from model.training.encoder_training import EncoderTrainer  # noqa: E402
from model.training.loop import Loop  # noqa: E402
from model.training.windows import collate, make_windows, window_batches  # noqa: E402

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
END_US = START_US + DAYS * 86_400_000_000


def trainer(world: World, items: int, rows: int, **training: object) -> EncoderTrainer:
    chosen = settings(model={"width": 64}, features={"sequence_length": 50}, training={"batch_users": 256, "max_seconds": 10_000} | training)
    catalogue = plain_catalogue(items)
    table = ItemTable(catalogue, np.arange(1, items + 1) % rows)
    table.at(None).know(np.full(items, 10, np.float32))
    torch.manual_seed(0)
    return EncoderTrainer(Encoder(rows, 0, chosen.model), table, catalogue, chosen, Loop(chosen.training, world, Budget(10_000, world)))


def history(events: int) -> Events:
    user, item, us = log(events)
    plain = np.zeros(events, np.int8), np.ones(events, np.float32)
    return Events(pa.array([f"u{k:05d}" for k in range(user.max() + 1)]), user.astype(np.int32), item.astype(np.int32), us, *plain, us)


@app.command(hidden=True)
def rank(events: int, epochs: int) -> None:
    os.sched_setaffinity(0, {int(os.environ["RANK"])})
    torch.set_num_threads(1)
    world = join_world()
    made = trainer(world, 2_000, 2_001)
    made.fit_positions(history(events), np.iinfo(np.int64).min, END_US, epochs, phase=0)
    loop = made.loop
    if world.first:
        tell(examples=loop.progress.examples["encoder"], seconds=loop.seconds, waited=loop.waited)
    leave_world(world)


@app.command()
def processes(events: Annotated[int, typer.Option()] = 100_000, epochs: Annotated[int, typer.Option()] = 2) -> None:
    """One process on one core, then two on two."""
    speed = []
    for number in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number), __file__, "rank", str(events), str(epochs)]
        said = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}, check=True, capture_output=True, text=True).stdout
        found = told(said)
        speed.append(found["examples"] / found["seconds"])
        print(f"{number} process(es): {speed[-1]:10,.0f} examples/s, {found['waited'] / found['seconds']:.1%} of it making batches", flush=True)
    print(f"2 / 1 = {speed[1] / speed[0]:.2f}")


def told(said: str) -> dict[str, float]:
    import json

    from measured import SECONDS

    (line,) = [line for line in said.splitlines() if line.startswith(SECONDS)]
    return json.loads(line.removeprefix(SECONDS))


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@app.command()
def rows(number: Annotated[int, typer.Option()] = 1_000_000, dense: Annotated[bool, typer.Option()] = True) -> None:
    """A step on 2,000 items whose ids lie in a table of so many rows. ``--no-dense``: where four tables would not fit into memory."""
    torch.set_num_threads(2)
    seen = history(20_000)
    for name, sparse_rows in (("dense", 10**9), ("row-sparse", 1))[0 if dense else 1 :]:
        made = trainer(World(0, 1), 2_000, number, sparse_rows=sparse_rows, batch_users=40)
        made.fit_positions(seen, np.iinfo(np.int64).min, END_US, 1, phase=0)
        progress = made.loop.progress
        made.loop.seconds, before, learned = 0.0, progress.steps, progress.examples["encoder"]
        made.fit_positions(seen, np.iinfo(np.int64).min, END_US, 1, phase=1)
        taken, targets = progress.steps - before, progress.examples["encoder"] - learned
        print(f"{name:10s} {made.loop.seconds / taken * 1e3:8.1f} ms a step of {targets / taken:,.0f} targets ({taken} steps), {peak_gib():.1f} GiB at most", flush=True)


@app.command(hidden=True)
def data_path(path: str, few: int) -> None:
    peak, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            status = Path("/proc/self/status").read_text()
            peak[0] = max(peak[0], int(status.split("RssAnon:")[1].split()[0]))

    base = int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])
    threading.Thread(target=look, daemon=True).start()
    tick = time.monotonic()
    items = pa.array(sorted(str(k) for k in range(20_000)))
    spec = TablesSpec(tables={"events": TableRef(path=path, format="parquet")})
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as scratch:
        events = stored_events(spec, END_US, items, Path(scratch), World(0, 1), few)
        read = time.monotonic() - tick
        seen = events.seen_at(END_US - 86_400_000_000)
        windows = make_windows(seen, np.iinfo(np.int64).min, END_US, 100, 200)
        examples = 0
        for step in window_batches(windows, World(0, 1), 12_800, (0, 0, 0)):
            for shard in step.values():
                if len(shard):
                    examples += len(collate(seen, windows, shard, 1_800_000_000, torch.Generator().manual_seed(0)).target)
    over.set()
    tell(anon_mib=(peak[0] - base) / 1024, examples=examples, events=len(events.us), reading=read, all=time.monotonic() - tick)


def write_log(path: Path, events: int, users: int) -> None:
    """A log of so many events, in the order of time, a million at a time."""
    rng = np.random.default_rng(0)
    sink = None
    for at in range(0, events, 1_000_000):
        n = min(1_000_000, events - at)
        us = START_US + np.sort(rng.integers(DAYS * 86_400_000_000 * at // events, DAYS * 86_400_000_000 * (at + n) // events, n))
        times = pa.array(us).cast(pa.timestamp("us", tz="UTC"))
        part = pa.table({
            "event_id": pa.array(np.arange(at, at + n) + 10**9).cast(pa.string()), "user_id": pa.array(rng.integers(users, size=n)).cast(pa.string()),
            "item_id": pa.array(rng.integers(20_000, size=n)).cast(pa.string()), "event_type": pa.array(["purchase"] * n),
            "event_ts": times, "available_ts": times, "value": np.ones(n),
        })  # fmt: skip
        sink = sink or pq.ParquetWriter(path, part.schema)
        sink.write_table(part, row_group_size=250_000)
    assert sink is not None
    sink.close()


@app.command()
def memory(small: Annotated[int, typer.Option()] = 1_000_000, large: Annotated[int, typer.Option()] = 20_000_000, users: Annotated[int, typer.Option()] = 100_000) -> None:
    """Read, order, look back and go through all windows once."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for events in (small, large):
            path = Path(folder) / f"{events}.parquet"
            write_log(path, events, users)
            one = measure(__file__, "data-path", path, "0").work
            found.append(one["anon_mib"])
            print(f"{events:12,d} events: {one['anon_mib']:8,.0f} MiB of its own, {one['examples']:,.0f} examples, read in {one['reading']:.0f} s, all in {one['all']:.0f} s", flush=True)
            path.unlink()
    print(f"large / small = {found[1] / found[0]:.2f}")


if __name__ == "__main__":
    app()

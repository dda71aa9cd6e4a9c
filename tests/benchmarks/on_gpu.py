"""What a GPU gives: a whole training, retrieval, and lists with re-rank and reasons, beside the processors of the same machine.

    python tests/benchmarks/on_gpu.py train SPEC         # model.train by a specification
    python tests/benchmarks/on_gpu.py retrieve           # 50,000 users x 20,000 items, 64 wide, top 100, beside torch alone
    python tests/benchmarks/on_gpu.py lists              # one scorer process, as Spark runs one per core (scoring.py's shop)

Needs no Spark. A specification is the spec.json that jobs/train_model.py keeps in training.checkpoints while it trains. Each kind of
training, and each scorer, is a process of its own; retrieval is warm and the best of three.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "benchmarks"), str(TESTS), str(TESTS.parent)]

from scoring import shop  # noqa: E402

from model.predict import Scorer  # noqa: E402
from model.slate import retrieval  # noqa: E402
from model.slate.retrieval import top_of_catalogue  # noqa: E402
from model.spec import read_spec, write_spec  # noqa: E402
from model.versions.checkpoint import CARD  # noqa: E402

NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
_BLOCK = 256
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def train(
    spec: Path, most: Annotated[int, typer.Option(help="seconds that a training may take")] = 600,
    kind: Annotated[list[str], typer.Option(help="which of processors, gpu, compiled")] = ["processors", "gpu"],  # noqa: B006
) -> None:  # fmt: skip
    """Seconds, targets a second and what was learned."""
    told = read_spec(spec)
    kinds = {"processors": (NO_GPU, {"threads": os.cpu_count()}), "gpu": ({}, {}), "compiled": ({}, {"compile": True})}
    with tempfile.TemporaryDirectory() as scratch:
        for name in kind:
            over, training = kinds[name]
            settings = told.settings | {"training": told.settings["training"] | training}
            asked = told.model_copy(update={"settings": settings, "output": f"{scratch}/{name}"})
            write_spec(asked, f"{scratch}/{name}.json")
            command = [sys.executable, "-m", "model.train", "--spec", f"{scratch}/{name}.json"]
            tick = time.monotonic()
            done = subprocess.run(command, env=os.environ | over, cwd=TESTS.parent, timeout=most, check=False, capture_output=True, text=True)
            whole = time.monotonic() - tick
            if done.returncode:
                print(f"{name}: exit {done.returncode}\n{done.stdout}\n{done.stderr[-2_000:]}", flush=True)
                continue
            for line in done.stdout.splitlines():
                print(f"  {line}")
            found = json.loads(Path(f"{scratch}/{name}/{CARD}").read_text())["metrics"]
            print(f"{name:10s} {whole:7.1f} s  {found['encoder_targets']:,.0f} targets of the encoder  NDCG@10 {found['train_ndcg_at_10']:.4f}", flush=True)  # fmt: skip


@app.command()
def retrieve(users: int = 50_000, items: int = 20_000, width: int = 64, most: int = 100) -> None:
    """User-item pairs a second, lists back in memory."""
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.normal(size=(n, width)).astype(np.float32)) for n in (users, items))
    nothing = torch.zeros(items)
    blocks = x.split(_BLOCK)

    def ours() -> np.ndarray:
        return np.concatenate([top_of_catalogue(block, y, nothing, None, None, most) for block in blocks])

    there = y.cuda()

    def bare() -> np.ndarray:
        return np.concatenate([(block.cuda() @ there.T).topk(most, dim=1).indices.cpu().numpy() for block in blocks])

    exact = np.concatenate([(block.double().cuda() @ there.double().T).topk(most, dim=1).indices.cpu().numpy() for block in x[:2_560].split(_BLOCK)])
    for name, of in (("ours", ours), ("torch alone", bare)):
        lists, times = of(), []
        for _ in range(3):
            tick = time.monotonic()
            lists = of()
            times.append(time.monotonic() - tick)
        same = float((lists[: len(exact)] == exact).mean())
        print(f"{name:12s} {users * items / min(times) / 1e6:10,.0f} M pairs/s ({min(times):.2f} s), {same:.4%} of places those of doubles", flush=True)
    retrieval.accelerator = lambda: None  # of what follows, the processor's way
    torch.set_num_threads(1)
    blocks = blocks[: len(blocks) // 10]
    ours()
    tick = time.monotonic()
    ours()
    print(f"one core     {len(blocks) * _BLOCK * items / (time.monotonic() - tick) / 1e6:10,.0f} M pairs/s", flush=True)


@app.command(hidden=True)
def scorer(folder: Path, users: int, batch: int, out: Path) -> None:
    made = Scorer(folder / "prepared")
    rows = pq.read_table(folder / "users.parquet").slice(0, users).combine_chunks()
    made.score(rows.slice(0, batch))
    tick = time.monotonic()
    lists = pa.concat_tables([made.score(rows.slice(at, batch)) for at in range(0, users, batch)])
    print(f"{users / (time.monotonic() - tick):,.0f} users a second on {made.device or 'one core'}", flush=True)
    pq.write_table(lists, out)


@app.command()
def lists(users: int = 8_192, items: int = 20_000, width: int = 64, batch: int = 1_024) -> None:
    """Users a second of a process, and whether both make the same lists."""
    with tempfile.TemporaryDirectory() as scratch:
        shop(Path(scratch), items, width)
        found = []
        for k, over in enumerate((NO_GPU, {})):
            out = Path(scratch) / f"lists-{k}.parquet"
            command = [sys.executable, __file__, "scorer", scratch, str(users), str(batch), str(out)]
            subprocess.run(command, env=os.environ | over, check=True)
            found.append(pq.read_table(out).to_pandas())
    one, other = found
    both = one.merge(other, on=["user_id", "rank"], how="outer")
    same = (both["item_id_x"] == both["item_id_y"]).mean()
    apart = one.merge(other, on=["user_id", "item_id"])
    print(f"{same:.3%} of places hold the same item; scores differ by {(apart['score_x'] - apart['score_y']).abs().max():.4f} at most")


if __name__ == "__main__":
    app()

"""Retrieval on Spark beside ALS's ``recommendForAllUsers`` and a bare torch loop: user-item pairs a second, in one run.

    python tests/benchmarks/retrieval.py                                   # 50,000 users x 20,000 items, 64 wide, top 100
    python tests/benchmarks/retrieval.py --users 5000 --items 1000000

Vectors are random (seed 0). All three have two cores: ALS and ours as Spark jobs on local[2] that write their lists as parquet,
the bare loop as one process with two threads and nothing around it. Each is warm: it has run on a tenth of the users, in a session
that is open and in Python workers that have their libraries. What is told is then one full run, of ours and of the loop the median of
three. Whether our lists are the bare loop's is counted.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import torch
import typer

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from conf.settings import Spark  # noqa: E402
from jobs.spark.session import open_session  # noqa: E402

_USERS_A_BLOCK = 256
_LISTS = "user BIGINT, items ARRAY<INT>"


def vectors(rows: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def bare(x: np.ndarray, y: np.ndarray, most: int) -> np.ndarray:
    """The product of matrices and the top of each row, a block of users at a time."""
    torch.set_num_threads(2)
    blocks = torch.from_numpy(x).split(_USERS_A_BLOCK)
    return np.concatenate([(block @ torch.from_numpy(y).T).topk(most, dim=1).indices.numpy() for block in blocks])


def furthest(x: np.ndarray, y: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference of the scores of two users' lists at the same place: two products of matrices round differently."""
    rows = np.flatnonzero((one != other).any(axis=1))
    scores = [np.einsum("ud,und->un", x[rows].astype(np.float64), y[lists[rows]]) for lists in (one, other)]
    return float(np.abs(scores[0] - scores[1]).max(initial=0))


def retriever(items: str, most: int) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The body of an Arrow iterator UDF, as scoring's: item vectors are mapped, users come in batches."""
    root = str(TESTS.parent)

    def body(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sys.path.insert(0, root)
        from model.machine.memory import keep_freed
        from model.slate.retrieval import top_of_catalogue

        torch.set_num_threads(1)
        keep_freed()
        y = torch.from_numpy(np.load(items, mmap_mode="c", allow_pickle=False))
        nothing = torch.zeros(len(y))
        for batch in batches:
            x = torch.from_numpy(batch["x"].flatten().to_numpy().reshape(len(batch), -1).copy())
            best = [top_of_catalogue(part, y, nothing, None, None, most) for part in x.split(_USERS_A_BLOCK)]
            flat = pa.array(np.concatenate(best).ravel().astype(np.int32))
            lists = pa.ListArray.from_arrays(pa.array(np.arange(0, len(flat) + 1, most), pa.int32()), flat)
            yield pa.RecordBatch.from_arrays([batch["user"], lists], ["user", "items"])

    return body


def timed(pairs: int, work: Callable[[], object], times: int = 1) -> float:
    """Million pairs a second, the median of so many times."""
    seconds = []
    for _ in range(times):
        tick = time.monotonic()
        work()
        seconds.append(time.monotonic() - tick)
    return pairs / float(np.median(seconds)) / 1e6


def main(
    users: Annotated[int, typer.Option()] = 50_000,
    items: Annotated[int, typer.Option()] = 20_000,
    width: Annotated[int, typer.Option()] = 64,
    most: Annotated[int, typer.Option(help="places of a list")] = 100,
    als: Annotated[bool, typer.Option(help="measure ALS too, by far the slowest")] = True,
) -> None:
    x, y = vectors(users, width, 0), vectors(items, width, 1)
    spark = open_session(Spark(master="local[2]", driver_memory="6g", shuffle_partitions=2), "kairos-retrieval")
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", 2_048)
    speed = {}
    with tempfile.TemporaryDirectory() as scratch:
        np.save(f"{scratch}/items.npy", y)
        table = pa.table(
            {
                "user": np.arange(users),
                "x": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), width).cast(pa.list_(pa.float32())),
            }
        )
        few = users // 10
        told = spark.createDataFrame(table).repartition(4).persist()
        told.count()

        def lists(most_users: int):  # type: ignore[no-untyped-def]
            return told.where(f"user < {most_users}").mapInArrow(retriever(f"{scratch}/items.npy", most), _LISTS)

        lists(few).write.mode("overwrite").parquet(f"{scratch}/warm")
        speed["ours"] = timed(users * items, lambda: lists(users).write.mode("overwrite").parquet(f"{scratch}/lists"), 3)
        ours = spark.read.parquet(f"{scratch}/lists").orderBy("user").toArrow()
        bare(x[:few], y, most)
        kept: list[np.ndarray] = []
        speed["bare loop"] = timed(users * items, lambda: kept.append(bare(x, y, most)), 3)
        found = ours["items"].combine_chunks().flatten().to_numpy().reshape(users, most)
        same, apart = (kept[0] == found).all(axis=1).mean(), furthest(x, y, kept[0], found)
        if als:
            speed["ALS"] = _als(spark, scratch, x, y, most)
    print(f"{users:,} users x {items:,} items, {width} wide, top {most}: M pairs a second")
    for name, value in speed.items():
        print(f"  {name:10s} {value:8.1f}   ours / it = {speed['ours'] / value:5.2f}")
    print(
        f"  lists equal to the bare loop's, order included: {same:.2%}; scores of the others, place by place, differ by {apart:.1e} at most"
    )
    spark.stop()


def _als(spark, scratch: str, x: np.ndarray, y: np.ndarray, most: int) -> float:  # type: ignore[no-untyped-def]
    """ALS with these very vectors: fitted on a few pairs of everyone, as ``recommendForAllUsers`` does not ask how."""
    from pyspark.ml.recommendation import ALS

    rng = np.random.default_rng(2)
    user, item = np.repeat(np.arange(len(x)), 2), rng.integers(0, len(y), 2 * len(x))
    every = np.arange(len(y))
    user, item = np.concatenate([user, rng.integers(0, len(x), len(y))]), np.concatenate([item, every])
    pairs = spark.createDataFrame(pa.table({"user": user.astype(np.int32), "item": item.astype(np.int32)})).selectExpr(
        "*", "1.0 AS rating"
    )
    fitted = ALS(rank=x.shape[1], maxIter=1, userCol="user", itemCol="item", seed=0).fit(pairs)
    few = spark.range(len(x) // 10).selectExpr("CAST(id AS INT) AS user")
    fitted.recommendForUserSubset(few, most).write.mode("overwrite").parquet(f"{scratch}/warm")
    return timed(
        len(x) * len(y), lambda: fitted.recommendForAllUsers(most).write.mode("overwrite").parquet(f"{scratch}/als")
    )


if __name__ == "__main__":
    typer.run(main)

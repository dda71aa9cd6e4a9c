"""Scoring, publishing and vacuum that die at a named place; and a reader who looks at what is shown all the while.

    python tests/killed_lists.py run WAREHOUSE_SETTINGS PLACE SECONDS     # a night (or an hour, or vacuum) that dies so long after it
    python tests/killed_lists.py read TABLE STOP_FILE             # prints what a reader saw as JSON, once STOP_FILE is there
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import shop
import stub_lists

from features.contracts import RECOMMENDATIONS, RECOMMENDATIONS_LATEST
from jobs import score
from jobs.cli import Context
from jobs.maintain import Care, maintain
from jobs.store import run_log

NIGHT, HOUR = (shop.NEXT, "nightly"), (shop.NEXT + timedelta(hours=6), "hourly")
#: Name -> (what runs, where it dies). A folder: when the first file that was not there appears in it, or one is gone.
PLACES: dict[str, tuple[tuple | str, str]] = {
    "before the night reads": (NIGHT, "score._users"),
    "while the night is written": (NIGHT, RECOMMENDATIONS.name),
    "before the night is shown": (NIGHT, "score.publish"),
    "while the night is shown": (NIGHT, RECOMMENDATIONS_LATEST.name),
    "before the night is on record": (NIGHT, "run_log._append"),
    "before the hour reads": (HOUR, "score._users"),
    "while the hour is written": (HOUR, RECOMMENDATIONS.name),
    "before the hour is shown": (HOUR, "score.publish"),
    "while the hour is shown": (HOUR, RECOMMENDATIONS_LATEST.name),
    "before the hour is on record": (HOUR, "run_log._append"),
    "during vacuum": ("vacuum", RECOMMENDATIONS_LATEST.name),
    "during vacuum of what is on record": ("vacuum", RECOMMENDATIONS.name),
}
#: Seconds between the place and the end: other files, commits and checks are under way then. Times PLACES: 48 kills.
DELAYS = (0.0, 0.05, 0.2, 0.8)
_AFTER = 3.0
"""A run that is through before its end waits for it so long."""


def go(context: Context, what: tuple | str) -> None:
    """Run it undisturbed. The hour comes after its night."""
    if what == "vacuum":
        kept = context.settings.maintenance.model_copy(update={"vacuum_retention": timedelta(seconds=1)})
        settings = context.settings.model_copy(update={"maintenance": kept})
        return maintain(replace(context, settings=settings), Care.vacuum, names=[RECOMMENDATIONS_LATEST.name, RECOMMENDATIONS.name])
    moment, mode = what
    with stub_lists.scoring(mode):
        score.score(replace(context, as_of=moment, mode=mode))
    return None


@contextlib.contextmanager
def dying(context: Context, place: str, die: Callable[[], None], delay: float = 0) -> Iterator[tuple | str]:
    """Within this block what is yielded, when it is run, calls ``die`` at the place, or ``delay`` seconds after it, in another thread."""
    what, where = PLACES[place]
    if "." not in where:
        watch = threading.Thread(target=_watch, args=(Path(context.settings.warehouse) / where, die, delay), daemon=True)
        watch.start()
        yield what
        return
    module, name = where.split(".")
    owner = {"score": score, "run_log": run_log}[module]
    kept = getattr(owner, name)

    def reached(*told: object) -> object:
        if not delay:
            return die()
        threading.Timer(delay, die).start()
        return kept(*told)

    setattr(owner, name, reached)
    try:
        yield what
    finally:
        setattr(owner, name, kept)


def _watch(folder: Path, die: Callable[[], None], delay: float) -> None:
    def files() -> set[Path]:
        return {p for p in folder.rglob("*.parquet") if "_delta_log" not in p.parts}

    before = files()
    while files() == before:
        time.sleep(0.001)
    time.sleep(delay)
    die()


def state(context: Context) -> dict[str, list[str]]:
    """All lists, on record and on show."""
    return {t.name: sorted(map(str, context.warehouse.read(t).collect())) for t in (RECOMMENDATIONS, RECOMMENDATIONS_LATEST)}


def read(table: str, stop: Path) -> dict[str, object]:
    """Look again and again. Each user must have one whole list of one batch, whoever was there before must be there still."""
    from deltalake import DeltaTable

    looks, batches, wrong = 0, set(), []
    while not stop.exists() or not looks:
        rows = DeltaTable(table).to_pandas()
        lists = rows.groupby("user_id").agg(batches=("batch_id", "nunique"), size=("rank", "size"), ranks=("rank", "nunique"), last=("rank", "max"))
        broken = lists[(lists.batches != 1) | (lists["size"] != 10) | (lists.ranks != 10) | (lists["last"] != 10)]
        if len(broken) or len(lists) != 31:
            wrong.append(f"{len(lists)} users; broken: {broken.to_dict()}")
        batches |= set(rows.batch_id)
        looks += 1
        time.sleep(0.05)  # a core of two for those who write
    return {"looks": looks, "batches": len(batches), "wrong": wrong[:3]}


if __name__ == "__main__":
    if sys.argv[1] == "read":
        print(json.dumps(read(sys.argv[2], Path(sys.argv[3]))))
    else:
        from conf.load import load
        from conf.settings import Spark
        from jobs.spark.session import open_session

        session = open_session(Spark(master="local[2]", shuffle_partitions=2), "kairos-killed")
        here = shop.context(session, load(Path(sys.argv[2])))
        # The JVM is a child, and would finish what it was told: the whole group goes.
        with dying(here, sys.argv[3], lambda: os.killpg(0, signal.SIGKILL), float(sys.argv[4])) as asked:
            go(here, asked)
            time.sleep(_AFTER)

"""What was measured, on disk: one JSON line a finished run, and NDCG@10 of each judged user beside it.

A run that is interrupted is taken up again: what has a line is not measured twice.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from model.metrics import bootstrap_interval

METRICS = ("ndcg@10", "recall@10", "recall@20", "mrr@10", "coverage@10")
KAIROS = "kairos"


@dataclass(frozen=True)
class Run:
    """What is measured once. part: "dev" where choices are made, "test" where they are judged."""

    log: str
    cutoff: str
    method: str
    part: str
    seed: int
    choice: str  # JSON with sorted keys

    @staticmethod
    def text(choice: Any) -> str:
        """A choice as the text by which it is known."""
        return json.dumps(dict(choice), sort_keys=True)


class Results:
    """The lines of a scratch folder."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.path = scratch / "results.jsonl"
        (scratch / "ndcg").mkdir(parents=True, exist_ok=True)
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def find(self, run: Run) -> dict[str, Any] | None:
        """The line of a run that is finished."""
        wanted = asdict(run)
        return next((row for row in reversed(self.rows) if all(row[key] == value for key, value in wanted.items())), None)

    def add(self, run: Run, found: dict[str, float], seconds: float, users: np.ndarray, each: np.ndarray) -> dict[str, Any]:
        """Keep one finished run; for a test also each user's NDCG@10, written first: a line says that all is there."""
        if run.part == "test":
            np.savez_compressed(self._arrays(run.log, run.cutoff, run.method, run.seed), users=users.astype(str), ndcg=each)
        row = {**asdict(run), **found, "users": len(users), "seconds": round(seconds, 1)}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
        return row

    def tests(self) -> pd.DataFrame:
        """The newest test of each (log, cutoff, method, seed)."""
        rows = pd.DataFrame([row for row in self.rows if row["part"] == "test"])
        return rows if rows.empty else rows.drop_duplicates(["log", "cutoff", "method", "seed"], keep="last")

    def means(self, log: str) -> pd.DataFrame:
        """Metrics by method, best first: means over seeds, then over cutoffs; ``cutoffs`` says over how many."""
        rows = self.tests()
        columns = [*METRICS, "seconds"]
        by_cutoff = rows[rows["log"] == log].groupby(["method", "cutoff"])[columns].mean()
        means = by_cutoff.groupby("method").mean()
        means["cutoffs"] = by_cutoff.groupby("method").size()
        return means.sort_values("ndcg@10", ascending=False)

    def ahead(self, log: str, method: str, draws: int = 1000) -> tuple[float, float, float] | None:
        """(mean, low, high) of Kairos' NDCG@10 less a peer's: a paired bootstrap over users, 95 %.

        Over the cutoffs that both have; each weighs the same, as in the means. None where Kairos has none of them.
        """
        rows, gaps = self.tests(), []
        rows = rows[rows["log"] == log]
        for cutoff in sorted(set(rows.loc[rows["method"] == KAIROS, "cutoff"]) & set(rows.loc[rows["method"] == method, "cutoff"])):
            users, ours = self._each(rows, log, cutoff, KAIROS)
            others, theirs = self._each(rows, log, cutoff, method)
            if not np.array_equal(users, others):
                raise ValueError(f"{log} at {cutoff}: {KAIROS} and {method} were judged on different users; measure both again")
            gaps.append(ours - theirs)
        if not gaps:
            return None
        total = sum(map(len, gaps))
        weighed = np.concatenate([gap * (total / len(gap) / len(gaps)) for gap in gaps])
        return float(weighed.mean()), *bootstrap_interval(weighed, seed=0, draws=draws)

    def leads(self) -> pd.DataFrame:
        """By what share Kairos' NDCG@10 is above a peer's: a row a peer, a column a log; means over the cutoffs that both have, else NaN."""
        means = self.tests().groupby(["log", "cutoff", "method"])["ndcg@10"].mean().unstack("method")
        if KAIROS not in means:
            return pd.DataFrame()
        peers = [method for method in means if not method.startswith(KAIROS)]
        both = {method: means[[KAIROS, method]].dropna().groupby("log").mean() for method in peers}
        return pd.DataFrame({method: of[KAIROS] / of[method] - 1 for method, of in both.items()}).T.dropna(how="all")

    def _each(self, rows: pd.DataFrame, log: str, cutoff: str, method: str) -> tuple[np.ndarray, np.ndarray]:
        """(users, NDCG@10 of each, mean over seeds)."""
        seeds = rows.loc[(rows["cutoff"] == cutoff) & (rows["method"] == method), "seed"]
        found = [np.load(self._arrays(log, cutoff, method, seed), allow_pickle=False) for seed in seeds]
        return found[0]["users"], np.mean([each["ndcg"] for each in found], axis=0)

    def _arrays(self, log: str, cutoff: str, method: str, seed: int) -> Path:
        return self.scratch / "ndcg" / f"{log}_{cutoff}_{re.sub('[^a-z0-9]+', '-', method.lower())}_{seed}.npz"

"""Seeded leaks: each is a small mutation of the project that bends the time law, and the tests that must turn red.

``python tests/leaks.py`` applies one after the other to a copy of the project and prints the table; ``make soak`` demands that
every one is caught.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_COPIED = ("conf", "features", "jobs", "model", "tests", "pyproject.toml", "README.md", "Makefile")


@dataclass(frozen=True)
class Leak:
    """Replace ``old`` by ``new`` in ``file``; some test of ``tests`` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str = "tests/test_features.py"


LEAKS = (
    Leak(
        "<= for < at as_of",
        "features/windows.py",
        "SEEN_FROM: self._first(lambda at: (happened < at) & (arrived <= at)),",
        "SEEN_FROM: self._first(lambda at: (happened <= at) & (arrived <= at)),",
    ),
    Leak(
        "<= for < in what a run reads",
        "features/windows.py",
        "events.where((F.col(c.EVENT_TS) < newest)",
        "events.where((F.col(c.EVENT_TS) <= newest)",
    ),
    Leak(
        "available_ts ignored",
        "features/windows.py",
        "SEEN_FROM: self._first(lambda at: (happened < at) & (arrived <= at)),",
        "SEEN_FROM: self._first(lambda at: happened < at),",
    ),
    Leak(
        "an hour bucket that ends after as_of",
        "features/item_sales.py",
        "cell = F.floor((F.lit(newest) - F.col(US) - 1) / cell_us)",
        "cell = F.floor((F.lit(newest) - F.col(US)) / cell_us)",
    ),
    Leak(
        "popularity over the whole period",
        "features/windows.py",
        "F.explode(F.sequence(SEEN_FROM, F.lit(self.last)))",
        "F.explode(F.sequence(F.lit(0), F.lit(self.last)))",
    ),
    Leak(
        "the release that ingest filled with hindsight",
        "features/item_age.py",
        "F.when(F.col(c.RELEASE_KNOWN), F.unix_micros(c.RELEASE_TS))",
        "F.unix_micros(c.RELEASE_TS)",
    ),
    Leak(
        "a late event changes the sessions of an earlier moment",
        "features/history.py",
        'versions = F.when(F.col("late"), own)',
        "versions = F.when(F.lit(False), own)",
    ),
    Leak(
        "neighbours in the order of happening, not of knowing",
        "features/neighbors.py",
        "for name in (_KNOWN_US, US, c.EVENT_ID)",
        "for name in (US, c.EVENT_ID)",
    ),
    Leak(
        "neighbours frequent at any moment",
        "features/neighbors.py",
        'return F.count_if(seen).alias(f"n_{index}")',
        'return F.count("*").alias(f"n_{index}")',
    ),
    Leak(
        "deduplication keeps the last delivery",
        "features/events.py",
        "order = [F.col(name).asc_nulls_first() for name in (c.AVAILABLE_TS, *rest)]",
        "order = [F.col(name).desc_nulls_first() for name in (c.AVAILABLE_TS, *rest)]",
        "tests/test_features_events.py",
    ),
    Leak(
        "an hour reads what was delivered but not yet visible",
        "jobs/store/nights.py",
        "visible(added, as_of)]",
        "added]",
        "tests/test_jobs_hour.py",
    ),
    Leak(
        "an hour's sums trust whoever hands them what is new",
        "features/item_sums.py",
        "    new = visible(new, as_of)\n",
        "",
        "tests/test_features_refresh.py::test_what_an_hour_cannot_see_yet_changes_nothing",
    ),
    Leak(
        "an hour passes over what came late",
        "features/windows.py",
        "return events.where((F.col(c.EVENT_TS) >= at) | (F.col(c.AVAILABLE_TS) > at))",
        "return events.where(F.col(c.EVENT_TS) >= at)",
        "tests/test_jobs_hour.py",
    ),
    Leak(
        "a late event changes what an earlier moment knew",
        "features/events.py",
        "F.when(happened < before, known).otherwise(happened)",
        "happened",
        "tests/test_jobs_ingest.py",
    ),
    Leak(
        "a session that spans as_of, and all that is counted of a user",
        "features/history.py",
        "holds = (F.col(AT) >= F.col(SEEN_FROM)) & (F.col(AT) <= F.col(SEEN_TO))",
        "holds = F.col(AT) <= F.col(SEEN_TO)",
    ),
    Leak(
        "the truth begins before as_of",
        "features/truth.py",
        "between(events, as_of, as_of + settings.horizon)",
        "between(events, as_of - settings.horizon, as_of + settings.horizon)",
        "tests/test_features_truth.py",
    ),
    Leak(
        "labelled users counted who were not known yet",
        "features/anchors.py",
        "taken = visible(events, as_of).select(",
        "taken = events.select(",
        "tests/test_jobs_anchors.py",
    ),
    Leak(
        "a list judged at a visit before it was made",
        "features/served.py",
        'visits.select(c.USER_ID, "visit_ts"), on=c.USER_ID).where(F.col(c.AS_OF_TS) <= F.col("visit_ts"))',
        'visits.select(c.USER_ID, "visit_ts"), on=c.USER_ID)',
        "tests/test_jobs_evaluate.py",
    ),
    Leak(
        "a label window that ends after as_of",
        "model/spec.py",
        "if self.anchors_us[-1] + self.horizon_us > self.as_of_us:",
        "if self.anchors_us[-1] > self.as_of_us:",
        "tests/test_model_data.py",
    ),
    Leak(
        "an anchor that has seen what was delivered later",
        "model/as_of/events.py",
        "return (self.us[part] < moment_us) & (self.available_us[part] <= moment_us)",
        "return self.us[part] < moment_us",
        "tests/test_model_train.py::test_what_is_delivered_after_an_anchor_does_not_reach_its_slates",
    ),
    Leak(
        "an audience at as_of shown to an earlier anchor",
        "model/train.py",
        "known = audience_at(seen, now, items, settings)",
        "known = audience_at(stored_events(spec, spec.as_of_us, catalogue.item_ids, None, World(0, 1)), spec.as_of_us, items, settings)",
        "tests/test_model_train.py::test_nothing_that_happens_after_an_anchor_reaches_its_slates",
    ),
    Leak(
        "what goes with what by as_of, at an earlier anchor",
        "model/train.py",
        "fit_ease(seen, items)",
        "fit_ease(stored_events(spec, spec.as_of_us, catalogue.item_ids, None, World(0, 1)), items)",
        "tests/test_model_train.py::test_nothing_that_happens_after_an_anchor_reaches_its_slates",
    ),
    Leak(
        "settings judged on a window that they were trained on",
        "model/spec.py",
        "a + self.base.horizon_us <= anchor_us",
        "a <= anchor_us",
        "tests/test_model_study.py",
    ),
    Leak(
        "settings judged by a model that has seen the window",
        "model/spec.py",
        '"as_of_us": anchor_us',
        '"as_of_us": self.base.as_of_us',
        "tests/test_model_study.py",
    ),
    Leak(
        "a window that is shown to the model which it judges",
        "model/tuning/study.py",
        "seen = read_events(training, now, catalogue.item_ids)",
        "seen = read_events(base, base.as_of_us, catalogue.item_ids)",
        "tests/test_model_study.py",
    ),
    Leak(
        "passes judged by rankers that knew the window",
        "model/training/early_stopping.py",
        "a.moment.state.as_of_us + horizon_us <= newest.moment.state.as_of_us",
        "a.moment.state.as_of_us <= newest.moment.state.as_of_us",
        "tests/test_model_early_stopping.py",
    ),
    Leak(
        "a newcomers' list chosen by what happened after the window",
        "model/slate/newcomers.py",
        "events.window(anchor, anchor + horizon_us)",
        "events.window(anchor, 2**62)",
        "tests/test_model_newcomers.py",
    ),
    Leak(
        "newcomers told from others by what was delivered later",
        "model/slate/newcomers.py",
        "events.seen_at(anchor).user",
        "events.user[events.us < anchor]",
        "tests/test_model_newcomers.py",
    ),
    Leak(
        "a model that was trained later",
        "model/versions/champions.py",
        "reign.since_us <= as_of_us",
        "reign.since_us <= 2 * as_of_us + 10**18",
        "tests/test_model_registry.py",
    ),
)


def caught(leak: Leak) -> tuple[bool, str]:
    """Whether a test fails on a copy of the project with the leak, and pytest's last line.

    Raises ValueError when the leak does not apply any more: the code it bends has changed.
    """
    with tempfile.TemporaryDirectory(prefix="kairos-leak-") as scratch:
        copy = Path(scratch)
        for name in _COPIED:
            source = ROOT / name
            shutil.copytree(source, copy / name) if source.is_dir() else shutil.copy(source, copy / name)
        target = copy / leak.file
        text = target.read_text(encoding="utf-8")
        if leak.old not in text:
            raise ValueError(f"leak {leak.name!r}: {leak.file} does not contain {leak.old!r}")
        target.write_text(text.replace(leak.old, leak.new), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", leak.tests],
            cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-200:]
    # 1: tests ran and one failed, in its body or in its fixture; a project that cannot be imported is no leak, and ends with 2.
    return done.returncode == 1, last


def main() -> int:
    """Print one line a leak. Returns 1 when one got through."""
    through = 0
    for number, leak in enumerate(LEAKS, start=1):
        found, last = caught(leak)
        through += not found
        print(f"{number:2d} {'caught ' if found else 'THROUGH'} {leak.name:55s} {leak.tests:35s} {last}", flush=True)
    print(f"{len(LEAKS) - through} of {len(LEAKS)} leaks caught")
    return int(through > 0)


if __name__ == "__main__":
    sys.exit(main())

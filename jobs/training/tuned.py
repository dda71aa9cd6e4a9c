"""What a tuning found: one sentence, a table, and a settings file that says how far it may be trusted."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table as Grid

from conf.settings import Settings
from features.windows import from_micros
from jobs.progress import console
from model.spec import StudySpec
from model.tuning.search_space import changed, put
from model.tuning.study_record import Verdict, coverage, each_window

_SHOWN = 5
_NARROW = 0.9
"""A share of the coverage in use below which it is worth a word."""


def said(found: Verdict) -> str:
    """The outcome in a sentence."""
    if found.best is found.as_is:
        return f"nothing tried is better than the settings in use (NDCG@10 {found.as_is.value:.4f}): keep them"
    told = f"trial {found.best.number} leads by {(found.best.value or 0) - (found.as_is.value or 0):+.4f}"
    if found.lead is None:
        return f"{told}, over too few lists to say more: keep the settings"
    low, high = found.lead.interval
    told = f"{told} [{low:+.4f}, {high:+.4f}], p {found.p:.3f}"
    if found.settled:
        return f"{told}: take its settings{_price(found)}"
    return f"{told}: keep the settings, the lead may be chance" + (" (its interval holds 0)" if low <= 0 else "")


def _price(found: Verdict) -> str:
    """What NDCG alone does not tell: lists that lean on what is popular may hit more, and show less of the catalogue."""
    now, then = coverage(found.as_is), coverage(found.best)
    if now is None or then is None or then >= _NARROW * now:
        return ""
    return f", if it may show less of the catalogue (coverage@10 {then:.3f} where it is {now:.3f})"


def show(found: Verdict, spec: StudySpec, settings: Settings) -> None:
    """Print the best trials and the settings in use."""
    days = [f"{from_micros(us):%Y-%m-%d}" for us in spec.held_out]
    title = f"{found.lists:,} lists judged over {spec.windows} windows; {len(found.ranked)} trials in full, {found.pruned} stopped early"
    grid = Grid("trial", "ndcg@10", *days, "coverage@10", "what it changes", title=title, title_justify="left")
    shown = list(found.ranked[:_SHOWN])
    for trial in [*shown, *([] if found.as_is in shown else [found.as_is])]:
        values = changed(settings, trial.params)
        told = "the settings in use" if trial is found.as_is else _flow(values)
        grid.add_row(str(trial.number), f"{trial.value:.4f}", *[f"{one:.4f}" for one in each_window(trial)], _share(coverage(trial)), told,
                     style="bold" if trial is found.as_is else None)  # fmt: skip
    console.print(grid)
    console.print(said(found), markup=False)


def settings_text(found: Verdict, spec: StudySpec, settings: Settings, extends: Path, as_of: datetime) -> str:
    """A settings file that follows the advice: it changes something only where the lead is more than chance."""
    best = _yaml(put({}, changed(settings, found.best.params)))
    days = f"{settings.horizon.days} days" if settings.horizon >= timedelta(days=1) else str(settings.horizon)
    windows = ", ".join(f"{from_micros(us):%Y-%m-%dT%H:%MZ}" for us in spec.held_out)
    lines = [
        f"# From jobs/tune_model.py --as-of {as_of:%Y-%m-%dT%H:%M:%SZ}: {said(found)}.",
        f"# Judged over {days} each from {windows}, {found.lists:,} lists.",
        f"# NDCG@10 with the settings in use {found.as_is.value:.4f}, with the best of {len(found.ranked)} judged in full "
        f"{found.best.value:.4f} ({found.pruned} were stopped early).",
    ]
    if found.lead is not None:
        lines += [
            f"# Its lead is {found.lead.value:+.4f}, 95 % [{found.lead.interval.low:+.4f}, {found.lead.interval.high:+.4f}], paired by user.",
            f"# p {found.p:.3f}: how often the best of so many leads as far by chance (other seeds are not in it).",
        ]
    lines.append(f"# Coverage@10 with the settings in use {_share(coverage(found.as_is))}, with the best {_share(coverage(found.best))}.")
    if not found.settled and best:
        lines += ["# The best settings, left out for that:", *[f"#   {line}" for line in best.splitlines()]]
    lines += ["# In a folder with the file that it extends, the name alone is enough.", _yaml({"extends": str(extends)}).strip()]
    return "\n".join(lines) + "\n" + (best if found.settled else "")


def _yaml(tree: dict[str, Any]) -> str:
    return yaml.safe_dump(tree, width=10_000) if tree else ""


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _flow(values: dict[str, Any]) -> str:
    return ", ".join(f"{path.partition('.')[2]} {value}" for path, value in values.items())

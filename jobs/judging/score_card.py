"""What an evaluation found, as tables that a person reads."""

from __future__ import annotations

from datetime import datetime, timedelta

from rich.table import Table as Grid

from features.segments import HISTORY_SEGMENTS, HOUR_SEGMENTS, ITEM_SEGMENTS
from jobs.judging.hour_by_hour import HOUR_BY_HOUR
from jobs.judging.judge import KNOWING, NEWER, Judged
from jobs.judging.sums import ALL, KAIROS, SERVED, Sums
from jobs.progress import console
from model.metrics import Difference, Draws

_MAIN = "ndcg@10"


def show(judged: dict[datetime, Judged], together: Sums, horizon: timedelta) -> None:
    """Print recommenders, windows where there are several, and segments."""
    windows = sorted(judged)
    names = sorted({who for who, _, _ in together}, key=lambda who: (-together[who, ALL, _MAIN].mean, who))
    best = next(who for who in names if who not in (KAIROS, SERVED, KNOWING))
    days = f"{horizon.days} days" if horizon >= timedelta(days=1) else str(horizon)
    lists = together[KAIROS, ALL, _MAIN].users
    title = f"{lists:,} lists judged over {days} from {', '.join(f'{w:%Y-%m-%d}' for w in windows)}; \\[low, high] hold 95 %"
    _recommenders(together, names, title)
    _beyond(judged, together, names)
    if len(windows) > 1:
        parts = [(f"{w:%Y-%m-%d %H:%M}", judged[w].sums, ALL) for w in windows]
        _compared(parts, best, "Each window")
    known = [s for s in (*HISTORY_SEGMENTS, *ITEM_SEGMENTS) if (KAIROS, s, _MAIN) in together]
    _compared([(segment, together, segment) for segment in known], best, "Each segment")
    hours = [together.get((KAIROS, segment, _MAIN)) for segment in HOUR_SEGMENTS]
    told = " ".join(f"{one.mean:.2f}".lstrip("0") if one and one.interval() else "–" for one in hours)
    console.print(f"{_MAIN} of {KAIROS} by the hour of the first visit, 0 to 23 UTC (–: few users)\n  {told}")
    newer = together.get((SERVED, ALL, NEWER))
    if newer:
        console.print(f"{newer.mean:.1%} were shown a newer list than the night's at their first visit: {SERVED}")
    if (KAIROS, HOUR_BY_HOUR, _MAIN) in together:
        night, shown = (together[who, HOUR_BY_HOUR, _MAIN] for who in (KAIROS, SERVED))
        gain = _lead(shown.less(night))[0]
        of = f"{_mean(shown)} of the lists on show, {_mean(night)} of the night's: {gain}"
        console.print(f"Hour by hour, {night.users:,} visits: {_MAIN} {of}")
    knowing = together.get((KNOWING, ALL, _MAIN))
    if knowing and knowing.mean:
        share = together[KAIROS, ALL, _MAIN].mean / knowing.mean
        console.print(f"As of the night {share:.1%} of the {_MAIN} that the model would have had {KNOWING.removeprefix(f'{KAIROS} ')}")


def _recommenders(sums: Sums, names: list[str], title: str) -> None:
    rest = ("recall@10", "recall@20", "mrr@10")
    grid = Grid("recommender", f"{_MAIN} \\[low, high]", f"{KAIROS} leads by \\[low, high]", "p", *rest, title=title, title_justify="left")
    for who in names:
        mine = sums[who, ALL, _MAIN]
        lead = None if who == KAIROS else sums[KAIROS, ALL, _MAIN].less(mine)
        means = [f"{sums[who, ALL, name].mean:.4f}" for name in rest]
        grid.add_row(who, _mean(mine), *_lead(lead), *means, style="bold" if who == KAIROS else None)
    console.print(grid)


def _beyond(judged: dict[datetime, Judged], sums: Sums, names: list[str]) -> None:
    """What lists are like beside being right; coverage and Gini index are of the newest window."""
    newest = judged[max(judged)].whole
    whole, each = ("coverage@10", "gini@10"), ("popularity@10", "novelty@10", "diversity@10")
    grid = Grid("recommender", *whole, *each, title="What they show, beside being right", title_justify="left")
    for who in names:
        found = [(sums.get((who, ALL, name))) for name in each]
        means = [f"{one.mean:.4f}" if one and one.users else "–" for one in found]
        of_all = [f"{newest[who, name]:.4f}" if (who, name) in newest else "–" for name in whole]
        grid.add_row(who, *of_all, *means, style="bold" if who == KAIROS else None)
    console.print(grid)


def _compared(parts: list[tuple[str, Sums, str]], best: str, title: str) -> None:
    """Kairos beside the best baseline, part by part."""
    grid = Grid(title, "users", f"{KAIROS} {_MAIN} \\[low, high]", best, f"{KAIROS} leads by \\[low, high]", "p", title_justify="left")
    for name, sums, segment in parts:
        mine, other = (sums[who, segment, _MAIN] for who in (KAIROS, best))
        grid.add_row(name, f"{mine.users:,}", _mean(mine), f"{other.mean:.4f}", *_lead(mine.less(other)))
    console.print(grid)


def _mean(one: Draws) -> str:
    interval = one.interval()
    return f"{one.mean:.4f}" + (f" \\[{interval.low:.3f}, {interval.high:.3f}]" if interval else "")


def _lead(lead: Difference | None) -> tuple[str, str]:
    if lead is None:
        return "", ""
    return f"{lead.value:+.4f} \\[{lead.interval.low:+.3f}, {lead.interval.high:+.3f}]", f"{lead.p:.3f}"

"""Plots of a training as figures that MLflow stores as images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plots(told: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    """Name and figure of what there is to draw of a training's report (model/training/report.py)."""
    if told["curve"]:
        yield "loss", _loss(told["curve"])
    if told["recall_by_age"]:
        yield "recall_by_item_age", _by_age(told["recall_by_age"])
    if told["calibration"]:
        yield "calibration", _calibration(told["calibration"])


def _figure(title: str, x: str, y: str) -> tuple[Figure, Any]:
    # Figures of their own, not pyplot's: no window system, no state shared with whoever calls.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    return figure, axes


def _loss(curve: list[list[Any]]) -> Figure:
    figure, axes = _figure("Loss in training", "step", "mean loss of the step's targets")
    for network in dict.fromkeys(point[1] for point in curve):
        mine = [point for point in curve if point[1] == network]
        axes.plot([point[0] for point in mine], [point[2] for point in mine], label=network, linewidth=1)
    axes.legend()
    return figure


def _by_age(found: Mapping[str, Mapping[str, float]]) -> Figure:
    figure, axes = _figure("Chosen candidates among the first ten, by age of the item (newest anchor, seen in training)", "age of the item", "recall@10")
    bars = axes.bar(list(found), [one["recall"] for one in found.values()])
    axes.bar_label(bars, [f"{one['chosen']:,} chosen" for one in found.values()])
    axes.set_ylim(0, 1)
    axes.title.set_fontsize(9)
    return figure


def _calibration(parts: list[Mapping[str, float]]) -> Figure:
    figure, axes = _figure("Expected and chosen, candidates in tenths (newest anchor, seen in training)", "expected share", "chosen share")
    most = max(max(p["expected"], p["chosen"]) for p in parts)
    axes.plot([0, most], [0, most], color="grey", linewidth=0.8)
    axes.plot([p["expected"] for p in parts], [p["chosen"] for p in parts], marker="o")
    axes.title.set_fontsize(9)
    return figure

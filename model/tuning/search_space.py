"""Which settings a study may change, and within which bounds: one table, and how its values get into a tree of settings."""

from __future__ import annotations

import copy
from functools import reduce
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from conf.settings import Settings

#: Path of a setting -> the values it may take. Bounds are wide: what is in use always lies within (``space``).
SPACE: dict[str, BaseDistribution] = {
    "training.learning_rate": FloatDistribution(5e-4, 1e-2, log=True),
    "training.epochs": IntDistribution(1, 8),
    "training.retrieval_epochs": IntDistribution(1, 4),
    "training.augment.crop": FloatDistribution(0.0, 0.5),
    "training.augment.mask": FloatDistribution(0.0, 0.3),
    "training.signal_prior": CategoricalDistribution((0.0, 30.0, 100.0, 300.0, 1000.0)),
    "training.weight_decay": CategoricalDistribution((0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)),
    "model.width": CategoricalDistribution((24, 32, 48, 64, 96)),
    "model.dropout": FloatDistribution(0.0, 0.5),
    "model.slate_layers": IntDistribution(1, 3),
    "slate.retrieved": IntDistribution(10, 120),
    "slate.repeats": IntDistribution(0, 120),
    "slate.audience": IntDistribution(0, 40),
    "slate.trending": IntDistribution(0, 40),
    "slate.released": IntDistribution(0, 40),
    "slate.neighbors": IntDistribution(0, 100),
}


def space(settings: Settings) -> dict[str, BaseDistribution]:
    """The part of the table that matters under these settings, widened to hold what they have now."""
    matters = {"slate.repeats": settings.repeat_consumption, "model.slate_layers": settings.model.use_slate}
    tree = settings.resolved()
    found = {path: _holding(known, look_up(tree, path)) for path, known in SPACE.items() if matters.get(path, True)}
    return {path: _divisible(known, settings.model.heads) if path == "model.width" else known for path, known in found.items()}


def in_use(settings: Settings) -> dict[str, Any]:
    """What the settings have now, for each path of their ``space``."""
    tree = settings.resolved()
    return {path: look_up(tree, path) for path in space(settings)}


def changed(settings: Settings, values: dict[str, Any]) -> dict[str, Any]:
    """Those of a trial's values that differ from what the settings have, rounded to what a person would write."""
    now = in_use(settings)
    rounded = {path: _readable(value) for path, value in values.items() if value != now[path]}
    return {path: value for path, value in rounded.items() if value != now[path]}


def put(tree: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A copy of the tree with values at paths such as ``model.width``."""
    tree = copy.deepcopy(tree)
    for path, value in values.items():
        *groups, name = path.split(".")
        reduce(lambda inner, group: inner.setdefault(group, {}), groups, tree)[name] = value
    return tree


def look_up(tree: dict[str, Any], path: str) -> Any:
    """The value at a path. Raises KeyError where there is none."""
    return reduce(lambda inner, name: inner[name], path.split("."), tree)


def _readable(value: Any) -> Any:
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _holding(known: BaseDistribution, now: Any) -> BaseDistribution:
    if isinstance(known, CategoricalDistribution):
        return known if now in known.choices else CategoricalDistribution((*known.choices, now))
    if isinstance(known, IntDistribution):
        return IntDistribution(min(known.low, now), max(known.high, now))
    assert isinstance(known, FloatDistribution)  # noqa: S101 - the table has no other kind
    return FloatDistribution(min(known.low, now), max(known.high, now), log=known.log)


def _divisible(width: BaseDistribution, heads: int) -> BaseDistribution:
    """Attention splits the width between its heads."""
    assert isinstance(width, CategoricalDistribution)  # noqa: S101 - the table says so
    return CategoricalDistribution([choice for choice in width.choices if isinstance(choice, int) and choice % heads == 0])

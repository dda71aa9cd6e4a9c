"""The model card of a version, and the environment that made it, as text."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from model.data import moment
from model.spec import TrainSpec

_PACKAGES = ("kairos-rec", "torch", "numpy", "scipy", "scikit-learn", "pyarrow", "deltalake", "safetensors", "mlflow", "pyspark", "delta-spark")


def model_card(card: Mapping[str, Any], spec: TrainSpec, digest: str) -> str:
    """What the model is, what it learned from, how it did there, and what it must not be used for."""
    metrics = "\n".join(f"| {name} | {value:,.4f} |" for name, value in sorted(card["metrics"].items()))
    fed = "\n".join(f"| {name} | {value:,.4g} |" for name, value in card.get("volume", {}).items())
    tables = "\n".join(f"| {name} | {ref.version} |" for name, ref in sorted(spec.tables.items()))
    anchors = ", ".join(_said(us) for us in card["anchors_us"])
    return f"""# Model of {card["settings"]["domain"]}, as of {_said(card["trained_as_of_us"])}

Recommends what a user will choose within {card["horizon_us"] / 86_400_000_000:g} days: a temporal encoder for candidates, a listwise ranker over them.
SHA-256 of the bundle: `{digest}`. Bundle schema {card["schema"]}; {card["vocabulary_rows"] - 1:,} items have an id vector. Nothing of a single user is stored.

It knows nothing later than its as_of, and may be used at that moment or later only. Labels are from the anchors {anchors}.
Items may {"" if card["repeat_consumption"] else "not "}be recommended again to who had them. Whoever has no history gets the ranking `{card["newcomers"]}`.

| learned from | |
|---|---|
{fed}

| table | Delta version |
|---|---|
{tables}

Seen in training, so these refuse a broken model and do not show that one is good; the gate judges it by what users did afterwards.

| metric | |
|---|---|
{metrics}
"""


def environment() -> str:
    """Python, machine and the versions of what matters."""
    lines = [f"python {platform.python_version()}", f"machine {platform.machine()} {platform.system()}"]
    for name in _PACKAGES:
        try:
            lines.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            lines.append(f"# {name} is not installed as a package")
    return "\n".join(lines) + "\n"


def _said(us: int) -> str:
    return f"{moment(us).as_py():%Y-%m-%dT%H:%M:%SZ}"

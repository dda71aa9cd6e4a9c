"""What a training run is told: which tables at which versions, which moments, which settings. Plain JSON on disk.

``jobs/train_model.py`` writes the file, every rank of ``model.train`` reads it; nothing else is passed between them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from conf.settings import Settings, from_tree

#: Tables the trainer reads. ``user_*`` at each anchor, the others as stated in ``model/data.py``.
TRAIN_TABLES = (
    "events", "items", "user_sequences", "user_profiles", "user_item_repeats", "item_temporal", "item_neighbors"
)  # fmt: skip
#: Tables the scorer prepares itself from; user rows come with the batches.
PREDICT_TABLES = ("items", "item_temporal", "item_neighbors", "user_sequences")


class _Node(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TableRef(_Node):
    """A table at one version: a Delta table (path and version) or, in tests, a folder of parquet files."""

    path: str
    version: int | None = Field(None, description="Delta version; the newest if not set")
    format: Literal["delta", "parquet"] = "delta"
    storage_options: dict[str, str] | None = None


class RunRef(_Node):
    """The MLflow run that rank 0 logs to; the run exists already (made by the job) and is left open."""

    tracking_uri: str
    experiment: str
    run_id: str


class TablesSpec(_Node):
    """Tables by contract name."""

    tables: dict[str, TableRef]

    def table(self, name: str) -> TableRef:
        """The reference of one table.

        Raises ValueError if the specification does not name it.
        """
        if name not in self.tables:
            raise ValueError(f"the specification names no table {name!r}; it has {', '.join(sorted(self.tables))}")
        return self.tables[name]


class TrainSpec(TablesSpec):
    """One training run. Times are UTC epoch microseconds; ``anchors_us`` oldest first, all with labels before as_of."""

    as_of_us: int
    anchors_us: tuple[int, ...] = Field(min_length=1)
    horizon_us: int = Field(gt=0)
    repeat_consumption: bool = True
    settings: dict[str, Any]
    output: str
    run: RunRef | None = None

    @model_validator(mode="after")
    def _times(self) -> TrainSpec:
        if list(self.anchors_us) != sorted(set(self.anchors_us)):
            raise ValueError(f"anchors_us must rise strictly, found {list(self.anchors_us)}")
        if self.anchors_us[-1] + self.horizon_us > self.as_of_us:
            raise ValueError("the newest anchor's labels would lie after as_of: anchor + horizon must be <= as_of")
        missing = sorted(set(TRAIN_TABLES) - set(self.tables))
        if missing:
            raise ValueError(f"the specification lacks the tables {', '.join(missing)}")
        return self

    def resolved_settings(self) -> Settings:
        """The typed settings tree."""
        return from_tree(self.settings, "spec.settings")


class PredictSpec(TablesSpec):
    """What the scorer prepares itself from."""

    as_of_us: int
    night_us: int | None = Field(None, description="the full night that as_of, an hour, changes; None: as_of is one")
    asked_us: int | None = Field(None, description="the later moment that is asked about, knowing no more; None: as_of")
    repeat_consumption: bool = True
    top_k: int = Field(20, ge=1)


def read_spec(path: str | Path) -> TrainSpec:
    """Read a training specification from JSON. Raises pydantic's ValidationError naming each bad key."""
    return TrainSpec.model_validate(json.loads(Path(path).read_text(encoding="utf-8")))


def write_spec(spec: TrainSpec, path: str | Path) -> None:
    """Write a training specification as JSON."""
    Path(path).write_text(spec.model_dump_json(indent=1), encoding="utf-8")

"""What a training run is told: which tables at which versions, which moments, which settings. Plain JSON on disk.

``jobs/train_model.py`` writes the file, every rank of ``model.train`` reads it; nothing else is passed between them. So do
``jobs/tune_model.py`` and the processes of ``model.tuning.study``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from conf.load import from_tree
from conf.settings import Settings

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
    """An MLflow run that exists already (made by the job) and is left open."""

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
    checkpoints: str | None = Field(None, description="folder of the checkpoints; without it nothing is kept of a killed run")

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


class StudySpec(_Node):
    """Which settings predict best: ``base`` as it is against others, judged at its newest anchors, by models that end there."""

    base: TrainSpec
    windows: int = Field(ge=1, description="newest anchors that are held out and judged, oldest first")
    trials: int = Field(ge=1, description="settings tried in all, the ones in use among them")
    journal: str = Field(description="file that remembers the trials; one there goes on with them")
    seed: int = 0
    parallel: int = Field(1, ge=1, description="processes that share the study and the cores")
    max_seconds: int = Field(14_400, ge=1, description="a process begins no further trial after this")
    run: RunRef | None = None
    """The trials' runs are nested in this one."""

    @model_validator(mode="after")
    def _something_to_learn_from(self) -> StudySpec:
        first = self.base.anchors_us[-self.windows :][0]
        if len(self.base.anchors_us) <= self.windows or not self._closed(first):
            raise ValueError(
                f"{len(self.base.anchors_us)} anchors are too few to hold out {self.windows}: before the oldest of these, there "
                "must be one whose window ends by then; build features at more anchors, or set fewer windows"
            )
        return self

    @property
    def held_out(self) -> tuple[int, ...]:
        """The anchors that are judged and, each for itself, never trained on."""
        return self.base.anchors_us[-self.windows :]

    @property
    def name(self) -> str:
        """Of the question: trials may be compared if tables, moments and settings in use are the same."""
        asked = self.model_dump(mode="json", include={"base": True, "windows": True, "seed": True})
        asked["base"] |= {"output": None}
        asked["base"]["settings"] = {k: v for k, v in self.base.settings.items() if k not in ("tuning", "spark", "mlflow")}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def training(self, anchor_us: int, settings: dict[str, Any]) -> TrainSpec:
        """The training whose model is judged at a held-out anchor: a run at that very moment, which knows nothing later."""
        anchors = self._closed(anchor_us)[-self.base.resolved_settings().anchors :]
        told = {"as_of_us": anchor_us, "anchors_us": anchors, "settings": settings}
        return TrainSpec.model_validate(self.base.model_dump() | told)

    def _closed(self, anchor_us: int) -> tuple[int, ...]:
        return tuple(a for a in self.base.anchors_us if a + self.base.horizon_us <= anchor_us)


class PredictSpec(TablesSpec):
    """What the scorer prepares itself from."""

    as_of_us: int
    night_us: int | None = Field(None, description="the full night that as_of, an hour, changes; None: as_of is one")
    asked_us: int | None = Field(None, description="the later moment that is asked about, knowing no more; None: as_of")
    repeat_consumption: bool = True
    top_k: int = Field(20, ge=1)
    category_cap: int | None = Field(None, ge=1, description="at most so many items of one category in a list")
    pinned: tuple[str, ...] = Field((), description="items that stand first in every list that may hold them")
    pin_places: int = Field(1, ge=1, description="at most so many of them in a list")
    explore_places: int = Field(0, ge=0, description="so many places at the end of a list are drawn from what would follow, too")


def read_spec(path: str | Path) -> TrainSpec:
    """Read a training specification from JSON. Raises pydantic's ValidationError naming each bad key."""
    return TrainSpec.model_validate(json.loads(Path(path).read_text(encoding="utf-8")))


def read_study(path: str | Path) -> StudySpec:
    """Read a study's specification from JSON. Raises pydantic's ValidationError naming each bad key."""
    return StudySpec.model_validate_json(Path(path).read_text(encoding="utf-8"))


def write_spec(spec: TrainSpec | StudySpec, path: str | Path) -> None:
    """Write a specification as JSON."""
    Path(path).write_text(spec.model_dump_json(indent=1), encoding="utf-8")

"""The jobs' side of the model: which version may be used at as_of, and what it reads."""

from __future__ import annotations

import contextlib
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from conf.settings import Settings
from features.contracts import ITEM_NEIGHBORS, ITEM_TEMPORAL, ITEMS, USER_SEQUENCES, Table
from features.windows import to_micros
from jobs.cli import Context
from jobs.errors import ModelGateError
from jobs.progress import console
from jobs.store.house_rules import pinned_items
from jobs.store.nights import newest_night
from model import predict
from model.spec import PredictSpec, TableRef
from model.versions import champions, pinned, registry
from model.versions.registry import ModelVersion


@dataclass(frozen=True)
class UsableModel:
    """A registered version and its checked local copy."""

    version: str
    folder: Path


def tracking_uri(settings: Settings) -> str:
    """MLflow's tracking URI with the warehouse filled in."""
    return settings.mlflow.tracking_uri.format(warehouse=Path(settings.warehouse).absolute())


def artifacts(settings: Settings) -> str:
    """Where MLflow keeps artifacts, with the warehouse filled in."""
    return settings.mlflow.artifacts.format(warehouse=Path(settings.warehouse).absolute())


@contextlib.contextmanager
def registry_errors() -> Iterator[None]:
    """What the registry says, as a job's error."""
    try:
        yield
    except registry.RegistryError as error:
        raise ModelGateError(str(error)) from error


def has_model(settings: Settings, as_of: datetime) -> bool:
    """Whether a champion exists that was trained on nothing later than as_of."""
    return _champion(settings, as_of) is not None


def grown_old(settings: Settings, as_of: datetime) -> bool:
    """Whether the newest version is so old at as_of that it is time to train anew (``training.every``).

    A night that was trained at, or that a later version knows more than, is not: made again, it uses what it used. A version that
    the gate did not take counts as well, or every night would train what the one before it refused.
    """
    if settings.train_every is None:
        return False
    try:
        every = champions.registered(tracking_uri(settings), settings.mlflow.model)
    except registry.RegistryError as error:
        console.print(f"  {error}; whether it is time to train is not known, and the champion stays in use", markup=False)
        return False
    newest = max((version.trained_as_of_us for version in every), default=None)
    return newest is not None and newest <= to_micros(as_of - settings.train_every)


def _champion(settings: Settings, as_of: datetime) -> ModelVersion | None:
    """The version that a run at as_of uses. Where the registry does not answer, ``mlflow.on_unreachable`` decides."""
    uri, name = tracking_uri(settings), settings.mlflow.model
    try:
        return champions.champion(uri, name, to_micros(as_of))
    except registry.RegistryError as error:
        found = pinned.recall(_copies(settings), uri, name, to_micros(as_of))
        if settings.mlflow.on_unreachable == "fail" or found is None:
            raise ModelGateError(str(error)) from error
        console.print(f"  {error}; version {found.version}, which was used last, is used again", markup=False)
        return found


def _copies(settings: Settings) -> Path:
    return Path(settings.warehouse).absolute() / ".models"


def usable(settings: Settings, as_of: datetime) -> UsableModel:
    """The champion as it may be used at as_of. Raises ModelGateError when there is none."""
    name = settings.mlflow.model
    version = _champion(settings, as_of)
    if version is None:
        raise ModelGateError(
            f"no champion of model {name!r} was trained at or before {as_of:%Y-%m-%dT%H:%M:%SZ} (the time law forbids a later "
            f"one); registry {tracking_uri(settings)}; run jobs/train_model.py with that --as-of first"
        )
    model = local(settings, version)
    pinned.remember(_copies(settings), version, to_micros(as_of))
    return model


def local(settings: Settings, version: ModelVersion) -> UsableModel:
    """A version and its checked local copy."""
    with registry_errors():
        folder = registry.fetch(version, _copies(settings))
    return UsableModel(str(version.version), folder)


def references(context: Context, tables: Sequence[Table]) -> dict[str, TableRef]:
    """The tables at their newest versions, pinned, for readers outside Spark. They count as inputs of the run."""
    refs = {}
    for table in tables:
        context.warehouse.read(table)  # checks that it is there and ours, and records its version
        version = context.warehouse.inputs[table.name]
        refs[table.name] = TableRef(path=context.warehouse.path(table), version=version)
    return refs


@contextlib.contextmanager
def prepared(context: Context, model: UsableModel, asked: datetime | None = None) -> Iterator[str]:
    """Compute the catalogue's state at as_of once, and ship it to the workers while the block runs. Yields its name there.

    ``asked``: a later moment that is asked about, with what is known at as_of.
    """
    spec = PredictSpec(
        tables=references(context, [ITEMS, ITEM_TEMPORAL, ITEM_NEIGHBORS, USER_SEQUENCES]),
        as_of_us=to_micros(context.as_of),
        night_us=None if context.mode == "nightly" else to_micros(newest_night(context.warehouse, context.as_of)),
        asked_us=None if asked is None else to_micros(asked),
        repeat_consumption=context.settings.repeat_consumption,
        top_k=context.settings.top_k,
        category_cap=context.settings.scoring.category_cap,
        pinned=pinned_items(context.warehouse.read(ITEMS), context.settings),
        pin_places=context.settings.scoring.pin_places,
        explore_places=context.settings.scoring.explore_places,
    )
    with tempfile.TemporaryDirectory(prefix="kairos-catalogue-") as scratch:
        name = f"{Path(scratch).name}-state"
        folder = predict.prepare(model.folder, spec, Path(scratch) / name)
        # An archive, because Spark ships no local folder to a cluster; each executor unpacks it once.
        archive = _packed(folder, Path(scratch) / f"{name}.packed.zip")
        context.spark.sparkContext.addArchive(f"{archive}#{name}")
        yield name


def _packed(folder: Path, archive: Path) -> Path:
    """The folder's files in one, as they are: vectors hardly shrink, and deflating them takes longer than making them."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            packed.write(file, file.relative_to(folder))
    return archive

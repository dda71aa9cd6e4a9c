"""Model versions in MLflow's registry: who made them, of what they know, and whether they are what was registered.

A version is a folder of plain files (``bundle_hash``), stored as artifacts of the run that trained it. Nothing is pickled and
nothing that is downloaded is run. Three tags carry what the time law and safety need: ``trained_as_of_us``, ``sha256``,
``schema``. Which version is in use when: ``model/versions/champions.py``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.versions.bundle_hash import BUNDLE_SCHEMA, BundleError, bundle_hash

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRAINED_AS_OF = "trained_as_of_us"
_SHA256, _SCHEMA = "sha256", "schema"
_ARTIFACTS = "bundle"
#: In which of its two views MLflow's UI opens the experiment: that of models, and not that of prompts and traces.
_VIEW = {"mlflow.experimentKind": "custom_model_development"}

# MLflow waits minutes for a dead registry by default (7 tries of 120 s), draws bars, and reports usage over the network.
_CLIENT_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class RegistryError(Exception):
    """The registry cannot be reached, or what it has may not be used; the message says what, where and what to do."""


@dataclass(frozen=True)
class ModelVersion:
    """One registered version. ``trained_as_of_us``: it knows nothing later than this (UTC, epoch microseconds)."""

    tracking_uri: str
    name: str
    version: str
    run_id: str
    source: str
    sha256: str
    schema: int
    trained_as_of_us: int
    tags: Mapping[str, str]


def start_run(tracking_uri: str, experiment: str, artifacts: str, run_name: str) -> str:
    """Make a run, and the experiment with its artifact location where it is missing. Returns the run's id.

    The run stays open; ``register`` or ``end_run`` ends it well, ``fail_run`` ends it otherwise.
    """
    with connected(tracking_uri) as client:
        found = client.get_experiment_by_name(experiment)
        if found is not None and found.lifecycle_stage != "active":
            raise RegistryError(
                f"experiment {experiment!r} in {tracking_uri} is deleted: restore it (mlflow experiments restore -x "
                f"{found.experiment_id}) or set mlflow.experiment to another name"
            )
        location = artifacts if "://" in artifacts else Path(artifacts).absolute().as_uri()
        known = found.experiment_id if found else client.create_experiment(experiment, location, _VIEW)
        return client.create_run(known, run_name=run_name).info.run_id


def fail_run(tracking_uri: str, run_id: str) -> None:
    """End a run that did not succeed, and what is still open of the runs nested in it."""
    with connected(tracking_uri) as client:
        within = f"tags.`mlflow.parentRunId` = '{run_id}' and attributes.status = 'RUNNING'"
        for inner in client.search_runs([client.get_run(run_id).info.experiment_id], within):
            client.set_terminated(inner.info.run_id, "FAILED")
        client.set_terminated(run_id, "FAILED")


def end_run(tracking_uri: str, run_id: str, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
    """End a run well, with what it found."""
    with connected(tracking_uri) as client:
        for name, value in metrics.items():
            client.log_metric(run_id, name, value)
        for name, text in tags.items():
            client.set_tag(run_id, name, text)
        client.set_terminated(run_id, "FINISHED")


def register(
    bundle: Path, tracking_uri: str, name: str, run_id: str, tags: Mapping[str, str | int]
) -> ModelVersion:
    """Store a bundle with the run that made it, as a new version of the model, and end the run.

    ``tags`` must have ``trained_as_of_us``. Raises RegistryError (also for a folder with links in it).
    """
    if not str(tags.get(TRAINED_AS_OF, "")).lstrip("-").isdigit():
        raise RegistryError(f"tag {TRAINED_AS_OF} = {tags.get(TRAINED_AS_OF)!r}: epoch microseconds are needed")
    try:
        digest = bundle_hash(bundle)
    except BundleError as error:
        raise RegistryError(f"cannot register model {name!r}: {error}") from None
    every = {k: str(v) for k, v in tags.items()} | {_SHA256: digest, _SCHEMA: str(BUNDLE_SCHEMA)}
    with connected(tracking_uri) as client:
        client.log_artifacts(run_id, str(bundle), _ARTIFACTS)
        if not client.search_registered_models(f"name = '{name}'", max_results=1):
            client.create_registered_model(name)
        source = f"{client.get_run(run_id).info.artifact_uri}/{_ARTIFACTS}"
        made = client.create_model_version(name, source, run_id, tags=every)
        client.set_terminated(run_id, "FINISHED")
        return _version(tracking_uri, made)


def fetch(version: ModelVersion, cache: Path) -> Path:
    """A local copy of a version's bundle, checked against its SHA-256 tag each time. Returns the folder.

    The copy is kept under ``cache`` by its hash and taken from there the next time, without asking the artifact store.
    Raises RegistryError for a version without a hash, of a newer schema, or whose files are not what was registered.
    """
    what = f"version {version.version} of model {version.name!r} in {version.tracking_uri}"
    if version.schema > BUNDLE_SCHEMA:
        raise RegistryError(
            f"{what} has bundle schema {version.schema}, newer than the {BUNDLE_SCHEMA} known here; upgrade kairos-rec"
        )
    if len(version.sha256) != 64 or not version.sha256.isalnum():
        raise RegistryError(f"{what} has no tag {_SHA256}: it was not registered by this project; train a new one")
    kept = cache / version.sha256
    if _intact(kept, version.sha256):
        return kept
    shutil.rmtree(kept, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as folder:
        fresh = _download(version, Path(folder), what)
        with contextlib.suppress(OSError):  # another process was faster; its copy is checked below like ours
            fresh.rename(kept)
    if not _intact(kept, version.sha256):
        raise RegistryError(f"{what} could not be kept at {kept}: remove that folder, see that there is space, try again")
    return kept


def _intact(folder: Path, sha256: str) -> bool:
    try:
        return bundle_hash(folder) == sha256
    except BundleError:
        return False


def _download(version: ModelVersion, folder: Path, what: str) -> Path:
    with connected(version.tracking_uri):
        from mlflow.artifacts import download_artifacts

        fresh = Path(download_artifacts(version.source, dst_path=str(folder), tracking_uri=version.tracking_uri))
    try:
        found = bundle_hash(fresh)
    except BundleError as error:
        raise RegistryError(f"{what} at {version.source}: {error}") from None
    if found != version.sha256:
        raise RegistryError(
            f"{what} at {version.source} is not what was registered: SHA-256 {found}, registered {version.sha256}; "
            "do not use it: train again, or make an earlier version champion"
        )
    return fresh


def versions(client: MlflowClient, tracking_uri: str, name: str) -> list[ModelVersion]:
    """Every version of the model that was registered by this module."""
    found: list[ModelVersion] = []
    token: str | None = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=1000, page_token=token)
        found += [_version(tracking_uri, v) for v in page if TRAINED_AS_OF in v.tags]
        token = page.token
        if not token:
            return found


def _version(tracking_uri: str, found: Any) -> ModelVersion:
    return ModelVersion(
        tracking_uri=tracking_uri,
        name=found.name,
        version=str(found.version),
        run_id=found.run_id,
        source=found.source,
        sha256=found.tags.get(_SHA256, ""),
        schema=int(found.tags.get(_SCHEMA, "0")),
        trained_as_of_us=int(found.tags[TRAINED_AS_OF]),
        tags=dict(found.tags),
    )


@contextlib.contextmanager
def connected(tracking_uri: str) -> Iterator[MlflowClient]:
    """A quiet client that gives up soon. MLflow's, its store's and the network's own errors become RegistryError."""
    for key, value in _CLIENT_DEFAULTS.items():
        os.environ.setdefault(key, value)
    # Imported here: it takes seconds, and reads the variables above when it is loaded.
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    file = sqlite_file(tracking_uri)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    except (MlflowException, SQLAlchemyError, OSError) as error:  # requests' errors are OSErrors; a store's own pass through
        text = " ".join(str(error).split())[:300]
        raise RegistryError(
            f"MLflow at {tracking_uri} failed: {text}; check that it runs, and mlflow.tracking_uri in the settings"
        ) from error


def sqlite_file(tracking_uri: str) -> Path | None:
    """The file of a store in SQLite; None for any other."""
    scheme = "sqlite:///"
    return Path(tracking_uri.removeprefix(scheme)) if tracking_uri.startswith(scheme) else None

"""When the registry is dead or does not answer: the version that was used last, or an error, within a minute. No Spark."""

from __future__ import annotations

import json
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from model_world import settings

from jobs.errors import ModelGateError
from jobs.lists.models import artifacts, has_model, tracking_uri, usable
from model.versions import champions, pinned, registry

AS_OF = datetime(2026, 1, 31, tzinfo=UTC)
DAY = timedelta(days=1)
LATER = AS_OF + 2 * DAY
DEAD = "http://127.0.0.1:9"


def made(folder: Path, uri: str | None = None, on_unreachable: str = "local_copy"):
    over = {"on_unreachable": on_unreachable} | ({} if uri is None else {"tracking_uri": uri})
    return settings(warehouse=str(folder / "warehouse"), mlflow=over)


@pytest.fixture(scope="module")
def used(tmp_path_factory) -> Path:
    """A warehouse in which a run at AS_OF used version 1."""
    folder = tmp_path_factory.mktemp("unreachable")
    chosen = made(folder)
    (folder / "bundle").mkdir()
    (folder / "bundle" / "weights").write_bytes(b"weights")
    uri = tracking_uri(chosen)
    run = registry.start_run(uri, "tests", artifacts(chosen), "one")
    tags = {registry.TRAINED_AS_OF: int((AS_OF - DAY).timestamp() * 1e6)}
    champions.promote(uri, registry.register(folder / "bundle", uri, chosen.mlflow.model, run, tags))
    assert usable(chosen, AS_OF).version == "1"
    return folder


def test_the_version_used_last_is_used_again(used: Path) -> None:
    dead = made(used, DEAD)
    model = usable(dead, AS_OF + DAY)
    assert model.version == "1" and (model.folder / "weights").read_bytes() == b"weights"
    assert has_model(dead, AS_OF + DAY)


def test_without_the_setting_it_fails(used: Path) -> None:
    for ask in (usable, has_model):
        with pytest.raises(ModelGateError, match=r"MLflow at http://127\.0\.0\.1:9 failed"):
            ask(made(used, DEAD, "fail"), AS_OF + DAY)


def test_a_run_of_the_past_does_not_use_what_was_chosen_later(used: Path) -> None:
    with pytest.raises(ModelGateError, match="failed"):
        usable(made(used, DEAD), AS_OF - timedelta(hours=1))


def test_a_run_of_the_past_changes_nothing_that_is_remembered(used: Path) -> None:
    note = used / "warehouse" / ".models" / "kairos.json"
    before = note.read_text()
    usable(made(used), AS_OF - timedelta(hours=1))
    assert note.read_text() == before


def test_a_spoilt_local_copy_is_not_used(used: Path) -> None:
    dead = made(used, DEAD)
    weights = usable(dead, LATER).folder / "weights"
    weights.write_bytes(b"weightz")
    note = used / "warehouse" / ".models" / "kairos.json"
    kept = note.read_text()
    gone = json.loads(kept) | {"source": "file:///nowhere"}
    note.write_text(json.dumps(gone))
    try:
        with pytest.raises(ModelGateError, match="nowhere"):
            usable(dead, LATER)
    finally:
        note.write_text(kept)
        usable(made(used), LATER)


def test_a_note_that_cannot_be_read_is_no_note(tmp_path: Path) -> None:
    (tmp_path / "kairos.json").write_text("{")
    assert pinned.recall(tmp_path, DEAD, "kairos", 0) is None


def test_a_registry_that_never_answers_costs_less_than_a_minute(used: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        tick = time.monotonic()
        assert usable(made(used, f"http://127.0.0.1:{silent.getsockname()[1]}"), LATER).version == "1"
        assert time.monotonic() - tick < 60

"""The model registry, with MLflow's real sqlite store."""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from model_world import small_bundle as bundle

from model.versions import champions, registry
from model.versions.bundle_hash import BUNDLE_SCHEMA
from model.versions.registry import ModelVersion, RegistryError

DAY = 86_400_000_000


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for all tests: making its tables takes seconds. The folder does not exist yet."""
    return f"sqlite:///{tmp_path_factory.mktemp('registry')}/not/yet/mlflow.db"


@pytest.fixture
def make(uri: str, tmp_path: Path, request: pytest.FixtureRequest):
    """Registers a version of this test's own model, trained as of a day."""

    def register(day: int, weights: bytes = b"weights") -> ModelVersion:
        name = request.node.originalname
        run = registry.start_run(uri, "tests", str(tmp_path.parent / "artifacts"), f"day {day}")
        folder = bundle(tmp_path / f"bundle-{day}-{len(list(tmp_path.iterdir()))}", weights)
        return registry.register(folder, uri, name, run, {registry.TRAINED_AS_OF: day * DAY})

    return register


def chosen(version: ModelVersion, day: int) -> str | None:
    found = champions.champion(version.tracking_uri, version.name, day * DAY)
    return found and found.version


# -- register and fetch ----------------------------------------------------------------------------------------------


def test_a_bundle_comes_back_as_it_went_in(make, tmp_path: Path) -> None:
    version = make(3, b"\x00\x01")
    folder = registry.fetch(version, tmp_path / "cache")
    assert (folder / "networks" / "encoder.safetensors").read_bytes() == b"\x00\x01"
    assert sorted(p.name for p in folder.rglob("*")) == ["encoder.safetensors", "manifest.json", "networks"]
    assert (version.trained_as_of_us, version.schema, version.version) == (3 * DAY, BUNDLE_SCHEMA, "1")
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [version.sha256]  # nothing half-downloaded is left


def test_the_run_is_ended_and_holds_the_files(make, uri: str) -> None:
    from mlflow import MlflowClient

    version = make(3)
    client = MlflowClient(uri)
    assert client.get_run(version.run_id).info.status == "FINISHED"
    assert [f.path for f in client.list_artifacts(version.run_id, "bundle")] == [
        "bundle/manifest.json",
        "bundle/networks",
    ]


def test_a_failed_run_is_shown_as_failed(uri: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    run = registry.start_run(uri, "tests", str(tmp_path), "fails")
    registry.fail_run(uri, run)
    assert MlflowClient(uri).get_run(run).info.status == "FAILED"


def test_the_second_fetch_needs_no_artifact_store(make, tmp_path: Path) -> None:
    version = make(3)
    first = registry.fetch(version, tmp_path / "cache")
    shutil.rmtree(version.source.removeprefix("file://"))
    assert registry.fetch(version, tmp_path / "cache") == first


def test_a_spoilt_local_copy_is_fetched_again(make, tmp_path: Path) -> None:
    version = make(3)
    kept = registry.fetch(version, tmp_path / "cache") / "networks" / "encoder.safetensors"
    kept.write_bytes(b"spoilt")
    registry.fetch(version, tmp_path / "cache")
    assert kept.read_bytes() == b"weights"


def test_changed_weights_are_refused_and_not_kept(make, tmp_path: Path) -> None:
    version = make(3)
    Path(version.source.removeprefix("file://"), "networks", "encoder.safetensors").write_bytes(b"evil")
    with pytest.raises(RegistryError, match="is not what was registered"):
        registry.fetch(version, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_thousand_flipped_bits_are_all_refused(make, tmp_path: Path) -> None:
    version = make(3, bytes(range(256)) * 8)
    stored = Path(version.source.removeprefix("file://"))
    files = {path: path.read_bytes() for path in stored.rglob("*") if path.is_file()}
    rng = random.Random(0)
    for flip in range(1_000):
        path = rng.choice(sorted(files))
        whole = bytearray(files[path])
        whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(whole)
        with pytest.raises(RegistryError, match="is not what was registered"):
            registry.fetch(version, tmp_path / "cache")
        path.write_bytes(files[path])
        assert list((tmp_path / "cache").iterdir()) == [], f"flip {flip} left something in the cache"
    assert registry.fetch(version, tmp_path / "cache").name == version.sha256


def test_flipped_bits_of_the_local_copy_are_all_seen(make, tmp_path: Path) -> None:
    version = make(3)
    kept = registry.fetch(version, tmp_path / "cache")
    files = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    shutil.rmtree(version.source.removeprefix("file://"))  # so that a copy that is taken for spoilt cannot be replaced
    rng = random.Random(1)
    for _ in range(50):
        path = rng.choice(sorted(files))
        whole = bytearray(files[path])
        whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(whole)
        with pytest.raises(RegistryError):
            registry.fetch(version, tmp_path / "cache")
        for good, content in files.items():  # a refused copy is thrown away
            good.parent.mkdir(parents=True, exist_ok=True)
            good.write_bytes(content)


@pytest.mark.parametrize("name", ["model.pkl", "networks/more.safetensors"])
def test_a_file_that_was_added_is_refused(make, tmp_path: Path, name: str) -> None:
    version = make(3)
    canary = tmp_path / "canary"
    added = Path(version.source.removeprefix("file://"), name)
    added.write_bytes(f"cos\nsystem\n(S'touch {canary}'\ntR.".encode())
    with pytest.raises(RegistryError, match="is not what was registered"):
        registry.fetch(version, tmp_path / "cache")
    assert not canary.exists() and list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("target", ["/etc/hostname", "manifest.json"])
def test_a_link_among_the_artifacts_is_refused(make, tmp_path: Path, target: str) -> None:
    version = make(3)
    Path(version.source.removeprefix("file://"), "more.json").symlink_to(target)
    with pytest.raises(RegistryError, match=r"outside the artifact directory|not what was registered"):
        registry.fetch(version, tmp_path / "cache")


def test_a_newer_schema_and_a_foreign_version_are_refused(make, tmp_path: Path) -> None:
    version = make(3)
    with pytest.raises(RegistryError, match="upgrade kairos-rec"):
        registry.fetch(replace(version, schema=BUNDLE_SCHEMA + 1), tmp_path)
    with pytest.raises(RegistryError, match="has no tag sha256"):
        registry.fetch(replace(version, sha256="../../somewhere"), tmp_path)


def test_a_version_must_say_what_it_was_trained_as_of(uri: str, tmp_path: Path) -> None:
    run = registry.start_run(uri, "tests", str(tmp_path), "no as_of")
    with pytest.raises(RegistryError, match="trained_as_of_us"):
        registry.register(bundle(tmp_path / "bundle"), uri, "nameless", run, {})


# -- who is champion when --------------------------------------------------------------------------------------------


def test_without_a_champion_there_is_none(make, uri: str) -> None:
    version = make(3)
    assert chosen(version, 100) is None
    assert champions.champion(uri, "no such model", DAY) is None


def test_asking_an_empty_warehouse_makes_nothing(tmp_path: Path) -> None:
    assert champions.champion(f"sqlite:///{tmp_path}/mlflow.db", "kairos", DAY) is None
    assert list(tmp_path.iterdir()) == []


def test_the_champion_is_usable_from_its_training_as_of_on(make, uri: str) -> None:
    version = make(3)
    assert champions.promote(uri, version)
    assert champions.champion(uri, version.name, 3 * DAY - 1) is None
    assert chosen(version, 3) == "1"


def test_a_night_made_again_uses_the_champion_of_its_time(make, uri: str) -> None:
    first, challenger, second = make(3), make(5), make(9)
    champions.promote(uri, first)
    champions.promote(uri, second)
    assert [chosen(first, day) for day in (2, 3, 8, 9, 50)] == [None, "1", "1", "3", "3"]
    assert challenger.version == "2"  # trained at 5 and never champion: never used


def test_an_older_model_does_not_displace_a_newer_champion(make, uri: str) -> None:
    newer, older = make(9), make(3)
    assert champions.promote(uri, newer)
    assert not champions.promote(uri, older)
    assert [chosen(newer, day) for day in (3, 8, 9)] == ["2", "2", "1"]


def test_a_person_can_roll_back(make, uri: str) -> None:
    good, bad = make(3), make(9)
    champions.promote(uri, good)
    champions.promote(uri, bad)
    assert champions.promote(uri, good, force=True)
    assert chosen(good, 50) == "1"


def test_a_choice_made_later_is_not_known_to_a_night_made_again(make, uri: str) -> None:
    first, proven = make(3), make(5)
    champions.promote(uri, first)
    assert champions.promote(uri, proven, 12 * DAY)  # its window had passed then
    assert [chosen(first, day) for day in (4, 5, 11, 12, 50)] == ["1", "1", "1", "2", "2"]


def test_a_rollback_holds_from_its_moment_on(make, uri: str) -> None:
    good, bad = make(3), make(9)
    champions.promote(uri, good)
    champions.promote(uri, bad)
    assert champions.former(uri, good.name).version == good.version
    champions.promote(uri, good, 9 * DAY, force=True)  # in the very night that had promoted it
    champions.mark(uri, bad, {champions.VERDICT: champions.REJECTED}, {"gate.rollback.lead": -0.1})
    assert [chosen(good, day) for day in (8, 9, 50)] == ["1", "1", "1"]
    assert champions.former(uri, good.name) is None  # what was rejected is not what one goes back to
    later = make(10)
    assert champions.promote(uri, later)
    assert [chosen(good, day) for day in (9, 10)] == ["1", "3"]


def test_a_rollback_cannot_be_undone_by_an_older_moment(make, uri: str) -> None:
    good, bad = make(3), make(9)
    champions.promote(uri, good)
    champions.promote(uri, bad)
    champions.promote(uri, good, 4 * DAY, force=True)
    assert [chosen(good, day) for day in (4, 8, 9)] == ["1", "1", "1"]


def test_an_alias_moved_by_hand_is_obeyed(make, uri: str) -> None:
    from mlflow import MlflowClient

    first, second = make(3), make(9)
    champions.promote(uri, first)
    champions.promote(uri, second)
    MlflowClient(uri).set_registered_model_alias(first.name, champions.CHAMPION, first.version)
    assert chosen(first, 50) == "1"


def test_the_challenger_has_its_alias_until_it_is_champion(make, uri: str) -> None:
    from mlflow import MlflowClient

    version = make(3)
    champions.challenge(uri, version)
    assert MlflowClient(uri).get_model_version_by_alias(version.name, champions.CHALLENGER).version == 1
    champions.promote(uri, version)
    assert MlflowClient(uri).get_registered_model(version.name).aliases.keys() == {champions.CHAMPION}


def test_who_is_judged_when_and_against_whom(make, uri: str) -> None:
    first, second, third = make(3), make(9), make(10)
    for version in (first, second, third):
        champions.promote(uri, version)
    every, now = champions.registered(uri, first.name), champions.current(uri, first.name)
    assert [v.version for v in every] == ["1", "2", "3"]

    def asked(day: int, versions: list) -> str | None:
        found = champions.pending(versions, day * DAY, 7 * DAY)
        return found and found.version

    assert [asked(day, every) for day in (9, 10, 15, 16, 17)] == [None, "1", "1", "2", "3"]
    assert champions.rival(every, second, now).version == "1"  # the champion is younger than what is judged
    assert champions.rival(every, first, now) is None
    judged = [replace(v, tags={**v.tags, champions.JUDGED: "0"}) if v.version == "2" else v for v in every]
    assert [asked(day, judged) for day in (10, 16, 17)] == [None, None, "3"]
    rejected = [replace(v, tags={**v.tags, champions.VERDICT: champions.REJECTED}) if v.version == "2" else v for v in every]
    assert [asked(day, rejected) for day in (16, 17)] == ["1", "3"]
    assert champions.rival(rejected, third, now).version == "1"


def test_a_challenger_meets_the_champion_of_today(make, uri: str) -> None:
    first, second, waiting = make(3), make(4), make(9)
    champions.promote(uri, first)
    champions.promote(uri, second, 11 * DAY)
    every = champions.registered(uri, first.name)
    assert champions.rival(every, waiting, champions.current(uri, first.name)).version == "2"


# -- when it is not there --------------------------------------------------------------------------------------------


def test_a_dead_registry_fails_soon_with_its_address() -> None:
    tick = time.monotonic()
    with pytest.raises(RegistryError, match=r"MLflow at http://127\.0\.0\.1:9 failed"):
        champions.champion("http://127.0.0.1:9", "kairos", DAY)
    assert time.monotonic() - tick < 60


def test_making_the_store_says_nothing(uri: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    registry.start_run(f"sqlite:///{tmp_path}/quiet.db", "tests", str(tmp_path), "quiet")
    assert capfd.readouterr() == ("", "")

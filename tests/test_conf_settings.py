"""Settings: extends, environment, and errors that help."""

from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from conf.load import SettingsError, from_tree, load

CONF = Path(__file__).parents[1] / "conf"
MINIMAL = {
    "domain": "shop",
    "source": {"events": {"path": "x", "columns": {"user_id": "u", "item_id": "i", "event_ts": "t"}}},
}


def write(folder: Path, name: str, tree: dict) -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(tree))
    return path


def test_only_user_item_and_time_need_a_mapping():
    settings = from_tree(MINIMAL)
    assert settings.horizon == timedelta(days=7)
    assert settings.source.items is None


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_domain_loads(path):
    if path.name == "base.yaml":
        with pytest.raises(SettingsError, match="setting domain is missing"):
            load(path, {})
    else:
        assert load(path, {}).domain


def test_a_child_overrides_single_keys_of_what_it_extends(tmp_path):
    write(tmp_path, "base.yaml", MINIMAL | {"slate": {"retrieved": 7, "repeats": 8}})
    child = write(tmp_path, "child.yaml", {"extends": "base.yaml", "slate": {"repeats": 9}})
    slate = load(child, {}).slate
    assert (slate.retrieved, slate.repeats) == (7, 9)


def test_the_environment_overrides_the_file(tmp_path):
    path = write(tmp_path, "s.yaml", MINIMAL)
    settings = load(path, {"KAIROS__TRAINING__EPOCHS": "3", "KAIROS__HORIZON": "1d", "UNRELATED": "1"})
    assert (settings.training.epochs, settings.horizon) == (3, timedelta(days=1))


def test_an_unknown_key_is_an_error_with_a_suggestion(tmp_path):
    path = write(tmp_path, "s.yaml", MINIMAL | {"training": {"epoch": 3}})
    with pytest.raises(SettingsError, match=r"s\.yaml: unknown setting training\.epoch; did you mean 'epochs'\?"):
        load(path, {})


def test_an_unknown_key_without_a_near_one_lists_the_known_ones(tmp_path):
    path = write(tmp_path, "s.yaml", MINIMAL | {"slate": {"zzz": 3}})
    with pytest.raises(SettingsError, match="known here: retrieved, repeats"):
        load(path, {})


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"horizon": "a week"}, "horizon = 'a week'.*not a duration"),
        ({"horizon": "0d"}, "horizon.*greater than"),
        ({"top_k": 0}, "top_k = 0"),
        ({"catalog": "a; DROP TABLE x"}, "catalog"),
        ({"evaluation": {"popularity_half_lives": ["2d"]}}, "2d"),
        ({"top_k": 5, "scoring": {"explore_places": 5}}, r"explore_places 5 and scoring\.pin_places 1 are more than the 5 places"),
    ],
)
def test_a_bad_value_is_named(tree, message):
    with pytest.raises(SettingsError, match=message):
        from_tree(MINIMAL | tree)


def test_a_missing_file_names_what_lies_beside_it(tmp_path):
    write(tmp_path, "other.yaml", MINIMAL)
    with pytest.raises(SettingsError, match=r"none\.yaml does not exist; beside it: other\.yaml"):
        load(tmp_path / "none.yaml", {})


def test_a_circle_of_extends_is_an_error(tmp_path):
    write(tmp_path, "a.yaml", {"extends": "b.yaml"})
    write(tmp_path, "b.yaml", {"extends": "a.yaml"})
    with pytest.raises(SettingsError, match="extends itself"):
        load(tmp_path / "a.yaml", {})


def test_settings_cannot_be_changed_and_have_a_fingerprint_of_their_values():
    one, two = from_tree(MINIMAL), from_tree(MINIMAL | {"top_k": 21})
    with pytest.raises(ValueError, match="frozen"):
        one.top_k = 3
    assert one.fingerprint() == from_tree(MINIMAL).fingerprint() != two.fingerprint()


@pytest.mark.parametrize(("horizon", "anchors", "every"), [("1m", 96, "1m"), ("1h", 96, "1h"), ("2h", 48, "2h"), ("6h", 40, "6h"), ("1d", 40, "1d"), ("2d", 40, "2d"), ("7d", 40, "7d"), ("30d", 40, "10d"), ("180d", 40, "60d")])
def test_how_many_anchors_there_are_follows_the_horizon(horizon: str, anchors: int, every: str) -> None:
    chosen = from_tree(MINIMAL | {"horizon": horizon})
    assert (chosen.anchors, chosen.anchor_every) == (anchors, from_tree(MINIMAL | {"horizon": every}).horizon)
    assert chosen.least_anchors == (4 if horizon == "7d" else 20 if chosen.horizon.days >= 30 else 14)
    assert chosen.trending_change == (1 if chosen.horizon.days >= 7 else 0)
    told = from_tree(MINIMAL | {"horizon": horizon, "training": {"anchors": 3}, "scoring": {"trending_change": 0.3}})
    assert told.trending_change == 0.3
    assert (told.anchors, told.least_anchors) == (3, 3)

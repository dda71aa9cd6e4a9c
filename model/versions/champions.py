"""Which version is in use when: the alias ``champion``, and the record of who was it since which as_of.

The alias names the version in use now, ``challenger`` the newest that was trained. The tag ``champion_since`` of a version
lists the moments from which it was champion, as ``as_of:number``; numbers count up over all versions, so of two decisions for
one moment the later holds. A run at a past as_of uses who was champion then: to choose by what was seen later would break the
time law. A person may move the alias by hand, and is obeyed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.versions.registry import ModelVersion, connected, sqlite_file, versions

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER = "champion", "challenger"
#: What the gate said last of a version, and the word for one that must not be used.
VERDICT, REJECTED = "gate", "reject"
#: The as_of of the run that judged a version in its window.
JUDGED = "judged_as_of_us"
_SINCE = "champion_since"
_ONCE = "was_champion"  # without the moment: how it was recorded before there was a gate


@dataclass(frozen=True)
class Reign:
    """A version is champion of the runs at ``since_us`` and later, until the next reign."""

    since_us: int
    number: int
    version: ModelVersion


def reigns(every: list[ModelVersion]) -> list[Reign]:
    """All of them, in order."""
    found = []
    for version in every:
        since = version.tags.get(_SINCE, "")
        if since:
            pairs = (one.split(":") for one in since.split())
            found += [Reign(int(us), int(number), version) for us, number in pairs]
        elif version.tags.get(_ONCE) == "true":
            found.append(Reign(version.trained_as_of_us, 0, version))
    return sorted(found, key=lambda r: (r.since_us, r.number, int(r.version.version)))


def champion(tracking_uri: str, name: str, as_of_us: int) -> ModelVersion | None:
    """The version that a run at as_of uses (UTC, epoch microseconds); None when there is none."""
    every, holder = _asked(tracking_uri, name)
    record = reigns(every)
    by_hand = holder is not None and (not record or record[-1].version.version != holder.version)
    if by_hand and holder is not None and holder.trained_as_of_us <= as_of_us:
        return holder
    past = [reign for reign in record if reign.since_us <= as_of_us]
    return past[-1].version if past else None


def registered(tracking_uri: str, name: str) -> list[ModelVersion]:
    """Every version of the model, oldest first."""
    return sorted(_asked(tracking_uri, name)[0], key=lambda v: int(v.version))


def challenge(tracking_uri: str, version: ModelVersion) -> None:
    """Name a version challenger."""
    with connected(tracking_uri) as client:
        client.set_registered_model_alias(version.name, CHALLENGER, version.version)


def promote(tracking_uri: str, version: ModelVersion, since_us: int | None = None, force: bool = False) -> bool:
    """Make a version champion of the runs at ``since_us`` (its own training as_of if not given, and never before it) and later.

    Returns whether it is champion now. A model of an older as_of does not displace a newer champion, or making a past night
    again would put an old model into tonight's lists: it is used only for the runs of its own time. ``force`` is for taking
    a champion back: whatever it holds, it ends now.
    """
    name = version.name
    with connected(tracking_uri) as client:
        every = versions(client, tracking_uri, name)
        record, holder = reigns(every), _holder(client, name, every)
        last = record[-1] if record else None
        since = max(version.trained_as_of_us if since_us is None else since_us, version.trained_as_of_us)
        if force and last is not None:
            since = max(since, last.since_us)
        now = last is None or since >= last.since_us
        if now and not force and holder is not None and holder.trained_as_of_us > version.trained_as_of_us:
            return False
        number = 1 + max((reign.number for reign in record), default=0)
        mine = next((v for v in every if v.version == version.version), version)
        told = f"{_told(mine)} {since}:{number}".strip()
        client.set_model_version_tag(name, version.version, _SINCE, told)
        if now:
            client.set_registered_model_alias(name, CHAMPION, version.version)
            if _alias(client, name, CHALLENGER) == version.version:
                client.delete_registered_model_alias(name, CHALLENGER)
        return now


def former(tracking_uri: str, name: str) -> ModelVersion | None:
    """Who was champion before the one that is it now, and was not rejected; None where there is nobody."""
    every, holder = _asked(tracking_uri, name)
    others = [r.version for r in reigns(every) if holder is None or r.version.version != holder.version]
    able = [version for version in others if version.tags.get(VERDICT) != REJECTED]
    return able[-1] if able else None


def mark(tracking_uri: str, version: ModelVersion, tags: Mapping[str, str], metrics: Mapping[str, float]) -> None:
    """Write tags on a version, and metrics into the run that trained it."""
    with connected(tracking_uri) as client:
        for key, text in tags.items():
            client.set_model_version_tag(version.name, version.version, key, text)
        for key, value in metrics.items():
            client.log_metric(version.run_id, key, value)


def pending(every: list[ModelVersion], as_of_us: int, window_us: int) -> ModelVersion | None:
    """The newest version whose window has passed at as_of and that nobody judged in it; not one older than what was judged."""
    since = max((v.trained_as_of_us for v in every if JUDGED in v.tags), default=-(2**62))
    closed = [v for v in every if since < v.trained_as_of_us <= as_of_us - window_us and v.tags.get(VERDICT) != REJECTED]
    return max(closed, key=lambda v: (v.trained_as_of_us, int(v.version)), default=None)


def rival(every: list[ModelVersion], version: ModelVersion, holder: ModelVersion | None) -> ModelVersion | None:
    """Whom to compare a version with: the champion if it is another one that is no younger, else who was it before."""
    if holder is not None and holder.version != version.version and holder.trained_as_of_us <= version.trained_as_of_us:
        return holder
    others = [
        reign.version
        for reign in reigns(every)
        if reign.version.version != version.version and reign.since_us <= version.trained_as_of_us and reign.version.tags.get(VERDICT) != REJECTED
    ]
    return others[-1] if others else None


def current(tracking_uri: str, name: str) -> ModelVersion | None:
    """The version that the alias names."""
    return _asked(tracking_uri, name)[1]


def _asked(tracking_uri: str, name: str) -> tuple[list[ModelVersion], ModelVersion | None]:
    """Every version, and the one that the alias names."""
    file = sqlite_file(tracking_uri)
    if file is not None and not file.exists():
        return [], None  # asking MLflow would make the store
    with connected(tracking_uri) as client:
        every = versions(client, tracking_uri, name)
        return every, _holder(client, name, every)


def _told(version: ModelVersion) -> str:
    if _SINCE not in version.tags and version.tags.get(_ONCE) == "true":
        return f"{version.trained_as_of_us}:0"
    return version.tags.get(_SINCE, "")


def _holder(client: MlflowClient, name: str, every: list[ModelVersion]) -> ModelVersion | None:
    number = _alias(client, name, CHAMPION)
    return next((v for v in every if v.version == number), None)


def _alias(client: MlflowClient, name: str, alias: str) -> str | None:
    found = client.search_registered_models(f"name = '{name}'", max_results=1)
    number = found[0].aliases.get(alias) if found else None
    return None if number is None else str(number)

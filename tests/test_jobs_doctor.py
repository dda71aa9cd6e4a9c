"""The doctor: each fault is found, named and has its cure; a healthy deployment has none."""

from __future__ import annotations

import importlib.metadata as metadata
from pathlib import Path

import pytest
import shop

from jobs import doctor
from jobs.doctor import Finding, log_store, place, registry, versions
from jobs.store.table_io import Warehouse


def levels(findings) -> dict[str, str]:
    return {finding.what: finding.level for finding in findings}


def test_the_versions_here_are_those_that_are_asked_for() -> None:
    assert set(levels(versions(metadata.requires, metadata.version)).values()) == {"ok"}


@pytest.mark.parametrize(("have", "told"), [("3.5.0", "pyspark 3.5.0, ==4.2.0 is needed"), (None, "pyspark missing")])
def test_another_version_is_a_fault_with_both_named(have: str | None, told: str) -> None:
    def version(name: str) -> str:
        if name == "pyspark":
            if have is None:
                raise metadata.PackageNotFoundError(name)
            return have
        return "1"

    wrong = list(versions(lambda _: ["pyspark==4.2.0", "rich; extra == 'dev'", "never; extra == 'peers'"], version))[-1]
    assert wrong.level == "fault" and told in wrong.found and "never" not in wrong.found and wrong.fix


def test_sources_without_the_package_are_a_warning() -> None:
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    assert levels(versions(requires, metadata.version))["versions"] == "warning"


def test_a_folder_that_may_not_be_written_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    assert levels(place(shop.settings(tmp_path))) == {"warehouse": "fault"}


def test_a_full_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert levels(place(shop.settings(tmp_path))) == {"warehouse": "ok"}
    monkeypatch.setattr(doctor, "_LEAST_FREE", 2**70)
    assert levels(place(shop.settings(tmp_path))) == {"warehouse": "warning"}


@pytest.mark.parametrize(
    ("warehouse", "impl", "level"),
    [
        ("/data/w", "", "ok"),
        ("s3a://b/w", "", "fault"),
        ("s3a://b/w", doctor._S3_LOG_STORE, "ok"),
        ("abfss://b/w", "", "ok"),
    ],
)
def test_two_drivers_on_s3_need_a_log_store_of_their_own(tmp_path: Path, warehouse: str, impl: str, level: str) -> None:
    settings = shop.settings(tmp_path).model_copy(update={"warehouse": warehouse})
    assert log_store(settings, lambda _: impl).level == level


def test_a_registry_without_a_champion_is_a_warning_and_one_that_is_none_a_fault(tmp_path: Path) -> None:
    settings = shop.settings(tmp_path)
    assert registry(settings).level == "warning"
    broken = tmp_path / "broken.db"
    broken.write_text("this is no database, whatever its name says " * 50)
    mlflow = settings.mlflow.model_copy(update={"tracking_uri": f"sqlite:///{broken}"})
    found = registry(settings.model_copy(update={"mlflow": mlflow}))
    assert found.level == "fault" and found.fix


@pytest.mark.spark
def test_tables_and_executors(spark, tmp_path: Path) -> None:
    from pyspark.sql import functions as F

    from features.contracts import ITEMS

    settings = shop.settings(tmp_path)
    warehouse = Warehouse(spark, settings)
    assert levels(doctor.tables(warehouse)) == {"tables": "ok"}
    schema = ", ".join(f"{column.name} {column.type}" for column in ITEMS.columns)
    warehouse.overwrite(ITEMS, spark.createDataFrame([], schema))
    healthy = list(doctor.tables(warehouse))
    assert levels(healthy) == {"tables": "ok"} and healthy[0].found.startswith("1 are ours")
    spark.sql(f"ALTER TABLE {warehouse.sql_name(ITEMS)} SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    assert levels(doctor.tables(Warehouse(spark, settings)))["table items"] == "fault"
    assert [finding.level for finding in doctor.executors(spark)] == ["ok"]
    assert levels(doctor.zones(spark))["session time zone"] == "ok"
    assert spark.range(1).select(F.lit(1)).count() == 1  # the session is still there


@pytest.mark.spark
def test_an_executor_with_other_libraries_is_a_fault(spark, monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor._about()
    monkeypatch.setattr(doctor, "_about", lambda: f"{found}, or so")
    made: list[Finding] = list(doctor.executors(spark))
    assert [finding.level for finding in made] == ["fault"] and "here" in made[0].found

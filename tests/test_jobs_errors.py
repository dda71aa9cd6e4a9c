"""Bad inputs end with one clear line and the documented exit code; nothing is published."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest
import shop
import yaml

from features.contracts import EVENTS, RUNS
from jobs import cli
from jobs.build_features import build
from jobs.errors import BusyError, DataQualityError, ModelGateError, UsageError
from jobs.ingest import ingest
from jobs.score import score

pytestmark = pytest.mark.spark


def deployment(spark, folder, log: pd.DataFrame | None = None, **changes):
    if log is not None:
        log.to_csv(folder / "log.csv", index=False)
    return shop.context(spark, shop.settings(folder, **changes))


def test_a_missing_file_is_named(spark, tmp_path):
    with pytest.raises(UsageError, match=r"source\.events\.path: no csv file at .*log\.csv; check the path"):
        ingest(deployment(spark, tmp_path))


def test_a_missing_mapped_column_is_named_beside_those_that_are_there(spark, tmp_path):
    with pytest.raises(DataQualityError, match=r"lacks mapped columns \(event_ts: when\).*it has: who, what, how_many"):
        ingest(deployment(spark, tmp_path, shop.events().drop(columns="when")))


def test_an_empty_log_is_an_error(spark, tmp_path):
    with pytest.raises(DataQualityError, match="is empty"):
        ingest(deployment(spark, tmp_path, shop.events()[:0]))


def test_a_log_of_bad_rows_shows_reasons_and_a_sample_and_writes_nothing(spark, tmp_path):
    context = deployment(spark, tmp_path, shop.events().assign(when="yesterday"))
    with pytest.raises(
        DataQualityError, match=r"are not usable \(event_ts_unreadable .*e\.g\. \{.*yesterday.*nothing was"
    ):
        ingest(context)
    assert not context.warehouse.exists(EVENTS)
    failed = context.warehouse.read(RUNS).collect()
    assert [row.status for row in failed] == ["failed"]


def test_a_few_bad_rows_are_kept_with_reasons_and_the_counts_add_up(spark, tmp_path):
    log = shop.events()[:200]
    bad = pd.DataFrame(
        {"who": ["", "u1"], "what": ["i1", "i2"], "when": ["2024-01-05T00:00:00Z", "x"], "how_many": [1, 1]}
    )
    context = deployment(spark, tmp_path, pd.concat([log, bad, log[:3]]))
    ingest(context)
    counts = context.warehouse.read(RUNS).collect()[0].counts
    distinct = len(log.drop_duplicates())
    assert counts["events_read"] == 205
    assert counts["events_rejected"] == 2
    assert counts["events_written"] == distinct
    assert counts["events_duplicate"] == 205 - 2 - distinct
    ingest(context)
    assert context.warehouse.read(RUNS).where("message = 'no new file'").count() == 1
    assert context.warehouse.read(EVENTS).count() == distinct
    with pytest.raises(DataQualityError, match=r"no event is visible at --as-of 2000-01-01.*happened 2024-01-01"):
        build(
            cli.Context(
                spark, context.settings, context.warehouse, cli.parse_as_of("2000-01-01T00:00:00Z"), "nightly", False
            ),
            False,
        )
    with pytest.raises(ModelGateError, match=r"no champion of model 'kairos'.*run jobs/train_model\.py"):
        score(context)
    _newer_schema(spark, context)


def _newer_schema(spark, context):
    path = context.warehouse.path(EVENTS)
    spark.sql(f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ('kairos.schemaVersion' = '99')")
    with pytest.raises(
        DataQualityError, match=r"table events .* has schema version 99, newer than .* upgrade kairos-rec"
    ):
        shop.context(spark, context.settings).warehouse.read(EVENTS)


def test_a_second_run_on_the_same_tables_is_turned_away(spark, tmp_path):
    context = deployment(spark, tmp_path, shop.events())
    with context.warehouse.lease([EVENTS]):
        pass  # makes the lock file
    hold = "import sys; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); input()"
    lock = str(tmp_path / "warehouse" / ".locks" / "events.lock")
    with subprocess.Popen(
        [sys.executable, "-c", hold, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline().strip() == "held"
        with pytest.raises(BusyError, match="table events is being written by another run"):
            ingest(context)
        other.communicate("\n")
    assert not context.warehouse.exists(EVENTS)
    ingest(context)
    assert context.warehouse.exists(EVENTS)


def test_an_unknown_setting_exits_2_before_spark_starts(tmp_path, capsys):
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({"domain": "x", "horizont": "7d"}))
    assert cli.run(lambda _: None, "nightly", path, "2024-01-01T00:00:00Z", "nightly", False) == 2
    assert "unknown setting horizont; did you mean 'horizon'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "told"), [("yesterday", "not an ISO moment"), ("2024-01-01T00:00:00", "has no time zone")]
)
def test_an_unclear_as_of_is_refused(text, told):
    with pytest.raises(UsageError, match=told):
        cli.parse_as_of(text)


def test_as_of_is_turned_into_utc():
    assert cli.parse_as_of("2024-03-31T03:00:00+02:00") == cli.parse_as_of("2024-03-31T01:00:00Z")


def test_missing_java_exits_2_with_one_line(tmp_path, capsys, monkeypatch):
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(shop.settings(tmp_path).resolved()))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert cli.run(lambda _: None, "nightly", path, "2024-01-01T00:00:00Z", "nightly", False) == 2
    told = capsys.readouterr().err.strip()
    assert "Java" in told
    assert "\n" not in told

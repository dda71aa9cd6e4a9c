"""The schedules: the DAGs as Airflow itself loads, renders and runs them, and every line of the crontab."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from jobs.cli import parse_as_of
from jobs.spark.session import DELTA_PACKAGE

ROOT = Path(__file__).parents[1]
AIRFLOW_PYTHON = Path(os.environ.get("KAIROS_AIRFLOW_PYTHON", ROOT / ".venv-airflow" / "bin" / "python"))
EXIT_CODES = {"0": "ok", "1": "AirflowException", "75": "AirflowException", "2": "AirflowFailException",
              "3": "AirflowFailException", "4": "AirflowFailException"}  # fmt: skip


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What Airflow finds in the dags folder (see airflow_probe.py)."""
    if not AIRFLOW_PYTHON.exists():
        pytest.skip(f"no Airflow environment at {AIRFLOW_PYTHON}: make airflow, or set KAIROS_AIRFLOW_PYTHON")
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("KAIROS_", "AIRFLOW", "PYTHON"))}
    environ |= {"AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    done = subprocess.run(
        [str(AIRFLOW_PYTHON), str(ROOT / "tests" / "airflow_probe.py"), str(ROOT / "jobs" / "dags"), ",".join(EXIT_CODES)],
        capture_output=True, text=True, env=environ, timeout=300, cwd=environ["AIRFLOW_HOME"],
    )  # fmt: skip
    assert "\nANSWER " in done.stdout, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return json.loads(done.stdout.rpartition("\nANSWER ")[2])


def test_airflow_loads_exactly_the_two_dags_without_errors(airflow: dict) -> None:
    assert airflow["errors"] == {}
    assert sorted(airflow["dags"]) == ["kairos_hourly", "kairos_nightly"]


def test_the_dags_import_neither_spark_nor_torch_nor_our_packages(airflow: dict) -> None:
    assert airflow["loaded"] == []


@pytest.mark.parametrize("dag_id", ["kairos_nightly", "kairos_hourly"])
def test_runs_are_retried_and_share_the_one_slot(airflow: dict, dag_id: str) -> None:
    dag = airflow["dags"][dag_id]
    assert (dag["pool"], dag["pool_slots"], dag["max_active_runs"], dag["catchup"]) == ("kairos", 1, 1, False)
    assert dag["retries"] >= 3
    assert dag["backoff"] > 1


def test_any_past_night_can_be_triggered(airflow: dict) -> None:
    assert {dag["start"] for dag in airflow["dags"].values()} == {"2000-01-01T00:00:00+00:00"}


def test_the_night_goes_before_the_hour(airflow: dict) -> None:
    assert airflow["dags"]["kairos_nightly"]["priority"] > airflow["dags"]["kairos_hourly"]["priority"]


@pytest.mark.parametrize(
    ("dag_id", "run", "as_of"),
    [
        ("kairos_nightly", "scheduled", "2017-12-01T00:00:00Z"),  # data interval ends 2017-12-01 09:10
        ("kairos_hourly", "scheduled", "2017-12-01T09:00:00Z"),
        (
            "kairos_nightly",
            "manual",
            "2017-12-02T00:00:00Z",
        ),  # neither interval nor logical date; after 2017-12-02 15:42
        ("kairos_hourly", "manual", "2017-12-02T15:00:00Z"),
        ("kairos_nightly", "asked", "2017-11-24T00:30:00Z"),  # parameter as_of, given in +01:00
        ("kairos_hourly", "asked", "2017-11-24T00:30:00Z"),
    ],
)
def test_a_run_is_one_spark_submit_with_an_explicit_as_of(airflow: dict, dag_id: str, run: str, as_of: str) -> None:
    job = dag_id.removeprefix("kairos_")
    assert airflow["dags"][dag_id][run] == [
        str(ROOT / ".venv/bin/spark-submit"),
        "--packages", f"{DELTA_PACKAGE}:{version('delta-spark')}",
        str(ROOT / f"jobs/{job}.py"),
        "--settings", str(ROOT / "conf/completejourney.yaml"),
        "--as-of", as_of,
    ]  # fmt: skip


def test_busy_and_unknown_failures_are_tried_again_and_hopeless_ones_are_not(airflow: dict) -> None:
    assert {code: kind for code, (kind, _) in airflow["outcomes"].items()} == EXIT_CODES
    assert "another run holds the tables" in airflow["outcomes"]["75"][1]
    assert "data quality" in airflow["outcomes"]["3"][1]


def crontab() -> list[tuple[list[str], str]]:
    """The five time fields and the command of each line, as cron splits them."""
    lines = (ROOT / "conf" / "crontab").read_text().splitlines()
    entries = [line for line in lines if re.match(r"[\d*]", line)]
    assert all(not line or line[0] == "#" or re.match(r"[A-Z_]+=", line) or line in entries for line in lines)
    return [(line.split(None, 5)[:5], line.split(None, 5)[5]) for line in entries]


def test_cron_runs_the_night_once_and_the_hour_in_every_other_hour() -> None:
    (night, night_command), (hour, hour_command) = crontab()
    assert night == ["10", "0", "*", "*", "*"] and "jobs/nightly.py" in night_command
    assert hour == ["10", "1-23", "*", "*", "*"] and "jobs/hourly.py" in hour_command


@pytest.mark.parametrize(("line", "job", "as_of"), [(0, "nightly", r"T00:00:00Z$"), (1, "hourly", r"T\d\d:00:00Z$")])
def test_the_crontab_commands_pass_settings_and_a_full_utc_moment(
    line: int, job: str, as_of: str, tmp_path: Path
) -> None:
    command = crontab()[line][1]
    assert not re.search(r"(?<!\\)%", command), "cron takes a bare % for a line end"
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nfor a in "$@"; do echo "$a"; done\n')
    python.chmod(0o755)
    environ = {"KAIROS": str(tmp_path), "SETTINGS": "conf/my shop.yaml", "PATH": "/usr/bin:/bin", "TZ": "Asia/Tokyo"}
    shell = ["/bin/sh", "-c", command.replace(r"\%", "%")]  # what cron does with an escaped percent sign
    script, *flags = subprocess.run(shell, env=environ, capture_output=True, text=True, check=True).stdout.splitlines()
    assert script == f"jobs/{job}.py"
    assert flags[:3] == ["--settings", "conf/my shop.yaml", "--as-of"]
    assert len(flags) == 4 and re.search(as_of, flags[3])
    assert parse_as_of(flags[3]).utcoffset().total_seconds() == 0


def test_the_crontab_names_whom_to_mail_and_quotes_what_it_passes() -> None:
    text = (ROOT / "conf" / "crontab").read_text()
    assert re.search(r"^MAILTO=\S+@\S+$", text, re.M)
    for _, command in crontab():
        assert shlex.split(command.replace(r"\%", "%")).count("--as-of") == 1

"""What both DAGs share: one task that is one ``spark-submit``, with an explicit ``--as-of``.

Airflow lives in an environment of its own, so nothing here imports Spark, torch or this project's packages; the dags folder
is on Airflow's path, which is how the DAG files find this module. The worker needs the project's checkout and environment:

    KAIROS_HOME          the checkout; default: the folder this file is in, two up
    KAIROS_SETTINGS      settings file, absolute or under KAIROS_HOME; default: conf/completejourney.yaml
    KAIROS_SPARK_SUBMIT  the command; default: spark-submit of the checkout's .venv
    KAIROS_SUBMIT_ARGS   further arguments, e.g. "--master yarn --py-files dist/kairos_rec-0.1.0-py3-none-any.whl"; with
                         --jars or --packages among them, Delta is not fetched from Maven Central
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, BaseOperator, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException

#: Two runs never write one table: ``airflow pools set kairos 1 "one writer of the Kairos tables"``.
POOL = "kairos"
DELTA = "io.delta:delta-spark_4.2_2.13:4.4.0"
#: What another try cannot mend, with the jobs' documented meaning.
HOPELESS = {2: "usage: the command or the settings are wrong", 3: "data quality", 4: "model gate"}
BUSY = 75

DEFAULT_ARGS: dict[str, Any] = {
    "owner": "kairos",
    "retries": 6,
    "retry_delay": timedelta(minutes=2),
    "retry_exponential_backoff": 2.0,  # after 2, 4, 8, … minutes
    "max_retry_delay": timedelta(minutes=30),
}


def as_of(dag_run: Any, params: Any, unit: str) -> str:
    """The moment the run speaks for, e.g. ``2017-12-01T00:00:00Z``: the newest full hour or day (``unit``) of the run.

    Parameter ``as_of`` wins and is taken as it is. A scheduled run has the end of its data interval. Runs that were
    triggered by hand or by an asset may have neither that nor a logical date; ``run_after`` is there for every run and
    stays the same when the run is tried again.
    """
    if params.get("as_of"):
        moment = datetime.fromisoformat(params["as_of"])
        if moment.tzinfo is None:
            raise AirflowFailException(f"parameter as_of = {params['as_of']!r} has no time zone; write it with a Z")
    else:
        moment = dag_run.data_interval_end or dag_run.logical_date or dag_run.run_after
        moment = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        if unit == "day":
            moment = moment.replace(hour=0)
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def submit_command(job: str, unit: str) -> list[str]:
    """``spark-submit`` of one job script as an argument list; ``--as-of`` is a template, filled in for each run."""
    home = Path(os.environ.get("KAIROS_HOME") or Path(__file__).resolve().parents[2])
    more = shlex.split(os.environ.get("KAIROS_SUBMIT_ARGS", ""))
    if not {"--jars", "--packages"} & {argument.partition("=")[0] for argument in more}:
        more = ["--packages", DELTA, *more]
    settings = home / os.environ.get("KAIROS_SETTINGS", "conf/completejourney.yaml")
    submit = os.environ.get("KAIROS_SPARK_SUBMIT") or str(home / ".venv" / "bin" / "spark-submit")
    moment = f"{{{{ as_of(dag_run, params, '{unit}') }}}}"
    return [submit, *more, str(home / "jobs" / f"{job}.py"), "--settings", str(settings), "--as-of", moment]


class SparkSubmit(BaseOperator):
    """Runs an argument list (templated, never through a shell) and turns its exit code into what Airflow should do."""

    template_fields: Sequence[str] = ("command",)
    ui_color = "#e8d5b5"

    def __init__(self, *, command: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.command = command
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Any) -> None:
        """Run it, its output into the task's log. Busy and unknown failures are tried again, hopeless ones are not."""
        self.log.info("%s", shlex.join(self.command))
        # pip's spark-submit finds its Python on PATH: put the environment it comes from first.
        folder = os.path.dirname(self.command[0])
        environment = os.environ | ({"PATH": os.pathsep.join([folder, os.environ.get("PATH", "")])} if folder else {})
        try:
            self._process = subprocess.Popen(
                self.command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise AirflowFailException(f"cannot start {self.command[0]}: {error}; set KAIROS_SPARK_SUBMIT") from error
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        for line in self._process.stdout:
            self.log.info("%s", line.rstrip())
        code = self._process.wait()
        if code in HOPELESS:
            raise AirflowFailException(f"exit code {code} ({HOPELESS[code]}); the log above ends with the reason")
        if code:
            busy = " (busy: another run holds the tables)" if code == BUSY else ""
            raise AirflowException(f"exit code {code}{busy}; it is tried again")

    def on_kill(self) -> None:
        """End the driver and what it started, so that a killed task does not go on writing."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)


def chain_dag(job: str, unit: str, schedule: str, limit: timedelta, priority: int, doc: str) -> DAG:
    """A DAG of one task that submits one chain. ``limit`` ends a run that hangs; the higher priority gets the slot first."""
    with DAG(
        dag_id=f"kairos_{job}",
        description=doc.strip().splitlines()[0],
        doc_md=doc,
        schedule=schedule,
        # Long ago: a run whose logical date lies before it would succeed without running anything.
        start_date=datetime(2000, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULT_ARGS,
        params={
            "as_of": Param(
                None,
                type=["null", "string"],
                description="e.g. 2017-12-01T00:00:00Z; empty: the run's last full " + unit,
            )
        },
        user_defined_macros={"as_of": as_of},
        tags=["kairos"],
    ) as dag:
        SparkSubmit(
            task_id=job,
            command=submit_command(job, unit),
            pool=POOL,
            priority_weight=priority,
            execution_timeout=limit,
        )
    return dag

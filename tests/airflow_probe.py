"""Run by test_jobs_dags.py with Airflow's own Python: loads the dags folder as Airflow does and tells, as JSON, what is there.

usage: airflow_probe.py DAGS_FOLDER EXIT_CODES   (EXIT_CODES: commands that leave with these are executed for real)
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

from airflow.dag_processing.dagbag import BundleDagBag
from airflow.sdk.definitions.param import process_params


def rendered(dag, task, conf, **moments):
    """The command of one run; ``conf`` is what a person typed into the trigger form."""
    dag_run = SimpleNamespace(**{"data_interval_end": None, "logical_date": None, "run_after": None} | moments)
    params = process_params(dag, task, conf, suppress_exception=False)
    return task.render_template(task.command, {"dag_run": dag_run, "params": params}, dag.get_template_env())


def outcome(task, code):
    """Name and text of what ``execute`` raises for a command that leaves with this code."""
    task.command = [sys.executable, "-c", f"import sys; print('from the job'); sys.exit({code})"]
    try:
        task.execute({})
    except Exception as error:
        return type(error).__name__, str(error)
    return "ok", ""


def described(dag):
    (task,) = dag.tasks
    ran_late = datetime(2017, 12, 2, 15, 42, 7, tzinfo=UTC)
    return {
        "schedule": dag.schedule,
        "start": task.start_date.isoformat(),
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "pool": task.pool,
        "pool_slots": task.pool_slots,
        "priority": task.priority_weight,
        "retries": task.retries,
        "backoff": float(task.retry_exponential_backoff),
        "scheduled": rendered(
            dag, task, {}, data_interval_end=datetime(2017, 12, 1, 9, 10, tzinfo=UTC), run_after=ran_late
        ),
        "manual": rendered(dag, task, {}, run_after=ran_late),
        "asked": rendered(dag, task, {"as_of": "2017-11-24T01:30:00+01:00"}, run_after=ran_late),
    }


if __name__ == "__main__":
    bag = BundleDagBag(dag_folder=sys.argv[1], bundle_path=Path(sys.argv[1]), bundle_name="dags-folder")
    answer = {
        "errors": bag.import_errors,
        "dags": {dag_id: described(dag) for dag_id, dag in bag.dags.items()},
        "loaded": sorted(
            {name.partition(".")[0] for name in sys.modules} & {"pyspark", "torch", "conf", "features", "model", "jobs"}
        ),
    }
    task = bag.dags["kairos_nightly"].tasks[0]
    answer["outcomes"] = {code: outcome(task, int(code)) for code in sys.argv[2].split(",")}
    sys.stdout.write("\nANSWER " + json.dumps(answer))

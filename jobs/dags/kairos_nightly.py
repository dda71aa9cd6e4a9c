"""Airflow DAG: every night from raw data to published lists for everyone."""

from datetime import timedelta

from kairos_submit import chain_dag

dag = chain_dag(
    job="nightly",
    unit="day",
    schedule="10 0 * * *",  # ten minutes for the last events of the day to land
    limit=timedelta(hours=6),
    priority=10,
    doc="""Ingest, features, lists for everyone, as of the last UTC midnight.

    Trains first where there is no model or an old one (`training.every`). Trigger it by hand with `as_of` to make any past night again: the same rows come out.
    Needs the pool `kairos` with one slot: `airflow pools set kairos 1 "one writer of the Kairos tables"`.
    """,
)

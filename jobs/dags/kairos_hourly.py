"""Airflow DAG: every hour fresh lists for those who acted since the last night."""

from datetime import timedelta

from kairos_submit import chain_dag

dag = chain_dag(
    job="hourly",
    unit="hour",
    schedule="10 1-23 * * *",  # at midnight the night itself runs
    limit=timedelta(minutes=50),
    priority=1,
    doc="""Ingest what is new, refresh features and lists of users who acted since the last night, as of the last full hour.

    Needs a night before it and the pool `kairos` with one slot, which it shares with `kairos_nightly`.
    """,
)

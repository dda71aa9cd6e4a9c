"""Airflow: the DAGs call spark-submit and import nothing of the project."""

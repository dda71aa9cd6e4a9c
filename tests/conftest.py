"""One Spark session for all tests, UTC, with Delta; small and quiet."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession

from conf.settings import Spark
from jobs.session import open_session


@pytest.fixture(scope="session")
def spark() -> SparkSession:
    session = open_session(Spark(master="local[2]", driver_memory="2g", shuffle_partitions=2), "kairos-tests")
    yield session
    session.stop()

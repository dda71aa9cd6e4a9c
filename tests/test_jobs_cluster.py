"""A real cluster once: a standalone master and a worker on this machine give the same rows as the local run.

By far the longest of all tests, so it is one of ``make soak``; ``.ci/run`` runs it by itself.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import shop
import yaml
from deltalake import DeltaTable

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.soak]
ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_port(port: int, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"nothing listens on port {port} after {seconds} s")


def lists(folder: Path):
    rows = DeltaTable(folder / "warehouse" / "recommendations_latest").to_pandas()
    return rows.sort_values(["user_id", "rank"]).reset_index(drop=True)


def write_settings(folder: Path) -> Path:
    path = folder / "settings.yaml"
    tree = shop.settings(folder).resolved()
    tree["spark"]["driver_memory"] = "1g"
    # For the local run; under spark-submit the submit command decides. Plans with and without whole-stage code must give the same rows.
    tree["spark"]["conf"] = {"spark.sql.codegen.wholeStage": "false"}
    tree["training"]["anchors"] = 1
    path.write_text(yaml.safe_dump(tree))
    return path


def test_the_wheel_on_a_standalone_cluster_gives_the_rows_of_the_local_run(tmp_path):
    local, cluster, dist = tmp_path / "local", tmp_path / "cluster", tmp_path / "dist"
    for folder in (local, cluster):
        folder.mkdir()
        shop.events(n=600).to_csv(folder / "log.csv", index=False)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", dist, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = dist.glob("*.whl")
    port = free_port()
    environment = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "SPARK_NO_DAEMONIZE": "1",
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    master = f"spark://127.0.0.1:{port}"
    daemons = (
        ["org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", str(free_port())],
        ["org.apache.spark.deploy.worker.Worker", "--cores", "2", "--memory", "1g", "--host", "127.0.0.1",
         "--webui-port", str(free_port()), "--work-dir", str(tmp_path / "work"), master],
    )  # fmt: skip
    as_of = shop.NIGHT.isoformat()
    with ExitStack() as stack:
        for daemon in daemons:
            log = stack.enter_context((tmp_path / f"{daemon[0].rsplit('.')[-1]}.log").open("w"))
            process = subprocess.Popen([BIN / "spark-class", *daemon], env=environment, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            await_port(port)
        submit = [
            BIN / "spark-submit", "--master", master, "--driver-memory", "1g", "--executor-memory", "1g",
            "--packages", "io.delta:delta-spark_4.2_2.13:4.4.0", "--py-files", str(wheel),
            ROOT / "jobs" / "nightly.py", "--settings", str(write_settings(cluster)), "--as-of", as_of,
        ]  # fmt: skip
        done = subprocess.run(submit, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-3000:]
    command = [sys.executable, ROOT / "jobs" / "nightly.py", "--settings", write_settings(local), "--as-of", as_of]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-3000:]
    ours, theirs = lists(local), lists(cluster)
    assert len(ours) > 100
    assert ours.equals(theirs)

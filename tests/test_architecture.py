"""The rules that every file keeps (tests/architecture.py), each seen to catch what it is there for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import architecture as rules
import pytest
from pydantic import BaseModel

from conf.settings import Settings

ROOT = Path(__file__).parents[1]
SOURCES = sorted(p for package in rules.PACKAGES for p in (ROOT / package).rglob("*.py"))
PER_FILE = [
    rules.import_direction, rules.safety, rules.wall_clock, rules.repeatable, rules.pure_features, rules.one_door_to_tables,
    rules.length, rules.one_way,
]  # fmt: skip
LIBRARIES = {
    re.split(r"[<>=\[;!~ ]", line)[0].replace("-", "_")
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_there_is_something_to_check() -> None:
    assert {relative(p).partition("/")[0] for p in SOURCES} == set(rules.PACKAGES)
    assert {"pyspark", "torch", "rich"} <= LIBRARIES
    assert {p.parent.name for p in SOURCES if p.parents[1] == ROOT / "model"} == set(rules.ROOMS)


def test_every_folder_is_a_package_so_that_it_is_installed() -> None:
    assert [relative(p.parent) for p in SOURCES if not (p.parent / "__init__.py").exists()] == []


@pytest.mark.parametrize("rule", PER_FILE, ids=lambda rule: rule.__name__)
def test_every_file_keeps(rule: Callable[[str, str], list[str]]) -> None:
    assert [complaint for p in SOURCES for complaint in rule(relative(p), p.read_text())] == []


def test_no_job_bears_the_name_of_a_package() -> None:
    assert [complaint for p in SOURCES for complaint in rules.job_name(relative(p), LIBRARIES)] == []


def test_java_is_checked_with_the_standard_library_alone() -> None:
    text = (ROOT / "jobs" / "java.py").read_text()
    top = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
    assert top and not [line for line in top if line.split()[1].split(".")[0] in {*rules.PACKAGES, *LIBRARIES}]


def written() -> Iterator[Path]:
    """Everything that a person wrote."""
    yield from SOURCES
    for pattern in (
        "*.md",
        "*.toml",
        "Makefile",
        ".gitignore",
        ".ci/*",
        "conf/*",
        "model/*.md",
        "tests/**/*.py",
    ):
        yield from (p for p in ROOT.glob(pattern) if p.is_file() and p.name != Path(__file__).name)


def test_nothing_names_a_path_of_one_machine() -> None:
    # Commands that tests hand to a shell may name the system's own folders; nobody's home or work is among them.
    assert sorted({c for p in written() for c in rules.machine_paths(relative(p), p.read_text())}) == []


def fields(node: type[BaseModel], path: str = "") -> Iterator[tuple[str, str]]:
    """Path and name of every setting, down to the leaves."""
    for name, field in node.model_fields.items():
        options = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        if inner:
            yield from fields(inner[0], f"{path}{name}.")
        else:
            yield f"{path}{name}", name


def test_every_setting_is_read_somewhere() -> None:
    read = {word for p in SOURCES if relative(p) != "conf/settings.py" for word in rules.words_read(p.read_text())}
    everything = list(fields(Settings))
    assert len(everything) > 50
    unread = [path for path, name in everything if name not in read]
    assert not unread, f"settings that no code reads: {', '.join(unread)}"


PLANTED = [
    (rules.import_direction, "features/x.py", "from jobs import cli"),
    (rules.import_direction, "features/x.py", "import model.network"),
    (rules.import_direction, "features/x.py", "def f():\n    import torch"),
    (rules.import_direction, "model/x.py", "from features.contracts import EVENTS"),
    (rules.import_direction, "model/x.py", "from pyspark.sql import DataFrame"),
    (rules.import_direction, "conf/x.py", "from features import contracts"),
    (rules.import_direction, "jobs/x.py", "import torch.nn as nn"),
    (rules.import_direction, "jobs/x.py", "from tests import worlds"),
    (rules.import_direction, "jobs/x.py", "from . import cli"),
    (rules.import_direction, "jobs/dags/x.py", "from conf.settings import load"),
    (rules.import_direction, "jobs/dags/x.py", "import pyspark"),
    (rules.one_way, "model/as_of/x.py", "from model.slate.slate import Slate"),
    (rules.one_way, "model/layers/x.py", "def f():\n    from model.training import loop"),
    (rules.safety, "model/x.py", "import pickle"),
    (rules.safety, "model/x.py", "from cloudpickle import loads"),
    (rules.safety, "model/x.py", "import torch\ntorch.load(f)"),
    (rules.safety, "model/x.py", "from torch import load as get\nget(f)"),
    (rules.safety, "model/x.py", "import numpy as np\nnp.load(f, allow_pickle=True)"),
    (rules.safety, "jobs/x.py", "import yaml\nyaml.load(text)"),
    (rules.safety, "jobs/x.py", "eval(text)"),
    (rules.safety, "jobs/x.py", "exec(text)"),
    (rules.safety, "jobs/x.py", "import os\nos.system('ls')"),
    (rules.safety, "jobs/x.py", "from subprocess import run\nrun('ls', shell=True)"),
    (rules.safety, "jobs/x.py", "import subprocess\nsubprocess.Popen(c, shell=flag)"),
    (rules.wall_clock, "jobs/x.py", "from datetime import datetime, UTC\ndatetime.now(UTC)"),
    (rules.wall_clock, "jobs/x.py", "import datetime as dt\ndt.datetime.utcnow()"),
    (rules.wall_clock, "model/x.py", "import time\ntime.time()"),
    (rules.wall_clock, "model/x.py", "from time import time as t\nfield(default_factory=t)"),
    (rules.wall_clock, "features/x.py", "from pyspark.sql import functions as F\nF.current_timestamp()"),
    (rules.wall_clock, "features/x.py", "F.expr('event_ts < now()')"),
    (rules.wall_clock, "features/x.py", "F.expr(f'event_ts < CURRENT_TIMESTAMP - {w}')"),
    (rules.wall_clock, "model/x.py", "import numpy as np\nnp.datetime64('now')"),
    (rules.repeatable, "features/x.py", "import pyspark.sql.functions as F\nF.rand()"),
    (rules.repeatable, "features/x.py", "from pyspark.sql.functions import monotonically_increasing_id as i\ni()"),
    (rules.repeatable, "jobs/x.py", "import uuid\nuuid.uuid4()"),
    (rules.repeatable, "model/x.py", "import numpy as np\nnp.random.default_rng()"),
    (rules.pure_features, "features/x.py", "rows = frame.collect()"),
    (rules.pure_features, "features/x.py", "frame.toPandas()"),
    (rules.pure_features, "features/x.py", "n = frame.count()"),
    (
        rules.pure_features,
        "features/x.py",
        "from pyspark.sql.functions import pandas_udf\n@pandas_udf('long')\ndef f(x): ...",
    ),
    (rules.pure_features, "features/x.py", "from pyspark.sql import functions as F\nf = F.udf(g)"),
    (rules.pure_features, "features/x.py", "frame.mapInPandas(f, schema)"),
    (rules.pure_features, "features/x.py", "spark.read.parquet(p)"),
    (rules.pure_features, "features/x.py", "open(p)"),
    (rules.one_door_to_tables, "jobs/x.py", "from delta.tables import DeltaTable"),
    (rules.one_door_to_tables, "jobs/x.py", "frame.write.format('delta').save(p)"),
    (rules.one_door_to_tables, "jobs/x.py", "w = frame.write.mode('append')"),
    (rules.one_door_to_tables, "model/x.py", "from deltalake import write_deltalake as w\nw(p, t)"),
    (rules.length, "jobs/x.py", "x = 1\n" * 301),
    (rules.machine_paths, "jobs/x.py", "path = '/ho" + "me/me/data'"),
    (rules.machine_paths, "README.md", "see /wo" + "rk/main"),
]


@pytest.mark.parametrize(
    ("rule", "path", "source"), PLANTED, ids=[f"{r.__name__}-{i}" for i, (r, _, _) in enumerate(PLANTED)]
)
def test_a_planted_violation_is_caught(rule: Callable[[str, str], list[str]], path: str, source: str) -> None:
    complaints = rule(path, source)
    assert complaints and complaints[0].startswith(path)


ALLOWED = [
    (rules.import_direction, "features/x.py", "from conf import columns as c\nfrom pyspark.sql import DataFrame"),
    (rules.import_direction, "jobs/x.py", "from features import contracts\nfrom model.versions import registry"),
    (rules.import_direction, "jobs/dags/x.py", "from airflow.sdk import DAG\nfrom kairos_submit import chain_dag"),
    (rules.safety, "model/x.py", "from safetensors.torch import load\nload(b)\nnetwork.eval()\nimport re\nre.compile('x')"),
    (rules.safety, "jobs/x.py", "import yaml, subprocess\nyaml.safe_load(t)\nsubprocess.run(['ls'], shell=False)"),
    (rules.wall_clock, "jobs/x.py", "import time\nfrom datetime import datetime\ntime.monotonic()\ndatetime.fromisoformat(t)"),
    (rules.wall_clock, "jobs/x.py", '"""What to show now()."""\nx = "what to show now"'),
    (rules.wall_clock, "jobs/store/run_log.py", "from datetime import datetime\ndatetime.now()"),
    (rules.repeatable, "model/x.py", "import numpy as np\nnp.random.default_rng(seed)"),
    (rules.pure_features, "features/x.py", "from pyspark.sql import functions as F\nF.count('*')\nF.first('x')\nF.collect_list('x')"),
    (rules.pure_features, "jobs/x.py", "frame.collect()"),
    (rules.one_door_to_tables, "jobs/x.py", "stream.write(text)\nreader.format('delta').load(p)"),
    (rules.one_door_to_tables, "model/x.py", "from deltalake import DeltaTable\nDeltaTable(p)"),
    (rules.one_way, "model/slate/x.py", "from model.as_of import users\nfrom model.slate.slate import Slate\nfrom model.metrics import ndcg"),
    (rules.one_way, "model/train.py", "from model.tuning import study"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "path", "source"), ALLOWED, ids=[f"{r.__name__}-{i}" for i, (r, _, _) in enumerate(ALLOWED)]
)
def test_what_is_fine_is_left_alone(rule: Callable[[str, str], list[str]], path: str, source: str) -> None:
    assert rule(path, source) == []


@pytest.mark.parametrize(
    "path", ["jobs/features.py", "jobs/model.py", "jobs/typing.py", "jobs/rich.py", "jobs/tests.py", "jobs/model/x.py"]
)
def test_a_job_that_hides_a_package_is_caught(path: str) -> None:
    assert rules.job_name(path, LIBRARIES)


def test_a_setting_that_nobody_reads_is_caught() -> None:
    read = rules.words_read(
        '"""unread in words."""\nsettings.training.used\nx = getattr(y, "also")\nsettings.unread = 1'
    )
    assert {"used", "also"} <= read and "unread" not in read

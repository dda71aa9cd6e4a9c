"""What the source may and may not do, as functions from one file's source to the complaints about it.

Names are resolved through the file's imports, so ``from torch import load as l; l(f)`` is seen as ``torch.load``.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator

PACKAGES = ("conf", "features", "model", "jobs")
MAY_IMPORT = {"conf": {"conf"}, "features": {"conf", "features"}, "model": {"conf", "model"}, "jobs": set(PACKAGES)}
#: Folders of model/: each knows those before it. Files beside them put them together.
ROOMS = ("metrics", "machine", "as_of", "layers", "slate", "training", "versions", "scoring", "tuning")
#: Third parties that a package must not know: features are plans without IO, the model runs without a JVM.
MUST_NOT_IMPORT = {
    "conf": {"pyspark", "delta", "torch", "mlflow", "deltalake", "duckdb"},
    "features": {
        "delta",
        "torch",
        "mlflow",
        "deltalake",
        "duckdb",
        "pandas",
        "numpy",
        "os",
        "pathlib",
        "io",
        "time",
        "requests",
    },
    "model": {"pyspark", "delta"},
    "jobs": {"torch"},
    "jobs/dags": {*PACKAGES, "pyspark", "delta", "torch", "mlflow"},
}
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {
    "eval", "exec", "compile", "__import__", "importlib.import_module", "os.system", "os.popen", "subprocess.getoutput",
    "subprocess.getstatusoutput", "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "torch.load", "torch.save",
    "pandas.read_pickle", "mlflow.pyfunc.load_model", "mlflow.pytorch.load_model", "mlflow.pytorch.log_model",
}  # fmt: skip
WALL_CLOCK = {
    "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today", "time.time",
    "time.time_ns", "time.localtime", "time.gmtime", "time.ctime", "pandas.Timestamp.now", "pandas.Timestamp.utcnow",
    "pandas.Timestamp.today", "pyspark.sql.functions.current_timestamp", "pyspark.sql.functions.current_date",
    "pyspark.sql.functions.now", "pyspark.sql.functions.curdate", "pyspark.sql.functions.localtimestamp",
}  # fmt: skip
CLOCK_IN_SQL = re.compile(r"\b(current_timestamp|current_date|localtimestamp|now\s*\(\s*\)|curdate\s*\()", re.I)
#: These tell people when and how long, or wait for an hour to come, and decide no row.
MAY_READ_CLOCK = {"jobs/store/run_log.py", "jobs/hours.py"}
#: A run's id is the one thing that is drawn.
MAY_DRAW = {"jobs/store/run_log.py"}
NOT_REPEATABLE = {
    "random.random", "random.shuffle", "random.choice", "random.sample", "random.randint", "uuid.uuid1", "uuid.uuid4",
    "pyspark.sql.functions.uuid", "pyspark.sql.functions.monotonically_increasing_id", "numpy.random.rand",
    "numpy.random.shuffle", "numpy.random.permutation",
}  # fmt: skip
SEED_NEEDED = {
    "pyspark.sql.functions.rand", "pyspark.sql.functions.randn", "pyspark.sql.functions.shuffle", "numpy.random.default_rng",
    "random.Random",
}  # fmt: skip
MOST_LINES = 300
#: Declarations, read as lists: a split would only make one look in two places.
MAY_BE_LONG = {"features/contracts.py": 400}
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|root|tmp|home|Users)/")


def names(tree: ast.AST) -> dict[str, str]:
    """Local name -> what it was imported as, wherever in the file."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                known[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return known


def dotted(node: ast.AST, known: dict[str, str]) -> str | None:
    """The full name of ``a.b.c``, with ``a`` replaced by what it was imported as; None for anything else."""
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value, known)
        return f"{inner}.{node.attr}" if inner else None
    return None


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of every imported module, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")


def import_direction(path: str, source: str) -> list[str]:
    """conf <- {features, model} <- jobs; each package keeps out of what is not its business."""
    package = path.partition("/")[0]
    forbidden = MUST_NOT_IMPORT["jobs/dags" if path.startswith("jobs/dags/") else package]
    found = []
    for line, module in imports(ast.parse(source)):
        top = module.partition(".")[0]
        if not top:
            found.append(f"{path}:{line}: relative import; spell the package")
        elif top in forbidden or (top in PACKAGES and top not in MAY_IMPORT[package]) or top == "tests":
            found.append(f"{path}:{line}: imports {module}")
    return found


def one_way(path: str, source: str) -> list[str]:
    """Within model/, folders know those before them and never those after."""
    own = path.split("/")[1] if path.startswith("model/") and path.count("/") > 1 else ""
    if own not in ROOMS:
        return []
    later = ROOMS[ROOMS.index(own) + 1 :]
    known = [(line, module) for line, module in imports(ast.parse(source)) if module.startswith("model.")]
    return [f"{path}:{n}: imports {m}, whose folder comes after its own" for n, m in known if m.split(".")[1] in later]


def safety(path: str, source: str) -> list[str]:
    """No code in data (pickle and its kin), no evaluated text, no shell."""
    tree = ast.parse(source)
    known = names(tree)
    found = [f"{path}:{n}: imports {m}" for n, m in imports(tree) if m.partition(".")[0] in UNSAFE_MODULES]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func, known)
        if name in UNSAFE_CALLS:
            found.append(f"{path}:{node.lineno}: calls {name}")
        for keyword in node.keywords:
            off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            if keyword.arg in ("shell", "allow_pickle") and not off:
                found.append(f"{path}:{node.lineno}: passes {keyword.arg}")
    return found


def wall_clock(path: str, source: str) -> list[str]:
    """--as-of decides; monotonic clocks may measure how long something took."""
    if path in MAY_READ_CLOCK:
        return []
    tree = ast.parse(source)
    known = names(tree)
    docs = {id(node) for node in _docstrings(tree)}
    found = []
    for node in ast.walk(tree):
        # The function itself counts, not only its call: it may be passed on (default_factory=time.time).
        if isinstance(node, ast.Name | ast.Attribute) and dotted(node, known) in WALL_CLOCK:
            found.append(f"{path}:{node.lineno}: reads the wall clock by {dotted(node, known)}")
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            if CLOCK_IN_SQL.search(node.value):
                found.append(f"{path}:{node.lineno}: reads the wall clock in SQL")
            if node.value == "now":
                found.append(f"{path}:{node.lineno}: 'now' is the wall clock to numpy and pandas")
    return found


def repeatable(path: str, source: str) -> list[str]:
    """The same run makes the same rows: no randomness without a seed. A run's id is the one exception."""
    if path in MAY_DRAW:
        return []
    tree = ast.parse(source)
    known = names(tree)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and dotted(node, known) in NOT_REPEATABLE:
            found.append(f"{path}:{node.lineno}: {dotted(node, known)} differs from run to run")
        if isinstance(node, ast.Call) and dotted(node.func, known) in SEED_NEEDED and not node.args + node.keywords:
            found.append(f"{path}:{node.lineno}: {dotted(node.func, known)} without a seed")
    return found


def pure_features(path: str, source: str) -> list[str]:
    """features/ is DataFrame to DataFrame: nothing is run, collected, read, written or done in Python row by row."""
    if not path.startswith("features/"):
        return []
    banned = {
        "collect", "toPandas", "toLocalIterator", "toArrow", "first", "head", "take", "count", "show", "foreach", "foreachPartition",
        "udf", "pandas_udf", "arrow_udf", "udtf", "applyInPandas", "applyInArrow", "mapInPandas", "mapInArrow", "rdd", "read",
        "write", "writeTo", "saveAsTable", "checkpoint", "localCheckpoint", "sparkSession",
    }  # fmt: skip
    on_columns = {"first", "count"}  # also aggregate functions: F.first, F.count are fine
    tree = ast.parse(source)
    known = names(tree)
    found = []
    for node in ast.walk(tree):
        name = dotted(node, known) if isinstance(node, ast.Name | ast.Attribute) else None
        if name == "open" or ((name or "").startswith("pyspark.sql.functions.") and (name or "").endswith("udf")):
            found.append(f"{path}:{node.lineno}: uses {name}")
        elif isinstance(node, ast.Attribute) and node.attr in banned:
            function = (name or "").startswith("pyspark.sql.functions.") and node.attr in on_columns
            if not function and not (node.attr in on_columns and not _called_without_arguments(tree, node)):
                found.append(f"{path}:{node.lineno}: uses .{node.attr}")
    return found


def one_door_to_tables(path: str, source: str) -> list[str]:
    """Only jobs/store/table_io.py writes tables and knows Delta's own API."""
    if path == "jobs/store/table_io.py":
        return []
    tree = ast.parse(source)
    known = names(tree)
    found = [f"{path}:{n}: imports {m}" for n, m in imports(tree) if m.partition(".")[0] == "delta"]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute | ast.Name):
            continue
        # .write.x is Spark's writer; file.write(text) is not.
        writer = (
            isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "write"
        )
        if writer or (isinstance(node, ast.Attribute) and node.attr in ("writeTo", "saveAsTable", "insertInto")):
            found.append(f"{path}:{node.lineno}: writes a table past jobs/store/table_io.py")
        if dotted(node, known) in ("deltalake.write_deltalake", "deltalake.writer.write_deltalake"):
            found.append(f"{path}:{node.lineno}: writes a table past jobs/store/table_io.py")
    return found


def length(path: str, source: str) -> list[str]:
    """One idea a file."""
    lines, most = len(source.splitlines()), MAY_BE_LONG.get(path, MOST_LINES)
    return [f"{path}: {lines} lines, more than {most}: split it"] if lines > most else []


def job_name(path: str, libraries: set[str]) -> list[str]:
    """A script's folder is first on its path: jobs/features.py or jobs/features/ would hide the package, jobs/typing.py Python's own."""
    name = path.partition("/")[2].partition("/")[0].removesuffix(".py")
    taken = name in {*PACKAGES, "tests", *libraries, *sys.stdlib_module_names}
    return (
        [f"{path}: hides the package {name} when it is run as a script"] if path.startswith("jobs/") and taken else []
    )


def machine_paths(path: str, source: str) -> list[str]:
    """No path of one particular machine, in code, settings or words."""
    return [
        f"{path}:{n}: {line.strip()[:80]}" for n, line in enumerate(source.splitlines(), 1) if MACHINE_PATH.search(line)
    ]


def words_read(source: str) -> set[str]:
    """Attributes that are read and words in strings: the ways in which a setting can be used."""
    read: set[str] = set()
    tree = ast.parse(source)
    docs = {id(node) for node in _docstrings(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            read.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            read |= {node.value} if node.value.isidentifier() else set()
    return read


def _docstrings(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            yield body[0].value


def _called_without_arguments(tree: ast.AST, attribute: ast.Attribute) -> bool:
    """frame.count() runs a job; grouped.agg(...), frame.groupBy(...).count() and Window functions are told apart by a person."""
    return any(
        isinstance(n, ast.Call) and n.func is attribute and not n.args and not n.keywords for n in ast.walk(tree)
    )

"""Is there a Java that Spark can run on? Also a plain script, before anything is installed: ``python3 jobs/java.py``.

Only the standard library is imported at the top, so that the Makefile can ask before it installs gigabytes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

#: What Spark 4.2 runs on and what the tests run with.
SUPPORTED = (17, 21)
_INSTALL = "install it (Debian/Ubuntu: apt-get install openjdk-17-jre-headless; macOS: brew install openjdk@17) or set JAVA_HOME"
_VERSION = re.compile(r'version "(\d+)(?:\.(\d+))?')


def check_java(environ: Mapping[str, str] | None = None) -> None:
    """Raise UsageError, one line, when the Java that Spark would start is missing or of the wrong version."""
    from jobs.errors import UsageError  # not at the top: a plain script has no package around it

    problem = java_problem(os.environ if environ is None else environ)
    if problem:
        raise UsageError(problem)


def java_problem(environ: Mapping[str, str]) -> str | None:
    """What is wrong with the Java that Spark would start, and what to do about it; None when all is well.

    Spark takes ``$JAVA_HOME/bin/java`` where JAVA_HOME is set and else ``java`` on PATH; so does this.
    """
    wanted = " or ".join(map(str, SUPPORTED))
    home = environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java", path=environ.get("PATH", ""))
    if java is None:
        return f"Java {wanted} is needed and none was found: {_INSTALL}"
    if not os.access(java, os.X_OK):
        return f"Java {wanted} is needed and JAVA_HOME={home} has no bin/java: {_INSTALL} to one that has"
    said = _ask(java)
    found = major(said)
    if found is None:
        return f"Java {wanted} is needed and {java} -version says {said[:120]!r}: {_INSTALL}"
    if found not in SUPPORTED:
        return f"Java {wanted} is needed and {java} is Java {found}: {_INSTALL}"
    return None


def major(text: str) -> int | None:
    """The major version in the output of ``java -version``: 17 for "17.0.15", 8 for "1.8.0_372", None for neither."""
    found = _VERSION.search(text)
    if not found:
        return None
    first, second = int(found[1]), found[2]
    return int(second) if first == 1 and second else first


def _ask(java: str) -> str:
    """What ``java -version`` prints, on one line; macOS's placeholder prints that no Java is there."""
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return " ".join(f"{done.stderr} {done.stdout}".split())


def main() -> int:
    """Exit code 0, or 2 with the problem in one line on stderr."""
    problem = java_problem(os.environ)
    if problem:
        sys.stderr.write(f"error: {problem}\n")
    return 2 if problem else 0


if __name__ == "__main__":
    sys.exit(main())

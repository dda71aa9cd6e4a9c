"""The check of Java, with stand-ins for ``java`` that print what real ones print."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.errors import UsageError
from jobs.java import check_java, java_problem, major

SCRIPT = Path(__file__).parents[1] / "jobs" / "java.py"
SAYS = {
    "8": 'openjdk version "1.8.0_372"',
    "11": 'openjdk version "11.0.19" 2023-04-18',
    "17": 'Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "17.0.15" 2025-04-15',
    "21": 'java version "21" 2023-09-19 LTS',
    "25": 'openjdk version "25-ea" 2025-09-16',
    "none": "The operation couldn't be completed. Unable to locate a Java Runtime.",
}


def home(tmp_path: Path, says: str) -> Path:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\n/bin/cat >&2 <<'END'\n{says}\nEND\n")
    java.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "version"), [("8", 8), ("11", 11), ("17", 17), ("21", 21), ("25", 25), ("none", None)]
)
def test_the_major_version_is_read_from_what_java_prints(text: str, version: int | None) -> None:
    assert major(SAYS[text]) == version


@pytest.mark.parametrize("version", ["17", "21"])
def test_supported_versions_are_fine_by_java_home_and_by_path(tmp_path: Path, version: str) -> None:
    folder = home(tmp_path, SAYS[version])
    check_java({"JAVA_HOME": str(folder)})
    check_java({"PATH": str(folder / "bin")})


@pytest.mark.parametrize("version", ["8", "11", "25", "none"])
def test_another_version_is_one_line_that_says_what_to_install(tmp_path: Path, version: str) -> None:
    folder = home(tmp_path, SAYS[version])
    with pytest.raises(UsageError) as raised:
        check_java({"JAVA_HOME": str(folder)})
    text = str(raised.value)
    assert "\n" not in text
    assert text.startswith("Java 17 or 21 is needed and") and "apt-get install openjdk-17-jre-headless" in text
    assert (f"is Java {version}" in text) or (version == "none" and "Unable to locate" in text)


def test_java_home_goes_before_path_as_it_does_for_spark(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, new = home(tmp_path / "old", SAYS["8"]), home(tmp_path / "new", SAYS["17"])
    assert "is Java 8" in (java_problem({"JAVA_HOME": str(old), "PATH": str(new / "bin")}) or "")
    assert java_problem({"JAVA_HOME": str(new), "PATH": str(old / "bin")}) is None


def test_no_java_and_a_wrong_java_home_are_told_apart(tmp_path: Path) -> None:
    assert "none was found" in (java_problem({"PATH": str(tmp_path)}) or "")
    assert f"JAVA_HOME={tmp_path} has no bin/java" in (java_problem({"JAVA_HOME": str(tmp_path)}) or "")


def test_as_a_script_it_needs_nothing_installed_and_leaves_with_2(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", str(SCRIPT)]  # -S: without site-packages
    bad = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert (bad.returncode, bad.stdout, bad.stderr.count("\n")) == (2, "", 1)
    folder = home(tmp_path, SAYS["17"])
    good = subprocess.run(command, env={"JAVA_HOME": str(folder)}, capture_output=True, text=True)
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")

"""The archive of Spark's classes spares time where it fits, and nothing is said or lost where it does not."""

from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest

from jobs.spark import class_archive


def java(options: str) -> subprocess.CompletedProcess:
    return subprocess.run([shutil.which("java"), *shlex.split(options), "-version"], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("content", [b"", b"no archive at all" * 1000], ids=["empty", "garbage"])
def test_a_jvm_passes_over_an_archive_that_it_cannot_use_without_a_word(tmp_path, monkeypatch, content):
    file = tmp_path / "an archive.jsa"
    file.write_bytes(content)
    monkeypatch.setattr(class_archive, "ARCHIVE", file)
    assert str(file) in class_archive.use()
    found, plain = java(class_archive.use()), java("")
    assert (found.returncode, found.stderr) == (0, plain.stderr.replace(", sharing", ""))
    loud = java(f'"-XX:SharedArchiveFile={file}" -Xshare:on')
    assert loud.returncode, "the file is a good archive, the test proves nothing"


def test_without_an_archive_nothing_is_asked_of_the_jvm(tmp_path, monkeypatch):
    monkeypatch.setattr(class_archive, "ARCHIVE", tmp_path / "none.jsa")
    assert class_archive.use() == ""


def test_an_archive_is_put_in_place_only_when_the_jvm_has_written_it_and_ended(tmp_path, monkeypatch):
    done = []

    class Jvm:
        class stdin:
            @staticmethod
            def close() -> None:
                done.append("told to end")

        @staticmethod
        def wait(timeout: float) -> None:
            assert done == ["stopped", "told to end"]
            (tmp_path / "a.new").write_text("classes")

    class Session:
        @staticmethod
        def stop() -> None:
            done.append("stopped")

    class Gateway:
        proc = Jvm

    monkeypatch.setattr(class_archive.SparkContext, "_gateway", Gateway)
    monkeypatch.setattr(class_archive, "ARCHIVE", tmp_path / "a.jsa")
    monkeypatch.setattr(class_archive, "_MAKING", tmp_path / "a.new")
    class_archive.finish(Session)
    assert (tmp_path / "a.jsa").read_text() == "classes"
    assert not (tmp_path / "a.new").exists()

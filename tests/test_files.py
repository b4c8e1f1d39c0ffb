"""Files that several threads or processes write at once are whole, and none is left."""
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cosmoflow.core import atomic_path

WRITE_OFTEN = """
import sys
from cosmoflow.core import atomic_path
for _ in range(40):
    with atomic_path(sys.argv[1]) as tmp:
        tmp.write_text(sys.argv[2] * 1000, encoding="utf-8")
"""


def assert_whole(folder, path, writers):
    assert path.read_text(encoding="utf-8") in {writer * 1000 for writer in writers}
    assert os.listdir(folder) == [path.name]


@pytest.mark.parametrize("writes", ("early", "late"))
def test_a_thread_that_ends_first_leaves_the_file_of_the_other_alone(tmp_path, writes):
    path, begun, ended = tmp_path / "a.x", threading.Event(), threading.Event()

    def slow():
        with atomic_path(path) as tmp:
            if writes == "early": tmp.write_text("s" * 1000, encoding="utf-8")
            begun.set()
            assert ended.wait(60)
            if writes == "late": tmp.write_text("s" * 1000, encoding="utf-8")

    with ThreadPoolExecutor() as pool:
        written = pool.submit(slow)
        try:
            assert begun.wait(60)
            with atomic_path(path) as tmp: tmp.write_text("f" * 1000, encoding="utf-8")
            assert path.read_text(encoding="utf-8") == "f" * 1000
        finally:
            ended.set()
        written.result()
    assert_whole(tmp_path, path, "s")


def test_a_block_within_a_block_writes_the_same_file(tmp_path):
    path = tmp_path / "a.x"
    with atomic_path(path) as outer:
        outer.write_text("o" * 1000, encoding="utf-8")
        with atomic_path(path) as inner: inner.write_text("i" * 1000, encoding="utf-8")
    assert_whole(tmp_path, path, "o")


def test_many_threads_write_one_file(tmp_path):
    path, gate = tmp_path / "a.x", threading.Barrier(8)

    def write(name):
        gate.wait(60)
        for _ in range(25):
            with atomic_path(path) as tmp: tmp.write_text(name * 1000, encoding="utf-8")

    with ThreadPoolExecutor(8) as pool: list(pool.map(write, "abcdefgh"))
    assert_whole(tmp_path, path, "abcdefgh")


def test_two_processes_write_one_file(tmp_path):
    path = tmp_path / "a.x"
    ask = [sys.executable, "-c", WRITE_OFTEN, path]
    writers = [subprocess.Popen([*ask, name], stderr=subprocess.PIPE) for name in "ab"]
    for writer in writers:
        _, said = writer.communicate(timeout=300)
        assert writer.returncode == 0, said.decode()
    assert_whole(tmp_path, path, "ab")


@pytest.mark.parametrize("name", ["m" * 251 + ".npy", "ä" * 125 + ".npy"])
def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path, name):
    with atomic_path(tmp_path / name) as tmp:
        tmp.write_text("whole", encoding="utf-8")
        assert tmp.name == name
    assert [path.name for path in tmp_path.iterdir()] == [name]

"""Files come back to the byte, and whatever happens, none is left half-written."""
import io
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import ROOT, full_disk, kill_when
from safetensors.torch import save_file

from cosmoflow import CosmoFlow
from cosmoflow.cli import _load_array
from cosmoflow.core import (_HOST, _Lines, atomic_path, bars_move, check_folder,
                            progress, read_json, write_json)
from cosmoflow.data import open_maps
from cosmoflow.model import find_model

KEPT = [*ROOT.glob("cosmoflow/records/**/*.json"),
        *ROOT.glob("cosmoflow/weights/*/config.json")]


@pytest.mark.parametrize("path", KEPT, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_records_come_back_to_the_byte(path, tmp_path):
    write_json(tmp_path / "again.json", read_json(path))
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_damaged_json_is_named(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"r": [1.0, ', encoding="utf-8")
    with pytest.raises(ValueError, match="metrics.json: expected JSON"): read_json(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="metrics.json: expected JSON"): read_json(path)


def write(path, text="new"):
    with atomic_path(path) as tmp: tmp.write_text(text, encoding="utf-8")


def mode(path): return path.stat().st_mode & 0o777


@pytest.fixture
def umask():
    "Sets the umask, and puts the old one back."
    old = os.umask(0)
    os.umask(old)
    yield os.umask
    os.umask(old)


def draw(path):
    figure = plt.figure(figsize=(20, 20))
    figure.savefig(path, format="svg", metadata={"Title": "a" * 100_000})


WRITERS = {
    "text": lambda path: path.write_text("a" * 100_000, encoding="utf-8"),
    "array": lambda path: np.save(path, np.ones(100_000)),
    "table": lambda path: np.savetxt(path, np.ones(10_000)),
    "weights": lambda path: save_file({"a": torch.ones(100_000)}, path),
    "figure": draw,
}
each_writer = pytest.mark.parametrize("writer", WRITERS)


@each_writer
@pytest.mark.parametrize(("mask", "expected"),
                         [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_follows_the_umask(tmp_path, umask, writer, mask, expected):
    umask(mask)
    with atomic_path(tmp_path / "new.npy") as tmp: WRITERS[writer](tmp)
    assert mode(tmp_path / "new.npy") == expected
    assert os.listdir(tmp_path) == ["new.npy"]
    plt.close("all")


@each_writer
def test_a_full_disk_names_the_file_and_leaves_what_was_there(tmp_path, writer):
    path = tmp_path / "old.npy"
    write(path, "old")
    message = f"^{path}: it could not be written .*; nothing was left half-written$"
    with full_disk(), pytest.raises(OSError, match=message):
        with atomic_path(path) as tmp: WRITERS[writer](tmp)
    plt.close("all")
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["old.npy"]


@pytest.mark.parametrize("bits", (0o600, 0o444, 0o664))
def test_a_file_that_is_replaced_keeps_its_mode_and_owner(tmp_path, bits):
    path = tmp_path / "old.npy"
    write(path, "old")
    path.chmod(bits)
    if os.geteuid() == 0: os.chown(path, 1234, 1234)
    before = path.stat()
    write(path)
    assert path.read_text(encoding="utf-8") == "new" and mode(path) == bits
    assert (path.stat().st_uid, path.stat().st_gid) == (before.st_uid, before.st_gid)


@pytest.mark.parametrize("there", (True, False), ids=("target", "no target"))
def test_a_link_stays_a_link(tmp_path, there):
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "real.x", tmp_path / "link.x"
    if there: write(target, "old")
    link.symlink_to("disk/real.x")
    write(link)
    assert link.is_symlink() and target.read_text(encoding="utf-8") == "new"
    assert os.listdir(target.parent) == ["real.x"]
    assert sorted(os.listdir(tmp_path)) == ["disk", "link.x"]


@pytest.mark.parametrize("make", (os.mkfifo, os.mkdir), ids=("pipe", "folder"))
def test_what_is_no_file_is_not_replaced(tmp_path, make):
    "Such as a pipe, or /dev/null."
    path = tmp_path / "there"
    make(path)
    before = path.stat().st_ino
    message = f"^{path}: it could not be written .it is not a file"
    with pytest.raises(OSError, match=message): write(path)
    assert path.stat().st_ino == before and os.listdir(tmp_path) == ["there"]


def test_errors_of_other_files_stay_what_they_are(tmp_path):
    for broken in (lambda: np.load(tmp_path / "part.npy"), lambda: 1 / 0):
        errors = FileNotFoundError, ZeroDivisionError
        with pytest.raises(errors, match="part.npy|by zero"):
            with atomic_path(tmp_path / "all.npy"): broken()
    assert not os.listdir(tmp_path)


def test_a_file_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    "First its bytes, then its name, then the folder that holds the name."
    done, fsync, replace = [], os.fsync, os.replace

    def is_folder(descriptor):
        "Whether this is the folder; None where the system does not say."
        if not os.path.isdir("/proc/self/fd"): return None
        return os.path.samefile(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path)

    def noted_fsync(descriptor):
        done.append(("fsync", is_folder(descriptor)))
        fsync(descriptor)

    def noted_replace(*paths):
        done.append(("replace", None))
        replace(*paths)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write(tmp_path / "new.npy")
    assert [name for name, _ in done] == ["fsync", "replace", "fsync"]
    assert done[0][1] is not True and done[2][1] is not False


WRITE_FOR_EVER = """
import sys
import time
from cosmoflow.core import atomic_path
with atomic_path(sys.argv[1]) as tmp:
    tmp.write_text("half")
    time.sleep(600)
"""


def test_what_a_killed_process_left_is_cleared_and_what_a_living_one_writes_is_not(
        tmp_path):
    path = tmp_path / "a[1].x"
    kill_when(lambda: any(p.exists() for p in tmp_path.glob("*.tmp/*")),
              sys.executable, "-c", WRITE_FOR_EVER, path)
    living = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    old = time.time() - 25 * 3600
    lefts = {  # a process that wrote, and whether what it left stays
        f"{_HOST}.{living.pid}": True,
        "elsewhere.1": True,
        "elsewhere.2": False,
        f"{_HOST}.{os.getpid()}": False,
        f"{_HOST}.word": True,
    }
    for name in lefts:
        (tmp_path / f".a[1].x.{name}.tmp").mkdir()
        if name == "elsewhere.2": os.utime(tmp_path / f".a[1].x.{name}.tmp", (old, old))
    (tmp_path / f".a1.x.{_HOST}.1.tmp").mkdir()  # of another file
    assert len(os.listdir(tmp_path)) == 7
    write(path)
    living.communicate(b"\n")
    expected = [f".a[1].x.{name}.tmp" for name, stays in lefts.items() if stays]
    expected += [f".a1.x.{_HOST}.1.tmp", "a[1].x"]
    assert sorted(os.listdir(tmp_path)) == sorted(expected)


@pytest.mark.parametrize(
    "bad", ("file", "file/below", "/proc/none", "/proc/none/below"))
def test_where_no_file_can_be_made_is_said(tmp_path, monkeypatch, bad):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    if bad.startswith("/proc") and not os.path.isdir("/proc"):
        pytest.skip("needs a folder that nobody can write to")
    with pytest.raises(OSError, match=f"^{bad}: .*choose another"): check_folder(bad)
    for good in (".", "new", "new/er", tmp_path / "new"): check_folder(good)
    assert os.listdir(tmp_path) == ["file"]


SHELLS = {
    "script": (None, False),
    "terminal": (SimpleNamespace(), False),
    "notebook": (SimpleNamespace(kernel="Python 3"), True)}


@pytest.mark.parametrize("shell, moves", SHELLS.values(), ids=SHELLS)
def test_a_bar_moves_in_a_notebook_and_not_where_its_library_is_loaded(
        shell, moves, monkeypatch):
    "A script that runs notebooks loads ipykernel, and writes to a file all the same."
    ipython = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert bars_move() is moves


def test_progress_in_lines(capsys):
    letters = progress("abcd", every=2, desc="letters", unit="letter")
    assert list(letters) == list("abcd")
    with progress(total=10, initial=4, every=5, desc="train", unit="step") as bar:
        for _ in range(6):
            bar.set_postfix(loss=f"{bar.n / 8}")
            bar.update()
    with progress(range(3), disable=True): pass
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "letters: letter 2 of 4, 0 s",
        "letters: letter 4 of 4, 0 s",
        "train: step 5 of 10, 0 s, loss 0.5",
        "train: step 10 of 10, 0 s, loss 1.125",
    ]
    assert isinstance(progress(), _Lines)


@pytest.mark.parametrize("file, ask", [
    ("config.json", CosmoFlow.from_pretrained),
    ("model.safetensors", CosmoFlow.from_pretrained),
    ("Maps_Mcdm_PM_LH_z=0.00.npy", lambda folder: open_maps("PM", "LH", folder)),
    ("maps.npy", lambda folder: _load_array(folder / "maps.npy", 3, "maps")),
])
def test_a_pointer_of_git_lfs_is_told_from_a_damaged_file(file, ask, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((find_model("mini") / name).read_bytes())
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n"
    (tmp_path / file).write_text(pointer, encoding="utf-8")
    message = f"{file}: this is a pointer of Git LFS.*: git lfs pull$"
    with pytest.raises(ValueError, match=message): ask(tmp_path)

"""Files appear whole, whoever writes them, and are found, whatever they are called."""
import ast
import errno
import inspect
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from conftest import ROOT

from cosmoflow import CosmoFlow, cli, core, data, fetch, releases, results
from cosmoflow import compress as compress_module
from cosmoflow.compress import compress, decompress, read_header
from cosmoflow.core import (alone, as_path, atomic_path, check_fetched, check_folder,
                            check_output, no_file, open_npy, read_json, write_json)
from cosmoflow.data import download, map_path, open_maps, param_path, write_maps
from cosmoflow.fetch import fetch_file, npy_header
from cosmoflow.releases import fetch_weights, find_released, released_folder
from cosmoflow.results import open_experiment, read_record, read_records, record

WRITE_OFTEN = """
import sys
from cosmoflow.core import atomic_path
for _ in range(40):
    with atomic_path(sys.argv[1]) as tmp:
        tmp.write_text(sys.argv[2] * 1000, encoding="utf-8")
"""


def write(path, text="new"):
    with atomic_path(path) as tmp: tmp.write_text(text, encoding="utf-8")


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


def refused(error, function, *args):
    with pytest.raises(error): function(*args)


def tried(function, *args, **how):
    "What needs a server, where none is."
    with pytest.raises(ConnectionError):
        function(*args, **how, tries=1, wait=0)


NOWHERE = "http://127.0.0.1:9"
HOMES = {  # every public function that takes a path -> a use that needs to find it
    "as_path": lambda home: as_path("~/m.npy").stat(),
    "atomic_path": lambda home: write("~/new/x"),
    "check_fetched": lambda home: check_fetched("~/m.npy"),
    "check_folder": lambda home: refused(OSError, check_folder, "~/m.npy/below"),
    "check_output": lambda home: refused(OSError, check_output, "~/CMD"),
    "no_file": lambda home: no_file("~/CMD").startswith(str(home)) or 1 / 0,
    "open_npy": lambda home: open_npy("~/m.npy", "maps"),
    "read_json": lambda home: read_json("~/r.json"),
    "write_json": lambda home: write_json("~/new/x.json", 1),
    "download": lambda home: tried(
        download, "Astrid", "CV", "~/new", base=NOWHERE),
    "map_path": lambda home: map_path("~/CMD", "PM", "CV").stat(),
    "open_maps": lambda home: open_maps("PM", "CV", "~/CMD"),
    "param_path": lambda home: param_path("~/CMD", "PM", "CV").stat(),
    "write_maps": lambda home: write_maps("~/new/m.npy", MAPS.shape, [MAPS]),
    "fetch_file": lambda home: tried(fetch_file, NOWHERE, "~/new/x", print),
    "fetch_weights": lambda home: tried(
        fetch_weights, "mini-128", "~/new", base=NOWHERE),
    "find_released": lambda home: refused(
        FileNotFoundError, find_released, "mini-128", "~/new"),
    "released_folder": lambda home: released_folder(
        "mini-128", "~/new").relative_to(home),
    "compress": lambda home: packed("~/new/m.cflow"),
    "decompress": lambda home: (
        packed(home / "m.cflow"),
        decompress("~/m.cflow", "~/new/m.npy", small(), steps=1)),
    "read_header": lambda home: (packed(home / "m.cflow"), read_header("~/m.cflow")),
    "open_experiment": lambda home: open_experiment(
        "own", "PM", "CV", "~/CMD", model=None),
    "read_record": lambda home: read_record("r", "~"),
    "read_records": lambda home: read_records("~"),
    "record": lambda home: record("new", [], "maps", folder="~/new"),
}
MODULES = core, data, fetch, releases, compress_module, results
MAPS = np.full((15, 16, 16), 1e11, np.float32)


def small(): return CosmoFlow.from_pretrained("mini-scales", "cpu")


def packed(path): compress(small(), open_maps("PM", "CV").maps[:1], path)


def test_every_function_that_takes_a_path_is_tried():
    kinds = str | Path, str | Path | None
    takes = lambda function: any(
        p.annotation in kinds for p in inspect.signature(function).parameters.values())
    public = {name: vars(module)[name] for module in MODULES for name in module.__all__}
    functions = {name for name, found in public.items()
                 if inspect.isfunction(found) and takes(found)}
    assert functions - {"check_format"} == HOMES.keys()  # its path is for the message


def test_a_path_that_you_give_goes_through_one_door():
    "`Path(out)` of an argument leaves `~` a folder of that name."
    found = []
    for file in (ROOT / "cosmoflow").glob("*.py"):
        for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef): continue
            arguments = {a.arg for a in function.args.args if a.annotation
                         and ast.unparse(a.annotation).startswith("str | Path")}
            found += [(file.stem, function.name) for call in ast.walk(function)
                      if isinstance(call, ast.Call) and ast.unparse(call.func) == "Path"
                      and isinstance(call.args[0], ast.Name)
                      and call.args[0].id in arguments]
    # a name of a model, which is no path; a word of a message
    assert sorted(found) == [("model", "find_model"), ("posterior", "from_pretrained")]


@pytest.mark.parametrize("function", HOMES)
def test_a_tilde_is_your_home_and_no_folder_of_that_name(
        function, tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    for folder in (home / "CMD", here): folder.mkdir(parents=True)
    for name in ("HOME", "USERPROFILE"): monkeypatch.setenv(name, str(home))
    monkeypatch.chdir(here)
    np.save(home / "m.npy", MAPS)
    np.save(map_path(home / "CMD", "PM", "CV"), MAPS)
    np.savetxt(param_path(home / "CMD", "PM", "CV"), [[0.3, 0.8]])
    write_json(home / "r.json", {"results": []})
    HOMES[function](home)
    assert not os.listdir(here)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs users")
def test_a_protected_file_is_replaced_and_stays_protected():
    "Also by whoever is not root, and so cannot open it to write."
    with TemporaryDirectory() as folder:
        path, root = Path(folder) / "old.npy", os.geteuid() == 0
        write(path, "old")
        path.chmod(0o444)
        if root:
            for owned in (folder, path): os.chown(owned, 1234, 1234)
            os.seteuid(1234)
        try: write(path, "new")
        finally:
            if root: os.seteuid(0)
        assert path.read_text(encoding="utf-8") == "new"
        assert path.stat().st_mode & 0o777 == 0o444


UNLOCKED = [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("flock"),
            PermissionError(errno.EACCES, "Permission denied")]


@pytest.mark.parametrize("error", UNLOCKED, ids=lambda e: type(e).__name__)
def test_a_disk_that_knows_no_locks_is_named(tmp_path, monkeypatch, error):
    "As of some clusters; or the lock is a colleague's, who shares the folder."
    def acquire(lock): raise error
    monkeypatch.setattr("cosmoflow.core.FileLock.acquire", acquire)
    for path in (tmp_path, tmp_path / "maps.npy"):
        with pytest.raises(OSError, match=f"^{path}: it cannot be locked .*choose a"):
            with alone(path, "training"): pass


READ = {  # what reads a file; `folder` holds one that is none
    "open_npy": ("x.npy", lambda folder: open_npy(folder / "x.npy", "maps")),
    "encode": ("x.npy", lambda folder: cli._load_array(folder / "x.npy", 3, "maps")),
    "maps": ("Maps_Mcdm_PM_CV_z=0.00.npy", lambda folder: open_maps(
        "PM", "CV", folder)),
    "table": ("params_CV_PM.txt", lambda folder: open_maps("PM", "CV", folder)),
    "read_header": ("x.cflow", lambda folder: read_header(folder / "x.cflow")),
    "decompress": ("x.cflow", lambda folder: decompress(
        folder / "x.cflow", folder / "new.npy", steps=1)),
}


@pytest.mark.parametrize("reader", READ)
@pytest.mark.parametrize("kind", ("link", "pipe", "nothing"))
def test_what_stands_in_a_file_s_place_is_named(tmp_path, reader, kind):
    "A disk was emptied, and the link to it stayed; or `<(zcat maps.npy.gz)` was given."
    name, read = READ[reader]
    np.save(map_path(tmp_path, "PM", "CV"), MAPS)
    np.savetxt(param_path(tmp_path, "PM", "CV"), [[0.3, 0.8]])
    path = tmp_path / name
    path.unlink(missing_ok=True)
    if kind == "link": path.symlink_to("/scratch/emptied")
    if kind == "pipe": os.mkfifo(path)
    said = {"link": "no such file: a link to /scratch/emptied, which is gone",
            "pipe": "no file but a pipe or a device: save what comes out of it",
            "nothing": "no such file"}
    with pytest.raises(FileNotFoundError, match=f"^{path}: {said[kind]}; ") as refused:
        read(tmp_path)
    assert "there are PM" not in str(refused.value), "a link is no file to choose"


def test_a_folder_that_a_link_leads_to_may_be_gone(tmp_path):
    (tmp_path / "runs").symlink_to("/scratch/emptied")
    for folder in (tmp_path / "runs", tmp_path / "runs" / "own"):
        message = f"^{folder}: .* {tmp_path}/runs is a link that leads nowhere; choose"
        with pytest.raises(NotADirectoryError, match=message): check_folder(folder)


def test_a_damaged_header_of_an_array_is_named_whatever_numpy_says(tmp_path):
    "One byte of a header is another one: it reads all the same, or it is refused."
    np.save(tmp_path / "whole.npy", MAPS)
    whole, path = (tmp_path / "whole.npy").read_bytes(), tmp_path / "m.npy"
    for place, byte in product(range(len(whole) - MAPS.nbytes), b"-9(\n'\0"):
        damaged = whole[:place] + bytes([byte]) + whole[place + 1:]
        path.write_bytes(damaged)
        with suppress(ValueError): open_npy(path, "maps")
        npy_header(damaged)
    for shape in ("(-5, 6, 6)", "(True, 6, 6)", f"({2**64},)"):
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n"
        size = len(text).to_bytes(2, "little")
        path.write_bytes(b"\x93NUMPY\1\0" + size + text.encode() + bytes(999))
        with pytest.raises(ValueError, match=f"^{path}: expected a .npy file with ma"):
            open_npy(path, "maps")


def test_json_may_begin_as_some_editors_let_it_and_may_not_be_endless(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"σ": 1}', encoding="utf-8-sig")
    assert read_json(path) == {"σ": 1}
    path.write_text(100_000 * "[", encoding="utf-8")
    with pytest.raises(ValueError, match=f"^{path}: expected JSON"): read_json(path)


@pytest.mark.parametrize("path", (5, b"CMD", ["CMD"]), ids=repr)
def test_what_is_no_path_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = f"^{re.escape(repr(path))}: expected a path, as text or as a pathlib.Path"
    for ask in (check_folder, check_output, lambda p: open_maps("PM", "CV", p),
                lambda p: download("Astrid", "CV", p), read_header,
                lambda p: fetch_file(NOWHERE, p, print, 1, 0)):
        with pytest.raises(ValueError, match=message): ask(path)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("other", ("{}", "[]", '{"spectrum": 1}'))
def test_json_that_is_no_record_is_named(tmp_path, other):
    "As `evaluate --out` leaves it, in a folder that holds records, too."
    record("own", [], "maps", folder=tmp_path)
    (tmp_path / "metrics.json").write_text(other, encoding="utf-8")
    message = f"^{tmp_path}/metrics.json: expected a record, as `record` or `bench`"
    for read in (read_records, lambda folder: read_record("metrics", folder)):
        with pytest.raises(ValueError, match=message): read(tmp_path)
    assert read_record("own", tmp_path)["results"] == []

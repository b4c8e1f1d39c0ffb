"""The command line as a shell sees it."""
import subprocess

import numpy as np
import pytest
from conftest import COSMOFLOW

from cosmoflow.data import open_maps

COMMANDS = ("simulate", "download", "train", "evaluate", "distill", "encode", "decode", "bench", "demo")


def run(*args, **kwargs):
    return subprocess.run([COSMOFLOW, *map(str, args)], capture_output=True, text=True, timeout=300, **kwargs)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command):
    done = run(command, "--help")
    assert done.returncode == 0 and f"example: cosmoflow {command}" in done.stdout


def test_encode_and_decode(tmp_path):
    np.save(tmp_path / "maps.npy", open_maps("PM", "CV").maps[:3])
    assert run("encode", tmp_path / "maps.npy", tmp_path / "field.npy").returncode == 0
    assert run("decode", tmp_path / "field.npy", tmp_path / "again.npy", "--steps", 4, "--seed", 1).returncode == 0
    assert run("encode", tmp_path / "maps.npy", tmp_path / "eight.npy", "--summary").returncode == 0
    assert np.load(tmp_path / "field.npy").shape == (3, 8, 4, 4) and np.load(tmp_path / "again.npy").shape == (3, 64, 64)
    np.testing.assert_allclose(np.load(tmp_path / "eight.npy"), np.load(tmp_path / "field.npy").mean((2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("args, message", [
    (("encode", "none.npy", "x.npy"), "none.npy: no such file"),
    (("encode", "text.npy", "x.npy"), "text.npy: expected a .npy file"),
    (("encode", "flat.npy", "x.npy"), "flat.npy: expected maps"),
    (("decode", "flat.npy", "x.npy"), "flat.npy: expected compressed fields"),
    (("encode", "maps.npy", "x.txt"), "x.txt: expected an output name that ends in .npy"),
    (("encode", "maps.npy", "x.npy", "--model", "maxi"), "'maxi': expected a shipped model"),
    (("evaluate", "--data", "nowhere"), "nowhere"),
    (("evaluate", "--suite", "Astrid"), "root is needed for Astrid"),
    (("train", "--out", "run", "--schedule", "linear"), "schedule='linear'"),
    (("bench", "--pixels", "96", "--out", "o"), "multiples of 64"),
    (("train", "--out", "run", "--precision", "half"), "precision='half'"),
    (("distill", "--out", "o", "--steps", "0"), "steps=0"),
    (("simulate", "--set", "XY", "--out", "o"), "set='XY'"),
    (("simulate", "--set", "LH", "--sims", "a:b", "--out", "o"), "expected a range such as 0:400"),
    (("download", "--suite", "PM", "--set", "LH", "--out", "o"), "not on CMD's server"),
])
def test_errors_are_one_line(tmp_path, args, message):
    (tmp_path / "text.npy").write_text("hello")
    np.save(tmp_path / "flat.npy", np.ones(3))
    np.save(tmp_path / "maps.npy", np.ones((1, 16, 16), np.float32))
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("x.*")) and not list(tmp_path.glob(".*tmp*"))

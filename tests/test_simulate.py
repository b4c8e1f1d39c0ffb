"""Simulation runs: the same bytes in any order, however they are cut and shared."""
import dataclasses
import errno
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import COSMOFLOW, NOTEBOOKS, cell_sources, command, kill_when

import cosmoflow.simulate
from cosmoflow.core import alone
from cosmoflow.data import open_maps
from cosmoflow.points import simulate_points
from cosmoflow.simulate import (OMEGA_B, RHO_CRIT, paint_slabs, particle_mesh,
                                round_mantissa, select_simulations, simulate,
                                simulation_table, wdm_transfer)

SMALL = dict(particles=16, pixels=16, steps=4)


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def check_mean_density(data, n, rtol):
    "Each of the three projections of each of the n simulations holds all of its mass."
    expected = (data.params[:, 0] - OMEGA_B) * RHO_CRIT * 5
    found = data.maps.reshape(n, 3, -1).mean(2)
    np.testing.assert_allclose(found, np.repeat(expected[:, None], 3, 1), rtol=rtol)


def test_any_order_gives_the_same_bytes(tmp_path):
    simulate("LH", tmp_path / "a", slice(0, 4), **SMALL)
    for sims in (slice(3, 4), slice(0, 1), slice(1, 3)):
        simulate("LH", tmp_path / "b", sims, **SMALL)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    data = open_maps("PM", "LH", tmp_path / "a")
    expected = simulation_table("LH").params[:4]
    np.testing.assert_allclose(data.params, expected, atol=1e-5)
    check_mean_density(data, 4, rtol=1e-4)
    manifest = tmp_path / "a" / "manifest_LH.json"
    manifest = json.loads(manifest.read_text(encoding="utf-8"))
    assert manifest["simulations"] == [0, 1, 2, 3]
    assert manifest["versions"]["pmpp"]
    assert manifest["run"]["settings"]["particles"] == 16


def test_some_simulations_keep_their_own_parameters(tmp_path):
    simulate("LH", tmp_path, slice(5, 7), **SMALL)
    data, table = open_maps("PM", "LH", tmp_path), simulation_table("LH")
    np.testing.assert_allclose(data.params, table.params[5:7], atol=1e-5)
    manifest = json.loads((tmp_path / "manifest_LH.json").read_text(encoding="utf-8"))
    assert manifest["simulations"] == [5, 6]
    assert manifest["seeds"] == table.seeds[5:7].tolist()
    expected = (data.params[:, 0] - OMEGA_B) * RHO_CRIT * 5
    np.testing.assert_allclose(data.maps.reshape(2, -1).mean(1), expected, rtol=1e-4)


def test_killed_run_goes_on(tmp_path):
    "A process is killed, this one goes on."
    args = ["simulate", "--set", "LH", "--sims", "0:8",
            "--particles", "32", "--pixels", "16", "--out", str(tmp_path / "cut")]
    parts = tmp_path / "cut" / "parts" / "LH"
    made = lambda: list(parts.glob("[0-9]*.safetensors"))
    kill_when(lambda: len(made()) >= 2, COSMOFLOW, *args)
    done = {p: p.stat().st_mtime_ns for p in made()}
    assert 2 <= len(done) < 8
    command(*args)
    for path, at in done.items(): assert path.stat().st_mtime_ns == at, "done twice"
    args[-1] = str(tmp_path / "whole")
    command(*args)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_devices_share_a_simulation(tmp_path):
    "Two halves of a CPU, in a process of its own: JAX counts devices when it starts."
    one = simulate("CV", tmp_path / "one", slice(0, 1), **SMALL)
    args = [COSMOFLOW, "simulate", "--set", "CV", "--sims", "0:1", "--particles", "16",
            "--pixels", "16", "--steps", "4", "--out", tmp_path / "two",
            "--devices", "2"]
    halves = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    subprocess.run(args, env=halves, check=True, capture_output=True)
    two = tmp_path / "two" / one.name
    np.testing.assert_allclose(np.load(two), np.load(one), rtol=1e-3)


def test_settings_do_not_mix(tmp_path):
    first = slice(0, 1)
    simulate("CV", tmp_path, first, **SMALL)
    message = "settings pixels is 16 there and 8 here"
    with pytest.raises(ValueError, match=message):
        simulate("CV", tmp_path, first, **SMALL | {"pixels": 8})
    with pytest.raises(ValueError, match="selects none"):
        simulate("CV", tmp_path, slice(27, 30), **SMALL)
    with pytest.raises(ValueError, match="set='XX'"):
        simulate("XX", tmp_path, **SMALL)
    with pytest.raises(ValueError, match="devices=99: JAX finds"):
        simulate("CV", tmp_path / "new", first, **SMALL, devices=99)
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="keep_bits=0"):
        simulate("CV", tmp_path, first, **SMALL, keep_bits=0)


@pytest.mark.parametrize("wrong", (
    dict(keep_bits=2.5), dict(keep_bits=24), dict(keep_bits="20"), dict(sims=1),
    dict(sims=[0, 1]), dict(sims=range(2)), dict(particles=15), dict(particles=1),
    dict(particles=10**6), dict(pixels=10**9)))
def test_what_cannot_be_simulated_is_refused_before_anything_is_made(wrong, tmp_path):
    given = dict(sims=slice(0, 1)) | SMALL | wrong
    message = re.escape("{}={!r}: expected".format(*next(iter(wrong.items()))))
    with pytest.raises(ValueError, match=f"^{message}"):
        simulate("CV", tmp_path / "new", **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("box", (-25, 0, np.nan, "25"))
def test_a_box_has_a_side(box):
    with pytest.raises(ValueError, match=f"^box={box!r}: expected a side"):
        particle_mesh(16, 16, 2, box=box)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    "A folder with the first simulation of CV."
    folder = tmp_path_factory.mktemp("one")
    simulate("CV", folder, slice(0, 1), **SMALL)
    return folder


CHANGES = {  # what differs, how it is named, and how it comes about
    "pixels": ("settings pixels is 16 there and 8 here", dict(pixels=8)),
    "particles": ("settings particles is 16 there and 32 here", dict(particles=32)),
    "steps": ("settings steps is 4 there and 5 here", dict(steps=5)),
    "keep_bits": ("settings keep_bits is 23 there and 6 here", dict(keep_bits=6)),
    "box": ("settings box is 25.0 there and 50.0 here", dict(BOX=50.0)),
    "recipe": ("recipe version is 1 there and 2 here", dict(RECIPE=2)),
    "physics": ("recipe h is 0.6711 there and 0.7 here", dict(HUBBLE=0.7)),
    "parameters": ("data parameters is '\\w+' there and '\\w+' here",
                   dict(params=lambda p: p + 0.01)),
    "phases": ("data phases is '\\w+' there and '\\w+' here",
               dict(seeds=lambda s: s + 1)),
}


@pytest.mark.parametrize("kept_by", ["manifest", "part"])
@pytest.mark.parametrize("what", CHANGES)
def test_another_run_is_refused_and_named(what, kept_by, one, tmp_path, monkeypatch):
    "By the folder's manifest, and by each simulation: it may have come from elsewhere."
    message, change = CHANGES[what]
    folder = shutil.copytree(one, tmp_path / "PM")
    if kept_by == "part": (folder / "manifest_CV.json").unlink()
    before = files(folder)
    for name in change.keys() - SMALL.keys() - {"keep_bits"}:
        if name.isupper():
            monkeypatch.setattr(cosmoflow.simulate, name, change[name])
        else:
            table = simulation_table("CV")
            changed = {name: change[name](getattr(table, name))}
            other = dataclasses.replace(table, **changed)
            monkeypatch.setattr(cosmoflow.simulate, "simulation_table",
                                lambda set, other=other: other)
    given = {k: v for k, v in change.items() if k in SMALL or k == "keep_bits"}
    with pytest.raises(ValueError, match=message):
        simulate("CV", folder, slice(1, 2), **SMALL | given)
    assert files(folder) == before
    assert len(list((folder / "parts" / "CV").glob("[0-9]*"))) == 1


def test_parts_that_are_not_this_simulation(one, tmp_path):
    "Renamed, of another set, cut off, or of an older version."
    folder = shutil.copytree(one, tmp_path / "PM")
    part = folder / "parts" / "CV" / "0000.safetensors"

    def refused(set, message):
        with pytest.raises(ValueError, match=message):
            simulate(set, folder, slice(0, 1), **SMALL)

    part.rename(part.with_stem("0003"))
    refused("CV", "0003.safetensors is of another run: "
                  "simulation number is 0 there and 3 here")
    (folder / "parts" / "LH").mkdir()
    part.with_stem("0003").rename(folder / "parts" / "LH" / part.name)
    refused("LH", "data set is 'CV' there and 'LH' here")
    part.write_bytes((one / "parts" / "CV" / part.name).read_bytes()[:-100])
    refused("CV", "0000.safetensors: expected the maps of a simulation .*; remove it")
    old = '{"settings": {"pixels": 16}}'
    (folder / "manifest_CV.json").write_text(old, encoding="utf-8")
    refused("CV", "manifest_CV.json does not say what run it is of, "
                  "since an older version wrote it")


def test_two_processes_do_not_make_the_same_simulation(one, tmp_path):
    folder = shutil.copytree(one, tmp_path / "PM")
    parts = folder / "parts" / "CV"
    with alone(parts / "0001.safetensors", "simulation"):
        simulate("CV", folder, slice(2, 3), **SMALL)  # another one may be made
        message = ("0001.safetensors: another simulation is at work on this file; "
                   "wait for its end")
        with pytest.raises(BlockingIOError, match=message):
            simulate("CV", folder, slice(0, 3), **SMALL)
    simulate("CV", folder, slice(0, 3), **SMALL)
    assert open_maps("PM", "CV", folder).n_sims == 3
    made = sorted(path.name for path in parts.glob("[0-9]*"))
    assert made == [f"000{i}.safetensors" for i in range(3)]


def test_shares_of_the_work_are_joined_whole(tmp_path):
    "Three at a time, into one folder: maps, table and manifest agree."
    shares = [threading.Thread(target=simulate, kwargs=SMALL,
                               args=("CV", tmp_path, slice(i, i + 2)))
              for i in (0, 2, 4)]
    for share in shares: share.start()
    for share in shares: share.join()
    assert open_maps("PM", "CV", tmp_path).n_sims == 6
    manifest = json.loads((tmp_path / "manifest_CV.json").read_text(encoding="utf-8"))
    assert manifest["simulations"] == list(range(6))


FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
from cosmoflow.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("room, full", [
    (10_000, "parts/CV/0001.safetensors"),
    (20_000, "Maps_Mcdm_PM_CV_z=0.00.npy"),
])
def test_a_full_disk_is_one_line_that_names_the_file(room, full, one, tmp_path):
    "Two simulations of 15,360 bytes each; no file may grow larger than the room."
    folder = shutil.copytree(one, tmp_path / "PM")
    before = files(folder)
    args = ["simulate", "--set", "CV", "--sims", "0:2", "--out", str(folder),
            *(f"--{k}={v}" for k, v in SMALL.items())]
    # JAX reads its cache of compiled code and writes none, so none is half-written.
    quiet = os.environ | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9"}
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(room), *args],
                          env=quiet, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2, done.stderr
    assert last.startswith(f"cosmoflow: error: {folder}/{full}: "), done.stderr
    assert os.strerror(errno.EFBIG) in last, done.stderr
    assert "Traceback" not in done.stderr and files(folder) == before
    simulate("CV", folder, slice(0, 2), **SMALL)
    assert open_maps("PM", "CV", folder).n_sims == 2
    assert not list(folder.rglob("*.tmp*"))


PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"  # most of a GPU, before it is needed
ROOM_LEFT = f"""
import os
import cosmoflow.simulate
%s
first = os.environ.get("{PREALLOCATE}")
cosmoflow.simulate.particle_mesh(8, 8, 1)
print(first, os.environ.get("{PREALLOCATE}"))
"""


@pytest.mark.parametrize("before, expected", [
    ("", "false"),
    (f"os.environ['{PREALLOCATE}'] = 'true'", "true"),
    ("import jax", "None"),
], ids=["as it is", "the user's choice", "jax is there already"])
def test_jax_leaves_room_for_torch(before, expected):
    "Set before jax is first imported, and only there: not by importing us."
    clean = {k: v for k, v in os.environ.items() if k != PREALLOCATE}
    done = subprocess.run([sys.executable, "-c", ROOM_LEFT % before], env=clean,
                          capture_output=True, text=True, check=True)
    at_first = "None" if expected == "false" else expected
    assert done.stdout.split() == [at_first, expected]


SIM_PAGES = [p for p in NOTEBOOKS if "cosmoflow[sim]" in p.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", SIM_PAGES, ids=lambda p: p.stem)
def test_pages_with_simulations_keep_torch_and_numpy(
        path, tmp_path, monkeypatch, capsys):
    "Pip is asked to keep both, and the page says of jax what pmpp asks for."
    from IPython.core.inputtransformer2 import TransformerManager
    setup = next(c for c in cell_sources(path) if 'find_spec("cosmoflow")' in c)
    asked = []
    shell = type("Shell", (), {"run_line_magic": lambda self, *a: asked.append(a),
                               "system": lambda self, *a: None})()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    import jax  # noqa: F401 (imported in this session, as the page foresees)
    exec(TransformerManager().transform_cell(setup), {"get_ipython": lambda: shell})
    kept = re.search(r" -c (\S+)$", asked[0][1])[1]
    pins = [f"{name}=={importlib.metadata.version(name)}"
            for name in ("torch", "numpy")]
    assert (tmp_path / kept).read_text(encoding="utf-8").split() == pins
    assert "Restart session" in capsys.readouterr().out
    wants = next(r for r in importlib.metadata.requires("pmpp") if r.startswith("jax"))
    low, high = re.search(r">=([\d.]+)", wants)[1], re.search(r"<([\d.]+)", wants)[1]
    assert f"from {low} to below {high}" in setup


def test_tables():
    one_p = simulation_table("1P")
    first = [[o, 0.8] for o in (0.1, 0.2, 0.3, 0.4, 0.5)]
    second = [[0.3, s] for s in (0.6, 0.7, 0.8, 0.9, 1.0)]
    assert one_p.params.tolist() == first + second
    assert len(set(one_p.seeds)) == 1
    cv = simulation_table("CV")
    assert len(cv) == 27 and len(set(cv.seeds)) == 27
    assert (cv.params == [0.3, 0.8]).all()
    wdm, cdm = simulation_table("WDM"), simulation_table("CDM")
    assert (wdm.params[:, :2] == cdm.params).all() and (wdm.seeds == cdm.seeds).all()
    assert wdm.param_names[2] == "m_WDM_keV"
    assert wdm.params[:, 2].min() >= 0.25 and wdm.params[:, 2].max() <= 1
    assert not set(wdm.seeds) & set(simulation_table("LH").seeds)
    sobol = simulation_table("SB2")
    quarters, counts = np.unique(((sobol.params[:256] - [0.1, 0.6]) / 0.1).astype(int),
                                 axis=0, return_counts=True)
    assert len(quarters) == 16 and (counts == 16).all()  # even over the rectangle
    others = [simulation_table(s).seeds for s in ("LH", "CV", "1P", "WDM")]
    own = set(sobol.seeds)
    assert len(own) == 1024 and not own & set(np.hstack(others))


def test_round_mantissa():
    x = np.random.default_rng(0).lognormal(25, 2, 10_000).astype(np.float32)
    for bits in (1, 6, 22):
        y = round_mantissa(x, bits)
        assert np.abs(y / x - 1).max() <= 2.0 ** -(bits + 1)
        assert not (y.view(np.uint32) & ((1 << (23 - bits)) - 1)).any()
        np.testing.assert_array_equal(round_mantissa(y, bits), y)
    np.testing.assert_array_equal(round_mantissa(x, 23), x)


@pytest.mark.parametrize(
    "set, n", [("LH", 120), ("1P", 10), ("CV", 10), ("WDM", 14), ("CDM", 14)])
def test_shipped_suite(set, n):
    data = open_maps("PM", set)
    assert data.n_sims == n and data.maps.shape[1:] == (64, 64)
    check_mean_density(data, n, rtol=2e-3)  # six mantissa bits


@pytest.mark.parametrize(
    "wrong", ([0], 3, None, slice(2000, 3000), slice(0), slice(0, 2.5)), ids=str)
@pytest.mark.parametrize("make", (simulate_points, partial(simulate, "LH")))
def test_all_that_simulate_choose_simulations_alike(make, wrong, tmp_path):
    with pytest.raises(ValueError) as expected: select_simulations("LH", wrong)
    with pytest.raises(ValueError, match=f"^{re.escape(str(expected.value))}$"):
        make(tmp_path / "out", sims=wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("devices", (0, 1.5, "2"))
def test_devices_are_one_or_more(devices):
    with pytest.raises(ValueError, match=f"^devices={devices!r}: expected a whole"):
        particle_mesh(16, 16, 2, devices)


def test_particles_of_your_own_are_painted_once_and_inside():
    pytest.importorskip("pmpp")
    rng = np.random.default_rng(0)
    whole, pos = rng.integers(0, 25, (500, 3)), rng.uniform(0, 25, (500, 3))
    maps = np.asarray(paint_slabs(whole, 16))
    np.testing.assert_allclose(maps, paint_slabs(whole.astype(float), 16), atol=1e-4)
    np.testing.assert_allclose(maps.reshape(3, -1).sum(1), 500, rtol=1e-5)
    for moved in (pos - 25, pos + 25):
        np.testing.assert_allclose(
            paint_slabs(moved, 16), paint_slabs(pos, 16), atol=1e-3)
    assert not np.asarray(paint_slabs(np.zeros((0, 3)), 16)).any()


@pytest.mark.parametrize("places", (
    lambda p: 1000 * p, lambda p: -1000 * p, lambda p: p * np.nan, lambda p: p + 40))
def test_a_snapshot_in_other_units_is_not_painted(places):
    "Wrapped into the box, places in kpc/h made maps of white noise without a word."
    pytest.importorskip("pmpp")
    pos = np.random.default_rng(0).uniform(0, 25, (500, 3))
    with pytest.raises(ValueError, match="^pos: expected places from 0 to 25 Mpc/h"):
        paint_slabs(places(pos), 16)
    assert np.asarray(paint_slabs(1000 * pos, 16, 25_000.0)).any()  # a box in kpc/h


@pytest.mark.parametrize("bits", (1, 6, 22, 23))
def test_no_rounding_makes_a_number_of_what_is_none(bits):
    "The NaN of a GPU has all its bits set: one more, and it was zero."
    nan = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0x7F800001], np.uint32)
    x = np.concatenate([nan.view(np.float32), np.float32([np.inf, -np.inf, 1, -2])])
    y = round_mantissa(x, bits)
    assert np.isnan(y[:4]).all()
    np.testing.assert_array_equal(y[4:], x[4:])
    assert round_mantissa(np.linspace(0, 1, 9), bits).dtype == np.float32


@pytest.mark.parametrize("bits", (0, 24, -1, 2.5))
def test_bits_that_no_float_has_are_refused(bits):
    with pytest.raises(ValueError, match=f"^bits={bits}: expected a whole number"):
        round_mantissa(np.ones(3, np.float32), bits)


def test_settings_of_numpy_are_settings(tmp_path, monkeypatch):
    "A loop over an array of sizes lost its first simulation when it was to be kept."
    pytest.importorskip("pmpp")
    mesh = SimpleNamespace(maps=lambda *universe: np.ones((15, 16, 16)))
    monkeypatch.setattr(cosmoflow.simulate, "particle_mesh", lambda *sizes: mesh)
    for i, kind in enumerate((int, np.int64, np.int32)):
        given = {name: kind(n) for name, n in (SMALL | {"keep_bits": 6}).items()}
        simulate("CV", tmp_path, slice(i, i + 1), **given)
    assert open_maps("PM", "CV", tmp_path).n_sims == 3


@pytest.mark.parametrize("name, wrong", [
    ("mass", 0), ("mass", -1.0), ("mass", np.nan), ("omega_m", 0.03),
    ("omega_m", 0.049)])
def test_no_warm_particle_has_such_a_mass(name, wrong):
    "Powers of what is below zero are complex numbers."
    given = {"k": np.ones(3), "mass": 1.0, "omega_m": 0.3}
    assert wdm_transfer(**given).dtype == float
    with pytest.raises(ValueError, match=f"^{name}={wrong!r}: expected a number above"):
        wdm_transfer(**given | {name: wrong})

"""CMD files, good and bad: reading, splitting, memory, downloading."""
import base64
import copy
import email.message
import hashlib
import http.server
import io
import math
import os
import pickle
import re
import subprocess
import sys
import threading
import urllib.request
import urllib.response
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import full_disk
from hypothesis import given, settings, strategies as st

from cosmoflow import data as data_module
from cosmoflow.core import BOX, MapView
from cosmoflow.data import (MapData, Normalizer, augment, batches, deal_simulations,
                            download, lower_resolution, map_path, open_maps, param_path,
                            split_simulations, write_maps)
from cosmoflow.fetch import _SafeRedirects, fetch_file


def maps_file(root): return map_path(root, "Astrid", "LH")


def table_file(root): return param_path(root, "Astrid", "LH")


def write_cmd(root, suite="Astrid", set="LH", sims=4, side=16, columns=6, n_maps=None,
              maps=None):
    "A CMD folder with random positive maps."
    rng = np.random.default_rng(0)
    if maps is None:
        shape = n_maps or 15 * sims, side, side
        maps = rng.lognormal(25, 1, shape).astype(np.float32)
    np.save(map_path(root, suite, set), maps)
    np.savetxt(param_path(root, suite, set), rng.uniform(0.1, 1, (sims, columns)))
    return maps


def test_reads_cmd(tmp_path):
    maps = write_cmd(tmp_path)
    data = open_maps("Astrid", "LH", tmp_path)
    assert isinstance(data.maps, np.memmap) and data.params.shape == (4, 6)
    astrophysics = "A_SN1", "A_AGN1", "A_SN2", "A_AGN2"
    assert data.param_names == ("Omega_m", "sigma_8", *astrophysics)
    one, params = data[31]
    np.testing.assert_array_equal(one, maps[31])
    np.testing.assert_array_equal(params, data.params[2])
    with pytest.raises(IndexError): data[60]


@pytest.mark.parametrize("table", ["params_LH_Nbody.txt", "params_LH_Nbody_Astrid.txt"])
def test_nbody_tables_go_by_two_names(tmp_path, table):
    write_cmd(tmp_path, "Nbody_Astrid")
    (tmp_path / "params_LH_Nbody_Astrid.txt").rename(tmp_path / table)
    data = open_maps("Nbody_Astrid", "LH", tmp_path)
    assert data.params.shape == (4, 2) and data.param_names == ("Omega_m", "sigma_8")


@pytest.mark.parametrize("n_maps", [525, 435])
def test_1p_with_and_without_repeats(tmp_path, n_maps):
    """Astrid's 1P table has 35 rows, the fiducial in the middle of each five.

    Its maps may hold 35 or 29 runs."""
    rows = np.tile([0.3, 0.8, 1, 1, 1, 1, 0.049], (35, 1))
    for p in range(7): rows[5 * p : 5 * p + 5, p] *= (0.25, 0.5, 1, 2, 4)
    np.save(map_path(tmp_path, "Astrid", "1P"), np.ones((n_maps, 16, 16), np.float32))
    np.savetxt(param_path(tmp_path, "Astrid", "1P"), rows)
    data = open_maps("Astrid", "1P", tmp_path)
    assert data.n_sims == n_maps // 15
    assert data.param_names[-1] == "Omega_b"
    if n_maps == 435:
        assert len(np.unique(data.params, axis=0)) == 29
        assert (data.params[2] == rows[2]).all()


def cut_off(root): maps_file(root).write_bytes(maps_file(root).read_bytes()[:5000])


def web_page(root):
    maps_file(root).write_text("<html>not found</html>", encoding="utf-8")


def archive(root):
    with maps_file(root).open("wb") as file: np.savez(file, maps=np.ones((60, 16, 16)))


def cut_archive(root):
    archive(root)
    maps_file(root).write_bytes(maps_file(root).read_bytes()[:5000])


def one_pixel_missing(root):
    number = np.arange(60 * 256).reshape(60, 16, 16)
    write_cmd(root, maps=np.where(number == 10_000, np.nan, 1).astype(np.float32))


def full_of(value, dtype=np.float32):
    "Writes maps that hold this one value."
    return lambda root: write_cmd(root, maps=np.full((60, 16, 16), value, dtype))


def last_row(row, others):
    "Writes a table of three equal rows and another one."
    return lambda root: np.savetxt(table_file(root), [others] * 3 + [row])


BAD = {
    "missing maps": (
        lambda root: maps_file(root).unlink(),
        FileNotFoundError, "no such file"),
    "missing table": (
        lambda root: table_file(root).unlink(),
        FileNotFoundError, "parameter table"),
    "truncated": (cut_off, ValueError, "truncated"),
    "empty": (
        lambda root: maps_file(root).write_bytes(b""),
        ValueError, "found another kind of file"),
    "not npy": (web_page, ValueError, "found another kind of file"),
    "shape": (
        lambda root: write_cmd(root, maps=np.ones((60, 16, 8), np.float32)),
        ValueError, r"shape \(n, H, H\)"),
    "whole numbers": (full_of(1, int), ValueError, "real numbers, found int64"),
    "complex numbers": (
        full_of(1, complex), ValueError, "real numbers, found complex128"),
    "double, not finite": (full_of(np.nan, float), ValueError, "map 0, pixel"),
    "pickle": (
        lambda root: np.save(maps_file(root), np.array([{}] * 60)),
        ValueError, "found objects, not numbers"),
    "archive": (archive, ValueError, "found an archive of arrays"),
    "damaged header": (
        lambda root: maps_file(root).write_bytes(b"\x93NUMPY\1\0\x08\0{'d': ( "),
        ValueError, "found one that is truncated"),
    "cut archive": (cut_archive, ValueError, "found another kind of file"),
    "nan": (one_pixel_missing, ValueError, "map 39, pixel"),
    "infinite": (full_of(np.inf), ValueError, "not finite"),
    "negative": (full_of(-1), ValueError, "negative"),
    "rows": (
        lambda root: write_cmd(root, n_maps=59),
        ValueError, "59 maps, its table 4 rows"),
    "table of words": (
        lambda root: table_file(root).write_text("a b\n", encoding="utf-8"),
        ValueError, "table of numbers"),
    "table with nan": (
        last_row([0.3, 0.8, np.nan], [0.3, 0.8, 1]),
        ValueError, "row 4, column 3 is nan; expected finite"),
    "table with zero": (
        last_row([0.3, 0, 0], [0.3, 0.8, 0]),
        ValueError, "row 4, column 2 is 0.0; .*above 0"),
    "one column": (
        lambda root: write_cmd(root, columns=1),
        ValueError, "at least the columns"),
    "empty table": (
        lambda root: table_file(root).write_bytes(b""),
        ValueError, "at least the columns Omega_m and sigma_8, found 0"),
}


@pytest.mark.filterwarnings("ignore:.*(converted|contained no data)")
@pytest.mark.parametrize("what", BAD)
def test_bad_files_are_named(tmp_path, what):
    write_cmd(tmp_path)
    spoil, error, message = BAD[what]
    spoil(tmp_path)
    with pytest.raises(error, match=message) as caught:
        open_maps("Astrid", "LH", tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_bad_arguments(tmp_path):
    write_cmd(tmp_path)
    for sims in (5, slice(0, 0.8 * 400), slice("0", None), slice(0, 4, 0)):
        message = f"^sims={re.escape(repr(sims))}: expected a slice of whole numbers"
        with pytest.raises(ValueError, match=message):
            open_maps("Astrid", "LH", tmp_path, sims=sims)
    with pytest.raises(ValueError, match="suite='Illustris' is unknown"):
        open_maps("Illustris", "LH", tmp_path)
    with pytest.raises(ValueError, match="set='lh' is unknown"):
        open_maps("Astrid", "lh", tmp_path)
    with pytest.raises(ValueError, match="root is needed"): open_maps("Astrid", "LH")
    with pytest.raises(ValueError, match="selects none"):
        open_maps("Astrid", "LH", tmp_path, sims=slice(4, 9))
    with pytest.raises(ValueError, match="contiguous"):
        open_maps("Astrid", "LH", tmp_path, sims=slice(0, 4, 2))
    with pytest.raises(ValueError, match="divisor"):
        open_maps("Astrid", "LH", tmp_path, pixels=7)
    with pytest.raises(ValueError, match="at least one"):
        Normalizer.fit(np.ones((0, 8, 8), np.float32))
    with pytest.raises(ValueError, match="constant"):
        Normalizer.fit(np.ones((2, 8, 8), np.float32))


def test_pixels_are_checked_before_any_value_is_read(tmp_path):
    write_cmd(tmp_path, maps=np.full((60, 16, 16), -1, np.float32))
    for pixels in (0, 7, -2, 2.0, 32):
        message = f"pixels={pixels}: expected a divisor of the maps' side, 16"
        with pytest.raises(ValueError, match=message):
            open_maps("Astrid", "LH", tmp_path, pixels=pixels)


ODD = {
    "double": lambda maps: maps.astype(np.float64),
    "half": lambda maps: (maps * 1e-9).clip(max=6e4).astype(np.float16),
    "big-endian": lambda maps: maps.astype(">f4"),
    "big-endian double": lambda maps: maps.astype(">f8"),
    "Fortran": np.asfortranarray,
    "Fortran double": lambda maps: np.asfortranarray(maps, np.float64),
}


@pytest.mark.parametrize("kind", ODD)
def test_other_real_numbers_are_converted_when_they_are_read(tmp_path, kind):
    stored = ODD[kind](write_cmd(tmp_path, sims=10))
    expected = np.ascontiguousarray(stored, np.float32)
    np.save(map_path(tmp_path, "Astrid", "LH"), stored)
    message = f"holds {stored.dtype}.*: every map is converted"
    with pytest.warns(UserWarning, match=message) as notes:
        data = open_maps("Astrid", "LH", tmp_path)
    assert len(notes) == 1 and notes[0].filename == __file__
    assert ("Fortran" in str(notes[0].message)) == ("Fortran" in kind)
    assert isinstance(data.maps.base, np.memmap)
    assert data.maps.dtype == np.float32 and data.maps.nbytes == expected.nbytes
    one = data[31][0]
    assert one.dtype == np.float32 and one.flags.c_contiguous and one.dtype.isnative
    np.testing.assert_array_equal(one, expected[31])
    np.testing.assert_array_equal(data.maps, expected)
    train = data.split()[0].maps
    assert train.dtype == train[:3].dtype == np.float32 and train[:2].flags.c_contiguous
    np.testing.assert_array_equal(train, expected[split_simulations(data)[0]])
    assert Normalizer.fit(data.maps) == Normalizer.fit(expected)
    with pytest.warns(UserWarning):
        some = open_maps("Astrid", "LH", tmp_path, sims=slice(1, 3), pixels=8)
    np.testing.assert_array_equal(some.maps, lower_resolution(expected[15:45], 8))


THERE = {
    "another set": (("Astrid", "CV", None),
                    "no such file; there are Astrid LH Mcdm in {root}, "
                    "Nbody_SIMBA 1P Mtot in {root}: choose by suite=, .*--set"),
    "another suite": (("SIMBA", "LH", None), "Nbody_SIMBA 1P Mtot"),
    "another field": (("Astrid", "LH", "Mgas"), "Astrid LH Mcdm"),
}


@pytest.mark.parametrize("what", THERE)
@pytest.mark.parametrize("below", ("", "CMD"))
def test_a_folder_with_other_maps_says_which(tmp_path, what, below):
    root = tmp_path / below
    root.mkdir(exist_ok=True)
    for suite, set in (("Astrid", "LH"), ("Nbody_SIMBA", "1P")):
        map_path(root, suite, set).touch()
    (root / "Maps_of_something.npy").touch()
    (suite, set, field), message = THERE[what]
    with pytest.raises(FileNotFoundError, match=message.format(root=root)):
        open_maps(suite, set, tmp_path, field)


def test_a_folder_without_maps_says_so(tmp_path):
    message = "there are no maps of CMD's kind: `cosmoflow download`"
    with pytest.raises(FileNotFoundError, match=message):
        open_maps("Astrid", "LH", tmp_path)
    message = "nowhere is no folder: give that of the maps"
    with pytest.raises(FileNotFoundError, match=message):
        open_maps("Astrid", "LH", "nowhere")
    for set in ("LH", "CV", "1P", "EX", "WDM", "CDM", "SB7"):
        map_path(tmp_path, "PM", set).touch()
    with pytest.raises(FileNotFoundError, match="and 2 more: choose"):
        open_maps("Astrid", "LH", tmp_path)


def fake(n_sims, each=15):
    maps = np.zeros((each * n_sims, 1, 1), np.float32)
    return MapData(maps, np.zeros((n_sims, 2)), ("a", "b"), "PM", "LH", "Mcdm")


@settings(max_examples=100, deadline=None)
@given(n=st.integers(10, 300), each=st.sampled_from([1, 4, 15]),
       seed=st.integers(0, 10**6))
def test_split_is_a_partition_of_simulations(n, each, seed):
    parts = split_simulations(fake(n, each), seed=seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(each * n))
    sims = [set((p // each).tolist()) for p in parts]
    assert all(len(p) == each * len(s) for p, s in zip(parts, sims))
    assert not sims[0] & sims[1] and not sims[0] & sims[2] and not sims[1] & sims[2]
    assert abs(len(parts[0]) / (each * n) - 0.8) <= 1 / n
    again = split_simulations(fake(n, each), seed=seed)
    assert all((a == b).all() for a, b in zip(parts, again))
    by_15 = split_simulations(fake(n), seed=seed)
    assert all((a[::each] // each == b[::15] // 15).all() for a, b in zip(parts, by_15))


@settings(max_examples=50, deadline=None)
@given(n=st.integers(10, 60), each=st.sampled_from([1, 4, 15]),
       seed=st.integers(0, 10**6))
def test_parts_hold_their_maps_and_the_parameters_of_each(n, each, seed):
    maps = np.arange(each * n * 4, dtype=np.float32).reshape(each * n, 2, 2)
    params = np.stack([np.arange(n), -np.arange(n)], 1).astype(float)
    data = MapData(maps, params, ("a", "b"), "PM", "LH", "Mcdm")
    parts, numbers = data.split(seed=seed), split_simulations(data, seed=seed)
    simulations = [int(p) for part in parts for p in part.params[:, 0]]
    assert sorted(simulations) == list(range(n))  # each in one part
    for part, which in zip(parts, numbers):
        assert isinstance(part.maps, MapView)
        assert len(part) == each * part.n_sims and part.maps_per_simulation == each
        np.testing.assert_array_equal(part.maps, maps[which])
        np.testing.assert_array_equal(part.targets, [params[i // each] for i in which])
        for i in (0, each - 1, len(part) - 1, -1):
            one, target = part[i]
            assert (one == maps[which[i]]).all()
            assert (target == params[which[i] // each]).all()
        with pytest.raises(IndexError): part[len(part)]
    first = parts[0]
    assert (first.suite, first.set, first.field) == ("PM", "LH", "Mcdm")
    assert first.pixels == 2
    if n >= 20:
        again = parts[0].split((0.5, 0.5, 0.0))  # a part has parts, too
        half = split_simulations(first, (0.5, 0.5, 0.0))[1]
        np.testing.assert_array_equal(again[1].maps, maps[numbers[0]][half])


NOT_A_SUITE = {
    "a map too few": (
        lambda maps, params: (maps[:-1], params),
        "maps: expected the same number for each row of params, "
        "found 11 maps and 3 rows"),
    "no parameters": (
        lambda maps, params: (maps, params[:0]),
        "found 12 maps and 0 rows"),
    "a channel's axis": (
        lambda maps, params: (maps[:, None], params),
        r"expected shape \(n, H, W\), found \(12, 1, 4, 4\); give maps\[:, 0\]"),
    "a list of maps": (
        lambda maps, params: (list(maps), params),
        "found list; stack them with np.stack"),
    "no maps": (lambda maps, params: (None, params), "maps: .*found NoneType"),
    "a path": (
        lambda maps, params: (Path("maps.npy"), params),
        "maps: .*found PosixPath; open the file first: np.load"),
    "a column too many": (
        lambda maps, params: (maps, np.ones((3, 3))),
        r"params: expected a row a simulation and a column for each of \('a', 'b'\), "
        r"found shape \(3, 3\)"),
    "a row too few axes": (
        lambda maps, params: (maps, params[:, 0]),
        r"params: expected .*found shape \(3,\)"),
}


@pytest.mark.parametrize("what", NOT_A_SUITE)
def test_own_maps_that_do_not_fit_their_parameters(what):
    change, message = NOT_A_SUITE[what]
    maps, params = change(np.ones((12, 4, 4), np.float32), np.ones((3, 2)))
    with pytest.raises(ValueError, match=message):
        MapData(maps, params, ("a", "b"), "own", "LH", "Mcdm")


TENSORS = {"tensor": torch.tensor,
           "with gradients": lambda maps: torch.tensor(maps, requires_grad=True),
           "half the bits": lambda maps: torch.tensor(maps).bfloat16()}


@pytest.mark.parametrize("kind", [*ODD, *TENSORS])
def test_own_maps_are_converted_when_they_are_read(kind):
    stored = np.random.default_rng(0).lognormal(25, 1, (40, 4, 4)).astype(np.float32)
    stored = (ODD | TENSORS)[kind](stored)
    data = MapData(stored, np.ones((10, 2)))
    if kind in TENSORS: stored = stored.detach().float()
    expected = np.asarray(stored).astype(np.float32)
    np.testing.assert_array_equal(data[5][0], expected[5])
    train = data.split()[0].maps
    assert data[5][0].dtype == train[:3].dtype == np.float32
    assert train[:3].dtype.isnative
    np.testing.assert_array_equal(train, expected[split_simulations(data)[0]])
    assert Normalizer.fit(data.maps) == Normalizer.fit(expected)


def test_a_box_stays_with_its_maps_and_their_parts(tmp_path):
    write_cmd(tmp_path, sims=10)
    data = open_maps("Astrid", "LH", tmp_path, box=50, sims=slice(0, 10))
    part = data.split()[0]
    for same in (data, part, part.split()[0], replace(data, suite="own")):
        assert same.box == 50
    own = data.maps, data.params, data.param_names
    assert MapData(*own, box=100.0).split()[2].box == 100
    assert open_maps("Astrid", "LH", tmp_path).box == MapData(*own).box == BOX == 25
    for wrong in (0, -25.0, math.nan, math.inf, "25", None):
        message = f"box={wrong!r}: expected a side in Mpc/h"
        with pytest.raises(ValueError, match=message): MapData(*own, box=wrong)
    with pytest.raises(ValueError, match="box=0: expected a side"):
        open_maps("Astrid", "LH", tmp_path, box=0)


@pytest.mark.parametrize("value, what", [
    (-3.0, "is -3.0, negative"),
    (np.nan, "is nan, not finite"),
    (np.inf, "is inf, not finite"),
])
def test_a_normaliser_is_not_fitted_to_what_has_no_logarithm(value, what):
    "Or a training would end, hours later, where its model refuses the maps."
    maps = np.random.default_rng(0).lognormal(25, 1, (1200, 64, 64)).astype(np.float32)
    maps[700, 6, 7] = value
    message = rf"maps: map 700, pixel \(6, 7\) {what}"
    with pytest.raises(ValueError, match=message): Normalizer.fit(maps)


@pytest.mark.parametrize("each", [1, 4])
def test_files_with_another_number_of_maps_a_simulation(tmp_path, each):
    maps = write_cmd(tmp_path, sims=4, n_maps=4 * each)
    message = f"holds {4 * each} maps, its table 4 rows: expected 15 maps a row"
    with pytest.raises(ValueError, match=message):
        open_maps("Astrid", "LH", tmp_path)
    data = open_maps("Astrid", "LH", tmp_path, maps_per_simulation=each,
                     sims=slice(1, 3))
    assert data.maps_per_simulation == each and data.n_sims == 2
    np.testing.assert_array_equal(data.maps, maps[each:3 * each])
    rows = np.loadtxt(table_file(tmp_path))[1:3]
    np.testing.assert_array_equal(data.targets, rows.repeat(each, 0))
    for wrong in (0, -4, 1.5):
        message = f"maps_per_simulation={wrong}: expected a whole number of 1 or more"
        with pytest.raises(ValueError, match=message):
            open_maps("Astrid", "LH", tmp_path, maps_per_simulation=wrong)


def test_a_table_of_pm_may_have_columns_of_its_own(tmp_path):
    write_cmd(tmp_path, "PM", columns=5)
    names = open_maps("PM", "LH", tmp_path).param_names
    assert names == ("Omega_m", "sigma_8", "m_WDM_keV", "p4", "p5")


def test_a_view_reads_like_the_array_and_refuses_what_is_not_there():
    array = np.random.default_rng(0).random((30, 3, 3))
    view = MapView(array, np.array([5, 28, 1, 1]))
    for key in (2, -1, np.int64(1), slice(1, None), slice(None, None, -2), [3, 0],
                np.array([[0, 1], [2, 3]]), np.arange(4) > 1, []):
        np.testing.assert_array_equal(view[key], array[[5, 28, 1, 1]][key])
    assert [one[0, 0] for one in view] == [array[i, 0, 0] for i in (5, 28, 1, 1)]
    assert np.asarray(view, dtype=np.float32).dtype == np.float32
    assert np.array(view).base is not array
    np.testing.assert_array_equal(MapView(array, slice(0, 30, 15)), array[::15])
    with pytest.raises(IndexError): view[4]
    with pytest.raises(IndexError): MapView(array, [30])


@settings(max_examples=50, deadline=None)
@given(tens=st.integers(1, 20), more=st.integers(0, 20), seed=st.integers(0, 10**6))
def test_longer_suite_keeps_the_parts_of_a_shorter_one(tens, more, seed):
    short, long = (split_simulations(fake(10 * n), seed=seed)
                   for n in (tens, tens + more))
    for a, b in zip(short, long): assert set(a.tolist()) <= set(b.tolist())


def test_split_errors():
    with pytest.raises(ValueError, match="sum to 1"):
        split_simulations(fake(10), (0.8, 0.1, 0.2))
    for n in (0, 2):
        with pytest.raises(ValueError, match=f"no simulation of {n} for"):
            split_simulations(fake(n))
    for n in (2.5, -5, "a"):
        with pytest.raises(ValueError, match=f"^n={n!r}: expected a whole number"):
            deal_simulations(n)
    assert len(split_simulations(fake(10), (0.8, 0.2, 0.0))[2]) == 0


LARGE = r"""
import re
import resource
import sys
from pathlib import Path
from cosmoflow.data import batches, open_maps

def used():
    "The peak of this process, GiB. On Linux `getrusage` knows that of its parent, too."
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30
    return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) / 2**20

data = open_maps("Astrid", "LH", sys.argv[1], check=False)
before = used()
train, val, test = data.split()
assert train.maps.shape == (12_000, 256, 256) and test.targets.shape == (1500, 6)
assert used() - before < 0.01
for i in range(0, 12_000, 64): assert not train.maps[i:i + 64].any()
assert used() - before < 0.1
assert len(data) == 15_000 and data[14_999][0].shape == (256, 256)
assert sum(b.sum() for b in batches(data.maps)) == 0
assert sum(data[i][0].sum() for i in range(0, 15_000, 5)) == 0
print(used())
"""


def test_large_file_needs_little_memory(tmp_path):
    "A sparse LH file of CMD's size is opened, checked and iterated within 1 GiB."
    write_cmd(tmp_path, sims=1000, n_maps=1, side=256)
    shape = 15_000, 256, 256
    np.lib.format.open_memmap(maps_file(tmp_path), "w+", np.float32, shape).flush()
    done = subprocess.run([sys.executable, "-c", LARGE, tmp_path], capture_output=True,
                          text=True, check=True)
    gib = float(done.stdout)
    assert gib < 1


def test_normalizer_fits_the_maps_of_a_view():
    maps = np.random.default_rng(0).lognormal(25, 1, (600, 16, 16)).astype(np.float32)
    norm = Normalizer.fit(MapView(maps, slice(550)))
    log = np.log10(maps[:550].astype(float))
    expected = [log.mean(), log.std()]
    np.testing.assert_allclose([norm.mean, norm.std], expected, rtol=1e-6)


def test_augment_takes_every_symmetry_and_repeats_with_its_generator():
    maps = torch.from_numpy(open_maps("PM", "CV").maps[:32].copy())
    x = maps.log10()[:, None]
    y = augment(x, torch.Generator().manual_seed(1))
    assert not torch.equal(x, y) and torch.equal(x, maps.log10()[:, None])
    assert torch.equal(y, augment(x, torch.Generator().manual_seed(1)))
    nine = torch.arange(9.0).view(1, 1, 3, 3).expand(2000, -1, -1, -1)
    turned = augment(nine, torch.Generator().manual_seed(0))[:, 0]
    corners = {tuple(m.flatten().tolist()) for m in turned}
    assert len(corners) == 8 * 9


class Server(http.server.BaseHTTPRequestHandler):
    """Serves files from memory as Apache does, but first the answers of its script.

    Writes down what is asked."""
    def log_message(self, *args): pass

    def answer(self, status, headers, body):
        self.send_response_only(status)
        headers = {"Date": "Tue, 02 Jan 2024 00:00:00 GMT"} | headers
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        script = self.server.script.get(self.path)
        if script: return self.answer(*script.pop(0))
        if self.path not in self.server.bodies: return self.answer(404, {}, b"")
        self.answer(*version(self.server.bodies[self.path], dict(self.headers)))


def version(body, asked, tag='"1"'):
    "What a good server answers about one version of a file."
    start = 0
    if asked.get("If-Range") == tag:
        start = int(asked["Range"].removeprefix("bytes=").rstrip("-"))
    if start >= len(body): return 416, {"Content-Range": f"bytes */{len(body)}"}, b""
    headers = {"ETag": tag, "Content-Length": len(body) - start}
    if start: headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
    return 206 if start else 200, headers, body[start:]


@pytest.fixture
def server(tmp_path):
    source = tmp_path / "server"
    source.mkdir()
    write_cmd(source)
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    httpd.bodies = {f"/Astrid/{p.name}": p.read_bytes() for p in source.iterdir()}
    httpd.asked, httpd.script = [], {}
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()
    thread.join()


MAPS, TABLE = "/Astrid/Maps_Mcdm_Astrid_LH_z=0.00.npy", "/Astrid/params_LH_Astrid.txt"
LOGIN = b"<!DOCTYPE html><html>Please log in</html>"


def address(httpd): return f"http://127.0.0.1:{httpd.server_port}"


def get(httpd, tmp_path, suite="Astrid", **kwargs):
    root = tmp_path / "CMD"
    return download(suite, "LH", root, base=address(httpd), wait=0, **kwargs)


def asked(httpd, path=MAPS, header="Range"):
    return [headers.get(header) for at, headers in httpd.asked if at == path]


def named(tmp_path):
    return sorted(path.name for path in (tmp_path / "CMD").iterdir()
                  if not path.name.endswith(".lock"))


def half(body, tag='"1"'):
    "The first half of a file, and the connection is gone."
    status, headers, _ = version(body, {}, tag)
    return status, headers, body[:len(body) // 2]


def test_download_goes_on_after_a_break(tmp_path, server):
    body = server.bodies[MAPS]
    n, half_n = len(body), len(body) // 2
    shorter = {"ETag": '"1"', "Content-Range": f"bytes {half_n}-{n - 1}/{n}",
               "Content-Length": n - half_n}
    server.script = {MAPS: [half(body), (206, shorter, body[half_n:-9])]}
    assert len(get(server, tmp_path)) == 60
    assert asked(server) == [None, f"bytes={half_n}-", f"bytes={n - 9}-"]
    assert asked(server, header="If-Range") == [None, '"1"', '"1"']
    assert (tmp_path / "CMD" / Path(MAPS).name).read_bytes() == body
    assert named(tmp_path) == [Path(MAPS).name, Path(TABLE).name]  # no remains
    times = len(server.asked)
    get(server, tmp_path)
    assert len(server.asked) == times  # nothing is asked twice


def test_a_full_disk_keeps_what_has_come(tmp_path, server):
    message = r"z=0.00.npy.part: it could not be written \(File too large\); make room"
    with full_disk(20_000), pytest.raises(OSError, match=message):
        get(server, tmp_path)
    assert len(get(server, tmp_path)) == 60 and asked(server) == [None, "bytes=20000-"]
    assert named(tmp_path) == [Path(MAPS).name, Path(TABLE).name]


def test_download_gives_up_and_keeps_what_came(tmp_path, server):
    body = server.bodies[MAPS]
    server.script = {MAPS: [half(body), (503, {}, b"")]}
    message = "keeps what has come; run the same command again"
    with pytest.raises(ConnectionError, match=message):
        get(server, tmp_path, tries=2)
    part = Path(MAPS).name + ".part"
    assert named(tmp_path) == [part, f"{part}.json"]
    assert len(get(server, tmp_path)) == 60
    assert asked(server)[-1] == f"bytes={len(body) // 2}-"


def test_a_download_that_was_killed_before_the_last_step_asks_for_nothing(
        tmp_path, server):
    body = server.bodies[MAPS]
    server.script = {MAPS: [half(body)]}
    with pytest.raises(ConnectionError): get(server, tmp_path, tries=1)
    (tmp_path / "CMD" / (Path(MAPS).name + ".part")).write_bytes(body)
    assert len(get(server, tmp_path)) == 60 and len(asked(server)) == 1


def _span(start, end, total): return {"Content-Range": f"bytes {start}-{end}/{total}"}


LATER = {"Last-Modified": "Mon, 01 Jan 2024 01:00:00 GMT"}
# What a server may answer, asked for the half from h on of n bytes, when the file has
# become another.
CHANGED = {
    "all of the new version": lambda new, h, n: version(new, {}, '"2"'),
    "its half, with its tag": lambda new, h, n: (
        206, {"ETag": '"2"'} | _span(h, n - 1, n), new[h:]),
    "its half, with its time": lambda new, h, n: (
        206, LATER | _span(h, n - 1, n), new[h:]),
    "its half, of another size": lambda new, h, n: (
        206, _span(h, n + 8, n + 9), new[h:] + bytes(9)),
    "other bytes, as many": lambda new, h, n: (
        206, _span(h - 9, n - 10, n), new[h - 9:-9]),
    "no range": lambda new, h, n: (206, {}, new[h:]),
    "bytes without end": lambda new, h, n: (
        206, _span(h, n - 1, n), new[h:] + bytes(9)),
    "not so many": lambda new, h, n: (416, {}, b""),
}


@pytest.mark.parametrize("kind", CHANGED)
def test_two_versions_are_never_joined(tmp_path, server, kind):
    old, h = server.bodies[MAPS], len(server.bodies[MAPS]) // 2
    new = old[:128] + old[:127:-1]  # as long, other maps
    status, headers, body = half(old)
    headers["Last-Modified"] = "Mon, 01 Jan 2024 00:00:00 GMT"
    changed = CHANGED[kind](new, h, len(old))
    server.script = {MAPS: [(status, headers, body), changed, version(new, {}, '"2"')]}
    path = tmp_path / "maps.npy"
    assert fetch_file(address(server) + MAPS, path, lambda part: None, tries=5, wait=0)
    assert path.read_bytes() == new
    tags = asked(server, header="If-Range")
    assert tags == [None, '"1"', None][:len(tags)]  # the old half is dropped


@pytest.mark.parametrize("headers, condition", [
    ({"ETag": '"a"'}, '"a"'),
    ({"ETag": 'W/"a"'}, None),
    ({}, None),
    ({"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"},
     "Mon, 01 Jan 2024 00:00:00 GMT"),
    ({"Last-Modified": "Tue, 02 Jan 2024 00:00:00 GMT"},  # as young as the answer
     None),
])
def test_only_what_surely_tells_versions_apart_lets_a_download_go_on(
        tmp_path, server, headers, condition):
    body = server.bodies[MAPS]
    headers = {"Content-Length": len(body)} | headers
    server.script = {MAPS: [(200, headers, body[:5000])]}
    assert len(get(server, tmp_path)) == 60
    assert asked(server, header="If-Range") == [None, condition]
    assert asked(server) == [None, condition and "bytes=5000-"]


def test_files_of_two_addresses_are_never_joined(tmp_path, server):
    body = server.bodies[MAPS]
    server.script = {MAPS: [half(body), (404, {}, b"")]}
    other = "/" + Path(MAPS).name
    server.bodies[other] = body[:128] + body[:127:-1]  # with the same tag
    with pytest.raises(ConnectionError): get(server, tmp_path, tries=1)
    path = tmp_path / "CMD" / Path(MAPS).name
    get_at = f"http://127.0.0.1:{server.server_port}"
    assert not fetch_file(get_at + MAPS, path, lambda part: None, tries=1, wait=0)
    assert fetch_file(get_at + other, path, lambda part: None, tries=1, wait=0)
    assert path.read_bytes() == server.bodies[other] and asked(server, other) == [None]


def sha(body): return base64.b64encode(hashlib.sha256(body).digest()).decode()


def other_digest(body):
    headers = {"Repr-Digest": f"sha-256=:{sha(b'')}:", "ETag": '"0"'}
    return headers | {"Content-Length": len(body)}, body


BAD_ANSWERS = {
    "a login page": (
        MAPS, lambda body: ({"Content-Length": len(LOGIN)}, LOGIN), "login page"),
    "nothing": (MAPS, lambda body: ({}, b""), "login page"),
    "too few bytes": (MAPS, lambda body: ({}, body[:-1]), "truncated"),
    "too many bytes": (MAPS, lambda body: ({}, body + b"!"), "1 bytes after its maps"),
    "another digest": (MAPS, other_digest, "SHA-256"),
    "another digest, older header": (
        MAPS, lambda body: ({"Digest": f"SHA-256={sha(b'')}"}, body), "SHA-256"),
    "a login page for a table": (
        TABLE, lambda body: ({}, LOGIN), "table of numbers"),
    "a table cut short": (
        TABLE, lambda body: ({"Content-Length": len(body)}, body[:-30]),
        "bytes have come"),
    "a table cut between two rows": (
        TABLE, lambda body: ({}, body[:body[:-1].rindex(b"\n") + 1]),
        "expected a row for each 15 of the 60 maps .*found 3"),
    "a table cut within its last number": (
        TABLE, lambda body: ({}, body[:-9]), "line's end after the last row"),
    "a table cut before its last byte": (
        TABLE, lambda body: ({}, body[:-1]), "line's end after the last row"),
    "a table of one column": (TABLE, lambda body: ({}, b"1\n2\n"), "columns"),
}


def npy(maps):
    np.save(file := io.BytesIO(), maps)
    return file.getvalue()


@pytest.mark.parametrize("kind", BAD_ANSWERS)
def test_what_is_not_the_file_never_takes_its_name(tmp_path, server, kind):
    path, make, problem = BAD_ANSWERS[kind]
    answer = 200, *make(server.bodies[path])
    server.script = {path: [answer, answer]}
    with pytest.raises(ConnectionError, match=problem) as e:
        get(server, tmp_path, tries=2)
    assert path in str(e.value)
    assert len(asked(server, path)) == 2  # it is asked for again
    assert Path(path).name not in named(tmp_path)
    server.script = {path: [answer]}
    assert len(get(server, tmp_path, tries=2)) == 60
    assert (tmp_path / "CMD" / Path(path).name).read_bytes() == server.bodies[path]


def test_maps_that_were_there_and_are_damaged_are_named_before_a_table_comes(
        tmp_path, server):
    get(server, tmp_path)
    root = tmp_path / "CMD"
    cut_off(root)
    table_file(root).unlink()
    with pytest.raises(ValueError, match="is truncated"): get(server, tmp_path)
    assert Path(TABLE).name not in named(tmp_path)


def test_a_login_page_does_not_cost_what_has_come(tmp_path, server):
    body = server.bodies[MAPS]
    server.script = {MAPS: [half(body), (200, {"ETag": '"login"'}, LOGIN)]}
    assert len(get(server, tmp_path)) == 60
    assert asked(server) == [None, *2 * [f"bytes={len(body) // 2}-"]]


def test_a_digest_of_the_first_answer_counts_for_the_last(tmp_path, server):
    status, headers, body = half(server.bodies[MAPS])
    headers = headers | {"Repr-Digest": f"sha-256=:{sha(b'')}:"}
    server.script = {MAPS: [(status, headers, body)]}
    with pytest.raises(ConnectionError, match="SHA-256"): get(server, tmp_path, tries=2)
    assert asked(server) == [None, f"bytes={len(body)}-"] and named(tmp_path) == []


@pytest.mark.parametrize("headers", [
    lambda body: {},
    lambda body: {"Repr-Digest": f"sha-512=:AAAA:, sha-256=:{sha(body)}:"},
    lambda body: {"ETag": '"d41d8cd98f00b204e9800998ecf8427e"',  # looks like an MD5
                  "Content-Length": len(body)},
])
def test_what_a_server_may_leave_out(tmp_path, server, headers):
    server.script = {path: [(200, headers(body), body)]
                     for path, body in server.bodies.items()}
    assert len(get(server, tmp_path)) == 60 and len(server.asked) == 2


@pytest.mark.parametrize("status", [408, 429, 500, 503])
@pytest.mark.parametrize("after, pause", [
    (None, 0.5),
    ("7", 7),
    ("86400", 120),
    ("Sat, 01 Jan 2000 00:00:00 GMT", 0),
    ("soon", 0.5),
])
def test_a_busy_server_is_asked_again_when_it_says(
        tmp_path, server, monkeypatch, status, after, pause):
    slept = []
    monkeypatch.setattr("cosmoflow.fetch.time.sleep", slept.append)
    server.script = {MAPS: [(status, {"Retry-After": after} if after else {}, b"")]}
    download("Astrid", "LH", tmp_path / "CMD", base=address(server), wait=0.5)
    assert slept == [0, pause, 0] and len(asked(server)) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 405, 451])
@pytest.mark.parametrize("suite, path", [
    ("Astrid", MAPS),
    ("Nbody_Astrid", "/Nbody/Maps_Mtot_Nbody_Astrid_LH_z=0.00.npy"),
])
def test_a_refusal_is_told_as_what_it_is(tmp_path, server, status, suite, path):
    server.script = {path: [(status, {}, b"")]}
    with pytest.raises(PermissionError, match=f"{path}: the server refuses .{status}"):
        get(server, tmp_path, suite)
    assert server.asked[-1][0] == path and len(asked(server, path)) == 1


@pytest.mark.parametrize("status", [404, 410])
def test_no_such_file_leads_to_the_next_address(tmp_path, server, status):
    server.script = {MAPS: [(status, {}, b"")]}
    server.bodies["/" + Path(MAPS).name] = server.bodies[MAPS]
    assert len(get(server, tmp_path)) == 60
    with pytest.raises(FileNotFoundError) as e: get(server, tmp_path, "SIMBA")
    name = "Maps_Mcdm_SIMBA_LH_z=0.00.npy"
    assert f"/SIMBA/{name}, " in str(e.value)
    assert f"/{name}: the server has no such file" in str(e.value)


def test_two_downloads_of_one_file_do_not_mix(tmp_path, server, monkeypatch):
    asks, goes_on = threading.Event(), threading.Event()
    send = http.server.BaseHTTPRequestHandler.send_response_only

    def held_back(self, *args):
        asks.set()
        goes_on.wait(10)
        send(self, *args)

    monkeypatch.setattr(Server, "send_response_only", held_back)
    first = threading.Thread(target=get, args=(server, tmp_path))
    first.start()
    try:
        assert asks.wait(60)
        message = f"{Path(MAPS).name}: another download is at work"
        with pytest.raises(BlockingIOError, match=message):
            get(server, tmp_path)
    finally:
        goes_on.set()
        first.join()
    assert named(tmp_path) == [Path(MAPS).name, Path(TABLE).name]
    assert len(server.asked) == 2


@pytest.mark.parametrize("to, follows", [
    ("https://other.org/", True),
    ("http://other.org/", False),
    ("ftp://other.org/", False),
])
def test_https_is_never_left(tmp_path, server, monkeypatch, to, follows):
    asked = []

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, request):
            asked.append(request.full_url)
            name = request.full_url.rsplit("/", 1)[1]
            body = io.BytesIO(server.bodies.get(f"/Astrid/{name}", b""))
            status, headers = 302, {"Location": to + name}
            if request.host == "other.org": status, headers = 200, {}
            message = email.message.Message()
            for name, value in headers.items(): message[name] = value
            answer = urllib.response.addinfourl(body, message, request.full_url, status)
            answer.msg = ""
            return answer

    opener = urllib.request.build_opener(_SafeRedirects, Https)
    monkeypatch.setattr("cosmoflow.fetch._open", opener.open)
    ask = lambda: download("Astrid", "LH", tmp_path, base="https://cmd.org", wait=0)
    if follows:
        assert len(ask()) == 60 and len(asked) == 4
    else:
        with pytest.raises(PermissionError, match=f"sends us on to {to}"): ask()
        assert len(asked) == 1  # and neither again nor elsewhere


@pytest.mark.parametrize("opens", [open_maps, download])
@pytest.mark.parametrize("name, value", [
    ("suite", "astrid"),
    ("set", "lh"),
    ("field", "mcdm"),
    ("field", "../../Mcdm"),
    ("field", ""),
])
def test_names_that_cmd_does_not_have(tmp_path, opens, name, value):
    given = {"suite": "Astrid", "set": "LH", "root": tmp_path / "CMD", "field": None}
    given[name] = value
    message = f"^{name}='{value}' is unknown: expected one of .*, "
    with pytest.raises(ValueError, match=message):
        opens(**given)
    assert not (tmp_path / "CMD").exists()


@pytest.mark.parametrize("change, problem", [
    ({"suite": "PM"}, "not on CMD's server"),
    ({"tries": 0}, "1 or more"),
    ({"base": "file:///etc"}, "https://"),
    ({"base": "www.cmd.org"}, "https://"),
])
def test_what_cannot_be_downloaded(tmp_path, change, problem):
    with pytest.raises(ValueError, match=problem):
        download(**{"suite": "Astrid", "set": "LH", "root": tmp_path / "CMD"} | change)
    assert not (tmp_path / "CMD").exists()


@pytest.mark.parametrize("set", ("LH", "1P", "CV", "CDM", "WDM"))
def test_every_shipped_map_is_far_from_what_is_refused(set):
    "Half of the margin is left, so that maps of warmer or emptier worlds pass, too."
    normal = Normalizer.fit(open_maps("PM", "LH", sims=slice(0, 20)).maps)
    replace(normal, std=normal.std / 2).check(open_maps("PM", set).maps)


def test_maps_that_are_changed_in_memory_alone_stay_changed(tmp_path):
    np.save(tmp_path / "maps.npy", np.ones((3, 16, 16), np.float32))
    maps = np.load(tmp_path / "maps.npy", mmap_mode="c")
    maps *= 2
    assert all((batch == 2).all() for _ in range(2) for batch in batches(maps))


def test_batches_cover_everything():
    maps = np.arange(1300, dtype=np.float32).reshape(1300, 1, 1)
    assert np.concatenate(list(batches(maps))).ravel().tolist() == list(range(1300))
    view = MapView(maps, [5, 3, 900])
    assert np.concatenate(list(batches(view, size=2))).ravel().tolist() == [5, 3, 900]


PARTS = {"one map too few": [2, 1], "one too many": [2, 2, 1], "none": []}


@pytest.mark.parametrize("kind", (np.float32, np.float64, ">f4", np.int32))
def test_maps_written_piece_by_piece_are_those_written_at_once(tmp_path, kind):
    maps = np.arange(4 * 16).reshape(4, 4, 4).astype(kind)
    write_maps(tmp_path / "a.npy", maps.shape, (maps[i:i + 3] for i in (0, 3)))
    np.save(tmp_path / "b.npy", maps.astype(np.float32))
    written, saved = ((tmp_path / name).read_bytes() for name in ("a.npy", "b.npy"))
    assert written == saved


@pytest.mark.parametrize("what", PARTS)
def test_maps_that_are_not_all_there_make_no_file(tmp_path, what):
    (tmp_path / "maps.npy").write_bytes(b"old")
    parts = (np.ones((n, 4, 4), np.float32) for n in PARTS[what])
    with pytest.raises(ValueError, match="maps.npy: expected 64 pixels, .* found "):
        write_maps(tmp_path / "maps.npy", (4, 4, 4), parts)
    assert os.listdir(tmp_path) == ["maps.npy"]
    assert (tmp_path / "maps.npy").read_bytes() == b"old"


def test_a_full_disk_leaves_no_half_written_maps(tmp_path):
    parts = (np.ones((1, 64, 64), np.float32) for _ in range(9))
    with full_disk(40_000), pytest.raises(OSError, match="maps.npy: it could not be"):
        write_maps(tmp_path / "maps.npy", (9, 64, 64), parts)
    assert not os.listdir(tmp_path)


def test_a_download_opens_the_maps_no_more_often_than_it_must(
        tmp_path, server, monkeypatch):
    "As they came, beside the table, and to give them; each look is a look at a disk."
    seen, load = [], data_module._load_maps
    def note(path):
        seen.append(path.name)
        return load(path)
    monkeypatch.setattr(data_module, "_load_maps", note)
    get(server, tmp_path)
    assert len(seen) == 4, seen  # of a new file, also before it takes its name
    seen.clear()
    get(server, tmp_path)
    assert len(seen) == 1, seen  # to give them


@pytest.mark.parametrize("start, stop", [(0, 40), (60, 120), (100, 120), (20, 60)])
def test_a_range_of_a_suite_keeps_every_simulation_in_its_part(start, stop):
    "Whoever trains on a range and tests on all must not test on what was trained."
    whole = open_maps("PM", "LH")
    some = open_maps("PM", "LH", sims=slice(start, stop))
    np.testing.assert_array_equal(some.numbers, np.arange(start, stop))
    for part, all_of_it in zip(some.split(), whole.split()):
        assert set(part.numbers) < set(all_of_it.numbers)
        np.testing.assert_array_equal(part.params, whole.params[part.numbers])
    again = whole.simulations(range(start, stop)).split()[2]  # picked by hand
    np.testing.assert_array_equal(again.numbers, some.split()[2].numbers)
    np.testing.assert_array_equal(again.maps, some.split()[2].maps)


@pytest.mark.parametrize("wrong", ([0, 1], [0.5] * 10, [-1] * 10, [[0] * 10],
                                   [10**7] * 10))
def test_numbers_of_simulations_are_one_for_each(wrong):
    with pytest.raises(ValueError, match="numbers: .*for each of 10 simulations"):
        MapData(np.ones((20, 4, 4), np.float32), np.ones((10, 2)), numbers=wrong)


@pytest.mark.parametrize("path", (MAPS, TABLE))
def test_a_folder_in_a_file_s_place_is_said_before_anything_is_asked(
        tmp_path, server, path):
    place = tmp_path / "CMD" / Path(path).name
    place.mkdir(parents=True)
    message = f"{place.name}: expected a file, but it is a folder; choose another"
    with pytest.raises(IsADirectoryError, match=message): get(server, tmp_path)
    assert not server.asked and named(tmp_path) == [place.name]
    with pytest.raises(FileNotFoundError, match="no such file; "):
        open_maps("Astrid", "LH", tmp_path / "CMD")
    other = {MAPS: TABLE, TABLE: MAPS}[path]
    (place.parent / Path(other).name).write_bytes(server.bodies[other])
    with pytest.raises(FileNotFoundError, match=f"{place.name}: no such file; "):
        open_maps("Astrid", "LH", tmp_path / "CMD")


def test_a_simulation_that_is_drawn_several_times_is_in_one_part():
    "As in a bootstrap: its copies must not tell training what the test holds."
    data = open_maps("PM", "LH", sims=slice(0, 40))
    for seed in range(20):
        drawn = data.simulations(np.random.default_rng(seed).integers(0, 40, 40))
        parts = drawn.split()
        numbers = [set(part.numbers.tolist()) for part in parts]
        assert not (numbers[0] & numbers[1] | numbers[0] & numbers[2]
                    | numbers[1] & numbers[2])
        assert sum(part.n_sims for part in parts) == 40


class InOrder:
    "Maps in a file that is read as HDF5 reads: in rising order, each once."
    def __init__(self, maps):
        self.maps, self.shape, self.dtype, self.ndim = maps, maps.shape, maps.dtype, 3
    def __len__(self): return len(self.maps)
    def __array__(self, dtype=None, copy=None): return np.array(self.maps, dtype)
    def __getitem__(self, which):
        if isinstance(which, np.ndarray): assert (np.diff(which) > 0).all()
        return self.maps[which]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_view_reads_a_file_in_its_order_and_answers_in_yours(dtype):
    maps = np.random.default_rng(0).lognormal(size=(30, 16, 16)).astype(dtype)
    view = MapView(InOrder(maps), slice(None), np.float32)
    for which in (3, [4, 2, 2, 9], slice(5, 2, -1), np.arange(6).reshape(2, 3)):
        np.testing.assert_array_equal(view[which], maps[which].astype(np.float32))


def test_a_shape_of_numpy_s_numbers_makes_a_file_that_can_be_read(tmp_path):
    maps = np.ones((2, 16, 16), np.float32)
    write_maps(tmp_path / "maps.npy", tuple(np.array(maps.shape)), [maps])
    np.testing.assert_array_equal(np.load(tmp_path / "maps.npy"), maps)


@pytest.mark.parametrize("dtype", (np.float32, ">f8"))
@pytest.mark.filterwarnings("ignore:.*converted")
def test_workers_get_the_place_of_maps_and_not_the_maps(tmp_path, dtype):
    maps = np.arange(600 * 256.0).reshape(600, 16, 16).astype(dtype)
    write_cmd(tmp_path, sims=40, maps=maps)
    data = open_maps("Astrid", "LH", tmp_path, sims=slice(10, 40))
    for part in (data, *data.split(), data.simulations([5, 2], maps=[1])):
        sent = pickle.dumps(part)
        assert len(sent) < 8000  # the file has 600 kB and more
        for there in (pickle.loads(sent), copy.deepcopy(part)):
            np.testing.assert_array_equal(there.maps[:], part.maps[:])
            np.testing.assert_array_equal(there.numbers, part.numbers)
            np.testing.assert_array_equal(there[0][0], part[0][0])
    own = MapData(np.ones((20, 16, 16), np.float32), np.ones((10, 2)))
    assert isinstance(pickle.loads(pickle.dumps(own)).maps, np.ndarray)


def test_an_address_may_end_in_a_slash(tmp_path, server):
    server.bodies = {f"/CMD{path}": body for path, body in server.bodies.items()}
    download("Astrid", "LH", tmp_path / "CMD", base=f"{address(server)}/CMD/", wait=0)
    assert [path for path, _ in server.asked] == [f"/CMD{MAPS}", f"/CMD{TABLE}"]


TABLE_READ = """
import sys
from cosmoflow.data import open_maps
print(open_maps("Astrid", "LH", sys.argv[1]).params[0, 0])
"""


@pytest.mark.parametrize("encoding", ("utf-8", "utf-8-sig"))
def test_a_table_may_say_in_greek_what_its_columns_are(tmp_path, encoding):
    "Whatever the locale; some editors begin a file with a mark of their own."
    write_cmd(tmp_path)
    rows = table_file(tmp_path).read_text(encoding="utf-8")
    table_file(tmp_path).write_text(f"# \u03a9_m \u03c3_8\n{rows}", encoding=encoding)
    assert open_maps("Astrid", "LH", tmp_path).params.shape == (4, 6)
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", TABLE_READ, tmp_path], text=True,
                          env=os.environ | plain, capture_output=True)
    assert float(done.stdout) == float(rows.split()[0]), done.stderr


def test_a_download_that_is_there_is_opened_on_a_disk_that_is_read_only(
        tmp_path, server, monkeypatch):
    "As in the folder of a group, which a few may write to."
    get(server, tmp_path)
    server.asked.clear()
    def written(*_): raise PermissionError("read-only")
    for name in ("check_folder", "check_output", "alone"):
        monkeypatch.setattr(data_module, name, written)
    assert len(get(server, tmp_path)) == 60 and not server.asked
    table_file(tmp_path / "CMD").unlink()
    with pytest.raises(PermissionError, match="read-only"): get(server, tmp_path)

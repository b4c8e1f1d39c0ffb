"""Simulation runs: same bytes in any order, resumed after a kill, no mixing of settings."""
import json
import os
import subprocess

import numpy as np
import pytest
from conftest import COSMOFLOW, kill_when

from cosmoflow.data import open_maps
from cosmoflow.simulate import OMEGA_B, RHO_CRIT, round_mantissa, simulate, simulation_table

SMALL = dict(particles=16, pixels=16, steps=4)


def files(folder): return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_any_order_gives_the_same_bytes(tmp_path):
    simulate("LH", tmp_path / "a", slice(0, 4), **SMALL)
    for sims in (slice(3, 4), slice(0, 1), slice(1, 3)): simulate("LH", tmp_path / "b", sims, **SMALL)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    data = open_maps("PM", "LH", tmp_path / "a")
    np.testing.assert_allclose(data.params, simulation_table("LH").params[:4], atol=1e-5)
    expected = (data.params[:, 0] - OMEGA_B) * RHO_CRIT * 5
    np.testing.assert_allclose(data.maps.reshape(4, 3, -1).mean(2), np.repeat(expected[:, None], 3, 1), rtol=1e-4)
    manifest = json.loads((tmp_path / "a" / "manifest_LH.json").read_text(encoding="utf-8"))
    assert manifest["simulations"] == [0, 1, 2, 3] and manifest["versions"]["pmpp"] and manifest["settings"]["particles"] == 16


def test_some_simulations_keep_their_own_parameters(tmp_path):
    simulate("LH", tmp_path, slice(5, 7), **SMALL)
    data, table = open_maps("PM", "LH", tmp_path), simulation_table("LH")
    np.testing.assert_allclose(data.params, table.params[5:7], atol=1e-5)
    manifest = json.loads((tmp_path / "manifest_LH.json").read_text(encoding="utf-8"))
    assert manifest["simulations"] == [5, 6] and manifest["seeds"] == table.seeds[5:7].tolist()
    expected = (data.params[:, 0] - OMEGA_B) * RHO_CRIT * 5
    np.testing.assert_allclose(data.maps.reshape(2, -1).mean(1), expected, rtol=1e-4)


def test_killed_run_goes_on(tmp_path):
    args = [COSMOFLOW, "simulate", "--set", "LH", "--sims", "0:12", "--particles", "32", "--pixels", "16", "--out", str(tmp_path / "cut")]
    parts = tmp_path / "cut" / "parts" / "LH"
    kill_when(lambda: len(list(parts.glob("[0-9]*.npy"))) >= 2, *args)
    done = {p: p.stat().st_mtime_ns for p in parts.glob("[0-9]*.npy")}
    assert 2 <= len(done)
    subprocess.run(args, check=True, capture_output=True)
    assert all(p.stat().st_mtime_ns == t for p, t in done.items())  # nothing is done twice
    args[-1] = str(tmp_path / "whole")
    subprocess.run(args, check=True, capture_output=True)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_devices_share_a_simulation(tmp_path):
    "Two halves of a CPU as two devices: in a process of its own, since JAX counts devices when it starts."
    one = simulate("CV", tmp_path / "one", slice(0, 1), **SMALL)
    args = [COSMOFLOW, "simulate", "--set", "CV", "--sims", "0:1", "--particles", "16", "--pixels", "16", "--steps", "4", "--out", tmp_path / "two", "--devices", "2"]
    halves = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    subprocess.run(args, env=halves, check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "two" / one.name), np.load(one), rtol=1e-3)


def test_settings_do_not_mix(tmp_path):
    simulate("CV", tmp_path, slice(0, 1), **SMALL)
    with pytest.raises(ValueError, match="pixels=16 there, 8 asked"): simulate("CV", tmp_path, slice(0, 1), **{**SMALL, "pixels": 8})
    with pytest.raises(ValueError, match="selects none"): simulate("CV", tmp_path, slice(27, 30), **SMALL)
    with pytest.raises(ValueError, match="set='XX'"): simulate("XX", tmp_path, **SMALL)
    with pytest.raises(ValueError, match="devices=99: JAX finds"): simulate("CV", tmp_path / "new", slice(0, 1), **SMALL, devices=99)
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="keep_bits=0"): simulate("CV", tmp_path, slice(0, 1), **SMALL, keep_bits=0)


def test_tables():
    one_p = simulation_table("1P")
    assert one_p.params.tolist() == [[o, 0.8] for o in (0.1, 0.2, 0.3, 0.4, 0.5)] + [[0.3, s] for s in (0.6, 0.7, 0.8, 0.9, 1.0)]
    assert len(set(one_p.seeds)) == 1
    cv = simulation_table("CV")
    assert len(cv) == 27 and len(set(cv.seeds)) == 27 and (cv.params == [0.3, 0.8]).all()
    wdm, cdm = simulation_table("WDM"), simulation_table("CDM")
    assert (wdm.params[:, :2] == cdm.params).all() and (wdm.seeds == cdm.seeds).all()
    assert wdm.param_names[2] == "m_WDM_keV" and 0.25 <= wdm.params[:, 2].min() and wdm.params[:, 2].max() <= 1
    assert not set(wdm.seeds) & set(simulation_table("LH").seeds)


def test_round_mantissa():
    x = np.random.default_rng(0).lognormal(25, 2, 10_000).astype(np.float32)
    for bits in (1, 6, 22):
        y = round_mantissa(x, bits)
        assert np.abs(y / x - 1).max() <= 2.0 ** -(bits + 1) and not (y.view(np.uint32) & ((1 << (23 - bits)) - 1)).any()
        np.testing.assert_array_equal(round_mantissa(y, bits), y)
    np.testing.assert_array_equal(round_mantissa(x, 23), x)


@pytest.mark.parametrize("set, n", [("LH", 120), ("1P", 10), ("CV", 10), ("WDM", 14), ("CDM", 14)])
def test_shipped_suite(set, n):
    data = open_maps("PM", set)
    assert data.n_sims == n and data.maps.shape[1:] == (64, 64)
    expected = (data.params[:, 0] - OMEGA_B) * RHO_CRIT * 5
    np.testing.assert_allclose(data.maps.reshape(n, 3, -1).mean(2), np.repeat(expected[:, None], 3, 1), rtol=2e-3)  # six mantissa bits

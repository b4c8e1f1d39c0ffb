"""The benchmark times what it says it times: the ways of a job agree, and its record is whole."""
import json

import numpy as np
import pytest
import torch

from cosmoflow.bench import (Timing, Way, bench, ladder, network_flops, network_jobs, race, running, spectrum_by_loop, timing_table,
                             untrained, velocity_by_loop)
from cosmoflow.data import open_maps
from cosmoflow.spectra import power_spectrum

CPU = torch.device("cpu")


def test_ways_run_in_turns():
    calls = []
    timings = race("job", "size", {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, items=2, rounds=3)
    assert calls == ["a", "b"] * 4
    assert [t.way for t in timings] == ["a", "b"] and timings[0].ratio == 1 and all(t.seconds > 0 for t in timings)


def test_rungs_add_one_improvement_each():
    rungs = list(ladder(["mask_at_once", "channels_last"]).values())
    assert rungs == [Way(), Way(mask_at_once=True), Way(mask_at_once=True, channels_last=True)]


@pytest.mark.parametrize("way", [Way(), Way(fused_attention=True)])
def test_the_plain_velocity_is_the_velocity(way):
    model, g = untrained("tiny", CPU), torch.Generator().manual_seed(0)
    x, t, field = torch.randn(17, 1, 32, 32, generator=g), torch.linspace(0, 1, 17), torch.randn(17, 8, 2, 2, generator=g)
    kept = field.clone()
    with torch.no_grad(), running(way, CPU): plain = velocity_by_loop(model, x, t, field)
    with torch.no_grad(): velocity = model.velocity(x, t, field)
    assert torch.equal(field, kept) and velocity.std() > 0
    torch.testing.assert_close(plain, velocity, atol=1e-5, rtol=1e-4)


def test_a_timed_training_step_trains():
    jobs = dict(network_jobs(32, 2, CPU, ("training step",), False, "tiny", 0))
    step = jobs["training step"]["+ fused optimiser"]
    (model,) = [c.cell_contents for c in step.__closure__ if isinstance(c.cell_contents, torch.nn.Module)]
    before = [p.detach().clone() for p in model.parameters()]
    step()
    assert all(not torch.equal(p, b) for p, b in zip(model.parameters(), before))


def test_plain_spectrum_is_the_spectrum():
    maps = np.array(open_maps("PM", "LH").maps[:2])
    np.testing.assert_allclose(spectrum_by_loop(maps), power_spectrum(maps)[1], rtol=1e-5)


def test_flops_of_the_paper_s_networks():
    at64, at128 = network_flops(64), network_flops(128)
    assert 10 < at64["UNet"] < 13.3 and 0.5 < at64["encoder"] < 0.7    # the published UNet: 13.3
    assert 4.1 < at128["UNet"] / at64["UNet"] < 4.2                     # convolutions grow with the pixels, attention with their square


def test_record(tmp_path, capsys):
    path = bench(tmp_path, (64,), rounds=1, batch=1, jobs=("velocity", "padding", "power spectra"), preset="tiny", device=CPU)
    record, printed = json.loads(path.read_text()), capsys.readouterr().out
    timings = [Timing(**t) for t in record["timings"]]
    plain = [t for t in timings if t.way in ("plain", "torch's gradient", "ring by ring")]
    assert [t.job for t in plain] == ["velocity", "padding", "power spectra"] and all(t.ratio == 1 for t in plain)
    assert timing_table(timings[-2:]) in printed and record["rates"]["float32"] > 0 and str(64) in record["gflop"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("change, message", [(dict(pixels=(96,)), "multiples of 64"), (dict(rounds=0), "rounds=0"), (dict(jobs=("sleep",)), "sleep not known: expected some of training step")])
def test_bad_arguments(tmp_path, change, message):
    with pytest.raises(ValueError, match=message): bench(tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()

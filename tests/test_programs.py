"""The programs beside the notebooks run from their command line."""
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch
from pytest import fixture, mark

from cosmoflow.core import read_json
from cosmoflow.data import Normalizer, open_maps
from cosmoflow.flow import Bands

EXPERIMENTS = Path(__file__).resolve().parents[1] / "nbs" / "experiments"


def test_transfer_goes_over_all_kinds_and_goes_on(tmp_path):
    "Few universes stop no other run, and what is there is not run again."
    command = [sys.executable, EXPERIMENTS / "_transfer.py", "--out", tmp_path,
               "--first", "PM", "LH", "-", "--second", "PM", "LH", "-", "--seen", "60",
               "--kinds", "flow", "cnn", "--starts", "mini", "--sizes", "5",
               "--seeds", "0", "--large", ""]
    run = lambda: subprocess.run(command, check=True, capture_output=True, text=True,
                                 encoding="utf-8").stdout
    said = run()
    assert "flow_mini_005_0: not run" in said
    (path,) = tmp_path.glob("*.json")
    found = read_json(path)
    assert found["simulations"] == [20, 21, 22, 23, 24]
    assert len(found["new"]["by_simulation"][0]) == 20
    assert "cnn_labels_005_0: new" in said and "cnn_labels" not in run()


@fixture(scope="module")
def study():
    "The program on timetables, as a module."
    spec = spec_from_file_location("timetables", EXPERIMENTS / "_timetables.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@mark.parametrize("way", ["bands, overlapping", "fading, stopped gradients and noise"])
def test_timetables_measures_a_training_once(tmp_path, monkeypatch, study, way):
    "One short training gives every number of the record, and is not run again."
    data = open_maps("PM", "LH", sims=slice(0, 20), pixels=32)
    monkeypatch.setattr(study, "WIDTH", 8)
    monkeypatch.setattr(study, "records_folder", lambda: tmp_path)
    study.main(tmp_path, [0], [way], data, epochs=1)
    (path,) = tmp_path.glob("*_0/measured.json")
    found = read_json(path)
    kept = read_json(tmp_path / "timetables" / "timetables.json")["results"]
    assert {row["quantity"]: row["value"] for row in kept} == found
    assert 0 <= found["score, coarse first"] <= 1 and found["validation loss"] > 0
    monkeypatch.setattr(study, "train", None)
    assert study.run(way, 0, tmp_path, data, 1) == found


def test_bands_with_other_times_keep_the_rules_of_the_path(study):
    "All end at the map, at the speed told."
    t = 0.98 * torch.cat([torch.rand(32), torch.arange(16) / 16]).double()
    x0, x1 = torch.randn(2, len(t), 1, 32, 32).double()
    step = 1e-7
    for way in study.WAYS.values():
        if way.bands is None: continue
        times = Bands(**way.bands)
        assert torch.allclose(times.path(x0, x1, torch.ones_like(t))[0], x1)
        (x, speed), (later, _) = (times.path(x0, x1, now) for now in (t, t + step))
        wrong = ((later - x) / step - speed).abs().flatten(1).amax(1) > 1e-3
        assert wrong.sum() <= 2  # where a band begins within the step
        most = times.mask(t).sum((1, 2, 3)).max()
        assert most == (2 if way.bands.get("early") else 1)


def test_only_the_channel_that_goes_dark_next_learns(study):
    "Gradients stop at channels that live longer; in training all are noisy."
    model = study.NewestLearns.from_preset("tiny", Normalizer(10.0, 1.0, 1e6)).train()
    x, t = torch.randn(4, 1, 32, 32), torch.tensor([0.0, 0.3, 0.6, 0.95])
    field = torch.randn(4, 8, 2, 2, requires_grad=True)
    model.velocity(x, t, field).square().sum().backward()
    moved = field.grad.flatten(2).abs().sum(2) > 0
    assert moved.nonzero().tolist() == [[0, 7], [1, 5], [2, 3], [3, 0]]
    draws = [model.train(mode).velocity(x, t, field) for mode in (True, True, False)]
    assert torch.equal(*draws[:2]) and not torch.equal(*draws[1:])
